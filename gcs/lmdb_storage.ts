/**
 * A shard's state in an LMDB environment: what a shard has acknowledged is on disk, and whole.
 *
 * On disk, format {@link FORMAT}: a directory a shard. In its environment, keys are text as lmdb-js writes it (bytes in
 * the order of characters). A key `e` + key is an entry: the revision (8 bytes, little-endian double), the length of the
 * lease holder's id (1 byte: 0 or 16), the id, and the value. A key `m` + name is what is not an entry; `mformat` holds
 * the format's number, and `msum` a sum over all other records, by which `store_check.ts` sees that none is damaged. A
 * transaction is one commit: LMDB writes pages that nobody reads yet, syncs them, and then turns the root over, so a process
 * killed at any instant leaves the state before or after.
 *
 * @module
 */

import * as lmdb from "lmdb";
import type { Key, RootDatabase } from "lmdb";
import { UsageError } from "../core/errors.ts";
import { taskIdFromBytes, writeObjectId } from "../core/ids.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { ShardStorage, StoredEntry } from "./shard.ts";
import { ShardSum, SUM } from "./shard_sum.ts";

/** The number of the format on disk; a store of a later one is refused, and one of format 1, which had no sum, gets it. */
export const FORMAT = 2;

const HEAD_BYTES = 9;

/** One shard's state on disk. */
export class LmdbStorage implements ShardStorage {
  readonly #db: RootDatabase<Uint8Array, Key>;
  #sum = new ShardSum();
  /** Whether it changed in the transaction that runs; `undefined` while none does. */
  #changed: boolean | undefined;

  /**
   * @param path The directory of the environment, made if need be.
   * @throws {UsageError} If it holds what another version wrote.
   */
  constructor(path: string) {
    this.#db = lmdb.open<Uint8Array, Key>({
      path,
      encoding: "binary",
      noSubdir: false,
      // The commit is the acknowledgement: it has to be on disk by then.
      overlappingSync: false,
      // Entries are read once, by whoever wants them.
      cache: false,
      compression: false,
    });
    const format = this.getMeta("format")?.[0];
    if (format !== undefined && format > FORMAT) {
      throw new UsageError(
        `Cannot open the control store in ${path}: it has format ${format}, and this version of rayd reads ` +
          `format ${FORMAT}. Use the version that wrote it, or another --dir`,
      );
    }
    const sum = format === FORMAT ? this.getMeta(SUM) : undefined;
    if (sum !== undefined) this.#sum = ShardSum.fromBytes(sum)!;
    else {
      for (const { key, value } of this.#db.getRange()) this.#sum.add(keyBytes(key), value);
      this.transaction(() => this.putMeta("format", Uint8Array.of(FORMAT)));
    }
  }

  /** Runs `body` with all its writes in one commit, which is on disk when this returns. */
  transaction<T>(body: () => T): T {
    if (this.#changed !== undefined) return body();
    const before = this.#sum.copy();
    this.#changed = false;
    try {
      return this.#db.transactionSync(() => {
        const result = body();
        if (this.#changed) {
          this.#sum.commits++;
          this.#db.putSync(`m${SUM}`, this.#sum.toBytes());
        }
        return result;
      });
    } catch (error) {
      this.#sum = before;
      throw error;
    } finally {
      this.#changed = undefined;
    }
  }

  get(key: string): StoredEntry | undefined {
    const bytes = this.#db.get(`e${key}`);
    return bytes === undefined ? undefined : readEntry(bytes);
  }

  put(key: string, { value, revision, lease }: StoredEntry): void {
    const bytes = new Uint8Array(HEAD_BYTES + lease.length + value.length);
    new DataView(bytes.buffer).setFloat64(0, revision, true);
    bytes[8] = lease.length;
    if (lease !== "") writeObjectId(lease as string as ObjectId, bytes.subarray(HEAD_BYTES), 0);
    bytes.set(value, HEAD_BYTES + lease.length);
    this.#write(`e${key}`, bytes);
  }

  delete(key: string): void {
    this.#write(`e${key}`, undefined);
  }

  *scan(prefix: string, after: string): Iterable<readonly [key: string, entry: StoredEntry]> {
    const start = `e${after === "" || after < prefix ? prefix : after}`;
    for (const { key, value } of this.#db.getRange({ start })) {
      const name = key as string;
      if (!name.startsWith(`e${prefix}`)) return;
      if (after !== "" && name.slice(1) <= after) continue;
      yield [name.slice(1), readEntry(value)];
    }
  }

  getMeta(name: string): Uint8Array | undefined {
    const bytes = this.#db.get(`m${name}`);
    return bytes === undefined ? undefined : copied(bytes, 0);
  }

  putMeta(name: string, value: Uint8Array): void {
    this.#write(`m${name}`, value);
  }

  deleteMeta(name: string): void {
    this.#write(`m${name}`, undefined);
  }

  *scanMeta(prefix: string): Iterable<readonly [name: string, value: Uint8Array]> {
    for (const { key, value } of this.#db.getRange({ start: `m${prefix}` })) {
      const name = key as string;
      if (!name.startsWith(`m${prefix}`)) return;
      yield [name.slice(1), copied(value, 0)];
    }
  }

  /** Writes or removes a record, and sums it up. */
  #write(key: string, value: Uint8Array | undefined): void {
    if (this.#changed === undefined) return this.transaction(() => this.#write(key, value));
    const before = this.#db.get(key);
    if (before === undefined && value === undefined) return;
    this.#changed = true;
    const bytes = keyBytes(key);
    if (before !== undefined) this.#sum.remove(bytes, before);
    if (value === undefined) this.#db.removeSync(key);
    else {
      this.#sum.add(bytes, value);
      this.#db.putSync(key, value);
    }
  }

  /** Closes the environment. */
  async close(): Promise<void> {
    await this.#db.close();
  }
}

/** A key as it is on disk. The package has this, and does not declare it. */
const keyBytes =
  (lmdb as unknown as { readonly keyValueToBuffer: (key: Key) => Uint8Array }).keyValueToBuffer;

/** lmdb-js reads into memory that it uses again, and a Buffer's own slice() is no copy. */
function copied(bytes: Uint8Array, from: number): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, from);
}

function readEntry(bytes: Uint8Array): StoredEntry {
  const revision = new DataView(bytes.buffer, bytes.byteOffset).getFloat64(0, true);
  const end = HEAD_BYTES + bytes[8]!;
  const lease = end === HEAD_BYTES ? "" : taskIdFromBytes(bytes.subarray(HEAD_BYTES, end)) as TaskId;
  return { revision, lease, value: copied(bytes, end) };
}
