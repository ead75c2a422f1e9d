/**
 * Takes up actors of nodes that are gone: from its journal, an actor is made as it was, with its newest state, and the calls
 * since then are run again.
 *
 * Of these calls it is not known which were answered. Each is run and its answer kept, until whoever made it says that
 * nobody will ask for it; a call that comes again gets that answer. Calls that stand behind a gap in the journal were seen
 * by nobody: they come again by themselves, or not at all.
 *
 * What the actor holds of other nodes is asked of those that had it. What its own node had is made again, or lost.
 *
 * @module
 */

import { type ActorSettings, creationSettings, isActorSettings } from "../core/actor_options.ts";
import { ProtocolError, StoreFullError } from "../core/errors.ts";
import {
  checkpointId,
  hex,
  indexOf,
  type ObjectId,
  readObjectId,
  returnId,
  type TaskId,
  taskIdFromHex,
  taskOf,
} from "../core/ids.ts";
import { INLINE_BYTES_MAX } from "../core/limits.ts";
import { type Outcome, publishedHashes } from "../core/messages.ts";
import { pack } from "../store/serialize.ts";
import { Journal, number } from "./actor_journal.ts";
import { type Homes, type JournalCall, type JournalItem, readJournal } from "./actor_journal_format.ts";
import { CallRecord, NodeActor } from "./actor_records.ts";
import { shapeOf } from "./definitions.ts";
import type { ObjectRecord } from "./directory.ts";
import { refersTo } from "./outcomes.ts";
import type { Abroad, NodeParts } from "./parts.ts";

/** Whose the records are that nobody has asked for yet. */
const NOBODY_YET = 0;

/** What an actor's journal says of its newest state. */
interface Meta {
  /** It covers all calls before this position. */
  readonly position: number;
  readonly state: number;
  readonly pieces: number;
  readonly contains: readonly string[];
  readonly homes: Homes;
}

/** All that there is of an actor. */
interface Left {
  readonly settings: ActorSettings;
  readonly creation: JournalCall;
  readonly homes: Homes;
  readonly meta: Meta | undefined;
  readonly state: Uint8Array | undefined;
  readonly batches: readonly Batch[];
  readonly answers: readonly { readonly chunk: number; readonly items: readonly JournalItem[] }[];
}

interface Batch {
  readonly number: number;
  /** The position of its first call. */
  readonly first: number;
  readonly items: readonly JournalItem[];
}

/** Takes actors up. */
export class ActorRestorer {
  readonly #node: NodeParts;
  readonly #abroad: Abroad;
  readonly #restoring = new Set<TaskId>();

  /** @param node What the node is made of. @param abroad How it reaches others. */
  constructor(node: NodeParts, abroad: Abroad) {
    this.#node = node;
    this.#abroad = abroad;
  }

  /** An actor was given to this node. */
  restore(id: TaskId): void {
    if (this.#restoring.has(id)) return;
    this.#restoring.add(id);
    this.#restore(id).catch((error: Error) => {
      if (this.#node.closed) return;
      this.#node.options.log("error", `Actor ${hex(id)} cannot be taken up: ${error.message}`);
    }).finally(() => this.#restoring.delete(id));
  }

  async #restore(id: TaskId): Promise<void> {
    const { registry } = this.#abroad;
    const { options } = this.#node;
    const record = await registry.get(id);
    if (record?.place.node !== hex(options.id)) return;
    const left = await this.#read(id);
    const loads = new Set([left.creation, ...callsOf(left)].map(({ address }) => address.load));
    for (const load of loads) {
      for (const hash of publishedHashes(load)) {
        if (!this.#abroad.hasCode(hash)) await this.#abroad.fetchCode(hash);
      }
    }
    if (this.#node.closed || this.#node.actors.has(id)) return;
    const stored = await this.#storeState(left, id);
    // Its creation may have come again meanwhile: two of one actor would each have some of its calls.
    if (this.#node.closed || this.#node.actors.has(id)) {
      if (stored !== undefined && !this.#node.closed) this.#node.store.delete(stored);
      return;
    }
    const log = this.#take(id, record.revision, left);
    options.log(
      "info",
      `Took up actor ${left.settings.label}, with ${log} calls to run again` +
        `${left.meta === undefined ? "" : ` since its checkpoint after ${left.meta.position}`}`,
    );
    this.#node.cluster!.actors.cameHere(id);
    this.#node.flush();
  }

  async #read(id: TaskId): Promise<Left> {
    const { registry } = this.#abroad;
    const [made, metas, calls, answers] = await Promise.all(
      ["made/", "meta", "call/", "answer/"].map((part) => registry.read(id, part)),
    );
    const meta = metas!.length === 0
      ? undefined
      : JSON.parse(new TextDecoder().decode(metas![0]!.bytes)) as Meta;
    const pieces = meta === undefined ? [] : await registry.read(id, `state/${number(meta.state)}/`);
    if (meta !== undefined && pieces.length !== meta.pieces) {
      throw new ProtocolError("its newest state is not whole in the control store");
    }
    const { header, homes, items } = readJournal(join(made!));
    const [creation] = items;
    if (creation?.kind !== "call" || !isActorSettings(header.settings)) {
      throw new ProtocolError("how it was made is not in the control store");
    }
    const batches = calls!.map(({ part, bytes }): Batch & { homes: Homes } => {
      const batch = readJournal(bytes);
      const first = Number(batch.header.first);
      return { number: numberOf(part), first, items: batch.items, homes: batch.homes };
    });
    const chunks = answers!.map(({ part, bytes }) => {
      const chunk = readJournal(bytes);
      return { chunk: numberOf(part), items: chunk.items, homes: chunk.homes };
    });
    return {
      settings: header.settings,
      creation,
      homes: Object.assign({}, homes, meta?.homes, ...[...batches, ...chunks].map((each) => each.homes)),
      meta,
      state: meta === undefined ? undefined : join(pieces),
      batches,
      answers: chunks,
    };
  }

  /** Puts a large state into the store, once there is room. @returns What it is there, if it was not there before. */
  async #storeState({ state, meta }: Left, id: TaskId): Promise<ObjectId | undefined> {
    if (state === undefined || state.length <= INLINE_BYTES_MAX) return undefined;
    const object = checkpointId(id, meta!.state);
    for (;;) {
      const view = this.#node.store.create(object, state.length);
      if (view === "exists") return undefined;
      if (view !== "full") {
        view.set(state);
        this.#node.store.seal(object);
        return object;
      }
      const error = await this.#node.objects.makeRoom(state.length);
      if (error instanceof StoreFullError) {
        this.#node.options.log("warn", `Actor ${hex(id)} waits for room: ${error.message}`);
      } else if (error !== undefined) throw error;
    }
  }

  /** Makes the actor. @returns How many calls run again. */
  #take(id: TaskId, revision: number, left: Left): number {
    const { actors, definitions, directory, shapes } = this.#node;
    const { settings, creation: made, meta } = left;
    const held: ObjectId[] = [];
    for (const digits of Object.keys(left.homes)) held.push(this.#introduce(digits, left.homes[digits]!));
    const actor = new NodeActor(id, made.job, settings, shapeOf(shapes, settings));
    const fn = definitions.function(made.address);
    const creation = new CallRecord(
      submitted(made),
      made.job,
      fn,
      definitions.settings(creationSettings(settings.label)),
      NOBODY_YET,
      actor,
    );
    actor.creation = creation;
    creation.argumentsKept = true;
    creation.answers = [NOTHING];
    creation.finished = true;
    this.#admit(creation, made, held);
    this.#node.tasks.delete(id);
    // Held for those who had handles, until they say so here.
    const object = id as string as ObjectId;
    const known = directory.get(object);
    const record = known ?? directory.add(object, NOBODY_YET);
    record.home = undefined;
    creation.results = [record];
    if (known === undefined) directory.disown(record);
    this.#node.holdForHeirs([object]);
    if (settings.virtual || settings.detached) directory.use(object);
    if (directory.seal(record, NOTHING)) this.#node.results.announce(record);
    if (meta !== undefined) this.#enterState(actor, meta, left.state!);
    const journal = actor.journal = new Journal(actor, Promise.resolve(revision));
    const position = meta?.position ?? 0;
    const log: (CallRecord | undefined)[] = [];
    let next = position;
    const unseen: string[] = [];
    for (const batch of left.batches) {
      let at = batch.first;
      if (this.#node.faults.has("replay-covered")) next = Math.min(next, at);
      journal.nextBatch = batch.number + 1;
      if (at > next) {
        unseen.push(`call/${number(batch.number)}`);
        continue;
      }
      for (const item of batch.items) {
        if (item.kind === "withdrawn") {
          const place = log.findIndex((call) => call?.id === item.call);
          if (place < 0) continue;
          this.#withdraw(log[place]!);
          log[place] = undefined;
        } else if (item.kind === "call" && at++ === next) {
          next++;
          log.push(this.#call(actor, item, held));
        }
      }
      journal.batches.push({ number: batch.number, end: at });
    }
    journal.first = position;
    journal.next = journal.written = next;
    if (meta !== undefined) {
      journal.state = meta.state;
      journal.pieces = meta.pieces;
    }
    if (unseen.length > 0) actors.journals!.change(journal, { put: [], delete: unseen });
    for (const { chunk, items } of left.answers) this.#answers(actor, journal, chunk, items);
    actors.restored(actor, log);
    for (const each of held) directory.unuse(each);
    return log.length;
  }

  #call(actor: NodeActor, item: JournalCall, held: ObjectId[]): CallRecord {
    const { definitions } = this.#node;
    const call = new CallRecord(
      submitted(item),
      item.job,
      definitions.function(item.address),
      definitions.settings(item.settings),
      NOBODY_YET,
      actor,
    );
    call.restored = true;
    call.argumentsKept = true;
    call.answers = [];
    this.#admit(call, item, held);
    return call;
  }

  #withdraw(call: CallRecord): void {
    this.#node.tasks.delete(call.id);
    call.finished = true;
    this.#node.submissions.unuse(call);
  }

  /** What a call depends on is here, as it was when the call was sent. */
  #admit(call: CallRecord, { message }: JournalCall, held: ObjectId[]): void {
    const { directory } = this.#node;
    for (const { object, outcome } of message.dependencies) {
      if (outcome === undefined || directory.get(object)?.outcome !== undefined) continue;
      held.push(this.#seal(object, outcome).id);
    }
    this.#node.submissions.admit(call);
  }

  /** Makes an object known, and holds it. */
  #seal(object: ObjectId, outcome: Outcome): ObjectRecord {
    const { directory } = this.#node;
    const record = directory.get(object) ?? directory.add(object, NOBODY_YET);
    if (!record.foreign) directory.disown(record);
    directory.use(object);
    if (directory.seal(record, outcome)) this.#node.results.announce(record);
    return record;
  }

  /** Something that a value refers to: whoever had it is asked for it, when it is wanted. It is held. */
  #introduce(digits: string, node: string): ObjectId {
    const { directory } = this.#node;
    const object = objectFromHex(digits);
    if (directory.get(object) === undefined && !this.#node.actors.has(object as string as TaskId)) {
      const located = this.#node.cluster!.actors.places.get(object as string as TaskId);
      const homeNode = taskIdFromHex(located?.place.node ?? node);
      const home = this.#node.cluster!.clientOf(homeNode);
      if (home === undefined) directory.addLost(object, homeNode);
      else {
        this.#node.cluster!.introduce(home, object, undefined);
        directory.use(object);
        this.#node.cluster!.introduced();
        return object;
      }
    }
    directory.use(object);
    return object;
  }

  #enterState(actor: NodeActor, meta: Meta, bytes: Uint8Array): void {
    const { directory } = this.#node;
    const id = checkpointId(actor.id, meta.state);
    const contains = meta.contains.map(objectFromHex);
    // What this node had of the actor before may still be being written.
    if (directory.get(id) !== undefined) directory.use(id);
    else {
      const record = directory.add(id, NOBODY_YET); // held as if it were yet to be made
      directory.disown(record);
      directory.seal(
        record,
        bytes.length <= INLINE_BYTES_MAX
          ? { kind: "inline", bytes, contains }
          : { kind: "stored", size: bytes.length, contains },
      );
    }
    actor.checkpoint = id;
    actor.checkpoints = meta.state + 1;
  }

  #answers(actor: NodeActor, journal: Journal, chunk: number, items: readonly JournalItem[]): void {
    const { actors } = this.#node;
    const calls = new Map<TaskId, { readonly job: TaskId; readonly outcomes: Outcome[] }>();
    for (const item of items) {
      if (item.kind !== "answer") continue;
      const call = taskOf(item.object);
      let answer = calls.get(call);
      if (answer === undefined) calls.set(call, answer = { job: item.job, outcomes: [] });
      answer.outcomes[indexOf(item.object)] = item.outcome;
    }
    for (const [call, { job, outcomes }] of calls) {
      outcomes.forEach((outcome, index) => {
        if (!refersTo(outcome)) return;
        this.#seal(returnId(call, index), outcome); // held until the answer is forgotten
      });
      actors.answers.enter(actor, call, job, outcomes);
      journal.chunkOf.set(call, chunk);
    }
    journal.chunks.set(chunk, new Set(calls.keys()));
    journal.nextChunk = chunk + 1;
  }
}

function callsOf({ batches }: Left): JournalCall[] {
  return batches.flatMap(({ items }) => items.filter((item): item is JournalCall => item.kind === "call"));
}

/** A call of a journal, as if it were submitted. */
function submitted({ message }: JournalCall) {
  return { ...message, dependencies: message.dependencies.map(({ object }) => object) };
}

function numberOf(part: string): number {
  return Number(part.slice(part.indexOf("/") + 1));
}

function join(parts: readonly { readonly bytes: Uint8Array }[]): Uint8Array {
  if (parts.length === 1) return parts[0]!.bytes;
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part.bytes, at);
    at += part.bytes.length;
  }
  return bytes;
}

function objectFromHex(digits: string): ObjectId {
  return readObjectId(Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16)), 0);
}

const NOTHING: Outcome = { kind: "inline", bytes: pack(undefined).toBytes().slice(), contains: [] };
