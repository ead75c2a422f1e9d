/**
 * What a node knows of outcomes without unpacking them, and those that it makes itself: errors.
 *
 * @module
 */

import { errorToRecord, ObjectLostError, type RaydError } from "../core/errors.ts";
import { hex, type ObjectId } from "../core/ids.ts";
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

/** The outcome of an object that is not there any more. */
export function lost(object: ObjectId): Outcome {
  return { kind: "error", bytes: packError(lostError(object)) };
}

/** Says that an object is not there any more. */
export function lostError(object: ObjectId): ObjectLostError {
  return new ObjectLostError(
    `Object ${
      hex(object, true)
    } is lost: no Ref to it was left, so it was freed, or the node that had it is gone. Keep a Ref for as long as ` +
      `the value is needed`,
  );
}
