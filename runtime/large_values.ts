/**
 * Large values of one client: written into the node's store, once there is room, and read from it in place.
 *
 * The engine does not see memory of the store. So here is decided when garbage is worth being collected: before memory is
 * used that is cold, when the store is full, and when many views are about that nobody may be using.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { errorFromRecord, type ErrorRecord, StoreFullError } from "../core/errors.ts";
import type { ObjectId } from "../core/ids.ts";
import { ROOM_DEADLINE_MS } from "../core/limits.ts";
import type { StoredView } from "../store/object_store.ts";
import { pack, type Packet, unpack } from "../store/serialize.ts";
import { collectGarbage, collectionMs, collectYoung, collectYoungNow } from "./collect.ts";
import type { NodeLink } from "./node_link.ts";
import type { Ref } from "./ref.ts";
import type { References } from "./references.ts";
import type { Scope } from "./scope.ts";
import { Turnover } from "./turnover.ts";

/** So much must have been put before it is worth a look for memory to be used again. */
const REUSE_BYTES_MIN = 32 * 1024 * 1024;

/** Views of so many bytes are no reason to look which of them are in use. */
const VIEW_BYTES_MIN = 16 * 1024 * 1024;

/** How fast memory is faulted in (0.3 to 1.1 GB/s were measured). */
const COLD_BYTES_PER_MS = 1e6;

/** How often garbage is collected for views that are still there at the end; the program may be using them. */
const SETTLE_ROUNDS_MAX = 5;

/** Typed arrays that lie in the store and were not put yet. */
interface Allocation {
  readonly id: ObjectId;
  readonly size: number;
  /** It was put before, by an earlier run of the task. */
  readonly put?: true;
}

/** All allocations of this isolate that were not put yet. */
const allocations = new WeakMap<object, Allocation>();

/** Whether what tasks read is checked for changes (`RAYD_CHECK_IMMUTABLE=1`). */
const CHECK_IMMUTABLE = Deno.env.get("RAYD_CHECK_IMMUTABLE") === "1";

/** A kind of typed array. */
export interface ArrayType<A extends ArrayBufferView> {
  new (buffer: ArrayBuffer, byteOffset: number, length: number): A;
  readonly BYTES_PER_ELEMENT: number;
}

/** One client's use of the store. */
export class LargeValues {
  readonly #link: NodeLink;
  readonly #references: References;
  readonly #clock: Clock;
  /** Large values that come and go here; looked at when what was done has been sent. */
  readonly turnover: Turnover;
  #keepsFreed = false;
  /** What collections were good for. */
  #fruitless = 0;
  #collectsToSkip = 0;
  /** Bytes put since it was last seen to that memory is used again. */
  #putBytes = 0;
  /** Bytes of views from which on it is looked for ones that nobody uses. */
  #viewBytesMax = VIEW_BYTES_MIN;

  /** @param link The way to the node. @param references What the client refers to. @param clock Times collections. */
  constructor(link: NodeLink, references: References, clock: Clock) {
    this.#link = link;
    this.#references = references;
    this.#clock = clock;
    this.turnover = new Turnover(clock, () => this.#collectTurnover());
  }

  // --- Writing ------------------------------------------------------------------------------------------------

  /** Writes a packet into the store if there is room, and a way to it. @returns Whether it is there. */
  storeNow(id: ObjectId, packet: Packet): boolean {
    if (!this.#link.connected) return false;
    const { store } = this.#link;
    const target = store.create(id, packet.size);
    if (target === "full") return false;
    if (target === "exists") return true; // an earlier run of this task made it, whole: the first one wins
    try {
      packet.writeInto(target, store.copy);
    } catch (error) {
      store.abort(id);
      throw error;
    }
    store.seal(id);
    return true;
  }

  /** Writes a packet into the store, waiting for room. @param what What it is, for an error. */
  async store(id: ObjectId, packet: Packet, what: string): Promise<void> {
    if (this.storeNow(id, packet)) return;
    // The value may change while we wait, so its bytes are taken now.
    const bytes = packet.toBytes().slice();
    await this.#link.ready;
    const copy = {
      ...packet,
      size: bytes.length,
      writeInto: (target: Uint8Array) => this.#link.store.copy(target, bytes),
    };
    await this.#withRoom(bytes.length, what, () => this.storeNow(id, copy));
  }

  /** As {@link store}, of a value that is not going to change meanwhile, as its owner waits. */
  async put(id: ObjectId, packet: Packet): Promise<void> {
    await this.#link.ready;
    await this.#reuseMemory(packet.size);
    await this.#withRoom(packet.size, "a value", () => this.storeNow(id, packet));
  }

  /** Tries until there is room. */
  async #withRoom(bytes: number, what: string, attempt: () => boolean): Promise<void> {
    const link = this.#link;
    const deadline = this.#clock.now() + ROOM_DEADLINE_MS * 2;
    while (!attempt()) {
      link.check();
      if (await this.#collect(bytes)) {
        await this.#nodeHasSeen();
        if (attempt()) return;
      }
      const error = await link.ask((request) => ({ type: "makeRoom", request, bytes }));
      if (error.length > 0) throw errorFromRecord(this.#references.unpack(error) as ErrorRecord);
      if (this.#clock.now() > deadline) {
        throw new StoreFullError(
          `Cannot store ${bytes} bytes of ${what}: other programs take all room that is made`,
        );
      }
    }
  }

  /** By when the node has freed what was let go of. */
  async #nodeHasSeen(): Promise<void> {
    await this.#link.ask((request) => ({ type: "ask", request, topic: "stats" }));
  }

  // --- Arrays in place ----------------------------------------------------------------------------------------

  /** A typed array in the store, to be filled and then put without a copy. */
  async allocate<A extends ArrayBufferView>(type: ArrayType<A>, length: number, id: ObjectId): Promise<A> {
    await this.#link.ready;
    const { store } = this.#link;
    const bytes = length * type.BYTES_PER_ELEMENT;
    if (bytes > store.capacity) {
      throw new StoreFullError(
        `Cannot allocate ${length} elements: they take ${bytes} bytes, and the whole store has ${store.capacity}`,
      );
    }
    // The packet around the array is written first: what it is packed as does not depend on its elements.
    const packet = pack(new type(new ArrayBuffer(bytes), 0, length));
    let array: A | undefined;
    await this.#withRoom(packet.size, "an allocation", () => {
      const target = store.create(id, packet.size);
      if (target === "full") return false;
      if (target === "exists") {
        // An earlier run of this task has put it, whole: the first one wins, and what is written now is nobody's.
        array = new type(new ArrayBuffer(bytes), 0, length);
        allocations.set(array, { id, size: packet.size, put: true });
        return true;
      }
      packet.writeInto(target, () => {});
      const { buffer, byteOffset } = unpack(target, { share: true }) as A;
      if (buffer !== target.buffer) {
        store.abort(id); // a small one lies in the packet's head, where it cannot be written in place
        array = new type(new ArrayBuffer(bytes), 0, length);
      } else {
        array = new type(target.buffer, byteOffset, length);
        allocations.set(array, { id, size: packet.size });
      }
      return true;
    });
    return array!;
  }

  /** Whether a value lies in the store already, to be put as it is. */
  isAllocated(value: unknown): value is object {
    return typeof value === "object" && value !== null && allocations.has(value);
  }

  /** Puts an array that lies in the store. */
  sealAllocated(value: object): Ref<unknown> {
    const { id, size, put } = allocations.get(value)!;
    allocations.delete(value);
    if (put !== true) this.#link.store.seal(id);
    return this.#references.refOfPut(id, { kind: "stored", size, contains: [] });
  }

  // --- Reading ------------------------------------------------------------------------------------------------

  /** What lies in the store, in place; `undefined` if it is not in memory. */
  view(id: ObjectId): StoredView | undefined {
    const { store } = this.#link;
    const pinned = store.pinnedBytes;
    const view = store.get(id);
    this.turnover.add(store.pinnedBytes - pinned);
    return view;
  }

  /** The value of what lies in the store; `undefined` if it is not in memory. @param reader Who reads it. */
  read(id: ObjectId, reader: () => Scope): { readonly value: unknown } | undefined {
    const view = this.#link.connected ? this.view(id) : undefined;
    if (view === undefined) return undefined;
    const { store } = this.#link;
    if (store.pinnedBytes > this.#viewBytesMax) this.#collectViews();
    try {
      return { value: this.#references.unpack(view.bytes, view.share) };
    } finally {
      const scope = CHECK_IMMUTABLE ? reader() : undefined;
      if (scope?.blocked === undefined) view.release();
      else {
        scope.reads ??= [];
        scope.reads.push({
          id,
          hash: store.hash(view.bytes),
          bytes: view.bytes,
          release: view.release,
        });
      }
    }
  }

  // --- Garbage ------------------------------------------------------------------------------------------------

  /** Gives views that nobody refers to any more a chance to be collected, before the store is closed. */
  async settleViews(): Promise<void> {
    for (let i = 0; i < SETTLE_ROUNDS_MAX && this.#link.connected && this.#link.store.pinnedViews > 0; i++) {
      await collectGarbage(this.#clock);
    }
  }

  /** Large values come and go here: memory of those that are gone is for the next ones. */
  #collectTurnover(): void {
    if (!this.#keepsFreed && this.#link.connected) {
      this.#keepsFreed = true;
      this.#link.store.keepFreed();
    }
    collectYoungNow();
  }

  /**
   * Before a large object goes to memory that was never used: collects garbage, if enough was put lately that there may
   * be some. Memory that is used again takes a copy ten times as fast as memory that must be faulted in.
   */
  async #reuseMemory(size: number): Promise<void> {
    this.#putBytes += size;
    if (this.#putBytes < Math.max(REUSE_BYTES_MIN, 4 * size)) return;
    if (this.#putBytes < collectionMs() * COLD_BYTES_PER_MS) return; // it would cost more than it saves
    const { used, touched } = this.#link.store.stats();
    if (touched - used >= size) return;
    this.#putBytes = 0;
    if (await this.#collect(size)) await this.#nodeHasSeen();
  }

  /**
   * Looks for views that nobody uses, in the background: their memory is warm, and what is stored next takes a copy
   * ten times as fast there as in memory that must be faulted in. As with a heap, the more is found to be in use, the
   * longer it takes to the next look.
   */
  async #collectViews(): Promise<void> {
    const link = this.#link;
    this.#viewBytesMax = Infinity;
    await collectYoung(this.#clock);
    if (link.ended !== undefined) return;
    if (link.store.pinnedBytes <= VIEW_BYTES_MIN / 2) {
      this.#viewBytesMax = VIEW_BYTES_MIN;
      return link.flush();
    }
    await collectGarbage(this.#clock);
    if (link.ended !== undefined) return;
    this.#viewBytesMax = Math.max(
      VIEW_BYTES_MIN,
      2 * link.store.pinnedBytes,
      link.store.pinnedBytes + collectionMs() * COLD_BYTES_PER_MS,
    );
    link.flush();
  }

  /**
   * Collects garbage so that unused Refs are let go, unless that has been of no use lately.
   *
   * @param bytes How much room is wanted.
   * @returns Whether garbage was collected.
   */
  async #collect(bytes: number): Promise<boolean> {
    if (this.#collectsToSkip > 0) {
      this.#collectsToSkip--;
      return false;
    }
    const references = this.#references;
    references.letGoBytes = 0;
    await collectYoung(this.#clock);
    if (references.letGoBytes < bytes) await collectGarbage(this.#clock);
    this.#fruitless = references.letGoBytes >= bytes ? 0 : Math.min(this.#fruitless + 1, 5);
    this.#collectsToSkip = this.#fruitless === 0 ? 0 : 2 ** this.#fruitless;
    this.#link.flush();
    return true;
  }
}
