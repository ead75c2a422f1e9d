/**
 * Actors, through the public API on an embedded node.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { get, init } from "../runtime/mod.ts";
import * as f from "./fixtures/actors.ts";

function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * 1024 * 1024, logLevel: "off", ...options });
    await body();
  });
}

onNode("calls of an actor are applied to its state in the order in which they were made", async () => {
  const counter = f.Counter.remote(10);
  assertEquals(await get(counter.add.remote(5)), 15);
  const refs = Array.from({ length: 2_000 }, () => counter.add.remote(1));
  assertEquals(await get(refs), refs.map((_, i) => 16 + i));
});
