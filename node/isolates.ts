/**
 * Isolates of a node: starting them, and what follows when one ends. A node on which isolates do not start fails every
 * task, early and late, rather than let anybody wait.
 *
 * @module
 */

import { WorkerCrashedError } from "../core/errors.ts";
import { CLAIM_SLOTS, ISOLATE_START_MS_MAX } from "../core/limits.ts";
import { CLAIM_STARTED, claimWord } from "../core/messages.ts";
import { IdleIsolates } from "./idle_isolates.ts";
import type { NodeParts } from "./parts.ts";
import type { Isolate, Residents } from "./peers.ts";
import { TaskRecord } from "./tasks.ts";

const FAILED_STARTS_MAX = 5;

/** Starts and ends isolates. */
export class Isolates {
  readonly #node: NodeParts;
  /** Those that run, or are starting. */
  readonly byNumber = new Map<number, Isolate>();
  readonly #idle: IdleIsolates;
  #nextNumber = 1;
  /** Isolates in a row that did not start. */
  failedStarts = 0;
  /** Why no task can ever run here. */
  broken: string | undefined;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
    this.#idle = new IdleIsolates(node.options.isolatesWarm);
  }

  /** Those that have had nothing to do for a while end. */
  look(): void {
    const now = this.#node.now();
    if (this.#programsRun()) this.#idle.programRuns(now);
    const candidates = [...this.byNumber.values()].map((isolate) => ({
      number: isolate.number,
      forTasks: isolate.residents === undefined,
      busy: isBusy(isolate),
      given: isolate.nextExecution,
    }));
    for (const number of this.#idle.toEnd(now, candidates)) this.end(this.byNumber.get(number)!, false);
    for (const number of this.#idle.toCollect(now)) {
      const client = this.byNumber.get(number)?.client;
      if (client !== undefined) this.#node.send(client, { type: "collect" });
    }
  }

  /** A program has come, to this node or another one: what is kept ready for its tasks is started, if it had ended. */
  wake(): void {
    const now = this.#node.now();
    this.#idle.programRuns(now);
    this.#startMissing(now);
  }

  #programsRun(): boolean {
    const { programs, options } = this.#node;
    return options.abroad === undefined || programs.any || options.abroad.programsRun();
  }

  #startMissing(now: number): void {
    if (this.broken !== undefined || this.#node.closed) return;
    const there = [...this.byNumber.values()].filter(({ residents }) => residents === undefined).length;
    for (let i = there; i < this.#idle.floor(now); i++) {
      this.#node.executions.scheduler.spawnStarted();
      this.start();
    }
  }

  /** Starts one. @param residents Of an isolate that is to carry actors. */
  start(residents?: Residents): Isolate {
    const number = this.#nextNumber++;
    // It may be gone before it is even known: the first timer of Deno 2.9 lets microtasks run.
    let goneEarly: string | undefined;
    const exited = (reason: string) => {
      const isolate = this.byNumber.get(number);
      if (isolate === undefined) goneEarly = reason;
      if (isolate === undefined || this.#node.closed) return;
      this.#node.options.log("warn", `Isolate ${number} died: ${reason}`);
      this.end(isolate, true, reason);
      this.#node.flush();
    };
    const process = this.#node.options.isolates.start(number, exited);
    const isolate: Isolate = {
      number,
      process,
      client: undefined,
      executions: new Map(),
      cancelled: new Set(),
      freeSlots: Array.from({ length: CLAIM_SLOTS }, (_, i) => i),
      nextExecution: 0,
      residents,
      knownFunctions: new Set(),
      knownSettings: new Set(),
      cancelStart: this.#node.clock.after(ISOLATE_START_MS_MAX, () => {
        this.#node.options.log("error", `Isolate ${number} did not start within ${ISOLATE_START_MS_MAX} ms`);
        this.end(isolate, true);
        this.#node.flush();
      }),
    };
    this.byNumber.set(number, isolate);
    if (goneEarly !== undefined) queueMicrotask(() => exited(goneEarly!));
    return isolate;
  }

  /** An isolate is gone, or is to go. @param charge Whether what it had started counts as failed. */
  end(isolate: Isolate, charge: boolean, reason = "its isolate ended"): void {
    if (!this.byNumber.delete(isolate.number)) return;
    isolate.cancelStart();
    const started = new Set<TaskRecord>();
    for (const [handle, task] of isolate.executions) {
      const { slot } = task;
      const word = slot < CLAIM_SLOTS
        ? Atomics.load(isolate.process.claims, slot)
        : claimWord(handle, CLAIM_STARTED);
      if (word === claimWord(handle, CLAIM_STARTED)) started.add(task);
      task.execution = -1;
    }
    isolate.process.terminate();
    const { client } = isolate;
    if (isolate.residents !== undefined) {
      if (client !== undefined) {
        client.channel.close();
        this.#node.store.releaseClient(client.storeClient);
      }
      return this.#node.actors.isolateGone(isolate, reason, charge);
    }
    if (client === undefined) {
      this.#node.executions.scheduler.spawnFailed();
      if (++this.failedStarts >= FAILED_STARTS_MAX) return this.#giveUp();
    } else {
      client.channel.close();
      this.#node.store.releaseClient(client.storeClient);
    }
    this.#node.executions.step({
      type: "isolateGone",
      isolate: isolate.number,
      started: (task) => started.has(task),
      charge,
      now: this.#node.now(),
    });
    this.#startMissing(this.#node.now());
  }

  /** Isolates do not start here: no task will ever run. Whoever waits is told, and whoever comes. */
  #giveUp(): void {
    this.broken = `${FAILED_STARTS_MAX} isolates in a row did not start on this node`;
    this.#node.options.log("error", `${this.broken}: it fails all tasks`);
    for (const task of [...this.#node.tasks.values()]) if (!task.finished) this.failBroken(task);
  }

  /** A task can never run, since isolates do not start here. */
  failBroken(task: TaskRecord): void {
    const { name } = task.entry.settings;
    this.#node.executions.step({ type: "removed", task, now: this.#node.now() });
    this.#node.executions.dependencies.remove(task);
    this.#node.results.fail(
      task,
      new WorkerCrashedError(`Task ${name} cannot run: ${this.broken}. Its log says why`),
    );
  }
}

/** Whether an isolate runs something, or is starting. */
function isBusy({ client, executions, residents }: Isolate): boolean {
  return client === undefined || executions.size > 0 ||
    residents !== undefined && residents.calls.size + residents.works.size > 0;
}
