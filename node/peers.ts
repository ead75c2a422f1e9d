/**
 * Who a node talks to: connected programs and isolates, and how isolates are started.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import type { TaskId } from "../core/ids.ts";
import type { FromPeer, Message } from "../core/messages.ts";
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

/** The sending side of a channel. */
export interface Outlet {
  /** While it is set, what is sent stays here. */
  held: boolean;
  /** The largest message that is taken from the other side. */
  messageBytesMax: number;
  send(message: Message): void;
  flush(): void;
  close(): void;
  finish(): void;
}

/** One connected program, isolate, or other node. */
export interface Client {
  readonly id: number;
  readonly channel: Outlet;
  role: "driver" | "isolate" | "peer" | "observer" | undefined;
  /** The process that it is in. */
  pid: number;
  job: TaskId;
  /** Of a peer: the job's program itself asks, which is never run again. */
  behalfOfDriver: boolean;
  /** Of a peer: what it is to be told once what waits for it was sent (`NodeParts`). */
  late: Message[] | undefined;
  /** Of a peer: what it says while code is on its way that it refers to. */
  held: FromPeer[] | undefined;
  /** Undoes the end of its time to show the token. */
  cancelGreeting: () => void;
  storeClient: number;
  isolate: Isolate | undefined;
  readonly actors: Map<number, ActorSettings>;
  readonly functions: Map<number, FunctionEntry>;
  readonly settings: Map<number, SettingsEntry>;
  /** Work was queued for it: it is to be flushed. */
  dirty: boolean;
}

/** Stands for the submitter of a task that runs again for its results alone. */
export const NO_CLIENT = -1;

/** Whether what a client asks for is asked for once: by a program, rather than by a task that may be run again. */
export function asksOnce(client: Client): boolean {
  return client.role === "driver" || client.role === "peer" && client.behalfOfDriver;
}

/** One isolate of this node. */
export interface Isolate {
  readonly number: number;
  readonly process: IsolateProcess;
  client: Client | undefined;
  readonly executions: Map<number, TaskRecord>;
  readonly freeSlots: number[];
  /** Tasks that run there though they were cancelled, with all that they submit. */
  readonly cancelled: Set<TaskId>;
  /** Counts what it was given to do. */
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
