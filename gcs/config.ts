/**
 * What the control store is told when it is started, and says to its head.
 *
 * @module
 */

import type { TlsOptions } from "../transport/tcp.ts";
import type { Departure } from "./chain_member.ts";
import type { Quorum } from "./quorum.ts";

/** The global from which lmdb, in the executable, has the path of its native part. */
export const ADDON_SYMBOL = "rayd.lmdb.addon";

/** To the control store. */
export interface GcsConfig {
  /** 32 hexadecimal digits: the cluster's id. */
  readonly cluster: string;
  readonly token: string;
  /** Where the shards lie, a directory each. */
  readonly directory: string;
  readonly shards: number;
  readonly hostname: string;
  /** 0 for any. */
  readonly port: number;
  readonly tls: TlsOptions | undefined;
  /** The member of the replicated store that this is, if it is one. */
  readonly chain: GcsChainConfig | undefined;
  /** The port at which other members hold on to this process, if there is one: it ends when the process does. */
  readonly lifeline: number | undefined;
  /** Where the object store's library is, if this is a member of a replicated store: it has threads run before others. */
  readonly library: string | undefined;
  /** The native part of lmdb, where it cannot be found by itself: in the executable. */
  readonly addon: string | undefined;
}

/** To a member of a replicated store. */
export interface GcsChainConfig {
  /** 32 hexadecimal digits, which stay with the directory. */
  readonly member: string;
  /** A number above those of all earlier runs on the directory. */
  readonly incarnation: number;
  /** How many replicas there are to be: said by the head. */
  readonly replicas: number | undefined;
  /** Whether an empty directory is a new store. */
  readonly founds: boolean;
  /** Whether it is the head's directory, which is known: of those that leave at about the same time, it is the last. */
  readonly lingers: boolean;
  /** Whether the directory outlasts the process. */
  readonly durable: boolean;
  /** Members to begin with: HOST:PORT. */
  readonly seeds: readonly string[];
}

/** To a control store that runs. */
export type GcsOrder =
  /** It will be told to end in a while. */
  | "leave soon"
  /** End, once others go on without it; told again: end now. */
  | "end"
  /** Say who is missing. */
  | "who is missing";

/** Who answers, as one member sees it. */
export interface GcsQuorum extends Quorum {
  /** Whether this member has a part in the store. If not, others have something newer. */
  readonly hasPart: boolean;
}

/** From the control store to its process. */
export type GcsReply =
  | { readonly type: "ready"; readonly port: number }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "quorum"; readonly quorum: GcsQuorum | undefined }
  /** It has ended. `others` is where clients reach those who go on, if there are any. */
  | { readonly type: "ended"; readonly departure: Departure; readonly others: readonly string[] }
  | { readonly type: "log"; readonly level: "info" | "warn" | "error"; readonly message: string };
