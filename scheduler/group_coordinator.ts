/**
 * The coordinator of placement groups: has the bundles of a group reserved on nodes, all of them or none.
 *
 * Two phases (J. Gray, "Notes on data base operating systems", 1978). The coordinator plans, and asks each node of the
 * plan to *reserve*; a node votes once it holds all that was asked of it. When all have voted yes, it has them *commit*:
 * only then do they offer the bundles to tasks. One no, or a node that is gone, or no vote in time, and whatever was
 * reserved is released, to be tried again later; at other times for other groups, so that two coordinators that took
 * halves from each other do not do so for ever. One group of a coordinator is tried at a time, so that its groups never
 * stand in each other's way.
 *
 * A group that has lost bundles with a node keeps the others and is tried again for what it lacks. When the
 * coordinator is gone, nodes release what they hold for it.
 *
 * Pure: time arrives as an argument, and nodes as a list.
 *
 * @module
 */

import type { Bundle, BundleMessage, Demand, GroupSpec } from "../core/groups.ts";
import type { TaskId } from "../core/ids.ts";
import { planBundles, type PlanNode } from "./bundle_plan.ts";

/** A node that could have bundles. Amounts in units of 1/10000. */
export interface GroupNode {
  readonly id: TaskId;
  /** What is free now. */
  readonly free: Demand;
  /** What would be free if all tasks ended: all but what actors and bundles hold. */
  readonly lasting: Demand;
  /** All there is. */
  readonly total: Demand;
}

/** What happens to a coordinator. Times are in milliseconds. */
export type GroupEvent =
  | { readonly type: "create"; readonly group: GroupSpec; readonly job: TaskId; readonly now: number }
  | { readonly type: "remove"; readonly id: string; readonly now: number }
  | {
    readonly type: "vote";
    readonly id: string;
    readonly attempt: number;
    readonly node: TaskId;
    readonly ok: boolean;
    readonly now: number;
  }
  | { readonly type: "nodeGone"; readonly node: TaskId; readonly now: number }
  /** Nodes may have more room, or time has passed. */
  | { readonly type: "look"; readonly now: number };

/** What a coordinator wants done. */
export type GroupEffect =
  | { readonly type: "tell"; readonly node: TaskId; readonly message: BundleMessage }
  /** The group is whole, or has lost something, or has a reason to wait; whoever waits for that is told. */
  | { readonly type: "changed"; readonly id: string }
  | { readonly type: "removed"; readonly id: string };

/** A group, as its coordinator knows it. */
export interface Group {
  readonly spec: GroupSpec;
  readonly job: TaskId;
  /** Where bundles are that are offered to tasks, by index. */
  readonly placed: ReadonlyMap<number, TaskId>;
  /** Why it is not whole; empty if it is. */
  readonly reason: string;
}

interface Entry extends Group {
  placed: Map<number, TaskId>;
  /** In which attempt each of those was reserved. */
  placedIn: Map<number, number>;
  reason: string;
  attempt: number;
  trying: Attempt | undefined;
  /** Not to be tried before this time. */
  notBefore: number;
}

interface Attempt {
  readonly plan: ReadonlyMap<number, TaskId>;
  readonly undecided: Set<TaskId>;
  readonly deadline: number;
}

/** How long nodes get to free what they were asked to reserve. */
export const RESERVE_MS_MAX = 5_000;

/** A group that was refused is tried again after this long, and up to as long again. */
const AGAIN_MS = 50;

/** Coordinates the groups that programs of one node made. */
export class GroupCoordinator {
  readonly #groups = new Map<string, Entry>();
  readonly #nodes: () => readonly GroupNode[];
  #effects: GroupEffect[] = [];

  /** @param nodes The nodes there are now. */
  constructor(nodes: () => readonly GroupNode[]) {
    this.#nodes = nodes;
  }

  /** A group, if there is such a one. */
  get(id: string): Group | undefined {
    return this.#groups.get(id);
  }

  /** All groups. */
  groups(): Iterable<Group> {
    return this.#groups.values();
  }

  /** Whether anything waits to be reserved. */
  get busy(): boolean {
    for (const { spec, placed } of this.#groups.values()) if (placed.size < spec.bundles.length) return true;
    return false;
  }

  /** Takes an event. @returns What is to be done, in order. */
  step(event: GroupEvent): GroupEffect[] {
    const effects: GroupEffect[] = this.#effects = [];
    switch (event.type) {
      case "create": {
        const { group: spec, job } = event;
        if (this.#groups.has(spec.id)) break; // it was asked for before
        this.#groups.set(spec.id, {
          spec,
          job,
          placed: new Map(),
          placedIn: new Map(),
          reason: "",
          attempt: 0,
          trying: undefined,
          notBefore: 0,
        });
        break;
      }
      case "remove":
        this.#remove(event.id);
        break;
      case "vote":
        this.#vote(event);
        break;
      case "nodeGone":
        this.#nodeGone(event.node, event.now);
        break;
      case "look":
        break;
    }
    this.#try(event.now);
    return effects;
  }

  #remove(id: string): void {
    const entry = this.#groups.get(id);
    if (entry === undefined) return;
    this.#groups.delete(id);
    const nodes = new Set([...entry.placed.values(), ...entry.trying?.plan.values() ?? []]);
    for (const node of nodes) this.#tell(node, { kind: "release", group: id, attempt: 0 });
    this.#effects.push({ type: "removed", id });
  }

  #vote({ id, attempt, node, ok, now }: Extract<GroupEvent, { type: "vote" }>): void {
    const entry = this.#groups.get(id);
    if (entry !== undefined && !ok) this.#takeBack(entry, node, attempt);
    if (entry?.trying === undefined || entry.attempt !== attempt) return;
    if (!ok) return this.#giveUp(entry, now);
    const { undecided, plan } = entry.trying;
    undecided.delete(node);
    if (undecided.size > 0) return;
    entry.trying = undefined;
    for (const [index, where] of plan) {
      entry.placed.set(index, where);
      entry.placedIn.set(index, attempt);
    }
    entry.reason = "";
    for (const where of new Set(plan.values())) this.#tell(where, { kind: "commit", group: id, attempt });
    this.#effects.push({ type: "changed", id });
  }

  /** A node could not commit what it had reserved: it had given that back. */
  #takeBack(entry: Entry, node: TaskId, attempt: number): void {
    const before = entry.placed.size;
    for (const [index, where] of entry.placed) {
      if (where === node && entry.placedIn.get(index) === attempt) entry.placed.delete(index);
    }
    if (entry.placed.size === before) return;
    entry.reason = "a node has given back some of its bundles";
    this.#effects.push({ type: "changed", id: entry.spec.id });
  }

  #giveUp(entry: Entry, now: number): void {
    const { spec: { id }, attempt, trying } = entry;
    entry.trying = undefined;
    for (const node of new Set(trying!.plan.values())) {
      this.#tell(node, { kind: "release", group: id, attempt });
    }
    entry.notBefore = now + AGAIN_MS + jitter(id, attempt) * AGAIN_MS;
  }

  #nodeGone(node: TaskId, now: number): void {
    for (const entry of this.#groups.values()) {
      if (entry.trying !== undefined && [...entry.trying.plan.values()].includes(node)) {
        this.#giveUp(entry, now);
      }
      const before = entry.placed.size;
      for (const [index, where] of entry.placed) if (where === node) entry.placed.delete(index);
      if (entry.placed.size === before) continue;
      entry.reason = "a node that had some of its bundles is gone";
      this.#effects.push({ type: "changed", id: entry.spec.id });
    }
  }

  /** Tries groups that are not whole, one at a time. */
  #try(now: number): void {
    for (const entry of this.#groups.values()) {
      if (entry.trying === undefined) continue;
      if (now < entry.trying.deadline) return;
      this.#giveUp(entry, now);
    }
    for (const entry of this.#groups.values()) {
      if (entry.placed.size === entry.spec.bundles.length || now < entry.notBefore) continue;
      const plan = this.#plan(entry);
      if (plan === undefined) continue;
      this.#reserve(entry, plan, now);
      return;
    }
  }

  #plan(entry: Entry): Map<number, TaskId> | undefined {
    const { spec, placed } = entry;
    const missing = bundlesOf(spec).filter(({ index }) => !placed.has(index));
    const nodes = this.#nodes();
    const plan = (room: (node: GroupNode) => Demand) => {
      const rooms: PlanNode[] = nodes.map((node) => ({ id: node.id, room: room(node) }));
      return planBundles(spec.strategy, missing, placed, rooms);
    };
    const found = plan(({ free }) => free) ?? plan(({ lasting }) => lasting);
    if (found !== undefined) return found;
    const reason = plan(({ total }) => total) !== undefined
      ? "actors or other groups hold what it asks for"
      : `no ${
        spec.strategy.startsWith("STRICT") ? `node, or set of nodes for ${spec.strategy},` : "set of nodes"
      } ` +
        `has what it asks for`;
    if (reason !== entry.reason) {
      entry.reason = reason;
      this.#effects.push({ type: "changed", id: spec.id });
    }
    return undefined;
  }

  #reserve(entry: Entry, plan: ReadonlyMap<number, TaskId>, now: number): void {
    const { spec } = entry;
    const attempt = ++entry.attempt;
    const undecided = new Set(plan.values());
    entry.trying = { plan, undecided, deadline: now + RESERVE_MS_MAX };
    for (const node of [...undecided]) {
      const bundles = bundlesOf(spec).filter(({ index }) => plan.get(index) === node);
      this.#tell(node, { kind: "reserve", group: spec.id, name: spec.name, attempt, bundles });
    }
  }

  #tell(node: TaskId, message: BundleMessage): void {
    this.#effects.push({ type: "tell", node, message });
  }
}

function bundlesOf({ bundles }: GroupSpec): Bundle[] {
  return bundles.map((demand, index) => ({ index, demand }));
}

/** A number from 0 to 1 that differs between groups and attempts. */
function jitter(id: string, attempt: number): number {
  return ((parseInt(id.slice(0, 8), 16) ^ Math.imul(attempt, 0x9e3779b1)) >>> 0) / 0x1_0000_0000;
}
