/**
 * Runs a program that never stops submitting tasks on a cluster, and watches whether anything grows: memory of the head,
 * of the worker, of the program, and the control store's size on disk (the Ray paper, figure 10b, where 50 million tasks
 * fill a store that is not flushed). Draws docs/endless.svg.
 *
 *     bin/build && deno run -A bench/endless.ts [--tasks 5000000]
 *
 * One task in a thousand returns an object of 100 KB, which is kept while the next 100 of them are made.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { treeMemory } from "./machine.ts";
import { Executables } from "./executables.ts";
import { draw } from "./simulate/plot.ts";

const HERE = new URL(".", import.meta.url).pathname;
const SAMPLE_MS = 2_000;

const { tasks } = parseArgs(Deno.args, { string: ["tasks"], default: { tasks: "5000000" } });
await using cluster = new Executables();

function directoryBytes(path: string): number {
  let bytes = 0;
  for (const { name, isDirectory } of Deno.readDirSync(path)) {
    const file = `${path}/${name}`;
    bytes += isDirectory ? directoryBytes(file) : (Deno.statSync(file).blocks ?? 0) * 512;
  }
  return bytes;
}

const head = await cluster.head("--cpus", "1", "--store-memory", "256MB");
const worker = await cluster.worker("--cpus", "1", "--store-memory", "256MB");
const program = cluster.start("run", `${HERE}endless_rayd.ts`, tasks);
const samples: { done: number; mb: Record<string, number> }[] = [];
let sampled = 0;
const started = performance.now();
for await (const text of program.stdout.pipeThrough(new TextDecoderStream())) {
  const done = Number(text.trim().split("\n").at(-1));
  if (performance.now() - sampled < SAMPLE_MS || !Number.isFinite(done)) continue;
  sampled = performance.now();
  const mb = {
    "head": treeMemory(head.pid).now,
    "worker": treeMemory(worker.pid).now,
    "program": treeMemory(program.pid).now,
    "control store on disk": directoryBytes(`${cluster.home}/.rayd/head`) / 1e6,
  };
  samples.push({ done, mb });
  console.log(
    `${done} tasks: ${Object.entries(mb).map(([name, n]) => `${name} ${n.toFixed(1)} MB`).join(", ")}`,
  );
}
const seconds = (performance.now() - started) / 1000;
const { code } = await program.status;
if (code !== 0) throw new Error(`the program ended with status ${code}`);
console.log(`${tasks} tasks in ${seconds.toFixed(1)} s: ${Math.round(Number(tasks) / seconds)} tasks/s`);
const svg = draw({
  title: `Memory while ${(Number(tasks) / 1e6).toLocaleString("en-US")} million tasks run`,
  note:
    "a head and a worker on one machine, and the program that submits; 1 task in 1,000 leaves 100 KB for a while",
  x: { title: "tasks done, in millions", from: 0 },
  y: { title: "MB", from: 0 },
  series: Object.keys(samples[0]!.mb).map((name) => ({
    name,
    points: samples.map(({ done, mb }) => [done / 1e6, mb[name]!] as const),
  })),
});
Deno.writeTextFileSync(`${HERE}../docs/endless.svg`, svg);
