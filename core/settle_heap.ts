/**
 * What a start leaves behind: code that ran once, and what it made, which the engine would keep until something happens.
 * A node that waits for programs is a few megabytes smaller without.
 *
 * @module
 */

import type { Clock } from "./clock.ts";

/** The engine's own call, which is there with the flag `--expose-gc`. */
const { gc } = globalThis as {
  gc?: (
    options: { readonly type: "major"; readonly execution: "sync"; readonly flavor: "last-resort" },
  ) => void;
};

/** How long after a start. */
const STARTED_MS = 1_000;

/** Collects what this isolate's start has left, in a moment: also code that has not run since. Nothing without the flag. */
export function settleHeap(clock: Clock): void {
  clock.after(STARTED_MS, () => gc?.({ type: "major", execution: "sync", flavor: "last-resort" }));
}
