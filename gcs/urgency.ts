/**
 * When a member of the store is lost, the others have a few milliseconds' work each, for which all clients wait; on a busy
 * machine they wait as long again for a processor. So for a moment the member's thread goes before others.
 *
 * Not always: a thread that preempts others whenever something arrives takes it up piece by piece, and group commit lives by
 * what comes together.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";

/** For how long something is urgent: failover takes a tenth of it. */
const URGENT_MS = 200;

/** Has this thread go before others for a while. */
export class Urgency {
  readonly #clock: Clock;
  readonly #set: (urgent: boolean) => void;
  readonly #refused: (error: Error) => void;
  #cancel: (() => void) | undefined;
  #allowed = true;

  /**
   * @param clock Says when the while is over.
   * @param set Has this thread run before those of the usual kind, or as one of them; throws if the system does not allow it.
   * @param refused Told, once, of what `set` has thrown: it is not tried again.
   */
  constructor(clock: Clock, set: (urgent: boolean) => void, refused: (error: Error) => void) {
    this.#clock = clock;
    this.#set = set;
    this.#refused = refused;
  }

  /** Something has happened for which others wait. */
  hurry(): void {
    if (this.#cancel === undefined) this.#try(true);
    this.#cancel?.();
    this.#cancel = this.#allowed ? this.#clock.after(URGENT_MS, () => this.#rest()) : undefined;
  }

  #rest(): void {
    this.#cancel = undefined;
    this.#try(false);
  }

  #try(urgent: boolean): void {
    if (!this.#allowed) return;
    try {
      this.#set(urgent);
    } catch (error) {
      this.#allowed = false;
      this.#refused(error as Error);
    }
  }
}
