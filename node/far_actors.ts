/**
 * Actors of other nodes: which node each is on, and what is said to them from here.
 *
 * A call goes by way of the peer that the actor was heard of from. When that peer is gone, so is the way, but the actor may
 * be alive, or come back elsewhere: the control store says where actors are that survive their node (`places`). What is
 * said to an actor meanwhile waits, in order, and so does what had not been answered. It is said again to the node that has
 * the actor then, which knows by its journal, and by the answers that it keeps, what was done already.
 *
 * Pure but for what it is handed.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import { creationSettings } from "../core/actor_options.ts";
import { ActorUnavailableError } from "../core/errors.ts";
import { hex, type ObjectId, type TaskId, taskIdFromHex } from "../core/ids.ts";
import type { Outcome, ToNode } from "../core/messages.ts";
import { IDLE_ONLY_MS } from "../scheduler/balance.ts";
import { pack } from "../store/serialize.ts";
import { unknownActor } from "./actor_errors.ts";
import { CallRecord, type NodeActor } from "./actor_records.ts";
import { type ActorPlace, placeOf } from "./actor_registry.ts";
import type { FarCall } from "./answers.ts";
import type { ClusterServices } from "./cluster.ts";
import type { ObjectRecord } from "./directory.ts";
import { type Client, NO_CLIENT } from "./peers.ts";
import { lacking } from "./placing.ts";
import type { Links, Question, Remote } from "./remote.ts";
import { type FunctionEntry, type SettingsEntry, TaskRecord } from "./tasks.ts";

/** Something that is to be said to an actor. */
interface Saying {
  /** Its node can be reached. */
  go(remote: Remote): void;
  /** It has come to this node. */
  here(): void;
  /**
   * There is no such actor, or not any more.
   *
   * @returns Whether it is made again, and what comes after this can be said; or that this, and what comes after, waits for
   * it to be told of.
   */
  gone(): boolean | "waits";
}

/** Where an actor is that survives its node. */
export interface Located {
  readonly place: ActorPlace;
  readonly revision: number;
}

/** A node's dealings with actors of others. */
export class FarActors {
  readonly #node: ClusterServices;
  readonly #links: Links;
  /** Actors that can never be here, with what creates them elsewhere. */
  readonly homeless = new Map<TaskRecord, (remote: Remote) => void>();
  /** Creations that are under way elsewhere. */
  readonly #creations = new Map<TaskRecord, ActorSettings>();
  /** Creations of actors that were held there already. */
  readonly #held = new WeakSet<TaskRecord>();
  /** All actors that survive their node, as the control store has them. */
  readonly places = new Map<TaskId, Located>();
  /** What waits to be said. */
  readonly #waiting = new Map<TaskId, Saying[]>();
  /** What stands for actors of others in calls. */
  readonly #standIns = new Map<TaskId, NodeActor>();

  /** @param node What they need of their node. @param links The node's other dealings with peers. */
  constructor(node: ClusterServices, links: Links) {
    this.#node = node;
    this.#links = links;
  }

  // --- Where actors are ---------------------------------------------------------------------------------------

  /** The control store says where an actor is; or, without a place, that it is gone. */
  located(id: TaskId, located: Located | undefined): void {
    const before = this.places.get(id);
    if (located === undefined) this.places.delete(id);
    else this.places.set(id, located);
    if (located !== undefined && located.place.moves > (before?.place.moves ?? 0)) {
      this.#redirect(id, located);
    }
    if (!this.#waiting.has(id)) this.#rehome(id);
    else if (located === undefined) this.#gone(id);
    else this.#go(id);
  }

  /** An actor has come to this node. */
  cameHere(id: TaskId): void {
    this.#settle(id, (saying) => saying.here());
  }

  /**
   * An actor is being made here, of which this node had heard as another's: the way there ends. Calls that are on it are said
   * here, before any that are yet to come.
   */
  madeHere(id: TaskId): void {
    const record = this.#node.directory.get(id as string as ObjectId);
    const home = record?.home;
    if (record === undefined || home === undefined) return;
    const remote = this.#links.byClient(home);
    this.#links.leave(record);
    for (const task of [...remote?.pending.values() ?? []]) {
      if (!(task instanceof CallRecord) || task.actor.id !== id || task.finished) continue;
      this.#links.recall(task);
      this.#node.takeOver(task);
    }
  }

  /** A peer holds actors that are about to come here: it may know so before this node has taken them up. */
  expectHere(ids: readonly ObjectId[]): void {
    for (const id of ids) {
      if (!this.places.has(id as string as TaskId) || this.#node.directory.get(id) !== undefined) continue;
      this.#node.directory.addLost(id);
    }
  }

  /** There is a connection to a node. */
  peerUp(remote: Remote): void {
    for (const id of [...this.#waiting.keys()]) this.#go(id);
    const node = hex(remote.node);
    for (const [id, { place }] of this.places) if (place.node === node) this.#rehome(id);
  }

  /**
   * The connection to a node is gone.
   *
   * @param remote The node. @param left Objects that had their home there.
   */
  peerDown(remote: Remote, left: Iterable<ObjectRecord>): void {
    const name = hex(remote.node).slice(0, 8);
    for (const task of remote.pending.values()) {
      const settings = this.#creations.get(task);
      if (settings !== undefined) this.#createAgain(task, settings, name);
      else if (task instanceof CallRecord) this.#sayAgain(task, name);
    }
    for (const question of remote.questions.values()) this.#ask(question);
    for (const { id } of left) {
      if (this.places.has(id as string as TaskId)) this.#rehome(id as string as TaskId);
    }
  }

  /** Whether a node has actors that survive it. */
  anyOn(node: TaskId): boolean {
    const digits = hex(node);
    for (const { place } of this.places.values()) if (place.node === digits) return true;
    return false;
  }

  /** What stands for an actor that is elsewhere. */
  standIn(id: TaskId): NodeActor {
    let actor = this.#standIns.get(id);
    if (actor === undefined) {
      actor = unknownActor(id, this.#node.shape({ demand: {} }));
      this.#standIns.set(id, actor);
    }
    return actor;
  }

  /** Nothing refers to an object here any more, which may be an actor. */
  freed(id: ObjectId): void {
    this.#standIns.delete(id as string as TaskId);
  }

  /** The node that an actor is known to be on, if it is another one. */
  homeNode(actor: TaskId): TaskId | undefined {
    return this.#homeOf(actor)?.node;
  }

  #homeOf(id: TaskId): Remote | undefined {
    if (this.#node.hasActor(id)) return undefined;
    const home = this.#node.directory.get(id as string as ObjectId)?.home;
    return home === undefined ? undefined : this.#links.byClient(home);
  }

  /**
   * An actor was moved: the way there is the one to its node, and no other any more. A way over a node that had the actor
   * might lead back here.
   */
  #redirect(id: TaskId, { place }: Located): void {
    const record = this.#node.directory.get(id as string as ObjectId);
    const remote = this.#homeOf(id);
    if (record === undefined || remote === undefined || hex(remote.node) === place.node) return;
    this.#links.leave(record);
    for (const task of [...remote.pending.values()]) {
      if (!(task instanceof CallRecord) || task.actor.id !== id || task.finished) continue;
      this.#links.recall(task);
      this.#sayAgain(task, "where it was");
    }
  }

  /** This node holds an actor, and its way there is gone: the node that has it is told. */
  #rehome(id: TaskId): Remote | undefined {
    if (this.#node.hasActor(id)) return undefined; // until this node has heard that it is another's
    const remote = this.#homeOf(id);
    if (remote !== undefined) return remote;
    const record = this.#node.directory.get(id as string as ObjectId);
    const located = this.places.get(id);
    if (located === undefined) return undefined;
    const next = this.#links.byNode(taskIdFromHex(located.place.node));
    if (next === undefined || record === undefined) return next;
    record.home = next.client.id;
    this.#links.retain(next, record);
    return next;
  }

  /** Says something to an actor: now, or once it can be reached, after all that was to be said before. */
  #say(id: TaskId, saying: Saying): void {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) return void waiting.push(saying);
    if (this.#node.hasActor(id)) return saying.here();
    const remote = this.#homeOf(id);
    if (remote !== undefined) return saying.go(remote);
    this.#waiting.set(id, [saying]);
    if (this.places.has(id)) this.#go(id);
    else this.#confirm(id);
  }

  /** What the control store has told so far is not all: whether there is an actor is asked. */
  #confirm(id: TaskId): void {
    this.#node.locate(id).then((located) => {
      if (located === undefined) {
        if (!this.places.has(id)) this.#gone(id);
      } else if ((this.places.get(id)?.revision ?? 0) < located.revision) this.located(id, located);
    }, () => {
      // The connection is closed for good: the node is ending.
    });
  }

  #go(id: TaskId): void {
    if (this.#node.hasActor(id)) return this.cameHere(id);
    const remote = this.#rehome(id);
    if (remote !== undefined) this.#settle(id, (saying) => saying.go(remote));
  }

  /** There is no such actor. If it is made again, what was to be said to it waits until that is under way. */
  #gone(id: TaskId): void {
    for (const task of this.homeless.keys()) if (task.id === id) return; // it is not there yet
    const waiting = this.#waiting.get(id) ?? [];
    this.#waiting.delete(id);
    for (let i = 0; i < waiting.length; i++) {
      const again = waiting[i]!.gone();
      if (again === false) continue;
      const rest = waiting.slice(again === "waits" ? i : i + 1);
      if (rest.length > 0) this.#waiting.set(id, rest);
      this.#go(id);
      break;
    }
    this.#node.flush();
  }

  #settle(id: TaskId, say: (saying: Saying) => void): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    for (const saying of waiting) say(saying);
    this.#node.flush();
  }

  // --- Creations ----------------------------------------------------------------------------------------------

  /**
   * Creates an actor on another node, if it cannot be here, or cannot be here now and can be there.
   *
   * @returns Whether it is another node's.
   */
  create(
    client: Client,
    message: Extract<ToNode, { type: "createActor" }>,
    fn: FunctionEntry,
    entry: SettingsEntry,
    settings: ActorSettings,
    job: TaskId,
  ): boolean {
    const { directory, pool } = this.#node;
    const id = message.task as string as ObjectId;
    const located = this.places.has(message.task);
    if (client.role === "peer" && !located || this.#node.hasActor(message.task)) return false;
    const known = directory.get(id);
    if (known?.home !== undefined) return this.#createdElsewhere(client, message.handle, known);
    const task = new TaskRecord(message, job, fn, entry, client.id);
    if (located) {
      // Its creator was run again, or its node is gone.
      task.results = [directory.declare(id, client.id)];
      if (this.#node.admit(task) !== undefined) this.#createAgain(task, settings, "where it was");
      return true;
    }
    const possible = this.#links.mayRunHere(task);
    if (possible && settings.linked) return false; // it dies with its creator, which is here
    const target = this.#place(task, possible && pool.choose(entry.shape) !== undefined, possible);
    if (target === "here") return false;
    task.results = [directory.declare(id, client.id)];
    if (this.#node.admit(task) === undefined) return true;
    const create = (remote: Remote) => this.#createAt(remote, task, settings);
    if (target !== undefined) create(target);
    else this.#wait(task, settings, create);
    return true;
  }

  /** A node that has what an actor of this node waits for. */
  roomFor({ settings, job }: NodeActor): Remote | undefined {
    const target = this.placeAgain(placeOf(settings, job, this.#node.id, 0));
    return target === undefined || target === this.#node.id ? undefined : this.#links.byNode(target);
  }

  /** Has an actor of this node, which was never begun with, made by another one. @param calls What was said to it so far. */
  pass(
    { id, settings, job, creation, watchers }: NodeActor,
    calls: readonly CallRecord[],
    remote: Remote,
  ): void {
    const { handle, parent, dependencies, args, fn, client, results, others } = creation;
    const entry = this.#node.settings(creationSettings(settings.label, settings));
    const task = new TaskRecord({ handle, task: id, parent, dependencies, args }, job, fn, entry, client);
    task.results = results;
    task.others = others;
    this.#node.tasks.set(id, task);
    this.#createAt(remote, task, settings);
    this.#sayElsewhere(id, calls);
    for (const { client, request } of watchers) this.#ask({ client, request, actor: id });
    const node = hex(remote.node).slice(0, 8);
    this.#node.log("info", `Actor ${settings.label} is made at node ${node}, which has what it waited for`);
  }

  #wait(task: TaskRecord, settings: ActorSettings, create: (remote: Remote) => void): void {
    this.homeless.set(task, create);
    this.#node.log("warn", `Actor ${settings.label} waits: ${lacking(task)}`);
    this.#node.checkGroup(task);
  }

  #createAt(remote: Remote, task: TaskRecord, settings: ActorSettings): void {
    if (task.finished) return;
    this.#links.behalf(remote, task);
    let index = remote.actorSettings.get(settings);
    if (index === undefined) {
      remote.actorSettings.set(settings, index = remote.actorSettings.size);
      this.#node.send(remote.client, { type: "defineActor", index, settings });
    }
    const handle = this.#links.give(task, remote);
    this.#creations.set(task, settings);
    const record = task.results![0]!;
    if (record.held && record.home === remote.client.id) this.#held.add(task);
    else {
      this.#held.delete(task);
      this.#links.leave(record);
    }
    record.home = remote.client.id;
    record.held = true;
    this.#sendCreation(remote, task, handle, index);
    this.#go(task.id);
  }

  #sendCreation(remote: Remote, task: TaskRecord, handle: number, index: number): void {
    const { parent, dependencies, args, fn, entry } = task;
    this.#node.send(remote.client, {
      type: "createActor",
      handle,
      task: task.id,
      parent,
      fn: fn.index,
      settings: entry.index,
      actor: index,
      dependencies,
      args,
    });
  }

  /** The node is gone where an actor was being made: it is made on another one, unless it was made in time. */
  #createAgain(task: TaskRecord, settings: ActorSettings, name: string): void {
    this.#creations.delete(task);
    task.remote = -1;
    task.collected = undefined;
    if (task.finished) return;
    const create = (remote: Remote) => this.#createAt(remote, task, settings);
    this.#say(task.id, {
      go: create,
      here: () => this.#node.finish(task, [NOTHING]),
      gone: () => {
        if (task.finished) return false;
        if (!settings.durable) {
          this.#node.fail(task, unavailable(task, name));
          return false;
        }
        if (settings.virtual) return this.#enter(task, settings);
        const target = this.#links.place(task, Infinity);
        if (target !== undefined) create(target);
        else this.#wait(task, settings, create);
        return true;
      },
    });
  }

  /**
   * A peer has an actor made here that this node has made by others: each believed that another one has it. It is this node's,
   * or they would wait for each other for ever.
   *
   * @returns Its creation, which ends here.
   */
  creationBack(id: TaskId): TaskRecord | undefined {
    const task = this.#node.tasks.get(id);
    if (task === undefined || task.remote < 0 || !this.#creations.has(task)) return undefined;
    if (!this.#links.mayRunHere(task)) return undefined;
    this.#links.recall(task);
    this.#creations.delete(task);
    return task;
  }

  /** Whether this node held the actor before it was created from here, and so holds it once more by its creation. */
  wasHeld(task: TaskRecord): boolean {
    return this.#held.has(task);
  }

  /** A creation has ended. */
  created(task: TaskRecord): void {
    this.#creations.delete(task);
  }

  /**
   * Has an actor of `get(key)` made, or found, on the node that has it.
   *
   * @param node Not this one; `undefined` if it cannot be told which.
   */
  createVirtual(
    node: TaskId | undefined,
    client: Client,
    message: Extract<ToNode, { type: "createActor" }>,
    fn: FunctionEntry,
    entry: SettingsEntry,
    settings: ActorSettings,
    job: TaskId,
  ): void {
    const { directory } = this.#node;
    const id = message.task as string as ObjectId;
    const task = new TaskRecord(message, job, fn, entry, client.id);
    task.results = [directory.declare(id, client.id)];
    if (this.#node.admit(task) === undefined) return;
    const remote = node === undefined ? undefined : this.#links.byNode(node);
    if (remote !== undefined) return this.#createAt(remote, task, settings);
    if (node === undefined) {
      const why = "which node has it cannot be asked, as the control store is away";
      const text = `Actor ${settings.label} cannot be had: ${why}. Try again later`;
      return void this.#node.fail(task, new ActorUnavailableError(text));
    }
    this.#createAgain(task, settings, hex(node).slice(0, 8));
  }

  /**
   * Whoever was to make an actor of `get(key)` is gone, and has not told the control store of it: so nobody has heard of what
   * it did, and it is entered from here. Of several who do so the first one counts; the actor is then taken up as one that
   * was moved.
   */
  #enter(task: TaskRecord, settings: ActorSettings): "waits" | true {
    const target = this.placeAgain(placeOf(settings, task.job, this.#node.id, 1));
    if (target === undefined) {
      this.#wait(task, settings, (remote) => this.#createAt(remote, task, settings));
      return true;
    }
    this.#node.enterFor(task, settings, target);
    return "waits";
  }

  /** Where an actor goes; `undefined` while no node can have it. */
  #place(task: TaskRecord, room: boolean, possible: boolean): Remote | "here" | undefined {
    const { placement } = task.entry.settings;
    if (placement !== undefined) {
      const target = this.#links.wished(task, placement, possible);
      if (target !== undefined) return target;
    }
    if (room) return "here";
    return this.#links.place(task, possible ? IDLE_ONLY_MS : Infinity) ?? (possible ? "here" : undefined);
  }

  /** Which node takes an actor whose node is gone; `undefined` while none can. */
  placeAgain({ label, needs }: ActorPlace): TaskId | undefined {
    const entry = this.#node.settings(creationSettings(label, needs));
    const fn = { index: -1, address: { load: "", module: "", name: label }, meanMs: 1 };
    const message = {
      handle: 0,
      task: this.#node.id,
      parent: this.#node.id,
      dependencies: [],
      args: NOTHING,
    };
    const task = new TaskRecord(message, this.#node.id, fn, entry, -1);
    const possible = this.#links.mayRunHere(task);
    const target = this.#place(task, possible && this.#node.pool.choose(entry.shape) !== undefined, possible);
    return target === "here" ? this.#node.id : target?.node;
  }

  #createdElsewhere(client: Client, handle: number, record: ObjectRecord): boolean {
    this.#node.directory.retain(client.id, [record.id]);
    // What became of its creation need not be known here; what is said to it is answered in any case.
    const { outcome = NOTHING } = record;
    this.#node.send(client, { type: "result", handle, index: 0, kept: true, outcome });
    return true;
  }

  // --- Calls --------------------------------------------------------------------------------------------------

  /** Passes a call on to the node that has the actor. @returns Whether it is another node's. */
  call(
    client: Client,
    message: Extract<ToNode, { type: "call" }>,
    fn: FunctionEntry,
    entry: SettingsEntry,
    job: TaskId,
  ): boolean {
    if (this.#node.hasActor(message.actor)) return false;
    const record = this.#node.directory.get(message.actor as string as ObjectId);
    // A peer may know before this node that an actor is to come here.
    if (record === undefined && client.role !== "peer" && !this.places.has(message.actor)) return false;
    const call = new CallRecord(message, job, fn, entry, client.id, this.standIn(message.actor));
    call.state = "delegated";
    if (client.role !== "peer") this.#node.expectFar(call);
    if (this.#node.admit(call) === undefined) return true;
    this.#hold(call);
    this.#node.limitTime(call);
    this.#sayCall(call, "where it was");
    return true;
  }

  /**
   * An actor does not end with its last handle here before what was said to it is answered: a caller that is run again, and
   * makes it again, is given the answer, and must find the actor that has given it.
   */
  #hold(call: CallRecord): void {
    if (call.holdsActor) return;
    call.holdsActor = true;
    this.#node.directory.use(call.actor.id as string as ObjectId);
  }

  /** A call is over, or is this node's own. */
  letActorGo(call: CallRecord): void {
    if (!call.holdsActor) return;
    call.holdsActor = false;
    this.#node.directory.unuse(call.actor.id as string as ObjectId);
  }

  /** As {@link call}, of calls that this node had for an actor which is another node's by now. */
  surrendered(id: TaskId, calls: readonly CallRecord[]): void {
    const record = this.#node.directory.get(id as string as ObjectId);
    if (record !== undefined) record.home = undefined;
    for (const call of calls) {
      if (call.id === id && !call.finished) this.#node.finish(call, [NOTHING]); // it exists
    }
    this.#sayElsewhere(id, calls);
    if (this.places.has(id)) this.#rehome(id);
  }

  /** What was said to an actor of this node is for another one. */
  #sayElsewhere(id: TaskId, calls: readonly CallRecord[]): void {
    for (const call of calls) {
      if (call.finished) continue;
      call.actor = this.standIn(id);
      call.answers = undefined;
      if (this.#isWanted(call)) {
        this.#hold(call);
        this.#sayAgain(call, "where it was");
      } else this.#giveBack(call);
    }
  }

  /**
   * Whether somebody of this node waits for a call. Who was on another one says it again itself, and may have its answer
   * already, which nobody keeps any more: said from here as well, it would take effect twice.
   */
  #isWanted(call: CallRecord): boolean {
    return [call, ...call.others ?? []].some(({ client }) => {
      const asker = this.#node.clients.get(client);
      return asker !== undefined && asker.role !== "peer";
    });
  }

  /** A call is its callers' again, who are on other nodes: if they still wait for it, they say it again. */
  #giveBack(call: CallRecord): void {
    for (const { client, handle } of [call, ...call.others ?? []]) {
      const asker = this.#node.clients.get(client);
      if (asker !== undefined) this.#node.send(asker, { type: "turnedAway", handle });
    }
    call.client = NO_CLIENT;
    call.others = undefined;
    this.#node.fail(call, unavailable(call, "where it was"));
  }

  /** A node that had the actor of a call has it no more. */
  turnedAway(call: CallRecord): void {
    this.#sayAgain(call, "where it was");
  }

  #sayAgain(call: CallRecord, name: string): void {
    call.remote = -1;
    call.collected = undefined;
    call.state = "delegated";
    if (call.finished) return;
    if (call.orphaned) this.#node.fail(call, unavailable(call, name));
    else this.#sayCall(call, name);
  }

  #sayCall(call: CallRecord, name: string): void {
    const { id: actor } = call.actor;
    this.#say(actor, {
      go: (remote) => {
        if (call.finished) return;
        this.#links.behalf(remote, call);
        const handle = this.#links.give(call, remote);
        const { id: task, dependencies, args, parent, fn, entry } = call;
        this.#node.send(remote.client, {
          type: "call",
          handle,
          task,
          parent,
          actor,
          fn: fn.index,
          settings: entry.index,
          dependencies,
          args,
        });
      },
      here: () => {
        if (!call.finished) this.#node.takeOver(call);
      },
      gone: () => {
        if (!call.finished) this.#node.fail(call, unavailable(call, name));
        return false;
      },
    });
  }

  /** The answer of a call is to be kept for one node more. */
  keep(call: FarCall): void {
    this.#tellOfAnswer(call, "kept");
  }

  /** The answer of a call need not be kept any more. */
  forget(call: FarCall): void {
    this.#tellOfAnswer(call, "forgotten");
  }

  #tellOfAnswer({ actor, call }: FarCall, what: "kept" | "forgotten"): void {
    const remote = this.#homeOf(actor);
    if (remote === undefined) return;
    const calls = remote[what].get(actor);
    if (calls === undefined) remote[what].set(actor, [call]);
    else calls.push(call);
    this.#links.touch(remote);
  }

  // --- What else is said --------------------------------------------------------------------------------------

  /** Passes something on that concerns an actor of another node. @returns Whether it is another node's. */
  kill(actor: TaskId, restart: boolean): boolean {
    if (!this.#isFar(actor)) return false;
    this.#say(actor, {
      go: (remote) => this.#node.send(remote.client, { type: "killActor", actor, restart }),
      here: () => this.#node.killHere(actor, restart),
      gone: () => false,
    });
    return true;
  }

  /** As {@link kill}: asks to be told of an actor's death. */
  awaitDeath(client: Client, request: number, actor: TaskId): boolean {
    if (!this.#isFar(actor)) return false;
    this.#ask({ client: client.id, request, actor });
    return true;
  }

  #isFar(actor: TaskId): boolean {
    if (this.#node.hasActor(actor)) return false;
    return this.#waiting.has(actor) || this.places.has(actor) || this.#homeOf(actor) !== undefined;
  }

  #ask(question: Question): void {
    const { client, request, actor } = question;
    const asker = this.#node.clients.get(client);
    if (asker === undefined) return;
    this.#say(actor, {
      go: (remote) => {
        const there = remote.nextHandle = (remote.nextHandle + 1) % 0x1_0000_0000;
        remote.questions.set(there, question);
        this.#node.send(remote.client, { type: "awaitDeath", request: there, actor });
      },
      here: () => this.#node.awaitDeathHere(asker, request, actor),
      gone: () => {
        this.#node.send(asker, { type: "answer", request, body: GONE });
        return false;
      },
    });
  }

  /** An actor was found by its name: this node holds it from now on. @returns Whether it can be reached. */
  found(client: Client, actor: TaskId, node: TaskId): Promise<"here" | "there" | undefined> {
    const id = actor as string as ObjectId;
    return new Promise((resolve) => {
      const go = (remote: Remote) => {
        this.#links.introduce(remote.client, id, undefined);
        this.#node.directory.retain(client.id, [id]);
        this.#links.introduced();
        resolve("there");
      };
      const remote = this.#links.byNode(node);
      if (remote !== undefined) return go(remote);
      const gone = () => {
        resolve(undefined);
        return false;
      };
      this.#say(actor, { go, here: () => resolve("here"), gone });
    });
  }
}

function unavailable(task: TaskRecord, node: string): ActorUnavailableError {
  return new ActorUnavailableError(
    `Call ${task.entry.settings.name} failed: node ${node}, where the actor was, is gone`,
  );
}

const NOTHING: Outcome = { kind: "inline", bytes: pack(undefined).toBytes().slice(), contains: [] };
const GONE = pack("the node that it was on is gone").toBytes().slice();
