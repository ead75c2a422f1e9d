/**
 * Records of a numbered sequence as bytes, held to a list of them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ByteHistory, type HistoryRecord } from "../gcs/byte_history.ts";

Deno.test("ByteHistory has the newest records as they were, as many as were asked for, and none from before a floor goes", () => {
  const LIMITS = { records: 6, bytes: 200_000 };
  const record = fc.record({
    step: fc.integer({ min: 1, max: 3 }),
    length: fc.oneof(fc.nat(20), fc.integer({ min: 20_000, max: 90_000 })),
    floor: fc.option(fc.nat(5), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), (added) => {
      const history = new ByteHistory(LIMITS);
      const all: HistoryRecord[] = [];
      let number = 0, gone = 0;
      for (const { step, length, floor } of added) {
        number += step;
        const bytes = new Uint8Array(length).fill(number);
        all.push({ number, bytes });
        history.add(number, length + 10, (into, at) => (into.set(bytes, at), length));
        const last = history.trim(floor === undefined ? undefined : number - floor);
        if (last !== undefined) {
          assertEquals(last, all.find((each) => each.number === last.number));
          assert(last.number > gone && last.number <= number - (floor ?? 0));
          gone = last.number;
        }
        const kept = all.filter((each) => each.number > gone);
        assertEquals([...history.after(-1)], kept);
        assertEquals([...history.after(number - 2)], kept.filter((each) => each.number > number - 2));
        // A small record may have a block of 64 KB to itself.
        const size = kept.reduce((sum, { bytes }) => sum + Math.max(bytes.length + 100, 64 * 1024), 0);
        if (gone > 0) assert(kept.length >= LIMITS.records || size >= LIMITS.bytes);
      }
    }),
  );
});
