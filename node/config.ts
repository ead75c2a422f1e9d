/**
 * What is told to a node, and to an isolate, when it is started.
 *
 * @module
 */

import { type ObjectId, putId, taskIdFromHex } from "../core/ids.ts";

/** To a node that is embedded in a program. */
export interface EmbeddedNodeConfig {
  /** The token that its clients must show. */
  readonly token: string;
  /** Where it listens: the name of an abstract unix socket. */
  readonly socket: string;
  /** 32 random hexadecimal digits: the node's id. */
  readonly node: string;
  /** Amounts in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly storeMemory: number;
  /** The path of the object store's library. */
  readonly library: string;
  readonly spillPath: string;
  /** The URL of the module that an isolate runs as a thread. */
  readonly isolateModule: string;
  /** How a host process is started, where isolates are to have processes of their own. */
  readonly host: HostConfig | undefined;
  readonly isolatesWarm: number;
  readonly isolatesMax: number;
  readonly logLevel: LogLevel;
  /** What isolates are to import instead of source modules. */
  readonly bundle: string | undefined;
  /** The program's arguments. */
  readonly args: readonly string[];
  /** What its tasks find in `context()` of variables and files. */
  readonly environment: TaskEnvironment;
}

/** Variables by name, and the directory where a program's files are, if it brought any. */
export interface TaskEnvironment {
  readonly env: Readonly<Record<string, string>>;
  readonly workingDirectory: string | undefined;
}

/** How much a node says on standard error. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "off";

/** How host processes are started. */
export interface HostConfig {
  readonly command: string;
  readonly args: readonly string[];
  /** Bytes of memory that a host may use; 0 for no limit. */
  readonly memory: number;
}

/** Where isolates run: as threads of the program's process, or each in a process of its own. */
export type Isolation = "thread" | "process";

/** The object of the store that is the claim table of a host. @param node 32 hexadecimal digits. @param isolate Its number. */
export function claimsId(node: string, isolate: number): ObjectId {
  return putId(taskIdFromHex(node), isolate);
}

/** From an embedded node to its program. */
export type EmbeddedNodeReply =
  | { readonly type: "ready"; readonly storePath: string }
  | { readonly type: "failed"; readonly message: string };

/** To an isolate. */
export interface IsolateConfig {
  readonly isolate: number;
  readonly token: string;
  readonly socket: string;
  readonly storePath: string;
  readonly library: string;
  /** 32 hexadecimal digits: the node's id. */
  readonly node: string;
  /** The claim table that it shares with its node; in another process, an object of the store (see {@link claimsId}). */
  readonly claims: SharedArrayBuffer | undefined;
  /** The id of the node's process. */
  readonly parent: number;
  readonly bundle: string | undefined;
  readonly args: readonly string[] | undefined;
  /** Where published code lies, of a node in a cluster. */
  readonly codeDirectory: string | undefined;
  /** Of an embedded node: what tasks find of variables and files. */
  readonly environment: TaskEnvironment | undefined;
}

/** What hosts of isolates need to know of their node. */
export type HostedNodeConfig =
  & Pick<EmbeddedNodeConfig, "token" | "socket" | "library" | "bundle" | "node">
  & {
    readonly args: readonly string[] | undefined;
    readonly codeDirectory?: string;
    readonly environment?: TaskEnvironment;
  };
