/**
 * Where the object store's shared library is: given by `RAYD_STORE_LIBRARY`, built in the checkout, or embedded in the
 * executable and extracted once to the user's cache.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import { extractAsset } from "./assets.ts";

/** The native part of lmdb in the executable, extracted if need be; elsewhere lmdb finds it by itself. */
export function lmdbAddon(): string | undefined {
  return Deno.build.standalone ? extractAsset("lmdb.node") : undefined;
}

/** The path of the library, extracted if need be. @throws {UsageError} If there is none, saying how it is made. */
export function raystoreLibrary(): string {
  const given = Deno.env.get("RAYD_STORE_LIBRARY");
  if (given !== undefined && given !== "") return given;
  if (Deno.build.standalone) return extractAsset("libraystore.so");
  const built = new URL("../ffi/target/release/libraystore.so", import.meta.url).pathname;
  try {
    Deno.statSync(built);
  } catch {
    throw new UsageError(
      `Cannot find the object store's library ${built}: build it with "bin/rayd version" or with ` +
        `"cargo build --release" in ffi/, or set RAYD_STORE_LIBRARY to its path`,
    );
  }
  return built;
}
