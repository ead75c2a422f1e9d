/**
 * A disk that forgets what was not committed.
 *
 * @module
 */

import type { ShardStorage, StoredEntry } from "../../gcs/shard.ts";

/** A member's storage: what is written counts when it is committed, and a crash takes the rest back. */
export class SimDisk implements ShardStorage {
  readonly #entries = new Map<string, StoredEntry>();
  readonly #meta = new Map<string, Uint8Array>();
  #undo: (() => void)[] = [];
  /** Commits fail. */
  full = false;

  /** Makes all that was written durable. @throws {Error} If the disk is full; then nothing of it is. */
  commit(): void {
    if (this.#undo.length === 0) return;
    if (this.full) {
      this.rollback();
      throw new DiskFull();
    }
    this.#undo.length = 0;
  }

  /** Takes back what was not committed. */
  rollback(): void {
    for (let undo; (undo = this.#undo.pop()) !== undefined;) undo();
  }

  get(key: string): StoredEntry | undefined {
    return this.#entries.get(key);
  }

  put(key: string, entry: StoredEntry): void {
    this.#set(this.#entries, key, entry);
  }

  delete(key: string): void {
    this.#set(this.#entries, key, undefined);
  }

  scan(prefix: string, after: string): [string, StoredEntry][] {
    return ordered(this.#entries, prefix).filter(([key]) => after === "" || key > after);
  }

  getMeta(name: string): Uint8Array | undefined {
    return this.#meta.get(name);
  }

  putMeta(name: string, value: Uint8Array): void {
    this.#set(this.#meta, name, value);
  }

  deleteMeta(name: string): void {
    this.#set(this.#meta, name, undefined);
  }

  scanMeta(prefix: string): [string, Uint8Array][] {
    return ordered(this.#meta, prefix);
  }

  #set<T>(map: Map<string, T>, key: string, value: T | undefined): void {
    const before = map.get(key);
    if (value === undefined) map.delete(key);
    else map.set(key, value);
    this.#undo.push(() => {
      if (before === undefined) map.delete(key);
      else map.set(key, before);
    });
  }
}

/** There is no room for what was to be committed. */
export class DiskFull extends Error {}

function ordered<T>(map: Map<string, T>, prefix: string): [string, T][] {
  const found: [string, T][] = [];
  for (const each of map) if (each[0].startsWith(prefix)) found.push(each);
  return found.sort(([a], [b]) => a < b ? -1 : 1);
}
