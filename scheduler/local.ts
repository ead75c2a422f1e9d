/**
 * The local scheduler: which task runs on which isolate of this machine, and when.
 *
 * The problem: a task may take 10 us, and a wake-up between two threads takes 30. If the scheduler waited for each
 * task to end before it sent the next one, isolates would idle most of the time. So tasks are sent *ahead*: an
 * isolate that runs tasks of one shape gets a window of them, which it works through on its own. Sending ahead alone
 * would let short tasks wait behind a long one while another isolate idles; so work that was sent but not started
 * can be taken back (`revoke`), and an idle isolate takes half of what the longest line holds. Whether a task has
 * started is decided by an atomic claim outside of this machine, which answers `revoked`.
 *
 * What is accounted: an isolate holds its shape's resources once for each task that it may be running
 * (`min(concurrency, active)`); tasks sent ahead hold nothing yet. A task that waits for objects is *suspended*: it
 * lends its CPUs, and its isolate may start others; it takes them back at once when it resumes, so CPU may be
 * overdrawn for as long as the others run. Nothing is sent while it is; what was sent
 * ahead before may still start.
 *
 * Pure: no clock, no sockets. `step` takes an event and returns what to do, in order.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import type { TaskId } from "../core/ids.ts";
import { WINDOW_TASKS_MAX } from "../core/limits.ts";
import { unreachable } from "../core/unreachable.ts";
import { FairQueue, type Queueable } from "./queue.ts";
import type { ResourcePool, Shape } from "./resources.ts";

/** Where a task is. */
export type TaskState =
  | "new"
  | "queued"
  | "sent"
  | "suspended"
  /** Given to another node. It is that node's until it ends, or until it is made ready here again. */
  | "delegated"
  | "ended";

/** A task, as the scheduler sees it; the fields below `retries` are the scheduler's own. */
export interface SchedulerTask extends Queueable {
  readonly id: TaskId;
  /** The shape that it runs with: while it waits, a choice if it asks for one. */
  shape: Shape;
  /** What it asks for. */
  readonly asked: Shape;
  /** How often it may be run again after a failure. */
  readonly retries: number;
  state: TaskState;
  /** Failures so far that count against `retries`. */
  failures: number;
  /** Times it was sent to an isolate to be run. */
  attempts: number;
  isolate: number;
  gpus: readonly number[];
  /** Suspended with its CPUs lent, though it holds other resources. */
  lent: boolean;
  /** Cleared by `removed`: never to be run again. */
  wanted: boolean;
  /** How long such a task takes, in milliseconds, as far as is known when it is sent. */
  expectedMs(): number;
  /** What `expectedMs` said when it was sent. */
  sentMs: number;
  /** Tasks that were sent before it to the same isolate and whose results it needs, that have not ended. */
  chained: number;
}

/** What happens to a scheduler. Times are in milliseconds. */
export type SchedulerEvent<T> =
  | { readonly type: "ready"; readonly task: T; readonly now: number }
  /**
   * A task that is not ready, but all whose missing arguments are results of `producers` tasks sent to one isolate: it
   * may be sent behind them. It is if its state is "sent" afterwards; otherwise it waits as others do.
   */
  | {
    readonly type: "chain";
    readonly task: T;
    readonly isolate: number;
    readonly producers: number;
    readonly now: number;
  }
  /** One of the tasks that a chained task waits for has ended. */
  | { readonly type: "unchain"; readonly task: T; readonly now: number }
  | { readonly type: "isolateReady"; readonly isolate: number; readonly now: number }
  | {
    readonly type: "isolateGone";
    readonly isolate: number;
    readonly now: number;
    /** Whether a task had been started there. */
    readonly started: (task: T) => boolean;
    /** Whether the started tasks are to blame. They are not when the isolate was ended on purpose. */
    readonly charge: boolean;
  }
  /** A task ended with an answer, or (with `retry`) with an exception that asks for another attempt. */
  | { readonly type: "done"; readonly task: T; readonly retry: boolean; readonly now: number }
  | { readonly type: "suspended"; readonly task: T; readonly now: number }
  | { readonly type: "resumed"; readonly task: T; readonly now: number }
  /** A task is no longer wanted, whatever its state; if it runs, it goes on until `done` or `isolateGone`. */
  | { readonly type: "removed"; readonly task: T; readonly now: number }
  /** The answer to a `revoke`: whether the task had not been started. */
  | {
    readonly type: "revoked";
    readonly task: T;
    readonly isolate: number;
    readonly success: boolean;
    readonly now: number;
  }
  /** Time has passed. */
  | { readonly type: "tick"; readonly now: number };

/** What a scheduler wants done, in order. */
export type SchedulerEffect<T> =
  | { readonly type: "send"; readonly task: T; readonly isolate: number }
  /** Take a task back that was sent ahead; answer with `revoked`. */
  | { readonly type: "revoke"; readonly task: T; readonly isolate: number }
  /** Start one more isolate; answer with `isolateReady` under a number of your choice. */
  | { readonly type: "spawn" }
  /** The task's worker died, or it threw, more often than its retries allow. */
  | { readonly type: "exhausted"; readonly task: T; readonly reason: "crash" | "exception" };

interface Isolate<T> {
  readonly id: number;
  /** The shape of the tasks that it runs now; of the last ones when it is idle. */
  shape: Shape | undefined;
  /** Sent and not ended, without the suspended ones, oldest first. */
  readonly active: T[];
  readonly suspended: Set<T>;
  /** How many times the shape's resources are held. */
  held: number;
  /** Revokes that are on their way. */
  revoking: number;
  /** A revoke has failed: what it was sent has started, so there is no use in trying before it is sent more. */
  barren: boolean;
  /** How long the active tasks are expected to take. */
  loadMs: number;
}

/** How the machine is configured. */
export interface LocalSchedulerOptions {
  /** The most isolates that may exist at once. */
  readonly isolatesMax: number;
}

/** The local scheduler of one node, over tasks of type `T`. */
export class LocalScheduler<T extends SchedulerTask> {
  readonly #pool: ResourcePool;
  readonly #options: LocalSchedulerOptions;
  readonly #queue = new FairQueue<T>();
  readonly #isolates = new Map<number, Isolate<T>>();
  /** The same isolates, to be walked through for each task. */
  #all: readonly Isolate<T>[] = [];
  #spawning = 0;
  /** A task was passed over though its resources are free: there are too few isolates. */
  #lacking = false;
  #effects: SchedulerEffect<T>[] = [];
  /** Where a task of the shape just asked for would go. */
  #target: Isolate<T> | undefined;
  /** And which of the shapes that it may be. */
  #chosen: Shape | undefined;
  readonly #fits = ({ alternatives }: Shape): boolean => {
    for (let i = 0; i < alternatives.length; i++) {
      const target = this.#place(alternatives[i]!);
      if (target === undefined) continue;
      this.#target = target;
      this.#chosen = alternatives[i]!;
      return true;
    }
    return false;
  };

  /** @param pool The machine's resources. @param options Limits. */
  constructor(pool: ResourcePool, options: LocalSchedulerOptions) {
    this.#pool = pool;
    this.#options = options;
  }

  /** How many tasks wait for an isolate. */
  get queued(): number {
    return this.#queue.length;
  }

  /** How many isolates are up. */
  get isolates(): number {
    return this.#isolates.size;
  }

  /** How many tasks were sent and have not ended, suspended ones included; and how many of them may be running. */
  counts(): { sent: number; running: number; suspended: number } {
    let sent = 0, running = 0, suspended = 0;
    for (const isolate of this.#isolates.values()) {
      sent += isolate.active.length;
      running += isolate.held;
      suspended += isolate.suspended.size;
    }
    return { sent: sent + suspended, running, suspended };
  }

  /**
   * How long the tasks that wait have waited at most, in milliseconds. While the first isolate is starting that does not
   * count: it is soon over, and most likely others, who were woken by the same program, are no further.
   *
   * @param now The time.
   */
  waitedMs(now: number): number {
    const since = this.#queue.oldest();
    if (since === undefined) return 0;
    const starts = this.#isolates.size === 0 && this.#spawning > 0 ? STARTING_MS : 0;
    return Math.max(0, now - since - starts);
  }

  /**
   * Gives a waiting task away, to be run by another node.
   *
   * @param accept Whether there is a place for such a task; asked once a line, of its youngest task.
   * @returns The task, which is not this scheduler's any more.
   */
  giveAway(accept: (task: T) => boolean): T | undefined {
    const task = this.#queue.takeYoungest(accept);
    if (task !== undefined) task.state = "delegated";
    return task;
  }

  /** An isolate was started without having been asked for. It counts as on its way. */
  spawnStarted(): void {
    this.#spawning++;
  }

  /** An isolate that was on its way will not come. */
  spawnFailed(): void {
    this.#spawning--;
  }

  /** The tasks of an isolate, running and suspended. */
  tasksOf(isolate: number): readonly T[] {
    const found = this.#isolates.get(isolate);
    return found === undefined ? [] : [...found.active, ...found.suspended];
  }

  /**
   * Takes an event.
   *
   * @param event What has happened.
   * @param effects Where what is to be done is added, in order.
   */
  step(event: SchedulerEvent<T>, effects: SchedulerEffect<T>[] = []): SchedulerEffect<T>[] {
    this.#effects = effects;
    switch (event.type) {
      case "ready":
        assert(
          event.task.state === "new" || event.task.state === "delegated",
          `task made ready in state ${event.task.state}`,
        );
        event.task.readyAt = event.now;
        this.#enqueue(event.task, false);
        break;
      case "chain":
        this.#chain(event.task, event.isolate, event.producers);
        return effects;
      case "unchain":
        event.task.chained = Math.max(0, event.task.chained - 1);
        if (event.task.chained === 0) this.#unbar(event.task);
        return effects;
      case "isolateReady":
        this.#spawning = Math.max(0, this.#spawning - 1);
        this.#isolates.set(event.isolate, {
          id: event.isolate,
          shape: undefined,
          active: [],
          suspended: new Set(),
          held: 0,
          revoking: 0,
          barren: false,
          loadMs: 0,
        });
        this.#all = [...this.#isolates.values()];
        break;
      case "isolateGone":
        this.#isolateGone(event);
        break;
      case "done":
        this.#done(event.task, event.retry);
        break;
      case "suspended":
        this.#suspend(event.task);
        break;
      case "resumed":
        this.#resume(event.task);
        break;
      case "removed":
        event.task.wanted = false;
        if (event.task.state === "queued") {
          this.#queue.remove(event.task);
          event.task.state = "ended";
        }
        break;
      case "revoked":
        this.#revoked(event);
        break;
      case "tick":
        break;
      default:
        unreachable(event);
    }
    this.#dispatch(event.now);
    return effects;
  }

  /** Sends a task behind those that it depends on, where nothing else waits for the place. */
  #chain(task: T, number: number, producers: number): void {
    const isolate = this.#isolates.get(number);
    const { shape } = task;
    if (
      isolate === undefined || isolate.shape !== shape || !shape.pipelined || shape.concurrency > 1 ||
      isolate.active.length === 0 || isolate.active.length >= WINDOW_TASKS_MAX ||
      isolate.loadMs >= AHEAD_MS_MAX ||
      this.#queue.length > 0 || this.#pool.freeCpu(shape.cpuName) < 0
    ) return;
    this.#send(task, isolate);
    task.chained = producers;
  }

  /** A task may be taken back from its isolate, though nothing could be before. */
  #unbar(task: T): void {
    const isolate = this.#isolates.get(task.isolate);
    if (isolate !== undefined) isolate.barren = false;
  }

  #enqueue(task: T, front: boolean): void {
    task.state = "queued";
    task.shape = task.asked;
    task.chained = 0;
    this.#queue.push(task, front);
  }

  /** Sends what can be sent; then lets idle isolates take from long lines; then asks for isolates that are missing. */
  #dispatch(now: number): void {
    this.#lacking = false;
    for (;;) {
      const task = this.#queue.take(now, this.#fits);
      if (task === undefined) break;
      task.shape = this.#chosen!;
      this.#send(task, this.#target!);
    }
    if (this.#lacking) this.#spawn();
    else this.#steal();
  }

  /** The isolate that should run a task of `shape`, or `undefined` when it must wait. */
  #place(shape: Shape): Isolate<T> | undefined {
    const room = this.#pool.fits(shape);
    // While CPU is overdrawn, isolates must run out of work until it no longer is.
    const mayWait = shape.pipelined && this.#pool.freeCpu(shape.cpuName) >= 0;
    let idle: Isolate<T> | undefined;
    let ahead: Isolate<T> | undefined;
    for (let i = 0; i < this.#all.length; i++) {
      const isolate = this.#all[i]!;
      if (isolate.active.length === 0) {
        if (room && (idle === undefined || isolate.suspended.size < idle.suspended.size)) idle = isolate;
      } else if (isolate.shape === shape) {
        if (room && isolate.active.length < shape.concurrency) return isolate;
        if (
          mayWait && isolate.active.length >= shape.concurrency && isolate.active.length < WINDOW_TASKS_MAX &&
          isolate.loadMs < AHEAD_MS_MAX &&
          (ahead === undefined || isolate.active.length < ahead.active.length)
        ) ahead = isolate;
      }
    }
    if (room && idle === undefined) this.#lacking = true;
    return idle ?? ahead;
  }

  #send(task: T, isolate: Isolate<T>): void {
    const shape = task.shape;
    if (isolate.active.length === 0) isolate.shape = shape;
    assert(isolate.shape === shape, `shape ${shape.key} sent to an isolate of shape ${isolate.shape?.key}`);
    isolate.active.push(task);
    isolate.barren = false;
    isolate.loadMs += task.sentMs = task.expectedMs();
    if (isolate.held < Math.min(shape.concurrency, isolate.active.length)) {
      task.gpus = this.#pool.acquire(shape);
      isolate.held++;
    } else task.gpus = NO_GPUS;
    task.state = "sent";
    task.isolate = isolate.id;
    task.attempts++;
    this.#effects.push({ type: "send", task, isolate: isolate.id });
  }

  /** Takes a task out of an isolate's active ones, and gives back what that frees. */
  #leave(task: T, isolate: Isolate<T>): void {
    if (isolate.active[0] === task) isolate.active.shift();
    else {
      const at = isolate.active.indexOf(task);
      assert(at >= 0, "a task left an isolate where it was not active");
      isolate.active.splice(at, 1);
    }
    this.#unload(task, isolate);
    if (isolate.active.length < isolate.held) {
      isolate.held--;
      this.#pool.release(task.shape, task.gpus);
    }
  }

  #unload(task: T, isolate: Isolate<T>): void {
    isolate.loadMs = isolate.active.length === 0 ? 0 : isolate.loadMs - task.sentMs;
  }

  #done(task: T, retry: boolean): void {
    const isolate = this.#isolates.get(task.isolate);
    if (isolate === undefined || (task.state !== "sent" && task.state !== "suspended")) return;
    if (task.state === "suspended") this.#leaveSuspended(task, isolate);
    else this.#leave(task, isolate);
    task.gpus = NO_GPUS;
    if (!retry) task.state = "ended";
    else this.#again(task, "exception");
  }

  #leaveSuspended(task: T, isolate: Isolate<T>): void {
    isolate.suspended.delete(task);
    if (task.lent) this.#pool.release(task.shape, task.gpus, true);
    task.lent = false;
  }

  /** Runs a task once more if its retries allow. */
  #again(task: T, reason: "crash" | "exception"): void {
    if (!task.wanted) task.state = "ended";
    else if (task.failures < task.retries) {
      task.failures++;
      this.#enqueue(task, true);
    } else {
      task.state = "ended";
      this.#effects.push({ type: "exhausted", task, reason });
    }
  }

  #suspend(task: T): void {
    const isolate = this.#isolates.get(task.isolate);
    if (task.state !== "sent" || isolate === undefined) return;
    if (task.shape.rest.length > 0) {
      // Holds its other resources on; such shapes are never sent ahead, so each active task holds one share.
      isolate.active.splice(isolate.active.indexOf(task), 1);
      this.#unload(task, isolate);
      isolate.held--;
      this.#pool.giveCpu(task.shape);
      task.lent = true;
    } else this.#leave(task, isolate);
    isolate.suspended.add(task);
    task.state = "suspended";
  }

  #resume(task: T): void {
    const isolate = this.#isolates.get(task.isolate);
    if (task.state !== "suspended" || isolate === undefined) return;
    isolate.suspended.delete(task);
    task.state = "sent";
    if (isolate.active.length > 0 && isolate.shape !== task.shape) {
      // The isolate has turned to tasks of another shape meanwhile: this one runs beside them on its own account.
      this.#resumeBeside(task, isolate);
      return;
    }
    isolate.shape = task.shape;
    isolate.active.unshift(task);
    isolate.loadMs += task.sentMs;
    if (task.lent || isolate.held < Math.min(task.shape.concurrency, isolate.active.length)) {
      this.#pool.takeCpu(task.shape);
      isolate.held++;
    }
    task.lent = false;
  }

  /** A resumed task of a shape that its isolate no longer has stays apart, its CPUs lent until it ends. */
  #resumeBeside(task: T, isolate: Isolate<T>): void {
    isolate.suspended.add(task);
    task.state = "suspended";
  }

  #isolateGone(event: Extract<SchedulerEvent<T>, { type: "isolateGone" }>): void {
    const isolate = this.#isolates.get(event.isolate);
    if (isolate === undefined) return;
    this.#isolates.delete(event.isolate);
    this.#all = [...this.#isolates.values()];
    const lost = [...isolate.active, ...isolate.suspended];
    for (; isolate.held > 0; isolate.held--) {
      const holder = isolate.active.find((task) => task.gpus.length > 0) ?? isolate.active[0]!;
      this.#pool.release(isolate.shape!, holder.gpus);
      holder.gpus = NO_GPUS;
    }
    for (const task of isolate.suspended) {
      if (task.lent) this.#pool.release(task.shape, task.gpus, true);
      task.lent = false;
    }
    for (const task of lost.reverse()) {
      task.gpus = NO_GPUS;
      const started = task.state === "suspended" || event.started(task);
      if (!started) task.attempts--;
      if (started && event.charge) this.#again(task, "crash");
      else if (task.wanted) this.#enqueue(task, true);
      else task.state = "ended";
    }
  }

  #revoked({ task, isolate: number, success }: Extract<SchedulerEvent<T>, { type: "revoked" }>): void {
    const isolate = this.#isolates.get(number);
    if (isolate === undefined) return;
    isolate.revoking--;
    if (!success) {
      // What was sent before it has started as well; what was sent since may still wait, unless it is chained anyway.
      if (isolate.active.findLast(({ chained }) => chained === 0) === task) isolate.barren = true;
      return;
    }
    if (task.state !== "sent" || task.isolate !== number) return;
    this.#leave(task, isolate);
    task.attempts--;
    if (task.wanted) this.#enqueue(task, true);
    else task.state = "ended";
  }

  /** Lets an idle isolate take half of what waits in the longest line; asks for an isolate if none is idle. */
  #steal(): void {
    let idle = false;
    let longest: Isolate<T> | undefined;
    let most = 0;
    for (let i = 0; i < this.#all.length; i++) {
      const isolate = this.#all[i]!;
      // One line at a time: the last answer brings the next.
      if (isolate.revoking > 0) return;
      if (isolate.active.length === 0) idle = true;
      if (isolate.barren || isolate.shape === undefined || !this.#pool.fits(isolate.shape)) continue;
      const waiting = waitingIn(isolate);
      if (waiting > most) {
        most = waiting;
        longest = isolate;
      }
    }
    if (longest === undefined) return;
    if (!idle) return this.#spawn();
    const waiting = longest.active.filter((task, i) => i >= longest.held && task.chained === 0);
    for (const task of waiting.slice(-Math.ceil(most / 2))) {
      longest.revoking++;
      this.#effects.push({ type: "revoke", task, isolate: longest.id });
    }
  }

  /** Asks for isolates when tasks fit the machine but no isolate can take them. */
  #spawn(): void {
    let wanted = 0;
    for (const [shape, count] of this.#queue.demand()) {
      wanted += Math.ceil(Math.min(count, this.#pool.times(shape)) / shape.concurrency);
    }
    // What was sent ahead for want of another isolate is not in the queue.
    wanted = Math.min(Math.max(wanted, 1), SPAWNING_MAX, this.#options.isolatesMax - this.#isolates.size);
    for (; this.#spawning < wanted; this.#spawning++) this.#effects.push({ type: "spawn" });
  }
}

/** How many tasks wait in an isolate that another one could run: those that are not chained to what runs there. */
function waitingIn<T extends SchedulerTask>({ active, held }: Isolate<T>): number {
  let waiting = 0;
  for (let i = held; i < active.length; i++) if (active[i]!.chained === 0) waiting++;
  return waiting;
}

/** Tasks are sent ahead to an isolate until it has this much to do. */
const AHEAD_MS_MAX = 4;

/** More isolates than this are not started at once: starting one takes a core for some 20 ms. */
const SPAWNING_MAX = 4;

/** An isolate that has not started after so long is not to be waited for. */
const STARTING_MS = 1_000;

const NO_GPUS: readonly number[] = Object.freeze([]);
