/**
 * Taking tasks in: what a program, an isolate or a peer submits becomes a task whose arguments are held, and which waits
 * for those that do not exist yet. A task that comes again, since its submitter was run again, is the same one.
 *
 * @module
 */

import { ProtocolError, TaskCancelledError, UnschedulableError } from "../core/errors.ts";
import { argumentsId, hex, indexOf, type ObjectId, returnId, type TaskId, taskOf } from "../core/ids.ts";
import { ACTOR_EXECUTIONS, type Outcome, type ToNode } from "../core/messages.ts";
import { bundleOf } from "../core/bundles.ts";
import { groupGone } from "../core/groups.ts";
import { showDemand } from "../core/options.ts";
import { showShape } from "../scheduler/resources.ts";
import { mayRunOn, showPlacement } from "../core/placement.ts";
import { CallRecord } from "./actor_records.ts";
import type { ObjectRecord } from "./directory.ts";
import { lost, refersTo } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";
import { type FunctionEntry, type SettingsEntry, type Submitted, TaskRecord } from "./tasks.ts";

/** Takes tasks in. */
export class Submissions {
  readonly #node: NodeParts;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /** What an isolate calls by this number: a task, or a call of an actor. */
  execution(client: Client, handle: number): TaskRecord | undefined {
    return handle >= ACTOR_EXECUTIONS
      ? this.#node.actors.execution(client, handle)
      : client.isolate?.executions.get(handle);
  }

  /** A program or an isolate submits a task. */
  submit(client: Client, message: Extract<ToNode, { type: "submit" }>): void {
    const { fn, entry } = this.#node.definitions.of(client, message);
    const { settings } = entry;
    if (this.ofCancelled(client, message, fn, entry)) return;
    // A driver is never run again, so what it submits is new.
    const parent = client.role === "driver" ? undefined : this.#node.tasks.get(message.parent);
    if (client.role !== "driver" && this.adopt(client, message)) {
      const known = this.#node.tasks.get(message.task);
      if (known !== undefined && parent !== undefined) this.#node.actors.answers.submits(parent, known);
      return;
    }
    // What a durable actor's call submits, it submits again when it is replayed.
    if (parent instanceof CallRecord) this.#node.actors.answers.touch(parent.id);
    const job = parent?.job ?? client.job;
    const task = new TaskRecord(message, job, fn, entry, client.id);
    this.#node.tasks.set(task.id, task);
    if (parent !== undefined) this.#node.actors.answers.submits(parent, task);
    this.#useArguments(task);
    const missing = this.#useDependencies(task);
    if (missing === undefined) return;
    if (this.#node.isolates.broken !== undefined) return this.#node.isolates.failBroken(task);
    const foreign = !this.#node.pool.couldEverFit(entry.shape) ||
      !mayRunOn(settings.placement, this.#node.place);
    if (foreign && this.#node.cluster === undefined) {
      const group = bundleOf(entry.shape.demand)?.group;
      if (group !== undefined) {
        return this.#node.results.fail(task, groupGone(group, `Task ${settings.name}`));
      }
      return this.#node.results.fail(
        task,
        new UnschedulableError(
          `Task ${settings.name} can never run here: it asks for ${showShape(entry.shape)}${
            showPlacement(settings.placement)
          }, and there is ${showDemand(this.#node.pool.total())} in all. Ask for less, or start with more ` +
            `(--cpus, --gpus, --resources)`,
        ),
      );
    }
    this.limitTime(task);
    if (missing.length > 0) {
      if (foreign || settings.placement !== undefined || !this.#node.executions.chain(task, missing)) {
        this.#node.executions.dependencies.hold(task, missing);
      }
    } else this.ready(task);
  }

  /** All that a task depends on is there. */
  ready(task: TaskRecord): void {
    if (this.#node.cluster !== undefined && !task.foreign) return this.#node.cluster.ready(task);
    this.#node.executions.step({ type: "ready", task, now: this.#node.now() });
  }

  /** A peer gives a task to this node. */
  delegated(client: Client, message: Extract<ToNode, { type: "delegate" }>): void {
    const { fn, entry } = this.#node.definitions.of(client, message);
    if (client.role !== "peer") throw new ProtocolError("Cannot delegate: only a node can");
    // What was given away and is asked for in turn is run here: two nodes that had it of each other would wait for ever.
    const known = this.#node.tasks.get(message.task);
    if (known?.state === "delegated" && known.remote >= 0 && this.#node.pool.couldEverFit(known.asked)) {
      this.#node.cluster!.takeBack(known);
    }
    if (this.adopt(client, message)) return;
    if (!this.#node.pool.couldEverFit(entry.shape)) {
      return this.#node.send(client, { type: "turnedAway", handle: message.handle });
    }
    const { dependencies, args } = message;
    for (const { object, outcome } of dependencies) this.#node.cluster!.introduce(client, object, outcome);
    this.#node.cluster!.introduceAll(client, args);
    const submitted = { ...message, dependencies: dependencies.map(({ object }) => object) };
    const task = new TaskRecord(submitted, client.job, fn, entry, client.id);
    task.foreign = true;
    const missing = this.admit(task);
    if (args.kind === "stored") this.#node.cluster!.introduceArguments(client, task.id);
    if (missing === undefined) return;
    if (this.#node.isolates.broken !== undefined) return this.#node.isolates.failBroken(task);
    this.#bringArguments(task);
    if (missing.length > 0) this.#node.executions.dependencies.hold(task, missing);
    else this.#node.executions.step({ type: "ready", task, now: this.#node.now() });
  }

  /** Begins to bring what a task will read here, so that it need not wait for it. */
  #bringArguments(task: TaskRecord): void {
    const bring = (id: ObjectId) => {
      const record = this.#node.directory.get(id);
      if (record?.home === undefined || record.outcome?.kind !== "stored" || this.#node.store.has(id)) return;
      this.#node.directory.use(id);
      this.#node.objects.bring(record).then(() => {
        this.#node.directory.unuse(id);
        this.#node.flush();
      });
    };
    for (const id of task.dependencies) bring(id);
    if (task.args.kind === "stored") bring(argumentsId(task.id));
  }

  /** A task that was cancelled goes on until it notices; what it submits meanwhile is cancelled as well. */
  ofCancelled(client: Client, message: Submitted, fn: FunctionEntry, entry: SettingsEntry): boolean {
    if (client.isolate === undefined || !client.isolate.cancelled.has(message.parent)) return false;
    const task = new TaskRecord(message, client.job, fn, entry, client.id);
    if (this.admit(task) === undefined) return true;
    this.#node.results.fail(
      task,
      new TaskCancelledError(
        `Task ${entry.settings.name} (${hex(task.id)}) was submitted by a task that was cancelled before`,
      ),
    );
    return true;
  }

  /** Starts the time that a task may take. */
  limitTime(task: TaskRecord): void {
    const { timeoutMs } = task.entry.settings;
    if (timeoutMs > 0) {
      task.cancelTimeout = this.#node.clock.after(timeoutMs, () => this.#node.cancellations.timeout(task));
    }
  }

  /** The same task was submitted before: its submitter was run again. The new one gets what the old one would have. */
  adopt(client: Client, message: { readonly task: TaskId; readonly handle: number }): boolean {
    const task = this.#node.tasks.get(message.task);
    if (task === undefined) return false;
    const items = task.answers;
    if (items !== undefined) {
      for (let i = 1; i < items.length; i++) {
        const outcome = items[i];
        if (outcome === undefined || task.results?.[i] !== undefined) continue;
        const kept = refersTo(outcome);
        if (kept) this.#node.directory.retain(client.id, [returnId(task.id, i)]);
        this.#node.send(client, { type: "result", handle: message.handle, index: i, kept, outcome });
      }
    }
    if (task.client !== client.id && !task.entry.settings.stream && this.#node.clients.has(task.client)) {
      (task.others ??= []).push(task.asFurther());
    }
    task.client = client.id;
    task.handle = message.handle;
    for (let i = (task.results?.length ?? 0) - 1; i >= 0; i--) {
      const record = task.results![i];
      if (record === undefined) continue;
      this.#node.directory.retain(client.id, [record.id]);
      if (record.outcome !== undefined) {
        this.#node.send(client, {
          type: "result",
          handle: task.handle,
          index: i,
          kept: true,
          outcome: record.outcome,
        });
      }
    }
    return true;
  }

  /** A peer does not want a task any more, or is gone. @returns Whether it was the last one that did. */
  givenUp(client: Client, task: TaskRecord): boolean {
    task.others = task.others?.filter((other) =>
      other.client !== client.id && this.#node.clients.has(other.client)
    );
    if (task.client !== client.id) return false;
    const next = task.others?.pop();
    if (next === undefined) return true;
    task.client = next.client;
    task.handle = next.handle;
    task.results?.forEach((record, index) => {
      if (record !== undefined && !next.holds.has(index)) {
        this.#node.directory.retain(next.client, [record.id]);
      }
    });
    return false;
  }

  /** Makes the record of what a running task will return: somebody else than its submitter has come to refer to it. */
  pendingResult(id: ObjectId): ObjectRecord | undefined {
    const task = this.#node.tasks.get(taskOf(id));
    const index = indexOf(id);
    if (task === undefined || index >= task.entry.settings.returns || task.results?.[index] !== undefined) {
      return undefined;
    }
    const record = this.#node.directory.add(id, task.client);
    task.results ??= [];
    task.results[index] = record;
    return record;
  }

  /** Takes a task in: what it refers to is held. @returns What is missing of that; `undefined` if it has failed. */
  admit(task: TaskRecord): readonly ObjectId[] | undefined {
    this.#node.tasks.set(task.id, task);
    this.#useArguments(task);
    return this.#useDependencies(task);
  }

  /** Holds what a task's arguments refer to; arguments in the store are an object like any other, to be spilled. */
  #useArguments({ id, args, client }: TaskRecord): void {
    if (args.kind === "inline") { for (const object of args.contains) this.#node.directory.use(object); }
    if (args.kind !== "stored") return;
    const record = this.#node.directory.add(argumentsId(id), client);
    this.#node.directory.disown(record);
    this.#node.directory.seal(record, args);
    this.#node.objects.stored(args.size);
  }

  /** Lets go of what {@link #useArguments} held. */
  #unuseArguments({ id, args }: TaskRecord): void {
    if (args.kind === "inline") {
      for (let i = 0; i < args.contains.length; i++) this.#node.directory.unuse(args.contains[i]!);
    } else if (args.kind === "stored") this.#node.directory.unuse(argumentsId(id));
  }

  /** Nothing will need what the task refers to any more. */
  unuse(task: TaskRecord): void {
    for (let i = 0; i < task.dependencies.length; i++) this.#node.directory.unuse(task.dependencies[i]!);
    this.#unuseArguments(task);
  }

  /**
   * Holds what a task depends on.
   *
   * @returns What does not exist yet; `undefined` if the task has failed because of a dependency.
   */
  #useDependencies(task: TaskRecord): ObjectId[] | undefined {
    const missing: ObjectId[] = [];
    let failure: Outcome | undefined;
    for (const object of task.dependencies) {
      const record = this.#node.directory.get(object);
      if (record === undefined) failure ??= lost(object);
      else if (record.outcome === undefined) {
        missing.push(object);
        this.#node.cluster?.want(record);
      } else if (record.outcome.kind === "error") failure ??= record.outcome;
      this.#node.directory.use(object);
    }
    if (failure === undefined) return missing;
    this.#node.results.finishWith(task, failure);
    return undefined;
  }
}
