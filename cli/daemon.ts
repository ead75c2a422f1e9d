/**
 * What `rayd head` and `rayd worker` have in common: a node of a cluster as the process, until a signal ends it.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import { settleHeap } from "../core/settle_heap.ts";
import { type Daemon, type DaemonConfig, startDaemon } from "../node/daemon.ts";
import { machine } from "../node/machine.ts";
import { hostCommand, machineId, storeMemoryOf } from "../runtime/machine.ts";
import { cacheDirectory } from "../store/assets.ts";
import { raystoreLibrary } from "../store/library.ts";
import type { DaemonOptions } from "./daemon_options.ts";
import type { Damage } from "./damaged_store.ts";
import type { ControlStore } from "./control_store.ts";
import { complain } from "./output.ts";

/** The port of the control store unless told otherwise. */
export const HEAD_PORT = 6380;

/** Starts the process's node. @param stores Where the control store is said to be. @param patienceMs How long it may be without a majority. */
export async function startNode(
  role: "head" | "worker",
  options: DaemonOptions & { readonly damage?: Damage | undefined },
  token: string,
  stores: DaemonConfig["stores"],
  patienceMs?: number,
): Promise<Daemon> {
  const cpus = Math.max(1, Math.ceil(options.cpus));
  const here = {
    id: randomHex(16),
    token,
    socket: `\0rayd-${randomHex(16)}`,
    storeMemory: storeMemoryOf(options.storeMemory, Deno.systemMemoryInfo().total),
    memoryLimit: options.memoryLimit,
    library: raystoreLibrary(),
    codeDirectory: `${cacheDirectory()}/code`,
    host: { ...hostCommand(), memory: options.hostMemory },
    logLevel: options.logLevel,
    tls: options.tls,
    wallTime: () => Date.now(),
  };
  const config: DaemonConfig = {
    ...here,
    role,
    stores,
    patienceMs,
    hostname: options.host,
    checkHostname: (hostname) => checkBind(hostname, options),
    resources: options.resources,
    labels: options.labels,
    spillPath: Deno.env.get("RAYD_SPILL_DIR") ?? Deno.env.get("TMPDIR") ?? "/tmp",
    isolatesWarm: Math.min(cpus, Math.max(navigator.hardwareConcurrency, 8)),
    isolatesMax: cpus + EXTRA_ISOLATES,
    found: options.damage?.message,
    machine: machineId(),
    startedAt: here.wallTime(),
  };
  const daemon = await startDaemon(config, machine(here));
  settleHeap(systemClock);
  return daemon;
}

/**
 * Goes on until a signal, or until somebody asks that the node drain. It then lets what runs here end, for a while; a
 * second signal ends it at once, as Ctrl-C does.
 *
 * @param store What of the control store is here, which is told at once, as others may end as well. If it fails, the node
 *   ends, for the others to see that it is not there.
 * @param close Ends all that the process runs; called again if it is to be quicker. @returns The status.
 */
export async function untilSignal(
  daemon: Daemon,
  store: Pick<ControlStore, "leaveSoon" | "failed"> | undefined,
  close: () => Promise<void>,
): Promise<number> {
  const ended = Promise.withResolvers<number>();
  let draining = false, ending = false;
  const end = (status: number) => {
    ending = true;
    close().then(() => ended.resolve(status), () => ended.resolve(1));
  };
  const drain = () => {
    if (draining) return end(0);
    draining = true;
    store?.leaveSoon();
    complain("rayd: ending, once what runs here has ended; once more to end now\n");
    daemon.drain(DRAIN_MS_MAX).finally(() => {
      if (!ending) end(0); // ending it twice is to leave without waiting for others
    });
  };
  Deno.addSignalListener("SIGINT", () => {
    complain("rayd: ending\n");
    end(130);
  });
  Deno.addSignalListener("SIGTERM", drain);
  daemon.drainAsked.then(drain);
  store?.failed.then(() => {
    complain("rayd: ending, as the control store here has failed\n");
    end(1);
  });
  return await ended.promise;
}

/** How long a node that is to end waits for what runs on it. */
const DRAIN_MS_MAX = 30_000;

/** @throws {UsageError} If the address is not of this machine alone, and nobody said that it may. */
export function checkBind(
  hostname: string | undefined,
  { insecureBind, tls }: { readonly insecureBind: boolean; readonly tls: unknown },
): void {
  if (
    hostname === undefined || insecureBind || tls !== undefined || /^(?:127\.|localhost$|::1$)/.test(hostname)
  ) return;
  throw new UsageError(
    `Cannot listen on ${hostname}: others could read what is sent there. Give certificates (--tls-cert, ` +
      `--tls-key, --tls-ca), or say --insecure-bind if the network is yours alone`,
  );
}

/** Random hexadecimal digits, two a byte. */
export function randomHex(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/** Isolates beyond one a CPU, for tasks that ask for less than one. */
const EXTRA_ISOLATES = 8;
