/**
 * What becomes of isolates that have nothing to do: each costs some 40 MB, be it used or not.
 *
 * While a program runs somewhere in the cluster, as many as are kept ready stay, so that its next task starts at once;
 * what had to be started beyond that, as many tasks waited for others, goes after a while. When no program has run for a
 * while, or none has run yet, there are none. They come when a program connects, anywhere.
 *
 * One that stays collects its garbage once it has rested for a moment, be it one for tasks or for actors: otherwise actors
 * and objects that its last task, or call, had a Ref of would live for as long as nothing is done there.
 *
 * Pure.
 *
 * @module
 */

import { ISOLATE_COLLECT_MS, ISOLATE_IDLE_MS, PROGRAM_IDLE_MS } from "../core/limits.ts";

/** An isolate. */
export interface IdleCandidate {
  readonly number: number;
  /** Whether it is for tasks; others end with the actors that they carry. */
  readonly forTasks: boolean;
  /** Whether it runs something, or is starting. */
  readonly busy: boolean;
  /** How much it was given to do so far: it has worked if this is more than before. */
  readonly given: number;
}

interface Rest {
  /** Since when there was nothing to do. */
  since: number;
  given: number;
  readonly forTasks: boolean;
  collected: boolean;
}

/** Remembers since when nothing was to be done. */
export class IdleIsolates {
  readonly #warm: number;
  readonly #rests = new Map<number, Rest>();
  #programAt = -Infinity;

  /** @param warm How many are kept ready for programs. */
  constructor(warm: number) {
    this.#warm = warm;
  }

  /** How many are kept whatever there is to do. */
  floor(now: number): number {
    return now - this.#programAt < PROGRAM_IDLE_MS ? this.#warm : 0;
  }

  /** A program runs. */
  programRuns(now: number): void {
    this.#programAt = now;
  }

  /** @param isolates All there are. @returns The numbers of those that are to end. */
  toEnd(now: number, isolates: readonly IdleCandidate[]): number[] {
    const there = new Set(isolates.map(({ number }) => number));
    for (const number of [...this.#rests.keys()]) if (!there.has(number)) this.#rests.delete(number);
    for (const { number, busy, given, forTasks } of isolates) {
      const rest = this.#rests.get(number);
      if (rest !== undefined && !busy && rest.given === given) continue;
      this.#rests.set(number, { since: now, given, forTasks, collected: false });
    }
    const forTasks = [...this.#rests].filter(([, rest]) => rest.forTasks);
    const idle = forTasks.filter(([, { since }]) => now - since >= ISOLATE_IDLE_MS)
      .sort(([, a], [, b]) => a.since - b.since).map(([number]) => number);
    return idle.slice(0, Math.max(0, forTasks.length - this.floor(now)));
  }

  /**
   * Of the isolates that {@link toEnd} was told of last.
   *
   * @returns The numbers of those that are to collect garbage: each once, when it has rested for a moment.
   */
  toCollect(now: number): number[] {
    const numbers: number[] = [];
    for (const [number, rest] of this.#rests) {
      if (now - rest.since < ISOLATE_COLLECT_MS || rest.collected) continue;
      rest.collected = true;
      numbers.push(number);
    }
    return numbers;
  }
}
