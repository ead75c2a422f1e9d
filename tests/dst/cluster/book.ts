/**
 * What callers of a ledger were told, held against what the ledger has in the end: each call that was answered took effect
 * once, at the position that its answer said, and calls of one caller in the order in which they were made.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";

/** What is known of one ledger. */
export class Book {
  readonly name: string;
  /** What calls were answered with, by the entry's name. */
  readonly #answered = new Map<string, number>();

  constructor(name: string) {
    this.name = name;
  }

  /** How many entries were acknowledged. */
  get size(): number {
    return this.#answered.size;
  }

  /** A call that entered a name was answered. */
  answered(entry: string, position: number): void {
    const before = this.#answered.get(entry);
    assert(
      before === undefined || before === position,
      `ledger ${this.name}: ${entry} is answered with ${before} and ${position}`,
    );
    this.#answered.set(entry, position);
  }

  /** What the ledger has. @param whole No caller was stopped, so there is nothing that was not answered. */
  check(entries: readonly string[], whole: boolean): void {
    const positions = new Map<string, number>();
    entries.forEach((entry, i) => {
      assert(!positions.has(entry), `ledger ${this.name}: ${entry} took effect twice`);
      positions.set(entry, i + 1);
    });
    for (const [entry, position] of this.#answered) {
      assertEquals(
        positions.get(entry),
        position,
        `ledger ${this.name}: ${entry} was answered with another position than it has`,
      );
    }
    if (whole) {
      assertEquals(entries.length, this.#answered.size, `ledger ${this.name} has what nobody was told of`);
    }
    const lasts = new Map<string, number>();
    for (const entry of entries) {
      const at = entry.lastIndexOf(".");
      const caller = entry.slice(0, at), number = Number(entry.slice(at + 1));
      const last = lasts.get(caller) ?? -1;
      assert(number > last, `ledger ${this.name}: ${caller}'s ${number} came after its ${last}`);
      if (whole) assertEquals(number, last + 1, `ledger ${this.name}: ${caller}'s calls are not all there`);
      lasts.set(caller, number);
    }
  }
}
