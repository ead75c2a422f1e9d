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
import { project, Running } from "../e2e/rayd.ts";
import { linearizable, type Operation } from "../linearizable.ts";
import { porcupine } from "./porcupine.ts";
import { type Judge, Registers, type RegistersReport } from "./registers.ts";

/** What a run has shown. */
export interface GcsKillReport extends RegistersReport {
  readonly kills: number;
}

/** Runs the chaos. @param random Gives numbers from 0 to 1. @param judge Says which histories are linearizable. */
export async function killHeads(
  kills: number,
  clients: number,
  random: () => number,
  judge?: Judge,
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
  const connect = async () => {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
    conn.setNoDelay(true);
    return conn;
  };
  const registers = new Registers(clients, { token, connect, random });
  await registers.started;
  try {
    for (let i = 0; i < kills; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20 + random() * 150));
      await head.kill("SIGKILL");
      head = await start(port);
    }
    return { kills, ...await registers.finish(judge) };
  } finally {
    await head.kill("SIGTERM").catch(() => {});
  }
}

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
