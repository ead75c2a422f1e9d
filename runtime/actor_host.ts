/**
 * The isolate's side of actors: the instances that live here, and the lines of what they are to do.
 *
 * An instance does what it is sent in the order in which it was sent: at most `concurrency` calls at once, and as many
 * more of each concurrency group. A synchronous method costs no turn of the event loop.
 *
 * @module
 */

import { showGpus } from "./gpus.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { UsageError } from "../core/errors.ts";
import { ChildIds, type ObjectId, returnId, type TaskId } from "../core/ids.ts";
import type { FromNode, FunctionAddress, Outcome } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import { pack } from "../store/serialize.ts";
import type { Client } from "./client.ts";
import type { Execution, ExecutionMessage, Hosted } from "./executor.ts";
import { type Handle, makeHandle, packedDescription } from "./handle.ts";
import { describeClass, isPrivate, lifecycleHook } from "./actor_class.ts";

/** What the host needs of the executor. */
export interface HostServices {
  readonly client: Client;
  /** The class that the node calls by this number; imports its module. */
  class(index: number): Promise<unknown>;
  address(index: number): FunctionAddress | undefined;
  run(
    message: ExecutionMessage,
    settings: TaskSettings,
    hosted: Hosted,
    fn: (execution: Execution) => (...args: unknown[]) => unknown,
  ): void;
}

type Construct = Extract<FromNode, { type: "constructActor" }>;
type Call = Extract<FromNode, { type: "executeCall" }>;
type Checkpoint = Extract<FromNode, { type: "checkpointActor" }>;
type Stop = Extract<FromNode, { type: "stopActor" }>;

/** What is done one after the other, so many at once. */
interface Lane {
  readonly limit: number;
  active: number;
  jobs: (Call | Checkpoint | Stop)[];
  /** The first job that has not begun. */
  next: number;
}

interface Instance {
  readonly number: number;
  readonly id: TaskId;
  readonly settings: ActorSettings;
  readonly gpus: readonly number[];
  readonly job: TaskId;
  readonly taskSettings: TaskSettings;
  object: object | undefined;
  readonly main: Lane;
  readonly groups: ReadonlyMap<string, Lane>;
  /** The class, by its number. */
  readonly fn: number;
  readonly methods: Map<number, (...args: unknown[]) => unknown>;
  readonly handle: () => Handle;
  /** Work of its own that is no call: gives it ids. */
  readonly chores: ChildIds;
}

/** The actors of one isolate. */
export class ActorHost {
  readonly #services: HostServices;
  readonly #settings = new Map<number, ActorSettings>();
  readonly #instances = new Map<number, Instance>();
  /** Those that have something to begin. */
  readonly #dirty = new Set<Instance>();
  readonly #callSettings = new WeakMap<Call, TaskSettings>();
  readonly #aborted = new Set<number>();
  #draining = false;

  /** @param services What the host needs of the executor. */
  constructor(services: HostServices) {
    this.#services = services;
  }

  /** Takes a message other than those of calls and constructions. */
  message(message: Checkpoint | Stop | Extract<FromNode, { type: "defineActor" }>): void {
    if (message.type === "defineActor") {
      this.#settings.set(message.index, message.settings);
      return;
    }
    const instance = this.#instances.get(message.instance);
    if (instance === undefined) return;
    if (message.type === "stopActor" && !message.hook) {
      this.#instances.delete(instance.number);
      this.#dirty.delete(instance);
      return this.#answer(message.handle, [], false);
    }
    instance.main.jobs.push(message);
    this.#dirty.add(instance);
  }

  /** Makes an instance; what it is sent meanwhile waits. */
  construct(message: Construct, settings: TaskSettings): void {
    const actorSettings = this.#settings.get(message.actor)!;
    const about = describeAddress(this.#services.address(message.fn)!);
    const instance: Instance = {
      number: message.instance,
      id: message.task,
      settings: actorSettings,
      gpus: message.gpus,
      fn: message.fn,
      job: message.job,
      taskSettings: settings,
      object: undefined,
      main: { limit: actorSettings.concurrency, active: 0, jobs: [], next: 0 },
      groups: new Map(
        Object.entries(actorSettings.groups).map(([name, limit]) => [
          name,
          { limit, active: 0, jobs: [], next: 0 },
        ]),
      ),
      methods: new Map(),
      handle: () => this.#handleOf(instance, about),
      chores: new ChildIds(message.task, CHORES),
    };
    this.#instances.set(instance.number, instance);
    showGpus(message.gpus); // its class may be what loads the library
    const ended = () => {
      if (instance.object !== undefined) this.#dirty.add(instance);
      else this.#instances.delete(instance.number);
      this.drain();
    };
    const hosted: Hosted = { instance, replaying: false, silent: true, result: undefined, ended };
    // Importing is asynchronous, and what it throws is the constructor's own failure.
    const loading = this.#services.class(message.fn);
    loading.then(() => {}, () => {}).then(() =>
      this.#services.run(message, settings, hosted, (execution) => async (...args) => {
        const ctor = await loading as new (...args: unknown[]) => object;
        const object = new ctor(...args);
        if (message.restore) await load(object, execution.resolved.at(-1));
        instance.object = object;
      })
    );
  }

  /** The instance's own handle. */
  #handleOf(instance: Instance, { module, name, load }: FunctionAddress): Handle {
    const ctor = instance.object!.constructor as new (...args: never[]) => object;
    const about = describeClass(ctor, { load, module, name });
    const entry = this.#services.client.heldActor(instance.id);
    this.#services.client.send({ type: "retain", objects: [returnId(instance.id, 0)] });
    return makeHandle(this.#services.client, packedDescription(about), entry);
  }

  /** Takes a call. */
  call(message: Call, settings: TaskSettings): void {
    const instance = this.#instances.get(message.instance);
    if (instance === undefined) return; // it failed to construct, or is gone: the node knows
    let lane = instance.main;
    if (settings.group !== undefined) {
      const group = instance.groups.get(settings.group);
      if (group === undefined) {
        const names = [...instance.groups.keys()];
        return this.#fail(
          message.handle,
          settings,
          new UsageError(
            `Cannot call ${settings.name}: actor ${instance.settings.label} has no concurrency group ` +
              `"${settings.group}"; there ${names.length === 1 ? "is" : "are"} ${names.join(", ") || "none"}`,
          ),
        );
      }
      lane = group;
    }
    lane.jobs.push(message);
    this.#callSettings.set(message, settings);
    this.#dirty.add(instance);
  }

  /** A call is not wanted any more, and may not have begun. */
  abort(handle: number): void {
    for (const instance of this.#instances.values()) {
      for (const lane of [instance.main, ...instance.groups.values()]) {
        for (let i = lane.next; i < lane.jobs.length; i++) {
          if (lane.jobs[i]!.handle === handle) this.#aborted.add(handle);
        }
      }
    }
  }

  /** Begins what may begin. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (const instance of this.#dirty) {
        this.#dirty.delete(instance);
        if (instance.object === undefined) continue;
        this.#work(instance, instance.main);
        for (const lane of instance.groups.values()) this.#work(instance, lane);
      }
    } finally {
      this.#draining = false;
    }
  }

  #work(instance: Instance, lane: Lane): void {
    while (lane.active < lane.limit && lane.next < lane.jobs.length) {
      const job = lane.jobs[lane.next++]!;
      if (lane.next === lane.jobs.length) {
        lane.jobs.length = lane.next = 0;
      } else if (lane.next > COMPACT_JOBS) {
        lane.jobs = lane.jobs.slice(lane.next);
        lane.next = 0;
      }
      if (this.#aborted.size > 0 && this.#aborted.delete(job.handle)) {
        this.#answer(job.handle, [], true);
        continue;
      }
      lane.active++;
      const ended = () => {
        lane.active--;
        this.#dirty.add(instance);
        this.drain();
      };
      if (job.type === "executeCall") this.#start(instance, job, ended);
      else this.#chore(instance, job, ended);
      if (!this.#instances.has(instance.number)) return;
    }
  }

  #start(instance: Instance, message: Call, ended: () => void): void {
    const { handle, attempt, task, job, dependencies, args, replaying, silent } = message;
    const { gpus } = instance;
    const hosted: Hosted = { instance, replaying, silent, result: undefined, ended };
    const settings = this.#callSettings.get(message)!;
    const execution: ExecutionMessage = {
      handle,
      attempt,
      task,
      job,
      fn: instance.fn,
      gpus,
      dependencies,
      args,
    };
    this.#services.run(execution, settings, hosted, () => this.#method(instance, message.fn));
  }

  /** A method, bound to the instance. */
  #method(instance: Instance, index: number): (...args: unknown[]) => unknown {
    let bound = instance.methods.get(index);
    if (bound === undefined) {
      const address = this.#services.address(index)!;
      const name = address.name.slice(address.name.lastIndexOf("#") + 1);
      const object = instance.object!;
      const about = describeClass(object.constructor as new (...args: never[]) => object, address);
      if (!Object.hasOwn(about.methods, name)) {
        throw new UsageError(
          `Actor ${instance.settings.label} has no method "${name}": there are ${
            Object.keys(about.methods).join(", ") || "none"
          }`,
        );
      }
      bound = (object as Record<string, (...args: unknown[]) => unknown>)[name]!.bind(object);
      instance.methods.set(index, bound);
    }
    return bound;
  }

  /** Saves the state, or ends the instance. */
  #chore(instance: Instance, message: Checkpoint | Stop, ended: () => void): void {
    const { handle } = message;
    const { gpus, job, taskSettings, object } = instance;
    const execution: ExecutionMessage = {
      handle,
      attempt: 1,
      task: instance.chores.next(),
      job,
      fn: instance.fn,
      gpus,
      dependencies: [],
      args: NO_ARGUMENTS,
    };
    const result: ObjectId | undefined = message.type === "checkpointActor" ? message.object : undefined;
    const hosted: Hosted = { instance, replaying: false, silent: result === undefined, result, ended };
    if (result !== undefined) {
      const settings = { ...taskSettings, name: `${instance.settings.label}.saveState` };
      return this.#services.run(execution, settings, hosted, () => () => save(object!));
    }
    this.#instances.delete(instance.number);
    const settings = { ...taskSettings, name: `${instance.settings.label}.onStop` };
    this.#services.run(execution, settings, hosted, () => async () => {
      try {
        await lifecycleHook(object!, "onStop")?.call(object);
      } catch (error) {
        console.error(`onStop of actor ${instance.settings.label} failed:`, error);
      }
    });
  }

  #answer(handle: number, outcomes: readonly Outcome[], retry: boolean): void {
    this.#services.client.send({ type: "done", handle, durationUs: 0, retry, outcomes });
  }

  #fail(handle: number, settings: TaskSettings, error: UsageError): void {
    const bytes = pack({ code: error.code, message: error.message }).toBytes().slice();
    this.#answer(handle, Array.from({ length: settings.returns }, () => ({ kind: "error", bytes })), false);
  }
}

/** What is to be kept of an object: what it says itself, or all its fields. */
function save(object: object): unknown {
  const saveState = lifecycleHook(object, "saveState");
  if (saveState !== undefined) return saveState.call(object);
  if (isPrivate(object.constructor)) {
    throw new UsageError(
      `Cannot save the state of ${object.constructor.name}: it has #private fields, which only the class itself can ` +
        `read. Give it saveState() and loadState(state)`,
    );
  }
  return { ...object };
}

/** Gives an object the state that was saved of another one. */
async function load(object: object, state: unknown): Promise<void> {
  const loadState = lifecycleHook(object, "loadState");
  if (loadState !== undefined) await loadState.call(object, state);
  else if (lifecycleHook(object, "saveState") !== undefined) {
    throw new UsageError(
      `Cannot restore ${object.constructor.name}: it has saveState() and no loadState(state)`,
    );
  } else Object.assign(object, state);
}

function describeAddress({ load, module, name }: FunctionAddress): FunctionAddress {
  return { load, module, name };
}

const NO_ARGUMENTS: Outcome = { kind: "inline", bytes: pack([]).toBytes().slice(), contains: [] };

/** Keeps ids of an actor's chores apart from those of its calls' children. */
const CHORES = 1;

/** Jobs that were begun are forgotten in blocks of this many. */
const COMPACT_JOBS = 1024;
