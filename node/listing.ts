/**
 * What a node tells of everything on it, one row each, for `rayd list`: tasks, actors, objects, workers, programs,
 * placement groups, and what is asked for and cannot be had.
 *
 * Rows are made when they are asked for, from what the node knows anyway; nothing is kept for them.
 *
 * @module
 */

import { isBundleName } from "../core/bundles.ts";
import { hex } from "../core/ids.ts";
import { unreachable } from "../core/unreachable.ts";
import type { ListTopic } from "../core/messages.ts";
import { RESOURCE_UNIT } from "../core/options.ts";
import { showShape } from "../scheduler/resources.ts";
import { CallRecord } from "./actor_records.ts";
import { stateOf } from "./cancellations.ts";
import type { NodeParts } from "./parts.ts";
import type { TaskRecord } from "./tasks.ts";

/** One row: plain values by the names of their columns. */
export type Row = Readonly<Record<string, string | number>>;

/** The most rows of one answer; of more, the first ones are told. */
const ROWS_MAX = 10_000;

/** All rows of a kind, and how many there are. */
export function list(
  node: NodeParts,
  topic: ListTopic,
): { readonly rows: readonly Row[]; readonly total: number } {
  const rows: Row[] = [];
  let total = 0;
  for (const row of rowsOf(node, topic)) {
    if (total++ < ROWS_MAX) rows.push(row());
  }
  return { rows, total };
}

function* rowsOf(node: NodeParts, topic: ListTopic): Iterable<() => Row> {
  switch (topic) {
    case "tasks":
      for (const task of node.tasks.values()) {
        if (!(task instanceof CallRecord)) yield () => taskRow(node, task);
        else if (task.actor.creation !== task) yield () => callRow(task);
      }
      return;
    case "actors":
      for (const actor of node.actors.all()) {
        yield () => ({
          actor: hex(actor.id),
          class: actor.settings.label,
          name: actor.settings.name,
          namespace: actor.settings.name === "" ? "" : actor.settings.namespace,
          state: actor.state,
          worker: actor.isolate?.number ?? "",
          calls: actor.unanswered,
          restarts: actor.restarts,
          asks: showShape(actor.asked),
          detached: actor.settings.detached ? "yes" : "",
          job: hex(actor.job),
          why: actor.reason,
        });
      }
      return;
    case "objects":
      for (const record of node.directory.values()) {
        yield () => {
          const { outcome } = record;
          const holders = (record.ownerCount > 0 ? 1 : 0) + (record.others?.size ?? 0);
          const where = outcome === undefined
            ? "not made yet"
            : outcome.kind !== "stored"
            ? "small"
            : record.spilled !== undefined
            ? "disk"
            : node.store.has(record.id)
            ? "memory"
            : record.home === undefined
            ? "gone"
            : `node ${nodeName(node, record.home)}`;
          return {
            object: hex(record.id, true),
            bytes: outcome?.kind === "stored" ? outcome.size : outcome?.bytes.length ?? 0,
            kind: outcome?.kind === "error" ? "error" : "value",
            where,
            holders,
            uses: record.uses,
          };
        };
      }
      return;
    case "workers":
      for (const isolate of node.isolates.byNumber.values()) {
        yield () => ({
          worker: isolate.number,
          pid: isolate.client?.pid ?? "",
          state: isolate.client === undefined ? "starting" : isolate.executions.size === 0 ? "idle" : "busy",
          tasks: isolate.executions.size,
          actors: isolate.residents?.actors.size ?? 0,
          kind: isolate.residents === undefined
            ? "tasks"
            : isolate.residents.shared
            ? "light actors"
            : "actor",
        });
      }
      return;
    case "jobs":
      for (const [job, client] of node.programs.connectedJobs()) {
        let tasks = 0;
        for (const task of node.tasks.values()) if (task.job === job) tasks++;
        yield () => ({ job: hex(job), pid: client.pid, tasks });
      }
      return;
    case "groups":
      for (const { spec, placed, reason, job } of node.groups.groups()) {
        yield () => ({
          group: spec.id,
          name: spec.name,
          strategy: spec.strategy,
          bundles: spec.bundles.length,
          reserved: placed.size,
          nodes: [...new Set(placed.values())].map((id) => hex(id).slice(0, 8)).join(" "),
          job: hex(job),
          waits: reason,
        });
      }
      return;
    case "unmet":
      for (const row of unmet(node)) yield () => row;
      return;
    default:
      unreachable(topic);
  }
}

function taskRow(node: NodeParts, task: TaskRecord): Row {
  return {
    task: hex(task.id),
    name: task.entry.settings.name,
    state: stateOf(task),
    worker: task.isolate >= 0 ? task.isolate : "",
    with: task.remote >= 0 ? nodeName(node, task.remote) : "",
    asks: showShape(task.asked),
    attempt: task.attempts,
    job: hex(task.job),
    parent: hex(task.parent),
  };
}

function callRow(call: CallRecord): Row {
  return {
    task: hex(call.id),
    name: call.label,
    state: `call, ${stateOf(call)}`,
    worker: call.actor.isolate?.number ?? "",
    with: "",
    asks: "",
    attempt: call.attempts,
    job: hex(call.job),
    parent: hex(call.parent),
  };
}

function nodeName(node: NodeParts, client: number): string {
  const id = node.cluster?.nodeOf(client);
  return id === undefined ? "gone" : hex(id).slice(0, 8);
}

/** What is asked for and cannot be had now, alike things together, with the reason. */
function unmet(node: NodeParts): Row[] {
  const counts = new Map<string, { readonly row: Row; count: number }>();
  const add = (what: string, asks: string, reason: string) => {
    const key = `${what}\n${asks}\n${reason}`;
    const known = counts.get(key);
    if (known !== undefined) known.count++;
    else counts.set(key, { row: { what, asks, reason }, count: 1 });
  };
  for (const task of node.tasks.values()) {
    if (task instanceof CallRecord) continue;
    if (task.state === "queued") {
      const busy = task.asked.alternatives.some((shape) => node.pool.fits(shape))
        ? "it is about to start"
        : `what it asks for is in use here: free ${freeOf(node, task)}`;
      add(`task ${task.entry.settings.name}`, showShape(task.asked), busy);
    }
  }
  for (const { name, asks, reason } of node.cluster?.unmet() ?? []) add(name, asks, reason);
  for (const actor of node.actors.all()) {
    if (actor.state !== "pending" || actor.acquired || !actor.creation.wanted) continue;
    add(
      `actor ${actor.settings.label}`,
      showShape(actor.asked),
      "other actors or groups hold what it asks for",
    );
  }
  for (const { spec, placed, reason } of node.groups.groups()) {
    if (placed.size === spec.bundles.length) continue;
    add(`group ${spec.name || spec.id.slice(0, 8)}`, `${spec.strategy} of ${spec.bundles.length}`, reason);
  }
  return Array.from(counts.values(), ({ row, count }) => ({ ...row, count }));
}

function freeOf(node: NodeParts, task: TaskRecord): string {
  const free = node.pool.free();
  const names = new Set(task.asked.alternatives.flatMap(({ demand }) => Object.keys(demand)));
  return [...names].filter((name) => !isBundleName(name))
    .map((name) => `${name} ${Math.max(0, free[name] ?? 0) / RESOURCE_UNIT}`).join(", ") ||
    "nothing of its bundle";
}
