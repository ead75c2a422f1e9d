/**
 * A shard of the global control store: a map from keys to values that applies an ordered sequence of commands.
 *
 * The problem: every other part of rayd may be restarted because what it knows lies here. So a command must take
 * effect exactly once however often it is sent (commands carry the client and its sequence number), in one order that
 * everybody who watches sees, with no gap and no doubles. A shard therefore numbers its changes: the *revision* counts
 * every key that is written or deleted, each entry remembers the revision that wrote it, and the last changes are kept
 * so that a watcher who was away can go on where it was. One who was away for longer is told all entries instead.
 *
 * Pure: `apply` takes a command and changes what is behind a {@link ShardStorage}; whoever calls it opens the storage's
 * transaction around it, and only lets results and changes out once that is durable. Replication slots in between: a
 * chain applies the same commands in the same order.
 *
 * @module
 */

import type { TaskId } from "../core/ids.ts";
import { unreachable } from "../core/unreachable.ts";
import { ChangeHistory, HISTORY } from "./change_history.ts";

/** One operation on one key, or on all keys with a prefix. */
export type GcsOp =
  | { readonly kind: "get"; readonly key: string }
  | { readonly kind: "list"; readonly prefix: string; readonly after: string; readonly limit: number }
  | {
    readonly kind: "put";
    readonly key: string;
    readonly value: Uint8Array;
    /** The revision that the entry must have; {@link ABSENT}: there must be none; {@link ANY}: whatever. */
    readonly expect: number;
    /** The entry goes with the client that writes it. */
    readonly lease: boolean;
  }
  | { readonly kind: "delete"; readonly key: string; readonly expect: number }
  /** Changes nothing: the other operations of the command take effect only if the entry has that revision. */
  | { readonly kind: "check"; readonly key: string; readonly expect: number };

/** What an operation gives. */
export type GcsResult =
  | { readonly kind: "entry"; readonly value: Uint8Array; readonly revision: number }
  | { readonly kind: "absent" }
  | { readonly kind: "entries"; readonly entries: readonly GcsEntry[]; readonly more: boolean }
  /** Written, or deleted. */
  | { readonly kind: "done"; readonly revision: number }
  /** Nothing of the command was done: this operation expected another revision than there is (0: no entry). */
  | { readonly kind: "conflict"; readonly revision: number }
  /** Nothing of the command was done, as another operation of it met a conflict. */
  | { readonly kind: "skipped" };

/** A key with its value. */
export interface GcsEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly revision: number;
}

/** What became of a key. `value` is absent where it was deleted. */
export interface GcsChange {
  readonly key: string;
  readonly value: Uint8Array | undefined;
  readonly revision: number;
}

/** Expect nothing of an entry. */
export const ANY = -1;
/** Expect that there is no entry. */
export const ABSENT = 0;

/** Operations of one client on one shard: all take effect, or none. */
export interface GcsCommand {
  readonly client: TaskId;
  /** Counts the client's commands to this shard, from 1. Commands that only read may have 0: they can be repeated. */
  readonly sequence: number;
  /** The client has the results of all its commands up to this one. */
  readonly acknowledged: number;
  readonly operations: readonly GcsOp[];
}

/** What is kept of an entry. */
export interface StoredEntry {
  readonly value: Uint8Array;
  readonly revision: number;
  /** Whose lease it is; empty if it is nobody's. */
  readonly lease: TaskId | "";
}

/** Where a shard keeps its state. All reads see all earlier writes. */
export interface ShardStorage {
  get(key: string): StoredEntry | undefined;
  put(key: string, entry: StoredEntry): void;
  delete(key: string): void;
  /** Entries whose key begins with `prefix` and is greater than `after`, in the order of keys. */
  scan(prefix: string, after: string): Iterable<readonly [key: string, entry: StoredEntry]>;
  /** What is not an entry: counters, and what is known of clients. */
  getMeta(name: string): Uint8Array | undefined;
  putMeta(name: string, value: Uint8Array): void;
  deleteMeta(name: string): void;
  scanMeta(prefix: string): Iterable<readonly [name: string, value: Uint8Array]>;
}

/** A list is told in parts that are not much larger than this. */
const LIST_BYTES_MAX = 8 * 1024 * 1024;

const REVISION = "revision";

/** What a shard remembers of a client: the last command it has applied, and results that cannot be told anew. */
interface ClientRecord {
  last: number;
  /** Whether it is among those to be written: a set of them would leave garbage that only the slow collection takes. */
  dirty: boolean;
  /** Results of commands with a condition, by sequence number, until they are acknowledged. */
  readonly results: Map<number, readonly GcsResult[]>;
}

/** One shard. */
export class Shard {
  readonly #storage: ShardStorage;
  readonly #clients = new Map<TaskId, ClientRecord>();
  readonly #dirty: TaskId[] = [];
  readonly #leases = new Map<TaskId, Set<string>>();
  #revision: number;
  #revisionWritten: number;
  readonly #history: ChangeHistory;
  #fresh: GcsChange[] = [];

  /** @param storage Where its state lies; what is there already is taken up. */
  constructor(storage: ShardStorage) {
    this.#storage = storage;
    const revision = storage.getMeta(REVISION);
    this.#revision = this.#revisionWritten = revision === undefined ? 0 : readF64(revision, 0);
    this.#history = new ChangeHistory(storage, this.#revision);
    for (const [name, value] of storage.scanMeta(CLIENT)) {
      this.#clients.set(name.slice(CLIENT.length) as TaskId, readClient(value));
    }
    for (const [key, { lease }] of storage.scan("", "")) if (lease !== "") this.#leased(lease, key);
  }

  /** The revision of the last change. */
  get revision(): number {
    return this.#revision;
  }

  /** Clients that hold leases here. */
  leaseholders(): TaskId[] {
    return [...this.#leases.keys()];
  }

  /** Clients that are remembered. */
  clients(): TaskId[] {
    return [...this.#clients.keys()];
  }

  /** Whether a client is remembered. */
  remembers(client: TaskId): boolean {
    return this.#clients.has(client);
  }

  /** Remembers a client from now on, until it expires. @returns Whether it was remembered before. */
  remember(client: TaskId): boolean {
    if (this.#clients.has(client)) return true;
    this.#touch(client, this.#newClient(client));
    return false;
  }

  #newClient(client: TaskId): ClientRecord {
    const record = { last: 0, dirty: false, results: new Map() };
    this.#clients.set(client, record);
    return record;
  }

  /** What is remembered of a client has changed. */
  #touch(client: TaskId, record: ClientRecord): void {
    if (record.dirty) return;
    record.dirty = true;
    this.#dirty.push(client);
  }

  /**
   * Applies a command. What it changes can be had with {@link takeChanges}.
   *
   * @returns A result for each operation. Of a command that was applied before, the same again; but a write without a
   *   condition then says `done` with the present revision.
   */
  apply(command: GcsCommand): readonly GcsResult[] {
    const { client, sequence, operations } = command;
    if (sequence === 0) return operations.map((operation) => this.#read(operation));
    const record = this.#clients.get(client) ?? this.#newClient(client);
    for (const known of record.results.keys()) {
      if (known > command.acknowledged) break;
      record.results.delete(known);
    }
    if (sequence <= record.last) return this.again(command);
    record.last = sequence;
    this.#touch(client, record);
    const conflict = operations.findIndex((operation) => this.#conflicts(operation));
    const results = operations.map((operation, i): GcsResult => {
      if (conflict < 0) return this.#perform(client, operation);
      const key = (operation as { key: string }).key;
      return i === conflict
        ? { kind: "conflict", revision: this.#storage.get(key)?.revision ?? 0 }
        : { kind: "skipped" };
    });
    const conditional = operations.some((operation) => "expect" in operation && operation.expect !== ANY);
    if (conditional) record.results.set(sequence, results);
    return results;
  }

  /** The number of a client's last command that was applied; 0 of one that is not remembered. */
  lastOf(client: TaskId): number {
    return this.#clients.get(client)?.last ?? 0;
  }

  /**
   * The results of a command that was applied before, and nothing changes.
   *
   * A write without a condition says `done` with the present revision.
   */
  again({ client, sequence, operations }: GcsCommand): readonly GcsResult[] {
    return this.#clients.get(client)?.results.get(sequence) ??
      operations.map((operation): GcsResult =>
        operation.kind === "get" || operation.kind === "list"
          ? this.#read(operation)
          : { kind: "done", revision: this.#revision }
      );
  }

  /** A client is gone for good: what it held by lease goes, and what is remembered of it. */
  expire(client: TaskId): void {
    for (const key of this.#leases.get(client) ?? []) {
      const entry = this.#storage.get(key);
      if (entry?.lease === client) this.#delete(key);
    }
    this.#leases.delete(client);
    if (this.#clients.delete(client)) this.#storage.deleteMeta(CLIENT + client);
  }

  /** Writes out what was put off while commands were applied; at the end of each transaction. */
  settle(): void {
    if (this.#revision !== this.#revisionWritten) {
      this.#storage.putMeta(REVISION, f64(this.#revision));
      this.#revisionWritten = this.#revision;
      this.#history.settle();
    }
    for (const client of this.#dirty) {
      const record = this.#clients.get(client);
      if (record?.dirty !== true) continue; // it has expired
      record.dirty = false;
      this.#storage.putMeta(CLIENT + client, writeClient(record));
    }
    this.#dirty.length = 0;
  }

  /** The changes since this was last called, in order. */
  takeChanges(): readonly GcsChange[] {
    if (this.#fresh.length === 0) return NO_CHANGES;
    const fresh = this.#fresh;
    this.#fresh = [];
    return fresh;
  }

  /**
   * What a watcher has missed.
   *
   * @param prefix What it watches. @param after The revision that it has seen.
   * @returns The changes since; or, when those are no longer known, `undefined`: it has to see all entries.
   */
  missed(prefix: string, after: number): readonly GcsChange[] | undefined {
    return after > this.#revision ? undefined : this.#history.since(prefix, after);
  }

  /** All entries with a prefix. */
  entries(prefix: string): GcsEntry[] {
    return Array.from(
      this.#storage.scan(prefix, ""),
      ([key, { value, revision }]) => ({ key, value, revision }),
    );
  }

  #conflicts(operation: GcsOp): boolean {
    if (!("expect" in operation) || operation.expect === ANY) return false;
    return (this.#storage.get(operation.key)?.revision ?? 0) !== operation.expect;
  }

  #read(operation: GcsOp): GcsResult {
    if (operation.kind === "get") {
      const entry = this.#storage.get(operation.key);
      if (entry === undefined) return { kind: "absent" };
      return { kind: "entry", value: entry.value, revision: entry.revision };
    }
    if (operation.kind !== "list") return { kind: "skipped" };
    const entries: GcsEntry[] = [];
    let bytes = 0;
    for (const [key, { value, revision }] of this.#storage.scan(operation.prefix, operation.after)) {
      if (entries.length === operation.limit || bytes > LIST_BYTES_MAX) {
        return { kind: "entries", entries, more: true };
      }
      entries.push({ key, value, revision });
      bytes += value.length;
    }
    return { kind: "entries", entries, more: false };
  }

  #perform(client: TaskId, operation: GcsOp): GcsResult {
    switch (operation.kind) {
      case "get":
      case "list":
        return this.#read(operation);
      case "put": {
        const { key, value, lease } = operation;
        const revision = ++this.#revision;
        this.#storage.put(key, { value, revision, lease: lease ? client : "" });
        if (lease) this.#leased(client, key);
        this.#changed({ key, value, revision });
        return { kind: "done", revision };
      }
      case "delete":
        if (this.#storage.get(operation.key) === undefined) return { kind: "done", revision: this.#revision };
        return { kind: "done", revision: this.#delete(operation.key) };
      case "check":
        return { kind: "done", revision: operation.expect };
      default:
        unreachable(operation);
    }
  }

  #delete(key: string): number {
    const revision = ++this.#revision;
    this.#storage.delete(key);
    this.#changed({ key, value: undefined, revision });
    return revision;
  }

  #changed(change: GcsChange): void {
    this.#fresh.push(change);
    this.#history.add(change);
  }

  #leased(client: TaskId, key: string): void {
    const keys = this.#leases.get(client);
    if (keys === undefined) this.#leases.set(client, new Set([key]));
    else keys.add(key);
  }
}

const CLIENT = "client/";
const NO_CHANGES: readonly GcsChange[] = Object.freeze([]);

function f64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value, true);
  return bytes;
}

function readF64(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat64(at, true);
}

/** A client's record as bytes: the last number; then for each kept result number, operations, and two numbers each. */
function writeClient({ last, results }: ClientRecord): Uint8Array {
  const numbers: number[] = [last];
  for (const [sequence, list] of results) {
    numbers.push(sequence, list.length);
    for (const result of list) {
      const revision = result.kind === "done" || result.kind === "conflict" ? result.revision : 0;
      numbers.push(result.kind === "done" ? 0 : result.kind === "conflict" ? 1 : 2, revision);
    }
  }
  return new Uint8Array(Float64Array.from(numbers).buffer);
}

function readClient(bytes: Uint8Array): ClientRecord {
  const numbers = new Float64Array(bytes.slice().buffer);
  const results = new Map<number, readonly GcsResult[]>();
  for (let at = 1; at < numbers.length;) {
    const sequence = numbers[at++]!, count = numbers[at++]!;
    const list: GcsResult[] = [];
    for (let i = 0; i < count; i++) {
      const kind = numbers[at++]!, revision = numbers[at++]!;
      list.push(
        kind === 0
          ? { kind: "done", revision }
          : kind === 1
          ? { kind: "conflict", revision }
          : { kind: "skipped" },
      );
    }
    results.set(sequence, list);
  }
  return { last: numbers[0]!, dirty: false, results };
}

/** What a shard keeps beside its entries: names for {@link ShardStorage.scanMeta}, each or the prefix of some. */
export const SHARD_META: readonly string[] = [REVISION, CLIENT, HISTORY];

/**
 * The shard that a key belongs to: a hash (FNV-1a, 32 bits) of what stands in its braces, so that keys with the same can be
 * written together; or else of all of it.
 */
export function shardOf(key: string, shards: number): number {
  if (shards === 1) return 0;
  let hash = 0x811c9dc5;
  const open = key.indexOf("{") + 1;
  const close = open > 0 ? key.indexOf("}", open) : -1;
  for (let i = close < 0 ? 0 : open, end = close < 0 ? key.length : close; i < end; i++) {
    hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  }
  return (hash >>> 0) % shards;
}
