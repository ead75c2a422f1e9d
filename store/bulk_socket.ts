/**
 * A TCP connection whose bytes the library moves, to and from objects: what bulk transfers are made of.
 *
 * The library finds the socket by the connection's addresses and takes a descriptor of its own for it. A piece of an object
 * is one call, on a thread of the pool that the engine has for such calls. They have no deadline, so `close` ends them, and
 * there are only so many at once: a node whose peers all fall silent must still spill, and read files.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { DisconnectedError } from "../core/errors.ts";
import { check, type LoadedRaystore, loadRaystore, STATUS } from "./raystore.ts";

/** Bytes of the hash of a piece. */
export const PIECE_HASH_BYTES = 8;

/** Calls at once, of one isolate. Deno has 32 threads for them, and for files. */
const CALLS_MAX = 16;

let calls = 0;

/** The library's hold on a connection. One call at a time. */
export class BulkSocket {
  readonly #library: LoadedRaystore;
  readonly #descriptor: number;
  #busy = false;
  #closed = false;

  private constructor(library: LoadedRaystore, descriptor: number) {
    this.#library = library;
    this.#descriptor = descriptor;
  }

  /**
   * Finds a connection of this process.
   *
   * @param path Where the library is.
   * @param local Its address here, as HOST:PORT. @param peer Its address there.
   * @returns `undefined` if there is none.
   */
  static open(path: string, local: string, peer: string): BulkSocket | undefined {
    const library = loadRaystore(path);
    const [from, to] = [new TextEncoder().encode(local), new TextEncoder().encode(peer)];
    const found = library.lib.rs_bulk_open(from, BigInt(from.length), to, BigInt(to.length));
    if (found >= 0) return new BulkSocket(library, found);
    library.close();
    if (found === STATUS.notFound) return undefined;
    check(library.lib, found, `Cannot use the connection from ${local} to ${peer} for transfers`);
  }

  /** Whether one more call may begin. */
  static get available(): boolean {
    return calls < CALLS_MAX;
  }

  /**
   * Sends bytes that lie in a store, and their hash.
   *
   * @param hash Their hash, if it is known.
   * @throws {DisconnectedError} If the connection ends meanwhile.
   */
  async send(bytes: Uint8Array<ArrayBuffer>, hash?: Uint8Array): Promise<void> {
    const place = new Uint8Array(PIECE_HASH_BYTES);
    if (hash !== undefined) place.set(hash);
    const status = await this.#call((lib) =>
      lib.rs_bulk_send(
        this.#descriptor,
        Deno.UnsafePointer.of(bytes),
        BigInt(bytes.length),
        Deno.UnsafePointer.of(place),
        hash === undefined ? 0 : 1,
      )
    );
    if (status < 0) throw new DisconnectedError("the connection was closed");
    assert(place.length === PIECE_HASH_BYTES, "the library wrote to it until now");
  }

  /**
   * Receives bytes into their place in a store.
   *
   * @returns Their hash; `undefined` if they are not what was sent.
   * @throws {DisconnectedError} If the connection ends meanwhile.
   */
  async receive(into: Uint8Array<ArrayBuffer>): Promise<Uint8Array | undefined> {
    const hash = new Uint8Array(PIECE_HASH_BYTES);
    const status = await this.#call((lib) =>
      lib.rs_bulk_receive(
        this.#descriptor,
        Deno.UnsafePointer.of(into),
        BigInt(into.length),
        Deno.UnsafePointer.of(hash),
      )
    );
    if (status < 0) throw new DisconnectedError("the connection was closed");
    return status === 1 ? hash : undefined;
  }

  /** Ends the connection, and a call on it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#library.lib.rs_bulk_shutdown(this.#descriptor);
    if (!this.#busy) this.#release();
  }

  async #call(begin: (lib: LoadedRaystore["lib"]) => Promise<number>): Promise<number> {
    assert(!this.#busy, "two calls at once on one connection");
    if (this.#closed) throw new DisconnectedError("the connection was closed");
    this.#busy = true;
    calls++;
    try {
      return await begin(this.#library.lib);
    } finally {
      calls--;
      this.#busy = false;
      if (this.#closed) this.#release();
    }
  }

  #release(): void {
    this.#library.lib.rs_bulk_close(this.#descriptor);
    this.#library.close();
  }
}
