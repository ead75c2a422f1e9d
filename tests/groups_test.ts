/**
 * Placement groups: the plan against trying all plans, the coordinator in random worlds of nodes that vote, die and come,
 * and the whole by the public API on one node.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { Bundle, BundleMessage, Demand, GroupSpec, Strategy } from "../core/groups.ts";
import { taskIdFromHex } from "../core/ids.ts";
import type { TaskId } from "../core/ids.ts";
import {
  gang,
  get,
  init,
  kill,
  placementGroup,
  PlacementGroupError,
  UsageError,
  wait,
} from "../runtime/mod.ts";
import { planBundles, type PlanNode } from "../scheduler/bundle_plan.ts";
import { GroupCoordinator, type GroupEffect, RESERVE_MS_MAX } from "../scheduler/group_coordinator.ts";
import { ResourcePool, type Shape, Shapes } from "../scheduler/resources.ts";
import { busy, Gate, held, inBundle, ranks, whichResources } from "./fixtures/groups.ts";

const idOf = (n: number): TaskId => taskIdFromHex(n.toString(16).padStart(32, "0"));
const STRATEGIES: readonly Strategy[] = ["PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"];

const amounts = fc.record({ cpu: fc.integer({ min: 1, max: 4 }), gpu: fc.integer({ min: 0, max: 2 }) })
  .map(({ cpu, gpu }): Demand => gpu === 0 ? { cpu } : { cpu, gpu });

/** All ways to put bundles on nodes that the nodes can hold and the strategy allows. */
function allPlans(strategy: Strategy, bundles: readonly Bundle[], nodes: readonly PlanNode[]): number {
  let found = 0;
  const go = (at: number, rooms: readonly Record<string, number>[], used: readonly number[]) => {
    if (at === bundles.length) {
      found++;
      return;
    }
    rooms.forEach((room, n) => {
      if (strategy === "STRICT_PACK" && used.length > 0 && used[0] !== n) return;
      if (strategy === "STRICT_SPREAD" && used.includes(n)) return;
      const left = { ...room };
      for (const [name, units] of Object.entries(bundles[at]!.demand)) {
        left[name] = (left[name] ?? 0) - units;
        if (left[name]! < 0) return;
      }
      go(at + 1, rooms.map((other, i) => i === n ? left : other), [...used, n]);
    });
  };
  go(0, nodes.map(({ room }) => ({ ...room })), []);
  return found;
}

Deno.test("a bundle whose node had given it back before it was to commit it is reserved anew", () => {
  const nodes = [{ id: idOf(1), free: { cpu: 4 }, lasting: { cpu: 4 }, total: { cpu: 4 } }];
  const coordinator = new GroupCoordinator(() => nodes);
  const spec: GroupSpec = { id: "0a", name: "", strategy: "PACK", bundles: [{ cpu: 1 }] };
  const kinds = (effects: readonly GroupEffect[]) =>
    effects.map((effect) => effect.type === "tell" ? effect.message.kind : effect.type);
  const vote = (attempt: number, ok: boolean) =>
    kinds(coordinator.step({ type: "vote", id: "0a", attempt, node: idOf(1), ok, now: 0 }));
  assertEquals(kinds(coordinator.step({ type: "create", group: spec, job: idOf(9), now: 0 })), ["reserve"]);
  assertEquals(vote(1, true), ["commit", "changed"]);
  assertEquals(vote(1, false), ["changed", "reserve"], "it is not there after all");
  assertEquals(vote(2, true), ["commit", "changed"]);
  assertEquals(vote(1, false), [], "that was about the first attempt");
});

Deno.test("planBundles keeps to what nodes have and to the strategy, and strict plans are found where there are any", () => {
  const bundles = fc.array(amounts, { minLength: 1, maxLength: 4 });
  const rooms = fc.array(amounts, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom(...STRATEGIES), bundles, rooms, (strategy, demands, given) => {
      const asked = demands.map((demand, index) => ({ index, demand }));
      const nodes = given.map((room, i) => ({ id: idOf(i + 1), room }));
      const plan = planBundles(strategy, asked, new Map(), nodes);
      const possible = allPlans(strategy, asked, nodes);
      if (strategy.startsWith("STRICT")) assertEquals(plan !== undefined, possible > 0);
      if (plan === undefined) return;
      assertEquals([...plan.keys()].sort(), asked.map(({ index }) => index));
      assert(possible > 0, "the plan is one of those there are");
      const left = new Map(nodes.map(({ id, room }) => [id, { ...room } as Record<string, number>]));
      for (const { index, demand } of asked) {
        const room = left.get(plan.get(index)!)!;
        for (const [name, units] of Object.entries(demand)) room[name] = (room[name] ?? 0) - units;
      }
      for (const room of left.values()) assert(Object.values(room).every((units) => units >= 0), "it fits");
      const used = new Set(plan.values()).size;
      if (strategy === "STRICT_PACK") assertEquals(used, 1);
      if (strategy === "STRICT_SPREAD") assertEquals(used, asked.length);
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("planBundles packs onto one node where one has room, and spreads over all there are", () => {
  const nodes = [1, 2, 3].map((n) => ({ id: idOf(n), room: { cpu: n === 2 ? 4 : 3 } }));
  const bundles = [0, 1, 2, 3].map((index) => ({ index, demand: { cpu: 1 } }));
  assertEquals(new Set(planBundles("PACK", bundles, new Map(), nodes)!.values()), new Set([idOf(2)]));
  assertEquals(new Set(planBundles("SPREAD", bundles, new Map(), nodes)!.values()).size, 3);
  const kept = new Map([[7, idOf(1)]]);
  assertEquals(planBundles("STRICT_SPREAD", bundles.slice(0, 2), kept, nodes)!.get(0) !== idOf(1), true);
  assertEquals(planBundles("STRICT_PACK", bundles.slice(0, 2), kept, nodes)!.get(1), idOf(1));
});

/** Nodes that hold bundles as `node/bundles.ts` does, and what a coordinator says on its way to them. */
class World {
  readonly shapes = new Shapes();
  readonly pools = new Map<TaskId, ResourcePool>();
  /** Reserved and committed bundles, by node, group and attempt. */
  readonly held = new Map<
    TaskId,
    { group: string; attempt: number; shapes: Shape[]; committed: boolean }[]
  >();
  readonly mail: { node: TaskId; message: BundleMessage }[] = [];
  readonly coordinator = new GroupCoordinator(() =>
    Array.from(this.pools, ([id, pool]) => ({
      id,
      free: pool.free(),
      lasting: pool.lasting(),
      total: pool.total(),
    }))
  );
  now = 0;

  join(id: TaskId, total: Demand): void {
    this.pools.set(id, new ResourcePool(total));
    this.held.set(id, []);
  }

  die(id: TaskId): void {
    this.pools.delete(id);
    this.held.delete(id);
    for (let i = this.mail.length; i-- > 0;) if (this.mail[i]!.node === id) this.mail.splice(i, 1);
    this.take(this.coordinator.step({ type: "nodeGone", node: id, now: this.now }));
  }

  take(effects: readonly GroupEffect[]): void {
    for (const effect of effects) if (effect.type === "tell") this.mail.push(effect);
  }

  /** Delivers the oldest message to a node that has some, and what it answers at once. */
  deliver(node: TaskId): void {
    const at = this.mail.findIndex((each) => each.node === node);
    if (at < 0) return;
    const { message } = this.mail.splice(at, 1)[0]!;
    const pool = this.pools.get(node);
    const held = this.held.get(node);
    if (pool === undefined || held === undefined) return; // the node is gone
    const { group, attempt } = message;
    switch (message.kind) {
      case "reserve": {
        const shapes: Shape[] = [];
        for (const { demand } of message.bundles) {
          const shape = this.shapes.of(demand);
          if (pool.hold(shape) === undefined) break;
          shapes.push(shape);
        }
        const ok = shapes.length === message.bundles.length;
        if (ok) held.push({ group, attempt, shapes, committed: false });
        else for (const shape of shapes) pool.unhold(shape, []);
        return this.take(
          this.coordinator.step({ type: "vote", id: group, attempt, node, ok, now: this.now }),
        );
      }
      case "commit":
        for (const each of held) if (each.group === group && each.attempt === attempt) each.committed = true;
        return;
      case "release":
        for (let i = held.length; i-- > 0;) {
          const each = held[i]!;
          if (each.group !== group || attempt !== 0 && (each.attempt !== attempt || each.committed)) continue;
          held.splice(i, 1);
          for (const shape of each.shapes) pool.unhold(shape, []);
        }
    }
  }
}

Deno.test("GroupCoordinator reserves all or nothing, whatever nodes do, and in the end every group that can be is", () => {
  const action = fc.oneof(
    fc.record({
      kind: fc.constant("create" as const),
      strategy: fc.constantFrom(...STRATEGIES),
      demands: fc.array(amounts, { minLength: 1, maxLength: 3 }),
    }),
    fc.record({ kind: fc.constant("remove" as const), which: fc.nat(9) }),
    fc.record({ kind: fc.constant("die" as const), which: fc.nat(9) }),
    fc.record({ kind: fc.constant("join" as const), total: amounts }),
    fc.record({ kind: fc.constant("deliver" as const), which: fc.nat(9) }),
    fc.record({ kind: fc.constant("look" as const), ms: fc.integer({ min: 0, max: 400 }) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const world = new World();
      let nodes = 0, groups = 0;
      for (let i = 0; i < 3; i++) world.join(idOf(++nodes), { cpu: 4, gpu: 2 });
      const nth = <T>(all: Iterable<T>, n: number): T | undefined => {
        const list = [...all];
        return list[n % Math.max(1, list.length)];
      };
      for (const act of actions) {
        switch (act.kind) {
          case "create": {
            const id = (0x1000 + ++groups).toString(16).padStart(32, "0");
            const group: GroupSpec = { id, name: "", strategy: act.strategy, bundles: act.demands };
            world.take(world.coordinator.step({ type: "create", group, job: idOf(99), now: world.now }));
            break;
          }
          case "remove": {
            const id = nth(world.coordinator.groups(), act.which)?.spec.id;
            if (id !== undefined) world.take(world.coordinator.step({ type: "remove", id, now: world.now }));
            break;
          }
          case "die": {
            const id = nth(world.pools.keys(), act.which);
            if (id !== undefined && world.pools.size > 1) world.die(id);
            break;
          }
          case "join":
            world.join(idOf(++nodes), act.total);
            break;
          case "deliver": {
            const id = nth(world.pools.keys(), act.which);
            if (id !== undefined) world.deliver(id);
            break;
          }
          case "look":
            world.now += act.ms;
            world.take(world.coordinator.step({ type: "look", now: world.now }));
        }
      }
      // Left alone, everything that is on its way arrives, and what can be reserved is.
      for (let round = 0; round < 60; round++) {
        while (world.mail.length > 0) world.deliver(world.mail[0]!.node);
        world.now += RESERVE_MS_MAX;
        world.take(world.coordinator.step({ type: "look", now: world.now }));
      }
      while (world.mail.length > 0) world.deliver(world.mail[0]!.node);
      const known = new Map([...world.coordinator.groups()].map((group) => [group.spec.id, group]));
      const offered = new Map<string, number>();
      for (const held of world.held.values()) {
        for (const { group, committed, shapes } of held) {
          assert(known.has(group), "nothing is held for a group that was removed");
          assert(committed, "nothing stays reserved for an attempt that failed");
          offered.set(group, (offered.get(group) ?? 0) + shapes.length);
        }
      }
      for (const { spec, placed } of known.values()) {
        assertEquals(offered.get(spec.id) ?? 0, placed.size, "nodes offer what the coordinator says");
        if (placed.size === spec.bundles.length) continue;
        const missing = spec.bundles.map((demand, index) => ({ index, demand }))
          .filter(({ index }) => !placed.has(index));
        const rooms = Array.from(world.pools, ([id, pool]) => ({ id, room: pool.lasting() }));
        assertEquals(
          planBundles(spec.strategy, missing, placed, rooms),
          undefined,
          "what has room is reserved",
        );
      }
    }),
    { numRuns: 400 },
  );
});

Deno.test("a choice of resources takes the first alternative that fits, and the next when that is taken", async () => {
  await using _ = await init({ cpus: 4, gpus: 1 });
  const ask = whichResources.options({ resources: [{ gpu: 1, cpu: 1 }, { cpu: 2 }] });
  assertEquals(await get(ask.remote()), 1, "the GPU is free");
  const gate = Gate.options({ concurrency: 9 }).remote();
  const taken = held.options({ cpus: 1, gpus: 1 }).remote(gate);
  await get(gate.entered.remote());
  assertEquals(await get(ask.remote()), 0, "it is taken, and two CPUs do");
  await get(gate.open.remote());
  await get(taken);
  assertThrows(
    () => whichResources.options({ cpus: 1, resources: [{ gpu: 1 }] }),
    UsageError,
    "Cannot use cpus of whichResources with a list of resources",
  );
  const never = whichResources.options({ resources: [{ gpu: 2 }, { cpu: 9 }] }).remote();
  const error = await assertRejects(() => get(never));
  assertStringIncludes((error as Error).message, "it asks for {cpu: 1, gpu: 2} or {cpu: 9}");
});

Deno.test("a placement group holds its resources for those who name it, and gives them back", async () => {
  await using _ = await init({ cpus: 4, gpus: 2, resources: { licence: 1 } });
  const group = await placementGroup([{ cpus: 1, gpus: 1 }, { cpus: 2, resources: { licence: 1 } }], {
    name: "g",
  });
  assertEquals(group.size, 2);
  assertEquals(new Set(await group.nodes()).size, 1);
  const inFirst = inBundle.options({ ...group.bundle(0), cpus: 1, gpus: 1 });
  assertEquals(await get(inFirst.remote()), [1], "its GPUs reach tasks");
  assertEquals(
    await get(inBundle.options({ group, cpus: 0 }).remote()),
    [0],
    "with any bundle's room, and no GPU",
  );
  // A task in a bundle lends its CPU to the one that it waits for, in the same bundle.
  assertEquals(await get(ranks.options(group.bundle(0)).remote(group, 3)), [0, 1, 2]);

  const late = await assertRejects(() => placementGroup([{ cpus: 2 }], { timeout: 50 }), PlacementGroupError);
  assertStringIncludes(late.message, "within 50 ms: actors or other groups hold what it asks for");
  const never = await assertRejects(
    () => placementGroup([{ cpus: 1 }, { cpus: 1 }], { strategy: "STRICT_SPREAD", timeout: 50 }),
    PlacementGroupError,
  );
  assertStringIncludes(never.message, "STRICT_SPREAD");
  assertThrows(
    () => inBundle.options({ ...group.bundle(0), cpus: 2 }),
    UsageError,
    "the bundle holds {cpu: 1, gpu: 1}",
  );
  assertThrows(() => group.bundle(2), UsageError);
  assertThrows(() => inBundle.options({ bundle: 1 }), UsageError, "without a placement group");
  await assertRejects(() => placementGroup([]), UsageError, "1 to 1000 bundles");
  await assertRejects(() => placementGroup([{}]), UsageError, "it asks for nothing");

  const gate = Gate.options({ ...group.bundle(1), cpus: 1, concurrency: 9 }).remote();
  const running = held.options(group.bundle(0)).remote(gate);
  await get(gate.entered.remote());
  await group.remove();
  await assertRejects(() => get(running), PlacementGroupError, "was removed");
  await assertRejects(() => get(gate.entered.remote()), PlacementGroupError, "was removed");
  await assertRejects(() => get(inFirst.remote()), PlacementGroupError);
  await assertRejects(() => group.nodes(), PlacementGroupError);
  await using all = await placementGroup([{ cpus: 4, gpus: 2, resources: { licence: 1 } }]);
  assertEquals(all.size, 1, "all that it held is there again");
});

Deno.test("a group waits for the tasks that run, not for all that are queued before it", async () => {
  await using _ = await init({ cpus: 2 });
  const queued = Array.from({ length: 100 }, () => busy.remote(20));
  await wait(queued, { count: 1 });
  const group = await placementGroup([{ cpus: 2 }]);
  const [ended] = await wait(queued, { count: 100, timeout: 0 });
  assert(ended.length < 100, "it came before some of them");
  await group.remove();
  await get(queued);
});

Deno.test("a gang starts when there is room for all of it, and not before", async () => {
  await using _ = await init({ cpus: 3 });
  const gate = Gate.options({ cpus: 2, concurrency: 9 }).remote();
  await get(gate.open.remote());
  let submitted = 0;
  const refs = gang(3, { cpus: 1 }, (rank, place) => {
    submitted++;
    return inBundle.options(place).remote(rank);
  });
  await assertRejects(
    () => gang(3, { cpus: 1, timeout: 50 }, (rank, place) => inBundle.options(place).remote(rank)),
    PlacementGroupError,
  );
  assertEquals(submitted, 0);
  kill(gate);
  assertEquals(await get(await refs), [[0], [0], [0]]);
  await using again = await placementGroup([{ cpus: 3 }]);
  assertEquals(again.size, 1, "a gang that has ended holds nothing");
});
