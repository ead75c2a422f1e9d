/**
 * The simulated control store: one server, or three that are members of a chain, on simulated disks. A process that ends starts
 * again with what it had committed.
 *
 * Members speak to each other in messages, which may overtake each other, and are lost where there is no way.
 *
 * @module
 */

import { taskIdFromHex } from "../../../core/ids.ts";
import { FOUNDER, type MemberId } from "../../../gcs/chain_config.ts";
import { type ChainOptions, GcsServer, type TransactionalStorage } from "../../../gcs/server.ts";
import { SimDisk } from "../disk.ts";
import { STORE_PORT, TOKEN } from "./machine.ts";
import { SimProcess } from "./process.ts";
import type { Cluster } from "./world.ts";

const SHARDS = 2;

/** How long it takes at most until the others know that a member's process has ended. */
const DEATH_MS_MAX = 20;

/** A disk of one shard. */
export class ShardDisk extends SimDisk implements TransactionalStorage {
  readonly #alive: () => boolean;

  /** @param alive Whether the process lives that writes. */
  constructor(alive: () => boolean) {
    super();
    this.#alive = alive;
  }

  transaction<T>(body: () => T): T {
    try {
      const result = body();
      if (!this.#alive()) throw new Error("the process has ended");
      this.commit();
      return result;
    } catch (error) {
      this.rollback();
      throw error;
    }
  }
}

/** A member of the control store. */
export class StoreMember {
  readonly host: string;
  readonly id: MemberId;
  readonly disks = Array.from({ length: SHARDS }, () => new ShardDisk(() => this.process.alive));
  process!: SimProcess;
  server!: GcsServer;
  incarnation = 0;
  readonly #store: SimStore;

  constructor(store: SimStore, id: MemberId, host: string) {
    this.#store = store;
    this.id = id;
    this.host = host;
  }

  /** Starts its process. */
  start(): void {
    const { world, members } = this.#store;
    const process = this.process = new SimProcess(
      `${this.host} ${++this.incarnation}`,
      this.host,
      world.time,
    );
    const server = this.server = new GcsServer({
      cluster: taskIdFromHex("cc".repeat(16)),
      token: TOKEN,
      storages: this.disks,
      clock: process.clock,
      log: (level, message) => world.log(this, level, message),
      ...(members.length > 1 ? { chain: this.#chain() } : {}),
    });
    world.network.listen(process, STORE_PORT, (stream) => server.accept(stream));
    const { incarnation } = this;
    process.onEnd(() => {
      for (const disk of this.disks) disk.rollback();
      for (const other of members) if (other !== this) this.#tellOfDeath(process, other, incarnation);
    });
    if (members.length > 1) process.clock.after(0, () => this.#meet());
  }

  #meet(): void {
    for (const { id } of this.#store.members) if (id !== this.id) this.server.member.meet(id);
  }

  /** Another member sees that the connection is closed, unless nothing of this one's host is heard. */
  #tellOfDeath(process: SimProcess, other: StoreMember, incarnation: number): void {
    const { world } = this.#store;
    world.time.after(world.below(DEATH_MS_MAX), () => {
      if (!other.process.alive || !world.network.open(process, other.process)) return;
      other.process.run(() => other.server.member.dead(this.id, incarnation));
    });
  }

  #chain(): ChainOptions {
    const { world, members } = this.#store;
    const founds = this.id === FOUNDER;
    const addressOf = (id: MemberId) => `${members.find((member) => member.id === id)!.host}:${STORE_PORT}`;
    return {
      member: this.id,
      incarnation: this.incarnation,
      replicas: founds ? members.length : undefined,
      founds,
      lingers: founds,
      durable: true,
      self: addressOf(this.id),
      send: (to, data) => {
        const from = this.process;
        const other = members.find(({ id }) => id === to)!;
        const bytes = typeof data === "string" ? data : data.slice();
        world.network.send(from, other.process, () => other.server.member.received(this.id, bytes));
      },
      map: ({ epoch, chain, acceptors, replicas }) => ({
        epoch,
        head: addressOf(chain[0]!),
        tail: addressOf(chain.at(-1)!),
        members: members.map(({ id }) => addressOf(id)),
        deciders: acceptors.map(addressOf),
        chain: chain.map(addressOf),
        parts: members.map(({ id }) => addressOf(id)),
        replicas,
      }),
    };
  }

  /** Its disk has no room any more, or has again. */
  fill(full: boolean): void {
    for (const disk of this.disks) disk.full = full;
  }
}

/** The control store. */
export class SimStore {
  readonly world: Cluster;
  readonly members: StoreMember[] = [];

  /** @param world Where it is. @param members How many it has. */
  constructor(world: Cluster, members: number) {
    this.world = world;
    for (let i = 0; i < members; i++) {
      const id = i === 0 ? FOUNDER : `${i}`.repeat(32);
      this.members.push(new StoreMember(this, id, members === 1 ? "store" : `store${i}`));
    }
    for (const member of this.members) member.start();
  }

  /** All members go on, with room on their disks. */
  heal(): void {
    for (const member of this.members) {
      member.fill(false);
      if (!member.process.alive) member.start();
      member.process.resume();
    }
  }

  /** All keys that there are, as the tail has them, with the revision of each. */
  revisions(): Record<string, number> {
    const tail = this.members.find(({ process, server }) => process.alive && server.member.isTail);
    const entries = (tail?.disks ?? []).flatMap((disk) => [...disk.scan("", "")]);
    return Object.fromEntries(entries.map(([key, { revision }]) => [key, revision]));
  }

  /** All keys that there are. */
  keys(): string[] {
    return Object.keys(this.revisions()).sort();
  }
}
