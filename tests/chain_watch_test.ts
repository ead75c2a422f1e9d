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
import { decodeFromGcs, encodeGcs, type FromGcs, GCS_PROTOCOL, type ToGcs } from "../gcs/protocol.ts";
import { GcsServer } from "../gcs/server.ts";
import { Channel, streamPair } from "../transport/channel.ts";
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
