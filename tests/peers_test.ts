/**
 * A node among others that give it tasks and take tasks from it: the others are played by hand, over in-memory streams.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { parseActorOptions } from "../core/actor_options.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DisconnectedError, ObjectLostError, StoreFullError } from "../core/errors.ts";
import { hex, type ObjectId, putId, returnId, type TaskId } from "../core/ids.ts";
import {
  type FromPeer,
  type Message,
  type Outcome,
  PROTOCOL_VERSION,
  type ToNode,
} from "../core/messages.ts";
import { parseTaskOptions } from "../core/options.ts";
import { VERSION } from "../core/version.ts";
import type { Abroad } from "../node/parts.ts";
import { NodeServer } from "../node/server.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { pack, unpack } from "../store/serialize.ts";
import { Channel, streamPair } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";
import { decodeFromNode, decodeFromPeer } from "../transport/codec.ts";
import { until } from "./fixtures/files.ts";

const TOKEN = "a".repeat(64);
const id = (text: string) => text.padEnd(16, "-").slice(0, 16) as TaskId;
const never = () => new Promise<never>(() => {});

/** A node of one CPU whose isolates are silent, until `fail` ends them all: then all tasks that are there fail. */
function silentNode(
  pull: Abroad["pull"] = never,
  enter: Abroad["registry"]["enter"] = never,
  clock: Clock = systemClock,
  remove: Abroad["registry"]["remove"] = never,
):
  & {
    node: NodeServer;
    store: ObjectStore;
    lost: TaskId[];
    there: Set<TaskId>;
    fail: () => void;
    started: () => number;
  }
  & Disposable {
  const lost: TaskId[] = [], there = new Set<TaskId>();
  const exits: ((reason: string) => void)[] = [];
  let failing = false;
  const store = ObjectStore.create(raystoreLibrary(), { capacity: 4 * 1024 * 1024 });
  const node = new NodeServer({
    id: id("node"),
    token: TOKEN,
    resources: { cpu: 10_000 },
    store,
    clock,
    isolates: {
      start: (_number, exited) => {
        if (failing) queueMicrotask(() => exited("it has no code"));
        else exits.push(exited);
        return { claims: new Int32Array(256), terminate: () => {} };
      },
    },
    isolatesWarm: 1,
    isolatesMax: 1,
    spillPath: "/tmp",
    log: () => {},
    abroad: {
      pull,
      isThere: (node) => there.has(node),
      hasCode: () => true,
      fetchCode: never,
      publishCode: () => {},
      jobStarted: () => {},
      jobEnded: () => {},
      programsRun: () => false,
      registry: {
        reserveName: never,
        confirmName: never,
        releaseName: () => {},
        findName: never,
        virtualHome: never,
        releaseVirtual: () => {},
        enter,
        write: never,
        remove,
        get: never,
        assign: never,
        read: never,
        jobNode: never,
      },
      peerLost: (node) => lost.push(node),
      keyValues: { get: never, put: never, delete: never, list: never, watch: never },
      recordGroup: () => Promise.resolve(),
      readGroup: never,
      removeGroup: () => {},
      resourcesChanged: () => {},
      lineage: { put: () => Promise.resolve(), delete: () => {} },
      leftLineage: () => Promise.resolve([]),
    },
  });
  const fail = () => {
    failing = true;
    for (const exited of exits) exited("it has no code");
  };
  const started = () => exits.length;
  return { node, store, lost, there, fail, started, [Symbol.dispose]: () => node.close() };
}

/** Somebody connected to the node. */
interface Connected {
  send(message: Message): void;
  /** Ends the connection. */
  close(): void;
  readonly received: FromPeer[];
  /** The codes of the errors that it was told as results, by what it calls the tasks. */
  results(): Record<number, string>;
}

function connect(node: NodeServer, role: "peer" | "driver", job: TaskId): Connected {
  const [ours, theirs] = streamPair();
  if (role === "peer") node.acceptPeer(theirs);
  else node.accept(theirs);
  const received: FromPeer[] = [];
  const decode = role === "peer" ? decodeFromPeer : decodeFromNode as unknown as typeof decodeFromPeer;
  const channel = new Channel<Message, FromPeer>(role === "peer" ? checked(ours) : ours, decode, "microtask");
  channel.start({ message: (message) => received.push(message), closed: () => {} });
  const send = (message: Message) => channel.send(message);
  send({
    type: "hello",
    role,
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    token: TOKEN,
    isolate: 0,
    job,
    storeClient: 0,
    pid: 1,
  });
  send({ type: "defineFunction", index: 0, address: { load: "x:", module: "x:", name: "f" } });
  const settings = parseTaskOptions({ spread: true, retries: 0 }, "f", false);
  send({ type: "defineSettings", index: 0, settings });
  const results = () =>
    Object.fromEntries(
      received.flatMap((message) =>
        message.type === "result" ? [[message.handle, message.outcome.kind]] : []
      ),
    );
  return { send, close: () => channel.close(), received, results };
}

const fields = (task: TaskId) => ({
  task,
  parent: id("job"),
  fn: 0,
  settings: 0,
  args: { kind: "inline", bytes: pack([]).toBytes(), contains: [] } as const,
});
const delegate = (handle: number, task: TaskId, settings = 0): ToNode => ({
  type: "delegate",
  handle,
  ...fields(task),
  settings,
  dependencies: [],
});

/** A program of the node submits two tasks, of which a peer is given one, as they are to be spread. */
async function givenAway(node: NodeServer): Promise<{
  readonly peer: Connected;
  readonly driver: Connected;
  readonly given: Extract<FromPeer, { type: "delegate" }>;
}> {
  const peer = connect(node, "peer", id("peer"));
  node.describe({ id: id("peer"), resources: { cpu: 10_000 }, labels: {} });
  await until("they are connected", () => peer.received.some(({ type }) => type === "welcome"));
  const driver = connect(node, "driver", id("job"));
  for (const handle of [1, 2]) {
    driver.send({ type: "submit", handle, ...fields(id(`task${handle}`)), dependencies: [] });
  }
  const given = () => peer.received.find((message) => message.type === "delegate");
  await until("one of two is given away", () => given() !== undefined);
  return { peer, driver, given: given()! };
}

Deno.test("NodeServer tells all nodes that have given it a task, and one that cancels it does not end it for the others", async () => {
  using silent = silentNode();
  const [first, second, third] = ["first", "second", "third"].map((name) =>
    connect(silent.node, "peer", id(name))
  ) as [Connected, Connected, Connected];
  const given = async (tasks: number) =>
    await until("it was given", () => silent.node.load().queued === tasks);
  for (const [i, peer] of [first, second, third].entries()) {
    peer.send({ type: "behalf", job: id("job"), driver: false });
    peer.send(delegate(i + 1, id("one")));
    await given(1);
  }
  third.send({ type: "cancel", task: id("one"), force: true, recursive: true });
  third.send(delegate(9, id("two")));
  await given(2);
  silent.fail();
  await until("both were told", () => 1 in first.results() && 2 in second.results());
  await until("the other task has failed", () => 9 in third.results());
  assertEquals([first.results(), second.results()], [{ 1: "error" }, { 2: "error" }]);
  assertEquals(3 in third.results(), false);
});

Deno.test("NodeServer ends a task whose node is gone, and not what another run of that task has asked for", async () => {
  using silent = silentNode();
  const [first, second] = ["first", "second"].map((name) => connect(silent.node, "peer", id(name))) as [
    Connected,
    Connected,
  ];
  const queued = async (tasks: number) =>
    await until(`${tasks} are queued`, () => silent.node.load().queued === tasks);
  first.send({ type: "behalf", job: id("job"), driver: false });
  first.send(delegate(1, id("one")));
  await queued(1);
  second.send({ type: "behalf", job: id("job"), driver: false });
  second.send({ ...delegate(2, id("two")), parent: id("one") } as ToNode);
  await queued(2);
  first.close();
  await queued(1);
  second.send(delegate(3, id("three")));
  await queued(2);
  assertEquals(second.results(), {});
});

Deno.test("NodeServer runs a task itself that it gave to a node which gives it back: none of them waits for the other", async () => {
  using silent = silentNode();
  const { peer, driver, given } = await givenAway(silent.node);
  peer.send({ type: "behalf", job: id("job"), driver: false });
  peer.send(delegate(7, given.task));
  await until("it has both", () => silent.node.load().queued === 2);
  silent.fail();
  await until("all were told", () => Object.keys(driver.results()).length === 2 && 7 in peer.results());
});

Deno.test("NodeServer turns away what it can never run, and gives what a node has turned away to one that has it", async () => {
  using silent = silentNode();
  const peers = ["first", "second"].map((name) => connect(silent.node, "peer", id(name))) as [
    Connected,
    Connected,
  ];
  const [first, second] = peers;
  const describe = (name: string, gpus: number) =>
    silent.node.describe({ id: id(name), resources: { cpu: 10_000, gpu: gpus * 10_000 }, labels: {} });
  await until("they are connected", () => peers.every(({ received }) => received.length > 0));
  describe("first", 1);
  describe("second", 0);
  const settings = parseTaskOptions({ gpus: 1 }, "f", false);
  first.send({ type: "behalf", job: id("job"), driver: false });
  first.send({ type: "defineSettings", index: 1, settings });
  first.send(delegate(5, id("other"), 1));
  await until(
    "it is turned away",
    () => first.received.some((message) => message.type === "turnedAway" && message.handle === 5),
  );
  const driver = connect(silent.node, "driver", id("job"));
  driver.send({ type: "defineSettings", index: 1, settings });
  driver.send({ type: "submit", handle: 1, ...fields(id("task")), settings: 1, dependencies: [] });
  const given = ({ received }: Connected) => received.find((message) => message.type === "delegate");
  await until("it is given to the node that is said to have a GPU", () => given(first) !== undefined);
  first.send({ type: "turnedAway", handle: given(first)!.handle });
  describe("first", 0);
  describe("second", 1);
  const load = { free: { gpu: 10_000 }, queued: 0, meanMs: 1 };
  await until("it is given to the one that has", () => {
    silent.node.reported(id("second"), load);
    return given(second) !== undefined;
  });
  assertEquals(driver.results(), {});
});

Deno.test("NodeServer asks again for an object that cannot be brought from a node which is there", async () => {
  const errors = [
    new DisconnectedError("Network is unreachable"),
    new DisconnectedError("the connection was closed"),
    undefined,
  ];
  const value = pack(new Uint8Array(100_000)).toBytes();
  using silent = silentNode((_node, object, size) => {
    const error = errors.shift();
    if (error !== undefined) return Promise.resolve(error);
    const view = silent.store.create(object, size) as Uint8Array;
    view.set(value);
    silent.store.seal(object);
    return Promise.resolve(undefined);
  });
  const { peer, driver, given } = await givenAway(silent.node);
  const { handle, task } = given;
  peer.send({
    type: "result",
    handle,
    index: 0,
    kept: true,
    outcome: { kind: "stored", size: value.length, contains: [] },
  });
  const told = () => driver.received.find((message) => message.type === "object");
  await until("its result is known", () => Object.keys(driver.results()).length === 1);
  driver.send({ type: "subscribe", objects: [returnId(task, 0)] });
  await until("it has been brought", () => told() !== undefined);
  assertEquals([told()!.outcome.kind, errors.length], ["stored", 0]);
});

const VALUE = pack(new Uint8Array(100_000)).toBytes();
const STORED: Outcome = { kind: "stored", size: VALUE.length, contains: [] };

/** A node of whose program's tasks one was given to a peer, which has ended it and is gone; `others` are there still. */
async function bereft(outcome: Outcome, pull: Abroad["pull"], others: readonly string[]) {
  const silent = silentNode((...asked) => {
    pulls.push([asked[0], asked[3]]);
    return pull(...asked);
  });
  const pulls: [TaskId, string][] = [];
  const { peer, driver, given } = await givenAway(silent.node);
  const left = others.map((name) => connect(silent.node, "peer", id(name)));
  await until("all are connected", () => left.every(({ received }) => received.length > 0));
  peer.send({ type: "result", handle: given.handle, index: 0, kept: true, outcome });
  await until("its result is known", () => Object.keys(driver.results()).length === 1);
  const object = returnId(given.task, 0);
  return {
    ...silent,
    [Symbol.dispose]: silent[Symbol.dispose],
    peer,
    driver,
    left,
    object,
    pulls,
    /** Puts the value into the node's store. */
    store: () => {
      (silent.store.create(object, VALUE.length) as Uint8Array).set(VALUE);
      silent.store.seal(object);
    },
    told: () => driver.received.find((message) => message.type === "object"),
    sought: (by: Connected) => by.received.find((message) => message.type === "seek"),
  };
}

Deno.test("NodeServer brings an object whose node is gone from another one that has a copy", async () => {
  // The first to say that it has one has let go of it by the time that it is fetched.
  const errors = [new ObjectLostError("it is not there any more"), undefined];
  using it = await bereft(STORED, () => {
    const error = errors.shift();
    if (error === undefined) it.store();
    return Promise.resolve(error);
  }, ["none", "fleeting", "has"]);
  const [none, fleeting, has] = it.left as [Connected, Connected, Connected];
  it.peer.close();
  it.driver.send({ type: "subscribe", objects: [it.object] });
  const asked = (peer: Connected, times: number) => () =>
    peer.received.filter((message) => message.type === "seek" && message.object === it.object).length ===
      times;
  for (const peer of it.left) await until("all are asked", asked(peer, 1));
  const answer = (peer: Connected, outcome: Outcome | undefined) => {
    const seek = peer.received.findLast((message) => message.type === "seek")!;
    peer.send({ type: "copy", request: seek.request, outcome });
  };
  answer(none, undefined);
  answer(fleeting, STORED);
  await until("it is looked for again", asked(has, 2));
  assertEquals(asked(fleeting, 1)(), true, "it has said what it has");
  answer(none, { ...STORED, size: VALUE.length + 1 }); // of another run of the task, whose value differs
  await until("it is looked for again", asked(has, 3));
  answer(has, STORED);
  await until("it has been brought", () => it.told() !== undefined);
  assertEquals(it.told()!.outcome, STORED);
  assertEquals(it.pulls, [[id("fleeting"), "copy"], [id("has"), "copy"]]);
});

Deno.test("NodeServer waits for an object that nobody can make again until its node is gone, or there again", async () => {
  const inner = returnId(id("inner"), 0);
  for (const comesBack of ["with it", "without it", "never"] as const) {
    const value: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
    using it = await bereft(value, never, ["other"]);
    const [other] = it.left as [Connected];
    const seeks = (by: Connected) => by.received.filter((message) => message.type === "seek");
    const answer = (by: Connected, outcome: Outcome | undefined) =>
      by.send({ type: "copy", request: seeks(by).at(-1)!.request, outcome });
    it.there.add(id("peer"));
    it.peer.close();
    it.driver.send({ type: "subscribe", objects: [inner] });
    for (let times = 1; times <= 2; times++) {
      await until("another one is asked, again", () => seeks(other).length === times);
      answer(other, undefined);
    }
    assertEquals(it.told(), undefined);
    if (comesBack !== "never") {
      const peer = connect(it.node, "peer", id("peer"));
      await until("it is there again, and asked", () => {
        if (seeks(other).length > 2) answer(other, undefined);
        return seeks(peer).length > 0;
      });
      const again: Outcome = { kind: "inline", bytes: pack(2).toBytes(), contains: [] };
      answer(peer, comesBack === "with it" ? again : undefined);
    } else it.there.clear();
    await until("the program is told", () => {
      if (seeks(other).length > 2) answer(other, undefined);
      return it.told() !== undefined;
    });
    assertEquals(it.told()!.outcome.kind, comesBack === "with it" ? "inline" : "error");
  }
});

Deno.test("NodeServer says so when it has no room for a copy", async () => {
  const full = new StoreFullError("there is no room");
  using it = await bereft(STORED, () => Promise.resolve(full), ["has"]);
  const [has] = it.left as [Connected];
  it.peer.close();
  it.driver.send({ type: "subscribe", objects: [it.object] });
  await until("it is asked", () => it.sought(has) !== undefined);
  has.send({ type: "copy", request: it.sought(has)!.request, outcome: STORED });
  await until("the program is told", () => it.told() !== undefined);
  const { kind, bytes } = it.told()!.outcome as Extract<Outcome, { kind: "error" }>;
  assertEquals(kind, "error");
  assertStringIncludes((unpack(bytes) as { message: string }).message, full.message);
});

Deno.test("NodeServer has an object made again of which nobody who is left has a copy", async () => {
  using it = await bereft(STORED, never, ["none", "dies", "greets"]);
  const [none, dies, greets] = it.left as [Connected, Connected, Connected];
  const tasks = () => it.node.stats().queued + it.node.stats().running;
  it.peer.close();
  it.driver.send({ type: "subscribe", objects: [it.object] });
  for (const peer of it.left) await until("all are asked", () => it.sought(peer) !== undefined);
  const { request } = it.sought(none)!;
  none.send({ type: "copy", request, outcome: undefined });
  none.send({ type: "copy", request, outcome: STORED }); // it has answered
  greets.send({ type: "copy", request: request + 1, outcome: STORED }); // to nothing that was asked
  greets.send({ type: "copy", request, outcome: { kind: "error", bytes: new Uint8Array() } });
  assertEquals([tasks(), it.told()], [1, undefined]);
  dies.close();
  await until("the task runs again", () => tasks() === 2);
  assertEquals(it.pulls, []);
});

Deno.test("NodeServer has what a task has put made again, though the value that it came in is let go of", async () => {
  using silent = silentNode();
  const { peer, driver, given } = await givenAway(silent.node);
  const inner = putId(given.task, 0), outer = returnId(given.task, 0);
  const tasks = () => silent.node.stats().queued + silent.node.stats().running;
  const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
  peer.send({ type: "result", handle: given.handle, index: 0, kept: true, outcome });
  await until("its result is known", () => Object.keys(driver.results()).length === 1);
  driver.send({ type: "retain", objects: [inner] });
  driver.send({ type: "release", objects: [outer] });
  driver.send({ type: "ask", request: 1, topic: "stats" });
  await until("that is done", () => driver.received.some(({ type }) => type === "answer"));
  peer.close();
  await until("it is gone", () => silent.lost.includes(id("peer")));
  driver.send({ type: "subscribe", objects: [inner] });
  await until("the task runs again", () => tasks() === 2);
  assertEquals(driver.received.filter(({ type }) => type === "object"), []);
});

for (
  const [how, says] of [
    ["puts it", undefined],
    ["fails", "it failed"],
    ["puts nothing", "it did not put it again"],
  ] as const
) {
  Deno.test(`NodeServer asks for what a task has put where the task has run again: it ${how}`, async () => {
    const there = new Set([id("second")]);
    using silent = silentNode((node, object, size) => {
      if (!there.has(node)) return Promise.resolve(new DisconnectedError("the connection was closed"));
      (silent.store.create(object, size) as Uint8Array).set(VALUE);
      silent.store.seal(object);
      return Promise.resolve(undefined);
    });
    const join = async (name: string) => {
      const peer = connect(silent.node, "peer", id(name));
      silent.node.describe({ id: id(name), resources: { cpu: 10_000, far: 10_000 }, labels: {} });
      await until("it is connected", () => peer.received.some(({ type }) => type === "welcome"));
      return peer;
    };
    const given = (to: Connected) => () => to.received.find((message) => message.type === "delegate");
    const peer = await join("peer");
    const driver = connect(silent.node, "driver", id("job"));
    const settings = parseTaskOptions({ resources: { far: 1 }, retries: 0 }, "f", false);
    driver.send({ type: "defineSettings", index: 1, settings });
    driver.send({ type: "submit", handle: 1, ...fields(id("task")), settings: 1, dependencies: [] });
    await until("it is given away", () => given(peer)() !== undefined);
    const inner = putId(id("task"), 0);
    const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
    const asked = (by: Connected) => () => by.received.some(({ type }) => type === "subscribe");
    peer.send({ type: "result", handle: given(peer)()!.handle, index: 0, kept: true, outcome });
    await until("its result is known", () => Object.keys(driver.results()).length === 1);
    driver.send({ type: "subscribe", objects: [inner] });
    await until("its home is asked", asked(peer));
    peer.send({ type: "object", object: inner, outcome: STORED });
    const told = () => driver.received.filter((message) => message.type === "object");
    await until("the program knows of it", () => told().length === 1);
    driver.send({ type: "subscribe", objects: [inner] });
    const second = await join("second");
    peer.close();
    const seek = () => second.received.find((message) => message.type === "seek");
    await until("a copy is looked for", () => seek() !== undefined);
    second.send({ type: "copy", request: seek()!.request, outcome: undefined });
    await until("the task runs again", () => given(second)() !== undefined);
    second.send({ type: "retain", objects: [inner] }); // it has heard of it from this node as well
    if (says !== undefined) {
      const now: Outcome = how === "fails"
        ? { kind: "error", bytes: new Uint8Array() }
        : { kind: "inline", bytes: pack(1).toBytes(), contains: [] };
      second.send({ type: "result", handle: given(second)()!.handle, index: 0, kept: false, outcome: now });
      await until("the program is told", () => told().length === 2);
      const { bytes } = told()[1]!.outcome as Extract<Outcome, { kind: "error" }>;
      return assertStringIncludes((unpack(bytes) as { message: string }).message, says);
    }
    second.send({ type: "result", handle: given(second)()!.handle, index: 0, kept: true, outcome });
    await until("its new home is asked", asked(second));
    second.send({ type: "object", object: inner, outcome: STORED });
    await until("the program can read it", () => told().length === 2);
    assertEquals(told()[1]!.outcome, STORED);
  });
}

Deno.test("NodeServer lets go of what another node had when that is put here", async () => {
  using silent = silentNode();
  const peer = connect(silent.node, "peer", id("peer"));
  const driver = connect(silent.node, "driver", id("job"));
  const inner = putId(id("task"), 0);
  peer.send({ type: "behalf", job: id("other"), driver: false });
  const args = { ...fields(id("one")).args, contains: [inner] };
  peer.send({ ...delegate(1, id("one")), args } as ToNode);
  const told = () =>
    peer.received.flatMap((message) =>
      (message.type === "retain" || message.type === "release") && message.objects.includes(inner)
        ? [message.type]
        : []
    );
  await until("it is held there", () => told().length === 1);
  driver.send({ type: "put", object: inner, outcome: STORED });
  await until("that is told", () => told().length === 2);
  assertEquals(told(), ["retain", "release"]);
});

Deno.test("NodeServer learns the value of an object whose node is gone from another one that knows it", async () => {
  const inner = returnId(id("inner"), 0);
  const value = pack("known").toBytes();
  using it = await bereft({ kind: "inline", bytes: pack(1).toBytes(), contains: [inner] }, never, ["a", "b"]);
  const [a, b] = it.left as [Connected, Connected];
  it.driver.send({ type: "subscribe", objects: [inner] });
  await until("its home is asked", () => it.peer.received.some(({ type }) => type === "subscribe"));
  it.peer.close();
  for (const peer of it.left) await until("all are asked", () => it.sought(peer)?.object === inner);
  const { request } = it.sought(a)!;
  // What that refers to could be gone before this node can say that it holds it.
  a.send({ type: "copy", request, outcome: { kind: "inline", bytes: value, contains: [it.object] } });
  await until("others are asked again", () => b.received.filter(({ type }) => type === "seek").length === 2);
  const again = b.received.findLast((message) => message.type === "seek")!;
  b.send({ type: "copy", request: again.request, outcome: { kind: "inline", bytes: value, contains: [] } });
  await until("the program is told", () => it.told() !== undefined);
  assertEquals(it.told()!.outcome, { kind: "inline", bytes: value, contains: [] });
});

Deno.test("NodeServer tells another node of an object only when it has all of it", async () => {
  using silent = silentNode();
  const peer = connect(silent.node, "peer", id("peer"));
  const driver = connect(silent.node, "driver", id("job"));
  const [stored, spoken, failed, absent, due] = ["1", "2", "3", "4", "5"]
    .map((name) => returnId(id(name), 0)) as [ObjectId, ObjectId, ObjectId, ObjectId, ObjectId];
  const value: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [] };
  driver.send({ type: "put", object: stored, outcome: STORED });
  driver.send({ type: "put", object: spoken, outcome: value });
  driver.send({ type: "put", object: failed, outcome: { kind: "error", bytes: new Uint8Array() } });
  driver.send({ type: "expect", objects: [due] });
  await until("all are known", () => silent.node.stats().objects === 4);
  let request = 0;
  const asked = async (object: ObjectId) => {
    peer.send({ type: "seek", request: ++request, object });
    const answer = () =>
      peer.received.find((message) => message.type === "copy" && message.request === request);
    await until("it answers", () => answer() !== undefined);
    return (answer() as Extract<FromPeer, { type: "copy" }>).outcome;
  };
  assertEquals(await asked(stored), undefined, "its bytes are not there");
  (silent.store.create(stored, VALUE.length) as Uint8Array).set(VALUE);
  silent.store.seal(stored);
  assertEquals(await asked(stored), STORED);
  assertEquals(await asked(spoken), value);
  for (const object of [failed, absent, due]) assertEquals(await asked(object), undefined);
});

Deno.test("NodeServer does not look for a lost object where it is held of this node", async () => {
  const inner = returnId(id("inner"), 0);
  using it = await bereft({ kind: "inline", bytes: pack(1).toBytes(), contains: [inner] }, never, ["holder"]);
  const [holder] = it.left as [Connected];
  it.peer.close();
  await until("it is gone", () => it.lost.includes(id("peer")));
  holder.send({ type: "retain", objects: [inner] });
  holder.send({ type: "behalf", job: id("other"), driver: false });
  const args = { ...fields(id("other")).args, contains: [inner] };
  holder.send({ ...delegate(1, id("other")), args } as ToNode);
  await until("its task is there", () => it.node.stats().queued + it.node.stats().running === 2);
  it.driver.send({ type: "subscribe", objects: [inner] });
  await until(
    "it is asked",
    () => holder.received.some(({ type }) => type === "seek" || type === "subscribe"),
  );
  assertEquals(it.sought(holder)?.object, inner, "it would only ask back");
});

Deno.test("NodeServer that is told to make an actor which it held of the teller lets go of that, and holds its own", async () => {
  using silent = silentNode();
  const peer = connect(silent.node, "peer", id("peer"));
  const actor = returnId(id("actor"), 0);
  peer.send({ type: "behalf", job: id("job"), driver: false });
  const contains = [actor];
  const held = { ...delegate(1, id("one")), args: { ...fields(id("one")).args, contains } } as ToNode;
  peer.send(held);
  const told = (type: string) =>
    peer.received.flatMap((message) =>
      message.type === type && "objects" in message && message.objects.includes(actor) ? [type] : []
    );
  await until("the actor is held of the teller", () => told("retain").length === 1);
  assertEquals(told("release"), []);
  const settings = parseActorOptions({ durable: false }, "A", false);
  peer.send({ type: "defineActor", index: 0, settings });
  peer.send({ type: "createActor", handle: 2, ...fields(id("actor")), actor: 0, dependencies: [] });
  await until("the teller's is let go of", () => told("release").length === 1);
  // Its task refers to the actor as before, and what a peer says of it later does not make it the peer's again.
  peer.send({ ...held, handle: 3, task: id("two") } as ToNode);
  peer.send({ type: "release", objects: [actor] });
  const driver = connect(silent.node, "driver", id("other"));
  driver.send({ type: "awaitDeath", request: 7, actor: id("actor") });
  driver.send({ type: "ask", request: 8, topic: "stats" });
  const answers = () =>
    driver.received.flatMap((message) => message.type === "answer" ? [message.request] : []);
  await until("the node has answered", () => answers().includes(8));
  assertEquals([answers(), told("retain"), told("release")], [[8], ["retain"], ["release"]]);
});

Deno.test("NodeServer counts each node that makes one and the same actor as a holder of it once", async () => {
  using silent = silentNode();
  const peers = ["first", "second"].map((name) => connect(silent.node, "peer", id(name)));
  const actor = returnId(id("actor"), 0);
  for (const [i, peer] of peers.entries()) {
    peer.send({ type: "behalf", job: id("job"), driver: false });
    const settings = parseActorOptions({ durable: false }, "A", false);
    peer.send({ type: "defineActor", index: 0, settings });
    peer.send({ type: "createActor", handle: i, ...fields(id("actor")), actor: 0, dependencies: [] });
    await until("its actor waits", () => silent.node.stats().actors === 1);
  }
  silent.fail();
  await until("both were told", () => peers.every((peer, i) => i in peer.results()));
  const driver = connect(silent.node, "driver", id("other"));
  let request = 0;
  const holders = async () => {
    const asked = ++request;
    driver.send({ type: "ask", request: asked, topic: "objects" });
    const answer = () =>
      driver.received.find((message) => message.type === "answer" && message.request === asked);
    await until("the node has answered", () => answer() !== undefined);
    const { rows } = unpack((answer() as { body: Uint8Array }).body) as {
      rows: { object: string; holders: number }[];
    };
    return rows.find(({ object }) => object === hex(actor, true))?.holders ?? 0;
  };
  assertEquals(await holders(), 2);
  for (const [i, peer] of peers.entries()) {
    peer.send({ type: "release", objects: [actor] });
    await until("it is taken", async () => await holders() === 1 - i);
  }
});

/** Sends a node's peer, for a task, what makes a durable actor there. */
function createActor(peer: Connected, handle: number): void {
  peer.send({ type: "behalf", job: id("job"), driver: false });
  peer.send({ type: "defineActor", index: 0, settings: parseActorOptions({}, "A", false) });
  peer.send({ type: "createActor", handle, ...fields(id("actor")), actor: 0, dependencies: [] });
}

Deno.test("NodeServer begins with an actor of a task when the control store has it: the task may have made it elsewhere", async () => {
  const entered = Promise.withResolvers<number>();
  using silent = silentNode(never, () => entered.promise);
  const peer = connect(silent.node, "peer", id("peer"));
  createActor(peer, 1);
  const driver = connect(silent.node, "driver", id("other"));
  await until("the actor is being entered", () => silent.node.stats().actors === 1);
  const before = silent.started();
  driver.send({ type: "ask", request: 1, topic: "stats" });
  await until("the node has gone on", () => driver.received.some(({ type }) => type === "answer"));
  assertEquals(silent.started(), before);
  entered.resolve(1);
  await until("it has an isolate", () => silent.started() === before + 1);
});

Deno.test("NodeServer enters an actor that is made again once the control store has let go of the one before", async () => {
  const removed = Promise.withResolvers<boolean>();
  let entries = 0;
  using silent = silentNode(never, () => Promise.resolve(++entries), systemClock, () => removed.promise);
  const peer = connect(silent.node, "peer", id("peer"));
  const started = silent.started();
  createActor(peer, 1);
  await until("the first one is begun with", () => silent.started() === started + 1);
  peer.send({ type: "killActor", actor: id("actor"), restart: false });
  peer.send({ type: "release", objects: [returnId(id("actor"), 0)] });
  await until("it has ended", () => silent.node.stats().actors === 0);
  createActor(peer, 2);
  await until("the second one is there", () => silent.node.stats().actors === 1);
  const driver = connect(silent.node, "driver", id("other"));
  driver.send({ type: "ask", request: 1, topic: "stats" });
  await until("the node has gone on", () => driver.received.some(({ type }) => type === "answer"));
  assertEquals(entries, 1);
  removed.resolve(true);
  await until("it is entered", () => entries === 2);
});

Deno.test("NodeServer holds an actor of another node for as long as that has not answered what was said to it", async () => {
  using silent = silentNode();
  const peer = connect(silent.node, "peer", id("peer"));
  silent.node.describe({ id: id("peer"), resources: { cpu: 10_000 }, labels: {} });
  await until("it is connected", () => peer.received.some(({ type }) => type === "welcome"));
  const driver = connect(silent.node, "driver", id("job"));
  const settings = parseActorOptions({ durable: false, spread: true }, "A", false);
  driver.send({ type: "defineActor", index: 0, settings });
  const actors = ["first", "second"].map((name, i) => {
    driver.send({ type: "createActor", handle: i, ...fields(id(name)), actor: 0, dependencies: [] });
    return id(name);
  });
  const made = () => peer.received.find((message) => message.type === "createActor");
  await until("one of two is the peer's", () => made() !== undefined);
  const actor = made()!.task, object = returnId(actor, 0);
  assertEquals(actors.includes(actor), true);
  driver.send({ type: "call", handle: 7, ...fields(id("call")), actor, dependencies: [] });
  driver.send({ type: "release", objects: [object] });
  const said = () => peer.received.find((message) => message.type === "call");
  await until("the call is the peer's", () => said() !== undefined);
  const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [] };
  const answer = (handle: number) => peer.send({ type: "result", handle, index: 0, kept: false, outcome });
  answer(made()!.handle);
  const released = () =>
    peer.received.some((message) => message.type === "release" && message.objects.includes(object));
  peer.send({ type: "seek", request: 1, object: returnId(id("other"), 0) });
  await until("the node has gone on", () => peer.received.some(({ type }) => type === "copy"));
  assertEquals(released(), false);
  answer(said()!.handle);
  await until("it is let go of", released);
});

Deno.test("NodeServer tells other nodes nothing before the journals of its actors have what that depends on", async () => {
  const entered = Promise.withResolvers<number>();
  // However long the test takes, it is not for so long that other nodes are told anyhow.
  const clock: Clock = {
    ...systemClock,
    now: () => 0,
    after: (ms, then) => ms < 1_000 ? systemClock.after(ms, then) : () => {},
  };
  using silent = silentNode(never, () => entered.promise, clock);
  const peer = connect(silent.node, "peer", id("peer"));
  const driver = connect(silent.node, "driver", id("job"));
  peer.send({ type: "behalf", job: id("other"), driver: false });
  peer.send(delegate(1, id("one")));
  await until("the task is there", () => silent.node.load().queued === 1);
  driver.send({ type: "defineActor", index: 0, settings: parseActorOptions({}, "A", false) });
  driver.send({ type: "createActor", handle: 1, ...fields(id("actor")), actor: 0, dependencies: [] });
  await until("the actor is being entered", () => silent.node.stats().actors === 1);
  silent.fail();
  driver.send({ type: "submit", handle: 2, ...fields(id("two")), dependencies: [] });
  await until("this node's program was told that isolates fail", () => 2 in driver.results());
  assertEquals(peer.results(), {});
  entered.resolve(1);
  await until("the other node was told", () => 1 in peer.results());
});
