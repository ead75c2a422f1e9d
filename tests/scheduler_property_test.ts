/**
 * The local scheduler and its parts, held to their promises in random worlds. A failing run names its seed; pass it as
 * SCHEDULER_SEED to repeat it.
 *
 * @module
 */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import type { ObjectId } from "../core/ids.ts";
import { RESOURCE_UNIT } from "../core/options.ts";
import { Dependencies } from "../scheduler/dependencies.ts";
import { FairQueue } from "../scheduler/queue.ts";
import { ResourcePool, type Shape, Shapes } from "../scheduler/resources.ts";
import { SimTask, Simulation, units } from "./scheduler_sim.ts";

const SEED = Deno.env.get("SCHEDULER_SEED");

/** Runs a world for each of many seeds, and names the seed that failed. */
function forSeeds(count: number, run: (seed: number) => void): void {
  const seeds = SEED === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(SEED)];
  for (const seed of seeds) {
    try {
      run(seed);
    } catch (error) {
      throw new Error(`SCHEDULER_SEED=${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
}

const DEMANDS: readonly Readonly<Record<string, number>>[] = [
  { cpu: 1 },
  { cpu: 1 },
  { cpu: 1 },
  { cpu: 0.25 },
  { cpu: 0.3 },
  { cpu: 2 },
  { cpu: 4 },
  {},
  { gpu: 1 },
  { cpu: 1, gpu: 0.5 },
  { cpu: 0.5, gpu: 2 },
  { cpu: 1, licence: 1 },
  { licence: 2 },
  { cpu: 1, memory: 3 },
];

function randomWorld(seed: number, lateAnswers: boolean): void {
  const world = new Simulation({
    seed,
    total: { cpu: 4, gpu: 2, licence: 2, memory: 8 },
    isolatesMax: 1 + seed % 9,
    lateAnswers,
  });
  const { random } = world;
  const crashes = random() < 0.7;
  const shapes = DEMANDS.filter(() => random() < 0.5).map((demand) => world.shape(demand));
  if (shapes.length === 0) shapes.push(world.shape({ cpu: 1 }));
  for (let action = 0; action < 300; action++) {
    world.now += random() < 0.05 ? 400 : random();
    const dice = random();
    if (dice < 0.3) {
      const task = world.create(world.pick(shapes)!, {
        job: world.pick(["a", "b", "c"])!,
        priority: world.pick([0, 0, 0, 1, -1])!,
        retries: world.pick([0, 1, 3])!,
        ms: world.pick([0.01, 0.5, 10])!,
      });
      if (random() < 0.9) world.ready(task);
    } else if (dice < 0.36) {
      const running = world.pick(world.in("running"));
      if (running !== undefined) world.finish(running, true);
    } else if (dice < 0.46) {
      const running = world.pick(world.in("running"));
      if (running !== undefined) world.suspend(running);
    } else if (dice < 0.47) {
      const isolate = world.pick(world.isolates);
      if (crashes && isolate !== undefined) world.gone(isolate, random() < 0.5);
    } else if (dice < 0.5) {
      const task = world.pick(world.tasks.filter(({ place, wanted }) => place !== "ended" && wanted));
      if (task !== undefined) world.cancel(task);
    } else if (dice < 0.51) {
      if (world.spawning > 0) world.spawned(false);
    } else if (dice < 0.52) world.tick();
    else world.progress();
  }
  world.runOut();
}

Deno.test("LocalScheduler keeps all its promises in random worlds, revokes answered at once", () => {
  forSeeds(400, (seed) => randomWorld(seed, false));
});

Deno.test("LocalScheduler keeps all its promises in random worlds, revokes answered late", () => {
  forSeeds(400, (seed) => randomWorld(seed, true));
});

// --- Fairness, starvation, priorities ---

/** Runs a world to its end, a task taking as long as `ms` says, until `stop`. */
function runWith(
  world: Simulation,
  ms: (task: SimTask) => number,
  each: () => void,
  stop: () => boolean,
): void {
  const ends = new Map<SimTask, number>();
  while (!stop()) {
    each();
    while (world.spawning > 0) world.spawned(true);
    for (let startable = world.startable(); startable.length > 0; startable = world.startable()) {
      for (const isolate of startable) {
        const task = isolate.order[0]!;
        world.start(isolate);
        ends.set(task, world.now + ms(task));
      }
    }
    world.now += 1;
    world.tick();
    for (const [task, end] of ends) {
      if (end > world.now || task.place !== "running") continue;
      ends.delete(task);
      world.finish(task);
    }
  }
}

Deno.test("LocalScheduler gives two busy jobs equal shares over any window of tasks", () => {
  forSeeds(10, (seed) => {
    const world = new Simulation({ seed, total: { cpu: 4 }, isolatesMax: 4, lateAnswers: false });
    const cpu = world.shape({ cpu: 1 });
    // One job has a thousand tasks queued before the other has its first.
    for (let i = 0; i < 1_000; i++) world.submit(cpu, { job: "early" });
    for (let i = 0; i < 300; i++) world.submit(cpu, { job: "late" });
    const late = () =>
      world.tasks.filter(({ job, place }) => job === "late" as string && place === "queued").length;
    runWith(world, () => 1 + world.random() * 3, () => {}, () => late() === 0);
    const first = world.sent.findIndex(({ job }) => job === "late" as string);
    const last = world.sent.findLastIndex(({ job }) => job === "late" as string);
    let balance = 0, most = 0, least = 0;
    for (const { job } of world.sent.slice(first, last)) {
      balance += job === "late" as string ? 1 : -1;
      most = Math.max(most, balance);
      least = Math.min(least, balance);
    }
    assert(most - least <= 2, `shares differ by ${most - least}`);
    world.runOut();
  });
});

Deno.test("LocalScheduler runs a task that needs the whole machine though small ones keep coming", () => {
  for (const deep of [false, true]) {
    const world = new Simulation({ seed: 1, total: { cpu: 4 }, isolatesMax: 6, lateAnswers: false });
    const small = world.shape({ cpu: 1 });
    // With a deep queue, the small tasks have waited as long as the large one has.
    for (let i = 0; i < (deep ? 4_000 : 20); i++) world.submit(small, { job: "small", ms: 5 });
    const large = world.submit(world.shape({ cpu: 4 }), { job: "large" });
    const next = () => {
      for (let i = 0; i < 4; i++) world.submit(small, { job: "small", ms: 5 });
    };
    runWith(world, () => 5, deep ? () => {} : next, () => large.place === "ended" || world.now > 3_000);
    assertEquals(large.outcome, "done");
  }
});

Deno.test("LocalScheduler runs a large task within its own job as well", () => {
  const world = new Simulation({ seed: 1, total: { cpu: 4 }, isolatesMax: 6, lateAnswers: false });
  const small = world.shape({ cpu: 1 });
  const large = world.submit(world.shape({ cpu: 4 }));
  runWith(
    world,
    () => 5,
    () => world.submit(small, { ms: 5 }),
    () => large.place === "ended" || world.now > 3_000,
  );
  assertEquals(large.outcome, "done");
});

Deno.test("LocalScheduler does not hold tasks back for ever for one that waits for what they would bring about", () => {
  const world = new Simulation({
    seed: 1,
    total: { cpu: 4, licence: 1 },
    isolatesMax: 8,
    lateAnswers: false,
  });
  const parent = world.submit(world.shape({ cpu: 1, licence: 1 }), { job: "parent" });
  world.spawned(true);
  world.start(world.isolates[0]!);
  world.suspend(parent);
  // Needs what the parent holds, and all the CPUs that the parent's child needs.
  const large = world.submit(world.shape({ cpu: 4, licence: 1 }), { job: "large" });
  world.now += 3_000;
  world.tick();
  world.tick();
  const child = world.submit(world.shape({ cpu: 1 }), { job: "parent" });
  runWith(
    world,
    () => 5,
    () => child.place === "ended" && parent.place === "suspended" && world.resume(parent),
    () => parent.place === "running" || world.now > 20_000,
  );
  assertEquals(child.outcome, "done");
  world.finish(parent);
  world.runOut();
  assertEquals(large.outcome, "done");
});

Deno.test("LocalScheduler starves no line of a job, whatever the other lines of the same priority get", () => {
  const world = new Simulation({
    seed: 1,
    total: { cpu: 2, licence: 2 },
    isolatesMax: 2,
    lateAnswers: false,
  });
  const plain = world.shape({ cpu: 1 });
  for (let i = 0; i < 50; i++) world.submit(plain, { ms: 5 });
  const other = world.submit(world.shape({ cpu: 1, licence: 1 }));
  // The first line never runs dry.
  runWith(
    world,
    () => 5,
    () => world.submit(plain, { ms: 5 }),
    () => other.place === "ended" || world.now > 900,
  );
  assertEquals(other.outcome, "done");
});

// --- The queue alone ---

Deno.test("FairQueue.take gives each job its turn, and within a job the highest priority that fits, oldest first", () => {
  const shapes = new Shapes();
  const kinds = [1, 2, 3].map((cpu) => shapes.of(units({ cpu })));
  const command = fc.record({
    take: fc.boolean(),
    job: fc.integer({ min: 0, max: 3 }),
    kind: fc.integer({ min: 0, max: 2 }),
    priority: fc.integer({ min: -1, max: 1 }),
    remove: fc.option(fc.nat({ max: 20 }), { freq: 6 }),
    fits: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
  });
  fc.assert(
    fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
      const queue = new FairQueue<SimTask>();
      const waiting: SimTask[] = [];
      /** How often others were taken while this job had something that fits: less often than there are jobs. */
      const passedOver = new Map<string, number>();
      commands.forEach(({ take, job, kind, priority, fits, remove }, now) => {
        if (remove !== null && remove < waiting.length) queue.remove(waiting.splice(remove, 1)[0]!);
        if (!take) {
          const task = new SimTask(`t${now}`, kinds[kind]!, { job: `j${job}`, priority });
          task.readyAt = now;
          queue.push(task);
          waiting.push(task);
          assertEquals(queue.length, waiting.length);
          return;
        }
        const fitting = (shape: Shape) => fits[kinds.indexOf(shape)]!;
        const could = waiting.filter(({ shape }) => fitting(shape));
        let asked: Shape | undefined;
        const taken = queue.take(now, (shape) => {
          if (fitting(shape)) asked = shape;
          return fitting(shape);
        });
        assertEquals(taken !== undefined, could.length > 0);
        if (taken === undefined) return;
        assertStrictEquals(asked, taken.shape, "the last shape that was found to fit is the one taken");
        const alike = could.filter((task) => task.job === taken.job);
        const first = alike.reduce((a, b) => b.priority > a.priority ? b : a);
        assertStrictEquals(taken, first, "of the highest priority, the one that waits longest");
        for (const job of new Set(could.map((task) => task.job))) {
          const passed = job === taken.job ? 0 : (passedOver.get(job) ?? 0) + 1;
          assert(passed <= 6, `job ${job} was passed over ${passed} times`);
          passedOver.set(job, passed);
        }
        waiting.splice(waiting.indexOf(taken), 1);
        assertEquals(queue.length, waiting.length);
      });
    }),
    { numRuns: 500 },
  );
});

Deno.test("FairQueue.take keeps what a starving line needs until it has it, or its hold has ended", () => {
  const shapes = new Shapes();
  const small = shapes.of(units({ cpu: 1 }));
  const large = shapes.of(units({ cpu: 4 }));
  const apart = shapes.of(units({ licence: 1 }));
  const queue = new FairQueue<SimTask>();
  const add = (name: string, shape: Shape, readyAt: number) => {
    const task = new SimTask(name, shape, { job: name });
    task.readyAt = readyAt;
    queue.push(task);
    return task;
  };
  add("large", large, 0);
  const noRoom = (shape: Shape) => shape !== large;
  const held: number[] = [];
  for (let now = 0; now < 8_000; now += 100) {
    const task = add("small", small, now);
    if (queue.take(now, noRoom) === undefined) held.push(now);
    queue.remove(task);
    // What uses nothing of it goes on all the time.
    const other = add("apart", apart, now);
    assertStrictEquals(queue.take(now, (shape) => shape === apart), other);
  }
  const between = (from: number, to: number) =>
    Array.from({ length: (to - from) / 100 + 1 }, (_, i) => from + i * 100);
  assertEquals(held, [...between(1_100, 2_100), ...between(4_300, 6_300)]);
  assertEquals(queue.take(8_400, noRoom), undefined);
  const late = add("small", small, 8_400);
  assertEquals(queue.take(8_450, () => true)?.id, "large", "it goes first once it fits");
  assertStrictEquals(queue.take(8_450, () => true), late, "and then holds nothing back any more");
});

Deno.test("FairQueue.remove of a starving line's last task lets the others go at once", () => {
  const shapes = new Shapes();
  const small = shapes.of(units({ cpu: 1 }));
  const large = new SimTask("large", shapes.of(units({ cpu: 4 })));
  const queue = new FairQueue<SimTask>();
  queue.push(large);
  queue.push(new SimTask("small", small));
  assertEquals(queue.take(1_100, (shape) => shape === small), undefined);
  queue.remove(large);
  assertEquals(queue.take(1_100, (shape) => shape === small)?.id, "small");
});

// --- Dependencies ---

Deno.test("Dependencies releases each task exactly when its last object has arrived, in the order held", () => {
  const object = (n: number) => `o${n}` as ObjectId;
  const command = fc.oneof(
    fc.record({
      kind: fc.constant("hold" as const),
      objects: fc.array(fc.nat({ max: 7 }), { minLength: 1 }),
    }),
    fc.record({ kind: fc.constant("arrive" as const), object: fc.nat({ max: 7 }) }),
    fc.record({ kind: fc.constant("remove" as const), task: fc.nat({ max: 30 }) }),
  );
  fc.assert(fc.property(fc.array(command, { maxLength: 80 }), (commands) => {
    const dependencies = new Dependencies<number>();
    const model = new Map<number, Set<number>>();
    commands.forEach((command, task) => {
      switch (command.kind) {
        case "hold":
          dependencies.hold(task, command.objects.map(object));
          model.set(task, new Set(command.objects));
          break;
        case "arrive": {
          const expected: number[] = [];
          for (const [task, objects] of model) {
            if (objects.delete(command.object) && objects.size === 0) expected.push(task);
          }
          expected.forEach((task) => model.delete(task));
          assertEquals(dependencies.arrived(object(command.object)), expected);
          break;
        }
        case "remove":
          assertEquals(dependencies.remove(command.task), model.delete(command.task));
          break;
      }
      assertEquals(dependencies.size, model.size);
    });
  }));
});

// --- Resources ---

Deno.test("ResourcePool lends no more than there is, whatever is taken and given back", () => {
  const shapes = new Shapes();
  const demands = [
    { cpu: 1 },
    { cpu: 0.5, gpu: 0.5 },
    { gpu: 1 },
    { gpu: 2 },
    { gpu: 0.3 },
    { licence: 2 },
    {},
  ];
  const kinds = demands.map((demand) => shapes.of(units(demand as Record<string, number>)));
  const command = fc.record({ take: fc.boolean(), which: fc.nat({ max: 100 }) });
  fc.assert(fc.property(fc.array(command, { maxLength: 100 }), (commands) => {
    const pool = new ResourcePool(units({ cpu: 4, gpu: 3, licence: 5 }));
    const lent: { shape: Shape; gpus: readonly number[] }[] = [];
    for (const { take, which } of commands) {
      const shape = kinds[which % kinds.length]!;
      if (!take && lent.length > 0) {
        const [back] = lent.splice(which % lent.length, 1);
        pool.release(back!.shape, back!.gpus);
      } else if (pool.fits(shape)) lent.push({ shape, gpus: pool.acquire(shape) });
      const gpus = [0, 0, 0];
      const used: Record<string, number> = { cpu: 0, gpu: 0, licence: 0 };
      for (const { shape, gpus: ids } of lent) {
        for (const id of ids) gpus[id]! += Math.min(shape.gpu, RESOURCE_UNIT);
        for (const [name, amount] of Object.entries(shape.demand)) used[name]! += amount;
      }
      assert(gpus.every((units) => units <= RESOURCE_UNIT), `GPUs are lent ${gpus}`);
      const total = pool.total();
      for (const [name, free] of Object.entries(pool.free())) assertEquals(free, total[name]! - used[name]!);
      const whole = gpus.filter((units) => units === 0).length * RESOURCE_UNIT;
      for (const kind of kinds) {
        if (kind.gpu >= RESOURCE_UNIT && kind.cpu === 0) assertEquals(pool.fits(kind), whole >= kind.gpu);
      }
    }
  }));
});

Deno.test("Shapes.of gives equal demands one shape and different ones two, whatever the names", () => {
  const shapes = new Shapes();
  assertStrictEquals(shapes.of({ cpu: 1, gpu: 2 }), shapes.of({ gpu: 2, cpu: 1 }));
  assert(shapes.of({ "a=1,b": 2 }) !== shapes.of({ a: 1, b: 2 }));
  const demand = fc.dictionary(fc.string({ maxLength: 3 }), fc.integer({ min: 1, max: 3 }), {
    noNullPrototype: true,
  });
  fc.assert(fc.property(demand, demand, (a, b) => {
    const [left, right] = [shapes.of(a), shapes.of(b)];
    assertEquals(
      left === right,
      fc.stringify(Object.entries(a).sort()) === fc.stringify(Object.entries(b).sort()),
    );
    for (const [name, amount] of left.rest) assertEquals(a[name], amount);
    assertEquals(left.rest.length, Object.keys(a).filter((name) => name !== "cpu").length);
  }));
});
