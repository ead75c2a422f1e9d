/**
 * `rayd status`: what a cluster has, and what it is doing.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { RaydError } from "../core/errors.ts";
import { hex } from "../core/ids.ts";
import { MEMORY, RESOURCE_UNIT } from "../core/options.ts";
import { type NodeRegistration, NODES, readLoad, readRegistration } from "../node/registration.ts";
import type { NodeLoad } from "../scheduler/global.ts";
import { connectCluster } from "./cluster_client.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, complain, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd status [--address HOST:PORT] [--json]

Shows the nodes of a cluster: what each has, what of it is free, and how many tasks wait there.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or this machine)
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
  --json                 as JSON, for programs
`,

  async run(args) {
    const parsed = parseArgs(args, {
      boolean: ["json"],
      string: ["address", "token-file"],
      unknown: (argument) => {
        throw new CommandLineError(`Unknown option ${argument} of "rayd status"`);
      },
    });
    try {
      const loads = new Map<string, NodeLoad>();
      const told = Promise.withResolvers<void>();
      const client = await connectCluster(
        parsed.address as string | undefined,
        parsed["token-file"] as string | undefined,
        (all) => {
          for (const { node, load } of all) loads.set(hex(node), readLoad(load));
          told.resolve();
        },
      );
      const nodes = (await client.list(NODES)).map(({ value }) => readRegistration(value));
      if (nodes.length > 0) await told.promise;
      client.close();
      print(
        parsed.json === true
          ? `${JSON.stringify(nodes.map((node) => described(node, loads)), null, 2)}\n`
          : table(nodes, loads),
      );
      return 0;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};

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
  return Object.fromEntries(Object.entries(units).map(([name, n]) => [name, n / RESOURCE_UNIT]));
}

function table(nodes: readonly NodeRegistration[], loads: ReadonlyMap<string, NodeLoad>): string {
  const rows = [["node", "role", "address", "free of what it has", "tasks waiting"]];
  const sorted = [...nodes].sort((a, b) =>
    a.role === b.role ? a.startedAt - b.startedAt : a.role === "head" ? -1 : 1
  );
  for (const node of sorted) {
    const load = loads.get(node.id);
    const parts = Object.entries(node.resources).filter(([name]) => name !== MEMORY).map(([name, total]) =>
      `${name} ${Math.max(0, load?.free[name] ?? 0) / RESOURCE_UNIT}/${total / RESOURCE_UNIT}`
    );
    rows.push([
      node.id.slice(0, 8),
      node.draining ? `${node.role}, draining` : node.role,
      `${node.hostname}:${node.port}`,
      parts.join(", "),
      String(load?.queued ?? 0),
    ]);
  }
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) => `${row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()}\n`).join(
    "",
  );
}
