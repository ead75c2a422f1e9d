/**
 * The queue of tasks that could start, fair between jobs.
 *
 * Tasks that are alike (same job, shape and priority) share one first-in-first-out line, so that choosing looks at
 * lines rather than at tasks: a million queued tasks of one kind cost one look. Jobs take turns; within a job the
 * higher priority goes first, then the longer wait.
 *
 * A line that has waited longer than `STARVING_MS` without fitting *holds back* every other line that uses what it
 * asks for: else many small tasks could keep a large one waiting for ever. What it lacks may itself wait for a task
 * that is held back, though, or belong to something that never ends. So a hold ends after a while; the line waits as
 * long again without one, and each further wait and hold take twice as long, until one hold was long enough.
 *
 * @module
 */

// @ts-types="./std_deque.d.ts"
import { Deque } from "@std/data-structures/deque";
import type { TaskId } from "../core/ids.ts";
import type { Shape } from "./resources.ts";

/** What the queue needs to know of a task. */
export interface Queueable {
  readonly job: TaskId;
  readonly shape: Shape;
  readonly priority: number;
  /** When it became ready, in milliseconds. */
  readyAt: number;
  /** Still to be run. The queue skips tasks that no longer are. */
  queued: boolean;
}

/** After this long without fitting, a line holds others back, for as long again. */
export const STARVING_MS = 1_000;

/** The longest that a line holds others back at a time. */
export const HOLD_MS_MAX = 64_000;

/** How often starving lines are looked for. */
const LOOK_MS = 50;

interface Line<T> {
  readonly shape: Shape;
  readonly priority: number;
  readonly tasks: Deque<T>;
  /** When a task of it was taken last, or its last hold ended. */
  since: number;
  /** Since when it has held others back; -1 while it does not. */
  holdsSince: number;
  /** How long it waits before it holds others back, and then holds them. */
  patienceMs: number;
}

interface Job<T> {
  readonly id: TaskId;
  /** Highest priority first. */
  readonly lines: Line<T>[];
  live: number;
}

/** Tasks of type `T`, fair between jobs. */
export class FairQueue<T extends Queueable> {
  readonly #jobs: Job<T>[] = [];
  #turn = 0;
  #length = 0;
  /** Lines that hold others back, and the names of the resources that are kept for them. */
  readonly #starving = new Set<Line<T>>();
  readonly #held = new Set<string>();
  #lookedAt = -Infinity;

  /** How many tasks wait. */
  get length(): number {
    return this.#length;
  }

  /** Adds a task. @param front Before the others like it: it has waited already. */
  push(task: T, front = false): void {
    let job = this.#jobs.find((job) => job.id === task.job);
    if (job === undefined) this.#jobs.push(job = { id: task.job, lines: [], live: 0 });
    let line = job.lines.find((line) => line.shape === task.shape && line.priority === task.priority);
    if (line === undefined) {
      line = {
        shape: task.shape,
        priority: task.priority,
        tasks: new Deque(),
        since: -Infinity,
        holdsSince: -1,
        patienceMs: STARVING_MS,
      };
      const at = job.lines.findIndex((other) => other.priority < task.priority);
      job.lines.splice(at < 0 ? job.lines.length : at, 0, line);
    }
    if (front) line.tasks.pushFront(task);
    else line.tasks.pushBack(task);
    task.queued = true;
    job.live++;
    this.#length++;
  }

  /** Takes a task out, wherever it waits. */
  remove(task: T): void {
    if (!task.queued) return;
    task.queued = false; // its place in the line is passed over later
    const job = this.#jobs.find((job) => job.id === task.job)!;
    job.live--;
    this.#length--;
    if (this.#starving.size > 0) this.#lookedAt = -Infinity; // it may have been the one that held others back
    if (job.live === 0) this.#forget(job);
  }

  /**
   * Takes the task whose turn it is among those that fit.
   *
   * @param now The time in milliseconds.
   * @param fits Whether a task of such a shape could start now. Of the calls that it answers with yes, the last one is
   * for the shape of the task returned.
   */
  take(now: number, fits: (shape: Shape) => boolean): T | undefined {
    if (this.#length === 0) return undefined;
    if (now - this.#lookedAt > LOOK_MS || now < this.#lookedAt) this.#lookForStarving(now, fits);
    const jobs = this.#jobs;
    for (let i = 0; i < jobs.length; i++) {
      const job = jobs[(this.#turn + i) % jobs.length]!;
      const line = this.#choose(job, fits);
      if (line === undefined) continue;
      const task = line.tasks.popFront()!;
      task.queued = false;
      job.live--;
      this.#length--;
      line.since = now;
      line.patienceMs = STARVING_MS;
      if (line.holdsSince >= 0) {
        line.holdsSince = -1;
        this.#lookedAt = -Infinity;
      }
      if (job.live === 0) this.#forget(job);
      else this.#turn = (this.#turn + i + 1) % jobs.length;
      return task;
    }
    return undefined;
  }

  /** When the task that has waited longest became ready. */
  oldest(): number | undefined {
    let oldest: number | undefined;
    for (const job of this.#jobs) {
      for (let l = 0; l < job.lines.length; l++) {
        const head = this.#head(job, job.lines[l]!);
        if (head === undefined) l--;
        else if (oldest === undefined || head.readyAt < oldest) oldest = head.readyAt;
      }
    }
    return oldest;
  }

  /**
   * Takes the task that would have its turn last: of the job that has most waiting, the lowest priority, the end of the
   * longest line.
   *
   * @param accept Asked of the last task of each line until it says yes.
   */
  takeYoungest(accept: (task: T) => boolean): T | undefined {
    const jobs = this.#jobs.length === 1 ? this.#jobs : [...this.#jobs].sort((a, b) => b.live - a.live);
    for (const job of jobs) {
      const lines = job.lines.length === 1
        ? [...job.lines]
        : [...job.lines].sort((a, b) => a.priority - b.priority || b.tasks.length - a.tasks.length);
      for (const line of lines) {
        const task = this.#last(line);
        if (task === undefined || !accept(task)) continue;
        line.tasks.popBack();
        task.queued = false;
        job.live--;
        this.#length--;
        if (job.live === 0) this.#forget(job);
        return task;
      }
    }
    return undefined;
  }

  /** The last task of a line that is still to be run. */
  #last(line: Line<T>): T | undefined {
    for (;;) {
      const last = line.tasks.peekBack();
      if (last === undefined || last.queued) return last;
      line.tasks.popBack();
    }
  }

  /** Of a job's lines that fit, the one of the highest priority whose head has waited longest. */
  #choose(job: Job<T>, fits: (shape: Shape) => boolean): Line<T> | undefined {
    let best: Line<T> | undefined;
    let bestReadyAt = 0;
    for (let l = 0; l < job.lines.length; l++) {
      const line = job.lines[l]!;
      if (best !== undefined && line.priority < best.priority) break;
      const head = this.#head(job, line);
      if (head === undefined) {
        l--;
        continue;
      }
      if (best !== undefined && head.readyAt >= bestReadyAt) continue;
      if (this.#held.size > 0 && line.holdsSince < 0 && overlaps(line.shape, this.#held)) continue;
      if (!fits(line.shape)) continue;
      best = line;
      bestReadyAt = head.readyAt;
    }
    return best;
  }

  /** What waits, by shape: at most so many, for tasks that were taken out may still have their place in a line. */
  demand(): Map<Shape, number> {
    const counts = new Map<Shape, number>();
    for (const job of this.#jobs) {
      for (const { shape, tasks } of job.lines) {
        counts.set(shape, (counts.get(shape) ?? 0) + Math.min(tasks.length, job.live));
      }
    }
    return counts;
  }

  /** Finds the lines that have waited too long, and what is kept for them: those that wait longest go first. */
  #lookForStarving(now: number, fits: (shape: Shape) => boolean): void {
    this.#lookedAt = now;
    this.#held.clear();
    this.#starving.clear();
    const starving: { line: Line<T>; since: number }[] = [];
    for (const job of this.#jobs) {
      for (let l = 0; l < job.lines.length; l++) {
        const line = job.lines[l]!;
        const head = this.#head(job, line);
        if (head === undefined) {
          l--;
          continue;
        }
        if (line.holdsSince >= 0 && now - line.holdsSince > line.patienceMs) {
          line.since = now;
          line.holdsSince = -1;
          line.patienceMs = Math.min(line.patienceMs * 2, HOLD_MS_MAX);
        }
        const since = Math.max(head.readyAt, line.since);
        // One that holds others back is not let go of when it fits at last: it must get its turn first.
        if (line.holdsSince < 0 && (now - since <= line.patienceMs || fits(line.shape))) continue;
        starving.push({ line, since });
      }
    }
    if (starving.length === 0) return;
    starving.sort((a, b) => a.since - b.since);
    for (const { line } of starving) {
      if (overlaps(line.shape, this.#held)) {
        line.holdsSince = -1;
        continue;
      }
      if (line.holdsSince < 0) line.holdsSince = now;
      this.#starving.add(line);
      for (const name in line.shape.demand) this.#held.add(name);
    }
  }

  /** The first task of a line that is still to be run; drops the line when there is none. */
  #head(job: Job<T>, line: Line<T>): T | undefined {
    for (;;) {
      const head = line.tasks.peekFront();
      if (head === undefined) {
        job.lines.splice(job.lines.indexOf(line), 1);
        return undefined;
      }
      if (head.queued) return head;
      line.tasks.popFront();
    }
  }

  #forget(job: Job<T>): void {
    const at = this.#jobs.indexOf(job);
    this.#jobs.splice(at, 1);
    if (at < this.#turn) this.#turn--;
    if (this.#turn >= this.#jobs.length) this.#turn = 0;
  }
}

function overlaps(shape: Shape, names: ReadonlySet<string>): boolean {
  for (const name in shape.demand) if (names.has(name)) return true;
  return false;
}
