/**
 * A replica of one shard in a chain.
 *
 * After van Renesse and Schneider, "Chain Replication for Supporting High Throughput and Availability" (OSDI 2004):
 * commands enter at the head, which gives them their numbers, and travel down to the tail; what the tail has, all have,
 * so that is committed, and acknowledgements travel back up. Each member's history begins with that of the one after it,
 * and a change of the chain keeps it so: the member before a gap sends what the one after it lacks. docs/chain_protocol.md
 * has the rules and why they suffice.
 *
 * A replica keeps an entry on disk before anybody else can know that it has it, and applies it to the state only when it
 * is committed. So what was never committed can be taken back by one who was away meanwhile.
 *
 * An entry that was in the log before and is committed need only be applied, and is again if that is lost. So to
 * acknowledge it, or to answer, need not wait for the disk, but at the tail, which answers reads.
 *
 * Pure: `step` takes events, and `settle` gives what is to be sent: at once, or once all that was written is durable. A
 * storage that failed makes the replica worthless: build it anew from what is on disk.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import type { TaskId } from "../core/ids.ts";
import { unreachable } from "../core/unreachable.ts";
import { type ChainConfig, type MemberId, tailOf } from "./chain_config.ts";
import { checksumOf, clearState, type Copy, copyOf, writeChunk } from "./chain_copy.ts";
import { type ChainFault, NO_FAULTS } from "./chain_faults.ts";
import { ChainLog, entryAfter, ORIGIN } from "./chain_log.ts";
import type { ChainCommand, ChainEntry, Position, ReplicaMessage } from "./chain_messages.ts";
import {
  type GcsChange,
  type GcsCommand,
  type GcsOp,
  type GcsResult,
  Shard,
  type ShardStorage,
} from "./shard.ts";

/** What happens to a replica. */
export type ReplicaEvent =
  /** A configuration was decided. */
  | { readonly type: "configure"; readonly config: ChainConfig }
  | { readonly type: "message"; readonly from: MemberId; readonly message: ReplicaMessage }
  /** A command of a client, for the head. */
  | { readonly type: "command"; readonly command: GcsCommand }
  | { readonly type: "remember" | "expire"; readonly client: TaskId }
  /** Some time has passed: what may have been lost is sent again. */
  | { readonly type: "tick" };

/** What follows. */
export type ReplicaEffect =
  | { readonly type: "send"; readonly to: MemberId; readonly message: ReplicaMessage }
  | {
    readonly type: "answer";
    readonly client: TaskId;
    readonly sequence: number;
    readonly results: readonly GcsResult[];
  }
  /** The command cannot be taken here: this is not the head, or an earlier one of the client is missing. */
  | { readonly type: "refused"; readonly client: TaskId; readonly sequence: number }
  /** A client is remembered by the whole chain from now on. */
  | { readonly type: "remembered"; readonly client: TaskId }
  | { readonly type: "changes"; readonly changes: readonly GcsChange[] };

/** What follows from a transaction: before it is durable, if need be, and once it is. */
export interface Settled {
  readonly early: readonly ReplicaEffect[];
  readonly late: readonly ReplicaEffect[];
}

/** What a replica is made of. */
export interface ChainReplicaOptions {
  readonly member: MemberId;
  /** Its state and log; what is there already is taken up. */
  readonly storage: ShardStorage;
  readonly faults?: ReadonlySet<ChainFault>;
  /** Told of each entry that is applied: for checks. */
  readonly applied?: (entry: ChainEntry) => void;
  /** Entries in a piece of a copy: for tests. */
  readonly copyEntries?: number;
}

/** Entries in one message, while a member catches up. */
const FORWARD_ENTRIES_MAX = 512;

const CHAIN = "chain";

/** One shard, at one member. */
export class ChainReplica {
  readonly #options: ChainReplicaOptions;
  readonly #faults: ReadonlySet<ChainFault>;
  readonly #storage: ShardStorage;
  #shard: Shard;
  #log: ChainLog;
  #config: ChainConfig | undefined;
  // On disk, with the position up to which entries are applied:
  /** The last epoch in which it has begun to join. */
  #adopted: number;
  #syncedEpoch: number;
  #copying: boolean;
  #dirty = false;
  /**
   * The last number of each client whose commands are in the log, or were: to take one away with each command would leave
   * garbage that only the slow collection takes.
   */
  readonly #logged = new Map<TaskId, number>();
  // This member's place in the configuration:
  #upstream: MemberId | undefined;
  #downstream: MemberId | undefined;
  /** The member before this one is in this epoch, too. */
  #confirmed = false;
  /** The last entry that was sent down; unknown until the member there has said what it has. */
  #sent: number | undefined;
  #acked = 0;
  /** What the member there certainly has on its disk; 0 until it goes on from what this one has. */
  #held = 0;
  #ackedUp = NOTHING;
  #ackedAtTick = -1;
  #copy: Copy | undefined;
  #receiving: { readonly at: Position; next: number; checksum: number } | undefined;
  #answerUp = false;
  /** Entries up to here were on disk before this transaction, or are applied. */
  #kept: number;
  #effects: ReplicaEffect[] = [];
  #early: ReplicaEffect[] = [];

  /** @param options What the replica is made of. */
  constructor(options: ChainReplicaOptions) {
    this.#options = options;
    this.#faults = options.faults ?? NO_FAULTS;
    this.#storage = options.storage;
    const bytes = this.#storage.getMeta(CHAIN);
    // A state from before there were chains has a history, though nobody knows it: it is no empty one.
    const old = bytes === undefined && new Shard(this.#storage).revision > 0 ? 1 : 0;
    const [seq, epoch, hash, adopted, synced, copying] = bytes === undefined
      ? [old, 0, old, 0, 0, 0]
      : new Float64Array(bytes.slice().buffer) as unknown as number[];
    this.#adopted = adopted!;
    this.#syncedEpoch = this.#faults.has("forget-synced") ? 0 : synced!;
    this.#copying = copying !== 0;
    if (this.#copying) clearState(this.#storage); // the copy begins again
    this.#shard = new Shard(this.#storage);
    this.#log = new ChainLog(this.#storage, { seq: seq!, epoch: epoch!, hash: hash! });
    for (const { command } of this.#log.unapplied()) this.#count(command);
    this.#kept = this.#log.last.seq;
  }

  /** Up to where this member has the history. */
  get last(): Position {
    return this.#log.last;
  }

  /** Up to where it has applied it. */
  get applied(): Position {
    return this.#log.applied;
  }

  /** The state, up to {@link applied}. */
  get shard(): Shard {
    return this.#shard;
  }

  /** The epoch that this replica is in. */
  get epoch(): number {
    return this.#config?.epoch ?? 0;
  }

  /** Whether this is the tail, and commits nothing any more that the joining member does not have. */
  get synced(): boolean {
    return this.#config?.joining !== undefined && this.#isTail && this.#syncedEpoch === this.#config.epoch;
  }

  /** The epoch in which that is so; 0 if it is not. */
  get syncedEpoch(): number {
    return this.synced ? this.#syncedEpoch : 0;
  }

  /** Whether this is the head. */
  get isHead(): boolean {
    return this.#config?.chain[0] === this.#options.member;
  }

  /** Whether reads may be answered here, as far as the chain is concerned; the tail's lease is the master's matter. */
  get readable(): boolean {
    if (this.#faults.has("read-anywhere")) return this.#config?.chain.includes(this.#options.member) ?? false;
    return this.#isTail && this.#confirmed;
  }

  /** Answers operations that only read, from what is committed. To be called only while {@link readable}. */
  read(client: TaskId, operations: readonly GcsOp[]): readonly GcsResult[] {
    return this.#shard.apply({ client, sequence: 0, acknowledged: 0, operations });
  }

  /** Takes an event; what follows is had from {@link settle}. */
  step(event: ReplicaEvent): void {
    switch (event.type) {
      case "configure":
        return this.#configure(event.config);
      case "message":
        return this.#message(event.from, event.message);
      case "command":
        return this.#command(event.command);
      case "remember":
      case "expire":
        if (this.isHead) this.#append({ kind: event.type, client: event.client });
        return;
      case "tick":
        return this.#tick();
      default:
        unreachable(event);
    }
  }

  /** At the end of a transaction: writes out what was put off. @returns What is to be done. */
  settle(): Settled {
    this.#forward();
    this.#acknowledge();
    this.#shard.settle();
    if (this.#dirty) {
      this.#dirty = false;
      const { seq, epoch, hash } = this.#log.applied;
      const numbers = [seq, epoch, hash, this.#adopted, this.#syncedEpoch, this.#copying ? 1 : 0];
      this.#storage.putMeta(CHAIN, new Uint8Array(Float64Array.from(numbers).buffer));
    }
    this.#log.trim(this.#copy?.at.seq ?? Infinity);
    this.#kept = this.#log.last.seq;
    const early = this.#early, late = this.#effects;
    if (early.length > 0) this.#early = [];
    if (late.length > 0) this.#effects = [];
    return { early, late };
  }

  /**
   * Tells of an entry, and all before it: early if they were on disk before. Not so the tail: if it starts anew it must not
   * answer reads without what it has told to be applied.
   */
  #tell(seq: number, effect: ReplicaEffect): void {
    const early = seq <= this.#kept && (!this.#isTail || this.#faults.has("tail-tells-early"));
    (early || this.#faults.has("tell-early") ? this.#early : this.#effects).push(effect);
  }

  get #isTail(): boolean {
    return this.#config !== undefined && tailOf(this.#config) === this.#options.member;
  }

  get #joins(): boolean {
    return this.#config?.joining === this.#options.member;
  }

  #configure(config: ChainConfig): void {
    if (config.epoch <= this.epoch && !this.#faults.has("adopt-older")) return;
    const { member } = this.#options;
    const { chain, joining, epoch } = config;
    const place = chain.indexOf(member);
    this.#config = config;
    this.#upstream = place > 0 ? chain[place - 1] : joining === member ? tailOf(config) : undefined;
    this.#downstream = place < 0 ? undefined : chain[place + 1] ?? joining;
    this.#confirmed = this.#upstream === undefined;
    this.#copy = undefined;
    this.#receiving = undefined;
    this.#acked = this.#log.applied.seq;
    this.#held = 0;
    this.#ackedUp = NOTHING;
    if (this.#faults.has("no-resend")) this.#sent = this.#log.last.seq;
    else this.#sent = undefined;
    // A member that joins takes back what may have been decided otherwise since: once an epoch, not again when it restarts.
    if (this.#joins && epoch > this.#adopted) {
      this.#adopted = epoch;
      this.#dirty = true;
      if (!this.#faults.has("keep-tail-of-log")) this.#truncate();
    }
    this.#commit();
    if (this.#upstream !== undefined) this.#sayPosition();
    if (this.#downstream !== undefined) this.#send(this.#downstream, { type: "probe", epoch });
  }

  #message(from: MemberId, message: ReplicaMessage): void {
    if (message.epoch !== this.epoch) {
      const fault = message.type === "forward" ? "forward-unfenced" : "ack-unfenced";
      const planted = (message.type === "forward" || message.type === "ack") && this.#faults.has(fault);
      if (!planted) return;
    }
    switch (message.type) {
      case "position":
      case "ack":
      case "taken":
        if (from !== this.#downstream && !(message.type === "ack" && this.#faults.has("ack-unfenced"))) {
          return;
        }
        if (message.type === "position") return this.#position(message);
        return message.type === "ack" ? this.#ack(message.seq) : this.#taken(message);
      case "probe":
      case "forward":
      case "chunk":
        if (from !== this.#upstream && !this.#faults.has("forward-unfenced")) return;
        if (from === this.#upstream) this.#confirmed = true;
        if (message.type === "probe") return this.#sayPosition();
        return message.type === "forward" ? this.#received(message) : this.#chunk(message);
      default:
        unreachable(message);
    }
  }

  #command(command: GcsCommand): void {
    const { client, sequence, acknowledged } = command;
    const refused: ReplicaEffect = { type: "refused", client, sequence };
    if (!this.isHead) return void this.#effects.push(refused);
    const applied = this.#shard.lastOf(client);
    const known = Math.max(applied, this.#logged.get(client) ?? 0);
    if (this.#faults.has("forget-duplicates")) return this.#append({ kind: "apply", command });
    if (sequence <= applied) {
      this.#effects.push({ type: "answer", client, sequence, results: this.#shard.again(command) });
    } else if (sequence <= known) {
      return; // it is on its way
    } else if (
      sequence === known + 1 || sequence === acknowledged + 1 || this.#faults.has("take-client-gap")
    ) {
      this.#append({ kind: "apply", command });
    } else this.#effects.push(refused);
  }

  /** The head gives a command its number. */
  #append(command: ChainCommand): void {
    this.#take(entryAfter(this.#log.last, this.epoch, command));
    this.#commit();
  }

  #take(entry: ChainEntry): void {
    const applies = this.#downstream === undefined && !this.#joins; // in this transaction
    this.#log.append(entry, !applies && !this.#faults.has("log-not-kept"));
    this.#count(entry.command);
  }

  #count(command: ChainCommand): void {
    if (command.kind === "apply") this.#logged.set(command.command.client, command.command.sequence);
  }

  #truncate(): void {
    this.#log.truncate();
    this.#logged.clear();
    this.#kept = Math.min(this.#kept, this.#log.last.seq);
  }

  /** Applies what is committed. */
  #commit(): void {
    const waits = this.#downstream !== undefined &&
      (this.#config!.joining !== this.#downstream ||
        this.synced && !this.#faults.has("commit-without-joiner"));
    if (this.#joins) return;
    if (this.#config?.chain.includes(this.#options.member) !== true) return;
    const early = this.#faults.has("commit-early") && this.isHead;
    this.#apply(waits && !early ? this.#acked : this.#log.last.seq);
  }

  #apply(upTo: number): void {
    const keep = (this.#config?.replicas ?? 1) > 1 || this.#copy !== undefined;
    for (let entry; (entry = this.#log.takeNext(upTo, keep)) !== undefined;) {
      this.#dirty = true;
      this.#options.applied?.(entry);
      this.#perform(entry);
    }
  }

  #perform({ seq, command }: ChainEntry): void {
    switch (command.kind) {
      case "apply": {
        const { client, sequence } = command.command;
        const again = this.#faults.has("forget-duplicates") && sequence <= this.#shard.lastOf(client);
        const results = this.#shard.apply(
          again ? { ...command.command, sequence: this.#shard.lastOf(client) + 1 } : command.command,
        );
        if (this.isHead) this.#tell(seq, { type: "answer", client, sequence, results });
        break;
      }
      case "remember":
        this.#shard.remember(command.client);
        if (this.isHead) this.#tell(seq, { type: "remembered", client: command.client });
        break;
      case "expire":
        // Its commands may follow in the log.
        if ((this.#logged.get(command.client) ?? 0) <= this.#shard.lastOf(command.client)) {
          this.#logged.delete(command.client);
        }
        this.#shard.expire(command.client);
        break;
      default:
        unreachable(command);
    }
    const changes = this.#shard.takeChanges();
    if (changes.length > 0) this.#effects.push({ type: "changes", changes });
  }

  // --- Down the chain ---

  /** The member after this one says what it has. */
  #position({ at, copying }: Extract<ReplicaMessage, { type: "position" }>): void {
    if (copying && !this.synced) this.#held = 0;
    if (at.seq < this.#held) return; // a late one
    if (!this.#log.continues(at)) {
      const joins = this.#config!.joining === this.#downstream;
      if ((!joins || this.synced) && at.seq < this.#log.applied.seq) return; // a late one: what is committed, it has
      assert(
        joins && !this.synced,
        `${this.#downstream} has history up to ${at.seq} (epoch ${at.epoch}) that is not the beginning of what ` +
          `${this.#options.member} has, up to ${this.#log.last.seq}`,
      );
      this.#sent = undefined;
      if (this.#copy === undefined) this.#startCopy();
      this.#copy!.index = 0;
      return this.#sendChunk();
    }
    this.#copy = undefined;
    this.#held = at.seq;
    if (this.#faults.has("no-resend")) return;
    this.#sent = at.seq +
      (this.#faults.has("resend-from-wrong-number") && at.seq < this.#log.last.seq ? 1 : 0);
    this.#answerUp = true;
  }

  /** Sends down what was not sent. */
  #forward(): void {
    const to = this.#downstream;
    if (to === undefined || this.#sent === undefined) return;
    for (let more = this.#answerUp; more || this.#sent < this.#log.last.seq; more = false) {
      const entries = this.#log.after(this.#sent, FORWARD_ENTRIES_MAX);
      assert(
        more || entries.length > 0,
        `entries after ${this.#sent} are missing, up to ${this.#log.last.seq}`,
      );
      const committed = this.#log.applied.seq;
      this.#send(to, { type: "forward", epoch: this.epoch, after: this.#sent, committed, entries });
      this.#sent += entries.length;
    }
    this.#answerUp = false;
  }

  #ack(seq: number): void {
    this.#acked = Math.max(this.#acked, seq);
    if (this.#sent !== undefined) this.#held = Math.max(this.#held, seq);
    const { joining, epoch } = this.#config!;
    if (
      joining !== undefined && joining === this.#downstream && !this.synced &&
      this.#held === this.#log.last.seq
    ) {
      this.#syncedEpoch = epoch;
      this.#dirty = true;
    }
    this.#commit();
  }

  // --- Up the chain ---

  #sayPosition(): void {
    const { seq, epoch, hash } = this.#copying ? ORIGIN : this.#log.last;
    this.#send(this.#upstream!, {
      type: "position",
      epoch: this.epoch,
      at: { seq, epoch, hash },
      copying: this.#copying,
    });
    this.#ackedUp = NOTHING; // said again at the end of the transaction
  }

  #received({ after, committed, entries }: Extract<ReplicaMessage, { type: "forward" }>): void {
    if (this.#copying) {
      // The member before has all from the beginning on: no copy is needed after all.
      if (after !== 0) return;
      clearState(this.#storage);
      this.#copying = false;
      this.#receiving = undefined;
      this.#restart(ORIGIN);
    }
    const { last } = this.#log;
    if (after > last.seq && !this.#faults.has("take-gap")) return this.#sayPosition();
    for (const [i, entry] of entries.entries()) {
      if (after + 1 + i <= last.seq && !this.#faults.has("take-doubles")) continue;
      this.#take(entry);
    }
    if (this.#joins) this.#apply(committed);
    else this.#commit();
  }

  /** The tail acknowledges what it has, the others what those after them have. */
  #acknowledge(): void {
    if (this.#upstream === undefined || this.#copying) return;
    const early = this.#faults.has("ack-early");
    const seq = this.#joins || early ? this.#log.last.seq : this.#log.applied.seq;
    if (seq <= this.#ackedUp) return;
    this.#ackedUp = seq;
    const message: ReplicaMessage = { type: "ack", epoch: this.epoch, seq };
    this.#tell(seq, { type: "send", to: this.#upstream, message });
  }

  // --- Copies of the state ---

  #startCopy(): void {
    assert(this.#log.last.seq === this.#log.applied.seq, "a tail copies a state that it has not applied");
    // Of what this transaction has applied, the shard has put some off.
    if (!this.#faults.has("copy-unsettled")) this.#shard.settle();
    this.#copy = copyOf(this.#storage, this.#log.applied, this.#options.copyEntries);
  }

  #sendChunk(): void {
    const copy = this.#copy!;
    const { at, checksum, index, chunks } = copy;
    const { entries, meta } = this.#faults.has("copy-unheld")
      ? copyOf(this.#storage, at, this.#options.copyEntries).chunks[index] ?? chunks[index]!
      : chunks[index]!;
    const last = index === chunks.length - 1;
    this.#send(this.#downstream!, {
      type: "chunk",
      epoch: this.epoch,
      at,
      checksum,
      index,
      last,
      entries,
      meta,
    });
  }

  #taken({ at, index }: Extract<ReplicaMessage, { type: "taken" }>): void {
    const copy = this.#copy;
    if (copy === undefined || at.seq !== copy.at.seq || index !== copy.index) return;
    if (copy.index === copy.chunks.length - 1) return; // its position follows
    copy.index++;
    this.#sendChunk();
  }

  #chunk(message: Extract<ReplicaMessage, { type: "chunk" }>): void {
    if (!this.#joins) return;
    const { at, index, last, checksum } = message;
    const { seq, hash } = this.#log.last;
    const late = at.seq < seq || at.seq === seq && at.hash === hash;
    if (late && !this.#copying) return this.#sayPosition();
    if (index === 0 && at.seq > (this.#receiving?.at.seq ?? -1)) {
      this.#truncate();
      if (!this.#faults.has("keep-state-when-copying")) clearState(this.#storage);
      this.#receiving = { at, next: 0, checksum: 0 };
      this.#copying = true;
      this.#restart(ORIGIN);
    }
    const receiving = this.#receiving;
    if (receiving === undefined || at.seq > receiving.at.seq) return this.#sayPosition();
    if (at.seq < receiving.at.seq) return; // a late one
    if (index === receiving.next) {
      writeChunk(this.#storage, message);
      receiving.next++;
      receiving.checksum = checksumOf(receiving.checksum, message);
      if (last) {
        this.#receiving = undefined;
        if (receiving.checksum !== checksum && !this.#faults.has("copy-unheld")) return this.#sayPosition();
        this.#copying = false;
        this.#restart(at);
        return this.#sayPosition();
      }
    }
    if (index < receiving.next) {
      this.#send(this.#upstream!, { type: "taken", epoch: this.epoch, at, index });
    }
  }

  /** The state was replaced. */
  #restart(at: Position): void {
    this.#dirty = true;
    this.#shard = new Shard(this.#storage);
    this.#log = new ChainLog(this.#storage, at);
    this.#kept = 0;
  }

  // --- Time ---

  #tick(): void {
    if (this.#config === undefined) return;
    if (
      this.#upstream !== undefined && (!this.#confirmed || this.#copying && this.#receiving === undefined)
    ) {
      this.#sayPosition();
    }
    if (this.#downstream === undefined) return;
    const waits = this.#sent === undefined || this.#acked < this.#log.last.seq ||
      this.#config.joining === this.#downstream && !this.synced;
    const stuck = waits && this.#acked === this.#ackedAtTick;
    this.#ackedAtTick = this.#acked;
    if (!stuck || this.#faults.has("no-resend")) return;
    if (this.#copy !== undefined) this.#sendChunk();
    else this.#send(this.#downstream, { type: "probe", epoch: this.epoch });
  }

  #send(to: MemberId, message: ReplicaMessage): void {
    this.#effects.push({ type: "send", to, message });
  }
}

/** Before anything was acknowledged, be it an empty history. */
const NOTHING = -1;
