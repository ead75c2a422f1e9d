/**
 * The object store, as one isolate sees it: create, write in place, seal, get, release.
 *
 * Views that are handed out lie in the shared segment and pin their object until they are collected; the segment
 * stays mapped until the last of them is gone, also after `close`. Each isolate has its own client slot, so that the
 * node can give back what an isolate held that was ended.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { ObjectLostError, StoreFullError } from "../core/errors.ts";
import { hex, OBJECT_ID_BYTES, type ObjectId, readObjectId, writeObjectId } from "../core/ids.ts";
import { STORE_CLIENTS_MAX, STORE_OBJECTS_MAX } from "../core/limits.ts";
import { BulkSocket } from "./bulk_socket.ts";
import { check, type LoadedRaystore, loadRaystore, type Raystore, STATUS } from "./raystore.ts";

/** Counters of a store; sizes in bytes. */
export interface StoreStats {
  readonly capacity: number;
  readonly used: number;
  readonly objects: number;
  readonly pinned: number;
  /** Memory that objects have used so far: what lies beyond it must be faulted in first. */
  readonly touched: number;
  readonly clients: number;
  readonly largestFree: number;
  readonly repairs: number;
  readonly evictable: number;
}

/** An object that lies in the store, pinned until it is released. */
export interface StoredView {
  /** The object's bytes, in place; not to be used after `release`. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** A buffer over a part of the object that keeps it pinned until the buffer is collected. */
  share(offset: number, byteLength: number): ArrayBuffer;
  /** Ends the use of `bytes`. Shared buffers stay valid. */
  release(): void;
}

/** One pin in the segment, and how much still needs it: views under way, and each buffer shared of it. */
interface Pin {
  readonly id: ObjectId;
  readonly address: bigint;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Buffers over parts of the object, by offset: the engine takes each for as much memory again, so they are shared. */
  readonly buffers: Map<number, WeakRef<ArrayBuffer>>;
  holds: number;
}

/** What {@link ObjectStore.reduce} can do with elements; the place of each is its code in `ffi/src/reduce.rs`. */
export type ReduceOp = "sum" | "prod" | "min" | "max" | "mean";

const REDUCE_OPS: readonly ReduceOp[] = ["sum", "prod", "min", "max", "mean"];

/** Arrays that {@link ObjectStore.reduce} takes. */
export type ReducibleArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Float32Array
  | Float64Array;

/** Their classes; the place of each is its code in `ffi/src/reduce.rs`. */
export const REDUCE_ELEMENTS = [
  Int8Array,
  Uint8Array,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  BigInt64Array,
  BigUint64Array,
  Float32Array,
  Float64Array,
] as const;

const EMPTY = new Uint8Array(0);

/** One isolate's hold on the node's object store. */
export class ObjectStore {
  readonly #library: LoadedRaystore;
  readonly #lib: Raystore;
  readonly #handle: Deno.PointerObject;
  /** The path by which other isolates and processes open the store. */
  readonly path: string;
  /** This isolate's client slot. */
  readonly client: number;
  /** Bytes that objects can take in all. */
  readonly capacity: number;
  readonly #key = new Uint8Array(OBJECT_ID_BYTES);
  readonly #out = new BigUint64Array(3);
  readonly #pins: FinalizationRegistry<Pin>;
  /** What this isolate pins, by object. */
  readonly #live = new Map<ObjectId, Pin>();
  #pinnedBytes = 0;
  /** Views of memory that was used lately, by address. */
  readonly #views = new Map<bigint, Uint8Array<ArrayBuffer>>();
  #closing = false;
  #closed = false;

  private constructor(library: LoadedRaystore, handle: Deno.PointerObject) {
    this.#library = library;
    const lib = this.#lib = library.lib;
    this.#handle = handle;
    const path = new Uint8Array(256);
    const length = check(
      lib,
      lib.rs_store_path(handle, path, BigInt(path.length)),
      "Cannot name the object store",
    );
    this.path = new TextDecoder().decode(path.subarray(0, length));
    const client = new Uint32Array(1);
    check(
      lib,
      lib.rs_client_register(handle, client as BufferSource),
      "Cannot register with the object store",
    );
    this.client = client[0]!;
    this.capacity = this.stats().capacity;
    this.#pins = new FinalizationRegistry((pin) => this.#unpin(pin));
  }

  /**
   * Makes a store. It lives until the last process that uses it has ended, and nothing of it stays behind.
   *
   * @param library Path of the shared library.
   * @param options Its directory (default: shared memory), and its capacity in bytes.
   */
  static create(library: string, options: { directory?: string; capacity: number }): ObjectStore {
    const loaded = loadRaystore(library);
    const { lib } = loaded;
    const directory = new TextEncoder().encode(options.directory ?? "");
    const out = new BigUint64Array(1);
    const objects = Math.min(STORE_OBJECTS_MAX, Math.max(1024, Math.floor(options.capacity / 1024)));
    const status = lib.rs_store_create(
      directory,
      BigInt(directory.length),
      BigInt(options.capacity),
      objects,
      STORE_CLIENTS_MAX,
      out as BufferSource,
    );
    check(
      lib,
      status,
      `Cannot make an object store of ${options.capacity} bytes in ${options.directory ?? "/dev/shm"}`,
    );
    return new ObjectStore(loaded, Deno.UnsafePointer.create(out[0]!)!);
  }

  /** Opens the store of a running node. @param library Path of the shared library. @param path The store's path. */
  static open(library: string, path: string): ObjectStore {
    const loaded = loadRaystore(library);
    const { lib } = loaded;
    const bytes = new TextEncoder().encode(path);
    const out = new BigUint64Array(1);
    check(
      lib,
      lib.rs_store_open(bytes, BigInt(bytes.length), out as BufferSource),
      `Cannot open the object store ${path}`,
    );
    return new ObjectStore(loaded, Deno.UnsafePointer.create(out[0]!)!);
  }

  /**
   * Makes room for an object and returns it, to be written and then sealed or aborted.
   *
   * @returns The object's bytes; `"full"` when there is no room now; `"exists"` when there is one of that id.
   * @throws {StoreFullError} If it could never fit.
   */
  create(id: ObjectId, size: number): Uint8Array<ArrayBuffer> | "full" | "exists" {
    const key = this.#keyOf(id);
    const status = this.#lib.rs_object_create(
      this.#handle,
      this.client,
      key,
      BigInt(size),
      this.#out as BufferSource,
    );
    if (status === STATUS.exists) return "exists";
    if (status === STATUS.full || status === STATUS.tableFull) return "full";
    if (status === STATUS.tooBig) {
      throw new StoreFullError(
        `Cannot store an object of ${size} bytes: the whole store has ${this.capacity}. Give it more with ` +
          `init({ storeMemory }) or --store-memory, or split the value`,
      );
    }
    check(this.#lib, status, `Cannot create object ${hex(id, true)}`);
    return this.#usualView(this.#out[0]!, size);
  }

  /** Makes an object immutable and visible to all, and drops the creator's pin. */
  seal(id: ObjectId): void {
    const key = this.#keyOf(id);
    check(
      this.#lib,
      this.#lib.rs_object_seal(this.#handle, this.client, key, 0n),
      `Cannot seal object ${hex(id, true)}`,
    );
    this.#lib.rs_object_release(this.#handle, this.client, key);
  }

  /** Takes a `create` back. */
  abort(id: ObjectId): void {
    this.#lib.rs_object_abort(this.#handle, this.client, this.#keyOf(id));
  }

  /** A sealed object, pinned; `undefined` when it is not in memory. */
  get(id: ObjectId): StoredView | undefined {
    const pin = this.#live.get(id) ?? this.#pin(id);
    if (pin === undefined) return undefined;
    pin.holds++;
    return {
      bytes: pin.bytes,
      share: (offset, byteLength) => this.#share(pin, offset, byteLength),
      release: () => this.#unpin(pin),
    };
  }

  #pin(id: ObjectId): Pin | undefined {
    const out = this.#out;
    const status = this.#lib.rs_object_get(this.#handle, this.client, this.#keyOf(id), out as BufferSource);
    if (status === STATUS.notFound || status === STATUS.unsealed) return undefined;
    check(this.#lib, status, `Cannot get object ${hex(id, true)}`);
    const address = out[0]!;
    const pin: Pin = {
      id,
      address,
      bytes: this.#usualView(address, Number(out[1]!)),
      buffers: new Map(),
      holds: 0,
    };
    this.#live.set(id, pin);
    this.#pinnedBytes += pin.bytes.length;
    return pin;
  }

  #share(pin: Pin, offset: number, byteLength: number): ArrayBuffer {
    assert(pin.holds > 0, "a buffer shared of a view that was released");
    const known = pin.buffers.get(offset)?.deref();
    if (known !== undefined && known.byteLength === byteLength) return known;
    const buffer = this.#view(pin.address + BigInt(offset), byteLength).buffer;
    pin.buffers.set(offset, new WeakRef(buffer));
    pin.holds++;
    this.#pins.register(buffer, pin);
    return buffer;
  }

  /** Frees an object, at once or with its last pin. */
  delete(id: ObjectId): void {
    this.#lib.rs_object_delete(this.#handle, this.#keyOf(id));
  }

  /** Frees an object unless somebody pins it. Returns whether it is gone. */
  evict(id: ObjectId): boolean {
    const status = this.#lib.rs_object_evict(this.#handle, this.#keyOf(id));
    return status === 0 || status === STATUS.notFound;
  }

  /** Whether a sealed object of that id is in memory. */
  has(id: ObjectId): boolean {
    const out = new BigUint64Array(4);
    const status = this.#lib.rs_object_stat(this.#handle, this.#keyOf(id), out as BufferSource);
    return status === 0 && out[1] === 2n;
  }

  /** The least recently used objects that nobody pins. @param bytes How much they should cover. */
  leastRecentlyUsed(bytes: number, max = 64): { id: ObjectId; size: number }[] {
    const keys = new Uint8Array(max * OBJECT_ID_BYTES);
    const sizes = new BigUint64Array(max);
    const status = this.#lib.rs_lru(this.#handle, BigInt(bytes), keys, sizes as BufferSource, max);
    const count = check(this.#lib, status, "Cannot list the store's objects");
    return Array.from({ length: count }, (_, i) => ({
      id: readObjectId(keys, i * OBJECT_ID_BYTES),
      size: Number(sizes[i]!),
    }));
  }

  /** Ids of all sealed objects that nobody deleted. */
  list(): ObjectId[] {
    const max = 256;
    const keys = new Uint8Array(max * OBJECT_ID_BYTES);
    const stats = new BigUint64Array(max * 4);
    const cursor = new Uint32Array(1);
    const ids: ObjectId[] = [];
    do {
      const count = check(
        this.#lib,
        this.#lib.rs_list(this.#handle, cursor as BufferSource, keys, stats as BufferSource, max),
        "Cannot list the store's objects",
      );
      for (let i = 0; i < count; i++) {
        if (stats[i * 4 + 1] === 2n) ids.push(readObjectId(keys, i * OBJECT_ID_BYTES));
      }
    } while (cursor[0] !== 0);
    return ids;
  }

  /** Writes an object to a file. @returns Whether it was written; `false` when it is not in memory any more. */
  async spillWrite(id: ObjectId, file: number, offset: number): Promise<boolean> {
    const key = this.#keyOf(id).slice();
    const status = await this.#lib.rs_spill_write(this.#handle, this.client, key, file, BigInt(offset));
    if (status === STATUS.notFound || status === STATUS.unsealed) return false;
    check(this.#lib, status, `Cannot spill object ${hex(id, true)}`);
    return true;
  }

  /** Brings an object back from a file. @returns `"full"` when there is no room for it. */
  async spillRead(id: ObjectId, file: number, offset: number, size: number): Promise<"read" | "full"> {
    const key = this.#keyOf(id).slice();
    const status = await this.#lib.rs_spill_read(
      this.#handle,
      this.client,
      file,
      BigInt(offset),
      key,
      BigInt(size),
      0n,
    );
    if (status === STATUS.full || status === STATUS.tableFull) return "full";
    if (status === STATUS.exists) return "read";
    if (status < 0) {
      throw new ObjectLostError(
        `Object ${
          hex(id, true)
        } is lost: it was spilled to disk and cannot be read back (status ${status}, errno ` +
          `${this.#lib.rs_last_errno()})`,
      );
    }
    return "read";
  }

  /** Opens an unnamed file for spilled objects. @param directory Where. @returns Its descriptor. */
  openSpillFile(directory: string): number {
    const path = new TextEncoder().encode(directory);
    const out = new Int32Array(1);
    check(
      this.#lib,
      this.#lib.rs_spill_create(path, BigInt(path.length), out as BufferSource),
      `Cannot make a spill file in ${directory}`,
    );
    return out[0]!;
  }

  /** Gives the disk space of a part of a spill file back. */
  punchSpillFile(file: number, offset: number, length: number): void {
    this.#lib.rs_spill_punch(file, BigInt(offset), BigInt(length));
  }

  /** Closes a spill file; its space is free then. */
  closeSpillFile(file: number): void {
    this.#lib.rs_spill_close(file);
  }

  /** Bytes that are free where `directory` is. */
  diskFree(directory: string): number {
    const path = new TextEncoder().encode(directory);
    const out = new BigUint64Array(1);
    const status = this.#lib.rs_fs_free(path, BigInt(path.length), out as BufferSource);
    return status < 0 ? 0 : Number(out[0]!);
  }

  /** Copies into memory of the store; large copies use several threads. */
  readonly copy = (target: Uint8Array, source: Uint8Array): void => {
    if (source.length < COPY_NATIVE_MIN || source.buffer instanceof SharedArrayBuffer) {
      return target.set(source);
    }
    const to = Deno.UnsafePointer.of(target as Uint8Array<ArrayBuffer>);
    this.#lib.rs_copy(to, source as Uint8Array<ArrayBuffer>, BigInt(source.length));
  };

  /**
   * Reduces typed arrays of one kind and length into another, element by element: with vector instructions, and bit for
   * bit what a loop over the inputs in their order gives. Whole numbers wrap; of `min` and `max`, NaN wins. It takes the
   * time of reading the inputs and writing the output, and the isolate waits for it.
   *
   * @param op What to do with the elements.
   * @param inputs One or more arrays.
   * @param out As long as each of them; the first input, or memory of its own.
   */
  reduce(op: ReduceOp, inputs: readonly ReducibleArray[], out: ReducibleArray): void {
    const element = REDUCE_ELEMENTS.findIndex((type) => out instanceof type);
    assert(element >= 0 && inputs.length > 0, "arrays that cannot be reduced");
    const addresses = new BigUint64Array(inputs.length);
    inputs.forEach((input, i) => {
      assert(input.constructor === out.constructor && input.length === out.length, "arrays that differ");
      addresses[i] = addressOf(input);
    });
    if (out.length === 0) return;
    check(
      this.#lib,
      this.#lib.rs_reduce(
        REDUCE_OPS.indexOf(op),
        element,
        addresses as BufferSource,
        inputs.length,
        Deno.UnsafePointer.of(out as ReducibleArray & ArrayBufferView<ArrayBuffer>),
        BigInt(out.length),
      ),
      `Cannot reduce ${inputs.length} arrays with ${op}`,
    );
  }

  /** One more buffer over the memory of a view of the store, with a life of its own; the view must outlive it. */
  alias(view: Uint8Array<ArrayBuffer>): ArrayBuffer {
    return this.#view(addressOf(view), view.length).buffer;
  }

  /** A checksum (XXH3) of bytes in the store. */
  hash(bytes: Uint8Array<ArrayBuffer>): bigint {
    if (bytes.length === 0) return 0n;
    return this.#lib.rs_hash64(Deno.UnsafePointer.of(bytes), BigInt(bytes.length));
  }

  /**
   * The library's hold on a TCP connection of this process, for moving bytes between it and this store.
   *
   * @param local Its address here, as HOST:PORT. @param peer Its address there.
   * @returns `undefined` if there is no such connection.
   */
  bulkSocket(local: string, peer: string): BulkSocket | undefined {
    return BulkSocket.open(this.#library.path, local, peer);
  }

  /** Faults memory in ahead of its use, on a thread of its own. @param ahead Bytes to keep warm. */
  prefault(ahead: number): void {
    this.#lib.rs_prefault_start(this.#handle, BigInt(ahead), BigInt(this.capacity));
  }

  /** Drops all that another client held: its isolate has ended. */
  releaseClient(client: number): void {
    this.#lib.rs_client_release(this.#handle, client);
  }

  /** Drops all that clients of dead processes held. */
  reapClients(): number {
    return this.#lib.rs_clients_reap(this.#handle);
  }

  /** Ends this process when its parent, which has this id, is gone. */
  dieWithParent(parent: number): void {
    check(this.#lib, this.#lib.rs_die_with_parent(parent), "Cannot watch the parent process");
  }

  /** Memory that this process frees stays warm for what it allocates next, up to 32 MB a thread. */
  keepFreed(): void {
    check(this.#lib, this.#lib.rs_keep_freed(), "Cannot keep memory that was freed");
  }

  /** The store's counters. */
  stats(): StoreStats {
    const out = new BigUint64Array(13);
    check(
      this.#lib,
      this.#lib.rs_stats(this.#handle, out as BufferSource, BigInt(out.length)),
      "Cannot read the store",
    );
    const at = (i: number) => Number(out[i]!);
    return {
      capacity: at(0),
      used: at(1),
      objects: at(2),
      pinned: at(4),
      touched: at(5),
      clients: at(6),
      largestFree: at(7),
      repairs: at(8),
      evictable: at(12),
    };
  }

  /** Verifies the whole store; slow. Throws if it is not sound. */
  verify(): void {
    check(this.#lib, this.#lib.rs_check(this.#handle), "The object store is not sound");
  }

  /** Objects that views of this isolate pin. */
  get pinnedViews(): number {
    return this.#live.size;
  }

  /** Bytes of those objects. */
  get pinnedBytes(): number {
    return this.#pinnedBytes;
  }

  /** Lets go of the store. Views that are still referred to stay valid; the memory goes with the last of them. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#live.size === 0) this.#closeNow();
  }

  #closeNow(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#views.clear();
    this.#lib.rs_client_release(this.#handle, this.client);
    this.#lib.rs_store_close(this.#handle);
    this.#library.close();
  }

  #unpin(pin: Pin): void {
    if (--pin.holds > 0 || this.#closed) return;
    this.#live.delete(pin.id);
    this.#pinnedBytes -= pin.bytes.length;
    this.#lib.rs_object_release_at(this.#handle, this.client, this.#keyOf(pin.id), pin.address);
    if (this.#closing && this.#live.size === 0) this.#closeNow();
  }

  #keyOf(id: ObjectId): Uint8Array<ArrayBuffer> {
    assert(!this.#closed, "the object store is used after it was closed");
    writeObjectId(id, this.#key, 0);
    return this.#key;
  }

  /**
   * A view for the library's own use. Memory is used again, and a view of it too: to the engine each new one is as much
   * memory, for which it soon looks for garbage.
   */
  #usualView(address: bigint, size: number): Uint8Array<ArrayBuffer> {
    const known = this.#views.get(address);
    if (known?.length === size) return known;
    const view = this.#view(address, size);
    if (size >= VIEW_KEPT_BYTES_MIN) {
      this.#views.delete(address);
      this.#views.set(address, view);
      if (this.#views.size > VIEWS_KEPT_MAX) this.#views.delete(this.#views.keys().next().value!);
    }
    return view;
  }

  #view(address: bigint, size: number): Uint8Array<ArrayBuffer> {
    if (size === 0) return EMPTY.slice();
    const pointer = Deno.UnsafePointer.create(address);
    assert(pointer !== null, "an object at the null address");
    return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, size));
  }
}

function addressOf(array: ReducibleArray): bigint {
  const pointer = Deno.UnsafePointer.of(array as ReducibleArray & ArrayBufferView<ArrayBuffer>);
  return Deno.UnsafePointer.value(pointer) as bigint;
}

/** Views from this size on are kept, and so many of them. */
const VIEW_KEPT_BYTES_MIN = 64 * 1024;
const VIEWS_KEPT_MAX = 64;

/** Copies from this size on are left to the library. */
const COPY_NATIVE_MIN = 64 * 1024;
