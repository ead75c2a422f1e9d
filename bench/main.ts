/**
 * Measures rayd, beside other systems on the same machine if asked. Every system runs in processes of its own, in turn
 * and repeatedly (rayd, ray, rayd, ray, …), so that what disturbs the machine disturbs all; what is printed is each
 * figure's median over the rounds, and its ratio to rayd's.
 *
 *     deno task bench [--peers ray,dask,piscina,piscina-100,tinypool,workerpool] [--rounds 3] [--only NAME,NAME]
 *                     [--seconds 2] [--tasks 1000000] [--all] [--settle SECONDS] [--json FILE]
 *
 * bench/peers.sh installs the peers. docs/benchmarks.md defines the figures.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Assignment, type Figure, FIGURES, median, MILLION_TASKS, parseLine, show } from "./figures.ts";
import { busyElsewhere, cpuTime, describeMachine, type Machine } from "./machine.ts";

const HERE = new URL(".", import.meta.url).pathname;
const PYTHON = `${HERE}.peers/venv/bin/python`;

const V8_FLAGS = "--single-threaded-gc,--expose-gc";

/** Others that keep more than this many cores busy make a round doubtful. */
const BUSY_CORES_MAX = 0.7;
/** How long the machine is watched before a round. */
const WATCH_MS = 1000;
/** A program that takes longer is ended. */
const PROGRAM_MS_MAX = 300_000;

/** How each system is started; it gets an {@link Assignment} as its last argument. */
const SYSTEMS: Readonly<Record<string, readonly string[]>> = {
  // With the flags that the executable has built in.
  "rayd": [Deno.execPath(), "run", "-A", "--no-check", `--v8-flags=${V8_FLAGS}`, `${HERE}rayd.ts`],
  "ray": [PYTHON, `${HERE}peers/ray_bench.py`],
  "dask": [PYTHON, `${HERE}peers/dask_bench.py`],
  "piscina": ["node", `${HERE}peers/pools_bench.mjs`],
  "piscina-100": ["node", `${HERE}peers/pools_bench.mjs`],
  "tinypool": ["node", `${HERE}peers/pools_bench.mjs`],
  "workerpool": ["node", `${HERE}peers/pools_bench.mjs`],
};

/** One program's run. */
interface Run {
  readonly round: number;
  readonly system: string;
  readonly group: Figure["group"];
  readonly figures: Record<string, number>;
  readonly errors: Record<string, string>;
  /** Cores that others kept busy: in the second before, and during the run. */
  readonly busyBefore: number;
  busyDuring: number;
}

/** What goes to the JSON file. */
interface Report {
  readonly date: string;
  readonly machine: Machine;
  readonly versions: Record<string, string>;
  readonly options: { readonly rounds: number; readonly seconds: number; readonly tasks: number };
  readonly medians: Record<string, Record<string, number>>;
  readonly runs: readonly Run[];
}

const versions: Record<string, string> = {};

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, {
    string: ["peers", "json", "only", "rounds", "seconds", "tasks", "settle"],
    boolean: ["all"],
    default: { rounds: "3", seconds: "2", tasks: String(MILLION_TASKS), settle: "0", peers: "", only: "" },
    unknown: (name: string) => fail(`Unknown argument ${name}: see the head of bench/main.ts`),
  });
  const systems = ["rayd", ...list(args.peers).filter((name) => name !== "rayd")];
  for (const name of systems) {
    if (!(name in SYSTEMS)) fail(`No peer "${name}": ${Object.keys(SYSTEMS).join(", ")}`);
  }
  const only = list(args.only);
  for (const name of only) {
    if (!FIGURES.some((figure) => figure.name === name)) {
      fail(`No figure "${name}": ${FIGURES.map((figure) => figure.name).join(", ")}`);
    }
  }
  const figures = FIGURES.filter(({ name }) => only.length === 0 || only.includes(name));
  const options = {
    rounds: positive("--rounds", args.rounds),
    seconds: positive("--seconds", args.seconds),
    tasks: positive("--tasks", args.tasks),
  };
  const settleMs = Number(args.settle) * 1000;

  const machine = describeMachine();
  console.log(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, ${machine.kernel}; deno ${machine.deno}, V8 ${machine.v8}`,
  );
  const runs: Run[] = [];
  for (const group of ["micro", "million", "idle", "actors", "actors_idle"] as const) {
    const asked = figures.filter((figure) => figure.group === group).map(({ name }) => name);
    if (asked.length === 0) continue;
    for (let round = 1; round <= options.rounds; round++) {
      for (const system of systems) {
        // Minutes and gigabytes for some: on request only.
        if (group === "million" && system !== "rayd" && !args.all) continue;
        const assignment: Assignment = { ...options, figures: asked, cpus: machine.cores, system };
        runs.push(await runProgram(system, group, round, assignment, settleMs));
      }
    }
  }

  const report: Report = {
    date: new Date().toISOString(),
    machine,
    versions,
    options,
    medians: mediansOf(runs),
    runs,
  };
  console.log(`\n${table(figures, systems, report.medians)}`);
  console.log(`\n${Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ")}`);
  const doubtful = runs.filter((run) => Math.max(run.busyBefore, run.busyDuring) > BUSY_CORES_MAX).length;
  if (doubtful > 0) {
    console.log(`WARNING: others kept the machine busy in ${doubtful} of ${runs.length} runs.`);
  }
  const file = args.json ?? `${HERE}results/${report.date.replaceAll(/[:.]/g, "-")}.json`;
  if (args.json === undefined) Deno.mkdirSync(`${HERE}results`, { recursive: true });
  Deno.writeTextFileSync(file, JSON.stringify(report, null, 2) + "\n");
  console.log(`Written to ${file}`);
}

async function runProgram(
  system: string,
  group: Figure["group"],
  round: number,
  assignment: Assignment,
  settleMs: number,
): Promise<Run> {
  const run: Run = {
    round,
    system,
    group,
    figures: {},
    errors: {},
    busyBefore: await watchMachine(settleMs),
    busyDuring: 0,
  };
  if (run.busyBefore > BUSY_CORES_MAX) warn(run, "before", run.busyBefore);
  const [command, ...args] = SYSTEMS[system]!;
  const before = cpuTime();
  let text = "", errors = "", code = -1;
  try {
    const program = new Deno.Command(command!, {
      args: [...args, JSON.stringify(assignment)],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      signal: AbortSignal.timeout(PROGRAM_MS_MAX),
    });
    const output = await program.output();
    code = output.code;
    text = new TextDecoder().decode(output.stdout);
    errors = new TextDecoder().decode(output.stderr);
  } catch (error) {
    errors = `${error}. Are the peers installed? bench/peers.sh does it`;
  }
  run.busyDuring = busyElsewhere(before, cpuTime());
  if (run.busyDuring > BUSY_CORES_MAX) warn(run, "during", run.busyDuring);
  for (const line of text.split("\n").map(parseLine)) {
    if (line === undefined) continue;
    if ("versions" in line) Object.assign(versions, line.versions);
    else if ("error" in line) run.errors[line.figure] = line.error;
    else run.figures[line.figure] = line.value;
  }
  if (code !== 0) run.errors["*"] = `exit ${code}: ${errors.trim().slice(-500)}`;
  const said = Object.entries(run.figures).map(([name, value]) => `${name} ${show(value)}`).join("  ");
  console.log(`[${group} ${round}] ${system}: ${said}`);
  for (const [name, error] of Object.entries(run.errors)) console.log(`  failed: ${name}: ${error}`);
  return run;
}

/** Watches how busy the machine is while nothing of ours runs; waits up to `settleMs` for it to be quiet. */
async function watchMachine(settleMs: number): Promise<number> {
  const started = performance.now();
  while (true) {
    const before = cpuTime();
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    const busy = busyElsewhere(before, cpuTime());
    if (busy <= BUSY_CORES_MAX / 2 || performance.now() - started >= settleMs) return busy;
  }
}

function warn(run: Run, when: "before" | "during", cores: number): void {
  console.log(
    `WARNING: others kept ${cores.toFixed(1)} cores busy ${when} [${run.group} ${run.round}] ${run.system}`,
  );
}

/** Each system's figures: the medians over its rounds. */
function mediansOf(runs: readonly Run[]): Record<string, Record<string, number>> {
  const values: Record<string, Record<string, number[]>> = {};
  for (const { system, figures } of runs) {
    const own = values[system] ??= {};
    for (const [name, value] of Object.entries(figures)) (own[name] ??= []).push(value);
  }
  const medians: Record<string, Record<string, number>> = {};
  for (const [system, own] of Object.entries(values)) {
    medians[system] = Object.fromEntries(Object.entries(own).map(([name, list]) => [name, median(list)]));
  }
  return medians;
}

/** The table, in Markdown: medians, and behind each peer's how many times better rayd is. */
function table(
  figures: readonly Figure[],
  systems: readonly string[],
  medians: Readonly<Record<string, Readonly<Record<string, number>>>>,
): string {
  const rows = [["figure", "unit", ...systems]];
  for (const { name, title, unit, better } of figures) {
    const own = medians["rayd"]?.[name];
    const cells = systems.map((system) => {
      const value = medians[system]?.[name];
      if (value === undefined) return "-";
      if (system === "rayd" || own === undefined) return show(value);
      return `${show(value)} (${show(better === "higher" ? own / value : value / own)}x)`;
    });
    rows.push([title, unit, ...cells]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join(" | ")} |`;
  const rule = widths.map((width, i) => i < 2 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`);
  return [line(rows[0]!), line(rule), ...rows.slice(1).map(line)].join("\n");
}

function list(text: string): string[] {
  return text.split(",").map((item) => item.trim()).filter((item) => item !== "");
}

function positive(option: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) fail(`Cannot use ${option} ${text}: give a number above 0`);
  return value;
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}

if (import.meta.main) await main();
