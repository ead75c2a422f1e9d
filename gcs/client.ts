/**
 * A client of the global control store: reads and writes keys, watches prefixes, and comes back by itself when the
 * connection breaks.
 *
 * A store may have several members, of which one takes writes and one answers reads. The client has a connection to each
 * of them, and a *map* of who is who, which any of them tells, and tells anew whenever it changes. So when a member dies,
 * the way to the one that takes its place is open already.
 *
 * What was asked and not answered is asked again on the next connection, with the same sequence number, so that a write
 * takes effect once. A watch goes on from the revision that it has seen; where the store no longer knows what came since,
 * it sends all entries, and the watch tells its owner the difference: no gap, and no change twice.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { DisconnectedError, RaydError, UsageError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { VERSION } from "../core/version.ts";
import { type ByteStream, Channel } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";
import { answered } from "./patience.ts";
import {
  decodeFromGcs,
  encodeGcs,
  type FromGcs,
  GCS_PROTOCOL,
  type StoreMap,
  type ToGcs,
} from "./protocol.ts";
import { ABSENT, ANY, type GcsEntry, type GcsOp, type GcsResult, shardOf } from "./shard.ts";

export { ABSENT, ANY };
export type { GcsEntry };

/** What a client is made of. */
export interface GcsClientOptions {
  /** Opens a connection to the store: to one of its members (HOST:PORT), or to where it was said to be. */
  readonly connect: (address: string | undefined) => Promise<ByteStream>;
  readonly token: string;
  /** 16 random bytes: who this is, through all its connections. */
  readonly id: TaskId;
  readonly clock: Clock;
  /** The connection came up, or came back. `known` is false when the store does not remember the client. */
  readonly connected?: (known: boolean) => void;
  /** The connection broke; it is being tried again. */
  readonly disconnected?: (error: RaydError) => void;
  /**
   * How long an answer is waited for before it is looked at why there is none: too few members, and it is an error; a
   * store that changes its head, and there is more time. Without it, the store may be away for as long as it likes.
   */
  readonly patienceMs?: number;
  /** The loads that nodes have reported. */
  readonly loads?: (loads: readonly { readonly node: TaskId; readonly load: Uint8Array }[]) => void;
}

/** What a watch tells its owner: a key's new value, or `undefined` when it is gone. */
export type WatchListener = (key: string, value: Uint8Array | undefined, revision: number) => void;

interface Pending {
  readonly shard: number;
  readonly sequence: number;
  readonly operations: readonly GcsOp[];
  readonly resolve: (results: readonly GcsResult[]) => void;
  readonly reject: (error: RaydError) => void;
}

/** The connection to one member. */
interface Link {
  /** Empty: where the store was said to be. */
  address: string;
  channel: Channel<ToGcs, FromGcs> | undefined;
  /** The member has answered. */
  open: boolean;
  /** Whether the head knew the client; unless it is no head, or has not said so. */
  welcome: boolean | undefined;
  retryMs: number;
  cancelRetry: () => void;
}

interface Watch {
  /** What it is called by the member that was asked last, and by no other; and the connection there. */
  id: number;
  link: Link | undefined;
  readonly prefix: string;
  readonly listener: WatchListener;
  /** By shard: the revision that was seen. */
  readonly seen: number[];
  readonly known: Map<string, number>;
  /** Shards that have not told of what there is yet. */
  readonly waiting: Set<number>;
  readonly ready: PromiseWithResolvers<void>;
}

const RETRY_MS_MIN = 20, RETRY_MS_MAX = 500;

/** A connection to the control store that mends itself. */
export class GcsClient {
  readonly #options: GcsClientOptions;
  readonly #links = new Map<string, Link>();
  #map: StoreMap | undefined;
  /** The link that what was asked of the head has been sent over. */
  #head: Link | undefined;
  #tail: Link | undefined;
  #everWelcomed = false;
  #shards = 0;
  #cluster: TaskId | undefined;
  #started = Promise.withResolvers<void>();
  readonly #mapped = Promise.withResolvers<StoreMap>();
  #closed: RaydError | undefined;
  #askAgain: Set<number> | undefined;
  #nextRequest = 0;
  #nextWatch = 0;
  readonly #pending = new Map<number, Pending>();
  readonly #sequences: number[] = [];
  readonly #unanswered: Set<number>[] = [];
  readonly #watches = new Set<Watch>();
  /** The same, by what they are called now. */
  readonly #watchesById = new Map<number, Watch>();
  #lastLoad: Uint8Array | undefined;

  /** @param options What the client is made of. */
  constructor(options: GcsClientOptions) {
    this.#options = options;
    this.#started.promise.catch(() => {});
    this.#mapped.promise.catch(() => {});
  }

  /**
   * Connects.
   *
   * @param patienceMs As the client's, for this once.
   * @throws {UsageError} If the store refuses the client. @throws {DisconnectedError} If it cannot be reached.
   * @throws {NoMajorityError} If too few of its members answer.
   */
  async start(patienceMs = this.#options.patienceMs): Promise<void> {
    await this.#connect(this.#link(""), true);
    try {
      await this.#answered(this.#started.promise, patienceMs);
    } catch (error) {
      this.#end(error as RaydError);
      throw error;
    }
  }

  /** Who is who, as soon as a member has said it, though none may lead. */
  get mapped(): Promise<StoreMap> {
    return this.#mapped.promise;
  }

  /** The cluster's id, once connected. */
  get cluster(): TaskId | undefined {
    return this.#cluster;
  }

  /** How many shards the store has, once connected. */
  get shards(): number {
    return this.#shards;
  }

  /** Whether the store can be reached right now. */
  get connected(): boolean {
    return this.#head !== undefined;
  }

  /** Whether the connection was closed for good. */
  get closed(): boolean {
    return this.#closed !== undefined;
  }

  /** Who is who in the store, once connected. */
  get map(): StoreMap | undefined {
    return this.#map;
  }

  /** The entry of a key. */
  async get(key: string): Promise<GcsEntry | undefined> {
    const [result] = await this.batch([{ kind: "get", key }]);
    return result?.kind === "entry" ? { key, value: result.value, revision: result.revision } : undefined;
  }

  /** All entries whose key begins with `prefix`, in the order of keys. */
  async list(prefix: string): Promise<GcsEntry[]> {
    await this.#started.promise;
    const lists = await Promise.all(
      Array.from({ length: this.#shards }, (_, shard) => this.#listShard(prefix, shard)),
    );
    return lists.flat().sort((a, b) => a.key < b.key ? -1 : 1);
  }

  async #listShard(prefix: string, shard: number): Promise<GcsEntry[]> {
    const entries: GcsEntry[] = [];
    for (let after = "", more = true; more; after = entries.at(-1)?.key ?? "") {
      const [result] = await this.#request(shard, [{ kind: "list", prefix, after, limit: LIST_ENTRIES }]);
      if (result?.kind !== "entries") {
        throw new UsageError("The control store did not answer a list with entries");
      }
      entries.push(...result.entries);
      more = result.more;
    }
    return entries;
  }

  /**
   * Writes a key.
   *
   * @param expect The revision that its entry must have: {@link ABSENT} for none, {@link ANY} for whatever there is.
   * @param lease Whether the entry is to go when this client does.
   * @returns The entry's revision; `undefined` if it was not as expected, and nothing was done.
   */
  async put(
    key: string,
    value: Uint8Array,
    expect: number = ANY,
    lease = false,
  ): Promise<number | undefined> {
    const [result] = await this.batch([{ kind: "put", key, value, expect, lease }]);
    return result?.kind === "done" ? result.revision : undefined;
  }

  /** Deletes a key. @returns Whether it was as expected. */
  async delete(key: string, expect: number = ANY): Promise<boolean> {
    const [result] = await this.batch([{ kind: "delete", key, expect }]);
    return result?.kind === "done";
  }

  /**
   * Several operations at once: those on one shard all take effect, or none.
   *
   * @throws {UsageError} If they belong to different shards.
   */
  async batch(operations: readonly GcsOp[]): Promise<readonly GcsResult[]> {
    await this.#started.promise;
    const shards = new Set(operations.map((operation) => this.#shardOf(operation)));
    if (shards.size > 1) {
      throw new UsageError("Cannot do these operations at once: their keys belong to different shards");
    }
    return await this.#request(shards.values().next().value ?? 0, operations);
  }

  /** Any number of independent operations, in the order given where they meet the same key. Results in the same order. */
  async many(operations: readonly GcsOp[]): Promise<GcsResult[]> {
    await this.#started.promise;
    const byShard = new Map<number, number[]>();
    operations.forEach((operation, i) => {
      const shard = this.#shardOf(operation);
      const list = byShard.get(shard);
      if (list === undefined) byShard.set(shard, [i]);
      else list.push(i);
    });
    const results: GcsResult[] = new Array(operations.length);
    await Promise.all(Array.from(byShard, async ([shard, indices]) => {
      const answers = await this.#request(shard, indices.map((i) => operations[i]!));
      indices.forEach((i, at) => results[i] = answers[at]!);
    }));
    return results;
  }

  /**
   * Tells of every change of keys with a prefix; first of all that there are. Resolves when those were told.
   *
   * @returns What ends the watch.
   */
  async watch(prefix: string, listener: WatchListener): Promise<() => void> {
    await this.#started.promise;
    const watch: Watch = {
      id: -1,
      link: undefined,
      prefix,
      listener,
      seen: new Array(this.#shards).fill(0),
      known: new Map(),
      waiting: new Set(Array.from({ length: this.#shards }, (_, i) => i)),
      ready: Promise.withResolvers(),
    };
    this.#watches.add(watch);
    if (this.#tail !== undefined) this.#openWatch(this.#tail, watch);
    await this.#answered(watch.ready.promise);
    return () => {
      if (this.#watches.delete(watch)) this.#closeWatch(watch);
    };
  }

  /** Reports how this node is loaded; as a sign of life, too. */
  reportLoad(load: Uint8Array): void {
    this.#lastLoad = load;
    this.#head?.channel?.send({ type: "load", load });
  }

  /** Ends the connection. @param leave Whether leases go at once, rather than after the grace. */
  close(leave = true): void {
    if (this.#closed !== undefined) return;
    if (leave) this.#head?.channel?.send({ type: "goodbye" });
    this.#end(new DisconnectedError("The connection to the control store was closed"));
  }

  #end(error: RaydError): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    this.#head = this.#tail = undefined;
    for (const link of this.#links.values()) {
      link.cancelRetry();
      link.channel?.finish();
    }
    this.#started.reject(error);
    this.#mapped.reject(error);
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }

  #shardOf(operation: GcsOp): number {
    if (operation.kind === "list") throw new UsageError("Cannot list in a batch: use list()");
    return shardOf(operation.key, this.#shards);
  }

  #request(shard: number, operations: readonly GcsOp[]): Promise<readonly GcsResult[]> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const reads = operations.every(({ kind }) => kind === "get" || kind === "list");
    const sequence = reads ? 0 : this.#sequences[shard] = (this.#sequences[shard] ?? 0) + 1;
    const request = this.#nextRequest = (this.#nextRequest + 1) % 0x1_0000_0000;
    const answer = new Promise<readonly GcsResult[]>((resolve, reject) => {
      const pending = { shard, sequence, operations, resolve, reject };
      this.#pending.set(request, pending);
      if (sequence > 0) (this.#unanswered[shard] ??= new Set()).add(sequence);
      this.#sendRequest(request, pending);
    });
    if (this.#options.patienceMs === undefined) return answer;
    return this.#answered(answer).catch((error) => {
      // If it was sent, it may still take effect.
      this.#pending.delete(request);
      this.#unanswered[shard]?.delete(sequence);
      throw error;
    });
  }

  /** What is answered, or why it is not. @throws {NoMajorityError} If too few members answer. */
  async #answered<T>(answer: Promise<T>, patienceMs = this.#options.patienceMs): Promise<T> {
    if (patienceMs === undefined) return await answer;
    return await answered(answer, this.#options.clock, patienceMs, () => {
      const deciders = this.#map?.deciders ?? [];
      return {
        answering: deciders.filter((address) => this.#isOpen(address)),
        missing: deciders.filter((address) => !this.#isOpen(address)),
      };
    });
  }

  /** Sends a request to whom it belongs, if that one can be reached; otherwise it is sent as soon as it can. */
  #sendRequest(request: number, { shard, sequence, operations }: Pending): void {
    const link = sequence === 0 ? this.#tail : this.#head;
    if (link === undefined) return;
    const oldest = this.#unanswered[shard]?.values().next().value;
    const acknowledged = oldest === undefined ? this.#sequences[shard] ?? 0 : oldest - 1;
    link.channel!.send({ type: "request", request, shard, sequence, acknowledged, operations });
  }

  /**
   * Has a member tell of changes. A member that was asked before may tell of some still that are later than others which this
   * client has not heard of: so it is asked under another name, and what comes under the one before is not listened to.
   */
  #openWatch(link: Link, watch: Watch): void {
    this.#closeWatch(watch);
    const id = watch.id = this.#nextWatch++;
    watch.link = link;
    this.#watchesById.set(id, watch);
    const { prefix, seen } = watch;
    seen.forEach((after, shard) => link.channel!.send({ type: "watch", watch: id, shard, prefix, after }));
  }

  #closeWatch({ id, link }: Watch): void {
    this.#watchesById.delete(id);
    if (link?.open) link.channel!.send({ type: "unwatch", watch: id });
  }

  #link(address: string): Link {
    let link = this.#links.get(address);
    if (link === undefined) {
      link = {
        address,
        channel: undefined,
        open: false,
        welcome: undefined,
        retryMs: RETRY_MS_MIN,
        cancelRetry: () => {},
      };
      this.#links.set(address, link);
    }
    return link;
  }

  /** Whether the client still wants a connection to a member. */
  #wants(link: Link): boolean {
    return this.#closed === undefined && this.#links.get(link.address) === link;
  }

  async #connect(link: Link, first: boolean): Promise<void> {
    let stream: ByteStream;
    try {
      stream = await this.#options.connect(link.address === "" ? undefined : link.address);
    } catch (error) {
      const failure = error instanceof RaydError && !(error instanceof DisconnectedError)
        ? error
        : new DisconnectedError(`Cannot reach the control store: ${(error as Error).message}`, {
          cause: error,
        });
      if (first) {
        this.#end(failure);
        throw failure;
      }
      return this.#retry(link);
    }
    if (!this.#wants(link)) return stream.close();
    const channel = new Channel<ToGcs, FromGcs>(checked(stream), decodeFromGcs, "microtask", encodeGcs);
    link.channel = channel;
    channel.start({
      message: (message) => this.#message(link, message),
      closed: (error) => this.#lost(link, channel, error),
    });
    const { token, id } = this.#options;
    channel.send({ type: "hello", protocol: GCS_PROTOCOL, version: VERSION, token, client: id });
  }

  #lost(link: Link, channel: Channel<ToGcs, FromGcs>, error: RaydError | undefined): void {
    if (link.channel !== channel || !this.#wants(link)) return;
    link.channel = undefined;
    link.open = false;
    link.welcome = undefined;
    if (this.#tail === link) this.#tail = undefined;
    const failure = error ?? new DisconnectedError("The control store closed the connection");
    if (!this.#everWelcomed && this.#links.size === 1) return this.#end(failure);
    if (this.#head === link) {
      this.#head = undefined;
      this.#options.disconnected?.(failure);
    }
    this.#retry(link);
  }

  #retry(link: Link): void {
    if (!this.#wants(link)) return;
    link.cancelRetry = this.#options.clock.after(link.retryMs, () => {
      if (!this.#wants(link)) return;
      this.#connect(link, false);
      // If no member can be reached where it was, somebody may be where the store was said to be.
      if (!this.#links.has("") && ![...this.#links.values()].some(({ open }) => open)) {
        this.#connect(this.#link(""), false);
      }
    });
    link.retryMs = Math.min(link.retryMs * 2, RETRY_MS_MAX);
  }

  #message(link: Link, message: FromGcs): void {
    switch (message.type) {
      case "map":
        return this.#learn(link, message);
      case "welcome":
        link.welcome = message.known;
        return this.#assign();
      case "refused": {
        return this.#end(new UsageError(`Cannot join the cluster: ${message.reason}`));
      }
      case "response": {
        const pending = this.#pending.get(message.request);
        if (pending === undefined) return;
        this.#pending.delete(message.request);
        if (pending.sequence > 0) this.#unanswered[pending.shard]?.delete(pending.sequence);
        return pending.resolve(message.results.map(owned));
      }
      case "again":
        return this.#again(message.request);
      case "changes":
        // Of a former tail, they come again from the present one.
        return link === this.#tail ? this.#changes(message) : undefined;
      case "loads":
        return this.#options.loads?.(message.loads);
    }
  }

  /** A member has said who is who. */
  #learn(link: Link, { cluster, shards, self, map }: Extract<FromGcs, { type: "map" }>): void {
    if (this.#cluster !== undefined && (cluster !== this.#cluster || shards !== this.#shards)) {
      return this.#end(new UsageError("Cannot go on: the head that answers now belongs to another cluster"));
    }
    this.#cluster = cluster;
    this.#shards = shards;
    link.open = true;
    link.retryMs = RETRY_MS_MIN;
    if (link.address !== self) {
      this.#links.delete(link.address);
      const known = this.#links.get(self);
      if (known?.open) return link.channel!.finish();
      known?.cancelRetry();
      known?.channel?.close();
      link.address = self;
      this.#links.set(self, link);
    }
    if (map.epoch >= (this.#map?.epoch ?? 0)) {
      this.#map = map;
      this.#mapped.resolve(map);
      for (const address of map.members) {
        if (!this.#links.has(address)) this.#connect(this.#link(address), false);
      }
      for (const [address, other] of [...this.#links]) {
        if (
          map.members.includes(address) || other === link && !map.members.some((each) => this.#isOpen(each))
        ) continue;
        this.#links.delete(address);
        other.cancelRetry();
        other.channel?.finish();
      }
    }
    this.#assign();
  }

  #isOpen(address: string): boolean {
    return this.#links.get(address)?.open === true;
  }

  /** What was asked goes to whom it belongs by the map, if that is another one, or the same once more. */
  #assign(): void {
    const { head, tail } = this.#map!;
    const reads = this.#links.get(tail);
    const nextTail = reads?.open ? reads : undefined;
    if (nextTail !== this.#tail) {
      this.#tail = nextTail;
      if (nextTail !== undefined) {
        for (const [request, pending] of this.#pending) {
          if (pending.sequence === 0) this.#sendRequest(request, pending);
        }
        for (const watch of this.#watches) this.#openWatch(nextTail, watch);
      }
    }
    const writes = this.#links.get(head);
    const nextHead = writes?.welcome === undefined ? undefined : writes;
    if (nextHead === this.#head) return;
    this.#head = nextHead;
    // The one before may become the head again, and has to say anew what it knows then.
    for (const link of this.#links.values()) if (link !== nextHead) link.welcome = undefined;
    if (nextHead !== undefined) this.#welcomed(nextHead, nextHead.welcome!);
  }

  #welcomed(link: Link, known: boolean): void {
    const again = this.#everWelcomed;
    this.#everWelcomed = true;
    if (this.#options.loads !== undefined) link.channel!.send({ type: "follow" });
    for (const [request, pending] of this.#pending) {
      if (pending.sequence === 0) continue;
      const writes = pending.operations.some((operation) =>
        "expect" in operation && operation.expect !== ANY
      );
      if (again && !known && writes) {
        // It may have taken effect, and nobody remembers.
        this.#pending.delete(request);
        this.#unanswered[pending.shard]?.delete(pending.sequence);
        pending.reject(
          new DisconnectedError(
            "The control store does not remember this client: a write may be done or not",
          ),
        );
      } else this.#sendRequest(request, pending);
    }
    if (this.#lastLoad !== undefined) this.reportLoad(this.#lastLoad);
    this.#started.resolve();
    this.#options.connected?.(known);
  }

  /** A request was not taken: it is sent again in a while, in order with others. */
  #again(request: number): void {
    if (this.#askAgain !== undefined) return void this.#askAgain.add(request);
    this.#askAgain = new Set([request]);
    this.#options.clock.after(RETRY_MS_MIN, () => {
      const requests = this.#askAgain!;
      this.#askAgain = undefined;
      if (this.#closed !== undefined) return;
      for (const [request, pending] of this.#pending) {
        if (requests.has(request)) this.#sendRequest(request, pending);
      }
    });
  }

  #changes(message: Extract<FromGcs, { type: "changes" }>): void {
    const watch = this.#watchesById.get(message.watch);
    if (watch === undefined) return;
    const { shard, whole, revision, changes } = message;
    const { known, listener, seen } = watch;
    if (whole) {
      const present = new Set(changes.map(({ key }) => key));
      for (const key of [...known.keys()]) {
        if (shardOf(key, this.#shards) !== shard || present.has(key)) continue;
        known.delete(key);
        listener(key, undefined, revision);
      }
    }
    for (const { key, value, revision } of changes) {
      if (revision <= (known.get(key) ?? 0) || !whole && revision <= seen[shard]!) continue;
      if (value === undefined) known.delete(key);
      else known.set(key, revision);
      listener(key, value?.slice(), revision);
    }
    seen[shard] = Math.max(revision, whole ? 0 : seen[shard]!);
    if (watch.waiting.delete(shard) && watch.waiting.size === 0) watch.ready.resolve();
  }
}

const LIST_ENTRIES = 1000;

/** Received bytes are views of a block that is as large as many answers. */
function owned(result: GcsResult): GcsResult {
  if (result.kind === "entry") return { ...result, value: result.value.slice() };
  if (result.kind !== "entries") return result;
  return { ...result, entries: result.entries.map((entry) => ({ ...entry, value: entry.value.slice() })) };
}
