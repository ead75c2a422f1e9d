/**
 * What `rayd doctor` looks for in a cluster: whether it answers, whether all nodes are of one version, and whether their
 * clocks agree.
 *
 * Every report of a node's load has its time on it. A report takes a while to get here, by way of the head, so each makes
 * the node look behind by that much; the least that any of several shows, less half a round trip between here and the
 * head, is what is left to the clocks. What a network between node and head takes still counts as skew, as do the 20 ms
 * in which the head collects reports, so only much more than that is called wrong.
 *
 * @module
 */

import { DisconnectedError, RaydError } from "../core/errors.ts";
import { hex } from "../core/ids.ts";
import { VERSION } from "../core/version.ts";
import { type NodeRegistration, NODES, readLoadTime, readRegistration } from "../node/registration.ts";
import { machineId } from "../runtime/machine.ts";
import { connectCluster } from "./cluster_client.ts";

/** What was looked at, and what of it is wrong. */
export interface Finding {
  readonly what: string;
  readonly finding: string;
  /** How it is mended, if it is wrong. */
  readonly mend?: string;
}

/** Looks at the cluster. @param address The head; `undefined` if none was asked for. */
export async function clusterFindings(address: string | undefined): Promise<Finding[]> {
  const what = "cluster";
  if (address === undefined) return [{ what, finding: "none asked for (RAYD_ADDRESS, or --address)" }];
  const reports = new ClockReports();
  try {
    const client = await connectCluster(
      address,
      undefined,
      (loads) => reports.take(loads.map(({ node, load }) => [hex(node), readLoadTime(load)]), Date.now()),
    );
    let roundTripMs = Infinity;
    let nodes: NodeRegistration[] = [];
    for (let i = 0; i < ROUND_TRIPS; i++) {
      const started = performance.now();
      nodes = (await client.list(NODES)).map(({ value }) => readRegistration(value));
      roundTripMs = Math.min(roundTripMs, performance.now() - started);
    }
    await reports.enough(nodes.map(({ id }) => id), REPORTS_MS_MAX);
    client.close();
    const here = nodes.filter(({ machine }) => machine === machineId()).length;
    const finding =
      `${address} answers (rayd ${VERSION}, ${roundTripMs.toFixed(1)} ms): ${nodes.length} nodes, ` +
      `${here} here`;
    return [
      here > 0
        ? { what, finding }
        : { what, finding, mend: `programs need a node on their machine: rayd worker --address ${address}` },
      versions(nodes),
      clocks(nodes, reports.skews(roundTripMs / 2)),
    ];
  } catch (error) {
    if (!(error instanceof RaydError)) throw error;
    const mend = error instanceof DisconnectedError
      ? "see that the head runs, and that its port can be reached from here"
      : "mend that first: the rest of the cluster could not be looked at";
    return [{ what, finding: error.message, mend }];
  }
}

const ROUND_TRIPS = 3;

/** How long reports are waited for: nodes tell of themselves twice a second at least. */
const REPORTS_MS_MAX = 5_000;

/** Reports of one node from which its clock is judged. */
const REPORTS_WANTED = 3;

/** Whether all nodes are of this version. */
export function versions(nodes: readonly Pick<NodeRegistration, "id" | "hostname" | "version">[]): Finding {
  const what = "versions";
  const others = nodes.filter(({ version }) => version !== VERSION);
  if (others.length === 0) return { what, finding: `all nodes are rayd ${VERSION}, as this is` };
  return {
    what,
    finding: `this is rayd ${VERSION}, but ` +
      others.map(({ id, hostname, version }) => `${id.slice(0, 8)} at ${hostname} is ${version}`).join(", "),
    mend: "put the same rayd on all machines, and start their nodes again",
  };
}

/** Clocks that differ by more than this are wrong. */
export const SKEW_MS_MAX = 1_000;

/** Whether clocks agree. @param skews Milliseconds by which each node's is ahead of this one's, by the node's id. */
export function clocks(
  nodes: readonly Pick<NodeRegistration, "id" | "hostname" | "role">[],
  skews: ReadonlyMap<string, number>,
): Finding {
  const what = "clocks";
  const known = nodes.flatMap((node) => {
    const skew = skews.get(node.id);
    return skew === undefined ? [] : [{ ...node, skew }];
  });
  const silent = nodes.length - known.length;
  const unknown = silent === 0 ? "" : `; nothing was heard of ${silent}`;
  const wrong = known.filter(({ skew }) => Math.abs(skew) > SKEW_MS_MAX);
  if (wrong.length === 0) {
    const most = Math.max(0, ...known.map(({ skew }) => Math.abs(skew)));
    return {
      what,
      finding: `those of ${known.length} nodes are within ${Math.ceil(most)} ms of this one${unknown}`,
    };
  }
  const each = wrong.map(({ id, hostname, role, skew }) =>
    `${role} ${id.slice(0, 8)} at ${hostname} is ${(Math.abs(skew) / 1000).toFixed(1)} s ${
      skew > 0 ? "ahead" : "behind"
    }`
  );
  return {
    what,
    finding: each.join(", ") + unknown,
    mend: wrong.length === nodes.length && nodes.length > 1
      ? "all differ from this machine's: let NTP set the clock here (timedatectl set-ntp true, or chronyd)"
      : "let NTP set the clocks there (timedatectl set-ntp true, or chronyd): times of what happened cannot be " +
        "compared, and certificates may look expired",
  };
}

/** Times that nodes put on their reports, beside those at which they came. */
export class ClockReports {
  /** By node: how many came, and the most that its clock was ahead by. */
  readonly #nodes = new Map<string, { count: number; ahead: number }>();
  #first = true;
  #changed: () => void = () => {};

  /** Takes reports that came at once. @param now Milliseconds since 1970, here. */
  take(reports: readonly (readonly [node: string, at: number | undefined])[], now: number): void {
    // The first are what the head had heard before, at a time that is not known.
    if (this.#first) {
      this.#first = false;
      return;
    }
    for (const [node, at] of reports) {
      if (at === undefined) continue;
      const known = this.#nodes.get(node) ?? { count: 0, ahead: -Infinity };
      this.#nodes.set(node, { count: known.count + 1, ahead: Math.max(known.ahead, at - now) });
    }
    this.#changed();
  }

  /** Waits for reports of all these nodes, but not for longer than `msMax`. */
  async enough(nodes: readonly string[], msMax: number): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, msMax);
    const all = new Promise<void>((resolve) => {
      this.#changed = () => {
        if (nodes.every((node) => (this.#nodes.get(node)?.count ?? 0) >= REPORTS_WANTED)) resolve();
      };
      this.#changed();
    });
    await Promise.race([all, late.promise]);
    clearTimeout(timer);
  }

  /** By node: milliseconds by which its clock is ahead. @param wayMs How long a report takes at the least. */
  skews(wayMs: number): Map<string, number> {
    return new Map(Array.from(this.#nodes, ([node, { ahead }]) => [node, ahead + wayMs]));
  }
}
