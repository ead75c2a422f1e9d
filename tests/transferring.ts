/**
 * What tests of transfers have in common: a node that is only its store and its transfers.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { hex, type TaskId, taskIdFromHex } from "../core/ids.ts";
import { Transfers } from "../node/transfer.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ByteStream } from "../transport/channel.ts";

/** The id of a node, or of a task. */
export const idOf = (n: number): TaskId => taskIdFromHex(n.toString(16).padStart(32, "0"));

/**
 * A node's transfers.
 *
 * @param n The node. @param pulls What is on its way to nodes, by their numbers. @param dial Connects to a node.
 */
export function transfersOf(
  n: number,
  store: ObjectStore,
  pulls: ReadonlyMap<number, Promise<unknown>>,
  dial: (to: number) => ByteStream | Promise<ByteStream>,
): Transfers {
  return new Transfers({
    id: idOf(n),
    store,
    token: "7".repeat(64),
    clock: systemClock,
    log: () => {},
    provide: async (id) => {
      if (!store.has(id)) await pulls.get(n);
      return store.has(id);
    },
    makeRoom: () => Promise.resolve(undefined),
    dial: async (node) => await dial(Number(`0x${hex(node)}`)),
  });
}
