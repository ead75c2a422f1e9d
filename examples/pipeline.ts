/**
 * A pipeline: a generator task reads records as a stream, tasks work on each as it comes, and results are taken in
 * order of completion. The reader is never more than a window ahead, so this would go on for ever in bounded memory.
 *
 *     rayd run examples/pipeline.ts [RECORDS]
 *
 * @module
 */

import { get, type Ref, remote, wait } from "rayd";

interface Sample {
  readonly id: number;
  readonly values: Float64Array;
}

/** Measurements as a sensor would give them: a sine with noise. */
export const read = remote(function* read(records: number): Generator<Sample> {
  for (let id = 0; id < records; id++) {
    yield {
      id,
      values: Float64Array.from({ length: 1000 }, (_, i) => Math.sin(i / 50) + Math.sin(i * id) / 10),
    };
  }
});

/** The smoothed sample's largest value. */
export const peak = remote(function peak({ values }: Sample): number {
  let best = -Infinity;
  for (let i = 5; i < values.length - 5; i++) {
    let sum = 0;
    for (let j = i - 5; j <= i + 5; j++) sum += values[j]!;
    best = Math.max(best, sum / 11);
  }
  return best;
});

if (import.meta.main) {
  const records = Number(Deno.args[0] ?? 2000);
  const started = performance.now();
  let running: Ref<number>[] = [], done = 0, highest = -Infinity;
  const take = async (count: number) => {
    const [ready, pending] = await wait(running, { count });
    for (const value of await get(ready)) highest = Math.max(highest, value);
    done += ready.length;
    running = pending;
  };
  for await (const sample of read.remote(records)) {
    running.push(peak.remote(sample));
    if (running.length >= 64) await take(32);
  }
  await take(running.length);
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `${done} samples, highest peak ${highest.toFixed(3)}, ${(done / seconds).toFixed(0)} samples/s`,
  );
}
