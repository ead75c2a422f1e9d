/**
 * The last changes of a shard, for watchers who were away.
 *
 * As a record a change is the length of its key (4 bytes, little-endian), whether it has a value (1 byte), the key in UTF-8,
 * and the value.
 *
 * @module
 */

import { ByteHistory } from "./byte_history.ts";
import type { GcsChange } from "./shard.ts";

/** How many changes are kept, at least. */
export const CHANGES_KEPT_MAX = 20_000;
/** Fewer are kept if they are larger than this: published code and files are, and stay in memory for that long. */
export const CHANGES_BYTES_MAX = 32 * 1024 * 1024;

const HEAD_BYTES = 5;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The changes. */
export class ChangeHistory {
  readonly #records = new ByteHistory({ records: CHANGES_KEPT_MAX, bytes: CHANGES_BYTES_MAX });
  #before: number;

  /** @param before The revision of the last change that is not here. */
  constructor(before: number) {
    this.#before = before;
  }

  /** A key was changed. */
  add({ key, value, revision }: GcsChange): void {
    // In UTF-8 a key has 3 bytes a character at most.
    const most = HEAD_BYTES + 3 * key.length + (value?.length ?? 0);
    this.#records.add(revision, most, (into, at) => {
      const keyBytes = writeText(key, into, at + HEAD_BYTES);
      for (let i = 0; i < 4; i++) into[at + i] = keyBytes >>> 8 * i;
      into[at + 4] = value === undefined ? 0 : 1;
      if (value === undefined) return HEAD_BYTES + keyBytes;
      into.set(value, at + HEAD_BYTES + keyBytes);
      return HEAD_BYTES + keyBytes + value.length;
    });
    const gone = this.#records.trim();
    if (gone !== undefined) this.#before = gone.number;
  }

  /** @returns Changes of keys with a prefix, after a revision; `undefined` if not all of them are known. */
  since(prefix: string, after: number): GcsChange[] | undefined {
    if (after < this.#before) return undefined;
    const changes: GcsChange[] = [];
    const begin = encoder.encode(prefix);
    for (const { number: revision, bytes } of this.#records.after(after)) {
      const valueAt = HEAD_BYTES + (bytes[0]! | bytes[1]! << 8 | bytes[2]! << 16 | bytes[3]! << 24);
      if (!begins(bytes, HEAD_BYTES, valueAt, begin)) continue;
      const key = decoder.decode(bytes.subarray(HEAD_BYTES, valueAt));
      changes.push({ key, value: bytes[4] === 0 ? undefined : bytes.subarray(valueAt), revision });
    }
    return changes;
  }
}

/** Writes text as UTF-8, quickly if it is short and plain. @returns How many bytes it takes. */
function writeText(text: string, into: Uint8Array, at: number): number {
  if (text.length > 128) return encoder.encodeInto(text, into.subarray(at)).written;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return encoder.encodeInto(text, into.subarray(at)).written;
    into[at + i] = code;
  }
  return text.length;
}

/** Whether bytes from `at` to `end` begin with others. */
function begins(bytes: Uint8Array, at: number, end: number, others: Uint8Array): boolean {
  if (end - at < others.length) return false;
  for (let i = 0; i < others.length; i++) if (bytes[at + i] !== others[i]) return false;
  return true;
}
