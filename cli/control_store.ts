/**
 * The control store, or a member of it, as part of a process: an isolate of its own.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { UsageError } from "../core/errors.ts";
import type { GcsConfig, GcsReply } from "../gcs/config.ts";

/** A running control store. */
export interface ControlStore {
  /** The port that clients connect to. */
  readonly port: number;
  close(): Promise<void>;
}

/** Starts it. @throws {UsageError} If it cannot be started. */
export function startControlStore(
  config: GcsConfig,
  log: (level: "info" | "warn" | "error", message: string) => void,
): Promise<ControlStore> {
  const worker = new Worker(new URL("../gcs/main.ts", import.meta.url));
  const ended = Promise.withResolvers<void>();
  return new Promise((resolve, reject) => {
    worker.on("message", (reply: GcsReply) => {
      switch (reply.type) {
        case "ready":
          return resolve({
            port: reply.port,
            async close() {
              worker.postMessage("shutdown");
              await ended.promise;
              await worker.terminate();
            },
          });
        case "failed":
          return reject(new UsageError(`Cannot start the control store: ${reply.message}`));
        case "ended":
          return ended.resolve();
        case "log":
          return log(reply.level, reply.message);
      }
    });
    worker.on(
      "error",
      (error: Error) => reject(new UsageError(`The control store failed: ${error.message}`)),
    );
    worker.postMessage(config);
  });
}
