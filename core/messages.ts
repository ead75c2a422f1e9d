/**
 * Everything that programs, nodes and isolates say to each other, as one family of discriminated unions.
 *
 * A *client* is a driver or an isolate: whatever holds Refs, submits tasks and reads objects. An isolate is a client
 * that also executes. A node never unpacks a value: values travel as opaque {@link Outcome} bytes.
 *
 * Small outcomes belong to whoever submitted the task or put the value: the node passes them on and forgets them
 * (`result` without `kept`), until the owner lets others know of the object: then it `put`s what it has, or announces
 * with `expect` that it will. So most tasks leave nothing behind on the node, and nothing has to be released.
 *
 * Rules of order: messages of one connection arrive in the order sent. A client retains an object before it lets go
 * of whatever it learned the object from, so a count never touches zero while a reference exists.
 *
 * @module
 */

import type { ActorSettings } from "./actor_options.ts";
import type { ObjectId, TaskId } from "./ids.ts";
import type { TaskSettings } from "./options.ts";

/** The version of this protocol; peers of another version are refused. */
export const PROTOCOL_VERSION = 8;

/** A value, or what stands for it. `contains` lists the objects that the value holds Refs of. */
export type Outcome =
  | { readonly kind: "inline"; readonly bytes: Uint8Array; readonly contains: readonly ObjectId[] }
  | { readonly kind: "stored"; readonly size: number; readonly contains: readonly ObjectId[] }
  | { readonly kind: "error"; readonly bytes: Uint8Array };

/**
 * How an address begins that names published code by the hash of its content; a second hash, behind `+`, names the
 * environment of the program (`runtime/environment.ts`), which was published as well.
 */
export const CODE = "code:";

/** What must have been published for an address to be loaded. */
export function publishedHashes(load: string): string[] {
  return load.startsWith(CODE) ? load.slice(CODE.length).split("+") : [];
}

/** A function, found by importing `load` and looking for what `module` registered under `name`. */
export interface FunctionAddress {
  /**
   * The URL to import: the module itself, or the bundle that it is part of; or, in a cluster, {@link CODE} and the hash of
   * code that was published.
   */
  readonly load: string;
  /** The URL of the source module: with `name`, the function's identity. */
  readonly module: string;
  readonly name: string;
}

/**
 * An argument that was a Ref: its object, resolved. Without an outcome, the object is the result of a task that was
 * sent to the same isolate before: the isolate has it by then, or else subscribes to it.
 */
export interface Dependency {
  readonly object: ObjectId;
  readonly outcome: Outcome | undefined;
}

/**
 * From any client to its node. Nodes are clients of each other as well: a *peer* submits tasks and holds objects, and is
 * told of results, over one connection that carries both directions.
 */
export type ToNode =
  | {
    readonly type: "hello";
    /** An *observer* asks how the node is, and does nothing else. */
    readonly role: "driver" | "isolate" | "peer" | "observer";
    readonly protocol: number;
    readonly version: string;
    readonly token: string;
    /** Of an isolate: the number that the node gave it when it was started. */
    readonly isolate: number;
    /** Of a driver: the job that it begins, whose id is the root of all its tasks' ids. Of a peer: its node's id. */
    readonly job: TaskId;
    /** The client's slot in the object store. */
    readonly storeClient: number;
    readonly pid: number;
  }
  | { readonly type: "defineFunction"; readonly index: number; readonly address: FunctionAddress }
  | { readonly type: "defineSettings"; readonly index: number; readonly settings: TaskSettings }
  | {
    readonly type: "submit";
    /** What the submitter calls the task until it ends. */
    readonly handle: number;
    readonly task: TaskId;
    readonly parent: TaskId;
    readonly fn: number;
    readonly settings: number;
    /** Objects that must exist before the task starts: its arguments that are Refs, in order. */
    readonly dependencies: readonly ObjectId[];
    readonly args: Outcome;
  }
  /** Of a peer: what it asks for from here on belongs to this job; and whether its program itself asks, or a task. */
  | { readonly type: "behalf"; readonly job: TaskId; readonly driver: boolean }
  /** Of a peer: a task that is ready to run, with all that it depends on, which the peer holds until the task ends. */
  | {
    readonly type: "delegate";
    readonly handle: number;
    readonly task: TaskId;
    readonly parent: TaskId;
    readonly fn: number;
    readonly settings: number;
    readonly dependencies: readonly Dependency[];
    readonly args: Outcome;
  }
  /** Of a driver: code that functions are loaded from, named by the hash of its content. */
  | { readonly type: "publish"; readonly hash: string; readonly code: Uint8Array }
  /** Of a peer: a program has ended, and with it all that is not detached from it. */
  | { readonly type: "jobEnded"; readonly job: TaskId }
  | { readonly type: "defineActor"; readonly index: number; readonly settings: ActorSettings }
  | {
    readonly type: "createActor";
    /** What the creator calls the creation until the actor is constructed. */
    readonly handle: number;
    /** The actor's id, which is that of the task that constructs it and of the object that stands for it. */
    readonly task: TaskId;
    readonly parent: TaskId;
    /** The class. */
    readonly fn: number;
    readonly settings: number;
    readonly actor: number;
    readonly dependencies: readonly ObjectId[];
    readonly args: Outcome;
  }
  | {
    readonly type: "call";
    readonly handle: number;
    readonly task: TaskId;
    readonly parent: TaskId;
    readonly actor: TaskId;
    /** The method: a function whose name is `Class#method`. */
    readonly fn: number;
    readonly settings: number;
    readonly dependencies: readonly ObjectId[];
    readonly args: Outcome;
  }
  | { readonly type: "killActor"; readonly actor: TaskId; readonly restart: boolean }
  /**
   * Of a peer, before it leaves them to a further node: answers of an actor's calls that are needed by both, and go when both
   * have said `forget`.
   */
  | { readonly type: "keep"; readonly actor: TaskId; readonly calls: readonly TaskId[] }
  /** Of a peer: answers of an actor's calls that nobody will ask for again. */
  | { readonly type: "forget"; readonly actor: TaskId; readonly calls: readonly TaskId[] }
  /**
   * Of a peer, before it tells the result of a task that it was given: calls that the task has made there, whose answers must
   * be kept for as long as the task may be run again.
   */
  | {
    readonly type: "bequeath";
    readonly handle: number;
    readonly calls: readonly { readonly actor: TaskId; readonly call: TaskId }[];
  }
  /** Answered with a {@link FoundActor}, packed, which the asker then holds; or with null. */
  | {
    readonly type: "findActor";
    readonly request: number;
    readonly namespace: string;
    readonly name: string;
  }
  /** Answered when the actor is dead, with why. */
  | { readonly type: "awaitDeath"; readonly request: number; readonly actor: TaskId }
  | { readonly type: "put"; readonly object: ObjectId; readonly outcome: Outcome }
  /** The sender owns these objects and is about to refer to them; a `put` follows unless the node has them. */
  | { readonly type: "expect"; readonly objects: readonly ObjectId[] }
  | { readonly type: "retain"; readonly objects: readonly ObjectId[] }
  | { readonly type: "release"; readonly objects: readonly ObjectId[] }
  | { readonly type: "subscribe"; readonly objects: readonly ObjectId[] }
  /**
   * Of a peer: the node that had this object is gone. Answered with `copy`. `make` if nobody has a copy: who can make it again
   * is to do so, and not to look for it elsewhere.
   */
  | { readonly type: "seek"; readonly request: number; readonly object: ObjectId; readonly make: boolean }
  | { readonly type: "consumed"; readonly task: TaskId; readonly count: number }
  | { readonly type: "cancel"; readonly task: TaskId; readonly force: boolean; readonly recursive: boolean }
  /** Of a peer: the program that made a call is gone. */
  | { readonly type: "orphan"; readonly task: TaskId }
  | { readonly type: "makeRoom"; readonly request: number; readonly bytes: number }
  | { readonly type: "ask"; readonly request: number; readonly topic: Topic }
  /** Of a program: about a placement group, and answered (`core/groups.ts`). */
  | { readonly type: "group"; readonly request: number; readonly body: Uint8Array }
  /** About the key-value table, and answered unless it is the end of a watch (`core/key_value.ts`). */
  | { readonly type: "keyValue"; readonly request: number; readonly body: Uint8Array }
  /** Of a peer: about bundles of placement groups (`core/groups.ts`). */
  | { readonly type: "bundles"; readonly body: Uint8Array }
  | {
    readonly type: "done";
    /** What the node called the execution. */
    readonly handle: number;
    readonly durationUs: number;
    /** The function threw, and its options ask for another attempt; of an actor's call: it was aborted unstarted. */
    readonly retry: boolean;
    readonly outcomes: readonly Outcome[];
  }
  | { readonly type: "yielded"; readonly handle: number; readonly index: number; readonly outcome: Outcome }
  | { readonly type: "blocked"; readonly handle: number }
  /** As `blocked`, of one that calls actors: what it waits for, all of it, so that circles are found. */
  | { readonly type: "waiting"; readonly handle: number; readonly objects: readonly ObjectId[] }
  | { readonly type: "unblocked"; readonly handle: number }
  | {
    readonly type: "log";
    readonly handle: number;
    readonly level: number;
    readonly dropped: number;
    readonly text: string;
  };

/** What a node tells of an actor that was looked for by name. */
export interface FoundActor {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** Its class. */
  readonly module: string;
  readonly name: string;
}

/** What a client may ask its node about. */
export type Topic = "nodes" | "cluster" | "available" | "stats" | ListTopic;

/** What a node can list, row by row. */
export type ListTopic = "tasks" | "actors" | "objects" | "workers" | "jobs" | "groups" | "unmet";

/** What a node knows of an object that it has not got. */
export type Prospect =
  /** Nothing of how it is made. */
  | "none"
  /** The task that makes it was submitted, or runs, there. */
  | "soon"
  /** It can have it made again. */
  | "again";

/** From a node to a client. */
export type FromNode =
  | { readonly type: "welcome"; readonly node: TaskId }
  | { readonly type: "refused"; readonly reason: string }
  | {
    readonly type: "result";
    readonly handle: number;
    readonly index: number;
    /** The node keeps the object for the receiver, who has to release it. */
    readonly kept: boolean;
    readonly outcome: Outcome;
  }
  | { readonly type: "object"; readonly object: ObjectId; readonly outcome: Outcome }
  /** To a peer: what this node has of an object, bytes and all, or, if it has not all of it, what can be hoped for. */
  | {
    readonly type: "copy";
    readonly request: number;
    readonly outcome: Outcome | undefined;
    readonly prospect: Prospect;
  }
  /**
   * To a peer: the node does not have what the task asks for, or the actor that is called, as it was believed to. The task
   * is the peer's again.
   */
  | { readonly type: "turnedAway"; readonly handle: number }
  | { readonly type: "room"; readonly request: number; readonly error: Uint8Array }
  | { readonly type: "answer"; readonly request: number; readonly body: Uint8Array }
  | {
    readonly type: "output";
    readonly job: TaskId;
    readonly worker: number;
    readonly task: string;
    readonly level: number;
    readonly dropped: number;
    readonly text: string;
  }
  | { readonly type: "defineFunction"; readonly index: number; readonly address: FunctionAddress }
  | { readonly type: "defineSettings"; readonly index: number; readonly settings: TaskSettings }
  | {
    readonly type: "execute";
    readonly handle: number;
    /** The word of the claim table where the isolate claims the task before it starts it. */
    readonly slot: number;
    readonly attempt: number;
    /** How many such tasks the isolate may run at once. */
    readonly concurrency: number;
    readonly task: TaskId;
    readonly job: TaskId;
    readonly fn: number;
    readonly settings: number;
    readonly gpus: readonly number[];
    readonly dependencies: readonly Dependency[];
    readonly args: Outcome;
  }
  | { readonly type: "defineActor"; readonly index: number; readonly settings: ActorSettings }
  | {
    readonly type: "constructActor";
    readonly handle: number;
    /** What node and isolate call the actor between them. */
    readonly instance: number;
    /** How often it was constructed, this time included. */
    readonly attempt: number;
    readonly task: TaskId;
    readonly job: TaskId;
    readonly fn: number;
    readonly settings: number;
    readonly actor: number;
    /** The last dependency is a checkpoint, to be loaded after the constructor. */
    readonly restore: boolean;
    readonly gpus: readonly number[];
    readonly dependencies: readonly Dependency[];
    readonly args: Outcome;
  }
  | {
    readonly type: "executeCall";
    readonly handle: number;
    readonly instance: number;
    readonly attempt: number;
    /** It ran before, in an instance that is gone. */
    readonly replaying: boolean;
    /** Nobody wants its outcome, which was told before: only its effect on the actor. */
    readonly silent: boolean;
    readonly task: TaskId;
    readonly job: TaskId;
    readonly fn: number;
    readonly settings: number;
    readonly dependencies: readonly Dependency[];
    readonly args: Outcome;
  }
  /** Answered with `done`: the state as it is after the calls before, to be kept as `object` if it is large. */
  | {
    readonly type: "checkpointActor";
    readonly handle: number;
    readonly instance: number;
    readonly object: ObjectId;
  }
  /** After the calls before: `onStop`, if asked for, and the instance goes. Answered with `done`. */
  | {
    readonly type: "stopActor";
    readonly handle: number;
    readonly instance: number;
    readonly hook: boolean;
  }
  /** Memory is short: collect garbage, so that Refs which nobody uses are let go. */
  | { readonly type: "collect" }
  | { readonly type: "abort"; readonly handle: number; readonly reason: string }
  | { readonly type: "consumed"; readonly task: TaskId; readonly count: number };

/** What a node takes from a peer: what any client says, and what the peer answers as a node. */
export type FromPeer =
  | ToNode
  | Extract<
    FromNode,
    { type: "welcome" | "refused" | "result" | "turnedAway" | "object" | "copy" | "answer" | "output" }
  >;

/** Any message at all. */
export type Message = ToNode | FromNode;

/** Executions from this number on belong to actors. */
export const ACTOR_EXECUTIONS = 2 ** 30;

/** The levels of forwarded output, by number. */
export const OUTPUT_LEVELS = ["debug", "log", "info", "warn", "error"] as const;

/** The state of a claim word: `handle << 2 | state`. */
export const CLAIM_QUEUED = 1, CLAIM_STARTED = 2, CLAIM_REVOKED = 3;

/** The claim word of an execution. @param handle The execution. @param state One of the `CLAIM_…` states. */
export function claimWord(handle: number, state: number): number {
  return handle << 2 | state;
}
