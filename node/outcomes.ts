/**
 * Outcomes that a node makes itself: errors.
 *
 * @module
 */

import { errorToRecord, type RaydError } from "../core/errors.ts";
import { pack } from "../store/serialize.ts";

/** An error's bytes, as outcomes carry them. */
export function packError(error: RaydError): Uint8Array {
  return pack(errorToRecord(error)).toBytes().slice();
}
