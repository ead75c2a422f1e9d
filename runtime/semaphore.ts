/**
 * Semaphores and locks: permits that tasks and calls of actors hold for a while.
 *
 * A permit belongs to the task, or to the call of an actor, that acquired it, and ends with it at the latest: its node
 * tells the semaphore when a task has ended, whether it returned, threw, was cancelled, or died more often than it is run
 * again. While a task that died waits to be run again, its permits are still held; its next run gives them back with its
 * first `acquire`, or when it ends. A holder that is there but does not come to an end can be given a *lease*: after that
 * time its permit passes on, and its holder is told when it asks.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { type Duration, durationMs } from "../core/duration.ts";
import { AcquireTimeoutError, UsageError } from "../core/errors.ts";
import { actor, type ActorHandle } from "./actor.ts";
import { context, get as valueOf } from "./api.ts";
import { callAnew, type Handle } from "./handle.ts";
import { callingTask, isReplaying, onGone, type Owner } from "./owner.ts";
import type { Ref } from "./ref.ts";
import { currentClient } from "./session.ts";
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
import { type Waiter, Waiters } from "./waiters.ts";

/** Permits that somebody holds. */
interface Grant {
  readonly token: string;
  readonly owner: Owner;
  readonly permits: number;
  /** Ends its lease's timer. */
  endLease: () => void;
}

interface Wanted {
  readonly token: string;
  readonly owner: Owner;
  readonly permits: number;
  readonly leaseMs: number;
}

/** What an `acquire` is answered: the token of what was granted, or who holds what was not. */
type Answer = { readonly token: string } | { readonly held: readonly string[] };

/** The semaphore itself. */
class SemaphoreObject {
  static concurrencyGroups: Record<string, string> = { acquire: "acquire" };
  #free: number;
  readonly #grants = new Map<string, Grant>();
  readonly #waiters = new Waiters<Wanted, "granted">(systemClock);
  /** The run of each owner that is known, whose end its node will tell. */
  readonly #owners = new Map<string, string>();

  constructor(permits: number) {
    this.#free = permits;
  }

  async acquire(owner: Owner, permits: number, timeoutMs: number, leaseMs: number): Promise<Answer> {
    const token = context().taskId;
    this.#meet(owner);
    const wanted: Wanted = { token, owner, permits, leaseMs };
    if (this.#waiters.size === 0 && permits <= this.#free) {
      this.#grant(wanted);
      return { token };
    }
    const result = await this.#waiters.wait(wanted, timeoutMs, context().signal);
    if (result === "granted") return { token };
    this.#serve(); // it may have stood before others that want less
    return { held: [...this.#grants.values()].map(({ owner }) => owner.label) };
  }

  release(token: string): boolean {
    const grant = this.#grants.get(token);
    if (grant === undefined) return false;
    this.#grants.delete(token);
    grant.endLease();
    this.#free += grant.permits;
    this.#serve();
    return true;
  }

  renew(token: string, leaseMs: number): boolean {
    const grant = this.#grants.get(token);
    if (grant === undefined) return false;
    grant.endLease();
    this.#lease(grant, leaseMs);
    return true;
  }

  available(): number {
    return this.#free;
  }

  /** Sees to it that the end of an owner is heard of; what an earlier run of it held is nobody's. */
  #meet(owner: Owner): void {
    if (owner.kind === "program") return;
    const known = this.#owners.get(owner.id);
    this.#owners.set(owner.id, owner.run);
    if (known === undefined) onGone(currentClient(), owner, () => this.#gone(owner.id));
    else if (known !== owner.run) this.#drop(owner.id);
  }

  #gone(id: string): void {
    this.#owners.delete(id);
    this.#drop(id);
    currentClient().flush();
  }

  #drop(id: string): void {
    for (const waiter of this.#waiters) if (waiter.want.owner.id === id) this.#waiters.leave(waiter);
    for (const grant of [...this.#grants.values()]) if (grant.owner.id === id) this.release(grant.token);
    this.#serve();
  }

  #serve(): void {
    for (;;) {
      const waiter: Waiter<Wanted, "granted"> | undefined = this.#waiters.first();
      if (waiter === undefined || waiter.want.permits > this.#free) return;
      this.#grant(waiter.want);
      waiter.serve("granted");
    }
  }

  #grant({ token, owner, permits, leaseMs }: Wanted): void {
    this.#free -= permits;
    const grant: Grant = { token, owner, permits, endLease: () => {} };
    this.#grants.set(token, grant);
    this.#lease(grant, leaseMs);
  }

  #lease(grant: Grant, leaseMs: number): void {
    grant.endLease = leaseMs === Infinity ? () => {} : systemClock.after(leaseMs, () => {
      this.release(grant.token);
      currentClient().flush();
    });
  }
}

const SemaphoreActor = actor(SemaphoreObject, {
  module: "rayd:semaphore",
  isolate: "shared",
  concurrencyGroups: { acquire: CALLS_MAX },
});

type SemaphoreHandle = ActorHandle<SemaphoreObject>;

/** Options of `acquire`. */
export interface AcquireOptions extends WaitingOptions {
  /** How long it may be held before it passes on to the next one, wherever its holder is. Default: no limit. */
  lease?: Duration;
}

/** What `acquire` gives: it is to be released, best by the end of an `await using` or `using` scope. */
export interface Permit extends Disposable, AsyncDisposable {
  /** Gives it back; the second time does nothing. */
  release(): void;
  /**
   * Begins its lease anew.
   *
   * @param lease The new lease. Default: the one that it was acquired with.
   * @returns Whether it was still held: `false` if its lease had ended, and somebody else may hold it now.
   */
  renew(lease?: Duration): Promise<boolean>;
}

/**
 * A number of permits, each held by one task at a time. It is a value like any other: pass it to tasks and actors.
 * First come, first served.
 *
 * @example
 * ```ts
 * const downloads = new Semaphore(4);
 * // In a task that was given it:
 * await using _ = await downloads.acquire();
 * ```
 */
export class Semaphore {
  readonly #actor: SemaphoreHandle;
  readonly #permits: number;

  /**
   * Makes a semaphore.
   *
   * @param permits How many permits there are.
   * @throws {UsageError} If that is not a whole number of 1 or more.
   */
  constructor(permits: number) {
    const given = permits as unknown as Adopted<SemaphoreHandle> & { permits: number };
    if (typeof given === "object" && given?.[ACTOR] !== undefined) {
      this.#actor = given[ACTOR];
      this.#permits = given.permits;
      return;
    }
    this.#permits = permitsOf(permits, "make a semaphore of", Infinity);
    this.#actor = SemaphoreActor.remote(permits);
  }

  /**
   * The semaphore of a name; it is made if there is none.
   *
   * @param name Its name. @param permits How many permits there are, the same for all who name it.
   * @param options `namespace`, `detached`.
   * @throws {UsageError} If an option is wrong, or something else has the name.
   */
  static async named(name: string, permits: number, options: ToolOptions = {}): Promise<Semaphore> {
    permitsOf(permits, "make a semaphore of", Infinity);
    const [own, rest] = nameOptions(name, options);
    checkOptions(rest, ["namespace", "detached"], "a semaphore");
    const handle = await SemaphoreActor.options(own).getOrCreate(permits);
    return new Semaphore({ ...adopted(handle), permits } as unknown as number);
  }

  /**
   * Waits for permits.
   *
   * @param permits How many. Default 1. @param options `timeout`: how long to wait; `lease`: how long to hold at most.
   * @returns What gives them back.
   * @throws {AcquireTimeoutError} If they are not free in time.
   * @throws {ActorDiedError} If the semaphore is gone.
   * @throws {UsageError} If it never has so many, or an option is wrong.
   */
  async acquire(permits = 1, options: AcquireOptions = {}): Promise<Permit> {
    permitsOf(permits, "acquire", this.#permits);
    return await acquire(this.#actor, permits, options, "the semaphore");
  }

  /** How many permits are free. */
  async available(): Promise<number> {
    return await valueOf(this.#actor.available.remote());
  }

  static {
    travels(
      Semaphore,
      "Semaphore",
      (semaphore) => ({ handle: semaphore.#actor, permits: semaphore.#permits }),
      ({ handle, permits }) => new Semaphore({ ...adopted(handle), permits } as unknown as number),
    );
  }
}

/**
 * What one task holds at a time. It is a value like any other: pass it to tasks and actors. First come, first served.
 * It is not re-entrant: a task that acquires it twice waits for itself.
 *
 * @example
 * ```ts
 * const lock = new Lock();
 * // In a task that was given it:
 * await using _ = await lock.acquire({ timeout: "10s" });
 * ```
 */
export class Lock {
  readonly #actor: SemaphoreHandle;

  /** Makes a lock. @param options None yet. @throws {UsageError} If an option is given. */
  constructor(options: Readonly<Record<never, never>> = {}) {
    checkOptions(options, [], "a lock");
    this.#actor = (options as Adopted<SemaphoreHandle>)[ACTOR] ?? SemaphoreActor.remote(1);
  }

  /**
   * The lock of a name; it is made if there is none.
   *
   * @param name Its name. @param options `namespace`, `detached`.
   * @throws {UsageError} If an option is wrong, or something else has the name.
   */
  static async named(name: string, options: ToolOptions = {}): Promise<Lock> {
    const [own, rest] = nameOptions(name, options);
    checkOptions(rest, ["namespace", "detached"], "a lock");
    const handle = await SemaphoreActor.options(own).getOrCreate(1);
    return new Lock(adopted(handle));
  }

  /**
   * Waits for the lock.
   *
   * @param options `timeout`: how long to wait; `lease`: how long to hold it at most.
   * @returns What gives it back.
   * @throws {AcquireTimeoutError} If it is not free in time.
   * @throws {ActorDiedError} If the lock is gone.
   */
  async acquire(options: AcquireOptions = {}): Promise<Permit> {
    return await acquire(this.#actor, 1, options, "the lock");
  }

  /** Whether somebody holds it. */
  async locked(): Promise<boolean> {
    return await valueOf(this.#actor.available.remote()) === 0;
  }

  static {
    travels(
      Lock,
      "Lock",
      (lock) => lock.#actor,
      (handle) => new Lock(adopted(handle)),
    );
  }
}

async function acquire(
  handle: SemaphoreHandle,
  permits: number,
  options: AcquireOptions,
  what: string,
): Promise<Permit> {
  const timeoutMs = timeoutOf(options, "acquire", ["lease"]);
  const leaseMs = options.lease === undefined ? Infinity : durationMs(options.lease, "lease of acquire");
  // What is run again to rebuild an actor has done all it does to others.
  if (isReplaying()) return new HeldPermit(undefined, "", leaseMs);
  const call = callAnew(handle, "acquire", [callingTask(), permits, timeoutMs, leaseMs]) as Ref<Answer>;
  const answer = await valueOf(call);
  if ("token" in answer) return new HeldPermit(handle, answer.token, leaseMs);
  throw new AcquireTimeoutError(
    `Cannot acquire ${permits === 1 ? what : `${permits} permits of ${what}`} ${
      within(timeoutMs)
    }: held by ` +
      `${answer.held.join(", ") || "nobody, but others wait before"}`,
  );
}

class HeldPermit implements Permit {
  #handle: SemaphoreHandle | undefined;
  readonly #token: string;
  readonly #leaseMs: number;

  constructor(handle: SemaphoreHandle | undefined, token: string, leaseMs: number) {
    this.#handle = handle;
    this.#token = token;
    this.#leaseMs = leaseMs;
  }

  release(): void {
    if (this.#handle === undefined) return;
    callAnew(this.#handle as Handle, "release", [this.#token]);
    this.#handle = undefined;
    currentClient().flush(); // others wait, whatever its holder does next
  }

  async renew(lease?: Duration): Promise<boolean> {
    if (this.#handle === undefined) return false;
    const leaseMs = lease === undefined ? this.#leaseMs : durationMs(lease, "lease of renew");
    return await valueOf(callAnew(this.#handle as Handle, "renew", [this.#token, leaseMs]) as Ref<boolean>);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.release();
    return Promise.resolve();
  }
}

function permitsOf(permits: number, verb: string, max: number): number {
  if (!Number.isInteger(permits) || permits < 1) {
    throw new UsageError(`Cannot ${verb} ${String(permits)} permits: give a whole number of 1 or more`);
  }
  if (permits > max) {
    throw new UsageError(`Cannot ${verb} ${permits} permits: the semaphore has ${max} in all`);
  }
  return permits;
}
