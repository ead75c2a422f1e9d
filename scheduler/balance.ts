/**
 * When a node gives waiting tasks away, and how many: the threshold of the bottom-up scheduler.
 *
 * A node keeps what it can start soon, for sending a task elsewhere costs more than a short wait. It gives tasks away, the
 * youngest first, while what waits would take too long; and also when the estimates say that the wait is short, but some
 * task has waited for too long all the same (the estimates are means, and the means may be of other tasks). Then only a
 * node that is as good as idle will do, since the estimate of the others is worth as little.
 *
 * A task that could start here at once, but whose large arguments lie elsewhere, goes to where they are if bringing them
 * would take longer.
 *
 * The same code decides in a node (`node/cluster.ts`) and in the simulator. Pure: no clock, no sockets.
 *
 * @module
 */

import { BANDWIDTH } from "./global.ts";

/** What waits on a node for its isolates. */
export interface Backlog {
  /** Tasks that wait. */
  readonly queued: number;
  /** How long the one that waits longest has waited, in milliseconds. */
  readonly waitedMs: number;
  /** How long a task takes, in milliseconds. */
  readonly meanMs: number;
  /** How many tasks of one CPU run at once. */
  readonly lanes: number;
}

/** What balancing needs of a node, over tasks of type `T` and nodes of type `N`. */
export interface Balanced<T, N> {
  backlog(): Backlog;
  /** Takes a waiting task out of the local scheduler, if there is one that is accepted. */
  giveAway(accept: (task: T) => boolean): T | undefined;
  /** A node where a task would start in less than `limitMs`, if there is one and the task may leave. */
  place(task: T, limitMs: number): N | undefined;
  /** Sends a task that was given away. */
  delegate(task: T, target: N): void;
}

/** A wait that is no reason to send a task elsewhere, in milliseconds. */
export const SPILL_WAIT_MS = 5;

/** Where a task starts sooner than this, the node is as good as idle. In milliseconds. */
export const IDLE_ONLY_MS = 2;

/** How soon a task must start elsewhere for it to be given away, in milliseconds; 0 while there is no reason to. */
export function spillLimitMs({ queued, waitedMs, meanMs, lanes }: Backlog): number {
  if (queued === 0) return 0;
  const waitMs = queued / lanes * meanMs;
  if (waitMs > SPILL_WAIT_MS) return waitMs;
  return waitedMs > SPILL_WAIT_MS ? IDLE_ONLY_MS : 0;
}

/**
 * How soon a task must start elsewhere for it to go where its arguments are, rather than wait here for them to be brought;
 * in milliseconds. 0 while bringing them is no reason to.
 *
 * @param missingBytes Bytes of its arguments that are not here.
 */
export function farLimitMs({ queued, meanMs, lanes }: Backlog, missingBytes: number): number {
  const bringMs = missingBytes / BANDWIDTH;
  return bringMs > SPILL_WAIT_MS ? bringMs + queued / lanes * meanMs : 0;
}

/**
 * Gives waiting tasks to nodes where they start sooner, until there is no reason to, or no such node.
 *
 * @param most How many at most: with many nodes each takes a while, in which the node does nothing else.
 * @returns Whether there may be more to give.
 */
export function balance<T, N>(node: Balanced<T, N>, most = Infinity): boolean {
  for (let given = 0;; given++) {
    if (given >= most) return true;
    const limitMs = spillLimitMs(node.backlog());
    if (limitMs === 0) return false;
    let target: N | undefined;
    const task = node.giveAway((task) => {
      target = node.place(task, limitMs);
      return target !== undefined;
    });
    if (task === undefined) return false;
    node.delegate(task, target!);
  }
}
