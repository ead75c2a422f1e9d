/**
 * What the control store is told when it is started, and says to its head.
 *
 * @module
 */

import type { TlsOptions } from "../transport/tcp.ts";

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
  /** Members to begin with: HOST:PORT. */
  readonly seeds: readonly string[];
}

/** From the control store to its head. */
export type GcsReply =
  | { readonly type: "ready"; readonly port: number }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "ended" }
  | { readonly type: "log"; readonly level: "info" | "warn" | "error"; readonly message: string };
