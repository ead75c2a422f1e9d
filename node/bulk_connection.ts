/**
 * A bulk connection, and pieces of objects over it: the bytes, then their hash (8 bytes).
 *
 * The hash is of the hashes of blocks of 1 MB, each taken while the block is in the processor's cache for being sent, or
 * received, anyhow. A large piece over plain TCP is moved by the library (`store/bulk_socket.ts`), off the node's own thread;
 * a small one, one that is encrypted, or one over a network in memory is moved here. Both speak the same, so either side
 * decides for itself.
 *
 * @module
 */

import { NATIVE_PIECE_BYTES_MIN } from "../core/limits.ts";
import { BulkSocket, PIECE_HASH_BYTES } from "../store/bulk_socket.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";
import { plainTcp } from "../transport/tcp.ts";

/** As in `ffi/src/limits.rs`. */
const BLOCK_BYTES = 1024 * 1024;

/** A bulk connection. */
export class BulkConnection implements ByteStream {
  readonly #stream: ByteStream;
  readonly #store: ObjectStore;
  /** The library's hold on it; `"none"` if it has none, and `undefined` until it was asked. */
  #socket: BulkSocket | "none" | undefined;
  #closed = false;

  /** @param stream Its bytes; it owns them from now on. @param store Where the objects are. */
  constructor(stream: ByteStream, store: ObjectStore) {
    this.#stream = stream;
    this.#store = store;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#stream.read(into);
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#stream.write(bytes);
  }

  /** Ends it, and what is under way on it. More than once is as good as once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#socket !== "none") this.#socket?.close();
    try {
      this.#stream.close();
    } catch {
      // Closed already.
    }
  }

  /**
   * Sends a piece, which must stay as it is meanwhile.
   *
   * @param hash Its hash, if that is known.
   */
  async sendPiece(piece: Uint8Array<ArrayBuffer>, hash?: Uint8Array): Promise<void> {
    const socket = this.#native(piece);
    if (socket !== undefined) return await socket.send(piece, hash);
    const hashes = new PieceHash(this.#store);
    for (let at = 0; at < piece.length; at += BLOCK_BYTES) {
      const block = piece.subarray(at, at + BLOCK_BYTES);
      if (hash === undefined) hashes.add(block);
      await writeAll(this, block);
    }
    await writeAll(this, hash ?? hashes.value());
  }

  /** Reads a piece into its place. @returns Its hash. @throws If it does not come whole, or not as it was sent. */
  async receivePiece(piece: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
    const socket = this.#native(piece);
    const hash = socket === undefined ? await this.#receiveHere(piece) : await socket.receive(piece);
    if (hash === undefined) throw new Error("it arrived damaged");
    return hash;
  }

  async #receiveHere(piece: Uint8Array<ArrayBuffer>): Promise<Uint8Array | undefined> {
    const hashes = new PieceHash(this.#store);
    for (let at = 0, hashed = 0; at < piece.length;) {
      const count = await this.read(piece.subarray(at));
      if (count === null) throw new Error("the connection was closed");
      at += count;
      while (at - hashed >= BLOCK_BYTES || at === piece.length && hashed < at) {
        const end = Math.min(hashed + BLOCK_BYTES, piece.length);
        hashes.add(piece.subarray(hashed, end));
        hashed = end;
      }
    }
    const expected = new Uint8Array(PIECE_HASH_BYTES);
    if (!await readAll(this, expected)) throw new Error("the connection was closed");
    const found = hashes.value();
    return expected.every((byte, i) => byte === found[i]) ? found : undefined;
  }

  /** What moves a piece by the library; `undefined` if it is to be moved here. */
  #native(piece: Uint8Array): BulkSocket | undefined {
    if (piece.length < NATIVE_PIECE_BYTES_MIN || !BulkSocket.available || this.#closed) return undefined;
    if (this.#socket === undefined) {
      const addresses = plainTcp(this.#stream);
      this.#socket = addresses && this.#store.bulkSocket(addresses.local, addresses.peer) || "none";
    }
    return this.#socket === "none" ? undefined : this.#socket;
  }
}

/** The hash of a piece, taken block by block. */
class PieceHash {
  readonly #store: ObjectStore;
  readonly #blocks: bigint[] = [];

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  add(block: Uint8Array<ArrayBuffer>): void {
    this.#blocks.push(this.#store.hash(block));
  }

  value(): Uint8Array {
    const blocks = new Uint8Array(BigUint64Array.from(this.#blocks).buffer);
    return new Uint8Array(BigUint64Array.of(this.#store.hash(blocks)).buffer);
  }
}

/** Fills `into`. @returns Whether the stream had that much; `false` only if it had nothing more at all. */
export async function readAll(stream: ByteStream, into: Uint8Array): Promise<boolean> {
  for (let at = 0; at < into.length;) {
    const count = await stream.read(at === 0 ? into : into.subarray(at));
    if (count === null) {
      if (at === 0) return false;
      throw new Error("the connection was closed in the middle");
    }
    at += count;
  }
  return true;
}

/** Writes all of `bytes`. */
export async function writeAll(stream: ByteStream, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await stream.write(at === 0 ? bytes : bytes.subarray(at));
}
