/**
 * A clock for tests of what waits.
 *
 * @module
 */

import { type Clock, systemClock } from "../core/clock.ts";

/** A clock whose timers fire when the test says so. */
export class Timers implements Clock {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly ms: number; readonly callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return systemClock.turn();
  }

  /** How many timers run: all, or those of a length. */
  waiting(ms?: number): number {
    return [...this.#timers].filter((timer) => ms === undefined || timer.ms === ms).length;
  }

  /** Lets time go by; what is due meanwhile happens at its time. */
  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = [...this.#timers].sort((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > end) break;
      this.#timers.delete(next);
      this.#now = next.at;
      next.callback();
    }
    this.#now = end;
  }
}
