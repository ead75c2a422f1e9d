/**
 * A command's connection to a cluster.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { CONTROL_STORE_MS_MAX } from "../core/limits.ts";
import { GcsClient } from "../gcs/client.ts";
import { readTls, readToken, tokenFile } from "../transport/credentials.ts";
import { dialTcp, splitAddress } from "../transport/tcp.ts";
import { HEAD_PORT } from "./daemon.ts";
import { parseAddress } from "./daemon_options.ts";

/** Connects. @param address `HOST:PORT`; by default `RAYD_ADDRESS`, or this machine. @throws {RaydError} If it cannot. */
export async function connectCluster(
  address: string | undefined,
  file: string | undefined,
  loads?: ConstructorParameters<typeof GcsClient>[0]["loads"],
): Promise<GcsClient> {
  const text = address ?? Deno.env.get("RAYD_ADDRESS") ?? `127.0.0.1:${HEAD_PORT}`;
  const { hostname, port } = parseAddress(text, "--address");
  const tls = readTls();
  const client = new GcsClient({
    id: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
    token: readToken(file ?? tokenFile()),
    clock: systemClock,
    patienceMs: CONTROL_STORE_MS_MAX,
    connect: (member) => {
      const to = member === undefined ? { hostname, port } : splitAddress(member);
      return dialTcp(to.hostname, to.port, systemClock, tls);
    },
    ...(loads === undefined ? {} : { loads }),
  });
  await client.start();
  return client;
}
