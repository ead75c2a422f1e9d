/**
 * Packets held against other implementations: `structuredClone` for what a value means, @std/msgpack for the bytes,
 * and nothing at all for hostile ones. A failing run prints its seed; pass it as SERIALIZE_SEED to repeat it.
 *
 * @module
 */

// @ts-types="../core/std_msgpack.d.ts"
import { decode } from "@std/msgpack";
import fc from "fast-check";
import { SerializationError } from "../core/errors.ts";
import { pack, unpack } from "../store/serialize.ts";

const seedText = Deno.env.get("SERIALIZE_SEED");
const parameters = { numRuns: 1000, ...(seedText === undefined ? {} : { seed: Number(seedText) }) };

// --- Arbitrary graphs ---

const text = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 8 }).map((units) =>
    String.fromCharCode(...units)
  ),
  fc.constantFrom("__proto__", "constructor", "length", "0", "then", "toString"),
);

const primitive: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(undefined, null, true, false, NaN, -0, Infinity),
  fc.double(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
  text,
);

const viewClasses = [
  Int8Array,
  Uint8Array,
  Uint16Array,
  Float16Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
];
const errorClasses = [Error, TypeError, RangeError, SyntaxError];

type Shape =
  | { kind: "array" | "plain" | "map" | "set" | "holes" }
  | { kind: "leaf"; make: () => object }
  | { kind: "error"; which: number; message: string }
  | { kind: "view"; which: number; from: number; length: number };

/** One object to be: its shape, and what it holds (a primitive, or the number of another object). */
interface Blueprint {
  readonly shape: Shape;
  readonly contents: readonly {
    readonly key: string;
    readonly value: unknown;
    readonly object: number | undefined;
  }[];
}

const buffer = fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.constantFrom(1, 20)).map(([bytes, times]) => {
  const all = new Uint8Array(bytes.length * times);
  for (let i = 0; i < times; i++) all.set(bytes, i * bytes.length);
  return all.buffer;
});

const shape: fc.Arbitrary<Shape> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom("array", "plain", "map", "set", "holes").map((kind) => ({ kind } as Shape)),
  },
  {
    weight: 3,
    arbitrary: fc.oneof(
      fc.date({ noInvalidDate: false }).map((date) => () => new Date(date)),
      fc.constantFrom(/a/, /[/]\n"/gimsuy, /\p{L}/v).map((pattern) => () => new RegExp(pattern)),
      fc.oneof(fc.boolean(), fc.double(), fc.string(), fc.bigInt()).map((value) => () => Object(value)),
      buffer.map((value) => () => value.slice()),
      buffer.map((value) => () => {
        const resizable = new ArrayBuffer(value.byteLength, { maxByteLength: 2000 });
        new Uint8Array(resizable).set(new Uint8Array(value));
        return resizable;
      }),
    ).map((make) => ({ kind: "leaf", make }) as Shape),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("error" as const), which: fc.nat(3), message: fc.string() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("view" as const),
      which: fc.nat(viewClasses.length),
      from: fc.nat(100),
      length: fc.nat(100),
    }),
  },
);

const blueprint: fc.Arbitrary<Blueprint> = fc.record({
  shape,
  contents: fc.array(
    fc.record({ key: text, value: primitive, object: fc.option(fc.nat(), { nil: undefined }) }),
    { maxLength: 6 },
  ),
});

/** Builds a graph with whatever sharing and cycles the blueprints say; the first object holds all. */
function build(blueprints: readonly Blueprint[]): unknown {
  const buffers: ArrayBuffer[] = [];
  const objects = blueprints.map(({ shape }): object => {
    switch (shape.kind) {
      case "array":
      case "holes":
        return [];
      case "plain":
        return {};
      case "map":
        return new Map();
      case "set":
        return new Set();
      case "leaf": {
        const leaf = shape.make();
        if (leaf instanceof ArrayBuffer) buffers.push(leaf);
        return leaf;
      }
      case "error":
        return new errorClasses[shape.which]!(shape.message);
      case "view": {
        // Views come to lie on buffers of the graph, and on one that only views reach.
        if (buffers.length === 0) buffers.push(new Uint8Array(1000).map((_, i) => i * 7).buffer);
        const on = buffers[shape.from % buffers.length]!;
        const View = (viewClasses[shape.which] ?? DataView) as unknown as {
          new (buffer: ArrayBuffer, from: number, length: number): object;
          BYTES_PER_ELEMENT?: number;
        };
        const bytes = View.BYTES_PER_ELEMENT ?? 1;
        const from = Math.floor(Math.min(shape.from, on.byteLength) / bytes) * bytes;
        return new View(on, from, Math.min(shape.length, Math.floor((on.byteLength - from) / bytes)));
      }
    }
  });
  blueprints.forEach(({ shape, contents }, i) => {
    const target = objects[i]!;
    const items = contents.map(({ key, value, object }) => ({
      key,
      value: object === undefined ? value : objects[object % objects.length],
    }));
    switch (shape.kind) {
      case "array":
        for (const { value } of items) (target as unknown[]).push(value);
        break;
      case "holes":
        items.forEach(({ value, key }, at) => {
          if (at % 3 === 2 && key !== "length") Reflect.defineProperty(target, key, ownProperty(value));
          else (target as unknown[])[at * 2] = value;
        });
        break;
      case "plain":
        for (const { key, value } of items) Reflect.defineProperty(target, key, ownProperty(value));
        break;
      case "map":
        for (const { key, value } of items) (target as Map<unknown, unknown>).set(value, key);
        break;
      case "set":
        for (const { value } of items) (target as Set<unknown>).add(value);
        break;
      case "error":
        if (items.length > 0) {
          Reflect.defineProperty(target, "cause", { ...ownProperty(items[0]!.value), enumerable: false });
        }
        break;
      case "leaf":
      case "view":
    }
  });
  return [objects[0], ...objects];
}

function ownProperty(value: unknown): PropertyDescriptor {
  return { value, enumerable: true, writable: true, configurable: true };
}

const graph = fc.array(blueprint, { minLength: 1, maxLength: 12 }).map(build);

// --- Comparing graphs ---

/** Throws unless two values are equal throughout, with the same sharing and cycles. */
class SameGraph {
  readonly #partner = new Map<object, object>();
  readonly #partnerBack = new Map<object, object>();
  readonly #buffers = new Map<ArrayBufferLike, ArrayBufferLike>();
  /** How far views of a buffer have moved together. */
  readonly #shift = new Map<object, number>();

  check(a: unknown, b: unknown, path: string): void {
    if (typeof a !== "object" || a === null || typeof b !== "object" || b === null) {
      this.#same(a, b, path);
      return;
    }
    if (this.#partner.has(a) || this.#partnerBack.has(b)) {
      if (this.#partner.get(a) !== b || this.#partnerBack.get(b) !== a) {
        throw new Error(`${path}: not the same object`);
      }
      return;
    }
    this.#partner.set(a, b);
    this.#partnerBack.set(b, a);
    this.#same(Object.getPrototypeOf(a), Object.getPrototypeOf(b), `${path} (prototype)`);
    if (a instanceof Map && b instanceof Map) {
      this.#list([...a].flat(), [...b].flat(), `${path} (entries)`);
    } else if (a instanceof Set && b instanceof Set) {
      this.#list([...a], [...b], `${path} (elements)`);
    } else if (
      a instanceof Date || a instanceof Number || a instanceof String || a instanceof Boolean ||
      a instanceof BigInt
    ) {
      this.#same(a.valueOf(), b.valueOf(), path);
    } else if (a instanceof RegExp) {
      this.#same(String(a), String(b), path);
    } else if (a instanceof ArrayBuffer && b instanceof ArrayBuffer) {
      this.#pairBuffers(a, b, path);
      this.#same(a.resizable ? a.maxByteLength : undefined, b.resizable ? b.maxByteLength : undefined, path);
      this.#bytes(new Uint8Array(a), new Uint8Array(b), path);
    } else if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) {
      this.#view(a, b, path);
    } else if (a instanceof Error && b instanceof Error) {
      for (const key of ["name", "message", "stack", "cause"] as const) {
        this.check(a[key], b[key], `${path}.${key}`);
      }
      this.#same("cause" in a, "cause" in b, `${path} has cause`);
    } else {
      if (Array.isArray(a)) this.#same(a.length, (b as unknown[]).length, `${path}.length`);
      this.#list(Object.keys(a), Object.keys(b), `${path} (keys)`);
      for (const key of Object.keys(a)) {
        const own = (object: object) => Object.getOwnPropertyDescriptor(object, key)?.value as unknown;
        this.check(own(a), own(b), `${path}.${key}`);
      }
    }
  }

  #same(a: unknown, b: unknown, path: string): void {
    if (!Object.is(a, b)) throw new Error(`${path}: ${String(a)} is not ${String(b)}`);
  }

  #list(a: readonly unknown[], b: readonly unknown[], path: string): void {
    this.#same(a.length, b.length, `${path}.length`);
    a.forEach((item, i) => this.check(item, b[i], `${path}[${i}]`));
  }

  #bytes(a: Uint8Array, b: Uint8Array, path: string): void {
    this.#same(a.length, b.length, `${path}.byteLength`);
    a.forEach((byte, i) => this.#same(byte, b[i], `${path}[${i}]`));
  }

  /** Views and whole buffers must agree on which buffer stands for which. */
  #pairBuffers(a: ArrayBufferLike, b: ArrayBufferLike, path: string): void {
    const known = this.#buffers.get(a);
    if (known === undefined) this.#buffers.set(a, b);
    else if (known !== b) throw new Error(`${path}.buffer: not the same buffer`);
  }

  #view(a: ArrayBufferView, b: ArrayBufferView, path: string): void {
    this.#bytes(
      new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
      new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
      path,
    );
    // Only the viewed part of a buffer travels, so its views may all have moved by one distance.
    const shift = a.byteOffset - b.byteOffset;
    const known = this.#shift.get(a.buffer);
    if (known === undefined) this.#shift.set(a.buffer, shift);
    else this.#same(shift, known, `${path}.byteOffset`);
    this.#pairBuffers(a.buffer, b.buffer, path);
  }
}

Deno.test("unpack of pack equals structuredClone, identities included", () => {
  fc.assert(
    fc.property(graph, (value) => {
      const expected: unknown = structuredClone(value);
      const bytes = pack(value).toBytes();
      new SameGraph().check(expected, unpack(bytes), "value");
    }),
    parameters,
  );
});

Deno.test("unpack of pack keeps sharing when its buffers are views of the packet", () => {
  fc.assert(
    fc.property(graph, (value) => {
      const packet = pack(value);
      const target = new Uint8Array(packet.size);
      packet.writeInto(target);
      const back = unpack(target, {
        share: (offset, byteLength) => target.slice(offset, offset + byteLength).buffer,
      });
      new SameGraph().check(structuredClone(value), back, "value");
    }),
    parameters,
  );
});

Deno.test("pack is deterministic, and packs what it unpacked to the same bytes", () => {
  fc.assert(
    fc.property(graph, (value) => {
      const bytes = pack(value).toBytes();
      new SameGraph().check(bytes, pack(value).toBytes(), "packet");
      // Once only the viewed parts of buffers are left, nothing changes any more.
      const second = pack(unpack(bytes)).toBytes();
      new SameGraph().check(second, pack(unpack(second)).toBytes(), "packet");
    }),
    parameters,
  );
});

// --- A reader of the documented format over @std/msgpack's tree ---

const tree: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    // TextDecoder as @std/msgpack uses it drops byte order marks.
    primitive.filter((value) => typeof value !== "string" || !value.startsWith("\ufeff")),
    fc.array(tie("value"), { maxLength: 20 }),
    fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => !/^(\d+|__proto__|\ufeff.*)$/.test(key)),
      tie("value"),
      { noNullPrototype: true },
    ),
    fc.array(fc.tuple(fc.string(), tie("value"))).map((entries) => new Map(entries)),
    fc.array(tie("value")).map((elements) => new Set(elements)),
    fc.date({ noInvalidDate: false }),
    fc.uint8Array({ maxLength: 400 }),
    fc.float64Array({ maxLength: 60 }),
  ),
})).value;

function readWithStd(packet: Uint8Array): unknown {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const long = (packet[1]! & 2) !== 0;
  const valueEnd = long ? 12 + view.getUint32(4) : packet.length;
  const tableEnd = long ? valueEnd + view.getUint32(8) : packet.length;
  let end = tableEnd;
  const table = long
    ? decode(packet.subarray(valueEnd, tableEnd)) as [number, number, number | Uint8Array][]
    : [];
  const buffers = table.map(([, start, content]) => {
    if (typeof content !== "number") return { start, bytes: content };
    const offset = Math.ceil(end / 64) * 64;
    end = offset + content;
    return { start, bytes: packet.subarray(offset, end) };
  });
  const read = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(read);
    if (node === null || typeof node !== "object") return node;
    const keys = Object.keys(node);
    const content = Object.values(node);
    if (keys.length !== 1 || !/^\d+$/.test(keys[0]!)) {
      return Object.fromEntries(keys.map((key, i) => [key, read(content[i])]));
    }
    const fields = content[0] as unknown[];
    switch (Number(keys[0])) {
      case 0:
        return undefined;
      case 2:
        return illFormed(content[0] as Uint8Array);
      case 3: {
        const [sign, ...digits] = content[0] as Uint8Array;
        const magnitude = digits.reduce((sum, digit) => sum * 256n + BigInt(digit), 0n);
        return sign === 0 ? magnitude : -magnitude;
      }
      case 4:
        return new Date(content[0] as number);
      case 6:
        return new Map(
          Array.from({ length: fields.length / 2 }, (_, i) => [read(fields[i * 2]), read(fields[i * 2 + 1])]),
        );
      case 7:
        return new Set(fields.map(read));
      case 11: {
        const [kind, index, from, length] = fields as [number, number, number, number];
        const { start, bytes } = buffers[index]!;
        const part = bytes.slice(from - start, from - start + length * (kind === 9 ? 8 : 1));
        return kind === 9 ? new Float64Array(part.buffer) : part;
      }
      default:
        throw new Error(`unexpected tag ${keys[0]}`);
    }
  };
  return read(decode(packet.subarray(long ? 12 : 2, valueEnd)));
}

function illFormed(units: Uint8Array): string {
  let text = "";
  for (let i = 0; i < units.length; i += 2) text += String.fromCharCode(units[i]! * 256 + units[i + 1]!);
  return text;
}

Deno.test("pack writes what a reader over @std/msgpack reads from the documented format", () => {
  fc.assert(
    fc.property(tree, (value) => {
      new SameGraph().check(value, readWithStd(pack(value).toBytes()), "value");
    }),
    parameters,
  );
});

// --- Hostile bytes ---

/** Unpacks bytes that may be anything. */
function survive(bytes: Uint8Array): void {
  for (const share of [false, true]) {
    try {
      unpack(bytes, { share });
    } catch (error) {
      if (!(error instanceof SerializationError)) throw error;
    }
  }
}

Deno.test("unpack of random bytes gives a value or a SerializationError", () => {
  const body = fc.uint8Array({ maxLength: 80 });
  fc.assert(fc.property(body, survive), parameters);
  fc.assert(
    fc.property(
      body,
      fc.integer({ min: 0, max: 3 }),
      (bytes, flags) => survive(Uint8Array.of(1, flags, ...bytes)),
    ),
    { ...parameters, numRuns: 10_000 },
  );
});

Deno.test("unpack of random tags gives a value or a SerializationError", () => {
  const piece = fc.oneof(
    fc.nat(15).map((tag) => [0x81, tag]),
    fc.nat(15).map((count) => [0x90 | count]),
    fc.nat(15).map((count) => [0x80 | count]),
    fc.nat(255).map((byte) => [byte]),
    fc.tuple(fc.constantFrom(0xcc, 0xcd, 0xce, 0xcb, 0xc4, 0xd9, 0xdc, 0xdd), fc.uint8Array({ maxLength: 8 }))
      .map(([first, rest]) => [first, ...rest]),
    fc.string({ maxLength: 5 }).map((text) => [0xa0 | text.length, ...new TextEncoder().encode(text)]),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.nat(1), (pieces, flags) => {
      survive(Uint8Array.from([1, flags, ...pieces.flat()]));
    }),
    { ...parameters, numRuns: 20_000 },
  );
});

Deno.test("unpack of damaged packets gives a value or a SerializationError", () => {
  const damage = fc.array(
    fc.record({
      how: fc.constantFrom("flip", "set", "cut", "drop", "insert"),
      at: fc.nat(),
      byte: fc.nat(255),
    }),
    { minLength: 1, maxLength: 4 },
  );
  fc.assert(
    fc.property(graph, damage, (value, damages) => {
      let bytes = [...pack(value).toBytes()];
      for (const { how, at, byte } of damages) {
        // The head is where the harm is: half of the damage goes there.
        const place = at % Math.max(1, at % 2 === 0 ? bytes.length : Math.min(bytes.length, 100));
        if (how === "flip") bytes[place] = (bytes[place] ?? 0) ^ 1 << byte % 8;
        else if (how === "set") bytes[place] = byte;
        else if (how === "cut") bytes = bytes.slice(0, place);
        else bytes.splice(place, how === "drop" ? 1 : 0, ...(how === "insert" ? [byte] : []));
      }
      survive(Uint8Array.from(bytes));
    }),
    { ...parameters, numRuns: 5000 },
  );
});
