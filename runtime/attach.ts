/**
 * Finding a node of a cluster on this machine, for a program that is to use it: its object store is this machine's
 * memory, so only such a node will do.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { CONTROL_STORE_MS_MAX } from "../core/limits.ts";
import { GcsClient } from "../gcs/client.ts";
import { type NodeRegistration, NODES, readRegistration } from "../node/registration.ts";
import { machineId } from "./machine.ts";
import { readTls, readToken } from "../transport/credentials.ts";
import { dialTcp, splitAddress } from "../transport/tcp.ts";

/** A way to a node. */
export interface FoundNode {
  readonly conn: Deno.Conn;
  readonly token: string;
  readonly storePath: string;
}

/**
 * Connects to a node.
 *
 * `RAYD_NODE`, the beginning of a node's id, says which one, where several run on the machine.
 *
 * @param address The head: `HOST:PORT`. @param id 16 random bytes: who asks.
 * @throws {UsageError} If the address is none, the token is wrong, or no node runs on this machine.
 * @throws {DisconnectedError} If the head cannot be reached.
 * @throws {NoMajorityError} If too few of those who keep the control store answer.
 */
export async function findNode(address: string, id: TaskId): Promise<FoundNode> {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(address);
  if (match === null) {
    throw new UsageError(`Cannot use RAYD_ADDRESS "${address}": give HOST:PORT, such as 127.0.0.1:6380`);
  }
  const token = readToken();
  const tls = readTls();
  const gcs = new GcsClient({
    id,
    token,
    clock: systemClock,
    patienceMs: CONTROL_STORE_MS_MAX,
    connect: (member) => {
      const { hostname, port } = splitAddress(member ?? address);
      return dialTcp(hostname, port, systemClock, tls);
    },
  });
  let nodes: NodeRegistration[];
  try {
    await gcs.start();
    nodes = (await gcs.list(NODES)).map(({ value }) => readRegistration(value));
  } finally {
    gcs.close();
  }
  // The name of a socket is a machine's own, and so is a store's path: the boot tells machines apart, and whether the
  // socket answers, containers.
  const wanted = Deno.env.get("RAYD_NODE") ?? "";
  const here = nodes.filter(({ machine, id }) => machine === machineId() && id.startsWith(wanted))
    .sort((a, b) => a.role === b.role ? a.startedAt - b.startedAt : a.role === "head" ? -1 : 1);
  for (const { socket, storePath } of here) {
    try {
      return { conn: await Deno.connect({ transport: "unix", path: socket }), token, storePath };
    } catch {
      // Of another container, or on its way down.
    }
  }
  throw new UsageError(
    `Cannot join the cluster at ${address}: none of its ${nodes.length} nodes runs on this machine. Start one here: ` +
      `rayd worker --address ${address}`,
  );
}
