/**
 * Where a task or an actor may run: what a program says of the node, beyond how much of what it needs.
 *
 * @module
 */

import { UsageError } from "./errors.ts";

/** What a placement group is to options: its id (32 hexadecimal digits), and what its bundles hold, in 1/10000. */
export interface GroupHandle {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** What each bundle holds, in units of 1/10000 by resource name. */
  readonly demands: readonly Readonly<Record<string, number>>[];
}

/** Options that say where something is to run. */
export interface PlacementOptions {
  /** Labels that the node must have (`rayd worker --labels zone=a`). */
  labels?: Readonly<Record<string, string>>;
  /** Labels that it should have: others are taken when no such node has room. */
  preferLabels?: Readonly<Record<string, string>>;
  /** The node's id, as {@link nodes} tells it: nowhere else. */
  node?: string;
  /** The node's id: elsewhere only when it is gone, or has no room. */
  preferNode?: string;
  /** The placement group, as `placementGroup()` gives it, in whose bundles this is to run. */
  group?: GroupHandle;
  /** Which of the group's bundles, from 0. Default: any that has room. */
  bundle?: number;
  /** Spread such tasks over all nodes that can run them, rather than keep them where they were submitted. */
  spread?: boolean;
}

/** {@link PlacementOptions}, checked: the form that travels. Absent where nothing is said. */
export interface Placement {
  readonly labels: Readonly<Record<string, string>>;
  readonly preferLabels: Readonly<Record<string, string>>;
  /** 32 hexadecimal digits, or empty. */
  readonly node: string;
  readonly preferNode: string;
  readonly spread: boolean;
}

/** The names of {@link PlacementOptions}. */
export const PLACEMENT_OPTIONS: readonly string[] = [
  "labels",
  "preferLabels",
  "node",
  "preferNode",
  "spread",
  "group",
  "bundle",
];

/**
 * Checks where something is to run.
 *
 * @param what Whose options they are, in an error's words.
 * @returns The placement, or `undefined` if nothing is said.
 * @throws {UsageError} If an option has a value of another kind.
 */
export function parsePlacement(options: PlacementOptions, what: string): Placement | undefined {
  const placement: Placement = {
    labels: labelsOf(options.labels, "labels", what),
    preferLabels: labelsOf(options.preferLabels, "preferLabels", what),
    node: nodeOf(options.node, "node", what),
    preferNode: nodeOf(options.preferNode, "preferNode", what),
    spread: options.spread ?? false,
  };
  if (typeof placement.spread !== "boolean") {
    throw new UsageError(`Cannot use spread of ${what}: it is neither true nor false`);
  }
  return saysNothing(placement) ? undefined : placement;
}

function labelsOf(given: unknown, option: string, what: string): Readonly<Record<string, string>> {
  if (given === undefined) return {};
  if (
    typeof given !== "object" || given === null ||
    !Object.values(given).every((value) => typeof value === "string")
  ) {
    throw new UsageError(`Cannot use ${option} of ${what}: give texts by name, such as { zone: "a" }`);
  }
  return { ...given as Record<string, string> };
}

function nodeOf(given: unknown, option: string, what: string): string {
  if (given === undefined) return "";
  if (typeof given === "string" && /^[0-9a-f]{32}$/.test(given)) return given;
  throw new UsageError(
    `Cannot use ${option} of ${what}: give a node's id, 32 hexadecimal digits, as nodes() tells it`,
  );
}

function saysNothing({ labels, preferLabels, node, preferNode, spread }: Placement): boolean {
  return !spread && node === "" && preferNode === "" && Object.keys(labels).length === 0 &&
    Object.keys(preferLabels).length === 0;
}

/** Whether something that a peer sent has the form of a {@link Placement}. */
export function isPlacement(value: unknown): value is Placement {
  if (typeof value !== "object" || value === null) return false;
  const v = value as Record<string, unknown>;
  const texts = (x: unknown) =>
    typeof x === "object" && x !== null && !Array.isArray(x) &&
    Object.values(x).every((each) => typeof each === "string");
  return texts(v.labels) && texts(v.preferLabels) && typeof v.node === "string" &&
    typeof v.preferNode === "string" &&
    typeof v.spread === "boolean";
}

/** A node, as far as placement looks at it. */
export interface PlacedNode {
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Whether something may run on a node. */
export function mayRunOn(placement: Placement | undefined, node: PlacedNode): boolean {
  return placement === undefined ||
    (placement.node === "" || placement.node === node.id) && hasLabels(node, placement.labels);
}

/** Whether a placement has a preference at all. */
export function prefersSome({ preferLabels, preferNode }: Placement): boolean {
  return preferNode !== "" || Object.keys(preferLabels).length > 0;
}

/** Whether a node is one of those preferred. */
export function isPreferred({ preferLabels, preferNode }: Placement, node: PlacedNode): boolean {
  return (preferNode === "" || preferNode === node.id) && hasLabels(node, preferLabels);
}

function hasLabels(node: PlacedNode, labels: Readonly<Record<string, string>>): boolean {
  for (const name in labels) if (node.labels[name] !== labels[name]) return false;
  return true;
}

/** A placement in words, for an error: ` on a node with labels zone=a`. */
export function showPlacement(placement: Placement | undefined): string {
  if (placement === undefined) return "";
  const labels = Object.entries(placement.labels).map(([name, value]) => `${name}=${value}`).join(", ");
  return `${placement.node === "" ? "" : ` on node ${placement.node.slice(0, 8)}`}${
    labels === "" ? "" : ` on a node with labels ${labels}`
  }`;
}
