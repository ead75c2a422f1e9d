/**
 * The machine itself, as a node's {@link Surroundings}.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { ObjectStore } from "../store/object_store.ts";
import { dialTcp, listenTcp, type TlsOptions } from "../transport/tcp.ts";
import type { HostConfig, LogLevel } from "./config.ts";
import { isolateProcesses } from "./hosts.ts";
import { nodeLog } from "./log.ts";
import { watchMemory } from "./memory.ts";
import type { Surroundings } from "./surroundings.ts";

/** What is used of the machine. */
export interface MachineConfig {
  /** The node's id, and the token of its cluster. */
  readonly id: string;
  readonly token: string;
  /** The name of an abstract unix socket, for programs of this machine. */
  readonly socket: string;
  readonly storeMemory: number;
  /** What the node, its store and its hosts may use together, in bytes; 0 for what the machine has. */
  readonly memoryLimit: number;
  readonly library: string;
  readonly codeDirectory: string;
  readonly host: HostConfig;
  readonly logLevel: LogLevel;
  readonly tls: TlsOptions | undefined;
  /** The machine's clock: milliseconds since 1970. */
  readonly wallTime: () => number;
}

/** This machine. */
export function machine(config: MachineConfig): Surroundings {
  const { tls } = config;
  return {
    clock: systemClock,
    wallTime: config.wallTime,
    pid: Deno.pid,
    log: nodeLog(config.logLevel),
    async dial(hostname, port) {
      const stream = await dialTcp(hostname, port, systemClock, tls);
      return { stream, from: (stream.localAddr as Deno.NetAddr).hostname };
    },
    isRefusal: (error) => error.cause instanceof Deno.errors.ConnectionRefused,
    listen: (hostname) => listenTcp(hostname, 0, tls),
    listenHere() {
      const listener = Deno.listen({ transport: "unix", path: config.socket });
      return {
        async serve(accept) {
          for await (const conn of listener) accept(conn);
        },
        close: () => listener.close(),
      };
    },
    createStore: () => ObjectStore.create(config.library, { capacity: config.storeMemory }),
    isolates: (store) =>
      isolateProcesses(
        { ...config, bundle: undefined, args: undefined, node: config.id },
        store,
        config.host,
      ),
    watchMemory: (node) => watchMemory({ ...node, clock: systemClock, limitBytes: config.memoryLimit }),
  };
}
