/**
 * Copies of objects that are left when the node is gone where an object was at home: nodes that have read it have its bytes
 * still. Such a copy is as good as the object, costs less than to make that again, and is all there is of what nobody can
 * make again: what was put, or came from an actor.
 *
 * Where copies are is written down nowhere, which would cost a record for each that is made, of which hardly one is ever
 * looked at. The other nodes are asked when an object is missed, all at once, and the first that has it will do. None
 * is asked to keep it: what is gone by the time that it is fetched is looked for again.
 *
 * @module
 */

import type { ObjectId, TaskId } from "../core/ids.ts";
import type { FromNode, Outcome, ToNode } from "../core/messages.ts";
import type { ObjectRecord } from "./directory.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";

/** What another node has of an object. */
export interface Copy {
  readonly node: TaskId;
  readonly outcome: Exclude<Outcome, { kind: "error" }>;
}

/** A question that others have not all answered. */
interface Search {
  /** The connections of those that have not. */
  readonly asked: Set<number>;
  readonly found: (copy: Copy | undefined) => void;
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
   * @returns The first copy that is told of; `undefined` once all have answered, or are gone, and none has it.
   */
  async seek(id: ObjectId, except: ReadonlySet<TaskId>): Promise<Copy | undefined> {
    const asked = new Set<number>();
    const request = this.#request = (this.#request + 1) % 0x1_0000_0000;
    for (const { client, node } of this.#node.cluster?.peers() ?? []) {
      if (except.has(node)) continue;
      asked.add(client.id);
      this.#node.send(client, { type: "seek", request, object: id });
    }
    if (asked.size === 0) return undefined;
    const copy = new Promise<Copy | undefined>((found) => this.#searches.set(request, { asked, found }));
    await undefined; // a turn that is under way ends first
    this.#node.flush();
    return await copy;
  }

  /** Another node asks for an object. */
  sought(client: Client, { request, object }: Extract<ToNode, { type: "seek" }>): void {
    const record = this.#node.directory.get(object);
    const outcome = record !== undefined && this.#isWhole(record) ? record.outcome : undefined;
    this.#node.send(client, { type: "copy", request, outcome });
  }

  /** An error is no copy: it may have come of the same loss. */
  #isWhole(record: ObjectRecord): boolean {
    const { outcome } = record;
    if (outcome === undefined || outcome.kind === "error") return false;
    return outcome.kind !== "stored" || this.#node.objects.keepsBytes(record);
  }

  /** Another node has answered. */
  answered(client: Client, { request, outcome }: Extract<FromNode, { type: "copy" }>): void {
    const search = this.#searches.get(request);
    if (search === undefined || !search.asked.delete(client.id)) return;
    const node = this.#node.cluster?.nodeOf(client.id);
    const whole = outcome !== undefined && outcome.kind !== "error";
    if (whole && node !== undefined) this.#end(request, search, { node, outcome });
    else if (search.asked.size === 0) this.#end(request, search, undefined);
  }

  /** A connection is gone: no answer comes from there. */
  gone(client: Client): void {
    for (const [request, search] of this.#searches) {
      if (search.asked.delete(client.id) && search.asked.size === 0) this.#end(request, search, undefined);
    }
  }

  #end(request: number, search: Search, copy: Copy | undefined): void {
    this.#searches.delete(request);
    search.found(copy);
  }
}
