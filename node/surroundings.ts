/**
 * What a node stands on: time, network, processes and memory of a machine. `node/daemon.ts` puts a node together out of
 * these, and reaches for nothing else, so a whole cluster can run in one thread, on machines that are simulated.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";
import type { TcpListener } from "../transport/tcp.ts";
import type { MemoryServices } from "./memory.ts";
import type { IsolateFactory } from "./peers.ts";

/** The machine under a node. */
export interface Surroundings {
  readonly clock: Clock;
  /** Milliseconds since 1970. */
  wallTime(): number;
  /** The node's process. */
  readonly pid: number;
  /** Tells the operator. */
  log(level: "info" | "warn" | "error", message: string): void;
  /** Connects. @throws {DisconnectedError} If nobody answers. */
  dial(hostname: string, port: number): Promise<Dialled>;
  /** Whether a `dial` failed as the machine is there, and no process has that port. */
  isRefusal(error: Error): boolean;
  /** Listens on a port that is free. */
  listen(hostname: string): TcpListener;
  /** Listens for programs and isolates of this machine. */
  listenHere(): Pick<TcpListener, "serve" | "close">;
  createStore(): ObjectStore;
  isolates(store: ObjectStore): IsolateFactory;
  /** Sees that memory does not run out. Returns what ends that. */
  watchMemory(node: Omit<MemoryServices, "clock" | "limitBytes">): () => void;
}

/** A connection, and the address of this machine that it goes out from. */
export interface Dialled {
  readonly stream: ByteStream;
  readonly from: string;
}
