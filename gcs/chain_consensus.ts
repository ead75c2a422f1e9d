/**
 * Agreement on the sequence of configurations: one instance of Paxos an epoch.
 *
 * Which configuration follows the one of epoch e is decided by the acceptors that e names, with single-decree Paxos
 * (Lamport, "Paxos Made Simple", 2001). Only one who knows that e was decided takes part in the instance after it, and
 * messages carry e's configuration so that nobody has to ask. That is the reconfigurable state machine with a window of
 * one (Lamport, Malkhi and Zhou, "Reconfiguring a State Machine", 2010): no two configurations of one epoch, and no way
 * around a majority of the one before.
 *
 * The lowest ballot of an instance belongs to one member, the chain's first. No vote can have been given for a lower one,
 * so there is nothing to ask before it asks for votes: as for the first ballot of a leader in Multi-Paxos. It uses that
 * ballot only if it has promised none, so at most once, for one value.
 *
 * A proposer promises, and votes, before it asks the others, and says that it has voted when it asks for votes. So where
 * two votes are a majority, whoever votes knows at once that it is decided.
 *
 * Pure: `step`s return messages to be sent after what was written to the storage is durable. Messages to oneself go the
 * same way.
 *
 * @module
 */

import { type ChainConfig, majorityOf, type MemberId } from "./chain_config.ts";
import { type ChainFault, NO_FAULTS } from "./chain_faults.ts";
import type { Ballot, MemberMessage } from "./chain_messages.ts";
import type { ShardStorage } from "./shard.ts";

/** A message to a member. */
export interface MemberSend {
  readonly to: MemberId;
  readonly message: MemberMessage;
}

/** What of a shard's storage is needed here. */
export type MetaStorage = Pick<ShardStorage, "getMeta" | "putMeta">;

interface Accepted {
  readonly ballot: Ballot;
  readonly value: ChainConfig;
}

/** What is on disk. */
interface Durable {
  /** The last configuration that is known to be decided. */
  known: ChainConfig | undefined;
  /** Of the instance after it. */
  promised: Ballot;
  accepted: Accepted | undefined;
}

interface Proposal {
  readonly ballot: Ballot;
  /** What was to be proposed; replaced by what may have been decided already. */
  value: ChainConfig;
  best: Ballot;
  phase: "prepare" | "accept";
  readonly answered: Set<MemberId>;
  ticks: number;
  refused: boolean;
}

/** Ticks that a proposal has before it is made again with a higher ballot; later members in line wait longer. */
const PROPOSAL_TICKS = 4;

const CONSENSUS = "consensus";
const NO_BALLOT: Ballot = { n: 0, by: "" };

/** A member's part in deciding on configurations. */
export class ChainConsensus {
  readonly #member: MemberId;
  readonly #storage: MetaStorage;
  readonly #mayAccept: (value: ChainConfig) => boolean;
  readonly #faults: ReadonlySet<ChainFault>;
  readonly #state: Durable;
  #proposal: Proposal | undefined;
  #highest = 0;
  /** What may not be voted for yet. */
  #deferred: { readonly from: MemberId; readonly message: MemberMessage } | undefined;

  /**
   * @param member Who this is. @param storage Where its state lies; what is there already is taken up.
   * @param mayAccept Whether a configuration may be voted for at this moment.
   */
  constructor(
    member: MemberId,
    storage: MetaStorage,
    mayAccept: (value: ChainConfig) => boolean,
    faults: ReadonlySet<ChainFault> = NO_FAULTS,
  ) {
    this.#member = member;
    this.#storage = storage;
    this.#mayAccept = mayAccept;
    this.#faults = faults;
    const bytes = storage.getMeta(CONSENSUS);
    const blank: Durable = { known: undefined, promised: NO_BALLOT, accepted: undefined };
    this.#state = bytes === undefined ? blank : JSON.parse(new TextDecoder().decode(bytes)) as Durable;
    if (faults.has("forget-promise")) this.#state = { ...blank, known: this.#state.known };
  }

  /** The last configuration that is known to be decided. */
  get known(): ChainConfig | undefined {
    return this.#state.known;
  }

  /** Whether a vote was given for a configuration after the known one. */
  get voted(): boolean {
    return this.#state.accepted !== undefined;
  }

  /** Whether a proposal of this member may have been voted for. */
  get proposing(): boolean {
    return this.#proposal?.phase === "accept";
  }

  /** Takes a configuration that was decided. @returns Whether it was news. */
  learn(config: ChainConfig): boolean {
    const { known } = this.#state;
    if (known !== undefined && config.epoch <= known.epoch) {
      if (!this.#faults.has("adopt-older") || config.epoch === known.epoch) return false;
    }
    this.#state.known = config;
    this.#state.promised = NO_BALLOT;
    this.#state.accepted = undefined;
    this.#proposal = undefined;
    this.#highest = 0;
    this.#deferred = undefined;
    this.#save();
    return true;
  }

  /**
   * Wants a configuration to be decided. To be called again at every tick as long as that is so.
   *
   * @param value What is to follow the known configuration. @param rank How many others might propose as well.
   */
  propose(value: ChainConfig, rank: number): MemberSend[] {
    const known = this.#state.known!;
    const going = this.#proposal;
    if (going !== undefined) {
      going.ticks++;
      const patience = going.refused ? 1 + rank : PROPOSAL_TICKS + 2 * rank;
      if (going.ticks <= patience) return this.#ask(known, going);
    }
    const owns = known.chain[0] === this.#member || this.#faults.has("first-ballot-of-all");
    const isFirst = owns && this.#highest === 0 &&
      (compare(this.#state.promised, NO_BALLOT) === 0 || this.#faults.has("first-ballot-twice"));
    const n = isFirst ? 0 : Math.max(this.#highest, this.#state.promised.n) + 1;
    const ballot = { n, by: this.#member };
    this.#highest = n;
    const proposal: Proposal = this.#proposal = {
      ballot,
      value,
      best: NO_BALLOT,
      phase: isFirst ? "accept" : "prepare",
      answered: new Set(),
      ticks: 0,
      refused: false,
    };
    // A ballot must not be used twice, not even by one who starts again: promising it to oneself keeps it.
    this.#state.promised = ballot;
    this.#save();
    return isFirst
      ? this.#askForVotes(known, proposal)
      : this.#promisedBy(this.#member, known, proposal, this.#state.accepted);
  }

  /** Nothing is to be decided: a proposal that nobody may have voted for is let go. */
  rest(): void {
    if (this.#proposal?.phase === "prepare") this.#proposal = undefined;
  }

  /**
   * Promises the ballot that a member will take, if no ballot was promised yet, before it asks: to be called when it is known
   * that it will propose.
   */
  promiseAhead(to: MemberId): MemberSend[] {
    const known = this.#state.known!;
    if (!known.acceptors.includes(this.#member) || compare(this.#state.promised, NO_BALLOT) !== 0) return [];
    return this.#prepared(to, known, { n: 1, by: to });
  }

  /** Something has changed of what may be voted for. @returns What to send. */
  retry(): MemberSend[] {
    const deferred = this.#deferred;
    this.#deferred = undefined;
    return deferred === undefined ? [] : this.step(deferred.from, deferred.message);
  }

  /** Takes a message. @returns What to send. */
  step(from: MemberId, message: MemberMessage): MemberSend[] {
    switch (message.type) {
      case "decided":
        this.learn(message.config);
        return [];
      case "prepare":
      case "accept": {
        this.learn(message.config);
        const known = this.#state.known!;
        if (message.config.epoch < known.epoch) {
          return [{ to: from, message: { type: "decided", config: known } }];
        }
        if (!known.acceptors.includes(this.#member)) return [];
        return message.type === "prepare"
          ? this.#prepared(from, known, message.ballot)
          : this.#accept(from, known, message);
      }
      case "promise":
        return this.#promised(from, message);
      case "accepted":
        return this.#accepted(from, message);
      case "refuse":
        if (message.epoch !== this.#state.known?.epoch) return [];
        this.#highest = Math.max(this.#highest, message.ballot.n);
        if (this.#proposal !== undefined) this.#proposal.refused = true;
        return [];
      default:
        return [];
    }
  }

  #prepared(from: MemberId, { epoch }: ChainConfig, ballot: Ballot): MemberSend[] {
    const order = compare(ballot, this.#state.promised);
    if (order < 0) return [{ to: from, message: { type: "refuse", epoch, ballot: this.#state.promised } }];
    if (order > 0) {
      this.#state.promised = ballot;
      this.#save();
    }
    return [{ to: from, message: { type: "promise", epoch, ballot, accepted: this.#state.accepted } }];
  }

  #accept(
    from: MemberId,
    known: ChainConfig,
    message: Extract<MemberMessage, { type: "accept" }>,
  ): MemberSend[] {
    const { epoch } = known;
    const { ballot, value } = message;
    if (compare(ballot, this.#state.promised) < 0 && !this.#faults.has("ignore-promise")) {
      return [{ to: from, message: { type: "refuse", epoch, ballot: this.#state.promised } }];
    }
    if (!this.#mayAccept(value)) {
      this.#deferred = { from, message };
      return []; // it is also asked again
    }
    this.#vote(ballot, value);
    // With the vote of the one who asks, it may be decided.
    const voted = message.voted || this.#faults.has("vote-assumed");
    const votes = voted && known.acceptors.includes(from) ? 2 : 1;
    if (votes >= this.#quorum(known)) this.learn(value);
    return [{ to: from, message: { type: "accepted", epoch, ballot } }];
  }

  #vote(ballot: Ballot, value: ChainConfig): void {
    this.#state.promised = ballot;
    this.#state.accepted = { ballot, value };
    this.#save();
  }

  #promised(from: MemberId, message: Extract<MemberMessage, { type: "promise" }>): MemberSend[] {
    const { known } = this.#state;
    const proposal = this.#current(message.epoch, message.ballot, "prepare");
    if (known === undefined || proposal === undefined) return [];
    return this.#promisedBy(from, known, proposal, message.accepted);
  }

  #promisedBy(
    from: MemberId,
    known: ChainConfig,
    proposal: Proposal,
    accepted: Accepted | undefined,
  ): MemberSend[] {
    proposal.answered.add(from);
    if (
      accepted !== undefined && compare(accepted.ballot, proposal.best) > 0 &&
      !this.#faults.has("ignore-accepted")
    ) {
      proposal.best = accepted.ballot;
      proposal.value = accepted.value;
    }
    if (proposal.answered.size < this.#quorum(known)) {
      return from === this.#member ? this.#ask(known, proposal) : [];
    }
    proposal.phase = "accept";
    proposal.answered.clear();
    return this.#askForVotes(known, proposal);
  }

  /** Votes for its own proposal, if it may; then the others are asked. */
  #askForVotes(known: ChainConfig, proposal: Proposal): MemberSend[] {
    const { ballot, value } = proposal;
    // Otherwise it asks itself as well, and again.
    if (compare(ballot, this.#state.promised) >= 0 && this.#mayAccept(value)) {
      this.#vote(ballot, value);
      proposal.answered.add(this.#member);
    }
    return proposal.answered.size < this.#quorum(known)
      ? this.#ask(known, proposal)
      : this.#decide(known, proposal);
  }

  #accepted(from: MemberId, message: Extract<MemberMessage, { type: "accepted" }>): MemberSend[] {
    const { known } = this.#state;
    const proposal = this.#current(message.epoch, message.ballot, "accept");
    if (known === undefined || proposal === undefined) return [];
    proposal.answered.add(from);
    return proposal.answered.size < this.#quorum(known) ? [] : this.#decide(known, proposal);
  }

  /** A majority has voted. */
  #decide(known: ChainConfig, { value: config }: Proposal): MemberSend[] {
    this.learn(config);
    const all = new Set([...known.chain, ...known.acceptors, ...config.chain, ...config.acceptors]);
    if (config.joining !== undefined) all.add(config.joining);
    all.delete(this.#member);
    return [...all].map((to) => ({ to, message: { type: "decided", config } }));
  }

  #current(epoch: number, ballot: Ballot, phase: Proposal["phase"]): Proposal | undefined {
    const proposal = this.#proposal;
    if (epoch !== this.#state.known?.epoch || proposal?.phase !== phase) return undefined;
    return compare(ballot, proposal.ballot) === 0 ? proposal : undefined;
  }

  #quorum(config: ChainConfig): number {
    return this.#faults.has("minority-decides") ? 1 : majorityOf(config.acceptors);
  }

  /** Asks those who have not answered. */
  #ask(config: ChainConfig, { ballot, value, phase, answered }: Proposal): MemberSend[] {
    return config.acceptors.filter((to) => !answered.has(to)).map((to) => ({
      to,
      message: phase === "prepare"
        ? { type: "prepare", config, ballot }
        : { type: "accept", config, ballot, value, voted: answered.has(this.#member) },
    }));
  }

  #save(): void {
    this.#storage.putMeta(CONSENSUS, new TextEncoder().encode(JSON.stringify(this.#state)));
  }
}

function compare(a: Ballot, b: Ballot): number {
  if (a.n !== b.n) return a.n - b.n;
  return a.by === b.by ? 0 : a.by < b.by ? -1 : 1;
}
