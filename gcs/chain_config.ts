/**
 * A configuration of the control store: which members replicate it, in which order, and who decides on the next one.
 *
 * Configurations are numbered by their *epoch*, and each is decided by a majority of the acceptors that the one before
 * it names. So there is one history of them, whoever proposes.
 *
 * @module
 */

/** A member: 32 hexadecimal digits that stay with what it has on disk. */
export type MemberId = string;

/** Whoever founds a store, alone at first. */
export const FOUNDER: MemberId = "0".repeat(32);

/** Who has which part in an epoch. */
export interface ChainConfig {
  /** Counts configurations, from 1. */
  readonly epoch: number;
  /** Head first, tail last; never empty. All shards have the same chain. */
  readonly chain: readonly MemberId[];
  /** Copies what the tail has, to become the tail. */
  readonly joining: MemberId | undefined;
  /** A majority of these decides what the next configuration is. */
  readonly acceptors: readonly MemberId[];
  /** How long the chain is to be. */
  readonly replicas: number;
}

/** The first configuration of a store: one member that is all. */
export function firstConfig(member: MemberId, replicas: number): ChainConfig {
  return { epoch: 1, chain: [member], joining: undefined, acceptors: [member], replicas };
}

/** The configuration after `config` with another chain. */
export function nextConfig(
  config: ChainConfig,
  chain: readonly MemberId[],
  joining: MemberId | undefined,
  acceptors: readonly MemberId[] = acceptorsOf(config, chain),
): ChainConfig {
  return { epoch: config.epoch + 1, chain, joining, acceptors, replicas: config.replicas };
}

/**
 * Who decides when some have taken leave: of those who stay, as many as are odd. Who leaves is not asked any more, and
 * those who are merely silent have nothing that those who stay lack, so none of them need be waited for.
 *
 * @param lasting The chain in the order in which its members are to be taken.
 */
export function acceptorsAfterLeave(
  chain: readonly MemberId[],
  lasting: readonly MemberId[],
): readonly MemberId[] {
  const seats = new Set(lasting.slice(0, chain.length - (chain.length + 1) % 2));
  return chain.filter((member) => seats.has(member));
}

/**
 * Who decides once the chain is `chain`. An even number tolerates no more failures than the odd one below it, so only a
 * chain of odd length takes the decision over; and one that shrank to a single member does not, for the other acceptors
 * may be back, and one that is gone for good must not be all there is.
 */
function acceptorsOf({ acceptors }: ChainConfig, chain: readonly MemberId[]): readonly MemberId[] {
  const takesOver = chain.length % 2 === 1 && (chain.length >= 3 || acceptors.length === 1);
  return takesOver ? [...chain] : acceptors;
}

/** How many make a majority of `members`. */
export function majorityOf(members: readonly MemberId[]): number {
  return Math.floor(members.length / 2) + 1;
}

/** The member that acknowledges writes and answers reads. */
export function tailOf({ chain }: ChainConfig): MemberId {
  return chain[chain.length - 1]!;
}

/** Whether a member has a part in a configuration. */
export function hasPart({ chain, acceptors, joining }: ChainConfig, member: MemberId): boolean {
  return chain.includes(member) || acceptors.includes(member) || joining === member;
}
