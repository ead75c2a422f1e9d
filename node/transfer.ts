/**
 * Bulk transfer: objects from one node's store into another's, over TCP, straight from segment to segment.
 *
 * A connection begins with {@link MAGIC}, the token, and the receiver's id. Then the receiver sends requests (the object's
 * id, the range as two little-endian doubles, and whether it was sent elsewhere in vain), and the sender answers each in
 * order with a status of one byte and, if all is well, the range's bytes and their hash (8 bytes): of the hashes of its
 * blocks of 1 MB, each taken while the block is in the processor's cache for being sent, or received, anyhow. Greeting,
 * requests and answers end with a CRC-32: what was garbled on its way must not read as another request, or as "absent". Large objects are fetched in ranges over several connections at once. The receiver reads into the place in its
 * own segment where the object is going to be; an object that arrives damaged, or not at all, is never sealed.
 *
 * When many want a large object, the sender names another receiver to ask instead (`node/spread.ts`), which passes on what
 * it has while the rest still arrives (`node/arrivals.ts`). A range that does not come is asked for again, from where the
 * object is at home, and what is here already stays.
 *
 * What is on its way together is limited to half of the store, in the order asked for: each place that was taken belongs
 * to an object whose sender has it, so all of them are filled, and none waits for another.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import type { Clock } from "../core/clock.ts";
import { DisconnectedError, ObjectLostError, type RaydError } from "../core/errors.ts";
import {
  hex,
  OBJECT_ID_BYTES,
  type ObjectId,
  readObjectId,
  type TaskId,
  taskIdFromHex,
  writeObjectId,
} from "../core/ids.ts";
import { GREETING_MS_MAX, PULL_CONNECTIONS_MAX, PULL_RANGE_BYTES } from "../core/limits.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";
import { sameToken } from "../transport/token.ts";
import { Arrival, type Arrivals } from "./arrivals.ts";
import { Spread } from "./spread.ts";

const MAGIC = "rayd-bulk-3\n";
const TOKEN_BYTES = 64;
const NODE_BYTES = 32;
const REQUEST_BYTES = OBJECT_ID_BYTES + 17;
const ANSWER_BYTES = 1;
const HASH_BYTES = 8;
const SEAL_BYTES = 4;
const BLOCK_BYTES = 1024 * 1024;
const FOUND = 1, ABSENT = 2, ELSEWHERE = 3;

/** How often what did not come is asked for again. */
const TRIES_MAX = 3;

/** What transfers need of their node. */
export interface TransferServices {
  /** The node's own id. */
  readonly id: TaskId;
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
  /** Connections on which a range is on its way here, and from whom; and those that are served, and for whom. */
  readonly #receiving = new Map<ByteStream, TaskId>();
  readonly #serving = new Map<ByteStream, TaskId | undefined>();
  readonly #spread = new Spread();
  readonly #arrivals: Arrivals = new Map();
  /** Bytes on their way, and pulls that wait until there are fewer. */
  #underWay = 0;
  readonly #waiting: { readonly size: number; readonly begin: () => void }[] = [];
  #closed = false;

  /** @param node What transfers need of their node. */
  constructor(node: TransferServices) {
    this.#node = node;
  }

  /** Serves a connection until it ends. */
  async serve(stream: ByteStream): Promise<void> {
    this.#serving.set(stream, undefined);
    try {
      const head = new Uint8Array(MAGIC.length + TOKEN_BYTES + NODE_BYTES + SEAL_BYTES);
      const late = this.#node.clock.after(GREETING_MS_MAX, () => close(stream));
      const greeted = await readAll(stream, head).finally(late);
      if (!greeted) return;
      const text = new TextDecoder().decode(head);
      const token = text.slice(MAGIC.length, MAGIC.length + TOKEN_BYTES);
      if (!text.startsWith(MAGIC) || !sameToken(token, this.#node.token)) {
        return this.#node.log("warn", "Refused a bulk connection: it does not begin with the token");
      }
      unseal(head);
      const receiver = taskIdFromHex(text.slice(MAGIC.length + TOKEN_BYTES).slice(0, NODE_BYTES));
      this.#serving.set(stream, receiver);
      const request = new Uint8Array(REQUEST_BYTES + SEAL_BYTES);
      while (await readAll(stream, request)) {
        unseal(request);
        await this.#answer(stream, request, receiver);
      }
    } catch (error) {
      if (!this.#closed) this.#node.log("info", `A bulk connection ended: ${(error as Error).message}`);
    } finally {
      this.#serving.delete(stream);
      close(stream);
    }
  }

  async #answer(stream: ByteStream, request: Uint8Array, receiver: TaskId): Promise<void> {
    const id = readObjectId(request, 0);
    const numbers = new DataView(request.buffer);
    const offset = numbers.getFloat64(OBJECT_ID_BYTES, true),
      length = numbers.getFloat64(OBJECT_ID_BYTES + 8, true),
      insists = request[OBJECT_ID_BYTES + 16] !== 0;
    if (insists) this.#spread.insists(id, receiver);
    else if (offset === 0 && length >= PULL_RANGE_BYTES / 2) {
      const instead = this.#spread.instead(id, receiver);
      if (instead !== undefined) {
        const answer = new Uint8Array(ANSWER_BYTES + NODE_BYTES);
        answer[0] = ELSEWHERE;
        answer.set(new TextEncoder().encode(hex(instead)), ANSWER_BYTES);
        return await writeAll(stream, sealed(answer));
      }
    }
    const arrival = this.#arrivals.get(id);
    if (arrival?.open()) {
      try {
        return await this.#send(stream, arrival.whole, offset, length, (end) => arrival.until(end));
      } finally {
        arrival.close();
      }
    }
    const view = await this.#node.provide(id) ? this.#node.store.get(id) : undefined;
    try {
      await this.#send(stream, view?.bytes, offset, length);
    } finally {
      view?.release();
    }
  }

  /** Sends a range. @param until Waits until bytes are there, of an object that is still arriving. */
  async #send(
    stream: ByteStream,
    whole: Uint8Array<ArrayBuffer> | undefined,
    offset: number,
    length: number,
    until?: (end: number) => Promise<void>,
  ): Promise<void> {
    const answer = new Uint8Array(ANSWER_BYTES);
    const sound = whole !== undefined && Number.isSafeInteger(offset) && Number.isSafeInteger(length) &&
      offset >= 0 && length >= 0 && offset + length <= whole.length;
    answer[0] = sound ? FOUND : ABSENT;
    await writeAll(stream, sealed(answer));
    if (!sound) return;
    const hashes = new RangeHash(this.#node.store);
    for (let at = offset; at < offset + length; at += BLOCK_BYTES) {
      const end = Math.min(at + BLOCK_BYTES, offset + length);
      await until?.(end);
      const block = whole.subarray(at, end);
      hashes.add(block);
      await writeAll(stream, block);
    }
    await writeAll(stream, hashes.value());
  }

  /**
   * Brings an object from a node into the store.
   *
   * @returns What went wrong: {@link ObjectLostError} if the node does not have it, {@link DisconnectedError} if it could not be
   *   brought, which may be otherwise the next time.
   */
  async pull(node: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined> {
    await this.#begin(size);
    try {
      return await this.#pull(node, id, size);
    } catch (error) {
      const message = `Object ${hex(id, true)} of ${size} bytes could not be brought from node ` +
        `${hex(node).slice(0, 8)}: ${(error as Error).message}`;
      return error instanceof AbsentError ? new ObjectLostError(message) : new DisconnectedError(message);
    } finally {
      this.#ended(size);
    }
  }

  /** Waits until there is not too much on its way. */
  async #begin(size: number): Promise<void> {
    const most = this.#node.store.capacity / 2;
    if (this.#underWay > 0 && (this.#waiting.length > 0 || this.#underWay + size > most)) {
      await new Promise<void>((begin) => this.#waiting.push({ size, begin }));
    } else this.#underWay += size;
  }

  #ended(size: number): void {
    this.#underWay -= size;
    const most = this.#node.store.capacity / 2;
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || this.#underWay > 0 && this.#underWay + next.size > most) return;
      this.#waiting.shift();
      this.#underWay += next.size;
      next.begin();
    }
  }

  async #pull(home: TaskId, id: ObjectId, size: number): Promise<RaydError | undefined> {
    const { store } = this.#node;
    const count = Math.max(1, Math.ceil(size / PULL_RANGE_BYTES));
    const each = Math.ceil(size / count);
    const rangeOf = (i: number) => ({ offset: i * each, length: Math.min(each, size - i * each) });
    let source = home;
    // The place for it is only taken once the sender has it: meanwhile a task may make the object here.
    let first: ByteStream;
    try {
      const asked = await this.#ask(home, id, rangeOf(0), false);
      if (asked instanceof Elsewhere) {
        source = asked.node;
        const again = await this.#ask(asked.node, id, rangeOf(0), true);
        if (again instanceof Elsewhere) throw new Error("it was sent on and on");
        first = again;
      } else first = asked;
    } catch (error) {
      if (source === home) throw error;
      source = home;
      first = await this.#insist(home, id, rangeOf(0));
    }
    let target: ReturnType<ObjectStore["create"]>;
    try {
      while ((target = store.create(id, size)) === "full") {
        const error = await this.#node.makeRoom(size);
        if (error === undefined) continue;
        this.#drop(first);
        return error;
      }
    } catch (error) {
      this.#drop(first);
      return error as RaydError;
    }
    if (target === "exists") {
      this.#drop(first);
      return undefined;
    }
    const whole = target;
    const arrival = new Arrival(whole, each);
    this.#arrivals.set(id, arrival);
    let next = 1;
    const fetchRanges = async (asked: ByteStream | undefined, index: number) => {
      for (let i = index; i < count; i = next++) {
        const range = rangeOf(i);
        for (let tries = 1;; tries++) {
          const node = source;
          let stream = asked;
          asked = undefined;
          try {
            stream ??= await this.#insist(node, id, range);
            await this.#receive(stream, whole.subarray(range.offset, range.offset + range.length));
            this.#keep(node, stream);
            break;
          } catch (error) {
            if (stream !== undefined) this.#drop(stream);
            if (tries === TRIES_MAX) throw error;
            source = home;
          }
        }
        arrival.arrived(i);
      }
    };
    const lanes = [fetchRanges(first, 0)];
    while (lanes.length < Math.min(PULL_CONNECTIONS_MAX, count)) lanes.push(fetchRanges(undefined, next++));
    // All must have stopped writing, and passing on, before the memory is given back.
    const failed = (await Promise.allSettled(lanes)).find((result) => result.status === "rejected");
    this.#arrivals.delete(id);
    if (failed !== undefined) {
      await arrival.fail();
      store.abort(id);
      throw failed.reason;
    }
    store.seal(id);
    // Whoever is being passed it on still reads from its place.
    const view = store.get(id);
    arrival.complete(() => view?.release());
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

  /** As {@link #ask}, of a node that is to serve it itself. */
  async #insist(
    node: TaskId,
    id: ObjectId,
    range: { readonly offset: number; readonly length: number },
  ): Promise<ByteStream> {
    const stream = await this.#ask(node, id, range, true);
    if (stream instanceof Elsewhere) throw new Error("it was sent elsewhere though it insisted");
    return stream;
  }

  /** Asks for a range, and waits until the sender has it. @returns The connection on which it comes; or whom to ask. */
  async #ask(
    node: TaskId,
    id: ObjectId,
    { offset, length }: { readonly offset: number; readonly length: number },
    insists: boolean,
  ): Promise<ByteStream | Elsewhere> {
    const request = new Uint8Array(REQUEST_BYTES);
    writeObjectId(id, request, 0);
    const numbers = new DataView(request.buffer);
    numbers.setFloat64(OBJECT_ID_BYTES, offset, true);
    numbers.setFloat64(OBJECT_ID_BYTES + 8, length, true);
    request[OBJECT_ID_BYTES + 16] = insists ? 1 : 0;
    const answer = new Uint8Array(ANSWER_BYTES + NODE_BYTES + SEAL_BYTES);
    for (let tries = 1;; tries++) {
      const stream = await this.#connect(node, tries > 1);
      let elsewhere: TaskId | undefined;
      try {
        await writeAll(stream, sealed(request));
        if (!await readAll(stream, answer.subarray(0, ANSWER_BYTES))) {
          throw new Error("the connection was closed");
        }
        const length = ANSWER_BYTES + (answer[0] === ELSEWHERE ? NODE_BYTES : 0) + SEAL_BYTES;
        if (!await readAll(stream, answer.subarray(ANSWER_BYTES, length))) {
          throw new Error("the connection was closed");
        }
        unseal(answer.subarray(0, length));
        if (answer[0] === ELSEWHERE) {
          const other = answer.subarray(ANSWER_BYTES, ANSWER_BYTES + NODE_BYTES);
          elsewhere = taskIdFromHex(new TextDecoder().decode(other));
        }
      } catch (error) {
        this.#drop(stream);
        // A connection that was kept may have been closed by the other side, and what was sent may have been garbled.
        if (tries > TRIES_MAX) throw error;
        continue;
      }
      if (answer[0] === FOUND) return stream;
      this.#keep(node, stream);
      if (elsewhere !== undefined) return new Elsewhere(elsewhere);
      throw new AbsentError("it is not there any more");
    }
  }

  async #connect(node: TaskId, fresh = false): Promise<ByteStream> {
    const idle = fresh ? undefined : this.#idle.get(node)?.pop();
    if (idle !== undefined) {
      this.#receiving.set(idle, node);
      return idle;
    }
    const stream = await this.#node.dial(node);
    this.#receiving.set(stream, node);
    await writeAll(stream, sealed(new TextEncoder().encode(MAGIC + this.#node.token + hex(this.#node.id))));
    return stream;
  }

  /** Ends a connection on which something went wrong. */
  #drop(stream: ByteStream): void {
    this.#receiving.delete(stream);
    close(stream);
  }

  #keep(node: TaskId, stream: ByteStream): void {
    this.#receiving.delete(stream);
    const idle = this.#idle.get(node) ?? [];
    if (this.#closed || idle.length >= PULL_CONNECTIONS_MAX) return close(stream);
    idle.push(stream);
    this.#idle.set(node, idle);
  }

  /** A node is gone. */
  forget(node: TaskId): void {
    this.#spread.forget(node);
    for (const stream of this.#idle.get(node) ?? []) close(stream);
    // What is on its way from it, or to it, would otherwise wait for as long as the network keeps silent.
    for (const streams of [this.#receiving, this.#serving]) {
      for (const [stream, other] of streams) if (other === node) close(stream);
    }
    this.#idle.delete(node);
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    for (const node of [...this.#idle.keys()]) this.forget(node);
    for (const stream of [...this.#serving.keys(), ...this.#receiving.keys()]) close(stream);
  }
}

/** A node does not have what it was asked for. */
class AbsentError extends Error {}

/** Another node is to be asked. */
class Elsewhere {
  readonly node: TaskId;
  constructor(node: TaskId) {
    this.node = node;
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

/** Bytes with their checksum at their end. */
function sealed(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(bytes.length + SEAL_BYTES);
  whole.set(bytes);
  new DataView(whole.buffer).setUint32(bytes.length, crc32(bytes), true);
  return whole;
}

/** Sees that bytes are as {@link sealed} made them. @throws If they are not. */
function unseal(whole: Uint8Array): void {
  const end = whole.length - SEAL_BYTES;
  const seal = new DataView(whole.buffer, whole.byteOffset).getUint32(end, true);
  if (seal !== crc32(whole.subarray(0, end))) throw new Error("what was sent was garbled on its way");
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
