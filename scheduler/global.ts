/**
 * The global scheduler: which node a task should run on that its own node passes up.
 *
 * As in the Ray paper (section 4.2.2): among the nodes that could ever satisfy the request, the one with the least
 * expected wait, which is what waits there already, times how long such tasks take, and the time to bring the arguments
 * there that it lacks. It keeps nothing that cannot be told anew: any number may run, each on reports of its own age. Here
 * every node runs one, so that passing a task up costs no message, and scheduling goes on while the head is away.
 *
 * Of nodes that are equally good the first is chosen, and each node looks at the others in an order of its own: from its
 * own id on, and round. If all looked at them in the same order, all would choose the same one between two reports.
 *
 * Reports are some tens of milliseconds old, and all nodes would rush to the one that was idle then. So what this node
 * itself sent lately is counted on top of the reports, and each newly sent task makes its target less attractive.
 *
 * Pure: time arrives as an argument.
 *
 * @module
 */

import type { TaskId } from "../core/ids.ts";
import { CPU, RESOURCE_UNIT } from "../core/options.ts";

/** A node, as it introduced itself. */
export interface NodeDescription {
  readonly id: TaskId;
  /** All that it has, in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  /** It is about to end: it takes nothing new. */
  readonly draining?: boolean;
}

/** How a node said it is loaded. */
export interface NodeLoad {
  /** What of its resources is free, in units of 1/10000. */
  readonly free: Readonly<Record<string, number>>;
  /** How many tasks wait there for an isolate, and how long a task takes there, in milliseconds. */
  readonly queued: number;
  readonly meanMs: number;
  /** What would be free if all tasks ended. Default: as `free`. */
  readonly lasting?: Readonly<Record<string, number>>;
}

/** A request for a place. */
export interface PlaceRequest {
  readonly demand: Readonly<Record<string, number>>;
  /** How long the task takes, as far as is known, in milliseconds. */
  readonly expectedMs: number;
  /** Only a node with a shorter expected wait than this, in milliseconds, is of use. */
  readonly betterThanMs: number;
  /** Bytes of arguments that a node would have to be sent. */
  readonly missingBytes: (node: TaskId) => number;
  /** Whether a node may be chosen at all. */
  readonly eligible?: (node: NodeDescription) => boolean;
}

/** Reports are older than what was sent in so many milliseconds before them. */
const REPORT_AGE_MS = 40;

/** How fast arguments are taken to travel, in bytes a millisecond. */
export const BANDWIDTH = 1e6;

/** How long a task is expected to wait for CPUs that actors hold: nobody knows, but anything else is better. */
export const HELD_MS = 60_000;

/** What it costs to send a task to another node at all. */
const HOP_MS = 1;

interface View {
  node: NodeDescription;
  free: Record<string, number>;
  lasting: Readonly<Record<string, number>>;
  /** CPUs that its actors and groups leave to tasks. */
  cpusLeft: number;
  queued: number;
  meanMs: number;
  /** What was sent there and is not in its reports yet, oldest first. */
  sent: { at: number; demand: Readonly<Record<string, number>> }[];
}

/** Chooses nodes. */
export class GlobalScheduler {
  readonly #self: TaskId;
  readonly #views = new Map<TaskId, View>();
  /** The same, in the order in which this node looks at them. */
  readonly #ring: View[] = [];
  /** How many nodes the last place was chosen from: its price. */
  looked = 0;

  /** @param self The node that chooses. */
  constructor(self: TaskId) {
    this.#self = self;
  }

  /** Where in the ring a node is, or would be. */
  #at(id: TaskId): number {
    const behind = id > this.#self;
    let low = 0, high = this.#ring.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.#ring[middle]!.node.id;
      const before = other > this.#self === behind ? other < id : other > this.#self;
      if (before) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The nodes that are known. */
  nodes(): NodeDescription[] {
    return Array.from(this.#views.values(), ({ node }) => node);
  }

  /** A node has joined, or says something else of itself. */
  join(node: NodeDescription): void {
    const known = this.#views.get(node.id);
    if (known !== undefined) {
      known.node = node;
      return;
    }
    const free = { ...node.resources };
    const view: View = {
      node,
      free,
      lasting: node.resources,
      cpusLeft: Infinity,
      queued: 0,
      meanMs: 1,
      sent: [],
    };
    this.#views.set(node.id, view);
    this.#ring.splice(this.#at(node.id), 0, view);
  }

  /** A node is gone. */
  leave(id: TaskId): void {
    if (this.#views.delete(id)) this.#ring.splice(this.#at(id), 1);
  }

  /** A node has reported how it is loaded. */
  report(id: TaskId, load: NodeLoad, now: number): void {
    const view = this.#views.get(id);
    if (view === undefined) return;
    view.free = { ...load.free };
    view.lasting = load.lasting ?? load.free;
    view.cpusLeft = load.lasting?.[CPU] ?? Infinity;
    view.queued = load.queued;
    view.meanMs = load.meanMs;
    view.sent = view.sent.filter(({ at }) => now - at < REPORT_AGE_MS);
    for (const { demand } of view.sent) charge(view, demand);
  }

  /** What a node has free, as far as is known. */
  free(id: TaskId): Readonly<Record<string, number>> {
    return this.#views.get(id)?.free ?? {};
  }

  /** What a node would have free if all tasks ended, as far as is known. */
  lasting(id: TaskId): Readonly<Record<string, number>> {
    return this.#views.get(id)?.lasting ?? {};
  }

  /** Whether actors of a node leave it the CPUs that a task asks for, as far as is known. */
  fitsBesideActors(id: TaskId, demand: Readonly<Record<string, number>>): boolean {
    return (demand[CPU] ?? 0) <= (this.#views.get(id)?.cpusLeft ?? 0);
  }

  /** Whether any node could ever run a task with such a demand. */
  feasible(demand: Readonly<Record<string, number>>): boolean {
    for (const { node } of this.#views.values()) if (fits(demand, node.resources)) return true;
    return false;
  }

  /** The node for a task, which is then counted as sent there; `undefined` when none is better than waiting. */
  place(request: PlaceRequest, now: number): TaskId | undefined {
    let best: View | undefined;
    let bestMs = request.betterThanMs;
    this.looked = 0;
    for (let i = 0; i < this.#ring.length; i++) {
      this.looked++;
      const view = this.#ring[i]!;
      if (view.node.draining || !fits(request.demand, view.node.resources)) continue;
      if (request.eligible !== undefined && !request.eligible(view.node)) continue;
      const ms = waitOf(view, request) + HOP_MS + request.missingBytes(view.node.id) / BANDWIDTH;
      if (ms >= bestMs) continue;
      best = view;
      bestMs = ms;
      if (ms === HOP_MS) break; // no other one can be better
    }
    if (best === undefined) return undefined;
    charge(best, request.demand);
    best.sent.push({ at: now, demand: request.demand });
    return best.node.id;
  }
}

/** How long a task would wait on a node before it starts. */
function waitOf(view: View, { demand, expectedMs }: PlaceRequest): number {
  if (view.queued === 0 && fits(demand, view.free)) return 0;
  const held = (demand[CPU] ?? 0) > view.cpusLeft ? HELD_MS : 0;
  const lanes = Math.max(1, (view.node.resources[CPU] ?? 0) / RESOURCE_UNIT);
  // Those before it, and what runs now: half of one, on the average.
  return held + (view.queued / lanes + 0.5) * Math.max(view.meanMs, expectedMs);
}

function charge(view: View, demand: Readonly<Record<string, number>>): void {
  if (view.queued > 0 || !fits(demand, view.free)) {
    view.queued++;
    return;
  }
  for (const name in demand) view.free[name] = view.free[name]! - demand[name]!;
}

function fits(demand: Readonly<Record<string, number>>, there: Readonly<Record<string, number>>): boolean {
  for (const name in demand) if ((there[name] ?? 0) < demand[name]!) return false;
  return true;
}
