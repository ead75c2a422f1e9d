/**
 * `rayd list`: everything of one kind in a cluster, a row each.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { RaydError } from "../core/errors.ts";
import type { ListTopic } from "../core/messages.ts";
import type { Row } from "../node/listing.ts";
import { EVENTS, readEvents } from "../node/events.ts";
import { NODES, readRegistration } from "../node/registration.ts";
import { connectCluster } from "./cluster_client.ts";
import type { Command } from "./mod.ts";
import { askNodes } from "./observe.ts";
import { CommandLineError, complain, print, showTable } from "./output.ts";

const KINDS: readonly (ListTopic | "nodes" | "events")[] = [
  "nodes",
  "actors",
  "tasks",
  "objects",
  "jobs",
  "workers",
  "groups",
  "events",
];

const LIMIT_DEFAULT = 100;

/** The command. */
export const command: Command = {
  help: `rayd list ${KINDS.join("|")} [options]

Lists everything of one kind that a cluster has now, a row each, with the node that it is on.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or this machine)
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
  --where NAME=VALUE     only rows where that column begins so; may be repeated
  --limit N              rows to show (default: ${LIMIT_DEFAULT})
  --json                 as JSON, for programs: all columns, ids in full
`,

  async run(args) {
    const parsed = parseArgs(args, {
      boolean: ["json"],
      string: ["address", "token-file", "limit", "where", "_"],
      collect: ["where"],
      unknown: (argument, key) => {
        if (key !== undefined) throw new CommandLineError(`Unknown option ${argument} of "rayd list"`);
        return true;
      },
    });
    const [kind, ...more] = parsed._.map(String);
    if (kind === undefined || more.length > 0 || !KINDS.includes(kind as ListTopic)) {
      throw new CommandLineError(`Say what: "rayd list ${KINDS.join("|")}"`);
    }
    const limit = Number(parsed.limit ?? LIMIT_DEFAULT);
    if (!Number.isInteger(limit) || limit < 1) {
      throw new CommandLineError(`Cannot use --limit ${parsed.limit}: give a whole number from 1`);
    }
    const conditions = ((parsed.where ?? []) as string[]).map((text) => {
      const at = text.indexOf("=");
      if (at < 1) throw new CommandLineError(`Cannot use --where ${text}: write NAME=VALUE`);
      return [text.slice(0, at), text.slice(at + 1)] as const;
    });
    try {
      const file = parsed["token-file"] as string | undefined;
      const client = await connectCluster(parsed.address as string | undefined, file);
      const nodes = (await client.list(NODES)).map(({ value }) => readRegistration(value));
      const stored = kind === "events" ? await client.list(EVENTS) : [];
      client.close();
      const own = kind === "nodes" ? nodes.map(nodeRow) : kind === "events" ? eventRows(stored) : undefined;
      const { rows, total, silent } = own === undefined
        ? await askNodes(nodes, kind as ListTopic, file)
        : { rows: own, total: own.length, silent: [] };
      const columns = new Set(rows.flatMap((row) => Object.keys(row)));
      for (const [name] of conditions) {
        if (rows.length > 0 && !columns.has(name)) {
          throw new CommandLineError(`Cannot use --where ${name}=…: there are ${[...columns].join(", ")}`);
        }
      }
      const chosen = rows.filter((row) =>
        conditions.every(([name, value]) => String(row[name] ?? "").startsWith(value))
      );
      const shown = chosen.slice(0, limit);
      if (parsed.json === true) print(`${JSON.stringify(shown, null, 2)}\n`);
      else print(show(kind, shown));
      const all = conditions.length > 0 ? chosen.length : total;
      if (shown.length < all) complain(`${shown.length} of ${all} shown; --limit shows more\n`);
      for (const line of silent) complain(`${line}\n`);
      return silent.length > 0 ? 1 : 0;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};

function nodeRow(node: ReturnType<typeof readRegistration>): Row {
  return {
    node: node.id,
    role: node.draining ? `${node.role}, draining` : node.role,
    address: `${node.hostname}:${node.port}`,
    labels: Object.entries(node.labels).map(([name, value]) => `${name}=${value}`).join(","),
    version: node.version,
    pid: node.pid,
    started: new Date(node.startedAt).toISOString(),
  };
}

/** The newest first. */
function eventRows(stored: readonly { readonly value: Uint8Array }[]): Row[] {
  return stored.flatMap(({ value }) => readEvents(value)).sort((a, b) => b.at - a.at).map((event) => ({
    time: new Date(event.at).toISOString(),
    node: event.node,
    level: event.level,
    event: event.text,
  }));
}

/** A table, without columns that nothing is in, and with ids cut short. */
function show(kind: string, rows: readonly Row[]): string {
  if (rows.length === 0) return `no ${kind}\n`;
  const names = Object.keys(rows[0]!).filter((name) => rows.some((row) => row[name] !== ""));
  const cell = (value: string | number) =>
    typeof value === "string" && /^[0-9a-f]{32,}$/.test(value) ? short(value) : String(value);
  return showTable(names, rows.map((row) => names.map((name) => cell(row[name] ?? ""))));
}

/** Of an object's id, also its index, which sets it apart from the others of its task. */
function short(id: string): string {
  return id.length === 32 ? id.slice(0, 8) : `${id.slice(0, 8)}…${id.slice(-4)}`;
}
