/**
 * What bench/cluster.ts runs on a cluster of rayd: each figure as a line of JSON. The argument says when head and worker
 * were started, in milliseconds since 1970.
 *
 * @module
 */

import { get, init, remote, wait } from "rayd";

/** Nothing. */
export const nothing = remote(function nothing(): void {});

/** 100 MB. */
export const large = remote(function large(): Uint8Array {
  return new Uint8Array(100e6).fill(1);
});

const print = (figure: string, value: number) => console.log(JSON.stringify({ figure, value }));

if (import.meta.main) {
  await using _ = await init();
  await get(nothing.remote());
  print("start", (Date.now() - Number(Deno.args[0])) / 1000);
  const rate = async (seconds: number, round: () => Promise<number>) => {
    await round();
    const started = performance.now();
    let count = 0;
    while (performance.now() - started < seconds * 1000) count += await round();
    return count / (performance.now() - started) * 1000;
  };
  const many = async (n: number) => {
    await get(Array.from({ length: n }, () => nothing.remote()));
    return n;
  };
  await many(20_000); // the engine has seen it all
  print("far_async", await rate(2, () => many(1000)));
  print("far_sync", await rate(1, () => many(1)));
  const times: number[] = [];
  for (let i = 0; i < 7; i++) {
    const ref = large.remote();
    await wait([ref]);
    const started = performance.now();
    const value = await get(ref);
    if (value.length !== 100e6) throw new Error("not all is there");
    times.push(performance.now() - started);
  }
  const middle = times.toSorted((a, b) => a - b)[times.length >> 1]!;
  print("fetch", 0.1 / (middle / 1000));
}
