/**
 * Objects that are arriving: what is here of them can be passed on already.
 *
 * The place of an object that is not whole may only be given up when nobody reads from it any more. So whoever passes on
 * what is here says when it begins and ends, and an arrival that has failed waits for that.
 *
 * @module
 */

import type { ObjectId } from "../core/ids.ts";

/** One object on its way into the store. */
export class Arrival {
  readonly whole: Uint8Array<ArrayBuffer>;
  readonly #pieceBytes: number;
  readonly #pieces: PromiseWithResolvers<void>[];
  /** Of the pieces that are here. */
  readonly #hashes: Uint8Array[] = [];
  #readers = 0;
  #idle: (() => void) | undefined;
  #failed = false;

  /** @param whole The place. @param pieceBytes Bytes of a piece. */
  constructor(whole: Uint8Array<ArrayBuffer>, pieceBytes: number) {
    this.whole = whole;
    this.#pieceBytes = pieceBytes;
    this.#pieces = Array.from(
      { length: Math.max(1, Math.ceil(whole.length / pieceBytes)) },
      () => Promise.withResolvers<void>(),
    );
    // Nobody may be waiting for one that fails.
    for (const { promise } of this.#pieces) promise.catch(() => {});
  }

  /** A piece is here, and is what was sent. @param hash Its hash. */
  arrived(piece: number, hash: Uint8Array): void {
    this.#hashes[piece] = hash;
    this.#pieces[piece]!.resolve();
  }

  /** It will not be whole. Resolves when nobody reads from it any more. */
  async fail(): Promise<void> {
    this.#failed = true;
    for (const { reject } of this.#pieces) {
      reject(new Error("the node that was to pass it on did not get it"));
    }
    if (this.#readers > 0) await new Promise<void>((resolve) => this.#idle = resolve);
  }

  /** It is whole. Calls `release` when nobody reads from it by way of this any more. */
  complete(release: () => void): void {
    if (this.#readers === 0) release();
    else this.#idle = release;
  }

  /** Somebody begins to pass it on. @returns Whether that may be. */
  open(): boolean {
    if (this.#failed) return false;
    this.#readers++;
    return true;
  }

  /** Whoever passed it on has ended. */
  close(): void {
    if (--this.#readers === 0) this.#idle?.();
  }

  /**
   * Waits until a piece is here.
   *
   * @returns Its hash, which whoever passes it on need not take again.
   * @throws If it does not come.
   */
  async until(piece: number): Promise<Uint8Array> {
    await this.#pieces[piece]!.promise;
    if (this.#failed) throw new Error("the node that was to pass it on did not get it");
    return this.#hashes[piece]!;
  }
}

/** All objects on their way into one store. */
export type Arrivals = Map<ObjectId, Arrival>;
