/**
 * A program of the simulated cluster: it submits tasks to its node, in turns of its event loop.
 *
 * One with a window keeps so many tasks under way, as a program does that waits for results before it goes on; one with a
 * rate submits at random moments, whatever has ended.
 *
 * @module
 */

import type { Costs } from "./costs.ts";
import type { TaskDraft } from "./task.ts";
import type { Timeline } from "./timeline.ts";

/** When a driver submits. */
export type Pace =
  | { readonly kind: "window"; readonly tasks: number }
  | { readonly kind: "rate"; readonly perSecond: number };

/** What a driver needs. */
export interface DriverOptions {
  readonly timeline: Timeline;
  readonly costs: Costs;
  readonly random: () => number;
  readonly pace: Pace;
  /** The next task; `undefined` when there is none left. */
  readonly next: () => TaskDraft | undefined;
  /** Submits tasks, which its node has after `ms`. */
  readonly submit: (drafts: readonly TaskDraft[], ms: number) => void;
}

/** Tasks submitted in one turn at most: what makes a frame. */
const TURN_TASKS_MAX = 100;

/** A program. */
export class Driver {
  readonly #options: DriverOptions;
  #outstanding = 0;
  #busyUntil = 0;
  #planned = false;
  /** It has no more tasks. */
  exhausted = false;

  constructor(options: DriverOptions) {
    this.#options = options;
  }

  /** Begins to submit. */
  start(): void {
    if (this.#options.pace.kind === "window") this.#plan();
    else this.#planArrival(this.#options.pace.perSecond);
  }

  /** So many of its tasks have ended. */
  ended(count: number): void {
    this.#outstanding -= count;
    if (this.#options.pace.kind === "window") this.#plan();
  }

  #plan(): void {
    if (this.#planned || this.exhausted) return;
    this.#planned = true;
    this.#options.timeline.at(this.#busyUntil, () => {
      this.#planned = false;
      const { pace } = this.#options;
      const room = pace.kind === "window" ? pace.tasks - this.#outstanding : 0;
      this.#submit(Math.min(room, TURN_TASKS_MAX));
      if (room > TURN_TASKS_MAX) this.#plan();
    });
  }

  #planArrival(perSecond: number): void {
    const { timeline, random } = this.#options;
    timeline.after(-Math.log(1 - random()) * 1000 / perSecond, () => {
      this.#submit(1);
      if (!this.exhausted) this.#planArrival(perSecond);
    });
  }

  #submit(most: number): void {
    const { timeline, costs, next, submit } = this.#options;
    const drafts: TaskDraft[] = [];
    while (drafts.length < most) {
      const draft = next();
      if (draft === undefined) {
        this.exhausted = true;
        break;
      }
      drafts.push(draft);
    }
    if (drafts.length === 0) return;
    this.#outstanding += drafts.length;
    this.#busyUntil = Math.max(timeline.now, this.#busyUntil) + drafts.length * costs.driverUs / 1000;
    submit(drafts, this.#busyUntil - timeline.now);
  }
}
