/**
 * A client of the simulated control store that watches all of it: it must be told of nothing twice, and whatever befalls the
 * members, in the end it has what they have. It writes as well, each key once: so whatever it was not told of is seen.
 *
 * @module
 */

import { taskIdFromBytes } from "../../../core/ids.ts";
import { GcsClient } from "../../../gcs/client.ts";
import { splitAddress } from "../../../transport/tcp.ts";
import { TOKEN } from "./machine.ts";
import { SimProcess } from "./process.ts";
import type { Cluster } from "./world.ts";

/** What it writes, and how often. */
const PROBES = "probe/";
const PROBE_MS = 30;

/** Watches the control store. */
export class Watcher {
  /** What was wrong. */
  failure: Error | undefined;
  readonly #world: Cluster;
  /** All keys, with the revision of each. */
  readonly #keys = new Map<string, number>();

  /** @param over Whether nothing befalls the cluster any more. */
  constructor(world: Cluster, over: () => boolean) {
    this.#world = world;
    const process = new SimProcess("watcher", "watcher", world.time);
    const open = () =>
      new GcsClient({
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
    const begin = async () => {
      let client = open();
      // Nobody may be there just then.
      for (; !await client.start().then(() => true, () => false); client = open()) {
        await new Promise<void>((resolve) => process.clock.after(PROBE_MS, resolve));
      }
      await client.watch("", (...change) => this.#changed(...change));
      for (let n = 0; !over(); n++) {
        await client.put(`${PROBES}${n}`, new Uint8Array(1)).catch(() => {
          // It may be done or not: the store has forgotten this client.
        });
        await new Promise<void>((resolve) => process.clock.after(PROBE_MS, resolve));
      }
    };
    begin();
  }

  #changed(key: string, value: Uint8Array | undefined, revision: number): void {
    const last = this.#keys.get(key) ?? 0;
    if (revision <= last) {
      this.failure ??= new Error(`a watch was told of ${key} at ${revision} after ${last}`);
    }
    if (value === undefined) this.#keys.delete(key);
    else this.#keys.set(key, revision);
  }

  /** What it has otherwise than the store. */
  differences(): string[] {
    const there = this.#world.store.revisions();
    return [...new Set([...this.#keys.keys(), ...Object.keys(there)])]
      .filter((key) => this.#keys.get(key) !== there[key])
      .map((key) => `${key} at ${this.#keys.get(key)} instead of ${there[key]}`);
  }
}
