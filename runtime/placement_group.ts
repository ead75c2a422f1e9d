/**
 * Placement groups: resources that are reserved together, on one node or on several, for tasks and actors that belong
 * together. Either all of a group's bundles are reserved or none, so that work which needs all of its parts at once never
 * waits half-begun.
 *
 * @module
 */

import { type Duration, durationMs } from "../core/duration.ts";
import { PlacementGroupError, UsageError } from "../core/errors.ts";
import { type Demand, parseBundles, STRATEGIES, type Strategy } from "../core/groups.ts";
import { hex } from "../core/ids.ts";
import { checkOptions, type TaskOptions, wholeNumber } from "../core/options.ts";
import type { GroupHandle } from "../core/placement.ts";
import { registerClass } from "../store/serialize.ts";
import type { Ref } from "./ref.ts";
import { wait } from "./api.ts";
import { currentClient } from "./session.ts";

/** One set of resources: amounts as tasks ask for them. */
export type BundleOptions = Pick<TaskOptions, "cpus" | "gpus" | "memory"> & {
  /** Amounts of custom resources, by name. */
  readonly resources?: Readonly<Record<string, number>>;
};

/** Options of {@link placementGroup}. */
export interface PlacementGroupOptions {
  /**
   * On as few nodes as possible (`"PACK"`, the default), on one node or not at all (`"STRICT_PACK"`), on as many as
   * possible (`"SPREAD"`), each bundle on another node or not at all (`"STRICT_SPREAD"`).
   */
  strategy?: Strategy;
  /** For people: logs and `rayd list groups` show it. */
  name?: string;
  /** How long to wait for the reservation. Default: for as long as it takes. */
  timeout?: Duration;
}

/** Options with which tasks and actors run in a bundle. */
export interface InBundle {
  /** The group. */
  readonly group: PlacementGroup;
  /** The bundle, from 0. */
  readonly bundle: number;
}

/**
 * Reserved resources. Tasks and actors use them with the options `{ group, bundle }`; without `bundle` they go to whichever
 * bundle has room. It can be passed to tasks and actors. It ends with `remove()` (or `await using`), or with the program
 * that made it; what still runs in it then fails with {@link PlacementGroupError}.
 */
export class PlacementGroup implements GroupHandle, AsyncDisposable {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** What each bundle holds, in units of 1/10000 by resource name. */
  readonly demands: readonly Readonly<Record<string, number>>[];

  /** @ignore */
  constructor(id: string, demands: readonly Readonly<Record<string, number>>[]) {
    this.id = id;
    this.demands = demands;
  }

  /** How many bundles there are. */
  get size(): number {
    return this.demands.length;
  }

  /** Options for what is to run in a bundle. @param index The bundle, from 0. @throws {UsageError} If there is none such. */
  bundle(index: number): InBundle {
    return { group: this, bundle: wholeNumber(index, "bundle", "a placement group", 0, this.size - 1) };
  }

  /**
   * The nodes that have the bundles, in order, each 32 hexadecimal digits. Empty text stands for a bundle that was lost with
   * its node and is not reserved again yet.
   *
   * @throws {PlacementGroupError} If the group was removed.
   */
  async nodes(): Promise<string[]> {
    const answer = await currentClient().askGroup({ kind: "describe", id: this.id });
    if (answer !== undefined && answer.kind !== "removed") return [...answer.nodes];
    throw new PlacementGroupError(`Placement group ${this.id.slice(0, 8)} was removed`);
  }

  /** Gives the resources back. What still runs in the group is ended. Removing it again does nothing. */
  async remove(): Promise<void> {
    await currentClient().askGroup({ kind: "remove", id: this.id });
  }

  /** As {@link remove}: for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }
}

registerClass<PlacementGroup, { id: string; demands: readonly Demand[] }>(PlacementGroup, {
  name: "rayd.PlacementGroup",
  serialize: ({ id, demands }) => ({ id, demands }),
  deserialize: ({ id, demands }) => new PlacementGroup(id, demands),
});

/**
 * Reserves sets of resources, all or none. Resolves when they are reserved.
 *
 * ```ts
 * await using group = await placementGroup([{ cpus: 1 }, { cpus: 2, gpus: 1 }], { strategy: "SPREAD" });
 * const ref = train.options({ ...group.bundle(1), cpus: 2, gpus: 1 }).remote();
 * ```
 *
 * @param bundles What each bundle holds.
 * @throws {UsageError} If a bundle or an option is wrong.
 * @throws {PlacementGroupError} If it could not be reserved within `timeout`; the message says what it lacks.
 */
export async function placementGroup(
  bundles: readonly BundleOptions[],
  options: PlacementGroupOptions = {},
): Promise<PlacementGroup> {
  checkOptions(options, ["strategy", "name", "timeout"], "a placement group", '{ strategy: "SPREAD" }');
  const { strategy = "PACK", name = "", timeout } = options;
  if (!STRATEGIES.includes(strategy)) {
    throw new UsageError(
      `Cannot use strategy "${strategy}" of a placement group: there are ${STRATEGIES.join(", ")}`,
    );
  }
  if (typeof name !== "string") throw new UsageError("Cannot use name of a placement group: it is no text");
  const timeoutMs = timeout === undefined ? Infinity : durationMs(timeout, "timeout of a placement group");
  const demands = parseBundles(bundles);
  const client = currentClient();
  const id = hex(client.nextChild());
  const group = { id, name, strategy, bundles: demands };
  const answer = await client.askGroup({ kind: "create", group, parent: hex(client.task) }, timeoutMs);
  if (answer?.kind === "placed") return new PlacementGroup(id, demands);
  const state = await client.askGroup({ kind: "describe", id });
  await client.askGroup({ kind: "remove", id });
  throw new PlacementGroupError(
    `Placement group ${name || id.slice(0, 8)} could not be reserved${
      answer === undefined ? ` within ${timeoutMs} ms` : ""
    }: ${
      state?.kind === "waits" ? state.reason : "it was removed"
    }. Ask for less, or let other work end first`,
  );
}

/** Options of {@link gang}: those of the group, and what each member holds. */
export interface GangOptions extends PlacementGroupOptions, BundleOptions {}

/**
 * Starts several tasks together: only when there is room for all of them are they submitted, each into a bundle of its own.
 * The group is removed when all of them have ended.
 *
 * ```ts
 * const refs = await gang(4, { cpus: 1, strategy: "SPREAD" }, (rank, place) => step.options(place).remote(rank));
 * ```
 *
 * @param size How many.
 * @param options What each holds, and how they are placed.
 * @param submit Submits one, with the options given.
 * @returns The Refs, by rank.
 * @throws {PlacementGroupError} If there was not room for all within `timeout`.
 */
export async function gang<T>(
  size: number,
  options: GangOptions,
  submit: (rank: number, place: InBundle & BundleOptions) => Ref<T>,
): Promise<Ref<T>[]> {
  wholeNumber(size, "size", "a gang", 1, 1_000);
  checkOptions(options, GANG_OPTIONS, "a gang", "{ cpus: 1 }");
  const { strategy, name, timeout, ...rest } = options;
  const holds: BundleOptions = { cpus: 1, ...rest };
  const given = Object.fromEntries(
    Object.entries({ strategy, name, timeout }).filter(([, value]) => value !== undefined),
  );
  const group = await placementGroup(Array.from({ length: size }, () => holds), given);
  const refs: Ref<T>[] = [];
  try {
    for (let rank = 0; rank < size; rank++) refs.push(submit(rank, { ...group.bundle(rank), ...holds }));
  } catch (error) {
    await group.remove();
    throw error;
  }
  wait(refs, { count: size }).then(() => group.remove()).catch(() => {
    // The program is ending, and the group with it.
  });
  return refs;
}

const GANG_OPTIONS = ["cpus", "gpus", "memory", "resources", "strategy", "name", "timeout"];
