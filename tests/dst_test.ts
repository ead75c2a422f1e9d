/**
 * The replicated control store in virtual time: what must hold whatever fails, over many seeds; that a seed replays; and
 * that the simulator finds what it is there to find.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { CHAIN_FAULTS, type ChainFault } from "../gcs/chain_faults.ts";
import { World } from "./dst/world.ts";

const SEEDS = 2_000;
const ROOT = new URL("..", import.meta.url).pathname;

Deno.test(`a simulated store keeps every rule, and heals: ${SEEDS} seeds`, () => {
  let crashes = 0, leaves = 0, configurations = 0, committed = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const outcome = new World(seed).run();
      crashes += outcome.crashes;
      leaves += outcome.leaves;
      configurations += outcome.epochs;
      committed += outcome.committed;
    } catch (error) {
      throw new Error(`deno task dst --seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  assert(
    crashes > SEEDS && leaves > SEEDS / 2 && configurations > SEEDS * 4 && committed > SEEDS * 20,
    "too little happens in them",
  );
});

Deno.test("a seed replays the same run", () => {
  assertEquals(new World(7).run(), new World(7).run());
  assertNotEquals(new World(7).run().hash, new World(8).run().hash);
});

/** The table of planted faults in docs/chain_protocol.md: each with a seed that finds it. */
const FOUND = new Map(
  [
    ...Deno.readTextFileSync(`${ROOT}docs/chain_protocol.md`).matchAll(
      /^\| `([\w-]+)` *\| ([^|]*?) *\| *(\d+) *\|/gm,
    ),
  ]
    .map(([, name, rule, seed]) => [name!, { rule: rule!, seed: Number(seed) }]),
);

Deno.test("docs/chain_protocol.md lists all planted faults, and what each breaks", () => {
  assertEquals(
    Object.fromEntries(Array.from(FOUND, ([name, { rule }]) => [name, rule])),
    { ...CHAIN_FAULTS },
  );
});

for (const [name, { seed }] of FOUND) {
  Deno.test(`a planted fault is found: ${name}`, () => {
    assertThrows(() => new World(seed, new Set([name as ChainFault])).run());
    new World(seed).run();
  });
}
