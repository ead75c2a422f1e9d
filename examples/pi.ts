/**
 * Estimates pi by throwing darts, in nested tasks: each task splits its darts between two others until few are left.
 *
 *     rayd run examples/pi.ts [DARTS]
 *
 * @module
 */

import { get, remote } from "rayd";

const DARTS_PER_TASK = 2_000_000;

/** How many of the darts hit the quarter circle. */
export const hits = remote(async function hits(darts: number): Promise<number> {
  if (darts > DARTS_PER_TASK) {
    const half = Math.floor(darts / 2);
    const [a, b] = await get([throwMore.remote(half), throwMore.remote(darts - half)]);
    return a + b;
  }
  let count = 0;
  for (let i = 0; i < darts; i++) if (Math.random() ** 2 + Math.random() ** 2 < 1) count++;
  return count;
});
const throwMore: { remote(darts: number): ReturnType<typeof hits.remote> } = hits;

if (import.meta.main) {
  const darts = Number(Deno.args[0] ?? 100_000_000);
  const started = performance.now();
  const pi = 4 * await get(hits.remote(darts)) / darts;
  const seconds = (performance.now() - started) / 1000;
  console.log(`pi is about ${pi.toFixed(5)} (${darts} darts in ${seconds.toFixed(2)} s)`);
}
