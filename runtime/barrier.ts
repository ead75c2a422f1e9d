/**
 * A barrier: a number of tasks wait for each other, and then all go on.
 *
 * One that does not come would keep the others for ever. So a barrier *breaks*, for all of them, when one is out of time,
 * when a task that waited at it has ended without it, or when somebody resets it.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { BarrierBrokenError, UsageError } from "../core/errors.ts";
import { actor, type ActorHandle } from "./actor.ts";
import { context, get as valueOf } from "./api.ts";
import { callingTask, onGone, type Owner } from "./owner.ts";
import { currentClient } from "./session.ts";
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

/** The place of an arrival among those of its round, or what broke the barrier. */
type Passage = { readonly place: number } | { readonly broken: string };

/** The barrier itself. */
class BarrierObject {
  static concurrencyGroups: Record<string, string> = { wait: "wait" };
  readonly #parties: number;
  readonly #waiters = new Waiters<{ owner: Owner; place: number }, Passage>(systemClock);
  #broken: string | undefined;

  constructor(parties: number) {
    this.#parties = parties;
  }

  async wait(owner: Owner, timeoutMs: number): Promise<Passage> {
    if (this.#broken !== undefined) return { broken: this.#broken };
    const place = this.#waiters.size;
    if (place + 1 === this.#parties) {
      for (const { want, serve } of this.#waiters) serve({ place: want.place });
      return { place };
    }
    if (owner.kind !== "program") {
      onGone(currentClient(), owner, () => {
        const waits = [...this.#waiters].some(({ want }) => want.owner.id === owner.id);
        if (waits) this.#break(`${owner.label} ended while it waited`);
        currentClient().flush();
      });
    }
    const result = await this.#waiters.wait({ owner, place }, timeoutMs, context().signal);
    if (typeof result !== "string") return result;
    const why = result === "late" ? `was not joined within ${timeoutMs} ms` : "was cancelled";
    this.#break(`${owner.label} ${why}, when ${this.#waiters.size + 1} of ${this.#parties} had come`);
    return { broken: this.#broken! };
  }

  waiting(): number {
    return this.#waiters.size;
  }

  reset(): void {
    this.#break("it was reset");
    this.#broken = undefined;
  }

  #break(why: string): void {
    this.#broken ??= why;
    for (const waiter of this.#waiters) waiter.serve({ broken: why });
  }
}

const BarrierActor = actor(BarrierObject, {
  module: "rayd:barrier",
  isolate: "shared",
  concurrencyGroups: { wait: CALLS_MAX },
});

type BarrierHandle = ActorHandle<BarrierObject>;

/**
 * A place where a number of tasks wait for each other, round after round. It is a value like any other: pass it to tasks
 * and actors.
 *
 * @example
 * ```ts
 * const barrier = new Barrier(3);
 * const refs = [0, 1, 2].map(() => work.remote(barrier)); // await barrier.wait();
 * ```
 */
export class Barrier {
  readonly #actor: BarrierHandle;

  /**
   * Makes a barrier.
   *
   * @param parties How many wait for each other.
   * @throws {UsageError} If that is not a whole number of 1 or more.
   */
  constructor(parties: number) {
    const given = parties as unknown as Adopted<BarrierHandle> | number;
    this.#actor = typeof given === "object" && given !== null && given[ACTOR] !== undefined
      ? given[ACTOR]
      : BarrierActor.remote(partiesOf(parties));
  }

  /**
   * The barrier of a name; it is made if there is none.
   *
   * @param name Its name. @param parties How many wait for each other. @param options `namespace`, `detached`.
   * @throws {UsageError} If an option is wrong, or something else has the name.
   */
  static async named(name: string, parties: number, options: ToolOptions = {}): Promise<Barrier> {
    const [own, rest] = nameOptions(name, options);
    checkOptions(rest, ["namespace", "detached"], "a barrier");
    const handle = await BarrierActor.options(own).getOrCreate(partiesOf(parties));
    return new Barrier(adopted(handle) as unknown as number);
  }

  /**
   * Waits until as many have come as the barrier is for.
   *
   * @param options `timeout`: how long to wait; when it is over, the barrier is broken for all.
   * @returns Which one this was in its round, from 0.
   * @throws {BarrierBrokenError} If it is or was broken: somebody's time was up, or a task that waited is gone.
   * @throws {ActorDiedError} If the barrier is gone.
   */
  async wait(options: WaitingOptions = {}): Promise<number> {
    const passage = await valueOf(this.#actor.wait.remote(callingTask(), timeoutOf(options, "wait")));
    if ("place" in passage) return passage.place;
    throw new BarrierBrokenError(
      `The barrier is broken: ${passage.broken}. It can be used again after reset()`,
    );
  }

  /** How many wait. */
  async waiting(): Promise<number> {
    return await valueOf(this.#actor.waiting.remote());
  }

  /** Breaks it for those who wait, and makes it as new. */
  async reset(): Promise<void> {
    await valueOf(this.#actor.reset.remote());
  }

  static {
    travels(
      Barrier,
      "Barrier",
      (barrier) => barrier.#actor,
      (handle) => new Barrier(adopted(handle) as unknown as number),
    );
  }
}

function partiesOf(parties: number): number {
  if (Number.isInteger(parties) && parties >= 1) return parties;
  throw new UsageError(`Cannot make a barrier for ${String(parties)}: give a whole number of 1 or more`);
}
