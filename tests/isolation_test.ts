/**
 * Isolates in processes of their own: what ends one of them ends nothing else.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { get, init, WorkerCrashedError } from "../runtime/mod.ts";
import { temporaryFile, until } from "./fixtures/files.ts";
import * as f from "./fixtures/functions.ts";
import { killActors } from "./chaos/actor_kill.ts";

const MB = 1024 * 1024;

function onHosts(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({
      cpus: 2,
      storeMemory: 64 * MB,
      logLevel: "off",
      isolation: "process",
      ...options,
    });
    await body();
  });
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not reject");
}

onHosts("tasks run in other processes and share the store", async () => {
  const pids = await get(Array.from({ length: 8 }, () => f.pidLater.remote(50)));
  assertEquals(pids.includes(Deno.pid), false);
  assertEquals(new Set(pids).size, 2);
  assertEquals(await get(f.sum.remote(f.filled.remote(MB, 2))), 2 * MB);
  assertEquals(await get(f.fibonacci.remote(8)), 21);
});

onHosts("a host that is killed with -9 costs a retry and nothing else", async () => {
  using notes = temporaryFile();
  const ref = f.pidThenLater.remote(notes.path, 300);
  await until("the task runs", () => notes.lines().length === 1);
  const [first] = notes.lines();
  Deno.kill(Number(first), "SIGKILL");
  assertEquals(String(await get(ref)) === first, false);
  assertEquals(notes.lines().length, 2);
});

onHosts("a task that wants more memory than its host may use is retried, and fails typed", async () => {
  const error = await rejection(get(f.exhausts.options({ retries: 1 }).remote()));
  assertEquals(error instanceof WorkerCrashedError, true);
  assertStringIncludes((error as Error).message, "2 of 2 attempts");
  assertEquals(await get(f.square.remote(5)), 25);
}, { hostMemory: 200 * MB });

Deno.test("hosts end with their node", async () => {
  const pids = await (async () => {
    await using _ = await init({ cpus: 2, storeMemory: 16 * MB, logLevel: "off", isolation: "process" });
    return await get(Array.from({ length: 8 }, () => f.pidLater.remote(50)));
  })();
  for (const pid of new Set(pids)) {
    await until(`host ${pid} is gone`, () => {
      try {
        return /State:\s+Z/.test(Deno.readTextFileSync(`/proc/${pid}/status`));
      } catch {
        return true;
      }
    });
  }
});

Deno.test("hosts that compute end when their node is killed with -9", async () => {
  using notes = temporaryFile();
  const program = `
    import { init } from "${new URL("../runtime/mod.ts", import.meta.url)}";
    import { endlessWithPid } from "${new URL("./fixtures/functions.ts", import.meta.url)}";
    await init({ cpus: 1, storeMemory: 16 << 20, isolation: "process" });
    const ref = endlessWithPid.remote("${notes.path}");
    setInterval(() => ref, 1000);`;
  const config = new URL("../deno.json", import.meta.url).pathname;
  const script = `${notes.path}.ts`;
  Deno.writeTextFileSync(script, program);
  const driver = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", config, script],
    env: { RAYD_DENO_CONFIG: config },
  }).spawn();
  await until("the host computes", () => notes.lines().length === 1, 20_000);
  const host = Number(notes.lines()[0]);
  driver.kill("SIGKILL");
  await driver.status;
  await until("the host is gone", () => {
    try {
      return /State:\s+Z/.test(Deno.readTextFileSync(`/proc/${host}/status`));
    } catch {
      return true;
    }
  }, 5_000);
});

onHosts("a durable actor whose host is killed with -9, 20 times, loses and repeats no call", async () => {
  let state = 7;
  const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32;
  const { kills, wrong } = await killActors(20, 4, random);
  assertEquals([kills, wrong], [20, []]);
});
