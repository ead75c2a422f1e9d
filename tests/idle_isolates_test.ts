/**
 * Which isolates end for want of work, in random times of much and of little to do.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ISOLATE_COLLECT_MS, ISOLATE_IDLE_MS, PROGRAM_IDLE_MS } from "../core/limits.ts";
import { IdleIsolates } from "../node/idle_isolates.ts";

/** What happens between two looks: time passes, a program runs or none does, isolates are started, some have work. */
const step = fc.record({
  ms: fc.integer({ min: 0, max: PROGRAM_IDLE_MS / 3 }),
  program: fc.boolean(),
  started: fc.integer({ min: 0, max: 3 }),
  busy: fc.array(fc.nat({ max: 20 }), { maxLength: 4 }),
});

Deno.test("isolates with work stay, so do those kept for programs; the rest ends, the longest idle first", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 4 }), fc.array(step, { maxLength: 60 }), (warm, steps) => {
    const idle = new IdleIsolates(warm);
    idle.programRuns(0);
    const busyAt = new Map<number, number>();
    let now = 0, programAt = 0, next = 0;
    for (const { ms, program, started, busy } of steps) {
      now += ms;
      if (program) idle.programRuns(programAt = now);
      for (let i = 0; i < started; i++) busyAt.set(next++, now);
      for (const number of busy) if (busyAt.has(number)) busyAt.set(number, now);
      const isolates = [...busyAt.keys()].map((number) => ({
        number,
        busy: busy.includes(number),
        forTasks: true,
        given: 0,
      }));
      const ended = idle.toEnd(now, isolates);
      const floor = now - programAt < PROGRAM_IDLE_MS ? warm : 0;
      assertEquals(idle.floor(now), floor);
      const since = (number: number) => now - busyAt.get(number)!;
      for (const number of ended) assert(since(number) >= ISOLATE_IDLE_MS, "it had work lately");
      for (const number of ended) busyAt.delete(number);
      assert(busyAt.size >= Math.min(floor, isolates.length), "as many as are kept stay");
      const left = [...busyAt.keys()].filter((number) => since(number) >= ISOLATE_IDLE_MS);
      assert(left.length === 0 || busyAt.size <= floor, "nothing that is idle stays beyond that");
    }
  }));
});

Deno.test("when no program has run for a while all isolates end, and what is kept is there when one comes", () => {
  const idle = new IdleIsolates(2);
  const isolates = [1, 2].map((number) => ({ number, busy: false, forTasks: true, given: 0 }));
  assertEquals(idle.floor(0), 0, "no program has run yet");
  idle.programRuns(0);
  assertEquals(idle.toEnd(0, isolates), []);
  assertEquals(idle.toEnd(PROGRAM_IDLE_MS - 1, isolates), []);
  assertEquals(idle.toEnd(PROGRAM_IDLE_MS, isolates), [1, 2]);
  assertEquals(idle.floor(PROGRAM_IDLE_MS), 0);
  idle.programRuns(PROGRAM_IDLE_MS + 1);
  assertEquals(idle.floor(2 * PROGRAM_IDLE_MS), 2);
});

Deno.test("an isolate that rests collects its garbage once, and once more after it has worked again", () => {
  const work: readonly { readonly busy: boolean; readonly given: number }[] = [
    { busy: true, given: 1 },
    { busy: false, given: 2 }, // it began and ended between two looks
  ];
  for (const forTasks of [true, false]) {
    for (const worked of work) {
      const idle = new IdleIsolates(2);
      const collected: number[] = [];
      const look = (from: number, ms: number, isolate: typeof worked) => {
        for (let now = from; now < from + ms; now += 500) {
          assertEquals(idle.toEnd(now, [{ number: 1, forTasks, ...isolate }]), []);
          for (const number of idle.toCollect(now)) {
            assertEquals(number, 1);
            collected.push(now - from);
          }
        }
      };
      look(0, 20_000, { busy: true, given: 1 });
      assertEquals(collected, []);
      look(20_000, 25_000, { busy: false, given: 1 });
      assertEquals(collected, [ISOLATE_COLLECT_MS - 500]);
      look(45_000, 500, worked);
      look(45_500, 25_000, { ...worked, busy: false });
      assertEquals(collected, [ISOLATE_COLLECT_MS - 500, ISOLATE_COLLECT_MS - 500]);
    }
  }
});

Deno.test("isolates with actors do not end for having nothing to do, nor count for what is kept ready", () => {
  const idle = new IdleIsolates(1);
  const isolates = [1, 2, 3].map((number) => ({ number, busy: false, given: 0, forTasks: number > 1 }));
  idle.toEnd(0, isolates);
  idle.programRuns(ISOLATE_IDLE_MS);
  assertEquals(idle.toEnd(ISOLATE_IDLE_MS, isolates), [2]);
});
