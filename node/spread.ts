/**
 * Who sends an object to whom when many nodes want it: receivers pass it on.
 *
 * A node that has a large object serves the first few that ask itself, and sends every further one to one of those
 * before it, which passes on what it has of it while the rest still arrives. So each node serves few, and the time to
 * reach all grows with the logarithm of their number. Who was sent elsewhere in vain comes back and insists.
 *
 * Pure.
 *
 * @module
 */

import type { ObjectId, TaskId } from "../core/ids.ts";

/** How many a node serves itself of one object, and how many each of those serves in turn. */
export const FANOUT = 2;

/** Objects that are remembered; the ones asked for longest ago are forgotten first. */
const OBJECTS_MAX = 1_000;

/** What a node remembers of who took which object from it. */
export class Spread {
  /** Receivers in the order in which they asked. */
  readonly #receivers = new Map<ObjectId, TaskId[]>();

  /**
   * A node asks for an object for the first time.
   *
   * @returns The node to ask instead; `undefined` to be served here.
   */
  instead(id: ObjectId, receiver: TaskId): TaskId | undefined {
    const receivers = this.#receivers.get(id) ?? [];
    this.#receivers.delete(id);
    this.#receivers.set(id, receivers); // the newest last
    if (this.#receivers.size > OBJECTS_MAX) this.#receivers.delete(this.#receivers.keys().next().value!);
    let index = receivers.indexOf(receiver);
    if (index < 0) index = receivers.push(receiver) - 1;
    return index < FANOUT ? undefined : receivers[Math.floor(index / FANOUT) - 1];
  }

  /** A receiver could not be served by whoever it was sent to: it is served here, and others are sent to it. */
  insists(id: ObjectId, receiver: TaskId): void {
    const receivers = this.#receivers.get(id);
    if (receivers === undefined) return;
    const index = receivers.indexOf(receiver);
    if (index < FANOUT) return;
    // It takes the place of the one that could not serve it.
    const parent = Math.floor(index / FANOUT) - 1;
    receivers[parent] = receiver;
    receivers.splice(index, 1);
  }

  /** A node is gone. */
  forget(node: TaskId): void {
    for (const [id, receivers] of this.#receivers) {
      const index = receivers.indexOf(node);
      if (index >= 0) receivers.splice(index, 1);
      if (receivers.length === 0) this.#receivers.delete(id);
    }
  }
}
