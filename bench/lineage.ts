/**
 * Measures what it costs to keep lineage in the control store, and to keep that store three times: tasks a second that a
 * task submits, whose results refer to objects. On the node that its program is connected to, lineage stays in memory; on
 * another node it is written, and what other nodes are told waits for that. Tasks that leave nothing, for comparison, have
 * no lineage.
 *
 *     bin/build && deno run -A bench/lineage.ts [--rounds 3]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { median, show } from "./figures.ts";

const HERE = new URL(".", import.meta.url).pathname;
const RAYD = `${HERE}../dist/rayd`;

/** What is measured in turn: the node that the program is connected to, and how often the store is kept. */
const SYSTEMS = [
  { role: "worker", replicas: 1 },
  { role: "head", replicas: 1 },
  { role: "head", replicas: 3 },
] as const;

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["rounds"], default: { rounds: "3" } });
  const values: Record<string, number[]> = {};
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const { role, replicas } of SYSTEMS) {
      for (const line of (await measure(role, replicas)).trim().split("\n")) {
        const { figure, value } = JSON.parse(line) as { figure: string; value: number };
        (values[`${figure} ${role} ${replicas}`] ??= []).push(value);
      }
    }
  }
  const middle = (name: string) => median(values[name]!);
  const nothing = middle("nothing head 1"), kept = middle("box worker 1");
  const written = middle("box head 1"), replicated = middle("box head 3");
  const percent = (value: number, of: number) => `${show(100 * value / of)}%`;
  console.log(`tasks that leave nothing: ${show(nothing)}/s`);
  console.log(`tasks whose lineage stays in memory: ${show(kept)}/s`);
  console.log(`tasks whose lineage is written: ${show(written)}/s (${percent(written, kept)})`);
  console.log(
    `with three replicas: ${show(replicated)}/s (${percent(replicated, written)} of that with one)`,
  );
  const both = middle("nothing head 3");
  console.log(`tasks that leave nothing, with three replicas: ${show(both)}/s (${percent(both, nothing)})`);
}

/**
 * @param role Of the node that the program is connected to; tasks are submitted on the worker.
 * @param replicas How many nodes keep the control store.
 */
async function measure(role: string, replicas: number): Promise<string> {
  const home = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
  const env: Record<string, string> = { HOME: home, RAYD_CACHE: `${home}/cache` };
  const rayd = async (...args: string[]) => {
    const { stdout } = await new Deno.Command(RAYD, { args, env, stderr: "inherit" }).output();
    return new TextDecoder().decode(stdout);
  };
  const idle = ["--detach", "--cpus", "0", "--store-memory", "256MB"];
  try {
    const said = await rayd(
      ...["head", "--port", "0", "--replicas", `${replicas}`, "--log-level", "info"],
      ...idle,
    );
    env.RAYD_ADDRESS = /is up at (\S+)/.exec(said)![1]!;
    await rayd("worker", "--detach", "--store-memory", "256MB", "--resources", "far=1");
    for (let nodes = 2; nodes < replicas; nodes++) await rayd("worker", ...idle);
    if (replicas > 1) await whole(/Its log is (\S+)/.exec(said)![1]!, replicas);
    const nodes = JSON.parse(await rayd("list", "nodes", "--json")) as { node: string; role: string }[];
    env.RAYD_NODE = nodes.find((node) => node.role === role)!.node;
    return await rayd("run", `${HERE}lineage_rayd.ts`);
  } finally {
    await rayd("stop");
    Deno.removeSync(home, { recursive: true });
  }
}

/** Waits until so many nodes keep the control store. @param log Of the head. */
async function whole(log: string, replicas: number): Promise<void> {
  const kept = (line: string) => line.includes(" joins") ? 0 : line.split(",").length;
  for (;;) {
    const epochs = Deno.readTextFileSync(log).match(/Epoch \d+ of the control store: .*/g);
    if (kept(epochs?.at(-1) ?? " joins") === replicas) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

if (import.meta.main) await main();
