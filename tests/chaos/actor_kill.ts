/**
 * Kills the host process of a durable counter with -9, again and again at random instants, while tasks increment it.
 * Whatever dies, each acknowledged call must have been applied once, and in its caller's order.
 *
 *     deno run -A tests/chaos/actor_kill.ts [--kills 1000] [--callers 4] [--seed 1]
 *
 * Prints one line with what was done and found, and ends with status 1 if anything was wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { get, init } from "../../runtime/mod.ts";
import { type Acknowledged, faults, Tally, tallyMany } from "../fixtures/tally.ts";

/** What a run has shown. */
export interface ActorKillReport {
  readonly kills: number;
  readonly calls: number;
  readonly total: number;
  /** What was wrong, in words; empty if nothing was. */
  readonly wrong: readonly string[];
}

/**
 * Runs the chaos on a started rayd with `isolation: "process"`.
 *
 * @param kills How many kills. @param callers How many tasks increment at once. @param random Gives numbers from 0 to 1.
 */
export async function killActors(
  kills: number,
  callers: number,
  random: () => number,
): Promise<ActorKillReport> {
  const tally = Tally.options({ checkpoint: { every: 50 } }).remote();
  let killed = 0;
  const acknowledged: Acknowledged[][] = Array.from({ length: callers }, () => []);
  const work = async (caller: number) => {
    while (killed < kills) acknowledged[caller]!.push(...await get(tallyMany.remote(tally, caller, 20)));
  };
  const kill = async () => {
    // Each kill waits for an answer of the process that it kills: an actor that never answers is given up.
    for (let last = 0; killed < kills;) {
      const pid = await get(tally.pid.remote());
      if (pid === last) continue;
      await new Promise((resolve) => setTimeout(resolve, random() * 30));
      try {
        Deno.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
      last = pid;
      killed++;
    }
  };
  await Promise.all([...acknowledged.map((_, caller) => work(caller)), kill()]);
  const total = await get(tally.total.remote());
  return {
    kills: killed,
    calls: acknowledged.flat().length,
    total,
    wrong: faults(acknowledged, total).slice(0, 10),
  };
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["kills", "callers", "seed"],
    default: { kills: "1000", callers: "4", seed: "1" },
  });
  let state = Number(args.seed);
  const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32;
  await init({ cpus: 4, storeMemory: 64 * 1024 * 1024, logLevel: "off", isolation: "process" });
  const started = performance.now();
  const { kills, calls, total, wrong } = await killActors(Number(args.kills), Number(args.callers), random);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(
    `actor_kill: ${kills} kills, ${calls} calls acknowledged, ${total} applied, ${seconds} s, seed ${args.seed}: ${
      wrong.length === 0 ? "ok" : wrong.join("; ")
    }`,
  );
  Deno.exit(wrong.length === 0 ? 0 : 1);
}
