/**
 * Copies of objects that are left when the node is gone where an object was at home: nodes that have read it have its bytes
 * still. Such a copy is as good as the object, costs less than to make that again, and is all there is of what nobody can
 * make again: what was put, or came from an actor.
 *
 * Where copies are is written down nowhere, which would cost a record for each that is made, of which hardly one is ever
 * looked at. The other nodes are asked when an object is missed, all at once, and the first that has it will do. None
 * is asked to keep it: what is gone by the time that it is fetched is looked for again.
 *
 * Those that have no copy say what they know of the object. Where the task was submitted, it is remembered how the object
 * was made: that node makes it again then, and is where it is at home from then on.
 *
 * @module
 */

import { type ObjectId, type TaskId, taskOf } from "../core/ids.ts";
import type { FromNode, Outcome, Prospect, ToNode } from "../core/messages.ts";
import type { ObjectRecord } from "./directory.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";

/** What another node has of an object. */
export interface Copy {
  readonly node: TaskId;
  readonly outcome: Exclude<Outcome, { kind: "error" }>;
}

/** What nodes know of an object that none of them has. */
export interface Prospects {
  /** One that can have it made again. */
  readonly maker: TaskId | undefined;
  /** On one of them the task is still to end that makes it, or there were some that could not be asked. */
  readonly later: boolean;
}

/** Nobody knows anything. */
export const NO_PROSPECTS: Prospects = { maker: undefined, later: false };

/** A question that others have not all answered. */
interface Search {
  /** The connections of those that have not. */
  readonly asked: Set<number>;
  readonly found: (found: Copy | Prospects) => void;
  prospects: Prospects;
}

/** Looks for copies, and tells others of those that are here. */
export class Copies {
  readonly #node: NodeParts;
  readonly #searches = new Map<number, Search>();
  #request = 0;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /**
   * Asks the other nodes for an object.
   *
   * @param id The object. @param except Nodes that need not be asked.
   * @returns The first copy that is told of; once all have answered, or are gone, and none has it, what they know of it.
   */
  async seek(id: ObjectId, except: ReadonlySet<TaskId>): Promise<Copy | Prospects> {
    return await this.#ask(id, false, (node) => !except.has(node));
  }

  /** As {@link seek}, of one node. @param make Nobody has a copy: it is to make the object again, if it can. */
  async seekAt(node: TaskId, id: ObjectId, make = false): Promise<Copy | Prospects> {
    return await this.#ask(id, make, (other) => other === node);
  }

  async #ask(id: ObjectId, make: boolean, whom: (node: TaskId) => boolean): Promise<Copy | Prospects> {
    const asked = new Set<number>();
    const request = this.#request = (this.#request + 1) % 0x1_0000_0000;
    for (const { client, node } of this.#node.cluster?.peers() ?? []) {
      if (!whom(node)) continue;
      asked.add(client.id);
      this.#node.send(client, { type: "seek", request, object: id, make });
    }
    const prospects = { maker: undefined, later: this.#node.options.abroad?.anyAway() === true };
    if (asked.size === 0) return prospects;
    const found = new Promise<Copy | Prospects>((found) =>
      this.#searches.set(request, { asked, found, prospects })
    );
    await undefined; // a turn that is under way ends first
    this.#node.flush();
    return await found;
  }

  /** Another node asks for an object. */
  sought(client: Client, { request, object, make }: Extract<ToNode, { type: "seek" }>): void {
    const record = this.#node.directory.get(object);
    const outcome = record !== undefined && this.#isWhole(record) ? record.outcome : undefined;
    const prospect = this.#prospect(taskOf(object));
    // Whoever it was had from here may well have asked for it.
    if (make && record?.home !== undefined && outcome === undefined && prospect === "again") {
      this.#node.objects.leaveHome(record);
    }
    this.#node.send(client, { type: "copy", request, outcome, prospect });
  }

  #prospect(task: TaskId): Prospect {
    const { rebuilder, tasks } = this.#node;
    if (rebuilder.remembered(task) !== undefined) return "again";
    return tasks.has(task) ? "soon" : "none";
  }

  /** An error is no copy: it may have come of the same loss. */
  #isWhole(record: ObjectRecord): boolean {
    const { outcome } = record;
    if (outcome === undefined || outcome.kind === "error") return false;
    return outcome.kind !== "stored" || this.#node.objects.keepsBytes(record);
  }

  /** Another node has answered. */
  answered(client: Client, { request, outcome, prospect }: Extract<FromNode, { type: "copy" }>): void {
    const search = this.#searches.get(request);
    if (search === undefined || !search.asked.delete(client.id)) return;
    const node = this.#node.cluster?.nodeOf(client.id);
    const whole = outcome !== undefined && outcome.kind !== "error";
    if (whole && node !== undefined) return this.#end(request, search, { node, outcome });
    const { maker, later } = search.prospects;
    search.prospects = {
      maker: maker ?? (prospect === "again" ? node : undefined),
      later: later || prospect === "soon",
    };
    if (search.asked.size === 0) this.#end(request, search, search.prospects);
  }

  /** A connection is gone: no answer comes from there. */
  gone(client: Client): void {
    for (const [request, search] of this.#searches) {
      if (!search.asked.delete(client.id)) continue;
      search.prospects = { ...search.prospects, later: true };
      if (search.asked.size === 0) this.#end(request, search, search.prospects);
    }
  }

  #end(request: number, search: Search, found: Copy | Prospects): void {
    this.#searches.delete(request);
    search.found(found);
  }
}
