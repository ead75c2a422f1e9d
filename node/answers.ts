/**
 * The book of answers: what callers were answered that may be run again, and must then get the same.
 *
 * A task that called an actor and dies is run again, and makes the same calls under the same ids. Each was applied
 * already, so it must not be applied once more: the call gets its first answer. Answers are kept for as long as the
 * caller may be run again; when it ends, they pass to the task that submitted it, which may be run again itself and then
 * submit it anew, and so on up to the program, which never is.
 *
 * @module
 */

import type { ObjectId, TaskId } from "../core/ids.ts";
import { returnId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { type CallRecord, NodeActor } from "./actor_records.ts";
import type { ObjectDirectory } from "./directory.ts";
import { refersTo } from "./outcomes.ts";
import type { TaskRecord } from "./tasks.ts";

/** A caller that may be run again. */
interface Scope {
  readonly parent: TaskId;
  calls: TaskId[];
}

interface Answered {
  readonly actor: NodeActor;
  readonly outcomes: readonly Outcome[];
}

/** The answers that one node keeps. */
export class AnswerBook {
  readonly #tasks: ReadonlyMap<TaskId, TaskRecord>;
  readonly #directory: ObjectDirectory;
  readonly #scopes = new Map<TaskId, Scope>();
  readonly #answered = new Map<TaskId, Answered>();
  /** What tasks wait for that call actors; so that circles are found. */
  readonly waits = new Map<TaskRecord, readonly ObjectId[]>();

  /** @param tasks The tasks that have not ended. @param directory Holds large answers. */
  constructor(tasks: ReadonlyMap<TaskId, TaskRecord>, directory: ObjectDirectory) {
    this.#tasks = tasks;
    this.#directory = directory;
  }

  /** How many answers are kept. */
  get size(): number {
    return this.#answered.size;
  }

  /** A task does something that it would do again. Returns its scope, unless it has ended for good. */
  touch(id: TaskId): Scope | undefined {
    let scope = this.#scopes.get(id);
    if (scope !== undefined) return scope;
    const task = this.#tasks.get(id);
    if (task === undefined) return undefined;
    scope = { parent: task.parent, calls: [] };
    this.#scopes.set(id, scope);
    return scope;
  }

  /** A call was made by a task that may be run again: its answer will be kept. */
  expect(call: CallRecord): void {
    const scope = this.touch(call.parent);
    if (scope === undefined) return;
    scope.calls.push(call.id);
    call.answers = [];
  }

  /** Any task has ended with its outcomes. */
  finished(task: TaskRecord): void {
    const { actor } = task as Partial<CallRecord>;
    if (actor instanceof NodeActor) {
      if (task.answers !== undefined && task !== actor.creation) {
        this.#answered.set(task.id, { actor, outcomes: task.answers });
      }
      // A durable actor's call may run once more, to rebuild the actor: until it is forgotten.
      if (!task.argumentsKept) this.scopeEnded(task);
    } else if (this.#scopes.size > 0) {
      this.waits.delete(task);
      this.scopeEnded(task);
    }
  }

  /** A task, or a logged call, will never be run again. */
  scopeEnded(task: TaskRecord): void {
    const scope = this.#scopes.get(task.id);
    if (scope === undefined) return;
    this.#scopes.delete(task.id);
    const parent = this.touch(scope.parent);
    if (parent !== undefined) {
      for (const id of scope.calls) parent.calls.push(id);
    } else for (const id of scope.calls) this.#drop(id);
  }

  #drop(id: TaskId): void {
    const answered = this.#answered.get(id);
    if (answered === undefined) return;
    this.#answered.delete(id);
    answered.outcomes.forEach((outcome, index) => {
      if (refersTo(outcome)) this.#directory.unuse(returnId(id, index));
    });
  }

  /** An actor is gone because its creator is: if both come again, they begin anew. */
  forgetActor(actor: NodeActor): void {
    for (const [id, answered] of this.#answered) if (answered.actor === actor) this.#drop(id);
  }

  /**
   * Gives the answer of a call that was answered before.
   *
   * @param id The call.
   * @param give Told of each outcome, a stream's end last; `kept` if it is an object of the directory.
   * @returns Whether there was an answer.
   */
  resend(id: TaskId, give: (index: number, kept: boolean, outcome: Outcome) => void): boolean {
    const answered = this.#answered.get(id);
    if (answered === undefined) return false;
    answered.outcomes.forEach((outcome, index) => {
      if (index > 0) give(index, refersTo(outcome), outcome);
    });
    const first = answered.outcomes[0]!;
    give(0, refersTo(first), first);
    return true;
  }
}
