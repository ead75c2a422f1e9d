/**
 * A world for the local scheduler: isolates that start, run, suspend, throw, crash and are killed at random moments,
 * all drawn from one seed, with a model beside it that knows what must be free, held and running after each event.
 *
 * A failing run names its seed; the same seed replays the same run.
 *
 * @module
 */

import { assertEquals, AssertionError } from "@std/assert";
import { random } from "../bench/simulate/random.ts";
import type { TaskId } from "../core/ids.ts";
import { RESOURCE_UNIT } from "../core/options.ts";
import {
  LocalScheduler,
  type SchedulerEffect,
  type SchedulerEvent,
  type SchedulerTask,
  type TaskState,
} from "../scheduler/local.ts";
import { STARVING_MS } from "../scheduler/queue.ts";
import { ResourcePool, type Shape, Shapes } from "../scheduler/resources.ts";

/** Amounts in whole resources, as units. */
export function units(amounts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(amounts).map(([name, n]) => [name, Math.round(n * RESOURCE_UNIT)]),
  );
}

/** Where a task is in the world, as opposed to in the scheduler's books. */
type Place = "new" | "queued" | "waiting" | "running" | "suspended" | "failing" | "ended";

/** What a simulated task asks for. */
export interface SimTaskOptions {
  readonly job?: string;
  readonly priority?: number;
  readonly retries?: number;
  readonly ms?: number;
}

/** A task of the simulated world. */
export class SimTask implements SchedulerTask {
  readonly id: TaskId;
  readonly job: TaskId;
  readonly asked: Shape;
  shape: Shape;
  readonly priority: number;
  readonly retries: number;
  readonly #ms: number;
  readyAt = 0;
  queued = false;
  state: TaskState = "new";
  failures = 0;
  attempts = 0;
  isolate = -1;
  gpus: readonly number[] = [];
  lent = false;
  wanted = true;
  sentMs = 0;
  chained = 0;

  // The world's own.
  place: Place = "new";
  /** How the task ended: it must do so once. */
  outcome: "done" | "exhausted" | "removed" | undefined = undefined;
  /** How often an isolate has started it. */
  runs = 0;
  /** Failures that it is to blame for. */
  blamed = 0;
  /** It resumed on an isolate that has turned to another shape. */
  beside = false;
  /** Since when it could be sent. */
  readySince = 0;

  constructor(
    name: string,
    shape: Shape,
    { job = "job", priority = 0, retries = 0, ms = 0.5 }: SimTaskOptions = {},
  ) {
    this.id = name as TaskId;
    this.job = job as TaskId;
    this.asked = this.shape = shape;
    this.priority = priority;
    this.retries = retries;
    this.#ms = ms;
  }

  expectedMs(): number {
    return this.#ms;
  }
}

interface SimIsolate {
  readonly id: number;
  shape: Shape | undefined;
  /** Received and not started, in order. */
  readonly order: SimTask[];
  /** Started and neither ended nor suspended. */
  readonly running: Set<SimTask>;
  /** What the scheduler must take for active: it was sent, and neither ended, was revoked nor is suspended. */
  readonly active: SimTask[];
  readonly suspended: Set<SimTask>;
  /** The last task it was sent had started when it was to be taken back. */
  barren: boolean;
}

/** What a world is made of. */
export interface SimulationOptions {
  readonly seed: number;
  /** In whole resources. */
  readonly total: Readonly<Record<string, number>>;
  readonly isolatesMax: number;
  /** Answers to revokes come at random moments, as they would over a wire; otherwise at once, as in a node. */
  readonly lateAnswers: boolean;
}

/** More starts than this must not be under way at once. */
const SPAWNING_MAX = 4;

/** No cascade of answers to revokes may be longer. */
const CASCADE_MAX = 500;

/** A scheduler in its world. */
export class Simulation {
  readonly random: () => number;
  readonly pool: ResourcePool;
  readonly scheduler: LocalScheduler<SimTask>;
  readonly shapes = new Shapes();
  readonly tasks: SimTask[] = [];
  readonly isolates: SimIsolate[] = [];
  /** Every task sent, in order. */
  readonly sent: SimTask[] = [];
  readonly #options: SimulationOptions;
  readonly #revokes: { readonly task: SimTask; readonly isolate: number }[] = [];
  #spawning = 0;
  #nextIsolate = 1;
  now = 0;
  events = 0;
  revokes = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.random = random(options.seed);
    this.pool = new ResourcePool(units(options.total));
    this.scheduler = new LocalScheduler(this.pool, { isolatesMax: options.isolatesMax });
  }

  /** A shape. @param amounts In whole resources. */
  shape(amounts: Readonly<Record<string, number>>): Shape {
    return this.shapes.of(units(amounts));
  }

  /** One of several, by chance. */
  pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }

  // --- What may happen -----------------------------------------------------------------------------------------

  /** A task comes into the world; its arguments may not be there yet. */
  create(shape: Shape, options: SimTaskOptions = {}): SimTask {
    const task = new SimTask(`t${this.tasks.length}`, shape, options);
    this.tasks.push(task);
    return task;
  }

  ready(task: SimTask): void {
    task.place = "queued";
    task.readySince = this.now;
    this.#step({ type: "ready", task, now: this.now });
  }

  submit(shape: Shape, options: SimTaskOptions = {}): SimTask {
    const task = this.create(shape, options);
    this.ready(task);
    return task;
  }

  /** An isolate that was asked for is there, or will never be. */
  spawned(success: boolean): void {
    this.#spawning--;
    if (!success) {
      this.scheduler.spawnFailed();
      return this.tick();
    }
    const id = this.#nextIsolate++;
    this.isolates.push({
      id,
      shape: undefined,
      order: [],
      running: new Set(),
      active: [],
      suspended: new Set(),
      barren: false,
    });
    this.#step({ type: "isolateReady", isolate: id, now: this.now });
  }

  /** An isolate claims the next task it was sent. */
  start(isolate: SimIsolate): void {
    const task = isolate.order.shift()!;
    assertEquals(task.place, "waiting", `${task.id} is started twice at once`);
    task.place = "running";
    task.runs++;
    isolate.running.add(task);
  }

  /** A running task ends: with an answer, or with an exception that asks for another attempt. */
  finish(task: SimTask, retry = false): void {
    const isolate = this.isolateOf(task);
    assert(isolate.running.delete(task));
    if (task.beside) isolate.suspended.delete(task);
    else remove(isolate.active, task);
    task.beside = false;
    if (!retry) this.#end(task, task.wanted ? "done" : "removed");
    else this.#blame(task);
    this.#step({ type: "done", task, retry, now: this.now });
  }

  suspend(task: SimTask): void {
    const isolate = this.isolateOf(task);
    assert(isolate.running.delete(task));
    if (!task.beside) remove(isolate.active, task);
    task.beside = false;
    isolate.suspended.add(task);
    task.place = "suspended";
    this.#step({ type: "suspended", task, now: this.now });
  }

  resume(task: SimTask): void {
    const isolate = this.isolateOf(task);
    task.beside = isolate.active.length > 0 && isolate.shape !== task.shape;
    if (!task.beside) {
      isolate.suspended.delete(task);
      isolate.active.unshift(task);
      isolate.shape = task.shape;
    }
    isolate.running.add(task);
    task.place = "running";
    this.#step({ type: "resumed", task, now: this.now });
  }

  /** An isolate dies, or is ended on purpose. */
  gone(isolate: SimIsolate, charge: boolean): void {
    remove(this.isolates, isolate);
    const lost = [...isolate.active, ...isolate.suspended];
    const started = new Set(lost.filter((task) => task.place !== "waiting"));
    for (const task of lost) {
      task.beside = false;
      if (charge && started.has(task)) this.#blame(task);
      else if (task.wanted) task.place = "queued";
      else this.#end(task, "removed");
    }
    this.#step({
      type: "isolateGone",
      isolate: isolate.id,
      started: (task) => started.has(task),
      charge,
      now: this.now,
    });
  }

  /** A task is cancelled, as a node does it: in whatever state, and taken back if it has not started. */
  cancel(task: SimTask): void {
    const before = task.place;
    if (before === "new" || before === "queued") this.#end(task, "removed");
    this.#step({ type: "removed", task, now: this.now });
    if (task.place !== "waiting") return;
    const isolate = this.isolateOf(task);
    remove(isolate.order, task);
    remove(isolate.active, task);
    this.#end(task, "removed");
    this.#step({ type: "done", task, retry: false, now: this.now });
  }

  /** Answers the oldest revoke. */
  answer(): void {
    const { task, isolate: number } = this.#revokes.shift()!;
    const isolate = this.isolates.find(({ id }) => id === number);
    const success = isolate !== undefined && isolate.order.includes(task);
    if (success) {
      remove(isolate.order, task);
      remove(isolate.active, task);
      if (task.wanted) task.place = "queued";
      else this.#end(task, "removed");
    } else if (isolate !== undefined && isolate.active.at(-1) === task) isolate.barren = true;
    this.#step({ type: "revoked", task, isolate: number, success, now: this.now });
  }

  tick(): void {
    this.#step({ type: "tick", now: this.now });
  }

  // --- What may happen next ------------------------------------------------------------------------------------

  get spawning(): number {
    return this.#spawning;
  }

  get revoking(): number {
    return this.#revokes.length;
  }

  /** Isolates that would start a task now. */
  startable(): SimIsolate[] {
    return this.isolates.filter(({ order, running }) =>
      order.length > 0 && running.size < order[0]!.shape.concurrency
    );
  }

  in(place: Place): SimTask[] {
    return this.tasks.filter((task) => task.place === place);
  }

  isolateOf(task: SimTask): SimIsolate {
    const isolate = this.isolates.find(({ id }) => id === task.isolate);
    assert(isolate !== undefined, `${task.id} (${task.place}) has no isolate`);
    return isolate;
  }

  /** Something that brings the world nearer to its end. Returns whether there was anything. */
  progress(): boolean {
    const choices: (() => void)[] = [];
    if (this.#revokes.length > 0) choices.push(() => this.answer());
    if (this.#spawning > 0) choices.push(() => this.spawned(true));
    const startable = this.pick(this.startable());
    if (startable !== undefined) choices.push(() => this.start(startable), () => this.start(startable));
    const running = this.pick(this.in("running"));
    if (running !== undefined) choices.push(() => this.finish(running));
    const suspended = this.pick(this.in("suspended"));
    if (suspended !== undefined) choices.push(() => this.resume(suspended));
    const fresh = this.pick(this.in("new"));
    if (fresh !== undefined) choices.push(() => this.ready(fresh));
    this.pick(choices)?.();
    return choices.length > 0;
  }

  /** Lets the world go on until every task has ended, and checks that nothing is left over. */
  runOut(): void {
    const limit = this.events + 200 * this.tasks.length + 5_000;
    for (let idle = 0; this.tasks.some((task) => task.place !== "ended");) {
      this.now += 1;
      if (this.progress()) idle = 0;
      else {
        this.now += 100;
        this.tick();
        assert(++idle < 100, () => `nothing happens any more, and there is ${this.#summary()}`);
      }
      assert(this.events < limit, () => `no end in sight: ${this.#summary()}`);
    }
    while (this.#revokes.length > 0) this.answer();
    assertEquals(this.pool.free(), this.pool.total(), "all that was taken is given back");
    assertEquals(this.scheduler.queued, 0);
    assertEquals(this.scheduler.counts(), { sent: 0, running: 0, suspended: 0 });
    for (const task of this.tasks) {
      assert(task.outcome !== undefined);
      assertEquals(task.state, task.outcome === "removed" && task.runs === 0 ? task.state : "ended");
      assertEquals(task.failures, Math.min(task.blamed, task.retries), `${task.id}: failures`);
      if (task.outcome === "exhausted") assertEquals(task.blamed, task.retries + 1);
      if (task.outcome === "done") assertEquals(task.attempts, task.runs, `${task.id}: attempts`);
    }
  }

  // --- The model -----------------------------------------------------------------------------------------------

  #step(event: SchedulerEvent<SimTask>): void {
    this.events++;
    const freeBefore = this.pool.freeCpu();
    const effects = this.scheduler.step(event);
    for (const effect of effects) this.#perform(effect);
    assertEquals(
      this.in("failing").map(({ id }) => id),
      [],
      "each task that may not be run again is reported",
    );
    if (this.pool.freeCpu() < 0) {
      const sent = effects.find((effect) => effect.type === "send" && effect.task.shape.cpu > 0);
      assert(sent === undefined, () => `sent on overdrawn CPU (free before: ${freeBefore})`);
    }
    this.#checkResources();
    if (!this.#options.lateAnswers) {
      for (let answers = 0; this.#revokes.length > 0; answers++) {
        assert(answers < CASCADE_MAX, "answers to revokes bring ever more revokes");
        this.answer();
      }
    }
    this.#checkWorkConservation();
  }

  #perform(effect: SchedulerEffect<SimTask>): void {
    switch (effect.type) {
      case "send": {
        const { task } = effect;
        const isolate = this.isolates.find(({ id }) => id === effect.isolate);
        assert(isolate !== undefined, `sent to isolate ${effect.isolate}, which is not there`);
        assertEquals(task.place, "queued", `${task.id} is sent twice`);
        assert(task.wanted, `${task.id} is sent though it was cancelled`);
        assert(
          isolate.active.every(({ shape }) => shape === task.shape),
          "an isolate is sent tasks of two shapes",
        );
        isolate.shape = task.shape;
        isolate.active.push(task);
        isolate.order.push(task);
        isolate.barren = false;
        task.place = "waiting";
        this.sent.push(task);
        return;
      }
      case "revoke":
        this.revokes++;
        assert(
          !this.#revokes.some(({ task, isolate }) => task === effect.task && isolate === effect.isolate),
          `${effect.task.id} is revoked twice at once`,
        );
        this.#revokes.push(effect);
        return;
      case "spawn":
        this.#spawning++;
        assert(this.#spawning <= SPAWNING_MAX, "too many isolates start at once");
        assert(this.isolates.length + this.#spawning <= this.#options.isolatesMax, "too many isolates");
        return;
      case "exhausted":
        assertEquals(effect.task.place, "failing", `${effect.task.id} is given up without need`);
        return this.#end(effect.task, "exhausted");
    }
  }

  #blame(task: SimTask): void {
    if (!task.wanted) return this.#end(task, "removed");
    task.blamed++;
    task.place = task.blamed > task.retries ? "failing" : "queued";
  }

  #end(task: SimTask, outcome: "done" | "exhausted" | "removed"): void {
    assertEquals(task.outcome, undefined, `${task.id} ends twice`);
    task.outcome = outcome;
    task.place = "ended";
  }

  /** What is free is what there is, less what each isolate's tasks must hold; no GPU is lent beyond what it is. */
  #checkResources(): void {
    const expected = this.pool.total();
    const take = (shape: Shape, times: number, withCpu: boolean) => {
      for (const [name, amount] of Object.entries(shape.demand)) {
        if (name !== "cpu" || withCpu) expected[name]! -= amount * times;
      }
    };
    const gpus: number[] = [];
    for (const { active, suspended, shape } of this.isolates) {
      const alone = shape !== undefined && shape.rest.length > 0;
      if (active.length > 0) {
        take(shape!, alone ? active.length : Math.min(shape!.concurrency, active.length), true);
      }
      for (const task of suspended) if (task.shape.rest.length > 0) take(task.shape, 1, false);
      for (const { shape, gpus: lent, id } of [...active, ...suspended]) {
        assertEquals(lent.length, Math.ceil(shape.gpu / RESOURCE_UNIT), `${id} has its GPUs`);
        for (const gpu of lent) gpus[gpu] = (gpus[gpu] ?? 0) + Math.min(shape.gpu, RESOURCE_UNIT);
      }
    }
    assertEquals(this.pool.free(), expected, "what is free");
    for (const [name, free] of Object.entries(expected)) {
      assert(name === "cpu" || free >= 0, `${name} is overdrawn`);
    }
    gpus.forEach((lent, gpu) => assert(lent <= RESOURCE_UNIT, `GPU ${gpu} is lent twice`));
    for (const isolate of this.isolates) {
      const fresh = [...isolate.running].filter((task) => !task.beside).length;
      assert(fresh <= isolate.active.length);
    }
  }

  /** Once nothing is under way, no isolate idles while there is a task that it could run. */
  #checkWorkConservation(): void {
    if (this.#revokes.length > 0 || this.#spawning > 0) return;
    const queued = this.in("queued");
    const starving = queued.some(({ readySince }) => this.now - readySince > STARVING_MS);
    const idle = this.isolates.some(({ active }) => active.length === 0);
    const mayStart = this.isolates.length < this.#options.isolatesMax;
    for (const { id, shape } of starving ? [] : queued) {
      assert(!idle || !this.pool.fits(shape), `${id} fits, and an isolate idles`);
      assert(!mayStart || !this.pool.fits(shape), `${id} fits, and no isolate is started for it`);
    }
    for (const { active, barren, shape } of this.isolates) {
      if (active.length === 0 || barren || !(idle || mayStart) || !this.pool.fits(shape!)) continue;
      const held = shape!.rest.length > 0 ? active.length : Math.min(shape!.concurrency, active.length);
      assert(
        active.length <= held,
        () =>
          `${active.length - held} wait in line, and another isolate ${idle ? "idles" : "is not started"}`,
      );
    }
  }

  #summary(): string {
    const counts = new Map<string, number>();
    for (const { place } of this.tasks) counts.set(place, (counts.get(place) ?? 0) + 1);
    return JSON.stringify({
      ...Object.fromEntries(counts),
      isolates: this.isolates.map(({ id, active, suspended }) => [id, active.length, suspended.size]),
      spawning: this.#spawning,
      revoking: this.#revokes.length,
      free: this.pool.free(),
    });
  }
}

/** Asserts, and makes the message only where it is needed: these run for every event. */
function assert(condition: unknown, message: string | (() => string) = ""): asserts condition {
  if (!condition) throw new AssertionError(typeof message === "string" ? message : message());
}

function remove<T>(from: T[], item: T): void {
  const at = from.indexOf(item);
  assert(at >= 0, "not there to be removed");
  from.splice(at, 1);
}
