/**
 * A queue between tasks and actors, of bounded length: whoever puts waits for room, whoever gets waits for an item.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { QueueEmptyError, QueueFullError, QueueShutDownError, UsageError } from "../core/errors.ts";
import { actor, type ActorHandle } from "./actor.ts";
import { context, get as valueOf } from "./api.ts";
import {
  ACTOR,
  type Adopted,
  adopted,
  CALLS_MAX,
  checkOptions,
  nameOptions,
  timeoutOf,
  type ToolOptions,
  travels,
  type WaitingOptions,
  within,
} from "./tool.ts";
import { Waiters } from "./waiters.ts";

/** Why the queue did not do what it was asked. */
interface Refused {
  readonly refused: "late" | "cancelled" | "shut down";
  readonly size: number;
}

/** The queue itself. An array of items is put or taken whole. */
class QueueObject {
  static concurrencyGroups: Record<string, string> = { put: "put", take: "take" };
  readonly #capacity: number;
  #items: unknown[] = [];
  /** Where the first item is: those before it were taken. */
  #first = 0;
  readonly #putters = new Waiters<readonly unknown[], "done" | "shut down">(systemClock);
  readonly #takers = new Waiters<number, unknown[] | "shut down">(systemClock);
  #shutDown = false;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  async put(items: readonly unknown[], timeoutMs: number): Promise<Refused | undefined> {
    if (this.#shutDown) return this.#refuse("shut down");
    if (items.length > this.#capacity) return this.#refuse("late"); // there never is room
    if (this.#putters.size > 0 || this.#size() + items.length > this.#capacity) {
      const result = await this.#putters.wait(items, timeoutMs, context().signal);
      return result === "done" ? undefined : this.#refuse(result);
    }
    this.#add(items);
    this.#move();
    return undefined;
  }

  async take(max: number, timeoutMs: number): Promise<unknown[] | Refused> {
    if (this.#takers.size === 0 && this.#size() > 0) {
      const taken = this.#remove(max);
      this.#move();
      return taken;
    }
    if (this.#shutDown) return this.#refuse("shut down");
    const result = await this.#takers.wait(max, timeoutMs, context().signal);
    return typeof result === "string" ? this.#refuse(result) : result;
  }

  counts(): { size: number; capacity: number } {
    return { size: this.#size(), capacity: this.#capacity };
  }

  shutDown(drop: boolean): void {
    this.#shutDown = true;
    if (drop) this.#remove(Infinity);
    for (const putter of this.#putters) putter.serve("shut down");
    this.#move();
  }

  #size(): number {
    return this.#items.length - this.#first;
  }

  #add(items: readonly unknown[]): void {
    for (const item of items) this.#items.push(item);
  }

  #remove(max: number): unknown[] {
    const taken = this.#items.slice(this.#first, this.#first + max);
    this.#items.fill(undefined, this.#first, this.#first += taken.length);
    if (this.#first > COMPACT_ITEMS && this.#first * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
    return taken;
  }

  /** Serves who can be served, first come first. */
  #move(): void {
    for (;;) {
      const taker = this.#takers.first();
      if (taker !== undefined && this.#size() > 0) {
        taker.serve(this.#remove(taker.want));
        continue;
      }
      const putter = this.#putters.first();
      if (putter === undefined || this.#size() + putter.want.length > this.#capacity) break;
      this.#add(putter.want);
      putter.serve("done");
    }
    if (this.#shutDown && this.#size() === 0) {
      for (const taker of this.#takers) taker.serve("shut down");
    }
  }

  #refuse(refused: Refused["refused"]): Refused {
    return { refused, size: this.#size() };
  }
}

/** Places of items that were taken go in blocks of at least this many. */
const COMPACT_ITEMS = 1024;

const QueueActor = actor(QueueObject, {
  module: "rayd:queue",
  isolate: "shared",
  concurrencyGroups: { put: CALLS_MAX, take: CALLS_MAX },
});

/** Options of a {@link Queue}. */
export interface QueueOptions {
  /** How many items it holds at most. Default: no limit. */
  capacity?: number;
}

/**
 * A queue for any number of producers and consumers. It is a value like any other: pass it to tasks and actors.
 *
 * Items keep the order in which they were put. Each is given to one consumer; one that was given to a consumer that then
 * dies for good is lost with it, while a task that is run again is given the same items again. The queue lives as long as
 * somebody holds it. A Ref as an item stays a Ref: so large values pass without being copied.
 *
 * @example
 * ```ts
 * const queue = new Queue<number>({ capacity: 100 });
 * const sum = consume.remote(queue); // for await (const n of queue) …
 * for (let i = 0; i < 1000; i++) await queue.put(i);
 * await queue.shutdown();
 * ```
 */
export class Queue<T> implements AsyncIterable<T> {
  readonly #actor: ActorHandle<QueueObject>;

  /**
   * Makes a queue.
   *
   * @param options `capacity`.
   * @throws {UsageError} If an option is unknown or out of its range.
   */
  constructor(options: QueueOptions = {}) {
    this.#actor = (options as Adopted<ActorHandle<QueueObject>>)[ACTOR] ??
      QueueActor.remote(capacityOf(options));
  }

  /**
   * The queue of a name; it is made if there is none.
   *
   * @param name Its name. @param options `capacity`, for the case that it is made; `namespace` and `detached`.
   * @throws {UsageError} If an option is wrong, or something else has the name.
   */
  static async named<T>(name: string, options: QueueOptions & ToolOptions = {}): Promise<Queue<T>> {
    const [own, rest] = nameOptions(name, options);
    return new Queue<T>(adopted(await QueueActor.options(own).getOrCreate(capacityOf(rest))));
  }

  /**
   * Puts an item at the end.
   *
   * @param item Anything that can be carried.
   * @param options `timeout`: how long to wait for room; 0 not to wait.
   * @throws {QueueFullError} If there is no room in time.
   * @throws {QueueShutDownError} If it was shut down.
   * @throws {SerializationError} If the item cannot be carried.
   * @throws {ActorDiedError} If the queue is gone.
   */
  async put(item: T, options: WaitingOptions = {}): Promise<void> {
    await this.putBatch([item], options);
  }

  /**
   * Puts several items at the end: all of them, once there is room for all, or none.
   *
   * @param items The items. @param options `timeout`.
   * @throws {QueueFullError} If there is no room for all in time, or never can be.
   * @throws {QueueShutDownError} If it was shut down.
   */
  async putBatch(items: readonly T[], options: WaitingOptions = {}): Promise<void> {
    const timeoutMs = timeoutOf(options, "put");
    const refused = await valueOf(this.#actor.put.remote(items, timeoutMs));
    if (refused === undefined) return;
    if (refused.refused === "shut down") {
      throw new QueueShutDownError("Cannot put into a queue that was shut down");
    }
    const { capacity } = await valueOf(this.#actor.counts.remote());
    throw new QueueFullError(
      `Cannot put ${items.length === 1 ? "an item" : `${items.length} items`} into a queue of ${capacity} ${
        within(timeoutMs)
      }: it has ${refused.size} in it. Wait longer, put less, or give it more capacity`,
    );
  }

  /**
   * Takes the first item.
   *
   * @param options `timeout`: how long to wait for one; 0 not to wait.
   * @throws {QueueEmptyError} If there is none in time.
   * @throws {QueueShutDownError} If it was shut down and nothing is left in it.
   * @throws {ActorDiedError} If the queue is gone.
   */
  async get(options: WaitingOptions = {}): Promise<T> {
    return (await this.getBatch(1, options))[0]!;
  }

  /**
   * Takes the first items: at least one, and as many as there are, up to a limit.
   *
   * @param max The limit. @param options `timeout`: how long to wait for the first one.
   * @throws {QueueEmptyError} If there is none in time.
   * @throws {QueueShutDownError} If it was shut down and nothing is left in it.
   */
  async getBatch(max: number, options: WaitingOptions = {}): Promise<T[]> {
    if (!Number.isInteger(max) || max < 1) {
      throw new UsageError(`Cannot get ${String(max)} items: give a whole number of 1 or more`);
    }
    const timeoutMs = timeoutOf(options, "get");
    const taken = await valueOf(this.#actor.take.remote(max, timeoutMs));
    if (Array.isArray(taken)) return taken as T[];
    if (taken.refused === "shut down") {
      throw new QueueShutDownError("Cannot get from a queue that was shut down and has nothing left in it");
    }
    throw new QueueEmptyError(`Cannot get an item ${within(timeoutMs)}: the queue is empty`);
  }

  /** How many items it has. */
  async size(): Promise<number> {
    return (await valueOf(this.#actor.counts.remote())).size;
  }

  /** Whether it has no item. */
  async empty(): Promise<boolean> {
    return await this.size() === 0;
  }

  /** Whether it has no room. */
  async full(): Promise<boolean> {
    const { size, capacity } = await valueOf(this.#actor.counts.remote());
    return size >= capacity;
  }

  /**
   * Has it take nothing more. Those who wait to put fail; what is in it can still be got, and then those who get fail.
   *
   * @param options With `drop`, what is in it is gone at once. Default false.
   */
  async shutdown(options: { drop?: boolean } = {}): Promise<void> {
    checkOptions(options, ["drop"], "shutdown");
    await valueOf(this.#actor.shutDown.remote(options.drop ?? false));
  }

  /** Its items, until it is shut down and empty; each is taken from it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    for (;;) {
      let items: T[];
      try {
        items = await this.getBatch(1);
      } catch (error) {
        if (error instanceof QueueShutDownError) return;
        throw error;
      }
      yield* items;
    }
  }

  static {
    travels(
      Queue<unknown>,
      "Queue",
      (queue) => queue.#actor,
      (handle) => new Queue<unknown>(adopted(handle)),
    );
  }
}

function capacityOf(options: QueueOptions): number {
  checkOptions(options, ["capacity"], "a queue");
  const { capacity = Infinity } = options;
  if (capacity === Infinity || Number.isInteger(capacity) && capacity >= 1) return capacity;
  throw new UsageError(
    `Cannot make a queue of capacity ${String(capacity)}: give a whole number of 1 or more`,
  );
}
