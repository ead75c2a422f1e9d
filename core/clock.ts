/**
 * Time, as the adapters hand it out. Nothing below an adapter reads a clock or sets a timer by itself: a test passes
 * a clock that it owns.
 *
 * @module
 */

/** A source of time and of wake-ups. */
export interface Clock {
  /** Milliseconds since some fixed moment; never goes back. */
  now(): number;
  /** Calls `callback` once after `ms` milliseconds. Returns what undoes it. */
  after(ms: number, callback: () => void): () => void;
  /** Resolves in a later turn of the event loop. */
  turn(): Promise<void>;
}

/**
 * The machine's clock. Its timers do not keep a program alive.
 *
 * Deno calls a timer that is due though it was cleared, if what cleared it came of an operation, as a read, that ended in the
 * same turn of the event loop. So whoever undoes one says that here as well.
 */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    let undone = false;
    const timer = setTimeout(() => undone || callback(), Math.min(ms, 0x7fff_ffff));
    Deno.unrefTimer(timer);
    return () => {
      undone = true;
      clearTimeout(timer);
    };
  },
  turn: () => new Promise((resolve) => setTimeout(resolve, 0)),
};
