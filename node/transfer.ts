/**
 * Bulk transfer: objects from one node's store into another's, over TCP, straight from segment to segment.
 *
 * A connection begins with {@link MAGIC}, the token, and the receiver's id. Then the receiver sends requests (the object's
 * id, the range as two little-endian doubles, and how it is asked for: whether the sender may name another one, and
 * whether it is to look elsewhere for what it does not have), and the sender answers each in order with a status of one byte
 * and, if all is well, the pieces of 16 MB that the range touches, each with its hash (`node/bulk_connection.ts`). Greeting,
 * requests and answers end with a CRC-32: what was garbled on its way must not read as another request, or as "absent". The
 * receiver reads into the place in its own segment where the object is going to be; an object that arrives damaged, or not at
 * all, is never sealed.
 *
 * An object comes over one connection, piece after piece and without a question between: two connections at once take more of
 * the processor, and questions leave it waiting.
 *
 * When many want a large object, the sender names another receiver to ask instead (`node/spread.ts`), which passes on what
 * it has while the rest still arrives (`node/arrivals.ts`). If a piece does not come, or not as it was sent, the rest is asked
 * for again, from where the object is at home, and what is here already stays.
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
import { BULK_CONNECTIONS_KEPT_MAX, GREETING_MS_MAX, PULL_PIECE_BYTES } from "../core/limits.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";
import { sameToken } from "../transport/token.ts";
import { Arrival, type Arrivals } from "./arrivals.ts";
import { BulkConnection, readAll, writeAll } from "./bulk_connection.ts";
import { Spread } from "./spread.ts";

const MAGIC = "rayd-bulk-5\n";
const TOKEN_BYTES = 64;
const NODE_BYTES = 32;
const REQUEST_BYTES = OBJECT_ID_BYTES + 17;
const ANSWER_BYTES = 1;
const SEAL_BYTES = 4;
const FOUND = 1, ABSENT = 2, ELSEWHERE = 3;

/** How a request asks: the sender may name another node instead; it may not; or it is to serve only what it has itself. */
const MAY_REFER = 0, SERVES = 1, HAS_COPY = 2;
type Manner = typeof MAY_REFER | typeof SERVES | typeof HAS_COPY;

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
  /** Has an object in memory; a `"copy"` only if it is here. @returns Whether it is. */
  provide(id: ObjectId, what: "object" | "copy"): Promise<boolean>;
  makeRoom(bytes: number): Promise<RaydError | undefined>;
  /** Opens a bulk connection to a node. */
  dial(node: TaskId): Promise<ByteStream>;
}

/** Sends and fetches objects. */
export class Transfers {
  readonly #node: TransferServices;
  readonly #idle = new Map<TaskId, BulkConnection[]>();
  /** Connections on which a range is on its way here, and from whom; and those that are served, and for whom. */
  readonly #receiving = new Map<BulkConnection, TaskId>();
  readonly #serving = new Map<BulkConnection, TaskId | undefined>();
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
  async serve(accepted: ByteStream): Promise<void> {
    const stream = new BulkConnection(accepted, this.#node.store);
    this.#serving.set(stream, undefined);
    try {
      const head = new Uint8Array(MAGIC.length + TOKEN_BYTES + NODE_BYTES + SEAL_BYTES);
      const late = this.#node.clock.after(GREETING_MS_MAX, () => stream.close());
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
      stream.close();
    }
  }

  async #answer(stream: BulkConnection, request: Uint8Array, receiver: TaskId): Promise<void> {
    const id = readObjectId(request, 0);
    const numbers = new DataView(request.buffer);
    const offset = numbers.getFloat64(OBJECT_ID_BYTES, true),
      length = numbers.getFloat64(OBJECT_ID_BYTES + 8, true),
      manner = request[OBJECT_ID_BYTES + 16];
    if (manner === SERVES) this.#spread.insists(id, receiver);
    else if (manner === MAY_REFER && offset === 0 && length >= PULL_PIECE_BYTES / 2) {
      const instead = this.#spread.instead(id, receiver);
      if (instead !== undefined) {
        const answer = new Uint8Array(ANSWER_BYTES + NODE_BYTES);
        answer[0] = ELSEWHERE;
        answer.set(new TextEncoder().encode(hex(instead)), ANSWER_BYTES);
        return await writeAll(stream, sealed(answer));
      }
    }
    // What is arriving comes from whoever is gone, if it is a copy that is asked for.
    const arrival = manner === HAS_COPY ? undefined : this.#arrivals.get(id);
    if (arrival?.open()) {
      try {
        return await this.#send(stream, arrival.whole, offset, length, arrival);
      } finally {
        arrival.close();
      }
    }
    const provided = await this.#node.provide(id, manner === HAS_COPY ? "copy" : "object");
    const view = provided ? this.#node.store.get(id) : undefined;
    try {
      await this.#send(stream, view?.bytes, offset, length);
    } finally {
      view?.release();
    }
  }

  /** Sends a range, piece by piece. @param arrival Where its pieces come from, of an object that is still arriving. */
  async #send(
    stream: BulkConnection,
    whole: Uint8Array<ArrayBuffer> | undefined,
    offset: number,
    length: number,
    arrival?: Arrival,
  ): Promise<void> {
    const answer = new Uint8Array(ANSWER_BYTES);
    const sound = whole !== undefined && Number.isSafeInteger(offset) && Number.isSafeInteger(length) &&
      offset >= 0 && length >= 0 && offset + length <= whole.length;
    answer[0] = sound ? FOUND : ABSENT;
    await writeAll(stream, sealed(answer));
    if (!sound) return;
    for (let at = offset; at < offset + length;) {
      const piece = Math.floor(at / PULL_PIECE_BYTES);
      const end = Math.min((piece + 1) * PULL_PIECE_BYTES, offset + length);
      const hash = await arrival?.until(piece);
      const isWhole = at === piece * PULL_PIECE_BYTES &&
        (end % PULL_PIECE_BYTES === 0 || end === whole.length);
      await stream.sendPiece(whole.subarray(at, end), isWhole ? hash : undefined);
      at = end;
    }
  }

  /**
   * Brings an object from a node into the store.
   *
   * @param what Of a `"copy"`, the node is to send what it has itself, and not to look elsewhere.
   * @returns What went wrong: {@link ObjectLostError} if the node does not have it, {@link DisconnectedError} if it could not be
   *   brought, which may be otherwise the next time.
   */
  async pull(
    node: TaskId,
    id: ObjectId,
    size: number,
    what: "object" | "copy" = "object",
  ): Promise<RaydError | undefined> {
    await this.#begin(size);
    try {
      return await this.#pull(node, id, size, what);
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

  async #pull(
    home: TaskId,
    id: ObjectId,
    size: number,
    what: "object" | "copy",
  ): Promise<RaydError | undefined> {
    const { store } = this.#node;
    const all = { offset: 0, length: size };
    const manner = what === "copy" ? HAS_COPY : SERVES;
    let source = home;
    // The place for it is only taken once the sender has it: meanwhile a task may make the object here.
    let first: BulkConnection;
    try {
      const asked = await this.#ask(home, id, all, what === "copy" ? HAS_COPY : MAY_REFER);
      if (asked instanceof Elsewhere) {
        source = asked.node;
        const again = await this.#ask(asked.node, id, all, SERVES);
        if (again instanceof Elsewhere) throw new Error("it was sent on and on");
        first = again;
      } else first = asked;
    } catch (error) {
      if (source === home) throw error;
      source = home;
      first = await this.#insist(home, id, all, manner);
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
    const arrival = new Arrival(whole, PULL_PIECE_BYTES);
    this.#arrivals.set(id, arrival);
    try {
      let stream: BulkConnection | undefined = first;
      for (let offset = 0, tries = 1; offset < size;) {
        const place = whole.subarray(offset, offset + PULL_PIECE_BYTES);
        try {
          stream ??= await this.#insist(source, id, { offset, length: size - offset }, manner);
          arrival.arrived(offset / PULL_PIECE_BYTES, await stream.receivePiece(place));
        } catch (error) {
          if (stream !== undefined) this.#drop(stream);
          if (tries++ === TRIES_MAX) throw error;
          stream = undefined;
          source = home;
          continue;
        }
        offset += place.length;
        tries = 1;
      }
      if (stream !== undefined) this.#keep(source, stream);
    } catch (error) {
      // Nobody passes it on any more when the memory is given back.
      this.#arrivals.delete(id);
      await arrival.fail();
      store.abort(id);
      throw error;
    }
    this.#arrivals.delete(id);
    store.seal(id);
    // Whoever is being passed it on still reads from its place.
    const view = store.get(id);
    arrival.complete(() => view?.release());
    return undefined;
  }

  /** As {@link #ask}, of a node that is to serve it itself. */
  async #insist(
    node: TaskId,
    id: ObjectId,
    range: { readonly offset: number; readonly length: number },
    manner: Manner,
  ): Promise<BulkConnection> {
    const stream = await this.#ask(node, id, range, manner);
    if (stream instanceof Elsewhere) throw new Error("it was sent elsewhere though it insisted");
    return stream;
  }

  /** Asks for a range, and waits until the sender has it. @returns The connection on which it comes; or whom to ask. */
  async #ask(
    node: TaskId,
    id: ObjectId,
    { offset, length }: { readonly offset: number; readonly length: number },
    manner: Manner,
  ): Promise<BulkConnection | Elsewhere> {
    const request = new Uint8Array(REQUEST_BYTES);
    writeObjectId(id, request, 0);
    const numbers = new DataView(request.buffer);
    numbers.setFloat64(OBJECT_ID_BYTES, offset, true);
    numbers.setFloat64(OBJECT_ID_BYTES + 8, length, true);
    request[OBJECT_ID_BYTES + 16] = manner;
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

  async #connect(node: TaskId, fresh = false): Promise<BulkConnection> {
    const idle = fresh ? undefined : this.#idle.get(node)?.pop();
    if (idle !== undefined) {
      this.#receiving.set(idle, node);
      return idle;
    }
    const stream = new BulkConnection(await this.#node.dial(node), this.#node.store);
    this.#receiving.set(stream, node);
    await writeAll(stream, sealed(new TextEncoder().encode(MAGIC + this.#node.token + hex(this.#node.id))));
    return stream;
  }

  /** Ends a connection on which something went wrong. */
  #drop(stream: BulkConnection): void {
    this.#receiving.delete(stream);
    stream.close();
  }

  #keep(node: TaskId, stream: BulkConnection): void {
    this.#receiving.delete(stream);
    const idle = this.#idle.get(node) ?? [];
    if (this.#closed || idle.length >= BULK_CONNECTIONS_KEPT_MAX) return stream.close();
    idle.push(stream);
    this.#idle.set(node, idle);
  }

  /** A node is gone. */
  forget(node: TaskId): void {
    this.#spread.forget(node);
    for (const stream of this.#idle.get(node) ?? []) stream.close();
    // What is on its way from it, or to it, would otherwise wait for as long as the network keeps silent.
    for (const streams of [this.#receiving, this.#serving]) {
      for (const [stream, other] of streams) if (other === node) stream.close();
    }
    this.#idle.delete(node);
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    for (const node of [...this.#idle.keys()]) this.forget(node);
    for (const stream of [...this.#serving.keys(), ...this.#receiving.keys()]) stream.close();
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
