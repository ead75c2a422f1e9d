/**
 * Garbage collection on purpose: a Ref that nobody uses holds its object until the engine finds out, and the engine,
 * which does not see memory of the store, has no reason to look.
 *
 * There is no call to ask it by. But buffers that are allocated and dropped are memory that it does see, so enough of
 * them make it look; that it has, a canary tells whose finalizer then runs.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";

/** Rounds after which the engine is taken to have its reasons. */
const ROUNDS_MAX = 8;

const canaries = new FinalizationRegistry<() => void>((collected) => collected());
let running: Promise<void> | undefined;

/**
 * Makes the engine collect garbage and run finalizers. Calls that overlap share one collection.
 *
 * @param clock Where turns of the event loop come from.
 */
export function collectGarbage(clock: Clock): Promise<void> {
  return running ??= collect(clock).finally(() => running = undefined);
}

async function collect(clock: Clock): Promise<void> {
  let collected = false;
  canaries.register({}, () => collected = true);
  // What the running turn has touched is kept alive until its end.
  await clock.turn();
  for (let round = 0; round < ROUNDS_MAX && !collected; round++) {
    for (let i = 0; i < 8; i++) new ArrayBuffer(128 * 1024 * 1024);
    await clock.turn();
  }
  await clock.turn(); // each registry's finalizers have a turn of their own
}
