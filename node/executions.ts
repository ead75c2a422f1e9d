/**
 * Executions: what the local scheduler decides is performed here, one effect after the other. Tasks are sent to isolates,
 * taken back while they have not started, and their ends are reported to the scheduler.
 *
 * @module
 */

import { OutOfMemoryError, ProtocolError, WorkerCrashedError } from "../core/errors.ts";
import { hex, type ObjectId, returnId, type TaskId, taskOf } from "../core/ids.ts";
import { ARGUMENT_BYTES_MAX, CLAIM_SLOTS } from "../core/limits.ts";
import {
  ACTOR_EXECUTIONS,
  CLAIM_QUEUED,
  CLAIM_REVOKED,
  claimWord,
  type Dependency,
  type ToNode,
} from "../core/messages.ts";
import { unreachable } from "../core/unreachable.ts";
import { Dependencies } from "../scheduler/dependencies.ts";
import { LocalScheduler, type SchedulerEffect, type SchedulerEvent } from "../scheduler/local.ts";
import { CallRecord } from "./actor_records.ts";
import { lost } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import type { Client, Isolate } from "./peers.ts";
import { observeDuration, TaskRecord } from "./tasks.ts";

const EXECUTIONS_MAX = 1 << 29;
const NO_DEPENDENCIES: readonly Dependency[] = Object.freeze([]);

/** Has tasks executed. */
export class Executions {
  readonly #node: NodeParts;
  /** Decides which task runs where and when, on this node. */
  readonly scheduler: LocalScheduler<TaskRecord>;
  /** Which tasks wait for which objects. */
  readonly dependencies = new Dependencies<TaskRecord>();
  /** Tasks whose last dependency has arrived. */
  readonly arrived: TaskRecord[] = [];
  /** What the scheduler wants done, and how far it is. */
  readonly #effects: SchedulerEffect<TaskRecord>[] = [];
  #nextEffect = 0;
  #working = false;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
    this.scheduler = new LocalScheduler(node.pool, { isolatesMax: node.options.isolatesMax });
  }

  /**
   * Sends a task ahead of its arguments, behind the tasks that make them, if all of those were sent to one isolate: a
   * chain of short tasks then costs no round trip a link.
   *
   * @returns Whether it was sent.
   */
  chain(task: TaskRecord, missing: readonly ObjectId[]): boolean {
    let isolate = -1;
    for (const object of missing) {
      const producer = this.#node.tasks.get(taskOf(object));
      if (
        producer?.state !== "sent" || producer.entry.settings.returns > 1 || producer.entry.settings.stream
      ) return false;
      if (isolate >= 0 && producer.isolate !== isolate) return false;
      isolate = producer.isolate;
    }
    this.step({ type: "chain", task, isolate, producers: missing.length, now: this.#node.now() });
    if (task.state === "new") return false;
    for (const object of missing) (this.#node.tasks.get(taskOf(object))!.followers ??= []).push(task);
    return true;
  }

  /** A task was sent: those that wait for nothing but it may follow. */
  #chainFollowers(task: TaskRecord): void {
    for (const waiting of this.dependencies.waitingFor(returnId(task.id, 0))) {
      const missing = waiting.dependencies.filter((object) =>
        this.#node.directory.get(object)?.outcome === undefined
      );
      if (this.chain(waiting, missing)) this.dependencies.remove(waiting);
    }
  }

  /** Lets the scheduler take an event, and performs what it wants; in order, and never one inside of another. */
  step(event: SchedulerEvent<TaskRecord>): void {
    this.scheduler.step(event, this.#effects);
    this.work();
  }

  /** Performs queued effects and starts tasks whose dependencies have arrived: a loop, for chains may be long. */
  work(): void {
    if (this.#working) return;
    this.#working = true;
    try {
      for (;;) {
        const effect = this.#effects[this.#nextEffect++];
        if (effect !== undefined) {
          this.#perform(effect);
          continue;
        }
        this.#effects.length = this.#nextEffect = 0;
        const task = this.arrived.pop();
        if (task === undefined) return;
        this.#node.results.dependenciesArrived(task);
      }
    } finally {
      this.#working = false;
    }
  }

  #perform(effect: SchedulerEffect<TaskRecord>): void {
    switch (effect.type) {
      case "send":
        return this.#execute(effect.task, effect.isolate);
      case "revoke": {
        const { task } = effect;
        const success = this.revoke(task);
        return this.step({ type: "revoked", task, isolate: effect.isolate, success, now: this.#node.now() });
      }
      case "spawn":
        this.#node.isolates.start();
        return;
      case "exhausted": {
        const { task } = effect;
        if (effect.reason === "exception") return this.#node.results.finish(task, task.last!);
        if (task.outOfMemory !== undefined) {
          return this.#node.results.fail(
            task,
            new OutOfMemoryError(
              `Task ${task.entry.settings.name} (${hex(task.id)}) was stopped in ${task.failures + 1} of ` +
                `${
                  task.retries + 1
                } attempts, as ${task.outOfMemory}. Let it use less at once, run fewer beside it ` +
                `(memory: or cpus: in its options), or give the node more (--memory-limit, or a larger machine)`,
            ),
          );
        }
        return this.#node.results.fail(
          task,
          new WorkerCrashedError(
            `Task ${task.entry.settings.name} (${hex(task.id)}) failed: the isolate that ran it died ` +
              `in ${task.failures + 1} of ${
                task.retries + 1
              } attempts. It may have run out of memory or ended ` +
              `itself (Deno.exit, a native crash); raise retries only if a further attempt could go better`,
          ),
        );
      }
      default:
        unreachable(effect);
    }
  }

  #execute(task: TaskRecord, number: number): void {
    const isolate = this.#node.isolates.byNumber.get(number);
    // Between the decision and now, the isolate may have gone or the task may have been stopped.
    if (isolate?.client === undefined || task.isolate !== number || task.state !== "sent") return;
    if (!task.wanted) return this.step({ type: "done", task, retry: false, now: this.#node.now() });
    const { client } = isolate;
    const { fn } = task;
    const entry = this.#node.definitions.chosen(task);
    this.define(isolate, { fn, entry });
    const handle = isolate.nextExecution;
    isolate.nextExecution = (handle + 1) % EXECUTIONS_MAX;
    const slot = isolate.freeSlots.pop() ?? CLAIM_SLOTS; // beyond the table: not to be revoked
    if (slot < CLAIM_SLOTS) Atomics.store(isolate.process.claims, slot, claimWord(handle, CLAIM_QUEUED));
    isolate.executions.set(handle, task);
    client.job = task.job;
    task.execution = handle;
    task.slot = slot;
    this.#node.send(client, {
      type: "execute",
      handle,
      slot,
      attempt: task.attempts,
      concurrency: task.shape.concurrency,
      task: task.id,
      job: task.job,
      fn: fn.index,
      settings: entry.index,
      gpus: task.gpus,
      dependencies: task.dependencies.length === 0 ? NO_DEPENDENCIES : this.argumentsOf(task),
      args: task.args,
    });
    if (task.results !== undefined && this.dependencies.size > 0) this.#chainFollowers(task);
  }

  /** Tells an isolate of a task's function and settings, once. */
  define(isolate: Isolate, { fn, entry }: Pick<TaskRecord, "fn" | "entry">): void {
    const client = isolate.client!;
    if (!isolate.knownFunctions.has(fn.index)) {
      isolate.knownFunctions.add(fn.index);
      this.#node.send(client, { type: "defineFunction", index: fn.index, address: fn.address });
    }
    if (!isolate.knownSettings.has(entry.index)) {
      isolate.knownSettings.add(entry.index);
      this.#node.send(client, { type: "defineSettings", index: entry.index, settings: entry.settings });
    }
  }

  /** What an isolate is told of a task's arguments: what is there, as far as a message should carry it. */
  argumentsOf(task: TaskRecord): Dependency[] {
    let room = ARGUMENT_BYTES_MAX;
    return task.dependencies.map((object) => {
      const record = this.#node.directory.get(object);
      const outcome = record === undefined ? lost(object) : record.outcome;
      if (outcome?.kind === "inline" && (room -= outcome.bytes.length) < 0) {
        return { object, outcome: undefined };
      }
      return { object, outcome };
    });
  }

  /** Takes an execution back unless it has started. */
  revoke(task: TaskRecord): boolean {
    const isolate = this.#node.isolates.byNumber.get(task.isolate);
    if (isolate?.executions.get(task.execution) !== task || task.slot >= CLAIM_SLOTS) return false;
    const queued = claimWord(task.execution, CLAIM_QUEUED);
    const revoked = claimWord(task.execution, CLAIM_REVOKED);
    if (Atomics.compareExchange(isolate.process.claims, task.slot, queued, revoked) !== queued) return false;
    this.#ended(isolate, task);
    return true;
  }

  #ended(isolate: Isolate, task: TaskRecord): void {
    isolate.cancelled.delete(task.id);
    if (isolate.executions.delete(task.execution) && task.slot < CLAIM_SLOTS) {
      isolate.freeSlots.push(task.slot);
    }
    task.execution = -1;
  }

  /** An isolate has ended an execution. */
  done(client: Client, message: Extract<ToNode, { type: "done" }>): void {
    const isolate = client.isolate;
    const task = isolate?.executions.get(message.handle);
    if (isolate === undefined || task === undefined) {
      throw new ProtocolError(`No execution ${message.handle} to end`);
    }
    this.#ended(isolate, task);
    observeDuration(task.fn, message.durationUs / 1000);
    this.#node.meanMs += (message.durationUs / 1000 - this.#node.meanMs) / 16;
    if (message.outcomes.length < task.entry.settings.returns) {
      throw new ProtocolError("An execution ended with too few outcomes");
    }
    const now = this.#node.now();
    if (task.finished) {
      message.outcomes.forEach((outcome, i) => this.#node.results.drop(returnId(task.id, i), outcome));
      return this.step({ type: "done", task, retry: false, now });
    }
    if (message.retry) {
      task.last = message.outcomes;
      return this.step({ type: "done", task, retry: true, now });
    }
    // If its isolate is found gone while they are told, it is not to be run again.
    task.wanted = false;
    // What the outcomes make ready is queued first, so that the isolate gets it with what it is sent next.
    this.#node.results.finish(task, message.outcomes);
    this.step({ type: "done", task, retry: false, now });
  }

  /** A generator has made an item. */
  yielded(client: Client, message: Extract<ToNode, { type: "yielded" }>): void {
    const task = this.#node.submissions.execution(client, message.handle);
    if (task === undefined) {
      if (message.handle >= ACTOR_EXECUTIONS) return; // of an actor that is gone
      throw new ProtocolError(`No execution ${message.handle} to yield`);
    }
    const id = returnId(task.id, message.index);
    if (task.finished || message.index <= task.produced) {
      return this.#node.results.drop(id, message.outcome);
    }
    task.produced = message.index;
    this.#node.results.settle(task, message.index, message.outcome);
  }

  /** The consumer of a stream has taken items: its generator may make more. */
  consumed(id: TaskId, count: number): void {
    const task = this.#node.tasks.get(id);
    if (task === undefined) return;
    task.consumed = Math.max(task.consumed, count);
    if (task.remote >= 0) return this.#node.cluster!.consumed(task);
    const isolate = task instanceof CallRecord
      ? task.actor.isolate
      : this.#node.isolates.byNumber.get(task.isolate);
    const client = isolate?.client;
    if (client !== undefined) this.#node.send(client, { type: "consumed", task: id, count: task.consumed });
  }
}
