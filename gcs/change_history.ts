/**
 * The last changes of a shard, for watchers who were away: in memory, and the newest of them on disk beside the shard's state,
 * so that a watcher is told what it has missed though the process was killed meanwhile.
 *
 * As a record a change is the length of its key (4 bytes, little-endian), whether it has a value (1 byte), the key in UTF-8,
 * and the value. On disk the changes of one transaction are one record: each with its length before it (4 bytes,
 * little-endian), under the revision of the last one. Revisions follow each other without a gap.
 *
 * @module
 */

import { Deque } from "@std/data-structures/deque";
import { ByteHistory } from "./byte_history.ts";
import type { GcsChange, ShardStorage } from "./shard.ts";

/** How many changes are kept, at least: in memory, and on disk. */
export const CHANGES_KEPT_MAX = 20_000;
/** Fewer are kept in memory if they are larger than this: published code and files are, and stay for that long. */
export const CHANGES_BYTES_MAX = 32 * 1024 * 1024;
/** Fewer are kept on disk if they are larger than this: each is written twice there. */
export const CHANGES_DISK_BYTES_MAX = 4 * 1024 * 1024;
/** The oldest on disk are removed when there are so many more than have to be: a few together cost less than one each time. */
const CHANGES_SPARE = 64;

/** Names of records on disk begin with this; see {@link ShardStorage.scanMeta}. */
export const HISTORY = "history/";

const HEAD_BYTES = 5;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The changes of one transaction, on disk. */
interface Batch {
  readonly count: number;
  readonly bytes: number;
}

/** The changes. */
export class ChangeHistory {
  readonly #storage: ShardStorage;
  readonly #records = new ByteHistory({ records: CHANGES_KEPT_MAX, bytes: CHANGES_BYTES_MAX });
  /** The revision of the last change that is not in memory. */
  #before: number;
  readonly #batches = new Deque<Batch>();
  /** The revision of the last change before those in batches. */
  #diskBefore: number;
  /** Of all batches together. */
  #count = 0;
  #bytes = 0;
  /** Changes up to this revision are on disk, as far as they are kept there. */
  #written: number;
  #last: number;
  /** Records on disk that are none of this history; they go when the next is written. */
  #stale: string[];

  /**
   * @param storage Where the shard's state lies. @param revision The revision of the last change in that; what lies there of
   *   changes that do not lead up to it is none of its history.
   */
  constructor(storage: ShardStorage, revision: number) {
    this.#storage = storage;
    this.#before = this.#written = this.#last = revision;
    const batches = [...storage.scanMeta(HISTORY)].sort(([a], [b]) => a < b ? 1 : -1);
    const read: Uint8Array[][] = [];
    for (const [name, bytes] of batches) {
      const changes = Number(name.slice(HISTORY.length)) === this.#before ? [...changesIn(bytes)] : [];
      if (changes.length === 0) break;
      read.push(changes);
      this.#before -= changes.length;
      this.#batches.pushFront({ count: changes.length, bytes: bytes.length });
      this.#count += changes.length;
      this.#bytes += bytes.length;
    }
    let at = this.#diskBefore = this.#before;
    for (const change of read.reverse().flat()) {
      this.#records.add(++at, change.length, (into, at) => (into.set(change, at), change.length));
    }
    this.#stale = batches.slice(read.length).map(([name]) => name);
  }

  /** A key was changed. */
  add({ key, value, revision }: GcsChange): void {
    // In UTF-8 a key has 3 bytes a character at most.
    const most = HEAD_BYTES + 3 * key.length + (value?.length ?? 0);
    this.#records.add(revision, most, (into, at) => {
      const keyBytes = writeText(key, into, at + HEAD_BYTES);
      writeU32(keyBytes, into, at);
      into[at + 4] = value === undefined ? 0 : 1;
      if (value === undefined) return HEAD_BYTES + keyBytes;
      into.set(value, at + HEAD_BYTES + keyBytes);
      return HEAD_BYTES + keyBytes + value.length;
    });
    this.#last = revision;
    const gone = this.#records.trim();
    if (gone !== undefined) this.#before = gone.number;
  }

  /** Writes to disk what was added since; at the end of each transaction. */
  settle(): void {
    if (this.#last === this.#written) return;
    for (const name of this.#stale) this.#storage.deleteMeta(name);
    this.#stale = [];
    const changes = this.#before > this.#written ? [] : Array.from(
      this.#records.after(this.#written),
      ({ bytes }) => bytes,
    );
    this.#written = this.#last;
    const size = changes.reduce((sum, { length }) => sum + 4 + length, 0);
    // Without one that has no room, those before it lead nowhere.
    if (changes.length === 0 || size > CHANGES_DISK_BYTES_MAX) return this.#remove(0, 0);
    this.#write(changes, size);
    if (this.#count >= CHANGES_KEPT_MAX + CHANGES_SPARE || this.#bytes > CHANGES_DISK_BYTES_MAX) {
      this.#remove(CHANGES_KEPT_MAX, CHANGES_DISK_BYTES_MAX);
    }
  }

  #write(changes: readonly Uint8Array[], size: number): void {
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const change of changes) {
      writeU32(change.length, bytes, at);
      bytes.set(change, at + 4);
      at += 4 + change.length;
    }
    this.#storage.putMeta(nameOf(this.#last), bytes);
    if (this.#count === 0) this.#diskBefore = this.#last - changes.length;
    this.#batches.pushBack({ count: changes.length, bytes: size });
    this.#count += changes.length;
    this.#bytes += size;
  }

  /** Removes the oldest from disk, as far as so many changes are left without them, or all are larger than `bytesMax`. */
  #remove(countMin: number, bytesMax: number): void {
    for (let oldest; (oldest = this.#batches.peekFront()) !== undefined;) {
      const { count, bytes } = oldest;
      if (this.#count - count < countMin && this.#bytes <= bytesMax) return;
      this.#batches.popFront();
      this.#diskBefore += count;
      this.#storage.deleteMeta(nameOf(this.#diskBefore));
      this.#count -= count;
      this.#bytes -= bytes;
    }
  }

  /** @returns Changes of keys with a prefix, after a revision; `undefined` if not all of them are known. */
  since(prefix: string, after: number): GcsChange[] | undefined {
    if (after < this.#before) return undefined;
    const changes: GcsChange[] = [];
    const begin = encoder.encode(prefix);
    for (const { number: revision, bytes } of this.#records.after(after)) {
      const valueAt = HEAD_BYTES + readU32(bytes, 0);
      if (!begins(bytes, HEAD_BYTES, valueAt, begin)) continue;
      const key = decoder.decode(bytes.subarray(HEAD_BYTES, valueAt));
      changes.push({ key, value: bytes[4] === 0 ? undefined : bytes.subarray(valueAt), revision });
    }
    return changes;
  }
}

/** The name of a record on disk, by the revision of its last change. */
function nameOf(revision: number): string {
  return HISTORY + String(revision).padStart(16, "0");
}

/** The changes in a record on disk. */
function* changesIn(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let at = 0; at + 4 <= bytes.length;) {
    const end = at + 4 + readU32(bytes, at);
    yield bytes.subarray(at + 4, end);
    at = end;
  }
}

function writeU32(value: number, into: Uint8Array, at: number): void {
  for (let i = 0; i < 4; i++) into[at + i] = value >>> 8 * i;
}

function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 | bytes[at + 3]! << 24) >>> 0;
}

/** Writes text as UTF-8, quickly if it is short and plain. @returns How many bytes it takes. */
function writeText(text: string, into: Uint8Array, at: number): number {
  if (text.length > 128) return encoder.encodeInto(text, into.subarray(at)).written;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return encoder.encodeInto(text, into.subarray(at)).written;
    into[at + i] = code;
  }
  return text.length;
}

/** Whether bytes from `at` to `end` begin with others. */
function begins(bytes: Uint8Array, at: number, end: number, others: Uint8Array): boolean {
  if (end - at < others.length) return false;
  for (let i = 0; i < others.length; i++) if (bytes[at + i] !== others[i]) return false;
  return true;
}
