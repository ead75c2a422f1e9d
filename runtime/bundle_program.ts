/**
 * A program that Deno runs from its sources becomes a bundle when it joins a cluster, as nodes never see a source tree.
 * The executable makes the bundle (`rayd bundle`); the program itself runs on as it is.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { UsageError } from "../core/errors.ts";
import { CODE } from "../core/messages.ts";
import { setBundle } from "./registry.ts";

/** Where the executable is, if it is not on the path. */
const EXECUTABLE = "RAYD_EXECUTABLE";

/** Has the program bundled. @throws {UsageError} If that cannot be done. */
export function bundleProgram(): void {
  const main = new URL(Deno.mainModule);
  if (main.protocol !== "file:") {
    throw new UsageError(
      `Cannot join the cluster at RAYD_ADDRESS: nodes run code as a bundle, and ${main.href} is no file to make one of`,
    );
  }
  const executable = Deno.env.get(EXECUTABLE) || "rayd";
  const { code, stdout, stderr } = run(executable, decodeURIComponent(main.pathname));
  if (code !== 0) {
    throw new UsageError(
      `Cannot join the cluster at RAYD_ADDRESS: the program could not be bundled for it: ${
        new TextDecoder().decode(stderr).trim()
      }`,
    );
  }
  const hash = createHash("sha256").update(stdout).digest("hex");
  setBundle(`${CODE}${hash}`, [{ hash, bytes: stdout }]);
}

function run(executable: string, script: string): Deno.CommandOutput {
  try {
    return new Deno.Command(executable, { args: ["bundle", script] }).outputSync();
  } catch (error) {
    throw new UsageError(
      `Cannot join the cluster at RAYD_ADDRESS: nodes run code as a bundle, which ${executable} makes, and that cannot be ` +
        `run (${
          (error as Error).message
        }). Put rayd on the path, name it in ${EXECUTABLE}, or start the program with ` +
        `"rayd run"`,
    );
  }
}
