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
  /** The native part of lmdb, where it cannot be found by itself: in the executable. */
  readonly addon: string | undefined;
}

/** From the control store to its head. */
export type GcsReply =
  | { readonly type: "ready"; readonly port: number }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "ended" }
  | { readonly type: "log"; readonly level: "info" | "warn" | "error"; readonly message: string };
