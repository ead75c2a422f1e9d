/**
 * What an operator should know of a node, kept in the control store for `rayd list events`: warnings and errors of its log,
 * and that it came and went.
 *
 * What is said within a moment is one entry. A node has {@link PLACES} of them, which it uses in turn, so that whatever
 * happens there is a bound. They stay when the node is gone, as that is when one wants
 * to read them, until the head finds them old.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { GcsClient } from "../gcs/client.ts";

/** The prefix of events in the control store; `<node>/<place>` follows. */
export const EVENTS = "event/";

/** The entries that a node has, and the most events of one: of a flood, the last are as good as all. */
const PLACES = 20, BATCH_MAX = 50;

/** How long they are kept, in milliseconds. */
export const EVENTS_KEPT_MS = 24 * 3_600_000;

/** How long is waited for further ones. */
const COLLECT_MS = 250;

/** The longest text of one. */
const TEXT_MAX = 2_000;

/** Something that happened. */
export interface NodeEvent {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** 32 hexadecimal digits. */
  readonly node: string;
  readonly level: "info" | "warn" | "error";
  readonly text: string;
}

/** The events of one node. */
export class Events {
  readonly #gcs: GcsClient;
  readonly #node: string;
  readonly #clock: Clock;
  readonly #wall: () => number;
  #next = 0;
  #waiting: NodeEvent[] = [];
  #scheduled = false;
  #writing: Promise<unknown> = Promise.resolve();

  /** @param node The node's id: 32 hexadecimal digits. @param wall The time, in milliseconds since 1970. */
  constructor(gcs: GcsClient, node: string, clock: Clock, wall: () => number) {
    this.#gcs = gcs;
    this.#node = node;
    this.#clock = clock;
    this.#wall = wall;
  }

  /** Something has happened. */
  add(level: NodeEvent["level"], text: string): void {
    this.#waiting.push({
      at: Math.round(this.#wall()),
      node: this.#node,
      level,
      text: text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text,
    });
    if (this.#waiting.length > BATCH_MAX) this.#waiting.shift();
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.after(COLLECT_MS, () => {
      this.#scheduled = false;
      this.#write();
    });
  }

  /** Writes what waits. Resolves when it is written, or cannot be. */
  async flush(): Promise<void> {
    this.#write();
    await this.#writing;
  }

  #write(): void {
    if (this.#waiting.length === 0) return;
    const place = this.#next++ % PLACES;
    const batch = new TextEncoder().encode(JSON.stringify(this.#waiting));
    this.#waiting = [];
    this.#writing = Promise.allSettled([
      this.#writing,
      this.#gcs.put(`${EVENTS}${this.#node}/${place}`, batch),
    ]);
  }
}

/** The events of an entry. */
export function readEvents(bytes: Uint8Array): NodeEvent[] {
  return JSON.parse(new TextDecoder().decode(bytes)) as NodeEvent[];
}
