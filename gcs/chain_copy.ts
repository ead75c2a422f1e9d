/**
 * The copy of a shard's state that a joining member gets when it cannot go on from what it has: in pieces, each of which
 * is asked for by the receipt of the one before, and with a checksum over the whole.
 *
 * The state is copied as it is at one instant, while writes go on: what is written meanwhile follows as entries.
 *
 * @module
 */

import type { Position } from "./chain_messages.ts";
import { SHARD_META, type ShardStorage, type StoredEntry } from "./shard.ts";

/** Bytes of values after which a piece is full. */
const CHUNK_BYTES = 256 * 1024;
/** Entries after which it is full, too. */
const CHUNK_ENTRIES = 2_000;

/** A piece of a state. */
export interface Chunk {
  readonly entries: readonly (readonly [key: string, entry: StoredEntry])[];
  readonly meta: readonly (readonly [name: string, value: Uint8Array])[];
}

/** A state that is sent. */
export interface Copy {
  readonly at: Position;
  readonly checksum: number;
  readonly chunks: readonly Chunk[];
  /** The piece whose receipt is waited for. */
  index: number;
}

type Mutable<T> = T extends readonly (infer E)[] ? E[] : never;

/** Takes a copy of the state, which is that at `at`. @param entriesMax How many entries make a piece. */
export function copyOf(storage: ShardStorage, at: Position, entriesMax = CHUNK_ENTRIES): Copy {
  const chunks: Chunk[] = [];
  let entries: Mutable<Chunk["entries"]> = [], meta: Mutable<Chunk["meta"]> = [];
  let bytes = 0;
  const taken = (length: number) => {
    bytes += length;
    if (bytes < CHUNK_BYTES && entries.length < entriesMax && meta.length < CHUNK_ENTRIES) return;
    chunks.push({ entries, meta });
    entries = [];
    meta = [];
    bytes = 0;
  };
  for (const each of storage.scan("", "")) {
    entries.push(each);
    taken(each[1].value.length);
  }
  for (const prefix of SHARD_META) {
    for (const each of storage.scanMeta(prefix)) {
      meta.push(each);
      taken(each[1].length);
    }
  }
  chunks.push({ entries, meta });
  return { at, chunks, index: 0, checksum: chunks.reduce(checksumOf, 0) };
}

/** Removes a shard's whole state. */
export function clearState(storage: ShardStorage): void {
  for (const [key] of [...storage.scan("", "")]) storage.delete(key);
  for (const prefix of SHARD_META) {
    for (const [name] of [...storage.scanMeta(prefix)]) storage.deleteMeta(name);
  }
}

/** Writes a piece. */
export function writeChunk(storage: ShardStorage, { entries, meta }: Chunk): void {
  for (const [key, entry] of entries) storage.put(key, entry);
  for (const [name, value] of meta) storage.putMeta(name, value);
}

/** The checksum of a state up to a piece. @param before That up to the piece before. FNV-1a. */
export function checksumOf(before: number, { entries, meta }: Chunk): number {
  let hash = before ^ 0x811c9dc5;
  const number = (n: number) => hash = Math.imul(hash ^ n, 0x01000193);
  const text = (name: string) => {
    for (let i = 0; i < name.length; i++) number(name.charCodeAt(i));
  };
  const blob = (bytes: Uint8Array) => {
    for (const byte of bytes) number(byte);
  };
  for (const [key, { value, revision, lease }] of entries) {
    text(key);
    number(revision);
    text(lease);
    blob(value);
  }
  for (const [name, value] of meta) {
    text(name);
    blob(value);
  }
  return hash >>> 0;
}
