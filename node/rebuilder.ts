/**
 * Making objects again whose bytes are gone with a node: the tasks that made them run once more, as far as lineage
 * (`node/lineage.ts`) remembers them, and so do the tasks that made what those read.
 *
 * @module
 */

import { ObjectLostError } from "../core/errors.ts";
import { hex, isPut, type ObjectId, returnId, type TaskId, taskOf } from "../core/ids.ts";
import { LINEAGE_TASKS_MAX } from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import { CallRecord } from "./actor_records.ts";
import type { ObjectRecord } from "./directory.ts";
import { Lineage, type LineageEntry } from "./lineage.ts";
import { LineageLog, readLineage } from "./lineage_log.ts";
import { packError, refersTo } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import { NO_CLIENT } from "./peers.ts";
import { TaskRecord } from "./tasks.ts";

/** Makes lost objects again. */
export class Rebuilder {
  readonly #node: NodeParts;
  readonly lineage: Lineage;
  /** The same in the control store; absent of a node that is alone. */
  readonly log: LineageLog | undefined;
  /** Lineage that nodes have left which are gone, as far as it was needed here. */
  readonly #inherited = new Map<TaskId, LineageEntry>();
  #inheriting: Promise<void> | undefined;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
    const { abroad } = node.options;
    this.log = abroad === undefined ? undefined : new LineageLog(abroad.lineage, node.clock);
    this.lineage = new Lineage(LINEAGE_TASKS_MAX, (task) => {
      this.log?.drop(task.id);
      node.actors.answers.unremembered(task);
    });
  }

  /**
   * A task that left something in a store is remembered: it may have to be run again. What it put counts as well, if its
   * results refer to that, for it may be needed longer than they are.
   */
  remember(task: TaskRecord, outcomes: readonly Outcome[]): void {
    if (task.foreign || task.args.kind === "stored" || task.entry.settings.stream) return;
    const outputs: ObjectId[] = [], contained: ObjectId[] = [];
    outcomes.forEach((outcome, i) => {
      if (!refersTo(outcome)) return;
      const contains = outcome.kind === "error" ? [] : outcome.contains;
      for (const id of [returnId(task.id, i), ...contains.filter((id) => taskOf(id) === task.id)]) {
        if (this.#node.directory.get(id) !== undefined) outputs.push(id);
      }
      for (const id of contains) if (this.#isOfUnknownTask(id)) contained.push(id);
    });
    if (outputs.length === 0 && contained.length === 0) return;
    this.lineage.remember(task, outputs, contained);
    // With this node a program of its own dies as well, and nobody is left who could need what its tasks have made.
    if (!this.#node.programs.has(task.job)) this.log?.add(task);
  }

  /** Whether another node has submitted the task that makes an object. */
  #isOfUnknownTask(id: ObjectId): boolean {
    const { directory, tasks, cluster } = this.#node;
    const task = taskOf(id), running = tasks.get(task);
    const isElsewhere = running === undefined ? directory.get(id)?.home !== undefined : running.foreign;
    return isElsewhere && !isPut(id) && this.#entry(task) === undefined && !cluster!.actors.places.has(task);
  }

  /** A task has put something. */
  put(id: ObjectId): void {
    if (this.log === undefined) return;
    const task = this.#node.tasks.get(taskOf(id));
    if (task === undefined || task instanceof CallRecord || this.#node.programs.has(task.job)) return;
    (task.puts ??= new Set()).add(id);
  }

  /** Nothing refers to an object any more. */
  freed(id: ObjectId): void {
    if (this.log !== undefined && isPut(id)) this.#node.tasks.get(taskOf(id))?.puts?.delete(id);
    this.lineage.freed(id);
  }

  /**
   * What a task has put, and somebody else holds, may be needed for longer than its result is, and longer than it is
   * remembered where it was submitted: it lies here, so it is remembered here, and written down, since it is lost with this
   * node. Before its results are told.
   */
  rememberPuts(task: TaskRecord): void {
    if (task.args.kind === "stored" || task.entry.settings.stream) return;
    const asker = this.#node.isolates.byNumber.get(task.isolate)?.client?.id;
    const held = [...task.puts ?? []].filter((id) => {
      const record = this.#node.directory.get(id);
      if (record === undefined) return false;
      const others = [...record.others?.keys() ?? []].some((client) => client !== asker);
      return record.uses > 0 || others || record.owner !== asker && record.ownerCount > 0;
    });
    if (held.length === 0) return;
    this.lineage.remember(task, held);
    this.log?.add(task);
  }

  /** A task that has ended, and can be run again. */
  remembered(task: TaskId): TaskRecord | undefined {
    return this.#entry(task)?.task;
  }

  /** Whether an object can be made again here, or is being made. */
  makes(id: ObjectId): boolean {
    const task = taskOf(id);
    return this.#node.tasks.has(task) || this.#entry(task) !== undefined;
  }

  /** A peer holds objects, of which some are to be made again here: they are there from now on, as lost ones. */
  expectHeld(objects: readonly ObjectId[]): void {
    for (const id of objects) {
      if (this.#node.directory.get(id) === undefined && this.#entry(taskOf(id)) !== undefined) {
        this.#node.directory.addLost(id);
      }
    }
  }

  /** How an object was made, as far as that is known here. */
  #entry(task: TaskId): LineageEntry | undefined {
    return this.lineage.get(task) ?? this.#inherited.get(task);
  }

  /**
   * As {@link rebuild}; when it is not known here how the object was made, what nodes have left in the control store that
   * are gone is looked at first.
   */
  async rebuildAnyhow(record: ObjectRecord): Promise<string | undefined> {
    const task = taskOf(record.id);
    if (this.#entry(task) === undefined) {
      this.#inheriting ??= this.#inherit().finally(() => this.#inheriting = undefined);
      await this.#inheriting;
      if (this.#node.tasks.has(task)) return undefined;
    }
    return this.rebuild(record);
  }

  async #inherit(): Promise<void> {
    const { abroad, log } = this.#node.options;
    try {
      for (const bytes of await abroad?.leftLineage() ?? []) {
        for (const task of readLineage(bytes, this.#node.definitions)) {
          if (this.#inherited.has(task.id)) continue;
          this.#inherited.set(task.id, { task, outputs: new Set(), readers: 0, rebuilds: 0 });
        }
      }
    } catch (error) {
      log("warn", `Lineage of a node that is gone cannot be read: ${(error as Error).message}`);
    }
    for (const { task } of this.#inherited.values()) {
      if (this.#inherited.size <= LINEAGE_TASKS_MAX) return;
      this.#inherited.delete(task.id);
      this.#node.actors.answers.unremembered(task);
    }
  }

  /**
   * Has an object made again whose bytes are gone.
   *
   * @returns Why it cannot be: what is wrong with it, or with what it was made of.
   */
  rebuild(record: ObjectRecord): string | undefined {
    const id = taskOf(record.id);
    const entry = this.#entry(id) ?? this.lineage.containerOf(record.id);
    if (entry === undefined) {
      return "it is not known how it was made: it was put, or by an actor, or too long ago";
    }
    const { task } = entry;
    const { name } = task.entry.settings;
    if (task.id !== id && this.#node.tasks.has(task.id)) return undefined; // it is about to submit it again
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

  /** Somebody waits for an object that is made again, or is to be; unless it was let go of in the meantime. */
  expect(record: ObjectRecord): void {
    const { id } = record;
    if (this.#node.directory.get(id) === record) this.#entry(taskOf(id))?.outputs.add(id);
  }

  /** A task has run again, and ended. What it has not put, or submitted, again, though somebody waits for it, is lost. */
  ended(task: TaskRecord, outcomes: readonly Outcome[]): void {
    const { directory, objects, results } = this.#node;
    const returned = new Set(outcomes.map((_, i) => returnId(task.id, i)));
    for (const id of [...this.#entry(task.id)?.outputs ?? []]) {
      const record = returned.has(id) ? undefined : directory.get(id);
      if (record === undefined || record.outcome !== undefined || record.home !== undefined) continue;
      if (record.pending || !(record.asked || objects.remade.has(id))) continue;
      if (this.#node.tasks.has(taskOf(id))) continue; // it was submitted again
      const { name } = task.entry.settings;
      const [did, omitted] = isPut(id) ? ["made it", "put it"] : ["returned a Ref of it", "return that"];
      const how = outcomes.some(({ kind }) => kind === "error") ? "it failed" : `it did not ${omitted} again`;
      const error = new ObjectLostError(
        `Object ${
          hex(id, true)
        } is lost with the node that had it: task ${name}, which ${did}, was run again, and ${how}`,
      );
      if (directory.seal(record, { kind: "error", bytes: packError(error) })) results.announce(record);
    }
  }

  /** Has an object made again that is not known yet, and whose node is gone. */
  async remakeForeign(record: ObjectRecord): Promise<void> {
    const { objects, tasks } = this.#node;
    for (;;) {
      this.expect(record);
      if (tasks.has(taskOf(record.id))) objects.lookWhereItIsMade(record);
      const others = tasks.has(taskOf(record.id)) ? "known" : await objects.learn(record);
      if (others === "known" || record.home !== undefined || this.#node.closed) return this.#node.flush();
      const hope = await objects.hopeFor(record, others);
      if (hope === "adopted") return this.#node.flush();
      if (hope === "nothing") break;
    }
    const why = tasks.has(taskOf(record.id)) ? undefined : await this.rebuildAnyhow(record);
    this.expect(record); // what others have left is known now
    if (why === undefined) objects.lookWhereItIsMade(record);
    if (why === undefined || record.outcome !== undefined) return this.#node.flush();
    const error = new ObjectLostError(
      `Object ${hex(record.id, true)} is lost with the node that had it, and ${why}`,
    );
    if (this.#node.directory.seal(record, { kind: "error", bytes: packError(error) })) {
      this.#node.results.announce(record);
    }
    this.#node.flush();
  }

  /** Runs the task again that made an object of which nothing is known any more. @returns Why it cannot be. */
  #rerun(id: ObjectId): string | undefined {
    const entry = this.#entry(taskOf(id));
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
    // What its arguments refer to is known to nobody any more either, and is made again when the task asks for it.
    for (const object of args.kind === "error" ? [] : args.contains) {
      if (this.#node.directory.get(object) === undefined && this.#entry(taskOf(object)) !== undefined) {
        this.#node.directory.addLost(object);
      }
    }
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
