/**
 * Calls actors on a cluster, kills nodes, and draws what was done when (docs/actor_recovery.svg): calls that ran for the
 * first time, and those that ran again where their actor was taken up (the Ray paper, figure 11b). Of each actor no more
 * may run again than there are between two checkpoints.
 *
 *     bin/build && deno run -A bench/actor_recovery.ts [--seconds 40]
 *
 * Calls only wait, so that what is shown is the runtime's doing rather than how few cores the machine has.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Executables } from "./executables.ts";
import { draw } from "./simulate/plot.ts";

const HERE = new URL(".", import.meta.url).pathname;
const NODES = 5, ACTORS = 60, EVERY = 20, CALL_MS = 50, SAMPLE_S = 0.5;
/** By what part of the time a node is killed. */
const KILLS = [0.35, 0.65];

const { seconds: given } = parseArgs(Deno.args, { string: ["seconds"], default: { seconds: "40" } });
const seconds = Number(given);
await using cluster = new Executables();

await cluster.head("--cpus", "0", "--store-memory", "128MB");
const workers: Deno.ChildProcess[] = [];
for (let i = 0; i < NODES; i++) {
  const worker = await cluster.worker("--cpus", "1", "--store-memory", "128MB");
  workers.push(worker);
}
const log = `${cluster.home}/calls.log`;
const program = cluster.start(
  "run",
  `${HERE}actor_recovery_rayd.ts`,
  ...[ACTORS, EVERY, CALL_MS, seconds].map(String),
  log,
);
const output = program.stdout.pipeThrough(new TextDecoderStream()).getReader();
await output.read();
const began = Date.now();
const kills: number[] = [];
for (const part of KILLS) {
  const now = (Date.now() - began) / 1000;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, part * seconds - now) * 1000));
  const victim = workers.shift()!;
  victim.kill("SIGKILL");
  kills.push((Date.now() - began) / 1000);
  console.log(`${kills.at(-1)!.toFixed(1)} s: a node was killed, ${workers.length} nodes`);
  await victim.status;
}
let text = "";
for (let part = await output.read(); !part.done; part = await output.read()) text += part.value;
const { code } = await program.status;
if (code !== 0) throw new Error(`the program ended with status ${code}`);
const slots = Math.ceil(seconds / SAMPLE_S);
const first = new Array<number>(slots).fill(0), again = [...first];
const counts = { first: 0, again: 0 };
/** By actor and kill: calls that ran again. */
const repeated = new Map<string, number>();
for (const line of Deno.readTextFileSync(log).trim().split("\n")) {
  const [name = "", at, replaying] = line.split(" ");
  const second = (Number(at) - began) / 1000;
  const slot = Math.floor(second / SAMPLE_S);
  if (replaying === "1") {
    counts.again++;
    const key = `${name.split("/")[0]} after ${kills.filter((kill) => kill < second).length}`;
    repeated.set(key, (repeated.get(key) ?? 0) + 1);
  } else counts.first++;
  if (slot >= 0 && slot < slots) (replaying === "1" ? again : first)[slot]! += 1 / SAMPLE_S;
}
const most = Math.max(0, ...repeated.values());
console.log(
  `${text.trim()}; ${counts.first} first runs, ${counts.again} repeated, at most ${most} of one actor (checkpoint every ` +
    `${EVERY}); none lost, none applied twice`,
);
const at = (values: number[]) => values.map((value, i) => [(i + 0.5) * SAMPLE_S, value] as const);
const full = ACTORS * 1000 / CALL_MS;
const svg = draw({
  title: "Calls of durable actors while nodes are killed",
  note:
    `${ACTORS} actors on ${NODES} nodes of one machine; each call waits ${CALL_MS} ms; a checkpoint every ${EVERY} calls`,
  x: { title: "seconds", from: 0, to: seconds },
  y: { title: "calls a second", from: 0 },
  series: [
    { name: "run for the first time", points: at(first) },
    { name: "run again, to rebuild actors", points: at(again) },
    { name: "if calls took no more than they wait", reference: true, points: [[0, full], [seconds, full]] },
    { name: "a node is killed", alone: true, points: kills.map((kill) => [kill, 0] as const) },
  ],
});
Deno.writeTextFileSync(`${HERE}../docs/actor_recovery.svg`, svg);
