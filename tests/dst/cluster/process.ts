/**
 * A simulated process: it has a place in the network, a clock in virtual time, and may be stopped for a while, or end at any
 * moment. What it has begun and awaits then never goes on: nothing calls it back.
 *
 * @module
 */

import type { Clock } from "../../../core/clock.ts";
import type { Timeline } from "../timeline.ts";

/** A process on a simulated host. */
export class SimProcess {
  readonly name: string;
  /** Where it is in the network. */
  readonly host: string;
  readonly clock: Clock;
  readonly #time: Timeline;
  #alive = true;
  #paused = false;
  /** What was to happen while it stood still. */
  #late: (() => void)[] = [];
  readonly #ends = new Set<() => void>();

  /** @param offsetMs What its clock shows at the beginning. */
  constructor(name: string, host: string, time: Timeline, offsetMs = 0) {
    this.name = name;
    this.host = host;
    this.#time = time;
    this.clock = {
      now: () => time.now + offsetMs,
      after: (ms, callback) => this.#after(ms, callback),
      turn: () => new Promise((resolve) => this.#after(0, resolve)),
    };
  }

  /** Whether it has not ended. */
  get alive(): boolean {
    return this.#alive;
  }

  /** Whether it runs: neither has it ended, nor does it stand still. */
  get running(): boolean {
    return this.#alive && !this.#paused;
  }

  /** Does something now, or when it goes on; nothing if it has ended by then. */
  run(work: () => void): void {
    if (!this.#alive) return;
    if (this.#paused) this.#late.push(work);
    else work();
  }

  /** Stands still until {@link resume}. */
  pause(): void {
    this.#paused = true;
  }

  /** Goes on, with all that has come up meanwhile. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const late = this.#late;
    this.#late = [];
    // One after the other, as whatever happens is an event of its own.
    for (const work of late) this.#time.after(0, () => this.run(work));
  }

  /** Ends at once, whatever it is doing. */
  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#late = [];
    for (const end of [...this.#ends]) end();
    this.#ends.clear();
  }

  /** Told when it ends. Returns what undoes that. */
  onEnd(ended: () => void): () => void {
    this.#ends.add(ended);
    return () => this.#ends.delete(ended);
  }

  #after(ms: number, callback: () => void): () => void {
    let cancelled = false;
    this.#time.after(Math.max(0, ms), () =>
      this.run(() => {
        if (!cancelled) callback();
      }));
    return () => cancelled = true;
  }
}
