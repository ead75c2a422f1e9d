/**
 * Runs simulated control stores, or whole clusters: one seed with its trace's hash, or many.
 *
 *     deno task dst --seed 7                       one run of a control store
 *     deno task dst --seeds 2000 [--seed 1]        many, from a seed on
 *     deno task dst --minutes 10                   long runs until that time is over
 *     deno task dst --seed 7 --fault NAME          with a planted fault
 *     deno task dst --cluster …                    the same of clusters
 *     deno task dst --cluster --seed 7 --verbose   with what nodes say, and what befalls them
 *     deno task dst --cluster --script shelves …   with programs of one kind (tests/dst/cluster/scripts.ts)
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { CHAIN_FAULTS, type ChainFault } from "../../gcs/chain_faults.ts";
import { NODE_FAULTS, type NodeFault } from "../../node/faults.ts";
import type { Script } from "./cluster/program.ts";

const args = parseArgs(Deno.args, {
  string: ["seed", "seeds", "minutes", "fault", "script"],
  boolean: ["cluster", "verbose"],
  unknown: (argument: string) => fail(`Unknown option ${argument}: see the head of tests/dst/main.ts`),
});
const known = args.cluster ? NODE_FAULTS : CHAIN_FAULTS;
if (args.fault !== undefined && !(args.fault in known)) {
  fail(`No fault "${args.fault}": ${Object.keys(known).join(", ")}`);
}
/** How long there is trouble in a long run. There members of a store are as slow as real ones; nodes always are. */
const longMs = args.cluster ? 30_000 : 5 * 60_000;
const seed = Number(args.seed ?? 1);
const started = performance.now();
const until = args.minutes === undefined ? 0 : started + Number(args.minutes) * 60_000;
const count = args.minutes === undefined ? Number(args.seeds ?? 1) : Infinity;

/** What runs came to, added up. */
const sums: Record<string, number> = {};
const run = args.cluster ? await clusters() : await stores();
let runs = 0;
for (; runs < count && (until === 0 || performance.now() < until); runs++) {
  try {
    const outcome = await run(seed + runs, until === 0 ? undefined : longMs);
    for (const [key, value] of Object.entries(outcome)) {
      if (typeof value === "number" && key !== "seed") sums[key] = (sums[key] ?? 0) + value;
    }
    if (count === 1) console.log(JSON.stringify(outcome));
  } catch (error) {
    console.log(`seed ${seed + runs}: ${(error as Error).message}`);
    if (count === 1) throw error;
    Deno.exit(1);
  }
}
const realMs = performance.now() - started;
const { virtualMs = 0, ...others } = sums;
console.log(
  `${runs} runs from seed ${seed}: ${
    Object.entries(others).filter(([key]) => key !== "longestMs").map(([key, n]) => `${n} ${key}`).join(", ")
  }; ${(virtualMs / 1000).toFixed(0)} s simulated in ${(realMs / 1000).toFixed(1)} s, ${
    (virtualMs / realMs).toFixed(1)
  } times as fast as it happens`,
);

async function stores(): Promise<(seed: number, troubleMs?: number) => object> {
  const { World } = await import("./world.ts");
  const faults = new Set(args.fault === undefined ? [] : [args.fault as ChainFault]);
  return (seed, troubleMs) => new World(seed, faults, troubleMs).run();
}

async function clusters(): Promise<(seed: number, troubleMs?: number) => Promise<object>> {
  const { Cluster } = await import("./cluster/world.ts");
  const faults = new Set(args.fault === undefined ? [] : [args.fault as NodeFault]);
  const all: Readonly<Record<string, unknown>> = await import("./cluster/scripts.ts");
  const script = args.script === undefined ? undefined : all[args.script];
  if (args.script !== undefined && typeof script !== "function") fail(`No script "${args.script}"`);
  const options = {
    faults,
    verbose: args.verbose,
    ...(script === undefined ? {} : { scripts: [script as Script] }),
  };
  return (seed, troubleMs) =>
    new Cluster(seed, { ...options, ...(troubleMs === undefined ? {} : { troubleMs }) }).run();
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}
