/**
 * `rayd token`: prints the token of the cluster, for other machines.
 *
 * @module
 */

import { RaydError } from "../core/errors.ts";
import { readToken } from "../transport/credentials.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, complain, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd token

Prints the token that every node and program of a cluster must have: RAYD_TOKEN, or what ~/.rayd/token holds.
`,

  run(args) {
    if (args.length > 0) throw new CommandLineError(`"rayd token" takes no argument "${args[0]}"`);
    try {
      print(`${readToken()}\n`);
      return Promise.resolve(0);
    } catch (error) {
      if (!(error instanceof RaydError)) throw error;
      complain(`error: ${error.message}\n`);
      return Promise.resolve(1);
    }
  },
};
