/**
 * What a node keeps of actors and of their calls.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import { ACTOR_LOG_CALL_BYTES } from "../core/limits.ts";
import type { Shape } from "../scheduler/resources.ts";
import { ActorEntry, type CallPhase, type TableCall } from "./actors.ts";
import type { Isolate } from "./peers.ts";
import { type FunctionEntry, type SettingsEntry, type Submitted, TaskRecord } from "./tasks.ts";

/** A call of an actor, or the creation of one: a task that goes to its actor rather than to the scheduler. */
export class CallRecord extends TaskRecord implements TableCall {
  readonly actor: NodeActor;
  readonly caller: TaskId;
  readonly logBytes: number;
  readonly label: string;
  phase: CallPhase = "new";
  ready = false;
  answered = false;
  applied = false;
  /** Times it was sent. */
  sends = 0;
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

  /** Whether it is the creation of an actor that outlives its program. */
  get createsDetached(): boolean {
    return this.actor.creation === this && this.actor.settings.detached;
  }
}

/** One actor of this node. */
export class NodeActor extends ActorEntry<CallRecord> {
  readonly id: TaskId;
  readonly job: TaskId;
  readonly asked: Shape;
  /** The one of the shapes that it asked for that it has, or waits for. */
  shape: Shape;
  /** The task that constructs it: set right after it was made. */
  creation!: CallRecord;
  /** Its isolate, and what both call the instance there. */
  isolate: Isolate | undefined = undefined;
  instance = -1;
  attempts = 0;
  /** It holds what its shape demands, with these GPUs. */
  acquired = false;
  gpus: readonly number[] = [];
  /** Its CPUs are lent while its call waits. */
  lent = false;
  /** Its newest checkpoint, those under way in order, and how many were begun. */
  checkpoint: ObjectId | undefined = undefined;
  saving: ObjectId[] = [];
  checkpoints = 0;
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

  /** @param id Its id. @param job Its job. @param settings What was asked for. @param shape Its demand. */
  constructor(id: TaskId, job: TaskId, settings: ActorSettings, shape: Shape) {
    super(settings);
    this.id = id;
    this.job = job;
    this.asked = this.shape = shape;
  }
}
