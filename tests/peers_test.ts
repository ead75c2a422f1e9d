/**
 * A node among others that give it tasks and take tasks from it, and that have actors of it, and it of them.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { parseActorOptions } from "../core/actor_options.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DisconnectedError } from "../core/errors.ts";
import { hex, returnId } from "../core/ids.ts";
import { type Outcome, type ToNode } from "../core/messages.ts";
import { parseTaskOptions } from "../core/options.ts";
import type { NodeServer } from "../node/server.ts";
import { pack, unpack } from "../store/serialize.ts";
import { until } from "./fixtures/files.ts";
import {
  connect,
  type Connected,
  delegate,
  fields,
  givenAway,
  id,
  never,
  silentNode,
} from "./fixtures/silent_node.ts";

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

Deno.test("NodeServer tells who waits for a task whose node is gone what comes of it where it runs again", async () => {
  using silent = silentNode();
  const [first, second] = ["first", "second"].map((name) => connect(silent.node, "peer", id(name))) as [
    Connected,
    Connected,
  ];
  const driver = connect(silent.node, "driver", id("job"));
  const given = async (to: Connected, handle: number) => {
    to.send({ type: "behalf", job: id("job"), driver: false });
    to.send({ ...delegate(handle, id("one")), parent: id("zero") } as ToNode);
    await until("it is given", () => silent.node.load().queued === 1);
  };
  await given(first, 1);
  const object = returnId(id("one"), 0);
  driver.send({ type: "retain", objects: [object] });
  driver.send({ type: "subscribe", objects: [object] });
  driver.send({ type: "ask", request: 1, topic: "stats" });
  await until("that is done", () => driver.received.some(({ type }) => type === "answer"));
  first.close();
  const told = () => driver.received.filter((message) => message.type === "object");
  await until(
    "others are asked",
    () => second.received.some((message) => message.type === "seek" && message.object === object),
  );
  assertEquals([told(), silent.node.load().queued], [[], 0]);
  await given(second, 7);
  silent.fail();
  await until("both were told", () => 7 in second.results() && told().length === 1);
  const { outcome } = told()[0]!;
  const { message } = unpack((outcome as Extract<Outcome, { kind: "error" }>).bytes) as { message: string };
  assertStringIncludes(message, "did not start on this node");
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

Deno.test("NodeServer gives an actor up when its record is another node's, and not by what was so before it was entered", async () => {
  const entered = Promise.withResolvers<number>();
  using silent = silentNode(never, () => entered.promise);
  const peer = connect(silent.node, "peer", id("peer"));
  createActor(peer, 1);
  await until("the actor is there", () => silent.node.stats().actors === 1);
  const place = {
    node: hex(id("other")),
    moves: 0,
    job: hex(id("job")),
    label: "A",
    namespace: "",
    name: "",
    outlives: false,
    needs: { demand: {} },
  };
  silent.node.actorLocated(id("actor"), { place, revision: 4 });
  const started = silent.started();
  entered.resolve(5);
  await until("it is begun with", () => silent.started() === started + 1);
  assertEquals(silent.node.stats().actors, 1);
  silent.node.actorLocated(id("actor"), { place, revision: 6 });
  await until("it is another node's", () => silent.node.stats().actors === 0);
});

/** A program of a node makes two actors, of which a peer is given one, as they are to be spread. */
async function actorGivenAway(node: NodeServer) {
  const peer = connect(node, "peer", id("peer"));
  node.describe({ id: id("peer"), resources: { cpu: 10_000 }, labels: {} });
  await until("it is connected", () => peer.received.some(({ type }) => type === "welcome"));
  const driver = connect(node, "driver", id("job"));
  const settings = parseActorOptions({ durable: false, spread: true }, "A", false);
  driver.send({ type: "defineActor", index: 0, settings });
  for (const [handle, name] of ["first", "second"].entries()) {
    driver.send({ type: "createActor", handle, ...fields(id(name)), actor: 0, dependencies: [] });
  }
  const given = () => peer.received.find((message) => message.type === "createActor");
  await until("one of two is the peer's", () => given() !== undefined);
  return { peer, driver, given: given()! };
}

Deno.test("NodeServer makes an actor itself whose creation comes back to it: none of them waits for the other", async () => {
  using silent = silentNode();
  const { peer, driver, given } = await actorGivenAway(silent.node);
  await until("it has the other one", () => silent.node.stats().actors === 1);
  peer.send({ type: "behalf", job: id("job"), driver: true });
  const settings = parseActorOptions({ durable: false }, "A", false);
  peer.send({ type: "defineActor", index: 0, settings });
  peer.send({ type: "createActor", handle: 7, ...fields(given.task), actor: 0, dependencies: [] });
  await until("it has both", () => silent.node.stats().actors === 2);
  silent.fail();
  await until("all were told", () => Object.keys(driver.results()).length === 2 && 7 in peer.results());
});

Deno.test("NodeServer holds an actor of another node for as long as that has not answered what was said to it", async () => {
  using silent = silentNode();
  const { peer, driver, given } = await actorGivenAway(silent.node);
  const { task: actor } = given, object = returnId(actor, 0);
  driver.send({ type: "call", handle: 7, ...fields(id("call")), actor, dependencies: [] });
  driver.send({ type: "release", objects: [object] });
  const said = () => peer.received.find((message) => message.type === "call");
  await until("the call is the peer's", () => said() !== undefined);
  const outcome: Outcome = { kind: "inline", bytes: pack(1).toBytes(), contains: [] };
  const answer = (handle: number) => peer.send({ type: "result", handle, index: 0, kept: false, outcome });
  answer(given.handle);
  const released = () =>
    peer.received.some((message) => message.type === "release" && message.objects.includes(object));
  peer.send({ type: "seek", request: 1, object: returnId(id("other"), 0), make: false });
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
