/**
 * A small table that all programs and tasks of a cluster share: for settings, for where the newest model is, for who has
 * taken what. It lies in the control store, so it survives programs, nodes and, with replicas, the head; what is written
 * is on disk before `set` resolves. On a node that is alone it goes with the node.
 *
 * It is not the place for data: values travel through the control store, and are limited to 1 MB. Data goes into objects
 * (`put`), and state that changes often into actors.
 *
 * Reads and writes of one key are linearizable: who reads after a write has ended sees that write, or a later one.
 *
 * @module
 */

import { SerializationError, UsageError } from "../core/errors.ts";
import {
  ANY_VERSION,
  isKey,
  isPrefix,
  type KeyValueAnswer,
  type KeyValueRequest,
  NO_VERSION,
  type PackedEntry,
} from "../core/key_value.ts";
import { KEY_BYTES_MAX, KEY_VALUE_BYTES_MAX } from "../core/limits.ts";
import { checkOptions, show } from "../core/options.ts";
import { currentClient } from "./session.ts";

/** A key with its value. */
export interface KeyValueEntry<T = unknown> {
  /** The key. */
  readonly key: string;
  /** Its value: a copy of the reader's own. */
  readonly value: T;
  /** Of the last change of this key, above 0: later changes of a key have higher ones. */
  readonly version: number;
}

/** What became of a key. */
export interface KeyValueChange<T = unknown> {
  /** The key. */
  readonly key: string;
  /** `undefined` if the key is gone. */
  readonly value: T | undefined;
  /** Of this change, above that of the one before. */
  readonly version: number;
}

/** Conditions of {@link set} and {@link remove}. */
export interface ConditionOptions {
  /** Only if the key has this version, as {@link entry} tells it; 0: only if there is no such key. */
  version?: number;
}

/**
 * The value of a key.
 *
 * @returns `undefined` if there is no such key.
 * @throws {UsageError} If it cannot be a key: 1 to 512 bytes of text.
 */
export async function get<T = unknown>(key: string): Promise<T | undefined> {
  return (await entry<T>(key))?.value;
}

/** A key with its value and its version. @returns `undefined` if there is no such key. @throws {UsageError} As {@link get}. */
export async function entry<T = unknown>(key: string): Promise<KeyValueEntry<T> | undefined> {
  const answer = await ask({ kind: "get", key: checkedKey(key) });
  if (answer.kind !== "entry" || answer.entry === undefined) return undefined;
  return unpacked<T>(answer.entry);
}

/**
 * Writes a key. Resolves when it is on disk.
 *
 * ```ts
 * await kv.set("model/best", { path, accuracy: 0.93 });
 * const taken = await kv.set("lock/shard-7", me, { version: 0 }); // undefined: somebody else was first
 * ```
 *
 * @param value What tasks can take as arguments, but no Ref and no handle: the table keeps nothing alive. At most 1 MB.
 * @returns The key's version; `undefined` if it was not `options.version`, and nothing was done.
 * @throws {UsageError} If it cannot be a key, an option is wrong, or the value is too large.
 * @throws {SerializationError} If the value cannot be written, or has a Ref in it.
 * @throws {DisconnectedError} If the control store went away, and nobody knows whether it was done.
 */
export async function set(
  key: string,
  value: unknown,
  options: ConditionOptions = {},
): Promise<number | undefined> {
  checkedKey(key);
  if (value === undefined) throw new UsageError(`Cannot set key ${show(key)} to undefined: use remove()`);
  const { packet, contains } = currentClient().packValue(value);
  if (contains.length > 0) {
    throw new SerializationError(
      `Cannot set key ${
        show(key)
      }: the value has a Ref or a handle in it, which the table would not keep alive. ` +
        `Write what it stands for (await get(ref)), or give an actor a name and look it up by that`,
      { path: "value" },
    );
  }
  if (packet.size > KEY_VALUE_BYTES_MAX) {
    throw new UsageError(
      `Cannot set key ${
        show(key)
      }: the value has ${packet.size} bytes, and ${KEY_VALUE_BYTES_MAX} are the limit. ` +
        `Keep data in objects (put) or actors, and here where it is`,
    );
  }
  const answer = await ask({
    kind: "set",
    key,
    value: packet.toBytes().slice(),
    expect: expected(options, "set"),
  });
  return answer.kind === "done" && answer.version > 0 ? answer.version : undefined;
}

/**
 * Removes a key.
 *
 * @returns Whether the condition held; without one, true, be there such a key or not.
 * @throws {UsageError} If it cannot be a key, or an option is wrong.
 * @throws {DisconnectedError} If the control store went away, and nobody knows whether it was done.
 */
export async function remove(key: string, options: ConditionOptions = {}): Promise<boolean> {
  const answer = await ask({ kind: "delete", key: checkedKey(key), expect: expected(options, "remove") });
  return answer.kind === "done" && answer.version > 0;
}

/**
 * Changes a key by what it was: `change` is called again if somebody else was quicker.
 *
 * ```ts
 * await kv.update<number>("epochs", (n = 0) => n + 1);
 * ```
 *
 * @param change Gives the new value; `undefined` removes the key.
 * @returns The new value.
 * @throws {UsageError | SerializationError} As {@link set}. @throws Whatever `change` throws.
 */
export async function update<T>(
  key: string,
  change: (value: T | undefined) => T | undefined | Promise<T | undefined>,
): Promise<T | undefined> {
  for (;;) {
    const known = await entry<T>(key);
    const value = await change(known?.value);
    const condition = { version: known?.version ?? NO_VERSION };
    const done = value === undefined
      ? known === undefined || await remove(key, condition)
      : await set(key, value, condition) !== undefined;
    if (done) return value;
  }
}

/**
 * All keys that begin with a prefix, in the order of their characters, with their values. Each is as it was at some moment
 * of the call, not all at the same one.
 *
 * @param prefix All keys, unless given.
 * @throws {UsageError} If it cannot be the beginning of a key.
 */
export async function list<T = unknown>(prefix = ""): Promise<KeyValueEntry<T>[]> {
  checkedPrefix(prefix);
  const entries: KeyValueEntry<T>[] = [];
  for (let more = true; more;) {
    const answer = await ask({ kind: "list", prefix, after: entries.at(-1)?.key ?? "" });
    if (answer.kind !== "entries") break;
    for (const packed of answer.entries) entries.push(unpacked<T>(packed));
    more = answer.more;
  }
  return entries;
}

/** Options of {@link watch}. */
export interface WatchOptions {
  /** Ends the loop, even while it waits for a change. */
  signal?: AbortSignal;
}

/**
 * Changes of all keys that begin with a prefix: at first what there is, then whatever changes, until the loop is left. Who
 * takes long is told of the last change of each key only.
 *
 * ```ts
 * for await (const { key, value } of kv.watch("config/")) apply(key, value);
 * ```
 *
 * @throws {UsageError} If it cannot be the beginning of a key, an option is wrong, or this program watches too much already.
 */
export async function* watch<T = unknown>(
  prefix: string,
  options: WatchOptions = {},
): AsyncGenerator<KeyValueChange<T>, void, undefined> {
  checkedPrefix(prefix);
  checkOptions(options, ["signal"], "watch", "{ signal: AbortSignal.timeout(1000) }");
  const { signal } = options;
  if (signal?.aborted) return;
  const client = currentClient();
  const watch = nextWatch++;
  const end = () => client.tellKeyValues({ kind: "unwatch", watch });
  await ask({ kind: "watch", watch, prefix });
  signal?.addEventListener("abort", end);
  try {
    while (!signal?.aborted) {
      const answer = await ask({ kind: "changes", watch });
      if (answer.kind !== "changes" || answer.changes.length === 0) return;
      for (const { key, value, version } of answer.changes) {
        yield { key, version, value: value === undefined ? undefined : client.unpack(value) as T };
        if (signal?.aborted) return;
      }
    }
  } finally {
    signal?.removeEventListener("abort", end);
    end();
  }
}

/** Watches of one isolate are told apart by number. */
let nextWatch = 0;

function ask(request: KeyValueRequest): Promise<Exclude<KeyValueAnswer, { kind: "failed" }>> {
  return currentClient().askKeyValues(request);
}

function unpacked<T>({ key, value, version }: PackedEntry): KeyValueEntry<T> {
  return { key, value: currentClient().unpack(value) as T, version };
}

function expected(options: ConditionOptions, of: string): number {
  checkOptions(options, ["version"], of, "{ version: 0 }");
  const { version } = options;
  if (version === undefined) return ANY_VERSION;
  if (Number.isInteger(version) && version >= NO_VERSION) return version;
  throw new UsageError(
    `Cannot use version ${show(version)}: give one that entry() told, or 0 for no such key`,
  );
}

function checkedKey(key: string): string {
  if (isKey(key)) return key;
  throw new UsageError(
    `Cannot use key ${show(key)}: give text of 1 to ${KEY_BYTES_MAX} bytes in UTF-8, without "\\0"`,
  );
}

function checkedPrefix(prefix: string): void {
  if (isPrefix(prefix)) return;
  throw new UsageError(
    `Cannot use prefix ${show(prefix)}: give text of at most ${KEY_BYTES_MAX} bytes, without "\\0"`,
  );
}
