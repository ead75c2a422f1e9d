/**
 * The entry of an embedded node: an isolate of the program's own process, so that scheduling goes on while the program
 * computes.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import { systemClock } from "../core/clock.ts";
import { taskIdFromHex } from "../core/ids.ts";
import { ObjectStore } from "../store/object_store.ts";
import type { EmbeddedNodeConfig, EmbeddedNodeReply } from "./config.ts";
import { isolateProcesses, isolateThreads } from "./hosts.ts";
import { nodeLog } from "./log.ts";
import { NodeServer } from "./server.ts";

async function main(config: EmbeddedNodeConfig): Promise<void> {
  const store = ObjectStore.create(config.library, { capacity: config.storeMemory });
  const listener = Deno.listen({ transport: "unix", path: config.socket });
  reply({ type: "ready", storePath: store.path });
  const node = new NodeServer({
    id: taskIdFromHex(config.node),
    token: config.token,
    resources: config.resources,
    store,
    clock: systemClock,
    isolates: config.host === undefined
      ? isolateThreads(config, store)
      : isolateProcesses(config, store, config.host),
    isolatesWarm: config.isolatesWarm,
    isolatesMax: config.isolatesMax,
    spillPath: config.spillPath,
    log: nodeLog(config.logLevel),
  });
  port.on("message", (message: unknown) => {
    if (message !== "shutdown") return;
    listener.close();
    node.close();
    reply({ type: "failed", message: "shut down" });
  });
  for await (const conn of listener) node.accept(conn);
}

const port = parentPort as unknown as {
  on(event: "message", listener: (message: unknown) => void): void;
  once(event: "message", listener: (message: unknown) => void): void;
  postMessage(message: unknown): void;
};

function reply(message: EmbeddedNodeReply): void {
  port.postMessage(message);
}

port.once("message", (config: unknown) => {
  main(config as EmbeddedNodeConfig).catch((error) =>
    reply({ type: "failed", message: (error as Error).message })
  );
});
