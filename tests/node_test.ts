/**
 * The node, without sockets or threads: a server over in-memory streams, and isolates that never start.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { creationSettings, parseActorOptions } from "../core/actor_options.ts";
import { systemClock } from "../core/clock.ts";
import { returnId, type TaskId } from "../core/ids.ts";
import { type FromNode, PROTOCOL_VERSION, type ToNode } from "../core/messages.ts";
import { parseTaskOptions } from "../core/options.ts";
import { VERSION } from "../core/version.ts";
import { NodeServer } from "../node/server.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { pack, unpack } from "../store/serialize.ts";
import { type ByteStream, Channel, streamPair } from "../transport/channel.ts";
import { decodeFromNode } from "../transport/codec.ts";
import { until } from "./fixtures/files.ts";

const TOKEN = "a".repeat(64);
const id = (text: string) => text.padEnd(16, "-").slice(0, 16) as TaskId;

/** A node whose isolates all fail to start, or with `silent` are never heard of, and what it logged. */
function brokenNode(silent = false): { node: NodeServer; logged: string[] } & Disposable {
  const logged: string[] = [];
  const node = new NodeServer({
    id: id("node"),
    token: TOKEN,
    resources: { cpu: 10_000 },
    store: ObjectStore.create(raystoreLibrary(), { capacity: 4 * 1024 * 1024 }),
    clock: systemClock,
    isolates: {
      start: (_number, exited) => {
        if (!silent) queueMicrotask(() => exited("it has no code"));
        return { claims: new Int32Array(256), terminate: () => {} };
      },
    },
    isolatesWarm: 1,
    isolatesMax: 1,
    spillPath: "/tmp",
    log: (_level, message) => logged.push(message),
  });
  return { node, logged, [Symbol.dispose]: () => node.close() };
}

/** A client that speaks by hand. */
function connect(
  node: NodeServer,
): { channel: Channel<ToNode, FromNode>; received: FromNode[]; ended: () => boolean } {
  const [ours, theirs] = streamPair();
  node.accept(theirs);
  const channel = new Channel<ToNode, FromNode>(ours, decodeFromNode, "microtask");
  const received: FromNode[] = [];
  let ended = false;
  channel.start({ message: (message) => received.push(message), closed: () => ended = true });
  return { channel, received, ended: () => ended };
}

function hello(change: Partial<Extract<ToNode, { type: "hello" }>> = {}): ToNode {
  return {
    type: "hello",
    role: "driver",
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    token: TOKEN,
    isolate: 0,
    job: id("job"),
    storeClient: 0,
    pid: 1,
    ...change,
  };
}

function submit(channel: Channel<ToNode, FromNode>, handle: number): void {
  channel.send({
    type: "submit",
    handle,
    task: id(`task${handle}`),
    parent: id("job"),
    fn: 0,
    settings: 0,
    dependencies: [],
    args: { kind: "inline", bytes: pack([]).toBytes(), contains: [] },
  });
}

Deno.test("NodeServer fails every task, early and late, when isolates do not start", async () => {
  using broken = brokenNode();
  const { channel, received } = connect(broken.node);
  channel.send(hello());
  channel.send({ type: "defineFunction", index: 0, address: { load: "x:", module: "x:", name: "f" } });
  channel.send({ type: "defineSettings", index: 0, settings: parseTaskOptions({}, "f", false) });
  submit(channel, 1);
  await until("the first task has failed", () => received.some((message) => message.type === "result"));
  submit(channel, 2);
  await until(
    "the second task has failed",
    () => received.filter(({ type }) => type === "result").length === 2,
  );
  for (const message of received) {
    if (message.type !== "result" || message.outcome.kind !== "error") continue;
    const { code, message: text } = unpack(message.outcome.bytes) as { code: string; message: string };
    assertEquals(code, "WORKER_CRASHED");
    assertStringIncludes(text, "isolates in a row did not start");
  }
});

Deno.test("NodeServer ends a program's actors with it, but for those that are detached", async () => {
  using silent = brokenNode(true);
  const first = connect(silent.node), second = connect(silent.node);
  first.channel.send(hello());
  second.channel.send(hello({ job: id("other") }));
  const settings = { load: "x:", module: "x:", name: "Kept" };
  first.channel.send({ type: "defineFunction", index: 0, address: settings });
  first.channel.send({ type: "defineSettings", index: 0, settings: creationSettings("Kept") });
  for (const [index, detached] of [true, false].entries()) {
    const actor = parseActorOptions({ name: detached ? "kept" : "gone", detached }, "Kept", false);
    first.channel.send({ type: "defineActor", index, settings: actor });
    first.channel.send({
      type: "createActor",
      handle: index,
      task: id(`actor${index}`),
      parent: id("job"),
      fn: 0,
      settings: 0,
      actor: index,
      dependencies: [],
      args: { kind: "inline", bytes: pack([]).toBytes(), contains: [] },
    });
  }
  await until("both are there", () => silent.node.stats().actors === 2);
  first.channel.close();
  await until("one has ended", () => silent.node.stats().actors === 1);
  const find = (request: number, name: string) =>
    second.channel.send({ type: "findActor", request, namespace: "default", name });
  find(1, "kept");
  find(2, "gone");
  const answers = () =>
    second.received.flatMap((message) => message.type === "answer" ? [unpack(message.body)] : []);
  await until("both were looked for", () => answers().length === 2);
  assertEquals([(answers()[0] as { name: string }).name, answers()[1]], ["Kept", null]);
  second.channel.send({ type: "killActor", actor: id("actor0"), restart: false });
  await until("it is ended by kill", () => silent.node.stats().actors === 0);
});

Deno.test("NodeServer refuses a wrong token, another version, and talk before hello", async () => {
  using broken = brokenNode();
  for (
    const [change, reason] of [
      [{ token: "b".repeat(64) }, "token is wrong"],
      [{ token: "" }, "token is wrong"],
      [{ version: "9.9.9" }, "9.9.9"],
      [{ protocol: 99 }, "protocol 99"],
      [{ role: "isolate" as const, isolate: 77 }, "no isolate 77"],
    ] as const
  ) {
    const { channel, received, ended } = connect(broken.node);
    channel.send(hello(change));
    await until("the connection ends", ended);
    assertEquals(received.length, 1);
    const [answer] = received;
    assertStringIncludes(answer!.type === "refused" ? answer!.reason : "", reason);
  }
  const { channel, received, ended } = connect(broken.node);
  submit(channel, 1);
  await until("the connection ends", ended);
  assertEquals(received, []);
});

Deno.test("NodeServer ends the connection of a program that says what only a node can", async () => {
  using broken = brokenNode();
  for (
    const message of [
      { type: "orphan", task: id("task") },
      { type: "bundles", body: new Uint8Array() },
      { type: "seek", request: 1, object: returnId(id("task"), 0), make: false },
    ] as const
  ) {
    const { channel, ended } = connect(broken.node);
    channel.send(hello());
    channel.send(message);
    await until("the connection ends", ended);
  }
  assertEquals(broken.logged.filter((line) => line.includes("only a node can")).length, 3);
});

Deno.test("NodeServer ends a connection that sends garbage, and serves the others", async () => {
  using broken = brokenNode();
  const good = connect(broken.node);
  good.channel.send(hello());
  await until("it is welcome", () => good.received.length === 1);
  const random = (length: number, seed: number) =>
    Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 2654435761) >>> 13);
  for (let seed = 0; seed < 50; seed++) {
    const [ours, theirs]: [ByteStream, ByteStream] = streamPair();
    broken.node.accept(theirs);
    try {
      for (let i = 0; i < 40; i++) await ours.write(random(64, seed * 100 + i));
    } catch {
      // The node has hung up: what is wanted.
    }
    ours.close();
  }
  good.channel.send({ type: "ask", request: 1, topic: "cluster" });
  await until("the good one is answered", () => good.received.length === 2);
  good.channel.close();
});
