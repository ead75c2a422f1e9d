/**
 * What a cluster that has ended may not have left: processes, shared memory, files of its own, ports that listen.
 *
 * @module
 */

import type { ChaosCluster } from "./cluster.ts";

/** All that is left of a cluster whose nodes have ended, in words. @param since When it was started: milliseconds since 1970. */
export async function leftovers(cluster: ChaosCluster, since: number): Promise<string[]> {
  return [
    ...processes(cluster.mark),
    ...entries("/dev/shm", since),
    ...Array.from({ length: cluster.places }, (_, place) => {
      const directory = cluster.directoryOf(place);
      return [...entries(`${directory}/tmp`, 0), ...entries(`${directory}/.rayd/replicas`, 0)];
    }).flat(),
    ...await listening(cluster),
  ];
}

/** Processes that have a cluster's mark in their environment. */
export function processes(mark: string): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (!Deno.readTextFileSync(`/proc/${name}/environ`).split("\0").includes(`RAYD_CHAOS=${mark}`)) {
        continue;
      }
      if (/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${name}/status`))) continue;
      found.push(
        `process ${name}: ${Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim()}`,
      );
    } catch {
      // It has just ended, or is somebody else's.
    }
  }
  return found;
}

/** What a directory has that rayd may have made. */
function entries(directory: string, since: number): string[] {
  try {
    return [...Deno.readDirSync(directory)]
      .filter(({ name }) => since === 0 || name.includes("rayd") && modified(`${directory}/${name}`) >= since)
      .map(({ name }) => `${directory}/${name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function modified(path: string): number {
  try {
    return Deno.lstatSync(path).mtime?.getTime() ?? 0;
  } catch {
    return 0;
  }
}

/** Sockets that listen on the cluster's hosts. */
async function listening({ hosts }: ChaosCluster): Promise<string[]> {
  if (typeof hosts === "string") return [];
  const found: string[] = [];
  for (const [i, name] of hosts.names.entries()) {
    const { stdout } = await new Deno.Command("ip", {
      args: hosts.on(i, ["cat", "/proc/net/tcp", "/proc/net/unix"]),
    })
      .output();
    const text = new TextDecoder().decode(stdout);
    for (const [, port] of text.matchAll(/^\s*\d+: \w+:(\w+) \w+:\w+ 0A /gm)) {
      found.push(`${name} listens on port ${parseInt(port!, 16)}`);
    }
    for (const [, socket] of text.matchAll(/ (@rayd\S*)$/gm)) found.push(`${name} has the socket ${socket}`);
  }
  return found;
}
