/**
 * Kills nodes of a cluster with -9, again and again at random instants, while tasks and a program increment durable
 * counters that are on them. Whatever dies, each acknowledged call must have been applied once, and in its caller's order.
 * Most kills take a counter's node, the others any worker, so callers die as well.
 *
 *     deno run -A tests/chaos/actor_node_kill.ts [--seconds 60] [--workers 3] [--seed 1] [--replicas 1]
 *
 * Prints one line with what was done and found, and ends with status 1 if anything was wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { RAYD, Running } from "../e2e/rayd.ts";
import { TestCluster } from "../e2e/test_cluster.ts";

/** What a run has shown. */
export interface NodeKillReport {
  readonly kills: number;
  readonly calls: number;
  /** The longest that a call of the program took, in milliseconds. */
  readonly longest: number;
  /** What was wrong, in words; empty if nothing was. */
  readonly wrong: readonly string[];
}

const WORKER = ["--cpus", "1", "--labels", "of=actors"];
const PROGRAM = new URL("./tally_program.ts", import.meta.url).pathname;

/**
 * Runs the chaos with `dist/rayd`.
 *
 * @param seconds How long. @param workers How many nodes that may be killed. @param random Gives numbers from 0 to 1.
 * @param replicas Of the control store.
 */
export async function killActorNodes(
  seconds: number,
  workers: number,
  random: () => number,
  replicas = 1,
): Promise<NodeKillReport> {
  const head = ["--cpus", "1", ...(replicas > 1 ? ["--replicas", String(replicas)] : [])];
  await using cluster = await TestCluster.start("", head);
  let alive: Running[] = await Promise.all(Array.from({ length: workers }, () => cluster.worker(WORKER)));
  await using run = new Running(["run", PROGRAM, String(seconds), "3", "2"], { env: cluster.env });
  const ended = run.ended();
  let kills = 0, over = false;
  ended.then(() => over = true);
  await run.printed("node ");
  while (!over) {
    await new Promise((resolve) => setTimeout(resolve, 300 + random() * 700));
    const named = [...run.stdout.matchAll(/^node (\d+)$/gm)].map(([, pid]) => Number(pid));
    const chosen = random() < 0.7 ? alive.find(({ pid }) => named.slice(-2).includes(pid)) : undefined;
    const victim = chosen ?? alive[Math.floor(random() * alive.length)]!;
    if (over) break;
    await victim.kill("SIGKILL");
    kills++;
    alive = alive.filter((node) => node !== victim);
    alive.push(await cluster.worker(WORKER));
  }
  const { code } = await ended;
  const { stdout, stderr } = run;
  const result = /^result (.*)$/m.exec(stdout);
  if (code !== 0 || result === null) {
    return { kills, calls: 0, longest: 0, wrong: [`the program ended with ${code}: ${stderr.slice(-2000)}`] };
  }
  return { kills, ...JSON.parse(result[1]!) as Omit<NodeKillReport, "kills"> };
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["seconds", "workers", "seed", "replicas"],
    default: { seconds: "60", workers: "3", seed: "1", replicas: "1" },
  });
  let state = Number(args.seed);
  const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32;
  await Deno.stat(RAYD);
  const { kills, calls, longest, wrong } = await killActorNodes(
    Number(args.seconds),
    Number(args.workers),
    random,
    Number(args.replicas),
  );
  console.log(
    `actor_node_kill: ${kills} nodes killed, ${calls} calls acknowledged, the longest of the program's took ${longest} ms, ` +
      `seed ${args.seed}: ${wrong.length === 0 ? "ok" : wrong.join("; ")}`,
  );
  Deno.exit(wrong.length === 0 ? 0 : 1);
}
