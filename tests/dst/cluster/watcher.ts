/**
 * A client of the simulated control store that watches all of it: it must be told of each change once, in order, whatever befalls
 * the members; and in the end it has what they have.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { taskIdFromBytes } from "../../../core/ids.ts";
import { GcsClient } from "../../../gcs/client.ts";
import { shardOf } from "../../../gcs/shard.ts";
import { splitAddress } from "../../../transport/tcp.ts";
import { TOKEN } from "./machine.ts";
import { SimProcess } from "./process.ts";
import { SHARDS } from "./store.ts";
import type { Cluster } from "./world.ts";

/** Watches the control store. */
export class Watcher {
  /** What was wrong. */
  failure: Error | undefined;
  readonly #world: Cluster;
  readonly #keys = new Set<string>();
  /** By shard: the last revision; once all that there was at first was told. */
  readonly #revisions: number[] = new Array(SHARDS).fill(0);
  #watching = false;

  constructor(world: Cluster) {
    this.#world = world;
    const process = new SimProcess("watcher", "watcher", world.time);
    const client = new GcsClient({
      id: taskIdFromBytes(new Uint8Array(16).fill(0xee)),
      token: TOKEN,
      clock: process.clock,
      connect: async (address) => {
        const addresses = address === undefined ? world.storeAddresses() : [splitAddress(address)];
        let last: unknown;
        for (const { hostname, port } of addresses) {
          try {
            return await world.network.dial(process, hostname, port);
          } catch (error) {
            last = error;
          }
        }
        throw last;
      },
    });
    client.start().then(() => client.watch("", (...change) => this.#changed(...change)))
      .then(() => this.#watching = true);
  }

  #changed(key: string, value: Uint8Array | undefined, revision: number): void {
    const shard = shardOf(key, SHARDS), last = this.#revisions[shard]!;
    if (this.#watching && revision !== last + 1) {
      this.failure ??= new Error(
        `a watch of shard ${shard} was told of change ${revision} (${key}) after ${last}`,
      );
    }
    this.#revisions[shard] = Math.max(last, revision);
    if (value === undefined) this.#keys.delete(key);
    else this.#keys.add(key);
  }

  /** It has what the store has. To be called when nothing has happened for a while. */
  check(): void {
    assertEquals(
      [...this.#keys].sort(),
      this.#world.store.keys(),
      "a watch does not have what the store has",
    );
  }
}
