/**
 * Actors outlive their nodes: clusters of the executable's processes in which the node of an actor, or of who calls it, is
 * killed or stopped while it is called. Whatever happens, each call is applied once, and in order.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { killActorNodes } from "../chaos/actor_node_kill.ts";
import { Running } from "./rayd.ts";
import { parse, TestCluster } from "./test_cluster.ts";

const ACTORS = `
import { actor, type ActorHandle, get, getActor, init, put, remote } from "rayd";
const print = (what: string, value: unknown) => console.log(what + ": " + JSON.stringify(value));
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
export class CounterObject {
  n = 0;
  by: Record<string, number[]> = {};
  add(who: string, i: number): number {
    (this.by[who] ??= []).push(i);
    return ++this.n;
  }
  sum(values: Float64Array): number { return this.n += values.length; }
  total(): number { return this.n; }
  /** Whether each caller's calls came in order, each once. */
  orderly(): boolean { return Object.values(this.by).every((list) => list.every((i, at) => i === at)); }
  node(): number { return Deno.ppid; }
  /** An actor of \`get(key)\` is on the node that asks for it first. */
  addByKey(): Promise<number> { return get(byKey().add.remote("by key", 0)); }
}
export const Counter = actor(CounterObject, { module: import.meta.url });
const byKey = () => Counter.options({ detached: true }).get("k");
export const adds = remote(async function adds(counter: ActorHandle<CounterObject>, who: string, count: number) {
  const seen: number[] = [];
  for (let i = 0; i < count; i++) {
    seen.push(await get(counter.add.remote(who, i)));
    await pause(5);
  }
  return seen;
}, { cpus: 0.1 });
`;

/** Runs a script, and kills the node that it names with \`node\` once it has printed \`now\`. */
async function runAndKill(
  cluster: TestCluster,
  signal: Deno.Signal,
  options: readonly string[] = [],
): Promise<Record<string, unknown>> {
  await using run = new Running(["run", ...options, "main.ts"], {
    cwd: cluster.directory.path,
    env: cluster.env,
  });
  await run.printed("now");
  const { node } = parse(run.stdout);
  const killed = cluster.nodes.find(({ pid }) => pid === node)!;
  if (signal === "SIGKILL") await killed.kill(signal);
  else Deno.kill(killed.pid, signal);
  const { code } = await run.ended();
  assertEquals(code, 0, run.stderr + run.stdout);
  const { node: _, now: __, ...printed } = parse(run.stdout);
  return printed;
}

const SOFT = ["--cpus", "1", "--labels", "of=actors"];

Deno.test("an actor whose node is killed goes on at another, and each call is applied once, in order", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ labels: { of: "actors" }, checkpoint: { every: 40 } }).remote();
  const before = await get(counter.node.remote());
  print("node", before);
  const others = ["a", "b", "c"].map((who) => adds.remote(counter, who, 150));
  const seen: number[] = [];
  for (let i = 0; i < 150; i++) {
    seen.push(await get(counter.add.remote("driver", i)));
    if (i === 50) print("now", true);
    await pause(5);
  }
  const all = [...seen, ...(await get(others)).flat()];
  print("answers are unique", new Set(all).size === 600);
  print("total", await get(counter.total.remote()));
  print("orderly", await get(counter.orderly.remote()));
  print("elsewhere", await get(counter.node.remote()) !== before);
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  assertEquals(await runAndKill(cluster, "SIGKILL"), {
    "answers are unique": true,
    "total": 600,
    "orderly": true,
    "elsewhere": true,
  });
});

for (const durable of [true, false]) {
  const what = durable ? "an actor" : "a mortal actor";
  Deno.test(`${what} that waits for resources of its node goes to one that joins and has them`, async () => {
    await using cluster = await TestCluster.start(
      ACTORS + `
if (import.meta.main) {
  await using _ = await init();
  const [first, second] = [1, 2].map(() => Counter.options({ cpus: 1, durable: ${durable} }).remote());
  const there = await get(first.node.remote());
  const calls = [0, 1, 2].map((i) => second.add.remote("driver", i));
  print("now", true);
  print("answers", await get(calls));
  print("elsewhere", await get(second.node.remote()) !== there);
}`,
      ["--cpus", "1"],
    );
    await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
    await run.printed("now");
    await cluster.worker(["--cpus", "1"]);
    const { code } = await run.ended();
    assertEquals(code, 0, run.stderr);
    assertEquals(parse(run.stdout), { "now": true, "answers": [1, 2, 3], "elsewhere": true });
  });
}

Deno.test("a call with a large argument is answered once the actor's state would survive its node", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ labels: { of: "actors" } }).remote();
  print("node", await get(counter.node.remote()));
  const large = new Float64Array(400_000), ref = await put(new Float64Array(300_000));
  let expected = 0, last = 0, right = true;
  for (let i = 0; i < 60; i++) {
    last = await get(i % 3 === 2 ? counter.add.remote("driver", i) : counter.sum.remote(i % 3 === 0 ? large : ref));
    expected += [400_000, 300_000, 1][i % 3]!;
    right &&= last === expected;
    if (i === 20) print("now", true);
    await pause(5);
  }
  print("each as it should be", right);
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  assertEquals(await runAndKill(cluster, "SIGKILL"), { "each as it should be": true });
});

Deno.test("a caller that is run again on another node gets the answers that it had, though the actor is elsewhere", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
export const callsOften = remote(async function callsOften(counter: ActorHandle<CounterObject>) {
  console.log("node: " + Deno.ppid);
  const seen: number[] = [];
  for (let i = 0; i < 100; i++) {
    seen.push(await get(counter.add.remote("task", i)));
    if (i === 50) console.log("now: true");
    await pause(i > 50 ? 20 : 0);
  }
  return seen;
}, { labels: { of: "actors" } });
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ cpus: 0.1, checkpoint: { every: 20 } }).remote();
  await get(counter.node.remote());
  const seen = await get(callsOften.remote(counter));
  print("seen", seen.every((n, i) => n === i + 1));
  print("total", await get(counter.total.remote()));
  print("orderly", await get(counter.orderly.remote()));
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("now: true");
  const node = Number(/node: (\d+)/.exec(run.stdout + run.stderr)![1]);
  await cluster.nodes.find(({ pid }) => pid === node)!.kill("SIGKILL");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(
    run.stdout.split("\n").filter((line) => /^(seen|total|orderly)/.test(line)),
    ["seen: true", "total: 100", "orderly: true"],
  );
});

Deno.test("named, detached and virtual actors are found with their state after their node has died", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
if (import.meta.main) {
  await using _ = await init();
  const [step] = Deno.args;
  const options = { labels: { of: "actors" }, name: "hits", detached: true };
  if (step === "make") {
    const counter = Counter.options(options).remote();
    for (let i = 0; i < 10; i++) await get(counter.add.remote("driver", i));
    const node = await get(counter.node.remote());
    print("node", node);
    print("by key", await get(counter.addByKey.remote()));
  } else {
    const counter = await getActor(Counter, "hits"), before = Number(Deno.args[1]);
    print("found", await get(counter.total.remote()));
    print("orderly", await get(counter.orderly.remote()));
    print("the same", await get((await Counter.options(options).getOrCreate()).total.remote()));
    print("by key", await get(byKey().total.remote()));
    print("by key, elsewhere", await get(byKey().node.remote()) !== before);
    const taken = await get(Counter.options(options).remote().total.remote()).catch((error) => error.code);
    print("taken", taken);
  }
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  const { node } = await cluster.run("make");
  await cluster.nodes.find(({ pid }) => pid === node)!.kill("SIGKILL");
  assertEquals(await cluster.run("find", String(node)), {
    "found": 10,
    "orderly": true,
    "the same": 10,
    "by key": 1,
    "by key, elsewhere": true,
    "taken": "ACTOR_NAME_TAKEN",
  });
});

Deno.test("a node that was silent for too long and comes back finds its actors gone, and answers for none", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.options({ labels: { of: "actors" } }).remote();
  const before = await get(counter.node.remote());
  print("node", before);
  print("now", true);
  const seen: number[] = [];
  let node = before;
  for (let i = 0; node === before || i < 100; i++) {
    seen.push(await get(counter.add.remote("driver", i)));
    if (node === before) node = await get(counter.node.remote());
  }
  print("unique", new Set(seen).size === seen.length);
  print("moved", true);
  // The former node is back once there are three again.
  const { nodes } = await import("rayd");
  while ((await nodes()).length < 3) await pause(20);
  for (let i = 0; i < 100; i++) seen.push(await get(counter.add.remote("again", i)));
  print("total", await get(counter.total.remote()) === seen.length);
  print("orderly", await get(counter.orderly.remote()));
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  await using run = new Running(["run", "main.ts"], { cwd: cluster.directory.path, env: cluster.env });
  await run.printed("now");
  const { node } = parse(run.stdout);
  const silent = cluster.nodes.find(({ pid }) => pid === node)!;
  Deno.kill(silent.pid, "SIGSTOP");
  await run.printed("moved");
  Deno.kill(silent.pid, "SIGCONT");
  assertEquals((await run.ended()).code, 0, run.stderr + run.stdout);
  const { node: _, now: __, ...printed } = parse(run.stdout);
  assertEquals(printed, { unique: true, moved: true, total: true, orderly: true });
});

Deno.test("nothing is lost and nothing applied twice, though nodes with actors are killed again and again", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  console.log(`seed ${seed}`);
  let state = seed;
  const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32;
  const { kills, wrong } = await killActorNodes(6, 3, random);
  assertEquals({ killed: kills > 0, wrong }, { killed: true, wrong: [] });
});

Deno.test("a task that runs again, as its result is lost with a node, applies its calls once, and gets their answers", async () => {
  await using cluster = await TestCluster.start(
    ACTORS + `
export const stamped = remote(
  async function stamped(counter: ActorHandle<CounterObject>): Promise<[number, Float64Array]> {
    const stamps = [await get(counter.add.remote("task", 0)), await get(counter.add.remote("task", 1))];
    return [Deno.ppid, new Float64Array(200_000).fill(stamps[0]! * 10 + stamps[1]!)];
  },
  { returns: 2, labels: { of: "actors" } },
);
if (import.meta.main) {
  await using _ = await init();
  const counter = Counter.remote();
  print("first", await get(counter.add.remote("driver", 0)));
  const [node, values] = stamped.remote(counter);
  const before = await get(node);
  print("node", before);
  print("now", true);
  while (running(before)) await pause(20);
  print("value", (await get(values))[199_999]);
  print("total", await get(counter.total.remote()));
}
function running(pid: number): boolean {
  try {
    return Deno.statSync("/proc/" + pid).isDirectory;
  } catch {
    return false;
  }
}`,
    ["--cpus", "1"],
    SOFT,
    SOFT,
  );
  assertEquals(await runAndKill(cluster, "SIGKILL"), { "first": 1, "value": 23, "total": 3 });
});
