/**
 * The server of the global control store: takes connections, puts what they ask for in order, and lets it take effect.
 *
 * All that has arrived in one turn of the event loop is one group commit a shard: requests are queued while a block of
 * messages is read, then applied in one transaction, and answers and changes leave only after it. So a write costs a
 * share of one disk sync, and nobody sees what could still be lost.
 *
 * A client that holds leases is *alive* while its connection stands and it sends something now and then; otherwise it
 * has a grace to come back, and then its leases go, which is how the cluster learns that a node has died.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { ProtocolError, type RaydError } from "../core/errors.ts";
import { hex, type TaskId } from "../core/ids.ts";
import { GREETING_BYTES_MAX, GREETING_MS_MAX, MESSAGE_BYTES_MAX } from "../core/limits.ts";
import { VERSION } from "../core/version.ts";
import { type ByteStream, Channel } from "../transport/channel.ts";
import { sameToken } from "../transport/token.ts";
import { decodeToGcs, encodeGcs, type FromGcs, GCS_PROTOCOL, type ToGcs } from "./protocol.ts";
import { type GcsChange, Shard, type ShardStorage } from "./shard.ts";

/** A shard's state with transactions around changes of it. */
export interface TransactionalStorage extends ShardStorage {
  /** Runs `body` with all its writes in one commit, which is durable when this returns. */
  transaction<T>(body: () => T): T;
}

/** What a server is made of. */
export interface GcsServerOptions {
  readonly cluster: TaskId;
  readonly token: string;
  readonly storages: readonly TransactionalStorage[];
  readonly clock: Clock;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

/** How long a client whose connection broke may stay away before its leases go. */
export const LEASE_GRACE_MS = 1_000;
/** How long a client with leases may say nothing before it counts as gone, though its connection stands. */
export const SILENCE_MS_MAX = 3_000;
/** How often loads are passed on. */
const LOADS_MS = 20;
/** How often silent clients are looked for. */
const WATCH_MS = 250;

interface Connection {
  readonly channel: Channel<FromGcs, ToGcs>;
  client: TaskId | undefined;
  readonly watches: Map<string, { readonly watch: number; readonly shard: number; readonly prefix: string }>;
  follows: boolean;
  heardAt: number;
  dirty: boolean;
  /** To be called when the client has shown the token. */
  greeted: () => void;
}

/** A request that waits for the turn's transaction. */
interface Queued {
  readonly connection: Connection;
  readonly message: Extract<ToGcs, { type: "request" | "watch" }>;
}

/** The control store of a cluster. */
export class GcsServer {
  readonly #options: GcsServerOptions;
  readonly #shards: Shard[];
  readonly #queues: Queued[][];
  readonly #connections = new Set<Connection>();
  readonly #byClient = new Map<TaskId, Connection>();
  /** Clients without a connection, and what ends their grace. */
  readonly #away = new Map<TaskId, () => void>();
  readonly #loads = new Map<TaskId, Uint8Array>();
  readonly #freshLoads = new Set<TaskId>();
  readonly #dirty: Connection[] = [];
  #closed = false;
  #cancelTick: () => void = () => {};
  #cancelLoads: (() => void) | undefined;

  /** @param options What the server is made of. */
  constructor(options: GcsServerOptions) {
    this.#options = options;
    this.#shards = options.storages.map((storage) => new Shard(storage));
    this.#queues = options.storages.map(() => []);
    // Whoever was connected when the store went down may be back any moment.
    const before = this.#shards.flatMap((shard) => [...shard.clients(), ...shard.leaseholders()]);
    for (const client of new Set(before)) this.#leave(client);
    this.#tick();
  }

  /** Takes a connection. @param stream Its bytes. */
  accept(stream: ByteStream): void {
    const channel = new Channel<FromGcs, ToGcs>(stream, decodeToGcs, "manual", encodeGcs);
    const connection: Connection = {
      channel,
      client: undefined,
      watches: new Map(),
      follows: false,
      heardAt: this.#options.clock.now(),
      dirty: false,
      greeted: () => {},
    };
    this.#connections.add(connection);
    channel.messageBytesMax = GREETING_BYTES_MAX;
    const late = this.#options.clock.after(GREETING_MS_MAX, () => channel.close());
    channel.start({
      message: (message) => this.#message(connection, message),
      drained: () => this.#commit(),
      closed: (error) => {
        late();
        this.#connectionClosed(connection, error);
      },
    });
    connection.greeted = () => {
      late();
      channel.messageBytesMax = MESSAGE_BYTES_MAX;
    };
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    this.#cancelTick();
    this.#cancelLoads?.();
    for (const cancel of this.#away.values()) cancel();
    for (const { channel } of this.#connections) channel.close();
  }

  #message(connection: Connection, message: ToGcs): void {
    connection.heardAt = this.#options.clock.now();
    if (connection.client === undefined) {
      if (message.type !== "hello") throw new ProtocolError(`Cannot take "${message.type}" before "hello"`);
      return this.#hello(connection, message);
    }
    switch (message.type) {
      case "request":
      case "watch":
        if (this.#queues[message.shard] === undefined) {
          throw new ProtocolError(`Cannot reach shard ${message.shard}: there are ${this.#queues.length}`);
        }
        this.#queues[message.shard]!.push({ connection, message });
        return;
      case "unwatch":
        for (const [key, { watch }] of connection.watches) {
          if (watch === message.watch) connection.watches.delete(key);
        }
        return;
      case "load":
        this.#loads.set(connection.client, message.load.slice());
        this.#freshLoads.add(connection.client);
        this.#passLoads();
        return;
      case "follow":
        connection.follows = true;
        if (this.#loads.size === 0) return;
        return this.#send(connection, {
          type: "loads",
          loads: Array.from(this.#loads, ([node, load]) => ({ node, load })),
        });
      case "goodbye":
        this.#commit();
        this.#byClient.delete(connection.client);
        return this.#expire(connection.client);
      case "hello":
        throw new ProtocolError('Cannot take a second "hello"');
    }
  }

  #hello(connection: Connection, hello: Extract<ToGcs, { type: "hello" }>): void {
    const { token, cluster, log } = this.#options;
    const refuse = (reason: string) => {
      log("warn", `Refused a connection to the control store: ${reason}`);
      connection.channel.send({ type: "refused", reason });
      connection.channel.finish();
    };
    if (!sameToken(hello.token, token)) return refuse("the token is wrong");
    if (hello.protocol !== GCS_PROTOCOL || hello.version !== VERSION) {
      return refuse(
        `the head is rayd ${VERSION} (control store protocol ${GCS_PROTOCOL}), and this is rayd ${hello.version} ` +
          `(protocol ${hello.protocol}); use the same version on all machines`,
      );
    }
    const { client } = hello;
    const before = this.#byClient.get(client);
    if (before !== undefined) {
      // It came back before its old connection was seen to break.
      before.client = undefined;
      before.channel.close();
    }
    // Before it may ask for anything, it is on disk that it was here: a client that is not known then was given up.
    const known = this.#shards[0]!.remember(client);
    try {
      if (!known) this.#options.storages[0]!.transaction(() => this.#shards[0]!.settle());
    } catch (error) {
      this.#failed(0, [], error);
      return connection.channel.close();
    }
    this.#away.get(client)?.();
    this.#away.delete(client);
    connection.client = client;
    connection.greeted();
    this.#byClient.set(client, connection);
    this.#send(connection, { type: "welcome", cluster, shards: this.#shards.length, known });
  }

  /** What the turn has brought takes effect, one transaction a shard. */
  #commit(): void {
    for (let i = 0; i < this.#shards.length; i++) {
      const queue = this.#queues[i]!;
      if (queue.length === 0) continue;
      this.#queues[i] = [];
      this.#apply(i, queue);
    }
    this.#flush();
  }

  #apply(index: number, queue: readonly Queued[]): void {
    const shard = this.#shards[index]!;
    const answers: { connection: Connection; message: FromGcs }[] = [];
    const work = () => {
      for (const { connection, message } of queue) {
        if (message.type === "watch") {
          answers.push({ connection, message: this.#watch(shard, connection, message) });
          continue;
        }
        const { client } = connection;
        if (client === undefined) continue; // it came back by another connection, and will send this again
        const { request, sequence, acknowledged, operations } = message;
        const results = shard.apply({ client, sequence, acknowledged, operations });
        answers.push({ connection, message: { type: "response", request, results } });
        this.#tellChanges(index, shard.takeChanges(), answers);
      }
      shard.settle();
    };
    try {
      if (queue.every(({ message }) => message.type === "watch" || message.sequence === 0)) work();
      else this.#options.storages[index]!.transaction(work);
    } catch (error) {
      return this.#failed(index, queue, error);
    }
    for (const { connection, message } of answers) this.#send(connection, message);
  }

  /**
   * A transaction was not made: a full disk, most likely. What memory says of the shard may be ahead of what the disk
   * says, so it is read anew; whoever asked for something tries again, on another connection.
   */
  #failed(index: number, queue: readonly Queued[], error: unknown): void {
    this.#options.log(
      "error",
      `Shard ${index} of the control store cannot commit: ${(error as Error).message}`,
    );
    this.#shards[index] = new Shard(this.#options.storages[index]!);
    for (const connection of new Set(queue.map(({ connection }) => connection))) connection.channel.close();
  }

  #watch(shard: Shard, connection: Connection, message: Extract<ToGcs, { type: "watch" }>): FromGcs {
    const { watch, prefix, after, shard: index } = message;
    connection.watches.set(`${watch}/${index}`, { watch, shard: index, prefix });
    const { revision } = shard;
    const missed = after > 0 ? shard.missed(prefix, after) : undefined;
    return missed !== undefined
      ? { type: "changes", watch, shard: index, whole: false, revision, changes: missed }
      : { type: "changes", watch, shard: index, whole: true, revision, changes: shard.entries(prefix) };
  }

  #tellChanges(
    shard: number,
    changes: readonly GcsChange[],
    answers: { connection: Connection; message: FromGcs }[],
  ): void {
    if (changes.length === 0) return;
    const { revision } = changes.at(-1)!;
    for (const connection of this.#connections) {
      for (const { watch, shard: watched, prefix } of connection.watches.values()) {
        if (watched !== shard) continue;
        const seen = changes.filter(({ key }) => key.startsWith(prefix));
        if (seen.length === 0) continue;
        answers.push({
          connection,
          message: { type: "changes", watch, shard, whole: false, revision, changes: seen },
        });
      }
    }
  }

  #passLoads(): void {
    this.#cancelLoads ??= this.#options.clock.after(LOADS_MS, () => {
      this.#cancelLoads = undefined;
      const loads = Array.from(this.#freshLoads, (node) => ({ node, load: this.#loads.get(node)! }));
      this.#freshLoads.clear();
      for (const connection of this.#connections) {
        if (connection.follows) this.#send(connection, { type: "loads", loads });
      }
      this.#flush();
    });
  }

  #connectionClosed(connection: Connection, error: RaydError | undefined): void {
    this.#connections.delete(connection);
    if (this.#closed) return;
    const { client } = connection;
    if (error !== undefined) {
      this.#options.log("warn", `A connection to the control store ended: ${error.message}`);
    }
    if (client === undefined || this.#byClient.get(client) !== connection) return;
    this.#byClient.delete(client);
    this.#leave(client);
  }

  /** A client has no connection: it has a grace to come back. */
  #leave(client: TaskId): void {
    this.#away.set(
      client,
      this.#options.clock.after(LEASE_GRACE_MS, () => {
        this.#options.log("info", `Client ${hex(client)} of the control store is gone`);
        this.#expire(client);
        this.#flush();
      }),
    );
  }

  #expire(client: TaskId): void {
    this.#away.delete(client);
    this.#loads.delete(client);
    this.#freshLoads.delete(client);
    const answers: { connection: Connection; message: FromGcs }[] = [];
    this.#shards.forEach((shard, i) => {
      this.#options.storages[i]!.transaction(() => {
        shard.expire(client);
        this.#tellChanges(i, shard.takeChanges(), answers);
        shard.settle();
      });
    });
    for (const { connection, message } of answers) this.#send(connection, message);
  }

  #tick(): void {
    this.#cancelTick = this.#options.clock.after(WATCH_MS, () => {
      const now = this.#options.clock.now();
      const holders = new Set(this.#shards.flatMap((shard) => shard.leaseholders()));
      for (const connection of this.#connections) {
        const { client } = connection;
        if (client === undefined || !holders.has(client) || now - connection.heardAt <= SILENCE_MS_MAX) {
          continue;
        }
        this.#options.log("warn", `Client ${hex(client)} said nothing for ${SILENCE_MS_MAX} ms`);
        this.#byClient.delete(client);
        connection.channel.close();
        this.#expire(client);
      }
      this.#flush();
      this.#tick();
    });
  }

  #send(connection: Connection, message: FromGcs): void {
    connection.channel.send(message);
    if (!connection.dirty) {
      connection.dirty = true;
      this.#dirty.push(connection);
    }
  }

  #flush(): void {
    for (const connection of this.#dirty) {
      connection.dirty = false;
      connection.channel.flush();
    }
    this.#dirty.length = 0;
  }
}
