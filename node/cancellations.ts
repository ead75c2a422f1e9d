/**
 * Ending tasks before their time: cancelled by whoever submitted them, out of time, or left by a program or node that is
 * gone. A task is told to stop; with force, its isolate is ended if it does not.
 *
 * @module
 */

import { type RaydError, TaskCancelledError, TaskTimeoutError } from "../core/errors.ts";
import { hex, type TaskId } from "../core/ids.ts";
import { STOP_GRACE_MS } from "../core/limits.ts";
import { unreachable } from "../core/unreachable.ts";
import { CallRecord } from "./actor_records.ts";
import type { NodeParts } from "./parts.ts";
import { TaskRecord } from "./tasks.ts";

/** Ends tasks before their time. */
export class Cancellations {
  readonly #node: NodeParts;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /** A task has taken longer than it may. */
  timeout(task: TaskRecord): void {
    const { name, timeoutMs } = task.entry.settings;
    this.stop(
      task,
      new TaskTimeoutError(
        `Task ${name} (${hex(task.id)}) took longer than its timeout of ${timeoutMs} ms; it was ${
          stateOf(task)
        }`,
      ),
      true,
      true,
    );
    this.#node.flush();
  }

  /** Cancels a task; `recursive` with all that it submitted. */
  cancel(id: TaskId, force: boolean, recursive: boolean): void {
    const task = this.#node.tasks.get(id);
    if (task !== undefined) {
      const message = `Task ${task.entry.settings.name} (${hex(id)}) was cancelled while it was ${
        stateOf(task)
      }`;
      this.stop(task, new TaskCancelledError(message), force, recursive);
    } else if (recursive) this.#stopChildren(id, force);
  }

  #stopChildren(parent: TaskId, force: boolean): void {
    for (const task of [...this.#node.tasks.values()]) {
      if (task.parent !== parent || task.finished) continue;
      const message = `Task ${task.entry.settings.name} (${hex(task.id)}) was cancelled with the task that ` +
        `submitted it, while it was ${stateOf(task)}`;
      this.stop(task, new TaskCancelledError(message), force, true);
    }
  }

  /**
   * The node that submitted a task is gone, or takes this one to be: the task may run elsewhere by now, with all that it
   * submits. What it has done to actors is done, and is answered there; what it was about to do to them is dropped.
   */
  abandon(task: TaskRecord, error: RaydError): void {
    if (task.finished) return;
    if (task instanceof CallRecord) {
      if (task.state !== "delegated") return;
      this.#node.cluster!.forget(task);
      task.answers = undefined; // this is none that another run is to get
      return this.#node.results.fail(task, error);
    }
    const isolate = this.#node.isolates.byNumber.get(task.isolate);
    const { execution } = task;
    const asker = isolate?.client;
    task.abandoned = true;
    this.stop(task, error, false, false);
    // It must not go on beside another run of it, which may begin here at once, and makes the same calls.
    if (isolate?.executions.get(execution) === task) this.#node.isolates.end(isolate, false);
    for (const child of [...this.#node.tasks.values()]) {
      if (child.parent !== task.id) continue;
      // Another run of this task, on another node, may have asked for the same.
      const wanted = asker === undefined
        ? this.#node.clients.get(child.client)?.role === "peer"
        : !this.#node.submissions.givenUp(asker, child);
      if (!wanted) this.abandon(child, error);
    }
  }

  /**
   * The program that submitted a task is gone: the task is stopped. To stop a call that runs might take its isolate, and
   * with that an actor which is not the program's alone, and its state: the call is told, and goes on if it likes.
   */
  orphan(task: TaskRecord): void {
    if (task instanceof CallRecord) {
      // Whoever has the actor sees to it; the answer comes in any case.
      if (task.remote >= 0) {
        task.orphaned = true;
        return this.#node.cluster!.orphan(task);
      }
      if (task.outlivesProgram) return this.#node.actors.teller.abort(task);
    }
    const message = `The program that submitted task ${hex(task.id)} ended`;
    // What a call has submitted is known where it ran.
    this.stop(task, new TaskCancelledError(message), true, task instanceof CallRecord);
  }

  /**
   * Ends a task with an error, in any state. If it runs, it is told so; with `force`, its isolate is ended when it has
   * not stopped within the grace.
   */
  stop(task: TaskRecord, error: RaydError, force: boolean, recursive: boolean): void {
    const now = this.#node.now();
    const isolate = this.#node.isolates.byNumber.get(task.isolate);
    const { execution } = task;
    this.#node.executions.dependencies.remove(task);
    if (task.state === "delegated" || task.remote >= 0) {
      this.#node.cluster!.forget(task);
      this.#node.results.fail(task, error);
      this.#node.cluster!.cancel(task, force, recursive);
      if (recursive) this.#stopChildren(task.id, force);
      return;
    }
    if (task instanceof CallRecord) {
      this.#node.results.fail(task, error);
      if (recursive) this.#stopChildren(task.id, force);
      return this.#node.actors.stopped(task, error.message, force);
    }
    this.#node.executions.step({ type: "removed", task, now });
    this.#node.results.fail(task, error);
    if (recursive) this.#stopChildren(task.id, force);
    if (isolate === undefined || execution < 0) return;
    if (recursive) isolate.cancelled.add(task.id);
    if (this.#node.executions.revoke(task)) {
      return this.#node.executions.step({ type: "done", task, retry: false, now });
    }
    if (isolate.client !== undefined) {
      this.#node.send(isolate.client, { type: "abort", handle: execution, reason: error.message });
    }
    if (!force) return;
    this.#node.clock.after(STOP_GRACE_MS, () => {
      if (
        isolate.executions.get(execution) !== task ||
        this.#node.isolates.byNumber.get(isolate.number) !== isolate
      ) {
        return;
      }
      this.#node.isolates.end(isolate, false);
      this.#node.flush();
    });
  }
}

/** Where a task is, in words. */
export function stateOf(task: TaskRecord): string {
  switch (task.state) {
    case "new":
      return "waiting for its arguments";
    case "queued":
      return "queued";
    case "sent":
      return "running";
    case "suspended":
      return "waiting for other tasks";
    case "delegated":
      return "with another node";
    case "ended":
      return "ending";
    default:
      unreachable(task.state);
  }
}
