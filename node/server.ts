/**
 * The node: the daemon of a machine. Here it takes connections of programs, isolates and other nodes, and hands what they
 * say to its parts (`node/parts.ts`), which keep tasks and objects and perform what the pure machines decide. It never
 * unpacks a value: arguments and results pass through as bytes.
 *
 * A task's way: *submitted* → (waiting for objects) → ready → sent to an isolate → done. Its outcomes are sealed in
 * the object directory, pushed to whoever submitted it, and whatever waited for them goes on.
 *
 * Whatever a peer sends that is not of the protocol ends that peer's connection, and nothing else.
 *
 * @module
 */

import { type ActorSettings, creationSettings } from "../core/actor_options.ts";
import { ProtocolError, type RaydError, TaskCancelledError } from "../core/errors.ts";
import { hex, type ObjectId, type TaskId } from "../core/ids.ts";
import { GREETING_BYTES_MAX, GREETING_MS_MAX, HEIR_MS, MESSAGE_BYTES_MAX } from "../core/limits.ts";
import {
  ACTOR_EXECUTIONS,
  type FromPeer,
  type Message,
  type Outcome,
  PROTOCOL_VERSION,
  publishedHashes,
  type ToNode,
} from "../core/messages.ts";
import { unreachable } from "../core/unreachable.ts";
import { VERSION } from "../core/version.ts";
import type { NodeDescription, NodeLoad } from "../scheduler/global.ts";
import { pack } from "../store/serialize.ts";
import { type ByteStream, Channel } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";
import { decodeFromPeer, decodeToNode } from "../transport/codec.ts";
import { sameToken } from "../transport/token.ts";
import { CallRecord } from "./actor_records.ts";
import type { Cluster } from "./cluster.ts";
import type { Located } from "./far_actors.ts";
import type { MemoryUser } from "./memory_guard.ts";
import { packError } from "./outcomes.ts";
import { type NodeOptions, NodeParts } from "./parts.ts";
import type { Client, Outlet } from "./peers.ts";
import { answer, type NodeStats, stats } from "./questions.ts";
import type { FunctionEntry } from "./tasks.ts";

const DRAIN_LOOK_MS = 20;

/** How long a client waits to be told which node has an actor: longer than the control store is away if it comes back. */
const HOME_MS_MAX = 60_000;
const NO_BYTES = new Uint8Array(0);

/** One node. */
export class NodeServer {
  readonly #node: NodeParts;
  /** Other nodes as the control store knows them. */
  readonly #described = new Map<TaskId, NodeDescription>();
  #nextClient = 1;
  #cancelTick: () => void = () => {};

  /** @param options What the node is made of. */
  constructor(options: NodeOptions) {
    this.#node = new NodeParts(options);
    // One of a cluster waits for a program.
    if (options.abroad === undefined) this.#node.isolates.wake();
    this.#tick();
  }

  /** This node's dealings with others. */
  get cluster(): Cluster | undefined {
    return this.#node.cluster;
  }

  /**
   * Takes nothing new that others can take. Resolves when all that runs here has ended, and no actor is left; or at the
   * deadline.
   */
  async drain(deadlineMs: number): Promise<void> {
    if (this.#node.cluster !== undefined) this.#node.cluster.draining = true;
    const end = this.#node.clock.now() + deadlineMs;
    while (!this.#node.closed && this.#node.clock.now() < end) {
      const { queued, running, actors } = stats(this.#node);
      if (queued + running + actors === 0) return;
      await new Promise<void>((resolve) => this.#node.clock.after(DRAIN_LOOK_MS, resolve));
    }
  }

  /** The node's counters. */
  stats(): NodeStats {
    return stats(this.#node);
  }

  /** Makes room in the store. @returns What went wrong. */
  makeRoom(bytes: number): Promise<RaydError | undefined> {
    return this.#node.objects.makeRoom(bytes);
  }

  /** Has an object's bytes in memory, for another node that wants them. @returns Whether they are. */
  provide(id: ObjectId, what: "object" | "copy" = "object"): Promise<boolean> {
    return this.#node.objects.provide(id, what);
  }

  /** The processes that run tasks and actors, for whoever watches the memory. */
  memoryUsers(): (Omit<MemoryUser, "bytes"> & { readonly pid: number })[] {
    const users: (Omit<MemoryUser, "bytes"> & { readonly pid: number })[] = [];
    for (const { number, client, executions, residents } of this.#node.isolates.byNumber.values()) {
      if (client === undefined) continue;
      const tasks = [...executions.values()];
      const actors = [...residents?.actors ?? []];
      users.push({
        isolate: number,
        pid: client.pid,
        runs: [
          ...tasks.map(({ entry }) => entry.settings.name),
          ...actors.map(({ settings }) => settings.label),
        ],
        kind: residents === undefined ? "tasks" : "actors",
        again: tasks.every(({ failures, retries }) => failures < retries) &&
          actors.every(({ settings, restarts }) => restarts < settings.restarts),
        began: Math.max(0, ...tasks.map(({ sentMs }) => sentMs), ...actors.map(({ activeAt }) => activeAt)),
      });
    }
    return users;
  }

  /** Stops what runs in an isolate, as memory has run out. */
  stopForMemory(number: number, reason: string): void {
    const isolate = this.#node.isolates.byNumber.get(number);
    if (isolate === undefined) return;
    this.#node.options.log("warn", `Isolate ${number} is stopped: ${reason}`);
    for (const task of isolate.executions.values()) task.outOfMemory = reason;
    this.#node.isolates.end(isolate, true, reason);
    this.#node.flush();
  }

  /** How the node is loaded. */
  load(): NodeLoad {
    return {
      free: this.#node.pool.free(),
      lasting: this.#node.pool.lasting(),
      queued: this.#node.executions.scheduler.queued,
      meanMs: this.#node.meanMs,
    };
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
    this.#node.send(client, {
      type: "hello",
      role: "peer",
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      token: this.#node.options.token,
      isolate: 0,
      job: this.#node.options.id,
      storeClient: 0,
      pid: 0,
    });
    this.#node.flush();
  }

  #startPeer(stream: ByteStream): Client {
    const channel = new Channel<Message, FromPeer>(checked(stream), decodeFromPeer, "manual");
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
    this.#node.groups.look();
    this.#node.cluster?.balance();
    this.#node.flush();
  }

  #client(channel: Outlet): Client {
    const client: Client = {
      id: this.#nextClient++,
      channel,
      role: undefined,
      pid: 0,
      job: this.#node.options.id,
      behalfOfDriver: false,
      held: undefined,
      late: undefined,
      cancelGreeting: () => {},
      storeClient: 0,
      isolate: undefined,
      functions: new Map(),
      settings: new Map(),
      actors: new Map(),
      dirty: false,
    };
    this.#node.clients.set(client.id, client);
    channel.messageBytesMax = GREETING_BYTES_MAX;
    client.cancelGreeting = this.#node.clock.after(GREETING_MS_MAX, () => channel.close());
    return client;
  }

  /** Ends the node with everything that runs on it. */
  close(): void {
    if (this.#node.closed) return;
    this.#node.closed = true;
    this.#cancelTick();
    this.#node.objects.close();
    for (const isolate of this.#node.isolates.byNumber.values()) {
      isolate.cancelStart();
      isolate.process.terminate();
    }
    for (const client of this.#node.clients.values()) client.channel.close();
    for (const task of this.#node.tasks.values()) task.cancelTimeout?.();
    this.#node.store.close();
  }

  #tick(): void {
    this.#cancelTick = this.#node.clock.after(100, () => {
      if (this.#node.closed) return;
      this.#node.executions.step({ type: "tick", now: this.#node.now() });
      this.#node.actors.tick(this.#node.now());
      this.#node.groups.look();
      this.#node.isolates.look();
      this.#node.cluster?.balance();
      this.#node.flush();
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
        return this.#node.options.log("warn", `A peer refused the connection: ${message.reason}`);
      case "copy":
        return this.#node.copies.answered(client, message);
      case "result":
      case "turnedAway":
      case "object":
      case "answer":
      case "output":
        this.#node.cluster!.answered(client, message);
        break;
      default:
        this.#message(client, message);
    }
    this.#node.cluster!.introduced();
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
    const first = this.#node.cluster!.peerUp(
      client,
      this.#described.get(node) ?? { id: node, resources: {}, labels: {} },
    );
    if (!first) client.channel.close();
  }

  /** The control store has told of another node. */
  describe(description: NodeDescription): void {
    this.#described.set(description.id, description);
    this.#node.cluster?.describe(description);
    this.#node.flush();
  }

  /** The control store says that a node is gone: its connection is, whether it knows or not. */
  nodeGone(id: TaskId): void {
    this.#described.delete(id);
    for (const client of [...this.#node.clients.values()]) {
      if (client.role === "peer" && this.#node.cluster?.nodeOf(client.id) === id) client.channel.close();
    }
  }

  /** Actors that have waited for resources of this node for so long, in milliseconds, and can as well be on another. */
  crowdedOut(ms: number): Iterable<TaskId> {
    return this.#node.actors.crowdedOut(ms);
  }

  /** Actors that do not survive their node, and have waited for its resources without having been begun with, go elsewhere. */
  passOn(ms: number): void {
    const { actors, cluster } = this.#node;
    for (const actor of [...actors.neverBegun(ms)]) {
      const remote = cluster!.actors.roomFor(actor);
      if (remote !== undefined) cluster!.actors.pass(actor, actors.withdraw(actor), remote);
    }
    this.#node.flush();
  }

  /** Such an actor is not begun with any more. Resolves when the control store knows all that was done with it. */
  async holdBack(id: TaskId): Promise<void> {
    this.#node.actors.holdBack(id, true);
    await this.#node.actors.journals?.settled();
  }

  /** It stays here after all. */
  letBe(id: TaskId): void {
    this.#node.actors.holdBack(id, false);
    this.#node.flush();
  }

  /** Programs of other nodes that have actors here which end with them. */
  *farJobs(): Iterable<TaskId> {
    const { actors, programs } = this.#node;
    const jobs = new Set<TaskId>();
    for (const { job, state, settings } of actors.all()) {
      if (state === "dead" || settings.detached || programs.has(job) || jobs.has(job)) continue;
      jobs.add(job);
      yield job;
    }
  }

  /** Whether a program's requests have come from a node. */
  cameFrom(job: TaskId, node: TaskId): boolean {
    return this.#node.cluster?.nodeOf(this.#node.programs.homeOf(job) ?? -1) === node;
  }

  /** A program is gone, though its node has not said so: its actors end. */
  jobGone(job: TaskId): void {
    this.#node.actors.jobEnded(job);
    this.#node.flush();
  }

  /** Hashes of the code that actors of this node are made of. */
  codeInUse(): Iterable<string> {
    return new Set(
      Array.from(this.#node.actors.all()).filter(({ state }) => state !== "dead")
        .flatMap(({ creation }) => publishedHashes(creation.fn.address.load)),
    );
  }

  /** The control store says where an actor is that survives its node; or, without a place, that it is gone. */
  actorLocated(id: TaskId, located: Located | undefined): void {
    const { cluster, actors, restorer } = this.#node;
    cluster!.actors.located(id, located);
    if (located === undefined) {
      actors.recordGone(id);
      return this.#node.flush();
    }
    if (located.place.node !== hex(this.#node.options.id)) {
      if (!this.#node.faults.has("write-unfenced")) actors.movedAway(id, located.revision);
    } else if (located.place.moves > 0 && !actors.has(id)) restorer?.restore(id);
    this.#node.flush();
  }

  /** A program runs on some node: its tasks may come here. */
  programsRun(): void {
    this.#node.isolates.wake();
  }

  /** The control store says that a placement group is gone. */
  groupRemoved(id: string): void {
    this.#node.groups.removed(id);
    this.#node.flush();
  }

  /** All that this node has: also bundles that it offers. */
  resources(): Readonly<Record<string, number>> {
    return this.#node.pool.total();
  }

  /** A node has reported how it is loaded. */
  reported(id: TaskId, load: NodeLoad): void {
    this.#node.cluster?.report(id, load);
  }

  #message(client: Client, message: ToNode): void {
    if (client.held !== undefined) {
      client.held.push(message);
      return;
    }
    if (client.role === undefined) {
      if (message.type !== "hello") throw new ProtocolError(`Cannot take "${message.type}" before "hello"`);
      return this.#hello(client, message);
    }
    if (client.role === "observer" && message.type !== "ask") {
      throw new ProtocolError(`Cannot take "${message.type}" of one who only looks`);
    }
    switch (message.type) {
      case "submit":
        return this.#node.submissions.submit(client, message);
      case "delegate":
        return this.#node.submissions.delegated(client, message);
      case "call": {
        const { fn, entry } = this.#node.definitions.of(client, message);
        if (this.#node.submissions.ofCancelled(client, message, fn, entry)) return;
        if (client.role === "peer") this.#introduce(client, message);
        if (this.#node.cluster !== undefined) {
          if (
            client.role !== "driver" && !this.#node.actors.has(message.actor) &&
            this.#node.submissions.adopt(client, message)
          ) {
            return;
          }
          if (
            this.#node.cluster.actors.call(
              client,
              message,
              fn,
              entry,
              this.#node.programs.jobOf(client, message.parent),
            )
          ) return this.#argumentsThere(client, message);
        }
        this.#node.actors.call(client, message, fn, entry);
        return this.#argumentsThere(client, message);
      }
      case "behalf":
        return this.#node.programs.behalf(client, message.job, message.driver);
      case "publish":
        if (this.#node.options.abroad === undefined) {
          throw new ProtocolError("Cannot publish code: this node is alone");
        }
        return this.#node.options.abroad.publishCode(message.hash, message.code, client.job);
      case "jobEnded":
        return this.#node.programs.ended(message.job);
      case "done":
        if (message.handle >= ACTOR_EXECUTIONS) return this.#node.actors.done(client, message);
        return this.#node.executions.done(client, message);
      case "yielded":
        return this.#node.executions.yielded(client, message);
      case "release":
        return this.#node.directory.release(client.id, message.objects);
      case "retain":
        if (client.role === "peer") {
          this.#node.cluster!.actors.expectHere(message.objects);
          this.#node.rebuilder.expectHeld(message.objects);
        }
        return this.#node.directory.retain(client.id, message.objects);
      case "put":
        return this.#node.objects.put(client, message.object, message.outcome);
      case "expect":
        for (const object of message.objects) {
          if (this.#node.directory.get(object) === undefined) this.#node.directory.add(object, client.id);
        }
        return;
      case "subscribe":
        for (const object of message.objects) this.#node.objects.subscribe(client, object);
        return;
      case "seek":
        if (client.role !== "peer") throw new ProtocolError("Cannot seek copies: only a node can");
        return this.#node.copies.sought(client, message);
      case "blocked":
      case "unblocked": {
        const task = this.#node.submissions.execution(client, message.handle);
        if (task === undefined) return;
        if (message.type === "unblocked") this.#node.actors.resumed(task);
        if (task instanceof CallRecord) {
          if (message.type === "blocked") this.#node.actors.waiting(task, []);
          return;
        }
        return this.#node.executions.step({
          type: message.type === "blocked" ? "suspended" : "resumed",
          task,
          now: this.#node.now(),
        });
      }
      case "waiting": {
        const task = this.#node.submissions.execution(client, message.handle);
        if (task === undefined) return;
        this.#node.actors.waiting(task, message.objects);
        if (task instanceof CallRecord) return;
        return this.#node.executions.step({ type: "suspended", task, now: this.#node.now() });
      }
      case "createActor": {
        const { fn } = this.#node.definitions.of(client, message);
        const settings = client.actors.get(message.actor);
        if (settings === undefined) throw new ProtocolError(`No actor settings ${message.actor} are defined`);
        const peer = client.role === "peer";
        if (peer) this.#introduce(client, message);
        if (this.#node.cluster !== undefined && !this.#node.actors.has(message.task)) {
          if (settings.virtual && !peer) return this.#createVirtual(client, message, fn, settings);
          const back = peer ? this.#node.cluster.actors.creationBack(message.task) : undefined;
          if (back !== undefined) return this.#node.actors.create(client, message, fn, settings, back);
          if (client.role !== "driver" && this.#node.submissions.adopt(client, message)) return;
          const entry = this.#node.definitions.settings(creationSettings(settings.label, settings));
          const job = this.#node.programs.jobOf(client, message.parent);
          if (this.#node.cluster.actors.create(client, message, fn, entry, settings, job)) {
            return this.#argumentsThere(client, message);
          }
        }
        this.#node.actors.create(client, message, fn, settings);
        return this.#argumentsThere(client, message);
      }
      case "defineActor":
        client.actors.set(message.index, message.settings);
        return;
      case "killActor":
        if (this.#node.cluster?.actors.kill(message.actor, message.restart)) return;
        return this.#node.actors.kill(message.actor, message.restart);
      case "findActor":
        return this.#node.actors.find(client, message);
      case "awaitDeath":
        if (this.#node.cluster?.actors.awaitDeath(client, message.request, message.actor)) return;
        return this.#node.actors.awaitDeath(client, message.request, message.actor);
      case "keep":
        for (const call of message.calls) this.#node.actors.keep({ actor: message.actor, call });
        return;
      case "forget":
        for (const call of message.calls) this.#node.actors.forget({ actor: message.actor, call });
        return;
      case "bequeath":
        return this.#node.cluster?.bequeathed(client, message);
      case "defineFunction":
        client.functions.set(message.index, this.#node.definitions.function(message.address));
        return this.#awaitCode(client, message.address.load);
      case "defineSettings":
        client.settings.set(message.index, this.#node.definitions.settings(message.settings));
        return;
      case "consumed":
        return this.#node.executions.consumed(message.task, message.count);
      case "cancel": {
        const task = client.role === "peer" ? this.#node.tasks.get(message.task) : undefined;
        // It may be another's by now, whose submitter is another run of the peer's.
        if (task !== undefined && !this.#node.submissions.givenUp(client, task)) return;
        return this.#node.cancellations.cancel(message.task, message.force, message.recursive);
      }
      case "orphan": {
        if (client.role !== "peer") throw new ProtocolError("Cannot speak of orphans: only a node can");
        const task = this.#node.tasks.get(message.task);
        const others = task?.others?.some(({ client }) => this.#node.clients.has(client)) ?? false;
        if (task?.client === client.id && !others) this.#node.cancellations.orphan(task);
        return;
      }
      case "makeRoom":
        this.#node.objects.makeRoom(message.bytes).then((error) => {
          this.#node.send(client, {
            type: "room",
            request: message.request,
            error: error === undefined ? NO_BYTES : packError(error),
          });
          this.#node.flush();
        });
        return;
      case "ask":
        this.#node.send(client, {
          type: "answer",
          request: message.request,
          body: pack(answer(this.#node, message.topic)).toBytes().slice(),
        });
        return;
      case "group":
        return this.#node.groups.asked(client, message.request, message.body);
      case "keyValue":
        return this.#node.keyValues.asked(client, message.request, message.body);
      case "bundles":
        if (client.role !== "peer") throw new ProtocolError("Cannot speak of bundles: only a node can");
        return this.#node.groups.said(client, message.body);
      case "log": {
        const execution = this.#node.submissions.execution(client, message.handle);
        const actor = this.#node.actors.printed(
          client,
          execution instanceof CallRecord ? execution : undefined,
          message.text,
        );
        const { level, dropped, text } = message;
        const task = execution?.entry.settings.name ?? actor?.settings.label ?? "";
        return this.#node.programs.output({
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

  /**
   * An actor of `get(key)` is one in the whole cluster: where it is, or that it is to be here, is asked of the control store
   * before anything else of the client is looked at, so that order is kept.
   */
  #createVirtual(
    client: Client,
    message: Extract<ToNode, { type: "createActor" }>,
    fn: FunctionEntry,
    settings: ActorSettings,
  ): void {
    const { actors, definitions, options, programs } = this.#node;
    const cluster = this.#node.cluster!;
    const job = programs.jobOf(client, message.parent);
    const entry = definitions.settings(creationSettings(settings.label, settings));
    const at = (node: TaskId | undefined, moved = false) => {
      const isComing = moved && !actors.has(message.task);
      if (node !== options.id || isComing) {
        if (this.#node.submissions.adopt(client, message)) return; // it is under way already
        cluster.actors.createVirtual(node, client, message, fn, entry, settings, job);
      } else actors.create(client, message, fn, settings);
    };
    const known = cluster.actors.homeNode(message.task);
    if (known !== undefined) return at(known);
    // What can never be here goes to where it can be, as other actors do.
    if (!this.#node.pool.couldEverFit(entry.shape)) {
      if (!cluster.actors.create(client, message, fn, entry, settings, job)) at(options.id);
      return;
    }
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const cancel = this.#node.clock.after(HOME_MS_MAX, () => resolve(undefined));
    const home = Promise.race([options.abroad!.registry.virtualHome(message.task), late]).finally(cancel);
    this.#holdUntil(client, home, (found) => at(found?.node, found?.moved), () => at(undefined));
  }

  /** Looks at nothing that a client says until something is known. */
  #holdUntil<T>(
    client: Client,
    promise: Promise<T>,
    then: (value: T) => void,
    failed: (error: Error) => void,
  ): void {
    client.held ??= [];
    const goOn = (first: () => void) => {
      if (this.#node.closed || !this.#node.clients.has(client.id)) return;
      const held = client.held ?? [];
      client.held = undefined;
      first();
      for (const message of held) {
        if (client.held !== undefined) (client.held as FromPeer[]).push(message);
        else if (client.role === "peer") this.#peerMessage(client, message);
        else this.#message(client, message as ToNode);
      }
      this.#drained();
    };
    promise.then((value) => goOn(() => then(value)), (error: Error) => goOn(() => failed(error)));
  }

  /** What a peer's request refers to has its home there, if it is not known here. */
  #introduce(
    client: Client,
    { dependencies, args }: { readonly dependencies: readonly ObjectId[]; readonly args: Outcome },
  ): void {
    const cluster = this.#node.cluster!;
    for (const object of dependencies) cluster.introduce(client, object, undefined);
    cluster.introduceAll(client, args);
  }

  /** Large arguments of what a peer asks for lie in the peer's store. */
  #argumentsThere(client: Client, { task, args }: { readonly task: TaskId; readonly args: Outcome }): void {
    if (client.role === "peer" && args.kind === "stored") {
      this.#node.cluster!.introduceArguments(client, task);
    }
  }

  /** Functions are only there when their code is: until then nothing of the client is looked at. */
  #awaitCode(client: Client, load: string): void {
    const { abroad } = this.#node.options;
    if (abroad === undefined || client.role !== "peer") return;
    const missing = publishedHashes(load).filter((hash) => !abroad.hasCode(hash));
    if (missing.length === 0) return;
    this.#holdUntil(
      client,
      Promise.all(missing.map((hash) => abroad.fetchCode(hash))),
      () => {},
      (error) => {
        this.#node.options.log("error", `Code ${load} cannot be had: ${error.message}`);
        client.channel.close();
      },
    );
  }

  #hello(client: Client, hello: Extract<ToNode, { type: "hello" }>): void {
    const refuse = (reason: string) => {
      this.#node.options.log("warn", `Refused a connection: ${reason}`);
      this.#node.dismiss(client, { type: "refused", reason });
    };
    if (!sameToken(hello.token, this.#node.options.token)) return refuse("the token is wrong");
    if (hello.protocol !== PROTOCOL_VERSION || hello.version !== VERSION) {
      return refuse(
        `the node is rayd ${VERSION} (protocol ${PROTOCOL_VERSION}), the program is rayd ${hello.version} ` +
          `(protocol ${hello.protocol}); use the same version on both sides`,
      );
    }
    client.storeClient = hello.storeClient;
    client.pid = hello.pid;
    this.#greeted(client);
    if (hello.role === "peer") {
      if (this.#node.cluster === undefined) return refuse("this node is alone");
      this.#node.send(client, { type: "welcome", node: this.#node.options.id });
      return this.#peerUp(client, hello.job);
    }
    if (hello.role === "observer") {
      client.role = "observer";
      return this.#node.send(client, { type: "welcome", node: this.#node.options.id });
    }
    if (hello.role === "isolate") {
      const isolate = this.#node.isolates.byNumber.get(hello.isolate);
      if (isolate === undefined || isolate.client !== undefined) {
        return refuse(`there is no isolate ${hello.isolate}`);
      }
      client.role = "isolate";
      client.isolate = isolate;
      isolate.client = client;
      isolate.cancelStart();
      this.#node.isolates.failedStarts = 0;
      this.#node.send(client, { type: "welcome", node: this.#node.options.id });
      if (isolate.residents !== undefined) this.#node.actors.isolateReady(isolate);
      else {this.#node.executions.step({
          type: "isolateReady",
          isolate: isolate.number,
          now: this.#node.now(),
        });}
    } else {
      client.role = "driver";
      if (!this.#node.programs.connected(client, hello.job)) {
        return refuse(`job ${hex(hello.job)} is running already`);
      }
      this.#node.send(client, { type: "welcome", node: this.#node.options.id });
    }
  }

  #clientClosed(client: Client, error: RaydError | undefined): void {
    this.#node.clients.delete(client.id);
    this.#node.keyValues.clientGone(client.id);
    client.cancelGreeting();
    if (this.#node.closed) return;
    if (error !== undefined && client.role !== "isolate") {
      this.#node.options.log(
        "warn",
        `Connection ${client.id} (${client.role ?? "not greeted"}) ended: ${error.message}`,
      );
    }
    if (client.role === "isolate") {
      const { isolate } = client;
      if (isolate !== undefined && this.#node.isolates.byNumber.get(isolate.number) === isolate) {
        this.#node.options.log(
          "warn",
          `Isolate ${isolate.number} closed its connection${error ? `: ${error.message}` : ""}`,
        );
        this.#node.isolates.end(isolate, true, "it closed its connection");
      }
    } else if (client.role === "driver") {
      this.#node.programs.gone(client);
    } else if (client.role === "peer") {
      const gone = new TaskCancelledError("The node that submitted the task is gone");
      for (const task of [...this.#node.tasks.values()]) {
        if (task.finished || !this.#node.submissions.givenUp(client, task)) continue;
        // Who made the call of a durable actor may be run again, and gets the answer then.
        if (task instanceof CallRecord && task.state !== "delegated") {
          if (task.actor.journal !== undefined) continue;
          task.answers = undefined; // this is none
          this.#node.cancellations.stop(task, gone, true, false);
        } else this.#node.cancellations.abandon(task, gone);
      }
      const node = this.#node.cluster!.nodeOf(client.id);
      this.#node.cluster!.peerDown(client);
      this.#node.copies.gone(client);
      if (node !== undefined) this.#node.options.abroad!.peerLost(node);
      if (node !== undefined) this.#node.groups.peerDown(client, node);
      if (node !== undefined) {
        this.#keepForHeirs(client, node);
        return this.#node.flush();
      }
    }
    this.#node.directory.clientGone(client.id);
    this.#node.flush();
  }

  /**
   * A peer is gone. What its actors refer to is needed where they go on; and actors that it had handles of are not let go of
   * at once, for it may only have lost its connection, or those who go on in its place want them.
   */
  #keepForHeirs(client: Client, node: TaskId): void {
    const { directory, actors, clock } = this.#node;
    if (!this.#node.cluster!.actors.anyOn(node)) {
      const kept = [...actors.all()].filter(({ state, journal }) =>
        state !== "dead" && journal !== undefined
      );
      this.#node.holdForHeirs(kept.map(({ id }) => id as string as ObjectId));
      return directory.clientGone(client.id);
    }
    clock.after(HEIR_MS, () => {
      if (this.#node.closed) return;
      directory.clientGone(client.id);
      this.#node.flush();
    });
  }
}
