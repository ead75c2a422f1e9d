/**
 * What an actor and its calls may ask for: the options of the public API, and the checked, frozen form in which they
 * travel.
 *
 * @module
 */

import {
  isPlacement,
  parsePlacement,
  type Placement,
  PLACEMENT_OPTIONS,
  type PlacementOptions,
} from "./placement.ts";
import { type Duration, durationMs } from "./duration.ts";
import { UsageError } from "./errors.ts";
import { ACTOR_IDLE_MS_DEFAULT, CHECKPOINT_CALLS_DEFAULT, RETURNS_MAX } from "./limits.ts";
import {
  areDemands,
  checkOptions,
  parseDemands,
  show,
  type TaskOptions,
  type TaskSettings,
  wholeNumber,
} from "./options.ts";

/** Options of an actor. */
export interface ActorOptions extends Pick<TaskOptions, "gpus" | "memory" | "resources">, PlacementOptions {
  /** CPUs that the actor holds for as long as it lives; lent while its call waits. Fractions to 0.0001. Default 0. */
  cpus?: number;
  /** A name under which others find the actor with `getActor`; of one living actor of its namespace. Default: none. */
  name?: string;
  /** Where the name is looked for. Default "default". */
  namespace?: string;
  /** The actor outlives its handles and its program's job; only `kill` ends it. Default false. */
  detached?: boolean;
  /** An isolate of the actor's own, or one that it shares with other light actors. Default "own". */
  isolate?: "own" | "shared";
  /** How many calls run at once, interleaved where they wait. More than 1 makes the actor not durable. Default 1. */
  concurrency?: number;
  /**
   * Further lines of calls by name, each with the number that run at once, beside the actor's own. A method belongs to
   * the group that the class names in `static concurrencyGroups`, unless the call names one. The actor is not durable.
   */
  concurrencyGroups?: Readonly<Record<string, number>>;
  /** Calls that may be unfinished at once; one more fails with `PendingCallsLimitError`. Default: no limit. */
  maxPending?: number;
  /** How often the actor comes back when its isolate dies. Default: "always" of a durable actor, 0 of any other. */
  restarts?: number | "always";
  /** Whether each call is applied exactly once, whatever dies; otherwise at most once. Default true. */
  durable?: boolean;
  /** How often a durable actor's state is saved: after so many calls, or so much time. Default: 1000 calls. */
  checkpoint?: { readonly every: number | Duration };
  /** The actor dies with the actor that creates it, and the reverse. Default false. */
  linked?: boolean;
  /** How long an actor of `get(key)` stays awake without calls. Default "5m". */
  idle?: Duration;
}

/** {@link ActorOptions}, checked, with every default filled in: the form that travels. */
export interface ActorSettings {
  /** Amount by resource name, in units of 1/10000. Zero amounts are left out. */
  readonly demand: Readonly<Record<string, number>>;
  /** What else would do, in this order, if `demand` cannot be had. */
  readonly alternatives?: readonly Readonly<Record<string, number>>[];
  /** The name of the class, for people. */
  readonly label: string;
  /** The registered name; empty for none. */
  readonly name: string;
  readonly namespace: string;
  readonly detached: boolean;
  readonly shared: boolean;
  readonly concurrency: number;
  readonly groups: Readonly<Record<string, number>>;
  /** 0 for no limit. */
  readonly maxPending: number;
  readonly restarts: number;
  readonly durable: boolean;
  /** Calls between two checkpoints; 0 for no such limit. */
  readonly checkpointCalls: number;
  /** Milliseconds between two checkpoints; 0 for no such limit. */
  readonly checkpointMs: number;
  readonly linked: boolean;
  readonly idleMs: number;
  /** It is made by its first call, and sleeps when it is idle. */
  readonly virtual: boolean;
  /** Where it may be, if that is said. */
  readonly placement?: Placement;
}

/** Options of one call of an actor's method. */
export interface CallOptions extends Pick<TaskOptions, "name" | "returns" | "timeout"> {
  /**
   * Of an actor that is not durable: how often the call is made again when the actor dies while it may be running.
   * Default 0.
   */
  retries?: number;
  /** The concurrency group whose line the call joins. */
  group?: string;
}

/** The names of {@link ActorOptions}. */
export const ACTOR_OPTIONS: readonly string[] = [
  "cpus",
  "gpus",
  "memory",
  "resources",
  "name",
  "namespace",
  "detached",
  "isolate",
  "concurrency",
  "concurrencyGroups",
  "maxPending",
  "restarts",
  "durable",
  "checkpoint",
  "linked",
  "idle",
  ...PLACEMENT_OPTIONS,
];
const CALL_OPTIONS = ["retries", "timeout", "returns", "name", "group"];

/** The most calls that an actor may run at once. */
const CONCURRENCY_MAX = 10_000;

/**
 * Checks an actor's options and fills in the defaults.
 *
 * @param options What the user gave.
 * @param label The class's name.
 * @param virtual Whether the actor is one of `get(key)`.
 * @throws {UsageError} If an option is unknown, has a value out of its range, or contradicts another.
 */
export function parseActorOptions(options: ActorOptions, label: string, virtual: boolean): ActorSettings {
  checkOptions(options, ACTOR_OPTIONS, `actor ${label}`, "{ cpus: 1 }");
  const what = `actor ${label}`;
  const flag = (name: "detached" | "durable" | "linked", value: unknown): boolean => {
    if (typeof value === "boolean") return value;
    throw new UsageError(`Cannot use ${name} of ${what}: give true or false`);
  };
  const text = (name: "name" | "namespace", value: unknown): string => {
    if (typeof value === "string" && value !== "") return value;
    throw new UsageError(`Cannot use ${name} of ${what}: it must be text that is not empty`);
  };
  const concurrency = wholeNumber(options.concurrency ?? 1, "concurrency", what, 1, CONCURRENCY_MAX);
  const groups = groupsOf(options.concurrencyGroups ?? {}, what);
  const concurrent = concurrency > 1 || Object.keys(groups).length > 0;
  if (concurrent && options.durable === true) {
    throw new UsageError(
      `Cannot make ${what} durable with ${
        concurrency > 1 ? "concurrency" : "concurrencyGroups"
      }: calls that ` +
        `interleave cannot be replayed in order. Leave out one of the two`,
    );
  }
  const durable = flag("durable", options.durable ?? !concurrent);
  if (options.isolate !== undefined && options.isolate !== "own" && options.isolate !== "shared") {
    throw new UsageError(
      `Cannot use isolate of ${what}: there are "own" and "shared", not ${show(options.isolate)}`,
    );
  }
  const shared = options.isolate === "shared";
  if (!durable && options.checkpoint !== undefined) {
    throw new UsageError(`Cannot use checkpoint of ${what}: only a durable actor has checkpoints`);
  }
  if (virtual && !durable) {
    throw new UsageError(
      `Cannot get ${what} by key without durable: its state must survive its sleep. Leave out durable: false ` +
        `and concurrency`,
    );
  }
  if (virtual && (options.name !== undefined || options.linked === true)) {
    throw new UsageError(
      `Cannot use ${options.name !== undefined ? "name" : "linked"} of ${what} with get(key)`,
    );
  }
  const restarts = options.restarts === "always" || options.restarts === Infinity
    ? Number.MAX_SAFE_INTEGER
    : options.restarts === undefined
    ? durable ? Number.MAX_SAFE_INTEGER : 0
    : wholeNumber(options.restarts, "restarts", what, 0, Number.MAX_SAFE_INTEGER);
  const placement = parsePlacement(options, what);
  const [demand, ...alternatives] = parseDemands(options, what);
  return {
    demand: demand!,
    ...(alternatives.length === 0 ? {} : { alternatives }),
    label,
    name: options.name === undefined ? "" : text("name", options.name),
    namespace: text("namespace", options.namespace ?? DEFAULT_NAMESPACE),
    detached: flag("detached", options.detached ?? false),
    shared,
    concurrency,
    groups,
    maxPending: options.maxPending === undefined || options.maxPending === Infinity
      ? 0
      : wholeNumber(options.maxPending, "maxPending", what, 1, Number.MAX_SAFE_INTEGER),
    restarts,
    durable,
    ...checkpointOf(options.checkpoint, durable, what),
    linked: flag("linked", options.linked ?? false),
    idleMs: Math.max(
      1,
      Math.min(
        options.idle === undefined ? ACTOR_IDLE_MS_DEFAULT : durationMs(options.idle, `idle of ${what}`),
        Number.MAX_SAFE_INTEGER,
      ),
    ),
    virtual,
    ...(placement === undefined ? {} : { placement }),
  };
}

/** The namespace of names that are given none. */
export const DEFAULT_NAMESPACE = "default";

function checkpointOf(
  checkpoint: ActorOptions["checkpoint"],
  durable: boolean,
  what: string,
): { checkpointCalls: number; checkpointMs: number } {
  if (checkpoint === undefined) {
    return { checkpointCalls: durable ? CHECKPOINT_CALLS_DEFAULT : 0, checkpointMs: 0 };
  }
  checkOptions(checkpoint, ["every"], `checkpoint of ${what}`, '{ every: 1000 } or { every: "5s" }');
  const { every } = checkpoint;
  if (typeof every === "number") {
    const calls = wholeNumber(every, "checkpoint.every", what, 1, Number.MAX_SAFE_INTEGER);
    return { checkpointCalls: calls, checkpointMs: 0 };
  }
  return { checkpointCalls: 0, checkpointMs: Math.max(1, durationMs(every, `checkpoint.every of ${what}`)) };
}

function groupsOf(given: Readonly<Record<string, number>>, what: string): Record<string, number> {
  if (typeof given !== "object" || given === null) {
    throw new UsageError(`Cannot use concurrencyGroups of ${what}: give numbers by name, such as { io: 2 }`);
  }
  const groups: Record<string, number> = {};
  for (const [name, limit] of Object.entries(given)) {
    if (name === "" || name === "__proto__") {
      throw new UsageError(`Cannot use concurrencyGroups of ${what}: "${name}" is no name for a group`);
    }
    groups[name] = wholeNumber(limit, `concurrencyGroups.${name}`, what, 1, CONCURRENCY_MAX);
  }
  return groups;
}

/**
 * Checks the options of a call.
 *
 * @param options What the user gave.
 * @param method `Class.method`: the default of `name`.
 * @param stream Whether the method is a generator.
 * @param group The group that the class names for the method, if any.
 * @throws {UsageError} If an option is unknown or has a value out of its range.
 */
export function parseCallOptions(
  options: CallOptions,
  method: string,
  stream: boolean,
  group: string | undefined,
): TaskSettings {
  checkOptions(options, CALL_OPTIONS, method, '{ timeout: "5s" }');
  const returns = wholeNumber(options.returns ?? 1, "returns", method, 1, RETURNS_MAX);
  if (stream && returns !== 1) {
    throw new UsageError(`Cannot set returns: ${method} is a generator, its results are streamed`);
  }
  const name = options.name ?? method;
  if (typeof name !== "string" || name === "") {
    throw new UsageError(`Cannot use name of ${method}: it must be text that is not empty`);
  }
  const chosen = options.group ?? group;
  if (chosen !== undefined && typeof chosen !== "string") {
    throw new UsageError(`Cannot use group of ${method}: give the name of a concurrency group`);
  }
  const timeoutMs = options.timeout === undefined ? 0 : durationMs(options.timeout, `timeout of ${method}`);
  return {
    demand: {},
    name,
    returns,
    retries: options.retries === Infinity
      ? Number.MAX_SAFE_INTEGER
      : wholeNumber(options.retries ?? 0, "retries", method, 0, Number.MAX_SAFE_INTEGER),
    retryOn: false,
    timeoutMs: timeoutMs === Infinity ? 0 : Math.max(timeoutMs, options.timeout === undefined ? 0 : 1),
    priority: 0,
    stream,
    ...(chosen === undefined ? {} : { group: chosen }),
  };
}

/** The settings of the task that makes an actor. @param label The class's name. */
export function creationSettings(
  label: string,
  { demand, alternatives, placement }: Partial<Pick<ActorSettings, "demand" | "alternatives" | "placement">> =
    {},
): TaskSettings {
  return {
    ...(placement === undefined ? {} : { placement }),
    demand: demand ?? {},
    ...(alternatives === undefined ? {} : { alternatives }),
    name: label,
    returns: 1,
    retries: 0,
    retryOn: false,
    timeoutMs: 0,
    priority: 0,
    stream: false,
  };
}

/** Whether something that a peer sent has the form of {@link ActorSettings}. */
export function isActorSettings(value: unknown): value is ActorSettings {
  if (typeof value !== "object" || value === null) return false;
  const v = value as Record<string, unknown>;
  const whole = (x: unknown) => typeof x === "number" && Number.isInteger(x) && x >= 0;
  const amounts = (x: unknown) =>
    typeof x === "object" && x !== null && !Array.isArray(x) &&
    Object.values(x).every((units) => whole(units) && (units as number) > 0);
  const time = (x: unknown) => typeof x === "number" && x >= 0;
  return amounts(v.demand) && amounts(v.groups) && typeof v.label === "string" &&
    typeof v.name === "string" &&
    typeof v.namespace === "string" &&
    [v.detached, v.shared, v.durable, v.linked, v.virtual].every((flag) => typeof flag === "boolean") &&
    whole(v.concurrency) && whole(v.maxPending) && whole(v.restarts) && whole(v.checkpointCalls) &&
    (v.alternatives === undefined || areDemands(v.alternatives)) &&
    (v.placement === undefined || isPlacement(v.placement)) && time(v.checkpointMs) && time(v.idleMs);
}
