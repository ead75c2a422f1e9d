/**
 * An event: a flag that tasks and actors wait for.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { actor, type ActorHandle } from "./actor.ts";
import { context, get as valueOf } from "./api.ts";
import {
  ACTOR,
  type Adopted,
  adopted,
  CALLS_MAX,
  checkOptions,
  nameOptions,
  timeoutOf,
  type ToolOptions,
  travels,
  type WaitingOptions,
} from "./tool.ts";
import { Waiters } from "./waiters.ts";

/** The event itself. */
class EventObject {
  static concurrencyGroups: Record<string, string> = { wait: "wait" };
  #set = false;
  readonly #waiters = new Waiters<undefined, "set">(systemClock);

  async wait(timeoutMs: number): Promise<boolean> {
    return this.#set || await this.#waiters.wait(undefined, timeoutMs, context().signal) === "set";
  }

  set(): void {
    this.#set = true;
    for (const waiter of this.#waiters) waiter.serve("set");
  }

  clear(): void {
    this.#set = false;
  }

  isSet(): boolean {
    return this.#set;
  }
}

const EventActor = actor(EventObject, {
  module: "rayd:event",
  isolate: "shared",
  concurrencyGroups: { wait: CALLS_MAX },
});

/**
 * A flag that is set once for all who wait for it, until it is cleared. It is a value like any other: pass it to tasks
 * and actors. Not to be taken for the `Event` of the web: import it under another name where both are needed.
 *
 * @example
 * ```ts
 * const ready = new Event();
 * const ref = work.remote(ready); // await ready.wait();
 * await ready.set();
 * ```
 */
export class Event {
  readonly #actor: ActorHandle<EventObject>;

  /** Makes an event, not set. @param options None yet. @throws {UsageError} If an option is given. */
  constructor(options: Readonly<Record<never, never>> = {}) {
    checkOptions(options, [], "an event");
    this.#actor = (options as Adopted<ActorHandle<EventObject>>)[ACTOR] ?? EventActor.remote();
  }

  /**
   * The event of a name; it is made if there is none.
   *
   * @param name Its name. @param options `namespace`, `detached`.
   * @throws {UsageError} If an option is wrong, or something else has the name.
   */
  static async named(name: string, options: ToolOptions = {}): Promise<Event> {
    const [own, rest] = nameOptions(name, options);
    checkOptions(rest, ["namespace", "detached"], "an event");
    return new Event(adopted(await EventActor.options(own).getOrCreate()));
  }

  /**
   * Waits until it is set.
   *
   * @param options `timeout`: how long to wait.
   * @returns Whether it was set in time.
   * @throws {ActorDiedError} If the event is gone.
   */
  async wait(options: WaitingOptions = {}): Promise<boolean> {
    return await valueOf(this.#actor.wait.remote(timeoutOf(options, "wait")));
  }

  /** Sets it: all who wait go on, and whoever comes does not wait. */
  async set(): Promise<void> {
    await valueOf(this.#actor.set.remote());
  }

  /** Clears it: whoever comes waits. */
  async clear(): Promise<void> {
    await valueOf(this.#actor.clear.remote());
  }

  /** Whether it is set. */
  async isSet(): Promise<boolean> {
    return await valueOf(this.#actor.isSet.remote());
  }

  static {
    travels(Event, "Event", (event) => event.#actor, (handle) => new Event(adopted(handle)));
  }
}
