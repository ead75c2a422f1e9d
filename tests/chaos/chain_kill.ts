/**
 * Kills nodes that keep the control store with -9, again and again, whichever of the three it is, and starts others in
 * their place, while clients read, write and swap keys. What they saw must be linearizable, nothing acknowledged may be
 * lost, and the store has to be whole again after each kill.
 *
 *     deno run -A --v8-flags=--initial-old-space-size=4000 tests/chaos/chain_kill.ts
 *       [--kills 100] [--clients 4] [--reads 0.4] [--rest 200] [--seed 1]
 *
 * `--rest` is for how many milliseconds at least the store has been whole before each kill: the node that was started last
 * takes a processor for a second. `--reads` is the share of steps that only read. Each client has one operation under way at
 * a time, as the one of the paper's figure 10a, which has `--clients 1`. The flag is for the times: without it this program
 * stands still for 15 to 48 ms every ten seconds, as it collects garbage among what it has noted. So does a disk that still
 * writes what was copied or built before: `sync` first.
 *
 * Needs the executable (bin/build). Prints one line, with the longest time that an operation took, and ends with status 1
 * if anything was wrong. Ctrl-C: no more kills.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { splitAddress } from "../../transport/tcp.ts";
import { project, Running } from "../e2e/rayd.ts";
import { Registers, type RegistersReport } from "./registers.ts";

/** What a run has shown. */
export interface ChainKillReport extends RegistersReport {
  readonly kills: number;
  /** The longest operation before each kill, while nothing was killed, and the longest that each fell into, in order. */
  readonly calmMs: readonly number[];
  readonly killMs: readonly number[];
  /** For how long meanwhile, each time, a processor was taken from this machine by the one that it is a guest of, if it is. */
  readonly stolenMs: readonly number[];
}

/** How long the store may take to be whole again. */
const WHOLE_MS_MAX = 60_000;

/** A node that may keep a replica. */
interface Node {
  readonly running: Running;
  readonly isHead: boolean;
  readonly address: string;
}

/** What is asked for. */
export interface ChainKillOptions {
  readonly kills: number;
  readonly clients: number;
  /** The share of steps that only read. */
  readonly reads?: number;
  /** For how long the store has been whole before each kill, at least. */
  readonly restMs?: number;
  /** Gives numbers from 0 to 1. */
  readonly random: () => number;
  /** Whether it is to be enough. */
  readonly stopped?: () => boolean;
}

/** Runs the chaos. */
export async function killReplicas(
  { kills, clients, reads = 0.4, restMs = 200, random, stopped = () => false }: ChainKillOptions,
): Promise<ChainKillReport> {
  using directory = project({});
  const env = { HOME: directory.path };
  const settings = ["--cpus", "0", "--store-memory", "16MB", "--log-level", "info"];
  const nodes: Node[] = [];
  const startHead = async (port: string) => {
    const running = new Running(["head", "--port", port, "--replicas", "3", ...settings], { env });
    await running.printed("The token is in");
    nodes.push({ running, isHead: true, address: /is up at (\S+)/.exec(running.stdout)![1]! });
  };
  const startWorker = async () => {
    const running = new Running(["worker", "--address", nodes[0]!.address, ...settings], { env });
    await running.printed("instead");
    nodes.push({ running, isHead: false, address: /use --address (\S+) instead/.exec(running.stdout)![1]! });
  };
  /** Waits until some node knows of three in the chain, later than an epoch. @returns The epoch. */
  const whole = async (after: number) => {
    const deadline = performance.now() + WHOLE_MS_MAX;
    while (performance.now() < deadline) {
      for (const { running } of nodes) {
        const last = [...running.stderr.matchAll(/Epoch (\d+) of the control store: (.*)/g)].at(-1);
        if (last === undefined || Number(last[1]) <= after || last[2]!.includes("joins")) continue;
        if (last[2]!.split(",").length === 3) return Number(last[1]);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(
      `the store is not whole again:\n${nodes.map(({ running }) => running.stderr).join("\n--\n")}`,
    );
  };
  await startHead("0");
  const port = nodes[0]!.address.split(":")[1]!;
  try {
    await startWorker();
    await startWorker();
    let epoch = await whole(0);
    const token = Deno.readTextFileSync(`${directory.path}/.rayd/token`).trim();
    const connect = async (address: string | undefined) => {
      const conn = await Deno.connect(
        splitAddress(address ?? nodes[Math.floor(random() * nodes.length)]!.address),
      );
      conn.setNoDelay(true);
      return conn;
    };
    const registers = new Registers(clients, { token, connect, random, reads });
    await registers.started;
    const killMs: number[] = [];
    const calmMs: number[] = [];
    const stolenMs: number[] = [];
    for (let i = 0; i < kills && !stopped(); i++) {
      await new Promise((resolve) => setTimeout(resolve, restMs));
      registers.takeLongestMs();
      await new Promise((resolve) => setTimeout(resolve, random() * 300));
      calmMs.push(registers.takeLongestMs());
      const [victim] = nodes.splice(Math.floor(random() * nodes.length), 1);
      const stolen = stolenSoFarMs();
      await victim!.running.kill("SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 300));
      killMs.push(registers.takeLongestMs());
      stolenMs.push(stolenSoFarMs() - stolen);
      if (victim!.isHead) await startHead(port);
      else await startWorker();
      epoch = await whole(epoch);
      registers.takeLongestMs();
    }
    return { kills: killMs.length, ...await registers.finish(), calmMs, killMs, stolenMs };
  } finally {
    for (const { running } of nodes) await running[Symbol.asyncDispose]();
  }
}

/** For how long processors were taken from this machine, in ticks of 10 ms (proc_stat(5)). */
function stolenSoFarMs(): number {
  return Number(Deno.readTextFileSync("/proc/stat").split("\n")[0]!.split(/\s+/)[8]) * 10;
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["kills", "clients", "reads", "rest", "seed"],
    default: { kills: "100", clients: "4", reads: "0.4", rest: "200", seed: "1" },
  });
  const { random } = await import("../../bench/simulate/random.ts");
  let stopped = false;
  Deno.addSignalListener("SIGINT", () => stopped = true);
  const report = await killReplicas({
    stopped: () => stopped,
    kills: Number(args.kills),
    clients: Number(args.clients),
    reads: Number(args.reads),
    restMs: Number(args.rest),
    random: random(Number(args.seed)),
  });
  const { kills, operations, written, numbered, unknown, wrong, calmMs, killMs, stolenMs } = report;
  const spread = (values: readonly number[]) => {
    if (values.length === 0) return "nothing";
    const sorted = [...values].sort((a, b) => a - b);
    const at = (share: number) => `${sorted[Math.floor((sorted.length - 1) * share)]!.toFixed(0)} ms`;
    return `${at(0.5)} (median), ${at(0.9)} (nine in ten), ${at(1)} at most`;
  };
  const undisturbed = killMs.filter((_, i) => stolenMs[i] === 0);
  console.log([
    `${kills} kills, ${operations} operations, ${written} of them acknowledged writes`,
    `beside ${numbered} of numbers that another client watched`,
    `${unknown} of unknown outcome, ${wrong.length} keys wrong${
      wrong.length > 0 ? `: ${wrong.join(", ")}` : ""
    }`,
    `the longest operation took ${spread(calmMs)} while nothing was killed, and with a kill in it ${
      spread(killMs)
    }`,
    `in the ${undisturbed.length} times when the machine had its processors to itself ${spread(undisturbed)}`,
  ].join("; "));
  Deno.exit(wrong.length > 0 ? 1 : 0);
}
