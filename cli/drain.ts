/**
 * `rayd drain`: lets a node finish what it does, and ends it.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { RaydError, UsageError } from "../core/errors.ts";
import { DRAINS, NODES, readRegistration } from "../node/registration.ts";
import { connectCluster } from "./cluster_client.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, complain, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd drain NODE [--address HOST:PORT]

Lets a node of a cluster end: it takes nothing new, and ends when all that runs on it has ended, after 30 s at most. NODE
is the beginning of its id, as "rayd status" shows it.

  --address HOST:PORT    the head (default: RAYD_ADDRESS, or this machine)
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
`,

  async run(args) {
    const parsed = parseArgs(args, {
      string: ["address", "token-file", "_"],
      unknown: (argument, key) => {
        if (key !== undefined) throw new CommandLineError(`Unknown option ${argument} of "rayd drain"`);
        return true;
      },
    });
    const [node, ...more] = parsed._.map(String);
    if (node === undefined || more.length > 0) {
      throw new CommandLineError('Say which node: "rayd drain NODE", as "rayd status" shows it');
    }
    try {
      const client = await connectCluster(
        parsed.address as string | undefined,
        parsed["token-file"] as string | undefined,
      );
      try {
        const all = (await client.list(NODES)).map(({ value }) => readRegistration(value));
        const found = all.filter(({ id }) => id.startsWith(node));
        if (found.length !== 1) {
          throw new UsageError(
            `Cannot drain ${node}: ${
              found.length === 0 ? "no node" : `${found.length} nodes`
            } of this cluster ` +
              `${found.length === 1 ? "has" : "have"} an id that begins so. There are ` +
              all.map(({ id }) => id.slice(0, 8)).join(", "),
          );
        }
        await client.put(DRAINS + found[0]!.id, new Uint8Array(1));
        print(
          `node ${found[0]!.id.slice(0, 8)} takes nothing new, and ends when what runs there has ended\n`,
        );
      } finally {
        client.close();
      }
      return 0;
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};
