/**
 * How many times messages have to go from member to member until a chain of three goes on without one that was killed: the
 * machines alone, with messages that all take the same time.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type ChainConfig, FOUNDER, type MemberId } from "../gcs/chain_config.ts";
import type { MemberSend } from "../gcs/chain_consensus.ts";
import { ChainMaster } from "../gcs/chain_master.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";

const [A, B, C] = [FOUNDER, "b".repeat(32), "c".repeat(32)];
const CONFIG: ChainConfig = {
  epoch: 1,
  chain: [A, B, C],
  acceptors: [A, B, C],
  joining: undefined,
  replicas: 3,
};
const INCARNATION = 1, TICK_MS = 100;

/** Three members that have been together for a while, and of which one is killed. */
class Trio {
  readonly #masters = new Map<MemberId, ChainMaster>();
  #now = 0;
  #underWay: { readonly from: MemberId; readonly send: MemberSend }[] = [];

  constructor() {
    for (const member of CONFIG.chain) {
      const master = new ChainMaster({
        member,
        incarnation: INCARNATION,
        storage: new MemoryStorage(),
        known: CONFIG.chain.filter((each) => each !== member),
        offers: true,
        durable: true,
        synced: () => 0,
        now: 0,
        suspectMs: 1_500,
        leaseMs: 1_000,
      });
      master.found(CONFIG);
      this.#masters.set(member, master);
    }
    for (let ticks = 0; ticks < 30; ticks++) {
      for (const [member, master] of this.#masters) {
        this.#send(member, master.step({ type: "tick" }, this.#now));
      }
      this.#round();
      this.#round();
      this.#now += TICK_MS;
    }
  }

  #send(from: MemberId, sends: readonly MemberSend[]): void {
    this.#underWay.push(...sends.map((send) => ({ from, send })));
  }

  /** All that is under way arrives. To oneself, messages take no time. */
  #round(): void {
    const arriving = this.#underWay;
    this.#underWay = [];
    while (arriving.length > 0) {
      const { from, send: { to, message } } = arriving.shift()!;
      const master = this.#masters.get(to);
      if (master === undefined) continue;
      this.#send(to, master.step({ type: "message", from, message }, this.#now));
      const own = this.#underWay.filter(({ from, send }) => from === send.to);
      this.#underWay = this.#underWay.filter(({ from, send }) => from !== send.to);
      arriving.unshift(...own);
    }
  }

  /** @returns After how many rounds there is a tail that answers, though nobody's clock goes on. */
  kill(victim: MemberId, knowing: readonly MemberId[]): number {
    this.#masters.delete(victim);
    for (const member of knowing) {
      const sends = this.#masters.get(member)!.step(
        { type: "dead", member: victim, incarnation: INCARNATION },
        this.#now,
      );
      this.#send(member, sends);
    }
    for (let rounds = 0; rounds < 20; rounds++) {
      const leased = [...this.#masters.values()].filter((master) => master.leased(this.#now));
      if (leased.length === 1 && leased[0]!.config!.epoch === 2) return rounds;
      this.#round();
    }
    throw new Error("the chain does not go on");
  }
}

const others = (victim: MemberId) => CONFIG.chain.filter((each) => each !== victim);

Deno.test("three messages, one after the other, and a chain goes on without one whom all know to be dead", () => {
  for (const victim of [B, C]) assertEquals(new Trio().kill(victim, others(victim)), 3);
});

Deno.test("without its first, whose ballot nobody else has, it takes one more", () => {
  assertEquals(new Trio().kill(A, others(A)), 4);
});

Deno.test("what one knows to be dead, the others need not find out", () => {
  assertEquals(new Trio().kill(B, [A]), 3);
  assertEquals(new Trio().kill(B, [C]), 4);
  assertEquals(new Trio().kill(C, [B]), 4);
  assertEquals(new Trio().kill(A, [B]), 5);
  assertEquals(new Trio().kill(A, [C]), 4);
});
