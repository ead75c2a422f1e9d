/**
 * Calls that wait inside of an actor, in order: for room, for permits, for others.
 *
 * A waiter leaves when it is served, when its time is up, or when its call is cancelled; so nothing is ever given to
 * somebody who is not there any more to take it.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { PendingCallsLimitError } from "../core/errors.ts";
import { CALLS_MAX } from "./tool.ts";

/** How many may wait in one line: fewer than its actor takes calls, so that a call which serves them always gets in. */
const WAITING_MAX = CALLS_MAX - 1_000;

/** Why a waiter left without having been served. */
export type Unserved = "late" | "cancelled";

/** One that waits. */
export interface Waiter<W, R> {
  readonly want: W;
  /** Ends its wait with a result. */
  serve(result: R): void;
}

/** A line of waiters. `W` is what one wants, `R` what it gets. */
export class Waiters<W, R> {
  readonly #clock: Clock;
  readonly #line = new Set<Waiter<W, R>>();

  /** @param clock Measures their time. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many wait. */
  get size(): number {
    return this.#line.size;
  }

  /** One leaves, as if its call had been cancelled. */
  leave(waiter: Waiter<W, R>): void {
    (waiter as Waiter<W, R | Unserved>).serve("cancelled");
  }

  /** All of them, the first one first. */
  [Symbol.iterator](): Iterator<Waiter<W, R>> {
    return [...this.#line][Symbol.iterator]();
  }

  /** The first of them. */
  first(): Waiter<W, R> | undefined {
    return this.#line.values().next().value;
  }

  /**
   * Waits at the end of the line.
   *
   * @param want What for.
   * @param timeoutMs How long at most; may be `Infinity`.
   * @param signal Aborts when the call is cancelled.
   */
  wait(want: W, timeoutMs: number, signal: AbortSignal): Promise<R | Unserved> {
    if (timeoutMs <= 0) return Promise.resolve("late");
    if (this.#line.size >= WAITING_MAX) {
      throw new PendingCallsLimitError(`Cannot wait as well: ${WAITING_MAX} wait already, as many as may`);
    }
    return new Promise((resolve) => {
      const leave = (result: R | Unserved) => {
        if (!this.#line.delete(waiter)) return;
        cancelTimer?.();
        signal.removeEventListener("abort", onAbort);
        resolve(result);
      };
      const waiter: Waiter<W, R> = { want, serve: leave };
      const onAbort = () => leave("cancelled");
      const cancelTimer = timeoutMs === Infinity
        ? undefined
        : this.#clock.after(timeoutMs, () => leave("late"));
      this.#line.add(waiter);
      if (signal.aborted) leave("cancelled");
      else signal.addEventListener("abort", onAbort);
    });
  }
}
