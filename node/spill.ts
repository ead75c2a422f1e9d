/**
 * Making room in the object store: frees what garbage collectors let go of, spills to disk what is still needed, and
 * brings it back.
 *
 * Spilled objects lie in one unnamed file, so that nothing of them is left whatever happens to the node. Space in it
 * is handed out first-fit, and given back to the disk when an object is freed or restored.
 *
 * Whoever needs room waits in one line, so that two allocations never take the room made for each other. Each waits
 * until its deadline for something to spill, or to be freed or unpinned; then it fails with a typed error.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { ObjectLostError, OutOfDiskError, type RaydError, StoreFullError } from "../core/errors.ts";
import { hex } from "../core/ids.ts";
import { ROOM_DEADLINE_MS } from "../core/limits.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ObjectDirectory, ObjectRecord } from "./directory.ts";

/** What the spiller works on. */
export interface SpillerOptions {
  readonly store: ObjectStore;
  readonly directory: ObjectDirectory;
  readonly clock: Clock;
  /** Where the spill file is made. */
  readonly path: string;
  /** Asks all programs to collect garbage. */
  readonly collect: () => void;
}

/** How long collectors get to let go of what nobody uses, and how long they are left alone when that was in vain. */
const COLLECT_MS = 120, COLLECT_AGAIN_MS = 800;

/** How often someone who waits for room looks again. */
const RETRY_MS = 20;

/** How much is spilled at once at least, so that a stream of small needs does not become a stream of small writes. */
const SPILL_BYTES_MIN = 16 * 1024 * 1024;

/** Makes room in one node's store. */
export class Spiller {
  readonly #options: SpillerOptions;
  readonly #extents = new Extents();
  #file = -1;
  /** Bytes of the largest object that was ever spilled. */
  #largest = 0;
  #line: Promise<unknown> = Promise.resolve();
  #wake: (() => void) | undefined;
  #closed = false;
  /** Collecting garbage has made no room: not to be tried before this time. */
  #collectAgainAt = 0;
  /** Bytes stored since programs were last asked to collect garbage. */
  #storedBytes = 0;
  /** Bytes written to disk so far, and bytes that lie there now. */
  spilledBytesTotal = 0;
  spilledBytes = 0;

  /** @param options What to work on. */
  constructor(options: SpillerOptions) {
    this.#options = options;
  }

  /** Makes room for an object of `bytes`. @returns What went wrong, or `undefined`. */
  makeRoom(bytes: number): Promise<RaydError | undefined> {
    return this.#inLine(() => this.#makeRoom(bytes, false));
  }

  /** Brings a spilled object back into memory. @returns What went wrong, or `undefined`. */
  restore(record: ObjectRecord): Promise<RaydError | undefined> {
    return this.#inLine(() => this.#restore(record));
  }

  /**
   * An object was stored. What lies on disk may be garbage that no shortage of memory will ever bring to light, so
   * programs are asked to look once as much was stored as lies there: a collection for so many bytes is cheap.
   */
  stored(bytes: number): void {
    this.#storedBytes += bytes;
    if (this.spilledBytes === 0) return;
    if (this.#storedBytes >= Math.max(this.spilledBytes, this.#options.store.capacity)) this.#collect();
  }

  /** An object was freed: its place on disk may go, and whoever waits for room may look again. */
  freed(record: ObjectRecord): void {
    if (record.spilled !== undefined) this.#free(record);
    this.#wake?.();
  }

  /** Ends all spilling; the file is gone with it. */
  close(): void {
    this.#closed = true;
    this.#wake?.();
    if (this.#file >= 0) this.#options.store.closeSpillFile(this.#file);
    this.#file = -1;
  }

  #inLine<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#line.then(job);
    this.#line = result.catch(() => {});
    return result;
  }

  /** @param exchange The room is for an object that comes back from disk, which frees as much there. */
  async #makeRoom(bytes: number, exchange: boolean): Promise<RaydError | undefined> {
    const { store, clock } = this.#options;
    const deadline = clock.now() + ROOM_DEADLINE_MS;
    let diskFull: RaydError | undefined;
    if (store.stats().largestFree >= bytes) return undefined;
    // Often nobody needs what fills the store: give collectors a chance before anything goes to disk.
    if (clock.now() >= this.#collectAgainAt) {
      this.#collect();
      for (const end = clock.now() + COLLECT_MS; clock.now() < end && !this.#closed;) {
        await this.#pause();
        if (store.stats().largestFree >= bytes) return undefined;
      }
      this.#collectAgainAt = clock.now() + COLLECT_AGAIN_MS;
    }
    while (!this.#closed) {
      if (store.stats().largestFree >= bytes) return undefined;
      const spilled = diskFull === undefined ? await this.#spillSome(bytes, exchange) : "nothing";
      if (spilled === "some") continue;
      if (spilled !== "nothing") diskFull = spilled;
      // What fills the store is in use, or so it seems: many a view is only waiting to be collected.
      if (clock.now() >= this.#collectAgainAt) {
        this.#collectAgainAt = clock.now() + COLLECT_MS;
        this.#collect();
      }
      if (
        clock.now() > deadline || diskFull !== undefined && clock.now() > deadline - ROOM_DEADLINE_MS * 0.9
      ) {
        return diskFull ?? this.#full(bytes);
      }
      await this.#pause();
    }
    return new StoreFullError("The node shut down while room was being made in its store");
  }

  #collect(): void {
    this.#storedBytes = 0;
    this.#options.collect();
  }

  /** Spills until `bytes` were let go. */
  async #spillSome(bytes: number, exchange: boolean): Promise<"some" | "nothing" | RaydError> {
    const { store, directory } = this.#options;
    let freed = 0;
    const wanted = exchange ? bytes : Math.max(bytes, Math.min(SPILL_BYTES_MIN, store.capacity / 8));
    for (const { id, size } of store.leastRecentlyUsed(wanted, 256)) {
      const record = directory.get(id);
      if (record?.outcome?.kind !== "stored") continue;
      if (record.spilled === undefined) {
        const failure = await this.#write(record, size, exchange);
        if (failure !== undefined) return freed > 0 ? "some" : failure;
        if (record.spilled === undefined) continue; // freed or gone meanwhile
      }
      if (store.evict(id)) freed += size;
      else if (record.spilled !== undefined) this.#free(record); // pinned meanwhile: it stays in memory
      if (freed >= wanted) break;
    }
    return freed > 0 ? "some" : "nothing";
  }

  async #write(record: ObjectRecord, size: number, exchange: boolean): Promise<RaydError | undefined> {
    const { store, path } = this.#options;
    // Room for one more object is kept, without which none could ever be brought back in exchange for another.
    this.#largest = Math.max(this.#largest, size);
    if (store.diskFree(path) < size + (exchange ? 0 : this.#largest)) return this.#outOfDisk(record, size);
    const offset = this.#extents.take(size);
    try {
      if (this.#file < 0) this.#file = store.openSpillFile(path);
      if (!await store.spillWrite(record.id, this.#file, offset)) {
        this.#extents.give(offset, size);
        return undefined;
      }
    } catch (error) {
      this.#extents.give(offset, size);
      if (error instanceof OutOfDiskError) {
        store.punchSpillFile(this.#file, offset, size);
        return this.#outOfDisk(record, size);
      }
      return error as RaydError;
    }
    this.spilledBytesTotal += size;
    this.spilledBytes += size;
    record.spilled = { offset, size };
    // Nobody may have wanted it any more by the time it was written.
    if (this.#options.directory.get(record.id) !== record) this.#free(record);
    return undefined;
  }

  #outOfDisk(record: ObjectRecord, size: number): RaydError {
    const { store, path } = this.#options;
    return new OutOfDiskError(
      `Cannot spill object ${hex(record.id, true)} of ${size} bytes: the disk at ${path} is full ` +
        `(${store.diskFree(path)} bytes free, ${this.spilledBytes} bytes spilled). Free disk space, spill ` +
        `elsewhere with RAYD_SPILL_DIR, or keep fewer objects alive`,
    );
  }

  async #restore(record: ObjectRecord): Promise<RaydError | undefined> {
    const { store } = this.#options;
    for (;;) {
      const place = record.spilled;
      if (place === undefined || this.#closed) return undefined;
      let result: "read" | "full";
      try {
        result = await store.spillRead(record.id, this.#file, place.offset, place.size);
      } catch (error) {
        return error instanceof ObjectLostError ? error : new ObjectLostError(String(error));
      }
      if (result === "read") {
        this.#free(record);
        if (this.#options.directory.get(record.id) !== record) store.delete(record.id);
        return undefined;
      }
      const failure = await this.#makeRoom(place.size, true);
      if (failure !== undefined) return failure;
    }
  }

  #free(record: ObjectRecord): void {
    const { offset, size } = record.spilled!;
    record.spilled = undefined;
    this.spilledBytes -= size;
    this.#extents.give(offset, size);
    if (this.#file >= 0) this.#options.store.punchSpillFile(this.#file, offset, size);
  }

  #full(bytes: number): RaydError {
    const { capacity, used, pinned, objects } = this.#options.store.stats();
    return new StoreFullError(
      `Cannot store an object of ${bytes} bytes: the store of ${capacity} bytes holds ${used} in ${objects} objects, ` +
        `${pinned} of them in use by programs, and nothing could be spilled or freed within ${ROOM_DEADLINE_MS} ms. ` +
        `Keep fewer values in use at once, or make the store larger with init({ storeMemory }) or --store-memory`,
    );
  }

  /** Waits until something was freed, but not long. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(RETRY_MS, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

/** Hands out ranges of a file, first-fit. */
export class Extents {
  /** Free ranges below the end, by offset; never two that touch. */
  readonly #free: { offset: number; size: number }[] = [];
  #end = 0;

  /** Where a range of `size` may go. */
  take(size: number): number {
    for (let i = 0; i < this.#free.length; i++) {
      const range = this.#free[i]!;
      if (range.size < size) continue;
      const { offset } = range;
      range.offset += size;
      range.size -= size;
      if (range.size === 0) this.#free.splice(i, 1);
      return offset;
    }
    const offset = this.#end;
    this.#end += size;
    return offset;
  }

  /** Gives a range back. */
  give(offset: number, size: number): void {
    if (size === 0) return;
    let at = this.#free.findIndex((range) => range.offset > offset);
    if (at < 0) at = this.#free.length;
    this.#free.splice(at, 0, { offset, size });
    this.#join(at);
    this.#join(at - 1);
    const last = this.#free.at(-1);
    if (last !== undefined && last.offset + last.size === this.#end) {
      this.#end = last.offset;
      this.#free.pop();
    }
  }

  /** Bytes handed out. */
  get used(): number {
    return this.#end - this.#free.reduce((sum, range) => sum + range.size, 0);
  }

  #join(at: number): void {
    const range = this.#free[at], next = this.#free[at + 1];
    if (range === undefined || next === undefined || range.offset + range.size !== next.offset) return;
    range.size += next.size;
    this.#free.splice(at + 1, 1);
  }
}
