/**
 * The head, as far as scheduling needs it: it passes on how nodes are loaded, every 20 ms, to all of them.
 *
 * All that each node says goes to every other one, so the head writes as many entries as the square of the number of
 * nodes. Where its thread does not keep up, reports are as much older.
 *
 * @module
 */

import { LOAD_MS } from "../../core/limits.ts";
import type { NodeLoad } from "../../scheduler/global.ts";
import type { Costs } from "./costs.ts";
import type { Loads } from "./node.ts";
import type { Timeline } from "./timeline.ts";

/** Passes loads on. */
export class SimHead {
  readonly #timeline: Timeline;
  readonly #costs: Costs;
  /** Passes on; returns how many were told. */
  readonly #pass: (loads: Loads) => number;
  readonly #followers: () => number;
  readonly #fresh = new Map<number, NodeLoad>();
  #planned = false;
  #busyUntil = 0;
  #threadMs = 0;
  /** Entries written. */
  entries = 0;

  /** @param followers How many want to be told. @param pass Tells all of them; returns how many there were. */
  constructor(timeline: Timeline, costs: Costs, followers: () => number, pass: (loads: Loads) => number) {
    this.#timeline = timeline;
    this.#costs = costs;
    this.#followers = followers;
    this.#pass = pass;
  }

  /** Thread time so far, in milliseconds. */
  get threadMs(): number {
    return this.#threadMs - Math.max(0, this.#busyUntil - this.#timeline.now);
  }

  /** A node says how it is loaded. */
  report(node: number, load: NodeLoad): void {
    this.#fresh.set(node, load);
    if (this.#planned) return;
    this.#planned = true;
    this.#timeline.at(Math.max(this.#timeline.now + LOAD_MS, this.#busyUntil), () => this.#relay());
  }

  #relay(): void {
    this.#planned = false;
    const loads = Array.from(this.#fresh, ([node, load]) => ({ node, load }));
    this.#fresh.clear();
    const ms = loads.length * this.#followers() * this.#costs.relayUs / 1000;
    this.#threadMs += ms;
    this.#busyUntil = this.#timeline.now + ms;
    this.#timeline.at(this.#busyUntil + this.#costs.networkMs, () => {
      this.entries += loads.length * this.#pass(loads);
    });
  }
}
