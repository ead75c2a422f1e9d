/**
 * What the control store has of actors that survive their node: names, which are one actor's in a whole cluster, whatever
 * becomes of the nodes between the steps in which an actor comes to its name; and that nothing of an actor stays.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { parseActorOptions } from "../core/actor_options.ts";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError } from "../core/errors.ts";
import { hex, type TaskId, taskIdFromBytes } from "../core/ids.ts";
import type { GcsClient } from "../gcs/client.ts";
import { ActorMover } from "../node/actor_mover.ts";
import { type ActorRegistry, actorRegistry, placeOf } from "../node/actor_registry.ts";
import { Leases } from "../node/leases.ts";
import { ControlStore } from "./control_store.ts";

const NOTHING = { put: [], delete: [] };

function idOf(n: number): TaskId {
  return taskIdFromBytes(new Uint8Array(16).fill(n));
}

/** A node, which can be given up: then the store does not have it any more, whatever it believes. */
class Node {
  readonly registry: ActorRegistry;
  readonly id: TaskId;
  readonly enter: () => Promise<void>;
  readonly leave: () => Promise<void>;

  constructor(n: number, client: Pick<GcsClient, "get" | "put" | "delete" | "batch" | "list" | "closed">) {
    this.id = idOf(n);
    const key = `node/${hex(this.id)}`;
    this.registry = actorRegistry(client as GcsClient, new Leases(client, () => {}), hex(this.id), "job/");
    this.enter = async () => void await client.put(key, new Uint8Array());
    this.leave = async () => void await client.delete(key);
  }

  /** An actor takes the name. */
  take(actor: TaskId): Promise<boolean> {
    return this.registry.reserveName("default", "hits", { id: hex(actor), module: "m", name: "A" }, true);
  }

  /** Its record is written. @returns The revision. */
  async record(actor: TaskId): Promise<number> {
    const settings = parseActorOptions({ name: "hits", detached: true }, "A", false);
    const place = placeOf(settings, idOf(90), this.id, 0);
    return (await this.registry.enter(actor, place, NOTHING))!;
  }

  confirm(actor: TaskId): Promise<boolean> {
    return this.registry.confirmName("default", "hits", actor);
  }
}

async function nodes(store: ControlStore): Promise<[Node, Node]> {
  const [a, b] = [new Node(1, await store.client(idOf(11))), new Node(2, await store.client(idOf(12)))];
  for (const each of [a, b]) await each.enter();
  return [a, b];
}

const [FIRST, SECOND] = [idOf(51), idOf(52)];

Deno.test("a node that was given up before it had an actor's record has no claim to the name", async () => {
  using store = new ControlStore();
  const [a, b] = await nodes(store);
  assertEquals(await a.take(FIRST), true);
  assertEquals(await b.take(SECOND), false, "the node is there");
  await a.leave();
  assertEquals(await b.take(SECOND), true);
  await a.enter();
  await a.record(FIRST);
  assertEquals(await a.confirm(FIRST), false);
  await b.record(SECOND);
  assertEquals(await b.confirm(SECOND), true);
  assertEquals((await a.registry.findName("default", "hits"))?.id, hex(SECOND));
});

Deno.test("an actor whose creation came to two nodes has its name, though that it is not on one of them ends there", async () => {
  using store = new ControlStore();
  const [a, b] = await nodes(store);
  assertEquals([await a.take(FIRST), await b.take(FIRST)], [true, true]);
  await b.record(FIRST);
  a.registry.releaseName("default", "hits", FIRST, false);
  assertEquals(await b.confirm(FIRST), true);
  // What a has said is done by now, as it goes the same way.
  assertEquals((await a.registry.findName("default", "hits"))?.id, hex(FIRST));
  assertEquals(await b.confirm(FIRST), true);
  assertEquals(await a.take(SECOND), false);
  b.registry.releaseName("default", "hits", FIRST, true);
  while (await b.registry.findName("default", "hits") !== undefined);
  assertEquals(await a.take(SECOND), true);
});

Deno.test("a name is certain with its actor's record, and nobody's if the node is gone before", async () => {
  using store = new ControlStore();
  const [a, b] = await nodes(store);
  const certain = async () => (await b.registry.findName("default", "hits"))?.certain;
  assertEquals(await certain(), undefined);
  await a.take(FIRST);
  assertEquals(await certain(), false);
  await a.leave();
  assertEquals(await certain(), undefined);
  await a.record(FIRST);
  assertEquals(await certain(), true);
});

Deno.test("whoever looked before a name was certain does not take it afterwards", async () => {
  using store = new ControlStore();
  const [a, b] = await nodes(store);
  assertEquals(await a.take(FIRST), true);
  await a.leave();
  const late = b.take(SECOND); // while it looks who has the name ...
  await a.record(FIRST);
  const certain = await a.confirm(FIRST);
  assertEquals([certain, await late].filter(Boolean).length, 1);
  assertEquals(await b.take(SECOND), !certain);
});

Deno.test("an actor that never came to its name is not moved, and one that did is", async () => {
  for (const taken of [true, false]) {
    using store = new ControlStore();
    const [a, b] = await nodes(store);
    assertEquals(await a.take(FIRST), true);
    if (taken) {
      await a.leave();
      assertEquals(await b.take(SECOND), true);
      await a.enter();
    }
    const revision = await a.record(FIRST);
    await a.leave();
    const { place } = (await b.registry.get(FIRST))!;
    const ended = Promise.withResolvers<void>();
    const over =
      <Its extends unknown[], T>(work: (...its: Its) => Promise<T>) => (...its: Its): Promise<T> => {
        const done = work(...its);
        done.then(() => ended.resolve());
        return done;
      };
    const { registry } = b;
    const mover = new ActorMover({
      id: hex(b.id),
      crowdedOut: () => [],
      passOn: () => {},
      holdBack: () => Promise.resolve(),
      letBe: () => {},
      registry: { ...registry, assign: over(registry.assign), remove: over(registry.remove) },
      clock: systemClock,
      actors: { places: new Map([[FIRST, { place, revision }]]), placeAgain: () => b.id },
      leads: () => true,
      isThere: (id) => id === hex(b.id),
      farJobs: () => [],
      jobGone: () => {},
      log: () => {},
    });
    mover.look();
    await ended.promise;
    assertEquals((await registry.get(FIRST))?.place.node, taken ? undefined : hex(b.id));
    assertEquals((await registry.findName("default", "hits"))?.id, hex(taken ? SECOND : FIRST));
  }
});

Deno.test("what is on its way to a journal that is being removed is removed with it", async () => {
  using store = new ControlStore();
  const client = await store.client(idOf(11));
  const put = (part: string) => ({ put: [{ part, bytes: Uint8Array.of(1) }], delete: [] });
  let late: Promise<boolean> | undefined;
  const a = new Node(1, {
    ...methods(client),
    list: async (prefix: string) => {
      const found = await client.list(prefix);
      // It arrives just after it was looked what there is.
      late ??= a.registry.write(FIRST, revision, put("call/1"));
      await late;
      return found;
    },
  });
  const revision = await a.record(FIRST);
  assertEquals(await a.registry.write(FIRST, revision, put("call/0")), true);
  assertEquals(await a.registry.remove(FIRST, revision), true);
  assertEquals(await late, true);
  assertEquals(await client.list("journal/"), []);
  assertEquals(await a.registry.write(FIRST, revision, put("call/2")), false);
});

Deno.test("an actor is removed though the control store forgets the node meanwhile", async () => {
  using store = new ControlStore();
  const client = await store.client(idOf(11));
  let forgets = false;
  const a = new Node(1, {
    ...methods(client),
    batch: (operations: Parameters<GcsClient["batch"]>[0]) => {
      if (!forgets) return client.batch(operations);
      forgets = false;
      return Promise.reject(new DisconnectedError("forgotten"));
    },
  });
  const revision = await a.record(FIRST);
  forgets = true;
  assertEquals(await a.registry.remove(FIRST, revision), true);
  assertEquals(await client.list("actor/"), []);
});

/** What a registry uses of a client. */
function methods(client: GcsClient): Pick<GcsClient, "get" | "put" | "delete" | "batch" | "list" | "closed"> {
  return {
    get: (key) => client.get(key),
    put: (...its) => client.put(...its),
    delete: (...its) => client.delete(...its),
    batch: (operations) => client.batch(operations),
    list: (prefix) => client.list(prefix),
    closed: client.closed,
  };
}
