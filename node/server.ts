/**
 * The node: the daemon of a machine. It accepts programs and isolates, keeps tasks and objects, and performs what its
 * machines (scheduler, dependencies, directory) decide. It never unpacks a value: arguments and results pass through
 * as bytes.
 *
 * A task's way: *submitted* → (waiting for objects) → ready → sent to an isolate → done. Its outcomes are sealed in
 * the object directory, pushed to whoever submitted it, and whatever waited for them goes on.
 *
 * Whatever a peer sends that is not of the protocol ends that peer's connection, and nothing else.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import type { Clock } from "../core/clock.ts";
import {
  ObjectLostError,
  ProtocolError,
  type RaydError,
  TaskCancelledError,
  TaskTimeoutError,
  UnschedulableError,
  WorkerCrashedError,
} from "../core/errors.ts";
import {
  argumentsId,
  hex,
  indexOf,
  type ObjectId,
  returnId,
  type TaskId,
  taskIdFromHex,
  taskOf,
} from "../core/ids.ts";
import {
  ARGUMENT_BYTES_MAX,
  CLAIM_SLOTS,
  GREETING_BYTES_MAX,
  GREETING_MS_MAX,
  ISOLATE_START_MS_MAX,
  LINEAGE_TASKS_MAX,
  MESSAGE_BYTES_MAX,
  STOP_GRACE_MS,
} from "../core/limits.ts";
import {
  ACTOR_EXECUTIONS,
  CLAIM_QUEUED,
  CLAIM_REVOKED,
  CLAIM_STARTED,
  claimWord,
  CODE,
  type Dependency,
  type FoundActor,
  type FromNode,
  type FromPeer,
  type FunctionAddress,
  type Message,
  type Outcome,
  PROTOCOL_VERSION,
  type ToNode,
} from "../core/messages.ts";
import { creationSettings } from "../core/actor_options.ts";
import { CPU, RESOURCE_UNIT, showDemand, type TaskSettings } from "../core/options.ts";
import { unreachable } from "../core/unreachable.ts";
import { VERSION } from "../core/version.ts";
import { Dependencies } from "../scheduler/dependencies.ts";
import { mayRunOn, type PlacedNode, showPlacement } from "../core/placement.ts";
import type { NodeDescription, NodeLoad } from "../scheduler/global.ts";
import { LocalScheduler, type SchedulerEffect, type SchedulerEvent } from "../scheduler/local.ts";
import { ResourcePool, Shapes } from "../scheduler/resources.ts";
import type { ObjectStore } from "../store/object_store.ts";
import { pack } from "../store/serialize.ts";
import { sameToken } from "../transport/token.ts";
import { type ByteStream, Channel } from "../transport/channel.ts";
import { decodeFromPeer, decodeToNode } from "../transport/codec.ts";
import { ObjectDirectory, type ObjectRecord } from "./directory.ts";
import { CallRecord } from "./actor_records.ts";
import { ActorServer, type ActorServices } from "./actor_server.ts";
import { Cluster } from "./cluster.ts";
import { Lineage } from "./lineage.ts";
import { packError, refersTo } from "./outcomes.ts";
import type { Client, Isolate, IsolateFactory, Outlet, Residents } from "./peers.ts";
import { Spiller } from "./spill.ts";
import {
  type FunctionEntry,
  functionEntry,
  observeDuration,
  type SettingsEntry,
  type Submitted,
  TaskRecord,
} from "./tasks.ts";

/** What a node is made of. */
export interface NodeOptions {
  readonly id: TaskId;
  readonly labels?: Readonly<Record<string, string>>;
  readonly token: string;
  /** Amounts in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly isolates: IsolateFactory;
  /** Isolates that are kept ready. */
  readonly isolatesWarm: number;
  readonly isolatesMax: number;
  /** Where objects are spilled to. */
  readonly spillPath: string;
  /** Told of what an operator should know. */
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
  /** How the node reaches others; absent of one that is alone. */
  readonly abroad?: Abroad;
}

/** What a node in a cluster is given. */
export interface Abroad {
  /** Brings the bytes of an object of `size` bytes from a node into the store. Returns what went wrong. */
  pull(node: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined>;
  /** Whether code was published that is here, and else brings it. */
  hasCode(hash: string): boolean;
  fetchCode(hash: string): Promise<void>;
  /** Takes code from a program. @throws {ProtocolError} If it is not what its name says. */
  publishCode(hash: string, code: Uint8Array): void;
  /** Reserves an actor's name in the cluster. Resolves with whether it was free. */
  reserveName(namespace: string, name: string, actor: FoundActor): Promise<boolean>;
  releaseName(namespace: string, name: string, actor: TaskId): void;
  findName(namespace: string, name: string): Promise<(FoundActor & { readonly node: TaskId }) | undefined>;
}

/** Counters of a node. */
export interface NodeStats {
  readonly done: number;
  readonly failed: number;
  readonly running: number;
  readonly queued: number;
  readonly waiting: number;
  readonly isolates: number;
  /** Actors that are not dead. */
  readonly actors: number;
  readonly objects: number;
  readonly store: { readonly capacity: number; readonly used: number };
  readonly spilled: { readonly bytes: number; readonly total: number };
}

const EXECUTIONS_MAX = 1 << 29;
/** The submitter of a task that runs again for its results alone. */
const NO_CLIENT = -1;
const NO_BYTES = new Uint8Array(0);
const NO_DEPENDENCIES: readonly Dependency[] = Object.freeze([]);
const FAILED_STARTS_MAX = 5;
const DRAIN_LOOK_MS = 20;

/** Memory that is kept faulted in ahead of its use. */
const PREFAULT_BYTES = 256 * 1024 * 1024;

/** One node. */
export class NodeServer {
  readonly #options: NodeOptions;
  readonly #clock: Clock;
  readonly #store: ObjectStore;
  readonly #pool: ResourcePool;
  readonly #shapes = new Shapes();
  readonly #scheduler: LocalScheduler<TaskRecord>;
  readonly #dependencies = new Dependencies<TaskRecord>();
  readonly #directory: ObjectDirectory;
  readonly #spiller: Spiller;
  readonly #actors: ActorServer;
  readonly #cluster: Cluster | undefined;
  /** Objects that are being brought here. */
  readonly #arriving = new Map<ObjectId, Promise<RaydError | undefined>>();
  /** Told when an object has been made again. */
  readonly #remade = new Map<ObjectId, (() => void)[]>();
  readonly #lineage = new Lineage(LINEAGE_TASKS_MAX);
  /** The peers that jobs of other nodes came from. */
  readonly #jobHomes = new Map<TaskId, number>();
  /** How long a task takes here, in milliseconds: an average that forgets. */
  #meanMs = 1;
  readonly #tasks = new Map<TaskId, TaskRecord>();
  readonly #clients = new Map<number, Client>();
  readonly #isolates = new Map<number, Isolate>();
  readonly #functions: FunctionEntry[] = [];
  readonly #functionsByKey = new Map<string, FunctionEntry>();
  readonly #settings: SettingsEntry[] = [];
  readonly #settingsByKey = new Map<string, SettingsEntry>();
  readonly #dirty: Client[] = [];
  /** What the scheduler wants done, and how far it is. */
  readonly #effects: SchedulerEffect<TaskRecord>[] = [];
  #nextEffect = 0;
  /** Tasks whose last dependency has arrived. */
  readonly #arrived: TaskRecord[] = [];
  #working = false;
  #prefaulting = false;
  #time = -1;
  readonly #drivers = new Map<TaskId, Client>();
  #nextClient = 1;
  #nextIsolate = 1;
  #failedStarts = 0;
  /** Why no task can ever run here. */
  #broken: string | undefined;
  #done = 0;
  #failed = 0;
  #closed = false;
  #cancelTick: () => void = () => {};

  /** @param options What the node is made of. */
  constructor(options: NodeOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#store = options.store;
    this.#pool = new ResourcePool(options.resources);
    this.#scheduler = new LocalScheduler(this.#pool, { isolatesMax: options.isolatesMax });
    this.#directory = new ObjectDirectory({
      freed: (record) => this.#freed(record),
      pending: (id) => this.#pendingResult(id),
    });
    this.#spiller = new Spiller({
      store: options.store,
      directory: this.#directory,
      clock: options.clock,
      path: options.spillPath,
      collect: () => this.#collect(),
    });
    this.#cluster = options.abroad === undefined ? undefined : this.#makeCluster();
    this.#actors = this.#makeActors();
    for (let i = 0; i < options.isolatesWarm; i++) {
      this.#scheduler.spawnStarted();
      this.#startIsolate();
    }
    this.#tick();
  }

  #makeActors(): ActorServer {
    return new ActorServer({
      clock: this.#clock,
      pool: this.#pool,
      directory: this.#directory,
      store: this.#store,
      tasks: this.#tasks,
      clients: this.#clients,
      now: () => this.#now(),
      flush: () => this.#flush(),
      log: this.#options.log,
      send: (client, message) => this.#send(client, message),
      shape: (demand) => this.#shapes.of(demand),
      settings: (settings) => this.#settingsOf(settings),
      admit: (task) => this.#admit(task),
      awaitArguments: (task, missing) => this.#dependencies.hold(task, missing),
      adopt: (client, message) => this.#adopt(client, message),
      limitTime: (task) => this.#limitTime(task),
      define: (isolate, task) => this.#define(isolate, task),
      argumentsOf: (task) => this.#argumentsOf(task),
      finish: (task, outcomes) => this.#finish(task, outcomes),
      fail: (task, error) => this.#fail(task, error),
      failWith: (task, outcome) => this.#finishWith(task, outcome),
      unuse: (task) => this.#unuse(task),
      drop: (id, outcome) => this.#drop(id, outcome),
      startIsolate: (residents) => this.#startIsolate(residents),
      endIsolate: (isolate) => this.#endIsolate(isolate, false),
      dispatch: () => this.#step({ type: "tick", now: this.#now() }),
      mayBeHere: (placement) => mayRunOn(placement, this.#self()),
      ...this.#names(),
    });
  }

  /** How names of actors hold in the whole cluster. */
  #names(): Pick<ActorServices, "reserveName" | "releaseName" | "findName"> {
    const { abroad } = this.#options;
    if (abroad === undefined) return {};
    return {
      reserveName: abroad.reserveName,
      releaseName: abroad.releaseName,
      findName: async (client, namespace, name) => {
        const found = await abroad.findName(namespace, name);
        if (found === undefined || !this.#clients.has(client.id)) return undefined;
        const { id, module, name: className, node } = found;
        if (!this.#cluster!.foundActor(client, taskIdFromHex(id), node)) return undefined;
        return { id, module, name: className };
      },
    };
  }

  #makeCluster(): Cluster {
    return new Cluster({
      id: this.#options.id,
      labels: this.#options.labels ?? {},
      directory: this.#directory,
      pool: this.#pool,
      tasks: this.#tasks,
      clients: this.#clients,
      now: () => this.#now(),
      log: this.#options.log,
      send: (client, message) => this.#send(client, message),
      hasActor: (id) => this.#actors.has(id),
      admit: (task) => this.#admit(task),
      limitTime: (task) => this.#limitTime(task),
      ready: (task) => this.#step({ type: "ready", task, now: this.#now() }),
      settle: (task, index, outcome) => this.#settle(task, index, outcome),
      finish: (task, outcomes) => this.#finish(task, outcomes),
      fail: (task, error) => this.#fail(task, error),
      announce: (record) => this.#announce(record),
      remake: (record) => this.#remakeForeign(record),
      isHere: (record) => record.spilled !== undefined || this.#store.has(record.id),
      giveAway: (accept) => this.#scheduler.giveAway(accept),
      backlog: () => ({
        queued: this.#scheduler.queued,
        waitedMs: this.#scheduler.waitedMs(this.#now()),
        meanMs: this.#meanMs,
        lanes: this.#lanes(),
      }),
      output: (message) => this.#output(message),
    });
  }

  #admit(task: TaskRecord): readonly ObjectId[] | undefined {
    this.#tasks.set(task.id, task);
    this.#useArguments(task);
    return this.#useDependencies(task);
  }

  /** This node, as placement looks at it. */
  #self(): PlacedNode {
    return { id: hex(this.#options.id), labels: this.#options.labels ?? {} };
  }

  /** How many tasks of one CPU run here at once. */
  #lanes(): number {
    return Math.max(1, (this.#pool.total()[CPU] ?? 0) / RESOURCE_UNIT);
  }

  /** This node's dealings with others. */
  get cluster(): Cluster | undefined {
    return this.#cluster;
  }

  /**
   * Takes nothing new that others can take. Resolves when all that runs here has ended, and no actor is left; or at the
   * deadline.
   */
  async drain(deadlineMs: number): Promise<void> {
    if (this.#cluster !== undefined) this.#cluster.draining = true;
    const end = this.#clock.now() + deadlineMs;
    while (!this.#closed && this.#clock.now() < end) {
      const { queued, running, actors } = this.stats();
      if (queued + running + actors === 0) return;
      await new Promise<void>((resolve) => this.#clock.after(DRAIN_LOOK_MS, resolve));
    }
  }

  /** How the node is loaded. */
  load(): NodeLoad {
    return { free: this.#pool.free(), queued: this.#scheduler.queued, meanMs: this.#meanMs };
  }

  /** Takes a connection. @param stream Its bytes. */
  accept(stream: ByteStream): void {
    const channel = new Channel<Message, ToNode>(stream, decodeToNode, "manual");
    const client = this.#client(channel);
    channel.start({
      message: (message) => this.#message(client, message),
      drained: () => this.#drained(),
      closed: (error) => this.#clientClosed(client, error),
    });
  }

  /** Takes a connection from another node. @param stream Its bytes. */
  acceptPeer(stream: ByteStream): void {
    this.#startPeer(stream);
  }

  /** Connects to another node. @param stream The way there. */
  connectPeer(stream: ByteStream): void {
    const client = this.#startPeer(stream);
    this.#send(client, {
      type: "hello",
      role: "peer",
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      token: this.#options.token,
      isolate: 0,
      job: this.#options.id,
      storeClient: 0,
      pid: 0,
    });
    this.#flush();
  }

  #startPeer(stream: ByteStream): Client {
    const channel = new Channel<Message, FromPeer>(stream, decodeFromPeer, "manual");
    const client = this.#client(channel);
    channel.start({
      message: (message) => this.#peerMessage(client, message),
      drained: () => this.#drained(),
      closed: (error) => this.#clientClosed(client, error),
    });
    return client;
  }

  /** The end of a block of messages: the moment to see whether others could help. */
  #drained(): void {
    this.#cluster?.balance();
    this.#flush();
  }

  #client(channel: Outlet): Client {
    const client: Client = {
      id: this.#nextClient++,
      channel,
      role: undefined,
      job: this.#options.id,
      behalfOfDriver: false,
      held: undefined,
      cancelGreeting: () => {},
      storeClient: 0,
      isolate: undefined,
      functions: new Map(),
      settings: new Map(),
      actors: new Map(),
      dirty: false,
    };
    this.#clients.set(client.id, client);
    channel.messageBytesMax = GREETING_BYTES_MAX;
    client.cancelGreeting = this.#clock.after(GREETING_MS_MAX, () => channel.close());
    return client;
  }

  /** The node's counters. */
  stats(): NodeStats {
    const store = this.#store.stats();
    const { running } = this.#scheduler.counts();
    return {
      done: this.#done,
      failed: this.#failed,
      running,
      queued: this.#tasks.size - running,
      waiting: this.#dependencies.size,
      isolates: this.#isolates.size,
      actors: this.#actors.alive,
      objects: this.#directory.size,
      store: { capacity: store.capacity, used: store.used },
      spilled: { bytes: this.#spiller.spilledBytes, total: this.#spiller.spilledBytesTotal },
    };
  }

  /** Ends the node with everything that runs on it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelTick();
    this.#spiller.close();
    for (const isolate of this.#isolates.values()) {
      isolate.cancelStart();
      isolate.process.terminate();
    }
    for (const client of this.#clients.values()) client.channel.close();
    for (const task of this.#tasks.values()) task.cancelTimeout?.();
    this.#store.close();
  }

  /** The time of the block of messages that is being worked on: reading the clock costs as much as a look-up. */
  #now(): number {
    return this.#time >= 0 ? this.#time : this.#time = this.#clock.now();
  }

  #tick(): void {
    this.#cancelTick = this.#clock.after(100, () => {
      if (this.#closed) return;
      this.#step({ type: "tick", now: this.#now() });
      this.#actors.tick(this.#now());
      this.#cluster?.balance();
      this.#flush();
      this.#tick();
    });
  }

  // --- Messages -----------------------------------------------------------------------------------------------

  /** What a peer says, as a client of this node or as a node. */
  #peerMessage(client: Client, message: FromPeer): void {
    if (client.held !== undefined) {
      client.held.push(message);
      return;
    }
    switch (message.type) {
      case "welcome":
        if (client.role !== undefined) throw new ProtocolError("Cannot take a second welcome");
        return this.#peerUp(client, message.node);
      case "refused":
        return this.#options.log("warn", `A peer refused the connection: ${message.reason}`);
      case "result":
      case "object":
      case "answer":
      case "output":
        this.#cluster!.answered(client, message);
        break;
      default:
        this.#message(client, message);
    }
    this.#cluster!.introduced();
  }

  /** Whoever it is has shown the token. */
  #greeted(client: Client): void {
    client.cancelGreeting();
    client.channel.messageBytesMax = MESSAGE_BYTES_MAX;
  }

  #peerUp(client: Client, node: TaskId): void {
    client.role = "peer";
    this.#greeted(client);
    // What it has is known once the control store has told of it.
    const first = this.#cluster!.peerUp(
      client,
      this.#described.get(node) ?? { id: node, resources: {}, labels: {} },
    );
    if (!first) client.channel.close();
  }

  /** Other nodes as the control store knows them. */
  readonly #described = new Map<TaskId, NodeDescription>();

  /** The control store has told of another node. */
  describe(description: NodeDescription): void {
    this.#described.set(description.id, description);
    this.#cluster?.describe(description);
    this.#flush();
  }

  /** The control store says that a node is gone: its connection is, whether it knows or not. */
  nodeGone(id: TaskId): void {
    this.#described.delete(id);
    for (const client of [...this.#clients.values()]) {
      if (client.role === "peer" && this.#cluster?.nodeOf(client.id) === id) client.channel.close();
    }
  }

  /** A node has reported how it is loaded. */
  reported(id: TaskId, load: NodeLoad): void {
    this.#cluster?.report(id, load);
  }

  #message(client: Client, message: ToNode): void {
    if (client.role === undefined) {
      if (message.type !== "hello") throw new ProtocolError(`Cannot take "${message.type}" before "hello"`);
      return this.#hello(client, message);
    }
    switch (message.type) {
      case "submit":
        return this.#submit(client, message);
      case "delegate":
        return this.#delegated(client, message);
      case "call": {
        const { fn, entry } = this.#defined(client, message);
        if (this.#ofCancelled(client, message, fn, entry)) return;
        if (client.role === "peer") this.#introduce(client, message);
        else if (this.#cluster !== undefined) {
          if (client.role !== "driver" && !this.#actors.has(message.actor) && this.#adopt(client, message)) {
            return;
          }
          if (this.#cluster.call(client, message, fn, entry, this.#jobOf(client, message.parent))) return;
        }
        return this.#actors.call(client, message, fn, entry);
      }
      case "behalf":
        client.job = message.job;
        client.behalfOfDriver = message.driver;
        this.#jobHomes.set(message.job, client.id);
        return;
      case "publish":
        if (this.#options.abroad === undefined) {
          throw new ProtocolError("Cannot publish code: this node is alone");
        }
        return this.#options.abroad.publishCode(message.hash, message.code);
      case "jobEnded":
        this.#jobHomes.delete(message.job);
        return this.#actors.jobEnded(message.job);
      case "done":
        if (message.handle >= ACTOR_EXECUTIONS) return this.#actors.done(client, message);
        return this.#executionDone(client, message);
      case "yielded":
        return this.#yielded(client, message);
      case "release":
        return this.#directory.release(client.id, message.objects);
      case "retain":
        return this.#directory.retain(client.id, message.objects);
      case "put":
        return this.#put(client, message.object, message.outcome);
      case "expect":
        for (const object of message.objects) {
          if (this.#directory.get(object) === undefined) this.#directory.add(object, client.id);
        }
        return;
      case "subscribe":
        for (const object of message.objects) this.#subscribe(client, object);
        return;
      case "blocked":
      case "unblocked": {
        const task = this.#execution(client, message.handle);
        if (task === undefined) return;
        if (message.type === "unblocked") this.#actors.resumed(task);
        if (task instanceof CallRecord) {
          if (message.type === "blocked") this.#actors.waiting(task, []);
          return;
        }
        return this.#step({
          type: message.type === "blocked" ? "suspended" : "resumed",
          task,
          now: this.#now(),
        });
      }
      case "waiting": {
        const task = this.#execution(client, message.handle);
        if (task === undefined) return;
        this.#actors.waiting(task, message.objects);
        if (task instanceof CallRecord) return;
        return this.#step({ type: "suspended", task, now: this.#now() });
      }
      case "createActor": {
        const { fn } = this.#defined(client, message);
        const settings = client.actors.get(message.actor);
        if (settings === undefined) throw new ProtocolError(`No actor settings ${message.actor} are defined`);
        if (client.role === "peer") this.#introduce(client, message);
        else if (this.#cluster !== undefined && !this.#actors.has(message.task)) {
          if (client.role !== "driver" && this.#adopt(client, message)) return;
          const entry = this.#settingsOf(
            creationSettings(settings.label, settings.demand, settings.placement),
          );
          const job = this.#jobOf(client, message.parent);
          if (this.#cluster.createActor(client, message, fn, entry, settings, job)) return;
        }
        return this.#actors.create(client, message, fn, settings);
      }
      case "defineActor":
        client.actors.set(message.index, message.settings);
        return;
      case "killActor":
        if (this.#cluster?.killActor(message.actor, message.restart)) return;
        return this.#actors.kill(message.actor, message.restart);
      case "findActor":
        return this.#actors.find(client, message);
      case "awaitDeath":
        if (this.#cluster?.awaitDeath(client, message.request, message.actor)) return;
        return this.#actors.awaitDeath(client, message.request, message.actor);
      case "defineFunction":
        client.functions.set(message.index, this.#function(message.address));
        return this.#awaitCode(client, message.address.load);
      case "defineSettings":
        client.settings.set(message.index, this.#settingsOf(message.settings));
        return;
      case "consumed":
        return this.#consumed(message.task, message.count);
      case "cancel":
        return this.#cancelById(message.task, message.force, message.recursive);
      case "makeRoom":
        this.#spiller.makeRoom(message.bytes).then((error) => {
          this.#send(client, {
            type: "room",
            request: message.request,
            error: error === undefined ? NO_BYTES : packError(error),
          });
          this.#flush();
        });
        return;
      case "ask":
        this.#send(client, {
          type: "answer",
          request: message.request,
          body: pack(this.#answer(message.topic)).toBytes().slice(),
        });
        return;
      case "log": {
        const execution = this.#execution(client, message.handle);
        const actor = this.#actors.printed(
          client,
          execution instanceof CallRecord ? execution : undefined,
          message.text,
        );
        const { level, dropped, text } = message;
        const task = execution?.entry.settings.name ?? actor?.settings.label ?? "";
        return this.#output({
          type: "output",
          job: execution?.job ?? actor?.job ?? client.job,
          worker: client.isolate?.number ?? 0,
          task,
          level,
          dropped,
          text,
        });
      }
      case "hello":
        throw new ProtocolError('Cannot take a second "hello"');
      default:
        unreachable(message);
    }
  }

  /** Shows a program what a task of it has printed. */
  #output(message: Extract<FromNode, { type: "output" }>): void {
    const program = this.#drivers.get(message.job) ??
      this.#clients.get(this.#jobHomes.get(message.job) ?? -1) ??
      (this.#cluster === undefined ? this.#drivers.values().next().value : undefined);
    if (program !== undefined) this.#send(program, message);
  }

  /** The job of what a client submits. */
  #jobOf(client: Client, parent: TaskId): TaskId {
    return client.role === "driver" ? client.job : this.#tasks.get(parent)?.job ?? client.job;
  }

  /** What a peer's request refers to has its home there, if it is not known here. */
  #introduce(
    client: Client,
    { dependencies, args }: { readonly dependencies: readonly ObjectId[]; readonly args: Outcome },
  ): void {
    const cluster = this.#cluster!;
    for (const object of dependencies) cluster.introduce(client, object, undefined);
    cluster.introduceAll(client, args);
  }

  /** Functions are only there when their code is: until then nothing of the client is looked at. */
  #awaitCode(client: Client, load: string): void {
    const { abroad } = this.#options;
    if (!load.startsWith(CODE) || abroad === undefined) return;
    const hash = load.slice(CODE.length);
    if (client.role !== "peer" || abroad.hasCode(hash)) return;
    client.held ??= [];
    abroad.fetchCode(hash).then(() => {
      const held = client.held ?? [];
      client.held = undefined;
      for (let i = 0; i < held.length && !this.#closed; i++) {
        if (client.held !== undefined) (client.held as FromPeer[]).push(held[i]!);
        else this.#peerMessage(client, held[i]!);
      }
      this.#drained();
    }, (error: Error) => {
      this.#options.log("error", `Code ${hash} cannot be had: ${error.message}`);
      client.channel.close();
    });
  }

  #hello(client: Client, hello: Extract<ToNode, { type: "hello" }>): void {
    const refuse = (reason: string) => {
      this.#options.log("warn", `Refused a connection: ${reason}`);
      this.#send(client, { type: "refused", reason });
      client.dirty = false;
      this.#dirty.splice(this.#dirty.indexOf(client), 1);
      client.channel.finish();
    };
    if (!sameToken(hello.token, this.#options.token)) return refuse("the token is wrong");
    if (hello.protocol !== PROTOCOL_VERSION || hello.version !== VERSION) {
      return refuse(
        `the node is rayd ${VERSION} (protocol ${PROTOCOL_VERSION}), the program is rayd ${hello.version} ` +
          `(protocol ${hello.protocol}); use the same version on both sides`,
      );
    }
    client.storeClient = hello.storeClient;
    this.#greeted(client);
    if (hello.role === "peer") {
      if (this.#cluster === undefined) return refuse("this node is alone");
      this.#send(client, { type: "welcome", node: this.#options.id });
      return this.#peerUp(client, hello.job);
    }
    if (hello.role === "isolate") {
      const isolate = this.#isolates.get(hello.isolate);
      if (isolate === undefined || isolate.client !== undefined) {
        return refuse(`there is no isolate ${hello.isolate}`);
      }
      client.role = "isolate";
      client.isolate = isolate;
      isolate.client = client;
      isolate.cancelStart();
      this.#failedStarts = 0;
      this.#send(client, { type: "welcome", node: this.#options.id });
      if (isolate.residents !== undefined) this.#actors.isolateReady(isolate);
      else this.#step({ type: "isolateReady", isolate: isolate.number, now: this.#now() });
    } else {
      client.role = "driver";
      if (this.#drivers.has(hello.job)) return refuse(`job ${hex(hello.job)} is running already`);
      client.job = hello.job;
      this.#drivers.set(client.job, client);
      this.#send(client, { type: "welcome", node: this.#options.id });
    }
  }

  #answer(topic: Extract<ToNode, { type: "ask" }>["topic"]): unknown {
    const amounts = (units: Record<string, number>) =>
      Object.fromEntries(Object.entries(units).map(([name, n]) => [name, n / RESOURCE_UNIT]));
    switch (topic) {
      case "nodes":
        return [
          {
            id: hex(this.#options.id),
            alive: true,
            labels: this.#options.labels ?? {},
            resources: amounts(this.#pool.total()),
            available: amounts(this.#pool.free()),
            isolates: this.#isolates.size,
            storeCapacity: this.#store.capacity,
          },
          ...(this.#cluster?.nodes() ?? []).map(({ node, free }) => ({
            id: hex(node.id),
            alive: true,
            labels: node.labels,
            resources: amounts(node.resources),
            available: amounts(free),
            isolates: 0,
            storeCapacity: 0,
          })),
        ];
      case "cluster":
        return amounts(
          sum(this.#pool.total(), (this.#cluster?.nodes() ?? []).map(({ node }) => node.resources)),
        );
      case "available":
        return amounts(sum(this.#pool.free(), (this.#cluster?.nodes() ?? []).map(({ free }) => free)));
      case "stats":
        return this.stats();
      default:
        unreachable(topic);
    }
  }

  #function(address: FunctionAddress): FunctionEntry {
    const key = `${address.load}\n${address.module}\n${address.name}`;
    let entry = this.#functionsByKey.get(key);
    if (entry === undefined) {
      entry = functionEntry(this.#functions.length, address);
      this.#functions.push(entry);
      this.#functionsByKey.set(key, entry);
    }
    return entry;
  }

  #settingsOf(settings: TaskSettings): SettingsEntry {
    const key = JSON.stringify(settings);
    let entry = this.#settingsByKey.get(key);
    if (entry === undefined) {
      entry = { index: this.#settings.length, settings, shape: this.#shapes.of(settings.demand) };
      this.#settings.push(entry);
      this.#settingsByKey.set(key, entry);
    }
    return entry;
  }

  // --- Tasks --------------------------------------------------------------------------------------------------

  /** What a submission refers to by index. */
  #defined(
    client: Client,
    message: { readonly fn: number; readonly settings: number },
  ): { fn: FunctionEntry; entry: SettingsEntry } {
    const fn = client.functions.get(message.fn);
    const entry = client.settings.get(message.settings);
    if (fn !== undefined && entry !== undefined) return { fn, entry };
    throw new ProtocolError(
      `Cannot submit: function ${message.fn} or settings ${message.settings} are not defined`,
    );
  }

  /** What an isolate calls by this number: a task, or a call of an actor. */
  #execution(client: Client, handle: number): TaskRecord | undefined {
    return handle >= ACTOR_EXECUTIONS
      ? this.#actors.execution(client, handle)
      : client.isolate?.executions.get(handle);
  }

  #submit(client: Client, message: Extract<ToNode, { type: "submit" }>): void {
    const { fn, entry } = this.#defined(client, message);
    const { settings } = entry;
    if (this.#ofCancelled(client, message, fn, entry)) return;
    // A driver is never run again, so what it submits is new.
    const parent = client.role === "driver" ? undefined : this.#tasks.get(message.parent);
    if (client.role !== "driver" && this.#adopt(client, message)) return;
    // What a durable actor's call submits, it submits again when it is replayed.
    if (parent instanceof CallRecord) this.#actors.answers.touch(parent.id);
    const job = parent?.job ?? client.job;
    const task = new TaskRecord(message, job, fn, entry, client.id);
    this.#tasks.set(task.id, task);
    this.#useArguments(task);
    const missing = this.#useDependencies(task);
    if (missing === undefined) return;
    if (this.#broken !== undefined) return this.#failBroken(task);
    const foreign = !this.#pool.couldEverFit(entry.shape) || !mayRunOn(settings.placement, this.#self());
    if (foreign && this.#cluster === undefined) {
      return this.#fail(
        task,
        new UnschedulableError(
          `Task ${settings.name} can never run here: it asks for ${showDemand(settings.demand)}${
            showPlacement(settings.placement)
          }, and there is ` +
            `${
              showDemand(this.#pool.total())
            } in all. Ask for less, or start with more (--cpus, --gpus, --resources)`,
        ),
      );
    }
    this.#limitTime(task);
    if (missing.length > 0) {
      if (foreign || settings.placement !== undefined || !this.#chain(task, missing)) {
        this.#dependencies.hold(task, missing);
      }
    } else this.#ready(task);
  }

  /** All that a task depends on is there. */
  #ready(task: TaskRecord): void {
    if (this.#cluster !== undefined && !task.foreign) return this.#cluster.ready(task);
    this.#step({ type: "ready", task, now: this.#now() });
  }

  /** A peer gives a task to this node. */
  #delegated(client: Client, message: Extract<ToNode, { type: "delegate" }>): void {
    const { fn, entry } = this.#defined(client, message);
    if (client.role !== "peer") throw new ProtocolError("Cannot delegate: only a node can");
    if (this.#adopt(client, message)) return;
    const { dependencies, args } = message;
    for (const { object, outcome } of dependencies) this.#cluster!.introduce(client, object, outcome);
    this.#cluster!.introduceAll(client, args);
    const submitted = { ...message, dependencies: dependencies.map(({ object }) => object) };
    const task = new TaskRecord(submitted, client.job, fn, entry, client.id);
    task.foreign = true;
    const missing = this.#admit(task);
    if (args.kind === "stored") this.#cluster!.introduceArguments(client, task.id);
    if (missing === undefined) return;
    if (this.#broken !== undefined) return this.#failBroken(task);
    if (!this.#pool.couldEverFit(entry.shape)) {
      return this.#fail(
        task,
        new UnschedulableError(`Task ${entry.settings.name} was sent to a node that can never run it`),
      );
    }
    this.#bringArguments(task);
    if (missing.length > 0) this.#dependencies.hold(task, missing);
    else this.#step({ type: "ready", task, now: this.#now() });
  }

  /** Begins to bring what a task will read here, so that it need not wait for it. */
  #bringArguments(task: TaskRecord): void {
    const bring = (id: ObjectId) => {
      const record = this.#directory.get(id);
      if (record?.home === undefined || record.outcome?.kind !== "stored" || this.#store.has(id)) return;
      this.#directory.use(id);
      this.#bring(record).then(() => {
        this.#directory.unuse(id);
        this.#flush();
      });
    };
    for (const id of task.dependencies) bring(id);
    if (task.args.kind === "stored") bring(argumentsId(task.id));
  }

  /** A task that was cancelled goes on until it notices; what it submits meanwhile is cancelled as well. */
  #ofCancelled(client: Client, message: Submitted, fn: FunctionEntry, entry: SettingsEntry): boolean {
    if (client.isolate === undefined || !client.isolate.cancelled.has(message.parent)) return false;
    const task = new TaskRecord(message, client.job, fn, entry, client.id);
    if (this.#admit(task) === undefined) return true;
    this.#fail(
      task,
      new TaskCancelledError(
        `Task ${entry.settings.name} (${hex(task.id)}) was submitted by a task that was cancelled before`,
      ),
    );
    return true;
  }

  #limitTime(task: TaskRecord): void {
    const { timeoutMs } = task.entry.settings;
    if (timeoutMs > 0) task.cancelTimeout = this.#clock.after(timeoutMs, () => this.#timeout(task));
  }

  /** The same task was submitted before: its submitter was run again. The new one gets what the old one would have. */
  #adopt(client: Client, message: { readonly task: TaskId; readonly handle: number }): boolean {
    const task = this.#tasks.get(message.task);
    if (task === undefined) return false;
    const items = task.answers;
    if (items !== undefined) {
      for (let i = 1; i < items.length; i++) {
        const outcome = items[i];
        if (outcome === undefined || task.results?.[i] !== undefined) continue;
        const kept = refersTo(outcome);
        if (kept) this.#directory.retain(client.id, [returnId(task.id, i)]);
        this.#send(client, { type: "result", handle: message.handle, index: i, kept, outcome });
      }
    }
    task.client = client.id;
    task.handle = message.handle;
    for (let i = (task.results?.length ?? 0) - 1; i >= 0; i--) {
      const record = task.results![i];
      if (record === undefined) continue;
      this.#directory.retain(client.id, [record.id]);
      if (record.outcome !== undefined) {
        this.#send(client, {
          type: "result",
          handle: task.handle,
          index: i,
          kept: true,
          outcome: record.outcome,
        });
      }
    }
    return true;
  }

  /** Makes the record of what a running task will return: somebody else than its submitter has come to refer to it. */
  #pendingResult(id: ObjectId): ObjectRecord | undefined {
    const task = this.#tasks.get(taskOf(id));
    const index = indexOf(id);
    if (task === undefined || index >= task.entry.settings.returns || task.results?.[index] !== undefined) {
      return undefined;
    }
    const record = this.#directory.add(id, task.client);
    task.results ??= [];
    task.results[index] = record;
    return record;
  }

  /** Holds what a task's arguments refer to; arguments in the store are an object like any other, to be spilled. */
  #useArguments({ id, args, client }: TaskRecord): void {
    if (args.kind === "inline") { for (const object of args.contains) this.#directory.use(object); }
    if (args.kind !== "stored") return;
    const record = this.#directory.add(argumentsId(id), client);
    this.#directory.disown(record);
    this.#directory.seal(record, args);
    this.#stored(args.size);
  }

  /** Lets go of what {@link #useArguments} held. */
  #unuseArguments({ id, args }: TaskRecord): void {
    if (args.kind === "inline") {
      for (let i = 0; i < args.contains.length; i++) this.#directory.unuse(args.contains[i]!);
    } else if (args.kind === "stored") this.#directory.unuse(argumentsId(id));
  }

  /**
   * Holds what a task depends on.
   *
   * @returns What does not exist yet; `undefined` if the task has failed because of a dependency.
   */
  #useDependencies(task: TaskRecord): ObjectId[] | undefined {
    const missing: ObjectId[] = [];
    let failure: Outcome | undefined;
    for (const object of task.dependencies) {
      const record = this.#directory.get(object);
      if (record === undefined) failure ??= lost(object);
      else if (record.outcome === undefined) {
        missing.push(object);
        this.#cluster?.want(record);
      } else if (record.outcome.kind === "error") failure ??= record.outcome;
      this.#directory.use(object);
    }
    if (failure === undefined) return missing;
    this.#finishWith(task, failure);
    return undefined;
  }

  /**
   * Sends a task ahead of its arguments, behind the tasks that make them, if all of those were sent to one isolate: a
   * chain of short tasks then costs no round trip a link.
   *
   * @returns Whether it was sent.
   */
  #chain(task: TaskRecord, missing: readonly ObjectId[]): boolean {
    let isolate = -1;
    for (const object of missing) {
      const producer = this.#tasks.get(taskOf(object));
      if (
        producer?.state !== "sent" || producer.entry.settings.returns > 1 || producer.entry.settings.stream
      ) return false;
      if (isolate >= 0 && producer.isolate !== isolate) return false;
      isolate = producer.isolate;
    }
    this.#step({ type: "chain", task, isolate, producers: missing.length, now: this.#now() });
    if (task.state === "new") return false;
    for (const object of missing) (this.#tasks.get(taskOf(object))!.followers ??= []).push(task);
    return true;
  }

  /** A task was sent: those that wait for nothing but it may follow. */
  #chainFollowers(task: TaskRecord): void {
    for (const waiting of this.#dependencies.waitingFor(returnId(task.id, 0))) {
      const missing = waiting.dependencies.filter((object) =>
        this.#directory.get(object)?.outcome === undefined
      );
      if (this.#chain(waiting, missing)) this.#dependencies.remove(waiting);
    }
  }

  /** Lets the scheduler take an event, and performs what it wants; in order, and never one inside of another. */
  #step(event: SchedulerEvent<TaskRecord>): void {
    this.#scheduler.step(event, this.#effects);
    this.#work();
  }

  /** Performs queued effects and starts tasks whose dependencies have arrived: a loop, for chains may be long. */
  #work(): void {
    if (this.#working) return;
    this.#working = true;
    try {
      for (;;) {
        const effect = this.#effects[this.#nextEffect++];
        if (effect !== undefined) {
          this.#perform(effect);
          continue;
        }
        this.#effects.length = this.#nextEffect = 0;
        const task = this.#arrived.pop();
        if (task === undefined) return;
        this.#dependenciesArrived(task);
      }
    } finally {
      this.#working = false;
    }
  }

  #perform(effect: SchedulerEffect<TaskRecord>): void {
    switch (effect.type) {
      case "send":
        return this.#execute(effect.task, effect.isolate);
      case "revoke": {
        const { task } = effect;
        const success = this.#revoke(task);
        return this.#step({ type: "revoked", task, isolate: effect.isolate, success, now: this.#now() });
      }
      case "spawn":
        this.#startIsolate();
        return;
      case "exhausted": {
        const { task } = effect;
        if (effect.reason === "exception") return this.#finish(task, task.last!);
        return this.#fail(
          task,
          new WorkerCrashedError(
            `Task ${task.entry.settings.name} (${hex(task.id)}) failed: the isolate that ran it died ` +
              `in ${task.failures + 1} of ${
                task.retries + 1
              } attempts. It may have run out of memory or ended ` +
              `itself (Deno.exit, a native crash); raise retries only if a further attempt could go better`,
          ),
        );
      }
      default:
        unreachable(effect);
    }
  }

  #execute(task: TaskRecord, number: number): void {
    const isolate = this.#isolates.get(number);
    // Between the decision and now, the isolate may have gone or the task may have been stopped.
    if (isolate?.client === undefined || task.isolate !== number || task.state !== "sent") return;
    if (!task.wanted) return this.#step({ type: "done", task, retry: false, now: this.#now() });
    const { client } = isolate;
    const { fn, entry } = task;
    this.#define(isolate, task);
    const handle = isolate.nextExecution;
    isolate.nextExecution = (handle + 1) % EXECUTIONS_MAX;
    const slot = isolate.freeSlots.pop() ?? CLAIM_SLOTS; // beyond the table: not to be revoked
    if (slot < CLAIM_SLOTS) Atomics.store(isolate.process.claims, slot, claimWord(handle, CLAIM_QUEUED));
    isolate.executions.set(handle, task);
    client.job = task.job;
    task.execution = handle;
    task.slot = slot;
    this.#send(client, {
      type: "execute",
      handle,
      slot,
      attempt: task.attempts,
      concurrency: entry.shape.concurrency,
      task: task.id,
      job: task.job,
      fn: fn.index,
      settings: entry.index,
      gpus: task.gpus,
      dependencies: task.dependencies.length === 0 ? NO_DEPENDENCIES : this.#argumentsOf(task),
      args: task.args,
    });
    if (task.results !== undefined && this.#dependencies.size > 0) this.#chainFollowers(task);
  }

  /** Tells an isolate of a task's function and settings, once. */
  #define(isolate: Isolate, { fn, entry }: TaskRecord): void {
    const client = isolate.client!;
    if (!isolate.knownFunctions.has(fn.index)) {
      isolate.knownFunctions.add(fn.index);
      this.#send(client, { type: "defineFunction", index: fn.index, address: fn.address });
    }
    if (!isolate.knownSettings.has(entry.index)) {
      isolate.knownSettings.add(entry.index);
      this.#send(client, { type: "defineSettings", index: entry.index, settings: entry.settings });
    }
  }

  /** What an isolate is told of a task's arguments: what is there, as far as a message should carry it. */
  #argumentsOf(task: TaskRecord): Dependency[] {
    let room = ARGUMENT_BYTES_MAX;
    return task.dependencies.map((object) => {
      const record = this.#directory.get(object);
      const outcome = record === undefined ? lost(object) : record.outcome;
      if (outcome?.kind === "inline" && (room -= outcome.bytes.length) < 0) {
        return { object, outcome: undefined };
      }
      return { object, outcome };
    });
  }

  /** Takes an execution back unless it has started. */
  #revoke(task: TaskRecord): boolean {
    const isolate = this.#isolates.get(task.isolate);
    if (isolate?.executions.get(task.execution) !== task || task.slot >= CLAIM_SLOTS) return false;
    const queued = claimWord(task.execution, CLAIM_QUEUED);
    const revoked = claimWord(task.execution, CLAIM_REVOKED);
    if (Atomics.compareExchange(isolate.process.claims, task.slot, queued, revoked) !== queued) return false;
    this.#executionEnded(isolate, task);
    return true;
  }

  #executionEnded(isolate: Isolate, task: TaskRecord): void {
    isolate.cancelled.delete(task.id);
    if (isolate.executions.delete(task.execution) && task.slot < CLAIM_SLOTS) {
      isolate.freeSlots.push(task.slot);
    }
    task.execution = -1;
  }

  #executionDone(client: Client, message: Extract<ToNode, { type: "done" }>): void {
    const isolate = client.isolate;
    const task = isolate?.executions.get(message.handle);
    if (isolate === undefined || task === undefined) {
      throw new ProtocolError(`No execution ${message.handle} to end`);
    }
    this.#executionEnded(isolate, task);
    observeDuration(task.fn, message.durationUs / 1000);
    this.#meanMs += (message.durationUs / 1000 - this.#meanMs) / 16;
    if (message.outcomes.length < task.entry.settings.returns) {
      throw new ProtocolError("An execution ended with too few outcomes");
    }
    const now = this.#now();
    if (task.finished) {
      message.outcomes.forEach((outcome, i) => this.#drop(returnId(task.id, i), outcome));
      return this.#step({ type: "done", task, retry: false, now });
    }
    if (message.retry) {
      task.last = message.outcomes;
      return this.#step({ type: "done", task, retry: true, now });
    }
    // What the outcomes make ready is queued first, so that the isolate gets it with what it is sent next.
    this.#finish(task, message.outcomes);
    this.#step({ type: "done", task, retry: false, now });
  }

  #yielded(client: Client, message: Extract<ToNode, { type: "yielded" }>): void {
    const task = this.#execution(client, message.handle);
    if (task === undefined) {
      if (message.handle >= ACTOR_EXECUTIONS) return; // of an actor that is gone
      throw new ProtocolError(`No execution ${message.handle} to yield`);
    }
    const id = returnId(task.id, message.index);
    if (task.finished || message.index <= task.produced) {
      return this.#drop(id, message.outcome);
    }
    task.produced = message.index;
    this.#settle(task, message.index, message.outcome);
  }

  /** The consumer of a stream has taken items: its generator may make more. */
  #consumed(id: TaskId, count: number): void {
    const task = this.#tasks.get(id);
    if (task === undefined) return;
    task.consumed = Math.max(task.consumed, count);
    if (task.remote >= 0) return this.#cluster!.consumed(task);
    const isolate = task instanceof CallRecord ? task.actor.isolate : this.#isolates.get(task.isolate);
    const client = isolate?.client;
    if (client !== undefined) this.#send(client, { type: "consumed", task: id, count: task.consumed });
  }

  /** A task has its outcomes: they are sealed, told to whoever wants them, and the task is forgotten. */
  #finish(task: TaskRecord, outcomes: readonly Outcome[]): void {
    this.#tasks.delete(task.id);
    task.finished = true;
    task.cancelTimeout?.();
    task.last = undefined;
    if (outcomes[0]?.kind === "error") this.#failed++;
    else this.#done++;
    const { returns } = task.entry.settings;
    assert(outcomes.length >= returns, "a task ends with fewer outcomes than it returns");
    for (let i = 0; i < returns; i++) this.#settle(task, i, outcomes[i]!);
    if (task.followers !== undefined) {
      for (const follower of task.followers) {
        this.#step({ type: "unchain", task: follower, now: this.#now() });
      }
    }
    this.#actors.answers.finished(task);
    if (!task.argumentsKept) this.#unuse(task);
    if (this.#cluster !== undefined && !(task instanceof CallRecord)) this.#remember(task, outcomes);
  }

  /** A task that left something in a store is remembered: it may have to be run again. */
  #remember(task: TaskRecord, outcomes: readonly Outcome[]): void {
    if (task.foreign || task.args.kind === "stored" || task.entry.settings.stream) return;
    const outputs: ObjectId[] = [];
    outcomes.forEach((outcome, i) => {
      const id = returnId(task.id, i);
      if (refersTo(outcome) && this.#directory.get(id) !== undefined) outputs.push(id);
    });
    if (outputs.length > 0) this.#lineage.remember(task, outputs);
  }

  /**
   * Has an object made again whose bytes are gone.
   *
   * @returns Why it cannot be: what is wrong with it, or with what it was made of.
   */
  #rebuild(record: ObjectRecord): string | undefined {
    const id = taskOf(record.id);
    const entry = this.#lineage.get(id);
    if (entry === undefined) {
      return "it is not known how it was made: it was put, or by an actor, or too long ago";
    }
    const { task } = entry;
    const { name } = task.entry.settings;
    if (entry.rebuilds++ >= Math.max(1, task.retries)) {
      return `task ${name}, which made it, was run again ${entry.rebuilds - 1} times already`;
    }
    for (const dependency of task.dependencies) {
      if (this.#directory.get(dependency) !== undefined) continue;
      const why = this.#rerun(dependency);
      if (why !== undefined) return `task ${name}, which made it, needs ${hex(dependency, true)}, and ${why}`;
    }
    this.#options.log("info", `Task ${name} runs again: node and object ${hex(record.id, true)} are gone`);
    this.#runAgain(entry.task);
    return undefined;
  }

  /** Has an object made again that is not known yet, and whose node is gone. */
  #remakeForeign(record: ObjectRecord): void {
    const why = this.#tasks.has(taskOf(record.id)) ? undefined : this.#rebuild(record);
    if (why === undefined) return;
    const error = new ObjectLostError(
      `Object ${hex(record.id, true)} is lost with the node that had it, and ${why}`,
    );
    if (this.#directory.seal(record, { kind: "error", bytes: packError(error) })) this.#announce(record);
  }

  /** Runs the task again that made an object of which nothing is known any more. @returns Why it cannot be. */
  #rerun(id: ObjectId): string | undefined {
    const entry = this.#lineage.get(taskOf(id));
    if (entry === undefined) return "that was let go of and cannot be made again";
    if (this.#tasks.has(entry.task.id)) return undefined;
    for (const dependency of entry.task.dependencies) {
      if (this.#directory.get(dependency) !== undefined) continue;
      const why = this.#rerun(dependency);
      if (why !== undefined) {
        return `task ${entry.task.entry.settings.name} needs ${hex(dependency, true)}, and ${why}`;
      }
    }
    this.#runAgain(entry.task);
    return undefined;
  }

  #runAgain(before: TaskRecord): void {
    const { id, parent, dependencies, args, job, fn, entry } = before;
    const task = new TaskRecord(
      { handle: 0, task: id, parent, dependencies, args },
      job,
      fn,
      entry,
      NO_CLIENT,
    );
    task.rebuild = true;
    // What is left of its results is sealed anew; whoever asked for one in the meantime is told then.
    for (let i = 0; i < entry.settings.returns; i++) {
      const record = this.#directory.get(returnId(id, i));
      if (record?.outcome === undefined || this.#isHere(record) || record.home !== undefined) continue;
      this.#directory.unseal(record);
      (task.results ??= [])[i] = record;
    }
    const missing = this.#admit(task);
    if (missing === undefined) return;
    if (missing.length > 0) this.#dependencies.hold(task, missing);
    else this.#ready(task);
  }

  /** Nothing will need what the task refers to any more. */
  #unuse(task: TaskRecord): void {
    for (let i = 0; i < task.dependencies.length; i++) this.#directory.unuse(task.dependencies[i]!);
    this.#unuseArguments(task);
  }

  #finishWith(task: TaskRecord, outcome: Outcome): void {
    this.#finish(task, Array.from({ length: task.entry.settings.returns }, () => outcome));
  }

  #fail(task: TaskRecord, error: RaydError): void {
    this.#finishWith(task, { kind: "error", bytes: packError(error) });
  }

  /** An outcome of a task is there: its submitter is told, and it is kept if anybody else may need it. */
  #settle(task: TaskRecord, index: number, outcome: Outcome): void {
    const client = this.#clients.get(task.client);
    const known = task.results?.[index];
    if (client?.role === "peer") this.#cluster!.beforeResult(client);
    if (task.answers !== undefined) {
      task.answers[index] = outcome;
      if (refersTo(outcome)) this.#directory.use(returnId(task.id, index));
    }
    if (known === undefined && !refersTo(outcome)) {
      if (client !== undefined) {
        this.#send(client, { type: "result", handle: task.handle, index, kept: false, outcome });
      }
      return;
    }
    if (task.rebuild && known === undefined && this.#directory.get(returnId(task.id, index))?.outcome) {
      // This one of its results was not lost.
      return this.#dropResult(task, index, outcome);
    }
    const record = known ?? this.#directory.declare(returnId(task.id, index), task.client);
    // What another node had, and a task has made here, is this node's own from now on.
    if (record.foreign && outcome.kind === "stored" && task.remote < 0) this.#cluster?.settledHere(record);
    if (!this.#directory.seal(record, outcome)) {
      // The first one wins, and whoever waits for this one gets that.
      this.#dropResult(task, index, outcome);
      if (client !== undefined) {
        this.#send(client, {
          type: "result",
          handle: task.handle,
          index,
          kept: true,
          outcome: record.outcome!,
        });
      }
      return;
    }
    if (task.remote >= 0) this.#cluster!.settled(task, record, outcome);
    if (client !== undefined) {
      this.#send(client, { type: "result", handle: task.handle, index, kept: true, outcome });
    } else if (known === undefined || !task.rebuild) this.#directory.disown(record);
    this.#announce(record);
  }

  #dropResult(task: TaskRecord, index: number, outcome: Outcome): void {
    if (task.remote >= 0) this.#cluster!.dropped(task, index, outcome);
    else this.#drop(returnId(task.id, index), outcome);
  }

  /** Tells subscribers and waiting tasks that an object exists. */
  #announce(record: ObjectRecord): void {
    const outcome = record.outcome!;
    if (outcome.kind === "stored") this.#stored(outcome.size);
    if (record.subscribers !== undefined) {
      for (const id of record.subscribers) {
        const client = this.#clients.get(id);
        if (client !== undefined) this.#send(client, { type: "object", object: record.id, outcome });
      }
      record.subscribers = undefined;
    }
    const remade = this.#remade.get(record.id);
    if (remade !== undefined) {
      this.#remade.delete(record.id);
      for (const resolve of remade) resolve();
    }
    const ready = this.#dependencies.arrived(record.id);
    for (let i = ready.length - 1; i >= 0; i--) this.#arrived.push(ready[i]!);
    const { asked } = record;
    record.asked = false;
    this.#directory.sealed(record);
    if (asked) this.#directory.unuse(record.id);
    this.#work();
  }

  #dependenciesArrived(task: TaskRecord): void {
    if (task.finished) return;
    let failure: Outcome | undefined;
    for (const object of task.dependencies) {
      const outcome = this.#directory.get(object)?.outcome ?? lost(object);
      if (outcome.kind === "error") failure ??= outcome;
    }
    if (task instanceof CallRecord) return this.#actors.argumentsArrived(task, failure);
    if (failure !== undefined) return this.#finishWith(task, failure);
    this.#ready(task);
  }

  /** An outcome that nobody will see: what it put into the store goes. */
  #drop(id: ObjectId, outcome: Outcome): void {
    if (outcome.kind === "stored" && this.#directory.get(id)?.outcome?.kind !== "stored") {
      this.#store.delete(id);
    }
  }

  #timeout(task: TaskRecord): void {
    const { name, timeoutMs } = task.entry.settings;
    this.#stop(
      task,
      new TaskTimeoutError(
        `Task ${name} (${hex(task.id)}) took longer than its timeout of ${timeoutMs} ms; it was ${
          stateOf(task)
        }`,
      ),
      true,
      true,
    );
    this.#flush();
  }

  #cancelById(id: TaskId, force: boolean, recursive: boolean): void {
    const task = this.#tasks.get(id);
    if (task !== undefined) {
      const message = `Task ${task.entry.settings.name} (${hex(id)}) was cancelled while it was ${
        stateOf(task)
      }`;
      this.#stop(task, new TaskCancelledError(message), force, recursive);
    } else if (recursive) this.#stopChildren(id, force);
  }

  #stopChildren(parent: TaskId, force: boolean): void {
    for (const task of [...this.#tasks.values()]) {
      if (task.parent !== parent || task.finished) continue;
      const message = `Task ${task.entry.settings.name} (${hex(task.id)}) was cancelled with the task that ` +
        `submitted it, while it was ${stateOf(task)}`;
      this.#stop(task, new TaskCancelledError(message), force, true);
    }
  }

  /**
   * Ends a task with an error, in any state. If it runs, it is told so; with `force`, its isolate is ended when it has
   * not stopped within the grace.
   */
  #stop(task: TaskRecord, error: RaydError, force: boolean, recursive: boolean): void {
    const now = this.#now();
    const isolate = this.#isolates.get(task.isolate);
    const { execution } = task;
    this.#dependencies.remove(task);
    if (task.state === "delegated" || task.remote >= 0) {
      this.#cluster!.forget(task);
      this.#fail(task, error);
      this.#cluster!.cancel(task, force, recursive);
      if (recursive) this.#stopChildren(task.id, force);
      return;
    }
    if (task instanceof CallRecord) {
      this.#fail(task, error);
      if (recursive) this.#stopChildren(task.id, force);
      return this.#actors.stopped(task, error.message, force);
    }
    this.#step({ type: "removed", task, now });
    this.#fail(task, error);
    if (recursive) this.#stopChildren(task.id, force);
    if (isolate === undefined || execution < 0) return;
    if (recursive) isolate.cancelled.add(task.id);
    if (this.#revoke(task)) return this.#step({ type: "done", task, retry: false, now });
    if (isolate.client !== undefined) {
      this.#send(isolate.client, { type: "abort", handle: execution, reason: error.message });
    }
    if (!force) return;
    this.#clock.after(STOP_GRACE_MS, () => {
      if (isolate.executions.get(execution) !== task || this.#isolates.get(isolate.number) !== isolate) {
        return;
      }
      this.#endIsolate(isolate, false);
      this.#flush();
    });
  }

  // --- Objects ------------------------------------------------------------------------------------------------

  #put(client: Client, id: ObjectId, outcome: Outcome): void {
    // One that was expected has its owner's hold already.
    const known = this.#directory.get(id);
    const record = known?.owner === client.id ? known : this.#directory.declare(id, client.id);
    if (this.#directory.seal(record, outcome)) this.#announce(record);
  }

  #subscribe(client: Client, id: ObjectId): void {
    const record = this.#directory.get(id);
    if (record === undefined) return this.#send(client, { type: "object", object: id, outcome: lost(id) });
    if (record.outcome === undefined) {
      record.subscribers ??= [];
      if (!record.subscribers.includes(client.id)) record.subscribers.push(client.id);
      return this.#cluster?.want(record);
    }
    // A peer fetches the bytes when it needs them.
    if (client.role === "peer" || this.#isHere(record)) {
      return this.#send(client, { type: "object", object: id, outcome: record.outcome });
    }
    this.#directory.use(id);
    this.#bring(record).then((error) => {
      const outcome: Outcome = error === undefined
        ? record.outcome!
        : { kind: "error", bytes: packError(error) };
      this.#send(client, { type: "object", object: id, outcome });
      this.#flush();
      this.#directory.unuse(id);
    });
  }

  /** Whether all of an object's value is at hand. */
  #isHere(record: ObjectRecord): boolean {
    return record.outcome?.kind !== "stored" || record.spilled === undefined && this.#store.has(record.id);
  }

  /** Brings an object into memory, from disk or from the node that has it. @returns What went wrong. */
  #bring(record: ObjectRecord): Promise<RaydError | undefined> {
    if (record.spilled !== undefined) return this.#spiller.restore(record);
    if (this.#isHere(record)) return Promise.resolve(undefined);
    const { id, outcome, home } = record;
    if (outcome?.kind !== "stored") return Promise.resolve(lostError(id));
    const known = this.#arriving.get(id);
    if (known !== undefined) return known;
    const node = home === undefined ? undefined : this.#cluster?.nodeOf(home);
    const arriving =
      (node === undefined ? this.#remake(record) : this.#pullOrRemake(record, node, outcome.size))
        .finally(() => this.#arriving.delete(id));
    this.#arriving.set(id, arriving);
    return arriving;
  }

  async #pullOrRemake(record: ObjectRecord, node: TaskId, size: number): Promise<RaydError | undefined> {
    const error = await this.#pull(node, record.id, size);
    if (!(error instanceof ObjectLostError)) return error;
    // The node may just be found dead; one that lives and does not have it will not have it the next time.
    return record.home === undefined ? await this.#remake(record) : error;
  }

  /** Waits until an object has been made again, and is here. @returns Why it is not. */
  async #remake(record: ObjectRecord): Promise<RaydError | undefined> {
    const { id } = record;
    if (this.#closed) return lostError(id);
    if (!this.#tasks.has(taskOf(id))) {
      const why = this.#rebuild(record);
      if (why !== undefined) {
        return new ObjectLostError(`Object ${hex(id, true)} is lost with the node that had it, and ${why}`);
      }
    }
    // Of what came inside of another object: the task that puts it again will tell of it.
    if (record.foreign && record.home === undefined) this.#directory.unseal(record);
    if (record.outcome === undefined) {
      await new Promise<void>((resolve) => {
        const waiting = this.#remade.get(id);
        if (waiting === undefined) this.#remade.set(id, [resolve]);
        else waiting.push(resolve);
        this.#flush();
      });
    }
    this.#arriving.delete(id);
    // As an error, it is told as an outcome.
    return record.outcome?.kind === "stored" ? await this.#bring(record) : undefined;
  }

  async #pull(node: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined> {
    const error = await this.#options.abroad!.pull(node, id, size);
    // Nobody may have wanted it any more by the time it was here.
    if (error === undefined && this.#directory.get(id) === undefined) this.#store.delete(id);
    return error;
  }

  /** Makes room in the store. @returns What went wrong. */
  makeRoom(bytes: number): Promise<RaydError | undefined> {
    return this.#spiller.makeRoom(bytes);
  }

  /** Has an object's bytes in memory, for another node that wants them. @returns Whether they are. */
  async provide(id: ObjectId): Promise<boolean> {
    const record = this.#directory.get(id);
    if (record === undefined) return false;
    this.#directory.use(id);
    const error = await this.#bring(record);
    this.#directory.unuse(id);
    return error === undefined;
  }

  /** From the first object in the store on, memory is kept faulted in ahead of its use. */
  #stored(bytes: number): void {
    this.#spiller.stored(bytes);
    if (this.#prefaulting) return;
    this.#prefaulting = true;
    this.#store.prefault(Math.min(PREFAULT_BYTES, this.#store.capacity / 4));
  }

  #freed(record: ObjectRecord): void {
    if (record.outcome?.kind === "stored") this.#store.delete(record.id);
    this.#spiller.freed(record);
    this.#actors.freed(record.id);
    this.#cluster?.freed(record);
    this.#lineage.freed(record.id);
  }

  #collect(): void {
    for (const client of this.#clients.values()) {
      if (client.role !== undefined) this.#send(client, { type: "collect" });
    }
    this.#flush();
  }

  // --- Isolates and connections -------------------------------------------------------------------------------

  /** @param residents Of an isolate that is to carry actors. */
  #startIsolate(residents?: Residents): Isolate {
    const number = this.#nextIsolate++;
    // It may be gone before it is even known: the first timer of Deno 2.9 lets microtasks run.
    let goneEarly: string | undefined;
    const exited = (reason: string) => {
      const isolate = this.#isolates.get(number);
      if (isolate === undefined) goneEarly = reason;
      if (isolate === undefined || this.#closed) return;
      this.#options.log("warn", `Isolate ${number} died: ${reason}`);
      this.#endIsolate(isolate, true, reason);
      this.#flush();
    };
    const process = this.#options.isolates.start(number, exited);
    const isolate: Isolate = {
      number,
      process,
      client: undefined,
      executions: new Map(),
      cancelled: new Set(),
      freeSlots: Array.from({ length: CLAIM_SLOTS }, (_, i) => i),
      nextExecution: 0,
      residents,
      knownFunctions: new Set(),
      knownSettings: new Set(),
      cancelStart: this.#clock.after(ISOLATE_START_MS_MAX, () => {
        this.#options.log("error", `Isolate ${number} did not start within ${ISOLATE_START_MS_MAX} ms`);
        this.#endIsolate(isolate, true);
        this.#flush();
      }),
    };
    this.#isolates.set(number, isolate);
    if (goneEarly !== undefined) queueMicrotask(() => exited(goneEarly!));
    return isolate;
  }

  /** An isolate is gone, or is to go. @param charge Whether what it had started counts as failed. */
  #endIsolate(isolate: Isolate, charge: boolean, reason = "its isolate ended"): void {
    if (!this.#isolates.delete(isolate.number)) return;
    isolate.cancelStart();
    const started = new Set<TaskRecord>();
    for (const [handle, task] of isolate.executions) {
      const { slot } = task;
      const word = slot < CLAIM_SLOTS
        ? Atomics.load(isolate.process.claims, slot)
        : claimWord(handle, CLAIM_STARTED);
      if (word === claimWord(handle, CLAIM_STARTED)) started.add(task);
      task.execution = -1;
    }
    isolate.process.terminate();
    const { client } = isolate;
    if (isolate.residents !== undefined) {
      if (client !== undefined) {
        client.channel.close();
        this.#store.releaseClient(client.storeClient);
      }
      return this.#actors.isolateGone(isolate, reason, charge);
    }
    if (client === undefined) {
      this.#scheduler.spawnFailed();
      if (++this.#failedStarts >= FAILED_STARTS_MAX) return this.#giveUp();
    } else {
      client.channel.close();
      this.#store.releaseClient(client.storeClient);
    }
    this.#step({
      type: "isolateGone",
      isolate: isolate.number,
      started: (task) => started.has(task),
      charge,
      now: this.#now(),
    });
    if (this.#scheduler.isolates < this.#options.isolatesWarm && !this.#closed) {
      this.#scheduler.spawnStarted();
      this.#startIsolate();
    }
  }

  /** Isolates do not start here: no task will ever run. Whoever waits is told, and whoever comes. */
  #giveUp(): void {
    this.#broken = `${FAILED_STARTS_MAX} isolates in a row did not start on this node`;
    this.#options.log("error", `${this.#broken}: it fails all tasks`);
    for (const task of [...this.#tasks.values()]) if (!task.finished) this.#failBroken(task);
  }

  #failBroken(task: TaskRecord): void {
    const { name } = task.entry.settings;
    this.#step({ type: "removed", task, now: this.#now() });
    this.#dependencies.remove(task);
    this.#fail(task, new WorkerCrashedError(`Task ${name} cannot run: ${this.#broken}. Its log says why`));
  }

  #clientClosed(client: Client, error: RaydError | undefined): void {
    this.#clients.delete(client.id);
    client.cancelGreeting();
    if (this.#closed) return;
    if (error !== undefined && client.role !== "isolate") {
      this.#options.log(
        "warn",
        `Connection ${client.id} (${client.role ?? "not greeted"}) ended: ${error.message}`,
      );
    }
    if (client.role === "isolate") {
      const { isolate } = client;
      if (isolate !== undefined && this.#isolates.get(isolate.number) === isolate) {
        this.#options.log(
          "warn",
          `Isolate ${isolate.number} closed its connection${error ? `: ${error.message}` : ""}`,
        );
        this.#endIsolate(isolate, true, "it closed its connection");
      }
    } else if (client.role === "driver") {
      this.#drivers.delete(client.job);
      for (const task of [...this.#tasks.values()]) {
        if (task.job !== client.job || task.finished) continue;
        if (task instanceof CallRecord && task.createsDetached) continue;
        this.#stop(
          task,
          new TaskCancelledError(`The program that submitted task ${hex(task.id)} ended`),
          true,
          false,
        );
      }
      this.#actors.jobEnded(client.job);
      this.#cluster?.jobEnded(client.job);
    } else if (client.role === "peer") {
      for (const task of [...this.#tasks.values()]) {
        if (task.client !== client.id || task.finished) continue;
        this.#stop(task, new TaskCancelledError("The node that submitted the task is gone"), true, false);
      }
      this.#cluster!.peerDown(client);
    }
    this.#directory.clientGone(client.id);
    this.#flush();
  }

  #send(client: Client, message: Message): void {
    client.channel.send(message);
    if (!client.dirty) {
      client.dirty = true;
      this.#dirty.push(client);
    }
  }

  #flush(): void {
    this.#time = -1;
    this.#cluster?.tellAllHolds();
    for (const client of this.#dirty) {
      client.dirty = false;
      client.channel.flush();
    }
    this.#dirty.length = 0;
  }
}

/** Where a task is, in words. */
function stateOf(task: TaskRecord): string {
  switch (task.state) {
    case "new":
      return "waiting for its arguments";
    case "queued":
      return "queued";
    case "sent":
      return "running";
    case "suspended":
      return "waiting for other tasks";
    case "delegated":
      return "with another node";
    case "ended":
      return "ending";
    default:
      unreachable(task.state);
  }
}

function lost(object: ObjectId): Outcome {
  return { kind: "error", bytes: packError(lostError(object)) };
}

function lostError(object: ObjectId): ObjectLostError {
  return new ObjectLostError(
    `Object ${
      hex(object, true)
    } is lost: no Ref to it was left, so it was freed, or the node that had it is gone. Keep a Ref for as long as ` +
      `the value is needed`,
  );
}

/** Amounts added up, by name. */
function sum(
  first: Readonly<Record<string, number>>,
  others: readonly Readonly<Record<string, number>>[],
): Record<string, number> {
  const total: Record<string, number> = { ...first };
  for (const amounts of others) {
    for (const [name, n] of Object.entries(amounts)) total[name] = (total[name] ?? 0) + n;
  }
  return total;
}
