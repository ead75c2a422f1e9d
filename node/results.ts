/**
 * Results: the outcomes of a task are sealed in the object directory, told to whoever submitted it and whoever else asked,
 * and whatever waited for them goes on. The first outcome of an object wins; every later one is dropped.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import type { RaydError } from "../core/errors.ts";
import { type ObjectId, returnId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { CallRecord } from "./actor_records.ts";
import type { ObjectRecord } from "./directory.ts";
import { lost, packError, refersTo } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import { TaskRecord } from "./tasks.ts";

/** Settles what tasks return. */
export class Results {
  readonly #node: NodeParts;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /** A task has its outcomes: they are sealed, told to whoever wants them, and the task is forgotten. */
  finish(task: TaskRecord, outcomes: readonly Outcome[]): void {
    this.#node.tasks.delete(task.id);
    task.finished = true;
    task.cancelTimeout?.();
    task.last = undefined;
    if (outcomes[0]?.kind === "error") this.#node.failed++;
    else this.#node.done++;
    const { returns } = task.entry.settings;
    assert(outcomes.length >= returns, "a task ends with fewer outcomes than it returns");
    const kept = this.#node.cluster !== undefined && !this.#node.faults.has("forget-lineage");
    if (kept && task.puts !== undefined) this.#node.rebuilder.rememberPuts(task);
    this.#node.actors.answers.leaves(task);
    if (task.foreign) this.#bequeath(task);
    for (let i = 0; i < returns; i++) this.settle(task, i, outcomes[i]!);
    if (task.followers !== undefined) {
      for (const follower of task.followers) {
        this.#node.executions.step({ type: "unchain", task: follower, now: this.#node.now() });
      }
    }
    // Before its arguments are let go of: how they were made is known only as long as they, or something made of them, are.
    if (kept && !(task instanceof CallRecord)) {
      this.#node.rebuilder.remember(task, outcomes);
      if (task.rebuild) this.#node.rebuilder.ended(task, outcomes);
    }
    // What is remembered may be run again, and is to get the same answers then.
    this.#node.actors.answers.finished(task);
    if (!task.argumentsKept) this.#node.submissions.unuse(task);
    if (task.state === "delegated" && task instanceof CallRecord) {
      this.#node.cluster!.actors.letActorGo(task);
    }
  }

  /** Whoever gave a task to this node sees from now on to the answers of its calls. */
  #bequeath(task: TaskRecord): void {
    const client = this.#node.clients.get(task.client);
    // It was given away, taken back, and is this node's own: nobody else sees to its calls.
    if (client !== undefined && client.role !== "peer") return;
    const { answers } = this.#node.actors;
    const calls = answers.bequeath(task);
    task.bequeathed = undefined;
    // What it has submitted still runs, and nobody would be told what that has called.
    if (client === undefined || task.children > 0) answers.abandon(task.id);
    if (client !== undefined && calls.length > 0) {
      this.#node.send(client, { type: "bequeath", handle: task.handle, calls });
    }
  }

  /** A task ends with one outcome for all that it returns. */
  finishWith(task: TaskRecord, outcome: Outcome): void {
    this.finish(task, Array.from({ length: task.entry.settings.returns }, () => outcome));
  }

  /** A task ends with an error. */
  fail(task: TaskRecord, error: RaydError): void {
    this.finishWith(task, { kind: "error", bytes: packError(error) });
  }

  /** An outcome of a task is there: its submitter is told, and it is kept if anybody else may need it. */
  settle(task: TaskRecord, index: number, outcome: Outcome): void {
    const client = this.#node.clients.get(task.client);
    let known = task.results?.[index];
    if (client?.role === "peer") this.#node.cluster!.beforeResult(client);
    if (task.answers !== undefined) {
      task.answers[index] = outcome;
      if (refersTo(outcome)) this.#node.directory.use(returnId(task.id, index));
    }
    if (task.rebuild && known === undefined) {
      known = this.#node.directory.get(returnId(task.id, index));
      // This one of its results was not lost.
      if (known?.outcome !== undefined) return this.#dropResult(task, index, outcome);
    }
    if (task.abandoned) return this.#forsake(task, index, outcome);
    // Somebody may look for it who had heard of it from an earlier run.
    const found = known === undefined && task.parent !== task.job &&
      this.#node.directory.get(returnId(task.id, index)) !== undefined;
    if (known === undefined && !found && !refersTo(outcome)) {
      if (client !== undefined) {
        this.#node.send(client, { type: "result", handle: task.handle, index, kept: false, outcome });
      }
      return this.#tellOthers(task, index, false, outcome);
    }
    const record = known ?? this.#node.directory.declare(returnId(task.id, index), task.client);
    // What another node had, and a task has made here, is this node's own from now on.
    if (record.foreign && outcome.kind !== "error" && task.remote < 0) {
      this.#node.cluster?.settledHere(record);
    }
    if (!this.#node.directory.seal(record, outcome)) {
      // The first one wins, and whoever waits for this one gets that.
      this.#dropResult(task, index, outcome);
      if (client !== undefined) {
        this.#node.send(client, {
          type: "result",
          handle: task.handle,
          index,
          kept: true,
          outcome: record.outcome!,
        });
      }
      return this.#tellOthers(task, index, true, record.outcome!);
    }
    if (task.remote >= 0) this.#node.cluster!.settled(task, record, outcome);
    if (client !== undefined) {
      this.#node.send(client, { type: "result", handle: task.handle, index, kept: true, outcome });
    } else if (known === undefined || !task.rebuild) this.#node.directory.disown(record);
    this.#tellOthers(task, index, true, outcome);
    this.announce(record);
  }

  /** An abandoned task makes nothing: whoever waits for it here has it from where it runs again, as if it had been there. */
  #forsake(task: TaskRecord, index: number, outcome: Outcome): void {
    const { clients, cluster, directory, executions } = this.#node;
    const client = clients.get(task.client);
    if (client !== undefined) {
      this.#node.send(client, { type: "result", handle: task.handle, index, kept: false, outcome });
    }
    const record = directory.get(returnId(task.id, index));
    if (record === undefined || record.outcome !== undefined) return;
    record.foreign = true;
    directory.sealed(record);
    if (directory.get(record.id) !== record) return;
    const waits = executions.dependencies.waitingFor(record.id).length > 0;
    if (waits || (record.subscribers?.length ?? 0) > 0) cluster?.want(record);
  }

  /** Tells an outcome to all but the first who want a task. */
  #tellOthers(task: TaskRecord, index: number, kept: boolean, outcome: Outcome): void {
    if (task.others === undefined) return;
    for (const { client: id, handle, holds } of task.others) {
      const client = this.#node.clients.get(id);
      if (client === undefined) continue;
      if (client.role === "peer") this.#node.cluster!.beforeResult(client);
      if (kept && !holds.has(index)) this.#node.directory.retain(id, [returnId(task.id, index)]);
      this.#node.send(client, { type: "result", handle, index, kept, outcome });
    }
  }

  #dropResult(task: TaskRecord, index: number, outcome: Outcome): void {
    if (task.remote >= 0) this.#node.cluster!.dropped(task, index, outcome);
    else this.drop(returnId(task.id, index), outcome);
  }

  /** Tells subscribers and waiting tasks that an object exists. */
  announce(record: ObjectRecord): void {
    const outcome = record.outcome!;
    if (outcome.kind === "stored") this.#node.objects.stored(outcome.size);
    if (record.subscribers !== undefined) {
      for (const id of record.subscribers) {
        const client = this.#node.clients.get(id);
        if (client !== undefined) this.#node.send(client, { type: "object", object: record.id, outcome });
      }
      record.subscribers = undefined;
    }
    const remade = this.#node.objects.remade.get(record.id);
    if (remade !== undefined) {
      this.#node.objects.remade.delete(record.id);
      for (const resolve of remade) resolve();
    }
    const ready = this.#node.executions.dependencies.arrived(record.id);
    for (let i = ready.length - 1; i >= 0; i--) this.#node.executions.arrived.push(ready[i]!);
    const { asked } = record;
    record.asked = false;
    this.#node.directory.sealed(record);
    if (asked) this.#node.directory.unuse(record.id);
    this.#node.executions.work();
  }

  /** All that a task waited for is there, or has failed. */
  dependenciesArrived(task: TaskRecord): void {
    if (task.finished) return;
    let failure: Outcome | undefined;
    for (const object of task.dependencies) {
      const outcome = this.#node.directory.get(object)?.outcome ?? lost(object);
      if (outcome.kind === "error") failure ??= outcome;
    }
    if (task instanceof CallRecord) return this.#node.actors.argumentsArrived(task, failure);
    if (failure !== undefined) return this.finishWith(task, failure);
    this.#node.submissions.ready(task);
  }

  /** An outcome that nobody will see: what it put into the store goes. */
  drop(id: ObjectId, outcome: Outcome): void {
    if (outcome.kind === "stored" && this.#node.directory.get(id)?.outcome?.kind !== "stored") {
      this.#node.store.delete(id);
    }
  }
}
