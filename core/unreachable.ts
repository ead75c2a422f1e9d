/** @module The end of an exhaustive switch. */

import { assert } from "./assert.ts";

/** Marks a place that the types say is never reached. @param value What got here. */
export function unreachable(value: never): never {
  assert(false, `unreachable value ${JSON.stringify(value)}`);
}
