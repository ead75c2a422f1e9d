/**
 * A peer as this node deals with it, and what the parts of those dealings have of each other.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import type { Placement } from "../core/placement.ts";
import type { ObjectRecord } from "./directory.ts";
import type { Client } from "./peers.ts";
import type { TaskRecord } from "./tasks.ts";

/** A peer: what this node has there. */
export interface Remote {
  readonly node: TaskId;
  readonly client: Client;
  /** What was given to it, by handle, until it has ended there. */
  readonly pending: Map<number, TaskRecord>;
  readonly questions: Map<number, Question>;
  nextHandle: number;
  readonly functions: Set<number>;
  readonly settings: Set<number>;
  readonly actorSettings: Map<ActorSettings, number>;
  job: TaskId | undefined;
  driver: boolean;
  /** Objects that it is to be told of, at the end of the turn. */
  retained: ObjectId[];
  released: ObjectId[];
  /** Answers that it is to keep for one node more, by actor. */
  readonly kept: Map<TaskId, TaskId[]>;
  /** Answers that it need not keep, by actor. */
  readonly forgotten: Map<TaskId, TaskId[]>;
}

/** When an actor dies: who asks. */
export interface Question {
  readonly client: number;
  readonly request: number;
  readonly actor: TaskId;
}

/** What a node's dealings with actors elsewhere have of its other dealings with peers. */
export interface Links {
  byClient(client: number): Remote | undefined;
  byNode(node: TaskId): Remote | undefined;
  /** Says for whom the next request is. */
  behalf(remote: Remote, task: TaskRecord): void;
  /** Defines what a task needs at a peer, and enters it there. Returns what both call it. */
  give(task: TaskRecord, remote: Remote): number;
  /** What a peer makes of a task that it was given is let go of. */
  recall(task: TaskRecord): void;
  /** The peer is to know that this node holds an object. */
  retain(remote: Remote, record: ObjectRecord): void;
  /** An object is not had from the peer any more that it was had from so far. */
  leave(record: ObjectRecord): void;
  introduce(client: Client, id: ObjectId, outcome: Outcome | undefined): void;
  introduced(): void;
  mayRunHere(task: TaskRecord): boolean;
  /** Where a task is to be by what it wishes, if there is such a node. @param here Whether it may be on this one. */
  wished(task: TaskRecord, placement: Placement, here: boolean): Remote | "here" | undefined;
  place(task: TaskRecord, betterThanMs: number): Remote | undefined;
  /** What is told to a peer at the end of the turn has changed. */
  touch(remote: Remote): void;
}

/** A peer to which there is a connection now. */
export function newRemote(node: TaskId, client: Client): Remote {
  return {
    node,
    client,
    pending: new Map(),
    questions: new Map(),
    nextHandle: 0,
    functions: new Set(),
    settings: new Set(),
    actorSettings: new Map(),
    job: undefined,
    driver: false,
    retained: [],
    released: [],
    kept: new Map(),
    forgotten: new Map(),
  };
}
