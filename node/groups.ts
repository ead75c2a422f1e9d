/**
 * Placement groups on one node: those that its programs made, which it coordinates (`scheduler/group_coordinator.ts`), and
 * the bundles that it holds for any coordinator (`node/bundles.ts`).
 *
 * @module
 */

import { showDemand } from "../core/options.ts";
import {
  type BundleMessage,
  type GroupAnswer,
  readBundleMessage,
  readGroupRequest,
  writeGroupMessage,
} from "../core/groups.ts";
import { hex, type TaskId, taskIdFromHex } from "../core/ids.ts";
import { bundleOf } from "../core/bundles.ts";
import {
  type Group,
  GroupCoordinator,
  type GroupEvent,
  type GroupNode,
} from "../scheduler/group_coordinator.ts";
import { Bundles } from "./bundles.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";
import type { TaskRecord } from "./tasks.ts";

/** Who waits for a group to be whole. */
interface Waiter {
  readonly client: number;
  readonly request: number;
}

const SELF = -1;

/** How often it is looked whether a group that waits can be reserved: a plan looks at all nodes. */
const LOOK_MS = 20;

/** The placement groups of one node. */
export class Groups {
  readonly #node: NodeParts;
  readonly #coordinator: GroupCoordinator;
  readonly #bundles: Bundles;
  #lookedAt = -Infinity;
  readonly #waiters = new Map<string, Waiter[]>();

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
    this.#coordinator = new GroupCoordinator(() => this.#nodes());
    this.#bundles = new Bundles(node, (to, message) => {
      if (to === SELF) this.#voted(node.options.id, message);
      else this.#tell(to, message);
    });
  }

  /** The groups that are coordinated here. */
  groups(): Iterable<Group> {
    return this.#coordinator.groups();
  }

  /** A program asks. @throws {ProtocolError} If that cannot be read. */
  asked(client: Client, request: number, body: Uint8Array): void {
    const message = readGroupRequest(body);
    switch (message.kind) {
      case "create": {
        const { group } = message;
        const waiters = this.#waiters.get(group.id) ?? [];
        waiters.push({ client: client.id, request });
        this.#waiters.set(group.id, waiters);
        const job = this.#node.programs.jobOf(client, taskIdFromHex(message.parent));
        this.#step({ type: "create", group, job, now: this.#node.now() });
        return this.#tellWaiters(group.id);
      }
      case "remove":
        // It may be another node's, which is told of it by way of the control store.
        if (this.#coordinator.get(message.id) === undefined) {
          this.#node.options.abroad?.removeGroup(message.id);
        } else this.#step({ type: "remove", id: message.id, now: this.#node.now() });
        return this.#answer(client.id, request, { kind: "removed" });
      case "describe": {
        const { abroad } = this.#node.options;
        const here = this.#coordinator.get(message.id) !== undefined;
        if (here || abroad === undefined) return this.#answer(client.id, request, this.#describe(message.id));
        // Another node coordinates it.
        abroad.readGroup(message.id).then(
          (record) => {
            this.#answer(
              client.id,
              request,
              record === undefined ? { kind: "removed" } : describeRecord(record),
            );
            this.#node.flush();
          },
          () =>
            this.#node.options.log(
              "warn",
              "A program asked for a placement group while the control store was away",
            ),
        );
        return;
      }
    }
  }

  /** Another node says something of bundles. @throws {ProtocolError} If that cannot be read. */
  said(client: Client, body: Uint8Array): void {
    const message = readBundleMessage(body);
    if (message.kind !== "vote") return this.#bundles.said(client.id, message);
    const node = this.#node.cluster?.nodeOf(client.id);
    if (node !== undefined) this.#voted(node, message);
  }

  /** The connection to another node is gone. */
  peerDown(client: Client, node: TaskId): void {
    this.#bundles.coordinatorGone(client.id);
    this.#step({ type: "nodeGone", node, now: this.#node.now() });
  }

  /** A program has ended: so have its groups. */
  jobEnded(job: TaskId): void {
    for (const { spec, job: of } of [...this.#coordinator.groups()]) {
      if (of === job) this.#step({ type: "remove", id: spec.id, now: this.#node.now() });
    }
  }

  /** A group was removed, wherever it was coordinated. */
  removed(id: string): void {
    if (this.#coordinator.get(id) !== undefined) {
      this.#step({ type: "remove", id, now: this.#node.now() });
    }
    this.#node.cluster?.groupGone(id);
  }

  /** Time has passed, or tasks have ended, or nodes have more room. */
  look(): void {
    if (this.#bundles.busy) this.#bundles.settle();
    const now = this.#node.now();
    if (now - this.#lookedAt < LOOK_MS || !this.#coordinator.busy) return;
    this.#lookedAt = now;
    this.#step({ type: "look", now });
  }

  /** A task waits for a bundle that no node is known to have: whether its group is there at all is asked. */
  check(task: TaskRecord): void {
    const bundle = bundleOf(task.asked.demand);
    const { abroad } = this.#node.options;
    if (bundle === undefined || abroad === undefined) return;
    if (this.#coordinator.get(bundle.group) !== undefined) return;
    abroad.readGroup(bundle.group).then((record) => {
      if (record === undefined) this.#node.cluster!.groupGone(bundle.group);
      this.#node.flush();
    }, () => {
      // The control store is away: it is asked to watch groups, and will tell.
    });
  }

  #step(event: GroupEvent): void {
    for (const effect of this.#coordinator.step(event)) {
      switch (effect.type) {
        case "tell":
          if (effect.node === this.#node.options.id) this.#bundles.said(SELF, effect.message);
          else {
            const client = this.#node.cluster?.clientOf(effect.node);
            if (client !== undefined) this.#tell(client.id, effect.message);
          }
          break;
        case "changed": {
          const group = this.#coordinator.get(effect.id);
          if (group !== undefined) this.#changed(group);
          break;
        }
        case "removed":
          this.#node.options.abroad?.recordGroup(effect.id, undefined);
          this.#node.cluster?.groupGone(effect.id);
          this.#tellWaiters(effect.id);
          break;
      }
    }
  }

  #voted(node: TaskId, message: BundleMessage): void {
    if (message.kind !== "vote") return;
    const { group: id, attempt, ok } = message;
    this.#step({ type: "vote", id, attempt, node, ok, now: this.#node.now() });
  }

  #changed(group: Group): void {
    const { spec, placed, reason, job } = group;
    const whole = placed.size === spec.bundles.length;
    if (!whole) this.#node.options.log("info", `Placement group ${spec.name || spec.id} waits: ${reason}`);
    const recorded = this.#node.options.abroad?.recordGroup(
      spec.id,
      JSON.stringify({
        ...spec,
        job: hex(job),
        coordinator: hex(this.#node.options.id),
        nodes: nodesOf(group),
        reason,
      }),
    );
    if (recorded === undefined) return this.#tellWaiters(spec.id);
    // Other nodes can ask for it before its maker can tell anybody of it.
    recorded.finally(() => {
      this.#tellWaiters(spec.id);
      this.#node.flush();
    });
  }

  /** Tells whoever waits for a group, if it is whole or gone. */
  #tellWaiters(id: string): void {
    const answer = this.#describe(id);
    if (answer.kind === "waits") return;
    for (const { client, request } of this.#waiters.get(id) ?? []) this.#answer(client, request, answer);
    this.#waiters.delete(id);
  }

  #describe(id: string): GroupAnswer {
    const group = this.#coordinator.get(id);
    if (group === undefined) return { kind: "removed" };
    const nodes = nodesOf(group);
    if (nodes.every((node) => node !== "")) return { kind: "placed", nodes };
    return { kind: "waits", nodes, reason: `${group.reason} (${asks(group)})` };
  }

  #nodes(): GroupNode[] {
    const { pool, cluster, options } = this.#node;
    const self = cluster?.draining ? [] : [{
      id: options.id,
      free: pool.free(),
      lasting: pool.lasting(),
      total: pool.total(),
    }];
    return [...self, ...cluster?.groupNodes() ?? []];
  }

  #answer(client: number, request: number, answer: GroupAnswer): void {
    const to = this.#node.clients.get(client);
    if (to !== undefined) this.#node.send(to, { type: "answer", request, body: writeGroupMessage(answer) });
  }

  #tell(client: number, message: BundleMessage): void {
    const to = this.#node.clients.get(client);
    if (to !== undefined) this.#node.send(to, { type: "bundles", body: writeGroupMessage(message) });
  }
}

/** As {@link Groups} records it. */
function describeRecord(record: string): GroupAnswer {
  const { nodes, reason } = JSON.parse(record) as { nodes: string[]; reason: string };
  return reason === "" ? { kind: "placed", nodes } : { kind: "waits", nodes, reason };
}

/** Where a group's bundles are; empty where they are nowhere. */
function nodesOf({ spec, placed }: Group): string[] {
  return spec.bundles.map((_, i) => placed.has(i) ? hex(placed.get(i)!) : "");
}

function asks({ spec, placed }: Group): string {
  const missing = spec.bundles.filter((_, i) => !placed.has(i));
  const shown = missing.slice(0, 3).map((demand) => showDemand(demand)).join(", ");
  return `${spec.strategy}, ${missing.length} of ${spec.bundles.length} bundles: ${shown}${
    missing.length > 3 ? ", …" : ""
  }`;
}
