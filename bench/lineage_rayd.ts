/**
 * What bench/lineage.ts runs: tasks that a task on another node submits, a thousand at a time; without anything that would
 * have to be made again, and with results that refer to objects, whose lineage is written to the control store.
 *
 * @module
 */

import { get, init, put, type Ref, remote } from "rayd";

/** Leaves nothing. */
export const nothing = remote(function nothing(): void {});

/** Its result refers to an object, so that it is remembered how it was made. */
export const box = remote(function box(given: { ref: Ref<number> }): { ref: Ref<number> } {
  return given;
});

/** Submits tasks for some seconds. @returns How many a second ended. */
export const submit = remote(
  async function submit(kind: "nothing" | "box", seconds: number): Promise<number> {
    const ref = await put(1);
    const round = async () => {
      await get(
        Array.from({ length: 1_000 }, () => kind === "nothing" ? nothing.remote() : box.remote({ ref })),
      );
    };
    for (let i = 0; i < 10; i++) {
      await round();
    }
    const started = performance.now();
    let tasks = 0;
    for (; performance.now() - started < seconds * 1000; tasks += 1_000) await round();
    return tasks / (performance.now() - started) * 1000;
  },
);

if (import.meta.main) {
  await using _ = await init();
  for (const kind of ["nothing", "box"] as const) {
    const value = await get(submit.options({ resources: { far: 1 } }).remote(kind, 3));
    console.log(JSON.stringify({ figure: kind, value }));
  }
}
