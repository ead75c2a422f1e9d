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

  /** A task has ended and left objects in a store. */
  remember(task: TaskRecord, outputs: readonly ObjectId[]): void {
    const known = this.#entries.get(task.id);
    if (known !== undefined) {
      for (const id of outputs) known.outputs.add(id);
      return;
    }
    this.#entries.set(task.id, { task, outputs: new Set(outputs), readers: 0, rebuilds: 0 });
    for (const id of readsOf(task)) {
      const maker = this.#entries.get(taskOf(id));
      if (maker !== undefined) maker.readers++;
    }
    if (this.#entries.size > this.#max) this.#drop(this.#entries.values().next().value!);
  }

  /** An object is not referred to any more. */
  freed(id: ObjectId): void {
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
