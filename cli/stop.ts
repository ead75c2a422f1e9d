/**
 * `rayd stop`: ends the nodes of this machine, workers first.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { RaydError } from "../core/errors.ts";
import { NODES, readRegistration } from "../node/registration.ts";
import { connectCluster } from "./cluster_client.ts";
import { machineId } from "../runtime/machine.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, complain, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd stop [--address HOST:PORT]

Ends the nodes of a cluster that run on this machine.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or this machine)
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
`,

  async run(args) {
    const parsed = parseArgs(args, {
      string: ["address", "token-file"],
      unknown: (argument) => {
        throw new CommandLineError(`Unknown option ${argument} of "rayd stop"`);
      },
    });
    try {
      const client = await connectCluster(
        parsed.address as string | undefined,
        parsed["token-file"] as string | undefined,
      );
      const all = (await client.list(NODES)).map(({ value }) => readRegistration(value));
      client.close();
      const here = all.filter(({ machine }) => machine === machineId())
        .sort((a, b) => a.role === b.role ? 0 : a.role === "worker" ? -1 : 1);
      for (const { pid } of here) {
        try {
          Deno.kill(pid, "SIGTERM");
        } catch (error) {
          if (!(error instanceof Deno.errors.NotFound)) throw error;
        }
      }
      print(`${here.length} node${here.length === 1 ? "" : "s"} told to end\n`);
      return 0;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};
