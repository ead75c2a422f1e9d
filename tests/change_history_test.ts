/**
 * The changes that a shard keeps for watchers who were away, held to a list of them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ChangeHistory, CHANGES_KEPT_MAX } from "../gcs/change_history.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";
import type { GcsChange } from "../gcs/shard.ts";

Deno.test("ChangeHistory has every change as it was, for each prefix and from each revision on", () => {
  const key = fc.oneof(
    fc.string({ maxLength: 12 }),
    fc.string({ unit: "grapheme", maxLength: 12 }),
    fc.string({ minLength: 100, maxLength: 300 }),
  );
  const change = fc.record({
    key,
    value: fc.oneof(
      fc.constant(undefined),
      fc.uint8Array({ maxLength: 40 }),
      fc.constant(new Uint8Array(40_000).fill(7)),
    ),
    // The transaction ends after it; and then the process.
    settles: fc.boolean(),
    restarts: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.nat(100), fc.array(change, { maxLength: 30 }), (before, added) => {
      const storage = new MemoryStorage();
      let history = new ChangeHistory(storage, before);
      const all: GcsChange[] = [];
      let revision = before;
      for (const { key, value, settles, restarts } of added) {
        revision++;
        all.push({ key, value, revision });
        history.add({ key, value, revision });
        if (settles) history.settle();
        if (settles && restarts) history = new ChangeHistory(storage, revision);
      }
      for (let after = before; after <= revision; after++) {
        for (const prefix of ["", ...added.map(({ key }) => [...key].slice(0, 2).join(""))]) {
          assertEquals(
            history.since(prefix, after),
            all.filter((each) => each.revision > after && each.key.startsWith(prefix)),
          );
        }
      }
      assertEquals(history.since("", before - 1), undefined);
    }),
    { numRuns: 60 },
  );
});

Deno.test("ChangeHistory keeps so many changes, and not many more", () => {
  const history = new ChangeHistory(new MemoryStorage(), 0);
  const changes = CHANGES_KEPT_MAX * 3;
  for (let revision = 1; revision <= changes; revision++) {
    history.add({ key: `key/${revision}`, value: Uint8Array.of(revision & 0xff), revision });
  }
  assertEquals(history.since("", changes - CHANGES_KEPT_MAX)?.length, CHANGES_KEPT_MAX);
  assertEquals(history.since("", changes - 2 * CHANGES_KEPT_MAX), undefined);
  const [first] = history.since("key/", changes - CHANGES_KEPT_MAX)!;
  assert(first?.key === `key/${changes - CHANGES_KEPT_MAX + 1}`);
});
