/**
 * The simulated control store: the real server on a simulated disk, which ends and starts again with what it had committed.
 *
 * @module
 */

import { taskIdFromHex } from "../../../core/ids.ts";
import { GcsServer, type TransactionalStorage } from "../../../gcs/server.ts";
import { SimDisk } from "../disk.ts";
import { STORE_PORT, TOKEN } from "./machine.ts";
import { SimProcess } from "./process.ts";
import type { Cluster } from "./world.ts";

const SHARDS = 2;

/** A disk of one shard. */
export class ShardDisk extends SimDisk implements TransactionalStorage {
  transaction<T>(body: () => T): T {
    try {
      const result = body();
      this.commit();
      return result;
    } catch (error) {
      this.rollback();
      throw error;
    }
  }
}

/** A member of the control store. */
export class SimStore {
  readonly host = "store";
  readonly disks = Array.from({ length: SHARDS }, () => new ShardDisk());
  process!: SimProcess;
  readonly #world: Cluster;
  #runs = 0;

  constructor(world: Cluster) {
    this.#world = world;
    this.start();
  }

  /** Starts its process. */
  start(): void {
    const world = this.#world;
    const process = this.process = new SimProcess(`store ${++this.#runs}`, this.host, world.time);
    const server = new GcsServer({
      cluster: taskIdFromHex("cc".repeat(16)),
      token: TOKEN,
      storages: this.disks,
      clock: process.clock,
      log: (level, message) => world.log(this, level, message),
    });
    world.network.listen(process, STORE_PORT, (stream) => server.accept(stream));
    process.onEnd(() => {
      for (const disk of this.disks) disk.rollback();
    });
  }

  /** Its disk has no room any more, or has again. */
  fill(full: boolean): void {
    for (const disk of this.disks) disk.full = full;
  }

  /** All keys that there are. */
  keys(): string[] {
    return this.disks.flatMap((disk) => [...disk.scan("", "")].map(([key]) => key)).sort();
  }
}
