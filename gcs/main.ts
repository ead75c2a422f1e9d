/**
 * The entry of the control store: an isolate of the head's process, so that waiting for the disk holds nobody else up.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import { systemClock } from "../core/clock.ts";
import { RaydError } from "../core/errors.ts";
import { taskIdFromHex } from "../core/ids.ts";
import { listenTcp } from "../transport/tcp.ts";
import type { ChainConfig } from "./chain_config.ts";
import { addressOf, ChainLinks, type MemberBook } from "./chain_links.ts";
import { ADDON_SYMBOL, type GcsChainConfig, type GcsConfig, type GcsReply } from "./config.ts";
import type { StoreMap } from "./protocol.ts";
import { UNKNOWN } from "./quorum.ts";
import { type ChainOptions, GcsServer } from "./server.ts";

async function main(config: GcsConfig): Promise<void> {
  Object.assign(globalThis, { [Symbol.for(ADDON_SYMBOL)]: config.addon });
  const { LmdbStorage } = await import("./lmdb_storage.ts");
  const storages = Array.from(
    { length: config.shards },
    (_, i) => new LmdbStorage(`${config.directory}/shard-${i}`),
  );
  const listener = listenTcp(config.hostname, config.port, config.tls);
  const members = config.chain === undefined
    ? undefined
    : await openLinks(config, config.chain, listener.port);
  const server = new GcsServer({
    ...(members === undefined ? {} : { chain: members.options }),
    cluster: taskIdFromHex(config.cluster),
    token: config.token,
    storages,
    clock: systemClock,
    log: (level, message) => reply({ type: "log", level, message }),
  });
  members?.begin(server);
  port.on("message", (message: unknown) => {
    if (message !== "shutdown") return;
    members?.links.close();
    listener.close();
    server.close();
    Promise.all(storages.map((storage) => storage.close())).then(() => reply({ type: "ended" }));
  });
  reply({ type: "ready", port: listener.port });
  await listener.serve((stream) => server.accept(stream));
}

/** What connects this member with others. */
interface Members {
  readonly links: ChainLinks;
  readonly options: ChainOptions;
  /** Connects, now that there is somebody to tell. */
  begin(server: GcsServer): void;
}

async function openLinks(config: GcsConfig, chain: GcsChainConfig, clientPort: number): Promise<Members> {
  const self = addressOf(config.hostname, clientPort);
  const file = `${config.directory}/members.json`;
  let server: GcsServer | undefined;
  const links = new ChainLinks({
    ...chain,
    cluster: config.cluster,
    token: config.token,
    hostname: config.hostname,
    port: 0,
    client: self,
    tls: config.tls,
    clock: systemClock,
    log: (level, message) => reply({ type: "log", level, message }),
  }, {
    received: (from, data) => server?.member.received(from, data),
    dead: (member, incarnation) => server?.member.dead(member, incarnation),
    learned: (book) => {
      Deno.writeTextFileSync(`${file}.new`, JSON.stringify(book));
      Deno.renameSync(`${file}.new`, file);
      for (const member of Object.keys(book)) server?.member.meet(member);
      server?.tellMap();
    },
  });
  await links.listen();
  return {
    links,
    options: { ...chain, self, send: (to, data) => links.send(to, data), map: (of) => mapOf(of, links.book) },
    begin(started) {
      server = started;
      let book: MemberBook = {};
      try {
        book = JSON.parse(Deno.readTextFileSync(file)) as MemberBook;
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
      links.learn(book);
      for (const member of Object.keys(links.book)) started.member.meet(member);
      for (const address of chain.seeds) links.dial(address);
    },
  };
}

/** What clients are told of a configuration. */
function mapOf({ epoch, chain, joining, acceptors, replicas }: ChainConfig, book: MemberBook): StoreMap {
  const client = (member: string) => book[member]?.client ?? UNKNOWN;
  const all = new Set([...chain, ...acceptors, ...(joining === undefined ? [] : [joining])]);
  return {
    epoch,
    head: client(chain[0]!),
    tail: client(chain.at(-1)!),
    members: [...all].map(client).filter((address) => address !== UNKNOWN),
    deciders: acceptors.map(client),
    chain: Object.values(book).map((addresses) => addresses.chain),
    replicas,
  };
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
