/**
 * `rayd version`.
 *
 * @module
 */

import { STORE_ABI_VERSION, VERSION } from "../core/version.ts";
import type { Command } from "./mod.ts";
import { print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd version

Says which version of rayd this is, what it runs on, and which version of the object store's interface it speaks.
`,
  run() {
    const { deno, v8 } = Deno.version;
    print(
      `rayd ${VERSION}\ndeno ${deno}, v8 ${v8}, object store ABI ${STORE_ABI_VERSION}, ${Deno.build.target}\n`,
    );
    return Promise.resolve(0);
  },
};
