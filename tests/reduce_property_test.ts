/**
 * The reduction of arrays against a plain loop, for every kind of element and every operation.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore, REDUCE_ELEMENTS, type ReduceOp, type ReducibleArray } from "../store/object_store.ts";

/** What the library must give: one element at a time, stored into an array of the kind after each step. */
function reduceInJavaScript(op: ReduceOp, inputs: readonly ReducibleArray[]): ReducibleArray {
  const out = inputs[0]!.slice();
  const cell = out as unknown as { [i: number]: number | bigint };
  const step = (a: number | bigint, b: number | bigint): number | bigint => {
    if (op === "min" || op === "max") {
      if (a !== a || b !== b) return NaN;
      return (op === "min" ? a < b : a > b) ? a : b;
    }
    if (typeof a === "bigint") return op === "prod" ? a * (b as bigint) : a + (b as bigint);
    // Products of 32-bit numbers have more bits than a double holds.
    if (
      op === "prod" && Number.isInteger(a) && !(out instanceof Float32Array || out instanceof Float64Array)
    ) {
      return Math.imul(a, b as number);
    }
    return op === "prod" ? a * (b as number) : a + (b as number);
  };
  for (let i = 0; i < out.length; i++) {
    for (const input of inputs.slice(1)) cell[i] = step(cell[i]!, input[i]!);
    if (op === "mean") cell[i] = (cell[i] as number) / inputs.length;
  }
  return out;
}

/** Values that a kind of element holds, its ends among them. */
function valuesOf(type: typeof REDUCE_ELEMENTS[number]): fc.Arbitrary<number | bigint> {
  if (type === BigInt64Array) return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
  if (type === BigUint64Array) return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  if (type === Float32Array) return fc.float();
  if (type === Float64Array) return fc.double();
  const bits = type.BYTES_PER_ELEMENT * 8;
  return type.name.startsWith("Int")
    ? fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 })
    : fc.integer({ min: 0, max: 2 ** bits - 1 });
}

/** Numbers that compare equal where a reduction may give either zero. */
function plain(array: ReducibleArray): (number | bigint)[] {
  return Array.from(array as Iterable<number | bigint>, (x) => typeof x === "number" && x === 0 ? 0 : x);
}

for (const type of REDUCE_ELEMENTS) {
  Deno.test(`reduce of ${type.name} gives what a plain loop gives`, () => {
    const store = ObjectStore.create(raystoreLibrary(), { capacity: 1024 * 1024 });
    try {
      const floating = type === Float32Array || type === Float64Array;
      const ops: ReduceOp[] = floating
        ? ["sum", "prod", "min", "max", "mean"]
        : ["sum", "prod", "min", "max"];
      fc.assert(
        fc.property(
          fc.constantFrom(...ops),
          fc.integer({ min: 1, max: 6 }),
          // Around the ends of vectors and of blocks, where a loop may take one too many.
          fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(1023, 1024, 1025, 2049, 8193)),
          fc.array(valuesOf(type), { minLength: 1, maxLength: 40 }),
          fc.boolean(),
          (op, count, length, values, inPlace) => {
            const inputs = Array.from({ length: count }, (_, k) => {
              const array = new type(length) as ReducibleArray;
              const cell = array as unknown as { [i: number]: number | bigint };
              for (let i = 0; i < length; i++) cell[i] = values[(i * (k + 1) + k) % values.length]!;
              return array;
            });
            const expected = reduceInJavaScript(op, inputs);
            const out = inPlace ? inputs[0]! : new type(length) as ReducibleArray;
            store.reduce(op, inputs, out);
            assertEquals(plain(out), plain(expected));
          },
        ),
        { numRuns: 150 },
      );
    } finally {
      store.close();
    }
  });
}
