/**
 * Placement groups and alternatives on clusters of the executable's own processes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Running } from "./rayd.ts";
import { parse, TestCluster } from "./test_cluster.ts";

const FUNCTIONS = `
import {
  actor, context, gang, get, init, nodes, placementGroup, type PlacementGroup, remote, wait,
} from "rayd";
export const where = remote(function where(): string { return context().nodeId; });
export const within = remote(async function within(group: PlacementGroup, bundle: number) {
  return await get(where.options(group.bundle(bundle)).remote());
});
export const making = remote(async function making() {
  await using group = await placementGroup([{ cpus: 1 }]);
  return [(await group.nodes())[0], await get(where.options(group.bundle(0)).remote())];
});
export const Where = actor(class Where { where() { return context().nodeId; } });
export const busy = remote(function busy(ms: number) { const end = performance.now() + ms; while (performance.now() < end); });
const print = (name: string, value: unknown) => console.log(name + ": " + JSON.stringify(value));
`;

Deno.test("placement groups hold bundles on several nodes, and all of their nodes' programs and tasks use them", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  while ((await nodes()).length < 3) await new Promise((resolve) => setTimeout(resolve, 10));
  const choice = where.options({ resources: [{ gpu: 1, cpu: 1 }, { cpu: 2 }] });
  print("alternatives", await get(choice.remote()) === await get(where.options({ cpus: 0, resources: { far: 1 } }).remote()));
  const [a, b, c] = await Promise.all([
    placementGroup([{ cpus: 1 }, { cpus: 1 }, { cpus: 1 }], { strategy: "STRICT_SPREAD", name: "spread" }),
    placementGroup([{ cpus: 1 }, { cpus: 1 }], { strategy: "STRICT_PACK" }),
    placementGroup([{ gpus: 1 }, { gpus: 1 }]),
  ]);
  const spread = await a.nodes(), packed = await b.nodes();
  print("each on another", new Set(spread).size);
  print("both on one", new Set(packed).size);
  print("tasks are there", (await get([0, 1, 2].map((i) => where.options(a.bundle(i)).remote()))).join() === spread.join());
  print("asked from elsewhere", await get(within.options({ resources: { far: 1 } }).remote(a, 1)) === spread[1]);
  const one = Where.options({ ...b.bundle(1), cpus: 1 }).remote();
  print("and actors", await get(one.where.remote()) === packed[1]);
  print("GPUs are where they are", await get(where.options({ ...c.bundle(0), cpus: 0, gpus: 1 }).remote()) === await get(where.options({ cpus: 0, resources: { far: 1 } }).remote()));
  const state = await a.nodes();
  print("described elsewhere", state.length);
  print("full", await placementGroup([{ cpus: 2 }], { timeout: 300 }).catch((error) => error.code));
  await Promise.all([a.remove(), b.remove(), c.remove()]);
  await using all = await placementGroup([{ cpus: 2 }, { cpus: 2 }, { cpus: 2, gpus: 2 }], { timeout: "20s" });
  print("all is there again", all.size);
  await all.remove();
  const [node, ran] = await get(making.options({ resources: { far: 1 } }).remote());
  print("made by a task", node === ran);
  print("a gang", (await get(await gang(6, { cpus: 1 }, (_, place) => where.options(place).remote()))).length);
}`,
    ["--cpus", "3"],
    ["--cpus", "2"],
    ["--cpus", "2", "--gpus", "2", "--resources", "far=9"],
  );
  assertEquals(await cluster.run(), {
    "each on another": 3,
    "both on one": 1,
    "tasks are there": true,
    "asked from elsewhere": true,
    "and actors": true,
    "GPUs are where they are": true,
    "described elsewhere": 3,
    "full": "PLACEMENT_GROUP",
    "all is there again": 3,
    "made by a task": true,
    "a gang": 6,
    "alternatives": true,
  });
});

Deno.test("bundles that die with a node are reserved on another, and what a dead program reserved is free again", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  if (Deno.args[0] === "after") {
    await using group = await placementGroup([{ cpus: 1 }, { resources: { far: 4 } }], { timeout: "30s" });
    print("free again", group.size);
  } else {
    const group = await placementGroup([{ cpus: 1 }, { resources: { far: 4 } }]);
    const before = await group.nodes();
    print("ready", true);
    while ((await nodes()).length > 1) await get(busy.remote(5));
    print("lost", (await group.nodes()).map((node) => node !== ""));
    const waiting = where.options({ ...group.bundle(1), cpus: 0, resources: { far: 1 } }).remote();
    print("waits", (await wait([waiting], { timeout: 100 }))[0].length);
    console.log("bring another");
    const node = await get(waiting);
    const after = await group.nodes();
    print("kept", after[0] === before[0]);
    print("anew", after[1] === node && node !== before[1]);
    console.log("kill me");
    await new Promise(() => setInterval(() => {}, 1000));
  }
}`,
    ["--cpus", "2"],
    ["--cpus", "0", "--resources", "far=4"],
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("ready");
  await cluster.nodes[1]!.kill("SIGKILL");
  await run.printed("bring another");
  await cluster.worker(["--cpus", "0", "--resources", "far=4"]);
  await run.printed("kill me");
  await run.kill("SIGKILL");
  assertEquals(parse(run.stdout.replaceAll(/^(bring another|kill me)\n/gm, "")), {
    ready: true,
    lost: [true, false],
    waits: 0,
    kept: true,
    anew: true,
  });
  assertEquals(await cluster.run("after"), { "free again": 2 });
});
