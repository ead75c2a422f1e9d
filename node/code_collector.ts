/**
 * When published code may go: some time after nothing refers to it any more.
 *
 * Running programs refer to their code, and so do actors that outlived theirs. A program that begins publishes its code
 * before it is registered as using it, and a node that has just been given an actor tells of it a little later; so code
 * stays for a while after it was last in use, or was first seen.
 *
 * Pure: time arrives as an argument.
 *
 * @module
 */

/** How long code stays that nothing refers to, in milliseconds. */
export const CODE_KEPT_MS = 10 * 60_000;

/** Decides what may go. */
export class CodeCollector {
  /** When each was last in use, or first seen. */
  readonly #usedAt = new Map<string, number>();

  /**
   * Looks once.
   *
   * @param known All hashes that were published. @param used Those that something refers to. @param now The time in ms.
   * @returns What is to be deleted.
   */
  look(known: Iterable<string>, used: ReadonlySet<string>, now: number): string[] {
    const all = new Set(known);
    const gone: string[] = [];
    for (const hash of all) {
      const usedAt = used.has(hash) ? now : this.#usedAt.get(hash) ?? now;
      this.#usedAt.set(hash, usedAt);
      if (now - usedAt >= CODE_KEPT_MS) gone.push(hash);
    }
    for (const hash of gone) all.delete(hash);
    for (const hash of this.#usedAt.keys()) if (!all.has(hash)) this.#usedAt.delete(hash);
    return gone;
  }
}
