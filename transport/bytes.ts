/**
 * Writing and reading binary messages: the growing buffer that a channel sends from, and the bounds-checked cursor
 * that a received message is read with.
 *
 * @module
 */

import { ProtocolError } from "../core/errors.ts";
import { TEXT_BYTES_MAX } from "../core/limits.ts";
import {
  OBJECT_ID_BYTES,
  type ObjectId,
  readObjectId,
  readTaskId,
  TASK_ID_BYTES,
  type TaskId,
  writeObjectId,
} from "../core/ids.ts";

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A buffer that grows as it is written. */
export class ByteWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  /** Bytes written so far. */
  length = 0;

  /** @param capacity Bytes to start with. */
  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** What was written. Valid until the next write. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.length);
  }

  /** The room there is before the buffer must grow. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** Makes sure that `count` more bytes fit. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }

  u8(value: number): void {
    this.reserve(1);
    this.#bytes[this.length++] = value;
  }

  u16(value: number): void {
    this.reserve(2);
    this.#view.setUint16(this.length, value, true);
    this.length += 2;
  }

  u32(value: number): void {
    this.reserve(4);
    this.#view.setUint32(this.length, value, true);
    this.length += 4;
  }

  f64(value: number): void {
    this.reserve(8);
    this.#view.setFloat64(this.length, value, true);
    this.length += 8;
  }

  /** Writes a 32-bit number over an earlier one. */
  patchU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** Writes a task's id, without a length: all are as long. */
  taskId(id: TaskId): void {
    this.reserve(TASK_ID_BYTES);
    const bytes = this.#bytes;
    const at = this.length;
    for (let i = 0; i < TASK_ID_BYTES; i++) bytes[at + i] = id.charCodeAt(i);
    this.length = at + TASK_ID_BYTES;
  }

  /** Writes an object's id, without a length: on the wire all are as long. */
  objectId(id: ObjectId): void {
    this.reserve(OBJECT_ID_BYTES);
    writeObjectId(id, this.#bytes, this.length);
    this.length += OBJECT_ID_BYTES;
  }

  objectIds(ids: readonly ObjectId[]): void {
    this.u32(ids.length);
    for (let i = 0; i < ids.length; i++) this.objectId(ids[i]!);
  }

  /** Writes bytes with their length before them. */
  blob(bytes: Uint8Array): void {
    this.u32(bytes.length);
    this.reserve(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** Writes text, cut to the longest that a peer takes. */
  text(text: string): void {
    let bytes = ENCODER.encode(text);
    if (bytes.length > TEXT_BYTES_MAX) {
      let end = TEXT_BYTES_MAX;
      while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
      bytes = bytes.subarray(0, end);
    }
    this.blob(bytes);
  }
}

/** Reads one message out of a block of received bytes; every read is checked against the message's end. */
export class ByteReader {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(this.#bytes.buffer);
  #at = 0;
  #end = 0;

  /** Starts on another block. */
  block(bytes: Uint8Array): void {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Confines reading to one message of the block. */
  window(start: number, end: number): void {
    this.#at = start;
    this.#end = end;
  }

  /** Bytes of the message that were not read yet. */
  get remaining(): number {
    return this.#end - this.#at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }

  /** A number of bytes, which may be beyond 32 bits. */
  size(): number {
    const size = this.f64();
    if (!Number.isSafeInteger(size) || size < 0) throw new ProtocolError(`Cannot read a size: ${size} bytes`);
    return size;
  }

  taskId(): TaskId {
    return readTaskId(this.#bytes, this.#take(TASK_ID_BYTES));
  }

  objectId(): ObjectId {
    return readObjectId(this.#bytes, this.#take(OBJECT_ID_BYTES));
  }

  objectIds(): readonly ObjectId[] {
    const count = this.#count(OBJECT_ID_BYTES);
    if (count === 0) return NONE;
    const ids: ObjectId[] = [];
    for (let i = 0; i < count; i++) ids.push(this.objectId());
    return ids;
  }

  /** Bytes with a length before them: a view of the block, not a copy. */
  blob(): Uint8Array {
    const length = this.#count(1);
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  text(): string {
    const bytes = this.blob();
    if (bytes.length > TEXT_BYTES_MAX) {
      throw new ProtocolError(`Cannot read text: it has ${bytes.length} bytes, more than ${TEXT_BYTES_MAX}`);
    }
    try {
      return DECODER.decode(bytes);
    } catch {
      throw new ProtocolError("Cannot read text: it is not UTF-8");
    }
  }

  /** A list whose items take at least one byte each. */
  list<T>(read: () => T): T[] {
    const count = this.#count(1);
    const items: T[] = [];
    for (let i = 0; i < count; i++) items.push(read());
    return items;
  }

  /** A count of things of at least `size` bytes, checked against what the message still holds. */
  #count(size: number): number {
    const count = this.u32();
    if (count * size > this.remaining) {
      throw new ProtocolError(
        `Cannot read a message: it promises ${count * size} bytes and has ${this.remaining}`,
      );
    }
    return count;
  }

  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#end) {
      throw new ProtocolError(`Cannot read a message: it ends ${at + count - this.#end} bytes too early`);
    }
    this.#at = at + count;
    return at;
  }
}

const NONE: readonly ObjectId[] = Object.freeze([]);
