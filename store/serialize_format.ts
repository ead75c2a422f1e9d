/**
 * The vocabulary of the value format: versions, flags, node tags, kinds and limits that the packer and the unpacker
 * must agree on. `docs/value_format.md` describes the bytes; a change of anything here is a change of the format.
 *
 * The head is plain msgpack without extension types, so that any msgpack decoder can walk it. What msgpack has no
 * word for is a map of one entry whose key is an integer (a tag below): properties of objects have string keys, so
 * the two cannot be confused.
 *
 * @module
 */

/** The first byte of every packet. */
export const FORMAT_VERSION = 1;

/** Flag: the value holds back references, so the unpacker must number objects. */
export const FLAG_REFERENCES = 1;
/** Flag: the packet has the long header, and a table of buffers behind the value. */
export const FLAG_BUFFERS = 2;

/** Version and flags. */
export const SHORT_HEADER_BYTES = 2;
/** Version, flags, two zero bytes, length of the value, length of the table. */
export const LONG_HEADER_BYTES = 12;

/** Out-of-band buffers start at multiples of this, counted from the packet's start. */
export const BUFFER_ALIGNMENT_BYTES = 64;
/** Buffers shorter than this lie inside the head. */
export const OUT_OF_BAND_BYTES_MIN = 256;

/** Containers may be nested this deep; both sides refuse more. Half of V8's default stack in unoptimised frames. */
export const VALUE_DEPTH_MAX = 1000;
/** Resizable buffers that a packet may hold; each is a memory mapping of its own. */
export const RESIZABLE_BUFFERS_MAX = 256;
/** What the resizable buffers of a packet may reserve together. */
export const RESIZABLE_RESERVED_BYTES_MAX = 64 * 1024 ** 3;

// Node tags. All are positive fixints.
export const TAG_UNDEFINED = 0;
export const TAG_REFERENCE = 1;
export const TAG_STRING16 = 2;
export const TAG_BIGINT = 3;
export const TAG_DATE = 4;
export const TAG_REGEXP = 5;
export const TAG_MAP = 6;
export const TAG_SET = 7;
export const TAG_ARRAY = 8;
export const TAG_BOXED = 9;
export const TAG_BUFFER = 10;
export const TAG_VIEW = 11;
export const TAG_ERROR = 12;
export const TAG_DOM_EXCEPTION = 13;
export const TAG_CLASS = 14;
export const TAG_HANDLE = 15;

// Kinds of entries in the table of buffers.
/** An ArrayBuffer that the value reaches through views only: just the bytes that the views cover. */
export const BUFFER_VIEWED = 0;
/** An ArrayBuffer that is itself part of the value. */
export const BUFFER_WHOLE = 1;
export const BUFFER_SHARED = 2;
export const BUFFER_RESIZABLE = 3;
export const BUFFER_GROWABLE_SHARED = 4;

/** Typed arrays by the kind number that a view carries. */
export const VIEW_CLASSES = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float16Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;

/** The kind number of a DataView. */
export const VIEW_DATA = VIEW_CLASSES.length;

/** Error classes by the number that an error carries. */
export const ERROR_CLASSES: readonly (ErrorConstructor | AggregateErrorConstructor)[] = [
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
  AggregateError,
];

/** The start of the first out-of-band buffer at or behind `offset`. */
export function alignBuffer(offset: number): number {
  return Math.ceil(offset / BUFFER_ALIGNMENT_BYTES) * BUFFER_ALIGNMENT_BYTES;
}

/** Gives `target` an own property, also where assignment would reach a setter (`__proto__`). */
export function define(target: object, key: string, value: unknown, enumerable = true): void {
  Object.defineProperty(target, key, { value, enumerable, writable: true, configurable: true });
}
