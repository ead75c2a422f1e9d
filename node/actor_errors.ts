/**
 * What calls of actors fail with, in words.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import {
  ActorDiedError,
  ActorNameTakenError,
  ActorRestartingError,
  type ErrorRecord,
  errorToRecord,
  PendingCallsLimitError,
  RaydError,
  UnschedulableError,
  UsageError,
} from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { ACTOR_LOG_BYTES_MAX } from "../core/limits.ts";
import { showDemand } from "../core/options.ts";
import { showPlacement } from "../core/placement.ts";
import { unreachable } from "../core/unreachable.ts";
import { type Shape, showShape } from "../scheduler/resources.ts";
import { pack, unpack } from "../store/serialize.ts";
import { NodeActor } from "./actor_records.ts";

/** The actor can be on no node like this. @param total What the node has. */
export function unschedulable(
  { settings, asked }: NodeActor,
  total: Readonly<Record<string, number>>,
): UnschedulableError {
  return new UnschedulableError(
    `Actor ${settings.label} can never run here: it asks for ${showShape(asked)}${
      showPlacement(settings.placement)
    }, and there is ` +
      `${showDemand(total)} in all. Ask for less, or start with more (--cpus, --gpus, --resources)`,
  );
}

/** Why a call failed that its actor did not take. @param call Its name. */
export function callFailure(
  why: "restarting" | "limit" | "logFull",
  call: string,
  { label, maxPending }: ActorSettings,
): RaydError {
  switch (why) {
    case "restarting":
      return new ActorRestartingError(
        `Call ${call} failed: the actor's isolate died while the call was there, so it may have run or not. The ` +
          `actor starts again; make the call with retries if it may run twice, or make the actor durable`,
      );
    case "limit":
      return new PendingCallsLimitError(
        `Cannot call ${call}: actor ${label} has ${maxPending} calls that have not ended, as many as its ` +
          `maxPending allows. Wait for some of them first`,
      );
    case "logFull":
      return new UsageError(
        `Cannot call ${call}: the log of durable actor ${label} holds ${ACTOR_LOG_BYTES_MAX} bytes since its last ` +
          `checkpoint. Give the class saveState() and loadState(state), or make it durable: false`,
      );
    default:
      unreachable(why);
  }
}

/** Stands for an actor that is not known, for the call that fails because of it. */
export function unknownActor(id: TaskId, shape: Shape): NodeActor {
  return new NodeActor(id, id, UNKNOWN, shape);
}

const UNKNOWN: ActorSettings = {
  demand: {},
  label: "unknown",
  name: "",
  namespace: "",
  detached: false,
  shared: false,
  concurrency: 1,
  groups: {},
  maxPending: 0,
  restarts: 0,
  durable: false,
  checkpointCalls: 0,
  checkpointMs: 0,
  linked: false,
  idleMs: 1,
  virtual: false,
};

/** The name that an actor was to have is another one's. */
export function nameTaken(settings: ActorSettings): ActorNameTakenError {
  return new ActorNameTakenError(
    `Cannot create actor ${settings.label}: the name "${settings.name}" is taken in namespace ` +
      `"${settings.namespace}". Find the actor that has it with getActor, or use getOrCreate`,
  );
}

/** A name with its namespace, as one key. */
export function nameKey(namespace: string, name: string): string {
  return JSON.stringify([namespace, name]);
}

/** An error's record, as far as it can be read here: what was thrown may be of a class that only programs know. */
export function readRecord(bytes: Uint8Array): ErrorRecord {
  try {
    return unpack(bytes) as ErrorRecord;
  } catch {
    return { code: "TASK_FAILED", message: "what it threw cannot be read by the node" };
  }
}

/** What a call of a dead actor gets. */
export function deathOf({ failure, reason, output, settings }: NodeActor, call: string): Uint8Array {
  if (failure instanceof RaydError) return pack(errorToRecord(failure)).toBytes().slice();
  const lines = output.length === 0 ? "" : `. Its last output:\n${output.join("\n")}`;
  const details = { reason, output: [...output] };
  const message = `Call ${call} failed: actor ${settings.label} is dead: ${reason}${lines}`;
  const record = errorToRecord(new ActorDiedError(message, details));
  if (failure !== undefined) {
    const { cause } = failure as ErrorRecord;
    return pack({ ...record, cause }).toBytes().slice();
  }
  return pack(record).toBytes().slice();
}
