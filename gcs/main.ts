/**
 * The entry of the control store: an isolate of the head's process, or of a worker's that keeps a replica, so that waiting
 * for the disk holds nobody else up.
 *
 * A member listens again where it did when it last ran on its directory, if that is free, as that is where others look.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import { systemClock } from "../core/clock.ts";
import { RaydError } from "../core/errors.ts";
import { taskIdFromHex } from "../core/ids.ts";
import { settleHeap } from "../core/settle_heap.ts";
import { threadUrgency } from "../store/urgent.ts";
import { listenTcp, splitAddress, type TcpListener } from "../transport/tcp.ts";
import { type MemberBook, readBook, writeBook } from "./chain_book.ts";
import { type ChainConfig, FOUNDER, hasPart } from "./chain_config.ts";
import { addressOf, ChainLinks } from "./chain_links.ts";
import {
  ADDON_SYMBOL,
  type GcsChainConfig,
  type GcsConfig,
  type GcsOrder,
  type GcsQuorum,
  type GcsReply,
} from "./config.ts";
import { KnownConfigFile } from "./known_config.ts";
import type { StoreMap } from "./protocol.ts";
import { UNKNOWN } from "./quorum.ts";
import { type ChainOptions, GcsServer } from "./server.ts";
import { shardDirectory } from "./store_check.ts";
import { Urgency } from "./urgency.ts";

async function main(config: GcsConfig): Promise<void> {
  Object.assign(globalThis, { [Symbol.for(ADDON_SYMBOL)]: config.addon });
  const { LmdbStorage } = await import("./lmdb_storage.ts");
  const storages = Array.from(
    { length: config.shards },
    (_, i) => new LmdbStorage(shardDirectory(config.directory, i)),
  );
  const book = config.chain === undefined ? {} : readBook(config.directory);
  const listener = listen(config, portOf(book[config.chain?.member ?? ""]?.client));
  const members = config.chain === undefined
    ? undefined
    : await openLinks(config, config.chain, listener.port, book);
  const known = new KnownConfigFile({
    directory: config.directory,
    member: config.chain?.member ?? FOUNDER,
    clock: systemClock,
    failed: ({ message }) =>
      reply({ type: "log", level: "warn", message: `Cannot note a configuration: ${message}` }),
  });
  const server = new GcsServer({
    ...(members === undefined ? {} : { chain: members.options }),
    cluster: taskIdFromHex(config.cluster),
    token: config.token,
    storages,
    clock: systemClock,
    log: (level, message) => reply({ type: "log", level, message }),
    configured: (config) => known.write(config),
  });
  members?.begin(server);
  const end = async () => {
    const departure = await server.member.leave();
    const chain = departure.last ? [] : server.member.config?.chain ?? [];
    const others = chain.filter((member) => member !== config.chain?.member)
      .map((member) => members?.links.book[member]?.client ?? UNKNOWN);
    members?.links.close();
    listener.close();
    server.close();
    await Promise.all([...storages.map((storage) => storage.close()), known.flush()]);
    reply({ type: "ended", departure, others });
  };
  let ending = false;
  port.on("message", (order: unknown) => {
    switch (order as GcsOrder) {
      case "leave soon":
        return server.member.leaveSoon();
      case "end":
        if (ending) return void server.member.leave();
        ending = true;
        return void end();
      case "who is missing":
        return reply({
          type: "quorum",
          quorum: members === undefined ? undefined : quorumOf(server, members),
        });
    }
  });
  reply({ type: "ready", port: listener.port });
  // Other members would wait for this one meanwhile.
  if (members === undefined) settleHeap(systemClock);
  await listener.serve((stream) => server.accept(stream));
}

/** Listens for clients. @param last The port to take, if any will do and that one is free. */
function listen({ hostname, port, tls }: GcsConfig, last: number): TcpListener {
  if (port !== 0) return listenTcp(hostname, port, tls);
  try {
    return listenTcp(hostname, last, tls);
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    return listenTcp(hostname, 0, tls);
  }
}

function portOf(address: string | undefined): number {
  return address === undefined ? 0 : splitAddress(address).port;
}

/** What connects this member with others. */
interface Members {
  readonly links: ChainLinks;
  readonly options: ChainOptions;
  /** Connects, now that there is somebody to tell. */
  begin(server: GcsServer): void;
}

async function openLinks(
  config: GcsConfig,
  chain: GcsChainConfig,
  clientPort: number,
  book: MemberBook,
): Promise<Members> {
  const self = addressOf(config.hostname, clientPort);
  let server: GcsServer | undefined;
  const urgency = urgencyOf(config);
  const links = new ChainLinks({
    ...chain,
    cluster: config.cluster,
    token: config.token,
    hostname: config.hostname,
    port: portOf(book[chain.member]?.chain),
    client: self,
    lifeline: config.lifeline,
    tls: config.tls,
    clock: systemClock,
    hasPart: (member) => {
      const config = server?.member.config;
      return config === undefined || hasPart(config, member);
    },
    log: (level, message) => reply({ type: "log", level, message }),
  }, {
    received: (from, data) => server?.member.received(from, data),
    ends: () => urgency?.hurry(),
    dead: (member, incarnation) => server?.member.dead(member, incarnation),
    learned: (book) => {
      writeBook(config.directory, book);
      for (const member of Object.keys(book)) server?.member.meet(member);
      server?.tellMap();
    },
  });
  await links.listen();
  return {
    links,
    options: {
      ...chain,
      self,
      send: (to, data) => links.send(to, data),
      map: (of) => mapOf(of, links.present),
    },
    begin(started) {
      server = started;
      writeBook(config.directory, { ...book, ...links.book });
      links.learn(book);
      for (const member of Object.keys(links.book)) started.member.meet(member);
      for (const address of chain.seeds) links.dial(address);
    },
  };
}

function urgencyOf({ library }: GcsConfig): Urgency | undefined {
  if (library === undefined) return undefined;
  const thread = threadUrgency(library);
  return new Urgency(
    systemClock,
    (urgent) => thread.set(urgent),
    ({ message }) => reply({ type: "log", level: "info", message }),
  );
}

/** Who of those that decide is missing. */
function quorumOf({ member }: GcsServer, { links, options }: Members): GcsQuorum | undefined {
  const { config, alive } = member;
  if (config === undefined) return undefined;
  const { chain, acceptors, joining } = config;
  const { member: self } = options;
  const answers = (each: string) => each === self || alive.includes(each);
  const address = (each: string) => links.book[each]?.client ?? UNKNOWN;
  return {
    answering: acceptors.filter(answers).map(address),
    missing: acceptors.filter((each) => !answers(each)).map(address),
    hasPart: chain.includes(self) || acceptors.includes(self) || joining === self,
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
    parts: [...all],
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
