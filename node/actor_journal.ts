/**
 * The journals of one node's actors in the control store, so that each can go on elsewhere when the node is gone.
 *
 * What is written of an actor, in this order: how it is made, when its constructor's arguments are there; each call, when it
 * is first sent, in batches; its state, with each checkpoint, which makes the calls before it go; and with it the answers of
 * those calls that callers may ask for again, as no replay will give them any more.
 *
 * A call may run, and be answered on this node, before it is in the journal. But nothing leaves the node that anybody could
 * conclude from it (`NodeParts.flush`), so what is lost with the node nobody has seen, and it is done anew. That waits for
 * as long as the control store is away: whether it has given this node up meanwhile, and others that this one can still
 * speak to, cannot be told.
 *
 * Of an actor that outlives its program, this node's own programs and their tasks are no different from other nodes: the
 * actor may go on elsewhere while they go on here. So what they would be answered is *withheld* until the call is written.
 * A checkpoint that covers such a call takes its answer along, as this node may lose the actor before it is told.
 *
 * A call with an argument that is too large for the store, or that is not here yet, is not written. It, and all calls after
 * it, could not be run again elsewhere, so their answers are withheld until a checkpoint that covers them is in the store;
 * one is made as soon as they have run. An actor whose state cannot be saved, or is too large, is bound to its node, as one
 * that is not durable, and its owner is told so.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { argumentsId, hex, type ObjectId, returnId, type TaskId } from "../core/ids.ts";
import {
  JOURNAL_BATCH_BYTES,
  JOURNAL_MADE_BYTES_MAX,
  JOURNAL_PIECE_BYTES,
  JOURNAL_STATE_BYTES_MAX,
  JOURNAL_VALUE_BYTES_MAX,
} from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import type { ObjectStore } from "../store/object_store.ts";
import { type Homes, JournalWriter, type PortableCall } from "./actor_journal_format.ts";
import { type ActorRegistry, type JournalChange, placeOf } from "./actor_registry.ts";
import type { CallRecord, NodeActor } from "./actor_records.ts";
import type { AnswerBook } from "./answers.ts";
import type { ObjectDirectory } from "./directory.ts";
import type { NodeFault } from "./faults.ts";
import type { TaskRecord } from "./tasks.ts";

/** How long calls are collected before they are written. */
const COLLECT_MS = 3;

/** What the journals need of their node. */
export interface JournalServices {
  readonly id: TaskId;
  readonly faults: ReadonlySet<NodeFault>;
  readonly registry: ActorRegistry;
  readonly clock: Clock;
  readonly directory: ObjectDirectory;
  readonly store: ObjectStore;
  readonly answers: AnswerBook;
  /** The node that a connection leads to. */
  nodeOf(client: number): TaskId | undefined;
  /** Has an object's bytes in memory. @returns Whether they are. */
  provide(id: ObjectId): Promise<boolean>;
  log(level: "info" | "warn" | "error", message: string): void;
  /** Whether the node has ended: its store is gone. */
  closed(): boolean;
  /** Whether a program is connected to this node. */
  isLocal(job: TaskId): boolean;
  /** Answers that were withheld can be told, of calls before a position. */
  release(actor: NodeActor, before: number): void;
  /** The actor is another node's by now: what it did here since is to be heard of by nobody. */
  fenced(actor: NodeActor): void;
  /** Another actor took its name while this node was given up: it is not to be, and nobody has heard of it. */
  nameLost(actor: NodeActor): void;
}

/** A state that is to be written. */
interface Saving {
  readonly object: ObjectId;
  readonly outcome: Outcome;
  /** It is the state after all calls before this position. */
  readonly position: number;
}

/** What is known of one actor's journal. */
export class Journal {
  readonly actor: NodeActor;
  readonly outlives: boolean;
  /** The record's revision, once it is there; `undefined` if it could not be written. */
  entered: Promise<number | undefined>;
  /** Nothing more is written. */
  ended = false;
  /** All parts of it that there are were written by this node; so many of them tell how the actor is made. */
  whole = false;
  made = 0;
  /** The position of the next call, and of the first one that is in the actor's log. */
  next = 0;
  first = 0;
  /** All calls before this position are in the journal. */
  written = 0;
  /** From this position on calls cannot be run again elsewhere: the first, and the last, that is not in the journal. */
  gap: { readonly first: number; last: number } | undefined;
  /** The batch that is being collected. */
  open: JournalWriter | undefined;
  openFirst = 0;
  nextBatch = 0;
  /** Batches that are there: their number, and the position after their last call. */
  batches: { readonly number: number; readonly end: number }[] = [];
  /** The newest state that is there, by its number, and its pieces. */
  state = -1;
  pieces = 0;
  saving: Saving | undefined;
  isSaving = false;
  /** Answers that go with the next state, and those that are there: by chunk, the calls that may be asked for. */
  readonly answered: { readonly call: TaskId; readonly job: TaskId }[] = [];
  readonly chunks = new Map<number, Set<TaskId>>();
  readonly chunkOf = new Map<TaskId, number>();
  nextChunk = 0;
  /** Chunks that nobody needs any more, and that may be there still. */
  readonly needless = new Set<number>();

  /** @param actor Its actor. @param entered The record's revision. */
  constructor(actor: NodeActor, entered: Promise<number | undefined>) {
    this.actor = actor;
    this.outlives = actor.settings.detached;
    this.entered = entered;
  }
}

/** The journals of one node. */
export class ActorJournals {
  readonly #node: JournalServices;
  readonly #open = new Set<Journal>();
  /** Steps that are being written. */
  readonly #writing = new Set<Promise<void>>();
  /** Actors of this node that have ended, and whose records may be there still. */
  readonly #removing = new Map<TaskId, Promise<void>>();
  #collecting = false;

  /** @param node What they need of their node. */
  constructor(node: JournalServices) {
    this.#node = node;
  }

  // --- What happens to actors ---------------------------------------------------------------------------------

  /** An actor is about to be made for the first time: its constructor's arguments are there. */
  enter(actor: NodeActor): void {
    const { settings, creation } = actor;
    const put = this.#made(creation, settings);
    if (put === undefined) {
      return this.#bound(actor, "its constructor's arguments are too large to be kept in the control store");
    }
    const place = placeOf(settings, actor.job, this.#node.id, 0);
    const entered = Promise.withResolvers<number | undefined>();
    const journal = actor.journal = new Journal(actor, entered.promise);
    journal.whole = true;
    journal.made = put.length;
    const { registry } = this.#node;
    const before = this.#removing.get(actor.id);
    const enter = async () => {
      await before;
      const revision = await registry.enter(actor.id, place, { put, delete: [] });
      if (revision === undefined) this.#fenced(journal);
      else if (place.name !== "" && !await registry.confirmName(place.namespace, place.name, actor.id)) {
        await registry.remove(actor.id, revision, put.map(({ part }) => part));
        if (!journal.ended) this.#close(journal);
        this.#node.nameLost(actor);
      } else return revision;
    };
    this.#track(enter().then(entered.resolve, () => entered.resolve(undefined)));
  }

  /**
   * Enters an actor that another node was to make, and is not known to have: by its record, it is taken up where the record
   * says. If there is a record by now, that one holds.
   *
   * @param creation How it is made; without arguments.
   */
  async enterFor(creation: TaskRecord, settings: ActorSettings, node: TaskId): Promise<void> {
    const put = this.#made(creation, settings)!;
    const place = placeOf(settings, creation.job, node, 1);
    await this.#node.registry.enter(creation.id, place, { put, delete: [] });
  }

  /** How an actor is made, in parts of a journal; `undefined` if its arguments are too large. */
  #made(creation: TaskRecord, settings: ActorSettings): JournalChange["put"] | undefined {
    const writer = new JournalWriter();
    const portable = this.#portable(creation, writer.homes, JOURNAL_MADE_BYTES_MAX);
    if (portable === undefined) return undefined;
    writer.call(portable);
    return split(writer.bytes({ settings })).map((bytes, i) => ({ part: `made/${number(i)}`, bytes }));
  }

  /** A call is sent to its actor for the first time. */
  called(actor: NodeActor, call: CallRecord): void {
    const { journal } = actor;
    if (journal === undefined || journal.ended) return;
    call.position = journal.next++;
    const portable = this.#portable(
      call,
      this.#writer(journal, call.position).homes,
      JOURNAL_VALUE_BYTES_MAX,
    );
    if (portable === undefined) {
      journal.gap ??= { first: call.position, last: call.position };
      journal.gap.last = call.position;
      return this.#write(journal);
    }
    const writer = journal.open!;
    writer.call(portable);
    if (writer.length >= JOURNAL_BATCH_BYTES) this.#write(journal);
  }

  /** A call that was sent has never run, and will not. */
  withdrawn(actor: NodeActor, call: CallRecord): void {
    const { journal } = actor;
    if (journal === undefined || journal.ended || call.sends === 0) return;
    this.#writer(journal, journal.next).withdrawn(call.id);
  }

  /** An actor has a new checkpoint. @param covered Calls of the log that it covers. */
  saved(
    actor: NodeActor,
    covered: readonly (CallRecord | undefined)[],
    object: ObjectId,
    outcome: Outcome,
  ): void {
    const { journal } = actor;
    if (journal === undefined || journal.ended) return;
    journal.first += covered.length;
    for (const call of covered) {
      if (call !== undefined && this.#answerOf(journal, call.id) !== undefined) {
        journal.answered.push({ call: call.id, job: call.job });
      }
    }
    const before = journal.saving;
    this.#node.directory.use(object);
    journal.saving = { object, outcome, position: journal.first };
    if (before !== undefined) this.#node.directory.unuse(before.object);
    if (!journal.isSaving) this.#save(journal);
  }

  /** Whether the answer of a call must wait: for its being written, or for a checkpoint. */
  withholds({ actor: { journal }, position, job }: CallRecord): boolean {
    if (journal === undefined || journal.ended) return false;
    if (journal.gap !== undefined && position >= journal.gap.first) return true;
    return journal.outlives && position >= journal.written && this.#node.isLocal(job);
  }

  /** Whether answers wait for a checkpoint. */
  needsState({ journal }: NodeActor): boolean {
    return journal?.gap !== undefined && !journal.ended;
  }

  /** An actor's state cannot be saved. */
  unsavable(actor: NodeActor): void {
    const { journal } = actor;
    if (journal?.gap === undefined || journal.ended) return;
    this.#bound(actor, "an argument of a call was too large for its journal, and its state cannot be saved");
  }

  /** Nobody will ask for an answer any more. */
  forgotten(actor: NodeActor, call: TaskId): void {
    const { journal } = actor;
    const chunk = journal?.chunkOf.get(call);
    if (journal === undefined || chunk === undefined) return;
    journal.chunkOf.delete(call);
    const calls = journal.chunks.get(chunk)!;
    calls.delete(call);
    if (calls.size > 0 || journal.ended) return;
    journal.chunks.delete(chunk);
    journal.needless.add(chunk);
    this.change(journal, { put: [], delete: [`answer/${number(chunk)}`] })
      .then(() => journal.needless.delete(chunk));
  }

  /** An actor is dead. */
  ended(actor: NodeActor): void {
    const { journal } = actor;
    if (journal === undefined || journal.ended) return;
    this.#close(journal);
    const parts = journal.whole && !journal.isSaving ? partsOf(journal) : undefined;
    const writing = parts === undefined ? [...this.#writing] : [];
    const removing = journal.entered.then(async (revision) => {
      if (revision === undefined) return;
      // What is on its way is to be found when it is looked what there is: all goes in one step.
      await Promise.all(writing);
      await this.#node.registry.remove(actor.id, revision, parts);
    }).catch(() => {
      // The node is ending: whoever finds the record sees whether anybody needs the actor.
    }).finally(() => {
      if (this.#removing.get(actor.id) === removing) this.#removing.delete(actor.id);
    });
    this.#removing.set(actor.id, removing);
  }

  /** An actor was given to another node: nothing more is written. */
  abandon(actor: NodeActor): void {
    if (actor.journal !== undefined) this.#close(actor.journal);
    actor.journal = undefined;
  }

  // --- What leaves the node -----------------------------------------------------------------------------------

  /** Whether other nodes must not yet be told what they could conclude from calls that are not in a journal. */
  get pending(): boolean {
    if (this.#node.faults.has("tell-unwritten")) return false;
    return this.#open.size > 0 || this.#writing.size > 0;
  }

  /** Resolves when what was added so far is durable. */
  async settled(): Promise<void> {
    this.#writeAll();
    await Promise.all(this.#writing);
  }

  // --- Writing ------------------------------------------------------------------------------------------------

  #writer(journal: Journal, next: number): JournalWriter {
    if (journal.open === undefined) {
      journal.open = new JournalWriter();
      journal.openFirst = next;
      this.#open.add(journal);
      if (!this.#collecting) {
        this.#collecting = true;
        this.#node.clock.after(COLLECT_MS, () => {
          this.#collecting = false;
          this.#writeAll();
        });
      }
    }
    return journal.open;
  }

  #writeAll(): void {
    for (const journal of [...this.#open]) this.#write(journal);
  }

  #write(journal: Journal): void {
    this.#open.delete(journal);
    const { open, openFirst, next } = journal;
    if (open === undefined) return;
    journal.open = undefined;
    const batch = journal.nextBatch++;
    journal.batches.push({ number: batch, end: next });
    const bytes = open.bytes({ first: openFirst });
    this.change(journal, { put: [{ part: `call/${number(batch)}`, bytes }], delete: [] }).then(() => {
      if (journal.ended) return;
      journal.written = Math.max(journal.written, next);
      if (journal.outlives) this.#node.release(journal.actor, Math.min(next, journal.gap?.first ?? next));
    });
  }

  /** Takes a step in an actor's journal, after those before. */
  change(journal: Journal, change: JournalChange): Promise<void> {
    const done = journal.entered.then(async (revision) => {
      if (revision === undefined || journal.ended) return;
      if (!await this.#node.registry.write(journal.actor.id, revision, change)) this.#fenced(journal);
    }).catch(() => {
      // The node is ending.
    });
    this.#track(done);
    return done;
  }

  #track(done: Promise<void>): void {
    const tracked: Promise<void> = done.finally(() => this.#writing.delete(tracked));
    this.#writing.add(tracked);
  }

  async #save(journal: Journal): Promise<void> {
    journal.isSaving = true;
    for (let next = journal.saving; next !== undefined; next = journal.saving) {
      journal.saving = undefined;
      await this.#saveOne(journal, next);
      if (this.#node.closed()) return;
      this.#node.directory.unuse(next.object);
    }
    journal.isSaving = false;
  }

  async #saveOne(journal: Journal, { object, outcome, position }: Saving): Promise<void> {
    const { actor } = journal;
    const answered = journal.answered.splice(0);
    const bytes = await this.#stateBytes(object, outcome);
    if (journal.ended || this.#node.closed()) return;
    if (bytes === undefined) {
      return this.#bound(
        actor,
        `its state is larger than the ${JOURNAL_STATE_BYTES_MAX} bytes that are kept in the control store`,
      );
    }
    const state = journal.state + 1;
    const pieces = split(bytes);
    const put = pieces.map((piece, i) => ({ part: `state/${number(state)}/${number(i)}`, bytes: piece }));
    // All but the last go ahead: they mean nothing before the step that names them.
    for (const piece of put.splice(0, put.length - 1)) {
      await this.change(journal, { put: [piece], delete: [] });
    }
    const contains = outcome.kind === "error" ? [] : outcome.contains;
    const homes: Homes = {};
    this.#addHomes(homes, contains);
    const meta = {
      position,
      state,
      pieces: pieces.length,
      contains: contains.map((id) => hex(id, true)),
      homes,
    };
    put.push({ part: "meta", bytes: new TextEncoder().encode(JSON.stringify(meta)) });
    const gone = Array.from(
      { length: journal.pieces },
      (_, i) => `state/${number(journal.state)}/${number(i)}`,
    );
    journal.batches = journal.batches.filter((batch) => {
      if (batch.end > position) return true;
      gone.push(`call/${number(batch.number)}`);
      return false;
    });
    const chunk = this.#answerChunk(journal, answered);
    if (chunk !== undefined) put.push(chunk);
    journal.state = state;
    journal.pieces = pieces.length;
    await this.change(journal, { put, delete: gone });
    const { gap } = journal;
    if (gap === undefined || journal.ended) return;
    if (position <= gap.last) {
      journal.gap = { first: Math.max(gap.first, position), last: gap.last };
      return this.#node.release(actor, position);
    }
    // What came after it waits no longer than if it had never been.
    journal.gap = undefined;
    this.#node.release(actor, journal.outlives ? Math.max(position, journal.written) : Infinity);
  }

  /** The answers that a checkpoint makes impossible to give by a replay. */
  #answerChunk(
    journal: Journal,
    answered: readonly { readonly call: TaskId; readonly job: TaskId }[],
  ): { part: string; bytes: Uint8Array } | undefined {
    const writer = new JournalWriter();
    const calls = new Set<TaskId>();
    for (const { call, job } of answered) {
      const outcomes = this.#answerOf(journal, call);
      if (outcomes === undefined) continue; // forgotten meanwhile, or told to one who asks once
      outcomes.forEach((outcome, index) => {
        const object = returnId(call, index);
        const portable = this.#portableOutcome(object, outcome, writer.homes, JOURNAL_VALUE_BYTES_MAX);
        // What is too large is lost with the node, as results of calls are.
        if (portable !== undefined) writer.answer(job, object, portable);
      });
      calls.add(call);
    }
    if (calls.size === 0) return undefined;
    const chunk = journal.nextChunk++;
    journal.chunks.set(chunk, calls);
    for (const call of calls) journal.chunkOf.set(call, chunk);
    return { part: `answer/${number(chunk)}`, bytes: writer.bytes({}) };
  }

  /** The answer that a caller may ask for again, or will if this node loses the actor before it could be told. */
  #answerOf({ actor }: Journal, call: TaskId): readonly Outcome[] | undefined {
    return this.#node.answers.answerOf(call) ?? actor.withheld.get(call)?.outcomes;
  }

  async #stateBytes(object: ObjectId, outcome: Outcome): Promise<Uint8Array | undefined> {
    if (outcome.kind !== "stored") return outcome.bytes;
    if (outcome.size > JOURNAL_STATE_BYTES_MAX || !await this.#node.provide(object)) return undefined;
    return this.#copy(object);
  }

  #copy(object: ObjectId): Uint8Array | undefined {
    const view = this.#node.store.get(object);
    if (view === undefined) return undefined;
    const bytes = view.bytes.slice();
    view.release();
    return bytes;
  }

  // --- Values -------------------------------------------------------------------------------------------------

  /** A call with all that it needs; `undefined` if that is too much, or not at hand. */
  #portable(task: TaskRecord, homes: Homes, bytesMax: number): PortableCall | undefined {
    const args = this.#portableOutcome(argumentsId(task.id), task.args, homes, bytesMax);
    if (args === undefined) return undefined;
    const dependencies = [];
    for (const object of task.dependencies) {
      const outcome = this.#node.directory.get(object)?.outcome;
      const portable = outcome === undefined
        ? undefined
        : this.#portableOutcome(object, outcome, homes, bytesMax);
      if (portable === undefined) return undefined;
      dependencies.push({ object, outcome: portable });
    }
    return { task, dependencies, args };
  }

  #portableOutcome(
    object: ObjectId,
    outcome: Outcome,
    homes: Homes,
    bytesMax: number,
  ): Outcome | undefined {
    if (outcome.kind === "error") return outcome;
    this.#addHomes(homes, outcome.contains);
    if (outcome.kind === "inline") return outcome;
    const bytes = outcome.size > bytesMax ? undefined : this.#copy(object);
    return bytes === undefined ? undefined : { kind: "inline", bytes, contains: outcome.contains };
  }

  /** Notes which nodes have what a value refers to. */
  #addHomes(homes: Homes, contains: readonly ObjectId[]): void {
    for (const id of contains) {
      const record = this.#node.directory.get(id);
      const lostBy = this.#node.store.has(id) ? undefined : record?.lostBy;
      const node = record?.home === undefined ? lostBy ?? this.#node.id : this.#node.nodeOf(record.home);
      if (node !== undefined) homes[hex(id, true)] = hex(node);
    }
  }

  // --- Ends ---------------------------------------------------------------------------------------------------

  /** An actor cannot be kept in the control store. */
  #bound(actor: NodeActor, why: string): void {
    this.#node.log(
      "warn",
      `Actor ${actor.settings.label} will not survive its node: ${why}. Give it large values as Refs that a method ` +
        `gets, keep its state smaller, or make it durable: false`,
    );
    this.ended(actor);
    this.#node.release(actor, Infinity);
  }

  #fenced(journal: Journal): void {
    if (journal.ended) return;
    this.#close(journal);
    this.#node.fenced(journal.actor);
  }

  #close(journal: Journal): void {
    journal.ended = true;
    journal.open = undefined;
    this.#open.delete(journal);
  }
}

/** All parts of a journal. */
function partsOf({ made, state, pieces, batches, chunks, needless }: Journal): string[] {
  return [
    ...Array.from({ length: made }, (_, i) => `made/${number(i)}`),
    ...(state < 0 ? [] : ["meta"]),
    ...Array.from({ length: pieces }, (_, i) => `state/${number(state)}/${number(i)}`),
    ...batches.map((batch) => `call/${number(batch.number)}`),
    ...Array.from([...chunks.keys(), ...needless], (chunk) => `answer/${number(chunk)}`),
  ];
}

/** A number as part of a key, so that keys are in the order of numbers. */
export function number(value: number): string {
  return String(value).padStart(10, "0");
}

/** Bytes in pieces that the control store takes; at least one. */
function split(bytes: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < bytes.length; at += JOURNAL_PIECE_BYTES) {
    pieces.push(bytes.subarray(at, at + JOURNAL_PIECE_BYTES));
  }
  return pieces;
}
