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
import { entryBytes, entryOfBytes } from "./chain_codec.ts";
import type { ChainCommand, ChainEntry, Position } from "./chain_messages.ts";
import type { ShardStorage } from "./shard.ts";

/** Applied entries that are kept for members that were away; and how large they may be together. */
export const RECENT_ENTRIES_MAX = 2048, RECENT_BYTES_MAX = 4 * 1024 * 1024;

/** Where every history begins. */
export const ORIGIN: Position = { seq: 0, epoch: 0, hash: 0 };

const LOG = "log/";

/** The entries of one shard. */
export class ChainLog {
  readonly #storage: ShardStorage;
  readonly #onDisk = new Set<number>();
  /** `#entries[0]` is the one after `#base`. The first ones are applied. */
  #entries: ChainEntry[] = [];
  #base: Position;
  #applied: Position;
  /** Of the entries in memory. */
  #bytes = 0;

  /** @param storage Where unapplied entries lie. @param applied Up to where the state beside them goes. */
  constructor(storage: ShardStorage, applied: Position) {
    this.#storage = storage;
    this.#base = this.#applied = applied;
    for (const [, bytes] of storage.scanMeta(LOG)) this.#entries.push(entryOfBytes(bytes));
    this.#entries.sort((a, b) => a.seq - b.seq);
    for (const [i, { seq }] of this.#entries.entries()) {
      assert(seq === applied.seq + 1 + i, `a log has entry ${seq} where ${applied.seq + 1 + i} belongs`);
      this.#onDisk.add(seq);
      this.#bytes += bytesOf(this.#entries[i]!);
    }
  }

  /** Up to where the history is applied. */
  get applied(): Position {
    return this.#applied;
  }

  /** Up to where there is history. */
  get last(): Position {
    return this.#entries.at(-1) ?? this.#base;
  }

  /** Appends the next entry. @param keep Whether it is to be on disk, as it is not applied in the same transaction. */
  append(entry: ChainEntry, keep: boolean): void {
    this.#entries.push(entry);
    this.#bytes += bytesOf(entry);
    if (!keep) return;
    this.#onDisk.add(entry.seq);
    this.#storage.putMeta(nameOf(entry.seq), entryBytes(entry));
  }

  /** The next entry to apply, up to `seq`; from now on it counts as applied. */
  takeNext(seq: number): ChainEntry | undefined {
    const next = this.#applied.seq + 1;
    if (next > Math.min(seq, this.last.seq)) return undefined;
    const entry = this.#entries[next - this.#base.seq - 1]!;
    this.#applied = { seq: next, epoch: entry.epoch, hash: entry.hash };
    if (this.#onDisk.delete(next)) this.#storage.deleteMeta(nameOf(next));
    return entry;
  }

  /** Entries after `seq`, which must be known. */
  after(seq: number, count: number): ChainEntry[] {
    const from = seq - this.#base.seq;
    assert(from >= 0, `entries after ${seq} are not kept`);
    return this.#entries.slice(from, from + count);
  }

  /** Entries that are not applied. */
  unapplied(): ChainEntry[] {
    return this.after(this.#applied.seq, Infinity);
  }

  /** Whether a history that goes up to `position` is the beginning of this one, and what follows is known. */
  continues({ seq, epoch, hash }: Position): boolean {
    if (seq < this.#base.seq || seq > this.last.seq) return false;
    const at = seq === this.#base.seq ? this.#base : this.#entries[seq - this.#base.seq - 1]!;
    return at.epoch === epoch && at.hash === hash;
  }

  /** Takes back what is not applied. */
  truncate(): void {
    for (const entry of this.unapplied()) this.#bytes -= bytesOf(entry);
    this.#entries.length = this.#applied.seq - this.#base.seq;
    for (const seq of this.#onDisk) this.#storage.deleteMeta(nameOf(seq));
    this.#onDisk.clear();
  }

  /** Forgets the oldest applied entries beyond those that are kept, or all of them; but none after `floor`. */
  trim(floor: number, keep: boolean): void {
    const applied = this.#applied.seq - this.#base.seq;
    if (applied === 0) return;
    if (keep && applied <= RECENT_ENTRIES_MAX * 2 && this.#bytes <= RECENT_BYTES_MAX * 2) return;
    const most = Math.min(applied, floor - this.#base.seq);
    let drop = keep ? Math.max(0, Math.min(most, applied - RECENT_ENTRIES_MAX)) : most;
    for (let i = 0; i < drop; i++) this.#bytes -= bytesOf(this.#entries[i]!);
    for (; drop < most && this.#bytes > RECENT_BYTES_MAX; drop++) {
      this.#bytes -= bytesOf(this.#entries[drop]!);
    }
    if (drop <= 0) return;
    const { seq, epoch, hash } = this.#entries[drop - 1]!;
    this.#base = { seq, epoch, hash };
    this.#entries = drop === this.#entries.length ? [] : this.#entries.slice(drop);
  }
}

/** What an entry's values take, roughly. */
function bytesOf({ command }: ChainEntry): number {
  if (command.kind !== "apply") return 0;
  let bytes = 0;
  for (const operation of command.command.operations) {
    if (operation.kind === "put") bytes += operation.value.length;
  }
  return bytes;
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
