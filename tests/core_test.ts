/**
 * Identifiers, durations and options.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { assert } from "../core/assert.ts";
import { systemClock } from "../core/clock.ts";
import { type Duration, durationMs } from "../core/duration.ts";
import { UsageError } from "../core/errors.ts";
import {
  argumentsId,
  ChildIds,
  hex,
  indexOf,
  OBJECT_ID_BYTES,
  PUT_INDEX_FLAG,
  putId,
  readObjectId,
  readTaskId,
  returnId,
  TASK_ID_BYTES,
  taskIdFromBytes,
  taskOf,
  writeObjectId,
} from "../core/ids.ts";
import { parseDemand, parseTaskOptions, showDemand, type TaskOptions } from "../core/options.ts";

// --- Identifiers ---

/** MurmurHash3_x86_128 as its author wrote it, in BigInt, of whole and broken blocks. */
function murmur3x86x128(data: Uint8Array, seed: number): Uint8Array {
  const mask = 0xffff_ffffn;
  const times = (a: bigint, b: bigint) => a * b & mask;
  const rotate = (x: bigint, by: bigint) => (x << by | x >> 32n - by) & mask;
  const C = [0x239b961bn, 0xab0e9789n, 0x38b34ae5n, 0xa1e38b93n];
  const ROTATE_K = [15n, 16n, 17n, 18n], ROTATE_H = [19n, 17n, 15n, 13n];
  const ADD = [0x561ccd1bn, 0x0bcaa747n, 0x96cd1c35n, 0x32ac3b17n];
  const h = [0, 1, 2, 3].map(() => BigInt(seed >>> 0));
  const mixed = (k: bigint, i: number) => times(rotate(times(k, C[i]!), ROTATE_K[i]!), C[(i + 1) % 4]!);
  let at = 0;
  for (; at + 16 <= data.length; at += 16) {
    for (let i = 0; i < 4; i++) {
      const k = BigInt(new DataView(data.buffer, data.byteOffset).getUint32(at + i * 4, true));
      h[i] = h[i]! ^ mixed(k, i);
      h[i] = (rotate(h[i]!, ROTATE_H[i]!) + h[(i + 1) % 4]!) & mask;
      h[i] = (times(h[i]!, 5n) + ADD[i]!) & mask;
    }
  }
  for (let i = 0; i < 4; i++) {
    let k = 0n;
    data.subarray(at + i * 4, at + i * 4 + 4).forEach((byte, j) => k |= BigInt(byte) << BigInt(8 * j));
    h[i] = h[i]! ^ mixed(k, i);
  }
  const spread = () => {
    h[0] = (h[0]! + h[1]! + h[2]! + h[3]!) & mask;
    for (let i = 1; i < 4; i++) h[i] = (h[i]! + h[0]!) & mask;
  };
  for (let i = 0; i < 4; i++) h[i] = h[i]! ^ BigInt(data.length);
  spread();
  for (let i = 0; i < 4; i++) {
    let x = h[i]!;
    x = times(x ^ x >> 16n, 0x85ebca6bn);
    x = times(x ^ x >> 13n, 0xc2b2ae35n);
    h[i] = x ^ x >> 16n;
  }
  spread();
  const out = new DataView(new ArrayBuffer(16));
  h.forEach((word, i) => out.setUint32(i * 4, Number(word), true));
  return new Uint8Array(out.buffer);
}

function hexOf(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const id = fc.uint8Array({ minLength: TASK_ID_BYTES, maxLength: TASK_ID_BYTES });
const index = fc.oneof(fc.nat({ max: 1000 }), fc.nat({ max: 0x7fff_fffe }));

Deno.test("the hash that ids are held to is MurmurHash3_x86_128", () => {
  // SMHasher's verification value for MurmurHash3_x86_128: the hash of the hashes of 0, 1, … 255 bytes.
  const hashes = new Uint8Array(256 * 16);
  for (let length = 0; length < 256; length++) {
    hashes.set(murmur3x86x128(Uint8Array.from({ length }, (_, i) => i), 256 - length), length * 16);
  }
  assertEquals(new DataView(murmur3x86x128(hashes, 0).buffer).getUint32(0, true), 0xb3ece62a);
});

Deno.test("ChildIds.at is MurmurHash3_x86_128 of the parent's bytes and the index, seeded with the domain", () => {
  fc.assert(fc.property(id, index, fc.nat(), (parent, index, domain) => {
    const data = new Uint8Array(20);
    data.set(parent);
    new DataView(data.buffer).setUint32(16, index, true);
    assertEquals(
      hex(new ChildIds(taskIdFromBytes(parent), domain).at(index)),
      hexOf(murmur3x86x128(data, domain)),
    );
  }));
});

Deno.test("ChildIds.next gives the ids of at, in order, and other parents and domains give others", () => {
  const parent = taskIdFromBytes(new Uint8Array(16));
  const ids = new ChildIds(parent), again = new ChildIds(parent);
  assertEquals([ids.next(), ids.next(), ids.next()], [again.at(0), again.at(1), again.at(2)]);
  const other = taskIdFromBytes(new Uint8Array(16).fill(0, 0, 15).fill(1, 15));
  assertEquals(new Set([ids.at(0), new ChildIds(parent, 1).at(0), new ChildIds(other).at(0)]).size, 3);
});

Deno.test("ChildIds gives a million children a million ids, also apart from their own children", () => {
  const parent = new ChildIds(taskIdFromBytes(new TextEncoder().encode("a million of them")));
  const seen = new Set<string>();
  for (let i = 0; i < 900_000; i++) seen.add(parent.next());
  for (let i = 0; i < 100; i++) {
    const child = new ChildIds(parent.at(i));
    for (let j = 0; j < 1_000; j++) seen.add(child.next());
  }
  assertEquals(seen.size, 1_000_000);
});

Deno.test("returnId, putId and argumentsId never meet, and taskOf and indexOf read them", () => {
  fc.assert(fc.property(id, index, (bytes, index) => {
    const task = taskIdFromBytes(bytes);
    const [returned, put] = [returnId(task, index), putId(task, index)];
    assertEquals([taskOf(returned), taskOf(put), taskOf(argumentsId(task))], [task, task, task]);
    assertEquals([indexOf(returned), indexOf(put)], [index, PUT_INDEX_FLAG + index]);
    assertEquals(new Set([returned, put, argumentsId(task)]).size, 3);
  }));
});

Deno.test("writeObjectId and readObjectId keep an id in 20 bytes, wherever they lie", () => {
  fc.assert(fc.property(id, index, fc.boolean(), fc.nat({ max: 9 }), (bytes, index, put, at) => {
    const task = taskIdFromBytes(bytes);
    const object = put ? putId(task, index) : returnId(task, index);
    const target = new Uint8Array(at + OBJECT_ID_BYTES + 3).fill(0xee);
    writeObjectId(object, target, at);
    assertEquals(readObjectId(target, at), object);
    assertEquals(readTaskId(target, at), task);
    assertEquals(
      [...target.subarray(0, at), ...target.subarray(at + OBJECT_ID_BYTES)],
      Array(at + 3).fill(0xee),
    );
    assertEquals(hex(object, true), hexOf(target.subarray(at, at + OBJECT_ID_BYTES)));
    assertEquals(hex(task), hexOf(bytes));
  }));
});

// --- Durations ---

Deno.test("durationMs reads numbers of milliseconds and numbers with a unit", () => {
  const cases: [Duration, number][] = [
    [0, 0],
    [1.5, 1.5],
    [Infinity, Infinity],
    ["0ms", 0],
    ["500ms", 500],
    ["3s", 3_000],
    ["0.5s", 500],
    ["2m", 120_000],
    ["1h", 3_600_000],
  ];
  for (const [duration, ms] of cases) assertEquals(durationMs(duration), ms);
});

Deno.test("durationMs refuses everything else, and says what it was and what would do", () => {
  const cases: [unknown, string][] = [
    [-1, "-1"],
    [NaN, "NaN"],
    ["3", `"3"`],
    ["", `""`],
    ["-3s", `"-3s"`],
    ["3 days", `"3 days"`],
    ["s", `"s"`],
    ["1e3s", `"1e3s"`],
    [null, "null"],
    [undefined, "undefined"],
    [{}, "an object"],
    [Object.create(null), "an object"],
    [5n, "5"],
    [Symbol("x"), "Symbol(x)"],
    [true, "true"],
  ];
  for (const [given, shown] of cases) {
    assertThrows(
      () => durationMs(given as Duration, "timeout of f"),
      UsageError,
      `Cannot read timeout of f: ${shown} is neither a number of milliseconds nor text such as "500ms", "3s", "2m" or "1h"`,
    );
  }
});

// --- Options ---

Deno.test("parseTaskOptions fills in what was not given", () => {
  const settings = parseTaskOptions({}, "f", false);
  assertEquals({ ...settings, demand: { ...settings.demand } }, {
    demand: { cpu: 10_000 },
    name: "f",
    returns: 1,
    retries: 3,
    retryOn: false,
    timeoutMs: 0,
    priority: 0,
    stream: false,
  });
});

Deno.test("parseTaskOptions takes every option", () => {
  const settings = parseTaskOptions(
    {
      cpus: 0.5,
      gpus: 2,
      memory: 1e9,
      resources: { licence: 1.5 },
      name: "g",
      returns: 2,
      retries: Infinity,
      retryOn: ["TypeError"],
      timeout: "2s",
      priority: -3,
    },
    "f",
    false,
  );
  assertEquals({ ...settings, demand: { ...settings.demand } }, {
    demand: { cpu: 5_000, gpu: 20_000, memory: 1e13, licence: 15_000 },
    name: "g",
    returns: 2,
    retries: Number.MAX_SAFE_INTEGER,
    retryOn: ["TypeError"],
    timeoutMs: 2_000,
    priority: -3,
    stream: false,
  });
  assertEquals(parseTaskOptions({ timeout: Infinity }, "f", false).timeoutMs, 0, "no timeout");
  assertEquals(parseTaskOptions({ timeout: 0 }, "f", false).timeoutMs, 1, "0 would be none");
});

Deno.test("parseTaskOptions refuses every wrong option, and says whose and which it is", () => {
  const cases: [unknown, string][] = [
    [null, "Cannot use options of f: null is no object"],
    ["fast", `Cannot use options of f: "fast" is no object`],
    [{ cpu: 1 }, `Unknown option "cpu" for f: there are cpus, gpus, memory,`],
    [{ cpus: -1 }, "Cannot use cpus of f: -1 is not an amount of 0 or more"],
    [{ cpus: NaN }, "Cannot use cpus of f: NaN is not an amount of 0 or more"],
    [{ cpus: "2" }, `Cannot use cpus of f: "2" is not an amount of 0 or more`],
    [{ cpus: Infinity }, "Cannot use cpus of f: Infinity is not an amount"],
    [{ cpus: 0.00001 }, "Cannot use cpus of f: 0.00001 is finer than 1/10000"],
    [{ gpus: 1.5 }, "Cannot use gpus of f: 1.5 must be a whole number, or a fraction below 1"],
    [{ gpus: -1 }, "Cannot use gpus of f: -1 is not an amount"],
    [{ memory: 1e300 }, "Cannot use memory of f: 1e+300 is not an amount"],
    [{ resources: 5 }, "Cannot use resources of f: give amounts by name"],
    [{ resources: "licence" }, "Cannot use resources of f: give amounts by name"],
    [{ resources: { cpu: 1 } }, `Cannot use resources of f: "cpu" has an option of its own`],
    [{ resources: { "": 1 } }, `Cannot use resources of f: "" is no name for a resource`],
    [{ resources: JSON.parse(`{"__proto__": 1}`) }, `"__proto__" is no name for a resource`],
    [{ resources: { licence: "1" } }, `Cannot use resources.licence of f: "1" is not an amount`],
    [{ name: "" }, "Cannot use name of f: it must be text that is not empty"],
    [{ name: 5 }, "Cannot use name of f"],
    [{ returns: 0 }, "Cannot use returns of f: 0 is not a whole number from 1 to 1024"],
    [{ returns: 1.5 }, "Cannot use returns of f: 1.5"],
    [{ returns: 1025 }, "Cannot use returns of f: 1025"],
    [{ retries: -1 }, "Cannot use retries of f: -1"],
    [{ retries: "3" }, `Cannot use retries of f: "3"`],
    [{ retryOn: "TypeError" }, `Cannot use retryOn of f: give true, false or a list of error names such as`],
    [{ retryOn: [TypeError] }, "Cannot use retryOn of f"],
    [{ timeout: "soon" }, `Cannot read timeout of f: "soon" is neither`],
    [{ priority: 0.5 }, "Cannot use priority of f: 0.5 is not a whole number from -1000000 to 1000000"],
    [{ priority: 1e7 }, "Cannot use priority of f: 10000000"],
  ];
  for (const [options, words] of cases) {
    assertThrows(() => parseTaskOptions(options as TaskOptions, "f", false), UsageError, words);
  }
  assertThrows(
    () => parseTaskOptions({ returns: 2 }, "f", true),
    UsageError,
    "Cannot set returns: f is a generator, its results are streamed",
  );
});

Deno.test("parseDemand gives whole units without zeros, whatever a user adds up", () => {
  assertEquals({ ...parseDemand({ cpus: 0.1 + 0.2, gpus: 0, resources: { b: 1, a: 2 } }, "f") }, {
    cpu: 3_000,
    a: 20_000,
    b: 10_000,
  });
  assertEquals({ ...parseDemand({}, "f") }, {});
  assertEquals({ ...parseDemand({ cpus: 0 }, "f", { cpus: 1 }) }, {});
  fc.assert(fc.property(fc.double({ min: 0.0001, max: 1e6, noNaN: true }), (cpus) => {
    const { cpu } = parseDemand({ cpus }, "f");
    assert(Number.isInteger(cpu) && Math.abs(cpu! / 10_000 - cpus) <= 0.00005 + cpus * 1e-12);
  }));
});

Deno.test("showDemand shows amounts as a user would write them", () => {
  assertEquals(showDemand(parseDemand({ cpus: 2, gpus: 0.5 }, "f")), "{cpu: 2, gpu: 0.5}");
});

Deno.test("systemClock does not call what was undone, though it was due when that which undid it came", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const [accepted, connected] = [listener.accept(), Deno.connect({ hostname: "127.0.0.1", port })];
  using reader = await accepted;
  using writer = await connected;
  let undone = false, calledLate = false;
  const undo = systemClock.after(5, () => calledLate = undone);
  const read = reader.read(new Uint8Array(1)).then(() => {
    undo();
    undone = true;
  });
  await systemClock.turn();
  await writer.write(Uint8Array.of(1));
  for (const since = performance.now(); performance.now() < since + 10;); // both are ready by the next turn
  await read;
  await systemClock.turn();
  assertEquals([undone, calledLate], [true, false]);
});
