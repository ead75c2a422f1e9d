/**
 * The cluster's key-value table as it travels: what programs ask their node about it, and what they are told, with the
 * checks of what others sent.
 *
 * Values are packed by who writes them, and nobody unpacks them on the way. A *version* counts the changes of a part of
 * the table (a shard of the control store): each change of a key has one that is higher than that of the change before.
 *
 * @module
 */

import { decode, encode } from "@std/msgpack";
import { ProtocolError } from "./errors.ts";
import { KEY_BYTES_MAX, KEY_VALUE_BYTES_MAX } from "./limits.ts";

/** A condition on the version that a key has: any will do; or there must be no such key. */
export const ANY_VERSION = -1, NO_VERSION = 0;

/** A key with its value. */
export interface PackedEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly version: number;
}

/** A change of a key: its new value, or that it is gone. */
export interface PackedChange {
  readonly key: string;
  readonly value: Uint8Array | undefined;
  readonly version: number;
}

/** What a program asks. */
export type KeyValueRequest =
  | { readonly kind: "get"; readonly key: string }
  | { readonly kind: "set"; readonly key: string; readonly value: Uint8Array; readonly expect: number }
  | { readonly kind: "delete"; readonly key: string; readonly expect: number }
  /** Keys that begin with `prefix` and come after `after`. */
  | { readonly kind: "list"; readonly prefix: string; readonly after: string }
  /** Begins to collect changes of keys that begin with `prefix`, at first all that there are; answered when it knows those. */
  | { readonly kind: "watch"; readonly watch: number; readonly prefix: string }
  /** Answered as soon as there are changes that were not told: of each key the last one. */
  | { readonly kind: "changes"; readonly watch: number }
  | { readonly kind: "unwatch"; readonly watch: number };

/** What it is told. */
export type KeyValueAnswer =
  | { readonly kind: "entry"; readonly entry: PackedEntry | undefined }
  /** The version that was written; of a deletion, 1. 0: the condition did not hold, and nothing was done. */
  | { readonly kind: "done"; readonly version: number }
  | { readonly kind: "entries"; readonly entries: readonly PackedEntry[]; readonly more: boolean }
  /** None if the watch has ended. */
  | { readonly kind: "changes"; readonly changes: readonly PackedChange[] }
  /** A packed error. */
  | { readonly kind: "failed"; readonly error: Uint8Array };

/** A request as bytes. */
export function writeKeyValueRequest(request: KeyValueRequest): Uint8Array {
  return encode(request);
}

/** An answer as bytes. */
export function writeKeyValueAnswer(answer: KeyValueAnswer): Uint8Array {
  return encode(withoutUndefined(answer));
}

/** The answer of one's own node. */
export function readKeyValueAnswer(bytes: Uint8Array): KeyValueAnswer {
  return decode(bytes) as KeyValueAnswer;
}

/** What a program sent. @throws {ProtocolError} If it is no request. */
export function readKeyValueRequest(bytes: Uint8Array): KeyValueRequest {
  let request: unknown;
  try {
    request = decode(bytes);
  } catch (error) {
    throw new ProtocolError(`Cannot read a request of keys: ${(error as Error).message}`);
  }
  if (!isRequest(request)) {
    throw new ProtocolError("Cannot take a request of keys: it is none of those that there are");
  }
  return request;
}

function isRequest(request: unknown): request is KeyValueRequest {
  if (typeof request !== "object" || request === null) return false;
  const { kind, key, value, expect, prefix, after, watch } = request as Record<string, unknown>;
  const isExpected = Number.isInteger(expect) && Number(expect) >= ANY_VERSION;
  const isWatch = Number.isInteger(watch) && Number(watch) >= 0;
  switch (kind) {
    case "get":
      return isKey(key);
    case "set":
      return isKey(key) && value instanceof Uint8Array && value.length <= KEY_VALUE_BYTES_MAX && isExpected;
    case "delete":
      return isKey(key) && isExpected;
    case "list":
      return isPrefix(prefix) && isPrefix(after);
    case "watch":
      return isWatch && isPrefix(prefix);
    case "changes":
    case "unwatch":
      return isWatch;
    default:
      return false;
  }
}

/** Whether something can be a key. */
export function isKey(key: unknown): key is string {
  return isPrefix(key) && key !== "";
}

/** Whether something can be the beginning of keys. */
export function isPrefix(prefix: unknown): prefix is string {
  return typeof prefix === "string" && prefix.isWellFormed() && !prefix.includes("\0") &&
    new TextEncoder().encode(prefix).length <= KEY_BYTES_MAX;
}

/** Absent fields are left out: the packages' format has none of them. */
function withoutUndefined<T>(value: T): T {
  if (Array.isArray(value)) return value.map(withoutUndefined) as T;
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(fields.map(([name, field]) => [name, withoutUndefined(field)])) as T;
}
