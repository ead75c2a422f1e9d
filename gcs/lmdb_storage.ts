/**
 * A shard's state in an LMDB environment: what a shard has acknowledged is on disk, and whole.
 *
 * On disk, format {@link FORMAT}: a directory a shard. In its environment, keys are text as lmdb-js writes it (bytes in
 * the order of characters). A key `e` + key is an entry: the revision (8 bytes, little-endian double), the length of the
 * lease holder's id (1 byte: 0 or 16), the id, and the value. A key `m` + name is what is not an entry; `mformat` holds
 * the format's number. A transaction is one commit: LMDB writes pages that nobody reads yet, syncs them, and then turns
 * the root over, so a process killed at any instant leaves the state before or after.
 *
 * @module
 */

import { type Key, open, type RootDatabase } from "lmdb";
import { UsageError } from "../core/errors.ts";
import { taskIdFromBytes, writeObjectId } from "../core/ids.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { ShardStorage, StoredEntry } from "./shard.ts";

/** The number of the format on disk; a store of another one is refused. */
export const FORMAT = 1;

const HEAD_BYTES = 9;

/** One shard's state on disk. */
export class LmdbStorage implements ShardStorage {
  readonly #db: RootDatabase<Uint8Array, Key>;

  /**
   * @param path The directory of the environment, made if need be.
   * @throws {UsageError} If it holds what another version wrote.
   */
  constructor(path: string) {
    this.#db = open<Uint8Array, Key>({
      path,
      encoding: "binary",
      noSubdir: false,
      // The commit is the acknowledgement: it has to be on disk by then.
      overlappingSync: false,
      // Entries are read once, by whoever wants them.
      cache: false,
      compression: false,
    });
    const format = this.getMeta("format");
    if (format === undefined) this.transaction(() => this.putMeta("format", Uint8Array.of(FORMAT)));
    else if (format[0] !== FORMAT) {
      throw new UsageError(
        `Cannot open the control store in ${path}: it has format ${
          format[0]
        }, and this version of rayd reads ` +
          `format ${FORMAT}. Use the version that wrote it, or another --dir`,
      );
    }
  }

  /** Runs `body` with all its writes in one commit, which is on disk when this returns. */
  transaction<T>(body: () => T): T {
    return this.#db.transactionSync(body);
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
    this.#db.putSync(`e${key}`, bytes);
  }

  delete(key: string): void {
    this.#db.removeSync(`e${key}`);
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
    this.#db.putSync(`m${name}`, value);
  }

  deleteMeta(name: string): void {
    this.#db.removeSync(`m${name}`);
  }

  *scanMeta(prefix: string): Iterable<readonly [name: string, value: Uint8Array]> {
    for (const { key, value } of this.#db.getRange({ start: `m${prefix}` })) {
      const name = key as string;
      if (!name.startsWith(`m${prefix}`)) return;
      yield [name.slice(1), copied(value, 0)];
    }
  }

  /** Closes the environment. */
  async close(): Promise<void> {
    await this.#db.close();
  }
}

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
