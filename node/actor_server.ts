/**
 * The node's actors: performs what the actor table decides, and takes what clients and isolates say of actors.
 *
 * An actor is an object of the directory (what its handles refer to), made by a task, its creation, whose outcome is
 * that the actor is there. A call is a task as well: its results, streams, timeout and dependencies are the server's
 * business, and only where it runs, and when, is decided here.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import { creationSettings } from "../core/actor_options.ts";
import {
  ActorDeadlockError,
  ActorUnavailableError,
  ProtocolError,
  RaydError,
  UsageError,
} from "../core/errors.ts";
import { checkpointId, hex, type ObjectId, returnId, type TaskId } from "../core/ids.ts";
import {
  ACTOR_FRUITLESS_STARTS_MAX,
  ACTOR_LOG_BYTES_MAX,
  ACTOR_OUTPUT_LINES,
  STOP_GRACE_MS,
} from "../core/limits.ts";
import type { Outcome, ToNode } from "../core/messages.ts";
import { bundleOf } from "../core/bundles.ts";
import { groupGone } from "../core/groups.ts";
import { unreachable } from "../core/unreachable.ts";
import { pack } from "../store/serialize.ts";
import { callFailure, deathOf, nameTaken, readRecord, unknownActor, unschedulable } from "./actor_errors.ts";
import { ActorJournals } from "./actor_journal.ts";
import { ActorNames } from "./actor_names.ts";
import { ActorPlaces } from "./actor_places.ts";
import { ActorTeller } from "./actor_teller.ts";
import type { ActorServices } from "./actor_services.ts";
import { CallRecord, currentCall, isLasting, NodeActor, sequential } from "./actor_records.ts";
import { type ActorEffect, type ActorEvent, ActorTable } from "./actors.ts";
import { AnswerBook, type FarCall } from "./answers.ts";
import { circleOf } from "./deadlock.ts";
import { asksOnce, type Client, type Isolate } from "./peers.ts";
import type { FunctionEntry, SettingsEntry, TaskRecord } from "./tasks.ts";

/** All actors of one node. */
export class ActorServer {
  readonly #node: ActorServices;
  readonly #table = new ActorTable<NodeActor, CallRecord>();
  readonly #actors = new Map<TaskId, NodeActor>();
  readonly #names: ActorNames;
  /** Actors that the passing of time means something to. */
  readonly #timed = new Set<NodeActor>();
  readonly #places: ActorPlaces;
  /** What the control store is told of actors that are to survive this node; absent of a node that is alone. */
  readonly journals: ActorJournals | undefined;
  /** Answers that callers who are run again must get once more. */
  readonly #answers: AnswerBook;
  readonly #effects: ActorEffect<NodeActor, CallRecord>[] = [];
  #nextEffect = 0;
  #working = false;
  /** Tells isolates what to do. */
  readonly teller: ActorTeller;

  /** @param node What the actors need of their node. */
  constructor(node: ActorServices) {
    this.#node = node;
    this.teller = new ActorTeller(node);
    this.#answers = new AnswerBook(
      node.tasks,
      node.directory,
      (id) => node.remembered(id),
      (call) => this.keep(call),
      (call) => node.forgotten(call),
      () => node.now(),
    );
    this.#names = new ActorNames(node, (actor, reason) => this.#kill(actor, reason));
    this.#places = new ActorPlaces(
      node,
      (actor) => this.#step({ type: "placed", actor, now: node.now() }),
      () => this.teller.execution(),
    );
    const { registry } = node;
    if (registry === undefined) return;
    const journals = this.journals = new ActorJournals({
      ...node,
      registry,
      answers: this.#answers,
      fenced: (actor) => this.#surrender(actor),
      nameLost: (actor) => {
        this.#names.lost(actor);
        node.flush();
      },
      release: (actor, before) => this.#release(actor, before),
    });
    this.#answers.dropped = (actor, call) => journals.forgotten(actor, call);
  }

  /** How many actors there are that are not dead. */
  get alive(): number {
    let count = 0;
    for (const actor of this.#actors.values()) if (actor.state !== "dead") count++;
    return count;
  }

  /** The book of answers, which must hear of tasks that end. */
  get answers(): AnswerBook {
    return this.#answers;
  }

  // --- What clients ask ---------------------------------------------------------------------------------------

  /**
   * Creates an actor, or finds the one that the same creation has made before.
   *
   * @param back The creation, if it was another node's so far: its arguments are held.
   */
  create(
    client: Client,
    message: Extract<ToNode, { type: "createActor" }>,
    fn: FunctionEntry,
    settings: ActorSettings,
    back?: TaskRecord,
  ): void {
    const { task: id, parent: creator } = message;
    const known = this.#actors.get(id);
    const gone = known === undefined || known.state === "stopping" && !known.drowsy ||
      known.state === "dead" && this.#node.directory.get(id as string as ObjectId) === undefined;
    if (!gone) return this.#found(client, message.handle, known);
    const once = asksOnce(client);
    const parent = once ? undefined : this.#node.tasks.get(creator);
    if (!once) this.#answers.touch(creator);
    const actor = new NodeActor(id, parent?.job ?? client.job, settings, this.#node.shape(settings));
    const entry = this.#node.settings(creationSettings(settings.label));
    const { dependencies, args } = back ?? message;
    const creation = new CallRecord(
      { ...message, dependencies, args },
      actor.job,
      fn,
      entry,
      client.id,
      actor,
    );
    if (back !== undefined) creation.others = [back.asFurther(), ...back.others ?? []];
    actor.creation = creation;
    actor.mayBeElsewhere = !once;
    creation.argumentsKept = true;
    creation.answers = [];
    this.#actors.set(id, actor);
    creation.results = [this.#node.directory.produce(id as string as ObjectId, client.id)];
    this.#node.madeHere(id);
    if (settings.virtual || settings.detached) this.#node.directory.use(id as string as ObjectId);
    if (settings.virtual || settings.checkpointMs > 0) this.#timed.add(actor);
    if (back !== undefined) this.#node.tasks.set(id, creation);
    else if (this.#node.admit(creation) === undefined) {
      return this.#kill(actor, "its constructor's arguments failed");
    }
    const begin = () => {
      // Some may have come while the name was asked for.
      const late = this.#missing(creation);
      if (late.length > 0) this.#node.awaitArguments(creation, late);
      else this.#created(actor);
    };
    const take = () => {
      if (actor.state === "dead") return;
      const refused = this.#refusal(actor, parent);
      if (refused === undefined) return this.#names.take(actor, begin);
      actor.failure = refused;
      this.#kill(actor, refused.message);
    };
    if (known === undefined) return take();
    // The one before has ended with its last handle: what it has answered is not in the state of this one.
    this.#answers.forgetActor(known);
    if (known.state === "dead") take();
    else known.successor = take;
  }

  /** What a task depends on that does not exist yet. */
  #missing({ dependencies }: TaskRecord): ObjectId[] {
    return dependencies.filter((object) => this.#node.directory.get(object)?.outcome === undefined);
  }

  /** An actor's constructor has its arguments. */
  #created(actor: NodeActor): void {
    if (isLasting(actor)) this.journals?.enter(actor);
    this.#names.whenCertain(actor, () => {
      const { creation, settings } = actor;
      if (settings.virtual && !creation.finished) this.#node.finish(creation, [NOTHING]);
      this.#step({ type: "created", actor, now: this.#node.now() });
    });
  }

  /** Why an actor cannot be. */
  #refusal(actor: NodeActor, parent: TaskRecord | undefined): RaydError | undefined {
    const { settings } = actor;
    if (!this.#node.pool.couldEverFit(actor.asked) || !this.#node.mayBeHere(settings.placement)) {
      return unschedulable(actor, this.#node.pool.total());
    }
    if (this.#names.isTaken(settings)) return nameTaken(settings);
    if (!settings.linked) return undefined;
    if (!(parent instanceof CallRecord)) {
      return new UsageError(
        `Cannot link actor ${settings.label}: only an actor's own methods can create an actor linked to it`,
      );
    }
    if (parent.actor.state === "dead") {
      return new UsageError(`Cannot link actor ${settings.label}: its parent is dead`);
    }
    actor.linked.add(parent.actor);
    parent.actor.linked.add(actor);
    return undefined;
  }

  #found(client: Client, handle: number, actor: NodeActor): void {
    const { directory } = this.#node;
    const id = actor.id as string as ObjectId;
    const { creation } = actor;
    if (!creation.finished) {
      this.#node.adopt(client, { task: actor.id, handle });
      return;
    }
    const outcome = creation.answers![0]!;
    if (directory.get(id) !== undefined) directory.retain(client.id, [id]);
    else {
      const record = directory.add(id, client.id);
      directory.seal(record, outcome);
      directory.sealed(record);
      actor.released = false;
    }
    this.#node.send(client, { type: "result", handle, index: 0, kept: true, outcome });
  }

  /** Takes a call. */
  call(
    client: Client,
    message: Extract<ToNode, { type: "call" }>,
    fn: FunctionEntry,
    entry: SettingsEntry,
  ): void {
    const peer = client.role === "peer";
    const back = peer ? this.#node.tasks.get(message.task) : undefined;
    if (back instanceof CallRecord && back.state === "delegated") {
      // Its way led over the peer, while the actor came here.
      this.#node.recall(back);
      this.takeOver(back);
    }
    if (client.role !== "driver") {
      if (
        !this.#node.faults.has("forget-answers") &&
        this.#answers.resend(message.task, (index, kept, outcome) => {
          if (kept) this.#node.directory.retain(client.id, [returnId(message.task, index)]);
          this.#node.send(client, { type: "result", handle: message.handle, index, kept, outcome });
        })
      ) return;
      if (this.#node.adopt(client, message)) return;
    }
    const parent = asksOnce(client) ? undefined : this.#node.tasks.get(message.parent);
    // In a cluster a task may also be here twice: once more in the name of a caller that has been taken for gone.
    const mayBeLate = peer ||
      client.role === "isolate" && this.#node.registry !== undefined &&
        this.#actors.get(message.actor)?.settings.durable === true;
    const late = mayBeLate && [message.parent, message.task].some((id) => this.#answers.hasEnded(id));
    const known = late ? undefined : this.#actors.get(message.actor);
    const actor = known ?? unknownActor(message.actor, this.#node.shape({ demand: {} }));
    const call = new CallRecord(message, parent?.job ?? client.job, fn, entry, client.id, actor);
    // Until the peer says that nobody will ask again.
    if (peer && actor.settings.durable) call.answers = [];
    else if (!asksOnce(client)) this.#answers.expect(call);
    const missing = this.#node.admit(call);
    if (missing === undefined) return;
    if (late) {
      return this.#node.fail(
        call,
        new ActorUnavailableError(
          `Cannot call ${entry.settings.name}: the task that calls was run again on another node, and has ended`,
        ),
      );
    }
    if (known === undefined) {
      return this.#node.fail(
        call,
        new ActorUnavailableError(
          `Cannot call ${entry.settings.name}: there is no actor ${
            hex(message.actor)
          } on this node. It is gone ` +
            `since no handle to it was left, or it never was here`,
        ),
      );
    }
    this.#node.limitTime(call);
    this.#take(actor, call, missing);
  }

  #take(actor: NodeActor, call: CallRecord, missing: readonly ObjectId[]): void {
    call.argumentsKept = actor.settings.durable;
    this.#step({ type: "call", actor, call, ready: missing.length === 0 });
    if (missing.length > 0 && !call.finished) this.#node.awaitArguments(call, missing);
  }

  /** A call that was on its way to another node is this node's, since its actor has come here. */
  takeOver(call: CallRecord): void {
    this.#takeOver(call);
    this.#node.tookOver(call);
  }

  #takeOver(call: CallRecord): void {
    const actor = this.#actors.get(call.actor.id)!;
    call.remote = -1;
    call.state = "new";
    const known = this.#answers.answerOf(call.id);
    if (known !== undefined) return this.#node.finish(call, known);
    const logged = actor.log.find((other) => other?.id === call.id);
    if (logged?.finished) {
      const { label } = call;
      return this.#node.fail(
        call,
        new ActorUnavailableError(`Cannot call ${label}: it was answered, and forgotten`),
      );
    }
    if (logged !== undefined) {
      // It is run again; who waits for it gets that answer.
      // So does everybody who has asked for it by another way: whoever is not answered says it again when the actor moves.
      const others = [...logged.others ?? [], ...call.others ?? []];
      if (this.#node.clients.has(logged.client)) others.push(logged.asFurther());
      if (others.length > 0) logged.others = others;
      logged.client = call.client;
      logged.handle = call.handle;
      logged.results = call.results;
      logged.forgetDone = call.forgetDone;
      call.cancelTimeout?.();
      this.#node.tasks.set(logged.id, logged);
      return this.#node.unuse(call);
    }
    call.actor = actor;
    // What the journal of an actor that was here before had of it is another journal's now, where it is written anew.
    call.sends = 0;
    call.position = -1;
    call.restored = false;
    if (actor.settings.durable) call.answers ??= [];
    this.#take(actor, call, this.#missing(call));
  }

  /** An actor has come from a node that is gone. @param log Its calls since its checkpoint. */
  restored(actor: NodeActor, log: readonly (CallRecord | undefined)[]): void {
    const { settings } = actor;
    this.#actors.set(actor.id, actor);
    this.#names.set(actor);
    if (settings.virtual || settings.checkpointMs > 0) this.#timed.add(actor);
    this.#step({ type: "restored", actor, log, now: this.#node.now() });
  }

  /** An actor is another node's by now: here it ends, and nobody is told. */
  #surrender(actor: NodeActor): void {
    if (this.#node.closed() || this.#actors.get(actor.id) !== actor || actor.state === "dead") return;
    this.#node.log("warn", `Actor ${actor.settings.label} goes on elsewhere: it is another node's by now`);
    this.#keepForHeir(actor);
    const calls = actor.untoldCalls();
    this.#places.vacate(actor);
    actor.state = "dead";
    this.journals?.abandon(actor);
    this.#actors.delete(actor.id);
    this.#timed.delete(actor);
    if (actor.checkpoint !== undefined) this.#node.directory.unuse(actor.checkpoint);
    actor.checkpoint = undefined;
    this.#names.delete(actor);
    if (!actor.creation.finished) calls.unshift(actor.creation);
    // What is said to the other node needs its arguments until it is answered there, all else does not any more.
    const again = new Set(calls);
    for (const call of [actor.creation, ...actor.log]) {
      if (call !== undefined && !again.has(call)) this.#letArgumentsGo(call);
    }
    for (const call of calls) call.argumentsKept = false;
    this.#node.surrendered(actor.id, calls, actor.heldBack);
    const { virtual, detached } = actor.settings;
    if (virtual) this.#node.registry?.releaseVirtual(actor.id);
    if (virtual || detached) this.#node.directory.unuse(actor.id as string as ObjectId);
  }

  /** What an actor refers to is needed where it goes on, and not let go of here before it can be held there. */
  #keepForHeir(actor: NodeActor): void {
    const { isolate, creation, log } = actor;
    const kept = isolate?.client === undefined ? [] : this.#node.directory.heldBy(isolate.client.id);
    for (const call of [creation, ...log]) {
      if (call === undefined) continue;
      kept.push(...call.dependencies, ...call.args.kind === "error" ? [] : call.args.contains);
    }
    this.#node.holdForHeirs(kept);
  }

  /**
   * The control store says that an actor is another node's. What is told may be old, and of one that had the same id before,
   * and has ended.
   *
   * @param revision The record's.
   */
  movedAway(id: TaskId, revision: number): void {
    const actor = this.#actors.get(id);
    const journal = actor?.journal;
    if (actor === undefined || journal === undefined) return;
    journal.entered.then((own) => {
      if (own !== undefined && own >= revision || actor.journal !== journal) return;
      this.#surrender(actor);
      this.#node.flush();
    });
  }

  /**
   * The control store says that an actor has no record: if it had one here, it was given to another node meanwhile, and has
   * ended there. What is told may be old, so it is looked at.
   */
  recordGone(id: TaskId): void {
    const journal = this.#actors.get(id)?.journal;
    if (journal === undefined || journal.ended) return;
    journal.entered.then(async (revision) => {
      if (revision === undefined || await this.#node.registry!.get(id) !== undefined) return;
      const actor = this.#actors.get(id);
      if (journal.ended || actor?.journal !== journal) return;
      this.#surrender(actor);
      this.#node.flush();
    }).catch(() => {
      // The node is ending.
    });
  }

  /** Actors that have waited for resources of this node for so long, and can as well be on another. */
  *crowdedOut(ms: number): Iterable<TaskId> {
    for (const { id, journal } of this.#places.waitingFor(ms)) {
      if (journal !== undefined && !journal.ended && journal.gap === undefined) yield id;
    }
  }

  /** As {@link crowdedOut}, of actors that do not survive their node, and were never begun with. */
  *neverBegun(ms: number): Iterable<NodeActor> {
    for (const actor of this.#places.waitingFor(ms)) {
      const { journal, attempts, creation, settings } = actor;
      const stays = journal !== undefined || attempts > 0 || creation.finished;
      if (!stays && !settings.virtual && !settings.linked) yield actor;
    }
  }

  /** An actor that was never begun with is made by another node: here it is as if it had not been. @returns Its calls. */
  withdraw(actor: NodeActor): CallRecord[] {
    const calls = [...actor.unansweredCalls()];
    this.#places.vacate(actor);
    actor.state = "dead";
    this.#actors.delete(actor.id);
    this.#timed.delete(actor);
    this.#names.delete(actor);
    if (actor.settings.detached) this.#node.directory.unuse(actor.id as string as ObjectId);
    return calls;
  }

  /** An actor that waits for its place is not begun with, or is again: it may be given to another node. */
  holdBack(id: TaskId, held: boolean): void {
    const actor = this.#actors.get(id);
    if (actor === undefined || actor.isolate !== undefined) return;
    actor.heldBack = held;
    if (!held) this.#places.place();
  }

  /** The answer of a call is to be kept for one node more. */
  keep(call: FarCall): void {
    if (this.#actors.has(call.actor)) this.#answers.keep(call.call);
    else this.#node.kept(call);
  }

  /** Nobody will ask for the answer of a call again. */
  forget(call: FarCall): void {
    if (this.#actors.has(call.actor)) this.#answers.end(call.call);
    else this.#node.forgotten(call);
  }

  /** Ends an actor, or has it begin anew. */
  kill(id: TaskId, restart: boolean): void {
    const actor = this.#actors.get(id);
    if (actor === undefined || actor.state === "dead") return;
    if (!restart) return this.#kill(actor, "it was killed with kill()");
    this.#step({ type: "isolateGone", actor, reason: "it was restarted with kill()", blame: false });
  }

  /** All actors of this node, dead ones that somebody still has handles of included. */
  all(): Iterable<NodeActor> {
    return this.#actors.values();
  }

  /** Whether there is such an actor on this node. */
  has(id: TaskId): boolean {
    return this.#actors.has(id);
  }

  /** Answers who has a name; the asker then holds the actor. */
  find(client: Client, message: Extract<ToNode, { type: "findActor" }>): void {
    this.#names.find(client, message);
  }

  /** Answers when an actor is dead. */
  awaitDeath(client: Client, request: number, id: TaskId): void {
    const actor = this.#actors.get(id);
    if (actor === undefined) this.#reply(client, request, "no handle to it was left");
    else if (actor.state === "dead") this.#reply(client, request, actor.reason);
    else actor.watchers.push({ client: client.id, request });
  }

  #reply(client: Client, request: number, body: unknown): void {
    this.#node.send(client, { type: "answer", request, body: pack(body).toBytes().slice() });
  }

  /** Nothing refers to an object any more, which may be an actor. */
  freed(id: ObjectId): void {
    const actor = this.#actors.get(id as string as TaskId);
    if (actor === undefined) return;
    if (actor.state === "dead") this.#forgetActor(actor);
    else this.#step({ type: "released", actor });
  }

  /** A program has ended: so do its actors. */
  jobEnded(job: TaskId): void {
    for (const actor of [...this.#actors.values()]) {
      if (actor.job === job && !actor.settings.detached) {
        this.#kill(actor, "the program that created it ended");
      }
    }
    this.#answers.jobEnded(job);
  }

  /** Time has passed. */
  tick(now: number): void {
    for (const actor of this.#timed) this.#step({ type: "tick", actor, now });
    this.#places.place();
  }

  // --- What tasks of actors go through ------------------------------------------------------------------------

  /** The arguments of a call, or of a constructor, exist; or one of them has failed. */
  argumentsArrived(call: CallRecord, failure: Outcome | undefined): void {
    const { actor } = call;
    if (call === actor.creation) {
      if (failure === undefined) return this.#created(actor);
      this.#node.failWith(call, failure);
      return this.#kill(actor, "its constructor's arguments failed");
    }
    if (failure === undefined) return this.#step({ type: "ready", actor, call });
    this.#node.failWith(call, failure);
    this.#step({ type: "removed", actor, call });
  }

  /** A call is cancelled or out of time: its caller has been told. */
  stopped(call: CallRecord, reason: string, force: boolean): void {
    const { actor } = call;
    if (call === actor.creation) return this.#kill(actor, reason);
    this.#step({ type: "removed", actor, call });
    if (!force || call.phase !== "sent") return;
    const { isolate, instance } = actor;
    this.#node.clock.after(STOP_GRACE_MS, () => {
      if (call.phase !== "sent" || actor.instance !== instance || isolate === undefined) return;
      // What only waits behind another call does not keep the isolate.
      if (sequential(actor) && currentCall(actor) !== call) return;
      this.#node.endIsolate(isolate);
      this.isolateGone(isolate, `a call of ${call.entry.settings.name} did not stop when it had to`, false);
      this.#node.flush();
    });
  }

  // --- What isolates say --------------------------------------------------------------------------------------

  /** The call that an execution of an isolate is. */
  execution(client: Client, handle: number): CallRecord | undefined {
    return client.isolate?.residents?.calls.get(handle);
  }

  /** An isolate is done with a call, or with something else that it was told to do. */
  done(client: Client, message: Extract<ToNode, { type: "done" }>): void {
    const residents = client.isolate?.residents;
    if (residents === undefined) throw new ProtocolError(`No execution ${message.handle} to end`);
    const call = residents.calls.get(message.handle);
    const now = this.#node.now();
    if (call !== undefined) {
      residents.calls.delete(message.handle);
      call.waitsFor = undefined;
      this.#places.lend(call.actor, false);
      if (call.finished || call.applied) { // nobody waits for it, or for another answer than the one before
        message.outcomes.forEach((outcome, i) => this.#node.drop(returnId(call.id, i), outcome));
      } else {
        if (message.retry || message.outcomes.length < call.entry.settings.returns) {
          throw new ProtocolError("A call ended with too few outcomes");
        }
        this.#answer(call, message.outcomes);
      }
      this.#step({ type: "done", actor: call.actor, call, ran: !message.retry, now });
      this.#saveForWithheld(call.actor);
      return;
    }
    const work = residents.works.get(message.handle);
    if (work === undefined) return; // of an instance that is gone
    residents.works.delete(message.handle);
    const { actor } = work;
    const outcome = message.outcomes[0] ?? NOTHING;
    switch (work.kind) {
      case "construct":
        return this.#constructed(actor, outcome);
      case "checkpoint":
        return this.#saved(actor, outcome);
      case "stop":
        return this.#step({ type: "stopped", actor });
      default:
        unreachable(work.kind);
    }
  }

  /** A call has its answer, which is told unless nothing of it could be done again elsewhere yet. */
  #answer(call: CallRecord, outcomes: readonly Outcome[]): void {
    if (this.journals?.withholds(call)) call.actor.withheld.set(call.id, { call, outcomes });
    else this.#node.finish(call, outcomes);
  }

  /** Tells answers that were withheld, of calls before a position. */
  #release(actor: NodeActor, before: number): void {
    if (this.#node.closed()) return;
    for (const [id, { call, outcomes }] of actor.withheld) {
      if (call.position >= before) continue;
      actor.withheld.delete(id);
      if (!call.finished) this.#node.finish(call, outcomes);
      else outcomes.forEach((outcome, i) => this.#node.drop(returnId(call.id, i), outcome));
      if (call.forgotten) this.#forget(call);
      if (this.#answers.answerOf(id) === undefined) this.journals?.forgotten(actor, id);
    }
    this.#saveForWithheld(actor);
    this.#node.flush();
  }

  /** Answers may wait for a checkpoint. */
  #saveForWithheld(actor: NodeActor): void {
    if (actor.withheld.size > 0 && this.journals?.needsState(actor)) this.#step({ type: "save", actor });
  }

  #constructed(actor: NodeActor, outcome: Outcome): void {
    const { creation } = actor;
    if (outcome.kind === "error") {
      const record = readRecord(outcome.bytes);
      actor.failure = record;
      if (!creation.finished) this.#node.failWith(creation, outcome);
      return this.#kill(actor, `its constructor failed: ${record.message}`);
    }
    if (!creation.finished) this.#node.finish(creation, [NOTHING]);
    this.#step({ type: "constructed", actor, now: this.#node.now() });
  }

  #saved(actor: NodeActor, outcome: Outcome): void {
    const { directory, log } = this.#node;
    const id = actor.saving.shift();
    if (id === undefined) return;
    const now = this.#node.now();
    if (outcome.kind === "error") {
      if (!actor.unsavable) {
        actor.unsavable = true;
        log(
          "warn",
          `Actor ${actor.settings.label} cannot be saved: ${
            readRecord(outcome.bytes).message
          }. Its calls are kept ` +
            `to be replayed, up to ${ACTOR_LOG_BYTES_MAX} bytes; give the class saveState() and loadState(state), or ` +
            `make it durable: false`,
        );
      }
      this.journals?.unsavable(actor);
      return this.#step({ type: "checkpointed", actor, saved: false, now });
    }
    const record = directory.add(id, 0); // held as if it were yet to be made, for as long as it is the newest
    directory.disown(record);
    directory.seal(record, outcome);
    const older = actor.checkpoint;
    actor.checkpoint = id;
    if (older !== undefined) directory.unuse(older);
    this.journals?.saved(actor, actor.log.slice(0, actor.covering[0]), id, outcome);
    this.#step({ type: "checkpointed", actor, saved: true, now });
  }

  /** A call waits: for all of `objects`, as far as it says. Its CPUs are lent. */
  waiting(task: TaskRecord, objects: readonly ObjectId[]): void {
    if (task instanceof CallRecord) {
      task.waitsFor = objects;
      this.#places.lend(task.actor, true);
    } else this.#answers.waits.set(task, objects);
    const circle = circleOf(task, objects, this.#node.tasks, this.#answers.waits);
    if (circle === undefined) return;
    const { call, names } = circle;
    this.#node.fail(
      call,
      new ActorDeadlockError(
        `Call ${call.entry.settings.name} would wait for itself, for ever: ${
          names.join(" waits for ")
        }. Do not wait ` +
          `for this call inside of the actor, or give the actor a concurrency above 1`,
      ),
    );
    this.#step({ type: "removed", actor: call.actor, call });
  }

  /** A call or task goes on. */
  resumed(task: TaskRecord): void {
    if (!(task instanceof CallRecord)) {
      this.#answers.waits.delete(task);
      return;
    }
    task.waitsFor = undefined;
    this.#places.lend(task.actor, false);
  }

  /** A line that an actor printed. */
  printed(client: Client, call: CallRecord | undefined, text: string): NodeActor | undefined {
    const residents = client.isolate?.residents;
    const actor = call?.actor ??
      (residents !== undefined && !residents.shared ? residents.actors.values().next().value : undefined);
    if (actor === undefined) return undefined;
    actor.output.push(...text.split("\n").slice(-ACTOR_OUTPUT_LINES));
    if (actor.output.length > ACTOR_OUTPUT_LINES) {
      actor.output.splice(0, actor.output.length - ACTOR_OUTPUT_LINES);
    }
    return actor;
  }

  /** An isolate for actors is up. */
  isolateReady(isolate: Isolate): void {
    for (const actor of isolate.residents!.actors) {
      this.#step({ type: "placed", actor, now: this.#node.now() });
    }
  }

  /** An isolate for actors is gone. @param blame Whether that may be the doing of what it ran. */
  isolateGone(isolate: Isolate, reason: string, blame: boolean): void {
    const residents = isolate.residents!;
    this.#places.isolateGone(isolate);
    const actors = [...residents.actors];
    residents.actors.clear();
    residents.calls.clear();
    residents.works.clear();
    for (const actor of actors) {
      actor.isolate = undefined;
      this.#places.dropCheckpoints(actor);
      if (actor.state === "pending") {
        // The isolate did not even start.
        this.#places.vacate(actor);
        if (++actor.fruitless >= ACTOR_FRUITLESS_STARTS_MAX) {
          this.#kill(actor, `its isolate did not start: ${reason}`);
        } else this.#places.add(actor);
      } else this.#step({ type: "isolateGone", actor, reason, blame });
    }
    this.#places.place();
  }

  // --- Effects ------------------------------------------------------------------------------------------------

  #step(event: ActorEvent<NodeActor, CallRecord>): void {
    this.#table.step(event, this.#effects);
    if (this.#working) return;
    this.#working = true;
    try {
      for (;;) {
        const effect = this.#effects[this.#nextEffect++];
        if (effect === undefined) break;
        this.#perform(effect);
      }
    } finally {
      this.#effects.length = this.#nextEffect = 0;
      this.#working = false;
    }
  }

  #kill(actor: NodeActor, reason: string): void {
    this.#step({ type: "kill", actor, reason });
  }

  #perform(effect: ActorEffect<NodeActor, CallRecord>): void {
    const { actor } = effect;
    switch (effect.type) {
      case "send":
        return this.#sendCall(actor, effect.call, effect.replaying);
      case "abort":
        return this.teller.abort(effect.call);
      case "fail":
        return this.#failCall(actor, effect.call, effect.why);
      case "unlog":
        return this.journals?.withdrawn(actor, effect.call);
      case "forget":
        // As long as its answer waits, it may have to be said to another node.
        if (actor.withheld.has(effect.call.id)) effect.call.forgotten = true;
        else this.#forget(effect.call);
        return;
      case "place":
        this.#places.add(actor);
        return this.#places.place();
      case "construct":
        return this.teller.construct(actor);
      case "checkpoint": {
        const id = checkpointId(actor.id, actor.checkpoints++);
        actor.saving.push(id);
        return this.teller.checkpoint(actor, id);
      }
      case "stop":
        return this.teller.stop(actor, effect.hook);
      case "vacate":
        return this.#places.vacate(actor);
      case "dead":
        return this.#dead(actor);
      default:
        unreachable(effect);
    }
  }

  /** A call is over, and will never be run again. */
  #forget(call: CallRecord): void {
    this.#letArgumentsGo(call);
    this.#answers.scopeEnded(call);
  }

  #letArgumentsGo(call: CallRecord): void {
    if (!call.argumentsKept) return;
    call.argumentsKept = false;
    this.#node.unuse(call);
  }

  #sendCall(actor: NodeActor, call: CallRecord, replaying: boolean): void {
    if (actor.isolate?.client === undefined || call.phase !== "sent") return;
    if (call.sends === 0 && !call.restored && actor.settings.durable) this.journals?.called(actor, call);
    this.teller.call(actor, call, replaying);
  }

  /** A placement group was removed: actors in it die. */
  groupGone(group: string): void {
    for (const actor of [...this.#actors.values()]) {
      if (actor.state === "dead" || bundleOf(actor.shape.demand)?.group !== group) continue;
      actor.failure = groupGone(group, `Actor ${actor.settings.label}`);
      this.#kill(actor, "its placement group was removed");
    }
  }

  #dead(actor: NodeActor): void {
    const { settings, creation } = actor;
    const { directory } = this.#node;
    this.#timed.delete(actor);
    this.#names.release(actor);
    if (!creation.finished) {
      this.#node.failWith(creation, { kind: "error", bytes: deathOf(actor, settings.label) });
    }
    for (const { client: id, request } of actor.watchers) {
      const client = this.#node.clients.get(id);
      if (client !== undefined) this.#reply(client, request, actor.reason);
    }
    actor.watchers.length = 0;
    creation.argumentsKept = false;
    this.#node.unuse(creation);
    this.#answers.scopeEnded(creation);
    if (actor.checkpoint !== undefined) directory.unuse(actor.checkpoint);
    actor.checkpoint = undefined;
    for (const other of actor.linked) {
      other.linked.delete(actor);
      this.#kill(other, `it was linked to actor ${settings.label}, which died: ${actor.reason}`);
    }
    actor.linked.clear();
    const id = actor.id as string as ObjectId;
    if (settings.virtual) this.#node.registry?.releaseVirtual(actor.id);
    this.journals?.ended(actor);
    this.#release(actor, Infinity);
    if (settings.virtual || settings.detached) directory.unuse(id);
    if (actor.released) this.#forgetActor(actor);
    actor.successor?.();
  }

  /** An actor is dead, and nothing refers to it. */
  #forgetActor(actor: NodeActor): void {
    this.#answers.forgetActor(actor);
    if (this.#actors.get(actor.id) === actor) this.#actors.delete(actor.id);
  }

  #failCall(actor: NodeActor, call: CallRecord, why: "died" | "restarting" | "limit" | "logFull"): void {
    if (call.finished) return;
    const { name } = call.entry.settings;
    if (why === "died") {
      return this.#node.failWith(call, { kind: "error", bytes: deathOf(actor, name) });
    }
    this.#node.fail(call, callFailure(why, name, actor.settings));
  }
}

const NOTHING: Outcome = { kind: "inline", bytes: pack(undefined).toBytes().slice(), contains: [] };
