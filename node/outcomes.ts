/**
 * What a node knows of outcomes without unpacking them, and those that it makes itself: errors.
 *
 * @module
 */

import { errorToRecord, type RaydError } from "../core/errors.ts";
import type { Outcome } from "../core/messages.ts";
import { pack } from "../store/serialize.ts";

/** An error's bytes, as outcomes carry them. */
export function packError(error: RaydError): Uint8Array {
  return pack(errorToRecord(error)).toBytes().slice();
}

/** Whether an outcome is nothing without the node that it came from. */
export function refersTo(outcome: Outcome): boolean {
  return outcome.kind === "stored" || outcome.kind === "inline" && outcome.contains.length > 0;
}
