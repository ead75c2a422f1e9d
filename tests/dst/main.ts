/**
 * Runs simulated control stores: one seed with its trace's hash, or many.
 *
 *     deno task dst --seed 7                       one run
 *     deno task dst --seeds 2000 [--seed 1]        many, from a seed on
 *     deno task dst --minutes 10                   long runs until that time is over
 *     deno task dst --seed 7 --fault NAME          with a planted fault
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { CHAIN_FAULTS, type ChainFault } from "../../gcs/chain_faults.ts";
import { World } from "./world.ts";

const args = parseArgs(Deno.args, {
  string: ["seed", "seeds", "minutes", "fault"],
  unknown: (argument: string) => fail(`Unknown option ${argument}: see the head of tests/dst/main.ts`),
});
const faults = new Set<ChainFault>();
if (args.fault !== undefined) {
  if (!(args.fault in CHAIN_FAULTS)) {
    fail(`No fault "${args.fault}": ${Object.keys(CHAIN_FAULTS).join(", ")}`);
  }
  faults.add(args.fault as ChainFault);
}
/** How long there is trouble in a long run, in which members are as slow as real ones. */
const LONG_MS = 5 * 60_000;
const seed = Number(args.seed ?? 1);
const started = performance.now();
const until = args.minutes === undefined ? 0 : started + Number(args.minutes) * 60_000;
const count = args.minutes === undefined ? Number(args.seeds ?? 1) : Infinity;
const sum = { runs: 0, virtualMs: 0, events: 0, committed: 0, epochs: 0, crashes: 0, leaves: 0 };
for (let i = 0; i < count && (until === 0 || performance.now() < until); i++) {
  try {
    const outcome = new World(seed + i, faults, until === 0 ? undefined : LONG_MS).run();
    sum.runs++;
    for (const key of ["virtualMs", "events", "committed", "epochs", "crashes", "leaves"] as const) {
      sum[key] += outcome[key];
    }
    if (count === 1) console.log(JSON.stringify(outcome));
  } catch (error) {
    console.log(`seed ${seed + i}: ${(error as Error).message}`);
    if (count === 1) throw error;
    Deno.exit(1);
  }
}
const realMs = performance.now() - started;
console.log(
  `${sum.runs} runs from seed ${seed}: ${sum.events} events, ${sum.committed} commands committed, ` +
    `${sum.epochs} configurations, ${sum.crashes} crashes, ${sum.leaves} leaves; ${
      (sum.virtualMs / 1000).toFixed(0)
    } s simulated in ` +
    `${(realMs / 1000).toFixed(1)} s, ${(sum.virtualMs / realMs).toFixed(1)} times as fast as it happens`,
);

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}
