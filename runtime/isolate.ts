/**
 * A worker isolate: connects to its node and executes tasks until it is ended. It is a thread of the node's process, or
 * the main thread of a host process of its own.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { claimsId, type IsolateConfig } from "../node/config.ts";
import { ObjectStore } from "../store/object_store.ts";
import { Client } from "./client.ts";
import { forwardConsole } from "./console.ts";
import { Executor, taskHandle, taskScope, userStack } from "./executor.ts";
import { inOwnProcess } from "./gpus.ts";
import * as rayd from "./mod.ts";
import { enterModule, setBundle } from "./registry.ts";
import { setClient } from "./session.ts";

/** What a bundle takes its `rayd` from, and whom it tells which of its source modules begins. */
Object.assign(globalThis, { [Symbol.for("rayd.runtime")]: rayd, [Symbol.for("rayd.module")]: enterModule });

/** Runs the isolate. @param config What its node tells it. */
export async function runIsolate(config: IsolateConfig): Promise<void> {
  if (config.bundle !== undefined) setBundle(config.bundle);
  if (config.args !== undefined) {
    Object.defineProperty(Deno, "args", { value: config.args, configurable: true });
  }
  let conn: Deno.UnixConn, store: ObjectStore;
  try {
    conn = await Deno.connect({ transport: "unix", path: config.socket });
    store = ObjectStore.open(config.library, config.storePath);
  } catch (error) {
    // Its node may be gone already, and then nobody wants to hear of it.
    if (config.claims === undefined && error instanceof Deno.errors.ConnectionRefused) Deno.exit(0);
    throw error;
  }
  if (config.claims === undefined) {
    store.dieWithParent(config.parent);
    inOwnProcess();
  }
  const client = new Client({
    role: "isolate",
    isolate: config.isolate,
    job: NO_JOB,
    clock: systemClock,
    flush: "manual",
    keepAlive: false,
    scope: () => {
      const scope = taskScope();
      if (scope === undefined) throw new UsageError(OUTSIDE);
      return scope;
    },
    other: (message) => executor.message(message),
    drained: () => executor.drain(),
    closed: () => config.claims === undefined ? Deno.exit(0) : self.close(),
  });
  const executor = new Executor(
    client,
    claimsOf(config, store),
    systemClock,
    config.isolate,
    config.codeDirectory,
    config.environment,
  );
  setClient(client);
  forwardConsole(client, systemClock, taskHandle);
  // What a task leaves behind must not take other tasks with it: it is reported, like any other output.
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    console.error("Uncaught (in promise)", described(event.reason));
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    console.error("Uncaught", described(event.error ?? event.message));
  });
  await client.connect({ conn, token: config.token, store });
}

/** The table that the isolate shares with its node: memory of the process, or an object of the store. */
function claimsOf({ claims, node, isolate }: IsolateConfig, store: ObjectStore): Int32Array {
  if (claims !== undefined) return new Int32Array(claims);
  const view = store.get(claimsId(node, isolate));
  if (view === undefined) throw new UsageError("Cannot run as a host: the node's claim table is gone");
  return new Int32Array(view.bytes.buffer);
}

function described(error: unknown): unknown {
  return error instanceof Error ? userStack(error.stack ?? String(error)) : error;
}

/** An isolate begins no job. */
const NO_JOB = "\0".repeat(16) as TaskId;

const OUTSIDE =
  "rayd was called outside of any task, in an isolate: a module that declares remote functions is also " +
  "imported by the isolates that run them, so code that drives a program must stand under `if (import.meta.main)`, " +
  "and what a task starts must be awaited by the task";
