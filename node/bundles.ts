/**
 * The bundles of placement groups on one node: reserves them, offers them to tasks, and takes them back.
 *
 * A bundle holds CPUs for good, as an actor does, and is not made to wait for tasks that will end soon: it takes them at
 * once, and votes when what ran on them has ended. What it holds beside CPUs must be free.
 *
 * When a group is removed, what runs in it is ended, and only when nothing of a bundle is in use any more does the node
 * have it for others again.
 *
 * @module
 */

import { bundleOf, offerOf } from "../core/bundles.ts";
import { groupGone } from "../core/groups.ts";
import type { Bundle, BundleMessage } from "../core/groups.ts";
import type { Shape } from "../scheduler/resources.ts";
import { CallRecord } from "./actor_records.ts";
import type { NodeParts } from "./parts.ts";

/** A bundle that is held here. */
interface Held {
  readonly shape: Shape;
  readonly gpus: readonly number[];
  /** What tasks are offered of it. */
  readonly offer: Readonly<Record<string, number>>;
}

/** Where a vote goes: the coordinator, by its connection; -1 is this node itself. */
export type Coordinator = number;

/** What is held for one group. */
interface Holding {
  readonly name: string;
  readonly coordinator: Coordinator;
  /** Reserved, by attempt, and not committed. */
  readonly attempts: Map<number, { readonly bundles: readonly Held[]; voted: boolean }>;
  readonly committed: Held[];
}

/** The bundles of one node. */
export class Bundles {
  readonly #node: NodeParts;
  readonly #vote: (to: Coordinator, message: BundleMessage) => void;
  readonly #groups = new Map<string, Holding>();
  /** What was taken back, and may still be in use. */
  #leaving: Held[] = [];

  /** @param node What the node is made of. @param vote Tells a coordinator. */
  constructor(node: NodeParts, vote: (to: Coordinator, message: BundleMessage) => void) {
    this.#node = node;
    this.#vote = vote;
  }

  /** What a coordinator says. */
  said(from: Coordinator, message: BundleMessage): void {
    const { group, attempt } = message;
    switch (message.kind) {
      case "reserve": {
        const bundles = this.#reserve(group, message.bundles);
        if (bundles === undefined) return this.#vote(from, { kind: "vote", group, attempt, ok: false });
        let holding = this.#groups.get(group);
        if (holding === undefined) {
          holding = { name: message.name, coordinator: from, attempts: new Map(), committed: [] };
          this.#groups.set(group, holding);
        }
        holding.attempts.set(attempt, { bundles, voted: false });
        return this.settle();
      }
      case "commit": {
        const holding = this.#groups.get(group);
        const reserved = holding?.attempts.get(attempt);
        if (holding === undefined || reserved === undefined) {
          // The connection broke in between, and what was reserved was given back.
          return this.#vote(from, { kind: "vote", group, attempt, ok: false });
        }
        holding.attempts.delete(attempt);
        for (const held of reserved.bundles) this.#node.pool.add(held.offer, held.gpus);
        holding.committed.push(...reserved.bundles);
        return this.#node.resourcesChanged();
      }
      case "release":
        return attempt === 0 ? this.#dissolve(group) : this.#giveBack(group, attempt);
      case "vote":
        return;
    }
  }

  /** A coordinator is gone: what was held for it is not needed any more. */
  coordinatorGone(coordinator: Coordinator): void {
    for (const [group, holding] of [...this.#groups]) {
      if (holding.coordinator === coordinator) this.#dissolve(group);
    }
  }

  /** Looks whether what was waited for has ended: to be called when tasks have. */
  settle(): void {
    const { pool } = this.#node;
    if (this.#groups.size > 0 && pool.freeCpu() >= 0) {
      for (const [group, { coordinator, attempts }] of this.#groups) {
        for (const [attempt, reserved] of attempts) {
          if (reserved.voted) continue;
          reserved.voted = true;
          this.#vote(coordinator, { kind: "vote", group, attempt, ok: true });
        }
      }
    }
    if (this.#leaving.length === 0) return;
    const before = this.#leaving.length;
    this.#leaving = this.#leaving.filter((held) => {
      if (!pool.remove(Object.keys(held.offer))) return true;
      pool.unhold(held.shape, held.gpus);
      return false;
    });
    if (this.#leaving.length < before) this.#node.resourcesChanged();
  }

  /** Whether anything is held, or is being taken back. */
  get busy(): boolean {
    return this.#groups.size > 0 || this.#leaving.length > 0;
  }

  #reserve(group: string, bundles: readonly Bundle[]): Held[] | undefined {
    if (this.#node.cluster?.draining) return undefined;
    const { pool, shapes } = this.#node;
    const reserved: Held[] = [];
    for (const { index, demand } of bundles) {
      const shape = shapes.of(demand);
      const gpus = pool.hold(shape);
      if (gpus === undefined) {
        for (const held of reserved) pool.unhold(held.shape, held.gpus);
        return undefined;
      }
      reserved.push({ shape, gpus, offer: offerOf(demand, group, index) });
    }
    return reserved;
  }

  #giveBack(group: string, attempt: number): void {
    const holding = this.#groups.get(group);
    const reserved = holding?.attempts.get(attempt);
    if (holding === undefined || reserved === undefined) return;
    holding.attempts.delete(attempt);
    for (const { shape, gpus } of reserved.bundles) this.#node.pool.unhold(shape, gpus);
    if (holding.attempts.size === 0 && holding.committed.length === 0) this.#groups.delete(group);
    this.#node.executions.step({ type: "tick", now: this.#node.now() });
  }

  #dissolve(group: string): void {
    const holding = this.#groups.get(group);
    if (holding === undefined) return;
    for (const attempt of [...holding.attempts.keys()]) this.#giveBack(group, attempt);
    this.#groups.delete(group);
    if (holding.committed.length === 0) return;
    this.#leaving.push(...holding.committed);
    for (const { offer } of holding.committed) this.#node.pool.withdraw(Object.keys(offer));
    for (const task of [...this.#node.tasks.values()]) {
      if (task.finished || task instanceof CallRecord || bundleOf(task.shape.demand)?.group !== group) {
        continue;
      }
      this.#node.cancellations.stop(task, groupGone(group, `Task ${task.entry.settings.name}`), true, false);
    }
    this.#node.actors.groupGone(group);
    this.settle();
  }
}
