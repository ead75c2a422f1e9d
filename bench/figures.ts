/**
 * The figures: what is measured, in which unit, and which direction is better. docs/benchmarks.md defines each; the
 * programs that measure them (rayd.ts and peers/) know them by `name`.
 *
 * @module
 */

/** One thing that is measured. */
export interface Figure {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** Figures of one group are measured by one process, one after the other; groups do not disturb each other. */
  readonly group: "micro" | "million" | "idle" | "actors" | "actors_idle";
}

/** Tasks that figure "million" queues, unless `--tasks` says otherwise. */
export const MILLION_TASKS = 1_000_000;

/** All figures, in the order in which they are measured and printed. */
export const FIGURES: readonly Figure[] = [
  { name: "start", title: "start to first result", unit: "s", better: "lower", group: "micro" },
  { name: "tasks_async", title: "tasks, 1,000 at a time", unit: "tasks/s", better: "higher", group: "micro" },
  { name: "tasks_sync", title: "tasks, one at a time", unit: "tasks/s", better: "higher", group: "micro" },
  { name: "fib", title: "recursive fib(8) as tasks", unit: "ms", better: "lower", group: "micro" },
  { name: "chain", title: "chain of 100 tasks", unit: "tasks/s", better: "higher", group: "micro" },
  { name: "wait", title: "wait on 1,000, one at a time", unit: "rounds/s", better: "higher", group: "micro" },
  { name: "nested", title: "100 tasks from a task", unit: "tasks/s", better: "higher", group: "micro" },
  { name: "put_small", title: "put small", unit: "/s", better: "higher", group: "micro" },
  { name: "get_small", title: "get small", unit: "/s", better: "higher", group: "micro" },
  { name: "put_100mb", title: "put 100 MB", unit: "GB/s", better: "higher", group: "micro" },
  { name: "put_100mb_share", title: "put 100 MB, of memcpy", unit: "%", better: "higher", group: "micro" },
  { name: "get_100mb", title: "get 100 MB", unit: "us", better: "lower", group: "micro" },
  { name: "task_1mb", title: "task that returns 1 MB", unit: "tasks/s", better: "higher", group: "micro" },
  { name: "million", title: "tasks queued, then drained", unit: "s", better: "lower", group: "million" },
  { name: "million_peak", title: "peak memory of that", unit: "MB", better: "lower", group: "million" },
  { name: "idle", title: "idle memory, 8 workers", unit: "MB", better: "lower", group: "idle" },
  {
    name: "actor_sync",
    title: "actor calls, one at a time",
    unit: "calls/s",
    better: "higher",
    group: "actors",
  },
  {
    name: "actor_async",
    title: "actor calls, 1,000 at a time",
    unit: "calls/s",
    better: "higher",
    group: "actors",
  },
  { name: "actor_durable", title: "the same, durable", unit: "calls/s", better: "higher", group: "actors" },
  {
    name: "actor_interleaved",
    title: "the same, interleaved",
    unit: "calls/s",
    better: "higher",
    group: "actors",
  },
  {
    name: "actor_many",
    title: "tasks that call actors, n:n",
    unit: "calls/s",
    better: "higher",
    group: "actors",
  },
  { name: "actor_1mb", title: "actor calls with 1 MB", unit: "calls/s", better: "higher", group: "actors" },
  { name: "actors_20", title: "20 actors created and called", unit: "s", better: "lower", group: "actors" },
  {
    name: "actors_light",
    title: "the same, in shared isolates",
    unit: "s",
    better: "lower",
    group: "actors",
  },
  { name: "actors_22", title: "memory with 22 actors", unit: "MB", better: "lower", group: "actors_idle" },
];

/** What the harness asks of a program that measures: one JSON argument. */
export interface Assignment {
  /** Names of figures, in order. A program leaves out those that its system has no notion of. */
  readonly figures: readonly string[];
  readonly cpus: number;
  /** How long each rate is measured. */
  readonly seconds: number;
  /** How many tasks figure "million" queues. */
  readonly tasks: number;
  /** Which of the systems that one program can measure. */
  readonly system: string;
}

/** What a program prints: one JSON line a figure, and any other lines it likes. */
export type Line =
  | { readonly figure: string; readonly value: number }
  | { readonly figure: string; readonly error: string }
  | { readonly versions: Readonly<Record<string, string>> };

/** Reads a line of a program's output; undefined if it is not a figure. */
export function parseLine(text: string): Line | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    const line: unknown = JSON.parse(text);
    if (typeof line !== "object" || line === null) return undefined;
    if ("versions" in line || "figure" in line) return line as Line;
  } catch {
    // Not ours.
  }
  return undefined;
}

/** The middle of some numbers; the mean of the two middle ones if their count is even. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** A number as a person reads it: three significant digits, thousands set apart. */
export function show(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3);
}
