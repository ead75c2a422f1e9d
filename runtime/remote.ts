/**
 * Remote functions: functions of a module that can be run as tasks.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import {
  checkOptions,
  parseTaskOptions,
  show,
  TASK_OPTIONS,
  type TaskOptions,
  type TaskSettings,
} from "../core/options.ts";
import type { Ref, RefArguments, RemoteResult, ValueOf } from "./ref.ts";
import { addressOf, callingModule, declare } from "./registry.ts";
import type { FunctionAddress } from "../core/messages.ts";
import { currentClient } from "./session.ts";

/** Any function that can be remote. */
// deno-lint-ignore no-explicit-any -- a constraint: `never` and `unknown` would refuse functions with parameters
export type AnyFunction = (...args: any[]) => unknown;

/** A Ref for each element of the tuple or array that a function returns. */
export type RefEach<R> = Awaited<R> extends infer T extends readonly unknown[]
  ? { -readonly [K in keyof T]: Ref<T[K]> }
  : never;

/** A function that runs as a task when it is called with `.remote()`; called directly, it runs right here. */
export interface RemoteFunction<F extends AnyFunction> {
  /** Runs the function here and now, as if it were not remote. */
  (...args: Parameters<F>): ReturnType<F>;
  /**
   * Runs the function as a task.
   *
   * @param args Its arguments, any of which may be a Ref: its value is there before the task starts.
   * @returns A Ref of what it returns; for a generator, a stream of Refs.
   * @throws {SerializationError} If an argument cannot be carried.
   */
  remote(...args: RefArguments<Parameters<F>>): RemoteResult<ReturnType<F>>;
  /**
   * The same function with other options; those that are not given stay.
   *
   * @param options Resources, retries, and so on. With `returns: n`, `.remote()` gives n Refs.
   */
  options(options: TaskOptions & { returns: number }): RemoteFunctionReturning<F>;
  /** The same function with other options; those that are not given stay. */
  options(options: TaskOptions): RemoteFunction<F>;
}

/** A {@link RemoteFunction} with `returns`: each element of the array that it returns gets a Ref of its own. */
export interface RemoteFunctionReturning<F extends AnyFunction> {
  /** Runs the function here and now, as if it were not remote. */
  (...args: Parameters<F>): ReturnType<F>;
  /** Runs the function as a task. @returns A Ref for each returned value. */
  remote(...args: RefArguments<Parameters<F>>): RefEach<ReturnType<F>>;
  /** The same function with other options; those that are not given stay. */
  options(options: TaskOptions): RemoteFunctionReturning<F>;
}

/** Options of {@link remote}. */
export interface RemoteOptions extends TaskOptions {
  /** The URL of the module that declares the function, where it cannot be found from the stack. */
  module?: string;
}

/**
 * Makes a function remote. Must stand at the top level of a module: isolates find the function by importing it.
 *
 * @param fn A named function: sync, async, or a generator (whose results are streamed).
 * @param options Options for all its calls, and where it is declared.
 * @throws {UsageError} If the function has no name, another of that name is declared in the module, or the call stands
 *   inside a function.
 *
 * @example
 * ```ts
 * export const square = remote(function square(x: number): number {
 *   return x * x;
 * });
 * const nine = await get(square.remote(3));
 * ```
 */
export function remote<F extends AnyFunction>(fn: F, options: RemoteOptions = {}): RemoteFunction<F> {
  if (typeof fn !== "function") throw new UsageError(`Cannot make ${show(fn)} remote: give a function`);
  if (made.has(fn)) {
    throw new UsageError(
      `Cannot make ${fn.name} remote: it is already. Use ${fn.name}.options(…) for other options`,
    );
  }
  if (isClass(fn)) {
    throw new UsageError(`Cannot make class ${fn.name} remote: write actor(${fn.name}) to have actors of it`);
  }
  const { name } = fn;
  if (name === "") {
    throw new UsageError(
      "Cannot make a function without a name remote: write remote(function name(…) { … })",
    );
  }
  checkOptions(options, REMOTE_OPTIONS, name, "{ cpus: 2 }");
  const { module: given, ...taskOptions } = options;
  checkModule(given, name);
  const module = given ?? callingModule(`remote function "${name}"`);
  declare({ module, name, fn: fn as (...args: unknown[]) => unknown });
  const address = addressOf(module, name);
  // The function itself gets the methods: inside of its own body, its name means the function expression.
  return make(fn, fn, address, taskOptions);
}

function make<F extends AnyFunction>(
  fn: F,
  callable: AnyFunction,
  address: FunctionAddress,
  options: TaskOptions,
): RemoteFunction<F> {
  const settings: TaskSettings = parseTaskOptions(options, address.name, isGenerator(fn));
  const target = { address, settings };
  made.add(callable);
  return Object.assign(callable, {
    remote: (...args: unknown[]) => currentClient().submit(target, args),
    options: (more: TaskOptions) => {
      checkOptions(more, TASK_OPTIONS, address.name, "{ cpus: 2 }");
      return make(fn, (...args: Parameters<F>) => fn(...args), address, { ...options, ...more });
    },
  }) as unknown as RemoteFunction<F>;
}

/** What `remote` has made. */
const made = new WeakSet<AnyFunction>();

const REMOTE_OPTIONS = [...TASK_OPTIONS, "module"];

/** Checks the option that says where something is declared. @throws {UsageError} If it is no text. */
export function checkModule(module: unknown, what: string): void {
  if (module !== undefined && typeof module !== "string") {
    throw new UsageError(`Cannot use module of ${what}: ${show(module)} is no URL such as import.meta.url`);
  }
}

/** Whether a function is a class, which cannot be called. */
export function isClass(fn: AnyFunction): boolean {
  return /^class\b/.test(Function.prototype.toString.call(fn));
}

function isGenerator(fn: AnyFunction): boolean {
  const kind = (Object.getPrototypeOf(fn) as { constructor: { name: string } }).constructor.name;
  return kind === "GeneratorFunction" || kind === "AsyncGeneratorFunction";
}

/** The value that a call of a remote function makes. */
export type RemoteValue<F extends AnyFunction> = ValueOf<RemoteResult<ReturnType<F>>>;
