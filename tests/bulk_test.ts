/**
 * Objects from store to store over TCP, where the library moves the bytes: with connections that spoil them, break, and fall
 * silent, and nothing left open afterwards. What does not depend on the network is in `tests/transfer_test.ts`.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError } from "../core/errors.ts";
import { type ObjectId, putId } from "../core/ids.ts";
import { PULL_PIECE_BYTES } from "../core/limits.ts";
import type { Transfers } from "../node/transfer.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { plainTcp } from "../transport/tcp.ts";
import { idOf, transfersOf } from "./transferring.ts";

const objectOf = (n: number): ObjectId => putId(idOf(1000), n);
const SIZE = 2 * PULL_PIECE_BYTES + 3 * 1024 * 1024 + 5;

/** What lies between the sender and a receiver: called with each block on its way; `undefined` ends the connection. */
type Wire = (block: Uint8Array) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

const sockets = (): number =>
  [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`).startsWith("socket:");
    } catch {
      return false; // closed meanwhile
    }
  }).length;

/** Waits until a condition holds. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const late = systemClock.now() + 30_000;
  while (!condition()) {
    assert(systemClock.now() < late, what);
    await new Promise<void>((resolve) => systemClock.after(5, resolve));
  }
}

/** Nodes that listen on loopback; node 0 has the objects. */
class Network implements AsyncDisposable {
  readonly stores: ObjectStore[] = [];
  readonly transfers: Transfers[] = [];
  readonly #listeners: Deno.TcpListener[] = [];
  readonly #running: Promise<unknown>[] = [];
  readonly #wired = new Set<Deno.TcpConn>();
  readonly #socketsBefore = sockets();
  readonly pulls = new Map<number, Promise<unknown>>();
  /** Between all nodes, if it is set. */
  wire: Wire | undefined;

  constructor(nodes: number, readonly size = SIZE, objects = 1) {
    for (let n = 0; n < nodes; n++) this.#add(n, objects);
    for (let object = 0; object < objects; object++) {
      const place = this.stores[0]!.create(objectOf(object), size) as Uint8Array;
      for (let i = 0; i < size; i += 997) place[i] = i + object;
      this.stores[0]!.seal(objectOf(object));
    }
  }

  #add(n: number, objects: number): void {
    const store = ObjectStore.create(raystoreLibrary(), { capacity: 2 * objects * this.size + 1024 * 1024 });
    const transfers = transfersOf(n, store, this.pulls, (to) => this.#dial(to));
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#running.push((async () => {
      for await (const conn of listener) this.#running.push(transfers.serve(conn));
    })());
    this.stores.push(store);
    this.transfers.push(transfers);
    this.#listeners.push(listener);
  }

  async #dial(to: number): Promise<Deno.TcpConn> {
    const { port } = this.#listeners[to]!.addr as Deno.NetAddr;
    const there = await Deno.connect({ hostname: "127.0.0.1", port });
    const { wire } = this;
    if (wire === undefined) return there;
    const between = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const [here, near] = await Promise.all([Deno.connect({ port: between.addr.port }), between.accept()]);
    between.close();
    const ends = [there, near];
    for (const end of ends) this.#wired.add(end);
    const end = () => {
      for (const conn of ends) if (this.#wired.delete(conn)) conn.close();
    };
    const carry = async (from: Deno.TcpConn, to: Deno.TcpConn, pass: Wire) => {
      const block = new Uint8Array(64 * 1024);
      try {
        for (;;) {
          const count = await from.read(block);
          const passed = count === null ? undefined : await pass(block.subarray(0, count));
          if (passed === undefined) return;
          for (let at = 0; at < passed.length;) at += await to.write(passed.subarray(at));
        }
      } catch {
        // One of them has ended.
      } finally {
        end();
      }
    };
    this.#running.push(carry(there, near, wire), carry(near, there, (block) => block));
    return here;
  }

  pull(to: number, from = 0, object = 0): Promise<unknown> {
    const pulled = this.transfers[to]!.pull(idOf(from), objectOf(object), this.size);
    this.pulls.set(to, pulled);
    return pulled;
  }

  /** Whether a node has an object, as it was. */
  has(n: number, object = 0): boolean {
    const view = this.stores[n]!.get(objectOf(object));
    if (view === undefined) return false;
    const { bytes } = view;
    let sound = bytes.length === this.size;
    for (let i = 0; i < this.size; i += 997) sound &&= bytes[i] === ((i + object) & 255);
    view.release();
    return sound;
  }

  /** Ends all; every connection must be closed then, and nobody may pin anything any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const transfers of this.transfers) transfers.close();
    for (const listener of this.#listeners) listener.close();
    for (const conn of this.#wired) if (this.#wired.delete(conn)) conn.close();
    while (this.#running.length > 0) await this.#running.pop();
    await until(() => sockets() <= this.#socketsBefore, "a socket is left open");
    await until(() => this.stores.every((store) => store.stats().pinned === 0), "an object is left pinned");
    for (const store of this.stores) store.close();
  }
}

Deno.test("plainTcp says the ends of a connection over TCP, which a store finds by them, and of no other", async () => {
  using store = {
    store: ObjectStore.create(raystoreLibrary(), { capacity: 1 << 20 }),
    [Symbol.dispose]() {
      this.store.close();
    },
  };
  for (const hostname of ["127.0.0.1", "::1"]) {
    using listener = Deno.listen({ hostname, port: 0 });
    const [conn, other] = await Promise.all([
      Deno.connect({ hostname, port: listener.addr.port }),
      listener.accept(),
    ]);
    const { local, peer } = plainTcp(conn)!;
    const socket = store.store.bulkSocket(local, peer)!;
    assert(socket !== undefined, `${local} to ${peer} is found`);
    const open = sockets();
    socket.close();
    socket.close();
    assertEquals(sockets(), open - 1, "its descriptor is closed, and that of nobody else");
    assertEquals(await other.read(new Uint8Array(1)), null, "the connection has ended");
    await assertRejects(() => socket.send(new Uint8Array(1)), DisconnectedError);
    conn.close();
    other.close();
    assertEquals(store.store.bulkSocket(local, peer), undefined);
  }
  assertEquals(
    plainTcp({ read: () => Promise.resolve(null), write: () => Promise.resolve(0), close() {} }),
    undefined,
  );
});

Deno.test("an object comes over TCP, and is passed on while it arrives and when it is there", async () => {
  await using network = new Network(8);
  const errors = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => network.pull(n)));
  errors.push(await network.pull(7, 6));
  assertEquals(errors, Array.from({ length: 7 }, () => undefined));
  for (let n = 0; n < 8; n++) assert(network.has(n), `node ${n} has it`);
});

Deno.test("more objects than the library moves at once come all", async () => {
  await using network = new Network(4, 1024 * 1024 + 77, 40);
  const pulls = Array.from({ length: 40 }, (_, object) => [1, 2, 3].map((n) => network.pull(n, 0, object)));
  for (const error of await Promise.all(pulls.flat())) assertEquals(error, undefined);
  for (let object = 0; object < 40; object++) {
    for (let n = 1; n < 4; n++) assert(network.has(n, object), `node ${n} has object ${object}`);
  }
});

Deno.test("bits that turn over between sockets are noticed, and only their piece is asked for again", async () => {
  await using network = new Network(2);
  let passed = 0, spoilt = 0;
  network.wire = (block) => {
    const from = passed;
    passed += block.length;
    if (spoilt > 0 || passed < PULL_PIECE_BYTES * 1.5 || from < 1000) return block;
    spoilt++;
    block[17]! ^= 64;
    return block;
  };
  assertEquals(await network.pull(1), undefined);
  assert(network.has(1) && spoilt === 1);
  assert(passed < 2 * SIZE - PULL_PIECE_BYTES + 1000, "the first piece was kept");
  await using worse = new Network(2);
  worse.wire = (block) => {
    if (block.length > 1000) block[block.length >> 1]! ^= 1;
    return block;
  };
  assertInstanceOf(await worse.pull(1), DisconnectedError);
  assertEquals(worse.stores[1]!.stats().used, 0, "its place is given back");
});

Deno.test("a connection that breaks in the middle is made anew, and what is here stays", async () => {
  await using network = new Network(2);
  let passed = 0, broken = 0;
  network.wire = (block) => {
    passed += block.length;
    if (broken > 0 || passed < PULL_PIECE_BYTES * 1.5) return block;
    broken++;
    return undefined;
  };
  assertEquals(await network.pull(1), undefined);
  assert(network.has(1) && broken === 1);
  assert(passed < SIZE + PULL_PIECE_BYTES, "the first piece was kept");
});

for (const who of ["receiver", "sender"] as const) {
  Deno.test(`a ${who} that closes while the other side is silent ends the transfer on both`, async () => {
    await using network = new Network(2);
    const silent = Promise.withResolvers<void>(), over = Promise.withResolvers<undefined>();
    let passed = 0;
    network.wire = (block) => {
      passed += block.length;
      if (passed < PULL_PIECE_BYTES * 1.5) return block;
      silent.resolve();
      return over.promise;
    };
    const pulled = network.pull(1);
    await silent.promise;
    network.transfers[who === "receiver" ? 1 : 0]!.close();
    if (who === "sender") {
      // Its sockets close at once, and it pins the object no more, though nothing of what it sent is read.
      await until(() => network.stores[0]!.stats().pinned === 0, "the sender still pins the object");
      network.transfers[1]!.forget(idOf(0));
    }
    network.wire = () => undefined;
    over.resolve(undefined);
    assertInstanceOf(await pulled, DisconnectedError);
    assertEquals(network.stores[1]!.stats().used, 0, "its place is given back");
  });
}
