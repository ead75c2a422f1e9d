/**
 * What a node answers when it is asked how it is.
 *
 * @module
 */

import { isBundleName } from "../core/bundles.ts";
import { hex } from "../core/ids.ts";
import type { ToNode } from "../core/messages.ts";
import { RESOURCE_UNIT } from "../core/options.ts";
import { list } from "./listing.ts";
import type { NodeParts } from "./parts.ts";

/** Counters of a node. */
export interface NodeStats {
  readonly done: number;
  readonly failed: number;
  readonly running: number;
  readonly queued: number;
  readonly waiting: number;
  readonly isolates: number;
  /** Actors that are not dead. */
  readonly actors: number;
  readonly objects: number;
  readonly store: { readonly capacity: number; readonly used: number };
  readonly spilled: { readonly bytes: number; readonly total: number };
}

/** A node's counters. */
export function stats(node: NodeParts): NodeStats {
  const store = node.store.stats();
  const { running } = node.executions.scheduler.counts();
  const { spiller } = node.objects;
  return {
    done: node.done,
    failed: node.failed,
    running,
    queued: node.tasks.size - running,
    waiting: node.executions.dependencies.size,
    isolates: node.isolates.byNumber.size,
    actors: node.actors.alive,
    objects: node.directory.size,
    store: { capacity: store.capacity, used: store.used },
    spilled: { bytes: spiller.spilledBytes, total: spiller.spilledBytesTotal },
  };
}

/** The answer to a question of a program. */
export function answer(node: NodeParts, topic: Extract<ToNode, { type: "ask" }>["topic"]): unknown {
  const others = node.cluster?.nodes() ?? [];
  switch (topic) {
    case "nodes":
      return [
        {
          id: hex(node.options.id),
          alive: true,
          labels: node.options.labels ?? {},
          resources: amounts(node.pool.total()),
          available: amounts(node.pool.free()),
          isolates: node.isolates.byNumber.size,
          storeCapacity: node.store.capacity,
        },
        ...others.map(({ node, free }) => ({
          id: hex(node.id),
          alive: true,
          labels: node.labels,
          resources: amounts(node.resources),
          available: amounts(free),
          isolates: 0,
          storeCapacity: 0,
        })),
      ];
    case "cluster":
      return amounts(sum(node.pool.total(), others.map(({ node }) => node.resources)));
    case "available":
      return amounts(sum(node.pool.free(), others.map(({ free }) => free)));
    case "stats":
      return stats(node);
    default:
      return list(node, topic);
  }
}

function amounts(units: Readonly<Record<string, number>>): Record<string, number> {
  // What bundles offer is a part of what they hold, under other names.
  const own = Object.entries(units).filter(([name]) => !isBundleName(name));
  return Object.fromEntries(own.map(([name, n]) => [name, n / RESOURCE_UNIT]));
}

/** Amounts added up, by name. */
function sum(
  first: Readonly<Record<string, number>>,
  others: readonly Readonly<Record<string, number>>[],
): Record<string, number> {
  const total: Record<string, number> = { ...first };
  for (const amounts of others) {
    for (const [name, n] of Object.entries(amounts)) total[name] = (total[name] ?? 0) + n;
  }
  return total;
}
