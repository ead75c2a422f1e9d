/**
 * The node's side of the key-value table: what programs and tasks of this node ask of it, and whom changes are told.
 *
 * A watcher asks for changes whenever it has dealt with those before. What comes up meanwhile is kept here, of each key
 * the last change only: so a slow watcher costs no more than the keys that it watches.
 *
 * @module
 */

import { ProtocolError, UsageError } from "../core/errors.ts";
import {
  ANY_VERSION,
  type KeyValueAnswer,
  NO_VERSION,
  type PackedChange,
  type PackedEntry,
  readKeyValueRequest,
  writeKeyValueAnswer,
} from "../core/key_value.ts";
import { KEY_VALUE_BYTES_MAX, KEY_WATCHES_MAX } from "../core/limits.ts";
import type { GcsClient } from "../gcs/client.ts";
import { packError } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";

/** Told of each change. */
export type KeyListener = (change: PackedChange) => void;

/** Where keys and values are. */
export interface KeyValueTable {
  get(key: string): Promise<PackedEntry | undefined>;
  /** @returns The version; `undefined` if the key's was not as expected. */
  put(key: string, value: Uint8Array, expect: number): Promise<number | undefined>;
  /** @returns Whether the key's version was as expected. */
  delete(key: string, expect: number): Promise<boolean>;
  /** All keys that begin with `prefix`, in order. */
  list(prefix: string): Promise<readonly PackedEntry[]>;
  /** Tells of what there is, and then of each change. Resolves when it has told what there is. @returns What ends it. */
  watch(prefix: string, listener: KeyListener): Promise<() => void>;
}

/** Keys of programs in the control store, beside those that are rayd's own. */
const KEYS = "kv/";

/** The table of a cluster. */
export function clusterTable(gcs: GcsClient): KeyValueTable {
  const own = (key: string) => key.slice(KEYS.length);
  return {
    async get(key) {
      const entry = await gcs.get(KEYS + key);
      return entry && { key, value: entry.value, version: entry.revision };
    },
    put: (key, value, expect) => gcs.put(KEYS + key, value, expect),
    delete: (key, expect) => gcs.delete(KEYS + key, expect),
    async list(prefix) {
      const entries = await gcs.list(KEYS + prefix);
      return entries.map(({ key, value, revision }) => ({ key: own(key), value, version: revision }));
    },
    watch: (prefix, listener) =>
      gcs.watch(
        KEYS + prefix,
        (key, value, revision) => listener({ key: own(key), value, version: revision }),
      ),
  };
}

/** The table of a node that is alone: it goes with the node. */
export function localTable(): KeyValueTable {
  const entries = new Map<string, PackedEntry>();
  const watches = new Set<{ readonly prefix: string; readonly listener: KeyListener }>();
  let version = 0;
  const change = (key: string, value: Uint8Array | undefined, expect: number): number | undefined => {
    const known = entries.get(key)?.version ?? NO_VERSION;
    if (expect !== ANY_VERSION && expect !== known) return undefined;
    if (value === undefined && known === NO_VERSION) return version;
    version++;
    if (value === undefined) entries.delete(key);
    else entries.set(key, { key, value, version });
    for (const { prefix, listener } of watches) if (key.startsWith(prefix)) listener({ key, value, version });
    return version;
  };
  const list = (prefix: string) =>
    [...entries.values()].filter(({ key }) => key.startsWith(prefix)).sort((a, b) => a.key < b.key ? -1 : 1);
  return {
    get: (key) => Promise.resolve(entries.get(key)),
    put: (key, value, expect) => Promise.resolve(change(key, value.slice(), expect)),
    delete: (key, expect) => Promise.resolve(change(key, undefined, expect) !== undefined),
    list: (prefix) => Promise.resolve(list(prefix)),
    watch(prefix, listener) {
      const watch = { prefix, listener };
      for (const entry of list(prefix)) listener(entry);
      watches.add(watch);
      return Promise.resolve(() => watches.delete(watch));
    },
  };
}

/** What a client watches. */
interface Watch {
  readonly changes: Map<string, PackedChange>;
  /** The request that is answered when there are changes. */
  request: number | undefined;
  stop: () => void;
}

/** One part of a list, and of changes: not much more than this is one message. */
const PART_BYTES_MAX = 4 * KEY_VALUE_BYTES_MAX;

/** Serves the table to clients. */
export class KeyValues {
  readonly #node: NodeParts;
  readonly #table: KeyValueTable;
  /** By client, and by what it calls each. */
  readonly #watches = new Map<number, Map<number, Watch>>();

  /** @param node What the node is made of. @param table Where keys and values are. */
  constructor(node: NodeParts, table: KeyValueTable) {
    this.#node = node;
    this.#table = table;
  }

  /** A program or a task asks for something. */
  asked(client: Client, request: number, body: Uint8Array): void {
    const message = readKeyValueRequest(body.slice());
    const reply = (answering: Promise<KeyValueAnswer>) => {
      answering.catch((error): KeyValueAnswer => ({ kind: "failed", error: packError(error) }))
        .then((answer) => this.#answer(client, request, answer));
    };
    const table = this.#table;
    switch (message.kind) {
      case "get":
        return reply(table.get(message.key).then((entry) => ({ kind: "entry", entry })));
      case "set":
        return reply(
          table.put(message.key, message.value, message.expect)
            .then((version = 0) => ({ kind: "done", version })),
        );
      case "delete":
        return reply(
          table.delete(message.key, message.expect).then((done) => ({ kind: "done", version: done ? 1 : 0 })),
        );
      case "list":
        return reply(
          table.list(message.prefix).then((all) => {
            const entries = all.filter(({ key }) => key > message.after);
            const part = partOf(entries);
            return { kind: "entries", entries: part, more: part.length < entries.length };
          }),
        );
      case "watch":
        return reply(this.#watch(client, message.watch, message.prefix));
      case "changes": {
        const watch = this.#watches.get(client.id)?.get(message.watch);
        if (watch === undefined) return reply(Promise.resolve({ kind: "changes", changes: [] }));
        if (watch.request !== undefined) throw new ProtocolError("Cannot wait twice for changes of keys");
        watch.request = request;
        return this.#tell(client, watch);
      }
      case "unwatch": {
        const watches = this.#watches.get(client.id);
        const watch = watches?.get(message.watch);
        if (watch === undefined) return;
        watches!.delete(message.watch);
        watch.stop();
        if (watch.request !== undefined) {
          this.#answer(client, watch.request, { kind: "changes", changes: [] });
        }
      }
    }
  }

  /** A client is gone, and watches nothing any more. */
  clientGone(client: number): void {
    for (const { stop } of this.#watches.get(client)?.values() ?? []) stop();
    this.#watches.delete(client);
  }

  async #watch(client: Client, id: number, prefix: string): Promise<KeyValueAnswer> {
    const watches = this.#watches.get(client.id) ?? new Map<number, Watch>();
    if (watches.has(id)) throw new ProtocolError(`Cannot open watch ${id} of keys: it is open`);
    if (watches.size >= KEY_WATCHES_MAX) {
      throw new UsageError(
        `Cannot watch "${prefix}": ${KEY_WATCHES_MAX} watches are open. End some (leave their loops), or watch a common prefix`,
      );
    }
    this.#watches.set(client.id, watches);
    let ended = false;
    const watch: Watch = { changes: new Map(), request: undefined, stop: () => ended = true };
    watches.set(id, watch);
    const stop = await this.#table.watch(prefix, (change) => {
      if (ended) return;
      watch.changes.set(change.key, change);
      if (watch.request !== undefined) this.#node.clock.turn().then(() => this.#tell(client, watch));
    });
    if (ended) stop();
    else watch.stop = stop;
    return { kind: "done", version: 1 };
  }

  /** Tells what there is to tell, if it is asked for. */
  #tell(client: Client, watch: Watch): void {
    if (watch.request === undefined || watch.changes.size === 0) return;
    const { request } = watch;
    watch.request = undefined;
    const changes = partOf([...watch.changes.values()]);
    for (const { key } of changes) watch.changes.delete(key);
    this.#answer(client, request, { kind: "changes", changes });
  }

  #answer(client: Client, request: number, answer: KeyValueAnswer): void {
    if (this.#node.clients.get(client.id) !== client) return;
    this.#node.send(client, { type: "answer", request, body: writeKeyValueAnswer(answer) });
    this.#node.flush();
  }
}

/** The first of what there is, as much as one message takes. */
function partOf<T extends { readonly value: Uint8Array | undefined }>(all: readonly T[]): T[] {
  const part: T[] = [];
  let bytes = 0;
  for (const each of all) {
    if (bytes > PART_BYTES_MAX) break;
    bytes += (each.value?.length ?? 0) + ENTRY_BYTES;
    part.push(each);
  }
  return part;
}

/** About what an entry takes beside its value. */
const ENTRY_BYTES = 256;
