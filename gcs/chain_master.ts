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
 * Pure: `step` takes events with the time, and returns messages to be sent after what was written is durable.
 *
 * @module
 */

import { type ChainConfig, majorityOf, type MemberId, nextConfig, tailOf } from "./chain_config.ts";
import { ChainConsensus, type MemberSend, type MetaStorage } from "./chain_consensus.ts";
import { type ChainFault, NO_FAULTS } from "./chain_faults.ts";
import type { MemberMessage } from "./chain_messages.ts";

/** What happens to a member. */
export type MasterEvent =
  | { readonly type: "message"; readonly from: MemberId; readonly message: MemberMessage }
  | { readonly type: "tick" }
  /** The process of a member has ended: certainly, not just silence. */
  | { readonly type: "dead"; readonly member: MemberId; readonly incarnation: number };

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
  /** The epoch in which all replicas of this member, as the tail's, have brought the joining member up to date; or 0. */
  readonly synced: () => number;
  readonly now: number;
  /** Somebody who says nothing for so long counts as gone. */
  readonly suspectMs: number;
  readonly leaseMs: number;
  readonly faults?: ReadonlySet<ChainFault>;
}

/** By how much a second of one member may differ from a second of another. */
export const DRIFT = 0.1;

interface Peer {
  heardAt: number;
  incarnation: number;
  epoch: number;
  hearsMe: boolean;
  synced: boolean;
  voted: boolean;
  offers: boolean;
  /** The incarnation that is known to have ended. */
  dead: number;
}

interface Lease {
  readonly incarnation: number;
  readonly until: number;
}

/** One member's master. */
export class ChainMaster {
  readonly #options: ChainMasterOptions;
  readonly #faults: ReadonlySet<ChainFault>;
  readonly #consensus: ChainConsensus;
  readonly #peers = new Map<MemberId, Peer>();
  /** Leases that this acceptor has granted. */
  readonly #leases = new Map<MemberId, Lease>();
  /** Until when no leases are granted, so that a vote which waits for their end can be given. */
  #grantsNoneUntil = -Infinity;
  /** Until when leases may stand that this acceptor does not know of. */
  #graceUntil: number;
  #now: number;
  /** Of the lease that this member asks for as the tail. */
  #ask = 0;
  #askedAt = 0;
  readonly #grants = new Set<MemberId>();
  #leasedUntil = -Infinity;
  #epoch = 0;

  /** @param options What the master is made of. */
  constructor(options: ChainMasterOptions) {
    this.#options = options;
    this.#faults = options.faults ?? NO_FAULTS;
    this.#now = options.now;
    this.#graceUntil = this.#faults.has("lease-no-grace") ? -Infinity : options.now + options.leaseMs;
    this.#consensus = new ChainConsensus(
      options.member,
      options.storage,
      (value) => {
        if (this.#mayAccept(value)) return true;
        this.#grantsNoneUntil = this.#now + options.leaseMs * 2;
        return false;
      },
      this.#faults,
    );
    this.#epoch = this.#consensus.known?.epoch ?? 0;
    for (const peer of this.#others()) this.#peer(peer).heardAt = options.now; // each gets its chance to speak
  }

  /** The last configuration that is known to be decided. */
  get config(): ChainConfig | undefined {
    return this.#consensus.known;
  }

  /** Members that are heard, and hear this one. */
  get alive(): MemberId[] {
    return [...this.#peers.keys()].filter((peer) => this.#alive(peer));
  }

  /** Begins a store of which this member is all. */
  found(config: ChainConfig): void {
    this.#consensus.learn(config);
    this.#epoch = config.epoch;
  }

  /** Whether this member, as the tail, may answer reads at this moment. */
  leased(now: number): boolean {
    if (this.#faults.has("read-without-lease") || this.#faults.has("read-anywhere")) return true;
    const { config } = this;
    if (config === undefined || tailOf(config) !== this.#options.member) return false;
    // Nobody else can vote it away.
    if (config.acceptors.length === 1 && config.acceptors[0] === this.#options.member) {
      return !this.#consensus.voted;
    }
    return now < this.#leasedUntil;
  }

  /** Takes an event. @param now The time. @returns Messages, to be sent after what was written is durable. */
  step(event: MasterEvent, now: number): MemberSend[] {
    this.#now = now;
    switch (event.type) {
      case "message":
        return this.#after(this.#message(event.from, event.message));
      case "dead":
        this.#peer(event.member).dead = event.incarnation;
        return this.#after(this.#plan());
      case "tick":
        return this.#after([...this.#beats(), ...this.#askLease(), ...this.#plan()]);
    }
  }

  #message(from: MemberId, message: MemberMessage): MemberSend[] {
    switch (message.type) {
      case "beat": {
        const peer = this.#peer(from);
        if (message.incarnation < peer.incarnation) return [];
        peer.heardAt = this.#now;
        peer.incarnation = message.incarnation;
        peer.epoch = message.epoch;
        peer.hearsMe = message.hears.includes(this.#options.member);
        peer.synced = message.synced;
        peer.voted = message.voted;
        peer.offers = message.offers;
        const { config } = this;
        if (config !== undefined && message.epoch < config.epoch) {
          return [{ to: from, message: { type: "decided", config } }];
        }
        return [];
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
          ? this.#now + this.#options.leaseMs * 2
          : this.#askedAt + this.#options.leaseMs * (1 - DRIFT);
        return [];
      }
      default:
        return this.#consensus.step(from, message);
    }
  }

  /** What follows when a configuration was learned. */
  #after(sends: MemberSend[]): MemberSend[] {
    const { config } = this;
    if (config === undefined || config.epoch === this.#epoch) return sends;
    this.#epoch = config.epoch;
    this.#leasedUntil = -Infinity;
    this.#ask++;
    this.#grantsNoneUntil = -Infinity;
    // Leases of the epochs before may have been granted by others than those who decide now.
    if (!this.#faults.has("lease-no-grace")) this.#graceUntil = this.#now + this.#options.leaseMs;
    return [...sends, ...this.#beats(), ...this.#askLease()];
  }

  #beats(): MemberSend[] {
    const { incarnation, offers } = this.#options;
    const message: MemberMessage = {
      type: "beat",
      epoch: this.#epoch,
      incarnation,
      hears: [...this.#peers].filter(([, peer]) => this.#heard(peer)).map(([id]) => id),
      synced: this.#synced(),
      voted: this.#consensus.voted,
      offers,
    };
    return [...this.#others()].map((to) => ({ to, message }));
  }

  /** The tail asks for its lease before it ends. */
  #askLease(): MemberSend[] {
    const { config } = this;
    const { member, incarnation } = this.#options;
    if (config === undefined || tailOf(config) !== member) return [];
    this.#ask++;
    this.#askedAt = this.#now;
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
    const dead = this.#peers.get(from)?.dead ?? NEVER;
    const late = incarnation <= dead || incarnation < (this.#leases.get(from)?.incarnation ?? 0);
    if (late && !this.#faults.has("grant-to-the-dead")) return [];
    // The vote that was given may let the tail go, or make others decide about it.
    if (this.#now < this.#grantsNoneUntil) return [];
    if (this.#consensus.voted && !this.#faults.has("ignore-leases")) return [];
    if (!this.#faults.has("ignore-leases")) {
      this.#leases.set(from, { incarnation, until: this.#now + this.#options.leaseMs });
    }
    return [{ to: from, message: { type: "leased", epoch, incarnation, ask } }];
  }

  /** Whether no lease stands in the way of a configuration. */
  #mayAccept(value: ChainConfig): boolean {
    for (const member of this.config!.chain) {
      if (value.chain.includes(member)) continue;
      const dead = this.#peers.get(member)?.dead ?? NEVER;
      const lease = this.#leases.get(member);
      if (lease !== undefined && lease.until > this.#now && lease.incarnation > dead) return false;
      if (this.#graceUntil > this.#now && !this.#dead(member)) return false;
    }
    return true;
  }

  /** What is to become of the chain, as far as this member is the one to see to it. */
  #plan(): MemberSend[] {
    const { config } = this;
    const { member } = this.#options;
    if (config === undefined || !config.acceptors.includes(member)) return [];
    const line = [
      ...config.chain.filter((each) => config.acceptors.includes(each)),
      ...config.acceptors.filter((each) => !config.chain.includes(each)),
    ];
    const rank = line.indexOf(member);
    const first = line.slice(0, rank).every((each) => !this.#alive(each));
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
    const living = chain.filter((each) => this.#alive(each));
    if (living.length === 0) return undefined;
    const joins = joining !== undefined && this.#alive(joining) ? joining : undefined;
    if (living.length < chain.length || joins !== joining) return nextConfig(config, living, joins);
    if (joins !== undefined) {
      return this.#tailSynced(config)
        ? nextConfig(config, [...chain, joins], undefined)
        : this.#finish(config);
    }
    const candidate = chain.length < config.replicas ? this.#candidate(config) : undefined;
    return candidate === undefined ? this.#finish(config) : nextConfig(config, chain, candidate);
  }

  /** A vote that nobody knows the outcome of keeps leases from being granted: it has to come out. */
  #finish(config: ChainConfig): ChainConfig | undefined {
    const voted = (peer: Peer) => peer.voted && peer.epoch === config.epoch && this.#heard(peer);
    return this.#consensus.voted || [...this.#peers.values()].some(voted) ? nextOf(config) : undefined;
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
    const peer = this.#peers.get(tail);
    return peer !== undefined && peer.synced && peer.epoch === config.epoch;
  }

  /** Acceptors first: they have been here, and may have most of it. */
  #candidate({ chain, acceptors }: ChainConfig): MemberId | undefined {
    const free = [...this.#peers].filter(([id, peer]) =>
      !chain.includes(id) && peer.offers && this.#alive(id)
    ).map(([id]) => id);
    const offers = this.#options.offers && !chain.includes(this.#options.member)
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
    for (const [id, peer] of this.#peers) if (this.#heard(peer)) all.add(id);
    all.delete(this.#options.member);
    return all;
  }

  #peer(id: MemberId): Peer {
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      peer = {
        heardAt: this.#now,
        incarnation: 0,
        epoch: 0,
        hearsMe: true,
        synced: false,
        voted: false,
        offers: false,
        dead: NEVER,
      };
      this.#peers.set(id, peer);
    }
    return peer;
  }

  #heard(peer: Peer): boolean {
    return this.#now - peer.heardAt <= this.#options.suspectMs && peer.incarnation > peer.dead;
  }

  #dead(id: MemberId): boolean {
    const peer = this.#peers.get(id);
    return peer !== undefined && peer.dead !== NEVER && peer.incarnation <= peer.dead;
  }

  #alive(id: MemberId): boolean {
    if (id === this.#options.member) return true;
    const peer = this.#peers.get(id);
    return peer !== undefined && this.#heard(peer) && peer.hearsMe;
  }
}

const NEVER = -1;

/** The same chain, an epoch later. */
function nextOf(config: ChainConfig): ChainConfig {
  return nextConfig(config, config.chain, config.joining);
}
