/**
 * The simulated cluster, and with it the scheduler's machines as they work together: small random clusters, with nodes
 * that die, in which each task must end once, nothing is lent twice, and the same seed brings the same run.
 *
 * That resources are never oversubscribed, that no task runs twice at once and that none ends twice, the world asserts by
 * itself, at every start and end.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { random } from "../bench/simulate/random.ts";
import type { SimObject, TaskDraft } from "../bench/simulate/task.ts";
import { World } from "../bench/simulate/world.ts";

const SEEDS = 300;

/** What runs end after, in virtual time: long after the slowest should. */
const MS_MAX = 60_000;

/** A random cluster with random work. Node 0 has a GPU, and never dies. */
function cluster(
  seed: number,
): { readonly world: World; readonly dead: ReadonlySet<number>; readonly tasks: number } {
  const chance = random(seed * 7919 + 1);
  const below = (n: number) => Math.floor(chance() * n);
  const nodes = Array.from({ length: 2 + below(10) }, (_, i) => {
    const gpus = i === 0 ? 1 + below(3) : below(3);
    return { cpu: 1 + below(4), ...gpus > 0 ? { gpu: gpus } : {} };
  });
  const central = chance() < 0.2;
  const world = new World({
    seed,
    nodes,
    locality: chance() < 0.5,
    ...central ? { central: { decisionMs: below(3) } } : {},
  }, true);
  const amounts: Record<string, number>[] = [
    { cpu: 1 },
    { cpu: 0.5 },
    { cpu: 0 },
    { cpu: 1, gpu: 1 },
    { cpu: 0, gpu: 0.5 },
  ];
  const shapes = amounts.map((each) => world.shape(each));
  // Objects lie on node 0 where others may die, for those of a dead node would have to be made again.
  const dying = !central && chance() < 0.6;
  const objects = chance() < 0.5 ? [] : Array.from({ length: 5 }, (): SimObject => ({
    home: dying ? 0 : below(nodes.length),
    bytes: 10 ** (3 + below(5)),
  }));
  const draft = (): TaskDraft => {
    const fn = below(shapes.length);
    const reads = chance() < 0.5 ? objects[below(5)] : undefined;
    return { shape: shapes[fn]!, fn, ms: chance() ** 4 * 20, ...reads === undefined ? {} : { reads } };
  };
  let tasks = 0;
  const drivers = chance() < 0.5 ? nodes.length : 1;
  for (let i = 0; i < drivers; i++) {
    let left = 20 + below(100);
    tasks += left;
    const pace = chance() < 0.5
      ? { kind: "window", tasks: 1 + below(80) } as const
      : { kind: "rate", perSecond: 100 + below(5_000) } as const;
    world.drive(i, pace, () => left-- > 0 ? draft() : undefined);
  }
  const dead = new Set<number>();
  for (let i = dying ? 1 + below(3) : 0; i > 0 && nodes.length > 1; i--) {
    const node = 1 + below(nodes.length - 1);
    dead.add(node);
    world.timeline.after(chance() * 60, () => world.kill(node));
  }
  return { world, dead, tasks };
}

Deno.test(`in ${SEEDS} random clusters each task ends once, and runs again only where a node died`, () => {
  const seen = { rerun: 0, orphaned: 0, delegated: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { world, dead, tasks } = cluster(seed);
    try {
      assert(world.run(MS_MAX), `${world.open.size} tasks have not ended`);
      if (dead.size === 0) assertEquals(world.specs!.length, tasks);
      for (const { number, origin, outcome, starts, finishes, losses } of world.specs!) {
        const name = `task ${number} (${outcome}, ${starts} starts, ${finishes} finishes, ${losses} losses)`;
        if (outcome === "orphaned") assert(dead.has(origin), name);
        if (outcome === "exhausted") assertEquals(losses, 4, name);
        if (outcome === "done") assert(finishes >= 1, name);
        assert(starts <= losses + 1 && finishes <= starts, name);
        if (losses > 0 && outcome === "done") seen.rerun++;
        if (outcome === "orphaned") seen.orphaned++;
      }
      seen.delegated += world.results().delegated > 0 ? 1 : 0;
    } catch (error) {
      throw new Error(`Seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  // What the clusters are to try has been tried.
  assert(seen.rerun > 50 && seen.orphaned > 50 && seen.delegated > 50, JSON.stringify(seen));
});

Deno.test("when all has ended, nothing is held on the nodes that live", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const { world } = cluster(seed);
    assert(world.run(MS_MAX));
    // What nobody waits for any more may still run: tasks of drivers that died.
    world.run(world.timeline.now + 1_000);
    for (const node of world.nodes) {
      if (!node.alive) continue;
      assertEquals(node.pool.free(), node.pool.total(), `seed ${seed}, node ${node.index}`);
      assertEquals(node.unfinished, 0, `seed ${seed}, node ${node.index}`);
    }
  }
});

Deno.test("the same seed brings the same run, another seed another one, and a clock changes nothing", () => {
  const run = (seed: number, clock?: () => number) => {
    const world = new World({ seed, nodes: [{ cpu: 2 }, { cpu: 4 }, { cpu: 1 }], ...clock ? { clock } : {} });
    const shape = world.shape({ cpu: 1 });
    let left = 500;
    world.drive(0, { kind: "rate", perSecond: 4_000 }, () => {
      return left-- > 0 ? { shape, ms: world.random() * 5 } : undefined;
    });
    assert(world.run(MS_MAX));
    return world.results();
  };
  const first = run(1);
  assertEquals(run(1), first);
  assertEquals(run(1, () => performance.now()).hash, first.hash);
  assertNotEquals(run(2).hash, first.hash);
});

Deno.test("a task whose nodes die again and again is given up after its retries", () => {
  const world = new World({
    seed: 1,
    nodes: [{ cpu: 1 }, ...Array.from({ length: 5 }, () => ({ cpu: 1, gpu: 1 }))],
  }, true);
  const draft = { shape: world.shape({ gpu: 1 }), ms: 1_000_000, retries: 2 };
  world.submit(0, [draft]);
  for (let i = 1; i <= 5; i++) {
    world.timeline.at(i * 50, () => {
      const at = world.nodes.findIndex((node) => node.alive && node.scheduler.counts().running > 0);
      if (at >= 0) world.kill(at);
    });
  }
  assert(world.run(MS_MAX));
  const [spec] = world.specs!;
  assertEquals([spec!.outcome, spec!.starts, spec!.losses], ["exhausted", 3, 3]);
});

Deno.test("a task runs where what it reads is, if places are chosen by that", () => {
  const run = (locality: boolean) => {
    const world = new World({ seed: 1, nodes: [{ cpu: 0 }, { cpu: 8 }, { cpu: 8 }], locality });
    const shape = world.shape({ cpu: 1 });
    let left = 200;
    world.drive(0, { kind: "window", tasks: 4 }, () => {
      if (left-- === 0) return undefined;
      return { shape, ms: 1, reads: { home: world.random() < 0.5 ? 1 : 2, bytes: 1e7 } };
    });
    assert(world.run(MS_MAX));
    return { bytes: world.network.bytes, ms: world.results().latencyMean };
  };
  const aware = run(true), unaware = run(false);
  assertEquals(aware.bytes, 0);
  assert(unaware.bytes > 50 * 1e7 && unaware.ms > aware.ms * 1.5, JSON.stringify({ aware, unaware }));
});

Deno.test("the work of one driver keeps ten nodes busy, and a short queue stays where it is", () => {
  const run = (tasks: number) => {
    const world = new World({ seed: 1, nodes: Array.from({ length: 10 }, () => ({ cpu: 4 })), warmMs: 500 });
    const shape = world.shape({ cpu: 1 });
    world.drive(0, { kind: "window", tasks }, () => ({ shape, ms: 5 }));
    world.run(1_000);
    return world.results();
  };
  const busy = run(400), idle = run(5);
  assert(busy.utilisation > 0.95, `only ${busy.utilisation} of the CPUs were busy`);
  assert(idle.delegated < 0.05, `${idle.delegated} of the tasks went elsewhere`);
});

Deno.test("what a driver submits when it is told of a result belongs to the run", () => {
  const world = new World({ seed: 1, nodes: [{ cpu: 1 }] });
  const shape = world.shape({ cpu: 1 });
  const chain = (left: number) => {
    world.submit(0, [{ shape, ms: 1, ended: () => left > 1 ? chain(left - 1) : undefined }]);
  };
  chain(10);
  assert(world.run(MS_MAX));
  assertEquals(world.results().tasks, 10);
});
