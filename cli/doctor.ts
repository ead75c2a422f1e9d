/**
 * `rayd doctor`: looks at this machine for what keeps rayd from working well, and says how each is mended.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="./std_fmt_bytes.d.ts"
import { format } from "@std/fmt/bytes";
import { STORE_SHARE_DEFAULT } from "../core/limits.ts";
import { cacheDirectory } from "../store/assets.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { threadUrgency } from "../store/urgent.ts";
import { readToken, tokenFile } from "../transport/credentials.ts";
import { clusterFindings, type Finding } from "./doctor_cluster.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd doctor [--address HOST:PORT]

Looks at shared memory, limits, priorities, the cache, the token, and the cluster if there is one (--address, or
RAYD_ADDRESS): the versions and the clocks of its nodes. Says how to mend what is wrong. Ends with status 1 if something is.
`,

  async run(args) {
    const parsed = parseArgs(args, {
      string: ["address"],
      unknown: (argument) => {
        throw new CommandLineError(`Unknown option ${argument} of "rayd doctor"`);
      },
    });
    const address = parsed.address as string | undefined ?? Deno.env.get("RAYD_ADDRESS");
    let wrong = 0;
    const show = ({ what, finding, mend }: Finding) => {
      if (mend !== undefined) wrong++;
      print(
        `${mend === undefined ? "ok   " : "WRONG"}  ${what}: ${finding}\n${
          mend === undefined ? "" : `       ${mend}\n`
        }`,
      );
    };
    for (const look of [sharedMemory, openFiles, priority, cache, () => token(address)]) show(look());
    for (const finding of await clusterFindings(address)) show(finding);
    return wrong === 0 ? 0 : 1;
  },
};

const PROBE_BYTES = 4 * 1024 * 1024;

function sharedMemory(): Finding {
  const what = "shared memory";
  try {
    const store = ObjectStore.create(raystoreLibrary(), { capacity: PROBE_BYTES });
    const free = store.diskFree("/dev/shm");
    store.close();
    const wanted = Deno.systemMemoryInfo().total * STORE_SHARE_DEFAULT;
    const finding = `an object store can be made; /dev/shm has ${format(free)} free`;
    if (free >= wanted) return { what, finding };
    return {
      what,
      finding: `${finding}, less than the ${format(wanted)} that a store takes by default`,
      mend:
        "make it larger (mount -o remount,size=50% /dev/shm; in a container --shm-size), or give --store-memory",
    };
  } catch (error) {
    return {
      what,
      finding: (error as Error).message,
      mend: "see that /dev/shm is a tmpfs that you can write to",
    };
  }
}

const OPEN_FILES_MIN = 4096;

function openFiles(): Finding {
  const what = "open files";
  const line = /^Max open files\s+(\S+)\s+(\S+)/m.exec(Deno.readTextFileSync("/proc/self/limits"));
  const soft = line?.[1] === "unlimited" ? Infinity : Number(line?.[1] ?? NaN);
  const finding = `this process may open ${soft}`;
  return soft >= OPEN_FILES_MIN || Number.isNaN(soft) ? { what, finding } : {
    what,
    finding,
    mend: `each node and each connection takes some: ulimit -n ${OPEN_FILES_MIN}, or more`,
  };
}

/** Nothing is wrong without it: a store that loses a replica on a busy machine takes some milliseconds longer. */
function priority(): Finding {
  const what = "priority";
  try {
    const thread = threadUrgency(raystoreLibrary());
    try {
      thread.set(true);
      thread.set(false);
    } finally {
      thread.close();
    }
    return { what, finding: "replicas of the control store go before all else when one of them is lost" };
  } catch {
    const how = "ulimit -r 1, LimitRTPRIO=1 in a unit of systemd, or CAP_SYS_NICE";
    return { what, finding: `replicas of the control store run like all else; to go before it takes ${how}` };
  }
}

function cache(): Finding {
  const what = "cache";
  try {
    return { what, finding: cacheDirectory() };
  } catch (error) {
    return { what, finding: (error as Error).message, mend: "set RAYD_CACHE to a directory of your own" };
  }
}

function token(address: string | undefined): Finding {
  const what = "token";
  try {
    readToken();
    return { what, finding: Deno.env.get("RAYD_TOKEN") ? "in RAYD_TOKEN" : `in ${tokenFile()}` };
  } catch (error) {
    const finding = (error as Error).message;
    // Without a cluster none is needed: the first head makes one.
    return address === undefined
      ? { what, finding: "none yet; rayd head makes one" }
      : { what, finding, mend: "see above" };
  }
}
