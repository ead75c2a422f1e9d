/**
 * Members of a control store that are stopped gently: that they are let go of at once, who is the last one, and what it
 * waits for. Masters whose messages arrive at the same instant, so that whatever has to wait for time does not come about.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { systemClock } from "../core/clock.ts";
import { type ChainConfig, FOUNDER, type MemberId } from "../gcs/chain_config.ts";
import type { MemberSend } from "../gcs/chain_consensus.ts";
import { ChainMaster, type MasterEvent } from "../gcs/chain_master.ts";
import { ChainMember, type TransactionalStorage } from "../gcs/chain_member.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";

const LEASE_MS = 1_000, LINGER = { ms: 1_000, msMax: 35_000 };
const [A, B, C] = [FOUNDER, "b".repeat(32), "c".repeat(32)];

/** Masters of one store. */
class Members {
  readonly #masters = new Map<MemberId, ChainMaster>();
  #now = 0;

  /** Whether the tail has brought up to date who joins. */
  synced = false;

  /** @param chain Who is there. @param temporary Whose replicas go with their processes. @param spare Who is there, too. */
  constructor(
    chain: readonly MemberId[],
    temporary: readonly MemberId[] = [],
    spare: readonly MemberId[] = [],
  ) {
    const config: ChainConfig = { epoch: 1, chain, acceptors: chain, joining: undefined, replicas: 3 };
    for (const member of [...chain, ...spare]) {
      const master = new ChainMaster({
        member,
        incarnation: 1,
        storage: new MemoryStorage(),
        known: [...chain, ...spare],
        offers: true,
        durable: !temporary.includes(member),
        synced: () => this.synced ? this.config(member).epoch : 0,
        now: 0,
        suspectMs: 1_500,
        leaseMs: LEASE_MS,
        ...(member === FOUNDER ? { linger: LINGER } : {}),
      });
      if (chain.includes(member)) master.found(config);
      this.#masters.set(member, master);
    }
    // Until all have been here for longer than a lease lasts, and the tail has one.
    for (let i = 0; i < 20; i++) this.pass(100);
  }

  /** Lets time pass, and everybody tick. */
  pass(ms: number): void {
    this.#now += ms;
    for (const member of [...this.#masters.keys()]) this.#step(member, { type: "tick" });
  }

  leave(member: MemberId, when: "soon" | "now" = "now"): void {
    this.#step(member, { type: "leave", when });
  }

  /** Their processes end, and the others know. */
  end(member: MemberId): void {
    this.#masters.delete(member);
    for (const other of [...this.#masters.keys()]) {
      this.#step(other, { type: "dead", member, incarnation: 1 });
    }
  }

  config(member: MemberId): ChainConfig {
    return this.#masters.get(member)!.config!;
  }

  /** Who may end. */
  get left(): MemberId[] {
    return [...this.#masters].filter(([, master]) => master.left).map(([member]) => member);
  }

  leased(member: MemberId): boolean {
    return this.#masters.get(member)!.leased(this.#now);
  }

  #step(member: MemberId, event: MasterEvent): void {
    const sends: (MemberSend & { from: MemberId })[] = [];
    const take = (of: MemberId, event: MasterEvent) => {
      for (const send of this.#masters.get(of)?.step(event, this.#now) ?? []) {
        sends.push({ ...send, from: of });
      }
    };
    take(member, event);
    for (let next, taken = 0; (next = sends.shift()) !== undefined;) {
      assert(++taken < 10_000, "they have always something more to say");
      take(next.to, { type: "message", from: next.from, message: next.message });
    }
  }
}

for (const [who, member, rest] of [["middle", B, [A, C]], ["tail, which has a lease,", C, [A, B]]] as const) {
  Deno.test(`a member that leaves is out at the same instant: the ${who}`, () => {
    const members = new Members([A, B, C]);
    assertEquals(members.leased(C), true);
    members.leave(member);
    assertEquals(members.left, [member]);
    assertEquals(members.config(A).chain, rest);
    assertEquals(members.config(A).acceptors, [A], "it is not asked any more");
    assertEquals(members.leased(member), false);
  });
}

Deno.test("the head that leaves is out at the same instant, if it is not the founder, which lingers", () => {
  const members = new Members([B, A, C]);
  members.leave(B);
  assertEquals(members.left, [B]);
  assertEquals(members.config(A).chain, [A, C]);
});

Deno.test("the founder is the last of those that leave at about the same time, and then waits no longer", () => {
  const members = new Members([A, B, C]);
  members.leave(A);
  assertEquals(members.left, []);
  members.pass(100);
  members.leave(C, "soon");
  members.leave(B, "soon");
  for (let i = 0; i < 300; i++) members.pass(100); // they drain
  assertEquals(members.left, []);
  members.leave(C);
  members.leave(B);
  assertEquals(members.config(A), { epoch: 3, chain: [A], acceptors: [A], joining: undefined, replicas: 3 });
  members.pass(0);
  assertEquals(members.left, [A, B, C]);
});

Deno.test("the founder leaves when nobody else says that it ends, and when those who said so do not", () => {
  for (const [others, ms] of [[[], LINGER.ms], [[B], LINGER.msMax]] as const) {
    const members = new Members([A, B, C]);
    for (const other of others) members.leave(other, "soon");
    members.leave(A);
    for (let passed = 0; passed < ms - 100; passed += 100) members.pass(100);
    assertEquals(members.left, []);
    members.pass(100);
    assertEquals(members.left, [A]);
    assertEquals(members.config(B).chain, [B, C]);
  }
});

Deno.test("of two that are left, the one decides whose replica outlasts its process, and the other can be lost", () => {
  const members = new Members([A, B, C], [B]);
  members.leave(A);
  for (let i = 0; i < 10; i++) members.pass(100);
  assertEquals(members.left, [A]);
  assertEquals(members.config(C).acceptors, [C]);
  members.end(A);
  members.end(B);
  members.pass(LEASE_MS);
  assertEquals(members.config(C).chain, [C]);
  assertEquals(members.leased(C), true);
});

Deno.test("the last one waits for nobody who is gone", () => {
  const members = new Members([B, C]);
  members.leave(C);
  members.end(C);
  members.leave(B);
  assertEquals(members.left, [B]);
});

Deno.test("the last one stays until a member that joins has all, and leaves it to that", () => {
  const members = new Members([B], [], [C]);
  assertEquals(members.config(B).joining, C);
  members.leave(B);
  assertEquals(members.left, []);
  members.synced = true;
  members.pass(100);
  members.pass(100);
  assertEquals(members.left, [B]);
  assertEquals([members.config(C).chain, members.config(C).acceptors], [[C], [C]]);
});

/** A disk that is full from some moment on. */
class Disk extends MemoryStorage implements TransactionalStorage {
  full = false;

  transaction<T>(body: () => T): T {
    if (this.full) throw new Error("there is no space left");
    return body();
  }
}

for (const replicas of [1, 3]) {
  Deno.test(`a member that cannot write that it leaves ends as if it had died: ${replicas} replicas`, async () => {
    const disk = new Disk();
    const member = new ChainMember({
      member: FOUNDER,
      incarnation: 1,
      storages: [disk],
      clock: systemClock,
      log: () => {},
      replicas,
      founds: true,
      lingers: true,
      durable: true,
      send: () => {},
    }, { effect: () => {}, flush: () => {}, changed: () => {}, failed: () => {} });
    member.start();
    disk.full = true;
    assertEquals((await member.leave()).left, false);
    member.close();
  });
}
