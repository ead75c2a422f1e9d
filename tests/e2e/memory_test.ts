/**
 * What a node does when its memory runs out.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { TestCluster } from "./test_cluster.ts";

Deno.test("a node near its memory's limit stops its newest work, which is done again, or fails saying who used what", async () => {
  await using cluster = await TestCluster.start(
    `
import { get, init, remote } from "rayd";
const print = (what: string, value: unknown) => console.log(what + ": " + JSON.stringify(value));
export const holds = remote(async function holds(megabytes: number, ms: number): Promise<number> {
  const held = new Uint8Array(megabytes * 2 ** 20).fill(1);
  await new Promise((resolve) => setTimeout(resolve, ms));
  return held.length;
}, { cpus: 1 });
if (import.meta.main) {
  await using _ = await init();
  const refs = [1, 2].map(() => holds.options({ retries: 1000 }).remote(350, 2000));
  print("both in the end", (await get(refs)).every((length) => length === 350 * 2 ** 20));
  const error = await get(holds.options({ retries: 1 }).remote(1500, 60_000)).catch((error) => error);
  print("code", error.code);
  print("says what", /holds.*2 of 2 attempts.*memory ran out.*MiB isolate/.test(error.message));
}`,
    ["--cpus", "2", "--memory-limit", "900MiB"],
  );
  assertEquals(await cluster.run(), { "both in the end": true, "code": "OUT_OF_MEMORY", "says what": true });
});
