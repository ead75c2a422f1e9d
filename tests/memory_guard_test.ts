/**
 * Which work is stopped when a node's memory runs out.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { MemoryGuard, type MemoryUser } from "../node/memory_guard.ts";

const user = (isolate: number, change: Partial<MemoryUser>): MemoryUser => ({
  isolate,
  bytes: 100 * 2 ** 20,
  runs: ["f"],
  kind: "tasks",
  again: true,
  began: isolate,
  ...change,
});
const victim = (usedBytes: number, ...users: readonly MemoryUser[]) =>
  new MemoryGuard().look({ usedBytes, limitBytes: 1000, users }, 0)?.isolate;

Deno.test("MemoryGuard stops nothing while there is memory, and the newest that can be run again when there is none", () => {
  const [older, newer] = [user(1, { began: 5 }), user(2, { began: 9 })];
  assertEquals(victim(940, older, newer), undefined);
  assertEquals(victim(950, older, newer), 2);
  assertEquals(victim(950, newer, older), 2);
});

Deno.test("MemoryGuard spares what cannot be run again, actors, and what is idle, in this order of need", () => {
  const once = user(1, { again: false, began: 99 });
  const actor = user(2, { kind: "actors", began: 100 });
  const lasting = user(3, { kind: "actors", again: false, began: 101 });
  const idle = user(4, { runs: [], bytes: 900 * 2 ** 20, began: 102 });
  assertEquals(victim(990, once, actor, lasting, idle, user(5, { began: 1 })), 5);
  assertEquals(victim(990, once, actor, lasting, idle), 1);
  assertEquals(victim(990, actor, lasting, idle), 2);
  assertEquals(victim(990, lasting, idle), undefined);
});

Deno.test("MemoryGuard waits for what was freed to show, and says who used what", () => {
  const guard = new MemoryGuard();
  const users = [user(1, {}), user(2, { bytes: 3 * 2 ** 30, runs: ["big", "big"] })];
  const sample = { usedBytes: 990, limitBytes: 1000, users };
  const { reason } = guard.look(sample, 0)!;
  assertStringIncludes(reason, "3072 MiB isolate 2 (big), 100 MiB isolate 1 (f)");
  assertEquals(guard.look(sample, 100), undefined);
  assertEquals(guard.look(sample, 600)?.isolate, 2);
});
