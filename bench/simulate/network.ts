/**
 * The network's bulk side: each machine sends so many bytes a millisecond and receives as many, one transfer after the
 * other. (Real transfers share a link; one after the other has the same throughput, and an earlier first end.)
 *
 * @module
 */

import type { Timeline } from "./timeline.ts";

/** All machines' links. */
export class Network {
  readonly #timeline: Timeline;
  readonly #latencyMs: number;
  readonly #bandwidth: number;
  readonly #sendingUntil: Float64Array;
  readonly #receivingUntil: Float64Array;
  /** Bytes sent so far. */
  bytes = 0;

  /** @param bandwidth Bytes a millisecond. */
  constructor(timeline: Timeline, machines: number, latencyMs: number, bandwidth: number) {
    this.#timeline = timeline;
    this.#latencyMs = latencyMs;
    this.#bandwidth = bandwidth;
    this.#sendingUntil = new Float64Array(machines);
    this.#receivingUntil = new Float64Array(machines);
  }

  /** Asks another machine for bytes. */
  transfer(from: number, to: number, bytes: number, arrived: () => void): void {
    this.bytes += bytes;
    const asked = this.#timeline.now + this.#latencyMs;
    const begins = Math.max(asked, this.#sendingUntil[from]!, this.#receivingUntil[to]!);
    const ends = begins + bytes / this.#bandwidth;
    this.#sendingUntil[from] = this.#receivingUntil[to] = ends;
    this.#timeline.at(ends + this.#latencyMs, arrived);
  }
}
