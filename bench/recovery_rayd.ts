/**
 * What bench/recovery.ts runs: chains of tasks, each of which reads the object of the one before and makes another, one
 * chain after the other in so many lines, until the time is over. What a chain has come to is read only when a few more
 * have ended. Each task writes a line when it has run, so that it
 * can be told which ran more than once. Prints how many chains came to what they must, and ends with status 1 otherwise.
 *
 *     rayd run bench/recovery_rayd.ts LINES LINKS TASK_MS SECONDS LOG
 *
 * @module
 */

import { get, init, type Ref, remote, wait } from "rayd";

/** Chains whose ends are kept, in a line, before the oldest is read: so something is lost with a node. */
const KEPT = 3;
const LENGTH = 12_500; // numbers: 100 KB

/** A link: what is read, plus one everywhere. */
export const link = remote(
  async function link(
    before: Float64Array | number,
    name: string,
    taskMs: number,
    log: string,
  ): Promise<Float64Array> {
    await new Promise((resolve) => setTimeout(resolve, taskMs));
    const after = typeof before === "number"
      ? new Float64Array(LENGTH).fill(before + 1)
      : before.map((value) => value + 1);
    Deno.writeTextFileSync(log, `${name} ${Date.now()}\n`, { append: true });
    return after;
  },
  { retries: 1_000, spread: true },
);

if (import.meta.main) {
  await using _ = await init();
  const [lines, links, taskMs, seconds] = Deno.args.map(Number) as [number, number, number, number];
  const log = Deno.args[4]!;
  const end = performance.now() + seconds * 1000;
  let chains = 0;
  console.log("started");
  await Promise.all(Array.from({ length: lines }, async (_, line) => {
    const kept: Ref<Float64Array>[] = [];
    const read = async (ref: Ref<Float64Array>) => {
      const array = await get(ref);
      if (array.length === LENGTH && array.every((value) => value === line + links)) return chains++;
      console.error(`wrong: a chain of line ${line} came to ${array[0]} instead of ${line + links}`);
      Deno.exit(1);
    };
    for (let chain = 0; performance.now() < end; chain++) {
      let ref: Ref<Float64Array> = link.remote(line, `${line}/${chain}/0`, taskMs, log);
      for (let i = 1; i < links; i++) ref = link.remote(ref, `${line}/${chain}/${i}`, taskMs, log);
      await wait([ref]);
      kept.push(ref);
      if (kept.length > KEPT) await read(kept.shift()!);
    }
    for (const ref of kept) await read(ref);
  }));
  console.log(`${chains} chains`);
}
