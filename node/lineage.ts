/**
 * Lineage: how objects were made, so that one whose bytes are gone with a node can be made again.
 *
 * A task that left something in a store is remembered for as long as any of that can be needed: while something refers to
 * what it made, or to what was made of it. What it takes to run it again is little: its function, its arguments as they
 * travelled, and which objects it read. Objects that it read are *not* kept: they are made again themselves, if they were
 * made by tasks. So what was `put`, and arguments so large that they went to the store, cannot be had again once they were
 * let go of.
 *
 * A loop that makes each object of the one before would be remembered to its beginning. So there is a limit to how many
 * tasks are remembered; the oldest are forgotten first, and what depends on them can then be made again only from
 * objects that still exist.
 *
 * A task may return a Ref of what another one makes that it has submitted, and not waited for. How that was made is known where
 * it was submitted, and if that node is gone, nowhere: then the task which returned the Ref is run again, and submits it again.
 *
 * Pure.
 *
 * @module
 */

import { type ObjectId, type TaskId, taskOf } from "../core/ids.ts";
import type { TaskRecord } from "./tasks.ts";

/** A task that can be run again. */
export interface LineageEntry {
  readonly task: TaskRecord;
  /** Objects in stores that it made and something refers to. */
  readonly outputs: Set<ObjectId>;
  /** Tasks that are remembered and read what it made. */
  readers: number;
  /** How often it was run again to make its outputs anew. */
  rebuilds: number;
}

/** The tasks that one node remembers. */
export class Lineage {
  readonly #entries = new Map<TaskId, LineageEntry>();
  /** What came in a task's results, and another one makes that it has submitted: by the object. */
  readonly #containers = new Map<ObjectId, LineageEntry>();
  readonly #max: number;
  readonly #dropped: (task: TaskRecord) => void;

  /** @param max How many tasks are remembered at most. @param dropped Told of each that is forgotten. */
  constructor(max: number, dropped: (task: TaskRecord) => void = () => {}) {
    this.#max = max;
    this.#dropped = dropped;
  }

  /** How many tasks are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /** How a task's outputs were made. */
  get(task: TaskId): LineageEntry | undefined {
    return this.#entries.get(task);
  }

  /** The task that has submitted the one which makes an object, as far as the object came in its results. */
  containerOf(id: ObjectId): LineageEntry | undefined {
    return this.#containers.get(id);
  }

  /**
   * A task has ended and left objects in a store.
   *
   * @param contained Objects that came in its results, and that another task makes which is not known here: to have one again,
   *   this task has to submit that one again.
   */
  remember(task: TaskRecord, outputs: readonly ObjectId[], contained: readonly ObjectId[] = []): void {
    const known = this.#entries.get(task.id);
    const entry = known ?? { task, outputs: new Set<ObjectId>(), readers: 0, rebuilds: 0 };
    for (const id of outputs) entry.outputs.add(id);
    for (const id of contained) {
      if (this.#containers.has(id)) continue;
      this.#containers.set(id, entry);
      entry.outputs.add(id);
    }
    if (known !== undefined || entry.outputs.size === 0) return;
    this.#entries.set(task.id, entry);
    for (const id of readsOf(task)) {
      const maker = this.#entries.get(taskOf(id));
      if (maker !== undefined) maker.readers++;
    }
    if (this.#entries.size > this.#max) this.#drop(this.#entries.values().next().value!);
  }

  /** An object is not referred to any more. */
  freed(id: ObjectId): void {
    const container = this.#containers.get(id);
    if (container !== undefined) {
      this.#containers.delete(id);
      container.outputs.delete(id);
      this.#check(container);
    }
    const entry = this.#entries.get(taskOf(id));
    if (entry === undefined || !entry.outputs.delete(id)) return;
    this.#check(entry);
  }

  /** Forgets what nobody can need; a loop, for chains may be long. */
  #check(first: LineageEntry): void {
    const unneeded = [first];
    for (let entry = unneeded.pop(); entry !== undefined; entry = unneeded.pop()) {
      if (entry.outputs.size > 0 || entry.readers > 0) continue;
      if (!this.#entries.delete(entry.task.id)) continue;
      this.#dropped(entry.task);
      for (const id of readsOf(entry.task)) {
        const maker = this.#entries.get(taskOf(id));
        if (maker === undefined) continue;
        maker.readers--;
        unneeded.push(maker);
      }
    }
  }

  /** Forgets a task though it may be needed. Whoever reads its outputs does not count it any more. */
  #drop(entry: LineageEntry): void {
    this.#entries.delete(entry.task.id);
    for (const id of entry.outputs) if (this.#containers.get(id) === entry) this.#containers.delete(id);
    this.#dropped(entry.task);
    for (const id of readsOf(entry.task)) {
      const maker = this.#entries.get(taskOf(id));
      if (maker === undefined) continue;
      maker.readers--;
      this.#check(maker);
    }
  }
}

/** What a task reads, or may read: its arguments, and what they refer to. */
function readsOf({ dependencies, args }: TaskRecord): readonly ObjectId[] {
  return args.kind === "error" || args.contains.length === 0
    ? dependencies
    : [...dependencies, ...args.contains];
}
