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
  readonly #rangeBytes: number;
  readonly #ranges: PromiseWithResolvers<void>[];
  #readers = 0;
  #idle: (() => void) | undefined;
  #failed = false;

  /** @param whole The place. @param rangeBytes Bytes of a range. */
  constructor(whole: Uint8Array<ArrayBuffer>, rangeBytes: number) {
    this.whole = whole;
    this.#rangeBytes = rangeBytes;
    this.#ranges = Array.from(
      { length: Math.max(1, Math.ceil(whole.length / rangeBytes)) },
      () => Promise.withResolvers<void>(),
    );
    // Nobody may be waiting for one that fails.
    for (const { promise } of this.#ranges) promise.catch(() => {});
  }

  /** A range is here, and is what was sent. */
  arrived(range: number): void {
    this.#ranges[range]!.resolve();
  }

  /** It will not be whole. Resolves when nobody reads from it any more. */
  async fail(): Promise<void> {
    this.#failed = true;
    for (const { reject } of this.#ranges) {
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

  /** Waits until bytes are here. @throws If they do not come. */
  async until(end: number): Promise<void> {
    const range = Math.min(this.#ranges.length - 1, Math.floor((end - 1) / this.#rangeBytes));
    await this.#ranges[range]!.promise;
    if (this.#failed) throw new Error("the node that was to pass it on did not get it");
  }
}

/** All objects on their way into one store. */
export type Arrivals = Map<ObjectId, Arrival>;
