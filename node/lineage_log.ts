/**
 * The lineage of one node in the control store, so that what its tasks left in stores can be made again when the node is
 * gone.
 *
 * A record a task would cost as much as the task. So tasks are written in batches, in the form in which they travel:
 * definitions of functions and settings, and submissions. A batch, of one program's tasks, is one entry, under
 * `lineage/<node>/<job>/<number>`; it goes when nothing of it can be needed any more. Entries are not leased: they are there
 * for when their node is not. Whoever misses an object of a node that is gone reads all that the node has left, and the
 * head removes what the end of a program has made useless (`node/jobs.ts`).
 *
 * A task may start, and end, before its record is durable: whoever has seen its result on this node dies with the node.
 * But nothing that other nodes could conclude from it leaves before it is (`NodeParts.flush`). Only if the control store
 * is away are they made to wait no longer than {@link HOLD_MS_MAX}: then the node goes on, as it does with all else.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { LINEAGE_BATCH_BYTES } from "../core/limits.ts";
import { ProtocolError } from "../core/errors.ts";
import { OBJECT_ID_BYTES, type TaskId } from "../core/ids.ts";
import { ByteReader, ByteWriter } from "../transport/bytes.ts";
import { decodeToNode, encode } from "../transport/codec.ts";
import { NO_CLIENT } from "./peers.ts";
import { type FunctionEntry, type SettingsEntry, TaskRecord } from "./tasks.ts";
import type { Definitions } from "./definitions.ts";

/** Where batches are kept. */
export interface LineageTable {
  /** Resolves when the batch is durable. */
  put(job: TaskId, batch: number, bytes: Uint8Array): Promise<void>;
  delete(job: TaskId, batch: number): void;
}

/**
 * How long tasks are collected before they are written, unless somebody waits for them: what is not needed any more by then
 * is never written.
 */
const COLLECT_MS = 20;

/** How long what others are told waits for records to be durable. */
export const HOLD_MS_MAX = 200;

interface Batch {
  readonly number: number;
  readonly job: TaskId;
  /** Tasks of it that may be needed. */
  readonly live: Map<TaskId, TaskRecord>;
  /** About as many bytes as it will have. */
  bytes: number;
  durable: boolean;
}

/** Writes the lineage of one node. */
export class LineageLog {
  readonly #table: LineageTable;
  readonly #clock: Clock;
  readonly #batches = new Map<TaskId, Batch>();
  #open: Batch | undefined;
  #next = 1;
  /** Batches that are being written, oldest first: since when, and what resolves when they are, or cannot be. */
  readonly #writing = new Map<Batch, { readonly since: number; readonly done: Promise<void> }>();

  /** @param table Where batches are kept. @param clock For when they are written. */
  constructor(table: LineageTable, clock: Clock) {
    this.#table = table;
    this.#clock = clock;
  }

  /** A task has left something in a store. */
  add(task: TaskRecord): void {
    if (this.#batches.has(task.id)) return;
    if (this.#open !== undefined && this.#open.job !== task.job) this.#write(this.#open);
    const batch = this.#open ??= this.#begin(task.job);
    batch.live.set(task.id, task);
    batch.bytes += bytesOf(task);
    this.#batches.set(task.id, batch);
    if (batch.bytes >= LINEAGE_BATCH_BYTES) this.#write(batch);
  }

  /** Nothing can need what a task has made any more. */
  drop(task: TaskId): void {
    const batch = this.#batches.get(task);
    if (batch === undefined) return;
    this.#batches.delete(task);
    if (batch === this.#open) batch.bytes -= bytesOf(batch.live.get(task)!);
    batch.live.delete(task);
    if (batch.live.size > 0) return;
    if (batch.durable) this.#table.delete(batch.job, batch.number);
    else if (batch === this.#open) this.#open = undefined; // nobody needs to know
  }

  /**
   * Whether others must not yet be told what they could conclude from records that are not durable. When the oldest has
   * waited for too long, the control store is away, and nobody waits for it.
   */
  get pending(): boolean {
    for (const { since } of this.#writing.values()) return this.#clock.now() - since < HOLD_MS_MAX;
    return this.#open !== undefined;
  }

  /** Resolves when what was added so far is durable, or was waited for long enough. */
  async settled(): Promise<void> {
    if (this.#open !== undefined) this.#write(this.#open);
    if (!this.pending) return;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const cancel = this.#clock.after(HOLD_MS_MAX, resolve);
    await Promise.race([Promise.all(Array.from(this.#writing.values(), ({ done }) => done)), late]);
    cancel();
  }

  #begin(job: TaskId): Batch {
    const batch: Batch = { number: this.#next++, job, live: new Map(), bytes: 0, durable: false };
    this.#clock.after(COLLECT_MS, () => {
      if (this.#open === batch) this.#write(batch);
    });
    return batch;
  }

  #write(batch: Batch): void {
    this.#open = undefined;
    const done = this.#table.put(batch.job, batch.number, encodeLineage(batch.job, batch.live.values()))
      .then(() => {
        batch.durable = true;
        if (batch.live.size === 0) this.#table.delete(batch.job, batch.number);
      }, () => {
        // The node is ending.
      }).finally(() => this.#writing.delete(batch));
    this.#writing.set(batch, { since: this.#clock.now(), done });
  }
}

/** About how many bytes a task takes. */
function bytesOf({ dependencies, args }: TaskRecord): number {
  return 64 + OBJECT_ID_BYTES * dependencies.length + (args.kind === "stored" ? 0 : args.bytes.length);
}

/** Tasks of one program, with what they refer to: definitions of functions and settings, and submissions. */
function encodeLineage(job: TaskId, tasks: Iterable<TaskRecord>): Uint8Array {
  const writer = new ByteWriter(4096);
  const functions = new Set<number>(), settings = new Set<number>();
  encode(writer, { type: "behalf", job, driver: false });
  for (const { id, parent, fn, entry, dependencies, args } of tasks) {
    if (!functions.has(fn.index)) {
      functions.add(fn.index);
      encode(writer, { type: "defineFunction", index: fn.index, address: fn.address });
    }
    if (!settings.has(entry.index)) {
      settings.add(entry.index);
      encode(writer, { type: "defineSettings", index: entry.index, settings: entry.settings });
    }
    encode(writer, {
      type: "submit",
      handle: 0,
      task: id,
      parent,
      fn: fn.index,
      settings: entry.index,
      dependencies,
      args,
    });
  }
  return writer.bytes();
}

/**
 * Reads a batch.
 *
 * @param definitions Where functions and settings are entered.
 * @throws {ProtocolError} If it is none.
 */
export function readLineage(bytes: Uint8Array, definitions: Definitions): TaskRecord[] {
  const tasks: TaskRecord[] = [];
  const functions = new Map<number, FunctionEntry>();
  const settings = new Map<number, SettingsEntry>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const reader = new ByteReader();
  reader.block(bytes);
  let job: TaskId | undefined;
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < 5) throw new ProtocolError("Cannot read lineage: it was cut off");
    const end = at + 4 + view.getUint32(at, true);
    if (end > bytes.length) throw new ProtocolError("Cannot read lineage: it was cut off");
    reader.window(at + 4, end);
    const message = decodeToNode(reader);
    at = end;
    switch (message.type) {
      case "defineFunction":
        functions.set(message.index, definitions.function(message.address));
        break;
      case "defineSettings":
        settings.set(message.index, definitions.settings(message.settings));
        break;
      case "behalf":
        job = message.job;
        break;
      case "submit": {
        const fn = functions.get(message.fn), entry = settings.get(message.settings);
        if (fn === undefined || entry === undefined || job === undefined) {
          throw new ProtocolError("Cannot read lineage: a task comes before what it refers to");
        }
        tasks.push(new TaskRecord(message, job, fn, entry, NO_CLIENT));
        break;
      }
      default:
        throw new ProtocolError(`Cannot read lineage: "${message.type}" has no place in it`);
    }
  }
  return tasks;
}
