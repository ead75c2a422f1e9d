/**
 * A node of the simulated cluster: the scheduler's real machines, with a thread that takes time.
 *
 * As `node/server.ts` does, a node takes the messages that have come as one block, steps its machines with each, gives
 * waiting tasks away if there is reason to, and lets everything out at the end. While its thread is busy, more comes in,
 * and makes the next block. What the machines decide is theirs; how long the thread is busy with it is from `costs.ts`.
 *
 * @module
 */

import { assert } from "../../core/assert.ts";
import type { TaskId } from "../../core/ids.ts";
import { CPU, RESOURCE_UNIT } from "../../core/options.ts";
import { unreachable } from "../../core/unreachable.ts";
import { balance, type Balanced, farLimitMs } from "../../scheduler/balance.ts";
import { GlobalScheduler, type NodeDescription, type NodeLoad } from "../../scheduler/global.ts";
import { LocalScheduler, type SchedulerEffect, type SchedulerEvent } from "../../scheduler/local.ts";
import { ResourcePool } from "../../scheduler/resources.ts";
import type { Costs } from "./costs.ts";
import { type IsolateHost, SimIsolate } from "./isolate.ts";
import type { Network } from "./network.ts";
import {
  Attempt,
  type Execution,
  type FunctionMean,
  type SimObject,
  type TaskOutcome,
  type TaskSpec,
} from "./task.ts";
import type { Timeline } from "./timeline.ts";

/** Loads of nodes, as the head passes them on. */
export type Loads = readonly { readonly node: number; readonly load: NodeLoad }[];

/** What a node is told. */
export type Inbound =
  | { readonly type: "submit"; readonly specs: readonly TaskSpec[] }
  | { readonly type: "delegate"; readonly from: number; readonly spec: TaskSpec }
  | { readonly type: "result"; readonly from: number; readonly spec: TaskSpec }
  | { readonly type: "done"; readonly execution: Execution; readonly durationMs: number }
  | { readonly type: "suspended"; readonly execution: Execution }
  | { readonly type: "resumed"; readonly execution: Execution }
  | { readonly type: "isolateReady" }
  | { readonly type: "loads"; readonly loads: Loads }
  | { readonly type: "peerDown"; readonly node: number }
  | { readonly type: "tick" };

/** What happened, for the trace. */
export type Noted = "submit" | "send" | "start" | "end" | "delegate" | "result" | "lost";

/** What a node needs of its world. */
export interface NodeWorld {
  readonly timeline: Timeline;
  readonly costs: Costs;
  readonly network: Network;
  readonly descriptions: readonly NodeDescription[];
  /** Where tasks are placed if there is one scheduler for all; `undefined` if every node decides. */
  readonly central: number | undefined;
  /** Whether a place is chosen by where arguments are. */
  readonly locality: boolean;
  indexOf(id: TaskId): number;
  /** Sends messages to another node, or to the central scheduler. */
  deliver(to: number, messages: readonly Inbound[]): void;
  /** A task has ended that was submitted here. */
  ended(spec: TaskSpec, outcome: TaskOutcome): void;
  /** Tells the driver of a node of the tasks that have ended. */
  tellDriver(node: number, specs: readonly TaskSpec[]): void;
  note(what: Noted, node: number, spec: TaskSpec): void;
  /** Runs some of the real machines' code, and measures how long that takes. */
  machines<R>(run: () => R): R;
}

/** Messages that make one block at most: what fits a read of 64 KB. */
const BLOCK_MESSAGES_MAX = 512;

/** What a node may have beyond its CPUs, as in rayd. */
const EXTRA_ISOLATES = 8;

/** A node. */
export class SimNode implements IsolateHost {
  readonly index: number;
  readonly pool: ResourcePool;
  readonly scheduler: LocalScheduler<Attempt>;
  readonly #world: NodeWorld;
  readonly #description: NodeDescription;
  alive = true;

  #inbox: Inbound[] = [];
  #busy = false;
  /** Thread time that the block under way takes. */
  #costUs = 0;
  #toIsolates = new Map<SimIsolate, Execution[]>();
  #toPeers = new Map<number, Inbound[]>();
  #toDriver: TaskSpec[] = [];

  readonly #isolates = new Map<number, SimIsolate>();
  #nextIsolate = 1;
  readonly #functions: FunctionMean[] = [];
  #meanMs = 1;

  /** Made when it is first needed: it is told then all that it would have been told. */
  #global: GlobalScheduler | undefined;
  #loads: { readonly at: number; readonly loads: Loads }[] = [];
  readonly #down = new Set<number>();
  readonly #balanced: Balanced<Attempt, number>;
  /** Given to peers, and not ended. */
  readonly #pending = new Map<number, Map<TaskSpec, Attempt>>();
  /** From peers, and not ended. */
  readonly #foreign = new Map<number, Set<Attempt>>();
  readonly #homeless = new Set<Attempt>();

  readonly #here = new Set<SimObject>();
  readonly #arriving = new Map<SimObject, (() => void)[]>();

  readonly #started = new Set<Execution>();
  /** What runs, by resource; and on each GPU. */
  readonly #used = new Map<string, number>();
  readonly #gpusUsed: number[] = [];
  /** A task has waited for what it reads: CPU may be overdrawn, as it takes its CPUs back at once. */
  #lending = false;
  /** CPU time of tasks, in units x milliseconds. */
  busyUnitMs = 0;
  /** Thread time of the node, in milliseconds. */
  threadMs = 0;

  /** @param index Which of the world's nodes it is. */
  constructor(index: number, world: NodeWorld) {
    this.index = index;
    this.#world = world;
    this.#description = world.descriptions[index]!;
    this.pool = new ResourcePool(this.#description.resources);
    const cpus = Math.ceil((this.#description.resources[CPU] ?? 0) / RESOURCE_UNIT);
    this.scheduler = new LocalScheduler(this.pool, { isolatesMax: cpus + EXTRA_ISOLATES });
    this.#balanced = {
      backlog: () => ({
        queued: this.scheduler.queued,
        waitedMs: this.scheduler.waitedMs(world.timeline.now),
        meanMs: this.#meanMs,
        lanes: Math.max(1, cpus),
      }),
      giveAway: (accept) => this.scheduler.giveAway(accept),
      place: (attempt, limitMs) => attempt.from === undefined ? this.#place(attempt, limitMs) : undefined,
      delegate: (attempt, target) => this.#delegate(attempt, target),
    };
    for (let i = 0; i < cpus; i++) {
      this.scheduler.spawnStarted();
      this.#inbox.push({ type: "isolateReady" });
    }
    if (cpus > 0) this.#wake();
  }

  /** Takes messages; they are read when the thread has time. */
  receive(messages: readonly Inbound[]): void {
    if (!this.alive) return;
    for (const message of messages) this.#inbox.push(message);
    this.#wake();
  }

  /** How the node is loaded. */
  load(): NodeLoad {
    return {
      free: this.pool.free(),
      queued: this.scheduler.queued,
      meanMs: Number(this.#meanMs.toPrecision(2)),
    };
  }

  /** The node is gone, with all that ran on it. @returns How many results its driver was yet to be told. */
  die(): number {
    this.alive = false;
    this.#inbox = [];
    for (const { attempt } of this.#started) attempt.spec.running--;
    this.#started.clear();
    return this.#toDriver.length;
  }

  /** Attempts that have an isolate or wait for one. */
  get unfinished(): number {
    return this.scheduler.queued + this.scheduler.counts().sent + this.#homeless.size;
  }

  // --- The thread ---------------------------------------------------------------------------------------------

  #wake(): void {
    if (this.#busy) return;
    this.#busy = true;
    this.#block();
  }

  #block(): void {
    const { timeline } = this.#world;
    const block = this.#inbox.length <= BLOCK_MESSAGES_MAX
      ? this.#inbox.splice(0)
      : this.#inbox.splice(0, BLOCK_MESSAGES_MAX);
    this.#costUs = 0;
    for (const message of block) this.#handle(message);
    if (this.#world.central === undefined && this.#world.descriptions.length > 1) {
      this.#world.machines(() => balance(this.#balanced));
    }
    this.threadMs += this.#costUs / 1000;
    timeline.after(this.#costUs / 1000, () => this.#letOut());
  }

  /** The end of a block: what it has brought goes out. */
  #letOut(): void {
    if (!this.alive) return;
    const { timeline, costs } = this.#world;
    if (this.#toIsolates.size > 0) {
      const sends = this.#toIsolates;
      this.#toIsolates = new Map();
      timeline.after(costs.localMs, () => {
        if (!this.alive) return;
        for (const [isolate, executions] of sends) isolate.receive(executions);
      });
    }
    for (const [peer, messages] of this.#toPeers) this.#world.deliver(peer, messages);
    this.#toPeers.clear();
    if (this.#toDriver.length > 0) this.#world.tellDriver(this.index, this.#toDriver.splice(0));
    if (this.#inbox.length > 0) this.#block();
    else this.#busy = false;
  }

  #handle(message: Inbound): void {
    const { costs } = this.#world;
    switch (message.type) {
      case "submit":
        for (const spec of message.specs) {
          this.#costUs += costs.nodeStartUs;
          this.#ready(new Attempt(spec, this.#description.id, this.#function(spec), undefined));
        }
        return;
      case "delegate":
        return this.#delegated(message.from, message.spec);
      case "result":
        return this.#result(message.from, message.spec);
      case "done":
        return this.#done(message.execution, message.durationMs);
      case "suspended":
        return this.#step({
          type: "suspended",
          task: message.execution.attempt,
          now: this.#world.timeline.now,
        });
      case "resumed":
        return this.#step({
          type: "resumed",
          task: message.execution.attempt,
          now: this.#world.timeline.now,
        });
      case "isolateReady": {
        const number = this.#nextIsolate++;
        this.#isolates.set(number, new SimIsolate(number, this));
        return this.#step({ type: "isolateReady", isolate: number, now: this.#world.timeline.now });
      }
      case "loads":
        this.#costUs += message.loads.length * costs.reportUs;
        this.#loads.push({ at: this.#world.timeline.now, loads: message.loads });
        return;
      case "peerDown":
        return this.#peerDown(message.node);
      case "tick":
        return this.#step({ type: "tick", now: this.#world.timeline.now });
      default:
        unreachable(message);
    }
  }

  #function({ draft }: TaskSpec): FunctionMean {
    return this.#functions[draft.fn ?? 0] ??= { meanMs: MEAN_MS_UNKNOWN };
  }

  // --- The local scheduler --------------------------------------------------------------------------------------

  #step(event: SchedulerEvent<Attempt>): void {
    const effects = this.#world.machines(() => this.scheduler.step(event));
    const revoked: { readonly execution: Execution; readonly success: boolean }[] = [];
    for (const effect of effects) this.#perform(effect, revoked);
    for (const { execution, success } of revoked) {
      this.#step({
        type: "revoked",
        task: execution.attempt,
        isolate: execution.isolate,
        success,
        now: this.#world.timeline.now,
      });
    }
  }

  #perform(
    effect: SchedulerEffect<Attempt>,
    revoked: { readonly execution: Execution; readonly success: boolean }[],
  ): void {
    switch (effect.type) {
      case "send": {
        const { task: attempt, isolate } = effect;
        const execution = { attempt, isolate, claimed: false, revoked: false, gpus: attempt.gpus };
        attempt.execution = execution;
        this.#world.note("send", this.index, attempt.spec);
        append(this.#toIsolates, this.#isolates.get(isolate)!, execution);
        return;
      }
      case "revoke": {
        const execution = effect.task.execution!;
        const success = !execution.claimed;
        if (success) execution.revoked = true;
        revoked.push({ execution, success });
        return;
      }
      case "spawn":
        return this.#world.timeline.after(
          this.#world.costs.spawnMs,
          () => this.receive([{ type: "isolateReady" }]),
        );
      case "exhausted":
        throw new Error("No isolate dies alone here");
      default:
        unreachable(effect);
    }
  }

  #done(execution: Execution, durationMs: number): void {
    const { attempt } = execution;
    const { spec } = attempt;
    this.#costUs += this.#world.costs.nodeEndUs;
    const fn = this.#function(spec);
    fn.meanMs += (durationMs - fn.meanMs) / 8;
    this.#meanMs += (durationMs - this.#meanMs) / 16;
    this.#step({ type: "done", task: attempt, retry: false, now: this.#world.timeline.now });
    if (attempt.from === undefined) return this.#ended(spec, "done");
    this.#foreign.get(attempt.from)?.delete(attempt);
    if (attempt.wanted) append(this.#toPeers, attempt.from, { type: "result", from: this.index, spec });
  }

  #ended(spec: TaskSpec, outcome: TaskOutcome): void {
    this.#world.ended(spec, outcome);
    this.#toDriver.push(spec);
  }

  // --- Other nodes ----------------------------------------------------------------------------------------------

  /** A task of this node's own may run. */
  #ready(attempt: Attempt): void {
    const { central } = this.#world;
    if (central !== undefined) {
      attempt.state = "delegated";
      this.#give(attempt, central);
    } else if (this.pool.couldEverFit(attempt.shape)) {
      const far = this.#whereItsArgumentsAre(attempt);
      if (far !== undefined) {
        attempt.state = "delegated";
        return this.#delegate(attempt, far);
      }
      this.#step({ type: "ready", task: attempt, now: this.#world.timeline.now });
    } else this.#placeAbroad(attempt);
  }

  /** As `node/cluster.ts` does. */
  #whereItsArgumentsAre(attempt: Attempt): number | undefined {
    const { reads } = attempt.spec.draft;
    if (reads === undefined || reads.home === this.index || !this.#world.locality) return undefined;
    const limitMs = farLimitMs(this.#balanced.backlog(), reads.bytes);
    return limitMs === 0 ? undefined : this.#place(attempt, limitMs);
  }

  #placeAbroad(attempt: Attempt): void {
    attempt.state = "delegated";
    const target = this.#place(attempt, Infinity);
    if (target === undefined) this.#homeless.add(attempt);
    else this.#delegate(attempt, target);
  }

  #place(attempt: Attempt, limitMs: number): number | undefined {
    const { locality, timeline, costs, descriptions } = this.#world;
    const global = this.#globalNow();
    const id = global.place({
      demand: attempt.shape.demand,
      expectedMs: attempt.expectedMs(),
      betterThanMs: limitMs,
      missingBytes: locality ? missingBytesOf(attempt.spec, descriptions) : NO_BYTES,
    }, timeline.now);
    this.#costUs += global.looked * costs.placeViewUs;
    return id === undefined ? undefined : this.#world.indexOf(id);
  }

  /** The global scheduler, with all that it was to be told so far. */
  #globalNow(): GlobalScheduler {
    let global = this.#global;
    if (global === undefined) {
      const { descriptions } = this.#world;
      global = this.#global = new GlobalScheduler(descriptions[this.index]!.id);
      for (let node = 0; node < descriptions.length; node++) {
        if (node !== this.index && !this.#down.has(node)) global.join(descriptions[node]!);
      }
    }
    for (const { at, loads } of this.#loads.splice(0)) {
      for (const { node, load } of loads) global.report(this.#world.descriptions[node]!.id, load, at);
    }
    return global;
  }

  #delegate(attempt: Attempt, target: number): void {
    this.#costUs += this.#world.costs.nodeStartUs;
    this.#world.note("delegate", target, attempt.spec);
    this.#give(attempt, target);
  }

  #give(attempt: Attempt, target: number): void {
    const { spec } = attempt;
    let pending = this.#pending.get(target);
    if (pending === undefined) this.#pending.set(target, pending = new Map());
    pending.set(spec, attempt);
    append(this.#toPeers, target, { type: "delegate", from: this.index, spec });
  }

  #delegated(from: number, spec: TaskSpec): void {
    this.#costUs += this.#world.costs.nodeStartUs;
    if (this.#down.has(from)) return;
    const job = this.#world.descriptions[from]!.id;
    const attempt = new Attempt(spec, job, this.#function(spec), from);
    let foreign = this.#foreign.get(from);
    if (foreign === undefined) this.#foreign.set(from, foreign = new Set());
    foreign.add(attempt);
    const { reads } = spec.draft;
    if (reads !== undefined) this.#pull(reads, NOTHING);
    this.#step({ type: "ready", task: attempt, now: this.#world.timeline.now });
  }

  #result(from: number, spec: TaskSpec): void {
    this.#costUs += this.#world.costs.nodeEndUs;
    const pending = this.#pending.get(this.#world.central ?? from);
    if (pending === undefined || !pending.delete(spec)) return;
    this.#world.note("result", this.index, spec);
    this.#ended(spec, "done");
  }

  #peerDown(node: number): void {
    this.#down.add(node);
    this.#global?.leave(this.#world.descriptions[node]!.id);
    for (const attempt of this.#foreign.get(node) ?? []) this.#cancel(attempt);
    this.#foreign.delete(node);
    const pending = this.#pending.get(node);
    this.#pending.delete(node);
    for (const attempt of pending?.values() ?? []) {
      this.#world.note("lost", node, attempt.spec);
      attempt.spec.losses++;
      if (attempt.failures++ < attempt.retries) this.#ready(attempt);
      else this.#ended(attempt.spec, "exhausted");
    }
  }

  /** Nobody wants the result any more: what has not started is taken back. */
  #cancel(attempt: Attempt): void {
    const { now } = this.#world.timeline;
    this.#step({ type: "removed", task: attempt, now });
    const { execution } = attempt;
    if (attempt.state !== "sent" || execution === undefined || execution.claimed) return;
    execution.revoked = true;
    this.#step({ type: "done", task: attempt, retry: false, now });
  }

  // --- Objects --------------------------------------------------------------------------------------------------

  #has(object: SimObject): boolean {
    return object.home === this.index || this.#here.has(object);
  }

  /** Brings an object here; many who want it wait for one transfer. */
  #pull(object: SimObject, arrived: () => void): void {
    if (this.#has(object)) return arrived();
    const known = this.#arriving.get(object);
    if (known !== undefined) {
      known.push(arrived);
      return;
    }
    const waiting = [arrived];
    this.#arriving.set(object, waiting);
    this.#world.network.transfer(object.home, this.index, object.bytes, () => {
      if (!this.alive) return;
      this.#here.add(object);
      this.#arriving.delete(object);
      for (const each of waiting) each();
    });
  }

  // --- What isolates do -----------------------------------------------------------------------------------------

  start(execution: Execution, arrived: () => void): boolean {
    const { attempt } = execution;
    const { spec } = attempt;
    const { timeline } = this.#world;
    this.#started.add(execution);
    spec.starts++;
    spec.running++;
    assert(spec.running === 1, `task ${spec.number} runs twice at once`);
    if (spec.startedAt < 0) spec.startedAt = timeline.now;
    this.#world.note("start", this.index, spec);
    for (const [name, units] of attempt.shape.rest) this.#use(name, units);
    for (const gpu of execution.gpus) {
      const used = (this.#gpusUsed[gpu] ?? 0) + Math.min(attempt.shape.gpu, RESOURCE_UNIT);
      assert(used <= RESOURCE_UNIT, `GPU ${gpu} of node ${this.index} is lent twice`);
      this.#gpusUsed[gpu] = used;
    }
    const { reads } = spec.draft;
    if (reads === undefined || this.#has(reads)) return true;
    this.#lending = true;
    this.#tell({ type: "suspended", execution });
    this.#pull(reads, arrived);
    return false;
  }

  resume(execution: Execution): void {
    this.#tell({ type: "resumed", execution });
  }

  run({ attempt }: Execution, ended: (durationMs: number) => void): void {
    this.#use(CPU, attempt.shape.cpu);
    const durationMs = attempt.spec.draft.ms + this.#world.costs.isolateUs / 1000;
    this.#world.timeline.after(durationMs, () => {
      if (this.alive) ended(durationMs);
    });
  }

  ended(execution: Execution, durationMs: number): void {
    const { attempt } = execution;
    const { spec, shape } = attempt;
    this.#use(CPU, -shape.cpu);
    for (const [name, units] of shape.rest) this.#use(name, -units);
    for (const gpu of execution.gpus) this.#gpusUsed[gpu]! -= Math.min(shape.gpu, RESOURCE_UNIT);
    this.busyUnitMs += shape.cpu * durationMs;
    this.#started.delete(execution);
    spec.running--;
    spec.finishes++;
    this.#world.note("end", this.index, spec);
    this.#tell({ type: "done", execution, durationMs });
  }

  #tell(message: Inbound): void {
    const messages = [message];
    this.#world.timeline.after(this.#world.costs.localMs, () => this.receive(messages));
  }

  /** What runs never needs more than there is. */
  #use(name: string, units: number): void {
    const used = (this.#used.get(name) ?? 0) + units;
    this.#used.set(name, used);
    const total = this.#description.resources[name] ?? 0;
    assert(
      used >= 0 && (used <= total || name === CPU && this.#lending),
      `node ${this.index} runs tasks with ${used} of ${name}, and has ${total}`,
    );
  }
}

/** What a function is taken to need before it was ever measured, as in a node. */
const MEAN_MS_UNKNOWN = 0.5;

const NOTHING = () => {};
const NO_BYTES = () => 0;

function missingBytesOf({ draft: { reads } }: TaskSpec, nodes: readonly NodeDescription[]) {
  if (reads === undefined) return NO_BYTES;
  const home = nodes[reads.home]!.id;
  return (node: TaskId) => node === home ? 0 : reads.bytes;
}

function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}
