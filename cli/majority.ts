/**
 * Waiting for other members of the control store, when a head or a worker is started on what it has of one: what it has
 * may be old, so it does nothing until a majority says what is new. That may take as long as it takes to start the others,
 * so for a while it says what it waits for; and then it is an error.
 *
 * @module
 */

import { lackingOf, noMajority, outOfDate } from "../gcs/quorum.ts";
import type { ControlStore } from "./control_store.ts";
import { complain } from "./output.ts";

/** How long a majority is waited for; and for how long without saying so. */
const MAJORITY_MS_MAX = 30_000, QUIET_MS = 3_000;

/** Starts what needs the control store. @throws {NoMajorityError} If too few of its members answer in time. */
export async function withMajority<T>(
  store: ControlStore,
  directory: string,
  start: () => Promise<T>,
): Promise<T> {
  const given = Promise.withResolvers<never>();
  const why = async () => {
    const quorum = await store.quorum();
    if (quorum === undefined) return undefined;
    return quorum.hasPart || lackingOf(quorum) === 0 ? noMajority(quorum) : outOfDate(directory, quorum);
  };
  const timers = [
    setTimeout(async () => {
      const error = await why();
      if (error !== undefined) {
        complain(`rayd: waiting ${MAJORITY_MS_MAX / 1000} s for others. ${error.message}\n`);
      }
    }, QUIET_MS),
    setTimeout(
      async () => given.reject(await why() ?? noMajority({ answering: [], missing: [] })),
      MAJORITY_MS_MAX,
    ),
  ];
  try {
    return await Promise.race([start(), given.promise]);
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}
