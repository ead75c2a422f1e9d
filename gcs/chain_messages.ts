/**
 * What the members of a replicated control store say to each other.
 *
 * Members speak of configurations (`beat` to `leased`, see `chain_master.ts`); their replicas of each shard speak of that
 * shard's history (`position` to `taken`, see `chain_replica.ts`). Any message may be lost, doubled, late or out of order.
 *
 * @module
 */

import type { TaskId } from "../core/ids.ts";
import type { ChainConfig, MemberId } from "./chain_config.ts";
import type { GcsCommand, StoredEntry } from "./shard.ts";

/** Orders proposals of one configuration: by number, then by who makes them. `n` is 0 before there is any. */
export interface Ballot {
  readonly n: number;
  readonly by: MemberId;
}

/** What a shard's history is made of. */
export type ChainCommand =
  | { readonly kind: "apply"; readonly command: GcsCommand }
  /** The client is known from now on. */
  | { readonly kind: "remember"; readonly client: TaskId }
  /** The client is gone for good, and its leases with it. */
  | { readonly kind: "expire"; readonly client: TaskId };

/** A place in a shard's history: how long it is, the epoch of the last entry, and a hash over all of them. */
export interface Position {
  readonly seq: number;
  readonly epoch: number;
  readonly hash: number;
}

/** One entry of a shard's history, with the position that it leads to. */
export interface ChainEntry extends Position {
  readonly command: ChainCommand;
}

/**
 * How far a member is with ending: not at all; it will in a while, and takes no new part; or it is to be left out now,
 * and answers no reads any more.
 */
export type Leaving = "no" | "soon" | "now";

/** Between members. */
export type MemberMessage =
  /** A sign of life, and what the sender knows. */
  | {
    readonly type: "beat";
    readonly epoch: number;
    /** Of this run of the sender's process. */
    readonly incarnation: number;
    /** Whom the sender hears. */
    readonly hears: readonly MemberId[];
    /** The sender is the tail of that epoch, and commits nothing any more that the joining member does not have. */
    readonly synced: boolean;
    /** The sender has voted for a configuration, and does not know what became of it. */
    readonly voted: boolean;
    /** The sender would take a replica. */
    readonly offers: boolean;
    /** What the sender has outlasts its process. */
    readonly durable: boolean;
    readonly leaving: Leaving;
  }
  /** A run of a member's process has ended: the sender knows that from the member's machine. */
  | { readonly type: "dead"; readonly member: MemberId; readonly incarnation: number }
  | { readonly type: "decided"; readonly config: ChainConfig }
  | { readonly type: "prepare"; readonly config: ChainConfig; readonly ballot: Ballot }
  | {
    readonly type: "promise";
    readonly epoch: number;
    readonly ballot: Ballot;
    readonly accepted: { readonly ballot: Ballot; readonly value: ChainConfig } | undefined;
  }
  /** Another ballot was promised. */
  | { readonly type: "refuse"; readonly epoch: number; readonly ballot: Ballot }
  | {
    readonly type: "accept";
    readonly config: ChainConfig;
    readonly ballot: Ballot;
    readonly value: ChainConfig;
    /** The sender has voted for it. */
    readonly voted: boolean;
  }
  | { readonly type: "accepted"; readonly epoch: number; readonly ballot: Ballot }
  /** The tail asks to be left the tail for a while. */
  | { readonly type: "lease"; readonly epoch: number; readonly incarnation: number; readonly ask: number }
  | { readonly type: "leased"; readonly epoch: number; readonly incarnation: number; readonly ask: number };

/** Between replicas of one shard, all of one epoch. */
export type ReplicaMessage =
  /** Up the chain: what the sender has, so that it gets what comes after. */
  | {
    readonly type: "position";
    readonly epoch: number;
    readonly at: Position;
    /** It has the beginning of a copy, and so nothing. */
    readonly copying: boolean;
  }
  /** Down the chain: say your position. */
  | { readonly type: "probe"; readonly epoch: number }
  /** Down the chain: what comes after entry `after`, and up to where the history is committed. */
  | {
    readonly type: "forward";
    readonly epoch: number;
    readonly after: number;
    readonly committed: number;
    readonly entries: readonly ChainEntry[];
  }
  /** Up the chain: all up to `seq` is committed; from a joining member: is on its disk. */
  | { readonly type: "ack"; readonly epoch: number; readonly seq: number }
  /** To a joining member: a piece of the state at `at`. */
  | {
    readonly type: "chunk";
    readonly epoch: number;
    readonly at: Position;
    readonly index: number;
    readonly last: boolean;
    /** Of the state as a whole. */
    readonly checksum: number;
    readonly entries: readonly (readonly [key: string, entry: StoredEntry])[];
    readonly meta: readonly (readonly [name: string, value: Uint8Array])[];
  }
  | { readonly type: "taken"; readonly epoch: number; readonly at: Position; readonly index: number };
