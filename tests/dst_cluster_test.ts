/**
 * Whole clusters in virtual time: what must hold whatever befalls them, over many seeds; that a seed replays; and that the
 * simulator finds what it is there to find.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Cluster } from "./dst/cluster/world.ts";
import { NODE_FAULTS, type NodeFault } from "../node/faults.ts";

const SEEDS = 30;
/** Seeds that are tried for a planted fault if the one that found it once does not. */
const SEARCH = 80;
const ROOT = new URL("..", import.meta.url).pathname;

/** A process that was killed while it sent an object has that pinned for ever, and with it the library loaded. */
const UNSANITIZED = { sanitizeResources: false };

Deno.test(`a simulated cluster keeps every rule, and heals: ${SEEDS} seeds`, UNSANITIZED, async () => {
  let programs = 0, calls = 0, troubles = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const outcome = await new Cluster(seed).run();
      programs += outcome.programs;
      calls += outcome.calls;
      for (const count of Object.values(outcome.fate)) troubles += count;
    } catch (error) {
      throw new Error(`deno task dst --cluster --seed ${seed}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  assert(programs > SEEDS * 3 && calls > SEEDS * 10 && troubles > SEEDS * 3, "too little happens in them");
});

Deno.test("a seed replays the same cluster", async () => {
  const [first, second, other] = [await run(7), await run(7), await run(8)];
  assertEquals(first, second);
  assertNotEquals(first.hash, other.hash);
});

/** The table of planted faults in docs/simulation.md: each with a seed that finds it. */
const FOUND = new Map(
  [
    ...Deno.readTextFileSync(`${ROOT}docs/simulation.md`).matchAll(
      /^\| `([\w-]+)` *\| ([^|]*?) *\| *(\d+) *\|/gm,
    ),
  ].map(([, name, rule, seed]) => [name!, { rule: rule!, seed: Number(seed) }]),
);

Deno.test("docs/simulation.md lists all faults that can be planted in nodes, and what each breaks", () => {
  assertEquals(
    Object.fromEntries(Array.from(FOUND, ([name, { rule }]) => [name, rule])),
    { ...NODE_FAULTS },
  );
});

for (const [name, { seed }] of FOUND) {
  // A run that breaks off leaves what it had.
  const options = { name: `a fault planted in nodes is found: ${name}`, sanitizeResources: false };
  Deno.test(options, async () => {
    // What nodes do and when is another thing with each change of them; then another seed finds it.
    for (let next = 0; next <= SEARCH; next++) {
      const tried = next === 0 ? seed : next;
      const error = await new Cluster(tried, { faults: new Set([name as NodeFault]) }).run().catch((error) =>
        error
      );
      if (!(error instanceof Error)) continue;
      await run(tried);
      return;
    }
    throw new Error(`not found by seed ${seed}, nor by any up to ${SEARCH}`);
  });
}

function run(seed: number) {
  return new Cluster(seed).run();
}
