/**
 * What a task may ask for: the options of the public API, and the checked, frozen form in which they travel.
 *
 * @module
 */

import { type Duration, durationMs } from "./duration.ts";
import { UsageError } from "./errors.ts";
import { isBundleName, showName, within } from "./bundles.ts";
import {
  type GroupHandle,
  parsePlacement,
  type Placement,
  PLACEMENT_OPTIONS,
  type PlacementOptions,
} from "./placement.ts";
import { RETRIES_DEFAULT, RETURNS_MAX } from "./limits.ts";

/** Options of a remote function's call. */
export interface TaskOptions extends PlacementOptions {
  /** CPUs held while the task computes; fractions to 0.0001. A task that waits lends its CPUs. Default 1. */
  cpus?: number;
  /** GPUs held for the task's whole life; fractions below 1, or whole numbers. Default 0. */
  gpus?: number;
  /** Bytes of memory that the scheduler reserves for the task. Default 0. */
  memory?: number;
  /**
   * Amounts of custom resources, by name. Or a list of alternatives, of which the first that fits is taken, each with all
   * that it asks for: `[{ gpu: 1, cpu: 2 }, { cpu: 16 }]`; `cpus`, `gpus` and `memory` are then left out.
   */
  resources?: Readonly<Record<string, number>> | readonly Readonly<Record<string, number>>[];
  /** The name that errors, logs and the status show. Default: the function's name. */
  name?: string;
  /** How many values the task returns, each with a Ref of its own; the function then returns an array. Default 1. */
  returns?: number;
  /** How often the task is run again when its worker dies (or when `retryOn` says so). Default 3. */
  retries?: number;
  /**
   * Which exceptions of the function count as failures to be retried, rather than as its answer: all of them
   * (`true`), or those with one of these names. Default: none.
   */
  retryOn?: boolean | readonly string[];
  /** The longest the task's whole life may take, queueing included. It also ends an endless loop. Default: none. */
  timeout?: Duration;
  /** Tasks of a higher priority start first, within one job. An integer; default 0. */
  priority?: number;
}

/** {@link TaskOptions}, checked, with every default filled in: the form that travels. */
export interface TaskSettings {
  /** Amount by resource name, in units of 1/10000. Zero amounts are left out. */
  readonly demand: Readonly<Record<string, number>>;
  /** What else would do, in this order, if `demand` cannot be had. */
  readonly alternatives?: readonly Readonly<Record<string, number>>[];
  readonly name: string;
  readonly returns: number;
  readonly retries: number;
  readonly retryOn: boolean | readonly string[];
  /** Milliseconds; 0 for none. */
  readonly timeoutMs: number;
  readonly priority: number;
  /** The function is a generator: its results are streamed. */
  readonly stream: boolean;
  /** Where it may run, if that is said. */
  readonly placement?: Placement;
  /** Of an actor's call: the concurrency group that it belongs to, if not the actor's own. */
  readonly group?: string;
}

/** Resource amounts are kept as whole numbers of this fraction. */
export const RESOURCE_UNIT = 10_000;

/** The names of the resources that have options of their own. */
export const CPU = "cpu", GPU = "gpu", MEMORY = "memory";

/** The names of {@link TaskOptions}. */
export const TASK_OPTIONS: readonly string[] = [
  "cpus",
  "gpus",
  "memory",
  "resources",
  "name",
  "returns",
  "retries",
  "retryOn",
  "timeout",
  "priority",
  ...PLACEMENT_OPTIONS,
];

/**
 * Checks that options are an object and have only known names.
 *
 * @param options What the user gave.
 * @param known The names there are.
 * @param what Whose options they are, in an error's words.
 * @param example How they are written.
 * @throws {UsageError} If they are no object, or have another name.
 */
export function checkOptions(
  options: unknown,
  known: readonly string[],
  what: string,
  example: string,
): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new UsageError(`Cannot use options of ${what}: ${show(options)} is no object such as ${example}`);
  }
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      const are = known.length === 1 ? "is" : "are";
      throw new UsageError(`Unknown option "${key}" for ${what}: there ${are} ${known.join(", ")}`);
    }
  }
}

/** Something that a user gave instead of what was asked for, for an error: with its article, or as it is written. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") {
    return value.name === "" ? "a function without a name" : `function ${value.name}`;
  }
  if (typeof value !== "object" || value === null) return String(value);
  if (value instanceof Promise) return "a Promise (await it first)";
  const name: unknown = value.constructor?.name;
  if (typeof name !== "string" || name === "" || name === "Object") return "an object";
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

/** Checks an option that is true or false. @throws {UsageError} If it is neither. */
export function checkFlag(value: unknown, option: string, what: string): void {
  if (typeof value !== "boolean") {
    throw new UsageError(`Cannot use ${option} of ${what}: ${show(value)} is neither true nor false`);
  }
}

/**
 * Checks options and fills in the defaults.
 *
 * @param options What the user gave.
 * @param functionName The default of `name`.
 * @param stream Whether the function is a generator.
 * @throws {UsageError} If an option is unknown or has a value out of its range.
 */
export function parseTaskOptions(options: TaskOptions, functionName: string, stream: boolean): TaskSettings {
  checkOptions(options, TASK_OPTIONS, functionName, "{ cpus: 2 }");
  const [demand, ...alternatives] = parseDemands(options, functionName, { cpus: 1 });
  const returns = wholeNumber(options.returns ?? 1, "returns", functionName, 1, RETURNS_MAX);
  if (stream && returns !== 1) {
    throw new UsageError(`Cannot set returns: ${functionName} is a generator, its results are streamed`);
  }
  const retries = options.retries === Infinity
    ? Number.MAX_SAFE_INTEGER
    : wholeNumber(options.retries ?? RETRIES_DEFAULT, "retries", functionName, 0, Number.MAX_SAFE_INTEGER);
  const retryOn = options.retryOn ?? false;
  if (
    typeof retryOn !== "boolean" && !(Array.isArray(retryOn) && retryOn.every((n) => typeof n === "string"))
  ) {
    throw new UsageError(
      `Cannot use retryOn of ${functionName}: give true, false or a list of error names such as ["TypeError"]`,
    );
  }
  const timeoutMs = options.timeout === undefined
    ? 0
    : durationMs(options.timeout, `timeout of ${functionName}`);
  const name = options.name ?? functionName;
  if (typeof name !== "string" || name === "") {
    throw new UsageError(`Cannot use name of ${functionName}: it must be text that is not empty`);
  }
  const placement = parsePlacement(options, functionName);
  return {
    demand: demand!,
    ...(alternatives.length === 0 ? {} : { alternatives }),
    name,
    returns,
    retries,
    retryOn,
    timeoutMs: timeoutMs === Infinity ? 0 : Math.max(timeoutMs, options.timeout === undefined ? 0 : 1),
    priority: wholeNumber(options.priority ?? 0, "priority", functionName, -1_000_000, 1_000_000),
    stream,
    ...(placement === undefined ? {} : { placement }),
  };
}

/** The most alternatives of one demand. */
const ALTERNATIVES_MAX = 64;

/**
 * Reads what a task or an actor asks for: one demand, or several of which the first that fits is taken; in the bundles
 * of a placement group, if one is named.
 *
 * @param options What the user gave.
 * @param what Whose they are, in an error's words.
 * @param defaults What to take where nothing is given.
 * @returns One demand or more, the preferred one first.
 * @throws {UsageError} If something is wrong with an amount, or with the group.
 */
export function parseDemands(
  options: Pick<TaskOptions, "cpus" | "gpus" | "memory" | "resources" | "group" | "bundle">,
  what: string,
  defaults: { cpus?: number } = {},
): Record<string, number>[] {
  const { resources } = options;
  const demands = Array.isArray(resources)
    ? alternativesOf(options, resources, what, defaults)
    : [parseDemand(options, what, defaults)];
  return inGroup(demands, options, what);
}

function alternativesOf(
  { cpus, gpus, memory }: Pick<TaskOptions, "cpus" | "gpus" | "memory">,
  alternatives: readonly unknown[],
  what: string,
  defaults: { cpus?: number },
): Record<string, number>[] {
  for (const [option, value] of Object.entries({ cpus, gpus, memory })) {
    if (value === undefined) continue;
    throw new UsageError(
      `Cannot use ${option} of ${what} with a list of resources: each of the list says all that it asks for`,
    );
  }
  if (alternatives.length === 0 || alternatives.length > ALTERNATIVES_MAX) {
    throw new UsageError(`Cannot use resources of ${what}: give 1 to ${ALTERNATIVES_MAX} alternatives`);
  }
  return alternatives.map((alternative, i) => {
    if (typeof alternative !== "object" || alternative === null) {
      throw new UsageError(
        `Cannot use resources[${i}] of ${what}: ${show(alternative)} is no object such as { gpu: 1, cpu: 2 }`,
      );
    }
    const { cpu, gpu, memory, ...resources } = alternative as Record<string, number>;
    const given = Object.fromEntries(
      Object.entries({ cpus: cpu, gpus: gpu, memory, resources }).filter(([, value]) => value !== undefined),
    );
    return parseDemand(given, what, defaults);
  });
}

/** Puts demands into a group's bundle, or into whichever of its bundles could ever hold them. */
function inGroup(
  demands: Record<string, number>[],
  { group, bundle }: Pick<TaskOptions, "group" | "bundle">,
  what: string,
): Record<string, number>[] {
  if (group === undefined) {
    if (bundle === undefined) return demands;
    throw new UsageError(`Cannot use bundle of ${what} without a placement group: give group as well`);
  }
  const { id, demands: bundles } = group as Partial<GroupHandle>;
  if (typeof id !== "string" || !Array.isArray(bundles)) {
    throw new UsageError(
      `Cannot use group of ${what}: ${show(group)} is no placement group. Await placementGroup()`,
    );
  }
  if (bundle !== undefined) wholeNumber(bundle, "bundle", what, 0, bundles.length - 1);
  const found: Record<string, number>[] = [];
  for (const demand of demands) {
    bundles.forEach((holds: Readonly<Record<string, number>>, i) => {
      if (bundle !== undefined && i !== bundle) return;
      for (const name in demand) if ((holds[name] ?? 0) < demand[name]!) return;
      found.push(within(demand, id, i));
    });
  }
  if (found.length === 0) {
    throw new UsageError(
      `Cannot run ${what} in ${
        bundle === undefined ? "any bundle" : `bundle ${bundle}`
      } of its placement group: it ` +
        `asks for ${demands.map(showDemand).join(" or ")}, and the bundle${
          bundle === undefined ? "s hold" : " holds"
        } ` +
        `${(bundle === undefined ? bundles : [bundles[bundle]]).map(showDemand).join(", ")}`,
    );
  }
  return found.slice(0, ALTERNATIVES_MAX);
}

/**
 * Reads amounts of resources.
 *
 * @param given `cpus`, `gpus`, `memory` and `resources`, as a user gives them.
 * @param what Whose they are, in an error's words.
 * @param defaults What to take where nothing is given.
 * @returns Amounts in units of 1/10000, without zeros, keys in order.
 * @throws {UsageError} If an amount is not a number, negative, or so small that it rounds to nothing.
 */
export function parseDemand(
  given: Pick<TaskOptions, "cpus" | "gpus" | "memory" | "resources">,
  what: string,
  defaults: { cpus?: number } = {},
): Record<string, number> {
  const demand: Record<string, number> = Object.create(null);
  const set = (name: string, amount: number, option: string) => {
    if (typeof amount !== "number" || !(amount >= 0) || amount > Number.MAX_SAFE_INTEGER / RESOURCE_UNIT) {
      throw new UsageError(
        `Cannot use ${option} of ${what}: ${show(amount)} is not an amount of 0 or more`,
      );
    }
    const units = Math.round(amount * RESOURCE_UNIT);
    if (amount > 0 && units === 0) {
      throw new UsageError(`Cannot use ${option} of ${what}: ${amount} is finer than 1/${RESOURCE_UNIT}`);
    }
    if (units > 0) demand[name] = units;
  };
  set(CPU, given.cpus ?? defaults.cpus ?? 0, "cpus");
  const gpus = given.gpus ?? 0;
  if (gpus > 1 && !Number.isInteger(gpus)) {
    throw new UsageError(`Cannot use gpus of ${what}: ${gpus} must be a whole number, or a fraction below 1`);
  }
  set(GPU, gpus, "gpus");
  set(MEMORY, given.memory ?? 0, "memory");
  const resources = (given.resources ?? {}) as Readonly<Record<string, number>>;
  if (typeof resources !== "object" || Array.isArray(resources)) {
    throw new UsageError(`Cannot use resources of ${what}: give amounts by name, such as { licence: 1 }`);
  }
  for (const name of Object.keys(resources).sort()) {
    if (name === CPU || name === GPU || name === MEMORY) {
      throw new UsageError(`Cannot use resources of ${what}: "${name}" has an option of its own`);
    }
    if (name === "" || name === "__proto__" || isBundleName(name)) {
      throw new UsageError(`Cannot use resources of ${what}: "${name}" is no name for a resource`);
    }
    set(name, resources[name]!, `resources.${name}`);
  }
  return demand;
}

/** Amounts for people: `{cpu: 2, gpu: 0.5}`. @param demand Amounts in units of 1/10000. */
export function showDemand(demand: Readonly<Record<string, number>>): string {
  const parts = Object.entries(demand).map(([name, units]) => `${showName(name)}: ${units / RESOURCE_UNIT}`);
  return `{${parts.join(", ")}}`;
}

/** A whole number within bounds. @throws {UsageError} If it is none. */
export function wholeNumber(value: number, option: string, what: string, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new UsageError(
    `Cannot use ${option} of ${what}: ${show(value)} is not a whole number from ${min} to ${max}`,
  );
}

/** Whether something that a peer sent is a list of demands. */
export function areDemands(value: unknown): value is readonly Readonly<Record<string, number>>[] {
  return Array.isArray(value) &&
    value.every((demand) =>
      typeof demand === "object" && demand !== null && !Array.isArray(demand) &&
      Object.values(demand).every((units) => Number.isInteger(units) && units as number > 0)
    );
}
