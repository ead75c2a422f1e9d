/**
 * `rayd worker`: a further node of a cluster.
 *
 * @module
 */

import { RaydError } from "../core/errors.ts";
import { readToken, tokenFile } from "../transport/credentials.ts";
import { checkBind, HEAD_PORT, startNode, untilSignal } from "./daemon.ts";
import { DAEMON_HELP, parseAddress, parseDaemonOptions, withoutDetach } from "./daemon_options.ts";
import type { Command } from "./mod.ts";
import { announceReady, detach } from "./detach.ts";
import { complain } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd worker --address HOST:PORT [options]

Adds this machine to a cluster, and goes on until it is stopped (Ctrl-C, SIGTERM, or "rayd stop"). While the head is away
it goes on working, and connects again.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or 127.0.0.1:${HEAD_PORT})
${DAEMON_HELP}`,

  async run(args) {
    const options = parseDaemonOptions("worker", args, ["address"]);
    if (options.detach) return await detach("worker", withoutDetach(args));
    const address = options.own.address ?? Deno.env.get("RAYD_ADDRESS") ?? `127.0.0.1:${HEAD_PORT}`;
    try {
      checkBind(options.host, options);
      const token = readToken(options.tokenFile ?? tokenFile());
      const head = parseAddress(address, "--address");
      const daemon = await startNode("worker", options, token, head);
      announceReady(`rayd worker ${daemon.registration.id.slice(0, 8)} has joined ${address}\n`);
      return await untilSignal(daemon, () => daemon.close());
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};
