/**
 * A control store without a majority, as clients see it: what they are told, and that they are told rather than kept
 * waiting; and that one which merely takes its time is waited for.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import type { Clock } from "../core/clock.ts";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError, NoMajorityError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { GcsClient } from "../gcs/client.ts";
import { decodeToGcs, encodeGcs, type FromGcs, type ToGcs } from "../gcs/protocol.ts";
import { noMajority, outOfDate } from "../gcs/quorum.ts";
import { Channel, streamPair } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";

const id = taskIdFromBytes(new Uint8Array(16).fill(1));
const PATIENCE_MS = 4_000;

/** A clock on which whoever waits has waited; other timers never fire. */
class Hasty implements Clock {
  #now = 0;
  /** Called with each time that is waited for. */
  waited: (ms: number) => void = () => {};

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void): () => void {
    let undone = false;
    if (ms < 250) return () => {}; // connections are not tried again
    this.waited(ms);
    setTimeout(() => {
      this.#now += ms;
      if (!undone) callback();
    }, 0);
    return () => undone = true;
  }

  turn(): Promise<void> {
    return systemClock.turn();
  }
}

/** Members of a store of three, of which some can be reached, and a client. @param leads Whether the head says so at once. */
function storeOf(up: readonly string[], clock: Clock, leads = false) {
  const members = ["a:1", "b:1", "c:1"];
  const channels = new Map<string, Channel<FromGcs, ToGcs>>();
  const client = new GcsClient({
    id,
    token: "t",
    clock,
    patienceMs: PATIENCE_MS,
    connect(address = "a:1") {
      if (!up.includes(address)) return Promise.reject(new DisconnectedError("nobody listens there"));
      const [mine, theirs] = streamPair();
      const channel = new Channel<FromGcs, ToGcs>(checked(theirs), decodeToGcs, "microtask", encodeGcs);
      channels.set(address, channel);
      channel.start({
        message: ({ type }) => {
          if (type !== "hello") return;
          const map = {
            epoch: 5,
            head: "a:1",
            tail: "a:1",
            members,
            deciders: members,
            chain: [],
            parts: [],
            replicas: 3,
          };
          channel.send({ type: "map", cluster: id, shards: 1, self: address, map });
          if (leads) channel.send({ type: "welcome", known: false });
        },
        closed: () => {},
      });
      return Promise.resolve(mine);
    },
  });
  return { client, channels };
}

Deno.test("a client of a store without a majority is told who answers, who does not, and what to do", async () => {
  const clock = new Hasty();
  const { client } = storeOf(["a:1"], clock);
  await assertRejects(
    () => client.start(),
    NoMajorityError,
    "The control store has no majority: of the 3 members that decide, 1 answers (a:1) and 2 do not (b:1, c:1). Start 1 " +
      "of them again, on the --dir that it had (rayd head, rayd worker)",
  );
  assertEquals(clock.now(), PATIENCE_MS);
  assertEquals((await client.mapped).epoch, 5);
});

Deno.test("what is asked of a store that loses its majority fails, and can be asked again", async () => {
  const { client } = storeOf(["a:1"], new Hasty(), true);
  await client.start();
  await assertRejects(() => client.get("key"), NoMajorityError, "of the 3 members that decide, 1 answers");
  await assertRejects(() => client.put("key", new Uint8Array()), NoMajorityError);
  await assertRejects(() => client.watch("key", () => {}), NoMajorityError);
  assertEquals(client.connected, true);
  client.close();
});

Deno.test("a client waits for a store whose members answer, as they may be changing their head", async () => {
  const clock = new Hasty();
  const { client, channels } = storeOf(["a:1", "c:1"], clock);
  clock.waited = (ms) => {
    if (ms !== PATIENCE_MS) channels.get("a:1")!.send({ type: "welcome", known: false });
  };
  await client.start();
  client.close();
});

Deno.test("but not for ever", async () => {
  const { client } = storeOf(["a:1", "c:1"], new Hasty());
  await assertRejects(
    () => client.start(),
    NoMajorityError,
    "The control store does not answer, though 2 of the 3 members that decide can be reached (a:1, c:1): see whether " +
      "they reach each other",
  );
});

Deno.test("what is said without a majority fits how many members there are", () => {
  assertEquals(
    noMajority({ answering: [], missing: ["b:1"] }).message,
    "The control store has no majority: the member that decides does not answer (b:1). Start it again, on the --dir " +
      "that it had (rayd head, rayd worker)",
  );
  assertEquals(
    noMajority({ answering: ["a:1", "b:1"], missing: ["c:1", "d:1", "unknown"] }).message,
    "The control store has no majority: of the 5 members that decide, 2 answer (a:1, b:1) and 3 do not (c:1, d:1, one " +
      "whose address is not known). Start 1 of them again, on the --dir that it had (rayd head, rayd worker)",
  );
  assertEquals(
    outOfDate("/store", { answering: [], missing: ["b:1"] }).message,
    "The control store in /store is old: this node had left it, and it went on without. The newest is kept at b:1, " +
      "which does not answer. Start that again on the --dir that it had (rayd worker), and this one then; or begin a new " +
      "cluster with another --dir",
  );
});
