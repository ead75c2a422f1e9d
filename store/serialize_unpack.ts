/**
 * Packets to values. The bytes may come from anyone, so nothing in them is believed: every length is held against the
 * bytes that are left before anything of that length is made, nesting is limited, and whatever goes wrong is a
 * {@link SerializationError} that names the byte. What a packet can make this allocate is a small multiple of its own
 * length.
 *
 * @module
 */

import { SerializationError } from "../core/errors.ts";
import { registeredByName } from "./serialize_class.ts";
import * as format from "./serialize_format.ts";
import {
  alignBuffer,
  define,
  ERROR_CLASSES,
  LONG_HEADER_BYTES,
  SHORT_HEADER_BYTES,
  VALUE_DEPTH_MAX,
  VIEW_CLASSES,
  VIEW_DATA,
} from "./serialize_format.ts";
import { HeadReader } from "./serialize_reader.ts";
import { showError } from "./serialize_trail.ts";

/** Brings back what a `PackExtension` carried. */
export interface UnpackExtension {
  /** @returns The object that the handle stands for. */
  unpack(tag: number, data: Uint8Array | string | number): unknown;
}

/** How to unpack a value. */
export interface UnpackOptions {
  /** Brings back handles; a packet with handles is refused without it. */
  extension?: UnpackExtension;
  /**
   * Whether large buffers share the packet's memory instead of being copied.
   *
   * - `true`: typed arrays and DataViews are views of `bytes.buffer` (so their `buffer` is all of it). ArrayBuffers
   *   that are themselves part of the value are copied, with the views of them.
   * - a function: makes an ArrayBuffer over exactly these bytes of the packet; ArrayBuffers are shared as well.
   *
   * SharedArrayBuffers, resizable buffers and small buffers are always copied, and so is a buffer that does not lie
   * at a multiple of 8 in memory.
   */
  share?: boolean | ((offset: number, byteLength: number) => ArrayBuffer);
  /** Called once when the first buffer that shares the packet's memory is made. */
  onShared?: () => void;
}

/** Stands for an object whose number is given but which is not built yet. */
const UNFINISHED = Symbol("unfinished");

/** An entry of the table of buffers. */
interface TableEntry {
  readonly kind: number;
  /** Where the bytes started in the packed buffer; views count from there. */
  readonly start: number;
  readonly offset: number;
  readonly length: number;
  readonly outOfBand: boolean;
  readonly reserve: number;
  /** The buffer, once it was asked for. */
  buffer: ArrayBufferLike | undefined;
  /** Where the entry's bytes are in `buffer`. */
  base: number;
}

type ViewConstructor = new (buffer: ArrayBufferLike, byteOffset: number, length?: number) => ArrayBufferView;

/** One pass over one packet. */
class Unpacker {
  readonly #head: HeadReader;
  readonly #options: UnpackOptions | undefined;
  #depth = 0;
  /** Objects by number; only if the packet has back references. */
  #objects: unknown[] | undefined;
  #table: TableEntry[] | undefined;
  #shared = false;

  constructor(bytes: Uint8Array, options: UnpackOptions | undefined) {
    this.#head = new HeadReader(bytes);
    this.#options = options;
  }

  unpack(): unknown {
    try {
      return this.#packet();
    } catch (error) {
      if (error instanceof SerializationError) throw error;
      throw this.#head.failure(showError(error), error);
    }
  }

  // --- The packet around the value ---

  #packet(): unknown {
    const bytes = this.#head.bytes;
    if (bytes.length <= SHORT_HEADER_BYTES) throw this.#head.failure("it ends within its header");
    if (bytes[0] !== format.FORMAT_VERSION) {
      throw this.#head.failure(
        `its format is version ${bytes[0]}, this runtime reads ${format.FORMAT_VERSION}`,
      );
    }
    const flags = bytes[1]!;
    if (flags > (format.FLAG_REFERENCES | format.FLAG_BUFFERS)) {
      throw this.#head.failure(`unknown flags ${flags}`);
    }
    if ((flags & format.FLAG_REFERENCES) !== 0) this.#objects = [];
    this.#head.at = SHORT_HEADER_BYTES;
    if ((flags & format.FLAG_BUFFERS) !== 0) {
      if (bytes.length < LONG_HEADER_BYTES) throw this.#head.failure("it ends within its header");
      const valueEnd = LONG_HEADER_BYTES + this.#head.bits32(4);
      const tableEnd = valueEnd + this.#head.bits32(8);
      if (tableEnd > bytes.length || this.#head.bits16(2) !== 0) {
        throw this.#head.failure("its header is not consistent");
      }
      this.#head.seek(valueEnd, tableEnd);
      this.#table = this.#readTable();
      this.#head.seek(LONG_HEADER_BYTES, valueEnd);
    }
    const value = this.#value();
    if (this.#head.at !== this.#head.end) throw this.#head.failure("bytes are left behind the value");
    return value;
  }

  #readTable(): TableEntry[] {
    const count = this.#head.arrayHeader();
    const table: TableEntry[] = [];
    let end = this.#head.end;
    let resizables = 0;
    let reserved = 0;
    for (let i = 0; i < count; i++) {
      const fields = this.#head.arrayHeader();
      const kind = this.#head.unsigned();
      if (kind > format.BUFFER_GROWABLE_SHARED || fields !== (kind < format.BUFFER_RESIZABLE ? 3 : 4)) {
        throw this.#head.failure(`buffer ${i} is of unknown kind ${kind} with ${fields} fields`);
      }
      const start = this.#head.unsigned();
      const first = this.#head.next;
      const outOfBand = first < 0xc4 || first > 0xc6;
      let offset: number;
      let length: number;
      if (outOfBand) {
        length = this.#head.unsigned();
        offset = alignBuffer(end);
        end = offset + length;
        if (end > this.#head.bytes.length) {
          throw this.#head.failure(`buffer ${i} of ${length} bytes at ${offset} ends outside of the packet`);
        }
      } else {
        length = this.#head.binaryHeader();
        offset = this.#head.at;
        this.#head.at += length;
      }
      let reserve = 0;
      if (fields === 4) {
        reserve = this.#head.unsigned();
        reserved += reserve;
        resizables++;
        if (
          reserve < length || reserved > format.RESIZABLE_RESERVED_BYTES_MAX ||
          resizables > format.RESIZABLE_BUFFERS_MAX
        ) {
          throw this.#head.failure(`buffer ${i} of ${length} bytes cannot reserve ${reserve}`);
        }
      }
      table.push({ kind, start, offset, length, outOfBand, reserve, buffer: undefined, base: 0 });
    }
    if (this.#head.at !== this.#head.end || end !== this.#head.bytes.length) {
      throw this.#head.failure(`bytes are left behind the table or the buffers`);
    }
    return table;
  }

  // --- Values ---

  #value(): unknown {
    if (this.#head.at >= this.#head.end) throw this.#head.truncated();
    const byte = this.#head.bytes[this.#head.at++]!;
    if (byte < 0x80) return byte;
    if (byte >= 0xe0) return byte - 0x100;
    if (byte < 0x90) {
      if (byte === 0x81 && this.#head.next < 0x80) return this.#tagged();
      return this.#plain(byte & 0x0f);
    }
    if (byte < 0xa0) return this.#array(byte & 0x0f);
    if (byte < 0xc0) return this.#head.string(byte & 0x1f);
    switch (byte) {
      case 0xdc:
        return this.#array(this.#head.bits16(this.#head.skip(2)));
      case 0xdd:
        return this.#array(this.#head.bits32(this.#head.skip(4)));
      case 0xde:
        return this.#plain(this.#head.bits16(this.#head.skip(2)));
      case 0xdf:
        return this.#plain(this.#head.bits32(this.#head.skip(4)));
      default:
        return this.#head.scalar(byte);
    }
  }

  #plain(size: number): Record<string, unknown> {
    this.#head.holds(size * 2);
    this.#enter();
    const value: Record<string, unknown> = {};
    this.#objects?.push(value);
    for (let i = 0; i < size; i++) {
      const key = this.#head.key();
      const property = this.#value();
      if (key === "__proto__") define(value, key, property);
      else value[key] = property;
    }
    this.#depth--;
    return value;
  }

  #array(length: number): unknown[] {
    this.#head.holds(length);
    this.#enter();
    const value: unknown[] = [];
    this.#objects?.push(value);
    for (let i = 0; i < length; i++) value.push(this.#value());
    this.#depth--;
    return value;
  }

  /** What follows the first byte of a map of one entry with an integer key. */
  #tagged(): unknown {
    const tag = this.#head.bytes[this.#head.at++]!;
    switch (tag) {
      case format.TAG_UNDEFINED:
        if (this.#head.bits8() !== 0xc0) throw this.#head.failure("undefined has no content");
        return undefined;
      case format.TAG_REFERENCE:
        return this.#reference();
      case format.TAG_STRING16:
        return this.#head.string16();
      case format.TAG_BIGINT:
        return this.#head.bigint();
      case format.TAG_DATE:
        return this.#keep(new Date(this.#head.number()));
      case format.TAG_REGEXP:
        return this.#regexp();
      case format.TAG_MAP:
        return this.#map();
      case format.TAG_SET:
        return this.#set();
      case format.TAG_ARRAY:
        return this.#irregularArray();
      case format.TAG_BOXED:
        return this.#boxed();
      case format.TAG_BUFFER:
        return this.#wholeBuffer();
      case format.TAG_VIEW:
        return this.#bufferView();
      case format.TAG_ERROR:
        return this.#error();
      case format.TAG_DOM_EXCEPTION:
        return this.#domException();
      case format.TAG_CLASS:
        return this.#registered();
      case format.TAG_HANDLE:
        return this.#handle();
      default:
        throw this.#head.failure(`tag ${tag} is unknown`);
    }
  }

  /** Gives the object the next number. */
  #keep<T>(value: T): T {
    this.#objects?.push(value);
    return value;
  }

  #reference(): unknown {
    const number = this.#head.unsigned();
    const objects = this.#objects;
    if (objects === undefined || number >= objects.length) {
      throw this.#head.failure(`there is no object ${number} yet`);
    }
    const value = objects[number];
    if (value === UNFINISHED) throw this.#head.failure(`object ${number} is part of its own state`);
    return value;
  }

  #regexp(): RegExp {
    this.#head.fields(2);
    const source = this.#head.text();
    return this.#keep(new RegExp(source, this.#head.text()));
  }

  #map(): Map<unknown, unknown> {
    const count = this.#head.arrayHeader();
    if (count % 2 !== 0) throw this.#head.failure("a Map's last key has no value");
    this.#enter();
    const value = this.#keep(new Map<unknown, unknown>());
    for (let i = 0; i < count; i += 2) {
      const key = this.#value();
      value.set(key, this.#value());
    }
    this.#depth--;
    return value;
  }

  #set(): Set<unknown> {
    const count = this.#head.arrayHeader();
    this.#enter();
    const value = this.#keep(new Set<unknown>());
    for (let i = 0; i < count; i++) value.add(this.#value());
    this.#depth--;
    return value;
  }

  #irregularArray(): unknown[] {
    const count = this.#head.arrayHeader();
    if (count % 2 !== 1) throw this.#head.failure("an array's last key has no value");
    const length = this.#head.unsigned();
    if (length > 0xffff_ffff) throw this.#head.failure(`an array cannot have the length ${length}`);
    this.#enter();
    const value: unknown[] = this.#keep([]);
    if (length > count * 4) {
      // A far element makes V8 keep the array as a dictionary, so that its length costs nothing.
      value[0xffff_fffe] = null;
      delete value[0xffff_fffe];
    }
    value.length = length;
    for (let i = 1; i < count; i += 2) {
      const byte = this.#head.next;
      if (byte < 0x80 || byte >= 0xcb && byte <= 0xce) {
        const index = this.#head.unsigned();
        if (index >= length) throw this.#head.failure(`an array of length ${length} has no index ${index}`);
        value[index] = this.#value();
      } else {
        const key = this.#head.key();
        define(value, key, this.#value());
      }
    }
    this.#depth--;
    return value;
  }

  #boxed(): object {
    this.#enter();
    const value = this.#value();
    this.#depth--;
    switch (typeof value) {
      case "boolean":
      case "number":
      case "string":
      case "bigint":
        return this.#keep(Object(value));
      default:
        throw this.#head.failure(`a ${typeof value} cannot be boxed`);
    }
  }

  #error(): Error {
    const count = this.#head.arrayHeader();
    if (count < 2 || count % 2 !== 0) throw this.#head.failure("an error's last property has no value");
    const base = this.#head.unsigned();
    const hidden = this.#head.unsigned();
    const Base = ERROR_CLASSES[base];
    if (Base === undefined) throw this.#head.failure(`error class ${base} is unknown`);
    this.#enter();
    const value = this.#keep(
      withoutStack(() => Base === AggregateError ? new AggregateError([]) : new (Base as ErrorConstructor)()),
    );
    // An AggregateError's own errors are those that travelled, or none.
    if (Base === AggregateError) Reflect.deleteProperty(value, "errors");
    for (let i = 0; i < count / 2 - 1; i++) {
      const key = this.#head.key();
      define(value, key, this.#value(), i >= hidden);
    }
    this.#depth--;
    return value;
  }

  #domException(): DOMException {
    this.#head.fields(3);
    const message = this.#head.text();
    const name = this.#head.text();
    const stack = this.#head.text();
    const value = withoutStack(() => new DOMException(message, name));
    define(value, "stack", stack, false);
    return this.#keep(value);
  }

  #registered(): object {
    this.#head.fields(2);
    const name = this.#head.text();
    const registered = registeredByName(name);
    if (registered === undefined) {
      throw this.#head.failure(
        `class ${
          JSON.stringify(name)
        } is not registered here; import the module that calls registerClass for it`,
      );
    }
    this.#enter();
    const number = this.#objects?.push(UNFINISHED);
    const value = registered.deserialize(this.#value());
    if (number !== undefined) this.#objects![number - 1] = value;
    this.#depth--;
    return value;
  }

  #handle(): unknown {
    this.#head.fields(2);
    const extension = this.#options?.extension;
    if (extension === undefined) {
      throw this.#head.failure("it carries a handle, and nothing here brings handles back");
    }
    const tag = this.#head.unsigned();
    const byte = this.#head.next;
    let data: Uint8Array | string | number;
    if (byte >= 0xc4 && byte <= 0xc6) {
      const length = this.#head.binaryHeader();
      data = this.#head.copy(this.#head.skip(length), length);
    } else if (byte >= 0xa0 && byte < 0xc0 || byte >= 0xd9 && byte <= 0xdb || byte === 0x81) {
      data = this.#head.text();
    } else {
      data = this.#head.number();
    }
    return this.#keep(extension.unpack(tag, data));
  }

  // --- Buffers ---

  #entry(): TableEntry {
    const index = this.#head.unsigned();
    const entry = this.#table?.[index];
    if (entry === undefined) throw this.#head.failure(`there is no buffer ${index}`);
    if (entry.buffer === undefined) this.#makeBuffer(entry);
    return entry;
  }

  #makeBuffer(entry: TableEntry): void {
    const { kind, offset, length, reserve } = entry;
    const share = this.#options?.share ?? false;
    const address = this.#head.bytes.byteOffset + offset;
    if (entry.outOfBand && share !== false && kind <= format.BUFFER_WHOLE) {
      if (typeof share === "function") {
        entry.buffer = share(offset, length);
        return this.#sharing();
      }
      if (kind === format.BUFFER_VIEWED && address % 8 === 0) {
        entry.buffer = this.#head.bytes.buffer;
        entry.base = address;
        return this.#sharing();
      }
    }
    switch (kind) {
      case format.BUFFER_SHARED:
        entry.buffer = new SharedArrayBuffer(length);
        break;
      case format.BUFFER_GROWABLE_SHARED:
        entry.buffer = new SharedArrayBuffer(length, { maxByteLength: reserve });
        break;
      case format.BUFFER_RESIZABLE:
        entry.buffer = new ArrayBuffer(length, { maxByteLength: reserve });
        break;
      default:
        entry.buffer = this.#head.copy(offset, length).buffer;
        return;
    }
    new Uint8Array(entry.buffer).set(this.#head.bytes.subarray(offset, offset + length));
  }

  #sharing(): void {
    if (this.#shared) return;
    this.#shared = true;
    this.#options?.onShared?.();
  }

  #wholeBuffer(): ArrayBufferLike {
    const entry = this.#entry();
    if (entry.kind === format.BUFFER_VIEWED) {
      throw this.#head.failure("a buffer that only has views stands as a value");
    }
    return this.#keep(entry.buffer!);
  }

  #bufferView(): ArrayBufferView {
    this.#head.fields(4);
    const kind = this.#head.unsigned();
    if (kind > VIEW_DATA) throw this.#head.failure(`view kind ${kind} is unknown`);
    const entry = this.#entry();
    const from = this.#head.unsigned() - entry.start;
    const elementBytes = kind === VIEW_DATA ? 1 : VIEW_CLASSES[kind]!.BYTES_PER_ELEMENT;
    let length: number | undefined;
    if (this.#head.next === 0xc0 && entry.kind >= format.BUFFER_RESIZABLE) {
      this.#head.skip(1);
    } else {
      length = this.#head.unsigned();
    }
    if (from < 0 || from + (length ?? 0) * elementBytes > entry.length) {
      throw this.#head.failure(
        `a view of ${length} elements at ${from} is outside of its buffer (${entry.length} bytes)`,
      );
    }
    const at = entry.base + from;
    const buffer = entry.buffer!;
    if (kind === VIEW_DATA) return this.#keep(new DataView(buffer, at, length));
    const View: ViewConstructor = VIEW_CLASSES[kind]!;
    return this.#keep(new View(buffer, at, length));
  }

  #enter(): void {
    if (++this.#depth > VALUE_DEPTH_MAX) {
      throw this.#head.failure(`it is nested over ${VALUE_DEPTH_MAX} levels deep`);
    }
  }
}

/**
 * Rebuilds the value of a packet.
 *
 * @param bytes Exactly the packet. With `share`, they must stay as they are while any buffer of the value lives.
 * @param options How handles come back, and whether large buffers share the packet's memory.
 * @throws {SerializationError} The bytes are no packet, or hold something that cannot be rebuilt here.
 */
export function unpack(bytes: Uint8Array, options?: UnpackOptions): unknown {
  return new Unpacker(bytes, options).unpack();
}

/** Builds an error without collecting a stack that would be thrown away. */
function withoutStack<T>(build: () => T): T {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return build();
  } finally {
    Error.stackTraceLimit = limit;
  }
}
