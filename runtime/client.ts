/**
 * A program's side of its connection to a node: submits tasks, puts and gets objects, and keeps count of Refs. The
 * driver has one, and so has each isolate.
 *
 * Everything is sent in the order it was done, so a program may go on before it is answered: `submit` returns Refs
 * although the node may not even be up yet. The node pushes the outcome of whatever was submitted here; other
 * objects are asked for when somebody waits for them.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import {
  DisconnectedError,
  errorFromRecord,
  type ErrorRecord,
  GetTimeoutError,
  ProtocolError,
  RaydError,
  UsageError,
} from "../core/errors.ts";
import {
  type KeyValueAnswer,
  type KeyValueRequest,
  readKeyValueAnswer,
  writeKeyValueRequest,
} from "../core/key_value.ts";
import { type GroupAnswer, type GroupRequest, readGroupAnswer, writeGroupMessage } from "../core/groups.ts";
import {
  argumentsId,
  ChildIds,
  hex,
  type ObjectId,
  putId,
  returnId,
  type TaskId,
  taskOf,
} from "../core/ids.ts";
import { INLINE_BYTES_MAX } from "../core/limits.ts";
import type { FoundActor, FromNode, FunctionAddress, Outcome, ToNode, Topic } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import type { ObjectStore, StoredView } from "../store/object_store.ts";
import { pack, type Packet } from "../store/serialize.ts";
import { collectGarbage } from "./collect.ts";
import { makeHandle } from "./handle.ts";
import { type ArrayType, LargeValues } from "./large_values.ts";
import { type Connection, NodeLink } from "./node_link.ts";
import { Entry, Ref } from "./ref.ts";
import { References, type UnpackShare } from "./references.ts";
import { childOf, nextPut, type Scope } from "./scope.ts";
import { RefStream, StreamState } from "./stream.ts";
import type { Turnover } from "./turnover.ts";

/** What a client is made of. */
export interface ClientOptions {
  readonly role: "driver" | "isolate";
  readonly isolate: number;
  readonly job: TaskId;
  readonly clock: Clock;
  /** The work that is being done right now. @throws {UsageError} When there is none. */
  readonly scope: () => Scope;
  /** Told of messages that are not for the client itself. */
  readonly other?: (message: FromNode) => void;
  /** The end of a block of messages. */
  readonly drained?: () => void;
  /** The connection ended. */
  readonly closed?: (error: RaydError | undefined) => void;
  /** When to write what is sent. */
  readonly flush: "microtask" | "manual";
  /** Whether waiting keeps the process alive, as it must in a driver. */
  readonly keepAlive: boolean;
}

/** A function as the client defines it to the node. */
export interface RemoteTarget {
  readonly address: FunctionAddress;
  readonly settings: TaskSettings;
}

/** A class of actors as the client defines it to the node. */
export interface ActorTarget extends RemoteTarget {
  readonly actor: ActorSettings;
}

/** One program's connection to a node. */
export class Client {
  readonly #options: ClientOptions;
  readonly #link: NodeLink;
  readonly #references: References;
  readonly #large: LargeValues;

  readonly #functions = new Map<string, number>();
  /** The same by the address itself, which is faster to look up. */
  readonly #functionsByAddress = new WeakMap<FunctionAddress, number>();
  readonly #settings = new Map<TaskSettings, number>();
  readonly #actors = new Map<ActorSettings, number>();
  /** Calls of actors that wait for their arguments to be stored: the last one of each. */
  readonly #lines = new Map<Entry, Promise<void>>();
  readonly #pending = new Map<number, Entry | Entry[] | StreamState>();
  readonly #wanted = new Map<ObjectId, Entry>();
  #nextHandle = 0;
  #runs = 0;
  /** What is sent is written at the end of the microtask run. */
  #flushing = false;

  readonly #streams = new FinalizationRegistry<StreamState>((state) => this.#streamDropped(state));
  /** Called after each block of messages, once: for waits on many Refs. */
  #arrival: (() => void)[] = [];

  /** @param options What the client is made of. */
  constructor(options: ClientOptions) {
    this.#options = options;
    const { role, isolate, job, flush, keepAlive } = options;
    this.#link = new NodeLink({ role, isolate, job, flush, keepAlive });
    this.#references = new References(this.#link, (packed, entry) => makeHandle(this, packed, entry));
    this.#large = new LargeValues(this.#link, this.#references, options.clock);
  }

  /** Why the client cannot be used any more. */
  get ended(): RaydError | undefined {
    return this.#link.ended;
  }

  /** The node's object store. */
  get store(): ObjectStore {
    return this.#link.store;
  }

  /** The node's id, once it has said welcome. */
  get node(): TaskId | undefined {
    return this.#link.node;
  }

  /** Large values that come and go here; looked at when what was done has been sent. */
  get turnover(): Turnover {
    return this.#large.turnover;
  }

  /** Connects. Resolves when the node has said welcome. @param connection The way there. */
  connect(connection: Connection): Promise<void> {
    return this.#link.connect(connection, {
      message: (message) => this.#message(message),
      drained: () => this.#drained(),
      closed: (error) => this.end(error ?? new DisconnectedError("The node closed the connection")),
    });
  }

  /** Resolves when the node is up. */
  get ready(): Promise<void> {
    return this.#link.ready;
  }

  /** Sends a message, or keeps it until there is a connection. */
  send(message: ToNode): void {
    this.#link.send(message);
  }

  /**
   * As {@link send}, of what others are to act upon while the task that says it goes on, or waits for something that rayd
   * knows nothing of: it does not stay here until the isolate writes the next time.
   */
  #request(message: ToNode): void {
    this.send(message);
    if (this.#options.flush === "microtask" || this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.flush();
    });
  }

  /** Writes out what was sent. */
  flush(): void {
    this.#link.flush();
  }

  /** Gives views of the store that nobody refers to any more a chance to be collected, before the store is closed. */
  async settleViews(): Promise<void> {
    await this.#large.settleViews();
  }

  /** Ends the client: whatever waits, fails. @param error Why. */
  end(error: RaydError): void {
    if (!this.#link.end(error)) return;
    for (const wake of this.#arrival.splice(0)) wake();
    // Whoever asks later, maybe in a new session, is told as well.
    const lost = new DisconnectedError(
      `The value did not exist yet when the session ended: ${error.message}`,
    );
    const outcome: Outcome = { kind: "error", bytes: packErrorOf(lost) };
    const fail = (entry: Entry) => entry.outcome === undefined && entry.resolve(outcome);
    for (const pending of this.#pending.values()) {
      if (pending instanceof StreamState) pending.notify();
      else if (Array.isArray(pending)) pending.forEach(fail);
      else fail(pending);
    }
    for (const entry of this.#wanted.values()) fail(entry);
    this.#options.closed?.(error);
  }

  // --- Submitting ---------------------------------------------------------------------------------------------

  /**
   * Submits a task.
   *
   * @param anew The task is of this run of the caller alone: a caller that is run again submits another one, and is not
   *   given the first one's outcome.
   * @returns A Ref, an array of Refs when the settings ask for several returns, or a stream.
   * @throws {SerializationError} If an argument cannot be carried.
   */
  submit(
    target: RemoteTarget,
    args: readonly unknown[],
    actor?: Entry,
    anew = false,
  ): Ref<unknown> | Ref<unknown>[] | RefStream<unknown> {
    this.#check();
    const scope = this.#options.scope();
    const { settings } = target;
    if (actor !== undefined) scope.calls = true;
    const { packet, contains, dependencies } = this.#references.packArguments(args);
    const task = anew ? this.#ownChild(scope) : childOf(scope);
    const handle = this.#nextHandle++;
    const fn = this.#defineFunction(target.address);
    const settingsIndex = this.#defineSettings(settings);
    const parent = scope.task;
    const submit = (outcome: Outcome) => {
      if (actor === undefined) {
        const settings = settingsIndex;
        this.#request({ type: "submit", handle, task, parent, fn, settings, dependencies, args: outcome });
        return;
      }
      const settings = settingsIndex, id = taskOf(actor.id);
      this.#request({
        type: "call",
        handle,
        task,
        parent,
        actor: id,
        fn,
        settings,
        dependencies,
        args: outcome,
      });
    };
    this.#sendArguments(
      task,
      args,
      packet,
      contains,
      submit,
      actor,
      (error) => this.#failPending(handle, error),
    );
    if (settings.stream) {
      const state = new StreamState(task);
      this.#pending.set(handle, state);
      const stream = new RefStream<unknown>(state, this.#streamSource);
      this.#streams.register(stream, state);
      return stream;
    }
    if (settings.returns === 1) {
      const entry = new Entry(returnId(task, 0), true);
      entry.task = settings.name;
      this.#pending.set(handle, entry);
      return this.#references.makeRef(entry);
    }
    const entries = Array.from({ length: settings.returns }, (_, i) => new Entry(returnId(task, i), true));
    for (const entry of entries) entry.task = settings.name;
    this.#pending.set(handle, entries);
    return entries.map((entry) => this.#references.makeRef(entry));
  }

  /** The id of a child of this run of the work alone. */
  #ownChild(scope: Scope): TaskId {
    return (scope.ownChildren ??= new ChildIds(scope.task, this.#nextRun())).next();
  }

  /** Tells runs of one task apart, wherever they take place. */
  #nextRun(): number {
    const node = this.node ?? NO_NODE;
    const place = node.charCodeAt(0) | node.charCodeAt(1) << 8 | node.charCodeAt(2) << 16 |
      node.charCodeAt(3) << 24;
    return (place ^ Math.imul(this.#options.isolate, 0x10001)) + Math.imul(++this.#runs, 0x9e3779b1) | 0;
  }

  /** Sends a submission: at once if its arguments fit a message, otherwise once they are stored. */
  #sendArguments(
    task: TaskId,
    args: readonly unknown[],
    packet: Packet,
    contains: readonly ObjectId[],
    submit: (args: Outcome) => void,
    actor: Entry | undefined,
    failed: (error: RaydError) => void,
  ): void {
    const line = actor === undefined ? undefined : this.#lines.get(actor);
    if (packet.size <= INLINE_BYTES_MAX && line === undefined) {
      return submit({ kind: "inline", bytes: packet.toBytes(), contains });
    }
    this.turnover.add(packet.size);
    // What the arguments refer to is held until the node holds it for the task.
    const held = args.filter((arg) => arg instanceof Ref);
    const outcome = packet.size <= INLINE_BYTES_MAX
      ? Promise.resolve<Outcome>({ kind: "inline", bytes: packet.toBytes().slice(), contains })
      : this.#large.store(argumentsId(task), packet, "its arguments").then((): Outcome => (
        { kind: "stored", size: packet.size, contains }
      ));
    if (actor !== undefined) actor.holds++;
    // Later calls of the actor do not overtake one whose arguments still wait for room.
    const sent: Promise<void> = Promise.all([outcome, line]).then(
      ([outcome]) => submit(outcome),
      (error) => failed(error as RaydError),
    ).finally(() => {
      held.length = 0;
      if (actor === undefined) return;
      if (this.#lines.get(actor) === sent) this.#lines.delete(actor);
      this.#references.letGo(actor);
      this.flush();
    });
    if (actor !== undefined) this.#lines.set(actor, sent);
  }

  // --- Actors -------------------------------------------------------------------------------------------------

  /** The id of the next child of the work that is being done. */
  nextChild(): TaskId {
    this.#check();
    const scope = this.#options.scope();
    return childOf(scope);
  }

  /**
   * Creates an actor; one of that id that exists already is found instead.
   *
   * @returns What stands for it, to be given to {@link adopt}.
   * @throws {SerializationError} If an argument cannot be carried.
   */
  createActor(target: ActorTarget, task: TaskId, args: readonly unknown[]): Entry {
    this.#check();
    const parent = this.#options.scope().task;
    const { packet, contains, dependencies } = this.#references.packArguments(args);
    const handle = this.#nextHandle++;
    const fn = this.#defineFunction(target.address);
    const settings = this.#defineSettings(target.settings);
    let actor = this.#actors.get(target.actor);
    if (actor === undefined) {
      this.#actors.set(target.actor, actor = this.#actors.size);
      this.send({ type: "defineActor", index: actor, settings: target.actor });
    }
    const entry = new Entry(returnId(task, 0), true);
    const create = (args: Outcome) =>
      this.#request({
        type: "createActor",
        handle,
        task,
        parent,
        fn,
        settings,
        actor: actor!,
        dependencies,
        args,
      });
    this.#pending.set(handle, entry);
    this.#sendArguments(
      task,
      args,
      packet,
      contains,
      create,
      entry,
      (error) => this.#failPending(handle, error),
    );
    return entry;
  }

  /** The entry of an actor that the node was asked for, and holds for this program. */
  heldActor(id: TaskId): Entry {
    return new Entry(returnId(id, 0), false);
  }

  /** A user's handle stands for an object from now on: once it is gone, the object is let go of. */
  adopt(handle: object, entry: Entry): void {
    this.#references.adopt(handle, entry);
  }

  /** A handle is let go of before it is collected. */
  disown(handle: object, entry: Entry): void {
    this.#references.disown(handle, entry);
  }

  /** Ends an actor, or has it begin anew. */
  killActor(entry: Entry, restart: boolean): void {
    this.#check();
    this.#request({ type: "killActor", actor: taskOf(entry.id), restart });
  }

  /** Asks who has a name. */
  async findActor(namespace: string, name: string): Promise<FoundActor | null> {
    const body = await this.#link.ask((request) => ({ type: "findActor", request, namespace, name }));
    return this.unpack(body) as FoundActor | null;
  }

  /** Asks the node about a placement group. Without an answer within `timeoutMs`, resolves with nothing. */
  async askGroup(message: GroupRequest, timeoutMs = Infinity): Promise<GroupAnswer | undefined> {
    this.#check();
    await this.ready;
    const request = this.#link.pose((request) => ({
      type: "group",
      request,
      body: writeGroupMessage(message),
    }));
    this.flush();
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const cancel = timeoutMs === Infinity
      ? undefined
      : this.#options.clock.after(timeoutMs, () => resolve(undefined));
    const body = await this.#blocking(Promise.race([this.#link.answer(request), late]));
    cancel?.();
    this.#check();
    return body === undefined ? undefined : readGroupAnswer(body);
  }

  /** Asks the node about the key-value table. */
  async askKeyValues(message: KeyValueRequest): Promise<Exclude<KeyValueAnswer, { kind: "failed" }>> {
    this.#check();
    await this.ready;
    const request = this.tellKeyValues(message);
    const answering = this.#link.answer(request);
    const body = await (message.kind === "changes" ? this.#blocking(answering) : answering);
    this.#check();
    const answer = readKeyValueAnswer(body);
    if (answer.kind === "failed") throw errorFromRecord(this.readError(answer.error));
    return answer;
  }

  /** Tells the node something about it that is not answered. @returns The request's number. */
  tellKeyValues(message: KeyValueRequest): number {
    const body = writeKeyValueRequest(message);
    const request = this.#link.pose((request) => ({ type: "keyValue", request, body }));
    this.flush();
    return request;
  }

  /** The task that is being done: what a program, or a task, asks for belongs to it. */
  get task(): TaskId {
    return this.#options.scope().task;
  }

  /** Waits until an actor is dead. Returns why. */
  async awaitDeath(entry: Entry): Promise<string> {
    this.#check();
    return await this.holding([entry], async () => {
      await this.ready;
      const actor = taskOf(entry.id);
      const request = this.#link.pose((request) => ({ type: "awaitDeath", request, actor }));
      const body = await this.#blocking(this.#link.answer(request));
      this.#check();
      return this.unpack(body) as string;
    });
  }

  /** Tells once when a task has ended, in whatever way; holds nothing of it. */
  onTaskEnd(task: TaskId, ended: () => void): void {
    const entry = new Entry(returnId(task, 0), false);
    entry.waiters = [ended];
    this.#want(entry);
    this.flush();
  }

  /** Tells once when an actor is dead; does not keep it alive. */
  onActorDeath(actor: TaskId, dead: () => void): void {
    this.#link.askAside((request) => ({ type: "awaitDeath", request, actor }), dead);
  }

  /** A value as bytes, and the objects that it holds Refs of. */
  packValue(value: unknown): { packet: Packet; contains: readonly ObjectId[] } {
    return this.#references.pack(value, "value");
  }

  #defineFunction(address: FunctionAddress): number {
    const known = this.#functionsByAddress.get(address);
    if (known !== undefined) return known;
    const key = `${address.load}\n${address.module}\n${address.name}`;
    let index = this.#functions.get(key);
    if (index === undefined) {
      index = this.#functions.size;
      this.#functions.set(key, index);
      this.send({ type: "defineFunction", index, address });
    }
    this.#functionsByAddress.set(address, index);
    return index;
  }

  #defineSettings(settings: TaskSettings): number {
    let index = this.#settings.get(settings);
    if (index === undefined) {
      index = this.#settings.size;
      this.#settings.set(settings, index);
      this.send({ type: "defineSettings", index, settings });
    }
    return index;
  }

  /** A task could not be submitted. */
  #failPending(handle: number, error: RaydError): void {
    const pending = this.#pending.get(handle);
    this.#pending.delete(handle);
    const outcome: Outcome = { kind: "error", bytes: packErrorOf(error) };
    if (pending instanceof StreamState) {
      pending.ended = true;
      pending.failure = outcome.bytes;
      pending.notify();
    } else if (Array.isArray(pending)) {
      pending.forEach((entry) => this.#references.resolve(entry, false, outcome));
    } else if (pending !== undefined) this.#references.resolve(pending, false, outcome);
  }

  /** Cancels a task. */
  cancel(task: TaskId, force: boolean, recursive: boolean): void {
    this.#check();
    this.#request({ type: "cancel", task, force, recursive });
  }

  // --- Putting ------------------------------------------------------------------------------------------------

  /** Puts a value. @throws {SerializationError} If it cannot be carried. */
  async put(value: unknown): Promise<Ref<unknown>> {
    this.#check();
    const scope = this.#options.scope();
    if (value instanceof Ref) {
      throw new UsageError("Cannot put a Ref: it is a reference to an object already");
    }
    if (this.#large.isAllocated(value)) return this.#large.sealAllocated(value);
    const id = nextPut(scope);
    const { packet, contains } = this.#references.pack(value, "value");
    await this.#large.put(id, packet);
    return this.#references.refOfPut(id, { kind: "stored", size: packet.size, contains });
  }

  /** Puts a small value without waiting; `undefined` when it must go to the store. */
  putSmall(value: unknown): Ref<unknown> | undefined {
    this.#check();
    if (value instanceof Ref || this.#large.isAllocated(value)) return undefined;
    const { packet, contains } = this.#references.pack(value, "value");
    if (packet.size > INLINE_BYTES_MAX) return undefined;
    const id = nextPut(this.#options.scope());
    return this.#references.refOfPut(id, { kind: "inline", bytes: packet.toBytes(), contains });
  }

  /** Packs a value, and stores it if it is large: at once where there is room. */
  outcomeNow(id: ObjectId, value: unknown, root: string): Outcome | Promise<Outcome> {
    const { packet, contains } = this.#references.pack(value, root);
    const size = packet.size;
    if (size <= INLINE_BYTES_MAX) return { kind: "inline", bytes: packet.toBytes(), contains };
    this.turnover.add(size);
    if (this.#large.storeNow(id, packet)) return { kind: "stored", size, contains };
    return this.#large.store(id, packet, root).then(() => ({ kind: "stored", size, contains }));
  }

  /**
   * A typed array in the store, to be filled and then put without a copy.
   *
   * @param anew It is of this run of the caller alone: a caller that is run again makes another one.
   */
  async allocateArray<A extends ArrayBufferView>(
    type: ArrayType<A>,
    length: number,
    anew = false,
  ): Promise<A> {
    this.#check();
    const scope = this.#options.scope();
    await this.ready;
    const id = anew ? putId(this.#ownChild(scope), 0) : nextPut(scope);
    return await this.#large.allocate(type, length, id);
  }

  // --- Getting ------------------------------------------------------------------------------------------------

  /** Whether all objects exist. */
  allReady(entries: readonly Entry[]): boolean {
    for (let i = 0; i < entries.length; i++) if (entries[i]!.outcome === undefined) return false;
    return true;
  }

  /**
   * The value of an object that is known here and needs no waiting; `undefined` if it does.
   *
   * @param reader Who reads it, where that is not the work that is being done.
   */
  valueNow(entry: Entry, reader?: Scope): { readonly value: unknown } | undefined {
    const { outcome } = entry;
    if (outcome === undefined) return undefined;
    if (outcome.kind === "inline") return { value: this.unpack(outcome.bytes) };
    if (outcome.kind === "error") throw errorFromRecord(this.readError(outcome.bytes));
    this.#check();
    return this.#large.read(entry.id, () => reader ?? this.#options.scope());
  }

  /** What lies in the store, in place; `undefined` if it is not in memory. */
  view(id: ObjectId): StoredView | undefined {
    return this.#large.view(id);
  }

  /** Keeps objects alive while `job` runs, whatever becomes of their Refs. */
  holding<T>(entries: readonly Entry[], job: () => Promise<T>): Promise<T> {
    return this.#references.holding(entries, job);
  }

  /**
   * The value of an object, waited for.
   *
   * @param deadline When to give up, by the clock. @param reader As of {@link valueNow}.
   */
  value(entry: Entry, deadline: number, reader?: Scope): Promise<unknown> {
    return this.holding([entry], async () => {
      for (;;) {
        const now = this.valueNow(entry, reader);
        if (now !== undefined) return now.value;
        if (entry.outcome?.kind === "stored") {
          // It is not in memory: it was spilled. Asking brings it back.
          entry.outcome = undefined;
          entry.promised = false;
        }
        await this.waitFor([entry], deadline);
      }
    });
  }

  /** Waits until all objects exist. @throws {GetTimeoutError} At the deadline. */
  async waitFor(entries: readonly Entry[], deadline: number): Promise<void> {
    this.#check();
    const { clock } = this.#options;
    let missing = 0;
    const { promise, resolve } = Promise.withResolvers<"ready" | "late">();
    for (const entry of entries) {
      if (entry.outcome !== undefined) continue;
      missing++;
      this.#want(entry);
      (entry.waiters ??= []).push(() => {
        if (--missing === 0 || this.ended !== undefined) resolve("ready");
      });
    }
    if (missing === 0) return;
    const cancel = deadline === Infinity
      ? undefined
      : clock.after(deadline - clock.now(), () => resolve("late"));
    const result = await this.#blocking(promise, deadline === Infinity ? entries : undefined);
    cancel?.();
    this.#check();
    if (result === "late") {
      const pending = entries.filter((entry) => entry.outcome === undefined);
      if (pending.length === 0) return;
      throw new GetTimeoutError(
        `${pending.length} of ${entries.length} values did not exist in time: ${named(pending)}. ` +
          `Their tasks go on; get them later, or give a longer timeout`,
      );
    }
  }

  /** Waits until the next messages have arrived, or until the deadline. @returns Whether the deadline has passed. */
  async nextArrival(entries: readonly Entry[], deadline: number): Promise<boolean> {
    this.#check();
    const { clock } = this.#options;
    if (clock.now() >= deadline) return true;
    for (const entry of entries) if (entry.outcome === undefined) this.#want(entry);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#arrival.push(() => resolve(false));
    const cancel = deadline === Infinity
      ? undefined
      : clock.after(deadline - clock.now(), () => resolve(true));
    const late = await this.#blocking(promise);
    cancel?.();
    this.#check();
    return late;
  }

  /** Waits for something that the node will send; the task lends its CPUs meanwhile. */
  async #blocking<T>(promise: Promise<T>, objects?: readonly Entry[]): Promise<T> {
    const scope = this.#options.scope();
    if (scope.waits++ === 0) scope.blocked?.(scope.calls ? objects : undefined);
    this.#link.waits();
    this.flush();
    this.turnover.look();
    try {
      return await promise;
    } finally {
      if (--scope.waits === 0) scope.unblocked?.();
      this.#link.goesOn();
    }
  }

  /** Asks for an object that the node does not tell of by itself. */
  #want(entry: Entry): void {
    if (entry.promised) return;
    const known = this.#wanted.get(entry.id);
    if (known === entry) return;
    if (known !== undefined) (known.waiters ??= []).push(() => known.outcome && entry.resolve(known.outcome));
    else this.#wanted.set(entry.id, entry);
    this.send({ type: "subscribe", objects: [entry.id] });
  }

  /** A value from its bytes, which are copied. */
  unpack(bytes: Uint8Array): unknown {
    return this.#references.unpack(bytes);
  }

  /** The arguments of a task. @param resolved The values of those that were Refs. */
  unpackArguments(bytes: Uint8Array, resolved: readonly unknown[], share?: UnpackShare): unknown[] {
    return this.#references.unpackArguments(bytes, resolved, share);
  }

  /** An error from its bytes. */
  readError(bytes: Uint8Array): ErrorRecord {
    return this.unpack(bytes) as ErrorRecord;
  }

  // --- Streams ------------------------------------------------------------------------------------------------

  #streamDropped(state: StreamState): void {
    if (!state.ended && this.ended === undefined) this.cancel(state.task, true, true);
    for (const entry of state.arrived) this.#references.letGo(entry);
  }

  readonly #streamSource = {
    ref: (entry: Entry) => {
      const ref = this.#references.makeRef(entry);
      entry.holds--;
      return ref;
    },
    drop: (entries: readonly Entry[]) => entries.forEach((entry) => this.#references.letGo(entry)),
    consumed: (task: TaskId, count: number) => this.#request({ type: "consumed", task, count }),
    cancel: (task: TaskId) => this.ended === undefined && this.cancel(task, true, true),
    error: (bytes: Uint8Array) => this.readError(bytes),
    wait: async (register: (ready: () => void) => void) => {
      this.#check();
      await this.#blocking(new Promise<void>((resolve) => register(resolve)));
      this.#check();
    },
  };

  // --- Questions ----------------------------------------------------------------------------------------------

  /** Asks the node. */
  async ask(topic: Topic): Promise<unknown> {
    return this.unpack(await this.#link.ask((request) => ({ type: "ask", request, topic })));
  }

  // --- Messages -----------------------------------------------------------------------------------------------

  #message(message: FromNode): void {
    switch (message.type) {
      case "result":
        return this.#result(message);
      case "object": {
        const entry = this.#wanted.get(message.object);
        this.#wanted.delete(message.object);
        return entry?.resolve(message.outcome);
      }
      case "room":
        return this.#link.answered(message.request, message.error);
      case "answer":
        return this.#link.answered(message.request, message.body);
      case "collect":
        collectGarbage(this.#options.clock).then(() => this.flush());
        return;
      case "welcome":
        return this.#link.welcomed(message.node);
      case "refused":
        return this.end(new DisconnectedError(`The node refused the connection: ${message.reason}`));
      default:
        this.#options.other?.(message);
    }
  }

  #result({ handle, index, kept, outcome }: Extract<FromNode, { type: "result" }>): void {
    const pending = this.#pending.get(handle);
    if (pending === undefined) return;
    if (pending instanceof StreamState) {
      if (index === 0) {
        this.#pending.delete(handle);
        pending.ended = true;
        if (outcome.kind === "error") pending.failure = outcome.bytes;
      } else {
        const entry = new Entry(returnId(pending.task, index), true);
        entry.holds = 1; // the stream's, until a Ref is made of it
        this.#references.resolve(entry, kept, outcome);
        if (pending.ended) this.#references.letGo(entry);
        else pending.arrived.push(entry);
      }
      return pending.notify();
    }
    if (!Array.isArray(pending)) {
      this.#pending.delete(handle);
      return this.#references.resolve(pending, kept, outcome);
    }
    if (pending[index] !== undefined) this.#references.resolve(pending[index], kept, outcome);
    if (pending.every((entry) => entry.outcome !== undefined)) this.#pending.delete(handle);
  }

  #drained(): void {
    if (this.#arrival.length > 0) { for (const wake of this.#arrival.splice(0)) wake(); }
    this.#options.drained?.();
  }

  #check(): void {
    this.#link.check();
  }
}

/** An error's bytes, as outcomes carry them. */
export function packErrorOf(error: unknown): Uint8Array {
  const record = error instanceof RaydError ? error : new ProtocolError(String(error));
  return pack({ code: record.code, message: record.message }).toBytes().slice();
}

/** Some objects, for an error: each by the task that makes it. */
function named(entries: readonly Entry[]): string {
  const names = entries.slice(0, NAMED_MAX).map(({ id, task }) =>
    task === undefined ? `object ${hex(id, true)}` : `that of task ${task} (${hex(taskOf(id))})`
  );
  return entries.length > NAMED_MAX
    ? `${names.join(", ")} and ${entries.length - NAMED_MAX} more`
    : names.join(", ");
}

/** Objects that an error names. */
const NAMED_MAX = 3;

const NO_NODE = "\0\0\0\0";
