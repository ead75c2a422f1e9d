/**
 * The sum over all records of a shard, kept up to date with each write and stored with it: what LMDB has no checksums for.
 *
 * It does not depend on the order in which records came about, so a write only takes its old value out and puts its new one
 * in; and it counts commits, so that two states, one of which follows the other, can be told apart.
 *
 * @module
 */

import { crc32 } from "node:zlib";

/** The name under which a sum is stored; it is in no sum itself. */
export const SUM = "sum";

/** Sums stay whole numbers. */
const MODULUS = 2 ** 52;

/** A sum over records. */
export class ShardSum {
  /** Records, their sum, and how many commits there have been. */
  count = 0;
  sum = 0;
  commits = 0;

  /** A record has come. @param key As it is on disk. */
  add(key: Uint8Array, value: Uint8Array): void {
    this.count++;
    this.sum = (this.sum + hashOf(key, value)) % MODULUS;
  }

  /** A record has gone. @param key As it is on disk. */
  remove(key: Uint8Array, value: Uint8Array): void {
    this.count--;
    this.sum = (this.sum - hashOf(key, value) + MODULUS) % MODULUS;
  }

  /** Whether another one is of the same records. */
  equals({ count, sum }: ShardSum): boolean {
    return this.count === count && this.sum === sum;
  }

  /** It as it is now. */
  copy(): ShardSum {
    return Object.assign(new ShardSum(), this);
  }

  /** Its bytes. */
  toBytes(): Uint8Array {
    return new Uint8Array(Float64Array.of(this.count, this.sum, this.commits).buffer);
  }

  /** What {@link toBytes} gave; `undefined` if it did not give that. */
  static fromBytes(bytes: Uint8Array): ShardSum | undefined {
    if (bytes.length !== 24) return undefined;
    const [count, sum, commits] = new Float64Array(bytes.slice().buffer) as unknown as [
      number,
      number,
      number,
    ];
    return Object.assign(new ShardSum(), { count, sum, commits });
  }
}

/** The key begins what the checksum of the value goes on from: by FNV-1a, as a call of crc32 costs more for a few bytes. */
function hashOf(key: Uint8Array, value: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x01000193);
  return crc32(value, hash >>> 0);
}
