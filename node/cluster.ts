/**
 * A node among others: what it gives to peers, and what it has from them.
 *
 * Nodes are clients of each other. A *peer* submits tasks as a program does, and is told of results as a program is; so
 * what happens on a node is the same wherever it was asked for. One connection carries both directions, which orders
 * what two nodes say to each other: a node that passes a result on has said before that it still holds what it refers to.
 *
 * An object that came from a peer has its *home* there: the peer keeps it for as long as this node says that it holds
 * it, knows its outcome when that is not known here, and sends its bytes when they are wanted. Homes form a tree with the
 * node that made the object at its root. When a peer is gone, tasks that it had are run again, and objects that had their
 * home there and are not here have to be made again (`node/lineage.ts`).
 *
 * Pure but for what it is handed: sockets, clocks and the control store are its owner's.
 *
 * @module
 */

import { type RaydError, WorkerCrashedError } from "../core/errors.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { argumentsId, hex, type ObjectId, returnId, type TaskId, taskOf } from "../core/ids.ts";
import type { FromNode, Message, Outcome, ToNode } from "../core/messages.ts";
import { bundleOf } from "../core/bundles.ts";
import { groupGone } from "../core/groups.ts";
import { mayRunOn, type PlacedNode, type Placement, showPlacement } from "../core/placement.ts";
import { type Backlog, balance, type Balanced } from "../scheduler/balance.ts";
import { HELD_MS, type NodeDescription, type NodeLoad } from "../scheduler/global.ts";
import type { GroupNode } from "../scheduler/group_coordinator.ts";
import type { TaskSettings } from "../core/options.ts";
import { type ResourcePool, type Shape, showShape } from "../scheduler/resources.ts";
import { CallRecord } from "./actor_records.ts";
import type { NodeFault } from "./faults.ts";
import type { ObjectDirectory, ObjectRecord } from "./directory.ts";
import { FarActors, type Located } from "./far_actors.ts";
import { refersTo } from "./outcomes.ts";
import { lacking, Placing } from "./placing.ts";
import { asksOnce, type Client, NO_CLIENT } from "./peers.ts";
import { newRemote, type Remote } from "./remote.ts";
import { type FunctionEntry, type SettingsEntry, TaskRecord } from "./tasks.ts";

/** What a cluster needs of its node. */
export interface ClusterServices {
  readonly id: TaskId;
  readonly labels: Readonly<Record<string, string>>;
  readonly directory: ObjectDirectory;
  readonly faults: ReadonlySet<NodeFault>;
  readonly pool: ResourcePool;
  readonly tasks: Map<TaskId, TaskRecord>;
  readonly clients: Map<number, Client>;
  now(): number;
  /** Does something in a turn of its own, soon. */
  soon(work: () => void): void;
  log(level: "info" | "warn" | "error", message: string): void;
  send(client: Client, message: Message): void;
  /** Whether the actor is one of this node's own. */
  hasActor(id: TaskId): boolean;
  /** Where an actor is that survives its node, as the control store says. */
  locate(id: TaskId): Promise<Located | undefined>;
  /** Has an actor taken up on a node by what the control store is told of it, unless there is one by now. */
  enterFor(creation: TaskRecord, settings: ActorSettings, node: TaskId): void;
  /** A call that was to go elsewhere is one of an actor that has come here. */
  takeOver(call: CallRecord): void;
  killHere(actor: TaskId, restart: boolean): void;
  awaitDeathHere(client: Client, request: number, actor: TaskId): void;
  /** A call of another node's actor was made here. */
  expectFar(call: CallRecord): void;
  shape(settings: Pick<TaskSettings, "demand" | "alternatives">): Shape;
  settings(settings: TaskSettings): SettingsEntry;
  /** Does something after so many milliseconds. Returns what prevents it. */
  after(ms: number, work: () => void): () => void;
  /** Ends a turn: what was queued for clients leaves. */
  flush(): void;
  /** Takes a task in: its arguments are held. Returns what is missing of them; `undefined` if it has failed. */
  admit(task: TaskRecord): readonly ObjectId[] | undefined;
  limitTime(task: TaskRecord): void;
  /** A task may run here. */
  ready(task: TaskRecord): void;
  /** An outcome of a task is there; its bytes, if it is large, lie with that peer. */
  settle(task: TaskRecord, index: number, outcome: Outcome): void;
  finish(task: TaskRecord, outcomes: readonly Outcome[]): void;
  fail(task: TaskRecord, error: RaydError): void;
  /** An object that was waited for exists. */
  announce(record: ObjectRecord): void;
  /** Has an object made again whose home is gone; in the end it is announced, if only as lost. */
  remake(record: ObjectRecord): void;
  /** Whether an object came in a task's result, which is run again for it if it is lost. */
  comesWith(object: ObjectId, task: TaskId): boolean;
  /** Whether an object's bytes are in this node's memory or on its disk. */
  isHere(record: ObjectRecord): boolean;
  /** Takes a waiting task from the local scheduler, if there is one that is accepted. */
  giveAway(accept: (task: TaskRecord) => boolean): TaskRecord | undefined;
  /** What waits here. */
  backlog(): Backlog;
  /** A task waits for a bundle that no node has: is its group there at all? */
  checkGroup(task: TaskRecord): void;
  /** Shows a program what a task of it has printed elsewhere. */
  output(message: Extract<FromNode, { type: "output" }>): void;
}

/** How many tasks are given away in one turn. */
const GIVEN_TASKS_MAX = 500;

/** This node's dealings with others. */
export class Cluster {
  readonly #node: ClusterServices;
  readonly #placing: Placing;
  readonly #remotes = new Map<number, Remote>();
  readonly #byNode = new Map<TaskId, Remote>();
  /** Tasks that can never run here, and for which there is no node now. */
  readonly #homeless = new Set<TaskRecord>();
  /** Its dealings with actors of others. */
  readonly actors: FarActors;
  /** A task was turned away: what nodes have is known better soon. */
  #placeAgain = false;
  readonly #touched = new Set<Remote>();
  readonly #self: PlacedNode;
  /** This node is about to end: what it can give to others, it gives. */
  draining = false;
  readonly #introduced: ObjectId[] = [];
  readonly #balanced: Balanced<TaskRecord, Remote>;
  /** There is more to give away, in the next turn. */
  #balancing = false;

  /** @param node What the cluster needs of its node. */
  constructor(node: ClusterServices) {
    this.#node = node;
    this.#placing = new Placing(node, (id) => this.#byNode.get(id)?.client.id);
    this.actors = new FarActors(node, {
      byClient: (client) => this.#remotes.get(client),
      byNode: (id) => this.#byNode.get(id),
      behalf: (remote, task) => this.#behalf(remote, task),
      give: (task, remote) => this.#give(task, remote),
      recall: (task) => this.recall(task),
      retain: (remote, record) => this.#retain(remote, record),
      leave: (record) => this.leave(record),
      introduce: (client, id, outcome) => this.introduce(client, id, outcome),
      introduced: () => this.introduced(),
      mayRunHere: (task) => this.mayRunHere(task),
      wished: (task, placement, here) => this.#wished(task, placement, here),
      place: (task, betterThanMs) => this.#place(task, betterThanMs),
      touch: (remote) => this.#touched.add(remote),
    });
    this.#self = { id: hex(node.id), labels: node.labels };
    this.#balanced = {
      backlog: () => node.backlog(),
      giveAway: (accept) => node.giveAway(accept),
      place: (task, limitMs) => {
        // It would wait here until actors end: any node where it need not is better.
        if (!node.pool.fitsBesideActors(task.asked)) return this.#place(task, HELD_MS);
        // What is to be spread stays where that has put it, and so does what another node has given to this one.
        const stays = task.foreign || task.entry.settings.placement?.spread === true;
        return stays ? undefined : this.#place(task, limitMs);
      },
      delegate: (task, remote) => this.#delegate(task, remote),
    };
  }

  // --- Membership ---------------------------------------------------------------------------------------------

  /** A connection to a peer is up. @returns Whether it is the first one to that node. */
  peerUp(client: Client, description: NodeDescription): boolean {
    if (this.#byNode.has(description.id)) return false;
    const remote = newRemote(description.id, client);
    this.#remotes.set(client.id, remote);
    this.#byNode.set(description.id, remote);
    this.#placing.global.join(description);
    this.actors.peerUp(remote);
    this.placeHomeless();
    this.balance();
    return true;
  }

  /** A node's description has come, which a peer that connected first did not give. */
  describe(description: NodeDescription): void {
    if (!this.#byNode.has(description.id)) return;
    this.#placing.global.join(description);
    this.placeHomeless();
    this.balance();
  }

  /** The connection to a peer is gone, and all that it had. */
  peerDown(client: Client): void {
    const remote = this.#remotes.get(client.id);
    if (remote === undefined) return;
    this.#remotes.delete(client.id);
    this.#byNode.delete(remote.node);
    this.#placing.global.leave(remote.node);
    const left: ObjectRecord[] = [];
    for (const record of this.#node.directory.values()) {
      if (record.home !== client.id) continue;
      record.home = undefined;
      record.lostBy = remote.node;
      record.held = false;
      left.push(record);
    }
    for (const task of remote.pending.values()) {
      if (this.#node.faults.has("lose-delegated")) continue;
      if (task.state === "delegated" && !(task instanceof CallRecord)) this.#retry(task);
    }
    this.actors.peerDown(remote, left);
    for (const record of left) {
      // Whoever wants it later finds out.
      if (record.home === undefined && record.outcome === undefined && record.asked) {
        this.#node.remake(record);
      }
    }
  }

  /** A task was on a node that is gone. */
  #retry(task: TaskRecord): void {
    task.remote = -1;
    task.collected = undefined;
    task.bequeathed = undefined;
    if (task.finished) return;
    const { name: what, stream } = task.entry.settings;
    if (task.failures++ < task.retries) {
      if (stream) task.produced = 0;
      return this.ready(task);
    }
    this.#node.fail(
      task,
      new WorkerCrashedError(
        `Task ${what} (${hex(task.id)}) failed: the node that ran it died in ${task.failures} of ` +
          `${task.retries + 1} attempts`,
      ),
    );
  }

  /** Whether there is a connection to a node. */
  has(id: TaskId): boolean {
    return this.#byNode.has(id);
  }

  /** The other nodes, and what of theirs is free. */
  nodes(): { readonly node: NodeDescription; readonly free: Readonly<Record<string, number>> }[] {
    return this.#placing.global.nodes().map((node) => ({ node, free: this.#placing.global.free(node.id) }));
  }

  /** The other nodes that could have bundles. */
  groupNodes(): GroupNode[] {
    return this.#placing.global.nodes().filter(({ id, draining }) => !draining && this.#byNode.has(id))
      .map(({ id, resources: total }) => ({
        id,
        free: this.#placing.global.free(id),
        lasting: this.#placing.global.lasting(id),
        total,
      }));
  }

  /** The other nodes. */
  peers(): IterableIterator<{ readonly client: Client; readonly node: TaskId }> {
    return this.#remotes.values();
  }

  /** The connection to a node. */
  clientOf(node: TaskId): Client | undefined {
    return this.#byNode.get(node)?.client;
  }

  /** The peer that a connection leads to. */
  nodeOf(client: number): TaskId | undefined {
    return this.#remotes.get(client)?.node;
  }

  /** A node has reported how it is loaded. */
  report(id: TaskId, load: NodeLoad): void {
    this.#placing.global.report(id, load, this.#node.now());
    if (!this.#placeAgain) return;
    this.#placeAgain = false;
    this.placeHomeless();
  }

  // --- Giving tasks away --------------------------------------------------------------------------------------

  /** Whether a task may ever run on this node. */
  mayRunHere(task: TaskRecord): boolean {
    return !this.draining && this.#node.pool.couldEverFit(task.asked) &&
      mayRunOn(task.entry.settings.placement, this.#self);
  }

  /** A task is ready: it goes to this node's own scheduler, unless it should be, or has to be, elsewhere. */
  ready(task: TaskRecord): void {
    const { placement } = task.entry.settings;
    const here = this.mayRunHere(task);
    if (placement !== undefined) {
      const target = this.#wished(task, placement, here);
      if (target === "here") return this.#node.ready(task);
      if (target !== undefined) return this.#delegate(task, target);
    }
    if (here) {
      const better = task.asked.alternatives.length > 1
        ? this.#placing.betterAlternative(task)
        : this.#placing.whereItsArgumentsAre(task);
      const target = better === undefined ? undefined : this.#byNode.get(better);
      return target === undefined ? this.#node.ready(task) : this.#delegate(task, target);
    }
    const target = this.#place(task, Infinity);
    if (target !== undefined) return this.#delegate(task, target);
    task.state = "delegated";
    this.#homeless.add(task);
    this.#node.log("warn", `Task ${task.entry.settings.name} waits: ${lacking(task)}`);
    this.#node.checkGroup(task);
  }

  /** Where a task is to be by what it wishes, if there is such a node. @param here Whether it may be on this one. */
  #wished(task: TaskRecord, placement: Placement, here: boolean): Remote | "here" | undefined {
    const node = placement.spread
      ? this.#placing.spread(task, here && !this.draining)
      : this.#placing.preferred(task, placement, here);
    if (node === undefined) return undefined;
    return node === this.#node.id ? "here" : this.#byNode.get(node);
  }

  #place(task: TaskRecord, betterThanMs: number): Remote | undefined {
    const node = this.#placing.place(task, betterThanMs);
    return node === undefined ? undefined : this.#byNode.get(node);
  }

  /** A task is not wanted any more. */
  forget(task: TaskRecord): void {
    this.#homeless.delete(task);
    this.actors.homeless.delete(task);
    this.actors.created(task);
  }

  /** Places what waits for a node, as there may be one now. */
  placeHomeless(): void {
    for (const task of [...this.#homeless]) {
      if (this.mayRunHere(task)) {
        this.#homeless.delete(task);
        this.#node.ready(task);
        continue;
      }
      const target = this.#place(task, Infinity);
      if (target === undefined) continue;
      this.#homeless.delete(task);
      this.#delegate(task, target);
    }
    for (const [task, create] of [...this.actors.homeless]) {
      const target = this.#place(task, Infinity);
      if (target === undefined) continue;
      this.actors.homeless.delete(task);
      create(target);
    }
  }

  /** A placement group is gone: what waits for its bundles fails. */
  groupGone(group: string): void {
    for (const task of [...this.#homeless, ...this.actors.homeless.keys()]) {
      if (bundleOf(task.asked.demand)?.group !== group) continue;
      this.forget(task);
      this.#node.fail(task, groupGone(group, `Task ${task.entry.settings.name}`));
    }
  }

  /** What cannot run anywhere now, as `rayd status` tells it. */
  unmet(): { readonly name: string; readonly asks: string; readonly reason: string }[] {
    const of = (kind: string) => (task: TaskRecord) => {
      const { placement, name } = task.entry.settings;
      const reason = this.draining ? "this node drains, and no other node has that" : "no node has that";
      return { name: `${kind} ${name}`, asks: `${showShape(task.asked)}${showPlacement(placement)}`, reason };
    };
    return [
      ...Array.from(this.#homeless, of("task")),
      ...Array.from(this.actors.homeless.keys(), of("actor")),
    ];
  }

  /** Gives waiting tasks to nodes where they start sooner. */
  balance(): void {
    if (this.#byNode.size === 0 || this.#balancing) return;
    this.#balancing = balance(this.#balanced, GIVEN_TASKS_MAX);
    if (!this.#balancing) return;
    this.#node.soon(() => {
      this.#balancing = false;
      this.balance();
    });
  }

  #delegate(task: TaskRecord, remote: Remote): void {
    task.state = "delegated";
    this.#behalf(remote, task);
    const handle = this.#give(task, remote);
    this.#node.send(remote.client, {
      type: "delegate",
      handle,
      task: task.id,
      parent: task.parent,
      fn: task.fn.index,
      settings: task.entry.index,
      dependencies: task.dependencies.map((object) => ({
        object,
        outcome: this.#node.directory.get(object)?.outcome,
      })),
      args: task.args,
    });
  }

  /** Defines what a task needs at a peer, and enters it there. Returns what both call it. */
  #give(task: TaskRecord, remote: Remote): number {
    this.#define(remote, task.fn, task.entry);
    const handle = remote.nextHandle = (remote.nextHandle + 1) % 0x1_0000_0000;
    remote.pending.set(handle, task);
    task.remote = remote.client.id;
    task.isolate = -1;
    return handle;
  }

  #define(remote: Remote, fn: FunctionEntry, entry: SettingsEntry): void {
    if (!remote.functions.has(fn.index)) {
      remote.functions.add(fn.index);
      this.#node.send(remote.client, { type: "defineFunction", index: fn.index, address: fn.address });
    }
    if (!remote.settings.has(entry.index)) {
      remote.settings.add(entry.index);
      this.#node.send(remote.client, {
        type: "defineSettings",
        index: entry.index,
        settings: entry.settings,
      });
    }
  }

  /** Says for whom the next request is. */
  #behalf(remote: Remote, task: TaskRecord): void {
    const submitter = this.#node.clients.get(task.client);
    const driver = submitter === undefined || asksOnce(submitter);
    if (remote.job === task.job && remote.driver === driver) return;
    remote.job = task.job;
    remote.driver = driver;
    this.#node.send(remote.client, { type: "behalf", job: task.job, driver });
  }

  /** A node did not take a task, for it has not what others still say that it has: a bundle that it has given back. */
  #turnedAway(task: TaskRecord): void {
    if (task instanceof CallRecord) return this.actors.turnedAway(task);
    task.remote = -1;
    this.#homeless.add(task);
    this.#placeAgain = true;
    this.#node.checkGroup(task);
  }

  /** A task that was given away goes on here. What the peer makes of it is let go of. */
  recall(task: TaskRecord): void {
    const remote = this.#remotes.get(task.remote);
    if (remote === undefined) return;
    for (const [handle, pending] of remote.pending) {
      if (pending !== task) continue;
      const { id, parent, args, job, fn, entry } = task;
      const nobodys = new TaskRecord(
        { handle, task: id, parent, dependencies: [], args },
        job,
        fn,
        entry,
        NO_CLIENT,
      );
      nobodys.finished = true;
      nobodys.remote = task.remote;
      remote.pending.set(handle, nobodys);
    }
    task.remote = -1;
    task.collected = undefined;
  }

  /** A task that was given away is to run here after all. */
  takeBack(task: TaskRecord): void {
    this.recall(task);
    task.foreign = true; // it is not given away again
    this.#node.ready(task);
  }

  /** A task that was given away is no longer wanted. */
  cancel(task: TaskRecord, force: boolean, recursive: boolean): void {
    const remote = this.#remotes.get(task.remote);
    if (remote === undefined) return;
    this.#node.send(remote.client, { type: "cancel", task: task.id, force, recursive });
  }

  /** The program that made a call which is elsewhere is gone. */
  orphan(task: TaskRecord): void {
    const remote = this.#remotes.get(task.remote);
    if (remote !== undefined) this.#node.send(remote.client, { type: "orphan", task: task.id });
  }

  /** The consumer of a stream that runs elsewhere has taken items. */
  consumed(task: TaskRecord): void {
    const remote = this.#remotes.get(task.remote);
    if (remote === undefined) return;
    this.#node.send(remote.client, { type: "consumed", task: task.id, count: task.consumed });
  }

  // --- Objects of others --------------------------------------------------------------------------------------

  /**
   * A peer has referred to an object: if it is not known, its home is there. It is held until {@link introduced}, by when
   * what the peer has asked for holds it.
   *
   * @param outcome What the peer said of it. @param made Whether the task made it that the peer tells the result of.
   */
  introduce(client: Client, id: ObjectId, outcome: Outcome | undefined, made = false): void {
    const remote = this.#remotes.get(client.id);
    if (remote === undefined) return;
    let record = this.#node.directory.get(id);
    if (record === undefined) {
      record = this.#node.directory.addForeign(id, client.id);
      const needless = outcome !== undefined && !refersTo(outcome);
      if (!needless) this.#retain(remote, record);
    } else if (this.actors.places.has(id as string as TaskId)) {
      // The peer's way to an actor may lead over this node.
    } else if (
      record.foreign && record.home === undefined && !record.pending && !this.#node.isHere(record) &&
      (made || !record.others?.has(client.id))
    ) {
      // It was lost, and has been made again. A peer that holds it of this node may have heard of it here only, unless
      // the task made it that the peer tells the result of.
      record.home = client.id;
      this.#retain(remote, record);
      if (record.asked) this.#ask(remote, record);
    }
    this.#node.directory.use(id);
    this.#introduced.push(id);
    if (outcome === undefined || record.outcome !== undefined) return;
    this.introduceAll(client, outcome);
    this.#sealForeign(record, outcome);
  }

  /** As {@link introduce}, of all objects that an outcome refers to. @param maker The task that it is of. */
  introduceAll(client: Client, outcome: Outcome, maker?: TaskId): void {
    if (outcome.kind === "error") return;
    for (let i = 0; i < outcome.contains.length; i++) {
      const id = outcome.contains[i]!;
      const made = maker !== undefined && (taskOf(id) === maker || this.#node.comesWith(id, maker));
      this.introduce(client, id, undefined, made);
    }
  }

  /** What a peer has said was acted on: objects that it referred to are held by that, or not needed. */
  introduced(): void {
    if (this.#introduced.length === 0) return;
    for (const id of this.#introduced.splice(0)) this.#node.directory.unuse(id);
  }

  /** Arguments of a task from a peer that lie in the peer's store. */
  introduceArguments(client: Client, task: TaskId): void {
    const record = this.#node.directory.get(argumentsId(task));
    if (record !== undefined) record.home = client.id;
  }

  #sealForeign(record: ObjectRecord, outcome: Outcome): void {
    if (this.#node.directory.seal(record, outcome)) this.#node.announce(record);
  }

  /** Somebody here waits for an object whose outcome a peer knows, or will. */
  want(record: ObjectRecord): void {
    if (!record.foreign || record.asked || record.outcome !== undefined) return;
    record.asked = true; // until it is announced
    this.#node.directory.use(record.id);
    const remote = record.home === undefined ? undefined : this.#remotes.get(record.home);
    if (remote === undefined) this.#node.remake(record);
    else this.#ask(remote, record);
  }

  /** An object is not had from the peer any more that it was had from so far. */
  leave(record: ObjectRecord): void {
    const remote = record.held ? this.#remotes.get(record.home!) : undefined;
    if (remote !== undefined) this.#let(remote, record.id);
    record.home = undefined;
    record.held = false;
  }

  /** A lost object is had from a node that makes it again. @returns Whether there is a connection to it. */
  adopt(record: ObjectRecord, maker: TaskId): boolean {
    const remote = this.#byNode.get(maker);
    if (remote === undefined) return false;
    record.home = remote.client.id;
    this.#retain(remote, record);
    if (record.asked) this.#ask(remote, record);
    return true;
  }

  #ask(remote: Remote, record: ObjectRecord): void {
    this.#tellHolds(remote);
    this.#node.send(remote.client, { type: "subscribe", objects: [record.id] });
  }

  /** What a peer had was made here as well: the peer need not keep it for this node any more. */
  settledHere(record: ObjectRecord): void {
    this.freed(record);
    record.home = undefined;
    record.held = false;
  }

  /** An object is not referred to here any more. */
  freed(record: ObjectRecord): void {
    this.actors.freed(record.id);
    if (record.home === undefined || !record.held) return;
    const remote = this.#remotes.get(record.home);
    if (remote === undefined) return;
    remote.released.push(record.id);
    this.#touched.add(remote);
  }

  #retain(remote: Remote, record: ObjectRecord): void {
    record.held = true;
    remote.retained.push(record.id);
    this.#touched.add(remote);
  }

  /** Says to peers what was taken up and let go of, in that order. Before anything that they could conclude from it. */
  tellAllHolds(): void {
    if (this.#touched.size === 0) return;
    for (const remote of this.#touched) this.#tellHolds(remote);
    this.#touched.clear();
  }

  #tellHolds(remote: Remote): void {
    const { retained, released, kept, forgotten, client } = remote;
    for (const [actor, calls] of kept) this.#node.send(client, { type: "keep", actor, calls });
    for (const [actor, calls] of forgotten) this.#node.send(client, { type: "forget", actor, calls });
    kept.clear();
    forgotten.clear();
    if (retained.length > 0) {
      remote.retained = [];
      this.#node.send(client, { type: "retain", objects: retained });
    }
    if (released.length > 0) {
      remote.released = [];
      this.#node.send(client, { type: "release", objects: released });
    }
  }

  /** Before a peer is told that a task has ended, it must know what this node goes on to hold. */
  beforeResult(client: Client): void {
    const remote = this.#remotes.get(client.id);
    if (remote !== undefined && remote.retained.length > 0) this.#tellHolds(remote);
  }

  // --- What peers answer --------------------------------------------------------------------------------------

  /** A peer's answer. */
  answered(
    client: Client,
    message: Extract<FromNode, { type: "result" | "turnedAway" | "object" | "answer" | "output" }>,
  ): void {
    const remote = this.#remotes.get(client.id);
    if (remote === undefined) return;
    switch (message.type) {
      case "result":
        return this.#result(remote, message);
      case "turnedAway": {
        const task = remote.pending.get(message.handle);
        remote.pending.delete(message.handle);
        return task === undefined || task.finished ? undefined : this.#turnedAway(task);
      }
      case "object": {
        const record = this.#node.directory.get(message.object);
        if (record === undefined || record.outcome !== undefined) return;
        this.introduceAll(client, message.outcome);
        return this.#sealForeign(record, message.outcome);
      }
      case "answer": {
        const question = remote.questions.get(message.request);
        remote.questions.delete(message.request);
        const asker = question === undefined ? undefined : this.#node.clients.get(question.client);
        if (asker === undefined) return;
        return this.#node.send(asker, { type: "answer", request: question!.request, body: message.body });
      }
      case "output":
        return this.#node.output(message);
    }
  }

  #result(remote: Remote, { handle, index, kept, outcome }: Extract<FromNode, { type: "result" }>): void {
    const task = remote.pending.get(handle);
    if (task === undefined) return;
    const { returns, stream } = task.entry.settings;
    // What stands for an actor is held there, whatever its outcome.
    const refers = refersTo(outcome) || task.results?.[index]?.home !== undefined;
    if (kept && (task.finished || !refers)) this.#let(remote, returnId(task.id, index));
    const last = index < returns && this.#collect(task, index, outcome, returns);
    if (last) remote.pending.delete(handle);
    if (task.finished) return;
    this.introduceAll(remote.client, outcome, task.id);
    if (stream && index > 0) {
      if (index <= task.produced) {
        return kept && refers ? this.#let(remote, returnId(task.id, index)) : undefined;
      }
      task.produced = index;
      return this.#node.settle(task, index, outcome);
    }
    if (last) {
      this.actors.created(task);
      this.#node.finish(task, task.collected as Outcome[]);
    }
  }

  /** A peer tells which calls a task has made that was given to it and is about to end. */
  bequeathed(client: Client, { handle, calls }: Extract<ToNode, { type: "bequeath" }>): void {
    const task = this.#remotes.get(client.id)?.pending.get(handle);
    if (task !== undefined) task.bequeathed = calls;
  }

  /** Keeps an outcome until all are there. @returns Whether they are. */
  #collect(task: TaskRecord, index: number, outcome: Outcome, returns: number): boolean {
    const collected = task.collected ??= new Array(returns).fill(undefined);
    collected[index] = outcome;
    for (let i = 0; i < returns; i++) if (collected[i] === undefined) return false;
    return true;
  }

  /** An outcome of a task that a peer ran was taken up: its record's home is there, if it has anything there. */
  settled(task: TaskRecord, record: ObjectRecord, outcome: Outcome): void {
    if (!refersTo(outcome)) {
      const remote = this.#remotes.get(task.remote);
      if (remote !== undefined && this.actors.wasHeld(task)) this.#let(remote, record.id);
      return;
    }
    record.home = task.remote;
    record.held = true; // as its owner
  }

  /** An outcome of a task that a peer ran was not taken up. */
  dropped(task: TaskRecord, index: number, outcome: Outcome): void {
    const remote = this.#remotes.get(task.remote);
    // An actor that was created, or found, once more is held there once more.
    const refers = refersTo(outcome) || task.results?.[index]?.home !== undefined;
    if (remote !== undefined && refers) this.#let(remote, returnId(task.id, index));
  }

  #let(remote: Remote, id: ObjectId): void {
    remote.released.push(id);
    this.#touched.add(remote);
  }

  /** A program has ended: its actors elsewhere are to know. */
  jobEnded(job: TaskId): void {
    for (const { client } of this.#remotes.values()) this.#node.send(client, { type: "jobEnded", job });
  }
}
