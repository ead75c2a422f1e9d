/**
 * Tasks and objects of the simulated cluster.
 *
 * As in a node, a task and an attempt to run it are two things: the node that a task was submitted to has a record of it,
 * and so has the node that it was given to, each with the state that its own scheduler keeps. The {@link TaskSpec} is what
 * both stand for, and where the world writes down what became of it.
 *
 * @module
 */

import type { TaskId } from "../../core/ids.ts";
import type { SchedulerTask, TaskState } from "../../scheduler/local.ts";
import type { Shape } from "../../scheduler/resources.ts";

/** A value that lies in the store of one node. */
export interface SimObject {
  readonly home: number;
  readonly bytes: number;
}

/** A task that is yet to be submitted. */
export interface TaskDraft {
  readonly shape: Shape;
  /** How long it takes by itself, in milliseconds. */
  readonly ms: number;
  /** Which function it calls: nodes keep a mean time for each. 0 unless given. */
  readonly fn?: number;
  /** How often it may be run again when a node dies. 3 unless given, as in rayd. */
  readonly retries?: number;
  /** What it reads before it starts. */
  readonly reads?: SimObject;
  /** Called when the driver knows that it has ended. */
  readonly ended?: () => void;
}

/** How a task ended: `orphaned` when the node went down that it was submitted to. */
export type TaskOutcome = "done" | "exhausted" | "orphaned";

/** A submitted task, and what became of it. */
export class TaskSpec {
  readonly number: number;
  readonly draft: TaskDraft;
  /** The node that it was submitted to. */
  readonly origin: number;
  readonly submittedAt: number;
  /** When an isolate first started it; -1 before. */
  startedAt = -1;
  outcome: TaskOutcome | undefined = undefined;
  /** How often an isolate has started it, and how often one has finished it. */
  starts = 0;
  finishes = 0;
  /** How often a node died that it had been given to. */
  losses = 0;
  /** Attempts that run now, on nodes that live. */
  running = 0;

  constructor(number: number, draft: TaskDraft, origin: number, submittedAt: number) {
    this.number = number;
    this.draft = draft;
    this.origin = origin;
    this.submittedAt = submittedAt;
  }
}

/** What a node knows of a function. */
export interface FunctionMean {
  /** How long a call takes, in milliseconds. */
  meanMs: number;
}

/** A node's record of a task. */
export class Attempt implements SchedulerTask {
  readonly spec: TaskSpec;
  readonly id: TaskId;
  readonly job: TaskId;
  readonly asked: Shape;
  shape: Shape;
  readonly priority = 0;
  readonly retries: number;
  readonly #fn: FunctionMean;
  /** The node that gave it to this one. */
  readonly from: number | undefined;
  /** On its isolate; of the last time that it was sent. */
  execution: Execution | undefined = undefined;

  // The scheduler's own.
  readyAt = 0;
  queued = false;
  state: TaskState = "new";
  failures = 0;
  attempts = 0;
  isolate = -1;
  gpus: readonly number[] = [];
  lent = false;
  wanted = true;
  sentMs = 0;
  chained = 0;

  /** @param spec The task. @param job Whose it is. @param fn What the node knows of its function. */
  constructor(spec: TaskSpec, job: TaskId, fn: FunctionMean, from: number | undefined) {
    this.spec = spec;
    this.id = job; // nothing of the scheduler's looks at it
    this.job = job;
    this.asked = this.shape = spec.draft.shape;
    this.retries = spec.draft.retries ?? RETRIES;
    this.#fn = fn;
    this.from = from;
  }

  expectedMs(): number {
    return this.#fn.meanMs;
  }
}

/** A task on its way to an isolate, or there. */
export interface Execution {
  readonly attempt: Attempt;
  readonly isolate: number;
  /** It has started: it can no longer be taken back. */
  claimed: boolean;
  revoked: boolean;
  /** The GPUs that it has. */
  readonly gpus: readonly number[];
}

const RETRIES = 3;
