/**
 * Whether what an earlier run has left of the control store is as it was left: looked at before anybody opens it.
 *
 * A disk that garbles, loses or repeats what was written must not make a replica answer wrongly, nor end its process, as
 * LMDB can on a file that it trusts. So each shard's file is read as bytes (`lmdb_pages.ts`), and all its records are summed
 * up and compared with the sum that lies beside them (`shard_sum.ts`). The commit before the last is looked at as well: if a
 * damaged number makes that the newest, or the other way round, their counts of commits are not one after the other.
 *
 * @module
 */

import { DamagedFileError, readLmdb } from "./lmdb_pages.ts";
import { ShardSum, SUM } from "./shard_sum.ts";

/** A shard that is damaged. */
export interface ShardDamage {
  readonly shard: number;
  /** What is wrong, in words. */
  readonly what: string;
}

/** The directory of a shard. */
export function shardDirectory(directory: string, shard: number): string {
  return `${directory}/shard-${shard}`;
}

/**
 * Looks at all shards of a store.
 *
 * @param directory Where they lie. @param complete Whether all have been opened before, so that none may be missing.
 */
export function checkShards(directory: string, shards: number, complete: boolean): ShardDamage[] {
  const found: ShardDamage[] = [];
  for (let shard = 0; shard < shards; shard++) {
    const what = checkShard(`${shardDirectory(directory, shard)}/data.mdb`, complete);
    if (what !== undefined) found.push({ shard, what });
  }
  return found;
}

function checkShard(file: string, complete: boolean): string | undefined {
  try {
    const bytes = Deno.readFileSync(file);
    if (bytes.length === 0 && !complete) return undefined; // it was just about to be made
    checkShardFile(bytes);
    return undefined;
  } catch (error) {
    if (error instanceof DamagedFileError) return error.message;
    if (error instanceof Deno.errors.NotFound) return complete ? "its file is missing" : undefined;
    // A disk that knows that it cannot read says so.
    return (error as Error).message;
  }
}

/** Looks at a shard's file. @param bytes All of it. @throws {DamagedFileError} If it is not as it was written. */
export function checkShardFile(bytes: Uint8Array): void {
  const sum = new ShardSum();
  let stored: Uint8Array | undefined, format = 0;
  const { before } = readLmdb(bytes, (key, value) => {
    if (isText(key, SUM_KEY)) stored = value;
    else sum.add(key, value);
    if (isText(key, FORMAT_KEY)) format = value[0] ?? 0;
  });
  if (stored === undefined) {
    // One of before there were sums has none; and one that is new may not have got to it.
    if (format < 2) return;
    throw new DamagedFileError("the sum of its records is missing");
  }
  const expected = ShardSum.fromBytes(stored);
  if (expected?.equals(sum) !== true) {
    throw new DamagedFileError(`its ${sum.count} records are not those that were written`);
  }
  const last = before(SUM_KEY);
  const commits = last === undefined ? undefined : ShardSum.fromBytes(last)?.commits;
  if (commits !== undefined && commits !== expected.commits - 1) {
    throw new DamagedFileError(`its last commits are ${commits} and ${expected.commits}`);
  }
}

const SUM_KEY = new TextEncoder().encode(`m${SUM}`), FORMAT_KEY = new TextEncoder().encode("mformat");

function isText(key: Uint8Array, text: Uint8Array): boolean {
  return key.length === text.length && key.every((byte, i) => byte === text[i]);
}
