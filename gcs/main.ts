/**
 * The entry of the control store: an isolate of the head's process, so that waiting for the disk holds nobody else up.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import { systemClock } from "../core/clock.ts";
import { RaydError } from "../core/errors.ts";
import { taskIdFromHex } from "../core/ids.ts";
import { ADDON_SYMBOL, type GcsConfig, type GcsReply } from "./config.ts";
import { listenTcp } from "../transport/tcp.ts";
import { GcsServer } from "./server.ts";

async function main(config: GcsConfig): Promise<void> {
  Object.assign(globalThis, { [Symbol.for(ADDON_SYMBOL)]: config.addon });
  const { LmdbStorage } = await import("./lmdb_storage.ts");
  const storages = Array.from(
    { length: config.shards },
    (_, i) => new LmdbStorage(`${config.directory}/shard-${i}`),
  );
  const listener = listenTcp(config.hostname, config.port, config.tls);
  const server = new GcsServer({
    cluster: taskIdFromHex(config.cluster),
    token: config.token,
    storages,
    clock: systemClock,
    log: (level, message) => reply({ type: "log", level, message }),
  });
  port.on("message", (message: unknown) => {
    if (message !== "shutdown") return;
    listener.close();
    server.close();
    Promise.all(storages.map((storage) => storage.close())).then(() => reply({ type: "ended" }));
  });
  reply({ type: "ready", port: listener.port });
  await listener.serve((stream) => server.accept(stream));
}

const port = parentPort as unknown as {
  on(event: "message", listener: (message: unknown) => void): void;
  once(event: "message", listener: (message: unknown) => void): void;
  postMessage(message: unknown): void;
};

function reply(message: GcsReply): void {
  port.postMessage(message);
}

port.once("message", (config: unknown) => {
  main(config as GcsConfig).catch((error) => reply({ type: "failed", message: reason(error as Error) }));
});

function reason(error: Error): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return "the port is taken. Give another one with --port, or end what has it";
  }
  return error instanceof RaydError ? error.message : error.stack!;
}
