/**
 * What becomes of isolates that have nothing to do: each costs some 40 MB, be it used or not.
 *
 * While a program runs somewhere in the cluster, as many as are kept ready stay, so that its next task starts at once;
 * what had to be started beyond that, as many tasks waited for others, goes after a while. When no program has run for a
 * while, all go. They come back when a program connects, anywhere.
 *
 * One that stays collects its garbage once it has rested for a moment: otherwise actors and objects that its last task had
 * a Ref of would live for as long as nothing is done there.
 *
 * Pure.
 *
 * @module
 */

import { ISOLATE_COLLECT_MS, ISOLATE_IDLE_MS, PROGRAM_IDLE_MS } from "../core/limits.ts";

/** An isolate for tasks. */
export interface IdleCandidate {
  readonly number: number;
  /** Whether it runs something, or is starting. */
  readonly busy: boolean;
}

/** Remembers since when nothing was to be done. */
export class IdleIsolates {
  readonly #warm: number;
  readonly #busyAt = new Map<number, number>();
  /** Since when those had nothing to do that have collected their garbage since. */
  readonly #collected = new Map<number, number>();
  #programAt: number;

  /** @param warm How many are kept ready for programs. @param now The time, in milliseconds. */
  constructor(warm: number, now: number) {
    this.#warm = warm;
    this.#programAt = now;
  }

  /** How many are kept whatever there is to do. */
  floor(now: number): number {
    return now - this.#programAt < PROGRAM_IDLE_MS ? this.#warm : 0;
  }

  /** A program runs. */
  programRuns(now: number): void {
    this.#programAt = now;
  }

  /** @param isolates All there are for tasks. @returns The numbers of those that are to end. */
  toEnd(now: number, isolates: readonly IdleCandidate[]): number[] {
    const there = new Set(isolates.map(({ number }) => number));
    for (const number of [...this.#busyAt.keys()]) {
      if (there.has(number)) continue;
      this.#busyAt.delete(number);
      this.#collected.delete(number);
    }
    for (const { number, busy } of isolates) {
      if (busy || !this.#busyAt.has(number)) this.#busyAt.set(number, now);
    }
    const idle = [...this.#busyAt].filter(([, since]) => now - since >= ISOLATE_IDLE_MS)
      .sort(([, a], [, b]) => a - b).map(([number]) => number);
    return idle.slice(0, Math.max(0, isolates.length - this.floor(now)));
  }

  /**
   * Of the isolates that {@link toEnd} was told of last.
   *
   * @returns The numbers of those that are to collect garbage: each once, when it has rested for a moment.
   */
  toCollect(now: number): number[] {
    const numbers: number[] = [];
    for (const [number, since] of this.#busyAt) {
      if (now - since < ISOLATE_COLLECT_MS || this.#collected.get(number) === since) continue;
      this.#collected.set(number, since);
      numbers.push(number);
    }
    return numbers;
  }
}
