/**
 * The main stories of the local scheduler, as traces: what happens, and what is to be done about it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { WINDOW_TASKS_MAX } from "../core/limits.ts";
import { LocalScheduler, type SchedulerEffect } from "../scheduler/local.ts";
import { FairQueue } from "../scheduler/queue.ts";
import { ResourcePool, type Shape, Shapes } from "../scheduler/resources.ts";
import { SimTask, type SimTaskOptions, units } from "./scheduler_sim.ts";

/** A scheduler whose events and effects are written as text. */
class Story {
  readonly scheduler: LocalScheduler<SimTask>;
  readonly pool: ResourcePool;
  readonly #shapes = new Shapes();
  readonly #tasks = new Map<string, SimTask>();
  now = 0;

  constructor(total: Readonly<Record<string, number>>, isolatesMax = 8) {
    this.pool = new ResourcePool(units(total));
    this.scheduler = new LocalScheduler(this.pool, { isolatesMax });
  }

  /** A new task that is ready. */
  ready(
    name: string,
    demand: Readonly<Record<string, number>> = { cpu: 1 },
    options: SimTaskOptions = {},
  ): string[] {
    const task = new SimTask(name, this.#shapes.of(units(demand)), options);
    this.#tasks.set(name, task);
    return this.#show(this.scheduler.step({ type: "ready", task, now: this.now }));
  }

  isolate(isolate: number): string[] {
    return this.#show(this.scheduler.step({ type: "isolateReady", isolate, now: this.now }));
  }

  gone(isolate: number, { started, charge = true }: { started: string[]; charge?: boolean }): string[] {
    return this.#show(this.scheduler.step({
      type: "isolateGone",
      isolate,
      started: ({ id }) => started.includes(id),
      charge,
      now: this.now,
    }));
  }

  done(name: string, retry = false): string[] {
    return this.#show(this.scheduler.step({ type: "done", task: this.task(name), retry, now: this.now }));
  }

  suspended(name: string): string[] {
    return this.#show(this.scheduler.step({ type: "suspended", task: this.task(name), now: this.now }));
  }

  resumed(name: string): string[] {
    return this.#show(this.scheduler.step({ type: "resumed", task: this.task(name), now: this.now }));
  }

  removed(name: string): string[] {
    return this.#show(this.scheduler.step({ type: "removed", task: this.task(name), now: this.now }));
  }

  chain(name: string, isolate: number, producers: number): string[] {
    const task = new SimTask(name, this.#shapes.of(units({ cpu: 1 })), {});
    this.#tasks.set(name, task);
    return this.#show(this.scheduler.step({ type: "chain", task, isolate, producers, now: this.now }));
  }

  unchain(name: string): string[] {
    return this.#show(this.scheduler.step({ type: "unchain", task: this.task(name), now: this.now }));
  }

  revoked(name: string, isolate: number, success: boolean): string[] {
    const task = this.task(name);
    return this.#show(this.scheduler.step({ type: "revoked", task, isolate, success, now: this.now }));
  }

  tick(now: number): string[] {
    return this.#show(this.scheduler.step({ type: "tick", now: this.now = now }));
  }

  task(name: string): SimTask {
    return this.#tasks.get(name)!;
  }

  free(): Record<string, number> {
    return Object.fromEntries(
      Object.entries(this.pool.free()).map(([name, amount]) => [name, amount / 10_000]),
    );
  }

  #show(effects: readonly SchedulerEffect<SimTask>[]): string[] {
    return effects.map((effect) => {
      switch (effect.type) {
        case "send":
          return `send ${effect.task.id} to ${effect.isolate}`;
        case "revoke":
          return `revoke ${effect.task.id} from ${effect.isolate}`;
        case "spawn":
          return "spawn";
        case "exhausted":
          return `${effect.task.id} exhausted by ${effect.reason}`;
      }
    });
  }
}

Deno.test("LocalScheduler asks for an isolate when there is none, and sends once it is there", () => {
  const story = new Story({ cpu: 2 });
  assertEquals(story.ready("a"), ["spawn"]);
  assertEquals(story.ready("b"), ["spawn"]);
  assertEquals(story.ready("c"), [], "more isolates than CPUs would be of no use");
  assertEquals(
    story.isolate(1),
    ["send a to 1", "send b to 1", "send c to 1"],
    "ahead, until the second is there",
  );
  assertEquals(story.isolate(2), ["revoke c from 1"]);
  assertEquals(story.revoked("c", 1, true), ["send c to 2"]);
  assertEquals(story.done("a"), []);
  assertEquals(story.free(), { cpu: 0 });
  assertEquals(story.done("b"), []);
  assertEquals(story.done("c"), []);
  assertEquals(story.free(), { cpu: 2 });
});

Deno.test("LocalScheduler sends ahead until an isolate has enough to do, and holds resources once", () => {
  const story = new Story({ cpu: 1 });
  story.scheduler.spawnStarted();
  story.isolate(1);
  for (let i = 0; i < 8; i++) assertEquals(story.ready(`t${i}`), [`send t${i} to 1`]); // half a millisecond each
  assertEquals(story.ready("t8"), []);
  assertEquals(story.free(), { cpu: 0 });
  assertEquals(story.scheduler.counts(), { sent: 8, running: 1, suspended: 0 });
  assertEquals(story.done("t0"), ["send t8 to 1"]);
});

Deno.test("LocalScheduler sends no more ahead than the window, however short the tasks are", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  for (let i = 0; i < WINDOW_TASKS_MAX; i++) {
    assertEquals(story.ready(`t${i}`, { cpu: 1 }, { ms: 0 }).length, 1);
  }
  assertEquals(story.ready("late", { cpu: 1 }, { ms: 0 }), []);
});

Deno.test("LocalScheduler sends nothing ahead where more than CPU must be handed on", () => {
  const story = new Story({ cpu: 4, gpu: 1 });
  story.isolate(1);
  assertEquals(story.ready("a", { gpu: 1 }), ["send a to 1"]);
  assertEquals(story.task("a").gpus, [0]);
  assertEquals(story.ready("b", { gpu: 1 }), []);
  assertEquals(story.done("a"), ["send b to 1"]);
  assertEquals(story.task("b").gpus, [0]);
});

Deno.test("LocalScheduler runs fractions of a CPU side by side on one isolate, and no more than fit", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.isolate(2);
  assertEquals(story.ready("half", { cpu: 0.5 }), ["send half to 1"]);
  assertEquals(story.ready("a", { cpu: 0.25 }), ["send a to 2"]);
  assertEquals(story.ready("b", { cpu: 0.25 }), ["send b to 2"]);
  assertEquals(
    story.ready("c", { cpu: 0.25 }),
    [],
    "isolate 2 would start it at once, though there is no CPU",
  );
  assertEquals(story.done("half"), ["send c to 2"]);
  assertEquals(story.free(), { cpu: 0.25 });
});

Deno.test("LocalScheduler lets an idle isolate take half of the longest line, what was sent last", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.isolate(2);
  assertEquals(story.ready("other"), ["send other to 1"]);
  for (const name of ["a", "b", "c", "d", "e"]) story.ready(name);
  assertEquals(story.scheduler.tasksOf(1).map(({ id }) => id as string), ["other", "b", "d"]);
  assertEquals(story.scheduler.tasksOf(2).map(({ id }) => id as string), ["a", "c", "e"]);
  story.done("a");
  story.done("c");
  assertEquals(story.done("e"), ["revoke d from 1"], "half of two");
  assertEquals(story.revoked("d", 1, true), ["send d to 2"]);
  assertEquals(story.task("d").attempts, 1, "the attempt that was taken back does not count");
});

Deno.test("LocalScheduler asks a line once only while answers are under way, and not again when all has started", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  for (const name of ["a", "b", "c"]) story.ready(name);
  assertEquals(story.isolate(2), ["revoke c from 1"]);
  assertEquals(story.tick(10), [], "no second revoke before the answer");
  assertEquals(story.revoked("c", 1, false), [], "it has started: so has all before it");
  assertEquals(story.tick(20), []);
  assertEquals(story.ready("d"), ["send d to 2"]);
});

Deno.test("LocalScheduler goes on stealing when a later task was sent before a revoke failed", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.ready("a");
  story.ready("b");
  assertEquals(story.isolate(2), ["revoke b from 1"]);
  assertEquals(story.ready("other", { cpu: 0.5 }), ["send other to 2"]);
  assertEquals(story.ready("c"), ["send c to 1"]);
  assertEquals(story.revoked("b", 1, false), []);
  assertEquals(story.done("other"), ["revoke c from 1"]);
});

Deno.test("LocalScheduler does not ask again for what has started though a chained task stands behind it", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.ready("a");
  story.ready("b");
  assertEquals(story.chain("c", 1, 1), ["send c to 1"]);
  assertEquals(story.isolate(2), ["revoke b from 1"]);
  assertEquals(story.revoked("b", 1, false), [], "or the two would go on like this for ever");
  story.unchain("c");
  assertEquals(story.tick(10), ["revoke c from 1"]);
});

Deno.test("LocalScheduler ignores a late answer about a task that has moved on", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.ready("a");
  story.ready("b", { cpu: 1 }, { retries: 1 });
  assertEquals(story.isolate(2), ["revoke b from 1"]);
  assertEquals(story.gone(1, { started: ["a", "b"] }), ["a exhausted by crash", "send b to 2"]);
  assertEquals(story.revoked("b", 1, false), []);
  assertEquals(story.ready("c"), ["send c to 2", "spawn"]);
  assertEquals(story.isolate(3), ["revoke c from 2"]);
  assertEquals(story.revoked("c", 2, true), ["send c to 3"]);
  assertEquals(story.done("b"), []);
  assertEquals(story.done("c"), []);
  assertEquals(story.free(), { cpu: 2 });
});

Deno.test("LocalScheduler steals past a queue that holds only what does not fit", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.ready("a");
  story.ready("b");
  assertEquals(story.ready("large", { cpu: 2 }), []);
  assertEquals(story.isolate(2), ["revoke b from 1"]);
  assertEquals(story.revoked("b", 1, true), ["send b to 2"]);
});

Deno.test("LocalScheduler takes a waiting task's CPU back and lends it, also to its own isolate", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  assertEquals(story.ready("parent"), ["send parent to 1"]);
  assertEquals(story.suspended("parent"), []);
  assertEquals(story.free(), { cpu: 1 });
  assertEquals(story.ready("child"), ["send child to 1"]);
  assertEquals(story.done("child"), []);
  assertEquals(story.resumed("parent"), []);
  assertEquals(story.free(), { cpu: 0 });
  assertEquals(story.done("parent"), []);
  assertEquals(story.free(), { cpu: 1 });
});

Deno.test("LocalScheduler sends nothing while CPU is overdrawn by a task that resumed, also not ahead", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.isolate(2);
  story.ready("parent");
  story.suspended("parent");
  assertEquals(story.ready("a", { cpu: 1 }, { ms: 0.01 }), ["send a to 2"]);
  assertEquals(story.resumed("parent"), []);
  assertEquals(story.free(), { cpu: -1 });
  assertEquals(story.ready("b"), []);
  assertEquals(story.done("a"), ["send b to 1"], "behind the parent, whose CPU is the only one");
  assertEquals(story.free(), { cpu: 0 });
});

Deno.test("LocalScheduler leaves a waiting task its GPU, and lends its CPU only", () => {
  const story = new Story({ cpu: 1, gpu: 1 });
  story.isolate(1);
  story.ready("parent", { cpu: 1, gpu: 1 });
  assertEquals(story.suspended("parent"), []);
  assertEquals(story.free(), { cpu: 1, gpu: 0 });
  assertEquals(story.task("parent").gpus, [0]);
  assertEquals(story.ready("child"), ["send child to 1"]);
  assertEquals(story.resumed("parent"), [], "beside a child of another shape, on that one's CPU");
  assertEquals(story.free(), { cpu: 0, gpu: 0 });
  assertEquals(story.done("parent"), []);
  assertEquals(story.done("child"), []);
  assertEquals(story.free(), { cpu: 1, gpu: 1 });
});

Deno.test("LocalScheduler runs what a crash interrupted once more, before what is queued, until retries are used up", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.ready("a", { cpu: 1 }, { retries: 1, ms: 5 });
  story.ready("b", { cpu: 1 }, { ms: 5 });
  assertEquals(story.gone(1, { started: ["a"] }), ["spawn"]);
  assertEquals(story.isolate(2), ["send a to 2"]);
  assertEquals(story.task("a").attempts, 2);
  assertEquals(story.gone(2, { started: ["a"] }), ["a exhausted by crash", "spawn"]);
  assertEquals(story.task("a").state, "ended");
  assertEquals(story.isolate(3), ["send b to 3"]);
});

Deno.test("LocalScheduler charges no retry for what had not started, nor for an isolate that was ended on purpose", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.ready("a");
  story.ready("b");
  story.ready("c");
  story.removed("a");
  assertEquals(story.gone(1, { started: ["a", "b"], charge: false }), ["spawn"]);
  assertEquals(story.task("a").state, "ended");
  assertEquals(story.isolate(2), ["send b to 2", "send c to 2"], "in the order that they had");
  assertEquals(["b", "c"].map((name) => story.task(name).failures), [0, 0]);
  assertEquals(["b", "c"].map((name) => story.task(name).attempts), [2, 1]);
});

Deno.test("LocalScheduler blames waiting tasks for a crash as well: they had started", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.ready("parent");
  story.suspended("parent");
  assertEquals(story.gone(1, { started: [] }), ["parent exhausted by crash"]);
  assertEquals(story.free(), { cpu: 1 });
});

Deno.test("LocalScheduler runs a task again that threw and asks for it, until retries are used up", () => {
  const story = new Story({ cpu: 1 });
  story.isolate(1);
  story.ready("a", { cpu: 1 }, { retries: 1 });
  assertEquals(story.done("a", true), ["send a to 1"]);
  assertEquals(story.done("a", true), ["a exhausted by exception"]);
  assertEquals(story.done("a", true), [], "it has ended");
});

Deno.test("LocalScheduler removed: a queued task is never sent", () => {
  const story = new Story({ cpu: 1 });
  story.ready("a");
  story.ready("b");
  assertEquals(story.removed("a"), []);
  assertEquals([story.task("a").state, story.scheduler.queued], ["ended", 1]);
  assertEquals(story.isolate(1), ["send b to 1"]);
});

Deno.test("LocalScheduler removed: a task that was sent ahead and is taken back is not sent again", () => {
  const story = new Story({ cpu: 2 });
  story.isolate(1);
  story.ready("a");
  story.ready("b");
  assertEquals(story.removed("b"), []);
  assertEquals(story.isolate(2), ["revoke b from 1"]);
  assertEquals(story.revoked("b", 1, true), []);
  assertEquals(story.task("b").state, "ended");
});

Deno.test("LocalScheduler removed: a running task ends with what it does next, and is not run again", () => {
  for (const end of ["done", "retry", "gone"] as const) {
    const story = new Story({ cpu: 1 });
    story.isolate(1);
    story.ready("a", { cpu: 1 }, { retries: 3 });
    assertEquals(story.removed("a"), []);
    assertEquals(story.free(), { cpu: 0 }, "it runs on");
    assertEquals(end === "gone" ? story.gone(1, { started: ["a"] }) : story.done("a", end === "retry"), []);
    assertEquals(story.task("a").state, "ended");
    assertEquals(story.free(), { cpu: 1 });
  }
});

Deno.test("LocalScheduler removed: a suspended task keeps what it holds until it ends", () => {
  const story = new Story({ cpu: 1, gpu: 1 });
  story.isolate(1);
  story.ready("a", { cpu: 1, gpu: 1 });
  story.suspended("a");
  assertEquals(story.removed("a"), []);
  assertEquals(story.free(), { cpu: 1, gpu: 0 });
  assertEquals(story.done("a"), []);
  assertEquals(story.free(), { cpu: 1, gpu: 1 });
});

Deno.test("LocalScheduler starts a few isolates at a time, and the rest when those are there", () => {
  const story = new Story({ cpu: 16 }, 6);
  const spawns: string[] = [];
  for (let i = 0; i < 16; i++) spawns.push(...story.ready(`t${i}`, { cpu: 1 }, { ms: 5 }));
  assertEquals(spawns, ["spawn", "spawn", "spawn", "spawn"]);
  assertEquals(story.isolate(1), ["send t0 to 1", "spawn"]);
  assertEquals(story.isolate(2), ["send t1 to 2", "spawn"]);
  assertEquals(story.isolate(3), ["send t2 to 3"], "no more than may exist");
  story.scheduler.spawnFailed();
  assertEquals(story.tick(10), ["spawn"]);
});

Deno.test("LocalScheduler puts what one isolate can run side by side into the count of isolates that it asks for", () => {
  const story = new Story({ cpu: 4 });
  const spawns: string[] = [];
  for (let i = 0; i < 8; i++) spawns.push(...story.ready(`t${i}`, { cpu: 0.1 }));
  assertEquals(spawns, ["spawn"]);
});

Deno.test("FairQueue.take lets a line that waited go first once it fits, whoever's turn it is", () => {
  const { queue, add, small, large } = twoShapes();
  add("small", small);
  add("large", large);
  assertEquals(queue.take(1_100, (shape) => shape === small), undefined);
  assertEquals(queue.take(1_200, () => true)?.id, "large");
});

Deno.test("FairQueue.remove of a job's last task keeps the turns of the others", () => {
  const { queue, add, small } = twoShapes();
  const a = [add("a", small), add("a", small)];
  for (const job of ["b", "c"]) add(job, small);
  assertEquals(queue.take(0, () => true), a[0]);
  queue.remove(a[1]!);
  assertEquals([1, 2, 3].map(() => queue.take(0, () => true)?.id), ["b", "c", undefined]);
});

Deno.test("FairQueue.demand counts tasks by shape, over all jobs", () => {
  const { queue, add, small, large } = twoShapes();
  add("a", small);
  const removed = add("b", small);
  add("b", large);
  assertEquals([...queue.demand()], [[small, 2], [large, 1]]);
  queue.take(0, (shape) => shape === large);
  queue.remove(removed);
  assertEquals([...queue.demand()], [[small, 1]]);
});

function twoShapes() {
  const shapes = new Shapes();
  const queue = new FairQueue<SimTask>();
  const add = (name: string, shape: Shape) => {
    const task = new SimTask(name, shape, { job: name });
    queue.push(task);
    return task;
  };
  return { queue, add, small: shapes.of(units({ cpu: 1 })), large: shapes.of(units({ cpu: 4 })) };
}

Deno.test("while the first isolate starts a wait does not count, unless that takes too long", () => {
  const story = new Story({ cpu: 2 });
  assertEquals(story.ready("a"), ["spawn"]);
  assertEquals(story.scheduler.waitedMs(900), 0);
  assertEquals(story.scheduler.waitedMs(1_300), 300);
  assertEquals(story.isolate(1), ["send a to 1"]);
  assertEquals(story.ready("b", { cpu: 2 }), []);
  assertEquals(story.scheduler.waitedMs(900), 900);
});
