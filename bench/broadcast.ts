/**
 * Measures a broadcast on this machine: one object to one node, and to many at once. All nodes share the machine's cores
 * and memory, so that all copies together are what its processors can copy; on machines of their own each node would have
 * its own.
 *
 *     bin/build && deno run -A bench/broadcast.ts [--nodes 8] [--bytes 1073741824]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { show } from "./figures.ts";

const HERE = new URL(".", import.meta.url).pathname;
const RAYD = `${HERE}../dist/rayd`;

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, {
    string: ["nodes", "bytes"],
    default: { nodes: "8", bytes: "1073741824" },
  });
  const count = Number(args.nodes), bytes = Number(args.bytes);
  const one = await broadcast(1, bytes), many = await broadcast(count, bytes);
  const [oneMs, manyMs] = [Math.min(...one), Math.min(...many)];
  console.log(
    `to 1 node: ${one.map((ms) => show(ms)).join(", ")} ms; to ${count}: ${
      many.map((ms) => show(ms)).join(", ")
    } ms`,
  );
  console.log(
    `${show(bytes / 1e9)} GB to ${count} nodes takes ${show(manyMs / oneMs)} times as long as to one`,
  );
}

/** Milliseconds for each object, to `count` nodes of a new cluster. */
async function broadcast(count: number, bytes: number): Promise<number[]> {
  const home = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
  const env: Record<string, string> = { HOME: home, RAYD_CACHE: `${home}/cache` };
  const rayd = async (...args: string[]) => {
    const { stdout } = await new Deno.Command(RAYD, { args, env, stderr: "inherit" }).output();
    return new TextDecoder().decode(stdout);
  };
  const memory = String(Math.ceil(bytes * 1.3));
  try {
    const said = await rayd("head", "--detach", "--port", "0", "--cpus", "0", "--store-memory", memory);
    env.RAYD_ADDRESS = /is up at (\S+)/.exec(said)![1]!;
    for (let i = 0; i < count; i++) await rayd("worker", "--detach", "--cpus", "1", "--store-memory", memory);
    const nodes = JSON.parse(await rayd("list", "nodes", "--json")) as { node: string; role: string }[];
    const workers = nodes.filter(({ role }) => role === "worker").map(({ node }) => node);
    env.RAYD_NODE = nodes.find(({ role }) => role === "head")!.node;
    return JSON.parse(await rayd("run", `${HERE}broadcast_rayd.ts`, String(bytes), ...workers)) as number[];
  } finally {
    await rayd("stop");
    Deno.removeSync(home, { recursive: true });
  }
}

if (import.meta.main) await main();
