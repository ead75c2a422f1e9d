/**
 * Kills a head with -9, again and again at random instants, and starts it again on its directory, while clients read,
 * write and swap keys of its control store. What they saw must be linearizable, and nothing acknowledged may be lost.
 *
 *     deno run -A tests/chaos/gcs_kill.ts [--kills 200] [--clients 4] [--seed 1] [--porcupine]
 *
 * Needs the executable (bin/build). With `--porcupine`, that checker is asked as well (tests/chaos/porcupine.ts). Prints one line, and ends with status 1 if anything was wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import type { Clock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { ABSENT, GcsClient } from "../../gcs/client.ts";
import { project, Running } from "../e2e/rayd.ts";
import { linearizable, type Operation } from "../linearizable.ts";
import { porcupine } from "./porcupine.ts";

/** What a run has shown. */
export interface GcsKillReport {
  readonly kills: number;
  readonly operations: number;
  /** Operations whose outcome nobody knows. */
  readonly unknown: number;
  /** The keys whose history could not have come about. */
  readonly wrong: readonly string[];
}

/** Keys that are used at once. Each is left after a while, so that no history grows beyond what can be checked. */
const KEYS = 8, OPERATIONS_A_KEY = 120;

/** Runs the chaos. @param random Gives numbers from 0 to 1. @param judge Says which histories are linearizable. */
export async function killHeads(
  kills: number,
  clients: number,
  random: () => number,
  judge: (histories: readonly Operation[][]) => Promise<boolean[]> = (histories) =>
    Promise.resolve(histories.map((history) => linearizable(history))),
): Promise<GcsKillReport> {
  using directory = project({});
  const env = { HOME: directory.path };
  const start = async (port: string) => {
    const head = new Running(
      ["head", "--port", port, "--cpus", "0", "--store-memory", "16MB", "--log-level", "off"],
      { env },
    );
    await head.printed("The token is in");
    return head;
  };
  let head = await start("0");
  const port = /is up at \S+:(\d+)/.exec(head.stdout)![1]!;
  const token = Deno.readTextFileSync(`${directory.path}/.rayd/token`).trim();
  const histories = new Map<string, Operation[]>();
  const counts = new Map<number, number>();
  let over = false, value = 0, unknown = 0;
  const work = async (n: number) => {
    const client = new GcsClient({
      id: taskIdFromBytes(Uint8Array.from({ length: 16 }, () => random() * 256)),
      token,
      clock,
      connect: async () => {
        const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
        conn.setNoDelay(true);
        return conn;
      },
    });
    await client.start();
    while (!over) {
      const slot = Math.floor(random() * KEYS);
      const count = counts.get(slot) ?? 0;
      counts.set(slot, count + 1);
      const key = `${slot}/${Math.floor(count / OPERATIONS_A_KEY)}`;
      const history = histories.get(key) ?? [];
      histories.set(key, history);
      const called = performance.now();
      const record = (action: Operation["action"], returned = performance.now()) =>
        history.push({ called, returned, action });
      const kind = random(), next = `${n}.${++value}`;
      try {
        if (kind < 0.4) record({ kind: "read", value: text((await client.get(key))?.value) });
        else if (kind < 0.7) {
          try {
            await client.put(key, bytes(next));
            record({ kind: "write", value: next });
          } catch (error) {
            record({ kind: "write", value: next }, Infinity);
            throw error;
          }
        } else {
          const entry = await client.get(key);
          record({ kind: "read", value: text(entry?.value) });
          const expected = text(entry?.value);
          const began = performance.now();
          try {
            const done = await client.put(key, bytes(next), entry?.revision ?? ABSENT) !== undefined;
            history.push({
              called: began,
              returned: performance.now(),
              action: { kind: "swap", expected, value: next, done },
            });
          } catch (error) {
            const action = { kind: "swap", expected, value: next, done: undefined } as const;
            history.push({ called: began, returned: Infinity, action });
            throw error;
          }
        }
      } catch {
        unknown++;
      }
    }
    client.close();
  };
  const workers = Array.from({ length: clients }, (_, n) => work(n));
  try {
    for (let i = 0; i < kills; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20 + random() * 150));
      await head.kill("SIGKILL");
      head = await start(port);
    }
    over = true;
    await Promise.all(workers);
    // All that was acknowledged is there at the end: a last read of each key is part of its history.
    const reader = new GcsClient({
      id: taskIdFromBytes(new Uint8Array(16).fill(255)),
      token,
      clock,
      connect: () => Deno.connect({ hostname: "127.0.0.1", port: Number(port) }),
    });
    await reader.start();
    for (const [key, history] of histories) {
      const called = performance.now();
      const value = text((await reader.get(key))?.value);
      history.push({ called, returned: performance.now(), action: { kind: "read", value } });
    }
    reader.close();
  } finally {
    await head.kill("SIGTERM").catch(() => {});
  }
  const verdicts = await judge([...histories.values()]);
  const wrong = [...histories.keys()].filter((_, i) => !verdicts[i]);
  const operations = [...histories.values()].reduce((sum, history) => sum + history.length, 0);
  return { kills, operations, unknown, wrong };
}

const clock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  turn: () => new Promise((resolve) => setTimeout(resolve, 0)),
};

const bytes = (value: string) => new TextEncoder().encode(value);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

if (import.meta.main) {
  const args = parseArgs(Deno.args, { string: ["kills", "clients", "seed"], boolean: ["porcupine"] });
  let state = Number(args.seed ?? 1);
  const random = () => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return (state >>> 0) / 2 ** 32;
  };
  const both = async (histories: readonly Operation[][]) => {
    const theirs = await porcupine(histories);
    return histories.map((history, i) => theirs[i]! && linearizable(history));
  };
  const judge = args.porcupine ? both : undefined;
  const report = await killHeads(Number(args.kills ?? 200), Number(args.clients ?? 4), random, judge);
  const { kills, operations, unknown, wrong } = report;
  console.log(
    `${kills} kills, ${operations} operations (${unknown} unknown): ` +
      (wrong.length === 0 ? "linearizable, nothing lost" : `WRONG: ${wrong.join(", ")}`),
  );
  Deno.exit(wrong.length > 0 ? 1 : 0);
}
