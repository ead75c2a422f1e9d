/**
 * `rayd status`: what a cluster has, and what it is doing.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { NoMajorityError, RaydError } from "../core/errors.ts";
import { isBundleName } from "../core/bundles.ts";
import { hex } from "../core/ids.ts";
import { CONTROL_STORE_MS_MAX } from "../core/limits.ts";
import { MEMORY, RESOURCE_UNIT } from "../core/options.ts";
import { type NodeRegistration, NODES, readLoad, readRegistration } from "../node/registration.ts";
import type { NodeLoad } from "../scheduler/global.ts";
import { connectCluster } from "./cluster_client.ts";
import type { Command } from "./mod.ts";
import { askNodes } from "./observe.ts";
import { CommandLineError, complain, print, showTable } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd status [--address HOST:PORT] [--watch] [--json]

Shows the nodes of a cluster: what each has, what of it is free, and how many tasks wait there; and what is asked for and
cannot be had now, with the reason.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or this machine)
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
  --watch                again and again, until Ctrl-C
  --json                 as JSON, for programs; with --watch, a line each time
`,

  async run(args) {
    const parsed = parseArgs(args, {
      boolean: ["json", "watch"],
      string: ["address", "token-file"],
      unknown: (argument) => {
        throw new CommandLineError(`Unknown option ${argument} of "rayd status"`);
      },
    });
    try {
      const loads = new Map<string, NodeLoad>();
      const told = Promise.withResolvers<void>();
      setTimeout(told.resolve, CONTROL_STORE_MS_MAX); // whoever passes loads on may just have gone
      const address = parsed.address as string | undefined;
      const file = parsed["token-file"] as string | undefined;
      const client = await connectCluster(address, file, (all) => {
        for (const { node, load } of all) loads.set(hex(node), readLoad(load));
        told.resolve();
      });
      const look = async (spaces: number): Promise<string> => {
        const nodes = (await client.list(NODES)).map(({ value }) => readRegistration(value));
        if (nodes.length > 0) await told.promise;
        const unmet = await askUnmet(nodes, file);
        const shown = { nodes: nodes.map((node) => described(node, loads)), unmet };
        if (parsed.json === true) return `${JSON.stringify(shown, null, spaces)}\n`;
        return table(nodes, loads) + showUnmet(unmet);
      };
      if (parsed.watch === true) return await watch(() => look(0));
      print(await look(2));
      client.close();
      return 0;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};

/** Something that waits for resources. */
interface Unmet {
  readonly count: number;
  readonly what: string;
  readonly asks: string;
  readonly reason: string;
  /** The beginning of the id of the node where it waits. */
  readonly node: string;
}

async function askUnmet(nodes: readonly NodeRegistration[], file: string | undefined): Promise<Unmet[]> {
  const { rows } = await askNodes(nodes, "unmet", file);
  return rows.map((row) => ({
    count: Number(row.count),
    what: String(row.what),
    asks: String(row.asks),
    reason: String(row.reason),
    node: String(row.node),
  })).sort((a, b) => b.count - a.count);
}

/** Shows the same again whenever it has changed, once a second; a terminal is written over. */
async function watch(look: () => Promise<string>): Promise<never> {
  const terminal = Deno.stdout.isTerminal();
  let last = "";
  for (;;) {
    const now = await look().catch((error) => {
      // It may be mended while this goes on.
      if (error instanceof NoMajorityError) return `${error.message}\n`;
      throw error;
    });
    if (now !== last) print(terminal ? `\x1b[H\x1b[2J${now}` : now);
    last = now;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  }
}

const WATCH_MS = 1_000;

function described(node: NodeRegistration, loads: ReadonlyMap<string, NodeLoad>) {
  const load = loads.get(node.id);
  const { id, role, hostname, port, bulkPort, labels, version, pid, startedAt, storeCapacity } = node;
  return {
    id,
    role,
    address: `${hostname}:${port}`,
    bulkPort,
    resources: amounts(node.resources),
    free: amounts(load?.free ?? {}),
    queued: load?.queued ?? 0,
    labels,
    version,
    pid,
    draining: node.draining,
    startedAt: new Date(startedAt).toISOString(),
    storeCapacity,
  };
}

function amounts(units: Readonly<Record<string, number>>): Record<string, number> {
  const own = Object.entries(units).filter(([name]) => !isBundleName(name));
  return Object.fromEntries(own.map(([name, n]) => [name, n / RESOURCE_UNIT]));
}

function table(nodes: readonly NodeRegistration[], loads: ReadonlyMap<string, NodeLoad>): string {
  const sorted = [...nodes].sort((a, b) =>
    a.role === b.role ? a.startedAt - b.startedAt : a.role === "head" ? -1 : 1
  );
  return showTable(
    ["node", "role", "address", "free of what it has", "tasks waiting"],
    sorted.map((node) => {
      const load = loads.get(node.id);
      const own = Object.entries(node.resources).filter(([name]) => name !== MEMORY && !isBundleName(name));
      const parts = own.map(([name, total]) =>
        `${name} ${Math.max(0, load?.free[name] ?? 0) / RESOURCE_UNIT}/${total / RESOURCE_UNIT}`
      );
      return [
        node.id.slice(0, 8),
        node.draining ? `${node.role}, draining` : node.role,
        `${node.hostname}:${node.port}`,
        parts.join(", "),
        String(load?.queued ?? 0),
      ];
    }),
  );
}

/** What is asked for and cannot be had now, over all nodes: alike things together. */
function showUnmet(unmet: readonly Unmet[]): string {
  if (unmet.length === 0) return "";
  const rows = unmet.map(({ count, what, asks, reason, node }) => [String(count), what, asks, reason, node]);
  return `\nwaiting for resources:\n${showTable(["", "what", "asks for", "why it waits", "on"], rows)}`;
}
