/**
 * Who a node talks to: connected programs and isolates, and how isolates are started.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import type { TaskId } from "../core/ids.ts";
import type { FromNode, ToNode } from "../core/messages.ts";
import type { Channel } from "../transport/channel.ts";
import type { CallRecord, NodeActor } from "./actor_records.ts";
import type { FunctionEntry, SettingsEntry, TaskRecord } from "./tasks.ts";

/** An isolate, as its starter hands it over. */
export interface IsolateProcess {
  /** The claim table that the node and the isolate share. */
  readonly claims: Int32Array;
  /** Ends it at once, whatever it is doing. */
  terminate(): void;
}

/** Starts isolates. */
export interface IsolateFactory {
  /**
   * Starts one; it connects by itself and names its number.
   *
   * @param number The number it is to name.
   * @param exited Called once if it ends other than by `terminate`.
   */
  start(number: number, exited: (reason: string) => void): IsolateProcess;
}

/** One connected program or isolate. */
export interface Client {
  readonly id: number;
  readonly channel: Channel<FromNode, ToNode>;
  role: "driver" | "isolate" | undefined;
  job: TaskId;
  storeClient: number;
  isolate: Isolate | undefined;
  readonly actors: Map<number, ActorSettings>;
  readonly functions: Map<number, FunctionEntry>;
  readonly settings: Map<number, SettingsEntry>;
  /** Work was queued for it: it is to be flushed. */
  dirty: boolean;
}

/** One isolate of this node. */
export interface Isolate {
  readonly number: number;
  readonly process: IsolateProcess;
  client: Client | undefined;
  readonly executions: Map<number, TaskRecord>;
  readonly freeSlots: number[];
  nextExecution: number;
  /** Functions and settings that it was told of, by index. */
  readonly knownFunctions: Set<number>;
  readonly knownSettings: Set<number>;
  cancelStart: () => void;
  /** Of an isolate that carries actors: them and what runs in them. Tasks never go there. */
  readonly residents: Residents | undefined;
}

/** What an isolate for actors carries. */
export interface Residents {
  /** Whether it takes any number of actors. */
  readonly shared: boolean;
  readonly actors: Set<NodeActor>;
  /** Calls sent there that have not ended, by execution. */
  readonly calls: Map<number, CallRecord>;
  /** All else that it was told to do to an actor, by execution. */
  readonly works: Map<
    number,
    { readonly actor: NodeActor; readonly kind: "construct" | "checkpoint" | "stop" }
  >;
  readonly knownActors: Set<ActorSettings>;
}
