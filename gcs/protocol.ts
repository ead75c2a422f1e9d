/**
 * What clients of the global control store and its server say to each other, and the bytes of it.
 *
 * A message on the wire is as in `transport/codec.ts`: a 4-byte little-endian length, a kind byte, and fields. A client
 * sends any number of requests without waiting; answers name the request.
 *
 * @module
 */

import { ProtocolError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { unreachable } from "../core/unreachable.ts";
import type { ByteReader, ByteWriter } from "../transport/bytes.ts";
import type { GcsChange, GcsEntry, GcsOp, GcsResult } from "./shard.ts";

/** The version of this protocol; peers of another version are refused. */
export const GCS_PROTOCOL = 4;

/** Who in the store takes what, as clients are told. Addresses are HOST:PORT; one may be empty: where it was asked. */
export interface StoreMap {
  /** Counts configurations: of two maps the one with the higher epoch is right. */
  readonly epoch: number;
  /** Takes writes, loads, and signs of life. */
  readonly head: string;
  /** Answers reads, and tells of changes. */
  readonly tail: string;
  /** All who know of changes of this map. */
  readonly members: readonly string[];
  /** A majority of these decides on the next map. Who has no address that is known is "unknown". */
  readonly deciders: readonly string[];
  /** Where members reach members. Empty if there is no other. */
  readonly chain: readonly string[];
  /** Members that have any part in it, by their ids. */
  readonly parts: readonly string[];
  /** How many replicas there are to be. */
  readonly replicas: number;
}

/** From a client to the store. */
export type ToGcs =
  | {
    readonly type: "hello";
    readonly protocol: number;
    readonly version: string;
    readonly token: string;
    /** 16 random bytes that stay the client's through all its connections. */
    readonly client: TaskId;
  }
  | {
    readonly type: "request";
    readonly request: number;
    readonly shard: number;
    readonly sequence: number;
    readonly acknowledged: number;
    readonly operations: readonly GcsOp[];
  }
  /** Tell of what becomes of keys with a prefix, from a revision on; 0 for all entries first. */
  | {
    readonly type: "watch";
    readonly watch: number;
    readonly shard: number;
    readonly prefix: string;
    readonly after: number;
  }
  | { readonly type: "unwatch"; readonly watch: number }
  /** How the client's node is loaded: passed on to all who follow, and not kept. Also the sign that it lives. */
  | { readonly type: "load"; readonly load: Uint8Array }
  | { readonly type: "follow" }
  /** The client ends on purpose: its leases go at once. */
  | { readonly type: "goodbye" };

/** From the store to a client. */
export type FromGcs =
  /** The answer to "hello", and again whenever it changes. */
  | {
    readonly type: "map";
    readonly cluster: TaskId;
    readonly shards: number;
    /** The address of the member that says this. */
    readonly self: string;
    readonly map: StoreMap;
  }
  /** The head takes what the client sends from now on. */
  | {
    readonly type: "welcome";
    /** The client was here before, and is remembered: its leases stand, and what it sends again is known. */
    readonly known: boolean;
  }
  | { readonly type: "refused"; readonly reason: string }
  | {
    readonly type: "response";
    readonly request: number;
    readonly results: readonly GcsResult[];
  }
  /** The request cannot be taken here, or not yet: ask again in a while, or elsewhere if there is another map. */
  | { readonly type: "again"; readonly request: number }
  | {
    readonly type: "changes";
    readonly watch: number;
    readonly shard: number;
    /** All entries there are: what the watcher knew beyond them is gone. */
    readonly whole: boolean;
    /** The revision up to which the watcher knows all now. */
    readonly revision: number;
    readonly changes: readonly GcsChange[];
  }
  | {
    readonly type: "loads";
    readonly loads: readonly { readonly node: TaskId; readonly load: Uint8Array }[];
  };

const KIND = {
  hello: 1,
  request: 2,
  watch: 3,
  unwatch: 4,
  load: 5,
  follow: 6,
  goodbye: 7,
  map: 15,
  welcome: 16,
  refused: 17,
  response: 18,
  changes: 19,
  loads: 20,
  again: 21,
} as const satisfies Record<(ToGcs | FromGcs)["type"], number>;

/** Appends a message, length and kind included. */
export function encodeGcs(to: ByteWriter, message: ToGcs | FromGcs): void {
  const start = to.length;
  try {
    to.u32(0);
    to.u8(KIND[message.type]);
    fields(to, message);
  } catch (error) {
    to.length = start;
    throw error;
  }
  to.patchU32(start, to.length - start - 4);
}

function fields(to: ByteWriter, m: ToGcs | FromGcs): void {
  switch (m.type) {
    case "hello":
      to.u32(m.protocol);
      to.text(m.version);
      to.text(m.token);
      return to.taskId(m.client);
    case "request":
      to.u32(m.request);
      to.u16(m.shard);
      to.f64(m.sequence);
      to.f64(m.acknowledged);
      to.u32(m.operations.length);
      for (const operation of m.operations) writeOperation(to, operation);
      return;
    case "watch":
      to.u32(m.watch);
      to.u16(m.shard);
      to.text(m.prefix);
      return to.f64(m.after);
    case "unwatch":
      return to.u32(m.watch);
    case "load":
      return to.blob(m.load);
    case "follow":
    case "goodbye":
      return;
    case "map":
      to.taskId(m.cluster);
      to.u16(m.shards);
      to.text(m.self);
      to.f64(m.map.epoch);
      to.text(m.map.head);
      to.text(m.map.tail);
      for (const list of [m.map.members, m.map.deciders, m.map.chain, m.map.parts]) {
        to.u32(list.length);
        for (const address of list) to.text(address);
      }
      return to.u16(m.map.replicas);
    case "welcome":
      return to.u8(m.known ? 1 : 0);
    case "refused":
      return to.text(m.reason);
    case "again":
      return to.u32(m.request);
    case "response":
      to.u32(m.request);
      to.u32(m.results.length);
      for (const result of m.results) writeResult(to, result);
      return;
    case "changes":
      to.u32(m.watch);
      to.u16(m.shard);
      to.u8(m.whole ? 1 : 0);
      to.f64(m.revision);
      to.u32(m.changes.length);
      for (const { key, value, revision } of m.changes) {
        to.u8(value === undefined ? 0 : 1);
        to.text(key);
        to.f64(revision);
        if (value !== undefined) to.blob(value);
      }
      return;
    case "loads":
      to.u32(m.loads.length);
      for (const { node, load } of m.loads) {
        to.taskId(node);
        to.blob(load);
      }
      return;
    default:
      unreachable(m);
  }
}

/** Appends an operation. */
export function writeOperation(to: ByteWriter, operation: GcsOp): void {
  switch (operation.kind) {
    case "get":
      to.u8(0);
      return to.text(operation.key);
    case "list":
      to.u8(1);
      to.text(operation.prefix);
      to.text(operation.after);
      return to.u32(operation.limit);
    case "put":
      to.u8(operation.lease ? 3 : 2);
      to.text(operation.key);
      to.f64(operation.expect);
      return to.blob(operation.value);
    case "delete":
    case "check":
      to.u8(operation.kind === "delete" ? 4 : 5);
      to.text(operation.key);
      return to.f64(operation.expect);
    default:
      unreachable(operation);
  }
}

function writeResult(to: ByteWriter, result: GcsResult): void {
  switch (result.kind) {
    case "entry":
      to.u8(0);
      to.f64(result.revision);
      return to.blob(result.value);
    case "absent":
      return to.u8(1);
    case "entries":
      to.u8(result.more ? 3 : 2);
      to.u32(result.entries.length);
      for (const { key, value, revision } of result.entries) {
        to.text(key);
        to.f64(revision);
        to.blob(value);
      }
      return;
    case "done":
      to.u8(4);
      return to.f64(result.revision);
    case "conflict":
      to.u8(5);
      return to.f64(result.revision);
    case "skipped":
      return to.u8(6);
    default:
      unreachable(result);
  }
}

/** Reads what the store receives. @param from A reader whose window is one message, kind first. */
export function decodeToGcs(from: ByteReader): ToGcs {
  const message = toGcs(from);
  finished(from, message);
  return message;
}

/** Reads what a client receives. @param from A reader whose window is one message, kind first. */
export function decodeFromGcs(from: ByteReader): FromGcs {
  const message = fromGcs(from);
  finished(from, message);
  return message;
}

function toGcs(from: ByteReader): ToGcs {
  const kind = from.u8();
  switch (kind) {
    case KIND.hello:
      return {
        type: "hello",
        protocol: from.u32(),
        version: from.text(),
        token: from.text(),
        client: from.taskId(),
      };
    case KIND.request:
      return {
        type: "request",
        request: from.u32(),
        shard: from.u16(),
        sequence: from.size(),
        acknowledged: from.size(),
        operations: from.list(() => readOperation(from)),
      };
    case KIND.watch:
      return { type: "watch", watch: from.u32(), shard: from.u16(), prefix: from.text(), after: from.size() };
    case KIND.unwatch:
      return { type: "unwatch", watch: from.u32() };
    case KIND.load:
      return { type: "load", load: from.blob() };
    case KIND.follow:
      return { type: "follow" };
    case KIND.goodbye:
      return { type: "goodbye" };
    default:
      throw new ProtocolError(`Cannot read a message: the control store takes no message of kind ${kind}`);
  }
}

function fromGcs(from: ByteReader): FromGcs {
  const kind = from.u8();
  switch (kind) {
    case KIND.map:
      return {
        type: "map",
        cluster: from.taskId(),
        shards: from.u16(),
        self: from.text(),
        map: {
          epoch: from.size(),
          head: from.text(),
          tail: from.text(),
          members: from.list(() => from.text()),
          deciders: from.list(() => from.text()),
          chain: from.list(() => from.text()),
          parts: from.list(() => from.text()),
          replicas: from.u16(),
        },
      };
    case KIND.welcome:
      return { type: "welcome", known: from.u8() !== 0 };
    case KIND.refused:
      return { type: "refused", reason: from.text() };
    case KIND.again:
      return { type: "again", request: from.u32() };
    case KIND.response:
      return { type: "response", request: from.u32(), results: from.list(() => readResult(from)) };
    case KIND.changes:
      return {
        type: "changes",
        watch: from.u32(),
        shard: from.u16(),
        whole: from.u8() !== 0,
        revision: from.size(),
        changes: from.list(() => {
          const present = from.u8() !== 0;
          const key = from.text(), revision = from.size();
          return { key, revision, value: present ? from.blob() : undefined };
        }),
      };
    case KIND.loads:
      return { type: "loads", loads: from.list(() => ({ node: from.taskId(), load: from.blob() })) };
    default:
      throw new ProtocolError(
        `Cannot read a message: a client of the control store takes none of kind ${kind}`,
      );
  }
}

/** Reads an operation. */
export function readOperation(from: ByteReader): GcsOp {
  const kind = from.u8();
  switch (kind) {
    case 0:
      return { kind: "get", key: readKey(from) };
    case 1:
      return { kind: "list", prefix: readKey(from), after: readKey(from), limit: from.u32() };
    case 2:
    case 3:
      return { kind: "put", lease: kind === 3, key: readKey(from), expect: from.f64(), value: from.blob() };
    case 4:
      return { kind: "delete", key: readKey(from), expect: from.f64() };
    case 5:
      return { kind: "check", key: readKey(from), expect: from.f64() };
    default:
      throw new ProtocolError(`Cannot read a request: there is no operation ${kind}`);
  }
}

/** The longest that a key may be, in bytes: what LMDB takes. */
export const KEY_BYTES_MAX = 1024;

function readKey(from: ByteReader): string {
  const key = from.text();
  if (key.length > KEY_BYTES_MAX) throw new ProtocolError(`Cannot use a key of ${key.length} characters`);
  return key;
}

function readResult(from: ByteReader): GcsResult {
  const kind = from.u8();
  switch (kind) {
    case 0:
      return { kind: "entry", revision: from.size(), value: from.blob() };
    case 1:
      return { kind: "absent" };
    case 2:
    case 3: {
      const entries = from.list((): GcsEntry => ({
        key: from.text(),
        revision: from.size(),
        value: from.blob(),
      }));
      return { kind: "entries", more: kind === 3, entries };
    }
    case 4:
      return { kind: "done", revision: from.size() };
    case 5:
      return { kind: "conflict", revision: from.size() };
    case 6:
      return { kind: "skipped" };
    default:
      throw new ProtocolError(`Cannot read an answer: there is no result ${kind}`);
  }
}

function finished(from: ByteReader, message: ToGcs | FromGcs): void {
  if (from.remaining !== 0) {
    throw new ProtocolError(`Cannot read "${message.type}": ${from.remaining} bytes are left over`);
  }
}
