/**
 * Watches of a control store with several members: what a client asks of a member is answered though the client knew of a
 * configuration before the member did.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { systemClock } from "../core/clock.ts";
import { type TaskId, taskIdFromHex } from "../core/ids.ts";
import { VERSION } from "../core/version.ts";
import { FOUNDER } from "../gcs/chain_config.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";
import { GcsClient } from "../gcs/client.ts";
import {
  decodeFromGcs,
  decodeToGcs,
  encodeGcs,
  type FromGcs,
  GCS_PROTOCOL,
  type ToGcs,
} from "../gcs/protocol.ts";
import { GcsServer } from "../gcs/server.ts";
import { type ByteStream, Channel, streamPair } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";
import { until } from "./fixtures/files.ts";

const TOKEN = "t".repeat(64);
const idOf = (n: number): TaskId => taskIdFromHex(n.toString(16).padStart(32, "0"));
const SECOND = "5".repeat(32);

/** Memory whose transactions cannot fail. */
class TransactionalMemory extends MemoryStorage {
  transaction<T>(body: () => T): T {
    return body();
  }
}

/** Two members of a store, in one process. */
function members(): { first: GcsServer; second: GcsServer; connect(): void } & Disposable {
  const servers = new Map<string, GcsServer>();
  let connected = false;
  const start = (member: string) => {
    const server = new GcsServer({
      cluster: idOf(9),
      token: TOKEN,
      storages: [new TransactionalMemory()],
      clock: systemClock,
      log: () => {},
      chain: {
        member,
        incarnation: 1,
        replicas: member === FOUNDER ? 2 : undefined,
        founds: member === FOUNDER,
        lingers: member === FOUNDER,
        durable: true,
        self: member,
        send: (to, data) => {
          if (connected) queueMicrotask(() => servers.get(to)!.member.received(member, data));
        },
        map: ({ epoch, chain, acceptors, replicas }) => ({
          epoch,
          head: chain[0]!,
          tail: chain.at(-1)!,
          members: [...servers.keys()],
          deciders: acceptors,
          chain,
          parts: chain,
          replicas,
        }),
      },
    });
    servers.set(member, server);
    return server;
  };
  const [first, second] = [start(FOUNDER), start(SECOND)];
  return {
    first,
    second,
    connect() {
      connected = true;
      first.member.meet(SECOND);
      second.member.meet(FOUNDER);
    },
    [Symbol.dispose]() {
      first.close();
      second.close();
    },
  };
}

/** A client of a member that speaks by hand. */
function connect(server: GcsServer, client: number) {
  const [ours, theirs] = streamPair();
  server.accept(theirs);
  const channel = new Channel<ToGcs, FromGcs>(checked(ours), decodeFromGcs, "microtask", encodeGcs);
  const received: FromGcs[] = [];
  channel.start({ message: (message) => received.push(structuredClone(message)), closed: () => {} });
  channel.send({
    type: "hello",
    protocol: GCS_PROTOCOL,
    version: VERSION,
    token: TOKEN,
    client: idOf(client),
  });
  return { channel, received };
}

Deno.test("a watch that a member is sent before it knows of any configuration is told what changes once it is the tail", async () => {
  using store = members();
  const writer = connect(store.first, 1), watcher = connect(store.second, 2);
  await systemClock.turn();
  watcher.channel.send({ type: "watch", watch: 0, shard: 0, prefix: "k/", after: 0 });
  await systemClock.turn();
  store.connect();
  await until(
    "the second member is the tail",
    () => store.second.member.isTail && store.second.member.readable(0),
  );
  writer.channel.send({
    type: "request",
    request: 1,
    shard: 0,
    sequence: 1,
    acknowledged: 0,
    operations: [{ kind: "put", key: "k/a", value: Uint8Array.of(7), expect: -1, lease: false }],
  });
  const keys = () =>
    watcher.received.flatMap((message) =>
      message.type === "changes" ? message.changes.map(({ key }) => key) : []
    );
  await until("the watcher was told", () => keys().length > 0);
  assertEquals(keys(), ["k/a"]);
});

/** A member that is played by hand: what it was sent, and what it says. */
function played() {
  const received: ToGcs[] = [];
  let channel: Channel<FromGcs, ToGcs> | undefined;
  return {
    received,
    accept(stream: ByteStream) {
      channel = new Channel<FromGcs, ToGcs>(checked(stream), decodeToGcs, "microtask", encodeGcs);
      channel.start({ message: (message) => received.push(structuredClone(message)), closed: () => {} });
    },
    send: (message: FromGcs) => channel!.send(message),
    watches: () => received.flatMap((message) => message.type === "watch" ? [message] : []),
  };
}

Deno.test("a client that comes back to a member misses nothing, though that still tells what it was asked before", async () => {
  const members = { a: played(), b: played() };
  const client = new GcsClient({
    id: idOf(3),
    token: TOKEN,
    clock: systemClock,
    connect: (address = "b") => {
      const [here, there] = streamPair();
      members[address as "a" | "b"].accept(there);
      return Promise.resolve(here);
    },
  });
  const { a, b } = members;
  const map = (self: "a" | "b", epoch: number, tail: "a" | "b") => {
    const all = ["a", "b"];
    members[self].send({
      type: "map",
      cluster: idOf(9),
      shards: 1,
      self,
      map: { epoch, head: "b", tail, members: all, deciders: all, chain: all, parts: all, replicas: 2 },
    });
  };
  const started = client.start();
  await until("it has said hello", () => b.received.length > 0);
  map("b", 1, "b");
  b.send({ type: "welcome", known: false });
  await started;
  await until("it is connected to both", () => a.received.length > 0);
  map("a", 1, "b");

  const seen: string[] = [];
  const watching = client.watch("k/", (key, _value, revision) => seen.push(`${key} ${revision}`));
  await until("it watches at the tail", () => b.watches().length === 1);
  const [first] = b.watches();
  const changes = (watch: number, revision: number, ...revisions: number[]): FromGcs => ({
    type: "changes",
    watch,
    shard: 0,
    whole: false,
    revision,
    changes: revisions.map((revision) => ({ key: `k/${revision}`, value: Uint8Array.of(1), revision })),
  });
  b.send({ ...changes(first!.watch, 100), whole: true } as FromGcs);
  await watching;
  map("b", 2, "a");
  await until("it watches at the next tail", () => a.watches().length === 1);
  a.send(changes(a.watches()[0]!.watch, 100));
  await systemClock.turn();
  b.send(changes(first!.watch, 101, 101)); // it does not hear the tail's
  map("b", 3, "b");
  b.send(changes(first!.watch, 102, 102)); // before it has heard that it is asked anew
  await until("it watches there again", () => b.watches().length === 2);
  assertEquals(b.watches()[1]!.after, 100);
  b.send(changes(b.watches()[1]!.watch, 102, 101, 102));
  await until("it was told", () => seen.length === 2);
  assertEquals(seen, ["k/101 101", "k/102 102"]);
  client.close();
});
