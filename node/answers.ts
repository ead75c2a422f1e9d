/**
 * The book of answers: what callers were answered that may be run again, and must then get the same.
 *
 * A task that called an actor and dies is run again, and makes the same calls under the same ids. Each was applied
 * already, so it must not be applied once more: the call gets its first answer. Answers are kept for as long as the
 * caller may be run again: until it has ended, and what it has made is not needed any more, which might have to be made
 * again (`node/lineage.ts`). Then they pass to the task that submitted it, which may be run again itself and then submit it
 * anew, and so on up to the program, which never is. If that task has ended before and will not be run again, they pass to
 * whoever submitted it.
 *
 * Answers are kept where the actor is. Of calls from other nodes, the caller's node knows how long that must be, and says
 * when nobody will ask any more (`forget`); until then, answers are kept whoever dies. When a task ends that another node
 * had submitted, its calls are *bequeathed* to that node, which then knows. If that node is gone, or something that the task
 * has submitted still runs, the answers stay until the program ends.
 *
 * @module
 */

import type { ObjectId, TaskId } from "../core/ids.ts";
import { returnId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { CallRecord, NodeActor } from "./actor_records.ts";
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
  readonly id: TaskId;
  /** Who submitted it, or, once that has ended, who submitted that: whoever would have it run by being run again. */
  parent: TaskId;
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
  /** How many nodes will say when it need not be kept for them any more. */
  keepers: number;
}

/** The answers that one node keeps. */
export class AnswerBook {
  readonly #tasks: ReadonlyMap<TaskId, TaskRecord>;
  readonly #directory: ObjectDirectory;
  readonly #remembered: (id: TaskId) => TaskRecord | undefined;
  readonly #kept: (call: FarCall) => void;
  readonly #forgotten: (call: FarCall) => void;
  readonly #now: () => number;
  readonly #scopes = new Map<TaskId, Scope>();
  /** Those of tasks that have ended and are remembered, by who has submitted them. */
  readonly #waiting = new Map<TaskId, Set<Scope>>();
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
   * @param remembered One that has ended, and is remembered so that it can be run again.
   * @param kept Told of calls whose answers are to be kept for one node more.
   * @param forgotten Told of calls of other nodes' actors that nobody here will ask for again. @param now Milliseconds.
   */
  constructor(
    tasks: ReadonlyMap<TaskId, TaskRecord>,
    directory: ObjectDirectory,
    remembered: (id: TaskId) => TaskRecord | undefined,
    kept: (call: FarCall) => void,
    forgotten: (call: FarCall) => void,
    now: () => number,
  ) {
    this.#now = now;
    this.#remembered = remembered;
    this.#kept = kept;
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
    const running = this.#tasks.get(id);
    const task = running ?? this.#remembered(id);
    if (task === undefined) return undefined;
    scope = { id, parent: this.#submitterOf(task)?.id ?? task.parent, calls: [], far: [] };
    this.#scopes.set(id, scope);
    if (running === undefined) this.#wait(scope);
    return scope;
  }

  /** A task has ended, and may have to be run again for what it has made. */
  #wait(scope: Scope): void {
    const siblings = this.#waiting.get(scope.parent);
    if (siblings === undefined) this.#waiting.set(scope.parent, new Set([scope]));
    else siblings.add(scope);
  }

  #waitNoMore(scope: Scope): void {
    const siblings = this.#waiting.get(scope.parent);
    if (siblings?.delete(scope) && siblings.size === 0) this.#waiting.delete(scope.parent);
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
        const { keepers } = task as CallRecord;
        this.#answered.set(id, { actor, parent, job, outcomes, keepers });
        if (keepers === 0) this.drop(id);
      }
      if ((task as CallRecord).forgetDone) this.#forgotten({ actor: actor.id, call: task.id });
      // A durable actor's call may run once more, to rebuild the actor: until it is forgotten.
      if (!task.argumentsKept) this.scopeEnded(task);
    } else if (this.#scopes.size > 0 || task.bequeathed !== undefined) {
      this.waits.delete(task);
      this.scopeEnded(task);
    }
  }

  /** A task has ended, or a logged call will never be run again. */
  scopeEnded(task: TaskRecord): void {
    const parent = this.#submitterOf(task)?.id ?? task.parent;
    const isLeft = this.#abandoned.has(parent) && !this.#tasks.has(parent);
    if (isLeft || task.foreign && this.#abandoned.has(task.id)) {
      this.#leave(task.id);
      return this.abandon(task.id);
    }
    this.#abandoned.delete(task.id);
    const isRemembered = this.#remembered(task.id) !== undefined;
    this.#takeBequeathed(task);
    const scope = this.#scopes.get(task.id);
    if (isRemembered) {
      if (scope === undefined) return;
      scope.parent = parent;
      return this.#wait(scope);
    }
    this.#remove(task.id);
    this.#pass(task.id, parent, scope);
  }

  /** Who has submitted a task, or, if that has ended before it, who has submitted that: whoever may be run again. */
  #submitterOf(task: TaskRecord): TaskRecord | undefined {
    const mayRunAgain = ({ id, finished }: TaskRecord) =>
      !finished || this.#scopes.has(id) || this.#abandoned.has(id) || this.#remembered(id) !== undefined;
    while (task.submitter !== undefined && !mayRunAgain(task.submitter)) {
      task.submitter = task.submitter.submitter;
    }
    return task.submitter;
  }

  /** A task that runs here submits another one, perhaps again. */
  submits(parent: TaskRecord, task: TaskRecord): void {
    const before = runningAncestorOf(task);
    if (before !== undefined) before.children--;
    task.submitter = task.ancestor = parent;
    parent.children++;
  }

  /** A task has ended: what it has submitted, and has not ended, counts for whoever has submitted it. */
  leaves(task: TaskRecord): void {
    const ancestor = runningAncestorOf(task);
    if (ancestor !== undefined) ancestor.children += task.children - 1;
    this.#submitterOf(task); // of tasks that each submit the next one, the last would hold all
  }

  /** A task that has ended will not be run again to make once more what it has made. */
  unremembered(task: TaskRecord): void {
    if (this.#tasks.has(task.id)) return; // it is running again, and ends
    const submitter = this.#submitterOf(task);
    const scope = this.#remove(task.id);
    this.#pass(task.id, scope?.parent ?? submitter?.id ?? task.parent, scope);
  }

  /** Answers stay that a task has got, and those that it has submitted: nobody here says when they need not. */
  #leave(id: TaskId): void {
    this.#remove(id);
    const children = this.#waiting.get(id);
    this.#waiting.delete(id);
    for (const child of children ?? []) this.#leave(child.id);
  }

  #remove(id: TaskId): Scope | undefined {
    const scope = this.#scopes.get(id);
    if (scope === undefined) return undefined;
    this.#scopes.delete(id);
    this.#waitNoMore(scope);
    return scope;
  }

  /** What a task has called, and what it has submitted, would only come again if whoever submitted it were run again. */
  #pass(id: TaskId, to: TaskId, scope: Scope | undefined): void {
    const children = this.#waiting.get(id);
    this.#waiting.delete(id);
    for (const child of children ?? []) {
      child.parent = to;
      this.#wait(child);
    }
    if (scope === undefined) return;
    const parent = this.touch(to);
    if (parent !== undefined) {
      for (const call of scope.calls) parent.calls.push(call);
      for (const call of scope.far) parent.far.push(call);
    } else if (!this.#abandoned.has(to)) {
      for (const call of scope.calls) this.end(call);
      for (const call of scope.far) this.#forgotten(call);
    }
  }

  /**
   * A task that another node had submitted has ended: whoever submitted it sees to the answers of its calls from now on.
   *
   * @returns All that it, and what it submitted, has called.
   */
  bequeath(task: TaskRecord): readonly FarCall[] {
    this.#abandoned.delete(task.id);
    const calls: FarCall[] = [];
    const isRemembered = this.#remembered(task.id) !== undefined;
    this.#takeBequeathed(task);
    const scope = isRemembered ? this.#scopes.get(task.id) : this.#remove(task.id);
    if (scope !== undefined) {
      this.#collect(scope, calls);
      // It may have to be run again here, too.
      if (isRemembered) {
        for (const call of calls) this.#kept(call);
        this.#wait(scope);
      }
    }
    this.#share(task.id, calls);
    return calls;
  }

  /** Calls that a task has made elsewhere are among its own. */
  #takeBequeathed(task: TaskRecord): void {
    if (task.bequeathed === undefined) return;
    const scope = this.#scopes.get(task.id) ?? { id: task.id, parent: task.parent, calls: [], far: [] };
    this.#scopes.set(task.id, scope);
    for (const call of task.bequeathed) scope.far.push(call);
    task.bequeathed = undefined;
  }

  /** What a task has called. */
  #collect({ calls, far }: Scope, to: FarCall[]): void {
    for (const call of far) to.push(call);
    for (const call of calls) {
      const actor = (this.#answered.get(call) ?? this.#running(call))?.actor;
      if (actor !== undefined) to.push({ actor: actor.id, call });
    }
  }

  /** A call that is not answered yet. */
  #running(id: TaskId): CallRecord | undefined {
    const task = this.#tasks.get(id);
    return task instanceof CallRecord ? task : undefined;
  }

  /** What those have called that a task has submitted, and that are remembered here: its answers are needed here as well. */
  #share(id: TaskId, to: FarCall[]): void {
    for (const scope of this.#waiting.get(id) ?? []) {
      const first = to.length;
      this.#collect(scope, to);
      for (let i = first; i < to.length; i++) this.#kept(to[i]!);
      this.#share(scope.id, to);
    }
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

  /** An answer is kept for one node more. */
  keep(id: TaskId): void {
    const kept = this.#answered.get(id) ?? this.#running(id);
    if (kept !== undefined) kept.keepers++;
  }

  /**
   * An answer need not be kept for a node any more, as the caller has ended there for good. It may still run on a node that
   * was cut off, and not know that it ran again elsewhere, and ended: what it says for a while is said too late.
   */
  end(id: TaskId): void {
    const kept = this.#answered.get(id) ?? this.#running(id);
    // Its actor has moved while it waited: its answer will be kept there.
    if (kept instanceof CallRecord && kept.state === "delegated") return void (kept.forgetDone = true);
    if (kept === undefined || --kept.keepers > 0) return;
    if (kept.parent !== kept.job) this.#remember(kept.parent);
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
    this.#answered.set(call, { actor, parent: job, job, outcomes, keepers: 1 });
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

/** Whoever has submitted a task, and runs; or whoever has submitted that, if it has ended. */
function runningAncestorOf(task: TaskRecord): TaskRecord | undefined {
  while (task.ancestor?.finished) task.ancestor = task.ancestor.ancestor;
  return task.ancestor;
}
