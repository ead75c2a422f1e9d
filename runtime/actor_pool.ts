/**
 * A pool of actors: work goes to whichever is idle.
 *
 * @module
 */

import { ActorDiedError, UsageError } from "../core/errors.ts";
import { get, type GetOptions, wait } from "./api.ts";
import { Handle } from "./handle.ts";
import { entryOf, type Ref } from "./ref.ts";

/** Work that is done in a pool. */
interface Job<H> {
  /** The actor that does it, and its outcome; of work that has begun. */
  begun: { readonly actor: H; readonly ref: Ref<unknown> } | undefined;
  readonly begin: (actor: H) => Ref<unknown>;
  /** Its actor has been given back. */
  ended: boolean;
}

/** What a pool has an actor do with a value: `(actor, value) => actor.method.remote(value)`. */
export type PoolCall<H extends Handle, A, R> = (actor: H, value: A) => Ref<R>;

/**
 * A pool of actors of one class, each doing one thing at a time. It belongs to who made it and does not travel.
 *
 * An actor that has died is taken out of the pool by the call that finds it so.
 *
 * @example
 * ```ts
 * const pool = new ActorPool([1, 2, 3].map(() => Model.remote()));
 * for await (const answer of pool.map((model, question: string) => model.ask.remote(question), questions)) { … }
 * ```
 */
export class ActorPool<H extends Handle> {
  readonly #idle: H[];
  readonly #members = new Set<H>();
  /** Work whose outcome nobody has taken, in the order in which it was given. */
  #jobs: Job<H>[] = [];

  /**
   * Makes a pool.
   *
   * @param actors Handles of actors that nobody else keeps busy.
   * @throws {UsageError} If there is none, or something is not a handle.
   */
  constructor(actors: Iterable<H>) {
    this.#idle = [...actors];
    for (const actor of this.#idle) this.#members.add(this.#checked(actor));
    if (this.#idle.length === 0) throw new UsageError("Cannot make a pool of no actors: give at least one");
  }

  /**
   * Runs a call on each value; gives the results in the order of the values.
   *
   * @param call What to do: `(actor, value) => actor.method.remote(value)`.
   * @param values The values; read as actors become idle. May be endless.
   * @throws {TaskError} Where the result of a failed call would be; the iteration ends there.
   * @throws {UsageError} If results of earlier work have not been taken, or no actor is left.
   */
  map<A, R>(
    call: PoolCall<H, A, R>,
    values: Iterable<A> | AsyncIterable<A>,
  ): AsyncGenerator<R, void> {
    return this.#mapped(call, values, () => this.getNext() as Promise<R>);
  }

  /** As {@link map}, with the results as they come. */
  mapUnordered<A, R>(
    call: PoolCall<H, A, R>,
    values: Iterable<A> | AsyncIterable<A>,
  ): AsyncGenerator<R, void> {
    return this.#mapped(call, values, () => this.getNextUnordered() as Promise<R>);
  }

  async *#mapped<A, R>(
    call: PoolCall<H, A, R>,
    values: Iterable<A> | AsyncIterable<A>,
    next: () => Promise<R>,
  ): AsyncGenerator<R, void> {
    if (this.#jobs.length > 0) {
      throw new UsageError(
        `Cannot map over a pool with ${this.#jobs.length} results that were not taken: take them with getNext first`,
      );
    }
    const source = Symbol.asyncIterator in values
      ? values[Symbol.asyncIterator]()
      : values[Symbol.iterator]();
    let more = true;
    try {
      for (;;) {
        // One for each actor, and one that the first of them finds waiting.
        while (more && this.#jobs.length <= this.#members.size) {
          const item = await source.next();
          if (item.done) more = false;
          else this.submit(call, item.value);
        }
        if (this.#jobs.length === 0) return;
        yield await next();
      }
    } finally {
      if (more) await source.return?.();
      this.#jobs = this.#jobs.filter((job) => job.begun !== undefined && !job.ended);
      for (const job of this.#jobs) this.#forgotten.add(job);
      this.#jobs = [];
    }
  }

  /** Work that nobody will take the outcome of; its actors are still busy. */
  readonly #forgotten = new Set<Job<H>>();

  /**
   * Gives the pool work: it begins when an actor is idle. Work that must wait for an actor begins in a later call of the
   * pool.
   *
   * @param call What to do. @param value With what.
   */
  submit<A, R>(call: PoolCall<H, A, R>, value: A): void {
    this.#jobs.push({ begin: (actor) => call(actor, value), begun: undefined, ended: false });
    this.#begin();
  }

  /** Whether there are results to be taken. */
  hasNext(): boolean {
    return this.#jobs.length > 0;
  }

  /** Whether an actor is idle, and no work waits for it. */
  hasFree(): boolean {
    this.#begin();
    return this.#idle.length > 0;
  }

  /**
   * The result of the earliest work that was not taken.
   *
   * @param options `timeout`: how long to wait. The work stays.
   * @throws {GetTimeoutError} If it is not there in time.
   * @throws {UsageError} If there is no work, or no actor is left to do it.
   * @throws {TaskError} If the call failed.
   */
  async getNext(options: GetOptions = {}): Promise<unknown> {
    const job = this.#first();
    while (job.begun === undefined) await this.#progress(options);
    return await this.#take(job, options);
  }

  /** As {@link getNext}, of whichever work ends first. */
  async getNextUnordered(options: GetOptions = {}): Promise<unknown> {
    this.#first();
    for (;;) {
      const job = this.#jobs.find(({ begun }) => begun !== undefined && isThere(begun.ref));
      if (job !== undefined) return await this.#take(job, options);
      await this.#progress(options);
    }
  }

  /** Adds an actor. @param actor One that is not in the pool. @throws {UsageError} If it is, or is no handle. */
  push(actor: H): void {
    if (this.#members.has(actor)) {
      throw new UsageError("Cannot push an actor into a pool that has it already");
    }
    this.#members.add(this.#checked(actor));
    this.#idle.push(actor);
    this.#begin();
  }

  /** Takes an idle actor out of the pool. @returns It, or `undefined` if none is idle. */
  popIdle(): H | undefined {
    this.#begin();
    const actor = this.#idle.pop();
    if (actor !== undefined) this.#members.delete(actor);
    return actor;
  }

  #checked(actor: H): H {
    if (actor instanceof Handle) return actor;
    throw new UsageError(
      `Cannot make ${Deno.inspect(actor, { depth: 0 })} part of a pool: give actors' handles`,
    );
  }

  #first(): Job<H> {
    const job = this.#jobs[0];
    if (job === undefined) {
      throw new UsageError("Cannot get a result: the pool has no work. Submit some first");
    }
    this.#begin();
    return job;
  }

  /** Gives back the actors of work that has ended, and begins work on idle ones. */
  #begin(): void {
    for (const jobs of [this.#jobs, this.#forgotten]) {
      for (const job of jobs) {
        if (job.begun !== undefined && !job.ended && isThere(job.begun.ref)) this.#end(job);
      }
    }
    for (const job of this.#jobs) {
      if (this.#idle.length === 0) return;
      if (job.begun !== undefined) continue;
      const actor = this.#idle.shift()!;
      job.begun = { actor, ref: job.begin(actor) };
    }
  }

  #end(job: Job<H>): void {
    job.ended = true;
    this.#forgotten.delete(job);
    const { actor } = job.begun!;
    if (this.#members.has(actor)) this.#idle.push(actor);
  }

  /** Waits until any work has ended. */
  async #progress(options: GetOptions): Promise<void> {
    const refs = [...this.#jobs, ...this.#forgotten].filter((job) => job.begun !== undefined && !job.ended)
      .map((job) => job.begun!.ref);
    if (refs.length === 0) {
      throw new UsageError("Cannot get a result: no actor is left in the pool. Push one");
    }
    const { timeout } = options;
    const [ready] = await wait(refs, timeout === undefined ? {} : { timeout });
    if (ready.length === 0) await get(refs[0]!, { timeout: 0 }); // to fail with what a late get fails with
    this.#begin();
  }

  async #take(job: Job<H>, options: GetOptions): Promise<unknown> {
    const { actor, ref } = job.begun!;
    try {
      return await get(ref, options);
    } catch (error) {
      if (error instanceof ActorDiedError) {
        this.#members.delete(actor);
        const at = this.#idle.indexOf(actor);
        if (at >= 0) this.#idle.splice(at, 1);
      }
      throw error;
    } finally {
      if (isThere(ref)) {
        this.#jobs.splice(this.#jobs.indexOf(job), 1);
        if (!job.ended) this.#end(job);
        this.#begin();
      }
    }
  }
}

function isThere(ref: Ref<unknown>): boolean {
  return entryOf(ref).outcome !== undefined;
}
