/**
 * Bulk transfer: objects from one node's store into another's, over TCP, straight from segment to segment.
 *
 * A connection begins with {@link MAGIC} and the token. Then the receiver sends requests of 36 bytes (the object's id,
 * and the range as two little-endian doubles), and the sender answers each in order with a status of one byte and, if all
 * is well, the range's bytes and their hash (8 bytes): of the hashes of its blocks of 1 MB, each taken while the block is
 * in the processor's cache for being sent, or received, anyhow. Large objects are fetched in ranges over several connections
 * at once. The receiver reads into the place in its own segment where the object is going to be; an object that arrives
 * damaged, or not at all, is never sealed.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { ObjectLostError, type RaydError } from "../core/errors.ts";
import {
  hex,
  OBJECT_ID_BYTES,
  type ObjectId,
  readObjectId,
  type TaskId,
  writeObjectId,
} from "../core/ids.ts";
import { GREETING_MS_MAX, PULL_CONNECTIONS_MAX, PULL_RANGE_BYTES } from "../core/limits.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";
import { sameToken } from "../transport/token.ts";

const MAGIC = "rayd-bulk-1\n";
const TOKEN_BYTES = 64;
const REQUEST_BYTES = OBJECT_ID_BYTES + 16;
const ANSWER_BYTES = 1;
const HASH_BYTES = 8;
const BLOCK_BYTES = 1024 * 1024;
const FOUND = 1, ABSENT = 2;

/** What transfers need of their node. */
export interface TransferServices {
  readonly store: ObjectStore;
  readonly token: string;
  readonly clock: Clock;
  log(level: "info" | "warn" | "error", message: string): void;
  /** Has an object in memory. @returns Whether it is. */
  provide(id: ObjectId): Promise<boolean>;
  makeRoom(bytes: number): Promise<RaydError | undefined>;
  /** Opens a bulk connection to a node. */
  dial(node: TaskId): Promise<ByteStream>;
}

/** Sends and fetches objects. */
export class Transfers {
  readonly #node: TransferServices;
  readonly #idle = new Map<TaskId, ByteStream[]>();
  readonly #serving = new Set<ByteStream>();
  #closed = false;

  /** @param node What transfers need of their node. */
  constructor(node: TransferServices) {
    this.#node = node;
  }

  /** Serves a connection until it ends. */
  async serve(stream: ByteStream): Promise<void> {
    this.#serving.add(stream);
    try {
      const head = new Uint8Array(MAGIC.length + TOKEN_BYTES);
      const late = this.#node.clock.after(GREETING_MS_MAX, () => close(stream));
      const greeted = await readAll(stream, head).finally(late);
      if (!greeted) return;
      const text = new TextDecoder().decode(head);
      if (!text.startsWith(MAGIC) || !sameToken(text.slice(MAGIC.length), this.#node.token)) {
        return this.#node.log("warn", "Refused a bulk connection: it does not begin with the token");
      }
      const request = new Uint8Array(REQUEST_BYTES);
      while (await readAll(stream, request)) await this.#answer(stream, request);
    } catch (error) {
      if (!this.#closed) this.#node.log("info", `A bulk connection ended: ${(error as Error).message}`);
    } finally {
      this.#serving.delete(stream);
      close(stream);
    }
  }

  async #answer(stream: ByteStream, request: Uint8Array): Promise<void> {
    const id = readObjectId(request, 0);
    const numbers = new DataView(request.buffer);
    const offset = numbers.getFloat64(OBJECT_ID_BYTES, true),
      length = numbers.getFloat64(OBJECT_ID_BYTES + 8, true);
    const answer = new Uint8Array(ANSWER_BYTES);
    const view = await this.#node.provide(id) ? this.#node.store.get(id) : undefined;
    try {
      const whole = view?.bytes;
      const sound = whole !== undefined && Number.isSafeInteger(offset) && Number.isSafeInteger(length) &&
        offset >= 0 && length >= 0 && offset + length <= whole.length;
      answer[0] = sound ? FOUND : ABSENT;
      if (!sound) return await writeAll(stream, answer);
      await writeAll(stream, answer);
      const hashes = new RangeHash(this.#node.store);
      for (let at = offset; at < offset + length; at += BLOCK_BYTES) {
        const block = whole.subarray(at, Math.min(at + BLOCK_BYTES, offset + length));
        hashes.add(block);
        await writeAll(stream, block);
      }
      await writeAll(stream, hashes.value());
    } finally {
      view?.release();
    }
  }

  /** Brings an object from a node into the store. @returns What went wrong. */
  async pull(node: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined> {
    try {
      return await this.#pull(node, id, size);
    } catch (error) {
      return new ObjectLostError(
        `Object ${hex(id, true)} of ${size} bytes could not be brought from node ${hex(node).slice(0, 8)}: ` +
          `${(error as Error).message}`,
      );
    }
  }

  async #pull(node: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined> {
    const { store } = this.#node;
    const count = Math.max(1, Math.ceil(size / PULL_RANGE_BYTES));
    const each = Math.ceil(size / count);
    const rangeOf = (i: number) => ({ offset: i * each, length: Math.min(each, size - i * each) });
    // The place for it is only taken once the sender has it: meanwhile a task may make the object here.
    const first = await this.#ask(node, id, rangeOf(0));
    let target: ReturnType<ObjectStore["create"]>;
    try {
      while ((target = store.create(id, size)) === "full") {
        const error = await this.#node.makeRoom(size);
        if (error === undefined) continue;
        close(first);
        return error;
      }
    } catch (error) {
      close(first);
      return error as RaydError;
    }
    if (target === "exists") {
      close(first);
      return undefined;
    }
    const whole = target;
    let next = 1;
    const fetchRanges = async (asked: ByteStream | undefined, index: number) => {
      for (let i = index; i < count; i = next++) {
        const { offset, length } = rangeOf(i);
        const stream = asked ?? await this.#ask(node, id, { offset, length });
        asked = undefined;
        try {
          await this.#receive(stream, whole.subarray(offset, offset + length));
        } catch (error) {
          close(stream);
          throw error;
        }
        this.#keep(node, stream);
      }
    };
    const lanes = [fetchRanges(first, 0)];
    while (lanes.length < Math.min(PULL_CONNECTIONS_MAX, count)) lanes.push(fetchRanges(undefined, next++));
    // All must have stopped writing before the memory is given back.
    const failed = (await Promise.allSettled(lanes)).find((result) => result.status === "rejected");
    if (failed !== undefined) {
      store.abort(id);
      throw failed.reason;
    }
    store.seal(id);
    return undefined;
  }

  /** Reads a range into its place. @throws If it does not come whole, or not as it was sent. */
  async #receive(stream: ByteStream, range: Uint8Array<ArrayBuffer>): Promise<void> {
    const hashes = new RangeHash(this.#node.store);
    for (let at = 0, hashed = 0; at < range.length;) {
      const count = await stream.read(range.subarray(at));
      if (count === null) throw new Error("the connection was closed");
      at += count;
      while (at - hashed >= BLOCK_BYTES || at === range.length && hashed < at) {
        const end = Math.min(hashed + BLOCK_BYTES, range.length);
        hashes.add(range.subarray(hashed, end));
        hashed = end;
      }
    }
    const expected = new Uint8Array(HASH_BYTES);
    if (!await readAll(stream, expected)) throw new Error("the connection was closed");
    const found = hashes.value();
    if (expected.some((byte, i) => byte !== found[i])) throw new Error("it arrived damaged");
  }

  /** Asks for a range, and waits until the sender has it. @returns The connection on which it comes. */
  async #ask(
    node: TaskId,
    id: ObjectId,
    { offset, length }: { readonly offset: number; readonly length: number },
  ): Promise<ByteStream> {
    const request = new Uint8Array(REQUEST_BYTES);
    writeObjectId(id, request, 0);
    const numbers = new DataView(request.buffer);
    numbers.setFloat64(OBJECT_ID_BYTES, offset, true);
    numbers.setFloat64(OBJECT_ID_BYTES + 8, length, true);
    const answer = new Uint8Array(ANSWER_BYTES);
    for (let again = false;; again = true) {
      const stream = await this.#connect(node, again);
      try {
        await writeAll(stream, request);
        if (!await readAll(stream, answer)) throw new Error("the connection was closed");
      } catch (error) {
        close(stream);
        // One more try: a connection that was kept may have been closed by the other side.
        if (again) throw error;
        continue;
      }
      if (answer[0] === FOUND) return stream;
      this.#keep(node, stream);
      throw new Error("it is not there any more");
    }
  }

  async #connect(node: TaskId, fresh = false): Promise<ByteStream> {
    const idle = fresh ? undefined : this.#idle.get(node)?.pop();
    if (idle !== undefined) return idle;
    const stream = await this.#node.dial(node);
    await writeAll(stream, new TextEncoder().encode(MAGIC + this.#node.token));
    return stream;
  }

  #keep(node: TaskId, stream: ByteStream): void {
    const idle = this.#idle.get(node) ?? [];
    if (this.#closed || idle.length >= PULL_CONNECTIONS_MAX) return close(stream);
    idle.push(stream);
    this.#idle.set(node, idle);
  }

  /** A node is gone. */
  forget(node: TaskId): void {
    for (const stream of this.#idle.get(node) ?? []) close(stream);
    this.#idle.delete(node);
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    for (const node of [...this.#idle.keys()]) this.forget(node);
    for (const stream of this.#serving) close(stream);
  }
}

/** The hash of a range, taken block by block. */
class RangeHash {
  readonly #store: ObjectStore;
  readonly #blocks: bigint[] = [];

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  add(block: Uint8Array<ArrayBuffer>): void {
    this.#blocks.push(this.#store.hash(block));
  }

  value(): Uint8Array {
    const blocks = new Uint8Array(BigUint64Array.from(this.#blocks).buffer);
    return new Uint8Array(BigUint64Array.of(this.#store.hash(blocks)).buffer);
  }
}

/** Fills `into`. @returns Whether the stream had that much; `false` only if it had nothing more at all. */
async function readAll(stream: ByteStream, into: Uint8Array): Promise<boolean> {
  for (let at = 0; at < into.length;) {
    const count = await stream.read(at === 0 ? into : into.subarray(at));
    if (count === null) {
      if (at === 0) return false;
      throw new Error("the connection was closed in the middle");
    }
    at += count;
  }
  return true;
}

async function writeAll(stream: ByteStream, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await stream.write(at === 0 ? bytes : bytes.subarray(at));
}

function close(stream: ByteStream): void {
  try {
    stream.close();
  } catch {
    // Closed already.
  }
}
