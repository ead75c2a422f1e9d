/**
 * A byte stream that notices when what arrives is not what was sent.
 *
 * TCP's own checksum is 16 bits, and a network card or switch that garbles a packet computes it anew. On a message that
 * carries a result, a bit that turned over is a wrong answer that nobody sees. So what goes from machine to machine travels
 * in blocks: how many bytes follow (4), the same with all bits turned (4), or a wrong number would be waited for, their CRC-32
 * (4), and they. One that is wrong ends the connection, which is made anew, and what had not arrived is said again, as after
 * any other break. With TLS it cannot happen; the few nanoseconds are spent there, too. Against somebody who means harm, only
 * TLS is of use.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { DisconnectedError, ProtocolError } from "../core/errors.ts";
import type { ByteStream } from "./channel.ts";

/** Bytes of a block, without its head. */
const BLOCK_BYTES_MAX = 64 * 1024;
const HEAD_BYTES = 12;

/**
 * Puts what is written to a stream into blocks, and takes what is read out of them.
 *
 * @param stream Owned from now on. @param readBytes How much is read at once, if it is there.
 */
export function checked(stream: ByteStream, readBytes = BLOCK_BYTES_MAX): ByteStream {
  return new CheckedStream(stream, readBytes);
}

class CheckedStream implements ByteStream {
  readonly #stream: ByteStream;
  readonly #out = new Uint8Array(HEAD_BYTES + BLOCK_BYTES_MAX);
  readonly #in: Uint8Array<ArrayBuffer>;
  /** What is in `#in`: from where to where it can be handed out, and up to where it has been read. */
  #from = 0;
  #good = 0;
  #end = 0;

  constructor(stream: ByteStream, readBytes: number) {
    this.#stream = stream;
    this.#in = new Uint8Array(HEAD_BYTES + Math.max(readBytes, BLOCK_BYTES_MAX));
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#from === this.#good) {
      if (this.#takeBlock()) continue;
      this.#in.copyWithin(0, this.#good, this.#end);
      this.#end -= this.#good;
      this.#from = this.#good = 0;
      const count = await this.#stream.read(this.#in.subarray(this.#end));
      if (count === null) {
        if (this.#end > 0) throw new ProtocolError("Cannot read a block: the stream ended inside of it");
        return null;
      }
      this.#end += count;
    }
    let filled = 0;
    do {
      const count = Math.min(into.length - filled, this.#good - this.#from);
      into.set(this.#in.subarray(this.#from, this.#from + count), filled);
      this.#from += count;
      filled += count;
    } while (filled < into.length && this.#takeBlock());
    return filled;
  }

  /** Whether the next block is there, whole; it can be handed out then. @throws {ProtocolError} If it is not as it was sent. */
  #takeBlock(): boolean {
    const head = this.#good;
    if (this.#end - head < HEAD_BYTES) return false;
    const view = new DataView(this.#in.buffer);
    const length = view.getUint32(head, true);
    if (length === 0 || length > BLOCK_BYTES_MAX || view.getUint32(head + 4, true) !== ~length >>> 0) {
      throw new ProtocolError(
        `Cannot read a block: its length is ${length} or ${
          ~view.getUint32(head + 4, true) >>> 0
        }, the limit ` +
          `${BLOCK_BYTES_MAX}`,
      );
    }
    const end = head + HEAD_BYTES + length;
    if (this.#end < end) return false;
    const sum = view.getUint32(head + 8, true);
    const found = crc32(this.#in.subarray(head + HEAD_BYTES, end));
    if (found !== sum) {
      throw new ProtocolError(
        `Cannot read a block of ${length} bytes: it has the checksum ${found} instead of ${sum}, so it was garbled on its way`,
      );
    }
    this.#from = head + HEAD_BYTES;
    this.#good = end;
    return true;
  }

  async write(bytes: Uint8Array): Promise<number> {
    const length = Math.min(bytes.length, BLOCK_BYTES_MAX);
    const block = this.#out.subarray(0, HEAD_BYTES + length);
    block.set(bytes.subarray(0, length), HEAD_BYTES);
    const view = new DataView(block.buffer);
    view.setUint32(0, length, true);
    view.setUint32(4, ~length, true);
    view.setUint32(8, crc32(block.subarray(HEAD_BYTES)), true);
    for (let at = 0; at < block.length;) {
      const count = await this.#stream.write(at === 0 ? block : block.subarray(at));
      if (count === 0) throw new DisconnectedError("Cannot write: the stream takes nothing");
      at += count;
    }
    return length;
  }

  close(): void {
    this.#stream.close();
  }
}
