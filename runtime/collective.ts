/**
 * Collectives: members of a group, each a task or an actor, that reduce, gather and pass on typed arrays together.
 *
 * On one node they work in shared memory. Each member's input lies in the store (written there by the member, or copied
 * once); all members map all inputs; each reduces its own slice of them, with vector instructions, into one result that
 * all of them map. So of W inputs of N bytes, memory is read W·N times and written N times, whichever way it is divided,
 * and nothing is copied to anybody. The store's ordinary objects are immutable; these are written again and again, in
 * turns: between two meetings of all members in which everybody writes only what is its own. Fresh memory is slow to fault
 * in, so buffers are kept: a member's input buffer for as long as it is in the group, a result's until all members have
 * let go of it.
 *
 * Across nodes, or with `via: "objects"`, members exchange slices as ordinary objects: each sends every other its slice
 * once, and each reduced slice goes to all, (W-1)/W·N bytes out and in for each half, which is what a ring would move.
 *
 * @module
 */

import { type Duration, durationMs } from "../core/duration.ts";
import {
  ActorDiedError,
  CollectiveBrokenError,
  CollectiveMismatchError,
  UsageError,
} from "../core/errors.ts";
import { hex, type TaskId } from "../core/ids.ts";
import { REDUCE_ELEMENTS, type ReduceOp, type ReducibleArray } from "../store/object_store.ts";
import { get, put } from "./api.ts";
import { scopeOf } from "./scope.ts";
import { Hub, type HubHandle, type Met, type Offer, type Place, type Refusal } from "./collective_hub.ts";
import { callAnew } from "./handle.ts";
import { callingMember, isReplaying } from "./owner.ts";
import { entryOf, type Ref } from "./ref.ts";
import { currentClient } from "./session.ts";
import { checkOptions } from "./tool.ts";

export type { ReduceOp, ReducibleArray } from "../store/object_store.ts";

/** Options of {@link join}. */
export interface JoinOptions {
  /** The group's name: whoever joins under it is in it. */
  name: string;
  /** How many members it has; the same for all. */
  size: number;
  /** The member's rank, from 0. Default: given in the order of joining; all must ask, or none need. */
  rank?: number;
  /** How long one member may wait for the others, in `join` and in each call. Default "60s". */
  timeout?: Duration;
  /** `"memory"` where all members are on one node, otherwise (or if asked for) `"objects"`. The same for all. */
  via?: "objects";
}

/** An array in shared memory. At the end of a `using` scope its memory goes back to the group, to be written anew. */
export type Shared<A> = A & Disposable;

/**
 * Becomes a member of a group. Waits until all of its members have joined.
 *
 * A member is the actor whose method joins, or else the task. When one is gone without having left, every call of the
 * others fails with {@link CollectiveBrokenError}, those that wait at once; then all may join again under the same name.
 * A member that died and came back is not a member any more: an actor that holds a group is best `durable: false`, as its
 * calls cannot be run again.
 *
 * @param options `name`, `size`, and `rank`, `timeout`, `via`.
 * @returns The group, as this member sees it.
 * @throws {CollectiveBrokenError} If not all members join in time, or one that had joined is gone.
 * @throws {CollectiveMismatchError} If they disagree about the size, or two ask for one rank.
 * @throws {UsageError} If the group is full, or an option is wrong.
 */
export async function join(options: JoinOptions): Promise<Group> {
  checkOptions(options, ["name", "size", "rank", "timeout", "via"], "join");
  const { name, size, rank = -1, timeout = "60s", via } = options;
  if (typeof name !== "string" || name === "") {
    throw new UsageError("Cannot join a group without a name: give the name that all its members give");
  }
  if (!Number.isInteger(size) || size < 1) {
    throw new UsageError(
      `Cannot join group "${name}" of size ${String(size)}: give a whole number of 1 or more`,
    );
  }
  if (!Number.isInteger(rank) || rank < -1 || rank >= size) {
    throw new UsageError(
      `Cannot join group "${name}" as rank ${String(rank)}: give 0 to ${size - 1}, or none`,
    );
  }
  if (via !== undefined && via !== "objects") {
    throw new UsageError(`Cannot join group "${name}" via ${String(via)}: give "objects", or nothing`);
  }
  const timeoutMs = durationMs(timeout, "timeout of join");
  const hub = await Hub.options({ name: `group ${name}` }).getOrCreate(name);
  const client = currentClient();
  await client.ready;
  const owner = callingMember();
  if (isReplaying()) {
    await get(callAnew(hub, "cameBack", [owner]) as Ref<undefined>);
    return makeGroup(name, hub, { generation: -1, rank: 0, nodes: [] }, size, timeoutMs, via);
  }
  const node = hex(client.node!);
  const place = await ask<Place>(name, callAnew(hub, "join", [size, rank, owner, node, timeoutMs]));
  return makeGroup(name, hub, place, size, timeoutMs, via);
}

/** The answer of a meeting place, or the error that it is. */
async function ask<T extends object>(name: string, call: unknown): Promise<T> {
  let answer: T | Refusal;
  try {
    answer = await get(call as Ref<T | Refusal>);
  } catch (error) {
    if (!(error instanceof ActorDiedError)) throw error;
    throw new CollectiveBrokenError(`Group "${name}" is broken: its meeting place is gone: ${error.reason}`, {
      cause: error,
    });
  }
  if (!("refused" in answer)) return answer;
  const { refused, message } = answer as Refusal;
  throw refused === "mismatch"
    ? new CollectiveMismatchError(message)
    : refused === "usage"
    ? new UsageError(message)
    : new CollectiveBrokenError(message);
}

/** Where a member's input lies, as the others are told. */
interface Input {
  /** The number of the buffer among those of its member. */
  readonly buffer: number;
  /** The buffer itself, when they are told of it for the first time. */
  readonly ref: Ref<Uint8Array> | undefined;
  readonly offset: number;
}

/** Memory in which a member's inputs lie. */
interface InputBuffer {
  readonly number: number;
  readonly ref: Ref<Uint8Array>;
  readonly memory: Uint8Array<ArrayBuffer>;
  told: boolean;
}

/** What is known of results, by the buffer under them: what keeps their memory mapped. */
const mappings = new WeakMap<ArrayBuffer, Uint8Array<ArrayBuffer>>();

let makeGroup: (
  name: string,
  hub: HubHandle,
  place: Place,
  size: number,
  timeoutMs: number,
  via: "objects" | undefined,
) => Group;

/**
 * A group, as one of its members sees it. It belongs to the task or actor that joined and does not travel.
 *
 * All members make the same calls in the same order, each call with arrays of one kind. Calls of one member are done one
 * after the other. Results are in shared memory: read them, do not write to them.
 */
export class Group implements Disposable {
  /** The group's name. */
  readonly name: string;
  /** How many members it has. */
  readonly size: number;
  /** This member's rank, from 0. */
  readonly rank: number;
  /** How arrays pass: in shared memory, or as objects. */
  readonly via: "memory" | "objects";
  readonly #hub: HubHandle;
  readonly #generation: number;
  readonly #timeoutMs: number;
  #left = false;
  /** The last call of this member; the next one begins when it has ended. */
  #turn: Promise<unknown> = Promise.resolve();
  /** This member's buffers: one that inputs are copied to, and those that it has allocated. */
  #scratch: InputBuffer | undefined;
  readonly #allocated = new WeakMap<ArrayBufferLike, InputBuffer>();
  #nextBuffer = 0;
  /** What the others' buffers are mapped to, and the results'. */
  readonly #inputs = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #results = new Map<number, Uint8Array<ArrayBuffer>>();
  /** Buffers that were given back, by result buffer. To the engine each new one is as much memory to collect again. */
  readonly #spare = new Map<number, ArrayBuffer>();
  /** Result buffers that nobody here can read any more; the group is to be told. */
  readonly #freed: number[] = [];
  readonly #finalizer = new FinalizationRegistry<number>((id) => this.#freed.push(id));

  private constructor(
    name: string,
    hub: HubHandle,
    place: Place,
    size: number,
    timeoutMs: number,
    via: "objects" | undefined,
  ) {
    this.name = name;
    this.size = size;
    this.rank = place.rank;
    this.via = via ?? (new Set(place.nodes).size > 1 ? "objects" : "memory");
    this.#hub = hub;
    this.#generation = place.generation;
    this.#timeoutMs = timeoutMs;
  }

  static {
    makeGroup = (...args) => new Group(...args);
  }

  /**
   * Makes an array that is this member's input again and again: what is written to it needs not be copied for a call.
   * Write to it between calls, never during one.
   *
   * @param type The array's class, such as `Float32Array`. @param length How many elements; they are zero.
   * @throws {StoreFullError} If there is no room.
   */
  async allocate<A extends ReducibleArray>(
    type: {
      new (buffer: ArrayBuffer, byteOffset: number, length: number): A;
      readonly BYTES_PER_ELEMENT: number;
    },
    length: number,
  ): Promise<A> {
    if (!Number.isInteger(length) || length < 0) {
      throw new UsageError(`Cannot allocate ${String(length)} elements: give a whole number of 0 or more`);
    }
    const buffer = await this.#makeInput(length * type.BYTES_PER_ELEMENT);
    buffer.memory.fill(0);
    this.#allocated.set(buffer.memory.buffer, buffer);
    return new type(buffer.memory.buffer, buffer.memory.byteOffset, length);
  }

  /**
   * Reduces the members' arrays, element by element, in the order of their ranks: all get the same, bit for bit.
   *
   * @param array This member's array, of the same kind and length as the others'.
   * @param options `op`: "sum" (the default), "prod", "min", "max", or "mean" of floating-point numbers. Whole numbers
   *   wrap; of "min" and "max", NaN wins.
   * @returns The result, in memory that all members share.
   * @throws {CollectiveMismatchError} If the members' calls, arrays or options differ; the message says whose are what.
   * @throws {CollectiveBrokenError} If a member is gone, or does not come in time.
   * @throws {StoreFullError} If there is no room.
   */
  async allReduce<A extends ReducibleArray>(array: A, options: { op?: ReduceOp } = {}): Promise<Shared<A>> {
    const op = opOf(options, "allReduce", array);
    return await this.#call(
      `allReduce ${op} of ${describe(array)}`,
      (call) => this.#reduceAll(call, array, op),
    );
  }

  /**
   * As {@link allReduce}, with the result for one member only.
   *
   * @param options `root`: the rank that gets the result (default 0); `op`.
   * @returns The result at the root, `undefined` elsewhere.
   */
  async reduce<A extends ReducibleArray>(
    array: A,
    options: { op?: ReduceOp; root?: number } = {},
  ): Promise<Shared<A> | undefined> {
    const op = opOf(options, "reduce", array, ["root"]);
    const root = this.#rootOf(options.root);
    return await this.#call(`reduce ${op} to ${root} of ${describe(array)}`, async (call) => {
      const result = await this.#reduceAll(call, array, op);
      if (this.rank === root) return result;
      result[Symbol.dispose]();
      return undefined;
    });
  }

  /**
   * Reduces the members' arrays and gives each member a slice of the result: the slices are of equal length, or the first
   * ones longer by one, in the order of the ranks.
   *
   * @param array This member's array, of the same kind and length as the others'. @param options `op`.
   * @returns This member's slice, in memory of its own.
   * @throws As for {@link allReduce}.
   */
  async reduceScatter<A extends ReducibleArray>(array: A, options: { op?: ReduceOp } = {}): Promise<A> {
    const op = opOf(options, "reduceScatter", array);
    return await this.#call(`reduceScatter ${op} of ${describe(array)}`, async (call) => {
      if (this.#isSmall(array)) return sliced(await this.#reduceSmall(call, array, op), this.rank, this.size);
      if (this.via === "objects") return await this.#reduceSlice(call, array, op);
      const inputs = await this.#meetWithInputs(call, array, 0);
      const out = sliced(array, this.rank, this.size).slice() as A;
      reduceInto(op, inputs.arrays.map((input) => sliced(input, this.rank, this.size)), out);
      await this.#meet(`${call}: done`);
      return out;
    });
  }

  /**
   * Passes one member's array on to all.
   *
   * @param array At the root: the array. Elsewhere nothing.
   * @param options `root`: the rank whose array it is. Default 0.
   * @returns The array, in memory that all members share.
   * @throws As for {@link allReduce}.
   */
  async broadcast<A extends ReducibleArray>(
    array: A | undefined,
    options: { root?: number } = {},
  ): Promise<Shared<A>> {
    checkOptions(options, ["root"], "broadcast");
    const root = this.#rootOf(options.root);
    if (this.rank === root) elementOf(array, "broadcast");
    else if (array !== undefined) {
      throw new UsageError(
        `Cannot broadcast from member ${this.rank}: the root is ${root}, and only it gives an array`,
      );
    }
    return await this.#call(`broadcast from ${root}`, async (call) => {
      const own = this.rank === root ? array! : undefined;
      const kind = own && { element: elementOf(own, "broadcast"), length: own.length };
      const bytes = own?.byteLength ?? 0;
      const via = own &&
        (this.#isSmall(own) ? own : this.via === "objects" ? await put(own.slice()) : undefined);
      const shared = this.via === "memory" && !(own && this.#isSmall(own));
      const { payloads, result } = await this.#meetForResult(
        call,
        { ...kind, via },
        shared ? bytes : 0,
        false,
      );
      const sent = payloads[root] as { element: number; length: number; via: A | Ref<A> | undefined };
      if (sent.via !== undefined) {
        return disposable(ArrayBuffer.isView(sent.via) ? sent.via as A : await get(sent.via as Ref<A>));
      }
      const type = REDUCE_ELEMENTS[sent.element]!;
      if (own) currentClient().store.copy(result!.memory, bytesOf(own));
      await this.#meet(`${call}: done`);
      return this.#shared(result!, (buffer) => new type(buffer, 0, sent.length) as A);
    });
  }

  /**
   * Gives all members all members' arrays.
   *
   * @param array This member's array; of the same kind as the others', and of any length.
   * @returns The arrays in the order of the ranks, in memory that all members share.
   * @throws As for {@link allReduce}.
   */
  async allGather<A extends ReducibleArray>(array: A): Promise<Shared<A[]>> {
    const element = elementOf(array, "allGather");
    const type = REDUCE_ELEMENTS[element]!;
    return await this.#call(`allGather of ${type.name}`, async (call) => {
      if (this.via === "objects") {
        const { payloads } = await this.#meet(call, this.#isSmall(array) ? array : await put(array.slice()));
        const arrays = await Promise.all(
          payloads.map((each) => ArrayBuffer.isView(each) ? each as A : get(each as Ref<A>)),
        );
        return disposable(arrays);
      }
      const room = aligned(array.byteLength);
      const { payloads, result } = await this.#meetForResult(
        call,
        array.length,
        Math.max(room, ALIGNMENT_BYTES),
        true,
      );
      const offsets: number[] = [];
      let end = 0;
      for (const length of payloads as number[]) {
        offsets.push(end);
        end += aligned(length * type.BYTES_PER_ELEMENT);
      }
      const at = offsets[this.rank]!;
      currentClient().store.copy(result!.memory.subarray(at, at + array.byteLength), bytesOf(array));
      await this.#meet(`${call}: done`);
      return this.#shared(
        result!,
        (buffer) => offsets.map((at, i) => new type(buffer, at, payloads[i] as number) as A),
      );
    });
  }

  /** Waits until all members have come to it. @throws {CollectiveBrokenError} If a member is gone, or late. */
  async barrier(): Promise<void> {
    await this.#call("barrier", (call) => this.#meet(call));
  }

  /** Leaves the group: the others can make no calls any more. What it gave stays readable. */
  async leave(): Promise<void> {
    if (this.#left) return;
    await this.#turn.catch(() => {});
    this.#forget();
    await ask(this.name, callAnew(this.#hub, "leave", [this.#generation, this.rank])).catch(() => {});
  }

  /** Leaves the group, without waiting for it. */
  [Symbol.dispose](): void {
    this.leave();
  }

  #forget(): void {
    this.#left = true;
    this.#scratch = undefined;
    this.#inputs.clear();
    this.#results.clear();
    this.#spare.clear();
  }

  // --- Rounds -------------------------------------------------------------------------------------------------

  /** Does one call, after those before it. */
  #call<T>(call: string, body: (call: string) => Promise<T>): Promise<T> {
    const done = this.#turn.then(async () => {
      if (this.#left) {
        throw new UsageError(`Cannot call ${call} in group "${this.name}": this member has left it`);
      }
      if (this.#generation < 0) {
        throw new CollectiveBrokenError(
          `Group "${this.name}" is broken: this member died and came back, and must join anew`,
        );
      }
      try {
        return await body(call);
      } catch (error) {
        if (!(error instanceof CollectiveMismatchError || error instanceof CollectiveBrokenError)) {
          // The others must not wait for what will not come.
          const why = `failed in ${call}: ${(error as Error).message}`;
          callAnew(this.#hub, "fail", [this.#generation, this.rank, why]);
        }
        throw error;
      }
    });
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Meets all members. */
  async #meet(call: string, payload?: unknown, more: Partial<Offer> = {}): Promise<Met> {
    const offer: Offer = {
      call,
      payload,
      resultBytes: 0,
      inParts: false,
      made: undefined,
      ...more,
      freed: this.#freed.splice(0),
    };
    const met = await ask<Met>(
      this.name,
      callAnew(this.#hub, "meet", [this.#generation, this.rank, offer, this.#timeoutMs]),
    );
    for (const id of met.dropped) {
      this.#results.delete(id);
      this.#spare.delete(id);
    }
    return met;
  }

  /** Meets all members and finds the memory for a result: there already, or made by the first of them. */
  async #meetForResult(
    call: string,
    payload: unknown,
    resultBytes: number,
    inParts: boolean,
  ): Promise<{ payloads: readonly unknown[]; result: Result | undefined }> {
    const met = await this.#meet(call, payload, { resultBytes, inParts });
    const { payloads, resultBytes: bytes } = met;
    if (bytes === 0) return { payloads, result: undefined };
    let { result } = met;
    while (result === undefined) {
      const made = this.rank === 0 ? { ref: await makeMemory(bytes), bytes } : undefined;
      ({ result } = await this.#meet(`${call}: memory`, undefined, { resultBytes: bytes, made }));
    }
    const { id, ref } = result;
    let memory = this.#results.get(id);
    if (memory === undefined) this.#results.set(id, memory = await mapped(ref));
    return { payloads, result: { id, memory } };
  }

  /** What the user gets of a result; when it is not used any more, the group is told. */
  #shared<T extends object>({ id, memory }: Result, view: (buffer: ArrayBuffer) => T): Shared<T> {
    const buffer = this.#spare.get(id) ?? currentClient().store.alias(memory);
    this.#spare.delete(id);
    mappings.set(buffer, memory);
    this.#finalizer.register(buffer, id, buffer);
    let freed = false;
    const free = () => {
      if (freed) return;
      freed = true;
      this.#finalizer.unregister(buffer);
      this.#freed.push(id);
      if (this.#results.has(id)) this.#spare.set(id, buffer);
    };
    return Object.defineProperty(view(buffer), Symbol.dispose, { value: free }) as Shared<T>;
  }

  #isSmall(array: ReducibleArray): boolean {
    return array.byteLength <= SMALL_BYTES_MAX;
  }

  #rootOf(root = 0): number {
    if (Number.isInteger(root) && root >= 0 && root < this.size) return root;
    throw new UsageError(
      `Cannot use root ${String(root)} in group "${this.name}": give 0 to ${this.size - 1}`,
    );
  }

  // --- Reductions ---------------------------------------------------------------------------------------------

  async #reduceAll<A extends ReducibleArray>(call: string, array: A, op: ReduceOp): Promise<Shared<A>> {
    if (this.#isSmall(array)) return disposable(await this.#reduceSmall(call, array, op));
    const { rank, size } = this;
    const type = REDUCE_ELEMENTS[elementOf(array, call)]!;
    if (this.via === "objects") {
      const slice = await put(await this.#reduceSlice(call, array, op));
      const { payloads } = await this.#meet(`${call}: slices`, slice);
      const slices = await get(payloads as Ref<A>[]) as A[];
      const out = new type(array.length) as A;
      let at = 0;
      for (const each of slices) {
        out.set(each as unknown as ArrayLike<never>, at);
        at += each.length;
      }
      return disposable(out);
    }
    const { arrays, result } = await this.#meetWithInputs(call, array, array.byteLength);
    const out = new type(result!.memory.buffer, result!.memory.byteOffset, array.length) as A;
    reduceInto(op, arrays.map((input) => sliced(input, rank, size)), sliced(out, rank, size));
    await this.#meet(`${call}: done`);
    return this.#shared(result!, (buffer) => new type(buffer, 0, array.length) as A);
  }

  /** Arrays that fit a message go along with the meeting, and everybody reduces them by itself. */
  async #reduceSmall<A extends ReducibleArray>(call: string, array: A, op: ReduceOp): Promise<A> {
    const { payloads } = await this.#meet(call, array.slice());
    const out = array.slice() as A;
    reduceInto(op, payloads as A[], out);
    return out;
  }

  /** Each sends every other its slice, and reduces its own. */
  async #reduceSlice<A extends ReducibleArray>(call: string, array: A, op: ReduceOp): Promise<A> {
    const { rank, size } = this;
    const sent: (Ref<A> | undefined)[] = [];
    for (let to = 0; to < size; to++) {
      sent.push(to === rank ? undefined : await put(sliced(array, to, size).slice() as A));
    }
    const { payloads } = await this.#meet(call, sent);
    const own = sliced(array, rank, size).slice() as A;
    const inputs = await Promise.all(
      payloads.map((each, from) => from === rank ? own : get((each as Ref<A>[])[rank]!)),
    );
    const out = own.slice() as A;
    reduceInto(op, inputs, out);
    return out;
  }

  /** Has all members' inputs in memory that all can read; the result's as well. */
  async #meetWithInputs<A extends ReducibleArray>(
    call: string,
    array: A,
    resultBytes: number,
  ): Promise<{ arrays: A[]; result: Result | undefined }> {
    const type = REDUCE_ELEMENTS[elementOf(array, call)]!;
    const { buffer, offset } = await this.#inputOf(array);
    const input: Input = { buffer: buffer.number, ref: buffer.told ? undefined : buffer.ref, offset };
    const { payloads, result } = await this.#meetForResult(call, input, resultBytes, false);
    buffer.told = true; // now that all were there to hear of it
    const arrays = await Promise.all((payloads as Input[]).map(async ({ buffer, ref, offset }, rank) => {
      const key = `${rank} ${buffer}`;
      let memory = this.#inputs.get(key);
      if (memory === undefined) this.#inputs.set(key, memory = await mapped(ref!));
      return new type(memory.buffer, memory.byteOffset + offset, array.length) as A;
    }));
    return { arrays, result };
  }

  /** Where an array lies that the others can read: there already, or copied. */
  async #inputOf(array: ReducibleArray): Promise<{ buffer: InputBuffer; offset: number }> {
    const allocated = this.#allocated.get(array.buffer);
    if (allocated !== undefined) {
      return { buffer: allocated, offset: array.byteOffset - allocated.memory.byteOffset };
    }
    if (this.#scratch === undefined || this.#scratch.memory.length < array.byteLength) {
      this.#scratch = await this.#makeInput(array.byteLength);
    }
    currentClient().store.copy(this.#scratch.memory.subarray(0, array.byteLength), bytesOf(array));
    return { buffer: this.#scratch, offset: 0 };
  }

  async #makeInput(bytes: number): Promise<InputBuffer> {
    const ref = await makeMemory(bytes);
    return { number: this.#nextBuffer++, ref, memory: await mapped(ref), told: false };
  }
}

/** A result's memory, as this member maps it. */
interface Result {
  readonly id: number;
  readonly memory: Uint8Array<ArrayBuffer>;
}

/** Memory of the store that several programs map. */
async function makeMemory(bytes: number): Promise<Ref<Uint8Array>> {
  const size = Math.max(aligned(bytes), MEMORY_BYTES_MIN);
  const memory = await currentClient().allocateArray<Uint8Array<ArrayBuffer>>(Uint8Array, size, true);
  return await put<Uint8Array>(memory);
}

/** Maps it, for as long as what this returns is referred to. It changes, which is nobody's mistake. */
async function mapped(ref: Ref<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  return await currentClient().value(entryOf(ref), Infinity, UNWATCHED) as Uint8Array<ArrayBuffer>;
}

/** The reader whose reading check mode does not look at. */
const UNWATCHED = scopeOf("" as TaskId);

/** The part of an array that a member reduces. */
function sliced<A extends ReducibleArray>(array: A, rank: number, size: number): A {
  const share = Math.floor(array.length / size), longer = array.length % size;
  const begin = rank * share + Math.min(rank, longer);
  return array.subarray(begin, begin + share + (rank < longer ? 1 : 0)) as A;
}

function reduceInto(op: ReduceOp, inputs: readonly ReducibleArray[], out: ReducibleArray): void {
  currentClient().store.reduce(op, inputs, out);
}

function bytesOf(array: ReducibleArray): Uint8Array<ArrayBuffer> {
  return new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength);
}

/** What is no group's memory needs no giving back. */
function disposable<T extends object>(value: T): Shared<T> {
  return Object.defineProperty(value, Symbol.dispose, { value: () => {} }) as Shared<T>;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

function describe(array: ReducibleArray): string {
  return `${array.constructor.name}(${array.length})`;
}

/** Which kind of array something is. @throws {UsageError} If it is none that collectives take. */
function elementOf(array: unknown, call: string): number {
  const element = REDUCE_ELEMENTS.findIndex((type) => array instanceof type);
  if (element >= 0 && !((array as ReducibleArray).buffer instanceof SharedArrayBuffer)) return element;
  const kinds = REDUCE_ELEMENTS.map((type) => type.name).join(", ");
  const given = ArrayBuffer.isView(array) ? array.constructor.name : typeof array;
  throw new UsageError(
    `Cannot call ${call} with ${given}: give one of ${kinds}, not over a SharedArrayBuffer`,
  );
}

const OPS: readonly ReduceOp[] = ["sum", "prod", "min", "max", "mean"];

function opOf(
  options: { op?: ReduceOp },
  call: string,
  array: unknown,
  more: readonly string[] = [],
): ReduceOp {
  checkOptions(options, ["op", ...more], call);
  const { op = "sum" } = options;
  if (!OPS.includes(op)) {
    throw new UsageError(`Cannot call ${call} with op ${JSON.stringify(op)}: there are ${OPS.join(", ")}`);
  }
  elementOf(array, call);
  if (op === "mean" && !(array instanceof Float32Array || array instanceof Float64Array)) {
    throw new UsageError(
      `Cannot take the mean of whole numbers: convert them to Float64Array, or take the sum`,
    );
  }
  return op;
}

/** Arrays up to this size go along with the meeting. */
const SMALL_BYTES_MAX = 4096;
/** Shared memory comes in no smaller pieces: smaller ones would not lie apart from their packet's head. */
const MEMORY_BYTES_MIN = 64 * 1024;
/** Parts of a result begin at multiples of this. */
const ALIGNMENT_BYTES = 64;
