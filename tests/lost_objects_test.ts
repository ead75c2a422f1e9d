/**
 * A node that misses objects whose node is gone, and others that have them, know how they were made, or do not.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { DisconnectedError, ObjectLostError, StoreFullError } from "../core/errors.ts";
import { type ObjectId, putId, returnId, type TaskId } from "../core/ids.ts";
import { type FromPeer, type Outcome, type Prospect, type ToNode } from "../core/messages.ts";
import { parseTaskOptions } from "../core/options.ts";
import { pack, unpack } from "../store/serialize.ts";
import { until } from "./fixtures/files.ts";
import {
  bereft,
  connect,
  type Connected,
  delegate,
  fields,
  givenAway,
  id,
  never,
  silentNode,
  STORED,
  VALUE,
} from "./fixtures/silent_node.ts";

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
    peer.send({ type: "copy", request: seek.request, outcome, prospect: "none" });
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
  const inner = putId(id("inner"), 0);
  for (const comesBack of ["with it", "without it", "never"] as const) {
    const value: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
    using it = await bereft(value, never, ["other"]);
    const [other] = it.left as [Connected];
    const seeks = (by: Connected) => by.received.filter((message) => message.type === "seek");
    const answer = (by: Connected, outcome: Outcome | undefined) =>
      by.send({ type: "copy", request: seeks(by).at(-1)!.request, outcome, prospect: "none" });
    it.away.add(id("peer"));
    it.peer.close();
    it.driver.send({ type: "subscribe", objects: [inner] });
    for (let times = 1; times <= 2; times++) {
      await until("another one is asked, again", () => seeks(other).length === times);
      answer(other, undefined);
    }
    assertEquals(it.told(), undefined);
    const again: Outcome = { kind: "inline", bytes: pack(2).toBytes(), contains: [] };
    const has = comesBack === "with it" ? again : undefined;
    const peer = comesBack === "never" ? undefined : connect(it.node, "peer", id("peer"));
    if (peer !== undefined) {
      await until("it is there again, and asked", () => {
        if (seeks(other).length > 2) answer(other, undefined);
        return seeks(peer).length > 0;
      });
      answer(peer, has);
    }
    it.away.clear();
    await until("the program is told", () => {
      if (seeks(other).length > 2) answer(other, undefined);
      if (peer !== undefined && seeks(peer).length > 1) answer(peer, has);
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
  has.send({ type: "copy", request: it.sought(has)!.request, outcome: STORED, prospect: "none" });
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
  none.send({ type: "copy", request, outcome: undefined, prospect: "none" });
  none.send({ type: "copy", request, outcome: STORED, prospect: "none" }); // it has answered
  greets.send({ type: "copy", request: request + 1, outcome: STORED, prospect: "none" }); // to nothing that was asked
  greets.send({
    type: "copy",
    request,
    outcome: { kind: "error", bytes: new Uint8Array() },
    prospect: "none",
  });
  assertEquals([tasks(), it.told()], [1, undefined]);
  dies.close();
  await until("the task runs again", () => tasks() === 2);
  assertEquals(it.pulls, []);
});

for (
  const [what, objectOf] of [
    ["a task has put", (task: TaskId) => putId(task, 0)],
    ["a task makes that another one has submitted, and returned the Ref of,", () => returnId(id("inner"), 0)],
  ] as const
) {
  Deno.test(`NodeServer has what ${what} made again, though the value that it came in is let go of`, async () => {
    using silent = silentNode();
    const { peer, driver, given } = await givenAway(silent.node);
    const inner = objectOf(given.task), outer = returnId(given.task, 0);
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
}

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
    second.send({ type: "copy", request: seek()!.request, outcome: undefined, prospect: "none" });
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
  a.send({
    type: "copy",
    request,
    outcome: { kind: "inline", bytes: value, contains: [it.object] },
    prospect: "none",
  });
  await until("others are asked again", () => b.received.filter(({ type }) => type === "seek").length === 2);
  const again = b.received.findLast((message) => message.type === "seek")!;
  b.send({
    type: "copy",
    request: again.request,
    outcome: { kind: "inline", bytes: value, contains: [] },
    prospect: "none",
  });
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
    peer.send({ type: "seek", request: ++request, object, make: false });
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

/** A program's node that has lost what a task elsewhere has returned, and inside of that `inner`, which nobody here can make. */
async function missing(inner: ObjectId, others: readonly string[]) {
  const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
  const it = await bereft(outcome, never, others);
  it.peer.close();
  it.driver.send({ type: "subscribe", objects: [inner] });
  const seeks = (by: Connected) => by.received.filter((message) => message.type === "seek");
  const answer = (by: Connected, prospect: Prospect, outcome?: Outcome) =>
    by.send({ type: "copy", request: seeks(by).at(-1)!.request, outcome, prospect });
  return { ...it, [Symbol.dispose]: it[Symbol.dispose], seeks, answer };
}

const INLINE: Outcome = { kind: "inline", bytes: pack(2).toBytes(), contains: [] };

Deno.test("NodeServer has a lost object from a node that says that it can make it again", async () => {
  const inner = returnId(id("inner"), 0);
  using it = await missing(inner, ["none", "maker"]);
  const [none, maker] = it.left as [Connected, Connected];
  for (const peer of it.left) await until("both are asked", () => it.seeks(peer).length === 1);
  it.answer(maker, "again");
  it.answer(none, "none");
  await until("it is asked to make it", () => it.seeks(maker).at(-1)!.make);
  it.answer(maker, "again");
  const told = (by: Connected) =>
    by.received.flatMap((message) =>
      (message.type === "retain" || message.type === "subscribe") && message.objects.includes(inner)
        ? [message.type]
        : []
    );
  await until("it is held there, and asked for", () => told(maker).length === 2);
  assertEquals([told(maker), told(none)], [["retain", "subscribe"], []]);
  maker.send({ type: "object", object: inner, outcome: INLINE });
  await until("the program is told", () => it.told() !== undefined);
  assertEquals(it.told()!.outcome.kind, "inline");
});

Deno.test("NodeServer does not give an object up whose task is still to end on another node", async () => {
  using it = await missing(putId(id("inner"), 0), ["runs"]);
  const [runs] = it.left as [Connected];
  for (let times = 1; times <= 3; times++) {
    await until("it is asked, again", () => it.seeks(runs).length === times);
    it.answer(runs, "soon");
  }
  await until("it is asked once more", () => it.seeks(runs).length === 4);
  assertEquals(it.told(), undefined);
  it.answer(runs, "none");
  await until("the program is told", () => it.told() !== undefined);
  assertEquals(it.told()!.outcome.kind, "error");
});

Deno.test("NodeServer asks the node where a task runs again for what it has put there", async () => {
  using silent = silentNode();
  const [first, second] = ["first", "second"].map((name) => connect(silent.node, "peer", id(name))) as [
    Connected,
    Connected,
  ];
  await until("both are connected", () => [first, second].every(({ received }) => received.length > 0));
  const resources = { cpu: 10_000, gpu: 10_000 };
  silent.node.describe({ id: id("first"), resources, labels: {} });
  const driver = connect(silent.node, "driver", id("job"));
  driver.send({ type: "defineSettings", index: 1, settings: parseTaskOptions({ gpus: 1 }, "f", false) });
  driver.send({ type: "submit", handle: 1, ...fields(id("task")), settings: 1, dependencies: [] });
  const delegated = (to: Connected) => to.received.find((message) => message.type === "delegate");
  await until("it is given away", () => delegated(first) !== undefined);
  const inner = putId(id("task"), 0);
  const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [inner] };
  first.send({ type: "result", handle: delegated(first)!.handle, index: 0, kept: true, outcome });
  await until("its result is known", () => Object.keys(driver.results()).length === 1);
  silent.node.describe({ id: id("second"), resources, labels: {} });
  first.close();
  driver.send({ type: "subscribe", objects: [inner] });
  const seeks = () => second.received.filter((message) => message.type === "seek");
  const answer = (outcome?: Outcome) =>
    second.send({ type: "copy", request: seeks().at(-1)!.request, outcome, prospect: "none" });
  await until("it is asked", () => seeks().length === 1);
  answer();
  await until("the task runs again there", () => delegated(second)?.task === id("task"));
  for (let times = 2; times <= 3; times++) {
    await until("it is asked, again", () => seeks().length === times);
    if (times < 3) answer();
  }
  answer(STORED);
  const held = () =>
    second.received.some((message) => message.type === "subscribe" && message.objects.includes(inner));
  await until("it is asked for the object itself", held);
  second.send({ type: "object", object: inner, outcome: INLINE });
  await until("the program is told", () => driver.received.some(({ type }) => type === "object"));
});

/** What a node says to a peer that misses objects. */
function prospects(peer: Connected): (object: ObjectId) => Promise<Prospect> {
  let last = 0;
  return async (object) => {
    const request = ++last;
    peer.send({ type: "seek", request, object, make: false });
    const answer = () =>
      peer.received.find((message) => message.type === "copy" && message.request === request);
    await until("it has answered", () => answer() !== undefined);
    return (answer() as Extract<FromPeer, { type: "copy" }>).prospect;
  };
}

Deno.test("NodeServer makes an object again that a node asks for which knows of it from elsewhere", async () => {
  using silent = silentNode();
  const other = connect(silent.node, "peer", id("other"));
  const { peer, driver, given } = await givenAway(silent.node);
  const inner = putId(given.task, 0), outer = returnId(given.task, 0);
  const seek = prospects(other);
  assertEquals([await seek(inner), await seek(returnId(id("nothing"), 0))], ["soon", "none"]);
  peer.send({ type: "result", handle: given.handle, index: 0, kept: true, outcome: STORED });
  await until("its result is known", () => Object.keys(driver.results()).length === 1);
  peer.close();
  await until("it is gone", () => silent.lost.includes(id("peer")));
  assertEquals(await seek(inner), "again");
  // It has heard nothing of this one, which the task has put.
  other.send({ type: "retain", objects: [inner, outer] });
  other.send({ type: "subscribe", objects: [inner] });
  await until("it looks for it", () => other.received.some(({ type }) => type === "seek"));
  const { request } = other.received.find((message) => message.type === "seek")!;
  other.send({ type: "copy", request, outcome: undefined, prospect: "none" });
  const tasks = () => silent.node.stats().queued + silent.node.stats().running;
  await until("the task runs again", () => tasks() === 2);
});

Deno.test("NodeServer remembers a task that another node has submitted while somebody needs what it has put here", async () => {
  using silent = silentNode();
  const [owner, holder] = ["owner", "holder"].map((name) => connect(silent.node, "peer", id(name))) as [
    Connected,
    Connected,
  ];
  const driver = connect(silent.node, "driver", id("other"));
  const held = putId(id("one"), 0);
  owner.send({ type: "behalf", job: id("job"), driver: true });
  owner.send(delegate(1, id("one")));
  await until("the task is there", () => silent.node.load().queued === 1);
  driver.send({ type: "put", object: held, outcome: STORED });
  await until("it has put it", () => silent.node.stats().objects === 1);
  holder.send({ type: "retain", objects: [held] });
  const seek = prospects(holder);
  assertEquals(await seek(held), "soon");
  silent.fail();
  await until("the task has ended", () => 1 in owner.results());
  assertEquals(await seek(held), "again");
  await until("it is written down", () => silent.lineage.written === 1);
  driver.close();
  holder.send({ type: "release", objects: [held] });
  await until("it is forgotten", () => silent.lineage.removed === 1);
  assertEquals(await seek(held), "none");
});
