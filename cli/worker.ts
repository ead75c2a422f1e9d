/**
 * `rayd worker`: a further node of a cluster.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { DisconnectedError, RaydError, UsageError } from "../core/errors.ts";
import { hex, taskIdFromBytes } from "../core/ids.ts";
import { CONTROL_STORE_MS_MAX } from "../core/limits.ts";
import { addressOf } from "../gcs/chain_links.ts";
import { GcsClient } from "../gcs/client.ts";
import type { Daemon, DaemonConfig } from "../node/daemon.ts";
import { nodeLog } from "../node/log.ts";
import { lmdbAddon } from "../store/library.ts";
import { readToken, stateDirectory, tokenFile } from "../transport/credentials.ts";
import { dialTcp, splitAddress } from "../transport/tcp.ts";
import { type ControlStore, startControlStore, type StoreEnd } from "./control_store.ts";
import { checkBind, HEAD_PORT, startNode, untilSignal } from "./daemon.ts";
import {
  DAEMON_HELP,
  type DaemonOptions,
  parseAddress,
  parseDaemonOptions,
  withoutDetach,
} from "./daemon_options.ts";
import type { Command } from "./mod.ts";
import { announceReady, detach } from "./detach.ts";
import { withMajority } from "./majority.ts";
import { CommandLineError, complain } from "./output.ts";
import {
  keepReplicaDirectory,
  makeReplicaDirectory,
  openReplicaDirectory,
  removeNotNeeded,
  type StoreOf,
  takeDirectory,
  temporaryReplicaDirectory,
} from "./store_directory.ts";

/** The command. */
export const command: Command = {
  help: `rayd worker --address HOST:PORT [options]

Adds this machine to a cluster, and goes on until it is stopped (Ctrl-C, SIGTERM, or "rayd stop"). While the head is away
it goes on working, and connects again.

  --address HOST:PORT    the head, or another node that keeps the control store (default: RAYD_ADDRESS, or
                         127.0.0.1:${HEAD_PORT})
  --replica yes|no       whether this node may keep a replica of the control store, where there are several (default: yes)
  --dir DIR              where its replica lies, to be taken up when the worker is started again on DIR (default: what it
                         keeps goes with it, unless it is the last one that is stopped)
${DAEMON_HELP}`,

  async run(args) {
    const options = parseDaemonOptions("worker", args, ["address", "replica", "dir"]);
    if (options.detach) return await detach("worker", withoutDetach(args));
    const address = options.own.address ?? Deno.env.get("RAYD_ADDRESS") ?? `127.0.0.1:${HEAD_PORT}`;
    const offers = yesOrNo(options.own.replica ?? "yes", "--replica");
    const { dir } = options.own;
    if (dir !== undefined && !offers) {
      throw new CommandLineError("Cannot use --dir with --replica no: it is where the replica lies");
    }
    try {
      checkBind(options.host, options);
      const token = readToken(options.tokenFile ?? tokenFile());
      const head = parseAddress(address, "--address");
      using _ = dir === undefined ? undefined : takeDirectory(dir);
      const left = dir === undefined ? undefined : openReplicaDirectory(dir);
      const { daemon, replica } = left !== undefined
        ? await goOn(left, options, token, head)
        : await join(dir, offers, options, token, head);
      announceReady(
        `rayd worker ${daemon.registration.id.slice(0, 8)} has joined ${address}\n${
          replica === undefined
            ? ""
            : `It may keep a replica of the control store: if the head is lost, use --address ${replica.address} instead\n`
        }`,
      );
      let end: StoreEnd | undefined;
      const status = await untilSignal(daemon, replica?.store, async () => {
        await daemon.close();
        end = await replica?.store.close();
      });
      if (replica !== undefined && end !== undefined) settle(replica.directory, dir === undefined, end);
      return status;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};

function yesOrNo(text: string, option: string): boolean {
  if (text !== "yes" && text !== "no") {
    throw new CommandLineError(`Cannot use ${option} ${text}: say yes or no`);
  }
  return text === "yes";
}

/** This process's replica of the control store. */
interface Replica {
  readonly store: ControlStore;
  readonly directory: string;
  /** Where clients of the control store reach it. */
  readonly address: string;
}

interface Worker {
  readonly daemon: Daemon;
  readonly replica: Replica | undefined;
}

type Address = DaemonConfig["stores"][number];

/** Joins a cluster, and offers a replica if its control store is to have several. */
async function join(
  dir: string | undefined,
  offers: boolean,
  options: DaemonOptions,
  token: string,
  head: Address,
): Promise<Worker> {
  const daemon = await startNode("worker", options, token, [head], CONTROL_STORE_MS_MAX);
  const { map, cluster, shards } = daemon.gcs;
  const replicas = `${stateDirectory()}/replicas`;
  if (map !== undefined && cluster !== undefined) removeNotNeeded(replicas, hex(cluster), map);
  if (!offers || map === undefined || cluster === undefined || map.replicas === 1) {
    return { daemon, replica: undefined };
  }
  const directory = dir ?? temporaryReplicaDirectory(replicas);
  const made = makeReplicaDirectory(
    directory,
    dir !== undefined,
    { cluster: hex(cluster), shards },
    map.chain,
  );
  return { daemon, replica: await startReplica(made, daemon.registration.hostname, options, token) };
}

/**
 * Goes on with a replica from an earlier run. It comes first, as the cluster may not have a majority without it; then the
 * node can be told by it where the others are.
 */
async function goOn(found: StoreOf, options: DaemonOptions, token: string, head: Address): Promise<Worker> {
  const known = await askMap(head, options, token);
  if (known !== undefined && known.cluster !== found.cluster) {
    throw new UsageError(
      `Cannot use --dir ${found.directory}: it has a replica of another cluster's control store than the one at ` +
        `${addressOf(head.hostname, head.port)}. Give another --dir, or that cluster's --address`,
    );
  }
  const hostname = options.host ?? known?.hostname ?? found.hostname ?? "127.0.0.1";
  checkBind(hostname, options);
  const seeds = known?.chain ?? [];
  const replica = await startReplica(
    { ...found, chain: { ...found.chain!, seeds } },
    hostname,
    options,
    token,
  );
  const own = { hostname, port: replica.store.port };
  const daemon = await withMajority(
    replica.store,
    found.directory,
    () => startNode("worker", { ...options, damage: found.damage }, token, [head, own]),
  );
  return { daemon, replica };
}

/** What whoever is at an address says of the cluster, and this machine's address on the way there; if anybody is. */
async function askMap(
  head: Address,
  options: DaemonOptions,
  token: string,
): Promise<
  { readonly cluster: string; readonly chain: readonly string[]; readonly hostname: string } | undefined
> {
  let hostname = "";
  const client = new GcsClient({
    id: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
    token,
    clock: systemClock,
    connect: async (member) => {
      const to = member === undefined ? head : splitAddress(member);
      const conn = await dialTcp(to.hostname, to.port, systemClock, options.tls);
      if (member === undefined) hostname = (conn.localAddr as Deno.NetAddr).hostname;
      return conn;
    },
  });
  client.start(CONTROL_STORE_MS_MAX).catch(() => {}); // whether it could go on with it does not matter here
  try {
    const { chain } = await client.mapped;
    return { cluster: hex(client.cluster!), chain, hostname };
  } catch (error) {
    if (!(error instanceof DisconnectedError)) throw error;
    return undefined;
  } finally {
    client.close();
  }
}

/** Makes the node a member of its cluster's control store. */
async function startReplica(
  of: StoreOf,
  hostname: string,
  options: DaemonOptions,
  token: string,
): Promise<Replica> {
  const store = await startControlStore({
    ...of,
    token,
    hostname,
    port: 0,
    tls: options.tls,
    addon: lmdbAddon(),
  }, nodeLog(options.logLevel));
  return { store, directory: of.directory, address: addressOf(hostname, store.port) };
}

/** What becomes of a replica when the worker has ended: one that others may need is kept. */
function settle(directory: string, temporary: boolean, { left, last }: StoreEnd): void {
  if (left && !last) {
    if (temporary) Deno.removeSync(directory, { recursive: true });
    return;
  }
  const kept = temporary ? keepReplicaDirectory(directory) : directory;
  complain(
    `rayd: ${
      last
        ? "this node was the last that kept the control store"
        : "the control store may need this node's replica"
    }, in ${kept}. To take it up again: rayd worker --dir ${kept}\n`,
  );
}
