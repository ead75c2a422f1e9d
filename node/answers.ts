/**
 * The book of answers: what callers were answered that may be run again, and must then get the same.
 *
 * A task that called an actor and dies is run again, and makes the same calls under the same ids. Each was applied
 * already, so it must not be applied once more: the call gets its first answer. Answers are kept for as long as the
 * caller may be run again; when it ends, they pass to the task that submitted it, which may be run again itself and then
 * submit it anew, and so on up to the program, which never is.
 *
 * Answers are kept where the actor is. Of calls from other nodes, the caller's node knows how long that must be, and says
 * when nobody will ask any more (`forget`); until then, answers are kept whoever dies. When a task ends that another node
 * had submitted, its calls are *bequeathed* to that node, which then knows.
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

/** A call of an actor of another node. */
export interface FarCall {
  readonly actor: TaskId;
  readonly call: TaskId;
}

/** A caller that may be run again. */
interface Scope {
  readonly parent: TaskId;
  /** Calls of this node's actors, and of others'. */
  calls: TaskId[];
  far: FarCall[];
}

/** How long, and how many, callers are known that have ended. */
const ENDED_MS = 60_000, ENDED_MAX = 100_000;
const ABANDONED_MAX = 10_000;

interface Answered {
  readonly actor: NodeActor;
  /** Who made the call. */
  readonly parent: TaskId;
  readonly job: TaskId;
  readonly outcomes: readonly Outcome[];
}

/** The answers that one node keeps. */
export class AnswerBook {
  readonly #tasks: ReadonlyMap<TaskId, TaskRecord>;
  readonly #directory: ObjectDirectory;
  readonly #forgotten: (call: FarCall) => void;
  readonly #now: () => number;
  readonly #scopes = new Map<TaskId, Scope>();
  readonly #answered = new Map<TaskId, Answered>();
  /** Callers that have ended, and calls of programs that have, and when. */
  readonly #ended = new Map<TaskId, number>();
  /** What tasks wait for that call actors; so that circles are found. */
  readonly waits = new Map<TaskRecord, readonly ObjectId[]>();
  /**
   * Tasks that ended here as the node that had given them is gone, which runs them again, and tasks that those had submitted:
   * what they have called will be called again.
   */
  readonly #abandoned = new Set<TaskId>();
  /** Told of answers of this node's actors that go. */
  dropped: (actor: NodeActor, call: TaskId) => void = () => {};

  /**
   * @param tasks The tasks that have not ended. @param directory Holds large answers.
   * @param forgotten Told of calls of other nodes' actors that nobody here will ask for again. @param now Milliseconds.
   */
  constructor(
    tasks: ReadonlyMap<TaskId, TaskRecord>,
    directory: ObjectDirectory,
    forgotten: (call: FarCall) => void,
    now: () => number,
  ) {
    this.#now = now;
    this.#tasks = tasks;
    this.#directory = directory;
    this.#forgotten = forgotten;
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
    scope = { parent: task.parent, calls: [], far: [] };
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

  /** A call of an actor of another node was made here, and ends, by a task that may be run again, or by a program. */
  expectFar(call: CallRecord): void {
    const far = { actor: call.actor.id, call: call.id };
    const scope = this.touch(call.parent);
    if (scope !== undefined) scope.far.push(far);
    else call.forgetDone = true;
  }

  /** Any task has ended with its outcomes. */
  finished(task: TaskRecord): void {
    const { actor } = task as Partial<CallRecord>;
    if (actor instanceof NodeActor) {
      if (task.answers !== undefined && task !== actor.creation) {
        const { id, job, parent, answers: outcomes } = task;
        this.#answered.set(id, { actor, parent, job, outcomes });
      }
      if ((task as CallRecord).forgetDone) this.#forgotten({ actor: actor.id, call: task.id });
      // A durable actor's call may run once more, to rebuild the actor: until it is forgotten.
      if (!task.argumentsKept) this.scopeEnded(task);
    } else if (this.#scopes.size > 0 || task.bequeathed !== undefined) {
      this.waits.delete(task);
      this.scopeEnded(task);
    }
  }

  /** A task, or a logged call, will never be run again. */
  scopeEnded(task: TaskRecord): void {
    const scope = this.#scopes.get(task.id);
    this.#scopes.delete(task.id);
    if (this.#abandoned.has(task.parent) && !this.#tasks.has(task.parent)) return this.abandon(task.id);
    if (!task.foreign) this.#abandoned.delete(task.id);
    const far = task.bequeathed === undefined ? scope?.far : [...scope?.far ?? [], ...task.bequeathed];
    if (scope === undefined && far === undefined) return;
    const parent = this.touch(task.parent);
    if (parent !== undefined) {
      for (const id of scope?.calls ?? []) parent.calls.push(id);
      for (const call of far ?? []) parent.far.push(call);
    } else {
      for (const id of scope?.calls ?? []) this.end(id);
      for (const call of far ?? []) this.#forgotten(call);
    }
  }

  /**
   * A task that another node had submitted has ended: whoever submitted it sees to the answers of its calls from now on.
   *
   * @returns All that it, and what it submitted, has called.
   */
  bequeath(task: TaskRecord): readonly FarCall[] {
    this.#abandoned.delete(task.id);
    const scope = this.#scopes.get(task.id);
    if (scope === undefined) return task.bequeathed ?? NONE;
    this.#scopes.delete(task.id);
    const calls = [...scope.far, ...task.bequeathed ?? NONE];
    for (const call of scope.calls) {
      const answered = this.#answered.get(call);
      if (answered !== undefined) calls.push({ actor: answered.actor.id, call });
    }
    return calls;
  }

  /** A task of another node has ended, and that node is gone: answers of its calls are kept for when it has run again. */
  abandon(task: TaskId): void {
    this.#abandoned.add(task);
    if (this.#abandoned.size <= ABANDONED_MAX) return;
    for (const first of this.#abandoned) {
      this.#abandoned.delete(first);
      return;
    }
  }

  /** An answer that nobody will ask for any more. */
  drop(id: TaskId): void {
    const answered = this.#answered.get(id);
    if (answered === undefined) return;
    this.#answered.delete(id);
    answered.outcomes.forEach((outcome, index) => {
      if (refersTo(outcome)) this.#directory.unuse(returnId(id, index));
    });
    this.dropped(answered.actor, id);
  }

  /**
   * As {@link drop}, as the caller has ended for good. It may still run on a node that was cut off, and not know that it ran
   * again elsewhere, and ended: what it says for a while is said too late.
   */
  end(id: TaskId): void {
    const answered = this.#answered.get(id);
    if (answered !== undefined && answered.parent !== answered.job) this.#remember(answered.parent);
    this.drop(id);
  }

  #remember(id: TaskId): void {
    const now = this.#now();
    this.#ended.delete(id);
    this.#ended.set(id, now);
    for (const [first, since] of this.#ended) {
      if (this.#ended.size <= ENDED_MAX && now - since < ENDED_MS) break;
      this.#ended.delete(first);
    }
  }

  /** Whether a caller has ended for good, or a call was answered and its program has ended. */
  hasEnded(id: TaskId): boolean {
    const since = this.#ended.get(id);
    return since !== undefined && this.#now() - since < ENDED_MS;
  }

  /** An actor is gone because its creator is: if both come again, they begin anew. */
  forgetActor(actor: NodeActor): void {
    for (const [id, answered] of this.#answered) if (answered.actor === actor) this.drop(id);
  }

  /**
   * A program has ended, and all its tasks with it. One of them may still run on a node that was cut off: a call that it says
   * again does not take effect once more.
   */
  jobEnded(job: TaskId): void {
    for (const [id, answered] of this.#answered) {
      if (answered.job !== job) continue;
      this.#remember(id);
      this.drop(id);
    }
  }

  /** The answer of a call, if it is kept. */
  answerOf(id: TaskId): readonly Outcome[] | undefined {
    return this.#answered.get(id)?.outcomes;
  }

  /** Takes up an answer that was given on another node; what it refers to is held. */
  enter(actor: NodeActor, call: TaskId, job: TaskId, outcomes: readonly Outcome[]): void {
    this.#answered.set(call, { actor, parent: job, job, outcomes });
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

const NONE: readonly FarCall[] = Object.freeze([]);
