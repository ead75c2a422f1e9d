/**
 * What a node keeps of actors and of their calls.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import { ACTOR_LOG_CALL_BYTES } from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import type { Shape } from "../scheduler/resources.ts";
import { ActorEntry, type CallPhase, type TableCall } from "./actors.ts";
import type { Journal } from "./actor_journal.ts";
import type { Isolate } from "./peers.ts";
import { type FunctionEntry, type SettingsEntry, type Submitted, TaskRecord } from "./tasks.ts";

/** A call of an actor, or the creation of one: a task that goes to its actor rather than to the scheduler. */
export class CallRecord extends TaskRecord implements TableCall {
  /** Its actor; of an actor that is elsewhere, what stands for it. */
  actor: NodeActor;
  readonly caller: TaskId;
  readonly logBytes: number;
  readonly label: string;
  phase: CallPhase = "new";
  ready = false;
  answered = false;
  applied = false;
  /** Times it was sent. */
  sends = 0;
  /** Its place among all calls of its actor, if those are kept in the control store. */
  position = -1;
  /** It was sent by a node that is gone, and may have been answered. */
  restored = false;
  /** Its program is gone, and whoever has the actor was told. */
  orphaned = false;
  /** It will never be run again here, once its answer is told. */
  forgotten = false;
  /** How many nodes will say when its answer need not be kept for them any more; of those that have not said so already. */
  keepers = 1;
  /** Its answer is forgotten where the actor is once it is here. */
  forgetDone = false;
  /** It is on its way to another node, and its actor does not end there before it: the directory counts it as a use. */
  holdsActor = false;
  /** What it waits for, all of it, while it waits. */
  waitsFor: readonly ObjectId[] | undefined = undefined;

  /** As a task's, with the actor. */
  constructor(
    message: Submitted,
    job: TaskId,
    fn: FunctionEntry,
    entry: SettingsEntry,
    client: number,
    actor: NodeActor,
  ) {
    super(message, job, fn, entry, client);
    this.actor = actor;
    this.caller = message.parent;
    this.label = entry.settings.name;
    const { args } = message;
    this.logBytes = ACTOR_LOG_CALL_BYTES + (args.kind === "inline" ? args.bytes.length : 0);
  }

  /** Whether it makes an actor that outlives its program, or runs in one. */
  get outlivesProgram(): boolean {
    const { creation, settings, job } = this.actor;
    if (creation === this) return settings.detached;
    return this.phase === "sent" && (settings.detached || job !== this.job);
  }
}

/** One actor of this node. */
export class NodeActor extends ActorEntry<CallRecord> {
  readonly id: TaskId;
  readonly job: TaskId;
  /** Its creator may have run before, and made it, on a node that is gone. */
  mayBeElsewhere = false;
  /** Of one that is to survive its node. */
  journal: Journal | undefined = undefined;
  readonly asked: Shape;
  /** The one of the shapes that it asked for that it has, or waits for. */
  shape: Shape;
  /** The task that constructs it: set right after it was made. */
  creation!: CallRecord;
  /** Its isolate, and what both call the instance there. */
  isolate: Isolate | undefined = undefined;
  instance = -1;
  attempts = 0;
  /** Since when it waits for that, in milliseconds; while it does. */
  waitsSince = 0;
  /** It waits to be another node's, and is not begun with here. */
  heldBack = false;
  /** It holds what its shape demands, with these GPUs. */
  acquired = false;
  gpus: readonly number[] = [];
  /** Its CPUs are lent while its call waits. */
  lent = false;
  /** Its newest checkpoint, those under way in order, and how many were begun. */
  checkpoint: ObjectId | undefined = undefined;
  saving: ObjectId[] = [];
  checkpoints = 0;
  /** Answers that are told once a checkpoint is in the control store (`node/actor_journal.ts`). */
  readonly withheld = new Map<TaskId, { readonly call: CallRecord; readonly outcomes: readonly Outcome[] }>();
  /** It was told once that it cannot be saved. */
  unsavable = false;
  /** Its last lines of output. */
  readonly output: string[] = [];
  /** Who wants to know of its death. */
  readonly watchers: { readonly client: number; readonly request: number }[] = [];
  /** Actors that it dies with. */
  readonly linked = new Set<NodeActor>();
  /** What its constructor threw. */
  failure: unknown = undefined;
  /** Begins with the one that was made under the same id while this one stops: told when this one is dead. */
  successor: (() => void) | undefined = undefined;

  /** @param id Its id. @param job Its job. @param settings What was asked for. @param shape Its demand. */
  constructor(id: TaskId, job: TaskId, settings: ActorSettings, shape: Shape) {
    super(settings);
    this.id = id;
    this.job = job;
    this.asked = this.shape = shape;
  }

  /** As {@link unansweredCalls}, when the actor ends here: what was done and not told is as if it had not been done. */
  untoldCalls(): CallRecord[] {
    const withheld = Array.from(this.withheld.values(), ({ call }) => call);
    for (const call of withheld) call.answered = call.applied = call.forgotten = false;
    this.withheld.clear();
    return [...new Set([...withheld, ...this.unansweredCalls()])];
  }

  /** Calls whose callers wait, in the order in which they are to run. */
  unansweredCalls(): Set<CallRecord> {
    const calls = new Set<CallRecord>();
    const add = (call: CallRecord | undefined) => {
      if (call !== undefined && !call.answered && !call.finished) calls.add(call);
    };
    for (const call of this.log) add(call);
    for (const call of this.sent) add(call);
    for (const call of this.queue) add(call);
    for (const line of this.held.values()) for (const call of line) add(call);
    return calls;
  }
}

/** Whether an actor takes one call after the other. */
export function sequential({ settings }: NodeActor): boolean {
  return settings.concurrency === 1 && Object.keys(settings.groups).length === 0;
}

/** Whether an actor is to survive its node. One that is linked dies with another that is on the same node. */
export function isLasting({ settings }: NodeActor): boolean {
  return settings.durable && !settings.linked;
}

/** What runs in a sequential actor. */
export function currentCall(actor: NodeActor): CallRecord | undefined {
  return actor.sent.values().next().value;
}
