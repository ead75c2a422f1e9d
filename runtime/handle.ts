/**
 * Handles of actors: what a program holds in place of an actor that lives in some isolate.
 *
 * A handle knows the methods of its class, so that it can offer them; it carries them along where it is passed, as the
 * program that receives it need not have loaded the class. Reading any other name from a handle is an error that says
 * which there are.
 *
 * @module
 */

import { type CallOptions, parseCallOptions } from "../core/actor_options.ts";
import { UsageError } from "../core/errors.ts";
import { hex, TASK_ID_BYTES } from "../core/ids.ts";
import type { TaskSettings } from "../core/options.ts";
import type { Client } from "./client.ts";
import type { Entry } from "./ref.ts";
import { currentClient } from "./session.ts";

/** What a handle knows of its class. */
export interface ClassDescription {
  readonly load: string;
  readonly module: string;
  readonly name: string;
  /** Its methods; whether each is a generator, and the concurrency group that it belongs to, if any. */
  readonly methods: Readonly<Record<string, readonly [stream: boolean, group?: string]>>;
}

const ENTRY = Symbol("rayd.actor");
const DESCRIPTION = Symbol("rayd.class");

/** The root of all handles. */
export class Handle {
  /** @internal */
  declare readonly [ENTRY]: Entry;
  /** @internal */
  declare readonly [DESCRIPTION]: { readonly about: ClassDescription; readonly packed: string };

  /** Lets go of the handle: when the last one goes, the actor stops after the calls made so far. */
  [Symbol.dispose](): void {
    if (disposed.has(this)) return;
    disposed.add(this);
    currentClient().disown(this, this[ENTRY]);
  }

  /** How a handle prints: the class and the actor's id. */
  [Symbol.for("Deno.customInspect")](): string {
    const { about } = this[DESCRIPTION];
    return `ActorHandle(${about.name} ${hex(this[ENTRY].id).slice(0, 12)}…)`;
  }

  /** Handles cannot be written as JSON. */
  toJSON(): never {
    throw new TypeError(
      "Cannot write an actor's handle as JSON: pass the handle itself to a task or an actor",
    );
  }
}

const disposed = new WeakSet<Handle>();

/** What is known of the object that a handle stands for. */
export function entryOfHandle(handle: Handle): Entry {
  if (disposed.has(handle)) {
    throw new UsageError(`Cannot use ${Deno.inspect(handle)}: it was let go of with Symbol.dispose`);
  }
  return handle[ENTRY];
}

/** A handle as it travels: the actor's id, and what is known of its class. */
export function packedHandle(handle: Handle): string {
  return handle[ENTRY].id.slice(0, TASK_ID_BYTES) + handle[DESCRIPTION].packed;
}

/** Makes a handle of the object that an entry knows. @param packed What {@link packedDescription} gave. */
export function makeHandle(client: Client, packed: string, entry: Entry): Handle {
  let handleClass = classes.get(packed);
  if (handleClass === undefined) classes.set(packed, handleClass = handleClassOf(packed));
  const handle = new handleClass();
  Object.defineProperty(handle, ENTRY, { value: entry });
  client.adopt(handle, entry);
  return handle;
}

/** A class's description as it travels. */
export function packedDescription(about: ClassDescription): string {
  return JSON.stringify(about);
}

const classes = new Map<string, new () => Handle>();

/** A class of handles with a property for each method, made when it is first read. */
function handleClassOf(packed: string): new () => Handle {
  const about = JSON.parse(packed) as ClassDescription;
  const names = Object.keys(about.methods);
  const handleClass = class extends Handle {};
  Object.defineProperty(handleClass, "name", { value: "ActorHandle" });
  const { prototype } = handleClass;
  Object.defineProperty(prototype, DESCRIPTION, { value: { about, packed } });
  for (const name of names) {
    const target = methodTarget(about, name);
    Object.defineProperty(prototype, name, {
      get(this: Handle) {
        const value = method(this, target, target.settings);
        Object.defineProperty(this, name, { value });
        return value;
      },
    });
  }
  return handleClass;
}

/** Names that are asked of any object, by people or by the language, without a method being meant. */
const QUIET = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  "then",
  "toJSON",
  "inspect",
  "nodeType",
]);

// What neither the class nor Handle has is asked of the last prototype: there it is an error.
Object.setPrototypeOf(
  Handle.prototype,
  new Proxy(Object.prototype, {
    get(target, key, handle: Handle) {
      if (typeof key === "symbol" || QUIET.has(key)) return Reflect.get(target, key, handle);
      const about = handle[DESCRIPTION]?.about;
      if (about === undefined) return undefined;
      const names = Object.keys(about.methods);
      throw new UsageError(
        `Actor ${about.name} has no method "${key}": there ${names.length === 1 ? "is" : "are"} ${
          names.join(", ") || "none"
        }`,
      );
    },
  }),
);

interface MethodTarget {
  readonly about: ClassDescription;
  readonly name: string;
  readonly address: { readonly load: string; readonly module: string; readonly name: string };
  readonly settings: TaskSettings;
}

function methodTarget(about: ClassDescription, name: string): MethodTarget {
  const [stream, group] = about.methods[name]!;
  const { load, module } = about;
  return {
    about,
    name,
    address: { load, module, name: `${about.name}#${name}` },
    settings: parseCallOptions({}, `${about.name}.${name}`, stream, group),
  };
}

/**
 * Calls a method for this run of the caller alone. An ordinary call of a caller that is run again gets its first answer;
 * this one is made once more, as it must be where the answer is about who holds what just now.
 *
 * @param handle The actor. @param name Its method. @param args The arguments.
 */
export function callAnew(handle: Handle, name: string, args: readonly unknown[]): unknown {
  const { address, settings } = methodTarget(handle[DESCRIPTION].about, name);
  return currentClient().submit(
    { address, settings: anewSettings(settings) },
    args,
    entryOfHandle(handle),
    true,
  );
}

const anew = new Map<string, TaskSettings>();

/** One object for each method, as the client tells settings apart by identity. */
function anewSettings(settings: TaskSettings): TaskSettings {
  let known = anew.get(settings.name);
  if (known === undefined) anew.set(settings.name, known = settings);
  return known;
}

/** What `handle.method` is. */
function method(handle: Handle, target: MethodTarget, settings: TaskSettings): object {
  const { address } = target;
  return {
    remote: (...args: unknown[]) =>
      currentClient().submit({ address, settings }, args, entryOfHandle(handle)),
    options: (options: CallOptions) => {
      const { about, name } = target;
      const [stream, group] = about.methods[name]!;
      return method(handle, target, parseCallOptions(options, `${about.name}.${name}`, stream, group));
    },
  };
}
