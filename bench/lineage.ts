/**
 * Measures what it costs to keep lineage in the control store: tasks a second that a task submits, whose results refer to
 * objects. On the node that its program is connected to, lineage stays in memory; on another node it is written, and what
 * other nodes are told waits for that. Tasks that leave nothing, for comparison, have no lineage.
 *
 *     bin/build && deno run -A bench/lineage.ts [--rounds 3]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { median, show } from "./figures.ts";

const HERE = new URL(".", import.meta.url).pathname;
const RAYD = `${HERE}../dist/rayd`;

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["rounds"], default: { rounds: "3" } });
  const values: Record<string, number[]> = {};
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const role of ["worker", "head"]) {
      for (const line of (await measure(role)).trim().split("\n")) {
        const { figure, value } = JSON.parse(line) as { figure: string; value: number };
        (values[`${figure} ${role}`] ??= []).push(value);
      }
    }
  }
  const middle = (name: string) => median(values[name]!);
  const nothing = middle("nothing head"), kept = middle("box worker"), written = middle("box head");
  console.log(`tasks that leave nothing: ${show(nothing)}/s`);
  console.log(`tasks whose lineage stays in memory: ${show(kept)}/s`);
  console.log(`tasks whose lineage is written: ${show(written)}/s (${show(100 * written / kept)}%)`);
}

/** @param role Of the node that the program is connected to; tasks are submitted on the worker. */
async function measure(role: string): Promise<string> {
  const home = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
  const env: Record<string, string> = { HOME: home, RAYD_CACHE: `${home}/cache` };
  const rayd = async (...args: string[]) => {
    const { stdout } = await new Deno.Command(RAYD, { args, env, stderr: "inherit" }).output();
    return new TextDecoder().decode(stdout);
  };
  try {
    const said = await rayd("head", "--detach", "--port", "0", "--cpus", "0", "--store-memory", "256MB");
    env.RAYD_ADDRESS = /is up at (\S+)/.exec(said)![1]!;
    await rayd("worker", "--detach", "--store-memory", "256MB", "--resources", "far=1");
    const nodes = JSON.parse(await rayd("list", "nodes", "--json")) as { node: string; role: string }[];
    env.RAYD_NODE = nodes.find((node) => node.role === role)!.node;
    return await rayd("run", `${HERE}lineage_rayd.ts`);
  } finally {
    await rayd("stop");
    Deno.removeSync(home, { recursive: true });
  }
}

if (import.meta.main) await main();
