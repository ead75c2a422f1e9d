/**
 * `rayd head`: the first node of a cluster, with the control store.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { UsageError } from "../core/errors.ts";
import type { GcsConfig, GcsReply } from "../gcs/config.ts";
import { nodeLog } from "../node/log.ts";
import { lmdbAddon } from "../store/library.ts";
import { readOrMakeToken, stateDirectory, tokenFile } from "../transport/credentials.ts";
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
${DAEMON_HELP}`,

  async run(args) {
    const options = parseDaemonOptions("head", args, ["port", "dir", "shards"]);
    if (options.detach) return await detach("head", withoutDetach(args));
    const hostname = options.host ?? "127.0.0.1";
    const file = options.tokenFile ?? tokenFile();
    try {
      checkBind(hostname, options);
      const token = readOrMakeToken(randomHex(32), file);
      const port = parsePort(options.own.port ?? String(HEAD_PORT), "--port");
      const gcs = await startGcs({
        ...openDirectory(options.own.dir ?? `${stateDirectory()}/head`, options.own.shards),
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
      const address = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${gcs.port}`;
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

/** The control store's directory, made if need be; what it is is written in it. */
function openDirectory(
  directory: string,
  shards: string | undefined,
): Pick<GcsConfig, "directory" | "cluster" | "shards"> {
  const wanted = Number(shards ?? SHARDS_DEFAULT);
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > SHARDS_MAX) {
    throw new CommandLineError(`Cannot use --shards ${shards}: give a whole number from 1 to ${SHARDS_MAX}`);
  }
  const file = `${directory}/cluster.json`;
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    Deno.writeTextFileSync(file, JSON.stringify({ cluster: randomHex(16), shards: wanted }), {
      createNew: true,
    });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  const found = JSON.parse(Deno.readTextFileSync(file)) as { cluster: string; shards: number };
  if (shards !== undefined && found.shards !== wanted) {
    throw new UsageError(
      `Cannot use --shards ${wanted}: the control store in ${directory} has ${found.shards}, which cannot be changed`,
    );
  }
  return { directory, cluster: found.cluster, shards: found.shards };
}

const SHARDS_DEFAULT = 4;
const SHARDS_MAX = 64;

interface Gcs {
  readonly port: number;
  close(): Promise<void>;
}

function startGcs(
  config: GcsConfig,
  log: (level: "info" | "warn" | "error", message: string) => void,
): Promise<Gcs> {
  const worker = new Worker(new URL("../gcs/main.ts", import.meta.url));
  const ended = Promise.withResolvers<void>();
  return new Promise((resolve, reject) => {
    worker.on("message", (reply: GcsReply) => {
      switch (reply.type) {
        case "ready":
          return resolve({
            port: reply.port,
            async close() {
              worker.postMessage("shutdown");
              await ended.promise;
              await worker.terminate();
            },
          });
        case "failed":
          return reject(new UsageError(`Cannot start the control store: ${reply.message}`));
        case "ended":
          return ended.resolve();
        case "log":
          return log(reply.level, reply.message);
      }
    });
    worker.on(
      "error",
      (error: Error) => reject(new UsageError(`The control store failed: ${error.message}`)),
    );
    worker.postMessage(config);
  });
}
