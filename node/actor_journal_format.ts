/**
 * The bytes of an actor's journal: a header, as JSON with its length before it, and messages in the form in which they
 * travel between nodes (`transport/codec.ts`).
 *
 * A batch of calls is definitions of functions and settings, whose calls follow (`behalf`), each call with the outcomes of
 * all that it depends on (`delegate`), and calls that never ran after all (`cancel`). Answers are outcomes (`put`), in the
 * order of their calls. What values refer to is named in the header, with the node that has it.
 *
 * @module
 */

import { ProtocolError } from "../core/errors.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { Dependency, FunctionAddress, Message, Outcome, ToNode } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import { ByteReader, ByteWriter } from "../transport/bytes.ts";
import { decodeToNode, encode } from "../transport/codec.ts";
import type { TaskRecord } from "./tasks.ts";

/** Objects that values refer to, with the node that has each: hexadecimal digits. */
export type Homes = Record<string, string>;

/** A call, or a creation, as it is read again. */
export interface JournalCall {
  readonly kind: "call";
  readonly message: Extract<ToNode, { type: "delegate" }>;
  readonly job: TaskId;
  readonly address: FunctionAddress;
  readonly settings: TaskSettings;
}

/** What stands in a batch. */
export type JournalItem =
  | JournalCall
  /** A call that stands in this batch or one before it never ran. */
  | { readonly kind: "withdrawn"; readonly call: TaskId }
  | {
    readonly kind: "answer";
    readonly job: TaskId;
    readonly object: ObjectId;
    readonly outcome: Outcome;
  };

/** A call as it is to be written: everything that it needs is in it. */
export interface PortableCall {
  readonly task: TaskRecord;
  readonly dependencies: readonly Dependency[];
  readonly args: Outcome;
}

/** Collects what becomes one value of the control store. */
export class JournalWriter {
  readonly #writer = new ByteWriter(1024);
  readonly #functions = new Set<number>();
  readonly #settings = new Set<number>();
  #job: TaskId | undefined;
  readonly homes: Homes = {};

  /** How much there is. */
  get length(): number {
    return this.#writer.length;
  }

  /** Adds a call. */
  call({ task, dependencies, args }: PortableCall): void {
    const { id, parent, fn, entry, job } = task;
    if (!this.#functions.has(fn.index)) {
      this.#functions.add(fn.index);
      this.#add({ type: "defineFunction", index: fn.index, address: fn.address });
    }
    if (!this.#settings.has(entry.index)) {
      this.#settings.add(entry.index);
      this.#add({ type: "defineSettings", index: entry.index, settings: entry.settings });
    }
    this.#of(job);
    this.#add({
      type: "delegate",
      handle: 0,
      task: id,
      parent,
      fn: fn.index,
      settings: entry.index,
      dependencies,
      args,
    });
  }

  /** Adds that a call has never run. */
  withdrawn(task: TaskId): void {
    this.#add({ type: "cancel", task, force: false, recursive: false });
  }

  /** Adds one outcome of an answer. */
  answer(job: TaskId, object: ObjectId, outcome: Outcome): void {
    this.#of(job);
    this.#add({ type: "put", object, outcome });
  }

  /** All of it. @param header What stands before, with the homes. */
  bytes(header: Readonly<Record<string, unknown>>): Uint8Array {
    const json = new TextEncoder().encode(JSON.stringify({ ...header, homes: this.homes }));
    const body = this.#writer.bytes();
    const bytes = new Uint8Array(4 + json.length + body.length);
    new DataView(bytes.buffer).setUint32(0, json.length, true);
    bytes.set(json, 4);
    bytes.set(body, 4 + json.length);
    return bytes;
  }

  #of(job: TaskId): void {
    if (this.#job === job) return;
    this.#job = job;
    this.#add({ type: "behalf", job, driver: false });
  }

  #add(message: Message): void {
    encode(this.#writer, message);
  }
}

/** What was written with a {@link JournalWriter}. @throws {ProtocolError} If it is none. */
export function readJournal(
  bytes: Uint8Array,
): {
  readonly header: Readonly<Record<string, unknown>>;
  readonly homes: Homes;
  readonly items: JournalItem[];
} {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 4 || view.getUint32(0, true) > bytes.length - 4) throw cut();
  const start = 4 + view.getUint32(0, true);
  let header: Record<string, unknown> & { homes?: Homes };
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start))) as typeof header;
  } catch {
    throw new ProtocolError("Cannot read an actor's journal: its header is no JSON");
  }
  const functions = new Map<number, FunctionAddress>();
  const settings = new Map<number, TaskSettings>();
  const items: JournalItem[] = [];
  let job: TaskId | undefined;
  const reader = new ByteReader();
  reader.block(bytes);
  for (let at = start; at < bytes.length;) {
    if (bytes.length - at < 5) throw cut();
    const end = at + 4 + view.getUint32(at, true);
    if (end > bytes.length) throw cut();
    reader.window(at + 4, end);
    const message = decodeToNode(reader);
    at = end;
    switch (message.type) {
      case "defineFunction":
        functions.set(message.index, message.address);
        break;
      case "defineSettings":
        settings.set(message.index, message.settings);
        break;
      case "behalf":
        job = message.job;
        break;
      case "cancel":
        items.push({ kind: "withdrawn", call: message.task });
        break;
      case "put":
        if (job === undefined) throw early();
        items.push({ kind: "answer", job, object: message.object, outcome: message.outcome });
        break;
      case "delegate": {
        const address = functions.get(message.fn), asked = settings.get(message.settings);
        if (address === undefined || asked === undefined || job === undefined) throw early();
        items.push({ kind: "call", message, job, address, settings: asked });
        break;
      }
      default:
        throw new ProtocolError(`Cannot read an actor's journal: "${message.type}" has no place in it`);
    }
  }
  return { header, homes: header.homes ?? {}, items };
}

function cut(): ProtocolError {
  return new ProtocolError("Cannot read an actor's journal: it was cut off");
}

function early(): ProtocolError {
  return new ProtocolError("Cannot read an actor's journal: a call comes before what it refers to");
}
