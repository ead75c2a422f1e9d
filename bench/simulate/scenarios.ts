/**
 * What is simulated: each scenario builds worlds, lets them run, and gives a table and at times a chart.
 *
 * docs/simulation.md says what they show.
 *
 * @module
 */

import { type Chart, type Series, short } from "./plot.ts";
import type { TaskDraft } from "./task.ts";
import { type Results, World, type WorldOptions } from "./world.ts";

/** What the command line says. */
export interface Settings {
  readonly seed: number;
  /** No run has more nodes. */
  readonly nodesMax: number;
  readonly clock: () => number;
}

/** What a scenario gives. */
export interface Report {
  readonly title: string;
  /** What was run, in words. */
  readonly about: string;
  readonly rows: readonly Readonly<Record<string, string>>[];
  /** What follows from it. */
  readonly findings: readonly string[];
  readonly charts: Readonly<Record<string, Chart>>;
}

/** A scenario. */
export type Scenario = (settings: Settings) => Report;

const CPUS = 8;

/** The scenarios, by name. */
export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  scaling,
  knee,
  locality,
  rounds,
  mixed,
  stragglers,
  loss,
};

/** Figure 8b of the Ray paper: empty tasks, more and more nodes. */
function scaling({ seed, nodesMax, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const series = new Map<string, [number, number][]>();
  const run = (name: string, nodes: number, drivers: number, options: Partial<WorldOptions>) => {
    const isCentral = options.central !== undefined;
    const warmMs = isCentral ? 200 : nodes > 100 ? 20 : 50;
    const ms = 2 * warmMs;
    const world = new World({ seed, nodes: same(nodes), warmMs, clock, ...options });
    const shape = world.shape({ cpu: 1 });
    // A longer queue before the central scheduler would only take longer to fill.
    const tasks = isCentral ? 100 : 1_000;
    for (let i = 0; i < drivers; i++) world.drive(i, { kind: "window", tasks }, () => ({ shape, ms: 0 }));
    world.run(ms);
    const results = world.results();
    rows.push({ "scheduler": name, ...row(nodes, drivers, results) });
    push(series, name, [nodes, results.perSecond]);
  };
  const sizes = [1, 10, 20, 40, 60, 80, 100, 200, 500, 1_000].filter((nodes) => nodes <= nodesMax);
  for (const nodes of sizes) run(EACH, nodes, nodes, {});
  for (const nodes of sizes.filter((nodes) => nodes <= 100)) run(ONE, nodes, 1, {});
  for (const nodes of sizes.filter((nodes) => nodes <= 100)) {
    run(CENTRAL, nodes, nodes, { central: { decisionMs: 0 } });
  }
  const upTo100 = (name: string): Series => ({
    name,
    points: series.get(name)!.filter(([nodes]) => nodes <= 100),
  });
  return {
    title: "Scaling of empty tasks (figure 8b of the Ray paper)",
    about:
      `nodes of ${CPUS} CPUs, each driver keeps 1,000 empty tasks under way (100 with a central scheduler)`,
    rows,
    findings: [
      `a driver on each node: ${kneeOf(series.get(EACH)!)}`,
      `one central scheduler: ${kneeOf(series.get(CENTRAL)!)}`,
    ],
    charts: {
      scaling: {
        title: "Empty tasks: throughput by number of nodes",
        note:
          "Simulated: the slope is what one node is taken to do, the shape is the result. Ray's point was measured.",
        x: { title: "nodes", from: 0, to: 100 },
        y: { title: "tasks per second" },
        series: [
          upTo100(EACH),
          upTo100(CENTRAL),
          upTo100(ONE),
          { name: "Ray paper, measured", points: [[100, 1.8e6]], alone: true },
        ],
      },
    },
  };
}

/** Where more nodes bring no more throughput: one driver, whose node gives nearly all away. */
function knee({ seed, nodesMax, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const series = new Map<string, [number, number][]>();
  const run = (name: string, nodes: number, drivers: number, options: Partial<WorldOptions>) => {
    // Where one thread decides, its blocks take up to a second with thousands of nodes: several must fit.
    const warmMs = nodes >= 500 ? 2_000 : 1_000;
    const world = new World({ seed, nodes: same(nodes), warmMs, clock, ...options });
    const shape = world.shape({ cpu: 1 });
    const tasks = drivers === 1
      ? Math.min(3 * CPUS * nodes, ONE_DRIVER_TASKS_MAX)
      : Math.ceil(3 * CPUS * nodes / drivers);
    for (let i = 0; i < drivers; i++) {
      world.drive(i, { kind: "window", tasks }, () => ({ shape, ms: 10 }));
    }
    world.run(nodes >= 500 ? 2 * warmMs : 1.5 * warmMs);
    const results = world.results();
    rows.push({ "scheduler": name, ...row(nodes, drivers, results) });
    push(series, name, [nodes, results.perSecond]);
  };
  const sizes = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000].filter((nodes) => nodes <= nodesMax);
  for (const nodes of sizes) run(ONE, nodes, 1, {});
  for (const nodes of sizes.filter((nodes) => nodes <= 200)) run(EACH, nodes, nodes, {});
  for (const nodes of sizes.filter((nodes) => nodes <= 1_000)) {
    run(CENTRAL, nodes, nodes, { central: { decisionMs: 0 } });
  }
  const ideal = sizes.map((nodes): [number, number] => [nodes, nodes * CPUS * 100]);
  return {
    title: "Where more nodes add no more: tasks of 10 ms",
    about: `nodes of ${CPUS} CPUs, 3 tasks under way for each CPU, of one driver 4,000 at most`,
    rows,
    findings: [ONE, EACH, CENTRAL].map((name) => `${name}: ${kneeOf(series.get(name)!)}`),
    charts: {
      knee: {
        title: "Tasks of 10 ms: where more nodes add no more",
        note: "Simulated. 8 CPUs a node.",
        x: { title: "nodes", log: true },
        y: { title: "tasks per second", log: true },
        series: [
          ...[ONE, EACH, CENTRAL].map((name) => ({ name, points: series.get(name)! })),
          { name: "all CPUs busy", points: ideal, reference: true },
        ],
      },
    },
  };
}

/** Figure 8a of the Ray paper: tasks that read objects, on two nodes. */
function locality({ seed, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const series = new Map<string, [number, number][]>();
  const sizes = [1e5, 1e6, 1e7, 1e8];
  const run = (name: string, outside: boolean, locality: boolean) => {
    for (const bytes of sizes) {
      const nodes = [...outside ? [{ cpu: 0 }] : [], { cpu: CPUS }, { cpu: CPUS }];
      const world = new World({ seed, nodes, locality, clock });
      const shape = world.shape({ cpu: 1 });
      const first = nodes.length - 2;
      let left = 1_000;
      world.drive(0, { kind: "window", tasks: CPUS }, () => {
        if (left-- === 0) return undefined;
        return { shape, ms: 1, reads: { home: first + Math.floor(world.random() * 2), bytes } };
      });
      world.run(Infinity);
      const results = world.results();
      rows.push({
        "places": name,
        "object": `${short(bytes)}B`,
        "mean latency ms": ms(results.latencyMean),
        "bytes moved": `${short(world.network.bytes)}B`,
        "trace": results.hash,
      });
      push(series, name, [bytes, results.latencyMean]);
    }
  };
  run(AWARE, true, true);
  run(UNAWARE, true, false);
  run(INSIDE, false, true);
  const worst = (name: string) => series.get(name)!.at(-1)![1] / series.get(name)![0]![1];
  return {
    title: "Locality (figure 8a of the Ray paper)",
    about: `1,000 tasks of 1 ms, ${CPUS} at a time, each reads an object of its own on one of two nodes`,
    rows,
    findings: [AWARE, UNAWARE, INSIDE].map((name) => {
      return `${name}: latency at 100 MB is ${worst(name).toPrecision(3)} times that at 100 KB`;
    }),
    charts: {
      locality: {
        title: "Tasks that read an object: mean latency by its size",
        note: "Simulated. Two nodes of 8 CPUs, 25 Gbit/s, 1,000 tasks of 1 ms.",
        x: { title: "size of the object", log: true, show: (bytes) => `${short(bytes)}B` },
        y: { title: "mean task latency, ms", log: true },
        series: [AWARE, UNAWARE, INSIDE].map((name) => ({ name, points: series.get(name)! })),
      },
    },
  };
}

/** The scheduler ablation of the Ray paper: a ring allreduce, with decisions that take longer. */
function rounds({ seed, clock }: Settings): Report {
  const nodes = 16, iterations = 10, total = 100e6;
  const rows: Record<string, string>[] = [];
  const points: [number, number][] = [];
  const run = (name: string, central: { decisionMs: number } | undefined) => {
    // Each rank stays on its node, by a resource that only that node has.
    const world = new World({
      seed,
      nodes: Array.from({ length: nodes }, (_, i) => ({ cpu: CPUS, [`rank${i}`]: 1 })),
      clock,
      ...central === undefined ? {} : { central },
    });
    const shapes = Array.from({ length: nodes }, (_, i) => world.shape({ cpu: 1, [`rank${i}`]: 1 }));
    const steps = iterations * 2 * (nodes - 1);
    const bytes = total / nodes;
    const done = Array.from({ length: steps + 1 }, () => new Uint8Array(nodes));
    const submit = (step: number, rank: number) => {
      const before = (rank + nodes - 1) % nodes;
      world.submit(rank, [{
        shape: shapes[rank]!,
        ms: bytes / REDUCE_BYTES_MS,
        ...step === 0 ? {} : { reads: { home: before, bytes } },
        ended: () => {
          done[step]![rank] = 1;
          if (step === steps) return;
          if (done[step]![before] === 1) submit(step + 1, rank);
          const next = (rank + 1) % nodes;
          if (done[step]![next] === 1) submit(step + 1, next);
        },
      }]);
    };
    for (let rank = 0; rank < nodes; rank++) submit(0, rank);
    world.run(Infinity);
    const iterationMs = world.timeline.now / iterations;
    rows.push({ "scheduler": name, "iteration ms": ms(iterationMs), "trace": world.results().hash });
    if (central !== undefined) points.push([central.decisionMs, iterationMs]);
    return iterationMs;
  };
  const bottomUp = run("bottom-up", undefined);
  const central = [0, 1, 5, 10].map((decisionMs) => run(`central, +${decisionMs} ms`, { decisionMs }));
  return {
    title: "Decisions that take longer (the scheduler ablation of the Ray paper)",
    about:
      `ring allreduce of 100 MB on ${nodes} nodes: 30 rounds of ${nodes} tasks, each needs two of the round before`,
    rows,
    findings: [0, 1, 5, 10].map((decisionMs, i) => {
      return `+${decisionMs} ms a decision: ${
        (central[i]! / bottomUp).toFixed(2)
      } times the time of bottom-up`;
    }),
    charts: {
      rounds: {
        title: "Ring allreduce of 100 MB on 16 nodes: time of an iteration",
        note: "Simulated. Each of 30 rounds waits for a decision; bottom-up decides where the task was made.",
        x: { title: "added to each decision of a central scheduler, ms", from: 0, to: 10 },
        y: { title: "iteration, ms" },
        series: [
          { name: "one central scheduler", points },
          { name: "bottom-up", points: [[0, bottomUp], [10, bottomUp]], reference: true },
        ],
      },
    },
  };
}

/** Lengths that differ, some with GPUs, arriving at random. */
function mixed({ seed, nodesMax, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const load = 0.7;
  for (const nodes of [10, 50, 200].filter((nodes) => nodes <= nodesMax)) {
    for (const drivers of [nodes, 1]) {
      for (const name of ["bottom-up", CENTRAL]) {
        const machines = Array.from({ length: nodes }, (_, i): Record<string, number> => {
          return i % 5 === 0 ? { cpu: CPUS, gpu: 4 } : { cpu: CPUS };
        });
        const world = new World({
          seed,
          nodes: machines,
          warmMs: 1_000,
          clock,
          ...name === CENTRAL ? { central: { decisionMs: 0 } } : {},
        });
        const plain = world.shape({ cpu: 1 }), gpu = world.shape({ cpu: 1, gpu: 1 });
        const median = 5, sigma = 1;
        const meanMs = median * Math.exp(sigma * sigma / 2);
        const perSecond = load * nodes * CPUS * 1000 / meanMs / drivers;
        for (let i = 0; i < drivers; i++) {
          world.drive(i, { kind: "rate", perSecond }, (): TaskDraft => {
            const onGpu = world.random() < 0.08;
            return {
              shape: onGpu ? gpu : plain,
              fn: onGpu ? 1 : 0,
              ms: median * Math.exp(sigma * normal(world.random)),
            };
          });
        }
        world.run(3_000);
        rows.push({
          "scheduler": name,
          ...row(nodes, drivers, world.results()),
        });
      }
    }
  }
  return {
    title: "Mixed tasks",
    about:
      `lengths lognormal (median 5 ms, sigma 1), 8% with a GPU (4 on every fifth node), arriving at ${load} of all CPUs`,
    rows,
    findings: [],
    charts: {},
  };
}

/** One task of a hundred takes a hundred times as long. */
function stragglers({ seed, nodesMax, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const nodes = Math.min(50, nodesMax);
  for (const drivers of [nodes, 1]) {
    for (const share of [0, 0.01]) {
      const world = new World({ seed, nodes: same(nodes), warmMs: 2_000, clock });
      const shape = world.shape({ cpu: 1 });
      const meanMs = 5 * (1 - share) + 500 * share;
      const perSecond = 0.7 * nodes * CPUS * 1000 / meanMs / drivers;
      for (let i = 0; i < drivers; i++) {
        world.drive(i, { kind: "rate", perSecond }, () => ({ shape, ms: world.random() < share ? 500 : 5 }));
      }
      world.run(6_000);
      rows.push({ "stragglers": `${share * 100}%`, ...row(nodes, drivers, world.results()) });
    }
  }
  return {
    title: "Stragglers",
    about: "tasks of 5 ms, of which 1% take 500 ms, arriving at 0.7 of all CPUs",
    rows,
    findings: [],
    charts: {},
  };
}

/** Nodes that die in the middle. */
function loss({ seed, nodesMax, clock }: Settings): Report {
  const rows: Record<string, string>[] = [];
  const nodes = Math.min(50, nodesMax);
  for (const dying of [0, 1, 5, 10].filter((dying) => dying < nodes)) {
    const world = new World({ seed, nodes: same(nodes), clock }, true);
    const shape = world.shape({ cpu: 1 });
    let left = 40_000;
    world.drive(0, { kind: "window", tasks: nodes * CPUS * 3 }, () => {
      return left-- > 0 ? { shape, ms: 10 * 2 * world.random() } : undefined;
    });
    for (let i = 0; i < dying; i++) world.timeline.at(500, () => world.kill(nodes - 1 - i));
    world.run(Infinity);
    const specs = world.specs!;
    const again = specs.filter(({ losses }) => losses > 0).length;
    rows.push({
      "nodes": String(nodes),
      "die after 500 ms": String(dying),
      "all done after ms": ms(world.timeline.now),
      "tasks run again": String(again),
      "of them started before": String(specs.filter(({ starts }) => starts > 1).length),
      "ended": String(specs.filter(({ outcome }) => outcome === "done").length),
      "trace": world.results().hash,
    });
  }
  return {
    title: "Nodes that die",
    about: "40,000 tasks of 0 to 20 ms by one driver; the driver's node lives",
    rows,
    findings: [],
    charts: {},
  };
}

// --- Names, rows, numbers -----------------------------------------------------------------------------------------

const EACH = "bottom-up, a driver on each node";
const ONE = "bottom-up, one driver";
const CENTRAL = "one central scheduler";
const AWARE = "locality-aware, driver elsewhere";
const UNAWARE = "unaware, driver elsewhere";
const INSIDE = "driver on one of the two nodes";

/** More under way bring one driver no more: its node cannot give away as many in the time that a task takes. */
const ONE_DRIVER_TASKS_MAX = 4_000;

/** How fast one thread adds two arrays, in bytes a millisecond. */
const REDUCE_BYTES_MS = 5e6;

/** More nodes must bring at least this share of what they would at best. */
const WORTH = 0.5;

function same(nodes: number): Record<string, number>[] {
  return Array.from({ length: nodes }, () => ({ cpu: CPUS }));
}

function row(nodes: number, drivers: number, results: Results): Record<string, string> {
  return {
    "nodes": nodes.toLocaleString("en-US"),
    "drivers": drivers.toLocaleString("en-US"),
    "tasks/s": Math.round(results.perSecond).toLocaleString("en-US"),
    "start p50 ms": ms(results.startP50),
    "p99 ms": ms(results.startP99),
    "busy CPUs": percent(results.utilisation),
    "given away": percent(results.delegated),
    "messages a task: between nodes": results.messagesBetween.toFixed(2),
    "all": results.messagesAll.toFixed(2),
    "busiest node thread": percent(results.busiestThread),
    "head": percent(results.headThread),
    "machines us a task": results.machineUs.toFixed(2),
    "trace": results.hash,
  };
}

/** The first size from which growing is not worth it, in words. */
function kneeOf(points: readonly (readonly [nodes: number, perSecond: number])[]): string {
  for (let i = 0; i + 1 < points.length; i++) {
    const [nodes, perSecond] = points[i]!;
    const [more, then] = points[i + 1]!;
    if (then / perSecond - 1 < WORTH * (more / nodes - 1)) {
      return `the knee is at ${nodes} nodes (${short(perSecond)} tasks/s there, ${short(then)} with ${more})`;
    }
  }
  return `no knee up to ${points.at(-1)![0]} nodes`;
}

function push(series: Map<string, [number, number][]>, name: string, point: [number, number]): void {
  const points = series.get(name);
  if (points === undefined) series.set(name, [point]);
  else points.push(point);
}

/** A number of the normal distribution (Box and Muller). */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

function ms(value: number): string {
  if (Number.isNaN(value)) return "-";
  return value < 1_000 ? String(Number(value.toPrecision(3))) : Math.round(value).toLocaleString("en-US");
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}
