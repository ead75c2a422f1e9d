/**
 * Refs: what a program holds in place of a value that exists somewhere, or will.
 *
 * A {@link Ref} is the user's handle; the {@link Entry} behind it is what the program knows of the object. Entries
 * live on after the Ref while somebody waits, and the count of Refs decides when the node is told that this program
 * no longer needs the object.
 *
 * @module
 */

import { hex, type ObjectId, taskOf } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import type { RefStream } from "./stream.ts";

/** What a program knows of an object. */
export class Entry {
  readonly id: ObjectId;
  /** Absent until the object exists. */
  outcome: Outcome | undefined = undefined;
  /** Called once when the object exists. */
  waiters: (() => void)[] | undefined = undefined;
  /** Refs and pending waits that need the object. */
  holds = 0;
  /** The program submitted the task or put the value: the node tells without being asked. */
  promised: boolean;
  /** The node has a record in which this program counts: it is to be released. */
  registered: boolean;
  /** The object was referred to before it existed: the node expects it. */
  expected = false;
  /** The name of the task that makes it, where this program has submitted it. */
  task: string | undefined = undefined;

  /** @param id The object. @param owned Whether this program made it, by a task or by putting it. */
  constructor(id: ObjectId, owned: boolean) {
    this.id = id;
    this.promised = owned;
    this.registered = !owned;
  }

  /** The object exists. */
  resolve(outcome: Outcome): void {
    this.outcome = outcome;
    const { waiters } = this;
    if (waiters === undefined) return;
    this.waiters = undefined;
    for (const wake of waiters) wake();
  }
}

const ENTRY = Symbol("rayd.entry");

/**
 * A reference to a value of type `T` that exists, or will. Made by `.remote()` and `put`; read with `get`.
 *
 * It is deliberately not a promise: returning one from an async function must not wait for its value.
 */
export class Ref<T> {
  /** @internal */
  readonly [ENTRY]: Entry;
  declare private readonly _type: T;

  /** @internal Refs are made by the runtime. */
  constructor(entry: Entry) {
    this[ENTRY] = entry;
  }

  /** The object's id: 40 hexadecimal digits. */
  get id(): string {
    return hex(this[ENTRY].id, true);
  }

  /** The id of the task that makes the object, or that put it: 32 hexadecimal digits. */
  get taskId(): string {
    return hex(taskOf(this[ENTRY].id));
  }

  /** How a Ref prints: its id and whether its value exists. */
  [Symbol.for("Deno.customInspect")](): string {
    const { outcome } = this[ENTRY];
    const state = outcome === undefined ? "pending" : outcome.kind === "error" ? "failed" : "ready";
    return `Ref(${this.id.slice(0, 12)}… ${state})`;
  }

  /** Refs cannot be written as JSON. */
  toJSON(): never {
    throw new TypeError("Cannot write a Ref as JSON: get its value first, or pass the Ref itself to a task");
  }
}

/** What is known of a Ref's object. */
export function entryOf(ref: Ref<unknown>): Entry {
  return ref[ENTRY];
}

/** An argument of type `T`, or a Ref of one, which is resolved before the task starts. */
export type RefOr<T> = T | Ref<T>;

/** Arguments of which any may be a Ref. */
export type RefArguments<A extends readonly unknown[]> = { [K in keyof A]: RefOr<A[K]> };

/** The value that a Ref stands for. */
export type ValueOf<R> = R extends Ref<infer T> ? T : never;

/** What a call of a function with result `R` gives: a Ref, or for a generator a stream of Refs. */
export type RemoteResult<R> = [R] extends [never] ? Ref<never>
  : [R] extends [Generator<infer Y, unknown, unknown>] ? RefStream<Y>
  : [R] extends [AsyncGenerator<infer Y, unknown, unknown>] ? RefStream<Y>
  : Ref<Awaited<R>>;
