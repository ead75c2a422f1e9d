/**
 * Channels over streams that behave as badly as streams may: torn reads, slow writes, ends at any byte. Nothing is
 * lost and nothing changes places.
 *
 * @module
 */

import { assertEquals, assertInstanceOf } from "@std/assert";
import { random } from "../bench/simulate/random.ts";
import { assert } from "../core/assert.ts";
import { DisconnectedError, ProtocolError, type RaydError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { FLUSH_BYTES, MESSAGE_BYTES_MAX, READ_BLOCK_BYTES } from "../core/limits.ts";
import type { FromNode, ToNode } from "../core/messages.ts";
import { ByteWriter } from "../transport/bytes.ts";
import { type ByteStream, Channel, type FlushPolicy, streamPair } from "../transport/channel.ts";
import { decodeFromNode, decodeToNode, encode } from "../transport/codec.ts";
import { sameToken } from "../transport/token.ts";

type NodeChannel = Channel<FromNode, ToNode>;
type ClientChannel = Channel<ToNode, FromNode>;

/** What came out of a channel, and a way to wait for it. */
class Received<M> {
  readonly messages: M[] = [];
  drained = 0;
  readonly ends: (RaydError | undefined)[] = [];
  #wake = () => {};

  message(message: M): void {
    this.messages.push(message);
    this.#wake();
  }

  closed(error: RaydError | undefined): void {
    this.ends.push(error);
    this.#wake();
  }

  /** Waits until a condition holds; every message and the end are looked at. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake = resolve);
  }

  async count(count: number): Promise<void> {
    await this.until(() => this.messages.length >= count || this.ends.length > 0);
    assertEquals([this.messages.length, this.ends], [count, []]);
  }

  /** Waits for the end. Returns its error. */
  async end(): Promise<RaydError | undefined> {
    await this.until(() => this.ends.length > 0);
    assertEquals(this.ends.length, 1);
    return this.ends[0];
  }
}

function client(stream: ByteStream, policy: FlushPolicy = "microtask"): [ClientChannel, Received<FromNode>] {
  const channel = new Channel<ToNode, FromNode>(stream, decodeFromNode, policy);
  const received = new Received<FromNode>();
  channel.start({ message: (m) => received.message(m), closed: (e) => received.closed(e) });
  return [channel, received];
}

function node(stream: ByteStream, policy: FlushPolicy = "microtask"): [NodeChannel, Received<ToNode>] {
  const channel = new Channel<FromNode, ToNode>(stream, decodeToNode, policy);
  const received = new Received<ToNode>();
  channel.start({
    message: (m) => received.message(m),
    drained: () => received.drained++,
    closed: (e) => received.closed(e),
  });
  return [channel, received];
}

/** A stream that reads and writes as little at a time as a generator says. */
function torn(stream: ByteStream, next: () => number): ByteStream {
  const some = (count: number) => Math.max(1, Math.floor(next() ** 4 * count));
  return {
    read: (into) => stream.read(into.subarray(0, some(into.length))),
    write: (bytes) => stream.write(bytes.subarray(0, some(bytes.length))),
    close: () => stream.close(),
  };
}

/** A stream that counts its writes, and holds each back until it is let go. */
class HeldStream implements ByteStream {
  readonly writes: number[] = [];
  readonly #stream: ByteStream;
  #letGo: (() => void)[] = [];
  held: boolean;

  constructor(stream: ByteStream, held: boolean) {
    this.#stream = stream;
    this.held = held;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#stream.read(into);
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.writes.push(bytes.length);
    if (this.held) await new Promise<void>((resolve) => this.#letGo.push(resolve));
    return await this.#stream.write(bytes);
  }

  letGo(): void {
    this.held = false;
    for (const resolve of this.#letGo.splice(0)) resolve();
  }

  close(): void {
    this.#stream.close();
  }
}

/** Messages from a few bytes to many blocks, each with its number in it. */
function numbered(count: number, next: () => number): ToNode[] {
  const object = taskIdFromBytes(new Uint8Array(16).fill(200)) as string as Extract<
    ToNode,
    { type: "put" }
  >["object"];
  return Array.from({ length: count }, (_, i): ToNode => {
    if (next() < 0.7) return { type: "blocked", handle: i };
    const length = Math.floor(next() < 0.1 ? next() * 5 * READ_BLOCK_BYTES : next() * 500);
    return {
      type: "put",
      object,
      outcome: { kind: "inline", bytes: new Uint8Array(length).fill(i), contains: [] },
    };
  });
}

function encoded(...messages: ToNode[]): Uint8Array {
  const writer = new ByteWriter(64);
  for (const message of messages) encode(writer, message);
  return writer.bytes();
}

Deno.test("Channel brings messages in order, whatever pieces they are written and read in", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const next = random(seed);
    const [left, right] = streamPair();
    const [sender] = client(seed % 3 === 0 ? left : torn(left, next));
    const [, received] = node(seed % 3 === 1 ? right : torn(right, next));
    const messages = numbered(200, next);
    for (const message of messages) {
      sender.send(message);
      if (next() < 0.1) await Promise.resolve();
    }
    await received.count(messages.length);
    assertEquals(received.messages, messages, `seed ${seed}`);
    sender.close();
    assertEquals(await received.end(), undefined);
  }
});

Deno.test("Channel brings messages in order when a read gives one byte at a time", async () => {
  const [left, right] = streamPair();
  const [sender] = client(left);
  const [, received] = node({ ...right, read: (into) => right.read(into.subarray(0, 1)) });
  const messages = numbered(40, () => 0.6).concat(numbered(10, () => 0.8));
  for (const message of messages) sender.send(message);
  await received.count(messages.length);
  assertEquals(received.messages, messages);
  sender.close();
  await received.end();
});

Deno.test("Channel keeps what it delivered: blocks are not read into twice", async () => {
  const [left, right] = streamPair();
  const [sender] = client(left);
  const [, received] = node(torn(right, random(7)));
  const messages = numbered(3_000, random(8));
  for (const message of messages) sender.send(message);
  await received.count(messages.length);
  assertEquals(received.messages, messages, "also long after the bytes came");
  sender.close();
  await received.end();
});

Deno.test("Channel carries messages both ways at once over a unix socket", async () => {
  const path = `\0rayd-channel-test-${crypto.randomUUID()}`;
  using listener = Deno.listen({ transport: "unix", path });
  const [near, far] = await Promise.all([Deno.connect({ transport: "unix", path }), listener.accept()]);
  const [driver, answers] = client(near);
  const [server, received] = node(far);
  const messages = numbered(2_000, random(3));
  const back = messages.map((_, handle): FromNode => ({
    type: "abort",
    handle,
    reason: "x".repeat(handle % 999),
  }));
  messages.forEach((message, i) => {
    driver.send(message);
    server.send(back[i]!);
  });
  await Promise.all([received.count(messages.length), answers.count(back.length)]);
  assertEquals(received.messages, messages);
  assertEquals(answers.messages, back);
  driver.close();
  assertEquals(await received.end(), undefined, "the peer closed");
  assertEquals(await answers.end(), undefined);
  assert(server.closed);
});

Deno.test("Channel.send writes all of a turn at once, and nothing of it before the turn ends", async () => {
  const [left, right] = streamPair();
  const stream = new HeldStream(left, false);
  const [sender] = client(stream);
  const [, received] = node(right);
  for (let handle = 0; handle < 100; handle++) sender.send({ type: "blocked", handle });
  assertEquals(stream.writes, []);
  await received.count(100);
  assertEquals([stream.writes.length, received.drained], [1, 1], "one write, one block, one moment to act");
  sender.close();
  await received.end();
});

Deno.test("Channel.send under the manual policy writes on flush, or when much is queued", async () => {
  const [left, right] = streamPair();
  const stream = new HeldStream(left, false);
  const [sender] = client(stream, "manual");
  const [, received] = node(right);
  sender.send({ type: "blocked", handle: 1 });
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(stream.writes, []);
  sender.flush();
  sender.flush();
  await received.count(1);
  assertEquals(stream.writes.length, 1);
  let queued = 1;
  for (; stream.writes.length === 1; queued++) sender.send({ type: "blocked", handle: queued });
  await received.count(queued);
  assert(stream.writes[1]! >= FLUSH_BYTES && stream.writes[1]! < FLUSH_BYTES + 16);
  sender.close();
  await received.end();
});

Deno.test("Channel.send queues behind a write that is under way, and sends that on in one more", async () => {
  const [left, right] = streamPair();
  const stream = new HeldStream(left, true);
  const [sender] = client(stream);
  const [, received] = node(right);
  sender.send({ type: "blocked", handle: 0 });
  await Promise.resolve();
  for (let handle = 1; handle < 50_000; handle++) sender.send({ type: "blocked", handle });
  sender.flush();
  assertEquals(stream.writes.length, 1, "a second write would overtake");
  stream.letGo();
  await received.count(50_000);
  assertEquals(received.messages.map((m) => m.type === "blocked" ? m.handle : -1), [...Array(50_000).keys()]);
  assertEquals(stream.writes.length, 2);
  sender.close();
  await received.end();
});

Deno.test("Channel.finish writes what was sent before it ends", async () => {
  for (const held of [false, true]) {
    const [left, right] = streamPair();
    const stream = new HeldStream(left, held);
    const [sender, own] = client(stream, "manual");
    const [, received] = node(right);
    sender.send({ type: "blocked", handle: 1 });
    sender.flush();
    sender.send({ type: "blocked", handle: 2 });
    sender.finish();
    assertEquals(sender.closed, false);
    stream.letGo();
    assertEquals(await own.end(), undefined);
    assertEquals(await received.end(), undefined);
    assertEquals(received.messages.length, 2);
    sender.send({ type: "blocked", handle: 3 });
    sender.finish();
  }
  const [left] = streamPair();
  const [idle, ended] = client(left);
  idle.finish();
  assertEquals([idle.closed, ended.ends], [true, [undefined]]);
});

Deno.test("Channel.close during a write ends it once, and drops what was not written", async () => {
  const [left, right] = streamPair();
  const stream = new HeldStream(left, true);
  const [sender, own] = client(stream);
  const [, received] = node(right);
  sender.send({ type: "blocked", handle: 1 });
  await Promise.resolve();
  sender.send({ type: "blocked", handle: 2 });
  sender.close();
  assert(sender.closed);
  stream.letGo();
  sender.close();
  sender.send({ type: "blocked", handle: 3 });
  sender.flush();
  assertEquals(await received.end(), undefined);
  assertEquals([received.messages, own.ends], [[], [undefined]]);
});

Deno.test("Channel hands over nothing more once its owner closed it in the middle of a block", async () => {
  const [left, right] = streamPair();
  const [sender] = client(left);
  const handles: number[] = [];
  const ended = Promise.withResolvers<RaydError | undefined>();
  const channel = new Channel<FromNode, ToNode>(right, decodeToNode, "microtask");
  channel.start({
    message(message) {
      handles.push(message.type === "blocked" ? message.handle : -1);
      if (handles.length === 3) channel.close();
    },
    closed: ended.resolve,
  });
  for (let handle = 0; handle < 9; handle++) sender.send({ type: "blocked", handle });
  assertEquals(await ended.promise, undefined);
  assertEquals(handles, [0, 1, 2]);
});

Deno.test("Channel ends with an error when its owner throws, and tells what it was", async () => {
  const [left, right] = streamPair();
  const [sender] = client(left);
  const ended = Promise.withResolvers<RaydError | undefined>();
  const channel = new Channel<FromNode, ToNode>(right, decodeToNode, "microtask");
  channel.start({
    message() {
      throw new TypeError("not today");
    },
    closed: ended.resolve,
  });
  sender.send({ type: "blocked", handle: 1 });
  const error = await ended.promise;
  assertInstanceOf(error, DisconnectedError);
  assertEquals(error!.message, "The connection broke: TypeError: not today");
});

Deno.test("Channel refuses a stream that ends inside of a message, at whichever byte", async () => {
  const whole = encoded({ type: "log", handle: 1, level: 1, dropped: 0, text: "hello" });
  for (let length = 1; length < whole.length; length++) {
    const [left, right] = streamPair();
    const [, received] = node(right);
    await left.write(encoded({ type: "blocked", handle: 1 }));
    await left.write(whole.subarray(0, length));
    left.close();
    const error = await received.end();
    assertInstanceOf(error, ProtocolError);
    assertEquals(error!.message, "Cannot read a message: the stream ended inside of it");
    assertEquals(received.messages, [{ type: "blocked", handle: 1 }]);
  }
});

Deno.test("Channel refuses a message of an impossible length before it makes room for it", async () => {
  for (const length of [0, MESSAGE_BYTES_MAX + 1, 0xffff_ffff]) {
    const [left, right] = streamPair();
    let asked = 0;
    const read = (into: Uint8Array) => {
      asked = Math.max(asked, into.length);
      return right.read(into);
    };
    const [channel, received] = node({ ...right, read });
    const head = new Uint8Array(8);
    new DataView(head.buffer).setUint32(0, length, true);
    await left.write(head);
    const error = await received.end();
    assertInstanceOf(error, ProtocolError);
    assertEquals(
      error!.message,
      `Cannot read a message: its length is ${length}, the limit ${MESSAGE_BYTES_MAX}`,
    );
    assert(asked <= READ_BLOCK_BYTES);
    assert(channel.closed);
  }
});

Deno.test("Channel takes the largest message there may be", async () => {
  const [left, right] = streamPair();
  const [sender] = client(left);
  const [, received] = node(torn(right, random(5)));
  const overhead =
    encoded({ type: "defineFunction", index: 1, address: { load: "", module: "", name: "" } }).length;
  assert(overhead < 32);
  const bytes = new Uint8Array(MESSAGE_BYTES_MAX - 26).fill(7);
  const object = taskIdFromBytes(new Uint8Array(16)) as string as Extract<ToNode, { type: "put" }>["object"];
  const message: ToNode = { type: "put", object, outcome: { kind: "inline", bytes, contains: [] } };
  assertEquals(encoded(message).length, 4 + MESSAGE_BYTES_MAX);
  sender.send(message);
  sender.send({ type: "blocked", handle: 1 });
  await received.count(2);
  const [large] = received.messages;
  assert(large?.type === "put" && large.outcome.kind === "inline");
  assertEquals(large.outcome.bytes.length, bytes.length);
  assert(large.outcome.bytes.every((byte) => byte === 7));
  sender.close();
  await received.end();
});

Deno.test("Channel ends with an error when the stream breaks under a write or a read", async () => {
  for (const way of ["read", "write"] as const) {
    const [left] = streamPair();
    const broken = () => Promise.reject(new Deno.errors.BrokenPipe("gone"));
    const [channel, own] = client({ ...left, [way]: broken });
    channel.send({ type: "blocked", handle: 1 });
    const error = await own.end();
    assertInstanceOf(error, DisconnectedError);
    assertEquals(error!.message, "The connection broke: BrokenPipe: gone");
    assertInstanceOf(error!.cause, Deno.errors.BrokenPipe);
  }
});

Deno.test("Channel tells a peer that writes to a closed unix socket that the connection is gone", async () => {
  const path = `\0rayd-channel-test-${crypto.randomUUID()}`;
  using listener = Deno.listen({ transport: "unix", path });
  const [near, far] = await Promise.all([Deno.connect({ transport: "unix", path }), listener.accept()]);
  far.close();
  const [channel, own] = client(near);
  channel.send({ type: "blocked", handle: 1 });
  const error = await own.end();
  assert(error === undefined || error instanceof DisconnectedError, `${error}`);
  assert(channel.closed);
});

Deno.test("sameToken is true of equal tokens alone", () => {
  const token = "0123456789abcdef".repeat(4);
  assert(sameToken(token, token));
  for (
    const other of [
      "",
      token.slice(1),
      token + "0",
      token.toUpperCase(),
      "x" + token.slice(1),
      token.slice(0, -1),
    ]
  ) {
    assert(!sameToken(other, token), other);
    assert(!sameToken(token, other), other);
  }
  assert(!sameToken("", ""), "no token is none");
});
