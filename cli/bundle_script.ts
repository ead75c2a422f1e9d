/**
 * `rayd bundle`: a script with all that it imports, as one module.
 *
 * @module
 */

import { bundleEntry, scriptPath } from "./script.ts";
import { ProjectError } from "./import_map.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, complain, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd bundle script.ts

Prints a script with all that it imports as one JavaScript module, as nodes of a cluster run it. A program that is started
with Deno instead of "rayd run" has this done for it when it joins a cluster.
`,

  async run(args) {
    const [script, ...more] = args;
    if (script === undefined || script.startsWith("-") || more.length > 0) {
      throw new CommandLineError('Say which script: "rayd bundle script.ts"');
    }
    try {
      print(await bundleEntry(scriptPath(script)));
      return 0;
    } catch (error) {
      if (!(error instanceof ProjectError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
  },
};
