/**
 * Values as packets: what a task takes and returns, as one piece of contiguous bytes.
 *
 * JSON loses most of what programs hold, `structuredClone` has no bytes to send, and V8's own serializer copies every
 * buffer and flattens instances of unknown classes without a word. A packet is a msgpack head, which any language can
 * read, and behind it the large buffers, aligned to 64 bytes, so that they are copied once (into the store) and read
 * in place. Identity within a value is kept: shared and cyclic references, and views of one buffer. Whatever cannot
 * travel is an error that names its path.
 *
 * This file is the door; `docs/value_format.md` has the bytes, `serialize_format.ts` the vocabulary. Nothing here may
 * keep state between values other than the registered classes and pools.
 *
 * @module
 */

export { pack, type Packet, type PackExtension, type PackOptions } from "./serialize_pack.ts";
export { unpack, type UnpackExtension, type UnpackOptions } from "./serialize_unpack.ts";
export { type ClassCodec, registerClass } from "./serialize_class.ts";
export { BUFFER_ALIGNMENT_BYTES, OUT_OF_BAND_BYTES_MIN, VALUE_DEPTH_MAX } from "./serialize_format.ts";
