/**
 * What a replica has of a shard's history: entries that it has not applied, on disk beside the state, and in memory the
 * last ones that it has.
 *
 * An entry that is not applied can be taken back. One that is applied was committed, and stays; the last of those are
 * kept so that a member that was away is told what it missed, and not everything.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { ByteHistory } from "./byte_history.ts";
import { entryBytes, entryOfBytes } from "./chain_codec.ts";
import type { ChainCommand, ChainEntry, Position } from "./chain_messages.ts";
import type { ShardStorage } from "./shard.ts";

/** Applied entries that are kept for members that were away; and how large they may be together. */
export const RECENT_ENTRIES_MAX = 2048, RECENT_BYTES_MAX = 4 * 1024 * 1024;

/** Where every history begins. */
export const ORIGIN: Position = { seq: 0, epoch: 0, hash: 0 };

const LOG = "log/";

/** An entry that is not applied. */
interface Unapplied {
  readonly entry: ChainEntry;
  /** As it is on disk; `undefined` if it is not. */
  readonly bytes: Uint8Array | undefined;
}

/** The entries of one shard. */
export class ChainLog {
  readonly #storage: ShardStorage;
  /** After `#base`, up to `#applied`. */
  #recent = newRecent();
  #base: Position;
  #applied: Position;
  #unapplied: Unapplied[] = [];
  /** Those before this one in `#unapplied` have been applied. */
  #next = 0;

  /** @param storage Where unapplied entries lie. @param applied Up to where the state beside them goes. */
  constructor(storage: ShardStorage, applied: Position) {
    this.#storage = storage;
    this.#base = this.#applied = applied;
    for (const [, bytes] of storage.scanMeta(LOG)) {
      this.#unapplied.push({ entry: entryOfBytes(bytes), bytes });
    }
    this.#unapplied.sort((a, b) => a.entry.seq - b.entry.seq);
    for (const [i, { entry: { seq } }] of this.#unapplied.entries()) {
      assert(seq === applied.seq + 1 + i, `a log has entry ${seq} where ${applied.seq + 1 + i} belongs`);
    }
  }

  /** Up to where the history is applied. */
  get applied(): Position {
    return this.#applied;
  }

  /** Up to where there is history. */
  get last(): Position {
    return this.#next < this.#unapplied.length ? this.#unapplied.at(-1)!.entry : this.#applied;
  }

  /** Appends the next entry. @param keep Whether it is to be on disk, as it is not applied in the same transaction. */
  append(entry: ChainEntry, keep: boolean): void {
    const bytes = keep ? entryBytes(entry) : undefined;
    this.#unapplied.push({ entry, bytes });
    if (bytes !== undefined) this.#storage.putMeta(nameOf(entry.seq), bytes);
  }

  /** The next entry to apply, up to `seq`; from now on it counts as applied. @param keep Whether others may come to need it. */
  takeNext(seq: number, keep: boolean): ChainEntry | undefined {
    const next = this.#unapplied[this.#next];
    if (next === undefined || next.entry.seq > seq) return undefined;
    const { entry, bytes } = next;
    this.#next++;
    this.#applied = { seq: entry.seq, epoch: entry.epoch, hash: entry.hash };
    if (bytes !== undefined) this.#storage.deleteMeta(nameOf(entry.seq));
    if (!keep) this.#forget();
    else {
      const kept = bytes ?? entryBytes(entry);
      this.#recent.add(entry.seq, kept.length, (into, at) => (into.set(kept, at), kept.length));
    }
    return entry;
  }

  /** What is applied is not kept. */
  #forget(): void {
    if (this.#base.seq < this.#applied.seq - 1) this.#recent = newRecent();
    this.#base = this.#applied;
  }

  /** Entries after `seq`, which must be known. */
  after(seq: number, count: number): ChainEntry[] {
    assert(seq >= this.#base.seq, `entries after ${seq} are not kept`);
    const entries: ChainEntry[] = [];
    if (seq < this.#applied.seq) {
      for (const { bytes } of this.#recent.after(seq)) {
        if (entries.length === count) return entries;
        entries.push(entryOfBytes(bytes));
      }
    }
    const from = this.#next + Math.max(0, seq - this.#applied.seq);
    const more = this.#unapplied.slice(from, from + count - entries.length);
    return entries.concat(more.map(({ entry }) => entry));
  }

  /** Entries that are not applied. */
  unapplied(): ChainEntry[] {
    return this.after(this.#applied.seq, Infinity);
  }

  /** Whether a history that goes up to `position` is the beginning of this one, and what follows is known. */
  continues({ seq, epoch, hash }: Position): boolean {
    if (seq < this.#base.seq || seq > this.last.seq) return false;
    const at = seq === this.#base.seq ? this.#base : this.after(seq - 1, 1)[0]!;
    return at.epoch === epoch && at.hash === hash;
  }

  /** Takes back what is not applied. */
  truncate(): void {
    for (const { entry, bytes } of this.#unapplied.slice(this.#next)) {
      if (bytes !== undefined) this.#storage.deleteMeta(nameOf(entry.seq));
    }
    this.#unapplied = [];
    this.#next = 0;
  }

  /** Forgets the oldest applied entries beyond those that are kept; but none after `floor`. */
  trim(floor: number): void {
    if (this.#next > 0) {
      this.#unapplied = this.#next === this.#unapplied.length ? [] : this.#unapplied.slice(this.#next);
      this.#next = 0;
    }
    const gone = this.#recent.trim(floor);
    if (gone === undefined) return;
    const { seq, epoch, hash } = entryOfBytes(gone.bytes);
    this.#base = { seq, epoch, hash };
  }
}

function newRecent(): ByteHistory {
  return new ByteHistory({ records: RECENT_ENTRIES_MAX, bytes: RECENT_BYTES_MAX });
}

/** The entry that follows a position. */
export function entryAfter(at: Position, epoch: number, command: ChainCommand): ChainEntry {
  const seq = at.seq + 1;
  const client = command.kind === "apply" ? command.command.client : command.client;
  let hash = mix(mix(at.hash, epoch), seq);
  for (let i = 0; i < client.length; i += 4) hash = mix(hash, client.charCodeAt(i));
  hash = mix(hash, command.kind === "apply" ? command.command.sequence : command.kind === "expire" ? -1 : -2);
  return { seq, epoch, hash, command };
}

function mix(hash: number, value: number): number {
  let mixed = Math.imul(hash ^ value ^ (value / 0x1_0000_0000), 0x9e3779b1);
  mixed ^= mixed >>> 15;
  return Math.imul(mixed, 0x85ebca77) >>> 0;
}

/** Names in the order of numbers. */
function nameOf(seq: number): string {
  return LOG + String(seq).padStart(16, "0");
}
