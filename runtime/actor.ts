/**
 * Actors: objects that live in an isolate, whose public methods are called from anywhere, one call after the other.
 *
 * @module
 */

import { createHash } from "node:crypto";
import {
  ACTOR_OPTIONS,
  type ActorOptions,
  type CallOptions,
  creationSettings,
  DEFAULT_NAMESPACE,
  parseActorOptions,
} from "../core/actor_options.ts";
import { ActorNameTakenError, UsageError } from "../core/errors.ts";
import { type TaskId, taskIdFromBytes, taskIdFromHex } from "../core/ids.ts";
import type { FunctionAddress } from "../core/messages.ts";
import { checkOptions, show } from "../core/options.ts";
import { describeClass } from "./actor_class.ts";
import type { ActorTarget, Client } from "./client.ts";
import { hostedContext } from "./executor.ts";
import { entryOfHandle, Handle, makeHandle, packedDescription } from "./handle.ts";
import { type Entry, type RefArguments, type RemoteResult } from "./ref.ts";
import { addressOf, callingModule, declare } from "./registry.ts";
import { type AnyFunction, checkModule, isClass, type RefEach } from "./remote.ts";
import { currentClient } from "./session.ts";

/** Any class that can be one of actors. */
// deno-lint-ignore no-explicit-any -- a constraint: `never` and `unknown` would refuse constructors with parameters
export type AnyActorClass = new (...args: any[]) => object;

/** A method of an actor, as its handle offers it. */
export interface ActorMethod<F extends AnyFunction> {
  /**
   * Calls the method. Calls of one caller are applied in the order in which they were made.
   *
   * @param args Its arguments, any of which may be a Ref: its value is there before the call starts.
   * @returns A Ref of what it returns; for a generator, a stream of Refs.
   * @throws {SerializationError} If an argument cannot be carried.
   */
  remote(...args: RefArguments<Parameters<F>>): RemoteResult<ReturnType<F>>;
  /**
   * The same method with options for its calls.
   *
   * @param options `retries`, `timeout`, `name`, `group`; with `returns: n`, `.remote()` gives n Refs.
   * @throws {UsageError} If an option is unknown or out of its range.
   */
  options(options: CallOptions & { returns: number }): ActorMethodReturning<F>;
  /** The same method with options for its calls. @throws {UsageError} If an option is unknown or out of its range. */
  options(options: CallOptions): ActorMethod<F>;
}

/** An {@link ActorMethod} with `returns`: each element of the array that it returns gets a Ref of its own. */
export interface ActorMethodReturning<F extends AnyFunction> {
  /** Calls the method. @returns A Ref for each returned value. */
  remote(...args: RefArguments<Parameters<F>>): RefEach<ReturnType<F>>;
}

/**
 * A handle of an actor of class `T`: each public method with a `remote`. It may be passed to tasks and actors, also
 * inside of other values. When the last handle of an actor goes, the actor stops after the calls made so far.
 */
export type ActorHandle<T extends object> =
  & {
    readonly [K in keyof T as T[K] extends AnyFunction ? K : never]: ActorMethod<Extract<T[K], AnyFunction>>;
  }
  & Handle
  & {
    /** @internal Tells handles of different classes apart. */
    readonly __actor?: T;
  };

/** A class of actors. */
export interface ActorClass<C extends AnyActorClass> {
  /**
   * Creates an actor.
   *
   * @param args The constructor's arguments, any of which may be a Ref.
   * @returns Its handle, at once; {@link ready} waits for the constructor.
   * @throws {SerializationError} If an argument cannot be carried.
   */
  remote(...args: RefArguments<ConstructorParameters<C>>): ActorHandle<InstanceType<C>>;
  /**
   * The same class with other options; those that are not given stay.
   *
   * @throws {UsageError} If an option is unknown, out of its range, or contradicts another.
   */
  options(options: ActorOptions): ActorClass<C>;
  /**
   * The actor that has the `name` of the options; it is created if there is none.
   *
   * @param args The constructor's arguments, for the case that it is created.
   * @throws {UsageError} If the options give no name, or the actor of that name is of another class.
   * @throws {RaydError} What {@link ready} throws, if it is created and that fails.
   */
  getOrCreate(...args: RefArguments<ConstructorParameters<C>>): Promise<ActorHandle<InstanceType<C>>>;
  /**
   * The actor of this class for a key. It exists as soon as it is called, one for each key, wherever it is asked for;
   * when it has had no calls for the time of the `idle` option, its state is saved and it sleeps until the next call.
   * Its constructor takes no arguments.
   *
   * @param key Text that is not empty, or a number.
   * @throws {UsageError} If the key is neither, or the options do not suit such an actor.
   */
  get(key: string | number): ActorHandle<InstanceType<C>>;
}

/** What is behind each class of actors. */
const targets = new WeakMap<object, { readonly address: FunctionAddress; readonly packed: string }>();

/**
 * Makes a class one of actors. Must stand at the top level of a module: isolates find the class by importing it.
 *
 * A class may have hooks: `saveState()` gives what a checkpoint is to hold, `loadState(state)` takes it after the
 * constructor has run anew; `onStop()` runs before the actor stops because nobody holds it any more. Without hooks, a
 * checkpoint holds the object's fields, unless it has `#private` ones.
 *
 * @param ctor A named class.
 * @param options Options for all its actors, and where it is declared.
 * @throws {UsageError} If the class has no name, something of that name is declared in the module, the call stands
 *   inside a function, or an option is wrong.
 *
 * @example
 * ```ts
 * export const Counter = actor(class Counter {
 *   #n = 0;
 *   add(by = 1): number {
 *     return this.#n += by;
 *   }
 * });
 * const counter = Counter.remote();
 * const one = await get(counter.add.remote());
 * ```
 */
export function actor<C extends AnyActorClass>(
  ctor: C,
  options: ActorOptions & { module?: string } = {},
): ActorClass<C> {
  if (typeof ctor !== "function" || !isClass(ctor as unknown as AnyFunction)) {
    throw new UsageError(`Cannot make ${show(ctor)} a class of actors: give a class`);
  }
  const { name } = ctor;
  if (typeof name !== "string" || name === "" || name.includes("#")) {
    throw new UsageError("Cannot make a class without a name one of actors: write actor(class Name { … })");
  }
  checkOptions(options, [...ACTOR_OPTIONS, "module"], `actor ${name}`, "{ cpus: 1 }");
  const { module: given, ...actorOptions } = options;
  checkModule(given, `actor ${name}`);
  const module = given ?? callingModule(`actor class "${name}"`);
  declare({ module, name, fn: ctor as unknown as (...args: unknown[]) => unknown });
  return make(ctor, addressOf(module, name), actorOptions);
}

function make<C extends AnyActorClass>(
  ctor: C,
  address: FunctionAddress,
  options: ActorOptions,
): ActorClass<C> {
  const label = address.name;
  const settings = creationSettings(label);
  const packed = packedDescription(describeClass(ctor, address));
  // Of a class that is only got by key, other options may be wrong: so each form is checked when it is first used.
  const target: ActorTarget = { address, settings, actor: parseActorOptions(options, label, false) };
  let virtual: ActorTarget | undefined;
  const create = (client: Client, id: TaskId, args: readonly unknown[], what = target) =>
    makeHandle(client, packed, client.createActor(what, id, args)) as ActorHandle<InstanceType<C>>;
  const made: ActorClass<C> = {
    remote: (...args) => {
      const client = currentClient();
      return create(client, client.nextChild(), args);
    },
    options: (more) => {
      checkOptions(more, ACTOR_OPTIONS, `actor ${label}`, "{ cpus: 1 }");
      return make(ctor, address, { ...options, ...more });
    },
    getOrCreate: async (...args) => {
      const { name, namespace } = target.actor;
      if (name === "") {
        throw new UsageError(
          `Cannot get or create ${label}: give its name first, with .options({ name: "…" })`,
        );
      }
      const client = currentClient();
      const id = client.nextChild(); // also if it is not needed: a task that is run again must count alike
      for (;;) {
        const found = await find(client, made, name, namespace);
        if (found !== undefined) return found;
        const created = create(client, id, args);
        try {
          await ready(created);
          return created;
        } catch (error) {
          if (!(error instanceof ActorNameTakenError)) throw error;
          created[Symbol.dispose](); // somebody else was quicker
        }
      }
    },
    get: (key) => {
      if (typeof key !== "number" && (typeof key !== "string" || key === "")) {
        throw new UsageError(
          `Cannot get ${label} by ${String(key)}: give text that is not empty, or a number`,
        );
      }
      virtual ??= { address, settings, actor: parseActorOptions(options, label, true) };
      const { namespace } = virtual.actor;
      const identity = JSON.stringify([namespace, address.module, address.name, key]);
      const id = taskIdFromBytes(createHash("sha256").update(identity).digest());
      return create(currentClient(), id, [], virtual);
    },
  };
  targets.set(made, { address, packed });
  return made;
}

/**
 * Finds an actor by its name.
 *
 * @param of Its class.
 * @param name The name that it was created with.
 * @param options `namespace`: where to look, if not in "default".
 * @throws {UsageError} If no living actor has the name, or it is of another class.
 */
export async function getActor<C extends AnyActorClass>(
  of: ActorClass<C>,
  name: string,
  options: { namespace?: string } = {},
): Promise<ActorHandle<InstanceType<C>>> {
  const namespace = options.namespace ?? DEFAULT_NAMESPACE;
  const found = await find(currentClient(), of, name, namespace);
  if (found !== undefined) return found;
  throw new UsageError(
    `Cannot find actor "${name}": no living actor has that name in namespace "${namespace}". It may not have been ` +
      `created yet, or be dead; getOrCreate creates one`,
  );
}

async function find<C extends AnyActorClass>(
  client: Client,
  of: ActorClass<C>,
  name: string,
  namespace: string,
): Promise<ActorHandle<InstanceType<C>> | undefined> {
  const target = targets.get(of);
  if (target === undefined) throw new UsageError("Cannot find an actor: give its class, made by actor()");
  const found = await client.findActor(namespace, name);
  if (found === null) return undefined;
  const { address, packed } = target;
  const handle = makeHandle(client, packed, client.heldActor(taskIdFromHex(found.id)));
  if (found.module !== address.module || found.name !== address.name) {
    handle[Symbol.dispose]();
    throw new UsageError(
      `Cannot find ${address.name} "${name}": the actor of that name is a ${found.name} of ${found.module}`,
    );
  }
  return handle as ActorHandle<InstanceType<C>>;
}

/** Options of {@link kill}. */
export interface KillOptions {
  /** Let the actor begin anew, as if its isolate had died, rather than end it. Default false. */
  restart?: boolean;
}

/**
 * Ends an actor at once: its calls fail with `ActorDiedError`, and further ones too.
 *
 * @param handle The actor.
 * @param options `restart`.
 */
export function kill(handle: Handle, options: KillOptions = {}): void {
  currentClient().killActor(entryOf(handle, "kill"), options.restart ?? false);
}

/**
 * Waits until an actor's constructor has run.
 *
 * @param handle The actor.
 * @throws {TaskError} If the constructor threw.
 * @throws {ActorDiedError} If the actor died before it was constructed.
 * @throws {ActorNameTakenError} If another actor has its name.
 * @throws {UnschedulableError} If it asks for resources that there are not.
 */
export async function ready(handle: Handle): Promise<void> {
  await currentClient().value(entryOf(handle, "wait for"), Infinity);
}

/** How an actor died. */
export interface ActorDeath {
  /** Why, in a sentence for people. */
  readonly reason: string;
}

/** Waits until an actor is dead. @param handle The actor. @returns Why. */
export async function died(handle: Handle): Promise<ActorDeath> {
  return { reason: await currentClient().awaitDeath(entryOf(handle, "wait for the death of")) };
}

/**
 * The handle of the actor that calls, to be given to others.
 *
 * @param instance The actor's object: `self(this)`.
 * @throws {UsageError} Outside of an actor's methods.
 */
export function self<T extends object>(instance: T): ActorHandle<T> {
  const hosted = hostedContext();
  if (hosted === undefined || typeof instance !== "object") {
    throw new UsageError("Cannot tell the actor's own handle: call self(this) in one of its methods");
  }
  return hosted.instance.handle() as ActorHandle<T>;
}

function entryOf(handle: Handle, verb: string): Entry {
  if (handle instanceof Handle) return entryOfHandle(handle);
  throw new UsageError(`Cannot ${verb} ${Deno.inspect(handle, { depth: 0 })}: give an actor's handle`);
}
