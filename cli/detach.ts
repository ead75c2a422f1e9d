/**
 * `--detach`: starts the same command once more as a process of its own, in the background, and waits until it is up.
 *
 * The process tells that it is up by writing what it would have printed into a file that it was named; until then its
 * end is the command's failure, and the end of its log says why. Its log is bounded: when it has grown too large, it
 * is moved aside, once.
 *
 * @module
 */

import { stateDirectory } from "../transport/credentials.ts";
import { complain, print } from "./output.ts";

/** Names the file that a process in the background writes when it is up. */
const READY = "RAYD_READY_FILE", LOG = "RAYD_LOG_FILE";

/** How large a log grows before it is moved aside. */
const LOG_BYTES_MAX = 16 * 1024 * 1024;

/** How often its size is looked at, and how often the command looks whether the process is up. */
const LOG_LOOK_MS = 10_000, READY_LOOK_MS = 20;

/** How long a log stays that nobody writes to any more. */
const LOG_KEPT_MS = 30 * 24 * 3_600_000;

/** Lines of the log that are shown when the process did not come up. */
const LOG_LINES_SHOWN = 20;

/** Starts `rayd NAME ARGS` in the background. @returns The status. */
export async function detach(name: string, args: readonly string[]): Promise<number> {
  const directory = `${stateDirectory()}/log`;
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const run = Deno.makeTempDirSync({ prefix: "rayd-start-" });
  const ready = `${run}/ready`;
  const log = `${directory}/${name}-${new Date().toISOString().replaceAll(/[:.]/g, "")}-${Deno.pid}.log`;
  Deno.writeTextFileSync(log, "", { mode: 0o600 });
  removeOld(directory);
  try {
    const own = ownCommand();
    const child = new Deno.Command("sh", {
      args: ["-c", `exec "$0" "$@" >>"$${LOG}" 2>&1 </dev/null`, ...own, name, ...args],
      env: { [READY]: ready, [LOG]: log },
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true,
    }).spawn();
    let ended: Deno.CommandStatus | undefined;
    child.status.then((status) => ended = status);
    child.unref();
    for (;;) {
      const text = readIfThere(ready);
      if (text !== undefined) {
        print(
          `${text}It runs in the background as process ${child.pid}; "rayd stop" ends it. Its log is ${log}\n`,
        );
        return 0;
      }
      if (ended !== undefined) {
        const lines = Deno.readTextFileSync(log).trimEnd().split("\n");
        complain(`${lines.slice(-LOG_LINES_SHOWN).join("\n")}\n`);
        complain(
          `error: rayd ${name} ended before it was up, with status ${ended.code}. Its log is ${log}\n`,
        );
        return ended.code === 0 ? 1 : ended.code;
      }
      await new Promise((resolve) => setTimeout(resolve, READY_LOOK_MS));
    }
  } finally {
    Deno.removeSync(run, { recursive: true });
  }
}

/** The command is up. @param text What it says then: on standard output, or to the one that started it in the background. */
export function announceReady(text: string): void {
  const ready = Deno.env.get(READY), log = Deno.env.get(LOG);
  if (ready === undefined || log === undefined) return print(text);
  // Whatever this process starts is no process in the background of its own.
  Deno.env.delete(READY);
  Deno.env.delete(LOG);
  Deno.writeTextFileSync(`${ready}.tmp`, text);
  Deno.renameSync(`${ready}.tmp`, ready);
  const timer = setInterval(() => boundLog(log), LOG_LOOK_MS);
  Deno.unrefTimer(timer);
}

/** Removes logs that nobody has written to for long. */
function removeOld(directory: string): void {
  for (const { name } of [...Deno.readDirSync(directory)]) {
    try {
      const at = Deno.statSync(`${directory}/${name}`).mtime?.getTime() ?? Date.now();
      if (Date.now() - at > LOG_KEPT_MS) Deno.removeSync(`${directory}/${name}`);
    } catch {
      // Another start was faster.
    }
  }
}

function boundLog(log: string): void {
  try {
    if (Deno.statSync(log).size <= LOG_BYTES_MAX) return;
    // It is written to by appending, so that cutting it off goes on from its beginning.
    Deno.copyFileSync(log, `${log}.1`);
    Deno.truncateSync(log, 0);
  } catch {
    // Somebody has removed it, or the disk is full: then there is nothing to bound, or no way to.
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** What starts this program. */
function ownCommand(): string[] {
  const command = Deno.execPath();
  if (Deno.build.standalone) return [command];
  return [command, "run", "-A", "--no-check", "--quiet", Deno.mainModule];
}
