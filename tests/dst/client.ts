/**
 * A simulated client: some operations at once on a few keys, each sent again until it is answered.
 *
 * @module
 */

import type { TaskId } from "../../core/ids.ts";
import type { ChainConfig, MemberId } from "../../gcs/chain_config.ts";
import { ABSENT, ANY, type GcsOp, type GcsResult } from "../../gcs/shard.ts";
import type { Action } from "../linearizable.ts";
import type { ToStore } from "./member.ts";
import type { FromStore, World } from "./world.ts";

const OUTSTANDING_MAX = 3;

interface Pending {
  readonly key: string;
  readonly operation: GcsOp;
  readonly called: number;
  /** What it is if this is its result, or nobody knows it. */
  readonly action: (result: GcsResult | undefined) => Action;
  readonly sequence: number;
  sentAt: number;
}

/** One client. */
export class SimClient {
  readonly id: TaskId;
  readonly #world: World;
  readonly #writes = new Map<number, Pending>();
  readonly #reads = new Map<number, Pending>();
  /** What was seen of each key last. */
  readonly #seen = new Map<string, { readonly revision: number; readonly value: string | undefined }>();
  #sequence = 0;
  #request = 0;
  #acknowledged = 0;
  #left: number;
  #gone = false;
  #head: MemberId;
  #tail: MemberId;
  #epoch = 0;

  /** @param operations How many operations it does. */
  constructor(id: TaskId, world: World, operations: number) {
    this.id = id;
    this.#world = world;
    this.#left = operations;
    this.#head = this.#tail = world.someMember();
    this.#next();
    this.#retry();
  }

  /** Whether it has ended. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Whether it is done with all. */
  get done(): boolean {
    return this.#left === 0 && this.#writes.size === 0 && this.#reads.size === 0;
  }

  /** It does nothing more; what became of what it asked for, it does not hear. */
  leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#left = 0;
    for (const pending of this.#writes.values()) {
      this.#world.checks.note(pending.key, {
        called: pending.called,
        returned: Infinity,
        action: pending.action(undefined),
      });
    }
    this.#writes.clear();
    this.#reads.clear();
  }

  /** The chain says something. */
  receive(from: MemberId, message: FromStore): void {
    if (this.#gone) return;
    switch (message.type) {
      case "config":
        return this.#learn(message.config);
      case "refused":
        this.#learn(message.config);
        return;
      case "answer":
        return this.#answered(from, message);
    }
  }

  /** Reads every key once more, in the end. */
  readAll(): void {
    if (this.#gone) return;
    for (const key of this.#world.keys) this.#read(key);
  }

  #learn(config: ChainConfig | undefined): void {
    if (config === undefined || config.epoch <= this.#epoch) return;
    this.#epoch = config.epoch;
    this.#head = config.chain[0]!;
    this.#tail = config.chain.at(-1)!;
    for (const pending of this.#writes.values()) this.#sendWrite(pending);
    for (const pending of this.#reads.values()) this.#sendRead(pending);
  }

  #answered(_from: MemberId, { sequence, results }: Extract<FromStore, { type: "answer" }>): void {
    const result = results[0]!;
    const reads = result.kind === "entry" || result.kind === "absent";
    const from = reads ? this.#reads : this.#writes;
    const pending = from.get(sequence);
    if (pending === undefined) return;
    from.delete(sequence);
    const { now } = this.#world.time;
    this.#world.checks.note(pending.key, {
      called: pending.called,
      returned: now,
      action: pending.action(result),
    });
    this.#world.longestMs = Math.max(this.#world.longestMs, now - pending.called);
    if (!reads) {
      this.#world.checks.acknowledged(this.id, sequence, results);
      this.#acknowledged = (this.#writes.keys().next().value ?? this.#sequence + 1) - 1;
    }
    if (result.kind === "entry") {
      const value = new TextDecoder().decode(result.value);
      this.#seen.set(pending.key, { revision: result.revision, value });
    } else if (result.kind === "absent") this.#seen.set(pending.key, { revision: ABSENT, value: undefined });
    this.#world.time.after(this.#world.below(this.#world.plan.thinkMs), () => this.#next());
  }

  #next(): void {
    if (this.#gone) return;
    const { chance } = this.#world;
    while (this.#left > 0 && this.#writes.size + this.#reads.size < OUTSTANDING_MAX) {
      this.#left--;
      const key = this.#world.keys[this.#world.below(this.#world.keys.length)]!;
      const kind = chance();
      if (kind < 0.45) this.#read(key);
      else if (kind < 0.65) this.#write(key, ANY, undefined);
      else if (kind < 0.75) this.#delete(key);
      else {
        const seen = this.#seen.get(key);
        if (seen === undefined) this.#read(key);
        else this.#write(key, seen.revision, seen.value);
      }
      if (chance() < 0.4) break;
    }
  }

  #read(key: string): void {
    const pending: Pending = {
      key,
      operation: { kind: "get", key },
      called: this.#world.time.now,
      sequence: ++this.#request,
      sentAt: 0,
      action: (result) => ({
        kind: "read",
        value: result?.kind === "entry" ? new TextDecoder().decode(result.value) : undefined,
      }),
    };
    this.#reads.set(pending.sequence, pending);
    this.#sendRead(pending);
  }

  #write(key: string, expect: number, expected: string | undefined): void {
    const value = `${this.id.trim()}-${this.#sequence + 1}`;
    const operation: GcsOp = {
      kind: "put",
      key,
      value: new TextEncoder().encode(value),
      expect,
      lease: false,
    };
    this.#change(key, operation, (result) =>
      expect === ANY ? { kind: "write", value } : {
        kind: "swap",
        expected,
        value,
        done: result === undefined ? undefined : result.kind === "done",
      });
  }

  #delete(key: string): void {
    this.#change(key, { kind: "delete", key, expect: ANY }, () => ({ kind: "write", value: undefined }));
  }

  #change(key: string, operation: GcsOp, action: Pending["action"]): void {
    const sequence = ++this.#sequence;
    const pending: Pending = { key, operation, action, called: this.#world.time.now, sequence, sentAt: 0 };
    this.#writes.set(sequence, pending);
    this.#sendWrite(pending);
  }

  #sendWrite(pending: Pending): void {
    pending.sentAt = this.#world.time.now;
    const { sequence, operation } = pending;
    const acknowledged = this.#acknowledged;
    this.#send(this.#head, {
      type: "write",
      command: { client: this.id, sequence, acknowledged, operations: [operation] },
    });
  }

  #sendRead(pending: Pending): void {
    pending.sentAt = this.#world.time.now;
    // Now and then it asks whoever: a replica that is no tail must know that it is none.
    const to = this.#world.chance() < this.#world.plan.astray ? this.#world.someMember() : this.#tail;
    this.#send(to, {
      type: "read",
      client: this.id,
      request: pending.sequence,
      operations: [pending.operation],
    });
  }

  #send(to: MemberId, message: ToStore): void {
    this.#world.ask(this, to, message);
  }

  /** What was not answered is asked again, and somebody is asked who is who. */
  #retry(): void {
    if (this.#gone) return;
    const { now } = this.#world.time;
    const { retryMs } = this.#world.plan;
    const late = ({ sentAt }: Pending) => now - sentAt > retryMs;
    let any = false;
    for (const pending of this.#writes.values()) {
      if (!late(pending)) continue;
      any = true;
      this.#sendWrite(pending);
    }
    for (const pending of this.#reads.values()) {
      if (!late(pending)) continue;
      any = true;
      this.#sendRead(pending);
    }
    if (any) this.#send(this.#world.someMember(), { type: "where" });
    this.#world.time.after(retryMs / 2, () => this.#retry());
  }
}
