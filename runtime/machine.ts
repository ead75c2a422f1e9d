/**
 * What the machine gives a node: room for its object store, and how processes for its tasks are started.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import { show } from "../core/options.ts";
import { STORE_BYTES_MIN, STORE_SHARE_DEFAULT } from "../core/limits.ts";

/**
 * How a host process is started: the executable knows how; plain Deno is given the module, and the configuration that
 * the program runs under (`RAYD_DENO_CONFIG` where it cannot be found).
 */
export function hostCommand(): { command: string; args: string[] } {
  const command = Deno.execPath();
  if (Deno.build.standalone) return { command, args: ["host"] };
  const config = Deno.env.get("RAYD_DENO_CONFIG") || configFile(new URL(Deno.mainModule));
  const module = new URL("./host_main.ts", import.meta.url).href;
  return {
    command,
    args: ["run", "-A", "--no-check", "--quiet", ...(config ? ["--config", config] : []), module],
  };
}

/** The Deno configuration that the program runs under, as Deno finds it: beside its main module or above. */
function configFile(main: URL): string | undefined {
  if (main.protocol !== "file:") return undefined;
  for (let directory = new URL(".", main);; directory = new URL("..", directory)) {
    for (const name of ["deno.json", "deno.jsonc"]) {
      const path = decodeURIComponent(new URL(name, directory).pathname);
      try {
        if (Deno.statSync(path).isFile) return path;
      } catch {
        // Not here.
      }
    }
    if (directory.pathname === "/") return undefined;
  }
}

/** The store's size: what was asked for, or a share of memory; never more than shared memory has room for. */
export function storeMemoryOf(asked: number | undefined, machine: number): number {
  const room = sharedMemoryFree();
  if (asked !== undefined) {
    if (!Number.isFinite(asked) || asked < STORE_BYTES_MIN) {
      throw new UsageError(`Cannot use storeMemory ${show(asked)}: give ${STORE_BYTES_MIN} bytes or more`);
    }
    if (asked > room) {
      throw new UsageError(
        `Cannot make an object store of ${asked} bytes: /dev/shm has room for ${room}. Ask for less, or make it larger ` +
          `(for containers: --shm-size)`,
      );
    }
    return Math.floor(asked);
  }
  return Math.max(STORE_BYTES_MIN, Math.floor(Math.min(machine * STORE_SHARE_DEFAULT, room * 0.9)));
}

function sharedMemoryFree(): number {
  try {
    const info = Deno.readTextFileSync("/proc/meminfo");
    const available = /MemAvailable:\s+(\d+)/.exec(info);
    return available === null ? Infinity : Number(available[1]) * 1024;
  } catch {
    return Infinity;
  }
}

/** This machine's boot: programs with the same one can reach a node's socket and store. */
export function machineId(): string {
  try {
    return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  } catch {
    return Deno.hostname();
  }
}
