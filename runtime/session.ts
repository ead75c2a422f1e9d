/**
 * The one client of this isolate, and who starts it: `init` in a driver, the node in an isolate.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import type { Client } from "./client.ts";

let client: Client | undefined;
let starter: (() => Client) | undefined;

/** Sets the isolate's client. */
export function setClient(value: Client | undefined): void {
  client = value;
}

/** How a program that did not call `init` gets its client. */
export function setAutoInit(start: () => Client): void {
  starter = start;
}

/** The client, if there is one. */
export function clientIfAny(): Client | undefined {
  return client;
}

/** The client, started if need be. @throws {UsageError} If it cannot be. */
export function currentClient(): Client {
  if (client !== undefined) return client;
  if (starter === undefined) throw new UsageError("Cannot use rayd: it is not initialised");
  return client = starter();
}
