/**
 * Measures pools of worker threads under Node: the same work as bench/rayd.ts, as far as a pool has the notion. They
 * have no objects, no dependencies and no tasks from tasks: those figures are left out.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const IDLE_WORKERS = 8;
const { load, versionOf } = await import(new URL("../.peers/load.mjs", import.meta.url).href);
const worker = fileURLToPath(new URL("./pools_worker.mjs", import.meta.url));
const workerpoolWorker = fileURLToPath(new URL("./workerpool_worker.mjs", import.meta.url));

/** Each makes a pool: `run` a function by name, `end` it. */
const POOLS = {
  async piscina(threads, options = {}) {
    const { Piscina } = await load("piscina");
    return () => {
      const pool = new Piscina({ filename: worker, minThreads: threads, maxThreads: threads, ...options });
      return { run: (name, argument) => pool.run(argument, { name }), end: () => pool.destroy() };
    };
  },
  /** piscina with its queue in the workers: up to 100 tasks handed to each at once, as rayd hands them ahead. */
  "piscina-100": (threads) => POOLS.piscina(threads, { concurrentTasksPerWorker: 100, maxQueue: Infinity }),
  async tinypool(threads) {
    const { Tinypool } = await load("tinypool");
    return () => {
      const pool = new Tinypool({ filename: worker, minThreads: threads, maxThreads: threads });
      return { run: (name, argument) => pool.run(argument, { name }), end: () => pool.destroy() };
    };
  },
  async workerpool(threads) {
    const { default: workerpool } = await load("workerpool");
    return () => {
      const pool = workerpool.pool(workerpoolWorker, {
        minWorkers: threads,
        maxWorkers: threads,
        workerType: "thread",
      });
      return { run: (name, argument) => pool.exec(name, [argument]), end: () => pool.terminate() };
    };
  },
};

const assignment = JSON.parse(process.argv[2]);
const { figures, seconds, system } = assignment;
const asked = new Set(figures);
print({ versions: { [system]: versionOf(system.replace(/-100$/, "")), node: process.versions.node } });

const make = await POOLS[system](asked.has("idle") ? IDLE_WORKERS : assignment.cpus);
const started = performance.now();
const pool = make();
await pool.run("small");
report("start", (performance.now() - started) / 1000);

const batch = (count) => {
  const results = [];
  for (let i = 0; i < count; i++) results.push(pool.run("small"));
  return Promise.all(results);
};

const MEASURES = [
  [["tasks_async"], async () => report("tasks_async", 1000 * await rate(seconds, () => batch(1000)))],
  [["tasks_sync"], async () => report("tasks_sync", await rate(seconds, () => pool.run("small")))],
  [["task_1mb"], async () => report("task_1mb", await rate(seconds, () => pool.run("megabyte")))],
  [["million", "million_peak"], async () => {
    const started = performance.now();
    await batch(assignment.tasks);
    report("million", (performance.now() - started) / 1000);
    report("million_peak", memory("/proc/self/status", "VmHWM"));
  }],
  [["idle"], async () => {
    await Promise.all(Array.from({ length: IDLE_WORKERS }, () => pool.run("sleep", 1000)));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    report("idle", memory("/proc/self/smaps_rollup", "Pss"));
  }],
];

for (const [names, measure] of MEASURES) {
  if (!names.some((name) => asked.has(name))) continue;
  try {
    await measure();
  } catch (error) {
    for (const figure of names) print({ figure, error: String(error) });
  }
}
await pool.end();
process.exit(0);

/** How often a second `run` runs: a quarter of the time to warm up, then for `seconds`; at least once of each. */
async function rate(seconds, run) {
  await repeat(seconds / 4, run);
  return await repeat(seconds, run);
}

async function repeat(seconds, run) {
  const started = performance.now();
  let runs = 0, passed = 0;
  do {
    await run();
    runs++;
    passed = (performance.now() - started) / 1000;
  } while (passed < seconds);
  return runs / passed;
}

/** Memory in MB of this process; pools of threads have no other. */
function memory(path, field) {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(path, "utf8"))[1]) * 1.024 /
    1000;
}

function report(figure, value) {
  if (asked.has(figure)) print({ figure, value });
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}
