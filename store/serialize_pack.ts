/**
 * Values to packets, in one pass over the value.
 *
 * The pass writes the head and only takes note of buffers: a buffer's bytes are touched when the packet is written to
 * its place, so a large array is copied exactly once, into the store.
 *
 * @module
 */

import { SerializationError } from "../core/errors.ts";
import { BufferTable } from "./serialize_buffers.ts";
import { registeredByPrototype } from "./serialize_class.ts";
import * as format from "./serialize_format.ts";
import { alignBuffer, ERROR_CLASSES, VALUE_DEPTH_MAX, VIEW_CLASSES, VIEW_DATA } from "./serialize_format.ts";
import { refusal, showError, type Step, Trail } from "./serialize_trail.ts";
import { HeadWriter } from "./serialize_writer.ts";

/** What {@link pack} found out about a value; write it with `writeInto`. */
export interface Packet {
  /** The packet's whole length in bytes. */
  readonly size: number;
  /** How many distinct handles the extension packed. */
  readonly handles: number;
  /**
   * Writes the packet to the first `size` bytes of `target`, every one of them. Large buffers are read only now:
   * do not change them between packing and writing.
   *
   * @param target Where the packet goes; may be a view of shared memory.
   * @param copy Copies one out-of-band buffer; `dst.set(src)` unless given.
   * @throws {RangeError} `target` is shorter than `size`.
   * @throws {SerializationError} A buffer was detached or shrunk after packing.
   */
  writeInto(target: Uint8Array, copy?: (dst: Uint8Array, src: Uint8Array) => void): void;
  /** The packet as bytes. They may be a window of a larger, shared ArrayBuffer: never transfer or change them. */
  toBytes(): Uint8Array;
}

/** Carries objects that have an identity outside the value: references, actor handles. */
export interface PackExtension {
  /**
   * Called once for each distinct function and each object that is neither a plain object nor an array.
   *
   * @returns What stands for the object in the packet, or undefined if it is not one of the extension's.
   */
  pack(value: object): { tag: number; data: Uint8Array | string | number } | undefined;
}

/** How to pack a value. */
export interface PackOptions {
  /** Carries objects with identity. */
  extension?: PackExtension;
  /** What error paths start with: "args", "return value"; "value" unless given. */
  root?: string;
}

/** Up to this many objects, a linear search finds repeated ones sooner than a Map does. */
const SEEN_LINEAR_MAX = 12;
const ArrayPrototype: object = Array.prototype;
const ObjectPrototype: object = Object.prototype;

type Builtin = "date" | "regexp" | "map" | "set" | "boxed" | "buffer" | { view: number };

const builtins = new Map<object, Builtin>([
  [Date.prototype, "date"],
  [RegExp.prototype, "regexp"],
  [Map.prototype, "map"],
  [Set.prototype, "set"],
  [Boolean.prototype, "boxed"],
  [Number.prototype, "boxed"],
  [String.prototype, "boxed"],
  [BigInt.prototype, "boxed"],
  [ArrayBuffer.prototype, "buffer"],
  [SharedArrayBuffer.prototype, "buffer"],
  [DataView.prototype, { view: VIEW_DATA }],
  ...VIEW_CLASSES.map((View, view) => [View.prototype, { view }] as [object, Builtin]),
]);

/** Bytes that travel behind the head. */
interface OutOfBand {
  readonly offset: number;
  readonly source: Uint8Array;
  readonly length: number;
}

class PackedValue implements Packet {
  readonly size: number;
  readonly handles: number;
  readonly #head: Uint8Array;
  readonly #outOfBand: readonly OutOfBand[];

  constructor(size: number, handles: number, head: Uint8Array, outOfBand: readonly OutOfBand[]) {
    this.size = size;
    this.handles = handles;
    this.#head = head;
    this.#outOfBand = outOfBand;
  }

  writeInto(target: Uint8Array, copy?: (dst: Uint8Array, src: Uint8Array) => void): void {
    if (target.length < this.size) {
      throw new RangeError(`Cannot write packet: it has ${this.size} bytes, the target ${target.length}`);
    }
    target.set(this.#head, 0);
    let end = this.#head.length;
    for (const { offset, source, length } of this.#outOfBand) {
      if (source.length !== length) {
        throw new SerializationError(
          `Cannot write packet: a buffer of ${length} bytes in it was detached or shrunk after packing`,
          { path: "packet" },
        );
      }
      // The gap may hold an old object's bytes.
      target.fill(0, end, offset);
      end = offset + length;
      const destination = target.subarray(offset, end);
      if (copy === undefined) destination.set(source);
      else copy(destination, source);
    }
  }

  toBytes(): Uint8Array {
    if (this.#outOfBand.length === 0) return this.#head;
    const bytes = new Uint8Array(this.size);
    this.writeInto(bytes);
    return bytes;
  }
}

const nothingOutOfBand: readonly OutOfBand[] = [];

/** One pass over one value at a time; the head's chunk lives on between passes, unless one fails. */
class Packer {
  readonly #head = new HeadWriter();
  readonly #trail = new Trail();
  #root = "value";

  #extension: PackExtension | undefined;
  #handles = 0;
  #hasReferences = false;

  #seenCount = 0;
  readonly #seenFew: (object | undefined)[] = new Array(SEEN_LINEAR_MAX).fill(undefined);
  #seenMany: Map<object, number> | undefined;
  /** Numbers of registered instances whose state is being packed: they cannot be referred to yet. */
  readonly #unfinished: number[] = [];

  #buffers: BufferTable | undefined;

  pack(value: unknown, options: PackOptions | undefined): Packet {
    this.#extension = options?.extension;
    this.#root = options?.root ?? "value";
    this.#head.begin();
    try {
      this.#value(value);
      const packet = this.#finish();
      this.#reset();
      return packet;
    } catch (error) {
      throw this.#explain(error);
    }
  }

  #reset(): void {
    if (this.#seenMany !== undefined) this.#seenMany = undefined;
    const few = Math.min(this.#seenCount, SEEN_LINEAR_MAX);
    for (let i = 0; i < few; i++) this.#seenFew[i] = undefined;
    this.#seenCount = 0;
    this.#extension = undefined;
    this.#handles = 0;
    this.#hasReferences = false;
    this.#buffers = undefined;
  }

  // --- The packet around the value ---

  #finish(): Packet {
    const flags = this.#hasReferences ? format.FLAG_REFERENCES : 0;
    if (this.#buffers === undefined) {
      const head = this.#head.takeShort(flags);
      return new PackedValue(head.length, this.#handles, head, nothingOutOfBand);
    }
    if (this.#buffers.excess !== undefined) throw this.#failure(this.#buffers.excess);
    const valueBytes = this.#head.written;
    const sources = this.#buffers.write(this.#head);
    const head = this.#head.takeLong(flags, valueBytes);
    let size = head.length;
    const outOfBand: OutOfBand[] = [];
    for (const source of sources) {
      const offset = alignBuffer(size);
      outOfBand.push({ offset, source, length: source.length });
      size = offset + source.length;
    }
    return new PackedValue(size, this.#handles, head, outOfBand);
  }

  // --- Values ---

  #value(value: unknown): void {
    switch (typeof value) {
      case "string":
        return this.#head.string(value);
      case "number":
        return this.#head.number(value);
      case "boolean":
        return this.#head.byte(value ? 0xc3 : 0xc2);
      case "object":
        return value === null ? this.#head.byte(0xc0) : this.#object(value);
      case "undefined":
        this.#head.tag(format.TAG_UNDEFINED);
        return this.#head.byte(0xc0);
      case "bigint":
        return this.#head.bigint(value);
      case "function":
        if (this.#reference(value) || this.#handle(value)) return;
        throw this.#failure(
          `a function${value.name ? ` (${value.name})` : ""} cannot travel between isolates; ` +
            "pass data, and import the function from its module where it is needed",
        );
      default:
        throw this.#failure(
          `a symbol (${String(value)}) has no meaning in another isolate; pass a string instead`,
        );
    }
  }

  #object(value: object): void {
    if (this.#reference(value)) return;
    const prototype: object | null = Object.getPrototypeOf(value);
    if (Array.isArray(value)) {
      if (prototype === ArrayPrototype) this.#array(value);
      else this.#instance(value, prototype);
    } else if (prototype === ObjectPrototype || prototype === null) {
      this.#plain(value as Record<string, unknown>);
    } else {
      this.#instance(value, prototype);
    }
  }

  /** Writes a reference and returns true if the object was met before; numbers it otherwise. */
  #reference(value: object): boolean {
    const number = this.#seen(value);
    if (number < 0) return false;
    if (this.#unfinished.length > 0 && this.#unfinished.includes(number)) {
      throw this.#failure(
        "an instance of a registered class is part of its own state; break the cycle in its serialize()",
      );
    }
    this.#hasReferences = true;
    this.#head.tag(format.TAG_REFERENCE);
    this.#head.number(number);
    return true;
  }

  /** The object's number, or -1 if it is new; then it gets the next one. */
  #seen(value: object): number {
    const count = this.#seenCount;
    let many = this.#seenMany;
    if (many === undefined) {
      const few = this.#seenFew;
      for (let i = 0; i < count; i++) if (few[i] === value) return i;
      if (count < SEEN_LINEAR_MAX) {
        few[count] = value;
        this.#seenCount = count + 1;
        return -1;
      }
      many = this.#seenMany = new Map();
      for (let i = 0; i < count; i++) many.set(few[i]!, i);
    }
    const number = many.get(value);
    if (number !== undefined) return number;
    many.set(value, count);
    this.#seenCount = count + 1;
    return -1;
  }

  #plain(value: Record<string, unknown>): void {
    const keys = Object.keys(value);
    this.#head.mapHeader(keys.length);
    if (keys.length === 0) return;
    const depth = this.#enter("property");
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!;
      this.#trail.keys[depth] = key;
      this.#head.string(key);
      const property = value[key];
      if (typeof property === "number") this.#head.number(property);
      else if (typeof property === "string") this.#head.string(property);
      else this.#value(property);
    }
    this.#trail.leave();
  }

  #array(value: unknown[]): void {
    // Unlike keys, values cost no strings: this is how to learn of extra properties at a nanosecond an element.
    const elements = Object.values(value);
    if (elements.length !== value.length || (elements.length > 0 && hasHoles(value))) {
      return this.#irregularArray(value);
    }
    this.#elements(elements);
  }

  #elements(elements: readonly unknown[]): void {
    this.#head.arrayHeader(elements.length);
    if (elements.length === 0) return;
    const depth = this.#enter("property");
    for (let i = 0; i < elements.length; i++) {
      const element = elements[i];
      if (typeof element === "number") {
        this.#head.number(element);
      } else if (typeof element === "string") {
        this.#head.string(element);
      } else {
        this.#trail.keys[depth] = i;
        this.#value(element);
      }
    }
    this.#trail.leave();
  }

  /** An array with holes or with properties that are not elements. */
  #irregularArray(value: unknown[]): void {
    const keys = Object.keys(value);
    this.#head.tag(format.TAG_ARRAY);
    this.#head.arrayHeader(1 + keys.length * 2);
    this.#head.number(value.length);
    const depth = this.#enter("property");
    for (const key of keys) {
      const index = Number(key) >>> 0;
      const isIndex = index < value.length && String(index) === key;
      if (isIndex) this.#head.number(index);
      else this.#head.string(key);
      this.#trail.keys[depth] = isIndex ? index : key;
      this.#value((value as unknown as Record<string, unknown>)[key]);
    }
    this.#trail.leave();
  }

  // --- Objects of classes ---

  #instance(value: object, prototype: object | null): void {
    if (this.#handle(value)) return;
    if (prototype === null) throw this.#failure("an array without a prototype cannot travel");
    const registered = registeredByPrototype(prototype);
    if (registered !== undefined) {
      this.#head.tag(format.TAG_CLASS);
      this.#head.arrayHeader(2);
      this.#head.string(registered.name);
      this.#unfinished.push(this.#seenCount - 1);
      this.#enter("state");
      this.#value(registered.serialize(value));
      this.#trail.leave();
      this.#unfinished.pop();
      return;
    }
    const builtin = builtins.get(prototype);
    switch (builtin) {
      case "date":
        this.#head.tag(format.TAG_DATE);
        return this.#head.number((value as Date).getTime());
      case "regexp":
        this.#head.tag(format.TAG_REGEXP);
        this.#head.arrayHeader(2);
        this.#head.string((value as RegExp).source);
        return this.#head.string((value as RegExp).flags);
      case "map":
        return this.#map(value as Map<unknown, unknown>);
      case "set":
        return this.#set(value as Set<unknown>);
      case "boxed":
        this.#head.tag(format.TAG_BOXED);
        return this.#value(Reflect.apply((prototype as { valueOf(): unknown }).valueOf, value, []));
      case "buffer":
        this.#head.tag(format.TAG_BUFFER);
        return this.#head.number(this.#attached(value as ArrayBufferLike).add(value as ArrayBufferLike));
      case undefined:
        break;
      default:
        return this.#view(value as ArrayBufferView, builtin.view);
    }
    if (value instanceof DOMException) return this.#domException(value);
    if (value instanceof Error) return this.#error(value);
    if (isNodeBuffer(value, prototype)) return this.#view(value, 1);
    throw this.#failure(refusal(value));
  }

  /** Lets the extension carry the value; returns whether it did. */
  #handle(value: object): boolean {
    const handle = this.#extension?.pack(value);
    if (handle === undefined) return false;
    this.#handles++;
    this.#head.tag(format.TAG_HANDLE);
    this.#head.arrayHeader(2);
    this.#head.number(handle.tag);
    if (typeof handle.data === "string") this.#head.string(handle.data);
    else if (typeof handle.data === "number") this.#head.number(handle.data);
    else this.#head.binary(handle.data);
    return true;
  }

  #map(value: Map<unknown, unknown>): void {
    const entries = [...Map.prototype.entries.call(value)] as [unknown, unknown][];
    this.#head.tag(format.TAG_MAP);
    this.#head.arrayHeader(entries.length * 2);
    const depth = this.#enter("map key");
    for (let i = 0; i < entries.length; i++) {
      const [key, element] = entries[i]!;
      const byPlace = typeof key === "object" && key !== null;
      this.#trail.steps[depth] = "map key";
      this.#trail.keys[depth] = i;
      this.#value(key);
      this.#trail.steps[depth] = byPlace ? "map value by place" : "map value";
      this.#trail.keys[depth] = byPlace ? i : key;
      this.#value(element);
    }
    this.#trail.leave();
  }

  #set(value: Set<unknown>): void {
    const elements = [...Set.prototype.values.call(value)] as unknown[];
    this.#head.tag(format.TAG_SET);
    this.#head.arrayHeader(elements.length);
    const depth = this.#enter("set element");
    for (let i = 0; i < elements.length; i++) {
      this.#trail.keys[depth] = i;
      this.#value(elements[i]);
    }
    this.#trail.leave();
  }

  #error(value: Error): void {
    const base = errorClass(value);
    const Base = ERROR_CLASSES[base]!;
    const hidden: [string, unknown][] = [];
    const add = (key: "name" | "message" | "stack" | "cause" | "errors", ordinary: unknown) => {
      if (Object.prototype.propertyIsEnumerable.call(value, key)) return;
      const property: unknown = Reflect.get(value, key);
      if (Object.hasOwn(value, key) || property !== ordinary) hidden.push([key, property]);
    };
    add("name", Base.prototype.name);
    add("message", "");
    add("stack", undefined);
    add("cause", undefined);
    add("errors", undefined);
    const keys = Object.keys(value);
    this.#head.tag(format.TAG_ERROR);
    this.#head.arrayHeader(2 + (hidden.length + keys.length) * 2);
    this.#head.number(base);
    this.#head.number(hidden.length);
    const depth = this.#enter("property");
    for (const [key, property] of hidden) this.#property(depth, key, property);
    for (const key of keys) this.#property(depth, key, Reflect.get(value, key));
    this.#trail.leave();
  }

  #property(depth: number, key: string, value: unknown): void {
    this.#trail.keys[depth] = key;
    this.#head.string(key);
    this.#value(value);
  }

  #domException(value: DOMException): void {
    this.#head.tag(format.TAG_DOM_EXCEPTION);
    this.#head.arrayHeader(3);
    this.#head.string(value.message);
    this.#head.string(value.name);
    this.#head.string(String(value.stack ?? ""));
  }

  /** The table of buffers, for a buffer that still has its memory. */
  #attached(buffer: ArrayBufferLike): BufferTable {
    if (!(buffer instanceof SharedArrayBuffer) && buffer.detached) {
      throw this.#failure(
        "its ArrayBuffer is detached (it was transferred away); pass it before transferring",
      );
    }
    return this.#buffers ??= new BufferTable();
  }

  #view(view: ArrayBufferView, kind: number): void {
    this.#attached(view.buffer).addView(view, kind, this.#head);
  }

  // --- Paths and errors ---

  /** Goes one level down; the caller leaves again. A failure on the way need not, since its packer is done for. */
  #enter(step: Step): number {
    if (this.#trail.depth >= VALUE_DEPTH_MAX) {
      throw this.#failure(
        `values may be nested ${VALUE_DEPTH_MAX} levels deep at most; flatten it`,
      );
    }
    return this.#trail.enter(step);
  }

  #failure(problem: string, cause?: unknown): SerializationError {
    const path = this.#trail.path(this.#root);
    const error = new SerializationError(
      `Cannot serialize ${path}: ${problem}`,
      cause === undefined ? { path } : { path, cause },
    );
    // How deep the value is must not push the caller's own line off the stack.
    Error.captureStackTrace(error, pack);
    return error;
  }

  /** What a foreign error met on the way (a throwing getter, a proxy, a codec) means to the caller. */
  #explain(error: unknown): SerializationError {
    if (error instanceof SerializationError) return error;
    if (error instanceof RangeError && /call stack/.test(error.message)) {
      return this.#failure("it is nested too deeply for the stack that is left; flatten it", error);
    }
    return this.#failure(`reading it threw ${showError(error)}`, error);
  }
}

let pooled: Packer | undefined;

/**
 * Walks a value once and makes it ready to be written: nothing large is copied yet.
 *
 * @param value Anything `structuredClone` takes, instances of registered classes, and what the extension carries.
 * @param options The extension, and what to call the value in errors.
 * @throws {SerializationError} Part of the value cannot travel; `path` says which.
 */
export function pack(value: unknown, options?: PackOptions): Packet {
  const packer = pooled ?? new Packer();
  // Getters, codecs and extensions may pack values of their own meanwhile; a packer that fails is not used again.
  pooled = undefined;
  const packet = packer.pack(value, options);
  pooled = packer;
  return packet;
}

function hasHoles(array: readonly unknown[]): boolean {
  if (!array.includes(undefined)) return false;
  for (let i = 0; i < array.length; i++) if (!Object.hasOwn(array, i)) return true;
  return false;
}

/** The number of the built-in error class that `error` is or descends from. */
function errorClass(error: Error): number {
  for (let i = ERROR_CLASSES.length - 1; i > 0; i--) if (error instanceof ERROR_CLASSES[i]!) return i;
  return 0;
}

/** Node's Buffer is a Uint8Array for all that travels of it. */
function isNodeBuffer(value: object, prototype: object): value is Uint8Array {
  return value instanceof Uint8Array && Object.getPrototypeOf(prototype) === Uint8Array.prototype &&
    prototype.constructor?.name === "Buffer";
}
