/**
 * When published code goes.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { CODE_KEPT_MS, CodeCollector } from "../node/code_collector.ts";

Deno.test("CodeCollector lets code go some time after its last use, and never before", () => {
  const look = fc.record({
    ms: fc.integer({ min: 0, max: CODE_KEPT_MS }),
    published: fc.subarray(["a", "b", "c"]),
    used: fc.subarray(["a", "b", "c"]),
  });
  fc.assert(fc.property(fc.array(look, { maxLength: 20 }), (looks) => {
    const collector = new CodeCollector();
    const known = new Set<string>();
    const usedAt = new Map<string, number>();
    let now = 0;
    for (const { ms, published, used } of looks) {
      now += ms;
      for (const hash of published) known.add(hash);
      for (const hash of known) if (used.includes(hash) || !usedAt.has(hash)) usedAt.set(hash, now);
      for (const hash of collector.look(known, new Set(used), now)) {
        assert(!used.includes(hash), "it is in use");
        assert(now - usedAt.get(hash)! >= CODE_KEPT_MS, "it was in use just now");
        known.delete(hash);
        usedAt.delete(hash);
      }
    }
    now += CODE_KEPT_MS;
    assertEquals(collector.look(known, new Set(), now).sort(), [...known].sort(), "all goes in the end");
  }));
});
