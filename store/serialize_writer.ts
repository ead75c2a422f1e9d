/**
 * The head of a packet while it grows: msgpack words into a pooled chunk.
 *
 * Small typed arrays cost about a microsecond each to allocate in this V8 (they are never on its heap), which is as
 * much as the whole packing of a small value; hence the pool: heads are windows of a chunk that many share.
 *
 * Every word is written by hand rather than by a msgpack package, because the packer has to walk the value anyway
 * (paths, identity, buffers, refusals), and a second walk would cost more than the words do.
 *
 * @module
 */

import * as format from "./serialize_format.ts";
import { LONG_HEADER_BYTES, SHORT_HEADER_BYTES } from "./serialize_format.ts";

/** Bytes of one pooled chunk: a few hundred small packets. */
const CHUNK_BYTES = 16 * 1024;
/** What the header's 32 bits can tell. */
const HEAD_BYTES_MAX = 0xffff_ffff;
/** Strings up to this length are written by hand while they are ASCII. */
const STRING_BY_HAND_MAX = 48;
/** Strings up to this length are encoded in place, with room for three bytes a code unit; longer ones are measured. */
const STRING_IN_PLACE_MAX = 0xffff / 3;

const utf8 = new TextEncoder();

/** Writes one head after the other. */
export class HeadWriter {
  #chunk = new Uint8Array(CHUNK_BYTES);
  #view = new DataView(this.#chunk.buffer);
  /** Where the free part of the chunk starts, and where the next byte goes. */
  #start = 0;
  #at = 0;

  /** Starts a head, leaving room for either header. */
  begin(): void {
    this.#at = this.#start + LONG_HEADER_BYTES;
    if (this.#at > this.#chunk.length) this.#grow(0);
  }

  /** Bytes written since `begin`. */
  get written(): number {
    return this.#at - this.#start - LONG_HEADER_BYTES;
  }

  /** Ends a head that is a value and nothing else. @param flags The packet's flags. */
  takeShort(flags: number): Uint8Array {
    const from = this.#start + LONG_HEADER_BYTES - SHORT_HEADER_BYTES;
    this.#chunk[from] = format.FORMAT_VERSION;
    this.#chunk[from + 1] = flags;
    return this.#take(from);
  }

  /**
   * Ends a head with a table of buffers.
   *
   * @param flags The packet's flags, but for the one that says there is a table.
   * @param valueBytes How much of what was written is the value; the rest is the table.
   */
  takeLong(flags: number, valueBytes: number): Uint8Array {
    const from = this.#start;
    this.#chunk[from] = format.FORMAT_VERSION;
    this.#chunk[from + 1] = flags | format.FLAG_BUFFERS;
    this.#view.setUint16(from + 2, 0);
    this.#view.setUint32(from + 4, valueBytes);
    this.#view.setUint32(from + 8, this.written - valueBytes);
    return this.#take(from);
  }

  byte(byte: number): void {
    if (this.#at + 1 > this.#chunk.length) this.#grow(1);
    this.#chunk[this.#at++] = byte;
  }

  /** A map of one entry with an integer key; the entry's value must follow. */
  tag(tag: number): void {
    if (this.#at + 2 > this.#chunk.length) this.#grow(2);
    this.#chunk[this.#at++] = 0x81;
    this.#chunk[this.#at++] = tag;
  }

  number(value: number): void {
    if (this.#at + 9 > this.#chunk.length) this.#grow(9);
    const chunk = this.#chunk;
    let at = this.#at;
    const integer = value | 0;
    if (integer === value && (integer !== 0 || 1 / value > 0)) {
      if (integer >= 0) {
        if (integer < 0x80) {
          chunk[at++] = integer;
        } else if (integer < 0x100) {
          chunk[at++] = 0xcc;
          chunk[at++] = integer;
        } else if (integer < 0x10000) {
          chunk[at++] = 0xcd;
          chunk[at++] = integer >> 8;
          chunk[at++] = integer;
        } else {
          chunk[at++] = 0xce;
          this.#view.setUint32(at, integer);
          at += 4;
        }
      } else if (integer >= -0x20) {
        chunk[at++] = integer;
      } else if (integer >= -0x80) {
        chunk[at++] = 0xd0;
        chunk[at++] = integer;
      } else if (integer >= -0x8000) {
        chunk[at++] = 0xd1;
        chunk[at++] = integer >> 8;
        chunk[at++] = integer;
      } else {
        chunk[at++] = 0xd2;
        this.#view.setInt32(at, integer);
        at += 4;
      }
    } else if (value >>> 0 === value && integer !== 0) {
      chunk[at++] = 0xce;
      this.#view.setUint32(at, value);
      at += 4;
    } else {
      chunk[at++] = 0xcb;
      this.#view.setFloat64(at, value);
      at += 8;
    }
    this.#at = at;
  }

  bigint(value: bigint): void {
    if (BigInt.asIntN(64, value) === value) {
      if (this.#at + 9 > this.#chunk.length) this.#grow(9);
      this.#chunk[this.#at] = 0xd3;
      this.#view.setBigInt64(this.#at + 1, value);
      this.#at += 9;
      return;
    }
    let hex = (value < 0n ? -value : value).toString(16);
    if (hex.length % 2 === 1) hex = "0" + hex;
    const bytes = new Uint8Array(1 + hex.length / 2);
    bytes[0] = value < 0n ? 1 : 0;
    for (let i = 1; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(i * 2 - 2, i * 2), 16);
    this.tag(format.TAG_BIGINT);
    this.binary(bytes);
  }

  string(value: string): void {
    const length = value.length;
    if (length > STRING_BY_HAND_MAX) return this.#longString(value);
    if (this.#at + length + 2 > this.#chunk.length) this.#grow(length + 2);
    const chunk = this.#chunk;
    let at = this.#at;
    if (length < 32) {
      chunk[at++] = 0xa0 | length;
    } else {
      chunk[at++] = 0xd9;
      chunk[at++] = length;
    }
    for (let i = 0; i < length; i++) {
      const unit = value.charCodeAt(i);
      if (unit >= 0x80) return this.#longString(value);
      chunk[at++] = unit;
    }
    this.#at = at;
  }

  #longString(value: string): void {
    if (!value.isWellFormed()) return this.#illFormedString(value);
    if (value.length > STRING_IN_PLACE_MAX) {
      const text = utf8.encode(value);
      if (this.#at + 5 + text.length > this.#chunk.length) this.#grow(5 + text.length);
      this.#chunk[this.#at] = 0xdb;
      this.#view.setUint32(this.#at + 1, text.length);
      this.#chunk.set(text, this.#at + 5);
      this.#at += 5 + text.length;
      return;
    }
    // The header is chosen by the longest encoding there could be, so that the text need not be moved.
    const bytesMax = value.length * 3;
    if (this.#at + 5 + bytesMax > this.#chunk.length) this.#grow(5 + bytesMax);
    const headerBytes = bytesMax < 0x100 ? 2 : 3;
    const textAt = this.#at + headerBytes;
    const { written } = utf8.encodeInto(value, this.#chunk.subarray(textAt, textAt + bytesMax));
    if (headerBytes === 2) {
      this.#chunk[this.#at] = 0xd9;
      this.#chunk[this.#at + 1] = written;
    } else {
      this.#chunk[this.#at] = 0xda;
      this.#view.setUint16(this.#at + 1, written);
    }
    this.#at = textAt + written;
  }

  /** A string with lone surrogates, which UTF-8 cannot express: its code units. */
  #illFormedString(value: string): void {
    const bytes = new Uint8Array(value.length * 2);
    for (let i = 0; i < value.length; i++) {
      const unit = value.charCodeAt(i);
      bytes[i * 2] = unit >> 8;
      bytes[i * 2 + 1] = unit;
    }
    this.tag(format.TAG_STRING16);
    this.binary(bytes);
  }

  binary(bytes: Uint8Array): void {
    const length = bytes.length;
    if (this.#at + 5 + length > this.#chunk.length) this.#grow(5 + length);
    if (length < 0x100) {
      this.#chunk[this.#at] = 0xc4;
      this.#chunk[this.#at + 1] = length;
      this.#at += 2;
    } else if (length < 0x10000) {
      this.#chunk[this.#at] = 0xc5;
      this.#view.setUint16(this.#at + 1, length);
      this.#at += 3;
    } else {
      this.#chunk[this.#at] = 0xc6;
      this.#view.setUint32(this.#at + 1, length);
      this.#at += 5;
    }
    this.#chunk.set(bytes, this.#at);
    this.#at += length;
  }

  arrayHeader(length: number): void {
    if (length < 16) this.byte(0x90 | length);
    else this.#sizeHeader(0xdc, length);
  }

  mapHeader(size: number): void {
    if (size < 16) this.byte(0x80 | size);
    else this.#sizeHeader(0xde, size);
  }

  #sizeHeader(first: number, size: number): void {
    if (this.#at + 5 > this.#chunk.length) this.#grow(5);
    if (size < 0x10000) {
      this.#chunk[this.#at] = first;
      this.#view.setUint16(this.#at + 1, size);
      this.#at += 3;
    } else {
      this.#chunk[this.#at] = first + 1;
      this.#view.setUint32(this.#at + 1, size);
      this.#at += 5;
    }
  }

  // --- The chunk ---

  /** Hands out the chunk's bytes from `from` on, and goes on behind them. */
  #take(from: number): Uint8Array {
    const head = this.#chunk.subarray(from, this.#at);
    this.#start = this.#at;
    if (this.#chunk.length > CHUNK_BYTES) this.#useChunk(new Uint8Array(CHUNK_BYTES));
    return head;
  }

  #useChunk(chunk: Uint8Array<ArrayBuffer>): void {
    this.#chunk = chunk;
    this.#view = new DataView(chunk.buffer);
    this.#start = 0;
  }

  /** Makes room for `bytes` more: in a new chunk, because windows of the old one have been handed out. */
  #grow(bytes: number): void {
    const used = this.#at - this.#start;
    const needed = used + bytes;
    if (needed > HEAD_BYTES_MAX) throw new RangeError("the value without its buffers is over 4 GiB");
    const old = this.#chunk.subarray(this.#start, Math.min(this.#at, this.#chunk.length));
    this.#useChunk(new Uint8Array(needed <= CHUNK_BYTES / 2 ? CHUNK_BYTES : needed * 2));
    this.#chunk.set(old);
    this.#at = used;
  }
}
