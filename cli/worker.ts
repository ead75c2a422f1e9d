/**
 * `rayd worker`: a further node of a cluster.
 *
 * @module
 */

import { RaydError } from "../core/errors.ts";
import { hex } from "../core/ids.ts";
import { addressOf } from "../gcs/chain_links.ts";
import type { Daemon } from "../node/daemon.ts";
import { nodeLog } from "../node/log.ts";
import { lmdbAddon } from "../store/library.ts";
import { readToken, stateDirectory, tokenFile } from "../transport/credentials.ts";
import { type ControlStore, startControlStore } from "./control_store.ts";
import { checkBind, HEAD_PORT, randomHex, startNode, untilSignal } from "./daemon.ts";
import {
  DAEMON_HELP,
  type DaemonOptions,
  parseAddress,
  parseDaemonOptions,
  withoutDetach,
} from "./daemon_options.ts";
import type { Command } from "./mod.ts";
import { announceReady, detach } from "./detach.ts";
import { CommandLineError, complain } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd worker --address HOST:PORT [options]

Adds this machine to a cluster, and goes on until it is stopped (Ctrl-C, SIGTERM, or "rayd stop"). While the head is away
it goes on working, and connects again.

  --address HOST:PORT    the head, or another node that keeps the control store (default: RAYD_ADDRESS, or
                         127.0.0.1:${HEAD_PORT})
  --replica yes|no       whether this node may keep a replica of the control store, where there are several (default: yes)
${DAEMON_HELP}`,

  async run(args) {
    const options = parseDaemonOptions("worker", args, ["address", "replica"]);
    if (options.detach) return await detach("worker", withoutDetach(args));
    const address = options.own.address ?? Deno.env.get("RAYD_ADDRESS") ?? `127.0.0.1:${HEAD_PORT}`;
    try {
      checkBind(options.host, options);
      const token = readToken(options.tokenFile ?? tokenFile());
      const head = parseAddress(address, "--address");
      const offers = yesOrNo(options.own.replica ?? "yes", "--replica");
      const daemon = await startNode("worker", options, token, head);
      const replica = offers ? await startReplica(daemon, options, token) : undefined;
      announceReady(
        `rayd worker ${daemon.registration.id.slice(0, 8)} has joined ${address}\n${
          replica === undefined
            ? ""
            : `It may keep a replica of the control store: if the head is lost, use --address ${replica.address} instead\n`
        }`,
      );
      return await untilSignal(daemon, async () => {
        await daemon.close();
        await replica?.close();
      });
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

interface Replica {
  /** Where clients of the control store reach it. */
  readonly address: string;
  close(): Promise<void>;
}

/** Makes the node a member of its cluster's control store, if that is to have several; what it keeps goes with it. */
async function startReplica(
  { gcs, registration }: Daemon,
  options: DaemonOptions,
  token: string,
): Promise<Replica | undefined> {
  const { map, cluster, shards } = gcs;
  if (map === undefined || cluster === undefined || map.replicas === 1) return undefined;
  const parent = `${stateDirectory()}/replicas`;
  Deno.mkdirSync(parent, { recursive: true, mode: 0o700 });
  removeLeft(parent);
  const directory = `${parent}/${prefix()}${Deno.pid}-${randomHex(8)}`;
  Deno.mkdirSync(directory, { mode: 0o700 });
  const store: ControlStore = await startControlStore({
    directory,
    cluster: hex(cluster),
    shards,
    token,
    hostname: registration.hostname,
    port: 0,
    tls: options.tls,
    addon: lmdbAddon(),
    chain: {
      member: randomHex(16),
      incarnation: Date.now(),
      replicas: undefined,
      founds: false,
      seeds: map.chain,
    },
  }, nodeLog(options.logLevel));
  return {
    address: addressOf(registration.hostname, store.port),
    async close() {
      await store.close();
      Deno.removeSync(directory, { recursive: true });
    },
  };
}

/** Machines may share a home; processes are a machine's own. */
function prefix(): string {
  return `${Deno.hostname()}.`;
}

/** Removes what processes of this machine that were killed have left. */
function removeLeft(parent: string): void {
  for (const { name } of Deno.readDirSync(parent)) {
    if (!name.startsWith(prefix())) continue;
    try {
      Deno.statSync(`/proc/${Number(name.slice(prefix().length).split("-")[0])}`);
    } catch {
      // Another process that starts may be at it, too.
      try {
        Deno.removeSync(`${parent}/${name}`, { recursive: true });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }
}
