/**
 * What a node does when its memory runs out: it stops work, before the kernel stops whatever it likes.
 *
 * The newest work goes first, as the least is lost with it: of the processes all of whose tasks can be run again, the one
 * that began something last; then those whose tasks cannot; then actors that are built again from their log. One at a time:
 * what was freed shows only after a while. What is stopped counts as a failed attempt, so a task that wants more than there
 * is fails in the end, with an error that says who used what; others succeed when there is room again.
 *
 * Pure.
 *
 * @module
 */

/** A process that runs tasks or actors. */
export interface MemoryUser {
  /** Its isolate's number. */
  readonly isolate: number;
  /** What it has for itself, in bytes. */
  readonly bytes: number;
  /** The names of what runs there. */
  readonly runs: readonly string[];
  readonly kind: "tasks" | "actors";
  /** All that runs there can be run again, or built again. */
  readonly again: boolean;
  /** When it began what it began last, in milliseconds. */
  readonly began: number;
}

/** How it stands with a node's memory. */
export interface MemorySample {
  readonly usedBytes: number;
  readonly limitBytes: number;
  readonly users: readonly MemoryUser[];
}

/** What is to be stopped, and why, in words. */
export interface MemoryVerdict {
  readonly isolate: number;
  readonly reason: string;
}

/** From this part of the limit on, work is stopped. */
export const MEMORY_FULL = 0.95;

/** How long what was stopped is given to be gone. */
const REST_MS = 500;

/** How many users of memory are named. */
const NAMED_MAX = 5;

/** Looks after a node's memory. */
export class MemoryGuard {
  #notBefore = -Infinity;

  /** Looks at a sample. @param now Milliseconds. @returns What is to be stopped, if anything is. */
  look({ usedBytes, limitBytes, users }: MemorySample, now: number): MemoryVerdict | undefined {
    if (usedBytes < limitBytes * MEMORY_FULL || now < this.#notBefore) return undefined;
    const rank = ({ kind, again }: MemoryUser) => kind === "tasks" ? again ? 0 : 1 : again ? 2 : 3;
    const [victim] = users.filter((user) => user.runs.length > 0 && rank(user) < 3)
      .sort((a, b) => rank(a) - rank(b) || b.began - a.began);
    if (victim === undefined) return undefined;
    this.#notBefore = now + REST_MS;
    const most = [...users].sort((a, b) => b.bytes - a.bytes).slice(0, NAMED_MAX)
      .map(({ bytes, runs, isolate }) =>
        `${size(bytes)} isolate ${isolate}${runs.length === 0 ? "" : ` (${names(runs)})`}`
      );
    return {
      isolate: victim.isolate,
      reason:
        `the node's memory ran out (${size(usedBytes)} of ${
          size(limitBytes)
        }), and isolate ${victim.isolate}, with ` +
        `${size(victim.bytes)}, had begun something last. The most was used by: ${most.join(", ")}`,
    };
  }
}

function names(runs: readonly string[]): string {
  const distinct = [...new Set(runs)];
  return distinct.length > 3
    ? `${distinct.slice(0, 3).join(", ")} and ${distinct.length - 3} more`
    : distinct.join(", ");
}

function size(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
