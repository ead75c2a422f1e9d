/**
 * Where a task, or an actor, goes that is not simply kept: by labels, by preference, spread over nodes, with the first
 * alternative that fits, to where its arguments are, or just where it starts soonest (`scheduler/global.ts`).
 *
 * @module
 */

import { hex, type TaskId } from "../core/ids.ts";
import { CPU } from "../core/options.ts";
import {
  isPreferred,
  mayRunOn,
  type PlacedNode,
  type Placement,
  prefersSome,
  showPlacement,
} from "../core/placement.ts";
import { farLimitMs, IDLE_ONLY_MS } from "../scheduler/balance.ts";
import { type Candidate, FairShares } from "../scheduler/fair_shares.ts";
import { GlobalScheduler, type NodeDescription } from "../scheduler/global.ts";
import { type Shape, showShape } from "../scheduler/resources.ts";
import type { ClusterServices } from "./cluster.ts";
import type { TaskRecord } from "./tasks.ts";

/** How long a task would wait for a node that it prefers, in milliseconds. */
const PREFERRED_WAIT_MS = 100;

/** Chooses nodes for what this node has. */
export class Placing {
  readonly global: GlobalScheduler;
  readonly #node: ClusterServices;
  /** The connection to a node, if there is one. */
  readonly #connection: (node: TaskId) => number | undefined;
  readonly #self: PlacedNode;
  /** What each node was given, of tasks that are to be spread: by kind. */
  readonly #shares = new Map<number, FairShares<TaskId>>();

  /** @param node What it needs of its node. @param connection The connection to a node, if there is one. */
  constructor(node: ClusterServices, connection: (node: TaskId) => number | undefined) {
    this.#node = node;
    this.#connection = connection;
    this.#self = { id: hex(node.id), labels: node.labels };
    this.global = new GlobalScheduler(node.id);
  }

  /** A node where a task would start sooner since it has what the task reads, and this one would have to bring it. */
  whereItsArgumentsAre(task: TaskRecord): TaskId | undefined {
    if (task.dependencies.length === 0) return undefined;
    const limitMs = farLimitMs(this.#node.backlog(), this.#missingHere(task));
    return limitMs === 0 ? undefined : this.place(task, limitMs);
  }

  /** Bytes of arguments that lie on other nodes only. */
  #missingHere(task: TaskRecord): number {
    let bytes = 0;
    for (let i = 0; i < task.dependencies.length; i++) {
      const record = this.#node.directory.get(task.dependencies[i]!);
      if (record?.home === undefined || record.outcome?.kind !== "stored") continue;
      if (!this.#node.isHere(record)) bytes += record.outcome.size;
    }
    return bytes;
  }

  /** A node that has at once what a task would rather have than what this one has. */
  betterAlternative(task: TaskRecord): TaskId | undefined {
    for (const shape of task.asked.alternatives) {
      if (this.#node.pool.fits(shape)) return undefined;
      const target = this.#placeShape(task, shape, IDLE_ONLY_MS);
      if (target !== undefined) return target;
    }
    return undefined;
  }

  /** Of all nodes that may run a task, the one that was given the fewest such tasks for its size. */
  spread(task: TaskRecord, here: boolean): TaskId | undefined {
    const key = task.entry.index;
    let shares = this.#shares.get(key);
    if (shares === undefined) this.#shares.set(key, shares = new FairShares());
    const candidates: (Candidate<TaskId> & { readonly held: boolean })[] = [];
    const { pool, id } = this.#node;
    if (here) {
      candidates.push({ id, cpus: pool.total()[CPU] ?? 0, held: !pool.fitsBesideActors(task.asked) });
    }
    for (const node of this.global.nodes()) {
      if (!node.draining && this.#connection(node.id) !== undefined && fitsNode(task, node)) {
        const held = !task.asked.alternatives.some(({ demand }) =>
          this.global.fitsBesideActors(node.id, demand)
        );
        candidates.push({ id: node.id, cpus: node.resources[CPU] ?? 0, held });
      }
    }
    // Where actors hold what it asks for, it would wait for their end.
    const able = candidates.filter(({ held }) => !held);
    return shares.choose(able.length > 0 ? able : candidates);
  }

  /** A node that a task would rather be on, and that has room. */
  preferred(task: TaskRecord, placement: Placement, here: boolean): TaskId | undefined {
    if (!prefersSome(placement)) return undefined;
    if (here && isPreferred(placement, this.#self)) return this.#node.id;
    return this.place(task, PREFERRED_WAIT_MS, (node) => isPreferred(placement, placedNode(node)));
  }

  /** Where a task goes: with the first alternative that a node has at once, or else the first that one has. */
  place(
    task: TaskRecord,
    betterThanMs: number,
    eligible?: (node: NodeDescription) => boolean,
  ): TaskId | undefined {
    const { alternatives } = task.asked;
    if (alternatives.length > 1) {
      for (const shape of alternatives) {
        const target = this.#placeShape(task, shape, Math.min(betterThanMs, IDLE_ONLY_MS), eligible);
        if (target !== undefined) return target;
      }
    }
    for (let i = 0; i < alternatives.length; i++) {
      const target = this.#placeShape(task, alternatives[i]!, betterThanMs, eligible);
      if (target !== undefined) return target;
    }
    return undefined;
  }

  #placeShape(
    task: TaskRecord,
    shape: Shape,
    betterThanMs: number,
    eligible: (node: NodeDescription) => boolean = () => true,
  ): TaskId | undefined {
    const { placement } = task.entry.settings;
    return this.global.place({
      eligible: (node) =>
        this.#connection(node.id) !== undefined && mayRunOn(placement, placedNode(node)) && eligible(node),
      demand: shape.demand,
      expectedMs: task.expectedMs(),
      betterThanMs,
      missingBytes: (node) => this.#missingBytes(task, node),
    }, this.#node.now());
  }

  #missingBytes(task: TaskRecord, node: TaskId): number {
    let bytes = task.args.kind === "stored" ? task.args.size : 0;
    const there = this.#connection(node);
    for (let i = 0; i < task.dependencies.length; i++) {
      const record = this.#node.directory.get(task.dependencies[i]!);
      if (record?.outcome?.kind === "stored" && record.home !== there) bytes += record.outcome.size;
    }
    return bytes;
  }
}

/** What a task asks for that no node has. */
export function lacking({ asked, entry }: TaskRecord): string {
  return `it asks for ${showShape(asked)}${showPlacement(entry.settings.placement)}, and no node has that`;
}

function placedNode({ id, labels }: NodeDescription): PlacedNode {
  return { id: hex(id), labels };
}

/** Whether a task may ever run on a node. */
function fitsNode({ asked, entry }: TaskRecord, node: NodeDescription): boolean {
  const fits = asked.alternatives.some(({ demand }) => {
    for (const name in demand) if ((node.resources[name] ?? 0) < demand[name]!) return false;
    return true;
  });
  return fits && mayRunOn(entry.settings.placement, placedNode(node));
}
