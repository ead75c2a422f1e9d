/**
 * The bytes of messages: every kind comes back as it was, and hostile bytes are refused with a ProtocolError. A failing
 * run of the mutations names its seed; pass it as CODEC_SEED to repeat it.
 *
 * @module
 */

import { assertEquals, assertInstanceOf, AssertionError, assertThrows } from "@std/assert";
import fc from "fast-check";
import { random } from "../bench/simulate/random.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { assert } from "../core/assert.ts";
import { ProtocolError } from "../core/errors.ts";
import { argumentsId, type ObjectId, putId, returnId, type TaskId, taskIdFromBytes } from "../core/ids.ts";
import { TEXT_BYTES_MAX } from "../core/limits.ts";
import {
  type Dependency,
  type FromNode,
  type FunctionAddress,
  type Message,
  type Outcome,
  OUTPUT_LEVELS,
  type ToNode,
} from "../core/messages.ts";
import { parseTaskOptions, type TaskSettings } from "../core/options.ts";
import { ByteReader, ByteWriter } from "../transport/bytes.ts";
import { decodeFromNode, decodeFromPeer, decodeToNode, encode } from "../transport/codec.ts";

/** How many broken frames are tried: `RAYD_FUZZ_FRAMES`. */
const FRAMES = Number(Deno.env.get("RAYD_FUZZ_FRAMES") ?? 100_000);

// --- Arbitrary messages ---

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const size = fc.maxSafeNat();
const bytes = fc.uint8Array({ maxLength: 200 });
const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.constantFrom("", "\ufeffmarked", "ü\0\n"),
);
const task: fc.Arbitrary<TaskId> = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(taskIdFromBytes);
const object: fc.Arbitrary<ObjectId> = fc.oneof(
  task.map((id) => returnId(id, 0)),
  fc.tuple(task, fc.nat({ max: 5000 })).map(([id, index]) => returnId(id, index)),
  fc.tuple(task, fc.nat({ max: 5000 })).map(([id, index]) => putId(id, index)),
  task.map(argumentsId),
);
const objects = fc.array(object, { maxLength: 5 });
const outcome: fc.Arbitrary<Outcome> = fc.oneof(
  fc.record({ kind: fc.constant("inline" as const), bytes, contains: objects }),
  fc.record({ kind: fc.constant("stored" as const), size, contains: objects }),
  fc.record({ kind: fc.constant("error" as const), bytes }),
);
const dependency: fc.Arbitrary<Dependency> = fc.record({ object, outcome });
const address: fc.Arbitrary<FunctionAddress> = fc.record({ load: text, module: text, name: text });
const level = fc.nat({ max: OUTPUT_LEVELS.length - 1 });
/** Text of settings: @std/msgpack drops a byte order mark, and takes no "__proto__" for a key. */
const plain = fc.string({ unit: "binary", maxLength: 40 }).filter((text) =>
  !/^\ufeff|^__proto__$/.test(text)
);
const settings: fc.Arbitrary<TaskSettings> = fc.record({
  demand: fc.dictionary(
    fc.oneof(
      fc.constantFrom("cpu", "gpu", "memory", "constructor"),
      plain,
    ),
    fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    { noNullPrototype: true },
  ),
  name: plain,
  returns: fc.integer({ min: 1, max: 1024 }),
  retries: fc.maxSafeNat(),
  retryOn: fc.oneof(fc.boolean(), fc.array(plain, { maxLength: 3 })),
  timeoutMs: fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }).map((ms) => ms + 0),
  priority: fc.integer({ min: -1_000_000, max: 1_000_000 }),
  stream: fc.boolean(),
});

const amounts = fc.dictionary(plain, fc.integer({ min: 1, max: 1_000_000 }), { noNullPrototype: true });
const actorSettings: fc.Arbitrary<ActorSettings> = fc.record({
  demand: amounts,
  label: plain,
  name: plain,
  namespace: plain,
  detached: fc.boolean(),
  shared: fc.boolean(),
  concurrency: fc.integer({ min: 1, max: 1000 }),
  groups: amounts,
  maxPending: fc.nat(),
  restarts: fc.maxSafeNat(),
  durable: fc.boolean(),
  checkpointCalls: fc.nat(),
  checkpointMs: fc.nat(),
  linked: fc.boolean(),
  idleMs: fc.nat(),
  virtual: fc.boolean(),
});

/** An arbitrary for each kind: a new kind that is missing here is a type error. */
type Kinds<M extends Message> = {
  readonly [T in M["type"]]: fc.Arbitrary<Omit<Extract<M, { type: T }>, "type">>;
};

const TO_NODE: Kinds<ToNode> = {
  hello: fc.record({
    role: fc.constantFrom("driver" as const, "isolate" as const, "peer" as const),
    protocol: u32,
    version: text,
    token: text,
    isolate: u32,
    job: task,
    storeClient: u32,
    pid: u32,
  }),
  defineFunction: fc.record({ index: u32, address }),
  defineSettings: fc.record({ index: u32, settings }),
  submit: fc.record({
    handle: u32,
    task,
    parent: task,
    fn: u32,
    settings: u32,
    dependencies: objects,
    args: outcome,
  }),
  createActor: fc.record({
    handle: u32,
    task,
    parent: task,
    fn: u32,
    settings: u32,
    actor: u32,
    dependencies: objects,
    args: outcome,
  }),
  call: fc.record({
    handle: u32,
    task,
    parent: task,
    actor: task,
    fn: u32,
    settings: u32,
    dependencies: objects,
    args: outcome,
  }),
  killActor: fc.record({ actor: task, restart: fc.boolean() }),
  findActor: fc.record({ request: u32, namespace: text, name: text }),
  awaitDeath: fc.record({ request: u32, actor: task }),
  waiting: fc.record({ handle: u32, objects }),
  defineActor: fc.record({ index: u32, settings: actorSettings }),
  behalf: fc.record({ job: task, driver: fc.boolean() }),
  delegate: fc.record({
    handle: u32,
    task,
    parent: task,
    fn: u32,
    settings: u32,
    dependencies: fc.array(dependency, { maxLength: 4 }),
    args: outcome,
  }),
  publish: fc.record({ hash: text, code: bytes }),
  jobEnded: fc.record({ job: task }),
  keep: fc.record({ actor: task, calls: fc.array(task, { maxLength: 4 }) }),
  forget: fc.record({ actor: task, calls: fc.array(task, { maxLength: 4 }) }),
  bequeath: fc.record({
    handle: u32,
    calls: fc.array(fc.record({ actor: task, call: task }), { maxLength: 4 }),
  }),
  keyValue: fc.record({ request: u32, body: bytes }),
  group: fc.record({ request: u32, body: bytes }),
  bundles: fc.record({ body: bytes }),
  put: fc.record({ object, outcome }),
  expect: fc.record({ objects }),
  retain: fc.record({ objects }),
  release: fc.record({ objects }),
  subscribe: fc.record({ objects }),
  seek: fc.record({ request: u32, object, make: fc.boolean() }),
  consumed: fc.record({ task, count: u32 }),
  orphan: fc.record({ task }),
  cancel: fc.record({ task, force: fc.boolean(), recursive: fc.boolean() }),
  makeRoom: fc.record({ request: u32, bytes: size }),
  ask: fc.record({
    request: u32,
    topic: fc.constantFrom("nodes", "cluster", "available", "stats", "tasks", "unmet"),
  }),
  done: fc.record({
    handle: u32,
    durationUs: fc.double({ min: 0, noNaN: true }).map((us) => us + 0),
    retry: fc.boolean(),
    outcomes: fc.array(outcome, { maxLength: 4 }),
  }),
  yielded: fc.record({ handle: u32, index: u32, outcome }),
  blocked: fc.record({ handle: u32 }),
  unblocked: fc.record({ handle: u32 }),
  log: fc.record({ handle: u32, level, dropped: u32, text }),
};

const FROM_NODE: Kinds<FromNode> = {
  welcome: fc.record({ node: task }),
  refused: fc.record({ reason: text }),
  result: fc.record({ handle: u32, index: u32, kept: fc.boolean(), outcome }),
  object: fc.record({ object, outcome }),
  copy: fc.record({
    request: u32,
    outcome: fc.option(outcome, { nil: undefined }),
    prospect: fc.constantFrom("none", "soon", "again"),
  }),
  turnedAway: fc.record({ handle: u32 }),
  room: fc.record({ request: u32, error: bytes }),
  answer: fc.record({ request: u32, body: bytes }),
  output: fc.record({ job: task, worker: u32, task: text, level, dropped: u32, text }),
  defineFunction: fc.record({ index: u32, address }),
  defineSettings: fc.record({ index: u32, settings }),
  execute: fc.record({
    handle: u32,
    slot: u16,
    attempt: u32,
    concurrency: u16,
    task,
    job: task,
    fn: u32,
    settings: u32,
    gpus: fc.array(u16, { maxLength: 4 }),
    dependencies: fc.array(dependency, { maxLength: 4 }),
    args: outcome,
  }),
  constructActor: fc.record({
    handle: u32,
    instance: u32,
    attempt: u32,
    task,
    job: task,
    fn: u32,
    settings: u32,
    actor: u32,
    restore: fc.boolean(),
    gpus: fc.array(u16, { maxLength: 4 }),
    dependencies: fc.array(dependency, { maxLength: 4 }),
    args: outcome,
  }),
  executeCall: fc.record({
    handle: u32,
    instance: u32,
    attempt: u32,
    replaying: fc.boolean(),
    silent: fc.boolean(),
    task,
    job: task,
    fn: u32,
    settings: u32,
    dependencies: fc.array(dependency, { maxLength: 4 }),
    args: outcome,
  }),
  checkpointActor: fc.record({ handle: u32, instance: u32, object }),
  stopActor: fc.record({ handle: u32, instance: u32, hook: fc.boolean() }),
  defineActor: fc.record({ index: u32, settings: actorSettings }),
  collect: fc.record({}),
  abort: fc.record({ handle: u32, reason: text }),
  consumed: fc.record({ task, count: u32 }),
};

function anyOf<M extends Message>(kinds: Kinds<M>): fc.Arbitrary<M> {
  const entries = Object.entries<fc.Arbitrary<object>>(kinds);
  return fc.oneof(...entries.map(([type, fields]) => fields.map((fields) => ({ ...fields, type }) as M)));
}

const toNode = anyOf<ToNode>(TO_NODE);
const fromNode = anyOf<FromNode>(FROM_NODE);

// --- Helpers ---

function bytesOf(message: Message): Uint8Array {
  const writer = new ByteWriter(16);
  encode(writer, message);
  const bytes = writer.bytes().slice();
  assertEquals(
    new DataView(bytes.buffer).getUint32(0, true),
    bytes.length - 4,
    "the length is that of what follows",
  );
  return bytes.subarray(4);
}

function read<M extends Message>(bytes: Uint8Array, decode: (from: ByteReader) => M): M {
  const reader = new ByteReader();
  reader.block(bytes);
  reader.window(0, bytes.length);
  return decode(reader);
}

const DECODERS = [decodeToNode, decodeFromNode, decodeFromPeer];

// --- What comes back ---

Deno.test("decodeToNode returns every kind of message as it was encoded", () => {
  fc.assert(fc.property(toNode, (message) => assertEquals(read(bytesOf(message), decodeToNode), message)), {
    numRuns: 2_000,
  });
});

Deno.test("decodeFromNode returns every kind of message as it was encoded", () => {
  fc.assert(
    fc.property(fromNode, (message) => assertEquals(read(bytesOf(message), decodeFromNode), message)),
    {
      numRuns: 2_000,
    },
  );
});

Deno.test("encode appends, so that many messages can be read from one block", () => {
  fc.assert(fc.property(fc.array(fromNode, { maxLength: 20 }), (messages) => {
    const writer = new ByteWriter(8);
    for (const message of messages) encode(writer, message);
    const block = writer.bytes();
    const view = new DataView(block.buffer, block.byteOffset);
    const reader = new ByteReader();
    reader.block(block);
    const read: FromNode[] = [];
    for (let at = 0; at < block.length;) {
      const end = at + 4 + view.getUint32(at, true);
      reader.window(at + 4, end);
      read.push(decodeFromNode(reader));
      at = end;
    }
    assertEquals(read, messages);
  }));
});

Deno.test("encode carries the settings that parseTaskOptions gives, without a limit on retries", () => {
  const settings = parseTaskOptions(
    {
      retries: Infinity,
      memory: 1e11,
      resources: { constructor: 0.5 },
      timeout: "1h",
      retryOn: ["TypeError"],
    },
    "f",
    false,
  );
  const message = read(bytesOf({ type: "defineSettings", index: 1, settings }), decodeToNode);
  assert(message.type === "defineSettings");
  assertEquals({ ...message.settings.demand }, { ...settings.demand });
  assertEquals({ ...message.settings, demand: {} }, { ...settings, demand: {} });
});

Deno.test("encode cuts text to what a peer takes, between two characters", () => {
  for (
    const text of [
      "x".repeat(TEXT_BYTES_MAX + 1),
      "€".repeat(TEXT_BYTES_MAX),
      "\u{1f600}".repeat(TEXT_BYTES_MAX),
    ]
  ) {
    const message = read(bytesOf({ type: "refused", reason: text }), decodeFromNode);
    assert(message.type === "refused");
    assert(text.startsWith(message.reason));
    const { length } = new TextEncoder().encode(message.reason);
    assert(length <= TEXT_BYTES_MAX && length > TEXT_BYTES_MAX - 4);
  }
});

Deno.test("encode leaves the outbox as it was when a message cannot be written", () => {
  const writer = new ByteWriter(64);
  const settings = { ...parseTaskOptions({}, "f", false), name: Symbol("no text") as unknown as string };
  assertThrows(() => encode(writer, { type: "defineSettings", index: 1, settings }));
  assertEquals(writer.length, 0);
});

// --- What is refused ---

/** Reads bytes that may be anything: gives a message, or a ProtocolError and no other. */
function outcomeOf(bytes: Uint8Array, decode: (from: ByteReader) => Message): Message | undefined {
  try {
    return read(bytes, decode);
  } catch (error) {
    if (!(error instanceof ProtocolError)) {
      throw new AssertionError(`not refused in words: ${error}`, { cause: error });
    }
    return undefined;
  }
}

Deno.test("decode refuses every message that was cut short or has bytes left over", () => {
  const check = (message: Message, decode: (from: ByteReader) => Message) => {
    const whole = bytesOf(message);
    for (let length = 0; length < whole.length; length++) {
      assertThrows(() => read(whole.subarray(0, length), decode), ProtocolError);
    }
    const longer = new Uint8Array(whole.length + 1);
    longer.set(whole);
    assertThrows(() => read(longer, decode), ProtocolError);
  };
  fc.assert(fc.property(toNode, (message) => check(message, decodeToNode)), { numRuns: 150 });
  fc.assert(fc.property(fromNode, (message) => check(message, decodeFromNode)), { numRuns: 150 });
});

Deno.test("decode reads nothing beyond its window", () => {
  const whole = bytesOf({ type: "refused", reason: "no" });
  const reader = new ByteReader();
  reader.block(new Uint8Array([...whole, ...whole]));
  reader.window(0, whole.length - 1);
  assertThrows(() => decodeFromNode(reader), ProtocolError, "Cannot read a message");
});

Deno.test("decode meets mutated and random bytes with a message or a ProtocolError", () => {
  const seed = Number(Deno.env.get("CODEC_SEED") ?? Date.now() % 1e9);
  const next = random(seed);
  const below = (count: number) => Math.floor(next() * count);
  const sample = <M extends Message>(kinds: fc.Arbitrary<M>) =>
    fc.sample(kinds, { numRuns: 300, seed }).map(bytesOf);
  const corpus = [...sample(toNode), ...sample(fromNode)];
  let read = 0;
  for (let run = 0; run < FRAMES; run++) {
    let bytes = corpus[below(corpus.length)]!.slice();
    const kind = below(8);
    if (kind === 0) bytes = bytes.map(() => below(256));
    else if (kind === 1) bytes = bytes.subarray(0, below(bytes.length + 1));
    else if (kind === 2) {
      const other = corpus[below(corpus.length)]!;
      bytes = new Uint8Array([
        ...bytes.subarray(0, below(bytes.length)),
        ...other.subarray(below(other.length)),
      ]);
    } else if (kind === 3 && bytes.length > 4) {
      new DataView(bytes.buffer).setUint32(
        below(bytes.length - 4),
        below(2) === 0 ? 0xffff_ffff : below(300),
        true,
      );
    } else for (let flips = below(4); flips >= 0; flips--) bytes[below(bytes.length)] = below(256);
    const decode = DECODERS[below(DECODERS.length)]!;
    try {
      const message = outcomeOf(bytes, decode);
      if (message === undefined) continue;
      read++;
      assert(outcomeOf(bytesOf(message), decode) !== undefined, "what was read can be written");
    } catch (error) {
      throw new AssertionError(`CODEC_SEED=${seed}, run ${run}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  assert(read > 1_000, "some mutations are messages still");
});

Deno.test("decode refuses counts and lengths beyond the message before it makes room for them", () => {
  const id = new Array<number>(16).fill(7);
  const huge = [0xff, 0xff, 0xff, 0xff];
  const u32 = [1, 0, 0, 0];
  const bombs: [string, number[], (from: ByteReader) => Message][] = [
    ["retain", [6, ...huge, ...id], decodeToNode],
    ["submit", [4, ...u32, ...id, ...id, ...u32, ...u32, ...huge, ...id], decodeToNode],
    ["done", [13, ...u32, ...new Array<number>(8).fill(0), 0, ...huge, ...id], decodeToNode],
    ["inline value", [5, ...id, 0, 0, 0, 0, 0, ...huge, ...id], decodeToNode],
    ["answer", [37, ...u32, ...huge, ...id], decodeFromNode],
    ["text", [33, ...huge, ...id], decodeFromNode],
    ["settings", [3, ...u32, 5, 0, 0, 0, 0xdd, ...huge], decodeToNode],
    ["settings, binary", [3, ...u32, 5, 0, 0, 0, 0xc6, ...huge], decodeToNode],
    ["settings, map", [3, ...u32, 5, 0, 0, 0, 0xdf, ...huge], decodeToNode],
  ];
  for (const [what, bytes, decode] of bombs) {
    const words = what.startsWith("settings") ? "settings" : "it promises";
    assertThrows(() => read(Uint8Array.from(bytes), decode), ProtocolError, words, what);
  }
});

Deno.test("decode refuses settings that are nested beyond any reason", () => {
  const depth = 1_000_000;
  const bytes = new Uint8Array(9 + depth).fill(0x91); // arrays of one
  bytes.set([3, 1, 0, 0, 0]);
  new DataView(bytes.buffer).setUint32(5, depth, true);
  assertThrows(() => read(bytes, decodeToNode), ProtocolError, "settings");
});

Deno.test("decode refuses settings with a field that is missing or wrong", () => {
  const good = parseTaskOptions({}, "f", false);
  const wrong: Record<string, unknown>[] = [
    { demand: [] },
    { demand: { cpu: 0.5 } },
    { demand: { cpu: -1 } },
    { demand: null },
    { name: 1 },
    { returns: 0.5 },
    { retries: "3" },
    { retryOn: "TypeError" },
    { retryOn: [1] },
    { timeoutMs: -1 },
    { timeoutMs: NaN },
    { priority: null },
    { stream: 1 },
  ];
  for (const change of wrong) {
    const settings = { ...good, ...change } as TaskSettings;
    const bytes = bytesOf({ type: "defineSettings", index: 1, settings });
    assertThrows(() => read(bytes, decodeToNode), ProtocolError, "a field is missing or wrong");
  }
});

Deno.test("decode refuses kinds, roles, topics, levels and sizes that there are not", () => {
  const stored = bytesOf({
    type: "put",
    object: returnId(taskIdFromBytes(new Uint8Array(16)), 0),
    outcome: { kind: "stored", size: 1, contains: [] },
  });
  const withSize = (size: number) => {
    const bytes = stored.slice();
    new DataView(bytes.buffer).setFloat64(22, size, true);
    return bytes;
  };
  const cases: [Uint8Array, (from: ByteReader) => Message, string][] = [
    [Uint8Array.of(0), decodeToNode, "of kind 0"],
    [Uint8Array.of(41), decodeToNode, "of kind 41"],
    [Uint8Array.of(4), decodeFromNode, "of kind 4"],
    [Uint8Array.of(12, 1, 0, 0, 0, 99), decodeToNode, "no topic 99"],
    [Uint8Array.of(1, 9), decodeToNode, "no role 9"],
    [Uint8Array.of(17, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0), decodeToNode, "no level 5"],
    [Uint8Array.of(33, 1, 0, 0, 0, 0xff), decodeFromNode, "not UTF-8"],
    [withSize(NaN), decodeToNode, "NaN bytes"],
    [withSize(-1), decodeToNode, "-1 bytes"],
    [withSize(0.5), decodeToNode, "0.5 bytes"],
    [withSize(Infinity), decodeToNode, "Infinity bytes"],
  ];
  for (const [bytes, decode, words] of cases) {
    const error = assertThrows(() => read(bytes, decode), ProtocolError) as ProtocolError;
    assertInstanceOf(error, ProtocolError);
    assert(error.message.includes(words), `"${error.message}" says ${words}`);
  }
});
