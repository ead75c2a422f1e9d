/**
 * Garbage collection on purpose: a Ref that nobody uses holds its object until the engine finds out, and the engine,
 * which does not see memory of the store, has no reason to look.
 *
 * The call to ask it by, `gc()`, is there only with the flag `--expose-gc`, which the executable has built in. Without
 * it there is a way that takes at least twice as long: before the engine refuses a buffer that the machine has no memory
 * for, it collects all garbage there is, several times over, and tries again (V8, `Heap::AllocateExternalBackingStore`).
 * So a buffer is asked for that no machine could give.
 *
 * Most of what is let go of was made a moment ago. With the flag, the engine can be asked to look at what is young only,
 * which takes 0.3 ms instead of 10: where that is enough, nothing more is done.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";

/** The longest that a buffer may be; beyond it, the engine refuses without looking for memory. */
const IMPOSSIBLE_BYTES = Number.MAX_SAFE_INTEGER;

/** The engine's own call, which is there with the flag `--expose-gc`. */
const { gc } = globalThis as { gc?: (options?: { readonly type: "minor" }) => void };

/** The collection that is under way, and the one that has not looked yet. */
let running: Promise<void> | undefined;
let next: Promise<void> | undefined;
let lastMs = 0;

/** How long the last collection took, in milliseconds: it grows with the program's heap. */
export function collectionMs(): number {
  return lastMs;
}

/**
 * Makes the engine collect garbage and run finalizers. Calls share a collection that has not looked yet; one that has
 * would not see what was let go of since.
 *
 * @param clock Where turns of the event loop come from.
 */
export function collectGarbage(clock: Clock): Promise<void> {
  return next ??= (async () => {
    await running;
    await (running = collect(clock));
  })();
}

/** As {@link collectGarbage}, of what was made lately; nothing where the engine cannot be asked for that. */
export async function collectYoung(clock: Clock): Promise<void> {
  if (gc === undefined) return;
  await clock.turn();
  gc({ type: "minor" });
  await clock.turn();
  await clock.turn();
}

/** As {@link collectYoung}, at once: what is let go of is told in a later turn. */
export function collectYoungNow(): void {
  gc?.({ type: "minor" });
}

async function collect(clock: Clock): Promise<void> {
  // What the running turn has touched is kept alive until its end.
  await clock.turn();
  next = undefined;
  const started = clock.now();
  if (gc !== undefined) gc();
  else {
    try {
      new ArrayBuffer(IMPOSSIBLE_BYTES);
    } catch {
      // As expected.
    }
  }
  lastMs = clock.now() - started;
  // Finalizers have a turn of their own, and the store's may have let go of what others wait for.
  await clock.turn();
  await clock.turn();
}
