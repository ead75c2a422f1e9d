/**
 * What queues, locks and their like have in common: each is a value that stands for an actor, and travels as the actor's
 * handle does.
 *
 * Their actors are rayd's own (`rayd:…` in place of a module's URL), live side by side in isolates for light actors, and
 * are not durable: who waits in them must be able to interleave. If their isolate dies, they are dead: a lock whose
 * holders are forgotten must not be given to a second one. Their calls then fail with `ActorDiedError`.
 *
 * @module
 */

import type { ActorOptions } from "../core/actor_options.ts";
import { type Duration, durationMs } from "../core/duration.ts";
import { UsageError } from "../core/errors.ts";
import { registerClass } from "../store/serialize.ts";
import type { Handle } from "./handle.ts";

/** Options of a tool's actor, for one that several programs or modules find by its name. */
export interface ToolOptions {
  /** Where the name is looked for. Default "default". */
  namespace?: string;
  /** It outlives its holders and its program's job. Default false. */
  detached?: boolean;
}

/** How many calls of one kind a tool's actor takes at once. */
export const CALLS_MAX = 10_000;

/** The key under which a tool's constructor is given the actor that it is to stand for. */
export const ACTOR: unique symbol = Symbol("rayd.tool");

/** What a tool's constructor may be given instead of its options. */
export interface Adopted<H extends Handle> {
  /** @internal */
  readonly [ACTOR]?: H;
}

/** The options of a constructor that is to stand for an actor that is there. */
export function adopted<H extends Handle>(handle: H): object {
  const options: Adopted<H> = { [ACTOR]: handle };
  return options;
}

/** Divides the options of a named tool: those of its actor, with the name, and its own. */
export function nameOptions<O extends ToolOptions>(
  name: string,
  options: O,
): [actor: ActorOptions, own: Omit<O, keyof ToolOptions>] {
  const { namespace, detached, ...own } = options;
  return [{
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(detached === undefined ? {} : { detached }),
  }, own];
}

/**
 * Lets a class of tools travel.
 *
 * @param ctor The class. @param name Its name. @param serialize What travels in its place: a handle, in most cases.
 * @param deserialize Makes a tool of that.
 */
export function travels<T extends object, S>(
  ctor: new (...args: never[]) => T,
  name: string,
  serialize: (tool: T) => S,
  deserialize: (state: S) => T,
): void {
  registerClass<T, S>(ctor, { name: `rayd.${name}`, serialize, deserialize });
}

/** Checks the names of options. @throws {UsageError} If there is one that is not known. */
export function checkOptions(options: object, known: readonly string[], what: string): void {
  if (typeof options !== "object" || options === null) {
    throw new UsageError(`Cannot use options of ${what}: give an object with any of ${known.join(", ")}`);
  }
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw new UsageError(`Unknown option "${key}" for ${what}: there are ${known.join(", ")}`);
    }
  }
}

/** Options of what waits. */
export interface WaitingOptions {
  /** How long to wait at most; 0 not to wait at all. Default: for ever. */
  timeout?: Duration;
}

/** The milliseconds that a call may wait. @throws {UsageError} If an option is unknown or no duration. */
export function timeoutOf(options: WaitingOptions, what: string, more: readonly string[] = []): number {
  checkOptions(options, ["timeout", ...more], what);
  return options.timeout === undefined ? Infinity : durationMs(options.timeout, `timeout of ${what}`);
}

/** A time limit, for people. */
export function within(ms: number): string {
  return ms === 0 ? "now" : `within ${ms} ms`;
}
