/**
 * Leases of a tail as an acceptor sees them: what a late message of a process that has ended must not change.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type ChainConfig, FOUNDER } from "../gcs/chain_config.ts";
import { ChainMaster } from "../gcs/chain_master.ts";
import type { MemberMessage } from "../gcs/chain_messages.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";

const LEASE_MS = 1_000;
const [A, B, C] = [FOUNDER, "b".repeat(32), "c".repeat(32)];
const CONFIG: ChainConfig = {
  epoch: 1,
  chain: [A, B, C],
  acceptors: [A, B, C],
  joining: undefined,
  replicas: 3,
};

/** The acceptor B, whose tail is C, at a time when no lease stands that it does not know of. */
function acceptor() {
  const master = new ChainMaster({
    member: B,
    incarnation: 1,
    storage: new MemoryStorage(),
    known: [A, C],
    offers: true,
    durable: true,
    synced: () => 0,
    now: 0,
    suspectMs: 1_500,
    leaseMs: LEASE_MS,
  });
  master.found(CONFIG);
  let now = 0;
  const take = (from: string, message: MemberMessage) => master.step({ type: "message", from, message }, now);
  return {
    pass: (ms: number) => void (now += ms),
    dies: (incarnation: number) => master.step({ type: "dead", member: C, incarnation }, now),
    /** The tail asks for a lease. @returns Whether it is granted. */
    asks: (incarnation: number, ask: number) =>
      take(C, { type: "lease", epoch: 1, incarnation, ask }).some(({ message }) => message.type === "leased"),
    /** The head wants to go on without the tail. @returns Whether there is a vote for it. */
    votes: (n: number) => {
      const value: ChainConfig = { ...CONFIG, epoch: 2, chain: [A, B] };
      return take(A, { type: "accept", config: CONFIG, ballot: { n, by: A }, value, voted: false })
        .some(({ message }) => message.type === "accepted");
    },
  };
}

Deno.test("a tail that has a lease is not voted out before that is over, or the tail dead", () => {
  const waiting = acceptor();
  waiting.pass(LEASE_MS * 3);
  assertEquals(waiting.asks(1, 1), true);
  assertEquals(waiting.votes(1), false);
  waiting.pass(LEASE_MS + 1);
  assertEquals(waiting.votes(2), true);
});

Deno.test("a vote that waits for a lease is given when the tail is known to be dead, without being asked again", () => {
  const b = acceptor();
  b.pass(LEASE_MS * 3);
  b.asks(1, 1);
  assertEquals(b.votes(0), false);
  assertEquals(
    b.dies(1).filter(({ message }) => message.type === "accepted").map(({ to, message }) => ({
      to,
      message,
    })),
    [{ to: A, message: { type: "accepted", epoch: 1, ballot: { n: 0, by: A } } }],
  );
});

Deno.test("a late ask of a process that has ended takes nothing from the lease of the next one", () => {
  const b = acceptor();
  b.pass(LEASE_MS * 3);
  assertEquals(b.asks(2, 1), true);
  assertEquals(b.asks(1, 7), false);
  b.dies(1);
  assertEquals(b.votes(1), false);
  assertEquals(b.asks(1, 8), false);
});
