/**
 * Where the members of a collective group meet: who is in it, whether all came to the same call, and which memory their
 * results go to. No element of an array that is larger than a message passes through here.
 *
 * A group is a sequence of *generations*. In one, a number of members join, and then meet again and again, each of them
 * once a round. When a member is gone, or does not come in time, the generation is *broken*: everybody who is in it fails,
 * now and later, with the same reason, and a new one can be joined under the same name. What one holds of an old
 * generation can never meet what is of a new one.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { actor, type ActorHandle } from "./actor.ts";
import { context } from "./api.ts";
import { onGone, type Owner } from "./owner.ts";
import type { Ref } from "./ref.ts";
import { currentClient } from "./session.ts";
import { CALLS_MAX } from "./tool.ts";
import { Waiters } from "./waiters.ts";

/** Why a call of a member has no answer. */
export interface Refusal {
  readonly refused: "broken" | "mismatch" | "usage";
  readonly message: string;
}

/** A member's place in a generation. */
export interface Place {
  readonly generation: number;
  readonly rank: number;
  /** The node of each member. */
  readonly nodes: readonly string[];
}

/** What a member brings to a round. */
export interface Offer {
  /** What must be the same of all members, in words. */
  readonly call: string;
  readonly payload: unknown;
  /** Bytes of the result that this member needs room for: the most that any needs is what is found, */
  readonly resultBytes: number;
  /** or, of results that are put together of parts, the sum of all. */
  readonly inParts: boolean;
  /** Result buffers that it has no use for any more. */
  readonly freed: readonly number[];
  /** A result buffer that it has made for this round. */
  readonly made: { readonly ref: Ref<Uint8Array>; readonly bytes: number } | undefined;
}

/** A buffer for results, in memory that all members see. */
export interface ResultBuffer {
  readonly id: number;
  readonly ref: Ref<Uint8Array>;
}

/** What a round has come to. */
export interface Met {
  readonly payloads: readonly unknown[];
  /** Where the result goes; 0 if somebody has to make a buffer first, of so many bytes. */
  readonly result: ResultBuffer | undefined;
  readonly resultBytes: number;
  /** Result buffers that are no more. */
  readonly dropped: readonly number[];
}

interface Member {
  readonly owner: Owner;
  readonly node: string;
  /** The rank that it asked for; -1 for any. */
  readonly asked: number;
  readonly size: number;
  rank: number;
  left: boolean;
}

interface PooledBuffer extends ResultBuffer {
  readonly bytes: number;
  /** The ranks that may still read it. */
  readonly readers: Set<number>;
}

/** One set of members, from the first that joins until all have left, or one is lost. */
class Generation {
  readonly number: number;
  readonly members: Member[] = [];
  /** Those that wait for the others to join, and for the others to come to the round. */
  readonly joining = new Waiters<Member, Place | Refusal>(systemClock);
  readonly meeting = new Waiters<{ rank: number; offer: Offer }, Met | Refusal>(systemClock);
  readonly buffers: PooledBuffer[] = [];
  complete = false;
  broken: Refusal | undefined;

  constructor(number: number) {
    this.number = number;
  }

  get over(): boolean {
    return this.broken !== undefined || this.complete && this.members.every(({ left }) => left);
  }

  break(refused: "broken" | "mismatch", message: string): Refusal {
    const refusal = this.broken ??= { refused, message };
    for (const waiter of this.joining) waiter.serve(refusal);
    for (const waiter of this.meeting) waiter.serve(refusal);
    this.buffers.length = 0;
    return refusal;
  }
}

/** The meeting place of one group. */
class HubObject {
  static concurrencyGroups: Record<string, string> = { join: "join", meet: "meet" };
  readonly #name: string;
  #generation = new Generation(0);
  /** Why older generations were broken; members that were not there when it happened may still ask. */
  readonly #reasons = new Map<number, Refusal>();
  #nextBuffer = 0;

  constructor(name: string) {
    this.#name = name;
  }

  async join(
    size: number,
    asked: number,
    owner: Owner,
    node: string,
    timeoutMs: number,
  ): Promise<Place | Refusal> {
    const before = this.#generation.members.find((member) =>
      member.owner.id === owner.id && member.owner.run !== owner.run
    );
    if (before !== undefined && !before.left) {
      this.#lose(this.#generation, before, "died and came back, and must join anew");
    }
    if (this.#generation.over) this.#begin();
    const generation = this.#generation;
    if (generation.complete) {
      return {
        refused: "usage",
        message:
          `Cannot join group "${this.#name}": it has all its ${generation.members.length} members. Join ` +
          `under another name, or once all of them have left`,
      };
    }
    const member: Member = { owner, node, asked, size, rank: -1, left: false };
    generation.members.push(member);
    const conflict = this.#conflict(generation);
    if (conflict !== undefined) return generation.break("mismatch", conflict);
    onGone(currentClient(), owner, () => {
      if (!member.left && !generation.over) this.#lose(generation, member, "ended without leaving");
      currentClient().flush();
    });
    if (generation.members.length === size) {
      this.#rank(generation);
      for (const { want, serve } of generation.joining) serve(placeOf(generation, want));
      return placeOf(generation, member);
    }
    const result = await generation.joining.wait(member, timeoutMs, context().signal);
    if (typeof result !== "string") return result;
    const why = result === "late" ? `within ${timeoutMs} ms` : "before one of them was cancelled";
    return generation.break(
      "broken",
      `Cannot form group "${this.#name}": ${generation.members.length} of ${size} members joined ${why}: ` +
        generation.members.map(({ owner }) => owner.label).join(", "),
    );
  }

  async meet(number: number, rank: number, offer: Offer, timeoutMs: number): Promise<Met | Refusal> {
    const generation = this.#generation;
    if (generation.number !== number) return this.#reasons.get(number) ?? FORGOTTEN;
    if (generation.broken !== undefined) return generation.broken;
    for (const id of offer.freed) {
      generation.buffers.find((buffer) => buffer.id === id)?.readers.delete(rank);
    }
    const gone = generation.members.find(({ left }) => left);
    if (gone !== undefined) {
      return generation.break(
        "broken",
        this.#sentence(gone, `has left, before ${offer.call} of member ${rank}`),
      );
    }
    if (generation.meeting.size + 1 < generation.members.length) {
      const result = await generation.meeting.wait({ rank, offer }, timeoutMs, context().signal);
      if (typeof result !== "string") return result;
      return this.#late(generation, rank, offer, result === "late" ? timeoutMs : undefined);
    }
    const offers: Offer[] = [];
    for (const { want } of generation.meeting) offers[want.rank] = want.offer;
    offers[rank] = offer;
    const answer = this.#settle(generation, offers);
    for (const waiter of generation.meeting) waiter.serve(answer);
    return answer;
  }

  /** A member cannot go on. */
  fail(number: number, rank: number, why: string): void {
    const generation = this.#generation;
    if (generation.number !== number || generation.over) return;
    this.#lose(generation, generation.members.find((member) => member.rank === rank)!, why);
  }

  /** A run of an actor that only rebuilds its state was a member before. */
  cameBack(owner: Owner): void {
    const generation = this.#generation;
    const member = generation.members.find((member) =>
      member.owner.id === owner.id && member.owner.run !== owner.run
    );
    if (member !== undefined && !member.left && !generation.over) {
      this.#lose(generation, member, "died and came back, and must join anew");
    }
  }

  leave(number: number, rank: number): void {
    const generation = this.#generation;
    if (generation.number !== number) return;
    const member = generation.members.find((member) => member.rank === rank)!;
    member.left = true;
    if (generation.meeting.size > 0) {
      generation.break("broken", this.#sentence(member, "has left while others waited for it"));
    }
  }

  #begin(): void {
    const { number, broken } = this.#generation;
    if (broken !== undefined) this.#reasons.set(number, broken);
    if (this.#reasons.size > REASONS_MAX) this.#reasons.delete(this.#reasons.keys().next().value!);
    this.#generation = new Generation(number + 1);
  }

  /** Why members that have joined do not fit together. */
  #conflict({ members }: Generation): string | undefined {
    const sizes = new Set(members.map(({ size }) => size));
    if (sizes.size > 1) {
      return `Cannot form group "${this.#name}": its members disagree about its size: ` +
        members.map(({ owner, size }) => `${owner.label} said ${size}`).join(", ");
    }
    const { asked, owner } = members.at(-1)!;
    const rival = members.slice(0, -1).find((member) => asked >= 0 && member.asked === asked);
    if (rival === undefined) return undefined;
    return `Cannot form group "${this.#name}": both ${rival.owner.label} and ${owner.label} asked for rank ${asked}`;
  }

  /** Gives ranks: those that were asked for, and the others in the order of joining. */
  #rank(generation: Generation): void {
    const { members } = generation;
    const taken = new Set(members.map(({ asked }) => asked));
    let next = 0;
    for (const member of members) {
      while (taken.has(next)) next++;
      member.rank = member.asked >= 0 ? member.asked : next++;
    }
    members.sort((a, b) => a.rank - b.rank);
    generation.complete = true;
  }

  #lose(generation: Generation, member: Member, how: string): void {
    generation.break("broken", this.#sentence(member, how));
  }

  #sentence({ owner, rank }: Member, how: string): string {
    const who = rank < 0 ? owner.label : `member ${rank} (${owner.label})`;
    return `Group "${this.#name}" is broken: ${who} ${how}. Join again to go on without what it held`;
  }

  #late(generation: Generation, rank: number, offer: Offer, timeoutMs: number | undefined): Refusal {
    const came = new Map([...generation.meeting].map(({ want }) => [want.rank, want.offer.call]));
    came.set(rank, offer.call);
    const missing = generation.members.filter(({ rank }) => !came.has(rank));
    return generation.break(
      "broken",
      `Group "${this.#name}" is broken: ${missing.map(describeMember).join(", ")} did not come ` +
        `${timeoutMs === undefined ? "before a call was cancelled" : `within ${timeoutMs} ms`}, when ` +
        [...came].map(([rank, call]) => `member ${rank} called ${call}`).join(", "),
    );
  }

  /** All have come. */
  #settle(generation: Generation, offers: readonly Offer[]): Met | Refusal {
    if (offers.some(({ call }) => call !== offers[0]!.call)) {
      const who = offers.map(({ call }, rank) =>
        `${describeMember(generation.members[rank]!)} called ${call}`
      );
      return {
        refused: "mismatch",
        message:
          `The members of group "${this.#name}" do not agree: ${
            who.join("; ")
          }. Nothing was done; all must ` +
          `make the same calls in the same order`,
      };
    }
    const payloads = offers.map(({ payload }) => payload);
    const sizes = offers.map(({ resultBytes }) => resultBytes);
    const resultBytes = offers[0]!.inParts ? sizes.reduce((a, b) => a + b, 0) : Math.max(...sizes);
    if (resultBytes === 0) return { payloads, result: undefined, resultBytes, dropped: [] };
    const { buffers } = generation;
    for (const { made } of offers) {
      if (made !== undefined) buffers.push({ id: this.#nextBuffer++, ...made, readers: new Set() });
    }
    const fits = buffers.filter(({ bytes, readers }) => readers.size === 0 && bytes >= resultBytes)
      .sort((a, b) => a.bytes - b.bytes)[0];
    const dropped: number[] = [];
    if (fits === undefined) {
      // What is free is too small for what the group does now.
      for (let i = buffers.length - 1; i >= 0; i--) {
        if (buffers[i]!.readers.size === 0) dropped.push(...buffers.splice(i, 1).map(({ id }) => id));
      }
      return { payloads, result: undefined, resultBytes, dropped };
    }
    offers.forEach((_, rank) => fits.readers.add(rank));
    return { payloads, result: { id: fits.id, ref: fits.ref }, resultBytes, dropped };
  }
}

function describeMember({ rank, owner }: Member): string {
  return `member ${rank} (${owner.label})`;
}

function placeOf({ number, members }: Generation, { rank }: Member): Place {
  return { generation: number, rank, nodes: members.map(({ node }) => node) };
}

const FORGOTTEN: Refusal = {
  refused: "broken",
  message: "The group was broken, or left by all, and has been joined anew since. Join again",
};

/** Reasons of older generations that are kept. */
const REASONS_MAX = 100;

/** The class of meeting places. */
export const Hub = actor(HubObject, {
  module: "rayd:collective",
  namespace: "rayd.collective",
  isolate: "shared",
  concurrencyGroups: { join: CALLS_MAX, meet: CALLS_MAX },
});

/** A meeting place. */
export type HubHandle = ActorHandle<HubObject>;
