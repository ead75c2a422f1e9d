/**
 * A simulated cluster: nodes with the real scheduler's machines, a head that passes loads on, drivers, a network, and
 * nodes that die.
 *
 * A run depends on its options and its seed alone: time is virtual, and chance comes from the seed. The clock that may be
 * given only measures how long the real machines' code takes; nothing in the run depends on it.
 *
 * @module
 */

import { assert } from "../../core/assert.ts";
import { type TaskId, taskIdFromBytes } from "../../core/ids.ts";
import { LOAD_MS, LOAD_MS_MAX } from "../../core/limits.ts";
import { RESOURCE_UNIT } from "../../core/options.ts";
import type { NodeDescription } from "../../scheduler/global.ts";
import { type Shape, Shapes } from "../../scheduler/resources.ts";
import { CentralScheduler } from "./central.ts";
import { COSTS, type Costs } from "./costs.ts";
import { Driver, type Pace } from "./driver.ts";
import { SimHead } from "./head.ts";
import { Network } from "./network.ts";
import { type Inbound, type Loads, type NodeWorld, type Noted, SimNode } from "./node.ts";
import { random } from "./random.ts";
import { type TaskDraft, type TaskOutcome, TaskSpec } from "./task.ts";
import { Timeline, Trace } from "./timeline.ts";

/** What a world is made of. */
export interface WorldOptions {
  readonly seed: number;
  /** What each node has, in whole resources. */
  readonly nodes: readonly Readonly<Record<string, number>>[];
  readonly costs?: Partial<Costs>;
  /** Whether places are chosen by where arguments are; they are unless this is false. */
  readonly locality?: boolean;
  /** One scheduler for all instead of one a node, whose decisions take so much longer. */
  readonly central?: { readonly decisionMs: number };
  /** Tasks submitted before this count for nothing that is measured. */
  readonly warmMs?: number;
  /** A clock, in milliseconds, to measure the machines with. */
  readonly clock?: () => number;
}

/** What was measured. */
export interface Results {
  /** The virtual time that was measured, in milliseconds. */
  readonly ms: number;
  /** Tasks that ended in it. */
  readonly tasks: number;
  readonly perSecond: number;
  /** From submission to start on an isolate, in milliseconds. */
  readonly startP50: number;
  readonly startP99: number;
  /** From submission until the driver's node knows the result, in milliseconds. */
  readonly latencyMean: number;
  /** How much of all CPUs ran tasks. */
  readonly utilisation: number;
  /** Messages a task: between nodes; and all, those within machines included. Without loads. */
  readonly messagesBetween: number;
  readonly messagesAll: number;
  /** Of tasks, how many were given to another node. */
  readonly delegated: number;
  /** How much of its time the busiest node's thread, the head's and the central scheduler's were busy. */
  readonly busiestThread: number;
  readonly headThread: number;
  readonly centralThread: number;
  /** Real time that the scheduler's machines took for a task, in microseconds; 0 without a clock. */
  readonly machineUs: number;
  readonly hash: string;
  readonly events: number;
}

const KINDS: Readonly<Record<Noted, number>> = {
  submit: 1,
  send: 2,
  start: 3,
  end: 4,
  delegate: 5,
  result: 6,
  lost: 7,
};

/** How often a node looks around though nothing has come, as in rayd. */
const TICK_MS = 100;

/** A simulated cluster. */
export class World implements NodeWorld {
  readonly timeline = new Timeline();
  readonly trace = new Trace();
  readonly costs: Costs;
  readonly network: Network;
  readonly descriptions: readonly NodeDescription[];
  readonly central: number | undefined;
  readonly locality: boolean;
  readonly random: () => number;
  readonly nodes: readonly SimNode[];
  readonly shapes = new Shapes();
  /** Tasks that have not ended. */
  readonly open = new Set<TaskSpec>();
  /** Tasks that were submitted; kept only if asked for. */
  readonly specs: TaskSpec[] | undefined;

  readonly #head: SimHead;
  readonly #center: CentralScheduler | undefined;
  readonly #drivers = new Map<number, Driver>();
  readonly #indices = new Map<TaskId, number>();
  readonly #clock: (() => number) | undefined;
  readonly #warmMs: number;
  #submitted = 0;
  #ended = 0;
  #endedMeasured = 0;
  #delegated = 0;
  /** Messages to get tasks started, and to tell that they have ended: between nodes, and all. */
  #starting = { between: 0, all: 0 };
  #ending = { between: 0, all: 0 };
  #latencies = 0;
  #latencyCount = 0;
  /** Tasks that have ended, and whose drivers do not know it yet. */
  #untold = 0;
  readonly #delays: number[] = [];
  #machineMs = 0;
  /** What had been busy when the measured time began. */
  #before: {
    readonly busy: number;
    readonly threads: number[];
    readonly head: number;
    readonly center: number;
  } | undefined;

  /** @param options What it is made of. @param keep Whether {@link specs} is kept. */
  constructor(options: WorldOptions, keep = false) {
    const { nodes, seed } = options;
    this.costs = { ...COSTS, ...options.costs };
    this.random = random(seed);
    this.locality = options.locality ?? true;
    this.central = options.central === undefined ? undefined : nodes.length;
    this.specs = keep ? [] : undefined;
    this.#clock = options.clock;
    this.#warmMs = options.warmMs ?? 0;
    this.network = new Network(this.timeline, nodes.length, this.costs.networkMs, this.costs.bandwidth);
    this.descriptions = nodes.map((resources, i) => ({
      id: idOf(i),
      resources: units(resources),
      labels: {},
    }));
    this.descriptions.forEach(({ id }, i) => this.#indices.set(id, i));
    this.nodes = nodes.map((_, i) => new SimNode(i, this));
    this.#center = options.central === undefined
      ? undefined
      : new CentralScheduler(this, options.central.decisionMs);
    this.#head = new SimHead(
      this.timeline,
      this.costs,
      () => this.#center === undefined ? this.nodes.length : 1,
      (loads) => this.#pass(loads),
    );
    for (const node of this.nodes) {
      this.#reportLoads(node);
      this.#tick(node);
    }
    if (this.#warmMs > 0) this.timeline.at(this.#warmMs, () => this.#startMeasuring());
    else this.#startMeasuring();
  }

  /** A shape. @param amounts In whole resources. */
  shape(amounts: Readonly<Record<string, number>>): Shape {
    return this.shapes.of(units(amounts));
  }

  /** Starts a driver on a node; one a node. @param next Its next task; `undefined` when there is none left. */
  drive(node: number, pace: Pace, next: () => TaskDraft | undefined): void {
    assert(!this.#drivers.has(node), `node ${node} has a driver`);
    const driver = new Driver({
      timeline: this.timeline,
      costs: this.costs,
      random: this.random,
      pace,
      next,
      submit: (drafts, ms) => this.submit(node, drafts, ms),
    });
    this.#drivers.set(node, driver);
    driver.start();
  }

  /** Submits tasks to a node, which has them after `ms` and the way there. */
  submit(node: number, drafts: readonly TaskDraft[], ms = 0): void {
    const { now } = this.timeline;
    const specs = drafts.map((draft) => new TaskSpec(this.#submitted++, draft, node, now));
    for (const spec of specs) {
      this.open.add(spec);
      this.specs?.push(spec);
      this.note("submit", node, spec);
      if (!this.nodes[node]!.alive) this.ended(spec, "orphaned");
    }
    this.timeline.after(
      ms + this.costs.localMs,
      () => this.nodes[node]!.receive([{ type: "submit", specs }]),
    );
  }

  /** A node dies; the others find out. */
  kill(index: number): void {
    const node = this.nodes[index]!;
    if (!node.alive) return;
    this.#untold -= node.die();
    for (const spec of this.open) if (spec.origin === index) this.ended(spec, "orphaned");
    this.timeline.after(this.costs.detectMs, () => {
      for (const other of this.nodes) other.receive([{ type: "peerDown", node: index }]);
    });
  }

  /** Lets time pass, until all is done or `untilMs`. @returns Whether all is done. */
  run(untilMs: number): boolean {
    const { timeline } = this;
    while (timeline.now < untilMs) {
      if (this.#submitted > 0 && this.open.size === 0 && this.#untold === 0 && this.#driversAreDone()) {
        return true;
      }
      if (!timeline.step()) break;
    }
    return this.open.size === 0;
  }

  #driversAreDone(): boolean {
    for (const [node, driver] of this.#drivers) {
      if (!driver.exhausted && this.nodes[node]!.alive) return false;
    }
    return true;
  }

  /** What was measured so far. */
  results(): Results {
    const ms = this.timeline.now - this.#warmMs;
    const before = this.#before;
    assert(before !== undefined && ms > 0, "there is nothing measured yet");
    const tasks = this.#endedMeasured;
    const delays = Float64Array.from(this.#delays).sort();
    const units = this.descriptions.reduce((sum, { resources }) => sum + (resources["cpu"] ?? 0), 0);
    const busy = this.nodes.reduce((sum, node) => sum + node.busyUnitMs, 0) - before.busy;
    return {
      ms,
      tasks,
      perSecond: tasks / ms * 1000,
      startP50: quantile(delays, 0.5),
      startP99: quantile(delays, 0.99),
      latencyMean: this.#latencyCount === 0 ? NaN : this.#latencies / this.#latencyCount,
      utilisation: busy / (units * ms),
      messagesBetween: this.#perTask("between"),
      messagesAll: this.#perTask("all"),
      delegated: this.#delegated / Math.max(1, this.#submitted),
      busiestThread: this.nodes.reduce(
        (most, { threadMs }, i) => Math.max(most, threadMs - before.threads[i]!),
        0,
      ) / ms,
      headThread: (this.#head.threadMs - before.head) / ms,
      centralThread: ((this.#center?.threadMs ?? 0) - before.center) / ms,
      machineUs: this.#machineMs * 1000 / Math.max(1, this.#ended),
      hash: this.trace.hash,
      events: this.timeline.happened,
    };
  }

  #perTask(which: "between" | "all"): number {
    return this.#starting[which] / Math.max(1, this.#submitted) +
      this.#ending[which] / Math.max(1, this.#ended);
  }

  #startMeasuring(): void {
    this.#before = {
      busy: this.nodes.reduce((sum, node) => sum + node.busyUnitMs, 0),
      threads: this.nodes.map(({ threadMs }) => threadMs),
      head: this.#head.threadMs,
      center: this.#center?.threadMs ?? 0,
    };
  }

  // --- What nodes need ------------------------------------------------------------------------------------------

  indexOf(id: TaskId): number {
    return this.#indices.get(id)!;
  }

  deliver(to: number, messages: readonly Inbound[]): void {
    for (const { type } of messages) {
      const counts = type === "delegate" ? this.#starting : this.#ending;
      counts.between++;
      counts.all++;
    }
    this.timeline.after(this.costs.networkMs, () => {
      if (to === this.central) this.#center!.receive(messages);
      else this.nodes[to]!.receive(messages);
    });
  }

  ended(spec: TaskSpec, outcome: TaskOutcome): void {
    assert(
      spec.outcome === undefined && this.open.delete(spec),
      `task ${spec.number} ends twice: ${spec.outcome}, then ${outcome}`,
    );
    spec.outcome = outcome;
    this.#ended++;
    if (outcome !== "orphaned") this.#untold++;
    const { now } = this.timeline;
    if (outcome !== "done") return;
    if (now >= this.#warmMs) this.#endedMeasured++;
    if (spec.submittedAt < this.#warmMs) return;
    this.#latencies += now - spec.submittedAt;
    this.#latencyCount++;
  }

  tellDriver(node: number, specs: readonly TaskSpec[]): void {
    this.#ending.all += specs.length;
    this.timeline.after(this.costs.localMs, () => {
      this.#untold -= specs.length;
      if (!this.nodes[node]!.alive) return;
      this.#drivers.get(node)?.ended(specs.length);
      for (const { draft } of specs) draft.ended?.();
    });
  }

  note(what: Noted, node: number, spec: TaskSpec): void {
    this.trace.note(KINDS[what], this.timeline.now, node, spec.number);
    if (what === "delegate") this.#delegated++;
    else if (what === "submit" || what === "send") this.#starting.all++;
    else if (what === "end") this.#ending.all++;
    else if (what === "start" && spec.starts === 1 && spec.submittedAt >= this.#warmMs) {
      this.#delays.push(this.timeline.now - spec.submittedAt);
    }
  }

  machines<R>(run: () => R): R {
    const clock = this.#clock;
    if (clock === undefined) return run();
    const start = clock();
    const result = run();
    this.#machineMs += clock() - start;
    return result;
  }

  // --- Loads ----------------------------------------------------------------------------------------------------

  /** As a node's daemon does: soon after the load changes, and now and then as a sign of life. */
  #reportLoads(node: SimNode): void {
    let last = "";
    let reportedAt = 0;
    const report = () => {
      if (!node.alive) return;
      const load = node.load();
      const text = `${load.queued} ${load.meanMs} ${Object.entries(load.free)}`;
      const { now } = this.timeline;
      if (text !== last || now - reportedAt > LOAD_MS_MAX) {
        last = text;
        reportedAt = now;
        this.timeline.after(this.costs.networkMs, () => this.#head.report(node.index, load));
      }
      this.timeline.after(LOAD_MS, report);
    };
    this.timeline.after(this.random() * LOAD_MS, report);
  }

  #tick(node: SimNode): void {
    const messages: readonly Inbound[] = [{ type: "tick" }];
    const tick = () => {
      if (!node.alive) return;
      node.receive(messages);
      this.timeline.after(TICK_MS, tick);
    };
    this.timeline.after(this.random() * TICK_MS, tick);
  }

  #pass(loads: Loads): number {
    const messages: readonly Inbound[] = [{ type: "loads", loads }];
    if (this.#center !== undefined) {
      this.#center.receive(messages);
      return 1;
    }
    let told = 0;
    for (const node of this.nodes) {
      if (!node.alive) continue;
      node.receive(messages);
      told++;
    }
    return told;
  }
}

/** A value of some sorted ones, of which a share is below it. */
function quantile(sorted: Float64Array, share: number): number {
  return sorted.length === 0 ? NaN : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

function idOf(n: number): TaskId {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, n + 1);
  return taskIdFromBytes(bytes);
}

function units(amounts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(amounts).map(([name, n]) => [name, Math.round(n * RESOURCE_UNIT)]),
  );
}
