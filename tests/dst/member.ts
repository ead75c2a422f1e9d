/**
 * A simulated member: the real machines around a disk that forgets, a clock that drifts, and a process that stops.
 *
 * An event takes effect as in a real process: the machines step, what need not wait is done, what they wrote is committed,
 * and then the rest of what follows is done, one effect after another; a crash may come between any two of them.
 *
 * @module
 */

import type { MemberId } from "../../gcs/chain_config.ts";
import type { MemberSend } from "../../gcs/chain_consensus.ts";
import { ChainMaster, type MasterEvent } from "../../gcs/chain_master.ts";
import type { ChainEntry, MemberMessage, ReplicaMessage } from "../../gcs/chain_messages.ts";
import { ChainReplica, type ReplicaEffect, type ReplicaEvent } from "../../gcs/chain_replica.ts";
import type { GcsCommand, GcsOp } from "../../gcs/shard.ts";
import type { TaskId } from "../../core/ids.ts";
import { DiskFull, SimDisk } from "./disk.ts";
import type { FromStore, World } from "./world.ts";

type Envelope = MemberMessage | ReplicaMessage;

/** One member. */
export class SimMember {
  readonly id: MemberId;
  readonly #world: World;
  readonly #disk = new SimDisk();
  readonly #metaDisk = new SimDisk();
  readonly #rate: number;
  readonly #offset: number;
  #incarnation = 0;
  #master: ChainMaster | undefined;
  #replica: ChainReplica | undefined;
  /** What has arrived for the replica in this turn. */
  #events: ReplicaEvent[] = [];
  /** What was applied, and is not committed to the disk. */
  #applied: ChainEntry[] = [];
  /** What waits while the process does not get to run. */
  #waiting: (() => void)[] | undefined;
  /** What is to be called when it has left. */
  #left: (() => void) | undefined;

  /** @param rate How fast its clock goes. @param offset What its clock shows at the beginning. */
  constructor(id: MemberId, world: World, rate: number, offset: number) {
    this.id = id;
    this.#world = world;
    this.#rate = rate;
    this.#offset = offset;
  }

  /** Whether its process runs. */
  get running(): boolean {
    return this.#master !== undefined;
  }

  /** Whether it was told to leave, and has not yet. */
  get leaving(): boolean {
    return this.#left !== undefined;
  }

  /** Of its process, or of the last one. */
  get incarnation(): number {
    return this.#incarnation;
  }

  get master(): ChainMaster | undefined {
    return this.#master;
  }

  get replica(): ChainReplica | undefined {
    return this.#replica;
  }

  /** Whether it answers reads at this moment. */
  get readable(): boolean {
    return this.running && this.#replica!.readable && this.#master!.leased(this.#clock());
  }

  /** Its state on disk, for comparison. */
  state(): string {
    return JSON.stringify(
      this.#disk.scan("", "").map(([key, { value, revision }]) => [key, revision, [...value]]),
    );
  }

  /** Starts its process. @param first How many members are the chain from the beginning, if this is one of them. */
  start(first: readonly MemberId[] = []): void {
    this.#incarnation++;
    const { faults, plan } = this.#world;
    this.#master = new ChainMaster({
      member: this.id,
      incarnation: this.#incarnation,
      storage: this.#metaDisk,
      known: plan.members.filter((id) => id !== this.id),
      offers: true,
      durable: true,
      synced: () => this.#replica?.syncedEpoch ?? 0,
      now: this.#clock(),
      suspectMs: plan.pace.suspectMs,
      leaseMs: plan.pace.leaseMs,
      ...(this.id === plan.members[0] ? { linger: plan.pace.linger } : {}),
      faults,
    });
    if (first.length > 0) {
      this.#master.found({
        epoch: 1,
        chain: first,
        joining: undefined,
        acceptors: first,
        replicas: plan.replicas,
      });
      this.#metaDisk.commit();
    }
    this.#open();
    const run = this.#incarnation;
    const tick = () => {
      if (!this.running || run !== this.#incarnation) return;
      this.#runs(() => {
        this.#masterStep({ type: "tick" });
        this.#replicaStep({ type: "tick" });
      });
      this.#world.time.after(plan.pace.tickMs / this.#rate, tick);
    };
    this.#world.time.after(this.#world.below(plan.pace.tickMs), tick);
  }

  /** Ends its process at this instant. */
  crash(): void {
    this.#master = this.#replica = undefined;
    this.#waiting = this.#left = undefined;
    this.#events = [];
    this.#disk.rollback();
    this.#metaDisk.rollback();
  }

  /** The process does not get to run for a while. */
  pause(ms: number): void {
    if (this.#waiting !== undefined || !this.running) return;
    const waiting: (() => void)[] = this.#waiting = [];
    this.#world.time.after(ms, () => {
      if (this.#waiting !== waiting) return;
      this.#waiting = undefined;
      for (const each of waiting) each();
    });
  }

  /** It is stopped gently: it is to leave, and ends when it has, or at the latest after a while. @param left When it has. */
  leave(when: "soon" | "now", left: () => void): void {
    const run = this.#incarnation;
    this.#runs(() => {
      this.#left = left;
      this.#masterStep({ type: "leave", when });
    });
    if (when === "soon") return;
    const { leaveMsMax } = this.#world.plan.pace;
    const late = () => {
      if (!this.running || run !== this.#incarnation) return;
      if (this.#master!.leaving === "now") this.#world.couldNotLeave(this, left);
      else this.#world.time.after(leaveMsMax, late);
    };
    this.#world.time.after(leaveMsMax, late);
  }

  /** Its disks take no more, or do again. */
  fill(full: boolean): void {
    this.#disk.full = this.#metaDisk.full = full;
  }

  /** A message has arrived. */
  receive(from: MemberId, message: Envelope): void {
    this.#runs(() => {
      if (isOfReplica(message)) this.#replicaStep({ type: "message", from, message });
      else this.#masterStep({ type: "message", from, message });
    });
  }

  /** The process of another member has ended. */
  seeDead(member: MemberId, incarnation: number): void {
    this.#runs(() => this.#masterStep({ type: "dead", member, incarnation }));
  }

  /** A client asks for something. */
  request(reply: (message: FromStore) => void, message: ToStore): void {
    this.#runs(() => {
      const { config } = this.#master!;
      switch (message.type) {
        case "write":
          return this.#replicaStep({ type: "command", command: message.command });
        case "read": {
          return this.readable
            ? reply({
              type: "answer",
              sequence: message.request,
              results: this.#replica!.read(message.client, message.operations),
            })
            : reply({ type: "refused", sequence: message.request, config });
        }
        case "where":
          return reply({ type: "config", config });
        case "gone":
          return this.#replicaStep({ type: "expire", client: message.client });
      }
    });
  }

  #runs(action: () => void): void {
    if (!this.running) return;
    if (this.#waiting === undefined) return action();
    const run = this.#incarnation;
    this.#waiting.push(() => {
      if (this.running && run === this.#incarnation) this.#runs(action);
    });
  }

  #clock(): number {
    return this.#world.time.now * this.#rate + this.#offset;
  }

  #open(): void {
    const { faults } = this.#world;
    this.#replica = new ChainReplica({
      member: this.id,
      storage: this.#disk,
      faults,
      applied: (entry) => this.#applied.push(entry),
      copyEntries: 2,
    });
    this.#configure();
  }

  #masterStep(event: MasterEvent): void {
    const master = this.#master;
    if (master === undefined) return;
    const before = master.config?.epoch;
    const sends = master.step(event, this.#clock());
    try {
      this.#metaDisk.commit();
    } catch (error) {
      return this.#failed(error);
    }
    if (this.#world.strikes(this)) return;
    if (master.config?.epoch !== before) this.#configure();
    for (const { to, message } of sends) this.#send(to, message);
    if (this.#master === master && master.left) this.#left?.();
  }

  #configure(): void {
    const config = this.#master?.config;
    if (config === undefined) return;
    if (this.#world.checks.configured(this.id, config)) this.#world.changed(config);
    this.#replicaStep({ type: "configure", config });
  }

  #replicaStep(event: ReplicaEvent): void {
    if (this.#replica === undefined) return;
    // What arrives in one turn is one transaction.
    this.#events.push(event);
    if (this.#events.length > 1) return;
    const { plan, time } = this.#world;
    if (event.type === "configure" || plan.turnMs === 0) return this.#settle();
    const run = this.#incarnation;
    time.after(this.#world.chance() * plan.turnMs, () => {
      if (run === this.#incarnation) this.#runs(() => this.#settle());
    });
  }

  #settle(): void {
    const replica = this.#replica;
    const events = this.#events;
    this.#events = [];
    if (replica === undefined) return;
    const kept = replica.last.seq;
    for (const event of events) replica.step(event);
    const { early, late } = replica.settle();
    const applied = this.#applied;
    this.#applied = [];
    // What was on its disk before is committed, though that it is applied may be lost again.
    for (const entry of applied) if (entry.seq <= kept) this.#world.checks.applied(this.id, entry);
    if (!this.#performAll(early)) return;
    try {
      this.#disk.commit();
    } catch (error) {
      return this.#failed(error);
    }
    for (const entry of applied) this.#world.checks.applied(this.id, entry);
    this.#performAll(late);
  }

  /** @returns Whether fate did not end it. */
  #performAll(effects: readonly ReplicaEffect[]): boolean {
    for (const effect of effects) {
      if (this.#world.strikes(this)) return false;
      this.#perform(effect);
    }
    return effects.length === 0 || !this.#world.strikes(this);
  }

  #perform(effect: ReplicaEffect): void {
    switch (effect.type) {
      case "send":
        return this.#send(effect.to, effect.message);
      case "answer":
        return this.#world.answer(this.id, effect.client, {
          type: "answer",
          sequence: effect.sequence,
          results: effect.results,
        });
      case "refused":
        return this.#world.answer(this.id, effect.client, {
          type: "refused",
          sequence: effect.sequence,
          config: this.#master?.config,
        });
      case "remembered":
      case "changes":
        return;
    }
  }

  #send(to: MemberId, message: MemberSend["message"] | ReplicaMessage): void {
    if (to === this.id) this.receive(this.id, message);
    else this.#world.send(this.id, to, message);
  }

  /** The disk did not take it: what is in memory is worth nothing, so the process starts again. */
  #failed(error: unknown): void {
    if (!(error instanceof DiskFull)) throw error;
    this.#world.crash(this);
  }
}

/** From a client. */
export type ToStore =
  | { readonly type: "write"; readonly command: GcsCommand }
  | {
    readonly type: "read";
    readonly client: TaskId;
    readonly request: number;
    readonly operations: readonly GcsOp[];
  }
  | { readonly type: "where" }
  | { readonly type: "gone"; readonly client: TaskId };

function isOfReplica(message: Envelope): message is ReplicaMessage {
  switch (message.type) {
    case "position":
    case "probe":
    case "forward":
    case "ack":
    case "chunk":
    case "taken":
      return true;
    default:
      return false;
  }
}
