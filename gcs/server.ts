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
import { checked } from "../transport/checked.ts";
import { sameToken } from "../transport/token.ts";
import { type ChainConfig, FOUNDER } from "./chain_config.ts";
import { ChainMember, type ChainMemberOptions, type TransactionalStorage } from "./chain_member.ts";
import type { ReplicaEffect } from "./chain_replica.ts";
import { decodeToGcs, encodeGcs, type FromGcs, GCS_PROTOCOL, type StoreMap, type ToGcs } from "./protocol.ts";
import type { GcsChange, GcsOp } from "./shard.ts";

export type { TransactionalStorage };

/** What a server is told that has other members beside it. */
export interface ChainOptions extends
  Pick<
    ChainMemberOptions,
    "member" | "incarnation" | "replicas" | "founds" | "lingers" | "durable" | "send"
  > {
  /** Where clients reach this member. */
  readonly self: string;
  /** What clients are told of a configuration. */
  readonly map: (config: ChainConfig) => StoreMap;
}

/** What a server is made of. */
export interface GcsServerOptions {
  readonly cluster: TaskId;
  readonly token: string;
  readonly storages: readonly TransactionalStorage[];
  readonly clock: Clock;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
  /** Told of each configuration that this member learns of. */
  readonly configured?: (config: ChainConfig) => void;
  /** Without it, the server is all there is of the store. */
  readonly chain?: ChainOptions;
}

/** How long a client whose connection broke may stay away before its leases go. */
export const LEASE_GRACE_MS = 1_000;
/** How long it has when there is another head, which it has to find. */
export const TAKEOVER_GRACE_MS = 3_000;
/** How long a client with leases may say nothing before it counts as gone, though its connection stands. */
export const SILENCE_MS_MAX = 3_000;
/** How much is read from a connection at once: what has come while a transaction was written becomes the next one. */
const TURN_BYTES = 256 * 1024;
/** How often loads are passed on. */
const LOADS_MS = 20;
/** How often silent clients are looked for. */
const WATCH_MS = 250;

interface Connection {
  readonly channel: Channel<FromGcs, ToGcs>;
  client: TaskId | undefined;
  readonly watches: Map<string, { readonly watch: number; readonly shard: number; readonly prefix: string }>;
  follows: boolean;
  /** By shard: the request of each command that is on its way. */
  readonly requests: Map<number, number>[];
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

/** A store that is one server. */
const ALONE: ChainOptions = {
  member: FOUNDER,
  incarnation: 1,
  replicas: 1,
  founds: true,
  lingers: true,
  durable: true,
  send: () => {},
  self: "",
  map: ({ epoch }) => ({
    epoch,
    head: "",
    tail: "",
    members: [""],
    deciders: [""],
    chain: [],
    parts: [FOUNDER],
    replicas: 1,
  }),
};

/** The control store of a cluster, or a member of it. */
export class GcsServer {
  readonly #options: GcsServerOptions;
  readonly #chain: ChainOptions;
  readonly #member: ChainMember;
  readonly #shards: number;
  readonly #queues: Queued[][];
  readonly #connections = new Set<Connection>();
  readonly #byClient = new Map<TaskId, Connection>();
  /** Clients without a connection, and what ends their grace. */
  readonly #away = new Map<TaskId, () => void>();
  readonly #loads = new Map<TaskId, Uint8Array>();
  readonly #freshLoads = new Set<TaskId>();
  readonly #dirty: Connection[] = [];
  /** What is asked of the tail, while it may not answer. */
  #held: Queued[] = [];
  #epoch = 0;
  #leads = false;
  #closed = false;
  /** Whether what has arrived is about to take effect. */
  #commits = false;
  #cancelTick: () => void = () => {};
  #cancelLoads: (() => void) | undefined;

  /** @param options What the server is made of. */
  constructor(options: GcsServerOptions) {
    this.#options = options;
    this.#chain = options.chain ?? ALONE;
    const { storages, clock, log } = options;
    this.#shards = storages.length;
    this.#queues = storages.map(() => []);
    this.#member = new ChainMember({ ...this.#chain, storages, clock, log }, {
      effect: (shard, effect) => this.#effect(shard, effect),
      flush: () => this.#flush(),
      changed: () => this.#changed(),
      failed: () => this.#failed(),
    });
    this.#member.start();
    this.#tick();
  }

  /** The member of the chain that this is. */
  get member(): ChainMember {
    return this.#member;
  }

  /** Tells clients anew who is where. */
  tellMap(): void {
    for (const connection of this.#connections) {
      if (connection.client !== undefined) this.#sendMap(connection);
    }
    this.#flush();
  }

  /** Takes a connection. @param stream Its bytes. */
  accept(stream: ByteStream): void {
    const bytes = checked(stream, TURN_BYTES);
    const channel = new Channel<FromGcs, ToGcs>(bytes, decodeToGcs, "manual", encodeGcs, TURN_BYTES);
    const connection: Connection = {
      channel,
      client: undefined,
      watches: new Map(),
      follows: false,
      requests: this.#queues.map(() => new Map()),
      heardAt: this.#options.clock.now(),
      dirty: false,
      greeted: () => {},
    };
    this.#connections.add(connection);
    channel.messageBytesMax = GREETING_BYTES_MAX;
    const late = this.#options.clock.after(GREETING_MS_MAX, () => channel.close());
    channel.start({
      message: (message) => this.#message(connection, message),
      drained: () => this.#commitSoon(),
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

  /** Ends all connections. What this member alone has, it has to {@link ChainMember.leave} before. */
  close(): void {
    this.#closed = true;
    this.#member.close();
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
          throw new ProtocolError(`Cannot reach shard ${message.shard}: there are ${this.#shards}`);
        }
        this.#queues[message.shard]!.push({ connection, message });
        return;
      case "unwatch":
        for (const [key, { watch }] of connection.watches) {
          if (watch === message.watch) connection.watches.delete(key);
        }
        this.#held = this.#held.filter(({ connection: by, message: held }) =>
          by !== connection || held.type !== "watch" || held.watch !== message.watch
        );
        return;
      case "load":
        if (!this.#leads) return;
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
        if (!this.#leads) return;
        this.#byClient.delete(connection.client);
        return this.#expire(connection.client);
      case "hello":
        throw new ProtocolError('Cannot take a second "hello"');
    }
  }

  #hello(connection: Connection, hello: Extract<ToGcs, { type: "hello" }>): void {
    const { token, log } = this.#options;
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
    this.#away.get(client)?.();
    this.#away.delete(client);
    connection.client = client;
    connection.greeted();
    this.#byClient.set(client, connection);
    this.#sendMap(connection);
    if (this.#leads) this.#lead(connection, client);
    this.#flush();
  }

  #sendMap(connection: Connection): void {
    const { config } = this.#member;
    if (config === undefined) return;
    const { cluster } = this.#options;
    const { self, map } = this.#chain;
    this.#send(connection, { type: "map", cluster, shards: this.#shards, self, map: map(config) });
  }

  /** Before a client may ask for anything, it is on disk that it was here: one that is not known then was given up. */
  #lead(connection: Connection, client: TaskId): void {
    if (this.#member.replica(0).shard.remembers(client)) {
      this.#send(connection, { type: "welcome", known: true });
    } else this.#member.run(0, (replica) => replica.step({ type: "remember", client }));
  }

  /** Other connections of which something has arrived are read before: their continuations are queued already. */
  #commitSoon(): void {
    if (this.#commits) return;
    this.#commits = true;
    queueMicrotask(() => this.#commit());
  }

  /** What the turn has brought takes effect, one transaction a shard. */
  #commit(): void {
    this.#commits = false;
    if (this.#closed) return;
    for (let i = 0; i < this.#shards; i++) {
      const queue = this.#queues[i]!;
      if (queue.length === 0) continue;
      this.#queues[i] = [];
      this.#apply(i, queue);
    }
    this.#flush();
  }

  #apply(index: number, queue: readonly Queued[]): void {
    const isWrite = ({ message }: Queued) => message.type === "request" && message.sequence > 0;
    const writes = queue.filter(isWrite);
    if (writes.length > 0) {
      this.#member.run(index, (replica) => {
        for (const { connection, message } of writes) {
          const { client } = connection;
          // One that came back by another connection will send this again.
          if (client === undefined || message.type !== "request") continue;
          const { request, sequence, acknowledged, operations } = message;
          connection.requests[index]!.set(sequence, request);
          replica.step({
            type: "command",
            command: { client, sequence, acknowledged, operations: this.#kept(operations) },
          });
        }
      });
    }
    if (writes.length < queue.length) this.#read(index, queue.filter((queued) => !isWrite(queued)));
  }

  /** What is received lies in blocks that are large; those of a chain's log would be kept for the sake of a few bytes. */
  #kept(operations: readonly GcsOp[]): readonly GcsOp[] {
    if (this.#chain === ALONE || (this.#member.config?.replicas ?? 1) === 1) return operations;
    return operations.map((operation) =>
      operation.kind === "put" ? { ...operation, value: operation.value.slice() } : operation
    );
  }

  /** Answers what only the tail may. */
  #read(index: number, queue: readonly Queued[]): void {
    if (!this.#member.readable(index)) return void this.#held.push(...queue);
    const replica = this.#member.replica(index);
    for (const { connection, message } of queue) {
      const { client } = connection;
      if (client === undefined) continue;
      if (message.type === "watch") this.#watch(connection, message);
      else {
        const results = replica.read(client, message.operations);
        this.#send(connection, { type: "response", request: message.request, results });
      }
    }
  }

  /** What the chain has done is durable: whom it concerns is told. */
  #effect(shard: number, effect: Exclude<ReplicaEffect, { type: "send" }>): void {
    switch (effect.type) {
      case "answer":
      case "refused": {
        const connection = this.#byClient.get(effect.client);
        const request = connection?.requests[shard]?.get(effect.sequence);
        if (connection === undefined || request === undefined) return;
        connection.requests[shard]!.delete(effect.sequence);
        return this.#send(
          connection,
          effect.type === "answer"
            ? { type: "response", request, results: effect.results }
            : { type: "again", request },
        );
      }
      case "remembered": {
        const connection = this.#byClient.get(effect.client);
        if (connection !== undefined) this.#send(connection, { type: "welcome", known: false });
        return;
      }
      case "changes":
        return this.#tellChanges(shard, effect.changes);
    }
  }

  /** The chain is another, or this member has become able to answer. */
  #changed(): void {
    if (this.#closed) return;
    const { config } = this.#member;
    if (config !== undefined && config.epoch !== this.#epoch) {
      this.#epoch = config.epoch;
      if (this.#chain !== ALONE) {
        const joining = config.joining === undefined ? "" : `, and ${config.joining.slice(0, 8)} joins`;
        const chain = config.chain.map((member) => member.slice(0, 8)).join(", ");
        this.#options.log("info", `Epoch ${config.epoch} of the control store: ${chain}${joining}`);
      }
      for (const connection of this.#connections) {
        if (connection.client !== undefined) this.#sendMap(connection);
      }
      const leads = this.#member.isHead;
      const led = this.#leads;
      this.#leads = leads;
      if (led && !leads) this.#letGo();
      // Those who have heard of epochs that this member has not may take it for a new head.
      if (leads) this.#welcomeAll();
      if (leads && !led) this.#takeOver();
      this.#flush();
      this.#options.configured?.(config); // clients need not wait for that
    }
    if (this.#held.length > 0) this.#release();
    this.#flush();
  }

  /** What was held is looked at anew. Who waits for an answer goes first: to say what somebody has missed takes longer. */
  #release(): void {
    const held = this.#held;
    this.#held = [];
    this.#releaseAll(held.filter(({ message }) => message.type === "request"));
    this.#flush();
    this.#releaseAll(held.filter(({ message }) => message.type === "watch"));
  }

  #releaseAll(held: readonly Queued[]): void {
    for (const queued of held) {
      const { connection, message } = queued;
      if (connection.client === undefined || connection.channel.closed) continue;
      if (this.#member.readable(message.shard) || this.#member.isTail) this.#read(message.shard, [queued]);
      else if (message.type === "request") {
        this.#send(connection, { type: "again", request: message.request });
      } else this.#held.push(queued); // the client may know before this member does that it is the tail
    }
  }

  /** This member is the head from now on, and clients are its matter: those that are here, and those that were known. */
  #takeOver(): void {
    const now = this.#options.clock.now();
    for (const connection of this.#connections) connection.heardAt = now;
    this.#leaveAbsent(this.#chain === ALONE ? LEASE_GRACE_MS : TAKEOVER_GRACE_MS);
  }

  /** Clients that are known and have no connection have a grace to come. */
  #leaveAbsent(graceMs: number): void {
    const known = this.#queues.flatMap((_, i) => {
      const { shard } = this.#member.replica(i);
      return [...shard.clients(), ...shard.leaseholders()];
    });
    for (const client of new Set(known)) {
      if (!this.#byClient.has(client) && !this.#away.has(client)) this.#leave(client, graceMs);
    }
  }

  #welcomeAll(): void {
    for (const connection of this.#connections) {
      if (connection.client !== undefined) this.#lead(connection, connection.client);
    }
  }

  #letGo(): void {
    for (const cancel of this.#away.values()) cancel();
    this.#away.clear();
    this.#loads.clear();
    this.#freshLoads.clear();
  }

  /**
   * A transaction was not made: a full disk, most likely. Whoever asked for something tries again, on another
   * connection.
   */
  #failed(): void {
    for (const { channel } of this.#connections) channel.close();
  }

  #watch(connection: Connection, message: Extract<ToGcs, { type: "watch" }>): void {
    const { watch, prefix, after, shard: index } = message;
    const { shard } = this.#member.replica(index);
    connection.watches.set(`${watch}/${index}`, { watch, shard: index, prefix });
    const { revision } = shard;
    const missed = after > 0 ? shard.missed(prefix, after) : undefined;
    this.#send(
      connection,
      missed !== undefined
        ? { type: "changes", watch, shard: index, whole: false, revision, changes: missed }
        : { type: "changes", watch, shard: index, whole: true, revision, changes: shard.entries(prefix) },
    );
  }

  /**
   * Tells of changes, as the tail may: what others apply may come to be undone. Whoever asked this member when it was the tail
   * is told once it is again.
   */
  #tellChanges(shard: number, changes: readonly GcsChange[]): void {
    const { revision } = changes.at(-1)!;
    const after = changes[0]!.revision - 1;
    const readable = this.#member.readable(shard);
    for (const connection of this.#connections) {
      for (const [name, { watch, shard: watched, prefix }] of connection.watches) {
        if (watched !== shard) continue;
        if (!readable) {
          connection.watches.delete(name);
          this.#held.push({ connection, message: { type: "watch", watch, shard, prefix, after } });
          continue;
        }
        const seen = changes.filter(({ key }) => key.startsWith(prefix));
        if (seen.length === 0) continue;
        this.#send(connection, { type: "changes", watch, shard, whole: false, revision, changes: seen });
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
    if (this.#leads) this.#leave(client, LEASE_GRACE_MS);
  }

  /** A client has no connection: it has a grace to come back. */
  #leave(client: TaskId, graceMs: number): void {
    this.#away.set(
      client,
      this.#options.clock.after(graceMs, () => {
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
    for (let shard = 0; shard < this.#shards; shard++) {
      this.#member.run(shard, (replica) => replica.step({ type: "expire", client }));
    }
  }

  #tick(): void {
    this.#cancelTick = this.#options.clock.after(WATCH_MS, () => {
      const now = this.#options.clock.now();
      const holders = new Set(this.#queues.flatMap((_, i) => this.#member.replica(i).shard.leaseholders()));
      for (const connection of this.#leads ? this.#connections : []) {
        const { client } = connection;
        if (client === undefined || !holders.has(client) || now - connection.heardAt <= SILENCE_MS_MAX) {
          continue;
        }
        this.#options.log("warn", `Client ${hex(client)} said nothing for ${SILENCE_MS_MAX} ms`);
        this.#byClient.delete(client);
        connection.channel.close();
        this.#expire(client);
      }
      // Of those that were to expire, some may be there still: the disk was full just then.
      if (this.#leads) this.#leaveAbsent(LEASE_GRACE_MS);
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
