/**
 * What bench/broadcast.ts runs: the time until the nodes named by the arguments have read an object that lies here, in
 * milliseconds, for each of some objects. The first argument is the object's size in bytes.
 *
 * @module
 */

import { get, init, put, type Ref, remote } from "rayd";

/** Reads an object: its bytes come to this task's node. */
export const read = remote(async function read(box: { ref: Ref<Uint8Array> }): Promise<number> {
  return (await get(box.ref)).length;
});

/** Nothing. */
export const nothing = remote(function nothing(): void {});

if (import.meta.main) {
  await using _ = await init();
  const [size, ...nodes] = Deno.args;
  await get(nodes.map((node) => nothing.options({ node }).remote()));
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const ref = await put(new Uint8Array(Number(size)).fill(i));
    const started = performance.now();
    const lengths = await get(nodes.map((node) => read.options({ node }).remote({ ref })));
    times.push(performance.now() - started);
    if (lengths.some((length) => length !== Number(size))) throw new Error("not all is there");
  }
  console.log(JSON.stringify(times));
}
