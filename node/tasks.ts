/**
 * What a node keeps of tasks, functions and settings.
 *
 * @module
 */

import type { ObjectId, TaskId } from "../core/ids.ts";
import type { FunctionAddress, Outcome, ToNode } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import type { SchedulerTask, TaskState } from "../scheduler/local.ts";
import type { Shape } from "../scheduler/resources.ts";
import type { ObjectRecord } from "./directory.ts";

/** A function that some client defined. */
export interface FunctionEntry {
  readonly index: number;
  readonly address: FunctionAddress;
  /** How long a call takes, in milliseconds: an average that forgets. */
  meanMs: number;
}

/** Settings that some client defined. */
export interface SettingsEntry {
  readonly index: number;
  readonly settings: TaskSettings;
  readonly shape: Shape;
}

/** What a function is taken to need before it was ever measured. */
const MEAN_MS_UNKNOWN = 0.5;

/** Makes a function's entry. */
export function functionEntry(index: number, address: FunctionAddress): FunctionEntry {
  return { index, address, meanMs: MEAN_MS_UNKNOWN };
}

/** Takes a measured run into a function's average. */
export function observeDuration(fn: FunctionEntry, durationMs: number): void {
  fn.meanMs += (durationMs - fn.meanMs) / 8;
}

/** What every kind of submission has. */
export type Submitted = Pick<
  Extract<ToNode, { type: "submit" }>,
  "handle" | "task" | "parent" | "dependencies" | "args"
>;

/** A client that is told of a task's results, beside the one that is told first. */
export interface FurtherClient {
  readonly client: number;
  /** What it calls the task. */
  readonly handle: number;
  /** The results, by index, of which it is a holder already. */
  readonly holds: ReadonlySet<number>;
}

/** A task from its submission to its end. */
export class TaskRecord implements SchedulerTask {
  readonly id: TaskId;
  readonly job: TaskId;
  readonly parent: TaskId;
  readonly fn: FunctionEntry;
  readonly entry: SettingsEntry;
  /** What it asks for, and, of several alternatives, what it runs with. */
  readonly asked: Shape;
  shape: Shape;
  readonly priority: number;
  readonly retries: number;
  readonly dependencies: readonly ObjectId[];
  readonly args: Outcome;
  /** The client that is told of results, and what it calls the task. Another one when its submitter was run again. */
  client: number;
  handle: number;
  /** Further clients that are told: its submitter runs on several nodes, which had lost each other, or its first node. */
  others: FurtherClient[] | undefined = undefined;
  /** Records of what it returns, by index: of those that anybody but its submitter refers to. */
  results: (ObjectRecord | undefined)[] | undefined = undefined;
  /** Its outcomes are sealed; whatever still runs of it is nobody's. */
  finished = false;
  /** The execution under way, as its isolate knows it; -1 while there is none. */
  execution = -1;
  /** Its place in the isolate's claim table. */
  slot = -1;
  /** Items that a generator has yielded so far, and how many its consumer has taken. */
  produced = 0;
  consumed = 0;
  /** Tasks that were chained to this one. */
  followers: TaskRecord[] | undefined = undefined;
  /** The outcomes of the last attempt, kept for the case that there is no further one. */
  last: readonly Outcome[] | undefined = undefined;
  /** Its arguments are needed beyond its end: it may be run once more to rebuild an actor. */
  argumentsKept = false;
  /** What was answered, by index, where its submitter may be run again and must get the same. */
  answers: Outcome[] | undefined = undefined;
  /** Why its last attempt was stopped, if that was for want of memory. */
  outOfMemory: string | undefined = undefined;
  /** Calls of actors that it has made on the node where it ran (`node/answers.ts`). */
  bequeathed: readonly { readonly actor: TaskId; readonly call: TaskId }[] | undefined = undefined;
  /** What it has put on this node, and is there still: in a cluster, of a task whose program is on another one. */
  puts: Set<ObjectId> | undefined = undefined;
  /** The peer that it was given to, by its client's number; -1 while it is this node's. */
  remote = -1;
  /** Outcomes that the peer has told of so far. */
  collected: (Outcome | undefined)[] | undefined = undefined;
  /** It runs again because what it made is gone. */
  rebuild = false;
  /** The task that has submitted it here; once that will not run again, whoever submitted that, and so on. */
  submitter: TaskRecord | undefined = undefined;
  /** The same, of those that run. */
  ancestor: TaskRecord | undefined = undefined;
  /** How many tasks have not ended that have it for an ancestor. */
  children = 0;
  /** The node that had submitted it is gone, and runs it again elsewhere: what becomes of it here is none of its outcomes. */
  abandoned = false;
  /** It came from another node, and is not passed on again. */
  foreign = false;
  /** Undoes its timeout. */
  cancelTimeout: (() => void) | undefined = undefined;

  // The scheduler's own.
  readyAt = 0;
  queued = false;
  state: TaskState = "new";
  failures = 0;
  attempts = 0;
  isolate = -1;
  gpus: readonly number[] = NO_GPUS;
  lent = false;
  wanted = true;
  sentMs = 0;
  chained = 0;

  /**
   * @param message What was submitted.
   * @param job Its job. @param fn Its function. @param entry Its settings. @param client Who submitted it.
   */
  constructor(
    message: Submitted,
    job: TaskId,
    fn: FunctionEntry,
    entry: SettingsEntry,
    client: number,
  ) {
    this.id = message.task;
    this.job = job;
    this.parent = message.parent;
    this.fn = fn;
    this.entry = entry;
    this.asked = this.shape = entry.shape;
    this.priority = entry.settings.priority;
    this.retries = entry.settings.retries;
    this.dependencies = message.dependencies;
    this.args = message.args;
    this.client = client;
    this.handle = message.handle;
  }

  /** The client that is told of results so far, as one beside another that is told from now on. */
  asFurther(): FurtherClient {
    const holds = new Set<number>();
    this.results?.forEach((record, index) => record !== undefined && holds.add(index));
    return { client: this.client, handle: this.handle, holds };
  }

  /** How long it is expected to take. */
  expectedMs(): number {
    return this.fn.meanMs;
  }
}

const NO_GPUS: readonly number[] = Object.freeze([]);
