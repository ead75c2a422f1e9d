/**
 * On which nodes the bundles of a placement group go.
 *
 * A plan is made on what the planner knows of nodes, which may be old; the nodes decide themselves whether they have
 * room, and a plan that one of them refuses is made anew. Strict strategies are exact: if the nodes as they are known can
 * hold the bundles, a plan is found. (`STRICT_SPREAD` is a matching of bundles and nodes, found by augmenting paths: H. W.
 * Kuhn, "The Hungarian method for the assignment problem", 1955.) `PACK` and `SPREAD` are preferences: the largest
 * bundles choose first, and the plan may use more, or fewer, nodes than the best one would.
 *
 * Pure.
 *
 * @module
 */

import type { TaskId } from "../core/ids.ts";
import type { Bundle, Demand, Strategy } from "../core/groups.ts";

/** A node with what bundles could have of it, in units of 1/10000. */
export interface PlanNode {
  readonly id: TaskId;
  readonly room: Demand;
}

/**
 * Places bundles.
 *
 * @param bundles Those that are to be placed.
 * @param kept Where other bundles of the group are already, by index.
 * @returns Nodes by bundle index; `undefined` if the nodes cannot hold the bundles in that way.
 */
export function planBundles(
  strategy: Strategy,
  bundles: readonly Bundle[],
  kept: ReadonlyMap<number, TaskId>,
  nodes: readonly PlanNode[],
): Map<number, TaskId> | undefined {
  switch (strategy) {
    case "STRICT_PACK":
      return packed(bundles, kept.size > 0 ? nodes.filter(({ id }) => [...kept.values()][0] === id) : nodes);
    case "PACK":
      return packed(bundles, nodes) ?? greedy(bundles, kept, nodes, "few");
    case "STRICT_SPREAD": {
      const taken = new Set(kept.values());
      return matched(bundles, nodes.filter(({ id }) => !taken.has(id)));
    }
    case "SPREAD":
      return greedy(bundles, kept, nodes, "many");
  }
}

/** All on one node: the one that would have the least left. */
function packed(bundles: readonly Bundle[], nodes: readonly PlanNode[]): Map<number, TaskId> | undefined {
  const all: Record<string, number> = {};
  for (const { demand } of bundles) for (const name in demand) all[name] = (all[name] ?? 0) + demand[name]!;
  let best: PlanNode | undefined;
  for (const node of nodes) {
    if (fits(all, node.room) && (best === undefined || size(node.room) < size(best.room))) best = node;
  }
  return best === undefined ? undefined : new Map(bundles.map(({ index }) => [index, best.id]));
}

/** The largest bundles first, each where most, or fewest, of the group are. */
function greedy(
  bundles: readonly Bundle[],
  kept: ReadonlyMap<number, TaskId>,
  nodes: readonly PlanNode[],
  wish: "few" | "many",
): Map<number, TaskId> | undefined {
  const rooms = nodes.map(({ id, room }) => ({ id, room: { ...room }, bundles: 0 }));
  for (const id of kept.values()) {
    const node = rooms.find((node) => node.id === id);
    if (node !== undefined) node.bundles++;
  }
  const placed = new Map<number, TaskId>();
  for (const { index, demand } of [...bundles].sort((a, b) => size(b.demand) - size(a.demand))) {
    let best: typeof rooms[number] | undefined;
    for (const node of rooms) {
      if (!fits(demand, node.room)) continue;
      if (best === undefined) best = node;
      else if (wish === "many" ? node.bundles < best.bundles : prefersToPack(node, best)) best = node;
    }
    if (best === undefined) return undefined;
    best.bundles++;
    for (const name in demand) best.room[name] = best.room[name]! - demand[name]!;
    placed.set(index, best.id);
  }
  return placed;
}

/** A node that has some of the group goes before one that has none; among those, the one with the most room. */
function prefersToPack(
  node: { readonly room: Demand; readonly bundles: number },
  other: { readonly room: Demand; readonly bundles: number },
): boolean {
  if (node.bundles > 0 !== other.bundles > 0) return node.bundles > 0;
  return size(node.room) > size(other.room);
}

/** Each on a node of its own. */
function matched(bundles: readonly Bundle[], nodes: readonly PlanNode[]): Map<number, TaskId> | undefined {
  const holder = new Map<TaskId, Bundle>();
  const place = (bundle: Bundle, tried: Set<TaskId>): boolean => {
    for (const { id, room } of nodes) {
      if (tried.has(id) || !fits(bundle.demand, room)) continue;
      tried.add(id);
      const before = holder.get(id);
      if (before === undefined || place(before, tried)) {
        holder.set(id, bundle);
        return true;
      }
    }
    return false;
  };
  if (!bundles.every((bundle) => place(bundle, new Set()))) return undefined;
  return new Map(Array.from(holder, ([id, { index }]) => [index, id]));
}

function fits(demand: Demand, room: Demand): boolean {
  for (const name in demand) if ((room[name] ?? 0) < demand[name]!) return false;
  return true;
}

/** Amounts of different kinds are added up: an order is all that is wanted, and memory must not outweigh the rest. */
function size(amounts: Demand): number {
  let sum = 0;
  for (const name in amounts) sum += Math.log2(1 + Math.max(0, amounts[name]!));
  return sum;
}
