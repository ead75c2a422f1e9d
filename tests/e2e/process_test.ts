/**
 * How runs end from outside: by signals, gently or not, leaving nothing behind.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { childrenOf, exists, project, Running } from "./rayd.ts";

const WAITING = `import { get, put, remote } from "rayd";
export const sleep = remote(function sleep(): Promise<void> {
  console.log("asleep");
  return new Promise(() => {});
});
export const spin = remote(function spin(): void {
  // What a task prints leaves when the task makes way, which this one never does.
  Deno.writeTextFileSync("spinning", "");
  for (;;);
});
if (import.meta.main) {
  await put(new Uint8Array(1 << 20));
  await get(Deno.args[0] === "spin" ? spin.remote() : sleep.remote());
}`;

const BUSY = `console.log("asleep");\nfor (;;);`;

/** What ends under a signal's default action, in a program that has just said "asleep". */
async function endBySignal(script: string, args: readonly string[], signal: Deno.Signal): Promise<void> {
  using directory = project({ "main.ts": script });
  const cache = `${directory.path}/cache`;
  await using run = new Running(["run", "main.ts", ...args], {
    cwd: directory.path,
    env: { RAYD_CACHE: cache },
  });
  if (args[0] === "spin") await exists(`${directory.path}/spinning`);
  else await run.printed("asleep");
  const children = childrenOf(run.pid);
  const status = await run.kill(signal);
  // For a shell, 128 + the signal's number.
  assertEquals(status.signal, signal);
  assertEquals(status.code, 128 + { SIGINT: 2, SIGTERM: 15, SIGKILL: 9 }[signal as "SIGINT"]);
  assertEquals(children.filter((pid) => childrenOf(1).includes(pid)), []);
  const left = [...Deno.readDirSync(cache)].map(({ name }) => name.slice(33)).sort();
  assertEquals(left, script === BUSY ? ["esbuild"] : ["esbuild", "libraystore.so"]);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGKILL"] as const) {
  Deno.test(`${signal} ends a script that waits for a task, at once and with nothing left`, async () => {
    await endBySignal(WAITING, [], signal);
  });
  Deno.test(`${signal} ends a script whose task computes without a pause`, async () => {
    await endBySignal(WAITING, ["spin"], signal);
  });
  Deno.test(`${signal} ends a script that itself computes without a pause`, async () => {
    await endBySignal(BUSY, [], signal);
  });
}

Deno.test("a script that handles a signal is left to do so", async () => {
  using directory = project({
    "main.ts": `Deno.addSignalListener("SIGINT", () => {
  console.log("mine");
  Deno.exit(9);
});
console.log("ready");
setInterval(() => {}, 1000);`,
  });
  await using run = new Running(["run", "main.ts"], { cwd: directory.path });
  await run.printed("ready");
  assertEquals((await run.kill("SIGINT")).code, 9);
  assertEquals(run.stdout, "ready\nmine\n");
});
