/**
 * The object directory: which objects there are, in which state, who holds them, and what may go.
 *
 * An object lives while anything can reach it: Refs in programs (counted per client, reported in batches by their
 * finalizers), tasks that depend on it and have not ended, and values of living objects that contain its Ref. When
 * the last of these goes, the object is freed, and with it its hold on what it contains. The first outcome that is
 * sealed for an object wins; a task that is run again makes the same ids, and its later outcomes are dropped.
 *
 * Most results never get here: small ones belong to whoever submitted the task (see `core/messages.ts`), and a record
 * is made only when something else refers to the object.
 *
 * Pure: every call returns or reports what changed and does nothing else.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import type { ObjectId, TaskId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";

/** What is known of an object. */
export interface ObjectRecord {
  readonly id: ObjectId;
  /** Absent while the task that makes it has not ended. */
  outcome: Outcome | undefined;
  /** The client that made it; its count is kept apart because nearly every object has this one holder only. */
  readonly owner: number;
  /** It was not made here, or is made here once more: it has no owner. */
  foreign: boolean;
  ownerCount: number;
  /** Counts of other clients. */
  others: Map<number, number> | undefined;
  /** Tasks that depend on it, objects that contain it, and pending production. */
  uses: number;
  /** Something here will make it, and is among the uses. */
  pending: boolean;
  /** Clients that want to be told when it exists. */
  subscribers: number[] | undefined;
  /** Where it lies on disk, when it does not lie in memory. */
  spilled: { readonly offset: number; readonly size: number } | undefined;
  /**
   * The peer that this node has the object from, which knows its outcome, or has its bytes where they are not here.
   * `undefined` of an object that was made here.
   */
  home: number | undefined;
  /** The node that was its home, and to which the connection is lost: it may be gone, or only out of reach. */
  lostBy: TaskId | undefined;
  /** The peer counts this node among the holders: it is to be told when the object is let go of here. */
  held: boolean;
  /** The peer was asked for the outcome. */
  asked: boolean;
}

/** What the directory's owner is told. */
export interface DirectoryEvents {
  /** Nothing can reach the object any more. Its memory and disk may go. */
  freed(record: ObjectRecord): void;
  /** An object is asked for that has no record. If a running task will make it, makes its record and returns it. */
  pending(id: ObjectId): ObjectRecord | undefined;
}

/** The owner of objects that are not made here, or are made once more for whoever has come to hold them. */
const NOBODY = -1;

/** All objects of one node. */
export class ObjectDirectory {
  readonly #objects = new Map<ObjectId, ObjectRecord>();
  /** Uses of objects that have no record: of lost ones, or of ones that a task run again is yet to make. */
  readonly #early = new Map<ObjectId, number>();
  readonly #events: DirectoryEvents;

  /** @param events Who to tell of freed objects. */
  constructor(events: DirectoryEvents) {
    this.#events = events;
  }

  /** How many objects there are. */
  get size(): number {
    return this.#objects.size;
  }

  /** What is known of an object. */
  get(id: ObjectId): ObjectRecord | undefined {
    return this.#objects.get(id) ?? this.#events.pending(id);
  }

  /** All objects. */
  values(): IterableIterator<ObjectRecord> {
    return this.#objects.values();
  }

  /** An object will exist: `owner`, who makes it or has submitted a task that will, holds one Ref of it. */
  declare(id: ObjectId, owner: number): ObjectRecord {
    const known = this.get(id);
    if (known === undefined) return this.add(id, owner);
    this.#hold(known, owner);
    return known;
  }

  /** As {@link declare}, of an object that is known to be new. @param owner If it is {@link NOBODY}, there is no Ref. */
  add(id: ObjectId, owner: number): ObjectRecord {
    let uses = 1; // until it is sealed
    if (this.#early.size > 0) {
      uses += this.#early.get(id) ?? 0;
      this.#early.delete(id);
    }
    const record: ObjectRecord = {
      id,
      outcome: undefined,
      owner,
      foreign: owner === NOBODY,
      ownerCount: owner === NOBODY ? 0 : 1,
      others: undefined,
      uses,
      pending: true,
      subscribers: undefined,
      spilled: undefined,
      home: undefined,
      lostBy: undefined,
      held: false,
      asked: false,
    };
    this.#objects.set(id, record);
    return record;
  }

  /** As {@link declare}, of an object that is made here from now on, though it may have been another node's so far. */
  produce(id: ObjectId, owner: number): ObjectRecord {
    const known = this.get(id);
    if (known === undefined) return this.add(id, owner);
    this.#hold(known, owner);
    if (known.outcome === undefined && !known.pending) {
      known.pending = true;
      known.uses++;
    }
    return known;
  }

  /** An object of another node is referred to here, by something that is about to hold it. @param home The peer. */
  addForeign(id: ObjectId, home: number): ObjectRecord {
    const record = this.add(id, NOBODY);
    record.pending = false; // it is not made here
    record.uses--;
    record.home = home;
    return record;
  }

  /**
   * As {@link addForeign}, of an object whose node is gone: it can be asked for, and is then made again.
   *
   * @param lostBy The node, if it may only be out of reach.
   */
  addLost(id: ObjectId, lostBy?: TaskId): ObjectRecord {
    const record = this.addForeign(id, NOBODY);
    record.home = undefined;
    record.lostBy = lostBy;
    return record;
  }

  /**
   * An object exists now.
   *
   * @returns Whether this was the first outcome; any other one is to be dropped.
   */
  seal(record: ObjectRecord, outcome: Outcome): boolean {
    if (record.outcome !== undefined) return false;
    record.outcome = outcome;
    if (outcome.kind !== "error") {
      for (let i = 0; i < outcome.contains.length; i++) this.use(outcome.contains[i]!);
    }
    return true;
  }

  /** What is known of an object is gone: it will be made again, and sealed anew. */
  unseal(record: ObjectRecord): void {
    const { outcome } = record;
    if (outcome === undefined) return;
    record.outcome = undefined;
    record.home = undefined;
    record.held = false;
    if (record.owner !== NOBODY) {
      record.pending = true;
      record.uses++;
    }
    if (outcome.kind === "error") return;
    for (const id of outcome.contains) this.unuse(id);
  }

  /** Drops the hold that production had, if it was here: call it once after `seal`, when all were told. */
  sealed(record: ObjectRecord): void {
    if (record.pending) {
      record.pending = false;
      record.uses--;
    }
    this.#check(record);
  }

  /** A client holds one more Ref of each. Objects that are gone already are ignored: their `get` will say so. */
  retain(client: number, ids: readonly ObjectId[]): void {
    for (const id of ids) {
      const record = this.get(id);
      if (record !== undefined) this.#hold(record, client);
    }
  }

  /** A client holds one Ref fewer of each. */
  release(client: number, ids: readonly ObjectId[]): void {
    for (const id of ids) {
      const record = this.#objects.get(id);
      if (record === undefined) continue;
      if (client === record.owner) {
        if (record.ownerCount > 0) record.ownerCount--;
      } else {
        const count = record.others?.get(client) ?? 0;
        if (count > 1) record.others!.set(client, count - 1);
        else record.others?.delete(client);
      }
      this.#check(record);
    }
  }

  /** What a client holds. */
  heldBy(client: number): ObjectId[] {
    const held: ObjectId[] = [];
    for (const { id, owner, ownerCount, others } of this.#objects.values()) {
      if (owner === client && ownerCount > 0 || others?.has(client)) held.push(id);
    }
    return held;
  }

  /** The owner is gone, or never was there to hold the object. */
  disown(record: ObjectRecord): void {
    record.ownerCount = 0;
  }

  /** Something that is not a client needs the object: a task or a containing object. */
  use(id: ObjectId): void {
    const record = this.get(id);
    if (record !== undefined) record.uses++;
    else this.#early.set(id, (this.#early.get(id) ?? 0) + 1);
  }

  /** The need is gone. */
  unuse(id: ObjectId): void {
    const record = this.#objects.get(id);
    if (record === undefined) return this.#unuseEarly(id);
    assert(record.uses > 0, "an object is let go more often than it was used");
    record.uses--;
    this.#check(record);
  }

  /** A client is gone with all the Refs that it held. */
  clientGone(client: number): void {
    for (const record of this.#objects.values()) {
      if (record.owner === client) record.ownerCount = 0;
      record.others?.delete(client);
      if (record.subscribers?.includes(client)) {
        record.subscribers = record.subscribers.filter((other) => other !== client);
      }
    }
    for (const record of [...this.#objects.values()]) this.#check(record);
  }

  #hold(record: ObjectRecord, client: number): void {
    if (client === record.owner) record.ownerCount++;
    else {
      record.others ??= new Map();
      record.others.set(client, (record.others.get(client) ?? 0) + 1);
    }
  }

  #unuseEarly(id: ObjectId): void {
    const uses = this.#early.get(id) ?? 0;
    if (uses > 1) this.#early.set(id, uses - 1);
    else this.#early.delete(id);
  }

  /** Frees the object if nothing can reach it, and then what only it could reach; a loop, for chains may be long. */
  #check(first: ObjectRecord): void {
    const unreached = [first];
    for (let record = unreached.pop(); record !== undefined; record = unreached.pop()) {
      if (record.uses > 0 || record.ownerCount > 0 || (record.others?.size ?? 0) > 0) continue;
      if (!this.#objects.delete(record.id)) continue;
      this.#events.freed(record);
      if (record.outcome === undefined || record.outcome.kind === "error") continue;
      for (const id of record.outcome.contains) {
        const inner = this.#objects.get(id);
        if (inner === undefined) this.#unuseEarly(id);
        else {
          inner.uses--;
          unreached.push(inner);
        }
      }
    }
  }
}
