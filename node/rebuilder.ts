/**
 * Making objects again whose bytes are gone with a node: the tasks that made them run once more, as far as lineage
 * (`node/lineage.ts`) remembers them, and so do the tasks that made what those read.
 *
 * @module
 */

import { ObjectLostError } from "../core/errors.ts";
import { hex, type ObjectId, returnId, taskOf } from "../core/ids.ts";
import { LINEAGE_TASKS_MAX } from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import type { ObjectRecord } from "./directory.ts";
import { Lineage } from "./lineage.ts";
import { packError, refersTo } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import { TaskRecord } from "./tasks.ts";

/** The submitter of a task that runs again for its results alone. */
const NO_CLIENT = -1;

/** Makes lost objects again. */
export class Rebuilder {
  readonly #node: NodeParts;
  readonly lineage = new Lineage(LINEAGE_TASKS_MAX);

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /** A task that left something in a store is remembered: it may have to be run again. */
  remember(task: TaskRecord, outcomes: readonly Outcome[]): void {
    if (task.foreign || task.args.kind === "stored" || task.entry.settings.stream) return;
    const outputs: ObjectId[] = [];
    outcomes.forEach((outcome, i) => {
      const id = returnId(task.id, i);
      if (refersTo(outcome) && this.#node.directory.get(id) !== undefined) outputs.push(id);
    });
    if (outputs.length > 0) this.lineage.remember(task, outputs);
  }

  /**
   * Has an object made again whose bytes are gone.
   *
   * @returns Why it cannot be: what is wrong with it, or with what it was made of.
   */
  rebuild(record: ObjectRecord): string | undefined {
    const id = taskOf(record.id);
    const entry = this.lineage.get(id);
    if (entry === undefined) {
      return "it is not known how it was made: it was put, or by an actor, or too long ago";
    }
    const { task } = entry;
    const { name } = task.entry.settings;
    if (entry.rebuilds++ >= Math.max(1, task.retries)) {
      return `task ${name}, which made it, was run again ${entry.rebuilds - 1} times already`;
    }
    for (const dependency of task.dependencies) {
      if (this.#node.directory.get(dependency) !== undefined) continue;
      const why = this.#rerun(dependency);
      if (why !== undefined) return `task ${name}, which made it, needs ${hex(dependency, true)}, and ${why}`;
    }
    this.#node.options.log(
      "info",
      `Task ${name} runs again: node and object ${hex(record.id, true)} are gone`,
    );
    this.#runAgain(entry.task);
    return undefined;
  }

  /** Has an object made again that is not known yet, and whose node is gone. */
  remakeForeign(record: ObjectRecord): void {
    const why = this.#node.tasks.has(taskOf(record.id)) ? undefined : this.rebuild(record);
    if (why === undefined) return;
    const error = new ObjectLostError(
      `Object ${hex(record.id, true)} is lost with the node that had it, and ${why}`,
    );
    if (this.#node.directory.seal(record, { kind: "error", bytes: packError(error) })) {
      this.#node.results.announce(record);
    }
  }

  /** Runs the task again that made an object of which nothing is known any more. @returns Why it cannot be. */
  #rerun(id: ObjectId): string | undefined {
    const entry = this.lineage.get(taskOf(id));
    if (entry === undefined) return "that was let go of and cannot be made again";
    if (this.#node.tasks.has(entry.task.id)) return undefined;
    for (const dependency of entry.task.dependencies) {
      if (this.#node.directory.get(dependency) !== undefined) continue;
      const why = this.#rerun(dependency);
      if (why !== undefined) {
        return `task ${entry.task.entry.settings.name} needs ${hex(dependency, true)}, and ${why}`;
      }
    }
    this.#runAgain(entry.task);
    return undefined;
  }

  #runAgain(before: TaskRecord): void {
    const { id, parent, dependencies, args, job, fn, entry } = before;
    const task = new TaskRecord(
      { handle: 0, task: id, parent, dependencies, args },
      job,
      fn,
      entry,
      NO_CLIENT,
    );
    task.rebuild = true;
    // What is left of its results is sealed anew; whoever asked for one in the meantime is told then.
    for (let i = 0; i < entry.settings.returns; i++) {
      const record = this.#node.directory.get(returnId(id, i));
      if (record?.outcome === undefined || this.#node.objects.isHere(record) || record.home !== undefined) {
        continue;
      }
      this.#node.directory.unseal(record);
      (task.results ??= [])[i] = record;
    }
    const missing = this.#node.submissions.admit(task);
    if (missing === undefined) return;
    if (missing.length > 0) this.#node.executions.dependencies.hold(task, missing);
    else this.#node.submissions.ready(task);
  }
}
