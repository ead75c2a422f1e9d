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

import { assert } from "../core/assert.ts";
import type { Clock } from "../core/clock.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import {
  DisconnectedError,
  errorFromRecord,
  type ErrorRecord,
  GetTimeoutError,
  ProtocolError,
  RaydError,
  SerializationError,
  StoreFullError,
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
  TASK_ID_BYTES,
  type TaskId,
  taskOf,
} from "../core/ids.ts";
import { INLINE_BYTES_MAX, ROOM_DEADLINE_MS } from "../core/limits.ts";
import {
  type FoundActor,
  type FromNode,
  type FunctionAddress,
  type Outcome,
  PROTOCOL_VERSION,
  type ToNode,
  type Topic,
} from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import { VERSION } from "../core/version.ts";
import type { ObjectStore, StoredView } from "../store/object_store.ts";
import { pack, type Packet, type PackExtension, unpack, type UnpackExtension } from "../store/serialize.ts";
import { Channel } from "../transport/channel.ts";
import { decodeFromNode } from "../transport/codec.ts";
import { collectGarbage, collectionMs, collectYoung, collectYoungNow } from "./collect.ts";
import { entryOfHandle, Handle, makeHandle, packedHandle } from "./handle.ts";
import { Entry, entryOf, Ref } from "./ref.ts";
import type { Published } from "./registry.ts";
import { RefStream, StreamState } from "./stream.ts";
import { Turnover } from "./turnover.ts";

/** Whose work is being done: the driver itself, or a task. Gives children their ids. */
export interface Scope {
  readonly task: TaskId;
  /** Made when the first child is. */
  children: ChildIds | undefined;
  /** Of children that belong to this run of the work alone; made when the first one is. */
  ownChildren: ChildIds | undefined;
  puts: number;
  /** It has called an actor, or is a call itself: the node wants to know what it waits for. */
  calls: boolean;
  /** Waits under way, and what tells the node that the task waits and goes on. */
  waits: number;
  /** Told of the objects that it waits for, if it waits for all of them. */
  readonly blocked: ((objects?: readonly Entry[]) => void) | undefined;
  readonly unblocked: (() => void) | undefined;
  /** What check mode saw of objects that the task read. */
  reads?: { id: ObjectId; hash: bigint; bytes: Uint8Array<ArrayBuffer>; release(): void }[];
}

/** Makes a scope. */
export function scopeOf(
  task: TaskId,
  blocked?: (objects?: readonly Entry[]) => void,
  unblocked?: () => void,
): Scope {
  return {
    task,
    children: undefined,
    ownChildren: undefined,
    puts: 0,
    waits: 0,
    calls: false,
    blocked,
    unblocked,
  };
}

/** How a client reaches its node. */
export interface Connection {
  readonly conn: Deno.Conn;
  readonly token: string;
  readonly store: ObjectStore;
  /** Code to publish before anything else, named by its hash. */
  readonly code?: readonly Published[];
}

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

const TAG_REF = 1;
const TAG_ARGUMENT = 2;
const TAG_ACTOR = 3;

/** Stands in packed arguments for a Ref that is resolved before the task starts. */
class Argument {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
}

/** One program's connection to a node. */
export class Client {
  readonly #options: ClientOptions;
  #channel: Channel<ToNode, FromNode> | undefined;
  #connection: Connection | undefined;
  /** What was sent before the connection was up. */
  #early: ToNode[] = [];
  readonly #welcomed = Promise.withResolvers<void>();
  #ended: RaydError | undefined;
  /** The node's id, once it has said welcome. */
  node: TaskId | undefined;

  readonly #functions = new Map<string, number>();
  /** The same by the address itself, which is faster to look up. */
  readonly #functionsByAddress = new WeakMap<FunctionAddress, number>();
  readonly #settings = new Map<TaskSettings, number>();
  readonly #actors = new Map<ActorSettings, number>();
  /** Calls of actors that wait for their arguments to be stored: the last one of each. */
  readonly #lines = new Map<Entry, Promise<void>>();
  readonly #pending = new Map<number, Entry | Entry[] | StreamState>();
  readonly #wanted = new Map<ObjectId, Entry>();
  readonly #questions = new Map<number, (answer: Uint8Array) => void>();
  #nextHandle = 0;
  #nextQuestion = 0;
  #runs = 0;

  readonly #finalizer = new FinalizationRegistry<Entry>((entry) => this.#letGo(entry));
  readonly #streams = new FinalizationRegistry<StreamState>((state) => this.#streamDropped(state));
  readonly #released: ObjectId[] = [];
  /** Waits of any kind that are under way. */
  #waiting = 0;
  /** Called after each block of messages, once: for waits on many Refs. */
  #arrival: (() => void)[] = [];
  /** Bytes of the store let go since the last collection, and what collections were good for. */
  #letGoBytes = 0;
  #fruitless = 0;
  #collectsToSkip = 0;
  /** Bytes put since it was last seen to that memory is used again. */
  #putBytes = 0;
  /** Large values that come and go here; looked at when what was done has been sent. */
  readonly turnover: Turnover;
  #keepsFreed = false;
  /** Bytes of views from which on it is looked for ones that nobody uses. */
  #viewBytesMax = VIEW_BYTES_MIN;

  /** The Refs and arguments of a value being packed; one value at a time, packing being synchronous. */
  #contains: ObjectId[] = [];
  readonly #packing: PackExtension = {
    pack: (value) => {
      if (value instanceof Ref) {
        const entry = entryOf(value);
        const { id } = entry;
        this.#share(entry);
        this.#contains.push(id);
        return { tag: TAG_REF, data: id };
      }
      if (value instanceof Argument) return { tag: TAG_ARGUMENT, data: value.index };
      if (value instanceof Handle) {
        const entry = entryOfHandle(value);
        this.#share(entry);
        this.#contains.push(entry.id);
        return { tag: TAG_ACTOR, data: packedHandle(value) };
      }
      if (value instanceof RefStream) {
        throw new SerializationError("Cannot pass a stream to a task: pass the Refs that it gives", {
          path: "value",
        });
      }
      return undefined;
    },
  };
  readonly #unpacking: UnpackExtension = { unpack: (tag, data) => this.#unpackHandle(tag, data, undefined) };

  /** @param options What the client is made of. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.turnover = new Turnover(options.clock, () => this.#collectTurnover());
    this.#welcomed.promise.catch(() => {});
  }

  /** Why the client cannot be used any more. */
  get ended(): RaydError | undefined {
    return this.#ended;
  }

  /** The node's object store. */
  get store(): ObjectStore {
    assert(this.#connection !== undefined, "the store is used before the connection is up");
    return this.#connection.store;
  }

  /** Connects. Resolves when the node has said welcome. @param connection The way there. */
  connect(connection: Connection): Promise<void> {
    const { role, isolate, job, flush } = this.#options;
    this.#connection = connection;
    this.#channel = new Channel(connection.conn as Deno.UnixConn, decodeFromNode, flush);
    this.#channel.start({
      message: (message) => this.#message(message),
      drained: () => this.#drained(),
      closed: (error) => this.end(error ?? new DisconnectedError("The node closed the connection")),
    });
    this.#channel.send({
      type: "hello",
      role,
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      token: connection.token,
      isolate,
      job,
      storeClient: connection.store.client,
      pid: Deno.pid,
    });
    if (connection.code !== undefined) {
      for (const { hash, bytes } of connection.code) {
        this.#channel.send({ type: "publish", hash, code: bytes });
      }
    }
    for (const message of this.#early) this.#channel.send(message);
    this.#early = [];
    this.#channel.flush();
    this.#updateKeepAlive();
    return this.#welcomed.promise;
  }

  /** Resolves when the node is up. */
  get ready(): Promise<void> {
    return this.#welcomed.promise;
  }

  /** Sends a message, or keeps it until there is a connection. */
  send(message: ToNode): void {
    if (this.#channel !== undefined) this.#channel.send(message);
    else this.#early.push(message);
  }

  /** Writes out what was sent. */
  flush(): void {
    this.#channel?.flush();
  }

  /** Gives views of the store that nobody refers to any more a chance to be collected, before the store is closed. */
  async settleViews(): Promise<void> {
    for (let i = 0; i < SETTLE_ROUNDS_MAX && (this.#connection?.store.pinnedViews ?? 0) > 0; i++) {
      await collectGarbage(this.#options.clock);
    }
  }

  /** Ends the client: whatever waits, fails. @param error Why. */
  end(error: RaydError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#channel?.close();
    this.#connection?.store.close();
    this.#welcomed.reject(error);
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
    for (const answer of this.#questions.values()) answer(NO_BYTES);
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
    const { packet, contains, dependencies } = this.#packArguments(args);
    const task = anew ? this.#ownChild(scope) : (scope.children ??= new ChildIds(scope.task)).next();
    const handle = this.#nextHandle++;
    const fn = this.#defineFunction(target.address);
    const settingsIndex = this.#defineSettings(settings);
    const parent = scope.task;
    const submit = (outcome: Outcome) => {
      if (actor === undefined) {
        const settings = settingsIndex;
        this.send({ type: "submit", handle, task, parent, fn, settings, dependencies, args: outcome });
        return;
      }
      const settings = settingsIndex, id = taskOf(actor.id);
      this.send({ type: "call", handle, task, parent, actor: id, fn, settings, dependencies, args: outcome });
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
      return this.#makeRef(entry);
    }
    const entries = Array.from({ length: settings.returns }, (_, i) => new Entry(returnId(task, i), true));
    for (const entry of entries) entry.task = settings.name;
    this.#pending.set(handle, entries);
    return entries.map((entry) => this.#makeRef(entry));
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
      : this.#storePacket(argumentsId(task), packet, "its arguments").then((): Outcome => (
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
      this.#letGo(actor);
      this.flush();
    });
    if (actor !== undefined) this.#lines.set(actor, sent);
  }

  // --- Actors -------------------------------------------------------------------------------------------------

  /** The id of the next child of the work that is being done. */
  nextChild(): TaskId {
    this.#check();
    const scope = this.#options.scope();
    return (scope.children ??= new ChildIds(scope.task)).next();
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
    const { packet, contains, dependencies } = this.#packArguments(args);
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
      this.send({
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
    entry.holds++;
    this.#finalizer.register(handle, entry, handle);
  }

  /** A handle is let go of before it is collected. */
  disown(handle: object, entry: Entry): void {
    this.#finalizer.unregister(handle);
    this.#letGo(entry);
  }

  /** Ends an actor, or has it begin anew. */
  killActor(entry: Entry, restart: boolean): void {
    this.#check();
    this.send({ type: "killActor", actor: taskOf(entry.id), restart });
  }

  /** Asks who has a name. */
  async findActor(namespace: string, name: string): Promise<FoundActor | null> {
    this.#check();
    await this.ready;
    const request = this.#nextQuestion++;
    this.send({ type: "findActor", request, namespace, name });
    this.flush();
    const body = await this.#answer(request);
    this.#check();
    return this.unpack(body) as FoundActor | null;
  }

  /** Asks the node about a placement group. Without an answer within `timeoutMs`, resolves with nothing. */
  async askGroup(message: GroupRequest, timeoutMs = Infinity): Promise<GroupAnswer | undefined> {
    this.#check();
    await this.ready;
    const request = this.#nextQuestion++;
    this.send({ type: "group", request, body: writeGroupMessage(message) });
    this.flush();
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const cancel = timeoutMs === Infinity
      ? undefined
      : this.#options.clock.after(timeoutMs, () => resolve(undefined));
    const body = await this.#blocking(Promise.race([this.#answer(request), late]));
    cancel?.();
    this.#check();
    return body === undefined ? undefined : readGroupAnswer(body);
  }

  /** Asks the node about the key-value table. */
  async askKeyValues(message: KeyValueRequest): Promise<Exclude<KeyValueAnswer, { kind: "failed" }>> {
    this.#check();
    await this.ready;
    const request = this.tellKeyValues(message);
    const answering = this.#answer(request);
    const body = await (message.kind === "changes" ? this.#blocking(answering) : answering);
    this.#check();
    const answer = readKeyValueAnswer(body);
    if (answer.kind === "failed") throw errorFromRecord(this.readError(answer.error));
    return answer;
  }

  /** Tells the node something about it that is not answered. @returns The request's number. */
  tellKeyValues(message: KeyValueRequest): number {
    const request = this.#nextQuestion++;
    this.send({ type: "keyValue", request, body: writeKeyValueRequest(message) });
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
      const request = this.#nextQuestion++;
      this.send({ type: "awaitDeath", request, actor: taskOf(entry.id) });
      const body = await this.#blocking(this.#answer(request));
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
    const request = this.#nextQuestion++;
    this.#questions.set(request, () => {
      this.#questions.delete(request);
      dead();
    });
    this.send({ type: "awaitDeath", request, actor });
    this.flush();
  }

  #packArguments(
    args: readonly unknown[],
  ): { packet: Packet; contains: ObjectId[]; dependencies: ObjectId[] } {
    let dependencies: ObjectId[] = NO_OBJECTS;
    let values = args;
    for (let i = 0; i < args.length; i++) {
      const arg = args[i];
      if (!(arg instanceof Ref)) continue;
      if (dependencies === NO_OBJECTS) {
        dependencies = [];
        values = args.slice();
      }
      (values as unknown[])[i] = new Argument(dependencies.length);
      this.#share(entryOf(arg));
      dependencies.push(entryOf(arg).id);
    }
    const { packet, contains } = this.#pack(values, "args");
    return { packet, contains, dependencies };
  }

  /** Lets the node know of an object that is this program's own, before others are told of it. */
  #share(entry: Entry): void {
    if (entry.registered || entry.expected) return;
    if (entry.outcome === undefined) {
      entry.expected = true;
      this.send({ type: "expect", objects: [entry.id] });
    } else this.#register(entry, entry.outcome);
  }

  #register(entry: Entry, outcome: Outcome): void {
    entry.registered = true;
    this.send({ type: "put", object: entry.id, outcome });
  }

  /** A value as bytes, and the objects that it holds Refs of. */
  packValue(value: unknown): { packet: Packet; contains: readonly ObjectId[] } {
    return this.#pack(value, "value");
  }

  #pack(value: unknown, root: string): { packet: Packet; contains: ObjectId[] } {
    if (this.#contains.length > 0) this.#contains = [];
    const packet = pack(value, { extension: this.#packing, root });
    const contains = this.#contains.length === 0 ? NO_OBJECTS : [...new Set(this.#contains)];
    return { packet, contains };
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
    } else if (Array.isArray(pending)) pending.forEach((entry) => this.#resolve(entry, false, outcome));
    else if (pending !== undefined) this.#resolve(pending, false, outcome);
  }

  /** Cancels a task. */
  cancel(task: TaskId, force: boolean, recursive: boolean): void {
    this.#check();
    this.send({ type: "cancel", task, force, recursive });
  }

  // --- Putting ------------------------------------------------------------------------------------------------

  /** Puts a value. @throws {SerializationError} If it cannot be carried. */
  async put(value: unknown): Promise<Ref<unknown>> {
    this.#check();
    const scope = this.#options.scope();
    if (value instanceof Ref) {
      throw new UsageError("Cannot put a Ref: it is a reference to an object already");
    }
    const allocated = allocations.get(value as object);
    const id = allocated?.id ?? putId(scope.task, scope.puts++);
    if (allocated !== undefined) return this.#sealAllocated(value as object, allocated);
    const { packet, contains } = this.#pack(value, "value");
    await this.ready;
    await this.#reuseMemory(packet.size);
    // The caller waits, so the value is not going to change meanwhile.
    await this.#withRoom(packet.size, "a value", () => this.#storeNow(id, packet));
    return this.#putOutcome(id, { kind: "stored", size: packet.size, contains });
  }

  /**
   * Before a large object goes to memory that was never used: collects garbage, if enough was put lately that there may
   * be some. Memory that is used again takes a copy ten times as fast as memory that must be faulted in.
   */
  async #reuseMemory(size: number): Promise<void> {
    this.#putBytes += size;
    if (this.#putBytes < Math.max(REUSE_BYTES_MIN, 4 * size)) return;
    if (this.#putBytes < collectionMs() * COLD_BYTES_PER_MS) return; // it would cost more than it saves
    const { used, touched } = this.store.stats();
    if (touched - used >= size) return;
    this.#putBytes = 0;
    if (await this.#collect(size)) await this.ask("stats"); // by when the node has taken notice
  }

  /** Puts a small value without waiting; `undefined` when it must go to the store. */
  putSmall(value: unknown): Ref<unknown> | undefined {
    this.#check();
    if (typeof value === "object" && value !== null && (value instanceof Ref || allocations.has(value))) {
      return undefined;
    }
    const { packet, contains } = this.#pack(value, "value");
    if (packet.size > INLINE_BYTES_MAX) return undefined;
    const scope = this.#options.scope();
    return this.#putOutcome(putId(scope.task, scope.puts++), {
      kind: "inline",
      bytes: packet.toBytes(),
      contains,
    });
  }

  #putOutcome(id: ObjectId, outcome: Outcome): Ref<unknown> {
    const entry = new Entry(id, true);
    entry.outcome = outcome;
    if (outcome.kind === "stored" || outcome.kind === "inline" && outcome.contains.length > 0) {
      this.#register(entry, outcome);
    }
    return this.#makeRef(entry);
  }

  /** Packs a value, and stores it if it is large: at once where there is room. */
  outcomeNow(id: ObjectId, value: unknown, root: string): Outcome | Promise<Outcome> {
    const { packet, contains } = this.#pack(value, root);
    const size = packet.size;
    if (size <= INLINE_BYTES_MAX) return { kind: "inline", bytes: packet.toBytes(), contains };
    this.turnover.add(size);
    if (this.#connection !== undefined && this.#storeNow(id, packet)) {
      return { kind: "stored", size, contains };
    }
    return this.#storePacket(id, packet, root).then(() => ({ kind: "stored", size, contains }));
  }

  /** Writes a packet into the store if there is room. */
  #storeNow(id: ObjectId, packet: Packet): boolean {
    const { store } = this;
    const target = store.create(id, packet.size);
    if (target === "full") return false;
    if (target === "exists") return true; // an earlier run of this task made it, whole: the first one wins
    try {
      packet.writeInto(target, store.copy);
    } catch (error) {
      store.abort(id);
      throw error;
    }
    store.seal(id);
    return true;
  }

  /** Writes a packet into the store, waiting for room. */
  async #storePacket(id: ObjectId, packet: Packet, what: string): Promise<void> {
    if (this.#connection !== undefined && this.#storeNow(id, packet)) return;
    // The value may change while we wait, so its bytes are taken now.
    const bytes = packet.toBytes().slice();
    await this.ready;
    const copy = {
      ...packet,
      size: bytes.length,
      writeInto: (target: Uint8Array) => this.store.copy(target, bytes),
    };
    await this.#withRoom(bytes.length, what, () => this.#storeNow(id, copy));
  }

  /** Tries until there is room. */
  async #withRoom(bytes: number, what: string, attempt: () => boolean): Promise<void> {
    const deadline = this.#options.clock.now() + ROOM_DEADLINE_MS * 2;
    while (!attempt()) {
      this.#check();
      if (await this.#collect(bytes)) {
        await this.ask("stats"); // by when the node has freed what was let go
        if (attempt()) return;
      }
      const request = this.#nextQuestion++;
      this.send({ type: "makeRoom", request, bytes });
      this.flush();
      const error = await this.#answer(request);
      this.#check();
      if (error.length > 0) throw errorFromRecord(this.readError(error));
      if (this.#options.clock.now() > deadline) {
        throw new StoreFullError(
          `Cannot store ${bytes} bytes of ${what}: other programs take all room that is made`,
        );
      }
    }
  }

  /**
   * A typed array in the store, to be filled and then put without a copy.
   *
   * @param anew It is of this run of the caller alone: a caller that is run again makes another one.
   */
  async allocateArray<A extends ArrayBufferView>(
    type: {
      new (buffer: ArrayBuffer, byteOffset: number, length: number): A;
      readonly BYTES_PER_ELEMENT: number;
    },
    length: number,
    anew = false,
  ): Promise<A> {
    this.#check();
    const scope = this.#options.scope();
    await this.ready;
    const bytes = length * type.BYTES_PER_ELEMENT;
    if (bytes > this.store.capacity) {
      throw new StoreFullError(
        `Cannot allocate ${length} elements: they take ${bytes} bytes, and the whole store has ${this.store.capacity}`,
      );
    }
    const id = anew ? putId(this.#ownChild(scope), 0) : putId(scope.task, scope.puts++);
    // The packet around the array is written first: what it is packed as does not depend on its elements.
    const packet = pack(new type(new ArrayBuffer(length * type.BYTES_PER_ELEMENT), 0, length));
    let array: A | undefined;
    await this.#withRoom(packet.size, "an allocation", () => {
      const target = this.store.create(id, packet.size);
      if (target === "full") return false;
      if (target === "exists") {
        // An earlier run of this task has put it, whole: the first one wins, and what is written now is nobody's.
        array = new type(new ArrayBuffer(length * type.BYTES_PER_ELEMENT), 0, length);
        allocations.set(array, { id, size: packet.size, put: true });
        return true;
      }
      packet.writeInto(target, () => {});
      const { buffer, byteOffset } = unpack(target, { share: true }) as A;
      if (buffer !== target.buffer) {
        this.store.abort(id); // a small one lies in the packet's head, where it cannot be written in place
        array = new type(new ArrayBuffer(length * type.BYTES_PER_ELEMENT), 0, length);
      } else {
        array = new type(target.buffer, byteOffset, length);
        allocations.set(array, { id, size: packet.size });
      }
      return true;
    });
    return array!;
  }

  #sealAllocated(value: object, { id, size, put }: Allocation): Ref<unknown> {
    allocations.delete(value);
    if (put !== true) this.store.seal(id);
    return this.#putOutcome(id, { kind: "stored", size, contains: NO_OBJECTS });
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
    const view = this.#connection === undefined ? undefined : this.view(entry.id);
    if (view === undefined) return undefined;
    if (this.store.pinnedBytes > this.#viewBytesMax) this.#collectViews();
    try {
      return { value: unpack(view.bytes, { extension: this.#unpacking, share: view.share }) };
    } finally {
      const scope = CHECK_IMMUTABLE ? reader ?? this.#options.scope() : undefined;
      if (scope?.blocked === undefined) view.release();
      else {
        scope.reads ??= [];
        scope.reads.push({
          id: entry.id,
          hash: this.store.hash(view.bytes),
          bytes: view.bytes,
          release: view.release,
        });
      }
    }
  }

  /** What lies in the store, in place; `undefined` if it is not in memory. */
  view(id: ObjectId): StoredView | undefined {
    const pinned = this.store.pinnedBytes;
    const view = this.store.get(id);
    this.turnover.add(this.store.pinnedBytes - pinned);
    return view;
  }

  /** Large values come and go here: memory of those that are gone is for the next ones. */
  #collectTurnover(): void {
    if (!this.#keepsFreed && this.#connection !== undefined) {
      this.#keepsFreed = true;
      this.store.keepFreed();
    }
    collectYoungNow();
  }

  /** Keeps objects alive while `job` runs, whatever becomes of their Refs. */
  async holding<T>(entries: readonly Entry[], job: () => Promise<T>): Promise<T> {
    for (const entry of entries) entry.holds++;
    try {
      return await job();
    } finally {
      for (const entry of entries) this.#letGo(entry);
    }
  }

  /**
   * Looks for views that nobody uses, in the background: their memory is warm, and what is stored next takes a copy
   * ten times as fast there as in memory that must be faulted in. As with a heap, the more is found to be in use, the
   * longer it takes to the next look.
   */
  async #collectViews(): Promise<void> {
    this.#viewBytesMax = Infinity;
    await collectYoung(this.#options.clock);
    if (this.#ended !== undefined) return;
    if (this.store.pinnedBytes <= VIEW_BYTES_MIN / 2) {
      this.#viewBytesMax = VIEW_BYTES_MIN;
      return this.flush();
    }
    await collectGarbage(this.#options.clock);
    if (this.#ended !== undefined) return;
    this.#viewBytesMax = Math.max(
      VIEW_BYTES_MIN,
      2 * this.store.pinnedBytes,
      this.store.pinnedBytes + collectionMs() * COLD_BYTES_PER_MS,
    );
    this.flush();
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
        if (--missing === 0 || this.#ended !== undefined) resolve("ready");
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
    if (++this.#waiting === 1) this.#updateKeepAlive();
    this.flush();
    this.turnover.look();
    try {
      return await promise;
    } finally {
      if (--scope.waits === 0) scope.unblocked?.();
      if (--this.#waiting === 0) this.#updateKeepAlive();
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
    return unpack(bytes, { extension: this.#unpacking });
  }

  /** The arguments of a task. @param resolved The values of those that were Refs. */
  unpackArguments(bytes: Uint8Array, resolved: readonly unknown[], share?: UnpackShare): unknown[] {
    const extension: UnpackExtension = { unpack: (tag, data) => this.#unpackHandle(tag, data, resolved) };
    const args = unpack(bytes, { extension, ...(share === undefined ? {} : { share }) });
    if (!Array.isArray(args)) {
      throw new ProtocolError("Cannot read a task's arguments: they are not an array");
    }
    return args;
  }

  /** An error from its bytes. */
  readError(bytes: Uint8Array): ErrorRecord {
    return this.unpack(bytes) as ErrorRecord;
  }

  #unpackHandle(
    tag: number,
    data: Uint8Array | string | number,
    resolved: readonly unknown[] | undefined,
  ): unknown {
    if (tag === TAG_REF && typeof data === "string" && (data.length === 16 || data.length === 20)) {
      const entry = new Entry(data as ObjectId, false);
      this.send({ type: "retain", objects: [entry.id] });
      return this.#makeRef(entry);
    }
    if (tag === TAG_ACTOR && typeof data === "string" && data.length > TASK_ID_BYTES) {
      const entry = new Entry(data.slice(0, TASK_ID_BYTES) as ObjectId, false);
      this.send({ type: "retain", objects: [entry.id] });
      return makeHandle(this, data.slice(TASK_ID_BYTES), entry);
    }
    if (
      tag === TAG_ARGUMENT && typeof data === "number" && resolved !== undefined && data < resolved.length
    ) {
      return resolved[data];
    }
    throw new ProtocolError(
      `Cannot read a value: it holds something of kind ${tag} that does not belong there`,
    );
  }

  // --- References ---------------------------------------------------------------------------------------------

  #makeRef(entry: Entry): Ref<unknown> {
    entry.holds++;
    const ref = new Ref<unknown>(entry);
    this.#finalizer.register(ref, entry);
    return ref;
  }

  /** One Ref or wait fewer needs the object. */
  #letGo(entry: Entry): void {
    if (--entry.holds > 0 || !entry.registered || this.#ended !== undefined) return;
    if (entry.outcome?.kind === "stored") this.#letGoBytes += entry.outcome.size;
    if (this.#released.push(entry.id) > 1) return;
    queueMicrotask(() => {
      if (this.#ended !== undefined) return;
      this.send({ type: "release", objects: this.#released });
      this.#released.length = 0;
      this.flush();
    });
  }

  #streamDropped(state: StreamState): void {
    if (!state.ended && this.#ended === undefined) this.cancel(state.task, true, true);
    for (const entry of state.arrived) this.#letGo(entry);
  }

  readonly #streamSource = {
    ref: (entry: Entry) => {
      const ref = this.#makeRef(entry);
      entry.holds--;
      return ref;
    },
    drop: (entries: readonly Entry[]) => entries.forEach((entry) => this.#letGo(entry)),
    consumed: (task: TaskId, count: number) => this.send({ type: "consumed", task, count }),
    cancel: (task: TaskId) => this.#ended === undefined && this.cancel(task, true, true),
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
    this.#check();
    await this.ready;
    const request = this.#nextQuestion++;
    this.send({ type: "ask", request, topic });
    this.flush();
    const body = await this.#answer(request);
    this.#check();
    return this.unpack(body);
  }

  async #answer(request: number): Promise<Uint8Array> {
    const answer = new Promise<Uint8Array>((resolve) => this.#questions.set(request, resolve));
    if (++this.#waiting === 1) this.#updateKeepAlive();
    try {
      return await answer;
    } finally {
      this.#questions.delete(request);
      if (--this.#waiting === 0) this.#updateKeepAlive();
    }
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
        return this.#questions.get(message.request)?.(message.error);
      case "answer":
        return this.#questions.get(message.request)?.(message.body);
      case "collect":
        collectGarbage(this.#options.clock).then(() => this.flush());
        return;
      case "welcome":
        this.node = message.node;
        return this.#welcomed.resolve();
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
        this.#resolve(entry, kept, outcome);
        if (pending.ended) this.#letGo(entry);
        else pending.arrived.push(entry);
      }
      return pending.notify();
    }
    if (!Array.isArray(pending)) {
      this.#pending.delete(handle);
      return this.#resolve(pending, kept, outcome);
    }
    if (pending[index] !== undefined) this.#resolve(pending[index], kept, outcome);
    if (pending.every((entry) => entry.outcome !== undefined)) this.#pending.delete(handle);
  }

  /** An object that this program made exists. */
  #resolve(entry: Entry, kept: boolean, outcome: Outcome): void {
    if (kept) entry.registered = true;
    else if (entry.expected) this.#register(entry, outcome);
    entry.resolve(outcome);
    if (entry.holds === 0 && entry.registered) {
      entry.holds = 1;
      this.#letGo(entry); // all Refs were gone before it existed
    }
  }

  #drained(): void {
    if (this.#arrival.length > 0) { for (const wake of this.#arrival.splice(0)) wake(); }
    this.#options.drained?.();
  }

  /**
   * Collects garbage so that unused Refs are let go, unless that has been of no use lately.
   *
   * @param bytes How much room is wanted.
   * @returns Whether garbage was collected.
   */
  async #collect(bytes: number): Promise<boolean> {
    if (this.#collectsToSkip > 0) {
      this.#collectsToSkip--;
      return false;
    }
    this.#letGoBytes = 0;
    await collectYoung(this.#options.clock);
    if (this.#letGoBytes < bytes) await collectGarbage(this.#options.clock);
    this.#fruitless = this.#letGoBytes >= bytes ? 0 : Math.min(this.#fruitless + 1, 5);
    this.#collectsToSkip = this.#fruitless === 0 ? 0 : 2 ** this.#fruitless;
    this.flush();
    return true;
  }

  #updateKeepAlive(): void {
    if (!this.#options.keepAlive || this.#connection === undefined || this.#ended !== undefined) return;
    const conn = this.#connection.conn as Deno.UnixConn;
    if (this.#waiting > 0) conn.ref();
    else conn.unref();
  }

  #check(): void {
    if (this.#ended === undefined) return;
    throw new DisconnectedError(this.#ended.message, { cause: this.#ended });
  }
}

/** How shared buffers are made; see `UnpackOptions.share`. */
export type UnpackShare = (offset: number, byteLength: number) => ArrayBuffer;

/** Typed arrays that lie in the store and were not put yet. */
export interface Allocation {
  readonly id: ObjectId;
  readonly size: number;
  /** It was put before, by an earlier run of the task. */
  readonly put?: true;
}

/** All allocations of this isolate that were not put yet. */
export const allocations = new WeakMap<object, Allocation>();

/** Whether what tasks read is checked for changes (`RAYD_CHECK_IMMUTABLE=1`). */
export const CHECK_IMMUTABLE = Deno.env.get("RAYD_CHECK_IMMUTABLE") === "1";

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

/** So much must have been put before it is worth a look for memory to be used again. */
const REUSE_BYTES_MIN = 32 * 1024 * 1024;

/** Views of so many bytes are no reason to look which of them are in use. */
const VIEW_BYTES_MIN = 16 * 1024 * 1024;

/** How fast memory is faulted in (0.3 to 1.1 GB/s were measured). */
const COLD_BYTES_PER_MS = 1e6;

/** How often garbage is collected for views that are still there at the end; the program may be using them. */
const SETTLE_ROUNDS_MAX = 5;

const NO_OBJECTS: ObjectId[] = [];
const NO_NODE = "\0\0\0\0";
const NO_BYTES = new Uint8Array(0);
