/**
 * A member of the control store: the machines of the chain with their storages, and what carries their messages.
 *
 * What arrives in one turn for one shard is one transaction; what follows from it is done after the commit, but for what
 * does not depend on that. A storage that cannot commit makes what memory says worthless, so the shard's replica is built anew from what is on disk.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { decodeReplicaMessage, encodeReplicaMessage } from "./chain_codec.ts";
import { type ChainConfig, firstConfig, type MemberId } from "./chain_config.ts";
import type { MemberSend } from "./chain_consensus.ts";
import { ChainMaster, type MasterEvent } from "./chain_master.ts";
import type { MemberMessage } from "./chain_messages.ts";
import { ChainReplica, type ReplicaEffect } from "./chain_replica.ts";
import type { ShardStorage } from "./shard.ts";

/** A shard's state with transactions around changes of it. */
export interface TransactionalStorage extends ShardStorage {
  /** Runs `body` with all its writes in one commit, which is durable when this returns. */
  transaction<T>(body: () => T): T;
}

/** What a member is made of. */
export interface ChainMemberOptions {
  readonly member: MemberId;
  /** A number above that of every earlier run on the same storages. */
  readonly incarnation: number;
  /** Of each shard. The first one has the member's part in configurations, too. */
  readonly storages: readonly TransactionalStorage[];
  readonly clock: Clock;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
  /** How long the chain is to be; said by the head. A member that founds no store says nothing. */
  readonly replicas: number | undefined;
  /** Whether storages without a configuration are a new store, of which this member is all. */
  readonly founds: boolean;
  /** Whether it is to be the last one of those who leave at about the same time. */
  readonly lingers: boolean;
  /** Whether its storages outlast the process. */
  readonly durable: boolean;
  /** Sends to a member, or loses it. */
  readonly send: (to: MemberId, data: string | Uint8Array) => void;
}

/** What a member tells its owner. */
export interface ChainMemberEvents {
  effect(shard: number, effect: Exclude<ReplicaEffect, { type: "send" }>): void;
  /** What effects have brought is to go out now: a commit follows, which takes a while. */
  flush(): void;
  /** There is another configuration, or this member may read now. */
  changed(): void;
  /** The shard's replica was built anew: what was asked of it may be lost. */
  failed(shard: number): void;
}

/** How long things take, in milliseconds. */
export interface Pace {
  /** How often members tell each other that they live. */
  readonly tickMs: number;
  /** Somebody who says nothing for so long counts as gone. */
  readonly suspectMs: number;
  readonly leaseMs: number;
  /** How long a member that leaves waits for the others to go on without it. */
  readonly leaveMsMax: number;
  /** How long the founder sees whether others leave as well; and how long for those who do. */
  readonly linger: { readonly ms: number; readonly msMax: number };
}

/** The pace of real members. Nodes drain for 30 s. */
export const PACE: Pace = {
  tickMs: 100,
  suspectMs: 1_500,
  leaseMs: 1_000,
  leaveMsMax: 2_000,
  linger: { ms: 2_000, msMax: 35_000 },
};

/** How a member has left. */
export interface Departure {
  /** The others go on without it, or there is nobody. If not, they may wait for it. */
  readonly left: boolean;
  /** It was the last one: nobody else has what it has. */
  readonly last: boolean;
}

/** One member. */
export class ChainMember {
  readonly #options: ChainMemberOptions;
  readonly #events: ChainMemberEvents;
  #master: ChainMaster;
  #incarnation: number;
  readonly #known = new Set<MemberId>();
  readonly #replicas: ChainReplica[];
  readonly #inbox: { readonly from: MemberId; readonly message: Uint8Array }[] = [];
  readonly #own: MemberMessage[] = [];
  #scheduled = false;
  #closed = false;
  /** When it is to leave, if it is; and since when it has waited for the others to go on without it. */
  #leaves: "soon" | "now" | undefined;
  #leavesSince: number | undefined;
  readonly #departed = Promise.withResolvers<void>();
  #cancelTick: () => void = () => {};

  /** @param options What it is made of. @param events Whom it tells; not before {@link start}. */
  constructor(options: ChainMemberOptions, events: ChainMemberEvents) {
    const { member, incarnation, storages, replicas } = options;
    this.#options = options;
    this.#events = events;
    this.#incarnation = incarnation;
    this.#master = this.#makeMaster();
    if (this.#master.config === undefined && options.founds) {
      storages[0]!.transaction(() => this.#master.found(firstConfig(member, replicas ?? 1)));
    }
    this.#replicas = storages.map((storage) => new ChainReplica({ member, storage }));
  }

  #makeMaster(): ChainMaster {
    const { member, storages, clock, replicas, lingers, durable } = this.#options;
    return new ChainMaster({
      member,
      incarnation: this.#incarnation,
      storage: storages[0]!,
      known: this.#known,
      offers: true,
      durable,
      synced: () => this.#synced(),
      now: clock.now(),
      suspectMs: PACE.suspectMs,
      leaseMs: PACE.leaseMs,
      ...(replicas === undefined ? {} : { replicas }),
      ...(lingers ? { linger: PACE.linger } : {}),
    });
  }

  /** Takes up its part. */
  start(): void {
    this.#configure();
    this.#tick();
  }

  /** The configuration. */
  get config(): ChainConfig | undefined {
    return this.#master.config;
  }

  /** Members that are heard, and hear this one. */
  get alive(): readonly MemberId[] {
    return this.#master.alive;
  }

  /** Whether this is the head, of all shards. */
  get isHead(): boolean {
    return this.config?.chain[0] === this.#options.member;
  }

  /** Whether this is the tail, of all shards. */
  get isTail(): boolean {
    return this.config?.chain.at(-1) === this.#options.member;
  }

  /** The replica of a shard. */
  replica(shard: number): ChainReplica {
    return this.#replicas[shard]!;
  }

  /** Whether reads of a shard may be answered here, now. */
  readable(shard: number): boolean {
    return this.#replicas[shard]!.readable && this.#master.leased(this.#options.clock.now());
  }

  /**
   * Runs steps of a shard's replica in one transaction, and does what follows.
   *
   * @returns Whether it is durable; if not, the replica was built anew.
   */
  run(shard: number, body: (replica: ChainReplica) => void): boolean {
    const replica = this.#replicas[shard]!;
    let effects: readonly ReplicaEffect[];
    try {
      effects = this.#options.storages[shard]!.transaction(() => {
        body(replica);
        const { early, late } = replica.settle();
        if (early.length > 0) {
          this.#perform(shard, early);
          this.#events.flush();
        }
        return late;
      });
    } catch (error) {
      this.#failed(shard, error);
      return false;
    }
    this.#perform(shard, effects);
    return true;
  }

  #perform(shard: number, effects: readonly ReplicaEffect[]): void {
    for (const effect of effects) {
      if (effect.type === "send") this.#options.send(effect.to, encodeReplicaMessage(shard, effect.message));
      else this.#events.effect(shard, effect);
    }
  }

  /** There is a member: it is spoken to from now on. */
  meet(member: MemberId): void {
    this.#known.add(member);
  }

  /** A message of another member has arrived. */
  received(from: MemberId, data: string | Uint8Array): void {
    if (this.#closed) return;
    if (typeof data === "string") {
      this.#step({ type: "message", from, message: JSON.parse(data) as MemberMessage });
      return;
    }
    this.#inbox.push({ from, message: data });
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => this.#take());
  }

  /** The process of another member has ended. */
  dead(member: MemberId, incarnation: number): void {
    if (!this.#closed) this.#step({ type: "dead", member, incarnation });
  }

  /** It is to leave in a while: the others are told. */
  leaveSoon(): void {
    if (this.#leaves !== undefined || this.#closed) return;
    this.#leaves = "soon";
    this.#step({ type: "leave", when: "soon" });
  }

  /** Leaves, as well as that can be done in the time there is for it. Called again, it waits for nobody. */
  async leave(): Promise<Departure> {
    if (this.#leaves === "now") this.#departed.resolve();
    this.#leaves = "now";
    if (!this.#closed) this.#step({ type: "leave", when: "now" });
    await this.#departed.promise;
    const { config } = this;
    const last = config?.chain.length === 1 && this.isHead && config.acceptors.length === 1;
    return { left: this.#master.left, last };
  }

  /** Sees whether it has left, or need not wait any longer. */
  #seeDeparture(): void {
    const { leaving, left } = this.#master;
    if (this.#leaves === undefined) return;
    const now = this.#options.clock.now();
    if (leaving === "now") this.#leavesSince ??= now;
    if (left || now - (this.#leavesSince ?? now) > PACE.leaveMsMax) this.#departed.resolve();
  }

  /** Ends it. */
  close(): void {
    this.#closed = true;
    this.#cancelTick();
  }

  #take(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    const byShard = new Map<number, { from: MemberId; message: ReturnType<typeof decodeReplicaMessage> }[]>();
    for (const { from, message } of this.#inbox.splice(0)) {
      let decoded: ReturnType<typeof decodeReplicaMessage>;
      try {
        decoded = decodeReplicaMessage(message);
      } catch (error) {
        // As if it had been lost.
        this.#options.log("error", `A message of member ${from.slice(0, 8)}: ${(error as Error).message}`);
        continue;
      }
      const list = byShard.get(decoded.shard);
      if (list === undefined) byShard.set(decoded.shard, [{ from, message: decoded }]);
      else list.push({ from, message: decoded });
    }
    for (const [shard, messages] of byShard) {
      if (this.#replicas[shard] === undefined) continue;
      this.run(shard, (replica) => {
        for (const { from, message } of messages) {
          replica.step({ type: "message", from, message: message.message });
        }
      });
    }
    this.#events.changed();
  }

  #step(event: MasterEvent): void {
    const before = this.#master.config?.epoch;
    let sends: MemberSend[];
    try {
      sends = this.#options.storages[0]!.transaction(() =>
        this.#master.step(event, this.#options.clock.now())
      );
    } catch (error) {
      // It goes on from what is on disk, as a process that has started anew.
      this.#options.log("error", `Cannot write what was agreed on: ${(error as Error).message}`);
      this.#incarnation++;
      this.#master = this.#makeMaster();
      if (this.#leaves === "now") this.#departed.resolve(); // it cannot vote, so it ends as if it had died
      return;
    }
    for (const { to, message } of sends) {
      if (to === this.#options.member) this.#own.push(message);
      else this.#options.send(to, JSON.stringify(message));
    }
    if (this.#master.config?.epoch !== before) this.#configure();
    for (let message; (message = this.#own.shift()) !== undefined;) {
      this.#step({ type: "message", from: this.#options.member, message });
    }
    this.#seeDeparture();
    this.#events.changed();
  }

  #configure(): void {
    const { config } = this;
    if (config === undefined) return;
    for (let shard = 0; shard < this.#replicas.length; shard++) {
      this.run(shard, (replica) => replica.step({ type: "configure", config }));
    }
    this.#events.changed();
  }

  /** The epoch in which all shards have brought the joining member up to date. */
  #synced(): number {
    const epochs = new Set(this.#replicas.map((replica) => replica.syncedEpoch));
    return epochs.size === 1 ? epochs.values().next().value! : 0;
  }

  #failed(shard: number, error: unknown): void {
    const { member, storages, log } = this.#options;
    log("error", `Shard ${shard} of the control store cannot commit: ${(error as Error).message}`);
    const replica = this.#replicas[shard] = new ChainReplica({ member, storage: storages[shard]! });
    const { config } = this;
    this.#events.failed(shard);
    if (config === undefined) return;
    try {
      storages[shard]!.transaction(() => {
        replica.step({ type: "configure", config });
        replica.settle();
      });
    } catch {
      // It is asked again with the next tick.
    }
  }

  #tick(): void {
    // Alone there is nobody to tell, and nothing that may have been lost.
    const alone = (this.#options.replicas ?? 0) === 1 && this.config !== undefined &&
      this.config.replicas === 1 && this.config.chain.length === 1 &&
      this.config.acceptors.length === 1 && this.isHead;
    if (!alone) {
      // One that had to start anew has forgotten it.
      if (this.#leaves !== undefined && this.#master.leaving === "no") {
        this.#step({ type: "leave", when: this.#leaves });
      }
      this.#step({ type: "tick" });
      for (let shard = 0; shard < this.#replicas.length; shard++) {
        const replica = this.#replicas[shard]!;
        const { config } = this;
        this.run(shard, () => {
          if (config !== undefined && replica.epoch < config.epoch) {
            replica.step({ type: "configure", config });
          }
          replica.step({ type: "tick" });
        });
      }
    } else if (this.#leaves === "now") this.#departed.resolve();
    this.#cancelTick = this.#options.clock.after(PACE.tickMs, () => this.#tick());
  }
}
