/** @module The version of rayd. */

/** The version of this build; `deno.json` has the same. */
export const VERSION = "0.1.0";

/** The version of the object store's C interface, which the library and its caller must agree on. */
export const STORE_ABI_VERSION = 5;
