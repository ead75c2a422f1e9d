/**
 * Waiting for an answer of the control store: for a while without asking why there is none, and then as long as there is
 * a reason to expect one.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { DisconnectedError, type RaydError } from "../core/errors.ts";
import { lackingOf, noMajority, type Quorum } from "./quorum.ts";

/** How long an answer is waited for at most; and how often it is looked at why there is none. */
const ANSWER_MS_MAX = 30_000, LOOK_MS = 250;

/**
 * What is answered, or why it is not.
 *
 * @param patienceMs After which it matters who answers. @param quorum Who does, as far as is known.
 * @throws {NoMajorityError} If those are too few, or if they do not agree on anything for too long.
 */
export async function answered<T>(
  answer: Promise<T>,
  clock: Clock,
  patienceMs: number,
  quorum: () => Quorum,
): Promise<T> {
  const given = Promise.withResolvers<never>();
  const since = clock.now();
  const look = () => {
    const error = whySilent(quorum(), clock.now() - since);
    if (error !== undefined) given.reject(error);
    else cancel = clock.after(LOOK_MS, look);
  };
  let cancel = clock.after(patienceMs, look);
  try {
    return await Promise.race([answer, given.promise]);
  } finally {
    cancel();
  }
}

function whySilent(quorum: Quorum, ms: number): RaydError | undefined {
  const known = quorum.answering.length + quorum.missing.length > 0;
  if (known && lackingOf(quorum) > 0) return noMajority(quorum);
  if (ms < ANSWER_MS_MAX) return undefined;
  return known ? noMajority(quorum) : new DisconnectedError(
    "The control store does not answer: what listens there has no part in it, or hangs",
  );
}
