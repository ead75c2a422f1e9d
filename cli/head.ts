/**
 * `rayd head`: the first node of a cluster, with the control store.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import { FOUNDER } from "../gcs/chain_config.ts";
import { addressOf } from "../gcs/chain_links.ts";
import type { GcsChainConfig, GcsConfig } from "../gcs/config.ts";
import { nodeLog } from "../node/log.ts";
import { lmdbAddon } from "../store/library.ts";
import { readOrMakeToken, stateDirectory, tokenFile } from "../transport/credentials.ts";
import { startControlStore } from "./control_store.ts";
import { checkBind, HEAD_PORT, randomHex, startNode, untilSignal } from "./daemon.ts";
import { DAEMON_HELP, parseDaemonOptions, parsePort, withoutDetach } from "./daemon_options.ts";
import type { Command } from "./mod.ts";
import { announceReady, detach } from "./detach.ts";
import { CommandLineError, complain } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd head [options]

Starts the first node of a cluster, which keeps the control store, and goes on until it is stopped (Ctrl-C, SIGTERM, or
"rayd stop"). Started again on the same --dir, it knows all that it had acknowledged.

  --port N               the port that workers and programs connect to (default: ${HEAD_PORT}; 0: any)
  --dir DIR              where the control store lies (default: ~/.rayd/head)
  --shards N             shards of a new control store (default: 4)
  --replicas N           how many nodes keep the control store: with 3, any one may be lost (default: 1, this one alone)
${DAEMON_HELP}`,

  async run(args) {
    const options = parseDaemonOptions("head", args, ["port", "dir", "shards", "replicas"]);
    if (options.detach) return await detach("head", withoutDetach(args));
    const hostname = options.host ?? "127.0.0.1";
    const file = options.tokenFile ?? tokenFile();
    try {
      checkBind(hostname, options);
      const token = readOrMakeToken(randomHex(32), file);
      const port = parsePort(options.own.port ?? String(HEAD_PORT), "--port");
      const directory = options.own.dir ?? `${stateDirectory()}/head`;
      const opened = openDirectory(directory, options.own.shards, options.own.replicas);
      const late = opened.chain === undefined ? undefined : setTimeout(() => {
        complain(
          `error: The control store in ${directory} has members elsewhere, and no majority of them answered within ` +
            `${
              MEMBERS_MS_MAX / 1000
            } s. Without one nobody knows what was last agreed. Start the others, or begin a ` +
            `new cluster with another --dir\n`,
        );
        Deno.exit(1);
      }, MEMBERS_MS_MAX);
      const gcs = await startControlStore({
        ...opened,
        token,
        hostname,
        port,
        tls: options.tls,
        addon: lmdbAddon(),
      }, nodeLog(options.logLevel));
      const daemon = await startNode("head", { ...options, host: hostname }, token, {
        hostname,
        port: gcs.port,
      });
      clearTimeout(late);
      const address = addressOf(hostname, gcs.port);
      announceReady(
        `rayd head ${daemon.registration.id.slice(0, 8)} is up at ${address}\n\n` +
          `  join it:  rayd worker --address ${address}\n` +
          `  use it:   RAYD_ADDRESS=${address} rayd run script.ts\n` +
          `  see it:   rayd status --address ${address}\n\n` +
          `The token is in ${file}; other machines need a copy of it.\n`,
      );
      return await untilSignal(daemon, async () => {
        await daemon.close();
        await gcs.close();
      });
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};

/** How long a head that is started again waits for a majority of its control store's members. */
const MEMBERS_MS_MAX = 30_000;

/** What a control store's directory says of it. */
interface Directory {
  readonly cluster: string;
  readonly shards: number;
  readonly replicas?: number;
}

/** The control store's directory, made if need be; what it is is written in it. */
function openDirectory(
  directory: string,
  shards: string | undefined,
  replicas: string | undefined,
): Pick<GcsConfig, "directory" | "cluster" | "shards" | "chain"> {
  const wanted = wholeNumber("--shards", shards ?? String(SHARDS_DEFAULT), SHARDS_MAX);
  const file = `${directory}/cluster.json`;
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    Deno.writeTextFileSync(file, JSON.stringify({ cluster: randomHex(16), shards: wanted }), {
      createNew: true,
    });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  const found = JSON.parse(Deno.readTextFileSync(file)) as Directory;
  if (shards !== undefined && found.shards !== wanted) {
    throw new UsageError(
      `Cannot use --shards ${wanted}: the control store in ${directory} has ${found.shards}, which cannot be changed`,
    );
  }
  const count = replicas === undefined
    ? found.replicas ?? 1
    : wholeNumber("--replicas", replicas, REPLICAS_MAX);
  if (count < (found.replicas ?? 1)) {
    throw new UsageError(
      `Cannot use --replicas ${count}: the control store in ${directory} has ${found.replicas} replicas, and cannot ` +
        `have fewer`,
    );
  }
  const chain = count === 1 ? undefined : asMember(file, found, count);
  return { directory, cluster: found.cluster, shards: found.shards, chain };
}

/** The store as one of several members: the one that founded it. */
function asMember(file: string, found: Directory, replicas: number): GcsChainConfig {
  if (found.replicas !== replicas) {
    Deno.writeTextFileSync(`${file}.new`, JSON.stringify({ ...found, replicas }));
    Deno.renameSync(`${file}.new`, file);
  }
  return { member: FOUNDER, incarnation: Date.now(), replicas, founds: true, seeds: [] };
}

function wholeNumber(option: string, text: string, max: number): number {
  const n = Number(text);
  if (Number.isInteger(n) && n >= 1 && n <= max) return n;
  throw new CommandLineError(`Cannot use ${option} ${text}: give a whole number from 1 to ${max}`);
}

const SHARDS_DEFAULT = 4;
const SHARDS_MAX = 64;
const REPLICAS_MAX = 7;
