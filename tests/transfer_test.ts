/**
 * Objects from store to store: among many nodes, with nodes that fail, and with bytes that arrive damaged.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError } from "../core/errors.ts";
import { hex, putId, type TaskId } from "../core/ids.ts";
import { PULL_PIECE_BYTES } from "../core/limits.ts";
import { FANOUT, Spread } from "../node/spread.ts";
import type { Transfers } from "../node/transfer.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { type ByteStream, streamPair } from "../transport/channel.ts";
import { idOf, transfersOf } from "./transferring.ts";

const OBJECT = putId(idOf(1000), 0);
const SIZE = 3 * PULL_PIECE_BYTES - 12345;

/** Nodes that are connected by streams in memory; node 0 has the object. */
class Network implements Disposable {
  readonly stores: ObjectStore[] = [];
  readonly transfers: Transfers[] = [];
  /** Bytes that each node has sent. */
  readonly sent: number[] = [];
  /** Pulls under way, by node: who is asked for the object meanwhile waits for them. */
  readonly pulls = new Map<number, Promise<unknown>>();
  /** Called with each block that a node sends; may spoil it, or end the connection. */
  tamper: (from: number, stream: ByteStream, bytes: Uint8Array) => Uint8Array | Promise<Uint8Array> = (
    _from,
    _stream,
    bytes,
  ) => bytes;

  /** Called with what a node asks another; may spoil it. */
  tamperRequest: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes;

  constructor(nodes: number) {
    for (let n = 0; n < nodes; n++) this.#add(n);
    const place = this.stores[0]!.create(OBJECT, SIZE) as Uint8Array;
    for (let i = 0; i < SIZE; i += 997) place[i] = i;
    this.stores[0]!.seal(OBJECT);
  }

  #add(n: number): void {
    const store = ObjectStore.create(raystoreLibrary(), { capacity: 2 * SIZE });
    this.stores.push(store);
    this.sent.push(0);
    this.transfers.push(transfersOf(n, store, this.pulls, (to) => this.#dial(to)));
  }

  /** Nodes that cannot be reached any more. */
  readonly gone = new Set<number>();

  #dial(to: number): ByteStream {
    if (this.gone.has(to)) throw new Error("nobody is there");
    const [ours, theirs] = streamPair();
    const counted: ByteStream = {
      read: (into) => theirs.read(into),
      write: async (bytes) => {
        this.sent[to]! += bytes.length;
        return await theirs.write(await this.tamper(to, theirs, bytes));
      },
      close: () => theirs.close(),
    };
    this.transfers[to]!.serve(counted);
    return {
      read: (into) => ours.read(into),
      write: async (bytes) => {
        await ours.write(this.tamperRequest(bytes));
        return bytes.length;
      },
      close: () => ours.close(),
    };
  }

  pull(to: number, from = 0): Promise<unknown> {
    const pulled = this.transfers[to]!.pull(idOf(from), OBJECT, SIZE);
    this.pulls.set(to, pulled);
    return pulled;
  }

  /** Whether a node has the object, as it was. */
  has(n: number): boolean {
    const view = this.stores[n]!.get(OBJECT);
    if (view === undefined) return false;
    const { bytes } = view;
    let sound = bytes.length === SIZE;
    for (let i = 0; i < SIZE; i += 997) sound &&= bytes[i] === (i & 255);
    view.release();
    return sound;
  }

  [Symbol.dispose](): void {
    for (const transfers of this.transfers) transfers.close();
    for (const store of this.stores) store.close();
  }
}

Deno.test("an object that many nodes want comes to all of them, and no node sends it to more than a few", async () => {
  using network = new Network(8);
  const errors = await Promise.all([1, 2, 3, 4, 5, 6, 7].map((n) => network.pull(n)));
  assertEquals(errors, Array.from({ length: 7 }, () => undefined));
  for (let n = 0; n < 8; n++) {
    assert(network.has(n), `node ${n} has it`);
    assert(
      network.sent[n]! < (FANOUT + 0.5) * SIZE,
      `node ${n} sent ${network.sent[n]! / SIZE} times the object`,
    );
  }
});

Deno.test("a node that fails while it passes an object on costs nobody the object, nor what had arrived", async () => {
  using network = new Network(6);
  let blocks = 0;
  network.tamper = (from, stream, bytes) => {
    if (from === 1 && bytes.length > 1000 && ++blocks > 20) stream.close();
    return bytes;
  };
  const errors = await Promise.all([1, 2, 3, 4, 5].map((n) => network.pull(n)));
  assertEquals(errors, Array.from({ length: 5 }, () => undefined));
  for (let n = 0; n < 6; n++) assert(network.has(n), `node ${n} has it`);
  assert(blocks > 20, "it did fail");
});

Deno.test("bytes that arrive damaged are asked for again, and never taken", async () => {
  using network = new Network(2);
  let spoilt = 0;
  network.tamper = (_from, _stream, bytes) => {
    if (bytes.length < 1000 || spoilt >= 2) return bytes;
    spoilt++;
    const copy = bytes.slice();
    copy[17]! ^= 1;
    return copy;
  };
  assertEquals(await network.pull(1), undefined);
  assert(network.has(1));
  using worse = new Network(2);
  worse.tamper = (_from, _stream, bytes) => {
    if (bytes.length < 1000) return bytes;
    const copy = bytes.slice();
    copy[17]! ^= 1;
    return copy;
  };
  const error = await worse.pull(1);
  assertInstanceOf(error, DisconnectedError);
  assertEquals(worse.stores[1]!.has(OBJECT), false);
  assertEquals(worse.stores[1]!.stats().used, 0, "its place is given back");
});

Deno.test("requests and answers that are garbled are said again, and never taken for others", async () => {
  using network = new Network(3);
  let spoilt = 0;
  network.tamper = (_from, _stream, bytes) => {
    // Every other answer says that the object is not there, or somewhere else.
    if (bytes.length > 100 || spoilt > 4 || ++spoilt % 2 === 0) return bytes;
    const copy = bytes.slice();
    copy[0] = copy[0] === 2 ? 1 : 2 + spoilt % 3;
    return copy;
  };
  let requests = 0;
  network.tamperRequest = (bytes) => {
    if (bytes.length > 100 || ++requests % 2 === 0 || requests > 6) return bytes;
    const copy = bytes.slice();
    copy[requests]! ^= 4; // another object, which is nowhere
    return copy;
  };
  assertEquals(await network.pull(1), undefined);
  assertEquals(await network.pull(2), undefined);
  assert(network.has(1) && network.has(2) && spoilt > 2 && requests > 2);
});

Deno.test("a node that is gone is not waited for", async () => {
  using network = new Network(2);
  const stuck = Promise.withResolvers<void>(), over = Promise.withResolvers<never>();
  let blocks = 0;
  network.tamper = (_from, _stream, bytes) => {
    if (bytes.length < 1000 || ++blocks < 5) return bytes;
    stuck.resolve();
    // From here on nothing comes any more, and the connection stands.
    return over.promise;
  };
  const pulled = network.pull(1);
  await stuck.promise;
  network.gone.add(0);
  network.transfers[1]!.forget(idOf(0));
  assertInstanceOf(await pulled, DisconnectedError);
  over.reject(new Error("the test is over"));
  await systemClock.turn();
});

Deno.test("Spread sends each further receiver to an earlier one, and to another when that one fails", () => {
  const spread = new Spread();
  const asked = Array.from({ length: 14 }, (_, i) => spread.instead(OBJECT, idOf(i + 1)));
  assertEquals(asked.slice(0, FANOUT), Array.from({ length: FANOUT }, () => undefined));
  const served = new Map<TaskId, number>();
  asked.slice(FANOUT).forEach((other, i) => {
    assert(Number(`0x${hex(other!)}`) < i + FANOUT + 1, "it asked before");
    served.set(other!, (served.get(other!) ?? 0) + 1);
  });
  assert([...served.values()].every((count) => count <= FANOUT));
  assertEquals(spread.instead(OBJECT, idOf(3)), asked[2], "whoever asks again is told the same");
  spread.insists(OBJECT, idOf(3));
  assertEquals(
    spread.instead(OBJECT, idOf(3)),
    undefined,
    "it has taken the place of the one that failed it",
  );
  spread.forget(idOf(3));
  spread.forget(idOf(2));
  assertEquals(spread.instead(OBJECT, idOf(4)), undefined);
});
