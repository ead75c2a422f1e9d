/**
 * The head of a packet as it is read: msgpack words out of bytes that may come from anyone.
 *
 * Every step is held against the end of what may be read, and every length against the bytes that are left.
 *
 * @module
 */

import { SerializationError } from "../core/errors.ts";
import * as format from "./serialize_format.ts";

/** Strings up to this many bytes are decoded by hand while they are ASCII: TextDecoder takes 500 ns to start. */
const STRING_BY_HAND_MAX = 128;
/** Property names up to this length are kept, so that a repeated one costs no new string. */
const KEY_CACHED_MAX = 31;
const KEY_CACHE_SLOTS = 512;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const keyCache: (string | undefined)[] = new Array(KEY_CACHE_SLOTS).fill(undefined);
/** Code units of a string by its length, for `String.fromCharCode.apply`. */
const units: number[][] = Array.from(
  { length: STRING_BY_HAND_MAX + 1 },
  (_, length) => new Array(length).fill(0),
);
const scratch = new DataView(new ArrayBuffer(8));

/** Reads words one after the other. */
export class HeadReader {
  /** The whole packet. */
  readonly bytes: Uint8Array;
  /** Where the next byte is read. */
  at = 0;
  /** Where reading must stop. */
  end: number;

  /** @param bytes The whole packet. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.end = bytes.length;
  }

  /** Goes on reading at `at`, up to `end`, which must lie within the bytes. */
  seek(at: number, end: number): void {
    this.at = at;
    this.end = end;
  }

  /** The next byte, left where it is; a byte that starts nothing where there is none. */
  get next(): number {
    return this.at < this.end ? this.bytes[this.at]! : 0xc1;
  }

  /** What `byte` starts, read already, if that is neither a fixint nor a short string nor a container. */
  scalar(byte: number): unknown {
    switch (byte) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xcb:
        return this.#float64();
      case 0xcc:
        return this.bits8();
      case 0xcd:
        return this.bits16(this.skip(2));
      case 0xce:
        return this.bits32(this.skip(4));
      case 0xd0:
        return this.bits8() << 24 >> 24;
      case 0xd1:
        return this.bits16(this.skip(2)) << 16 >> 16;
      case 0xd2:
        return this.bits32(this.skip(4)) | 0;
      case 0xd3:
        return this.#bigint64();
      case 0xd9:
        return this.string(this.bits8());
      case 0xda:
        return this.string(this.bits16(this.skip(2)));
      case 0xdb:
        return this.string(this.bits32(this.skip(4)));
      default:
        throw this.failure(`byte ${byte} starts nothing that belongs here`);
    }
  }

  /** Any number. */
  number(): number {
    const byte = this.bits8();
    if (byte < 0x80) return byte;
    if (byte >= 0xe0) return byte - 0x100;
    if (byte < 0xcb || byte > 0xd2) throw this.failure("a number was expected");
    return this.scalar(byte) as number;
  }

  /** A number that counts or numbers something. */
  unsigned(): number {
    const value = this.number();
    if (value >= 0 && Number.isSafeInteger(value)) return value;
    throw this.failure(`${value} counts nothing`);
  }

  /** Any string. */
  text(): string {
    const byte = this.bits8();
    if (byte >= 0xa0 && byte < 0xc0) return this.string(byte & 0x1f);
    if (byte >= 0xd9 && byte <= 0xdb) return this.scalar(byte) as string;
    if (byte === 0x81 && this.bits8() === format.TAG_STRING16) return this.string16();
    throw this.failure("a string was expected");
  }

  /** A property's name: any string, the short ones kept. */
  key(): string {
    const byte = this.next;
    if (byte < 0xa0 || byte >= 0xc0) return this.text();
    this.at++;
    return this.#shortKey(byte & 0x1f);
  }

  /** Steps over `bytes` bytes, which must be there; returns where they start. */
  skip(bytes: number): number {
    const at = this.at;
    if (at + bytes > this.end) throw this.truncated();
    this.at = at + bytes;
    return at;
  }

  /** Refuses counts that the bytes left cannot hold. */
  holds(values: number): void {
    if (values > this.end - this.at) throw this.truncated();
  }

  /** The next byte. */
  bits8(): number {
    return this.bytes[this.skip(1)]!;
  }

  /** Two bytes at `at`, which are known to be there. */
  bits16(at: number): number {
    return this.bytes[at]! << 8 | this.bytes[at + 1]!;
  }

  /** Four bytes at `at`, which are known to be there. */
  bits32(at: number): number {
    const bytes = this.bytes;
    return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
  }

  #float64(): number {
    this.#copyToScratch();
    return scratch.getFloat64(0);
  }

  #bigint64(): bigint {
    this.#copyToScratch();
    return scratch.getBigInt64(0);
  }

  #copyToScratch(): void {
    const at = this.skip(8);
    scratch.setUint32(0, this.bits32(at));
    scratch.setUint32(4, this.bits32(at + 4));
  }

  /** The header of an array of so many fields. */
  fields(count: number): void {
    if (this.arrayHeader() !== count) throw this.failure(`${count} fields were expected`);
  }

  /** The header of an array; the bytes left can hold so many elements. */
  arrayHeader(): number {
    const byte = this.bits8();
    let count: number;
    if (byte >= 0x90 && byte < 0xa0) count = byte & 0x0f;
    else if (byte === 0xdc) count = this.bits16(this.skip(2));
    else if (byte === 0xdd) count = this.bits32(this.skip(4));
    else throw this.failure("an array was expected");
    this.holds(count);
    return count;
  }

  /** The length of a binary, which is there in full. */
  binaryHeader(): number {
    const byte = this.bits8();
    let length: number;
    if (byte === 0xc4) length = this.bits8();
    else if (byte === 0xc5) length = this.bits16(this.skip(2));
    else if (byte === 0xc6) length = this.bits32(this.skip(4));
    else throw this.failure("a binary was expected");
    this.holds(length);
    return length;
  }

  /** Bytes of the packet as an array of their own (a Node Buffer's `slice` would be a view). */
  copy(at: number, length: number): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(length);
    copy.set(this.bytes.subarray(at, at + length));
    return copy;
  }

  #shortKey(length: number): string {
    const at = this.skip(length);
    const bytes = this.bytes;
    let hash = length;
    for (let i = 0; i < length; i++) hash = hash * 31 + bytes[at + i]! | 0;
    const slot = (hash ^ hash >>> 9) & KEY_CACHE_SLOTS - 1;
    const cached = keyCache[slot];
    if (cached !== undefined && cached.length === length) {
      let i = 0;
      while (i < length && cached.charCodeAt(i) === bytes[at + i]) i++;
      if (i === length) return cached;
    }
    this.at = at;
    const key = this.string(length);
    // Only an ASCII name has one byte a code unit, and only such a one may match bytes above.
    if (key.length === length && length <= KEY_CACHED_MAX) keyCache[slot] = key;
    return key;
  }

  /** A string of so many bytes. */
  string(length: number): string {
    const at = this.skip(length);
    if (length === 0) return "";
    const bytes = this.bytes;
    if (length <= STRING_BY_HAND_MAX) {
      const ascii = units[length]!;
      let i = 0;
      for (; i < length; i++) {
        const byte = bytes[at + i]!;
        if (byte >= 0x80) break;
        ascii[i] = byte;
      }
      if (i === length) return String.fromCharCode.apply(String, ascii);
    }
    return utf8.decode(bytes.subarray(at, at + length));
  }

  /** The content of a string of code units. */
  string16(): string {
    const length = this.binaryHeader();
    if (length % 2 !== 0) throw this.failure("a string of code units has an odd length");
    let text = "";
    const end = this.at + length;
    while (this.at < end) {
      const part: number[] = [];
      while (this.at < end && part.length < 4096) part.push(this.bits16(this.skip(2)));
      text += String.fromCharCode.apply(String, part);
    }
    return text;
  }

  /** The content of a bigint that 64 bits cannot hold. */
  bigint(): bigint {
    const length = this.binaryHeader();
    if (length < 2) throw this.failure("a bigint has no digits");
    const at = this.skip(length);
    const digits: string[] = [];
    for (let i = 1; i < length; i++) digits.push(this.bytes[at + i]!.toString(16).padStart(2, "0"));
    const magnitude = BigInt("0x" + digits.join(""));
    return this.bytes[at] === 0 ? magnitude : -magnitude;
  }

  // --- Errors ---

  /** The error for a packet that ends too soon. */
  truncated(): SerializationError {
    return this.failure("it claims more than it holds");
  }

  /** An error at the byte that is read next. @param problem What is wrong there. @param cause What led to it. */
  failure(problem: string, cause?: unknown): SerializationError {
    const path = `packet[${this.at}]`;
    return new SerializationError(
      `Cannot unpack value: at byte ${this.at} of ${this.bytes.length}, ${problem}`,
      cause === undefined ? { path } : { path, cause },
    );
  }
}
