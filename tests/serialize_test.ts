/**
 * Values as packets: what comes back, what is refused and under which path, and the bytes themselves.
 *
 * @module
 */

// @ts-types="../core/std_msgpack.d.ts"
import { decode } from "@std/msgpack";
import { assert, assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { SerializationError } from "../core/errors.ts";
import {
  BUFFER_ALIGNMENT_BYTES,
  OUT_OF_BAND_BYTES_MIN,
  pack,
  registerClass,
  unpack,
  VALUE_DEPTH_MAX,
} from "../store/serialize.ts";

function trip<T>(value: T): T {
  return unpack(pack(value).toBytes()) as T;
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text.split(" "), (byte) => Number.parseInt(byte, 16));
}

/** The path under which packing refuses a value, and the message. */
function refused(value: unknown, root?: string): { path: string; message: string } {
  let failure: unknown;
  try {
    pack(value, root === undefined ? {} : { root });
  } catch (error) {
    failure = error;
  }
  assertInstanceOf(failure, SerializationError);
  return failure as SerializationError;
}

/** A packet placed at an aligned address behind other bytes, as in the store. */
function placed(value: unknown): Uint8Array {
  const packet = pack(value);
  const segment = new Uint8Array(BUFFER_ALIGNMENT_BYTES + packet.size).fill(0xee);
  const place = segment.subarray(BUFFER_ALIGNMENT_BYTES);
  packet.writeInto(place);
  return place;
}

// --- What comes back ---

Deno.test("unpack returns every primitive as it was", () => {
  const primitives = [
    undefined,
    null,
    true,
    false,
    NaN,
    Infinity,
    -Infinity,
    0,
    -0,
    0.1,
    5e-324,
    Number.MAX_VALUE,
    ...[
      1,
      0x1f,
      0x20,
      0x21,
      0x7f,
      0x80,
      0xff,
      0x100,
      0x7fff,
      0x8000,
      0xffff,
      0x1_0000,
      2 ** 31,
      2 ** 32,
      2 ** 53,
    ]
      .flatMap((n) => [n - 1, n, n + 1, -n, -n - 1, -n + 1]),
    0n,
    -1n,
    2n ** 63n - 1n,
    2n ** 63n,
    -(2n ** 63n),
    -(2n ** 63n) - 1n,
    2n ** 4000n - 1n,
    "",
    "a",
    "\ufeffbom",
    "é",
    "日本語",
    "😀",
    "\ud800",
    "x\udc00y",
    "\0",
  ];
  for (const primitive of primitives) assert(Object.is(trip(primitive), primitive), String(primitive));
});

Deno.test("unpack returns strings of every length around the boundaries", () => {
  for (
    const length of [
      31,
      32,
      33,
      47,
      48,
      49,
      85,
      86,
      127,
      128,
      129,
      255,
      256,
      21845,
      21846,
      65535,
      65536,
      70000,
    ]
  ) {
    for (const unit of ["a", "é", "語"]) {
      const text = unit.repeat(length);
      assertStrictEquals(trip(text), text);
      assertStrictEquals(trip({ [text]: 1 })[text], 1);
    }
    const illFormed = "a".repeat(length - 1) + "\ud83d";
    assertStrictEquals(trip(illFormed), illFormed);
    assertStrictEquals(trip({ [illFormed]: 1 })[illFormed], 1);
  }
});

Deno.test("unpack returns boxed primitives, dates and regular expressions", () => {
  for (const value of [Object(true), Object(-0), Object("text"), Object(7n)]) {
    const back: unknown = trip(value);
    assertStrictEquals(typeof back, "object");
    assertStrictEquals(Object.getPrototypeOf(back), Object.getPrototypeOf(value));
    assert(Object.is((back as { valueOf(): unknown }).valueOf(), value.valueOf()));
  }
  assertStrictEquals(trip(new Date(1.5e12)).getTime(), 1.5e12);
  assert(Number.isNaN(trip(new Date(NaN)).getTime()));
  const pattern = /a[/\]]\u{1F600}"/giu;
  pattern.lastIndex = 3;
  const back = trip(pattern);
  assertStrictEquals(String(back), String(pattern));
  assertStrictEquals(back.lastIndex, 0);
});

Deno.test("unpack returns maps and sets in order, with any keys", () => {
  const key = { k: 1 };
  const back = trip(new Map<unknown, unknown>([[key, "a"], [NaN, key], [undefined, new Set([key, 1, "x"])]]));
  assertEquals([...back.keys()], [{ k: 1 }, NaN, undefined]);
  const keyBack = [...back.keys()][0];
  assertStrictEquals(back.get(NaN), keyBack);
  const set = back.get(undefined) as Set<unknown>;
  assertEquals([...set], [{ k: 1 }, 1, "x"]);
  assert(set.has(keyBack));
});

Deno.test("unpack returns plain objects, also those without a prototype", () => {
  const bare = Object.assign(Object.create(null), { a: 1 });
  const back = trip(bare);
  assertStrictEquals(Object.getPrototypeOf(back), Object.prototype);
  assertEquals(back, { a: 1 });
  assertEquals(Object.keys(trip({ b: 1, 2: 2, a: 3, 1: 4 })), ["1", "2", "b", "a"]);
  const wide = Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`k${i}`, i]));
  assertEquals(trip(wide), wide);
});

Deno.test("unpack gives __proto__ as an own property and pollutes nothing", () => {
  const value = JSON.parse(`{"__proto__": {"polluted": 1}, "a": [{"__proto__": 2}]}`);
  const back = trip(value);
  assertStrictEquals(Object.getPrototypeOf(back), Object.prototype);
  assertEquals(Object.getOwnPropertyDescriptor(back, "__proto__")?.value, { polluted: 1 });
  assertStrictEquals(Object.getOwnPropertyDescriptor(back.a[0], "__proto__")?.value, 2);
  assertStrictEquals(({} as { polluted?: number }).polluted, undefined);
});

Deno.test("unpack calls no setter that Object.prototype may have for __proto__", () => {
  const bytes = pack(JSON.parse(`{"__proto__": 1}`)).toBytes();
  const before = Object.getOwnPropertyDescriptor(Object.prototype, "__proto__");
  const set: unknown[] = [];
  Object.defineProperty(Object.prototype, "__proto__", {
    set: (value) => set.push(value),
    configurable: true,
  });
  try {
    assertEquals(Object.keys(unpack(bytes) as object), ["__proto__"]);
    assertEquals(set, []);
  } finally {
    if (before === undefined) Reflect.deleteProperty(Object.prototype, "__proto__");
    else Object.defineProperty(Object.prototype, "__proto__", before);
  }
});

Deno.test("pack leaves out symbols and what is not enumerable, as structuredClone does", () => {
  const value = Object.defineProperty({ a: 1, [Symbol("s")]: 2 }, "hidden", { value: 3, enumerable: false });
  assertEquals(Reflect.ownKeys(trip(value)), ["a"]);
});

Deno.test("unpack returns arrays with holes and extra properties", () => {
  const holes = [, 1, , undefined, ,];
  const back = trip(holes);
  assertStrictEquals(back.length, 5);
  assertEquals(Object.keys(back), ["1", "3"]);
  const extra = Object.assign([1, 2], { name: "x", "-1": 3, "01": 4, "4294967295": 5 });
  const extraBack = trip(extra);
  assertStrictEquals(extraBack.length, 2);
  assertEquals(Object.entries(extraBack), Object.entries(extra));
  // As many holes as extra properties: their count alone does not tell.
  const even = Object.assign([1, , 3], { x: 1 });
  assertEquals(Object.entries(trip(even)), Object.entries(even));
  const far: number[] = [];
  far[4_294_967_294] = 1;
  assertStrictEquals(trip(far).length, 4_294_967_295);
  assertEquals(Object.entries(trip(far)), [["4294967294", 1]]);
  assertStrictEquals(trip(new Array(1000)).length, 1000);
  const match = trip(/(?<x>b)/.exec("abc")!);
  assertEquals([match[0], match.index, match.input, { ...match.groups }], ["b", 1, "abc", { x: "b" }]);
});

Deno.test("unpack keeps cyclic and shared references", () => {
  type Node = { self?: Node; list: unknown[]; again?: unknown };
  const node: Node = { list: [] };
  node.self = node;
  node.list.push(node, node.list);
  node.again = node.list;
  const back = trip(node);
  assertStrictEquals(back.self, back);
  assertStrictEquals(back.list[0], back);
  assertStrictEquals(back.list[1], back.list);
  assertStrictEquals(back.again, back.list);
  const shared = [{}, new Date(0), /x/, Object(1), new Map(), new Set(), new Error("e"), new Uint8Array(3)];
  const many = trip([...shared, ...shared, ...shared]);
  for (let i = 0; i < shared.length * 2; i++) assertStrictEquals(many[i], many[i + shared.length]);
});

Deno.test("unpack returns errors with class, message, stack, cause and own properties", () => {
  for (const Class of [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError]) {
    const error = Object.assign(new Class("what", { cause: { deep: new Error("why") } }), { code: 7 });
    const back = trip(error);
    assertStrictEquals(Object.getPrototypeOf(back), Class.prototype);
    assertStrictEquals(back.message, "what");
    assertStrictEquals(back.stack, error.stack);
    assertStrictEquals(back.code, 7);
    assertStrictEquals((back.cause as { deep: Error }).deep.message, "why");
    assertEquals(Object.keys(back), ["code"]);
    assert("cause" in back && !("cause" in trip(new Class("x"))));
  }
  const aggregate = trip(new AggregateError([new TypeError("a"), 1], "all"));
  assertInstanceOf(aggregate, AggregateError);
  assertInstanceOf(aggregate.errors[0], TypeError);
  assertEquals([aggregate.errors[1], aggregate.message], [1, "all"]);
});

Deno.test("unpack returns unregistered error subclasses as their built-in class, named as before", () => {
  class Declined extends RangeError {
    override name = "Declined";
    readonly limit = 3;
  }
  class Silent extends Error {}
  Silent.prototype.name = "Silent";
  const back = trip(new Declined("no"));
  assertStrictEquals(Object.getPrototypeOf(back), RangeError.prototype);
  assertEquals([back.name, back.limit, String(back)], ["Declined", 3, "Declined: no"]);
  assertEquals([trip(new Silent("x")).name, Object.keys(trip(new Silent("x")))], ["Silent", []]);
});

Deno.test("unpack returns errors that are their own cause", () => {
  const error = new Error("loop");
  error.cause = [error];
  const back = trip(error);
  assertStrictEquals((back.cause as unknown[])[0], back);
});

Deno.test("unpack returns DOMExceptions with name, code and stack", () => {
  const exception = new DOMException("stop", "AbortError");
  const back = trip(exception);
  assertInstanceOf(back, DOMException);
  assertEquals([back.name, back.message, back.code, back.stack], ["AbortError", "stop", 20, exception.stack]);
});

// --- Buffers ---

const viewClasses = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float16Array,
  Float32Array,
  Float64Array,
] as const;

Deno.test("unpack returns every typed array, small and large, copied and shared", () => {
  for (const share of [false, true]) {
    for (const length of [0, 1, 3, 1000]) {
      for (const View of viewClasses) {
        const view = new View(Array.from({ length }, (_, i) => i % 100));
        const back = unpack(placed(view), { share }) as typeof view;
        assertStrictEquals(Object.getPrototypeOf(back), View.prototype);
        assertEquals([...back], [...view]);
      }
      for (const View of [BigInt64Array, BigUint64Array]) {
        const view = new View(Array.from({ length }, (_, i) => BigInt(i)));
        assertEquals([...unpack(placed(view), { share }) as BigInt64Array], [...view]);
      }
      const data = new DataView(new ArrayBuffer(length + 8), 1, length + 2);
      data.setInt16(0, -2);
      const back = unpack(placed(data), { share }) as DataView;
      assertEquals([back.byteLength, back.getInt16(0)], [length + 2, -2]);
    }
  }
});

Deno.test("unpack returns ArrayBuffers, shared ones as copies, resizable ones resizable", () => {
  for (const length of [5, 5000]) {
    const bytes = Uint8Array.from({ length }, (_, i) => i);
    assertEquals(new Uint8Array(trip(bytes.buffer)), bytes);
    const shared = new SharedArrayBuffer(length);
    new Uint8Array(shared).set(bytes);
    const sharedBack = trip(shared);
    assertInstanceOf(sharedBack, SharedArrayBuffer);
    assertEquals([...new Uint8Array(sharedBack)], [...bytes]);
    const resizable = new ArrayBuffer(length, { maxByteLength: length * 2 });
    new Uint8Array(resizable).set(bytes);
    const resizableBack = trip(resizable);
    assertEquals([resizableBack.maxByteLength, new Uint8Array(resizableBack)], [length * 2, bytes]);
    const growableBack = trip(new SharedArrayBuffer(length, { maxByteLength: length + 1 }));
    assertEquals([growableBack.byteLength, growableBack.maxByteLength], [length, length + 1]);
  }
});

type ViewClass = new (buffer: ArrayBuffer, byteOffset: number, length?: number) => ArrayBufferView;

Deno.test("unpack returns views that follow their resizable buffer as such", () => {
  for (const [length, max] of [[8, 16], [16, 16], [12, 13]] as const) {
    for (const View of [Uint8Array, Uint16Array, DataView] as readonly ViewClass[]) {
      const buffer = new ArrayBuffer(length, { maxByteLength: max });
      const [follows, fixed, part] = trip([new View(buffer, 2), new View(buffer, 2, 2), new View(buffer, 0)]);
      const target = follows!.buffer as ArrayBuffer;
      target.resize(6);
      assertEquals([follows!.byteLength, fixed!.byteLength, part!.byteLength], [
        4,
        View === Uint16Array ? 4 : 2,
        6,
      ]);
    }
  }
});

Deno.test("unpack keeps views of one buffer on one buffer", () => {
  for (const length of [16, 4096]) {
    const buffer = new ArrayBuffer(length);
    for (const share of [false, true]) {
      const [bytes, words] = unpack(
        placed([new Uint8Array(buffer, 8), new Float64Array(buffer, 0, 2)]),
        { share },
      ) as [Uint8Array, Float64Array];
      words[1] = 1;
      assertStrictEquals(bytes[7], 0x3f);
      const [whole, view] = unpack(placed([buffer, new Uint8Array(buffer, 4)]), { share }) as [
        ArrayBuffer,
        Uint8Array,
      ];
      assertStrictEquals(view.buffer, whole);
      assertStrictEquals(view.byteOffset, 4);
      assertStrictEquals(whole.byteLength, length);
    }
  }
});

Deno.test("pack ships only the part of a buffer that views cover", () => {
  const large = new Uint8Array(1_000_000).map((_, i) => i);
  const packet = pack([large.subarray(1000, 1300), large.subarray(1200, 1400)]);
  assert(packet.size < 1000);
  const [first, second] = unpack(packet.toBytes()) as Uint8Array[];
  assertEquals([...first!], [...large.subarray(1000, 1300)]);
  assertEquals([...second!], [...large.subarray(1200, 1400)]);
  assertStrictEquals(first!.buffer, second!.buffer);
  // The part starts where every view of it stays aligned.
  const [odd, words] = trip([large.subarray(4003, 4500), new Float64Array(large.buffer, 4008, 40)]);
  assertEquals([...odd as Uint8Array], [...large.subarray(4003, 4500)]);
  assertEquals((words as Float64Array).length, 40);
  assert(pack([large.subarray(5, 10), large.buffer]).size > 1_000_000);
  assertEquals(trip([large.subarray(7, 7), large.subarray(1, 3)]).map((view) => [...view]), [[], [1, 2]]);
});

Deno.test("pack takes a Node Buffer for the Uint8Array it is", () => {
  const back = trip({ b: Buffer.from("text") });
  assertStrictEquals(Object.getPrototypeOf(back.b), Uint8Array.prototype);
  assertEquals([...back.b], [0x74, 0x65, 0x78, 0x74]);
});

Deno.test("unpack reads from a Node Buffer without sharing its memory", () => {
  const value = new Uint8Array(1000).fill(1);
  const bytes = Buffer.from(pack([value, new Uint8Array(3)]).toBytes());
  const [large, small] = unpack(bytes) as Uint8Array[];
  bytes.fill(0xff);
  assertEquals([large![999], small![2]], [1, 0]);
});

Deno.test("unpack with share makes views of the packet and says so once", () => {
  const place = placed([new Float64Array(1000).fill(2), new Uint8Array(300), "text", new Uint8Array(3)]);
  let told = 0;
  const [floats, bytes, , small] = unpack(place, { share: true, onShared: () => told++ }) as [
    Float64Array,
    Uint8Array,
    string,
    Uint8Array,
  ];
  assertStrictEquals(told, 1);
  assertStrictEquals(floats.buffer, place.buffer);
  assertStrictEquals(bytes.buffer, place.buffer);
  assertStrictEquals(floats.byteOffset % BUFFER_ALIGNMENT_BYTES, 0);
  assertStrictEquals(bytes.byteOffset % BUFFER_ALIGNMENT_BYTES, 0);
  assert(small.buffer !== place.buffer);
  unpack(placed([1, new Uint8Array(3), new ArrayBuffer(1000)]), { share: true, onShared: () => told++ });
  unpack(place, { share: false, onShared: () => told++ });
  assertStrictEquals(told, 1);
});

Deno.test("unpack with a share function makes whole ArrayBuffers of the packet's memory", () => {
  const buffer = new Uint8Array(1000).fill(3).buffer;
  const place = placed([buffer, new Uint8Array(buffer, 8, 500)]);
  const asked: [number, number][] = [];
  const alias = new ArrayBuffer(1000);
  const [whole, view] = unpack(place, {
    share: (offset, byteLength) => {
      asked.push([offset, byteLength]);
      return alias;
    },
  }) as [ArrayBuffer, Uint8Array];
  assertStrictEquals(whole, alias);
  assertEquals([view.buffer, view.byteOffset, view.length], [alias, 8, 500]);
  assertEquals(asked.map(([offset, length]) => [offset % BUFFER_ALIGNMENT_BYTES, length]), [[0, 1000]]);
  assertStrictEquals(place[asked[0]![0]], 3);
});

Deno.test("unpack with share copies what does not lie aligned in memory", () => {
  const packet = pack(new Float64Array(100).fill(1.5));
  const skewed = new Uint8Array(packet.size + 1).subarray(1);
  packet.writeInto(skewed);
  const back = unpack(skewed, { share: true }) as Float64Array;
  assert(back.buffer !== skewed.buffer);
  assertStrictEquals(back[99], 1.5);
});

Deno.test("unpack reads packets from shared memory", () => {
  const packet = pack({
    text: "long enough for the slow path ".repeat(10),
    é: "ü",
    data: new Uint8Array(400),
  });
  const shared = new Uint8Array(new SharedArrayBuffer(packet.size));
  packet.writeInto(shared);
  const back = unpack(shared, { share: true }) as { text: string; data: Uint8Array };
  assertStrictEquals(back.text.length, 300);
  assertStrictEquals(back.data.buffer, shared.buffer);
});

// --- Writing ---

Deno.test("Packet.writeInto copies large buffers only then, by the given function", () => {
  const source = new Uint8Array(100_000);
  const packet = pack({ source });
  source.fill(9);
  const copied: number[] = [];
  const target = new Uint8Array(packet.size + 10).fill(0xee);
  packet.writeInto(target, (dst, src) => {
    copied.push(src.length);
    assertStrictEquals(dst.buffer, target.buffer);
    dst.set(src);
  });
  assertEquals(copied, [100_000]);
  assertEquals((unpack(target.subarray(0, packet.size)) as { source: Uint8Array }).source[99_999], 9);
  assertEquals([...target.subarray(packet.size)], new Array(10).fill(0xee));
});

Deno.test("Packet.writeInto leaves none of the target's old bytes in the gaps", () => {
  const packet = pack([new Uint8Array(300), new Uint8Array(257), "x"]);
  const target = new Uint8Array(packet.size).fill(0xee);
  packet.writeInto(target);
  assert(!target.includes(0xee));
  assertEquals(target, packet.toBytes());
});

Deno.test("Packet.writeInto refuses short targets and buffers gone since", () => {
  const array = new Uint8Array(1000);
  const packet = pack([array]);
  assertThrows(() => packet.writeInto(new Uint8Array(packet.size - 1)), RangeError, `${packet.size}`);
  structuredClone(array, { transfer: [array.buffer] });
  assertThrows(() => packet.toBytes(), SerializationError, "detached");
});

Deno.test("Packet.toBytes stays as it is while other values are packed", () => {
  const packets = Array.from({ length: 5000 }, (_, i) => pack({ i, text: "x".repeat(i % 100) }));
  const all = packets.map((packet) => packet.toBytes());
  all.forEach((bytes, i) => assertEquals(unpack(bytes), { i, text: "x".repeat(i % 100) }));
});

Deno.test("pack may be called while another value is being packed", () => {
  const value = {
    before: 1,
    get inner() {
      return pack([2, "three"]).toBytes();
    },
    after: 4,
  };
  const back = trip(value);
  assertEquals([back.before, unpack(back.inner), back.after], [1, [2, "three"], 4]);
  assertThrows(() =>
    pack({
      get x() {
        return pack(() => 1);
      },
    }), SerializationError);
  assertEquals(trip([1]), [1]);
});

// --- Refusals ---

Deno.test("pack refuses what cannot travel and names the path", () => {
  class Adam {}
  const model = { optimizer: new Adam() };
  assertEquals(refused([{ model }], "args").path, "args[0].model.optimizer");
  assert(refused([{ model }], "args").message.includes("registerClass(Adam"));
  assertEquals(refused(() => 1).path, "value");
  assertEquals(refused(new Map([["k", [1, 2, 3, () => 1]]])).path, `value.get("k")[3]`);
  assertEquals(refused(new Map([[1, Symbol("s")]]), "return value").path, "return value.get(1)");
  assertEquals(refused(new Map([[{}, { f: alert }]])).path, "value.get(<key 0>).f");
  assertEquals(refused(new Map([[{ f: alert }, 1]])).path, "value.keys()[0].f");
  assertEquals(refused(new Set([1, [alert]])).path, "value.values()[1][0]");
  assertEquals(refused({ "two words": { "__x": [alert] } }).path, `value["two words"].__x[0]`);
  assertEquals(refused(new Error("x", { cause: { f: alert } })).path, "value.cause.f");
  assertEquals(refused(new AggregateError([1, alert])).path, "value.errors[1]");
  assertEquals(refused(Object.assign([1, , 2], { f: alert })).path, "value.f");
  assertEquals(refused([1, , alert]).path, "value[2]");
  assertEquals(refused({ a: { b: 1 }, c: [[], {}, Symbol.iterator] }).path, "value.c[2]");
});

Deno.test("pack refuses what depends on its isolate and says what to do", () => {
  function* generator() {}
  const cases: [unknown, string][] = [
    [Promise.resolve(1), "await"],
    [new WeakMap(), "garbage collector"],
    [new WeakRef({}), "garbage collector"],
    [generator(), "collect"],
    [Object(Symbol("s")), "Symbol"],
    [new Proxy(function target() {}, {}), "function"],
    [new URL("http://x"), "URL"],
    [new Blob(["x"]), "Blob"],
    [new (class extends Map {})(), "class"],
    [new (class Stack extends Array {})(), "registerClass(Stack"],
    [new (class Bytes extends Uint8Array {})(3), "registerClass(Bytes"],
    [Object.create({ inherited: 1 }), "class"],
    [Object.create(Map.prototype), "threw TypeError"],
  ];
  for (const [value, hint] of cases) assert(refused(value).message.includes(hint), refused(value).message);
});

Deno.test("pack refuses a getter that throws, with its error as the cause", () => {
  const cause = new Error("boom");
  const value = {
    a: [{
      get b() {
        throw cause;
      },
    }],
  };
  const failure = assertThrows(() => pack(value), SerializationError, "boom") as SerializationError;
  assertEquals([failure.path, failure.cause], ["value.a[0].b", cause]);
});

Deno.test("pack refuses detached buffers", () => {
  const view = new Uint8Array(8);
  structuredClone(view, { transfer: [view.buffer] });
  assertEquals(refused({ view }).path, "value.view");
});

Deno.test("pack refuses values nested too deeply, also when little stack is left", () => {
  const nest = (levels: number): unknown => {
    let value: unknown = "leaf";
    for (let i = 0; i < levels; i++) value = i % 2 === 0 ? [value] : { a: value };
    return value;
  };
  assertEquals(trip(nest(VALUE_DEPTH_MAX)), nest(VALUE_DEPTH_MAX));
  for (const levels of [VALUE_DEPTH_MAX + 1, 100_000]) {
    const { path, message } = refused(nest(levels), "args");
    assert(path.startsWith("args.a[0].a") || path.startsWith("args[0].a[0]"), path);
    assert(path.endsWith("…") && path.length < 200, path);
    assert(message.includes("nested"));
  }
  const bytes = pack(nest(VALUE_DEPTH_MAX)).toBytes();
  // Runs the stack out, and tries again in every frame on the way back until there is room for a typed error.
  const typed = (attempt: () => unknown, message: RegExp): boolean => {
    try {
      if (typed(attempt, message)) return true;
    } catch {
      // Too deep even for the call.
    }
    try {
      attempt();
    } catch (error) {
      return error instanceof SerializationError && message.test(error.message);
    }
    return false;
  };
  assert(typed(() => pack(nest(VALUE_DEPTH_MAX)), /nested too deeply for the stack/));
  assert(typed(() => unpack(bytes), /call stack/));
  assertEquals(trip([1]), [1]);
});

Deno.test("pack refuses more resizable memory than a packet may reserve", () => {
  const buffers = Array.from({ length: 300 }, () => new ArrayBuffer(1, { maxByteLength: 2 }));
  assert(refused(buffers).message.includes("300 resizable"));
});

// --- Registered classes and handles ---

class Point {
  #x: number;
  constructor(x: number, readonly extra: unknown = undefined) {
    this.#x = x;
  }
  get x(): number {
    return this.#x;
  }
}

registerClass(Point, {
  name: "tests/Point",
  serialize: (point) => ({ x: point.x, extra: point.extra }),
  deserialize: ({ x, extra }) => new Point(x, extra),
});

Deno.test("registerClass lets instances travel and keeps their identity", () => {
  const shared = { s: 1 };
  const point = new Point(4, shared);
  const [first, second, inner] = trip([point, point, shared] as const);
  assertInstanceOf(first, Point);
  assertStrictEquals(first.x, 4);
  assertStrictEquals(first, second);
  assertStrictEquals(first.extra, inner);
});

Deno.test("registerClass refuses nameless classes and names that are taken", () => {
  const codec = { serialize: () => 0, deserialize: () => new (class {})() };
  assertThrows(() => registerClass(class {}, codec), TypeError, "anonymous");
  class Other {}
  assertThrows(() => registerClass(Other, { ...codec, name: "tests/Point" }), TypeError, "tests/Point");
});

Deno.test("pack names the path inside the state of a registered class", () => {
  assertEquals(refused([new Point(1, { f: alert })]).path, "value[0].serialize().extra.f");
  class Knot {}
  registerClass(Knot, { serialize: (knot) => [knot], deserialize: () => new Knot() });
  assert(refused(new Knot()).message.includes("part of its own state"));
});

Deno.test("unpack refuses a registered instance that is part of its own state", () => {
  const bytes = [...pack(new Point(1)).toBytes()];
  // The state becomes a reference to object 0, the instance itself.
  const state = bytes.indexOf(0x82);
  const hostile = Uint8Array.from([1, 1, ...bytes.slice(2, state), 0x81, 0x01, 0x00]);
  assertThrows(() => unpack(hostile), SerializationError, "part of its own state");
});

Deno.test("unpack refuses a class that is not registered, by name", () => {
  class Rare {}
  registerClass(Rare, { name: "tests/Rare1", serialize: () => 1, deserialize: () => new Rare() });
  const bytes = pack(new Rare()).toBytes().slice();
  bytes[bytes.indexOf("1".charCodeAt(0))] = "2".charCodeAt(0);
  assertThrows(() => unpack(bytes), SerializationError, `"tests/Rare2" is not registered`);
});

class Handle {
  constructor(readonly data: Uint8Array | string | number) {}
}

const carrying = {
  pack: (value: object) =>
    value instanceof Handle
      ? { tag: 5, data: value.data }
      : typeof value === "function"
      ? { tag: 6, data: value.name }
      : undefined,
};
const bringing = {
  unpack: (tag: number, data: Uint8Array | string | number) =>
    tag === 5 ? new Handle(data) : { function: data },
};

Deno.test("pack lets the extension carry objects and functions, each once", () => {
  const handle = new Handle("id");
  function named() {}
  const value = {
    list: [handle, handle, new Handle(7), new Handle(new Uint8Array([1, 2]))],
    named,
    date: new Date(1),
  };
  const packet = pack(value, { extension: carrying });
  assertStrictEquals(packet.handles, 4);
  const back = unpack(packet.toBytes(), { extension: bringing }) as {
    list: Handle[];
    named: unknown;
    date: Date;
  };
  assertEquals(back.list.map((item) => item.data), ["id", "id", 7, new Uint8Array([1, 2])]);
  assertStrictEquals(back.list[0], back.list[1]);
  assertEquals([back.named, back.date.getTime()], [{ function: "named" }, 1]);
  assertStrictEquals(pack([1, {}, []], { extension: carrying }).handles, 0);
  assertThrows(() => unpack(packet.toBytes()), SerializationError, "handle");
});

// --- The bytes ---

const loop: unknown[] = [];
loop.push(loop);

const examples: [string, unknown, string][] = [
  ["a cycle", loop, "01 01 91 81 01 00"],
  ["an array", [1], "01 00 91 01"],
  ["an object", { x: 1, y: [1, 2] }, "01 00 82 a1 78 01 a1 79 92 01 02"],
  ["undefined", undefined, "01 00 81 00 c0"],
  ["a bigint", -1n, "01 00 d3 ff ff ff ff ff ff ff ff"],
  ["a large bigint", -(2n ** 64n), "01 00 81 03 c4 0a 01 01 00 00 00 00 00 00 00 00"],
  ["a Map", new Map([[1, "a"]]), "01 00 81 06 92 01 a1 61"],
  ["a date", new Date(5), "01 00 81 04 05"],
  ["a hole", [, 1], "01 00 81 08 93 02 01 01"],
  ["a lone surrogate", "\ud800", "01 00 81 02 c4 02 d8 00"],
  [
    "bytes",
    new Uint8Array([7, 8]),
    "01 02 00 00 00 00 00 07 00 00 00 08 81 0b 94 01 00 00 02 91 93 00 00 c4 02 07 08",
  ],
];

Deno.test("pack writes the documented bytes", async () => {
  const page = await Deno.readTextFile(new URL("../docs/value_format.md", import.meta.url));
  const documented = page.replaceAll("`", "");
  for (const [what, value, bytes] of examples) {
    assertEquals(hex(pack(value).toBytes()), bytes, what);
    assert(documented.includes(bytes), `docs/value_format.md lacks ${what}`);
  }
});

Deno.test("pack puts buffers out of band from the threshold on, at multiples of the alignment", () => {
  const below = pack(new Uint8Array(OUT_OF_BAND_BYTES_MIN - 1)).toBytes();
  assert(below.length < OUT_OF_BAND_BYTES_MIN + 30);
  const bytes = pack([1, 2].map((byte) => new Uint8Array(OUT_OF_BAND_BYTES_MIN + 1).fill(byte))).toBytes();
  assertStrictEquals(bytes.length, 64 + 320 + OUT_OF_BAND_BYTES_MIN + 1);
  assertEquals([bytes[63], bytes[64], bytes[64 + 256], bytes[64 + 257], bytes[64 + 320]], [0, 1, 1, 0, 2]);
});

Deno.test("pack writes a head that @std/msgpack reads", () => {
  const plain = { a: [1, -5, 1.5, 70_000, -70_000, "é", null, true, { b: 9n }], long: "x".repeat(300) };
  assertEquals(decode(pack(plain).toBytes().subarray(2)), plain);
  const bytes = pack([new Map([["k", new Date(3)]]), new Uint8Array(2), new Float64Array(500)]).toBytes();
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const valueEnd = 12 + view.getUint32(4);
  assertEquals(decode(bytes.subarray(12, valueEnd)), [
    { 6: ["k", { 4: 3 }] },
    { 11: [1, 0, 0, 2] },
    { 11: [9, 1, 0, 500] },
  ]);
  const table = decode(bytes.subarray(valueEnd, valueEnd + view.getUint32(8)));
  assertEquals(table, [[0, 0, new Uint8Array(2)], [0, 0, 4000]]);
});

// --- Hostile bytes ---

Deno.test("unpack refuses bytes that claim more than they hold, without allocating it", () => {
  const hostile = [
    "01 00 dd ff ff ff ff", // an array of 4 billion
    "01 00 df ff ff ff ff", // an object of 4 billion
    "01 00 db ff ff ff ff 61", // a string of 4 GB
    "01 00 81 06 dd ff ff ff fe", // a Map of 2 billion
    "01 00 81 07 dd ff ff ff ff", // a Set of 4 billion
    "01 00 81 03 c6 ff ff ff ff 00", // a bigint of 4 GB
    "01 02 00 00 00 00 00 03 00 00 00 08 81 0a 00 91 93 01 00 ce ff ff ff ff", // a buffer of 4 GB
    "01 02 00 00 00 00 00 03 00 00 00 0b 81 0a 00 91 94 03 00 c4 01 00 cb 42 b0 00 00 00 00 00 00", // 16 TB reserved
  ];
  for (const bytes of hostile) {
    assertThrows(() => unpack(bytesOf(bytes)), SerializationError, "Cannot unpack", bytes);
  }
});

Deno.test("unpack does not allocate for the length of a sparse array", () => {
  const one = bytesOf("81 08 91 ce 01 ff ff ff");
  const count = 10_000;
  const bytes = new Uint8Array(5 + count * one.length);
  bytes.set([1, 0, 0xdc, count >> 8, count & 0xff]);
  for (let i = 0; i < count; i++) bytes.set(one, 5 + i * one.length);
  const before = Deno.memoryUsage().heapUsed;
  const back = unpack(bytes) as unknown[][];
  assertStrictEquals(back[9_999]!.length, 0x1ffffff);
  assert(Deno.memoryUsage().heapUsed - before < 64 * 1024 ** 2);
});

Deno.test("unpack refuses what is inconsistent", () => {
  const inconsistent = [
    "", // nothing
    "01", // no flags
    "01 00", // no value
    "02 00 91 01", // another version
    "01 04 91 01", // an unknown flag
    "01 02 00 00", // half a long header
    "01 02 00 01 00 00 00 01 00 00 00 01 c0 90", // reserved bytes set
    "01 00 91 01 00", // bytes behind the value
    "01 00 c1", // a byte that starts nothing
    "01 00 c4 01 00", // a binary that is no one's
    "01 00 81 00 01", // undefined with content
    "01 00 81 01 00", // a reference, the flag missing
    "01 01 91 81 01 01", // a reference to an object yet to come
    "01 00 81 7f c0", // an unknown tag
    "01 00 81 c0 01", // a property's name that is not a string
    "01 00 a1 ff", // not UTF-8
    "01 00 81 02 c4 01 00", // half a code unit
    "01 00 81 05 92 a1 28 a0", // not a regular expression
    "01 00 81 06 91 01", // a Map's key without value
    "01 00 81 08 93 01 05 01", // an element beyond the array's length
    "01 00 81 08 93 00 a6 6c 65 6e 67 74 68 01", // an array's length as a property
    "01 00 81 09 90", // a boxed array
    "01 00 81 0a 00", // a buffer, the table missing
    "01 00 81 0c 92 08 00", // an unknown error class
    "01 02 00 00 00 00 00 07 00 00 00 08 81 0b 94 01 00 00 03 91 93 00 00 c4 02 07 08", // a view too long
    "01 02 00 00 00 00 00 07 00 00 00 08 81 0b 94 0d 00 00 02 91 93 00 00 c4 02 07 08", // a view of no kind
    "01 02 00 00 00 00 00 07 00 00 00 08 81 0b 94 01 00 00 c0 91 93 00 00 c4 02 07 08", // fixed, yet following
    "01 02 00 00 00 00 00 03 00 00 00 08 81 0a 00 91 93 00 00 c4 02 07 08", // only viewed, yet a value
  ];
  for (const bytes of inconsistent) {
    const input = bytes === "" ? new Uint8Array() : bytesOf(bytes);
    assertThrows(() => unpack(input), SerializationError, "Cannot unpack", bytes);
  }
});

Deno.test("unpack with share shows nothing outside of the packet's buffers", () => {
  const place = placed([new Uint8Array(300), new Uint8Array(400)]);
  const { buffer, byteOffset, length } = place;
  const around = (from: number, to: number) => new Uint8Array(buffer, byteOffset + from, to - from);
  assertEquals((unpack(place, { share: true }) as Uint8Array[]).length, 2);
  // Not all of the last buffer; more than the last buffer (the segment ends there, so from a larger one).
  assertThrows(
    () => unpack(around(0, length - 1), { share: true }),
    SerializationError,
    "outside of the packet",
  );
  const longer = new Uint8Array(length + 64);
  longer.set(place);
  assertThrows(() => unpack(longer, { share: true }), SerializationError, "left behind");
  // A view of more than its own buffer: 300 becomes 301, 44 bytes before the next buffer starts.
  const wide = longer.slice(0, length);
  const at = wide.findIndex((byte, i) => byte === 0xcd && wide[i + 1] === 0x01 && wide[i + 2] === 0x2c);
  wide[at + 2] = 0x2d;
  assertThrows(() => unpack(wide, { share: true }), SerializationError, "outside of its buffer");
});

Deno.test("unpack refuses tags nested where only a number may be, without going down", () => {
  for (const open of ["81 01", "81 04", "81 0a", "81 0b 94", "81 0f 92", "81 05 92"]) {
    const bytes = bytesOf(["01 00", ...new Array(100_000).fill(open)].join(" "));
    const failure = assertThrows(
      () => unpack(bytes, { extension: bringing }),
      SerializationError,
      "Cannot unpack",
    ) as SerializationError;
    assert(failure.message.includes("expected"), failure.message);
  }
});

Deno.test("unpack refuses to reserve more for resizable buffers than a packet may", () => {
  // A table of resizable buffers, each of one byte, that reserve 2 ** 32 bytes or 1.
  const table = (count: number, reserve: string) => {
    const entries = `dc ${(count >> 8).toString(16)} ${(count & 0xff).toString(16)}` +
      ` 94 03 00 c4 01 00 ${reserve}`.repeat(count);
    const length = entries.split(" ").length;
    return bytesOf(
      `01 02 00 00 00 00 00 01 00 00 ${(length >> 8).toString(16)} ${
        (length & 0xff).toString(16)
      } c0 ${entries}`,
    );
  };
  assertStrictEquals(unpack(table(256, "01")), null);
  assertThrows(() => unpack(table(257, "01")), SerializationError, "buffer 256 of 1 bytes cannot reserve 1");
  assertStrictEquals(unpack(table(16, "cb 41 f0 00 00 00 00 00 00")), null);
  assertThrows(
    () => unpack(table(17, "cb 41 f0 00 00 00 00 00 00")),
    SerializationError,
    "buffer 16 of 1 bytes",
  );
});

Deno.test("unpack refuses deep nesting of every container", () => {
  for (
    const open of ["91", "81 a0", "81 06 92", "81 07 91", "81 08 93 01 00", "81 0c 94 00 00 a0", "81 09"]
  ) {
    const level = bytesOf(open);
    const bytes = new Uint8Array(2 + 100_000 * level.length);
    bytes[0] = 1;
    for (let i = 0; i < 100_000; i++) bytes.set(level, 2 + i * level.length);
    assertThrows(() => unpack(bytes), SerializationError, "nested", open);
  }
});
