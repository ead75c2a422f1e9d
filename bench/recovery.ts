/**
 * Runs chains of tasks with objects on a cluster, kills nodes and adds others, and draws what was done when
 * (docs/recovery.svg): tasks that ran for the first time, and those that ran once more because what they had made was
 * lost with a node (the Ray paper, figure 11a).
 *
 *     bin/build && deno run -A bench/recovery.ts [--seconds 60]
 *
 * Tasks only wait, 100 ms each, so that what is shown is the runtime's doing rather than how few cores the machine has.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Executables } from "./executables.ts";
import { draw } from "./simulate/plot.ts";

const HERE = new URL(".", import.meta.url).pathname;
const NODES = 5, CPUS = 4, TASK_MS = 100, LINKS = 20;
/** Twice as many chains as there are CPUs: each of them has something to do, and what is submitted waits. */
const LINES = 2 * NODES * CPUS;
const SAMPLE_S = 1;
/** By what part of the time a node is killed (-1) or added (1). */
const CHANGES = [[0.2, -1], [0.3, -1], [0.4, -1], [0.6, 1], [0.7, 1], [0.8, 1]] as const;

const { seconds: given } = parseArgs(Deno.args, { string: ["seconds"], default: { seconds: "60" } });
const seconds = Number(given);
await using cluster = new Executables();

const startWorker = () => cluster.worker("--cpus", `${CPUS}`, "--store-memory", "256MB");

/** Kills and adds nodes. @returns How many there were from when on, in seconds. */
async function change(workers: Deno.ChildProcess[], began: number): Promise<[number, number][]> {
  const counts: [number, number][] = [[0, workers.length]];
  const now = () => (performance.now() - began) / 1000;
  for (const [part, by] of CHANGES) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, part * seconds - now()) * 1000));
    if (by > 0) workers.push(await startWorker());
    else {
      const victim = workers.shift()!;
      victim.kill("SIGKILL");
      await victim.status;
    }
    counts.push([now(), workers.length]);
    console.log(
      `${now().toFixed(1)} s: ${by < 0 ? "a node was killed" : "a node was added"}, ${workers.length} nodes`,
    );
  }
  return counts;
}

/** Tasks a second of each stretch of time: those that ran for the first time, and those that ran once more. */
function rates(log: string, began: number): { readonly first: number[]; readonly again: number[] } {
  const first = new Array<number>(Math.ceil(seconds / SAMPLE_S)).fill(0), again = [...first];
  const seen = new Set<string>();
  for (const line of log.trim().split("\n")) {
    const [name = "", at] = line.split(" ");
    const slot = Math.floor((Number(at) - began) / 1000 / SAMPLE_S);
    const of = seen.has(name) ? again : first;
    if (slot >= 0 && slot < of.length) of[slot]! += 1 / SAMPLE_S;
    seen.add(name);
  }
  return { first, again };
}

await cluster.head("--cpus", "0", "--store-memory", "256MB");
const workers: Deno.ChildProcess[] = [];
for (let i = 0; i < NODES; i++) workers.push(await startWorker());
// The program is connected to the head, which is spared: it has no CPUs, so nothing runs there.
const log = `${cluster.home}/tasks.log`;
const program = cluster.start(
  "run",
  `${HERE}recovery_rayd.ts`,
  ...[LINES, LINKS, TASK_MS, seconds].map(String),
  log,
);
const output = program.stdout.pipeThrough(new TextDecoderStream()).getReader();
await output.read();
const began = performance.now(), beganAt = Date.now();
const counts = await change(workers, began);
let text = "";
for (let part = await output.read(); !part.done; part = await output.read()) text += part.value;
const { code } = await program.status;
if (code !== 0) throw new Error(`the program ended with status ${code}`);
const { first, again } = rates(Deno.readTextFileSync(log), beganAt);
const sum = (values: number[]) => Math.round(values.reduce((a, b) => a + b, 0) * SAMPLE_S);
console.log(`${text.trim()}, ${sum(first)} tasks, ${sum(again)} ran again; all came to what they must`);
const full = (workers: number) => workers * CPUS * 1000 / TASK_MS;
const at = (values: number[]) => values.map((value, i) => [(i + 0.5) * SAMPLE_S, value] as const);
const svg = draw({
  title: "Chains of tasks while nodes are killed and added",
  note:
    `${NODES} nodes of ${CPUS} CPUs on one machine; chains of ${LINKS} tasks of ${TASK_MS} ms, each with an object of 100 KB`,
  x: { title: "seconds", from: 0, to: seconds },
  y: { title: "tasks a second", from: 0 },
  series: [
    { name: "run for the first time", points: at(first) },
    { name: "run again, as what they made was lost", points: at(again) },
    {
      name: "what the nodes' CPUs can do",
      reference: true,
      points: counts.flatMap(([from, count], i) =>
        [[from, full(count)], [counts[i + 1]?.[0] ?? seconds, full(count)]] as const
      ),
    },
  ],
});
Deno.writeTextFileSync(`${HERE}../docs/recovery.svg`, svg);
