/**
 * The isolate's side of a task: takes executions from the node, finds the function, runs it, and sends back what came
 * of it.
 *
 * Executions arrive in batches, ahead of need. Each is *claimed* before it starts, by an atomic exchange in a table
 * shared with the node, so that the node can take back what has not started. Synchronous functions run one after the
 * other without a turn of the event loop between; results leave together, but no result waits for a task that takes
 * long.
 *
 * @module
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { assert } from "../core/assert.ts";
import { ANCHOR, baseName } from "../core/bundles.ts";
import type { Clock } from "../core/clock.ts";
import {
  errorFromRecord,
  errorToRecord,
  RaydError,
  SerializationError,
  TaskError,
  UsageError,
} from "../core/errors.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { argumentsId, hex, type ObjectId, returnId, type TaskId } from "../core/ids.ts";
import { CLAIM_SLOTS, STREAM_WINDOW_ITEMS } from "../core/limits.ts";
import {
  CLAIM_QUEUED,
  CLAIM_STARTED,
  claimWord,
  CODE,
  type FromNode,
  type FunctionAddress,
  type Outcome,
  publishedHashes,
} from "../core/messages.ts";
import { RESOURCE_UNIT, type TaskSettings } from "../core/options.ts";
import type { TaskEnvironment } from "../node/config.ts";
import type { StoredView } from "../store/object_store.ts";
import { pack } from "../store/serialize.ts";
import { ActorHost } from "./actor_host.ts";
import { collectGarbage } from "./collect.ts";
import { NO_ENVIRONMENT, unpackEnvironment } from "./environment.ts";
import type { Client } from "./client.ts";
import { type Scope, scopeOf } from "./scope.ts";
import { showGpus } from "./gpus.ts";
import type { Handle } from "./handle.ts";
import { Entry } from "./ref.ts";
import { find, isBuiltIn, namesOf, setLoading } from "./registry.ts";

/** What a task can learn about itself. */
export interface TaskContext {
  /** The task's id: 32 hexadecimal digits. */
  readonly taskId: string;
  /** The id of the job that the task belongs to: 32 hexadecimal digits. */
  readonly jobId: string;
  /** The id of the node that it runs on: 32 hexadecimal digits. */
  readonly nodeId: string;
  /** The number of the isolate that it runs in. */
  readonly workerId: number;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
  /** The task's name. */
  readonly name: string;
  /** The resources that it holds, by name. */
  readonly resources: Readonly<Record<string, number>>;
  /** The ids of the GPUs that it holds. */
  readonly gpuIds: readonly number[];
  /** The variables that its program brought along (`rayd run --env NAME=VALUE`), by name. */
  readonly env: Readonly<Record<string, string>>;
  /** Where the files are that its program brought along (`rayd run --working-dir DIR`); not to be written to. */
  readonly workingDirectory: string | undefined;
  /** Aborts when the task is cancelled or out of time. */
  readonly signal: AbortSignal;
  /** In a method of an actor: the actor's id, 32 hexadecimal digits. */
  readonly actorId: string | undefined;
  /** In a method of an actor: the name that it is registered under, if any. */
  readonly actorName: string | undefined;
  /**
   * In a method of a durable actor: the call ran before, and runs again to rebuild the actor's state. What it does to the
   * outside world was done already, or, if the actor's machine is gone, may have been.
   */
  readonly replaying: boolean;
}

/** What every kind of execution is told. */
export type ExecutionMessage = Pick<
  Extract<FromNode, { type: "execute" }>,
  "handle" | "attempt" | "task" | "job" | "fn" | "gpus" | "dependencies" | "args"
>;

/** What is different about an execution that belongs to an actor. */
export interface Hosted {
  /** The actor. */
  readonly instance: {
    readonly id: TaskId;
    readonly settings: ActorSettings;
    readonly handle: () => Handle;
    /** The class, by its number. */
    readonly fn: number;
  };
  /** It ran before, in an instance that is gone. */
  readonly replaying: boolean;
  /** Nobody wants its result, though its failure. */
  readonly silent: boolean;
  /** The id of what it returns, if not the task's own. */
  readonly result: ObjectId | undefined;
  /** Told when it has ended. */
  ended(): void;
}

/** One execution. */
export class Execution {
  readonly message: ExecutionMessage;
  readonly hosted: Hosted | undefined;
  /** The values of its dependencies. */
  resolved: readonly unknown[] = [];
  readonly settings: TaskSettings;
  readonly scope: Scope;
  readonly executor: Executor;
  started = 0;
  consumed = 0;
  wakeGenerator: (() => void) | undefined;
  abortReason: string | undefined;
  place: Place | undefined;
  #controller: AbortController | undefined;
  #context: TaskContext | undefined;

  constructor(executor: Executor, message: ExecutionMessage, settings: TaskSettings, hosted?: Hosted) {
    this.executor = executor;
    this.hosted = hosted;
    this.message = message;
    this.settings = settings;
    const { handle } = message;
    this.scope = scopeOf(
      message.task,
      (objects) => executor.suspended(this, handle, objects),
      () => executor.resumed(this, handle),
    );
    this.scope.calls = hosted !== undefined;
  }

  abort(reason: string): void {
    this.abortReason = reason;
    this.#controller?.abort(new DOMException(reason, "AbortError"));
    this.wakeGenerator?.();
  }

  get context(): TaskContext {
    if (this.#context !== undefined) return this.#context;
    const controller = this.#controller = new AbortController();
    if (this.abortReason !== undefined) controller.abort(new DOMException(this.abortReason, "AbortError"));
    const { message, executor, hosted } = this;
    const { name } = this.settings;
    const { env, workingDirectory } = executor.environmentOf(hosted?.instance.fn ?? message.fn);
    const { demand } = hosted?.instance.settings ?? this.settings;
    return this.#context = {
      taskId: hex(message.task),
      jobId: hex(message.job),
      nodeId: executor.nodeId(),
      workerId: executor.isolate,
      attempt: message.attempt,
      name,
      resources: Object.fromEntries(
        Object.entries(demand).filter(([name]) => baseName(name) !== ANCHOR)
          .map(([name, n]) => [baseName(name), n / RESOURCE_UNIT]),
      ),
      gpuIds: message.gpus,
      env,
      workingDirectory,
      actorId: hosted === undefined ? undefined : hex(hosted.instance.id),
      actorName: hosted === undefined ? undefined : hosted.instance.settings.name || undefined,
      replaying: hosted?.replaying ?? false,
      signal: controller.signal,
    };
  }
}

/** The context of the task that calls, if a task does. */
export function taskContext(): TaskContext | undefined {
  return current.getStore()?.execution?.context;
}

/** What the actor is whose method, or constructor, calls; if one does. */
export function hostedContext(): Hosted | undefined {
  return current.getStore()?.execution?.hosted;
}

/** The scope of the task that calls, if a task does. */
export function taskScope(): Scope | undefined {
  return current.getStore()?.execution?.scope;
}

/** The execution handle of the task that calls; for its console output. */
export function taskHandle(): number | undefined {
  return current.getStore()?.execution?.message.handle;
}

/**
 * An asynchronous context that executions use one after the other. Entering a new context costs 500 ns and a weak map
 * entry that lives until a full collection; going back to a known one, 20 ns. The oldest context is used again first,
 * and only when there is a stock of them, so what a task left running behind is unlikely to be taken for another task:
 * it finds its context empty.
 */
class Place {
  execution: Execution | undefined;
  /** Calls a function within this context. */
  readonly run: (fn: (...args: unknown[]) => unknown, ...args: unknown[]) => unknown;

  constructor() {
    this.run = SNAPSHOTS_ARE_CHEAP
      ? current.run(this, () => AsyncLocalStorage.snapshot()) as Place["run"]
      : (fn, ...args) => current.run(this, fn, ...args);
  }
}

const current = new AsyncLocalStorage<Place>();

/** Contexts that are free before the oldest is used again. */
const PLACES_SPARE = 64;

/** Measured: 20 ns against 500 ns of a `run` on Deno 2.6.10, 1000 ns against 340 ns on 2.9.8. */
const SNAPSHOTS_ARE_CHEAP = /^2\.[0-6]\./.test(Deno.version.deno);

/** How long finished results may wait for further ones before they leave. */
const RESULT_DELAY_MS = 0.3;

/** Outcomes that an isolate remembers for what is chained to them; twice the tasks that can be sent ahead. */
const RECENT_OUTCOMES = 128;

/** Objects that a waiting call tells its node of, for circles to be found. */
const WAITS_TOLD_MAX = 64;

/** How long an isolate must have been idle before it tidies up; if it never is for so long, it does so after the other. */
const REST_MS = 100, REST_MS_MAX = 5_000;

/** Runs what the node sends to this isolate. */
export class Executor {
  readonly #client: Client;
  readonly #claims: Int32Array;
  readonly #clock: Clock;
  readonly isolate: number;
  readonly #addresses = new Map<number, FunctionAddress>();
  readonly #settings = new Map<number, TaskSettings>();
  readonly #functions = new Map<number, (...args: unknown[]) => unknown>();
  readonly #imports = new Map<string, Promise<void>>();
  #importing: Promise<void> = Promise.resolve();
  readonly #codeDirectory: string;
  /** What tasks find of variables and files, by what they were loaded from; and of an embedded node. */
  readonly #environments = new Map<string, TaskEnvironment>();
  readonly #environment: TaskEnvironment;
  #queue: Extract<FromNode, { type: "execute" }>[] = [];
  readonly #running = new Map<number, Execution>();
  readonly #places: Place[] = [];
  readonly #actors: ActorHost;
  readonly #recentIds: ObjectId[] = [];
  readonly #recentOutcomes: Outcome[] = [];
  #nextRecent = -1;
  /** Running and not suspended. */
  #active = 0;
  #flushedAt = 0;
  #flushesLater = false;
  /** When the last execution began. */
  #startedAt = 0;
  #draining = false;
  #resting = false;

  /** @param client The connection. @param claims The table shared with the node. */
  constructor(
    client: Client,
    claims: Int32Array,
    clock: Clock,
    isolate: number,
    codeDirectory = "",
    environment: TaskEnvironment = NO_ENVIRONMENT,
  ) {
    this.#environment = environment;
    this.#client = client;
    this.#codeDirectory = codeDirectory;
    this.#claims = claims;
    this.#clock = clock;
    this.isolate = isolate;
    this.#actors = new ActorHost({
      client,
      class: (index) => this.#load(index),
      address: (index) => this.#addresses.get(index),
      run: (message, settings, hosted, fn) => this.#host(message, settings, hosted, fn),
    });
  }

  /** The node's id, for people. */
  nodeId(): string {
    return this.#client.node === undefined ? "" : hex(this.#client.node);
  }

  /** What a task of this function, or an actor of this class, finds of variables and files. */
  environmentOf(fn: number): TaskEnvironment {
    const load = this.#addresses.get(fn)?.load;
    return load === undefined ? this.#environment : this.#environments.get(load) ?? this.#environment;
  }

  /** Takes a message that is meant for an isolate. */
  message(message: FromNode): void {
    switch (message.type) {
      case "execute":
        this.#queue.push(message);
        return;
      case "defineFunction":
        this.#addresses.set(message.index, message.address);
        return;
      case "defineSettings":
        this.#settings.set(message.index, message.settings);
        return;
      case "constructActor":
        return this.#actors.construct(message, this.#settings.get(message.settings)!);
      case "executeCall":
        return this.#actors.call(message, this.#settings.get(message.settings)!);
      case "checkpointActor":
      case "stopActor":
      case "defineActor":
        return this.#actors.message(message);
      case "abort": {
        const execution = this.#running.get(message.handle);
        if (execution !== undefined) execution.abort(message.reason);
        else this.#actors.abort(message.handle);
        return;
      }
      case "consumed":
        for (const execution of this.#running.values()) {
          if (execution.message.task !== message.task) continue;
          execution.consumed = Math.max(execution.consumed, message.count);
          execution.wakeGenerator?.();
        }
        return;
      default:
        return;
    }
  }

  /** Starts what may start. Called after each batch of messages, and whenever a running task makes way. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    try {
      while (this.#queue.length > 0 && this.#active < this.#queue[0]!.concurrency) {
        const batch = this.#queue;
        const message = batch.length === 1 ? batch.pop()! : batch.shift()!;
        this.#start(message);
      }
      this.#actors.drain();
    } finally {
      this.#draining = false;
    }
    this.#flush();
    if (this.#running.size === 0) this.#rest();
  }

  /**
   * With nothing to do: what finished tasks have read is let go of, which no garbage collector would see to. Looking for
   * it takes as long as hundreds of short calls, so where those keep coming, it is rarely done.
   */
  #rest(): void {
    if (this.#resting || this.#client.store.pinnedViews === 0) return;
    this.#resting = true;
    const busySince = this.#clock.now();
    const rest = () => {
      const now = this.#clock.now();
      if (this.#running.size === 0 && now - this.#startedAt < REST_MS && now - busySince < REST_MS_MAX) {
        this.#clock.after(REST_MS, rest);
        return;
      }
      this.#resting = false;
      if (this.#running.size === 0) collectGarbage(this.#clock);
    };
    this.#clock.after(REST_MS, rest);
  }

  /** The node is told that an execution waits; its place goes to another one. */
  suspended(execution: Execution, handle: number, objects?: readonly Entry[]): void {
    if (objects === undefined) this.#client.send({ type: "blocked", handle });
    else {
      const missing = objects.filter((entry) => entry.outcome === undefined).slice(0, WAITS_TOLD_MAX);
      this.#client.send({ type: "waiting", handle, objects: missing.map((entry) => entry.id) });
    }
    if (execution.hosted !== undefined) return;
    this.#active--;
    if (!this.#draining) queueMicrotask(() => this.drain());
  }

  /** The node is told that an execution goes on. */
  resumed(execution: Execution, handle: number): void {
    if (this.#running.get(handle) !== execution) return;
    this.#client.send({ type: "unblocked", handle });
    if (execution.hosted === undefined) this.#active++;
  }

  #start(message: Extract<FromNode, { type: "execute" }>): void {
    if (!this.#claim(message)) return;
    const now = this.#clock.now();
    if (now - this.#flushedAt > RESULT_DELAY_MS) this.#flush(now);
    const execution = new Execution(this, message, this.#settings.get(message.settings)!);
    execution.started = this.#startedAt = now;
    this.#running.set(message.handle, execution);
    this.#active++;
    const fn = this.#functions.get(message.fn);
    try {
      const args = fn === undefined ? undefined : this.#argumentsNow(execution);
      if (fn === undefined || args === undefined) {
        this.#startLater(execution, message.fn);
        return;
      }
      this.#run(execution, fn, args);
    } catch (error) {
      this.#failed(execution, error);
    }
  }

  /** Runs something of an actor's. */
  #host(
    message: ExecutionMessage,
    settings: TaskSettings,
    hosted: Hosted,
    fn: (execution: Execution) => (...args: unknown[]) => unknown,
  ): void {
    const now = this.#clock.now();
    if (now - this.#flushedAt > RESULT_DELAY_MS) this.#flush(now);
    const execution = new Execution(this, message, settings, hosted);
    execution.started = this.#startedAt = now;
    this.#running.set(message.handle, execution);
    try {
      const args = this.#argumentsNow(execution);
      if (args !== undefined) this.#run(execution, fn(execution), args);
      else {
        (this.#placeOf(execution).run(() => this.#arguments(execution)) as Promise<unknown[]>).then(
          (args) => this.#run(execution, fn(execution), args),
        ).catch((error) => this.#failed(execution, error)).finally(() => this.drain());
      }
    } catch (error) {
      this.#failed(execution, error);
    }
  }

  #claim({ slot, handle }: { slot: number; handle: number }): boolean {
    if (slot >= CLAIM_SLOTS) return true;
    const queued = claimWord(handle, CLAIM_QUEUED);
    return Atomics.compareExchange(this.#claims, slot, queued, claimWord(handle, CLAIM_STARTED)) === queued;
  }

  /** Starts an execution for which something must be fetched first: its module, or objects that were spilled. */
  async #startLater(execution: Execution, index: number): Promise<void> {
    try {
      const fn = this.#functions.get(index) ?? await this.#load(index);
      // Waiting for arguments is the task's own waiting: it lends its CPUs.
      const args = this.#argumentsNow(execution) ??
        await this.#placeOf(execution).run(() => this.#arguments(execution));
      this.#run(execution, fn, args as unknown[]);
    } catch (error) {
      this.#failed(execution, error);
    }
    this.drain();
  }

  /** Imports the module that declares a function. */
  async #load(index: number): Promise<(...args: unknown[]) => unknown> {
    const { load, module, name } = this.#addresses.get(index)!;
    let loading = this.#imports.get(load);
    if (loading === undefined) {
      loading = isBuiltIn(load) ? Promise.resolve() : this.#import(load);
      this.#imports.set(load, loading);
    }
    try {
      await loading;
    } catch (error) {
      throw error instanceof RaydError ? error : new ImportFailed(module, error);
    }
    const declared = find(load, module, name);
    if (declared === undefined) {
      const names = namesOf(module);
      throw new UsageError(
        `Cannot find remote function "${name}" in ${module}: importing the module declares ` +
          `${
            names.length === 0 ? "none" : names.join(", ")
          }. Declare it at the module's top level, not under a ` +
          `condition such as import.meta.main`,
      );
    }
    this.#functions.set(index, declared.fn);
    return declared.fn;
  }

  /** Imports code, one at a time, so that it is known whose declarations they are. */
  #import(load: string): Promise<void> {
    if (!load.startsWith(CODE)) return import(load).then(() => {});
    const importing = this.#importing.then(async () => {
      const [code, environment] = publishedHashes(load);
      const path = `${this.#codeDirectory}/${code}.mjs`;
      if (environment !== undefined) {
        const packet = `${this.#codeDirectory}/${environment}`;
        this.#environments.set(load, unpackEnvironment(`${packet}.mjs`, `${packet}.files`));
      }
      setLoading(load);
      try {
        // The same code with another environment is another module.
        await import(`file://${path}${environment === undefined ? "" : `?environment=${environment}`}`);
      } finally {
        setLoading(undefined);
      }
    });
    this.#importing = importing.catch(() => {});
    return importing;
  }

  /**
   * The arguments, if all that they need is here; otherwise `undefined`.
   *
   * @param fetched Outcomes that were not here at first.
   */
  #argumentsNow(execution: Execution, fetched?: ReadonlyMap<ObjectId, Outcome>): unknown[] | undefined {
    const { message, scope } = execution;
    const resolved: unknown[] = [];
    for (const { object, outcome: sent } of message.dependencies) {
      // What was asked for again may be lost since it was sent.
      const outcome = fetched?.get(object) ?? sent ?? this.#recentOutcome(object);
      if (outcome?.kind === "error") throw new DependencyFailed(outcome.bytes);
      const now = this.#client.valueNow(entryFor(object, outcome), scope);
      if (now === undefined) return undefined;
      resolved.push(now.value);
    }
    if (execution.hosted !== undefined) execution.resolved = resolved;
    const { args } = message;
    if (args.kind === "inline") return this.#client.unpackArguments(args.bytes, resolved);
    const id = argumentsId(message.task);
    const lost = fetched?.get(id) ?? args;
    if (lost.kind === "error") throw errorFromRecord(this.#client.readError(lost.bytes));
    const view = this.#client.view(id);
    if (view === undefined) return undefined;
    try {
      return this.#client.unpackArguments(view.bytes, resolved, view.share);
    } finally {
      view.release();
    }
  }

  /** The arguments, once all that they need is here: asked for, brought back from disk, and held in memory. */
  async #arguments(execution: Execution): Promise<unknown[]> {
    const { dependencies, args, task } = execution.message;
    const entries = dependencies.map(({ object, outcome }) =>
      entryFor(object, outcome ?? this.#recentOutcome(object))
    );
    if (args.kind === "stored") entries.push(entryFor(argumentsId(task), args));
    const missing = entries.filter((entry) => entry.outcome === undefined);
    const fetched = new Map<ObjectId, Outcome>();
    const views: StoredView[] = [];
    try {
      await this.#client.waitFor(missing, Infinity);
      for (const entry of entries) {
        while (entry.outcome?.kind === "stored") {
          const view = this.#client.store.get(entry.id);
          if (view !== undefined) {
            views.push(view);
            break;
          }
          entry.outcome = undefined;
          await this.#client.waitFor([entry], Infinity);
        }
        fetched.set(entry.id, entry.outcome!);
      }
      const values = this.#argumentsNow(execution, fetched);
      assert(values !== undefined, "arguments are missing that were all fetched");
      return values;
    } finally {
      for (const view of views) view.release();
    }
  }

  #run(execution: Execution, fn: (...args: unknown[]) => unknown, args: unknown[]): void {
    const place = this.#placeOf(execution);
    showGpus(execution.message.gpus);
    if (execution.settings.stream) {
      place.run(() => this.#stream(execution, fn, args));
      return;
    }
    let result: unknown;
    try {
      result = args.length === 1 ? place.run(fn, args[0]) : place.run(fn, ...args);
    } catch (error) {
      return this.#failed(execution, error);
    }
    if (isThenable(result)) {
      result.then(
        (value) => {
          this.#returned(execution, value);
          this.drain();
        },
        (error) => {
          this.#failed(execution, error);
          this.drain();
        },
      );
    } else this.#returned(execution, result);
  }

  /** The asynchronous context of an execution. */
  #placeOf(execution: Execution): Place {
    if (execution.place !== undefined) return execution.place;
    const place = execution.place = this.#places.length > PLACES_SPARE ? this.#places.shift()! : new Place();
    place.execution = execution;
    return place;
  }

  #returned(execution: Execution, value: unknown): void {
    const { message, settings, hosted } = execution;
    if (hosted?.silent) return this.#done(execution, [], false);
    try {
      if (settings.returns === 1) {
        const id = hosted?.result ?? returnId(message.task, 0);
        const outcome = this.#client.outcomeNow(
          id,
          value,
          hosted?.result === undefined ? "return value" : "state",
        );
        if (outcome instanceof Promise) {
          outcome.then(
            (stored) => this.#done(execution, [stored], false),
            (error) => this.#failed(execution, error),
          );
        } else this.#done(execution, [outcome], false);
        return;
      }
      if (!Array.isArray(value) || value.length !== settings.returns) {
        const got = Array.isArray(value) ? `an array of ${value.length}` : typeof value;
        throw new UsageError(
          `Task ${settings.name} has returns: ${settings.returns}, so its function must return an array of as many ` +
            `values; it returned ${got}`,
        );
      }
      const outcomes = value.map((item, i) =>
        this.#client.outcomeNow(returnId(message.task, i), item, `return value[${i}]`)
      );
      if (!outcomes.some((outcome) => outcome instanceof Promise)) {
        return this.#done(execution, outcomes as Outcome[], false);
      }
      Promise.all(outcomes).then(
        (all) => this.#done(execution, all, false),
        (error) => this.#failed(execution, error),
      );
    } catch (error) {
      this.#failed(execution, error);
    }
  }

  /** Runs a generator and sends its items, never more than a window ahead of the consumer. */
  async #stream(execution: Execution, fn: (...args: unknown[]) => unknown, args: unknown[]): Promise<void> {
    const { message, scope } = execution;
    const silent = execution.hosted?.silent ?? false;
    let count = 0;
    try {
      for await (const item of fn(...args) as AsyncIterable<unknown>) {
        count++;
        if (silent) continue;
        const outcome = await this.#client.outcomeNow(returnId(message.task, count), item, `item ${count}`);
        this.#client.send({ type: "yielded", handle: message.handle, index: count, outcome });
        if (this.#clock.now() - this.#flushedAt > RESULT_DELAY_MS) this.#flush();
        else this.#flushLater();
        while (count - execution.consumed >= STREAM_WINDOW_ITEMS && execution.abortReason === undefined) {
          if (scope.waits++ === 0) scope.blocked?.();
          this.#flush();
          await new Promise<void>((resolve) => execution.wakeGenerator = resolve);
          if (--scope.waits === 0) scope.unblocked?.();
        }
        if (execution.abortReason !== undefined) break;
      }
      this.#done(
        execution,
        [this.#client.outcomeNow(returnId(message.task, 0), count, "count") as Outcome],
        false,
      );
    } catch (error) {
      this.#failed(execution, error);
    }
    this.drain();
  }

  /** The outcome of a task that has ended here lately: what is chained to it finds it here. */
  #recentOutcome(object: ObjectId): Outcome | undefined {
    const at = this.#recentIds.indexOf(object);
    return at < 0 ? undefined : this.#recentOutcomes[at];
  }

  #remember(object: ObjectId, outcome: Outcome): void {
    const at = this.#nextRecent = (this.#nextRecent + 1) % RECENT_OUTCOMES;
    this.#recentIds[at] = object;
    this.#recentOutcomes[at] = outcome;
  }

  #failed(execution: Execution, error: unknown): void {
    const { message, settings } = execution;
    if (error instanceof DependencyFailed) {
      const { bytes } = error;
      return this.#done(
        execution,
        Array.from({ length: settings.returns }, () => ({ kind: "error", bytes })),
        false,
      );
    }
    const { name: task } = settings;
    const record = error instanceof RaydError && !(error instanceof TaskError) && !isUsers(error)
      ? errorToRecord(error)
      : errorToRecord(taskError(error, { task, taskId: hex(message.task), attempt: message.attempt }));
    let bytes: Uint8Array;
    try {
      bytes = pack(record).toBytes();
    } catch {
      // What was thrown cannot be carried: its text can.
      const { cause: _, ...rest } = record;
      bytes = pack(rest).toBytes();
    }
    const { retryOn } = settings;
    const name = error instanceof Error ? error.name : typeof error;
    const retry = execution.abortReason === undefined &&
      (retryOn === true || Array.isArray(retryOn) && retryOn.includes(name));
    this.#done(execution, Array.from({ length: settings.returns }, () => ({ kind: "error", bytes })), retry);
  }

  #done(execution: Execution, outcomes: readonly Outcome[], retry: boolean): void {
    const { message, scope } = execution;
    if (!this.#running.delete(message.handle)) return;
    if (scope.waits === 0 && execution.hosted === undefined) this.#active--;
    if (execution.place !== undefined) {
      execution.place.execution = undefined;
      this.#places.push(execution.place);
    }
    if (scope.reads !== undefined) outcomes = this.#checkReads(execution, outcomes);
    if (outcomes.length === 1) this.#remember(returnId(message.task, 0), outcomes[0]!);
    const durationUs = (this.#clock.now() - execution.started) * 1000;
    this.#client.send({ type: "done", handle: message.handle, durationUs, retry, outcomes });
    execution.hosted?.ended();
    // Whatever ended it, what waits behind it may start: also when its result had to wait for room in the store.
    if (!this.#draining) this.drain();
  }

  /** Check mode: what the task read must be what it was. */
  #checkReads(execution: Execution, outcomes: readonly Outcome[]): readonly Outcome[] {
    let changed: ObjectId | undefined;
    for (const read of execution.scope.reads!) {
      if (this.#client.store.hash(read.bytes) !== read.hash) changed ??= read.id;
      read.release();
    }
    if (changed === undefined) return outcomes;
    const { message, settings } = execution;
    const error = new UsageError(
      `Task ${settings.name} (${hex(message.task)}) changed object ${
        hex(changed, true)
      }, which it had only read: objects ` +
        `are immutable and shared. Copy before writing, for instance with array.slice()`,
    );
    const bytes = pack(errorToRecord(error)).toBytes();
    return outcomes.map(() => ({ kind: "error", bytes }));
  }

  /** Items that are not written yet do not wait for the next one, which may take long. */
  #flushLater(): void {
    if (this.#flushesLater) return;
    this.#flushesLater = true;
    this.#clock.after(0, () => {
      this.#flushesLater = false;
      this.#flush();
    });
  }

  #flush(now = this.#clock.now()): void {
    this.#flushedAt = now;
    this.#client.flush();
    this.#client.turnover.look();
  }
}

/** An argument's own task has failed: so has this one, with the same error. */
class DependencyFailed extends Error {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    super("an argument's task failed");
    this.bytes = bytes;
  }
}

/** A module of the user's could not be imported; `cause` is why. */
class ImportFailed extends Error {
  readonly module: string;

  constructor(module: string, cause: unknown) {
    super("a module could not be imported", { cause });
    this.module = module;
  }
}

/** What is known of a dependency, as an entry. */
function entryFor(object: ObjectId, outcome: Outcome | undefined): Entry {
  const entry = new Entry(object, false);
  entry.outcome = outcome;
  return entry;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null &&
    typeof (value as { then?: unknown }).then === "function";
}

/** Errors of rayd's that are about how the function was written, and so belong to the user's own stack. */
function isUsers(error: RaydError): boolean {
  return !(error instanceof SerializationError || error instanceof UsageError) &&
    error.code !== "STORE_FULL" &&
    error.code !== "OUT_OF_DISK";
}

/** The error that a caller gets for what a function threw. */
function taskError(error: unknown, details: { task: string; taskId: string; attempt: number }): TaskError {
  const where = `Task ${details.task} failed${details.attempt > 1 ? ` (attempt ${details.attempt})` : ""}: `;
  if (error instanceof TaskError) {
    return new TaskError(where + error.message, {
      ...details,
      remoteStack: error.remoteStack,
      cause: error.cause,
    });
  }
  if (error instanceof ImportFailed) {
    const { module, cause } = error;
    const remoteStack = cause instanceof Error ? userStack(cause.stack ?? "") : "";
    const place = /(?:file|https?|data|blob|npm|jsr):[^\s()]+:\d+:\d+/.exec(remoteStack)?.[0];
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : shown(cause);
    return new TaskError(
      `${where}importing ${module} on a worker failed: ${why}` +
        (place === undefined || why.includes(place) ? "" : ` (at ${place})`) +
        ". Workers import the module to find what it declares, without being its import.meta.main",
      { ...details, remoteStack, cause },
    );
  }
  if (error instanceof Error) {
    const remoteStack = userStack(error.stack ?? "");
    return new TaskError(`${where}${error.name}: ${error.message}`, {
      ...details,
      remoteStack,
      cause: error,
    });
  }
  return new TaskError(`${where}${shown(error)}`, { ...details, remoteStack: "", cause: error });
}

/** What was thrown that is no error. */
function shown(thrown: unknown): string {
  return typeof thrown === "string" ? thrown : Deno.inspect(thrown, { colors: false, depth: 2 });
}

/** Where rayd's own frames are. In the executable, all that it carries is rayd's own. */
const RUNTIME = new URL(Deno.build.standalone ? ".." : ".", import.meta.url).href;

/** A stack without the frames of rayd itself. */
export function userStack(stack: string): string {
  return stack.split("\n").filter((line) => !INTERNAL.some((part) => line.includes(part))).join("\n");
}

const INTERNAL = [RUNTIME, new URL("../transport/", import.meta.url).href, "ext:", "node:async_hooks"];
