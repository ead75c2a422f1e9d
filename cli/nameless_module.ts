/**
 * A module without a file name: written, opened and unlinked, and then imported by every thread as
 * `/proc/<pid>/fd/<n>`. It is there for exactly as long as the process that made it, however that process ends, so there
 * is nothing to clean up. (A `data:` URL would do without files, but the executable applies no source maps to it.)
 *
 * @module
 */

import { cacheDirectory } from "../store/assets.ts";

/** Keeps the files open. */
const open: Deno.FsFile[] = [];

/** The URL of a module with this code; good for as long as this process lives. */
export function namelessModule(code: string): string {
  const path = Deno.makeTempFileSync({ dir: cacheDirectory(), prefix: ".bundle-" });
  try {
    Deno.writeTextFileSync(path, code);
    open.push(Deno.openSync(path));
    return `file:///proc/${Deno.pid}/fd/${descriptorOf(path)}`;
  } finally {
    Deno.removeSync(path);
  }
}

/** The number under which this process has opened a file; Deno does not tell. */
function descriptorOf(path: string): string {
  const real = Deno.realPathSync(path);
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`) === real) return name;
    } catch {
      // Closed meanwhile.
    }
  }
  throw new Error(`Cannot find ${real} among the open files in /proc/self/fd: is /proc mounted?`);
}
