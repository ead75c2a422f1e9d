/**
 * What actors do where something runs out: resources, time, room for their log or for their state.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  ActorDiedError,
  availableResources,
  get,
  getActor,
  init,
  kill,
  put,
  ready,
  type Ref,
  UnschedulableError,
  UsageError,
  wait,
} from "../runtime/mod.ts";
import { collectGarbage } from "../runtime/collect.ts";
import { systemClock } from "../core/clock.ts";
import * as f from "./fixtures/actors.ts";
import { until } from "./fixtures/files.ts";

const MB = 1024 * 1024;

/** Runs a test on a node of its own. */
function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * MB, logLevel: "off", ...options });
    await body();
  });
}

onNode(
  "an actor holds its GPUs and its memory for as long as it lives, and others wait for them",
  async () => {
    const holder = f.Sized.options({ gpus: 1, memory: 600 * MB }).remote(1);
    const { gpuIds, resources } = await get(holder.holds.remote());
    assertEquals([gpuIds.length, resources.gpu, resources.memory], [1, 1, 600 * MB]);
    const other = f.Sized.options({ gpus: 1 }).remote(1);
    const [otherId] = (await get(other.holds.remote())).gpuIds;
    assert(otherId !== gpuIds[0], "each has a GPU of its own");
    assertEquals((await availableResources()).gpu, 0);
    const third = f.Sized.options({ memory: 600 * MB }).remote(1);
    assertEquals((await wait([third.add.remote()], { timeout: 50 }))[0], []);
    kill(holder);
    assertEquals(await get(third.add.remote()), 2);
    const error = await assertRejects(
      () => ready(f.Sized.options({ gpus: 3 }).remote(1)),
      UnschedulableError,
    );
    assertStringIncludes(error.message, "Actor Sized can never run here: it asks for");
  },
  { gpus: 2, memory: 1000 * MB },
);

onNode("a detached actor outlives its handles, and ends by kill alone", async () => {
  (() => void f.Sized.options({ name: "kept", detached: true }).remote(1).add.remote())();
  const plain = f.Sized.options({ name: "plain" }).remote(1);
  await ready(plain);
  plain[Symbol.dispose]();
  await until("the other one is gone", async () => {
    await collectGarbage(systemClock);
    return await getActor(f.Sized, "plain").then(() => false, () => true);
  });
  const kept = await getActor(f.Sized, "kept");
  assertEquals(await get(kept.add.remote()), 2);
  kill(kept);
  await assertRejects(() => get(kept.add.remote()), ActorDiedError, "killed with kill()");
  await assertRejects(() => getActor(f.Sized, "kept"), UsageError, "no living actor");
});

onNode("checkpoints by time cover the calls before them", async () => {
  const saved = f.Saved.options({ checkpoint: { every: "50ms" } }).remote();
  await get(Array.from({ length: 100 }, () => saved.add.remote(1)));
  // Each look is a call, after which there is something to save.
  await until("its state was saved", async () => (await get(saved.counts.remote())).saves >= 2);
  kill(saved, { restart: true });
  const { n, replays } = await get(saved.counts.remote());
  assertEquals([n, replays], [100, 0]);
});

onNode("a log that has grown too long without a checkpoint fails calls with what to do", async () => {
  const actor = f.Unsavable.remote();
  const bytes = new Uint8Array(15_000);
  let error: unknown;
  for (let i = 0; i < 20 && error === undefined; i++) {
    try {
      await get(Array.from({ length: 1_000 }, () => actor.take.remote(bytes)));
    } catch (thrown) {
      error = thrown;
    }
  }
  assert(error instanceof UsageError, String(error));
  const { message } = error as UsageError;
  assertStringIncludes(message, "the log of durable actor Unsavable holds");
  assertStringIncludes(
    message,
    "Give the class saveState() and loadState(state), or make it durable: false",
  );
});

Deno.test("a checkpoint that finds no room, in memory or on disk, costs its actor nothing", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "rayd-test-" });
  const mounted = await new Deno.Command("mount", {
    args: ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory],
    stderr: "null",
  }).output().then((output) => output.success, () => false);
  if (!mounted) {
    console.log("not tested: mounting a small tmpfs needs root");
    Deno.removeSync(directory);
    return;
  }
  try {
    Deno.env.set("RAYD_SPILL_DIR", directory);
    await using _ = await init({ cpus: 1, storeMemory: 16 * MB, logLevel: "off" });
    const held: Ref<Uint8Array>[] = [];
    for (let i = 0; i < 5; i++) held.push(await put(new Uint8Array(2 * MB).fill(i)));
    const actor = f.Sized.options({ checkpoint: { every: 5 } }).remote(9 * MB);
    for (let i = 1; i <= 7; i++) assertEquals(await get(actor.add.remote()), i);
    kill(actor, { restart: true });
    assertEquals(await get(actor.add.remote()), 8, "its calls were kept");
    for (const [i, ref] of held.entries()) assertEquals((await get(ref))[0], i);
  } finally {
    Deno.env.delete("RAYD_SPILL_DIR");
    await new Deno.Command("umount", { args: ["-l", directory] }).output();
    Deno.removeSync(directory);
  }
});
