/**
 * Garbage in large pieces, found while there is little of it.
 *
 * What a call is given in the store, and what it returns, are a few objects to the engine and megabytes to the machine.
 * The engine counts the megabytes, and after some ten of them, in a small heap, it collects all of it, which takes as
 * long as thirty calls of a megabyte. Nearly all of what has come and gone by then is young, and for that it has a
 * collection of 0.1 ms, which it does not think of. So it is asked for one in time: right after what was done has been
 * sent, when there is most likely nothing else to do than to wait.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";

/** So much has come and gone before it is worth a look; a small heap is collected whole after 12 to 15 MB. */
const TURNOVER_BYTES_MIN = 4 * 1024 * 1024;

/** A collection takes longer the more is young and in use; it may take as long as copying the bytes did. */
const TURNOVER_BYTES_PER_MS = 10e6;

/** Counts large values of one isolate, and has those collected that nobody uses. */
export class Turnover {
  readonly #clock: Clock;
  readonly #collect: () => void;
  #bytes = 0;
  #bytesMin = TURNOVER_BYTES_MIN;

  /** @param clock Times the collections. @param collect Collects what is young. */
  constructor(clock: Clock, collect: () => void) {
    this.#clock = clock;
    this.#collect = collect;
  }

  /** A large value was read in place, or was made to be sent. @param bytes Its size. */
  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** The moment to look for garbage, if there may be enough. */
  look(): void {
    if (this.#bytes < this.#bytesMin) return;
    this.#bytes = 0;
    const started = this.#clock.now();
    this.#collect();
    const worth = (this.#clock.now() - started) * TURNOVER_BYTES_PER_MS;
    // One that took long may have been interrupted by what else the machine does.
    this.#bytesMin = Math.max(TURNOVER_BYTES_MIN, Math.min(worth, 2 * this.#bytesMin));
  }
}
