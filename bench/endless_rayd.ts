/**
 * What bench/endless.ts runs: tasks without end, or as many as the argument says. Prints how many are done.
 *
 * @module
 */

import { get, init, type Ref, remote } from "rayd";

/** A small result. */
export const small = remote(function small(i: number): number {
  return i + 1;
});

/** A result that lies in the store. */
export const large = remote(function large(i: number): Float64Array {
  return new Float64Array(12_500).fill(i);
});

if (import.meta.main) {
  await using _ = await init();
  const kept: Ref<Float64Array>[] = [];
  for (let done = 0; done < Number(Deno.args[0]); done += 1000) {
    const refs = Array.from({ length: 999 }, (_, i) => small.remote(i));
    kept.push(large.remote(done));
    if (kept.length > 100) kept.shift();
    await get(refs);
    if (done % 50_000 === 0) console.log(done);
  }
}
