/**
 * Spreading tasks of one kind over nodes: each goes to the node that was given the fewest for its CPUs.
 *
 * A node that joins, or comes back, was given fewer than all others, by as many as there ever were. It is not to catch up,
 * or it would get every task for as long as that takes, while the others idle: it begins with as much as the one that was
 * given least.
 *
 * Pure.
 *
 * @module
 */

/** A node that may be chosen. */
export interface Candidate<Id> {
  readonly id: Id;
  /** How much of the tasks it is to get; what is below 1 counts as 1. */
  readonly cpus: number;
}

/** How much each node was given of tasks of one kind. */
export class FairShares<Id> {
  /** Tasks by CPU. */
  #given = new Map<Id, number>();

  /** Chooses the node for a task. @param candidates All that may have it now. */
  choose(candidates: readonly Candidate<Id>[]): Id | undefined {
    let best: Candidate<Id> | undefined;
    let least = Infinity, known = 0;
    for (const candidate of candidates) {
      const given = this.#given.get(candidate.id);
      if (given === undefined) continue;
      known++;
      if (given < least) [best, least] = [candidate, given];
    }
    if (known < candidates.length || known < this.#given.size) {
      // Nodes have come, or gone.
      const begin = known === 0 ? 0 : least;
      this.#given = new Map(candidates.map(({ id }) => [id, this.#given.get(id) ?? begin]));
      best ??= candidates[0];
    }
    if (best === undefined) return undefined;
    this.#given.set(best.id, this.#given.get(best.id)! + 1 / Math.max(1, best.cpus));
    return best.id;
  }
}
