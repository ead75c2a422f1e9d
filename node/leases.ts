/**
 * What a node has in the control store only for as long as it lives: names of its actors, its placement groups. Such
 * entries go with the node's lease, so nothing of a dead node is left. But a node that was only silent for too long is
 * given up like a dead one, and its entries are gone when it is back, though what they stand for is still there. So they
 * are remembered here, and put again.
 *
 * @module
 */

import { ANY, type GcsClient } from "../gcs/client.ts";

/** The part of the control store's client that this needs. */
export type LeasedStore = Pick<GcsClient, "get" | "put" | "delete">;

interface Held {
  readonly value: Uint8Array;
  readonly expect: number;
}

/** The entries that go with one node. */
export class Leases {
  readonly #gcs: LeasedStore;
  readonly #lost: (key: string) => void;
  readonly #held = new Map<string, Held>();

  /** @param lost Told of an entry that cannot be put again, as somebody else has that key now. */
  constructor(gcs: LeasedStore, lost: (key: string) => void) {
    this.#gcs = gcs;
    this.#lost = lost;
  }

  /** Whether the node means to have an entry. */
  has(key: string): boolean {
    return this.#held.has(key);
  }

  /** Puts an entry. @param expect As the client's `put` has it; it holds again whenever the entry is put again. @returns Whether it was as expected. */
  async put(key: string, value: Uint8Array, expect: number = ANY): Promise<boolean> {
    const held = { value, expect };
    const before = this.#held.get(key);
    this.#held.set(key, held);
    const done = await this.#gcs.put(key, value, expect, true) !== undefined;
    if (!done && this.#held.get(key) === held) {
      if (before === undefined) this.#held.delete(key);
      else this.#held.set(key, before);
    }
    return done;
  }

  /** The node means to have an entry no more. */
  forget(key: string): void {
    this.#held.delete(key);
  }

  /** Puts an entry again that is gone. */
  async again(key: string): Promise<void> {
    const held = this.#held.get(key);
    if (held === undefined) return;
    const revision = await this.#gcs.put(key, held.value, held.expect, true);
    if (revision !== undefined) {
      // It may have been let go of since, before it was there to be deleted.
      if (!this.#held.has(key)) await this.#gcs.delete(key, revision);
      return;
    }
    // It may be there by a `put` of the node's own, which was on its way.
    const found = (await this.#gcs.get(key))?.value;
    if (this.#held.get(key) !== held || found !== undefined && equalBytes(found, held.value)) return;
    this.#held.delete(key);
    this.#lost(key);
  }

  /** The store had given the node up: all is put again. */
  allAgain(): void {
    for (const key of this.#held.keys()) {
      this.again(key).catch(() => {
        // The client was closed: the node ends.
      });
    }
  }
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
