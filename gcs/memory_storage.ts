/**
 * A shard's state in memory: for tests and simulations, and as what the one on disk is held to.
 *
 * @module
 */

import type { ShardStorage, StoredEntry } from "./shard.ts";

/** Keeps a shard's state in maps. */
export class MemoryStorage implements ShardStorage {
  readonly #entries = new Map<string, StoredEntry>();
  readonly #meta = new Map<string, Uint8Array>();

  get(key: string): StoredEntry | undefined {
    return this.#entries.get(key);
  }

  put(key: string, entry: StoredEntry): void {
    this.#entries.set(key, { ...entry, value: entry.value.slice() });
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  scan(prefix: string, after: string): [string, StoredEntry][] {
    return [...this.#entries].filter(([key]) => key.startsWith(prefix) && (after === "" || key > after))
      .sort(([a], [b]) => a < b ? -1 : 1);
  }

  getMeta(name: string): Uint8Array | undefined {
    return this.#meta.get(name);
  }

  putMeta(name: string, value: Uint8Array): void {
    this.#meta.set(name, value.slice());
  }

  deleteMeta(name: string): void {
    this.#meta.delete(name);
  }

  scanMeta(prefix: string): [string, Uint8Array][] {
    return [...this.#meta].filter(([name]) => name.startsWith(prefix));
  }
}
