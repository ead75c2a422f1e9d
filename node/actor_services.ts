/**
 * What a node does for its actors (`node/actor_server.ts`), which know no more of it.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { RaydError } from "../core/errors.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { Dependency, FoundActor, FromNode, Outcome } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import type { Placement } from "../core/placement.ts";
import type { ResourcePool, Shape } from "../scheduler/resources.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { CallRecord } from "./actor_records.ts";
import type { ActorRegistry } from "./actor_registry.ts";
import type { FarCall } from "./answers.ts";
import type { NodeFault } from "./faults.ts";
import type { ObjectDirectory } from "./directory.ts";
import type { Client, Isolate, Residents } from "./peers.ts";
import type { SettingsEntry, TaskRecord } from "./tasks.ts";

/** What the actors need of their node. */
export interface ActorServices {
  readonly faults: ReadonlySet<NodeFault>;
  readonly clock: Clock;
  readonly pool: ResourcePool;
  readonly directory: ObjectDirectory;
  readonly store: ObjectStore;
  readonly tasks: Map<TaskId, TaskRecord>;
  readonly clients: Map<number, Client>;
  /** Whether a program is connected to this node. */
  isLocal(job: TaskId): boolean;
  now(): number;
  /** Whether the node has ended. */
  closed(): boolean;
  flush(): void;
  log(level: "info" | "warn" | "error", message: string): void;
  send(client: Client, message: FromNode): void;
  /** What settings ask for. */
  shape(settings: Pick<TaskSettings, "demand" | "alternatives">): Shape;
  settings(settings: TaskSettings): SettingsEntry;
  /** Takes a task in: its arguments are held. Returns what is missing of them; `undefined` if it has failed. */
  admit(task: TaskRecord): readonly ObjectId[] | undefined;
  /** Has the task told when its arguments exist. */
  awaitArguments(task: TaskRecord, missing: readonly ObjectId[]): void;
  adopt(client: Client, message: { readonly task: TaskId; readonly handle: number }): boolean;
  /** Starts the clock of the task's timeout. */
  limitTime(task: TaskRecord): void;
  /** Tells an isolate of the function and the settings that a task has. */
  define(isolate: Isolate, task: TaskRecord): void;
  argumentsOf(task: TaskRecord): Dependency[];
  finish(task: TaskRecord, outcomes: readonly Outcome[]): void;
  fail(task: TaskRecord, error: RaydError): void;
  failWith(task: TaskRecord, outcome: Outcome): void;
  /** Lets go of a task's arguments. */
  unuse(task: TaskRecord): void;
  drop(id: ObjectId, outcome: Outcome): void;
  startIsolate(residents: Residents): Isolate;
  endIsolate(isolate: Isolate): void;
  /** Whether something with such a placement may be on this node. */
  mayBeHere(placement: Placement | undefined): boolean;
  /** Resources were given back: tasks may start. */
  dispatch(): void;
  /** This node. */
  readonly id: TaskId;
  /** The node that a connection leads to. */
  nodeOf(client: number): TaskId | undefined;
  /** Has an object's bytes in memory. @returns Whether they are. */
  provide(id: ObjectId): Promise<boolean>;
  /** Holds objects for whoever goes on in somebody's place, until they can have said that they want them. */
  holdForHeirs(ids: readonly ObjectId[]): void;
  /** A task that has ended, and is remembered so that it can be run again. */
  remembered(task: TaskId): TaskRecord | undefined;
  /** The answer of a call of another node's actor is to be kept for one node more. */
  kept(call: FarCall): void;
  /** Nobody on this node will ask for the answer of a call of another node's actor again. */
  forgotten(call: FarCall): void;
  /** An actor is made here that may have been another node's so far. */
  madeHere(actor: TaskId): void;
  /** The peer that a call was given to need not be heard of any more. */
  recall(call: CallRecord): void;
  /** A call that was to go to another node is this node's own. */
  tookOver(call: CallRecord): void;
  /**
   * Calls of an actor that is another node's by now go there. Unless it was this node that gave it away, what this node said
   * of it is to reach nobody.
   */
  surrendered(actor: TaskId, calls: readonly CallRecord[], given: boolean): void;
  /** In a cluster: the control store's side. */
  readonly registry?: ActorRegistry;
  /** Finds an actor of another node, and holds it for the client. */
  readonly findName?: (client: Client, namespace: string, name: string) => Promise<FoundActor | undefined>;
}
