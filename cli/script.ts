/**
 * The script that a command was given: where it is, and what becomes of it.
 *
 * @module
 */

import { resolve } from "node:path";
import { extractAsset } from "../store/assets.ts";
import { bundle } from "./bundle.ts";
import { CommandLineError } from "./output.ts";

/** The script's real path. @throws {CommandLineError} If it is none that can be run. */
export function scriptPath(script: string): string {
  const path = resolve(script);
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new CommandLineError(`Cannot run ${script}: ${why}`);
  }
  if (info.isDirectory) {
    throw new CommandLineError(`Cannot run ${script}: it is a directory. Name the file to run`);
  }
  return Deno.realPathSync(path);
}

/** Bundles a script. @throws {ProjectError} If it cannot be. */
export async function bundleEntry(entry: string): Promise<string> {
  if (Deno.build.standalone) Deno.env.set("ESBUILD_BINARY_PATH", extractAsset("esbuild", true));
  const runtime = await import("../runtime/mod.ts");
  const code = await bundle({ entry, exports: Object.keys(runtime), vendored });
  if (Deno.build.standalone) Deno.env.delete("ESBUILD_BINARY_PATH");
  return code;
}

/** The code of a package that the executable carries. */
function vendored(name: string): string | undefined {
  if (!/^[\w-]+$/.test(name)) return undefined;
  try {
    return Deno.readTextFileSync(new URL(`../dist/assets/vendor/${name}.mjs`, import.meta.url));
  } catch {
    return undefined;
  }
}
