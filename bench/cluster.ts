/**
 * Measures a cluster on this machine: a head without CPUs and a worker, so that every task crosses from node to node;
 * beside Ray set up the same way, and beside what a TCP connection over loopback carries, in turns in one run.
 *
 *     bin/build && deno run -A bench/cluster.ts [--rounds 3] [--peers ray]
 *
 * Figures: `start`, seconds from starting head and worker to the first remote task's result; `far_async`, empty tasks a
 * second, 1,000 at a time; `far_sync`, one at a time; `fetch`, GB/s of reading a 100 MB result that lies on the other
 * node; `idle`, MB of head and worker, pages that several processes share counted once. bench/peers.sh installs Ray.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { median, parseLine, show } from "./figures.ts";
import { treeMemory } from "./machine.ts";

const HERE = new URL(".", import.meta.url).pathname;
const RAYD = `${HERE}../dist/rayd`;
const PYTHON = `${HERE}.peers/venv/bin/python`;

const FIGURES: Readonly<Record<string, { readonly unit: string; readonly higher: boolean }>> = {
  start: { unit: "s", higher: false },
  far_async: { unit: "tasks/s", higher: true },
  far_sync: { unit: "tasks/s", higher: true },
  fetch: { unit: "GB/s", higher: true },
  tcp: { unit: "GB/s", higher: true },
  idle: { unit: "MB", higher: false },
};

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["rounds", "peers"], default: { rounds: "3", peers: "" } });
  const systems: Record<string, () => Promise<Record<string, number>>> = { rayd, tcp };
  if (args.peers.includes("ray")) systems.ray = ray;
  const values: Record<string, Record<string, number[]>> = {};
  for (let round = 1; round <= Number(args.rounds); round++) {
    for (const [name, measure] of Object.entries(systems)) {
      const figures = await measure();
      const said = Object.entries(figures).map(([figure, value]) => `${figure} ${show(value)}`);
      console.log(`[${round}] ${name}: ${said.join("  ")}`);
      for (const [figure, value] of Object.entries(figures)) {
        ((values[name] ??= {})[figure] ??= []).push(value);
      }
    }
  }
  const middle = (name: string, figure: string) => {
    const list = values[name]?.[figure];
    return list === undefined ? undefined : median(list);
  };
  console.log("");
  for (const [figure, { unit, higher }] of Object.entries(FIGURES)) {
    const own = middle("rayd", figure), other = middle("ray", figure);
    if (own === undefined) continue;
    const ratio = other === undefined
      ? ""
      : `, ray ${show(other)}: ${show(higher ? own / other : other / own)}x`;
    console.log(`${figure}: ${show(own)} ${unit}${ratio}`);
  }
  const fetched = middle("rayd", "fetch"), raw = middle("tcp", "tcp");
  if (fetched !== undefined && raw !== undefined) {
    console.log(`fetch is ${show(100 * fetched / raw)}% of raw TCP over loopback (${show(raw)} GB/s)`);
  }
}

/** A head without CPUs, a worker with all of them, and the script of bench/cluster_rayd.ts. */
async function rayd(): Promise<Record<string, number>> {
  const home = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
  const env = { HOME: home, RAYD_CACHE: `${home}/cache` };
  const started = performance.now();
  const nodes: Deno.ChildProcess[] = [];
  const start = async (args: string[], ready: string, more: Record<string, string> = {}) => {
    const child = new Deno.Command(RAYD, { args, env: { ...env, ...more }, stdin: "null", stdout: "piped" })
      .spawn();
    nodes.push(child);
    let text = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (text.includes(ready)) break;
    }
    return text;
  };
  try {
    const said = await start(
      ["head", "--port", "0", "--cpus", "0", "--store-memory", "1GB"],
      "The token is in",
    );
    const address = /is up at (\S+)/.exec(said)![1]!;
    await start(["worker", "--address", address, "--store-memory", "1GB"], "has joined");
    const pause = performance.now();
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
    const idle = nodes.reduce((sum, { pid }) => sum + treeMemory(pid).now, 0);
    const paused = performance.now() - pause;
    const { stdout } = await new Deno.Command(RAYD, {
      args: ["run", `${HERE}cluster_rayd.ts`, String(Date.now() - (performance.now() - started) + paused)],
      env: { ...env, RAYD_ADDRESS: address },
      stderr: "inherit",
    }).output();
    return {
      ...figuresOf(new TextDecoder().decode(stdout)),
      idle,
    };
  } finally {
    for (const child of nodes.reverse()) {
      child.kill("SIGKILL");
      await child.status;
    }
    Deno.removeSync(home, { recursive: true });
  }
}

/** How long nodes are left alone before their memory is taken. */
const IDLE_MS = 2_000;

async function ray(): Promise<Record<string, number>> {
  const { stdout } = await new Deno.Command(PYTHON, {
    args: [`${HERE}peers/ray_cluster_bench.py`],
    stderr: "null",
  }).output();
  return figuresOf(new TextDecoder().decode(stdout));
}

function figuresOf(text: string): Record<string, number> {
  const figures: Record<string, number> = {};
  for (const line of text.split("\n").map(parseLine)) {
    if (line !== undefined && "value" in line) figures[line.figure] = line.value;
  }
  return figures;
}

const TCP_BYTES = 1e9;

/** One connection from another process of Deno: 100 MB that lie in memory, again and again, into 100 MB. */
async function tcp(): Promise<Record<string, number>> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const sender = `const c = await Deno.connect({ hostname: "127.0.0.1", port: ${listener.addr.port} });
    const b = new Uint8Array(100e6).fill(1);
    for (let sent = 0; sent < ${TCP_BYTES};) sent += await c.write(b.subarray(sent % b.length));
    await c.read(b);`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", sender] }).spawn();
  const conn = await listener.accept();
  const target = new Uint8Array(100e6).fill(1);
  let read = 0;
  const started = performance.now();
  while (read < TCP_BYTES) {
    const at = read % target.length;
    read += (await conn.read(target.subarray(at)))!;
  }
  const seconds = (performance.now() - started) / 1000;
  conn.close();
  listener.close();
  await child.status;
  return { tcp: TCP_BYTES / 1e9 / seconds };
}

if (import.meta.main) await main();
