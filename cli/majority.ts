/**
 * Waiting for other members of the control store, when a head or a worker is started on what it has of one: what it has
 * may be old, so it does nothing until a majority says what is new. That may take as long as it takes to start the others,
 * so for a while it says what it waits for; and then it is an error.
 *
 * @module
 */

import { DisconnectedError, type RaydError } from "../core/errors.ts";
import type { GcsQuorum } from "../gcs/config.ts";
import { lackingOf, noMajority, outOfDate } from "../gcs/quorum.ts";
import type { ControlStore } from "./control_store.ts";
import { complain } from "./output.ts";

/** How long a majority is waited for, for how long without saying so, and for how long one that is there but slow. */
const MAJORITY_MS_MAX = 30_000, QUIET_MS = 3_000, SLOW_MS_MAX = 120_000;

/** How often it is looked at who is there. */
const LOOK_MS = 1_000;

/**
 * Starts what needs the control store.
 *
 * @param store A member of it. @param directory Where that lies.
 * @throws {NoMajorityError} If too few members answer in time. @throws {DisconnectedError} If nobody was found.
 */
export async function withMajority<T>(
  store: ControlStore,
  directory: string,
  start: () => Promise<T>,
): Promise<T> {
  const given = Promise.withResolvers<never>();
  const began = performance.now();
  let said = false;
  const timer = setInterval(async () => {
    const ms = performance.now() - began;
    if (ms < QUIET_MS) return;
    const error = whyNot(await store.quorum(), directory, ms > SLOW_MS_MAX);
    if (error === undefined) return;
    if (ms > MAJORITY_MS_MAX) given.reject(error);
    else if (!said) complain(`rayd: waiting ${MAJORITY_MS_MAX / 1000} s for others. ${error.message}\n`);
    said = true;
  }, LOOK_MS);
  try {
    return await Promise.race([start(), given.promise]);
  } finally {
    clearInterval(timer);
  }
}

function whyNot(quorum: GcsQuorum | undefined, directory: string, late: boolean): RaydError | undefined {
  if (quorum === undefined) {
    return new DisconnectedError(
      `Cannot reach the control store: what lies in ${directory} knows of nobody who keeps it. See that --address ` +
        `names a node that is up`,
    );
  }
  if (lackingOf(quorum) === 0) return late ? noMajority(quorum) : undefined;
  return quorum.hasPart ? noMajority(quorum) : outOfDate(directory, quorum);
}
