/**
 * The checker of histories itself: it must find what is wrong, and nothing else.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { type Action, linearizable, type Operation } from "./linearizable.ts";

const read = (value: string | undefined): Action => ({ kind: "read", value });
const write = (value: string | undefined): Action => ({ kind: "write", value });
const swap = (expected: string | undefined, value: string, done: boolean | undefined): Action => ({
  kind: "swap",
  expected,
  value,
  done,
});
const at = (called: number, returned: number, action: Action): Operation => ({ called, returned, action });

const RIGHT: Readonly<Record<string, readonly Operation[]>> = {
  "nothing": [],
  "a read of nothing": [at(0, 1, read(undefined))],
  "one after the other": [
    at(0, 1, write("a")),
    at(2, 3, read("a")),
    at(4, 5, write("b")),
    at(6, 7, read("b")),
  ],
  "a read beside a write sees the old": [at(0, 1, write("a")), at(2, 9, write("b")), at(3, 4, read("a"))],
  "a read beside a write sees the new": [at(0, 1, write("a")), at(2, 9, write("b")), at(3, 4, read("b"))],
  "a write that nobody knows of took effect late": [
    at(0, Infinity, write("a")),
    at(1, 2, read(undefined)),
    at(3, 4, read("a")),
  ],
  "a write that nobody knows of never took effect": [at(0, Infinity, write("a")), at(1, 2, read(undefined))],
  "two swaps, of which one is done": [
    at(0, 5, swap(undefined, "a", true)),
    at(0, 5, swap(undefined, "b", false)),
  ],
};

const WRONG: Readonly<Record<string, readonly Operation[]>> = {
  "a read of what was never written": [at(0, 1, read("a"))],
  "a stale read": [at(0, 1, write("a")), at(2, 3, write("b")), at(4, 5, read("a"))],
  "a lost write": [at(0, 1, write("a")), at(2, 3, read(undefined))],
  "reads that go back": [at(0, 9, write("a")), at(1, 2, read("a")), at(3, 4, read(undefined))],
  "two swaps of one value, both done": [
    at(0, 5, swap(undefined, "a", true)),
    at(0, 5, swap(undefined, "b", true)),
  ],
  "a swap that failed though nothing stood in its way": [at(0, 1, swap(undefined, "a", false))],
  "a write that took effect twice": [
    at(0, 1, write("a")),
    at(2, 3, write("b")),
    at(4, 5, read("b")),
    at(6, 7, read("a")),
  ],
};

for (const [what, history] of Object.entries(RIGHT)) {
  Deno.test(`linearizable: ${what}`, () => assertEquals(linearizable(history), true));
}
for (const [what, history] of Object.entries(WRONG)) {
  Deno.test(`not linearizable: ${what}`, () => assertEquals(linearizable(history), false));
}

/** A history that came about: each operation has its moment, somewhere between its call and its return. */
const real = fc.array(
  fc.record({
    kind: fc.constantFrom("read", "write", "swap"),
    moment: fc.nat({ max: 1000 }),
    before: fc.nat({ max: 60 }),
    after: fc.nat({ max: 60 }),
    expected: fc.nat({ max: 12 }),
  }),
  { maxLength: 24 },
).map((steps) => {
  let state: string | undefined;
  return steps.map((step, i) => ({ ...step, moment: step.moment + i / 100 })).sort((a, b) =>
    a.moment - b.moment
  )
    .map(({ kind, moment, before, after, expected }, i): Operation => {
      const value = `v${i}`, called = moment - before - 0.001, returned = moment + after + 0.001;
      if (kind === "read") return at(called, returned, read(state));
      if (kind === "write") {
        state = value;
        return at(called, returned, write(value));
      }
      const wanted = expected === 0 ? undefined : `v${expected}`;
      const done = state === wanted;
      if (done) state = value;
      return at(called, returned, swap(wanted, value, done));
    });
});

Deno.test("every history that came about is linearizable", () => {
  fc.assert(fc.property(real, (history) => linearizable(history)), { numRuns: 500 });
});

/** As slow as it is plain: tries all orders. */
function linearizableByForce(history: readonly Operation[], state: string | undefined = undefined): boolean {
  if (history.every(({ returned }) => returned === Infinity)) return true;
  return history.some((first, i) => {
    const rest = history.toSpliced(i, 1);
    if (rest.some(({ returned }) => returned < first.called)) return false;
    const { action } = first;
    if (action.kind === "read") return action.value === state && linearizableByForce(rest, state);
    if (action.kind === "write") return linearizableByForce(rest, action.value);
    const done = state === action.expected;
    if (action.done !== undefined && action.done !== done) return false;
    return linearizableByForce(rest, done ? action.value : state);
  });
}

Deno.test("the checker agrees with trying all orders, on histories that may be wrong", () => {
  const value = fc.constantFrom("a", "b", undefined);
  const action: fc.Arbitrary<Action> = fc.oneof(
    fc.record({ kind: fc.constant("read" as const), value }),
    fc.record({ kind: fc.constant("write" as const), value }),
    fc.record({
      kind: fc.constant("swap" as const),
      expected: value,
      value: fc.constantFrom("a", "b"),
      done: fc.boolean(),
    }),
  );
  const operation = fc.tuple(fc.nat({ max: 20 }), fc.integer({ min: 1, max: 12 }), action, fc.nat({ max: 2 }))
    .map(([called, length, action, answered]) => {
      if (answered > 0 || action.kind === "read") return at(called, called + length, action);
      return at(called, Infinity, action.kind === "swap" ? { ...action, done: undefined } : action);
    });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 7 }), (history) => {
      assertEquals(linearizable(history), linearizableByForce(history));
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("operations of unknown outcome do not multiply what there is to try", () => {
  // A partition: forty writes that nobody has an answer to, then reads and swaps that see one of them in ten.
  const history = Array.from({ length: 40 }, (_, i) => at(i, Infinity, write(`lost${i}`)));
  let state: string | undefined = undefined;
  for (let i = 0; i < 200; i++) {
    const called = 100 + 2 * i, lost = i % 50 === 0 ? `lost${i / 5}` : undefined;
    if (lost !== undefined) history.push(at(called, called + 3, read(state = lost)));
    else if (i % 3 === 0) history.push(at(called, called + 3, read(state)));
    else history.push(at(called, called + 1, swap(state, state = `s${i}`, true)));
  }
  assertEquals(linearizable(history), true);
  assertEquals(linearizable([...history, at(1_000, 1_001, read("s3"))]), false);
});
