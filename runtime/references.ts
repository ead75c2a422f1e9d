/**
 * What a client refers to: Refs and handles that its program holds, and those inside of values that come and go. The node is
 * told what the program needs, and when it needs it no more.
 *
 * @module
 */

import { ProtocolError, SerializationError } from "../core/errors.ts";
import { type ObjectId, TASK_ID_BYTES } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { pack, type Packet, type PackExtension, unpack, type UnpackExtension } from "../store/serialize.ts";
import { entryOfHandle, Handle, packedHandle } from "./handle.ts";
import type { NodeLink } from "./node_link.ts";
import { Entry, entryOf, Ref } from "./ref.ts";
import { RefStream } from "./stream.ts";

const TAG_REF = 1;
const TAG_ARGUMENT = 2;
const TAG_ACTOR = 3;

/** Stands in packed arguments for a Ref that is resolved before the task starts. */
class Argument {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
}

/** How shared buffers are made; see `UnpackOptions.share`. */
export type UnpackShare = (offset: number, byteLength: number) => ArrayBuffer;

/** A value as bytes, and the objects that it holds Refs of. */
export interface Packed {
  readonly packet: Packet;
  readonly contains: ObjectId[];
}

/** What one client's program refers to. */
export class References {
  readonly #link: NodeLink;
  readonly #makeHandle: (packed: string, entry: Entry) => Handle;
  readonly #finalizer = new FinalizationRegistry<Entry>((entry) => this.letGo(entry));
  readonly #released: ObjectId[] = [];
  /** Bytes of the store that were let go of; for whoever set it to 0. */
  letGoBytes = 0;

  /** The Refs and arguments of a value being packed; one value at a time, packing being synchronous. */
  #contains: ObjectId[] = [];
  readonly #packing: PackExtension = {
    pack: (value) => {
      if (value instanceof Ref) {
        const entry = entryOf(value);
        const { id } = entry;
        this.#share(entry);
        this.#contains.push(id);
        return { tag: TAG_REF, data: id };
      }
      if (value instanceof Argument) return { tag: TAG_ARGUMENT, data: value.index };
      if (value instanceof Handle) {
        const entry = entryOfHandle(value);
        this.#share(entry);
        this.#contains.push(entry.id);
        return { tag: TAG_ACTOR, data: packedHandle(value) };
      }
      if (value instanceof RefStream) {
        throw new SerializationError("Cannot pass a stream to a task: pass the Refs that it gives", {
          path: "value",
        });
      }
      return undefined;
    },
  };
  readonly #unpacking: UnpackExtension = { unpack: (tag, data) => this.#unpackHandle(tag, data, undefined) };

  /** @param link The way to the node. @param makeHandle Makes a handle of an actor. */
  constructor(link: NodeLink, makeHandle: (packed: string, entry: Entry) => Handle) {
    this.#link = link;
    this.#makeHandle = makeHandle;
  }

  // --- Values -------------------------------------------------------------------------------------------------

  /** A value as bytes. @param root What to call it in an error. @throws {SerializationError} If it cannot be carried. */
  pack(value: unknown, root: string): Packed {
    if (this.#contains.length > 0) this.#contains = [];
    const packet = pack(value, { extension: this.#packing, root });
    const contains = this.#contains.length === 0 ? NO_OBJECTS : [...new Set(this.#contains)];
    return { packet, contains };
  }

  /** Arguments as bytes: a Ref among them is something to be resolved first. */
  packArguments(args: readonly unknown[]): Packed & { readonly dependencies: ObjectId[] } {
    let dependencies: ObjectId[] = NO_OBJECTS;
    let values = args;
    for (let i = 0; i < args.length; i++) {
      const arg = args[i];
      if (!(arg instanceof Ref)) continue;
      if (dependencies === NO_OBJECTS) {
        dependencies = [];
        values = args.slice();
      }
      (values as unknown[])[i] = new Argument(dependencies.length);
      this.#share(entryOf(arg));
      dependencies.push(entryOf(arg).id);
    }
    const { packet, contains } = this.pack(values, "args");
    return { packet, contains, dependencies };
  }

  /** A value from its bytes, which are copied, unless `share` is given. */
  unpack(bytes: Uint8Array, share?: UnpackShare): unknown {
    return unpack(
      bytes,
      share === undefined ? { extension: this.#unpacking } : { extension: this.#unpacking, share },
    );
  }

  /** The arguments of a task. @param resolved The values of those that were Refs. */
  unpackArguments(bytes: Uint8Array, resolved: readonly unknown[], share?: UnpackShare): unknown[] {
    const extension: UnpackExtension = { unpack: (tag, data) => this.#unpackHandle(tag, data, resolved) };
    const args = unpack(bytes, { extension, ...(share === undefined ? {} : { share }) });
    if (!Array.isArray(args)) {
      throw new ProtocolError("Cannot read a task's arguments: they are not an array");
    }
    return args;
  }

  #unpackHandle(
    tag: number,
    data: Uint8Array | string | number,
    resolved: readonly unknown[] | undefined,
  ): unknown {
    if (tag === TAG_REF && typeof data === "string" && (data.length === 16 || data.length === 20)) {
      const entry = new Entry(data as ObjectId, false);
      this.#link.send({ type: "retain", objects: [entry.id] });
      return this.makeRef(entry);
    }
    if (tag === TAG_ACTOR && typeof data === "string" && data.length > TASK_ID_BYTES) {
      const entry = new Entry(data.slice(0, TASK_ID_BYTES) as ObjectId, false);
      this.#link.send({ type: "retain", objects: [entry.id] });
      return this.#makeHandle(data.slice(TASK_ID_BYTES), entry);
    }
    if (
      tag === TAG_ARGUMENT && typeof data === "number" && resolved !== undefined && data < resolved.length
    ) {
      return resolved[data];
    }
    throw new ProtocolError(
      `Cannot read a value: it holds something of kind ${tag} that does not belong there`,
    );
  }

  // --- What the node is told ----------------------------------------------------------------------------------

  /** Lets the node know of an object that is this program's own, before others are told of it. */
  #share(entry: Entry): void {
    if (entry.registered || entry.expected) return;
    if (entry.outcome === undefined) {
      entry.expected = true;
      this.#link.send({ type: "expect", objects: [entry.id] });
    } else this.register(entry, entry.outcome);
  }

  /** Tells the node of an object. */
  register(entry: Entry, outcome: Outcome): void {
    entry.registered = true;
    this.#link.send({ type: "put", object: entry.id, outcome });
  }

  /** A Ref of an object that this program has put. */
  refOfPut(id: ObjectId, outcome: Outcome): Ref<unknown> {
    const entry = new Entry(id, true);
    entry.outcome = outcome;
    if (outcome.kind === "stored" || outcome.kind === "inline" && outcome.contains.length > 0) {
      this.register(entry, outcome);
    }
    return this.makeRef(entry);
  }

  /** An object that this program made exists. */
  resolve(entry: Entry, kept: boolean, outcome: Outcome): void {
    if (kept) entry.registered = true;
    else if (entry.expected) this.register(entry, outcome);
    entry.resolve(outcome);
    if (entry.holds === 0 && entry.registered) {
      entry.holds = 1;
      this.letGo(entry); // all Refs were gone before it existed
    }
  }

  // --- Holding ------------------------------------------------------------------------------------------------

  /** A Ref of an object, which is held until the Ref is gone. */
  makeRef(entry: Entry): Ref<unknown> {
    entry.holds++;
    const ref = new Ref<unknown>(entry);
    this.#finalizer.register(ref, entry);
    return ref;
  }

  /** A user's handle stands for an object from now on: once it is gone, the object is let go of. */
  adopt(handle: object, entry: Entry): void {
    entry.holds++;
    this.#finalizer.register(handle, entry, handle);
  }

  /** A handle is let go of before it is collected. */
  disown(handle: object, entry: Entry): void {
    this.#finalizer.unregister(handle);
    this.letGo(entry);
  }

  /** Keeps objects alive while `job` runs, whatever becomes of their Refs. */
  async holding<T>(entries: readonly Entry[], job: () => Promise<T>): Promise<T> {
    for (const entry of entries) entry.holds++;
    try {
      return await job();
    } finally {
      for (const entry of entries) this.letGo(entry);
    }
  }

  /** One Ref or wait fewer needs the object. */
  letGo(entry: Entry): void {
    if (--entry.holds > 0 || !entry.registered || this.#link.ended !== undefined) return;
    if (entry.outcome?.kind === "stored") this.letGoBytes += entry.outcome.size;
    if (this.#released.push(entry.id) > 1) return;
    queueMicrotask(() => {
      if (this.#link.ended !== undefined) return;
      this.#link.send({ type: "release", objects: this.#released });
      this.#released.length = 0;
      this.#link.flush();
    });
  }
}

const NO_OBJECTS: ObjectId[] = [];
