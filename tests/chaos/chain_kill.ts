/**
 * Kills nodes that keep the control store with -9, again and again, whichever of the three it is, and starts others in
 * their place, while clients read, write and swap keys. What they saw must be linearizable, nothing acknowledged may be
 * lost, and the store has to be whole again after each kill.
 *
 *     deno run -A tests/chaos/chain_kill.ts [--kills 100] [--clients 4] [--seed 1]
 *
 * Needs the executable (bin/build). Prints one line, with the longest time that an operation took, and ends with status 1
 * if anything was wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import type { Clock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { ABSENT, GcsClient } from "../../gcs/client.ts";
import { splitAddress } from "../../transport/tcp.ts";
import { project, Running } from "../e2e/rayd.ts";
import { linearizable, type Operation } from "../linearizable.ts";

/** What a run has shown. */
export interface ChainKillReport {
  readonly kills: number;
  readonly operations: number;
  /** Operations whose outcome nobody knows. */
  readonly unknown: number;
  /** The keys whose history could not have come about: something that was acknowledged was lost, or read too late. */
  readonly wrong: readonly string[];
  /** Of operations while nothing was killed, and of those that a kill fell into: the longest of each kill, in order. */
  readonly calmMs: number;
  readonly killMs: readonly number[];
}

const KEYS = 8, OPERATIONS_A_KEY = 120;
/** How long the store may take to be whole again. */
const WHOLE_MS_MAX = 60_000;

/** A node that may keep a replica. */
interface Node {
  readonly running: Running;
  readonly isHead: boolean;
  readonly address: string;
}

/** Runs the chaos. @param random Gives numbers from 0 to 1. */
export async function killReplicas(
  kills: number,
  clients: number,
  random: () => number,
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
    const open = () =>
      new GcsClient({
        id: taskIdFromBytes(Uint8Array.from({ length: 16 }, () => random() * 256)),
        token,
        clock,
        connect,
      });
    const histories = new Map<string, Operation[]>();
    const counts = new Map<number, number>();
    let over = false, value = 0, unknown = 0, longestMs = 0;
    const work = async (n: number) => {
      const client = open();
      await client.start();
      while (!over) {
        const slot = Math.floor(random() * KEYS);
        const count = counts.get(slot) ?? 0;
        counts.set(slot, count + 1);
        const key = `${slot}/${Math.floor(count / OPERATIONS_A_KEY)}`;
        const history = histories.get(key) ?? [];
        histories.set(key, history);
        const timed = async <T>(
          action: (result: T) => Operation["action"],
          ask: () => Promise<T>,
          lost?: Operation["action"],
        ) => {
          const called = performance.now();
          try {
            const result = await ask();
            const returned = performance.now();
            longestMs = Math.max(longestMs, returned - called);
            history.push({ called, returned, action: action(result) });
            return result;
          } catch (error) {
            if (lost !== undefined) history.push({ called, returned: Infinity, action: lost });
            throw error;
          }
        };
        const read = () =>
          timed((entry) => ({ kind: "read", value: text(entry?.value) }), () => client.get(key));
        const kind = random(), next = `${n}.${++value}`;
        try {
          if (kind < 0.4) await read();
          else if (kind < 0.7) {
            const write = { kind: "write", value: next } as const;
            await timed(() => write, () => client.put(key, bytes(next)), write);
          } else {
            const entry = await read();
            const swap = { kind: "swap", expected: text(entry?.value), value: next } as const;
            await timed(
              (revision) => ({ ...swap, done: revision !== undefined }),
              () => client.put(key, bytes(next), entry?.revision ?? ABSENT),
              { ...swap, done: undefined },
            );
          }
        } catch {
          unknown++;
        }
      }
      client.close();
    };
    const workers = Array.from({ length: clients }, (_, n) => work(n));
    const killMs: number[] = [];
    let calmMs = 0;
    for (let i = 0; i < kills; i++) {
      await new Promise((resolve) => setTimeout(resolve, 200 + random() * 300));
      calmMs = Math.max(calmMs, longestMs);
      longestMs = 0;
      const [victim] = nodes.splice(Math.floor(random() * nodes.length), 1);
      await victim!.running.kill("SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 300));
      killMs.push(longestMs);
      if (victim!.isHead) await startHead(port);
      else await startWorker();
      epoch = await whole(epoch);
      longestMs = 0;
    }
    over = true;
    await Promise.all(workers);
    // All that was acknowledged is there at the end: a last read of each key is part of its history.
    const reader = open();
    await reader.start();
    for (const [key, history] of histories) {
      const called = performance.now();
      const entry = await reader.get(key);
      history.push({
        called,
        returned: performance.now(),
        action: { kind: "read", value: text(entry?.value) },
      });
    }
    reader.close();
    const operations = [...histories.values()].reduce((sum, history) => sum + history.length, 0);
    const wrong = [...histories].filter(([, history]) => !linearizable(history)).map(([key]) => key);
    return { kills, operations, unknown, wrong, calmMs, killMs };
  } finally {
    for (const { running } of nodes) await running[Symbol.asyncDispose]();
  }
}

const clock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  turn: () => new Promise((resolve) => setTimeout(resolve, 0)),
};

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["kills", "clients", "seed"],
    default: { kills: "100", clients: "4", seed: "1" },
  });
  const { random } = await import("../../bench/simulate/random.ts");
  const report = await killReplicas(Number(args.kills), Number(args.clients), random(Number(args.seed)));
  const { kills, operations, unknown, wrong, calmMs, killMs } = report;
  const sorted = [...killMs].sort((a, b) => a - b);
  console.log(
    `${kills} kills, ${operations} operations, ${unknown} of unknown outcome, ${wrong.length} keys wrong` +
      `${wrong.length > 0 ? ` (${wrong.join(", ")})` : ""}; the longest operation took ${
        calmMs.toFixed(0)
      } ms while ` +
      `nothing was killed, and with a kill in it ${sorted[sorted.length >> 1]!.toFixed(0)} ms (median), ` +
      `${sorted.at(-1)!.toFixed(0)} ms at most`,
  );
  Deno.exit(wrong.length > 0 ? 1 : 0);
}
