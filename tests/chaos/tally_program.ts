/**
 * The program whose actors' nodes are killed (`tests/chaos/actor_node_kill.ts`): callers on several nodes increment a few
 * tallies for a while, and what they were told is held to what was applied.
 *
 *     rayd run tests/chaos/tally_program.ts SECONDS CALLERS TALLIES
 *
 * @module
 */

import { get, init } from "../../runtime/mod.ts";
import { type Acknowledged, faults, Tally, tallyMany } from "../fixtures/tally.ts";

if (import.meta.main) {
  const [seconds, callers, tallies] = Deno.args.map(Number) as [number, number, number];
  await using _ = await init();
  const end = performance.now() + seconds * 1000;
  const wrong: string[] = [];
  let calls = 0, longest = 0;
  await Promise.all(Array.from({ length: tallies }, async () => {
    const tally = Tally.options({ checkpoint: { every: 50 }, labels: { of: "actors" } }).remote();
    const acknowledged: Acknowledged[][] = Array.from({ length: callers + 1 }, () => []);
    const where = async () => {
      for (let last = 0; performance.now() < end;) {
        const node = await get(tally.node.remote());
        if (node !== last) console.log(`node ${last = node}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    const tasks = async (caller: number) => {
      while (performance.now() < end) {
        const answers = tallyMany.options({ cpus: 0.1, retries: Infinity }).remote(tally, caller, 20);
        acknowledged[caller]!.push(...await get(answers));
      }
    };
    // The program itself calls as well, one call after the other.
    const own = async (caller: number) => {
      while (performance.now() < end) {
        const before = performance.now();
        acknowledged[caller]!.push(await get(tally.add.remote(caller)));
        longest = Math.max(longest, performance.now() - before);
      }
    };
    await Promise.all([where(), own(callers), ...Array.from({ length: callers }, (_, i) => tasks(i))]);
    wrong.push(...faults(acknowledged, await get(tally.total.remote())));
    calls += acknowledged.flat().length;
  }));
  console.log(`result ${JSON.stringify({ calls, longest: Math.round(longest), wrong: wrong.slice(0, 10) })}`);
}
