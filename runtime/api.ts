/**
 * The verbs on objects: get, put, wait and what is made of them.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { type Duration, durationMs } from "../core/duration.ts";
import { UsageError } from "../core/errors.ts";
import { taskOf } from "../core/ids.ts";
import { checkFlag, checkOptions, show } from "../core/options.ts";
import { taskContext } from "./executor.ts";
import type { TaskContext } from "./executor.ts";
import { type Entry, entryOf, Ref, type RefOr, type ValueOf } from "./ref.ts";
import { currentClient } from "./session.ts";
import { RefStream, streamTask } from "./stream.ts";

/** Options of {@link get}. */
export interface GetOptions {
  /** How long to wait at most. Default: for ever. */
  timeout?: Duration;
}

/** What `get` makes of a tuple, an array or a record of Refs. */
export type Values<R> = { -readonly [K in keyof R]: R[K] extends Ref<infer T> ? T : never };

/**
 * The value of a Ref, of each Ref of an array or tuple, or of each Ref of a record, once it exists. A task that waits
 * lends its CPUs to others meanwhile.
 *
 * Large typed arrays come back as views of shared memory: do not write to them.
 *
 * @param refs One Ref, an array or tuple of Refs, or an object with Refs as values.
 * @param options `timeout`: how long to wait at most.
 * @throws {TaskError} If the task threw; `cause` is what it threw.
 * @throws {GetTimeoutError} If not all values exist in time.
 * @throws {ObjectLostError} If a value is gone.
 * @throws {RaydError} Of another kind, if the task could not be run: cancelled, timed out, crashed.
 */
export function get<T>(ref: Ref<T>, options?: GetOptions): Promise<T>;
/** The values of an array or tuple of Refs, in order. @throws As for one Ref. */
export function get<const R extends readonly Ref<unknown>[]>(
  refs: R,
  options?: GetOptions,
): Promise<Values<R>>;
/** The values of an object's Refs, under the same names. @throws As for one Ref. */
export function get<R extends Readonly<Record<string, Ref<unknown>>>>(
  refs: R,
  options?: GetOptions,
): Promise<Values<R>>;
/** The value of a Ref that is one of several types. @throws As for one Ref. */
export function get<R extends Ref<unknown>>(ref: R, options?: GetOptions): Promise<ValueOf<R>>;
export async function get(
  refs: Ref<unknown> | readonly Ref<unknown>[] | Readonly<Record<string, Ref<unknown>>>,
  options?: GetOptions,
): Promise<unknown> {
  const client = currentClient();
  const deadline = deadlineOf(options, "get");
  if (refs instanceof Ref) {
    const entry = entryOf(refs);
    const now = client.valueNow(entry);
    return now !== undefined ? now.value : await client.value(entry, deadline);
  }
  if (Array.isArray(refs)) return await getAll(entriesOf(refs, "get"), deadline);
  if (refs instanceof RefStream) {
    throw new UsageError("Cannot get a stream: iterate over it with `for await (const ref of stream)`");
  }
  if (!isRecord(refs)) {
    throw new UsageError(`Cannot get ${show(refs)}: give a Ref, an array of Refs, or an object of Refs`);
  }
  const names = Object.keys(refs);
  const values = await getAll(entriesOf(Object.values(refs), "get", names), deadline);
  return Object.fromEntries(names.map((name, i) => [name, values[i]]));
}

async function getAll(entries: readonly Entry[], deadline: number): Promise<unknown[]> {
  const client = currentClient();
  return await client.holding(entries, async () => {
    if (!client.allReady(entries)) await client.waitFor(entries, deadline);
    const values: unknown[] = new Array(entries.length);
    for (let i = 0; i < entries.length; i++) {
      const now = client.valueNow(entries[i]!);
      values[i] = now !== undefined ? now.value : await client.value(entries[i]!, deadline);
    }
    return values;
  });
}

/**
 * Stores a value, to be passed to any number of tasks without being copied again. Small values travel in messages;
 * large ones are written to shared memory once.
 *
 * @param value Anything that `structuredClone` takes, with Refs anywhere in it; or what {@link allocate} gave, which is
 *   not copied at all.
 * @returns A Ref of the value.
 * @throws {SerializationError} If the value cannot be carried; the error names the part that cannot.
 * @throws {StoreFullError} If there is no room and none can be made.
 */
export async function put<T>(value: T): Promise<Ref<T>> {
  const client = currentClient();
  return (client.putSmall(value) ?? await client.put(value)) as Ref<T>;
}

/** The kinds of arrays that {@link allocate} makes. */
export type NumericArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

/**
 * Makes a typed array in shared memory, to be filled and then passed to {@link put}, which seals it without a copy.
 *
 * @param type The array's class, such as `Float32Array`.
 * @param length How many elements; they are not zeroed.
 * @throws {UsageError} If the class is none of {@link NumericArray}, or the length is not a whole number.
 * @throws {StoreFullError} If there is no room and none can be made.
 */
export async function allocate<A extends NumericArray>(
  type: {
    new (buffer: ArrayBuffer, byteOffset: number, length: number): A;
    readonly BYTES_PER_ELEMENT: number;
  },
  length: number,
): Promise<A> {
  if (!ARRAY_TYPES.includes(type)) {
    throw new UsageError(
      `Cannot allocate ${show(type)}: give one of ${ARRAY_TYPES.map(({ name }) => name).join(", ")}`,
    );
  }
  if (!Number.isInteger(length) || length < 0) {
    throw new UsageError(`Cannot allocate ${show(length)} elements: give a whole number of 0 or more`);
  }
  return await currentClient().allocateArray(type, length);
}

const ARRAY_TYPES: readonly { readonly name: string }[] = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
];

/** Options of {@link wait}. */
export interface WaitOptions {
  /** How many objects to wait for. Default 1. */
  count?: number;
  /** How long to wait at most. Default: for ever. */
  timeout?: Duration;
}

/**
 * Waits until `count` of the objects exist, or until the timeout.
 *
 * @param refs The objects, each once.
 * @param options `count` and `timeout`.
 * @returns `[ready, pending]`, both in the order of `refs`; `ready` holds at most `count`. A failed task counts as ready.
 */
export async function wait<R extends Ref<unknown>>(
  refs: readonly R[],
  options?: WaitOptions,
): Promise<[ready: R[], pending: R[]]> {
  const client = currentClient();
  const deadline = deadlineOf(options, "wait", WAIT_OPTIONS);
  const count = options?.count ?? 1;
  if (!Array.isArray(refs as unknown)) {
    throw new UsageError(`Cannot wait for ${show(refs)}: give an array of Refs`);
  }
  if (!Number.isInteger(count) || count < 0 || count > refs.length) {
    throw new UsageError(
      `Cannot wait for ${show(count)} of ${refs.length} objects: give a count from 0 to ${refs.length}`,
    );
  }
  const now = splitRefs(refs, count);
  if (now.ready.length === count) return [now.ready, now.pending];
  const entries = entriesOf(refs, "wait");
  return await client.holding(entries, async () => {
    for (;;) {
      const late = await client.nextArrival(entries, deadline);
      const { ready, pending } = splitRefs(refs, count);
      if (late || ready.length === count) return [ready, pending];
    }
  });
}

/** The first `count` Refs whose objects exist, and all others; looks no further than it must. */
function splitRefs<R extends Ref<unknown>>(refs: readonly R[], count: number): { ready: R[]; pending: R[] } {
  const ready: R[] = [], pending: R[] = [];
  let i = 0;
  for (; i < refs.length && ready.length < count; i++) {
    const ref = refs[i]!;
    if (!(ref instanceof Ref)) {
      throw new UsageError(`Cannot wait: element ${i} is ${show(ref)}, not a Ref`);
    }
    (entryOf(ref).outcome === undefined ? pending : ready).push(ref);
  }
  if (pending.length === 0) return { ready, pending: refs.slice(i) };
  for (; i < refs.length; i++) pending.push(refs[i]!);
  return { ready, pending };
}

/**
 * The Refs, each as soon as its object exists.
 *
 * @param refs The objects.
 * @param options `timeout`: how long the whole iteration may wait.
 * @throws {GetTimeoutError} If the timeout passes.
 */
export async function* asCompleted<R extends Ref<unknown>>(
  refs: Iterable<R>,
  options?: GetOptions,
): AsyncGenerator<R, void> {
  const client = currentClient();
  const deadline = deadlineOf(options, "asCompleted");
  if (typeof (refs as Partial<Iterable<R>> | undefined | null)?.[Symbol.iterator] !== "function") {
    throw new UsageError(`Cannot iterate as completed over ${show(refs)}: give an array of Refs`);
  }
  let pending = [...refs];
  let entries = entriesOf(pending, "asCompleted");
  while (pending.length > 0) {
    const ready: R[] = [], rest: R[] = [];
    pending.forEach((ref, i) => (entries[i]!.outcome === undefined ? rest : ready).push(ref));
    yield* ready;
    pending = rest;
    entries = entries.length === rest.length ? entries : rest.map((ref) => entryOf(ref));
    if (ready.length > 0 || rest.length === 0) continue;
    const waiting = entries;
    await client.holding(waiting, async () => {
      while (!waiting.some((entry) => entry.outcome !== undefined)) {
        if (await client.nextArrival(waiting, deadline)) await client.waitFor(waiting, deadline);
      }
    });
  }
}

/** Options of {@link map}. */
export interface MapOptions {
  /** Give results in the order of the inputs. Default true; otherwise as they come. */
  ordered?: boolean;
  /** How many tasks may be unfinished or untaken at once. Default 1000. */
  window?: number;
}

/** What {@link map} runs: a remote function, or anything with such a `remote`. */
export interface Mappable<A, R> {
  /** Runs a task. */
  remote(arg: RefOr<A>): Ref<R>;
}

/**
 * Runs a remote function on each element of an iterable, a window of tasks at a time: inputs are read, and results
 * held, no further ahead of the consumer than the window.
 *
 * @param fn A remote function of one argument.
 * @param inputs Its arguments; may be endless.
 * @param options `ordered` and `window`.
 * @returns The results.
 * @throws {TaskError} Where the result of a failed task would be; the iteration ends there.
 */
export async function* map<A, R>(
  fn: Mappable<A, R>,
  inputs: Iterable<RefOr<A>> | AsyncIterable<RefOr<A>>,
  options: MapOptions = {},
): AsyncGenerator<Awaited<R>, void> {
  checkOptions(options, MAP_OPTIONS, "map()", "{ window: 100 }");
  const { ordered = true, window = 1000 } = options;
  if (typeof fn?.remote !== "function") {
    throw new UsageError(`Cannot map ${show(fn)}: give a remote function, made by remote()`);
  }
  if (!Number.isInteger(window) || window < 1) {
    throw new UsageError(`Cannot map with a window of ${show(window)}: give a whole number of 1 or more`);
  }
  checkFlag(ordered, "ordered", "map()");
  const source = iteratorOf(inputs);
  let running: Ref<R>[] = [];
  let more = true;
  try {
    while (more || running.length > 0) {
      while (more && running.length < window) {
        const next = await source.next();
        if (next.done) more = false;
        else running.push(oneRef(fn.remote(next.value)));
      }
      if (running.length === 0) break;
      if (ordered) yield await get(running.shift()!) as Awaited<R>;
      else {
        const [ready, pending] = await wait(running, { count: 1 });
        running = pending;
        yield await get(ready[0]!) as Awaited<R>;
      }
    }
  } finally {
    if (more) await source.return?.();
    for (const ref of running) cancel(ref);
  }
}

/** What reads the inputs. @throws {UsageError} If they cannot be iterated over. */
function iteratorOf<T>(inputs: Iterable<T> | AsyncIterable<T>): Iterator<T> | AsyncIterator<T> {
  const given = inputs as Partial<Iterable<T> & AsyncIterable<T>> | null | undefined;
  const source = given?.[Symbol.asyncIterator]?.() ?? given?.[Symbol.iterator]?.();
  if (source !== undefined) return source;
  throw new UsageError(`Cannot map over ${show(inputs)}: give an array, or anything else to iterate over`);
}

/** What a call gave, if it is one Ref. */
function oneRef<R>(given: Ref<R>): Ref<R> {
  if (given instanceof Ref) return given;
  const other: unknown = given;
  if (other instanceof RefStream) other.return();
  throw new UsageError(
    "Cannot map a generator, or a function with several returns: call its remote() for each input",
  );
}

/** Options of {@link cancel}. */
export interface CancelOptions {
  /** End the isolate that runs the task if the task has not stopped shortly after its signal. Default false. */
  force?: boolean;
  /** Cancel what the task has submitted as well. Default true. */
  recursive?: boolean;
}

/**
 * Cancels the task that makes an object. One that has not started never will; one that runs has its
 * `context().signal` aborted. In any case `get` throws {@link TaskCancelledError} from now on. A task that has ended
 * stays as it is.
 *
 * @param ref What the task makes: a Ref or a stream.
 * @param options `force` and `recursive`.
 */
export function cancel(ref: Ref<unknown> | RefStream<unknown>, options: CancelOptions = {}): void {
  checkOptions(options, CANCEL_OPTIONS, "cancel()", "{ force: true }");
  const { force = false, recursive = true } = options;
  checkFlag(force, "force", "cancel()");
  checkFlag(recursive, "recursive", "cancel()");
  const task = ref instanceof RefStream
    ? streamTask(ref)
    : ref instanceof Ref
    ? taskOf(entryOf(ref).id)
    : undefined;
  if (task === undefined) throw new UsageError(`Cannot cancel ${show(ref)}: give a Ref or a stream`);
  currentClient().cancel(task, force, recursive);
}

/** What the calling task can learn about itself. @throws {UsageError} Outside of a task. */
export function context(): TaskContext {
  const found = taskContext();
  if (found === undefined) throw new UsageError("Cannot tell the context: this code does not run in a task");
  return found;
}

/** A node, as {@link nodes} shows it. */
export interface NodeInfo {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** Whether it answers. */
  readonly alive: boolean;
  /** What it is labelled with (`--labels`). */
  readonly labels: Readonly<Record<string, string>>;
  /** All that it has, by resource name. */
  readonly resources: Readonly<Record<string, number>>;
  /** What of it is free now. CPU may be below zero for a moment, while tasks that had lent theirs resume. */
  readonly available: Readonly<Record<string, number>>;
  /** Isolates that are up. */
  readonly isolates: number;
  /** Bytes of its object store. */
  readonly storeCapacity: number;
}

/** The nodes there are. */
export async function nodes(): Promise<NodeInfo[]> {
  return await currentClient().ask("nodes") as NodeInfo[];
}

/** All resources there are, by name. Memory is in bytes. */
export async function clusterResources(): Promise<Record<string, number>> {
  return await currentClient().ask("cluster") as Record<string, number>;
}

/** The resources that are free now, by name. */
export async function availableResources(): Promise<Record<string, number>> {
  return await currentClient().ask("available") as Record<string, number>;
}

const GET_OPTIONS = ["timeout"], WAIT_OPTIONS = ["count", "timeout"];
const MAP_OPTIONS = ["ordered", "window"], CANCEL_OPTIONS = ["force", "recursive"];

/** What is behind Refs. @param names What they are called, if they have names. */
function entriesOf(refs: readonly unknown[], verb: string, names?: readonly string[]): Entry[] {
  const entries: Entry[] = new Array(refs.length);
  for (let i = 0; i < refs.length; i++) {
    const ref = refs[i];
    if (!(ref instanceof Ref)) {
      const which = names === undefined ? `element ${i}` : `"${names[i]}"`;
      throw new UsageError(`Cannot ${verb}: ${which} is ${show(ref)}, not a Ref`);
    }
    entries[i] = entryOf(ref);
  }
  return entries;
}

/** When to give up, by the options of a verb, which are checked. */
function deadlineOf(
  options: GetOptions | undefined,
  verb: string,
  known: readonly string[] = GET_OPTIONS,
): number {
  if (options === undefined) return Infinity;
  checkOptions(options, known, `${verb}()`, '{ timeout: "5s" }');
  const { timeout } = options;
  return timeout === undefined ? Infinity : systemClock.now() + durationMs(timeout, `timeout of ${verb}()`);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
