/**
 * `rayd host`: a host process. Started by a node for its tasks, and of no use to a person.
 *
 * @module
 */

import { runHost } from "../runtime/host_main.ts";
import type { Command } from "./mod.ts";

/** The command. */
export const command: Command = {
  help: "rayd host: runs tasks for the node that started it; not to be started by hand\n",
  async run() {
    await runHost();
    return undefined;
  },
};
