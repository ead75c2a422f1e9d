/**
 * `rayd head`: the first node of a cluster, with the control store.
 *
 * @module
 */

import { RaydError } from "../core/errors.ts";
import { addressOf } from "../gcs/chain_links.ts";
import { nodeLog } from "../node/log.ts";
import { lmdbAddon } from "../store/library.ts";
import { readOrMakeToken, stateDirectory, tokenFile } from "../transport/credentials.ts";
import { startControlStore, type StoreEnd } from "./control_store.ts";
import { checkBind, HEAD_PORT, randomHex, startNode, untilSignal } from "./daemon.ts";
import { DAEMON_HELP, parseDaemonOptions, parsePort, withoutDetach } from "./daemon_options.ts";
import type { Command } from "./mod.ts";
import { announceReady, detach } from "./detach.ts";
import { withMajority } from "./majority.ts";
import { complain } from "./output.ts";
import { openHeadDirectory, takeDirectory } from "./store_directory.ts";

/** The command. */
export const command: Command = {
  help: `rayd head [options]

Starts the first node of a cluster, which keeps the control store, and goes on until it is stopped (Ctrl-C, SIGTERM, or
"rayd stop"). Started again on the same --dir, it knows all that it had acknowledged, unless other nodes keep the control
store as well and went on without it: then one of those has to be up.

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
      using _ = takeDirectory(directory);
      const opened = openHeadDirectory(directory, options.own.shards, options.own.replicas);
      const gcs = await startControlStore({
        ...opened,
        token,
        hostname,
        port,
        tls: options.tls,
        addon: lmdbAddon(),
      }, nodeLog(options.logLevel));
      const start = () =>
        startNode("head", { ...options, host: hostname, damage: opened.damage }, token, [{
          hostname,
          port: gcs.port,
        }]);
      const daemon = opened.chain === undefined ? await start() : await withMajority(gcs, directory, start);
      const address = addressOf(hostname, gcs.port);
      announceReady(
        `rayd head ${daemon.registration.id.slice(0, 8)} is up at ${address}\n\n` +
          `  join it:  rayd worker --address ${address}\n` +
          `  use it:   RAYD_ADDRESS=${address} rayd run script.ts\n` +
          `  see it:   rayd status --address ${address}\n\n` +
          `The token is in ${file}; other machines need a copy of it.\n`,
      );
      let end: StoreEnd | undefined;
      const status = await untilSignal(daemon, gcs, async () => {
        await daemon.close();
        end = await gcs.close();
      });
      if (end?.left === true && !end.last) {
        complain(
          `rayd: the control store goes on without this node, at ${
            end.others.join(", ")
          }. Started again on ${directory}, ` +
            `this node needs it there\n`,
        );
      }
      return status;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};
