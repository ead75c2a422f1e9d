/**
 * Names of actors, each of which is one actor's: on a node that is alone, and in a whole cluster.
 *
 * In a cluster the control store has them. A name goes with its node; that of an actor that survives its node is kept by
 * the actor's record instead, once the node is given up. As long as there is no record yet, another actor may take it then,
 * and the node may be back. So such an actor takes its name, enters its record, and makes the name certain; before that it
 * is not begun with, nobody is answered, and nobody finds it.
 *
 * @module
 */

import { hex, type ObjectId } from "../core/ids.ts";
import type { ToNode } from "../core/messages.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { pack } from "../store/serialize.ts";
import { nameKey, nameTaken } from "./actor_errors.ts";
import { isLasting, type NodeActor } from "./actor_records.ts";
import type { ActorServices } from "./actor_services.ts";
import type { Client } from "./peers.ts";

/** The names that actors of one node have. */
export class ActorNames {
  readonly #node: ActorServices;
  readonly #kill: (actor: NodeActor, reason: string) => void;
  readonly #actors = new Map<string, NodeActor>();
  /** Actors of which it is not certain yet that they have their names: who looks for them waits. */
  readonly #uncertain = new Map<NodeActor, (() => void)[]>();

  /** @param node What they need of their node. @param kill Ends an actor. */
  constructor(node: ActorServices, kill: (actor: NodeActor, reason: string) => void) {
    this.#node = node;
    this.#kill = kill;
  }

  /** Whether an actor of this node has a name that another is to have. */
  isTaken({ namespace, name }: ActorSettings): boolean {
    return name !== "" && this.#actors.has(nameKey(namespace, name));
  }

  /** An actor has its name, if it is to have any. */
  set(actor: NodeActor): void {
    const { namespace, name } = actor.settings;
    if (name !== "") this.#actors.set(nameKey(namespace, name), actor);
  }

  /** An actor is not on this node any more. @returns Whether it had its name here. */
  delete(actor: NodeActor): boolean {
    const { namespace, name } = actor.settings;
    const key = nameKey(namespace, name);
    this.#known(actor);
    return name !== "" && this.#actors.get(key) === actor && this.#actors.delete(key);
  }

  /** An actor is dead: its name is free. */
  release(actor: NodeActor): void {
    const { settings: { namespace, name }, journal, id } = actor;
    if (!this.delete(actor)) return;
    const { registry } = this.#node;
    if (registry === undefined) return;
    if (journal === undefined) return registry.releaseName(namespace, name, id, false);
    journal.entered.then((revision) => {
      if (revision !== undefined) registry.releaseName(namespace, name, id, true);
    });
  }

  /** A new actor takes its name. @param begin Called when it has it, or is to have none; otherwise the actor is killed. */
  take(actor: NodeActor, begin: () => void): void {
    const { settings: { namespace, name }, creation: { fn }, id } = actor;
    this.set(actor);
    const { registry } = this.#node;
    if (registry === undefined || name === "") return begin();
    this.#uncertain.set(actor, []);
    const { module, name: className } = fn.address;
    // Calls wait until it is known that no other node has the name.
    registry.reserveName(namespace, name, { id: hex(id), module, name: className }, isLasting(actor)).then(
      (free) => {
        if (actor.state === "dead") return registry.releaseName(namespace, name, id, false);
        if (!isLasting(actor)) this.#known(actor);
        if (free) begin();
        else this.lost(actor);
        this.#node.flush();
      },
      (error: Error) => {
        this.#kill(actor, `its name could not be reserved: ${error.message}`);
        this.#node.flush();
      },
    );
  }

  /**
   * Calls back when it is certain that an actor is the one of its name, of its key, or of its creator: it is with its record;
   * never, if it dies before.
   */
  whenCertain(actor: NodeActor, begin: () => void): void {
    const { journal, settings } = actor;
    const isCertain = settings.name === "" && !settings.virtual && !actor.mayBeElsewhere;
    if (journal === undefined || isCertain) {
      this.#known(actor);
      return begin();
    }
    journal.entered.then((revision) => {
      if (revision === undefined || actor.state === "dead") return;
      this.#known(actor);
      begin();
      this.#node.flush();
    });
  }

  /** It is certain that an actor has its name, or that it does not have it. */
  #known(actor: NodeActor): void {
    const waiting = this.#uncertain.get(actor);
    if (waiting === undefined) return;
    this.#uncertain.delete(actor);
    // When this is over: an actor that does not have it is forgotten by then.
    for (const look of waiting) queueMicrotask(look);
  }

  /** Another actor has the name. */
  lost(actor: NodeActor): void {
    const failure = actor.failure = nameTaken(actor.settings);
    this.#kill(actor, failure.message);
  }

  /** Answers who has a name; the asker then holds the actor. */
  find(client: Client, message: Extract<ToNode, { type: "findActor" }>): void {
    const { request, namespace, name } = message;
    const actor = this.#actors.get(nameKey(namespace, name));
    const waiting = actor === undefined ? undefined : this.#uncertain.get(actor);
    if (waiting !== undefined) {
      waiting.push(() => {
        if (!this.#node.clients.has(client.id)) return;
        this.find(client, message);
        this.#node.flush();
      });
      return;
    }
    const answer = (found: { readonly id: string; readonly module: string; readonly name: string } | null) =>
      this.#node.send(client, { type: "answer", request, body: pack(found).toBytes().slice() });
    if (actor !== undefined) {
      const { module, name: className } = actor.creation.fn.address;
      this.#node.directory.retain(client.id, [actor.id as string as ObjectId]);
      return answer({ id: hex(actor.id), module, name: className });
    }
    const { findName } = this.#node;
    if (findName === undefined) return answer(null);
    findName(client, namespace, name).catch(() => undefined).then((found) => {
      if (this.#node.clients.has(client.id)) answer(found ?? null);
      this.#node.flush();
    });
  }
}
