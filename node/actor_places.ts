/**
 * Where the actors of a node live: the resources that each holds, and its isolate, which it has to itself or shares with
 * other light actors.
 *
 * @module
 */

import { CPU } from "../core/options.ts";
import type { ResourcePool } from "../scheduler/resources.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { FromNode } from "../core/messages.ts";
import type { NodeActor } from "./actor_records.ts";
import type { Client, Isolate, Residents } from "./peers.ts";

/** What places need of their node. */
export interface PlaceServices {
  readonly pool: ResourcePool;
  readonly store: ObjectStore;
  send(client: Client, message: FromNode): void;
  startIsolate(residents: Residents): Isolate;
  endIsolate(isolate: Isolate): void;
  /** Resources were given back: tasks may start. */
  dispatch(): void;
  now(): number;
}

/** Gives actors their places. */
export class ActorPlaces {
  readonly #node: PlaceServices;
  readonly #placed: (actor: NodeActor) => void;
  readonly #execution: () => number;
  /** Actors that wait for resources, in order. */
  #waiting: NodeActor[] = [];
  readonly #shared: Isolate[] = [];

  /**
   * @param node What they need of their node. @param placed Told when an actor's isolate is up.
   * @param execution Gives a number to what an isolate is told to do.
   */
  constructor(node: PlaceServices, placed: (actor: NodeActor) => void, execution: () => number) {
    this.#node = node;
    this.#placed = placed;
    this.#execution = execution;
  }

  /** An actor waits for its place. */
  add(actor: NodeActor): void {
    actor.waitsSince = this.#node.now();
    this.#waiting.push(actor);
  }

  /** Actors that have waited for resources for so long, in milliseconds. */
  *waitingFor(ms: number): Iterable<NodeActor> {
    const before = this.#node.now() - ms;
    for (const actor of this.#waiting) {
      if (actor.state === "pending" && actor.isolate === undefined && actor.waitsSince <= before) yield actor;
    }
  }

  /** Gives resources and isolates to actors that wait for them. */
  place(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const actor of waiting) {
      if (actor.state !== "pending" || actor.isolate !== undefined) continue;
      if (actor.heldBack || !this.#acquire(actor)) {
        this.#waiting.push(actor);
        continue;
      }
      const isolate = this.#isolateFor(actor);
      actor.isolate = isolate;
      isolate.residents!.actors.add(actor);
      if (isolate.client !== undefined) this.#placed(actor);
    }
  }

  /** Takes what an actor holds for as long as it lives: the first of what it would be content with. */
  #acquire(actor: NodeActor): boolean {
    for (const shape of actor.asked.alternatives) {
      const gpus = this.#node.pool.hold(shape);
      if (gpus === undefined) continue;
      actor.shape = shape;
      actor.gpus = gpus;
      actor.acquired = true;
      return true;
    }
    return false;
  }

  #isolateFor(actor: NodeActor): Isolate {
    const { shared } = actor.settings;
    let best: Isolate | undefined;
    if (shared) {
      for (const isolate of this.#shared) {
        if (best === undefined || isolate.residents!.actors.size < best.residents!.actors.size) {
          best = isolate;
        }
      }
      const enough =
        this.#shared.length >= Math.max(1, Math.floor((this.#node.pool.total()[CPU] ?? 0) / 10_000));
      if (best !== undefined && (enough || best.residents!.actors.size === 0)) return best;
    }
    const isolate = this.#node.startIsolate({
      shared,
      actors: new Set(),
      calls: new Map(),
      works: new Map(),
      knownActors: new Set(),
    });
    if (shared) this.#shared.push(isolate);
    return isolate;
  }

  /** An isolate is gone. */
  isolateGone(isolate: Isolate): void {
    const at = this.#shared.indexOf(isolate);
    if (at >= 0) this.#shared.splice(at, 1);
  }

  /** Takes an actor's place away. */
  vacate(actor: NodeActor): void {
    if (actor.acquired) {
      actor.acquired = false;
      this.#node.pool.unhold(actor.shape, actor.gpus, actor.lent);
      actor.lent = false;
      actor.gpus = [];
      this.#node.dispatch();
    }
    const { isolate } = actor;
    if (isolate === undefined) return;
    actor.isolate = undefined;
    const residents = isolate.residents!;
    residents.actors.delete(actor);
    this.dropCheckpoints(actor);
    if (!residents.shared) return this.#node.endIsolate(isolate);
    for (const [handle, call] of residents.calls) if (call.actor === actor) residents.calls.delete(handle);
    for (const [handle, work] of residents.works) if (work.actor === actor) residents.works.delete(handle);
    if (isolate.client === undefined) return;
    const { instance } = actor;
    this.#node.send(isolate.client, { type: "stopActor", handle: this.#execution(), instance, hook: false });
  }

  /** Checkpoints that were begun will not be heard of; what they have left in the store goes. */
  dropCheckpoints(actor: NodeActor): void {
    for (const id of actor.saving) this.#node.store.delete(id);
    actor.saving = [];
  }

  /** Lends an actor's CPUs while its call waits, or takes them back. */
  lend(actor: NodeActor, lend: boolean): void {
    if (actor.lent === lend || !actor.acquired || actor.shape.cpu === 0) return;
    actor.lent = lend;
    if (lend) {
      this.#node.pool.giveCpu(actor.shape);
      this.#node.dispatch();
    } else this.#node.pool.takeCpu(actor.shape);
  }
}
