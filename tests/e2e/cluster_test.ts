/**
 * A cluster of the executable's own processes, as a user starts it: a head, workers, and scripts that run on them.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { killHeads } from "../chaos/gcs_kill.ts";
import { makeCertificates } from "./certificates.ts";
import { Hosts } from "./hosts.ts";
import { parse, TestCluster } from "./test_cluster.ts";
import { gone, project, RAYD, rayd, raydOutput, Running } from "./rayd.ts";

const FUNCTIONS = `
import { actor, cancel, context, died, get, getActor, init, kill, nodes, put, type Ref, remote, wait } from "rayd";
export const where = remote(function where(): string { return context().nodeId; });
export const busy = remote(async function busy(i: number, ms: number) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return [i, context().nodeId] as const;
});
export const visible = remote(function visible() { return [context().gpuIds.join(), Deno.env.get("CUDA_VISIBLE_DEVICES")]; });
export const fail = remote(function fail() { throw new RangeError("far away"); });
export const count = remote(function* count(n: number) { for (let i = 0; i < n; i++) yield i; });
export const filled = remote(function filled(n: number, by: number) { return new Float64Array(n).fill(by); });
export const sum = remote(function sum(a: Float64Array) { return a.reduce((x, y) => x + y, 0); });
export const boxed = remote(async function boxed() { return { inner: await put(new Float64Array(9000).fill(2)) }; });
export const unboxed = remote(async function unboxed(box: { inner: Ref<Float64Array> }) {
  return (await get(box.inner)).reduce((x, y) => x + y, 0);
});
export const forever = remote(function forever() { for (;;); });
export const tree = remote(async function tree(depth: number): Promise<number> {
  if (depth === 0) return 1;
  const [a, b] = await get([tree.remote(depth - 1), tree.remote(depth - 1)]);
  return a + b;
});
export const Counter = actor(class Counter {
  n = 0;
  kept: { ref: Ref<Float64Array> } | undefined;
  add(by = 1) { return this.n += by; }
  keep(box: { ref: Ref<Float64Array> }) { this.kept = box; }
  async read() { return (await get(this.kept!.ref)).length; }
  where() { return context().nodeId; }
  fail() { throw new TypeError("in the actor"); }
});
export const adding = remote(async function adding(counter: ReturnType<typeof Counter.remote>, times: number) {
  let last = 0;
  for (let i = 0; i < times; i++) last = await get(counter.add.remote());
  return last;
});
/** Waits until this node is connected to all of so many. */
const together = async (count: number) => {
  while ((await nodes()).length < count) await new Promise((resolve) => setTimeout(resolve, 10));
};
const print = (name: string, value: unknown) => console.log(name + ": " + JSON.stringify(value));
`;

Deno.test("a script uses a cluster as it would one machine: tasks, objects, actors, errors, streams", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const far = { gpus: 1 };
  print("nodes", (await nodes()).map(({ resources }) => [resources.cpu ?? 0, resources.gpu ?? 0]).sort());
  const [here, there] = await get([where.remote(), where.options(far).remote()]);
  print("gpu tasks go to where GPUs are", here !== there);
  print("and see theirs", await get(visible.options(far).remote()));
  const all = await get(Array.from({ length: 60 }, (_, i) => busy.remote(i, 30)));
  print("tasks spread", new Set(all.map(([, node]) => node)).size);
  print("results in order", all.every(([i], at) => i === at));
  print("tree", await get(tree.remote(6)));
  const big = filled.options(far).remote(100_000, 3);
  print("result from there", (await get(big)).length);
  print("argument from there", await get(sum.remote(big)));
  print("argument goes there", await get(sum.options(far).remote(await put(new Float64Array(100_000).fill(4)))));
  print("large argument by value", await get(sum.options(far).remote(new Float64Array(50_000).fill(5))));
  const box = boxed.options(far).remote();
  print("Ref inside of a result", await get((await get(box)).inner).then((a) => a.length));
  print("Ref passed on and back", [await get(unboxed.remote(box)), await get(unboxed.options(far).remote(box))]);
  let items = 0;
  for await (const ref of count.options(far).remote(300)) items += await get(ref);
  print("stream", items);
  try { await get(fail.options(far).remote()); } catch (e) { print("error", [e.code, e.cause.name, e.stack.includes("main.ts")]); }
  const endless = forever.options(far).remote();
  setTimeout(() => cancel(endless, { force: true }), 200);
  print("cancel", await get(endless).catch((e) => e.code));
  print("timeout", await get(forever.options({ ...far, timeout: 200 }).remote()).catch((e) => e.code));
  const counter = Counter.options({ gpus: 1, name: "counter" }).remote();
  print("actor is there", await get(counter.where.remote()) === there);
  print("calls in order", (await get(Array.from({ length: 200 }, () => counter.add.remote()))).every((n, i) => n === i + 1));
  print("calls from tasks", (await get([adding.remote(counter, 20), adding.remote(counter, 20)])).includes(240));
  await get(counter.keep.remote({ ref: await put(new Float64Array(20_000)) }));
  print("actor keeps a Ref", await get(counter.read.remote()));
  print("found by name", await get((await getActor(Counter, "counter")).add.remote(0)));
  print("name taken", await get(Counter.options({ name: "counter" }).remote().add.remote()).catch((e) => e.code));
  print("actor throws", await get(counter.fail.remote()).catch((e) => [e.code, e.cause.name]));
  const death = died(counter);
  kill(counter);
  print("killed", (await death).reason);
  print("call of the dead", await get(counter.add.remote()).catch((e) => e.code));
  const never = where.options({ gpus: 99 }).remote();
  const [ready] = await wait([never], { timeout: 300 });
  print("what no node has waits", ready.length);
  cancel(never);
}`,
    ["--cpus", "1"],
    ["--cpus", "1", "--gpus", "1"],
  );
  assertEquals(await cluster.run(), {
    "nodes": [[1, 0], [1, 1]],
    "gpu tasks go to where GPUs are": true,
    "and see theirs": ["0", "0"],
    "tasks spread": 2,
    "results in order": true,
    "tree": 64,
    "result from there": 100_000,
    "argument from there": 300_000,
    "argument goes there": 400_000,
    "large argument by value": 250_000,
    "Ref inside of a result": 9000,
    "Ref passed on and back": [18_000, 18_000],
    "stream": 44_850,
    "error": ["TASK_FAILED", "RangeError", true],
    "cancel": "TASK_CANCELLED",
    "timeout": "TASK_TIMEOUT",
    "actor is there": true,
    "calls in order": true,
    "calls from tasks": true,
    "actor keeps a Ref": 20_000,
    "found by name": 240,
    "name taken": "ACTOR_NAME_TAKEN",
    "actor throws": ["TASK_FAILED", "TypeError"],
    "killed": "it was killed with kill()",
    "call of the dead": "ACTOR_DIED",
    "what no node has waits": 0,
  });
  const status = await raydOutput(["status"], { env: cluster.env });
  assertStringIncludes(status, "head");
  assertStringIncludes(status, "gpu 1/1");
  const { nodes } = JSON.parse(await raydOutput(["status", "--json"], { env: cluster.env })) as {
    nodes: { role: string }[];
  };
  assertEquals(nodes.map(({ role }) => role).sort(), ["head", "worker"]);
});

Deno.test("rayd list shows what there is, and rayd status what is asked for and cannot be had, with the reason", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ name: "shown", cpus: 1 }).remote();
  await get(counter.add.remote());
  const kept = await put(new Float64Array(1e6));
  const large = filled.options({ resources: { far: 1 } }).remote(2e5, 1);
  await wait([large]);
  const tasks = [
    forever.options({ resources: { far: 1 } }).remote(),
    ...[1, 2, 3].map(() => forever.options({ cpus: 2, name: "wide" }).remote()),
    where.options({ resources: { unicorn: 1 } }).remote(),
  ];
  await wait(tasks, { timeout: 300 });
  console.log("running");
  await get(tasks);
  print("never", kept);
}`,
    ["--cpus", "2"],
    ["--cpus", "1", "--resources", "far=2"],
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("running");
  const list = async (...args: string[]) =>
    JSON.parse(await raydOutput(["list", ...args, "--json"], { env: cluster.env })) as Record<
      string,
      unknown
    >[];
  assertEquals((await list("nodes")).map(({ role }) => role).sort(), ["head", "worker"]);
  const tasks = await list("tasks", "--where", "name=forever");
  assertEquals(tasks.map(({ state }) => state).sort(), ["running", "with another node"]);
  assertEquals((await list("tasks", "--where", "name=wide")).length, 3);
  const [actor, ...others] = await list("actors");
  assertEquals([actor!.class, actor!.name, actor!.state, others.length], ["Counter", "shown", "alive", 0]);
  const objects = (await list("objects", "--where", "kind=value")).filter(({ bytes }) => Number(bytes) > 1e6);
  assertEquals(objects.map(({ where }) => String(where).replace(/ .*/, "")).sort(), [
    "memory",
    "memory",
    "node",
  ]);
  assertEquals((await list("workers")).some(({ state }) => state === "busy"), true);
  assertEquals((await list("jobs")).length, 1);
  assertEquals(await list("groups"), []);
  assertStringIncludes(await raydOutput(["list", "groups"], { env: cluster.env }), "no groups");
  const status = await raydOutput(["status"], { env: cluster.env });
  assertStringIncludes(status, "waiting for resources:");
  const waiting = status.split("\n").map((line) => line.trim().split(/ {2,}/).slice(0, 4).join("|"));
  assertEquals(waiting.includes("1|task where|{cpu: 1, unicorn: 1}|no node has that"), true, status);
  assertEquals(
    waiting.includes("3|task wide|{cpu: 2}|what it asks for is in use here: free cpu 1"),
    true,
    status,
  );
  const wrong = await rayd(["list", "everything"], { env: cluster.env });
  assertEquals([wrong.code, /nodes\|actors\|tasks/.test(wrong.stderr)], [2, true]);
  await using watching = new Running(["status", "--watch", "--json"], { env: cluster.env });
  await watching.printed("unicorn");
  await run.kill("SIGKILL");
  await watching.printed('"unmet":[]');
  await cluster.nodes[1]!.kill("SIGTERM");
  const events = (await list("events")).map(({ event }) => String(event));
  assertEquals(events.filter((text) => /^(?:head|worker) started at/.test(text)).length, 2);
  assertEquals(events.some((text) => text.startsWith("Task where waits")), true, events.join("\n"));
  assertEquals(events.includes("it has ended"), true);
});

Deno.test("tasks and actors go where their labels, their node or their wish to be spread take them", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  await together(3);
  const zone = new Map((await nodes()).map(({ id, labels }) => [id, labels.zone]));
  const zones = async (ids: string[]) => [...new Set(ids.map((id) => zone.get(id)))].sort();
  const run = (options: object, n = 12) => get(Array.from({ length: n }, () => where.options(options).remote()));
  print("labels", await zones(await run({ labels: { zone: "b" } })));
  print("labels and disk", await zones(await run({ labels: { zone: "b", disk: "ssd" } })));
  print("preferred", await zones(await run({ preferLabels: { zone: "c" } }, 1)));
  print("preferred, but there is none", (await run({ preferLabels: { zone: "z" } })).length);
  const c = (await nodes()).find(({ labels }) => labels.zone === "c")!.id;
  print("node", await zones(await run({ node: c })));
  const spread = await run({ spread: true }, 30);
  print("spread", [...new Set(spread)].map((id) => spread.filter((each) => each === id).length));
  print("actor with labels", zone.get(await get(Counter.options({ labels: { zone: "c" } }).remote().where.remote())));
  const actors = await get(Array.from({ length: 6 }, () => Counter.options({ spread: true }).remote().where.remote()));
  print("actors spread", new Set(actors).size);
  const never = where.options({ labels: { zone: "nowhere" } }).remote();
  print("waits", (await wait([never], { timeout: 200 }))[0].length);
  cancel(never);
  try { where.options({ node: "c" }); } catch (e) { print("wrong node", e.code); }
  try { where.options({ labels: { zone: 1 } } as never); } catch (e) { print("wrong labels", e.code); }
}`,
    ["--cpus", "1", "--labels", "zone=a"],
    ["--cpus", "1", "--labels", "zone=b,disk=ssd"],
    ["--cpus", "1", "--labels", "zone=c"],
  );
  assertEquals(await cluster.run(), {
    "labels": ["b"],
    "labels and disk": ["b"],
    "preferred": ["c"],
    "preferred, but there is none": 12,
    "node": ["c"],
    "spread": [10, 10, 10],
    "actor with labels": "c",
    "actors spread": 3,
    "waits": 0,
    "wrong node": "USAGE",
    "wrong labels": "USAGE",
  });
  // One machine alone says at once that it cannot.
  using directory = project({
    "main.ts": `import { actor, get, remote } from "rayd";
export const f = remote(function f() {}, { labels: { zone: "b" } });
export const A = actor(class A { g() {} }, { labels: { zone: "b" } });
if (import.meta.main) for (const ref of [f.remote(), A.remote().g.remote()]) await get(ref).catch((e) => console.log(e.code));`,
  });
  assertEquals(
    await raydOutput(["run", "main.ts"], { cwd: directory.path }),
    "UNSCHEDULABLE\nUNSCHEDULABLE\n",
  );
});

Deno.test("an actor of get(key) is one in the whole cluster, wherever it is asked for", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const far = remote(async function far(key: string) {
  const counter = Counter.get(key);
  return [await get(counter.add.remote()), await get(counter.where.remote())] as const;
});
if (import.meta.main) {
  await using _ = await init();
  await together(2);
  const there = { resources: { far: 1 } };
  const here = await get(where.options({ resources: { near: 1 } }).remote());
  const first = Counter.get("driver");
  print("made by the driver", [await get(first.add.remote()), (await get(first.where.remote())) === here]);
  const [count, node] = await get(far.options(there).remote("driver"));
  print("found from afar", [count, node === here]);
  const [one, other] = await get(far.options(there).remote("task"));
  print("made afar", [one, other !== here]);
  print("found by the driver", await get(Counter.get("task").add.remote()));
  const many = await get([...Array.from({ length: 4 }, () => far.options(there).remote("race")), ...Array.from({ length: 4 }, () => Counter.get("race").add.remote())]);
  print("made by many at once", many.map((value) => Array.isArray(value) ? value[0] : value).sort());
  print("keys", await get(Array.from({ length: 50 }, (_, i) => Counter.get("k" + i).add.remote())).then((all) => all.every((n) => n === 1)));
}`,
    ["--cpus", "1", "--resources", "near=1"],
    ["--cpus", "2", "--resources", "far=4"],
  );
  const env = { ...cluster.env, RAYD_NODE: /rayd head (\w+)/.exec(cluster.nodes[0]!.stdout)![1]! };
  assertEquals(parse(await raydOutput(["run", "main.ts"], { cwd: cluster.directory.path, env })), {
    "made by the driver": [1, true],
    "found from afar": [2, true],
    "made afar": [1, true],
    "found by the driver": 2,
    "made by many at once": [1, 2, 3, 4, 5, 6, 7, 8],
    "keys": true,
  });
});

Deno.test("tasks of a worker that is killed run elsewhere, and the script notices nothing", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const refs = Array.from({ length: 200 }, (_, i) => busy.remote(i, 30));
  const first = await wait(refs, { count: 40 });
  print("under way", first[0].length);
  const all = await get(refs);
  print("all in order", all.every(([i], at) => i === at));
  print("nodes left", (await nodes()).length);
}`,
    ["--cpus", "1"],
    ["--cpus", "1"],
    ["--cpus", "1"],
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("under way");
  await cluster.nodes[2]!.kill("SIGKILL");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), { "under way": 40, "all in order": true, "nodes left": 2 });
});

Deno.test("objects that die with a worker are made again, and what they were made of, when they are needed", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const doubled = remote(function doubled(a: Float64Array) { return a.map((x) => 2 * x); });
export const pair = remote(async function pair(): Promise<[Float64Array, Float64Array]> {
  await new Promise((resolve) => setTimeout(resolve, 500));
  return [new Float64Array(20_000).fill(1), new Float64Array(20_000).fill(2)];
});
export const behind = remote(async function behind(gate: string) {
  while (await Deno.stat(gate).then(() => false, () => true)) await new Promise((resolve) => setTimeout(resolve, 5));
  return new Float64Array(20_000).fill(3);
});
/** The end of a chain, whose other Refs are collected before anything of it has run. */
const endOfChain = async (gate: string, options: object) => {
  let left = 2;
  const registry = new FinalizationRegistry<undefined>(() => left--);
  const end = (() => {
    const first = behind.options(options).remote(gate), second = doubled.options(options).remote(first);
    for (const ref of [first, second]) registry.register(ref, undefined);
    return doubled.options(options).remote(second);
  })();
  while (left > 0) {
    (globalThis as unknown as { gc(): void }).gc();
    await get(busy.remote(0, 1));
  }
  await get(busy.remote(0, 1)); // the node has been told
  await Deno.writeTextFile(gate, "");
  return end;
};
if (import.meta.main) {
  await using _ = await init();
  const far = { resources: { far: 1 } };
  const end = await endOfChain(Deno.cwd() + "/gate", far);
  const refs = Array.from({ length: 6 }, (_, i) => filled.options(far).remote(20_000, i));
  // Each of the objects in between is let go of: it exists only as long as its reader has not run.
  const chains = refs.map((ref) => doubled.options(far).remote(doubled.options(far).remote(ref)));
  const box = boxed.options(far).remote();
  const inner = (await get(box)).inner;
  const both = pair.options({ ...far, returns: 2 }).remote();
  await wait([...refs, ...chains, end, ...both], { count: 15 });
  print("ready", true);
  while ((await nodes()).length === 2) await get(busy.remote(0, 5));
  const lost = await get(refs[0]!, { timeout: 300 }).catch((e) => e.code);
  print("nobody can make it now", lost);
  while ((await nodes()).length === 1) await get(busy.remote(0, 5));
  print("several of one task, while it runs again", await get(both.map((ref) => sum.options(far).remote(ref))));
  print("made again", (await get(refs)).map((a) => a[7]));
  print("and what was made of it", (await get(chains)).map((a) => a[7]));
  print("by a chain that nothing else was left of", (await get(end))[7]);
  print("many ask for one", await get(Array.from({ length: 8 }, () => sum.remote(refs[5]!))));
  print("inside of another", (await get(inner)).length);
  const put1 = await put(new Float64Array(20_000).fill(1));
  print("from what was put here", (await get(doubled.options(far).remote(put1)))[0]);
}`,
    ["--cpus", "2"],
    ["--cpus", "2", "--resources", "far=8"],
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("ready");
  await cluster.nodes[1]!.kill("SIGKILL");
  await run.printed("nobody");
  await cluster.worker(["--cpus", "2", "--resources", "far=8"]);
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), {
    "ready": true,
    "nobody can make it now": "GET_TIMEOUT",
    "several of one task, while it runs again": [20_000, 40_000],
    "made again": [0, 1, 2, 3, 4, 5],
    "and what was made of it": [0, 4, 8, 12, 16, 20],
    "by a chain that nothing else was left of": 12,
    "many ask for one": Array.from({ length: 8 }, () => 100_000),
    "inside of another": 9000,
    "from what was put here": 2,
  });
  await nothingKept(cluster.env);
});

Deno.test("what nobody can make again outlives the node that made it, where another node has read it", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const Maker = actor(class Maker {
  make() { return new Float64Array(20_000).fill(1); }
});
/** What it makes is read, and kept, on another node, but not on that of the program. */
export const makes = remote(async function makes() {
  const made = Maker.options({ resources: { dies: 1 }, durable: false }).remote().make.remote();
  const refs = { made, whole: await put(new Float64Array(30_000).fill(7)) };
  const keepers = [];
  const read = [];
  for (const ref of Object.values(refs)) {
    const keeper = Counter.options({ resources: { stays: 1 } }).remote();
    await get(keeper.keep.remote({ ref }));
    read.push(await get(keeper.read.remote()));
    keepers.push(keeper);
  }
  return { refs, read, keepers };
});
if (import.meta.main) {
  await using _ = await init();
  const { read, refs, keepers } = await get(makes.options({ resources: { dies: 1 }, retries: 0 }).remote());
  print("read there", read);
  print("ready", true);
  while ((await nodes()).length === 3) await get(busy.remote(0, 5));
  print("an actor's", (await get(refs.made)).reduce((a, b) => a + b));
  print("put", await get(sum.remote(refs.whole)));
  print("and who keeps them goes on", await get(keepers.map((keeper) => keeper.read.remote())));
}`,
    ["--cpus", "2"],
    ["--cpus", "1", "--resources", "dies=2"],
  );
  await cluster.worker(["--cpus", "1", "--resources", "stays=2"]);
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("ready");
  await cluster.nodes[1]!.kill("SIGKILL");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), {
    "read there": [20_000, 30_000],
    "ready": true,
    "an actor's": 20_000,
    "put": 210_000,
    "and who keeps them goes on": [20_000, 30_000],
  });
});

/** Waits until no node keeps an object any more. */
async function nothingKept(env: Readonly<Record<string, string>>): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    // A node that was killed may be listed for a while, and does not answer.
    const { stdout } = await rayd(["list", "objects", "--json"], { env });
    if (stdout.trim() === "[]") return;
    if (performance.now() > deadline) throw new Error(`objects are kept for nobody: ${stdout}`);
  }
}

Deno.test("what a task's tasks have made is made again, though the node that submitted them is gone as well", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const scaled = remote(async function scaled(box: { ref: Ref<Float64Array> }, by: number) {
  return (await get(box.ref)).map((x) => x * by);
});
/** Leaves nothing of its own: what it returns refers to what its tasks have made, one out of the other. */
export const nested = remote(async function nested(by: number) {
  const first = filled.remote(20_000, by);
  const second = scaled.remote({ ref: first }, 2);
  await wait([second]);
  return { second };
});
if (import.meta.main) {
  await using _ = await init();
  const boxes = await get([1, 2, 3].map((by) => nested.options({ resources: { far: 1 } }).remote(by)));
  print("ready", true);
  while ((await nodes()).some(({ resources }) => resources.far)) await get(busy.remote(0, 20));
  const values = await get(boxes.map(({ second }) => second));
  print("made again", values.map((value) => value[19_999]));
}`,
    ["--cpus", "0"],
    ["--cpus", "2", "--resources", "far=8"],
    ["--cpus", "0"],
  );
  await using run = new Running(["run", "main.ts"], {
    cwd: cluster.directory.path,
    env: { ...cluster.env, RAYD_NODE: /rayd head (\w+)/.exec(cluster.nodes[0]!.stdout)![1]! },
  });
  await run.printed("ready");
  await cluster.worker(["--cpus", "2"]);
  await cluster.nodes[1]!.kill("SIGKILL");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), { ready: true, "made again": [2, 4, 6] });
});

Deno.test("a head that is killed and started again on its directory finds its workers again, which have gone on", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ name: "kept" }).remote();
  print("before", await get(counter.add.remote()));
  for (;;) {
    await get(busy.remote(0, 20));
    const all = await nodes();
    if (all.length === 1) break; // the head is gone
  }
  print("alone", await get(Array.from({ length: 20 }, (_, i) => busy.remote(i, 1))).then((all) => all.length));
  while ((await nodes()).length < 2) await get(busy.remote(0, 20));
  print("together", await get(where.options({ resources: { head: 1 } }).remote()) !== await get(where.remote()));
  print("after", await get(counter.add.remote()));
}`,
    ["--cpus", "0"],
  );
  const port = cluster.address.split(":")[1]!;
  const worker = await cluster.worker(["--cpus", "2"]);
  // The script must be on the worker's node, for the head's goes away: that of the head takes no programs meanwhile.
  const head = cluster.nodes[0]!;
  await using run = new Running(["run", "main.ts"], {
    cwd: cluster.directory.path,
    env: { ...cluster.env, RAYD_NODE: /rayd worker (\w+)/.exec(worker.stdout)![1]! },
  });
  await run.printed("before");
  await head.kill("SIGKILL");
  await run.printed("alone");
  await cluster.head(["--port", port, "--cpus", "1", "--resources", "head=1"]);
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), { before: 1, alone: 20, together: true, after: 2 });
});

Deno.test("a program that is killed leaves nothing running on other nodes", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  if (Deno.args[0] === "look") {
    for (;;) {
      const [a, b] = await get([where.remote(), where.options({ gpus: 1 }).remote()]);
      if (a && b && await getActor(Counter, "left").then(() => false, () => true)) break;
    }
    print("all is free", true);
  } else {
    const counter = Counter.options({ gpus: 1, cpus: 1, name: "left" }).remote();
    await get(counter.add.remote());
    const refs = [forever.remote(), forever.options({ resources: { far: 1 } }).remote()];
    await wait(refs, { timeout: 300 });
    console.log("running");
    await get(refs);
  }
}`,
    ["--cpus", "1"],
    ["--cpus", "2", "--gpus", "1", "--resources", "far=1"],
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("running");
  await run.kill("SIGKILL");
  assertEquals(await cluster.run("look"), { "all is free": true });
});

Deno.test("a call that still runs when its program ends goes on where its actor outlives the program, here and elsewhere", async () => {
  await using cluster = await TestCluster.start(
    `
import { actor, get, getActor, init } from "rayd";
const print = (what: string, value: unknown) => console.log(what + ": " + JSON.stringify(value));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
export class CounterObject {
  n = 0;
  add(): number { return ++this.n; }
}
export const Counter = actor(CounterObject, { module: import.meta.url });
export class PollerObject {
  rounds = 0;
  last = 0;
  failures: string[] = [];
  async poll(): Promise<void> {
    const counter = await getActor(Counter, "counter");
    for (;; await pause(20)) {
      this.rounds++;
      await get(counter.add.remote()).then((n) => this.last = n, (error) => this.failures.push(String(error)));
    }
  }
  report() { return { rounds: this.rounds, last: this.last, failures: this.failures }; }
}
export const Poller = actor(PollerObject, { module: import.meta.url });
if (import.meta.main) {
  await using _ = await init();
  const until = async (name: string, rounds: number) => {
    const poller = await getActor(Poller, name);
    for (let i = 0; i < 500; i++, await pause(20)) {
      const report = await get(poller.report.remote());
      if (report.rounds < rounds) continue;
      return report.failures.length === 0 && report.last >= report.rounds - 1 ? "goes on" : report;
    }
    return "has ended";
  };
  for (const of of ["head", "worker"]) {
    if (Deno.args[0] === "make") {
      if (of === "head") await get(Counter.options({ name: "counter", detached: true }).remote().add.remote());
      const options = { name: of, labels: { of }, detached: true, durable: false, concurrency: 2 };
      const poller = Poller.options(options).remote();
      await get(poller.report.remote());
      poller.poll.remote();
    }
    print(of, await until(of, Deno.args[0] === "make" ? 5 : 100));
  }
}`,
    ["--cpus", "1", "--labels", "of=head"],
    ["--cpus", "1", "--labels", "of=worker"],
  );
  assertEquals(await cluster.run("make"), { head: "goes on", worker: "goes on" });
  assertEquals(await cluster.run("look"), { head: "goes on", worker: "goes on" });
});

Deno.test("joining with a wrong token, at a wrong address, or from a machine without a node says what to do", async () => {
  await using cluster = await TestCluster.start("", ["--cpus", "1"]);
  const other = { ...cluster.env, RAYD_TOKEN: "0".repeat(64) };
  const wrong = await rayd(["worker"], { env: other });
  assertEquals(wrong.code, 1);
  assertStringIncludes(wrong.stderr, "the token is wrong");
  const closed = await rayd(["worker", "--address", "127.0.0.1:1"], { env: cluster.env });
  assertEquals(closed.code, 1);
  assertStringIncludes(closed.stderr, "Cannot reach the control store");
  const none = await rayd(["worker"], { env: { ...cluster.env, HOME: `${cluster.directory.path}/nobody` } });
  assertEquals(none.code, 1);
  assertStringIncludes(none.stderr, "Cannot find the token");
  const bad = await rayd(["worker", "--address", "nowhere"], { env: cluster.env });
  assertEquals(bad.code, 2);
  const open = await rayd(["head", "--host", "0.0.0.0", "--port", "0"], { env: cluster.env });
  assertEquals(open.code, 1);
  assertStringIncludes(open.stderr, "--insecure-bind");
  using directory = project({ "main.ts": `import { init } from "rayd"; await init();` });
  const script = await rayd(["run", "main.ts"], { cwd: directory.path, env: other });
  assertStringIncludes(script.stderr, "the token is wrong");
});

Deno.test("a node that drains finishes what it has, takes nothing new, and ends; nothing runs twice", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const attempt = remote(async function attempt(ms: number) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return context().attempt;
});
if (import.meta.main) {
  await using _ = await init();
  const refs = Array.from({ length: 40 }, () => attempt.remote(50));
  await wait(refs, { count: 10 });
  console.log("under way");
  print("attempts", [...new Set(await get(refs))]);
  while ((await nodes()).length === 2) await get(attempt.remote(5));
  print("left", (await nodes()).length);
}`,
    ["--cpus", "1"],
    ["--cpus", "1"],
  );
  const worker = cluster.nodes[1]!;
  const id = /rayd worker (\w+)/.exec(worker.stdout)![1]!;
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("under way");
  assertStringIncludes(await raydOutput(["drain", id], { env: cluster.env }), "takes nothing new");
  assertEquals((await worker.ended()).code, 0, worker.stderr);
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertStringIncludes(run.stdout, "attempts: [1]\nleft: 1\n");
  const none = await rayd(["drain", "nobody"], { env: cluster.env });
  assertEquals(none.code, 1);
  assertStringIncludes(none.stderr, "no node of this cluster");
  const doctor = await rayd(["doctor"], { env: cluster.env });
  assertStringIncludes(doctor.stdout, "1 nodes, 1 here");
  assertStringIncludes(doctor.stdout, "ok     priority: replicas of the control store ");
});

Deno.test("variables and files of a program reach its tasks on any node, and no other program's", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
export const look = remote(function look() {
  const { env, workingDirectory: at } = context();
  return [env.LEVEL, env.FROM_FILE, at === undefined ? "" : Deno.readTextFileSync(at + "/data/x.txt")];
});
export const Looker = actor(class Looker { look() { return context().env.LEVEL ?? null; } });
export const nested = remote(async function nested() { return await get(look.remote()); });
if (import.meta.main) {
  await using _ = await init();
  const far = { resources: { far: 1 } };
  print("tasks", await get([look.remote(), look.options(far).remote(), nested.options(far).remote()]));
  print("actors", await get(Looker.options(far).remote().look.remote()));
  print("the script", Deno.env.get("LEVEL") ?? "");
}`,
    ["--cpus", "1"],
    ["--cpus", "1", "--resources", "far=1"],
  );
  Deno.mkdirSync(`${cluster.directory.path}/files/data`, { recursive: true });
  Deno.writeTextFileSync(`${cluster.directory.path}/files/data/x.txt`, "brought along");
  Deno.writeTextFileSync(`${cluster.directory.path}/.env`, "# settings\nexport FROM_FILE='a b' \n");
  const options = ["--env", "LEVEL=3", "--env-file", ".env", "--working-dir", "files"];
  const [cwd, env] = [cluster.directory.path, cluster.env];
  const expected = {
    tasks: Array.from({ length: 3 }, () => ["3", "a b", "brought along"]),
    actors: "3",
    "the script": "3",
  };
  const [first, other] = await Promise.all([
    raydOutput(["run", ...options, "main.ts"], { cwd, env }),
    cluster.run(),
  ]);
  assertEquals(parse(first), expected);
  const none = [null, null, ""];
  assertEquals(
    other,
    { tasks: [none, none, none], actors: null, "the script": "" } as Record<string, unknown>,
  );
  const alone = await raydOutput(["run", ...options, "--resources", "far=1", "main.ts"], {
    cwd,
    env: { HOME: env.HOME! },
  });
  assertEquals(parse(alone), expected);
  const wrong = await rayd(["run", "--working-dir", "nowhere", "main.ts"], { cwd, env });
  assertEquals([wrong.code, wrong.stderr.includes("no such directory")], [2, true]);
});

Deno.test("a program that Deno runs from its sources joins a cluster as well", async () => {
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const far = { resources: { far: 1 } };
  print("tasks", await get([sum.options(far).remote(filled.remote(1000, 2)), tree.remote(2)]));
  const counter = Counter.options(far).remote();
  print("actors", await get([counter.add.remote(), adding.remote(counter, 2), counter.add.remote()]).then((all) => all[0]));
}`,
    ["--cpus", "1"],
    ["--cpus", "1", "--resources", "far=2"],
  );
  const root = new URL("../../", import.meta.url).pathname;
  const run = async (env: Record<string, string>) => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--no-check",
        "--quiet",
        "--config",
        `${root}deno.json`,
        `${cluster.directory.path}/main.ts`,
      ],
      env: { ...cluster.env, ...env },
    }).output();
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  };
  const right = await run({ RAYD_EXECUTABLE: RAYD });
  assertEquals(right.code, 0, right.stderr);
  assertEquals(parse(right.stdout), { tasks: [2000, 4], actors: 1 });
  const wrong = await run({ RAYD_EXECUTABLE: "/nowhere/rayd" });
  assertEquals([wrong.code, wrong.stderr.includes("name it in RAYD_EXECUTABLE")], [1, true], wrong.stderr);
});

Deno.test("head and worker take their options from a file, and go to the background when they are up", async () => {
  using directory = project({
    "head.jsonc": `{ "cpus": 2, "store-memory": "64MB", "port": 0, "labels": { "zone": "a" } /* one */ }`,
    "worker.json": `{ "cpus": 9, "store-memory": "64MB", "resources": { "far": 2 } }`,
    "wrong.json": `{ "cpu": 2 }`,
    "wronger.json": `{ "labels": { "zone": 1 } }`,
  });
  const at = { cwd: directory.path, env: { HOME: directory.path } as Record<string, string> };
  const up = await raydOutput(["head", "--detach", "--config", "head.jsonc"], at);
  at.env.RAYD_ADDRESS = /is up at (\S+)/.exec(up)![1]!;
  await using _ = { [Symbol.asyncDispose]: async () => void await rayd(["stop"], at) };
  await raydOutput(["worker", "--config", "worker.json", "--cpus", "1", "--detach"], at);
  const list = await raydOutput(["status"], at);
  assertEquals(/cpu \d\/2/.test(list) && /cpu \d\/1, far 2\/2/.test(list), true, list);
  const failed = await rayd(["worker", "--detach", "--address", "127.0.0.1:9"], at);
  assertEquals(failed.code, 1);
  assertStringIncludes(failed.stderr, "127.0.0.1:9");
  for (
    const [file, words] of [["wrong.json", 'no option "cpu". Did you mean "cpus"?'], [
      "wronger.json",
      "texts by name",
    ]]
  ) {
    const { code, stderr } = await rayd(["head", "--config", file!], at);
    assertEquals(code, 2);
    assertStringIncludes(stderr, words!);
  }
  const pids = (JSON.parse(await raydOutput(["list", "nodes", "--json"], at)) as { pid: number }[]).map((
    { pid },
  ) => pid);
  await raydOutput(["stop"], at);
  for (const pid of pids) await gone(pid);
});

Deno.test("rayd stop ends the nodes of this machine, gently", async () => {
  await using cluster = await TestCluster.start("", ["--cpus", "1"], ["--cpus", "1"]);
  assertStringIncludes(await raydOutput(["stop"], { env: cluster.env }), "2 nodes told to end");
  for (const node of cluster.nodes) assertEquals((await node.ended()).code, 0, node.stderr);
});

Deno.test("hosts with addresses of their own: each program uses its host's node, and silence is noticed", async () => {
  await using hosts = await Hosts.make(3).catch((error: Error) => {
    console.log(`not tested: ${error.message}`);
    return undefined;
  });
  if (hosts === undefined) return;
  using directory = project({
    "main.ts": FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const far = { resources: { host2: 1 } };
  const places = await get([where.remote(), where.options(far).remote()]);
  print("two places", new Set(places).size);
  const big = filled.options(far).remote(3_000_000, 2);
  print("bytes over the network", await get(sum.remote(big)));
  print("nodes", (await nodes()).length);
  if (Deno.args[0] === "wait") {
    while ((await nodes()).length === 3) await get(busy.remote(0, 20));
    print("one is missed", (await nodes()).length);
    while ((await nodes()).length === 2) await get(busy.remote(0, 20));
    print("and found again", await get(where.options({ resources: { host1: 1 } }).remote()) !== places[0]);
  }
}`,
  });
  const on = (i: number, args: readonly string[], env: Record<string, string>) =>
    new Running(hosts.on(i, [RAYD, ...args]), { executable: "ip", env, cwd: directory.path });
  const env: Record<string, string> = { HOME: directory.path };
  const options = (
    i: number,
  ) => ["--host", hosts.address(i), "--insecure-bind", "--cpus", "1", "--store-memory", "128MB"];
  await using head = on(0, ["head", "--port", "6380", ...options(0)], env);
  await head.printed("The token is in");
  env.RAYD_ADDRESS = `${hosts.address(0)}:6380`;
  const open = on(1, ["worker", "--cpus", "1", "--store-memory", "128MB"], env);
  assertEquals((await open.ended()).code, 1);
  assertStringIncludes(open.stderr, "Cannot listen on 10.77.");
  await using worker1 = on(1, ["worker", "--resources", "host1=1", ...options(1)], env);
  await worker1.printed("has joined");
  await using worker2 = on(2, ["worker", "--resources", "host2=1", ...options(2)], env);
  await worker2.printed("has joined");
  await using fromHost1 = on(1, ["run", "main.ts"], env);
  assertEquals((await fromHost1.ended()).code, 0, fromHost1.stderr);
  assertEquals(parse(fromHost1.stdout), { "two places": 2, "bytes over the network": 6_000_000, "nodes": 3 });
  await using waiting = on(0, ["run", "main.ts", "wait"], env);
  await waiting.printed("nodes:");
  await hosts.link(1, "down");
  await waiting.printed("one is missed");
  await hosts.link(1, "up");
  assertEquals((await waiting.ended()).code, 0, waiting.stderr);
  assertEquals(parse(waiting.stdout)["and found again"], true);
});

Deno.test("what clients of the control store see is linearizable, though its head is killed again and again", async () => {
  let state = Date.now() | 0;
  console.log(`seed ${state}`);
  const random = () => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return (state >>> 0) / 2 ** 32;
  };
  const { kills, wrong } = await killHeads(8, 4, random);
  assertEquals({ kills, wrong }, { kills: 8, wrong: [] });
});

Deno.test("with certificates all links are encrypted, and whoever shows none of the authority's is not believed", async () => {
  using certificates = await makeCertificates();
  if (certificates === undefined) return;
  const file = (name: string) => `${certificates.path}/${name}`;
  const tls = ["--tls-cert", file("node.pem"), "--tls-key", file("node.key"), "--tls-ca", file("ca.pem")];
  await using cluster = await TestCluster.start(
    FUNCTIONS + `
if (import.meta.main) {
  await using _ = await init();
  const far = { gpus: 1 };
  print("tasks", new Set(await get([where.remote(), where.options(far).remote()])).size);
  print("bytes", await get(sum.remote(filled.options(far).remote(8_000_000, 1))));
}`,
    ["--cpus", "1", ...tls],
    ["--cpus", "1", "--gpus", "1", ...tls],
  );
  const env = { ...cluster.env, RAYD_TLS_CA: file("ca.pem") };
  const run = async (env: Record<string, string>) =>
    await rayd(["run", "main.ts"], { cwd: cluster.directory.path, env });
  assertEquals(parse((await run(env)).stdout), { tasks: 2, bytes: 8_000_000 });
  const plain = await run(cluster.env);
  assertEquals(plain.code, 1);
  const deceived = await run({ ...env, RAYD_TLS_CA: file("other.pem") });
  assertStringIncludes(deceived.stderr, "does not show a certificate of this cluster's authority");
  const half = await rayd(["head", "--port", "0", "--tls-cert", file("node.pem")], { env: cluster.env });
  assertEquals(half.code, 2);
  assertStringIncludes(half.stderr, "--tls-key");
});
