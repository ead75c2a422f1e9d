/**
 * Large values that come and go: garbage is collected while there is little of it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Clock } from "../core/clock.ts";
import { Turnover } from "../runtime/turnover.ts";

const MB = 1024 * 1024;

/** A turnover whose collections take as long as the test says. */
function turnover(): {
  readonly values: Turnover;
  readonly collections: () => number;
  takes(ms: number): void;
} {
  let now = 0, collections = 0, ms = 0;
  const clock: Clock = { now: () => now, after: () => () => {}, turn: () => Promise.resolve() };
  const values = new Turnover(clock, () => {
    collections++;
    now += ms;
  });
  return { values, collections: () => collections, takes: (length) => ms = length };
}

Deno.test("turnover is looked at when enough has come and gone since the last time", () => {
  const { values, collections } = turnover();
  for (let i = 0; i < 40; i++) {
    values.add(MB);
    values.look();
    values.look();
  }
  assertEquals(collections(), 10, "one for 4 MB");
  values.add(100 * MB);
  values.look();
  values.look();
  assertEquals(collections(), 11, "however much it was");
});

Deno.test("turnover is looked at less often where collecting takes long, and again when it does not", () => {
  const { values, collections, takes } = turnover();
  const looksOf = (megabytes: number) => {
    const before = collections();
    for (let i = 0; i < megabytes; i++) {
      values.add(MB);
      values.look();
    }
    return collections() - before;
  };
  takes(5);
  assertEquals(looksOf(4 + 8 + 16 + 32), 4, "each after twice as much as the one before");
  assertEquals(looksOf(47), 0, "until it takes no longer than copying the values");
  takes(0.1);
  assertEquals(looksOf(1), 1);
  assertEquals(looksOf(40), 10, "what took long once may have been interrupted");
});

Deno.test("of tasks with large arguments and results the engine is asked to collect what is young", async () => {
  const program = `
    import { get, init } from "${new URL("../runtime/mod.ts", import.meta.url)}";
    import { sum, zeros } from "${new URL("./fixtures/functions.ts", import.meta.url)}";
    await using _ = await init({ cpus: 1, storeMemory: 256 << 20 });
    for (let i = 0; i < 300; i++) await get(sum.remote(new Float64Array(125_000)));
    for (let i = 0; i < 300; i++) await get(zeros.remote(125_000));`;
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", "--v8-flags=--expose-gc,--trace-gc", program],
    stderr: "inherit",
  }).output();
  assert(success);
  const asked = new TextDecoder().decode(stdout).match(/Scavenge.* testing;/g) ?? [];
  // Some 200; fewer where collecting takes long. How often the whole heap is collected then is up to the engine, and the load.
  assert(asked.length >= 20, `${asked.length} young collections were asked for`);
});
