/**
 * Identifiers. Deterministic, so that running a task again makes the same graph again: a task's id is a hash of its
 * parent's id and its index among the parent's children, and an object's id is its task's id and a return index.
 *
 * Ids are kept as Latin-1 strings of their bytes (16 for tasks and actors, 20 for objects): strings are the one key
 * that a JavaScript `Map` compares by value, and one byte a character is what V8 stores them in. Show them to people
 * with {@link hex}.
 *
 * @module
 */

/** A task's identity: 16 bytes as 16 Latin-1 characters. Jobs and actors have ids of the same kind. */
export type TaskId = string & { readonly __brand: "TaskId" };

/**
 * An object's identity: its task's 16 bytes, then a 4-byte big-endian index, as 20 Latin-1 characters. The four zeros
 * of a task's first return are left out, so that in most cases task and object share one string and its hash.
 */
export type ObjectId = string & { readonly __brand: "ObjectId" };

/** Bytes in a {@link TaskId}. */
export const TASK_ID_BYTES = 16;

/** Bytes in an {@link ObjectId}. */
export const OBJECT_ID_BYTES = 20;

/** Set in the index of an object made by `put`, so that it never meets a return index. */
export const PUT_INDEX_FLAG = 0x8000_0000;

const ARGUMENTS_INDEX = 0x7fff_ffff;

/** Set in the index of an object that is an actor's checkpoint. */
const CHECKPOINT_INDEX_FLAG = 0x4000_0000;

/**
 * Gives the ids of one parent's children, in order.
 *
 * The hash is MurmurHash3_x86_128 (Austin Appleby, public domain) of the parent's 16 bytes and the child's index in
 * four little-endian bytes, with the domain for a seed: fast, well mixed, and the same everywhere. Its first block
 * depends on the parent alone and is mixed once.
 */
export class ChildIds {
  readonly #h1: number;
  readonly #h2: number;
  readonly #h3: number;
  readonly #h4: number;
  #next = 0;

  /** @param parent Whose children these are. @param domain Keeps kinds of children apart. */
  constructor(parent: TaskId, domain = 0) {
    const k = (at: number) =>
      parent.charCodeAt(at) | parent.charCodeAt(at + 1) << 8 | parent.charCodeAt(at + 2) << 16 |
      parent.charCodeAt(at + 3) << 24;
    let h1 = domain, h2 = domain, h3 = domain, h4 = domain;
    h1 ^= Math.imul(rotate(Math.imul(k(0), C1), 15), C2);
    h1 = Math.imul(rotate(h1, 19) + h2, 5) + 0x561ccd1b | 0;
    h2 ^= Math.imul(rotate(Math.imul(k(4), C2), 16), C3);
    h2 = Math.imul(rotate(h2, 17) + h3, 5) + 0x0bcaa747 | 0;
    h3 ^= Math.imul(rotate(Math.imul(k(8), C3), 17), C4);
    h3 = Math.imul(rotate(h3, 15) + h4, 5) + 0x96cd1c35 | 0;
    h4 ^= Math.imul(rotate(Math.imul(k(12), C4), 18), C1);
    h4 = Math.imul(rotate(h4, 13) + h1, 5) + 0x32ac3b17 | 0;
    this.#h1 = h1;
    this.#h2 = h2;
    this.#h3 = h3;
    this.#h4 = h4;
  }

  /** The id of the next child. */
  next(): TaskId {
    return this.at(this.#next++);
  }

  /** @param index The child's place among its siblings, from 0. */
  at(index: number): TaskId {
    let h1 = this.#h1 ^ Math.imul(rotate(Math.imul(index, C1), 15), C2);
    let h2 = this.#h2, h3 = this.#h3, h4 = this.#h4;
    h1 ^= 20;
    h2 ^= 20;
    h3 ^= 20;
    h4 ^= 20;
    h1 = h1 + h2 + h3 + h4 | 0;
    h2 = h2 + h1 | 0;
    h3 = h3 + h1 | 0;
    h4 = h4 + h1 | 0;
    h1 = finish(h1);
    h2 = finish(h2);
    h3 = finish(h3);
    h4 = finish(h4);
    h1 = h1 + h2 + h3 + h4 | 0;
    h2 = h2 + h1 | 0;
    h3 = h3 + h1 | 0;
    h4 = h4 + h1 | 0;
    // deno-fmt-ignore
    return String.fromCharCode(
      h1 & 255, h1 >>> 8 & 255, h1 >>> 16 & 255, h1 >>> 24, h2 & 255, h2 >>> 8 & 255, h2 >>> 16 & 255, h2 >>> 24,
      h3 & 255, h3 >>> 8 & 255, h3 >>> 16 & 255, h3 >>> 24, h4 & 255, h4 >>> 8 & 255, h4 >>> 16 & 255, h4 >>> 24,
    ) as TaskId;
  }
}

/** The id of a task's return. @param task The task. @param index Which return, from 0. */
export function returnId(task: TaskId, index: number): ObjectId {
  if (index === 0) return task as string as ObjectId;
  return task +
    String.fromCharCode(index >>> 24, index >>> 16 & 255, index >>> 8 & 255, index & 255) as ObjectId;
}

/** The id of what a task `put`. @param task The task. @param index Which put of that task, from 0. */
export function putId(task: TaskId, index: number): ObjectId {
  return returnId(task, (PUT_INDEX_FLAG | index) >>> 0);
}

/** Whether an object is one that a task has put. */
export function isPut(object: ObjectId): boolean {
  return indexOf(object) >= PUT_INDEX_FLAG;
}

/** The id of the object that carries a task's arguments when they are too large for a message. */
export function argumentsId(task: TaskId): ObjectId {
  return returnId(task, ARGUMENTS_INDEX);
}

/** Whether an object is the arguments of a task: what its submitter has made, not the task. */
export function isArguments(object: ObjectId): boolean {
  return indexOf(object) === ARGUMENTS_INDEX;
}

/** The id of an actor's checkpoint. @param actor The actor. @param index Which attempt at a checkpoint, from 0. */
export function checkpointId(actor: TaskId, index: number): ObjectId {
  return returnId(actor, CHECKPOINT_INDEX_FLAG | index % 0x3fff_ffff);
}

/** The task that an object came from. */
export function taskOf(object: ObjectId): TaskId {
  return (object.length === TASK_ID_BYTES ? object : object.slice(0, TASK_ID_BYTES)) as TaskId;
}

/** The index of an object among its task's, flags included. */
export function indexOf(object: ObjectId): number {
  if (object.length === TASK_ID_BYTES) return 0;
  return (object.charCodeAt(16) << 24 | object.charCodeAt(17) << 16 | object.charCodeAt(18) << 8 |
    object.charCodeAt(19)) >>> 0;
}

/** An id for people: hexadecimal digits; always 40 of an object's if `object` is set. */
export function hex(id: string, object = false): string {
  let text = "";
  for (let i = 0; i < id.length; i++) text += id.charCodeAt(i).toString(16).padStart(2, "0");
  return object ? text.padEnd(OBJECT_ID_BYTES * 2, "0") : text;
}

/** An id from its bytes. @param bytes 16 random or given bytes. */
export function taskIdFromBytes(bytes: Uint8Array): TaskId {
  return String.fromCharCode(...bytes.subarray(0, TASK_ID_BYTES)) as TaskId;
}

/** An id from 32 hexadecimal digits. */
export function taskIdFromHex(digits: string): TaskId {
  return taskIdFromBytes(Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16)));
}

/** Writes an object's id: always 20 bytes. @param id The id. @param target Where to. @param at The first byte's place. */
export function writeObjectId(id: ObjectId, target: Uint8Array, at: number): void {
  for (let i = 0; i < id.length; i++) target[at + i] = id.charCodeAt(i);
  for (let i = id.length; i < OBJECT_ID_BYTES; i++) target[at + i] = 0;
}

/** Reads an object's id. @param bytes Where from. @param at The first byte's place. */
export function readObjectId(bytes: Uint8Array, at: number): ObjectId {
  if ((bytes[at + 16]! | bytes[at + 17]! | bytes[at + 18]! | bytes[at + 19]!) === 0) {
    return readTaskId(bytes, at) as string as ObjectId;
  }
  // deno-fmt-ignore
  return String.fromCharCode(
    bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!, bytes[at + 4]!, bytes[at + 5]!, bytes[at + 6]!,
    bytes[at + 7]!, bytes[at + 8]!, bytes[at + 9]!, bytes[at + 10]!, bytes[at + 11]!, bytes[at + 12]!,
    bytes[at + 13]!, bytes[at + 14]!, bytes[at + 15]!, bytes[at + 16]!, bytes[at + 17]!, bytes[at + 18]!,
    bytes[at + 19]!,
  ) as ObjectId;
}

/** Reads a task's id. @param bytes Where from. @param at The first byte's place. */
export function readTaskId(bytes: Uint8Array, at: number): TaskId {
  // deno-fmt-ignore
  return String.fromCharCode(
    bytes[at]!, bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!, bytes[at + 4]!, bytes[at + 5]!, bytes[at + 6]!,
    bytes[at + 7]!, bytes[at + 8]!, bytes[at + 9]!, bytes[at + 10]!, bytes[at + 11]!, bytes[at + 12]!,
    bytes[at + 13]!, bytes[at + 14]!, bytes[at + 15]!,
  ) as TaskId;
}

const C1 = 0x239b961b;
const C2 = 0xab0e9789 | 0;
const C3 = 0x38b34ae5;
const C4 = 0xa1e38b93 | 0;

function rotate(x: number, by: number): number {
  return x << by | x >>> 32 - by;
}

function finish(h: number): number {
  h = Math.imul(h ^ h >>> 16, 0x85ebca6b);
  h = Math.imul(h ^ h >>> 13, 0xc2b2ae35);
  return h ^ h >>> 16;
}
