/**
 * The master of a replicated control store, of which every member runs one: who lives, who is to be in the chain, and how
 * long a tail may trust that it is the tail.
 *
 * Chain replication needs somebody who says what the chain is. A single master would be what must not die; so any acceptor
 * may propose the next configuration, agreement makes it safe (`chain_consensus.ts`), and an order among them makes it
 * quiet: one proposes only if those before it in the chain are silent. A member counts as alive for another if each hears
 * the other, as one that hears nobody is of no use to a chain though all hear it.
 *
 * Agreement fences writes by itself: a write needs the whole chain, and those in a new epoch take nothing of an old one.
 * It does not fence reads, which a tail answers alone. So a tail holds a *lease*: a majority of acceptors has said that
 * it will vote for no configuration without it for a while. It counts from when it asked, they count from when they
 * were asked, and clocks need to agree on nothing but how long a second is, within {@link DRIFT}. An acceptor that starts
 * anew, or that was named anew, may have forgotten: it waits as long as any lease lasts. A process that is known to be
 * dead (its machine says that nobody listens there any more) holds no lease, so a kill is not waited out.
 *
 * A member that is stopped gently *leaves*: it answers no reads from then on, which is as good as the end of its lease, and
 * is left out by the next configuration, both of the chain and of those who decide. It may end once those who decide from
 * then on know it. So of members that are all stopped, the last one has the store alone, and needs nobody when it comes
 * back. That is to be the founder, whose directory is known: it *lingers*, to see whether others leave as well.
 *
 * Pure: `step` takes events with the time, and returns messages to be sent after what was written is durable.
 *
 * @module
 */

import {
  acceptorsAfterLeave,
  type ChainConfig,
  hasPart,
  majorityOf,
  type MemberId,
  nextConfig,
  tailOf,
} from "./chain_config.ts";
import { ChainConsensus, type MemberSend, type MetaStorage } from "./chain_consensus.ts";
import { type ChainFault, NO_FAULTS } from "./chain_faults.ts";
import { ChainPeers, type Peer } from "./chain_peers.ts";
import type { Leaving, MemberMessage } from "./chain_messages.ts";

/** What happens to a member. */
export type MasterEvent =
  | { readonly type: "message"; readonly from: MemberId; readonly message: MemberMessage }
  | { readonly type: "tick" }
  /** The process of a member has ended: certainly, not just silence. */
  | { readonly type: "dead"; readonly member: MemberId; readonly incarnation: number }
  /** This member is to end: in a while, or as soon as it is {@link ChainMaster.left}. It is not asked to stay again. */
  | { readonly type: "leave"; readonly when: "soon" | "now" };

/** What a master is made of. Times in milliseconds. */
export interface ChainMasterOptions {
  readonly member: MemberId;
  /** A number above 0, and above that of every earlier run of this member's process. */
  readonly incarnation: number;
  readonly storage: MetaStorage;
  /** How long the chain is to be from now on, said by whoever starts its head; otherwise as it was. */
  readonly replicas?: number;
  /** Members to speak to, whether they are in the configuration or not. The caller may add some. */
  readonly known: Iterable<MemberId>;
  /** Whether this member takes a replica when one is needed. */
  readonly offers: boolean;
  /** Whether what it has outlasts its process. */
  readonly durable: boolean;
  /** The epoch in which all replicas of this member, as the tail's, have brought the joining member up to date; or 0. */
  readonly synced: () => number;
  readonly now: number;
  /** Somebody who says nothing for so long counts as gone. */
  readonly suspectMs: number;
  readonly leaseMs: number;
  /**
   * If this member is to be the last one of those who leave: how long it waits for anybody to say so, and for those who
   * did to be gone. Without it, it leaves when it is told to.
   */
  readonly linger?: { readonly ms: number; readonly msMax: number };
  readonly faults?: ReadonlySet<ChainFault>;
}

/** By how much a second of one member may differ from a second of another. */
export const DRIFT = 0.1;

interface Lease {
  readonly incarnation: number;
  readonly until: number;
}

/** One member's master. */
export class ChainMaster {
  readonly #options: ChainMasterOptions;
  readonly #faults: ReadonlySet<ChainFault>;
  readonly #consensus: ChainConsensus;
  readonly #peers: ChainPeers;
  /** Leases that this acceptor has granted. */
  readonly #leases = new Map<MemberId, Lease>();
  /** Until when no leases are granted, so that a vote which waits for their end can be given. */
  #grantsNoneUntil = -Infinity;
  /** Until when leases may stand that this acceptor does not know of: as it has started, and as the epoch has. */
  readonly #startGraceUntil: number;
  #epochGraceUntil: number;
  /** Of the lease that this member asks for as the tail. */
  #ask = 0;
  #askedAt = 0;
  readonly #grants = new Set<MemberId>();
  #leasedUntil = -Infinity;
  #epoch = 0;
  #leaving: Leaving = "no";
  /** When it was told to leave now, though it may linger. */
  #leavesSince: number | undefined;
  /** It had a part once, or may have had: others have to know that it is out, and it may be the only one who does. */
  #hadPart: boolean;

  /** @param options What the master is made of. */
  constructor(options: ChainMasterOptions) {
    this.#options = options;
    this.#faults = options.faults ?? NO_FAULTS;
    this.#peers = new ChainPeers(options.member, options.suspectMs, options.now);
    this.#startGraceUntil = this.#epochGraceUntil = this.#faults.has("lease-no-grace")
      ? -Infinity
      : options.now + options.leaseMs;
    this.#consensus = new ChainConsensus(
      options.member,
      options.storage,
      (value) => {
        if (this.#mayAccept(value)) return true;
        this.#grantsNoneUntil = this.#peers.now + options.leaseMs * 2;
        return false;
      },
      this.#faults,
    );
    this.#epoch = this.#consensus.known?.epoch ?? 0;
    this.#hadPart = this.#consensus.known !== undefined;
    for (const peer of this.#others()) this.#peers.of(peer).heardAt = options.now; // each gets its chance to speak
  }

  /** The last configuration that is known to be decided. */
  get config(): ChainConfig | undefined {
    return this.#consensus.known;
  }

  /** How far this member is with leaving. */
  get leaving(): Leaving {
    return this.#leaving;
  }

  /** Members that are heard, and hear this one. */
  get alive(): MemberId[] {
    return [...this.#peers.all.keys()].filter((id) => this.#peers.alive(id));
  }

  /** Begins a store of which this member is all. */
  found(config: ChainConfig): void {
    this.#consensus.learn(config);
    this.#epoch = config.epoch;
    this.#hadPart = true;
  }

  /** Whether this member, as the tail, may answer reads at this moment. */
  leased(now: number): boolean {
    if (this.#faults.has("read-without-lease") || this.#faults.has("read-anywhere")) return true;
    const { config } = this;
    if (config === undefined || tailOf(config) !== this.#options.member) return false;
    if (this.#leaving === "now" && !this.#faults.has("read-while-leaving")) return false;
    // Nobody else can vote it away.
    if (config.acceptors.length === 1 && config.acceptors[0] === this.#options.member) {
      return !this.#consensus.voted;
    }
    return now < this.#leasedUntil;
  }

  /** Whether this member, which leaves, may end: those who go on know that it is out, or it is all there is. */
  get left(): boolean {
    if (this.#leaving !== "now") return false;
    const { config } = this;
    if (config === undefined) return true;
    const knows = (peer: Readonly<Peer>) => peer.knows >= config.epoch;
    if (this.#isAll(config)) {
      // Others may still wait to hear that they are out.
      return [...this.#peers.all.values()].every((peer) =>
        peer.leaving !== "now" || knows(peer) || !this.#peers.hears(peer)
      );
    }
    if (hasPart(config, this.#options.member)) return false;
    if (!this.#hadPart || this.#faults.has("leave-untold")) return true;
    const told = config.acceptors.filter((each) => knows(this.#peers.known(each)));
    return told.length >= majorityOf(config.acceptors);
  }

  /** Takes an event. @param now The time. @returns Messages, to be sent after what was written is durable. */
  step(event: MasterEvent, now: number): MemberSend[] {
    this.#peers.now = now;
    switch (event.type) {
      case "message":
        return this.#after(this.#message(event.from, event.message));
      case "dead":
        return this.#after(this.#dead(event, true));
      case "leave":
        return this.#after(this.#leave(event.when));
      case "tick":
        this.#stopLingering();
        return this.#after([...this.#beats(), ...this.#askLease(), ...this.#plan()]);
    }
  }

  /** Votes that had to wait may be given now, and that may decide. */
  #retry(): MemberSend[] {
    const sends = this.#consensus.retry();
    return this.config?.epoch === this.#epoch ? [...sends, ...this.#plan()] : sends;
  }

  /** A run of a peer's process has ended. @param first Whether others are told: what one knows holds for all. */
  #dead({ member, incarnation }: { member: MemberId; incarnation: number }, first: boolean): MemberSend[] {
    if (!this.#peers.ended(member, incarnation)) return [];
    const message: MemberMessage = { type: "dead", member, incarnation };
    const tell = first ? [...this.#others()].filter((to) => to !== member) : [];
    return [...tell.map((to) => ({ to, message })), ...this.#retry(), ...this.#expectProposal(member)];
  }

  /** Whoever is next in line after the chain's first, if that one has ended, need not ask for the promise of its ballot. */
  #expectProposal(ended: MemberId): MemberSend[] {
    const { config } = this;
    if (config === undefined || config.chain[0] !== ended || config.epoch !== this.#epoch) return [];
    const next = lineOf(config).find((each) => this.#peers.alive(each));
    return next === undefined || next === this.#options.member ? [] : this.#consensus.promiseAhead(next);
  }

  #leave(when: "soon" | "now"): MemberSend[] {
    if (when === "now") this.#leavesSince ??= this.#peers.now;
    if (this.#leaving === "no") this.#leaving = "soon";
    this.#stopLingering();
    return [...this.#beats(), ...this.#plan()];
  }

  /** It leaves now, if it was told to and need not wait for others who end as well. */
  #stopLingering(): void {
    const { config } = this;
    const { linger, member } = this.#options;
    if (this.#leaving !== "soon" || this.#leavesSince === undefined) return;
    if (linger !== undefined && config !== undefined && hasPart(config, member) && !this.#isAll(config)) {
      const ends = ([id, peer]: [MemberId, Peer]) =>
        peer.leaving !== "no" && this.#peers.hears(peer) && hasPart(config, id);
      const ms = [...this.#peers.all].some(ends) ? linger.msMax : linger.ms;
      if (this.#peers.now < this.#leavesSince + ms) return;
    }
    this.#leaving = "now";
  }

  /** Nobody else has a part, or would take one. */
  #isAll(config: ChainConfig): boolean {
    const { member } = this.#options;
    const { chain, acceptors, joining } = config;
    return chain.length === 1 && chain[0] === member && acceptors.length === 1 && acceptors[0] === member &&
      joining === undefined && !this.#consensus.voted && this.#candidate(config) === undefined;
  }

  #message(from: MemberId, message: MemberMessage): MemberSend[] {
    switch (message.type) {
      case "beat": {
        const leaves = this.#peers.take(from, message);
        const { config } = this;
        const sends: MemberSend[] = [];
        if (config !== undefined && message.epoch < config.epoch) {
          sends.push({ to: from, message: { type: "decided", config } });
        }
        return leaves ? [...sends, ...this.#retry()] : sends;
      }
      case "dead": {
        const now = this.#peers.known(message.member).incarnation;
        const incarnation = this.#faults.has("dead-whatever-run") ? now : message.incarnation;
        return this.#dead({ member: message.member, incarnation }, false);
      }
      case "lease":
        return this.#grant(from, message);
      case "leased": {
        const { config } = this;
        if (message.epoch !== config?.epoch || message.ask !== this.#ask) return [];
        // Asks are counted anew by each run of the process.
        if (message.incarnation !== this.#options.incarnation) return [];
        this.#grants.add(from);
        if (this.#grants.size < majorityOf(config.acceptors)) return [];
        this.#leasedUntil = this.#faults.has("lease-too-long")
          ? this.#peers.now + this.#options.leaseMs * 2
          : this.#askedAt + this.#options.leaseMs * (1 - DRIFT);
        return [];
      }
      default:
        if ("config" in message) this.#peers.told(from, message.config.epoch);
        return this.#consensus.step(from, message);
    }
  }

  /** What follows when a configuration was learned. */
  #after(sends: MemberSend[]): MemberSend[] {
    const { config } = this;
    if (config === undefined || config.epoch === this.#epoch) return sends;
    this.#epoch = config.epoch;
    this.#hadPart ||= hasPart(config, this.#options.member);
    this.#stopLingering();
    this.#leasedUntil = -Infinity;
    this.#ask++;
    this.#grantsNoneUntil = -Infinity;
    // Leases of the epochs before may have been granted by others than those who decide now.
    if (!this.#faults.has("lease-no-grace")) this.#epochGraceUntil = this.#peers.now + this.#options.leaseMs;
    return [...sends, ...this.#beats(), ...this.#askLease()];
  }

  #beats(): MemberSend[] {
    const { incarnation, offers, durable } = this.#options;
    const message: MemberMessage = {
      type: "beat",
      epoch: this.#epoch,
      incarnation,
      hears: [...this.#peers.all].filter(([, peer]) => this.#peers.hears(peer)).map(([id]) => id),
      synced: this.#synced(),
      voted: this.#consensus.voted,
      offers: offers && this.#leaving === "no",
      durable,
      leaving: this.#leaving,
    };
    return [...this.#others()].map((to) => ({ to, message }));
  }

  /** The tail asks for its lease before it ends. */
  #askLease(): MemberSend[] {
    const { config } = this;
    const { member, incarnation } = this.#options;
    if (config === undefined || tailOf(config) !== member || this.#leaving === "now") return [];
    this.#ask++;
    this.#askedAt = this.#peers.now;
    this.#grants.clear();
    const message: MemberMessage = { type: "lease", epoch: config.epoch, incarnation, ask: this.#ask };
    return config.acceptors.map((to) => ({ to, message }));
  }

  #grant(from: MemberId, message: Extract<MemberMessage, { type: "lease" }>): MemberSend[] {
    const { config } = this;
    const { epoch, incarnation, ask } = message;
    if (config === undefined || epoch > config.epoch) return [];
    if (epoch < config.epoch) return [{ to: from, message: { type: "decided", config } }];
    if (tailOf(config) !== from || !config.acceptors.includes(this.#options.member)) return [];
    // A late ask of a process that has ended must not take the place of its successor's.
    const { dead } = this.#peers.known(from);
    if (incarnation <= dead || incarnation < (this.#leases.get(from)?.incarnation ?? 0)) return [];
    // The vote that was given may let the tail go, or make others decide about it.
    if (this.#peers.now < this.#grantsNoneUntil) return [];
    if (this.#consensus.voted && !this.#faults.has("ignore-leases")) return [];
    if (!this.#faults.has("ignore-leases")) {
      this.#leases.set(from, { incarnation, until: this.#peers.now + this.#options.leaseMs });
    }
    return [{ to: from, message: { type: "leased", epoch, incarnation, ask } }];
  }

  /** Whether no lease stands in the way of a configuration. */
  #mayAccept(value: ChainConfig): boolean {
    const { epoch, chain } = this.config!;
    for (const member of chain) {
      if (value.chain.includes(member)) continue;
      // No earlier run of its own process lives, and this one answers no reads.
      if (member === this.#options.member && this.#leaving === "now") continue;
      const { dead, gaveUp } = this.#peers.known(member);
      const lease = this.#leases.get(member);
      const fromPast = this.#faults.has("leave-of-the-dead") && gaveUp.epoch >= 0;
      const over = fromPast ? Infinity : Math.max(dead, gaveUp.incarnation);
      if (lease !== undefined && lease.until > this.#peers.now && lease.incarnation > over) return false;
      if (this.#peers.dead(member)) continue;
      if (this.#startGraceUntil > this.#peers.now && !fromPast) return false;
      // One that is in this epoch, and gives up, has no successor that could hold a lease of an epoch before.
      if (this.#epochGraceUntil > this.#peers.now && gaveUp.epoch !== epoch && !fromPast) return false;
    }
    return true;
  }

  /** What is to become of the chain, as far as this member is the one to see to it. */
  #plan(): MemberSend[] {
    const { config } = this;
    const { member } = this.#options;
    if (config === undefined || !config.acceptors.includes(member)) return [];
    const line = lineOf(config);
    const rank = line.indexOf(member);
    const first = line.slice(0, rank).every((each) => !this.#peers.alive(each));
    const next = first ? this.#next(config) : undefined;
    if (next !== undefined) return this.#consensus.propose(next, rank);
    if (this.#consensus.proposing) return this.#consensus.propose(nextOf(config), rank);
    this.#consensus.rest();
    return [];
  }

  #next(config: ChainConfig): ChainConfig | undefined {
    const { chain, joining } = config;
    const { replicas, member } = this.#options;
    if (replicas !== undefined && replicas !== config.replicas && chain[0] === member) {
      return { ...nextOf(config), replicas };
    }
    const living = chain.filter((each) => this.#peers.alive(each));
    if (living.length === 0) return undefined;
    const joins = joining !== undefined && this.#peers.alive(joining) && !this.#leaves(joining)
      ? joining
      : undefined;
    const staying = living.filter((each) => !this.#leaves(each));
    if (staying.length === 0) staying.push(this.#lasting(living)[0]!); // somebody has to be the last
    const leaves = (each: MemberId) => this.#leaves(each) && !staying.includes(each);
    if (chain.some(leaves) || config.acceptors.some(leaves)) {
      const seats = this.#faults.has("leave-keeps-seat")
        ? config.acceptors
        : acceptorsAfterLeave(staying, this.#lasting(staying));
      return nextConfig(config, staying, joins, seats);
    }
    if (living.length < chain.length || joins !== joining) return nextConfig(config, living, joins);
    if (joins !== undefined) {
      return this.#tailSynced(config)
        ? nextConfig(config, [...chain, joins], undefined)
        : this.#finish(config);
    }
    const candidate = this.#candidate(config);
    return candidate === undefined ? this.#finish(config) : nextConfig(config, chain, candidate);
  }

  /** Members in the order of how likely what they have is to be there again: the lowest is the founder, whose directory is known. */
  #lasting(members: readonly MemberId[]): MemberId[] {
    const { member, durable } = this.#options;
    const lasts = (id: MemberId) => id === member ? durable : this.#peers.known(id).durable;
    return [...members].sort((a, b) => Number(lasts(b)) - Number(lasts(a)) || (a < b ? -1 : 1));
  }

  /** A vote that nobody knows the outcome of keeps leases from being granted: it has to come out. */
  #finish(config: ChainConfig): ChainConfig | undefined {
    const voted = (peer: Peer) => peer.voted && peer.epoch === config.epoch && this.#peers.hears(peer);
    return this.#consensus.voted || [...this.#peers.all.values()].some(voted) ? nextOf(config) : undefined;
  }

  /** Replicas may be an epoch behind: what they promised in that one says nothing of this one. */
  #synced(): boolean {
    const epoch = this.#options.synced();
    return epoch === this.#epoch || epoch !== 0 && this.#faults.has("synced-long-ago");
  }

  #tailSynced(config: ChainConfig): boolean {
    if (this.#faults.has("promote-unsynced")) return true;
    const tail = tailOf(config);
    if (tail === this.#options.member) return this.#synced();
    const { synced, epoch } = this.#peers.known(tail);
    return synced && epoch === config.epoch;
  }

  /** Who is to join a chain that is too short. Acceptors first: they have been here, and may have most of it. */
  #candidate({ chain, acceptors, replicas }: ChainConfig): MemberId | undefined {
    if (chain.length >= replicas) return undefined;
    const free = [...this.#peers.all].filter(([id, peer]) =>
      !chain.includes(id) && peer.offers && this.#peers.alive(id)
    ).map(([id]) => id);
    const offers = this.#options.offers && this.#leaving === "no" && !chain.includes(this.#options.member)
      ? [this.#options.member]
      : [];
    const all = [...offers, ...free].sort();
    return all.find((id) => acceptors.includes(id)) ?? all[0];
  }

  #others(): Set<MemberId> {
    const { config } = this;
    const all = new Set(this.#options.known);
    if (config !== undefined) {
      for (const each of [...config.chain, ...config.acceptors]) all.add(each);
      if (config.joining !== undefined) all.add(config.joining);
    }
    for (const [id, peer] of this.#peers.all) if (this.#peers.hears(peer)) all.add(id);
    all.delete(this.#options.member);
    return all;
  }

  /** Whether a member is to be left out now. */
  #leaves(id: MemberId): boolean {
    return id === this.#options.member ? this.#leaving === "now" : this.#peers.leaves(id);
  }
}

/** The same chain, an epoch later. */
function nextOf(config: ChainConfig): ChainConfig {
  return nextConfig(config, config.chain, config.joining);
}

/** Those who decide, in the order in which they propose. */
function lineOf({ chain, acceptors }: ChainConfig): MemberId[] {
  return [
    ...chain.filter((each) => acceptors.includes(each)),
    ...acceptors.filter((each) => !chain.includes(each)),
  ];
}
