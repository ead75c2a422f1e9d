/**
 * The key-value table: by the public API on one node, and that the table of a node that is alone does what the control
 * store's does.
 *
 * @module
 */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { assert } from "../core/assert.ts";
import { ProtocolError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import {
  ANY_VERSION,
  type KeyValueRequest,
  type PackedChange,
  readKeyValueRequest,
  writeKeyValueRequest,
} from "../core/key_value.ts";
import { clusterTable, type KeyValueTable, localTable } from "../node/key_value.ts";
import { actor, get, init, kv, put, SerializationError, UsageError } from "../runtime/mod.ts";
import { ControlStore } from "./control_store.ts";
import { until } from "./fixtures/files.ts";
import { count } from "./fixtures/keys.ts";

const Idle = actor(class Idle {});

Deno.test("keys are written, read, listed, changed on condition, and removed", async () => {
  await using _ = await init({ cpus: 2 });
  assertEquals(await kv.get("a"), undefined);
  const first = await kv.set("a", { deep: [1n, new Date(5)] });
  assert(first !== undefined && first > 0);
  assertEquals(await kv.get("a"), { deep: [1n, new Date(5)] });
  assertEquals(await kv.set("a", 2, { version: 0 }), undefined);
  assertEquals(await kv.set("a", 2, { version: first + 100 }), undefined);
  const second = await kv.set("a", 2, { version: first });
  assert(second !== undefined && second > first);
  assertEquals(await kv.entry("a"), { key: "a", value: 2, version: second });
  assertEquals(await kv.remove("a", { version: first }), false);
  assertEquals(await kv.get("a"), 2);
  assertEquals(await kv.remove("a", { version: second }), true);
  assertEquals(await kv.entry("a"), undefined);
  assertEquals(await kv.remove("a"), true);
  for (const key of ["p/2", "p/10", "q", "p/ä"]) await kv.set(key, key);
  assertEquals((await kv.list("p/")).map(({ key, value }) => [key, value]), [
    ["p/10", "p/10"],
    ["p/2", "p/2"],
    ["p/ä", "p/ä"],
  ]);
  assertEquals((await kv.list()).length, 4);
});

Deno.test("a list that is longer than one message comes whole", async () => {
  await using _ = await init({ cpus: 1 });
  const value = new Uint8Array(900_000);
  for (let i = 0; i < 12; i++) await kv.set(`large/${String(i).padStart(2, "0")}`, value);
  const all = await kv.list<Uint8Array>("large/");
  assertEquals(
    all.map(({ key }) => key),
    Array.from({ length: 12 }, (_, i) => `large/${String(i).padStart(2, "0")}`),
  );
  assert(all.every(({ value: { length } }) => length === value.length));
});

Deno.test("many tasks that change one key at once lose no change", async () => {
  await using _ = await init({ cpus: 3 });
  await get(Array.from({ length: 6 }, () => count.remote("n", 20)));
  assertEquals(await kv.get("n"), 120);
  assertEquals(await kv.update<number>("n", () => undefined), undefined);
  assertEquals(await kv.list("n"), []);
});

Deno.test("a watch tells what there is, and then what changes; of a slow watcher the last of each key", async () => {
  await using _ = await init({ cpus: 1 });
  await kv.set("w/a", 1);
  await kv.set("x", 1);
  const seen: string[] = [];
  for await (const { key, value } of kv.watch<number>("w/")) {
    seen.push(`${key}=${value}`);
    if (seen.length === 1) {
      // While this watcher does not ask, each change takes the place of the one before.
      for (let i = 0; i < 50; i++) await kv.set("w/b", i);
      await kv.set("x", 2);
      await kv.remove("w/a");
    }
    if (key === "w/a" && value === undefined) break;
  }
  assertEquals(seen.slice(0, 1), ["w/a=1"]);
  assertEquals([...seen.slice(1)].sort(), ["w/a=undefined", "w/b=49"]);
});

Deno.test("a watch that waits ends when it is told to, and many may be open one after the other", async () => {
  await using _ = await init({ cpus: 1 });
  for (let i = 0; i < 1_100; i++) {
    if (i % 100 === 0) {
      const controller = new AbortController();
      const watching = Array.fromAsync(kv.watch(`none/${i}`, { signal: controller.signal }));
      await kv.get("a"); // by now the node waits for a change
      controller.abort();
      assertEquals(await watching, []);
    } else {
      await kv.set("one", i);
      for await (const { value } of kv.watch("one")) {
        assertEquals(value, i);
        break;
      }
    }
  }
});

Deno.test("what is no key, no value or no option is refused with what to do", async () => {
  await using _ = await init({ cpus: 1 });
  await assertRejects(() => kv.get(""), UsageError, 'Cannot use key ""');
  await assertRejects(() => kv.get("a\0b"), UsageError, "Cannot use key");
  await assertRejects(() => kv.set("k".repeat(513), 1), UsageError, "1 to 512 bytes");
  await assertRejects(() => kv.set("\ud800", 1), UsageError, "Cannot use key");
  await assertRejects(() => kv.set(7 as unknown as string, 1), UsageError, "Cannot use key 7");
  await assertRejects(() => kv.set("a", undefined), UsageError, "use remove()");
  await assertRejects(() => kv.set("a", new Uint8Array(1_100_000)), UsageError, "1048576 are the limit");
  const ref = await put(1);
  await assertRejects(() => kv.set("a", [ref]), SerializationError, "has a Ref or a handle in it");
  await assertRejects(() => kv.set("a", { it: Idle.remote() }), SerializationError, "give an actor a name");
  await assertRejects(() => kv.set("a", () => 1), SerializationError);
  await assertRejects(() => kv.set("a", 1, { version: -1 }), UsageError, "Cannot use version -1");
  await assertRejects(
    () => kv.remove("a", { expect: 1 } as kv.ConditionOptions),
    UsageError,
    'Unknown option "expect" for remove',
  );
  await assertRejects(() => Array.fromAsync(kv.watch("\0")), UsageError, "Cannot use prefix");
  assertEquals(await kv.list(), []);
});

Deno.test("what others send for a request is checked", () => {
  const wrong: unknown[] = [
    null,
    {},
    { kind: "get" },
    { kind: "get", key: "" },
    { kind: "set", key: "a", value: "text", expect: 0 },
    { kind: "set", key: "a", value: new Uint8Array(2_000_000), expect: 0 },
    { kind: "set", key: "a", value: new Uint8Array(2), expect: 0.5 },
    { kind: "list", prefix: "a" },
    { kind: "watch", watch: -1, prefix: "" },
    { kind: "drop", key: "a" },
  ];
  for (const request of wrong) {
    const bytes = writeKeyValueRequest(request as KeyValueRequest);
    assertThrows(() => readKeyValueRequest(bytes), ProtocolError);
  }
  assertThrows(() => readKeyValueRequest(Uint8Array.of(0xc1)), ProtocolError);
  assertThrows(() => readKeyValueRequest(new Uint8Array(0)), ProtocolError);
});

/** What was done to a table: on which key, and on which condition, as how many changes ago the key had its version. */
const step = fc.record({
  kind: fc.constantFrom("put", "delete", "get", "list", "watch"),
  key: fc.constantFrom("a", "a/b", "b"),
  condition: fc.constantFrom("any", "absent", "known", "old"),
});

Deno.test("the table of a node that is alone does what the control store's does", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      using store = new ControlStore();
      const there = clusterTable(await store.client(taskIdFromBytes(new Uint8Array(16).fill(2))));
      const [a, b] = [await observe(steps, there), await observe(steps, localTable())];
      assertEquals(a, b);
    }),
    { numRuns: 60 },
  );
});

/** Does the steps. @returns What came of each, and where the watches ended up, but for the versions' numbers. */
async function observe(
  steps: readonly { readonly kind: string; readonly key: string; readonly condition: string }[],
  table: KeyValueTable,
): Promise<unknown[]> {
  const came: unknown[] = [];
  const versions = new Map<string, number[]>();
  const watched: Map<string, number | undefined>[] = [];
  const stops: (() => void)[] = [];
  for (const [i, { kind, key, condition }] of steps.entries()) {
    const known = versions.get(key) ?? [];
    const expect = condition === "any" ? ANY_VERSION : condition === "absent" ? 0 : known.at(
      condition === "known" ? -1 : -2,
    ) ?? 0;
    switch (kind) {
      case "put": {
        const version = await table.put(key, Uint8Array.of(i), expect);
        came.push(version !== undefined);
        if (version !== undefined) versions.set(key, [...known, version]);
        break;
      }
      case "delete":
        came.push(await table.delete(key, expect));
        break;
      case "get":
        came.push((await table.get(key))?.value[0], (await table.get(key))?.version === known.at(-1));
        break;
      case "list":
        came.push((await table.list(key)).map(({ key, value }) => [key, value[0]]));
        break;
      case "watch": {
        const state = new Map<string, number | undefined>();
        stops.push(
          await table.watch(key, ({ key, value }: PackedChange) => {
            if (value === undefined) state.delete(key);
            else state.set(key, value[0]);
          }),
        );
        came.push([...state].sort());
        watched.push(state);
      }
    }
  }
  const last = JSON.stringify((await table.list("")).map(({ key, value }) => [key, value[0]]));
  const all = new Map<string, number | undefined>();
  stops.push(
    await table.watch("", ({ key, value }) => value === undefined ? all.delete(key) : all.set(key, value[0])),
  );
  await until("the watch has told all", () => JSON.stringify([...all].sort()) === last);
  came.push(last, watched.map((state) => [...state].sort()));
  for (const stop of stops) stop();
  return came;
}
