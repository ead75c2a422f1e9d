/**
 * The control store, or a member of it, as part of a process: an isolate of its own.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { UsageError } from "../core/errors.ts";
import type { Departure } from "../gcs/chain_member.ts";
import type { GcsConfig, GcsOrder, GcsQuorum, GcsReply } from "../gcs/config.ts";
import { raystoreLibrary } from "../store/library.ts";
import { openLifeline } from "../store/lifeline.ts";

/** How a control store has ended. */
export interface StoreEnd extends Departure {
  /** Where clients reach those who go on. */
  readonly others: readonly string[];
}

/** A running control store. */
export interface ControlStore {
  /** The port that clients connect to. */
  readonly port: number;
  /** It will be closed in a while: other members are told. */
  leaveSoon(): void;
  /** Resolves if it has ended by itself, which it must not. */
  readonly failed: Promise<void>;
  /** Who is missing, if there are to be others. */
  quorum(): Promise<GcsQuorum | undefined>;
  /** Ends it, when other members go on without it, or after a while. Called again, it waits for none of them. */
  close(): Promise<StoreEnd>;
}

/** Starts it. @throws {UsageError} If it cannot be started. */
export function startControlStore(
  config: Omit<GcsConfig, "lifeline" | "library">,
  log: (level: "info" | "warn" | "error", message: string) => void,
): Promise<ControlStore> {
  const worker = new Worker(new URL("../gcs/main.ts", import.meta.url));
  const order = (what: GcsOrder) => worker.postMessage(what);
  const ended = Promise.withResolvers<StoreEnd>();
  const failed = Promise.withResolvers<void>();
  let asked: ((quorum: GcsQuorum | undefined) => void)[] = [];
  return new Promise((resolve, reject) => {
    worker.on("message", (reply: GcsReply) => {
      switch (reply.type) {
        case "ready":
          return resolve({
            port: reply.port,
            failed: failed.promise,
            leaveSoon: () => order("leave soon"),
            quorum: () => {
              order("who is missing");
              return new Promise((resolve) => asked.push(resolve));
            },
            async close() {
              order("end");
              const end = await ended.promise;
              await worker.terminate();
              return end;
            },
          });
        case "failed":
          return reject(new UsageError(`Cannot start the control store: ${reply.message}`));
        case "quorum":
          for (const answer of asked) answer(reply.quorum);
          asked = [];
          return;
        case "ended":
          return ended.resolve({ ...reply.departure, others: reply.others });
        case "log":
          return log(reply.level, reply.message);
      }
    });
    worker.on(
      "error",
      (error: Error) => {
        const message = `The control store failed: ${error.message}`;
        reject(new UsageError(message));
        log("error", message);
        ended.resolve({ left: false, last: false, others: [] });
        failed.resolve();
      },
    );
    const library = config.chain === undefined ? undefined : raystoreLibrary();
    const lifeline = library === undefined ? undefined : lifelineAt(config.hostname, library, log);
    worker.postMessage({ ...config, library, lifeline } satisfies GcsConfig);
  });
}

/** A port by which other members learn at once that this process has ended. Without it they do a little later. */
function lifelineAt(
  hostname: string,
  library: string,
  log: (level: "info", message: string) => void,
): number | undefined {
  try {
    return openLifeline(library, hostname);
  } catch (error) {
    log("info", (error as Error).message);
    return undefined;
  }
}
