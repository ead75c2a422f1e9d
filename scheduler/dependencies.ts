/**
 * Dependency tracking: which tasks wait for which objects.
 *
 * A task is held here from its submission until the last object that it depends on exists. Pure: objects are
 * announced with {@link Dependencies.arrived}, and what became ready is returned.
 *
 * @module
 */

import type { ObjectId } from "../core/ids.ts";

/** A task that waits, and for how many objects still. */
interface Waiting<T> {
  readonly task: T;
  readonly objects: readonly ObjectId[];
  missing: number;
}

/** Tasks of type `T` that wait for objects. */
export class Dependencies<T> {
  readonly #byObject = new Map<ObjectId, Set<Waiting<T>>>();
  readonly #byTask = new Map<T, Waiting<T>>();

  /** How many tasks wait. */
  get size(): number {
    return this.#byTask.size;
  }

  /** Holds a task back. @param missing The objects that do not exist yet: one at least; doubles count once. */
  hold(task: T, missing: readonly ObjectId[]): void {
    const objects = missing.length === 1 ? missing : [...new Set(missing)];
    const waiting: Waiting<T> = { task, objects, missing: objects.length };
    this.#byTask.set(task, waiting);
    for (const object of objects) {
      const set = this.#byObject.get(object);
      if (set === undefined) this.#byObject.set(object, new Set([waiting]));
      else set.add(waiting);
    }
  }

  /** An object exists now. Returns the tasks that waited for nothing else, in the order they were held. */
  arrived(object: ObjectId): readonly T[] {
    const set = this.#byObject.get(object);
    if (set === undefined) return NONE;
    this.#byObject.delete(object);
    const ready: T[] = [];
    for (const waiting of set) {
      if (--waiting.missing === 0) {
        this.#byTask.delete(waiting.task);
        ready.push(waiting.task);
      }
    }
    return ready;
  }

  /** The tasks that wait for an object, perhaps among others. */
  waitingFor(object: ObjectId): readonly T[] {
    const set = this.#byObject.get(object);
    return set === undefined ? NONE : [...set].map((waiting) => waiting.task);
  }

  /** A task is no longer wanted. Returns whether it was held. */
  remove(task: T): boolean {
    const waiting = this.#byTask.get(task);
    if (waiting === undefined) return false;
    this.#byTask.delete(task);
    for (const object of waiting.objects) {
      const set = this.#byObject.get(object);
      if (set?.delete(waiting) && set.size === 0) this.#byObject.delete(object);
    }
    return true;
  }
}

const NONE: readonly never[] = Object.freeze([]);
