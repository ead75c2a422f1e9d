/**
 * What a member knows of the others: who is heard, and hears, in which epoch each is, whose process has ended, and who has
 * said that it leaves.
 *
 * What a peer says may arrive late. Its runs are numbered, and its epoch never goes back, not even over a restart, so what
 * is older than what was heard is dropped; and a run that leaves does not stay after all.
 *
 * @module
 */

import type { MemberId } from "./chain_config.ts";
import type { Leaving, MemberMessage } from "./chain_messages.ts";

/** One of the others. */
export interface Peer {
  heardAt: number;
  incarnation: number;
  /** In which it was when it last gave a sign of life. */
  epoch: number;
  /** The last one that it is known to know of. */
  knows: number;
  hearsMe: boolean;
  synced: boolean;
  voted: boolean;
  offers: boolean;
  durable: boolean;
  leaving: Leaving;
  /** The incarnation that is known to have ended. */
  dead: number;
  /** The incarnation that has said that it answers no reads any more, and in which epoch it was. */
  gaveUp: { readonly incarnation: number; readonly epoch: number };
}

type Beat = Extract<MemberMessage, { type: "beat" }>;

/** All of the others that were heard of. */
export class ChainPeers {
  readonly #member: MemberId;
  readonly #suspectMs: number;
  readonly #peers = new Map<MemberId, Peer>();
  /** The time, as its owner has it. */
  now: number;

  /** @param member Who this is. @param suspectMs Who says nothing for so long counts as gone. */
  constructor(member: MemberId, suspectMs: number, now: number) {
    this.#member = member;
    this.#suspectMs = suspectMs;
    this.now = now;
  }

  /** A peer, with the benefit of the doubt if nothing was heard of it yet. */
  of(id: MemberId): Peer {
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      peer = { ...NOBODY, heardAt: this.now };
      this.#peers.set(id, peer);
    }
    return peer;
  }

  /** What is known of a member, be it nothing. */
  known(id: MemberId): Readonly<Peer> {
    return this.#peers.get(id) ?? NOBODY;
  }

  /** All that were heard of. */
  get all(): ReadonlyMap<MemberId, Peer> {
    return this.#peers;
  }

  /** A peer gives a sign of life. @returns Whether it says something that was not known of its leaving. */
  take(from: MemberId, beat: Beat): boolean {
    const peer = this.of(from);
    const { incarnation, epoch, leaving } = beat;
    if (incarnation < peer.incarnation || epoch < peer.epoch) return false; // a late one
    if (incarnation > peer.incarnation) peer.leaving = "no";
    peer.heardAt = this.now;
    peer.incarnation = incarnation;
    peer.epoch = epoch;
    peer.knows = Math.max(peer.knows, epoch);
    peer.hearsMe = beat.hears.includes(this.#member);
    peer.synced = beat.synced;
    peer.voted = beat.voted;
    peer.offers = beat.offers;
    peer.durable = beat.durable;
    if (leaving === "no" || peer.leaving === "now" && leaving === "soon") return false;
    peer.leaving = leaving;
    const { gaveUp } = peer;
    if (leaving === "soon" || incarnation === gaveUp.incarnation && epoch <= gaveUp.epoch) return false;
    peer.gaveUp = { incarnation, epoch };
    return true;
  }

  /** A peer has told of a configuration. */
  told(from: MemberId, epoch: number): void {
    const peer = this.#peers.get(from);
    if (peer !== undefined) peer.knows = Math.max(peer.knows, epoch);
  }

  /** A run of a peer has ended. @returns Whether that was not known. */
  ended(id: MemberId, incarnation: number): boolean {
    const peer = this.of(id);
    if (incarnation <= peer.dead) return false;
    peer.dead = incarnation;
    return true;
  }

  /** Whether a peer has said something lately. */
  hears(peer: Readonly<Peer>): boolean {
    return this.now - peer.heardAt <= this.#suspectMs && peer.incarnation > peer.dead;
  }

  /** Whether a member is heard, and hears this one. */
  alive(id: MemberId): boolean {
    if (id === this.#member) return true;
    const peer = this.known(id);
    return this.hears(peer) && peer.hearsMe;
  }

  /** Whether the last run of a peer that was heard of has ended. */
  dead(id: MemberId): boolean {
    const { dead, incarnation } = this.known(id);
    return dead !== NEVER && incarnation <= dead;
  }

  /** Whether a peer is to be left out now. */
  leaves(id: MemberId): boolean {
    const peer = this.known(id);
    return peer.leaving === "now" && this.hears(peer);
  }
}

/** Before any run of a process, and any epoch. */
const NEVER = -1;

/** Of whom nothing was heard. */
const NOBODY: Readonly<Peer> = {
  heardAt: -Infinity,
  incarnation: 0,
  epoch: 0,
  knows: 0,
  hearsMe: true,
  synced: false,
  voted: false,
  offers: false,
  durable: false,
  leaving: "no",
  dead: NEVER,
  gaveUp: { incarnation: NEVER, epoch: NEVER },
};
