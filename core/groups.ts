/**
 * Placement groups as they travel: sets of resources (*bundles*) that are reserved together, on one node or on several.
 *
 * A program asks its node for a group; that node is the group's *coordinator*: it chooses nodes, has them reserve, and
 * has them commit when all have. What it says to programs and to nodes is here, with the checks of what others sent.
 *
 * @module
 */

import { PlacementGroupError, ProtocolError, UsageError } from "./errors.ts";
import { parseDemand, show } from "./options.ts";

/**
 * How bundles are placed: on as few nodes as possible (`PACK`), on one node or not at all (`STRICT_PACK`), on as many as
 * possible (`SPREAD`), each on another node or not at all (`STRICT_SPREAD`).
 */
export type Strategy = "PACK" | "STRICT_PACK" | "SPREAD" | "STRICT_SPREAD";

/** All strategies. */
export const STRATEGIES: readonly Strategy[] = ["PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"];

/** The most bundles of a group. */
const BUNDLES_MAX = 1_000;

/** Amounts in units of 1/10000, by resource name. */
export type Demand = Readonly<Record<string, number>>;

/** What a group is. */
export interface GroupSpec {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** For people; may be empty. */
  readonly name: string;
  readonly strategy: Strategy;
  readonly bundles: readonly Demand[];
}

/** A bundle, by its place in its group. */
export interface Bundle {
  readonly index: number;
  readonly demand: Demand;
}

/** What a program asks about groups. */
export type GroupRequest =
  /** Answered when all is reserved. */
  | {
    readonly kind: "create";
    readonly group: GroupSpec;
    /** Who asks: the task, or the program's own, by 32 hexadecimal digits. */
    readonly parent: string;
  }
  | { readonly kind: "remove"; readonly id: string }
  /** Answered with the group's state. */
  | { readonly kind: "describe"; readonly id: string };

/** The answer to a program. */
export type GroupAnswer =
  /** Where each bundle is, by 32 hexadecimal digits; empty where it is nowhere now. */
  | { readonly kind: "placed"; readonly nodes: readonly string[] }
  | { readonly kind: "waits"; readonly nodes: readonly string[]; readonly reason: string }
  | { readonly kind: "removed" };

/** What nodes say to each other about bundles. `attempt` tells one try to reserve from the next. */
export type BundleMessage =
  | {
    readonly kind: "reserve";
    readonly group: string;
    readonly name: string;
    readonly attempt: number;
    readonly bundles: readonly Bundle[];
  }
  | { readonly kind: "vote"; readonly group: string; readonly attempt: number; readonly ok: boolean }
  | { readonly kind: "commit"; readonly group: string; readonly attempt: number }
  /** Gives back what an attempt has reserved; with attempt 0, all of the group, whoever uses it. */
  | { readonly kind: "release"; readonly group: string; readonly attempt: number };

/**
 * Checks what a program gives as bundles.
 *
 * @returns Amounts in units of 1/10000.
 * @throws {UsageError} If there is none, or too many, or one asks for nothing.
 */
export function parseBundles(bundles: unknown): Demand[] {
  if (!Array.isArray(bundles) || bundles.length === 0 || bundles.length > BUNDLES_MAX) {
    throw new UsageError(
      `Cannot make a placement group of ${show(bundles)}: give 1 to ${BUNDLES_MAX} bundles, such as ` +
        `[{ cpus: 1 }, { cpus: 2, gpus: 1 }]`,
    );
  }
  return bundles.map((bundle: unknown, i) => {
    if (typeof bundle !== "object" || bundle === null) {
      throw new UsageError(`Cannot use bundle ${i}: ${show(bundle)} is no object such as { cpus: 1 }`);
    }
    for (const key of Object.keys(bundle)) {
      if (!BUNDLE_OPTIONS.includes(key)) {
        throw new UsageError(
          `Unknown option "${key}" of bundle ${i}: there are ${BUNDLE_OPTIONS.join(", ")}`,
        );
      }
    }
    const demand = parseDemand(bundle, `bundle ${i}`);
    if (Object.keys(demand).length === 0) {
      throw new UsageError(
        `Cannot use bundle ${i}: it asks for nothing; give it cpus, gpus, memory or resources`,
      );
    }
    return demand;
  });
}

const BUNDLE_OPTIONS = ["cpus", "gpus", "memory", "resources"];

/** As bytes. */
export function writeGroupMessage(message: GroupRequest | GroupAnswer | BundleMessage): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/** From bytes. @throws {ProtocolError} If they are none. */
export function readGroupRequest(bytes: Uint8Array): GroupRequest {
  const value = parsed(bytes);
  switch (value.kind) {
    case "create":
      if (isSpec(value.group) && isId(value.parent)) {
        return { kind: "create", group: value.group, parent: value.parent };
      }
      break;
    case "remove":
    case "describe":
      if (isId(value.id)) return { kind: value.kind, id: value.id };
  }
  throw new ProtocolError("Cannot read a request about a placement group");
}

/** From bytes. @throws {ProtocolError} If they are none. */
export function readGroupAnswer(bytes: Uint8Array): GroupAnswer {
  const value = parsed(bytes);
  if (value.kind === "removed") return { kind: "removed" };
  if (Array.isArray(value.nodes) && value.nodes.every((node) => typeof node === "string")) {
    const nodes = value.nodes as string[];
    if (value.kind === "placed") return { kind: "placed", nodes };
    if (value.kind === "waits" && typeof value.reason === "string") {
      return { kind: "waits", nodes, reason: value.reason };
    }
  }
  throw new ProtocolError("Cannot read an answer about a placement group");
}

/** From bytes. @throws {ProtocolError} If they are none. */
export function readBundleMessage(bytes: Uint8Array): BundleMessage {
  const value = parsed(bytes);
  const { group, attempt } = value;
  if (isId(group) && isWhole(attempt)) {
    switch (value.kind) {
      case "reserve":
        if (typeof value.name === "string" && Array.isArray(value.bundles) && value.bundles.every(isBundle)) {
          return { kind: "reserve", group, attempt, name: value.name, bundles: value.bundles };
        }
        break;
      case "vote":
        return { kind: "vote", group, attempt, ok: value.ok === true };
      case "commit":
      case "release":
        return { kind: value.kind, group, attempt };
    }
  }
  throw new ProtocolError("Cannot read a message about bundles");
}

function parsed(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said by whoever reads on.
  }
  return {};
}

function isId(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{32}$/.test(value);
}

function isWhole(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isDemand(value: unknown): value is Demand {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((units) => isWhole(units) && units > 0);
}

function isBundle(value: unknown): value is Bundle {
  const { index, demand } = (value ?? {}) as Partial<Bundle>;
  return isWhole(index) && index < BUNDLES_MAX && isDemand(demand);
}

function isSpec(value: unknown): value is GroupSpec {
  if (typeof value !== "object" || value === null) return false;
  const { id, name, strategy, bundles } = value as Record<string, unknown>;
  return isId(id) && typeof name === "string" && STRATEGIES.includes(strategy as Strategy) &&
    Array.isArray(bundles) && bundles.length > 0 && bundles.length <= BUNDLES_MAX && bundles.every(isDemand);
}

/** The error of a group that is not there any more. */
export function groupGone(group: string, what: string): PlacementGroupError {
  return new PlacementGroupError(
    `${what} cannot run: placement group ${
      group.slice(0, 8)
    } was removed, or the program that made it has ended. ` +
      `Keep the group until all that runs in it has ended`,
  );
}
