/**
 * The executable's entry.
 *
 * @module
 */

import { main } from "./cli/mod.ts";

await main(Deno.args);
