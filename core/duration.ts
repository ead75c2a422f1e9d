/**
 * Durations, as people write them: a number of milliseconds, or a number with a unit.
 *
 * @module
 */

import { UsageError } from "./errors.ts";

/** A span of time: a number of milliseconds, or text such as `"500ms"`, `"3s"`, `"2m"`, `"1h"`. */
export type Duration = number | `${number}${"ms" | "s" | "m" | "h"}`;

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * The milliseconds of a duration.
 *
 * @param duration What to read.
 * @param name What the duration is for, in an error's words.
 * @returns Milliseconds, not negative; may be `Infinity`.
 * @throws {UsageError} If it is not a duration.
 */
export function durationMs(duration: Duration, name = "duration"): number {
  if (typeof duration === "number" && duration >= 0) return duration;
  const match = typeof duration === "string" ? /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(duration) : null;
  if (match) return Number(match[1]) * UNIT_MS[match[2]!]!;
  throw new UsageError(
    `Cannot read ${name}: ${show(duration)} is neither a number of milliseconds nor ` +
      `text such as "500ms", "3s", "2m" or "1h"`,
  );
}

/** What was given instead of a duration; it may be anything. */
function show(given: unknown): string {
  if (typeof given === "string") return JSON.stringify(given);
  return typeof given === "object" && given !== null ? "an object" : String(given);
}
