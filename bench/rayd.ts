/**
 * Measures rayd: the program that the harness starts once a round and group. The peers' programs in peers/ do the same
 * work with the same sizes; a change of one is a change of all.
 *
 *     deno run -A bench/rayd.ts '{"figures":["tasks_async"],"cpus":2,"seconds":2,"tasks":1000,"system":"rayd"}'
 *
 * @module
 */

import { actor, type ActorHandle, get, init, kill, put, type Ref, remote, VERSION, wait } from "rayd";
import type { Assignment, Line } from "./figures.ts";
import { treeMemory } from "./machine.ts";

const BIG_BYTES = 100_000_000;
const RESULT_BYTES = 1_000_000;
const STORE_BYTES = 2_000_000_000;
const IDLE_WORKERS = 8;

/** Ray's own microbenchmark's task. */
export const small = remote(function small(): string {
  return "ok";
});

export const increment = remote(function increment(x: number): number {
  return x + 1;
});

export const fib: { remote(n: number): Ref<number> } = remote(async function fib(n: number): Promise<number> {
  if (n < 2) return n;
  const [a, b] = await get([again.remote(n - 1), again.remote(n - 2)]);
  return a + b;
});
const again = fib;

export const nested = remote(async function nested(count: number): Promise<number> {
  const refs: Ref<string>[] = [];
  for (let i = 0; i < count; i++) refs.push(small.remote());
  return (await get(refs)).length;
});

export const megabyte = remote(function megabyte(): Uint8Array {
  return new Uint8Array(RESULT_BYTES);
});

export const sleep = remote(async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
});

class SmallActor {
  small(): string {
    return "ok";
  }
  async smallAsync(): Promise<string> {
    return await Promise.resolve("ok");
  }
  length(bytes: Uint8Array): number {
    return bytes.length;
  }
}

export const Small = actor(SmallActor, { module: import.meta.url });

/** Ray's own microbenchmark's n:n: tasks that call all of some actors in turn. */
export const callAll = remote(
  async function callAll(actors: readonly ActorHandle<SmallActor>[], calls: number): Promise<number> {
    const refs: Ref<string>[] = [];
    for (let i = 0; i < calls; i++) refs.push(actors[i % actors.length]!.small.remote());
    return (await get(refs)).length;
  },
);

const ACTOR_TASKS = 4;

async function main(assignment: Assignment): Promise<void> {
  print({ versions: { rayd: VERSION, deno: Deno.version.deno } });
  const asked = new Set(assignment.figures);
  const report = (figure: string, value: number) => asked.has(figure) && print({ figure, value });

  const started = performance.now();
  const cluster = await init({
    cpus: asked.has("idle") ? IDLE_WORKERS : assignment.cpus,
    storeMemory: STORE_BYTES,
  });
  await get(small.remote());
  report("start", (performance.now() - started) / 1000);

  for (const [figures, measure] of MEASURES) {
    if (!figures.some((name) => asked.has(name))) continue;
    try {
      await measure(report, assignment);
    } catch (error) {
      for (const figure of figures) print({ figure, error: String(error) });
    }
  }
  await cluster.shutdown();
}

type Report = (figure: string, value: number) => void;

const MEASURES: readonly (readonly [
  figures: readonly string[],
  measure: (report: Report, assignment: Assignment) => Promise<void>,
])[] = [
  [["tasks_async"], async (report, { seconds }) => {
    const perSecond = await rate(seconds, async () => {
      const refs: Ref<string>[] = [];
      for (let i = 0; i < 1000; i++) refs.push(small.remote());
      await get(refs);
    });
    report("tasks_async", perSecond * 1000);
  }],
  [["tasks_sync"], async (report, { seconds }) => {
    report("tasks_sync", await rate(seconds, () => get(small.remote())));
  }],
  [["fib"], async (report, { seconds }) => {
    report("fib", 1000 / await rate(seconds, () => get(fib.remote(8))));
  }],
  [["chain"], async (report, { seconds }) => {
    const perSecond = await rate(seconds, async () => {
      let ref = increment.remote(0);
      for (let i = 1; i < 100; i++) ref = increment.remote(ref);
      await get(ref);
    });
    report("chain", perSecond * 100);
  }],
  [["wait"], async (report, { seconds }) => {
    const perSecond = await rate(seconds, async () => {
      let pending: Ref<string>[] = [];
      for (let i = 0; i < 1000; i++) pending.push(small.remote());
      for (let i = 0; i < 1000; i++) [, pending] = await wait(pending, { count: 1 });
    });
    report("wait", perSecond);
  }],
  [["nested"], async (report, { seconds }) => {
    report("nested", await rate(seconds, () => get(nested.remote(100))) * 100);
  }],
  [["put_small"], async (report, { seconds }) => {
    report("put_small", await rate(seconds, () => put(0)));
  }],
  [["get_small"], async (report, { seconds }) => {
    const ref = await put(0);
    report("get_small", await rate(seconds, () => get(ref)));
  }],
  [["put_100mb", "put_100mb_share", "get_100mb"], async (report, { seconds }) => {
    const source = new Uint8Array(BIG_BYTES).fill(1);
    const target = new Uint8Array(BIG_BYTES).fill(2);
    // More than the store holds, so that every block has been touched.
    for (let i = 0; i < 1.5 * STORE_BYTES / BIG_BYTES; i++) await put(source);
    const copies = await rate(seconds / 2, () => target.set(source));
    const puts = await rate(seconds, () => put(source));
    report("put_100mb", puts * BIG_BYTES / 1e9);
    report("put_100mb_share", 100 * puts / copies);
    const ref = await put(source);
    report("get_100mb", 1e6 / await rate(seconds / 2, () => get(ref)));
  }],
  [["actor_sync"], async (report, { seconds }) => {
    using actor = Small.options({ durable: false }).remote();
    report("actor_sync", await rate(seconds, () => get(actor.small.remote())));
  }],
  [["actor_async"], async (report, { seconds }) => {
    using actor = Small.options({ durable: false }).remote();
    report("actor_async", 1000 * await rate(seconds, () => get(thousand(() => actor.small.remote()))));
  }],
  [["actor_durable"], async (report, { seconds }) => {
    using actor = Small.remote();
    report("actor_durable", 1000 * await rate(seconds, () => get(thousand(() => actor.small.remote()))));
  }],
  [["actor_interleaved"], async (report, { seconds }) => {
    using actor = Small.options({ concurrency: 1000 }).remote();
    const perSecond = await rate(seconds, () => get(thousand(() => actor.smallAsync.remote())));
    report("actor_interleaved", 1000 * perSecond);
  }],
  [["actor_many"], async (report, { seconds, cpus }) => {
    const actors = Array.from({ length: cpus }, () => Small.options({ durable: false }).remote());
    const perSecond = await rate(seconds, async () => {
      await get(Array.from({ length: ACTOR_TASKS }, () => callAll.remote(actors, 1000)));
    });
    report("actor_many", 1000 * ACTOR_TASKS * perSecond);
    for (const actor of actors) kill(actor);
  }],
  [["actor_1mb"], async (report, { seconds }) => {
    using actor = Small.options({ durable: false }).remote();
    const argument = new Uint8Array(RESULT_BYTES);
    report("actor_1mb", await rate(seconds, () => get(actor.length.remote(argument))));
  }],
  [["actors_20", "actors_light"], async (report) => {
    for (const [figure, isolate] of [["actors_20", "own"], ["actors_light", "shared"]] as const) {
      const began = performance.now();
      const actors = Array.from({ length: 20 }, () => Small.options({ isolate }).remote());
      await get(actors.map((actor) => actor.small.remote()));
      report(figure, (performance.now() - began) / 1000);
      for (const actor of actors) kill(actor);
    }
  }],
  [["actors_22"], async (report) => {
    const actors = Array.from({ length: 22 }, () => Small.remote());
    await get(actors.map((actor) => actor.small.remote()));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    report("actors_22", treeMemory(Deno.pid).now);
    for (const actor of actors) kill(actor);
  }],
  [["task_1mb"], async (report, { seconds }) => {
    report("task_1mb", await rate(seconds, () => get(megabyte.remote())));
  }],
  [["million", "million_peak"], async (report, { tasks }) => {
    const started = performance.now();
    const refs: Ref<string>[] = [];
    for (let i = 0; i < tasks; i++) refs.push(small.remote());
    await get(refs);
    report("million", (performance.now() - started) / 1000);
    report("million_peak", treeMemory(Deno.pid).peak);
  }],
  [["idle"], async (report) => {
    // Every worker has run a task.
    await get(Array.from({ length: IDLE_WORKERS }, () => sleep.remote(1000)));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    report("idle", treeMemory(Deno.pid).now);
  }],
];

/** How often a second `run` runs: a quarter of the time to warm up, then for `seconds`; at least once of each. */
async function rate(seconds: number, run: () => unknown): Promise<number> {
  await repeat(seconds / 4, run);
  return await repeat(seconds, run);
}

async function repeat(seconds: number, run: () => unknown): Promise<number> {
  const started = performance.now();
  let runs = 0, passed = 0;
  do {
    await run();
    runs++;
    passed = (performance.now() - started) / 1000;
  } while (passed < seconds);
  return runs / passed;
}

function thousand(call: () => Ref<string>): Ref<string>[] {
  return Array.from({ length: 1000 }, call);
}

function print(line: Line): void {
  console.log(JSON.stringify(line));
}

if (import.meta.main) {
  await main(JSON.parse(Deno.args[0]!) as Assignment);
  Deno.exit(0);
}
