/**
 * What rayd reads off a class of actors: its methods, its hooks, and whether it keeps secrets.
 *
 * @module
 */

import type { FunctionAddress } from "../core/messages.ts";
import type { ClassDescription } from "./handle.ts";

type AnyClass = new (...args: never[]) => object;

const described = new WeakMap<AnyClass, ClassDescription["methods"]>();

/** Describes a class: its public methods, from its prototype up, without what every object has. */
export function describeClass(ctor: AnyClass, { load, module, name }: FunctionAddress): ClassDescription {
  let methods = described.get(ctor);
  if (methods === undefined) described.set(ctor, methods = methodsOf(ctor));
  const at = name.lastIndexOf("#");
  return { load, module, name: at < 0 ? name : name.slice(0, at), methods };
}

function methodsOf(ctor: AnyClass): ClassDescription["methods"] {
  const groups = (ctor as { concurrencyGroups?: Record<string, string> }).concurrencyGroups ?? {};
  const methods: Record<string, [boolean, string?]> = {};
  for (
    let prototype = ctor.prototype as object | null;
    prototype !== null && prototype !== Object.prototype;
    prototype = Object.getPrototypeOf(prototype)
  ) {
    for (const name of Object.getOwnPropertyNames(prototype)) {
      if (name === "constructor" || Object.hasOwn(methods, name)) continue;
      const { value } = Object.getOwnPropertyDescriptor(prototype, name)!;
      if (typeof value !== "function") continue;
      methods[name] = groups[name] === undefined ? [isGenerator(value)] : [isGenerator(value), groups[name]];
    }
  }
  return methods;
}

function isGenerator(fn: object): boolean {
  const kind = (Object.getPrototypeOf(fn) as { constructor: { name: string } }).constructor.name;
  return kind === "GeneratorFunction" || kind === "AsyncGeneratorFunction";
}

/** A hook that a class may have: `saveState`, `loadState` or `onStop`. */
export function lifecycleHook(
  object: object,
  name: "saveState" | "loadState" | "onStop",
): ((...args: unknown[]) => unknown) | undefined {
  const hook = (object as Record<string, unknown>)[name];
  return typeof hook === "function" ? hook as (...args: unknown[]) => unknown : undefined;
}

/** Whether a class, or one that it extends, has `#private` names; it may also only look like it. */
export function isPrivate(ctor: unknown): boolean {
  for (let each = ctor; typeof each === "function" && each !== Function.prototype;) {
    if (/#[\p{ID_Start}$_]/u.test(Function.prototype.toString.call(each))) return true;
    each = Object.getPrototypeOf(each);
  }
  return false;
}
