/**
 * Objects, through the public API on an embedded node: the store's limits, spilling, reference counting, zero copies.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  allocate,
  get,
  init,
  ObjectLostError,
  put,
  Queue,
  RaydError,
  type Ref,
  StoreFullError,
} from "../runtime/mod.ts";
import { clientIfAny } from "../runtime/session.ts";
import type { NodeStats } from "../node/questions.ts";
import { until } from "./fixtures/files.ts";
import * as f from "./fixtures/functions.ts";

const MB = 1024 * 1024;

function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * MB, logLevel: "off", ...options });
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

async function stats(): Promise<NodeStats> {
  return await clientIfAny()!.ask("stats") as NodeStats;
}

function bytesOf(fill: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(fill);
}

onNode("put and get of values of all kinds", async () => {
  const values: unknown[] = [
    undefined,
    null,
    1n << 100n,
    "text",
    { a: [1, { b: new Map([[1, new Set(["x"])]]) }] },
    new Date(0),
    /x/g,
    new Uint16Array([1, 2]),
    new RangeError("r"),
  ];
  for (const value of values) assertEquals(await get(await put(value)), value);
});

onNode("get of a large typed array is a view that several gets share, not a copy", async () => {
  const ref = await put(new Float32Array(4 * MB).fill(1.5));
  const before = (await stats()).store.used;
  const views = await Promise.all(Array.from({ length: 50 }, () => get(ref)));
  assertEquals((await stats()).store.used, before);
  assertEquals(views.every((view) => view.length === 4 * MB && view[4 * MB - 1] === 1.5), true);
});

onNode("a view stays valid when its Ref and its object are gone", async () => {
  const view = await get(await put(bytesOf(7, 8 * MB)));
  for (let i = 0; i < 40; i++) await put(bytesOf(i, 4 * MB));
  assertEquals([view[0], view[8 * MB - 1]], [7, 7]);
});

onNode("a task that is run again allocates what it has put before: the first value stays", async () => {
  const kept = new Queue<Ref<Float64Array>>();
  assertEquals(await get(f.allocatesAndDies.remote(kept)), 1);
  assertEquals((await get(await kept.get()))[9_999], 1);
  assertEquals(await kept.size(), 0);
});

onNode("allocate gives memory that put seals without a copy", async () => {
  const array = await allocate(Float64Array, MB);
  for (let i = 0; i < array.length; i++) array[i] = i;
  const before = (await stats()).store.used;
  const ref = await put(array);
  assertEquals((await stats()).store.used, before);
  assertEquals(await get(f.sum.remote(ref)), (MB - 1) * MB / 2);
  const small = await allocate(Uint8Array, 3);
  small.set([1, 2, 3]);
  assertEquals(await get(await put(small)), new Uint8Array([1, 2, 3]));
});

onNode("dropped objects are freed: a loop far beyond the store's size neither spills nor fails", async () => {
  for (let i = 0; i < 400; i++) await put(bytesOf(i & 255, 4 * MB)); // 1.6 GB through 64 MB
  assertEquals((await stats()).spilled.total, 0);
});

onNode("results that are dropped are freed as well", async () => {
  for (let i = 0; i < 100; i++) assertEquals((await get(f.zeros.remote(MB / 2))).length, MB / 2); // 4 MB each
  // Of the 400 MB that have gone through 64: how soon the engine finds out what nobody holds is its own affair.
  const { total } = (await stats()).spilled;
  assertEquals(total < 100 * MB, true, `${total} bytes were spilled`);
});

onNode("live data of five times the store is spilled and comes back", async () => {
  const refs: Ref<Uint8Array>[] = [];
  for (let i = 0; i < 80; i++) refs.push(await put(bytesOf(i, 4 * MB)));
  const { spilled } = await stats();
  assertEquals(spilled.bytes >= 320 * MB - 64 * MB, true);
  for (let i = 0; i < 80; i++) {
    const value = await get(refs[i]!);
    assertEquals([value.length, value[0], value[4 * MB - 1]], [4 * MB, i, i]);
  }
  // Spilled arguments come back for tasks as well.
  assertEquals(await get(f.sum.remote(refs[0] as unknown as Ref<Float64Array>)), 0);
  refs.length = 0;
  await until("what was spilled is freed", async () => {
    await put(bytesOf(0, 4 * MB));
    const { bytes } = (await stats()).spilled;
    return bytes < 64 * MB;
  });
});

onNode("tasks whose results together exceed the store finish", async () => {
  const refs = Array.from({ length: 60 }, (_, i) => f.filled.remote(MB / 2, i)); // 240 MB
  const sums = await get(refs.map((ref) => f.sum.remote(ref)));
  assertEquals(sums, Array.from({ length: 60 }, (_, i) => i * MB / 2));
});

onNode("an object larger than the whole store is refused with the sizes", async () => {
  const error = await rejection(put(bytesOf(1, 65 * MB)));
  assertEquals(error instanceof StoreFullError, true);
  assertStringIncludes((error as Error).message, String(64 * MB));
  const inTask = await rejection(get(f.zeros.remote(9 * MB)));
  assertEquals((inTask as RaydError).code, "STORE_FULL");
  const asArgument = await rejection(get(f.identity.remote(bytesOf(1, 65 * MB))));
  assertEquals((asArgument as RaydError).code, "STORE_FULL");
});

onNode(
  "a store full of values in use fails with StoreFullError within the deadline, and recovers",
  async () => {
    const views: Uint8Array[] = [];
    const error = await rejection((async () => {
      for (let i = 0; i < 20; i++) views.push(await get(await put(bytesOf(i, 4 * MB))));
    })());
    assertEquals(error instanceof StoreFullError, true);
    assertStringIncludes((error as Error).message, "in use by programs");
    assertEquals(views.every((view, i) => view[0] === i), true);
    views.length = 0;
    assertEquals((await get(await put(bytesOf(9, 8 * MB)))).length, 8 * MB);
  },
  { storeMemory: 32 * MB },
);

onNode("large arguments wait for room and are freed with their task", async () => {
  const results = await get(
    Array.from({ length: 50 }, (_, i) => f.sum.remote(new Float64Array(MB / 2).fill(i))),
  );
  assertEquals(results, Array.from({ length: 50 }, (_, i) => i * MB / 2));
  await until("the arguments are freed", async () => (await stats()).store.used < 8 * MB);
});

onNode("a Ref inside of an object keeps what it refers to", async () => {
  let inner: Ref<Uint8Array> | undefined = await put(bytesOf(5, 2 * MB));
  const outer = await put({ deep: [inner] });
  inner = undefined;
  for (let i = 0; i < 40; i++) await put(bytesOf(i, 4 * MB));
  const { deep: [again] } = await get(outer);
  assertEquals((await get(again!))[MB], 5);
});

onNode("an object that nobody holds is gone", async () => {
  const used = async () => (await stats()).store.used;
  await put(bytesOf(1, 8 * MB));
  await until("it is freed", async () => {
    await put(bytesOf(2, 4 * MB));
    return await used() <= 16 * MB;
  });
  assertEquals(ObjectLostError.name, "ObjectLostError");
});

Deno.test("values of a megabyte that are put one after the other use memory again that has been touched", async () => {
  const program = `
    import { init, put } from "${new URL("../runtime/mod.ts", import.meta.url)}";
    await using _ = await init({ cpus: 1, storeMemory: 512 << 20 });
    const value = new Uint8Array(1_000_000);
    const faults = () => Number(Deno.readTextFileSync("/proc/thread-self/stat").split(") ")[1].split(" ")[7]);
    for (let i = 0; i < 1000; i++) await put(value);
    const before = faults();
    for (let i = 0; i < 1000; i++) await put(value);
    console.log(faults() - before);`;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", "--v8-flags=--single-threaded-gc,--expose-gc", program],
    stderr: "inherit",
  }).output();
  const faults = Number(new TextDecoder().decode(stdout));
  assert(faults < 2000, `${faults} of 244,000 pages were faulted in`);
});

Deno.test("check mode names the task that changed what it only read", async () => {
  const program = `
    import { get, init, put } from "${new URL("../runtime/mod.ts", import.meta.url)}";
    import { mutating, sum } from "${new URL("./fixtures/functions.ts", import.meta.url)}";
    await using _ = await init({ cpus: 1, storeMemory: 16 << 20 });
    const ref = await put(new Float64Array(100_000));
    console.log(await get(sum.remote(ref)));
    try { await get(mutating.remote(ref)); } catch (error) { console.log(error.code, error.message); }`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", program],
    env: { RAYD_CHECK_IMMUTABLE: "1" },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertStringIncludes(text, "0\n");
  assertStringIncludes(text, "USAGE Task mutating");
});

Deno.test("spilling to a full disk fails with OutOfDiskError, and what is in memory stays", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "rayd-test-" });
  const mounted = await new Deno.Command("mount", {
    args: ["-t", "tmpfs", "-o", "size=8m", "tmpfs", directory],
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
    const refs: Ref<Uint8Array>[] = [];
    const error = await rejection((async () => {
      for (let i = 0; i < 20; i++) refs.push(await put(bytesOf(i, 2 * MB)));
    })());
    assertEquals((error as RaydError).code, "OUT_OF_DISK");
    assertStringIncludes((error as Error).message, directory);
    for (const [i, ref] of refs.entries()) assertEquals((await get(ref))[0], i);
  } finally {
    Deno.env.delete("RAYD_SPILL_DIR");
    await new Deno.Command("umount", { args: ["-l", directory] }).output();
    Deno.removeSync(directory);
  }
});

onNode("arguments of queued tasks are spilled like other objects", async () => {
  const slow = [f.later.remote(0, 1_500), f.later.remote(0, 1_500)];
  const sums = Array.from({ length: 40 }, (_, i) => f.sum.remote(new Float64Array(MB / 2).fill(i))); // 160 MB
  assertEquals(await get(sums), Array.from({ length: 40 }, (_, i) => i * MB / 2));
  await get(slow);
});
