/**
 * What a node writes of itself into the control store, and others read: where it is and what it has.
 *
 * @module
 */

// @ts-types="../core/std_msgpack.d.ts"
import { decode, encode } from "@std/msgpack";
import { ProtocolError } from "../core/errors.ts";
import { taskIdFromHex } from "../core/ids.ts";
import type { NodeDescription, NodeLoad } from "../scheduler/global.ts";

/** The prefix of nodes in the control store; their id follows in hexadecimal digits. */
export const NODES = "node/";

/** The prefix of requests that a node drain; its id follows. */
export const DRAINS = "drain/";

/** The prefix of placement groups, as JSON (`node/groups.ts`); their id follows. */
export const GROUPS = "group/";

/** The prefix of batches of lineage (`node/lineage_log.ts`); `<node>/<job>/<number>` follows. */
export const LINEAGE = "lineage/";

/** The key of a batch of lineage. @param node, job 32 hexadecimal digits each. */
export function lineageKey(node: string, job: string, batch: number): string {
  return `${LINEAGE}${node}/${job}/${batch}`;
}

/** The node and the job of a batch, by its key. */
export function lineageOf(key: string): { readonly node: string; readonly job: string } {
  const [node = "", job = ""] = key.slice(LINEAGE.length).split("/");
  return { node, job };
}

/** A node of a cluster. */
export interface NodeRegistration {
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly role: "head" | "worker";
  /** Where other nodes reach it. */
  readonly hostname: string;
  readonly port: number;
  readonly bulkPort: number;
  /** Amounts in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  /** The machine's boot, and what programs on the same machine need to connect. */
  readonly machine: string;
  readonly socket: string;
  readonly storePath: string;
  readonly storeCapacity: number;
  readonly version: string;
  /** It is about to end: it takes nothing new. */
  readonly draining: boolean;
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
}

/** As bytes. */
export function writeRegistration(node: NodeRegistration): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(node));
}

/** From bytes. @throws {ProtocolError} If they are none. */
export function readRegistration(bytes: Uint8Array): NodeRegistration {
  try {
    const node = JSON.parse(new TextDecoder().decode(bytes)) as NodeRegistration;
    if (typeof node.id === "string" && /^[0-9a-f]{32}$/.test(node.id) && typeof node.port === "number") {
      return node;
    }
  } catch {
    // Said below.
  }
  throw new ProtocolError("Cannot read a node's registration");
}

/** A node as schedulers know it. */
export function describe(node: NodeRegistration): NodeDescription {
  return {
    id: taskIdFromHex(node.id),
    resources: node.resources,
    labels: node.labels,
    draining: node.draining,
  };
}

/** A load as bytes. @param at The node's clock: milliseconds since 1970. */
export function writeLoad(load: NodeLoad, at: number): Uint8Array {
  const { free, lasting, queued, meanMs } = load;
  return encode({ free, lasting: lasting ?? free, queued, meanMs, at });
}

/** A load from bytes. @throws {ProtocolError} If they are none. */
export function readLoad(bytes: Uint8Array): NodeLoad {
  const value = decode(bytes) as Partial<NodeLoad> | null;
  if (
    typeof value === "object" && value !== null && typeof value.queued === "number" &&
    typeof value.meanMs === "number" && typeof value.free === "object" &&
    typeof value.lasting === "object"
  ) return value as NodeLoad;
  throw new ProtocolError("Cannot read a node's load");
}

/** What the clock of a node said when it told of its load; `undefined` if it did not say. */
export function readLoadTime(bytes: Uint8Array): number | undefined {
  const value = decode(bytes) as { readonly at?: unknown } | null;
  return typeof value === "object" && typeof value?.at === "number" ? value.at : undefined;
}
