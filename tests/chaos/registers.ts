/**
 * Clients of a control store that read, write and swap a few keys, and write down what they saw, so that a checker can say
 * whether it could have come about: that nothing acknowledged was lost, and nothing read too late.
 *
 * Beside that each client numbers some of its steps by a key of its own, one after the other, and another client watches
 * these: it must be told of each number, in order.
 *
 * An operation whose outcome nobody knows may have taken effect at any time since, or never. So a checker's work grows
 * with the operations that overlap, and each key is left after a while: its history stays short enough to be checked.
 *
 * @module
 */

import type { Clock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { ABSENT, GcsClient } from "../../gcs/client.ts";
import { linearizable, type Operation } from "../linearizable.ts";

/** What the clients are given. */
export interface RegistersOptions {
  readonly token: string;
  /** Opens a connection: to a member of the store, or to any that can be reached. */
  readonly connect: (address: string | undefined) => Promise<Deno.Conn>;
  /** Gives numbers from 0 to 1. */
  readonly random: () => number;
  /** How long a client rests after each operation; 0 unless given. */
  readonly restMs?: number;
  /** The share of steps that only read; 0.4 unless given. Of the others, half write, and half read and swap. */
  readonly reads?: number;
}

/** What they have seen. */
export interface RegistersReport {
  readonly operations: number;
  /** Those that were acknowledged and had changed a key. */
  readonly written: number;
  /** Numbers, each under a key of its own, that were acknowledged, and all watched. */
  readonly numbered: number;
  /** Operations whose outcome nobody knows. */
  readonly unknown: number;
  /** The keys whose history could not have come about, and what was wrong with what was watched. */
  readonly wrong: readonly string[];
}

/** The share of steps that are numbered for whoever watches; under which prefix. */
const NUMBERED = 0.15, NUMBERS = "number/";
/** How long the last numbers may take to be told of. */
const TOLD_MS_MAX = 30_000;

/** Keys that are used at once, and operations on one before another takes its place. */
const KEYS = 8, OPERATIONS_A_KEY = 120;

/** Says which histories are linearizable. */
export type Judge = (histories: readonly Operation[][]) => Promise<boolean[]>;

/** The clients. */
export class Registers {
  readonly #options: RegistersOptions;
  readonly #histories = new Map<string, Operation[]>();
  readonly #counts = new Map<number, number>();
  readonly #working: Promise<void>[];
  /** Resolves when all clients are connected: one that never was does not try again. */
  readonly started: Promise<void>;
  #over = false;
  #unknown = 0;
  #values = 0;
  /** When each operation that is under way was asked for. */
  readonly #underWay = new Set<{ readonly since: number }>();
  #longestMs = 0;
  readonly #watcher: GcsClient;
  /** By client: the last number of which it was told that it is written, the last that was watched, and those that may be not. */
  readonly #numbers: { next: number; written: number; seen: number; readonly unknown: Set<number> }[];
  readonly #missed: string[] = [];

  /** @param clients How many work at once. */
  constructor(clients: number, options: RegistersOptions) {
    this.#options = options;
    const starting = Array.from({ length: clients }, async () => {
      const client = this.#open();
      await client.start();
      return client;
    });
    this.#numbers = starting.map(() => ({ next: 1, written: 0, seen: 0, unknown: new Set<number>() }));
    this.#watcher = this.#open();
    const watching = this.#watcher.start().then(() =>
      this.#watcher.watch(NUMBERS, (key, value) => this.#watched(key, value))
    );
    this.started = Promise.all([...starting, watching]).then(() => {});
    this.started.catch(() => {});
    this.#working = starting.map((client, n) => client.then((client) => this.#work(client, n)));
    for (const working of this.#working) working.catch(() => {});
  }

  /** The longest that an operation took, or is taking, since this was last asked. */
  takeLongestMs(): number {
    const now = performance.now();
    const waiting = [...this.#underWay].map(({ since }) => now - since);
    const longest = Math.max(this.#longestMs, ...waiting);
    this.#longestMs = 0;
    return longest;
  }

  /** Ends the work, reads each key once more, and has the histories judged. */
  async finish(judge: Judge = judgeHere): Promise<RegistersReport> {
    this.#over = true;
    await Promise.all(this.#working);
    const end = performance.now() + TOLD_MS_MAX;
    const late = () => this.#numbers.flatMap(({ seen, written }, n) => seen < written ? [n] : []);
    while (late().length > 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (const n of late()) {
      const { seen, written } = this.#numbers[n]!;
      this.#missed.push(`a watch was told of ${seen} of the ${written} numbers of client ${n}`);
    }
    this.#watcher.close();
    const reader = this.#open();
    await reader.start();
    for (const [key, history] of this.#histories) {
      const called = performance.now();
      const value = text((await reader.get(key))?.value);
      history.push({ called, returned: performance.now(), action: { kind: "read", value } });
    }
    reader.close();
    const verdicts = await judge([...this.#histories.values()]);
    const wrong = [...this.#histories.keys()].filter((_, i) => !verdicts[i]).concat(this.#missed);
    const all = [...this.#histories.values()].flat();
    const written =
      all.filter(({ action, returned }) =>
        returned < Infinity && (action.kind === "write" || action.kind === "swap" && action.done === true)
      ).length;
    const numbered = this.#numbers.reduce((sum, { next, unknown }) => sum + next - 1 - unknown.size, 0);
    return { operations: all.length, written, numbered, unknown: this.#unknown, wrong };
  }

  #open(): GcsClient {
    const { token, connect, random } = this.#options;
    const id = taskIdFromBytes(Uint8Array.from({ length: 16 }, () => random() * 256));
    return new GcsClient({ id, token, clock, connect });
  }

  async #work(client: GcsClient, n: number): Promise<void> {
    const { random, restMs = 0, reads = 0.4 } = this.#options;
    while (!this.#over) {
      if (random() < NUMBERED) await this.#number(client, n);
      const { key, history } = this.#next();
      const kind = random(), next = `${n}.${++this.#values}`;
      try {
        if (kind < reads) await this.#read(client, key, history);
        else if (kind < (1 + reads) / 2) {
          const write = { kind: "write", value: next } as const;
          await this.#timed(history, () => client.put(key, bytes(next)), () => write, write);
        } else {
          const entry = await this.#read(client, key, history);
          const swap = { kind: "swap", expected: text(entry?.value), value: next } as const;
          await this.#timed(
            history,
            () => client.put(key, bytes(next), entry?.revision ?? ABSENT),
            (revision) => ({ ...swap, done: revision !== undefined }),
            { ...swap, done: undefined },
          );
        }
      } catch {
        this.#unknown++;
      }
      if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
    }
    client.close();
  }

  /** Writes the next number of a client, and takes away the one before. */
  async #number(client: GcsClient, n: number): Promise<void> {
    const numbers = this.#numbers[n]!;
    const number = numbers.next++;
    try {
      await this.#clocked(() => client.put(numberKey(n, number), bytes(`${number}`)));
      numbers.written = number;
      await this.#clocked(() => client.delete(numberKey(n, number - 1)));
    } catch {
      numbers.unknown.add(number);
    }
  }

  #watched(key: string, value: Uint8Array | undefined): void {
    if (value === undefined) return;
    const [n, number] = key.match(/\d+/g)!.map(Number) as [number, number];
    const numbers = this.#numbers[n]!;
    for (let missed = numbers.seen + 1; missed < number; missed++) {
      if (!numbers.unknown.has(missed)) {
        this.#missed.push(`a watch was not told of number ${missed} of client ${n}`);
      }
    }
    if (number <= numbers.seen) {
      this.#missed.push(`a watch was told twice of number ${number} of client ${n}`);
    }
    numbers.seen = number;
  }

  /** A key to work on. */
  #next(): { readonly key: string; readonly history: Operation[] } {
    const slot = Math.floor(this.#options.random() * KEYS);
    const count = this.#counts.get(slot) ?? 0;
    this.#counts.set(slot, count + 1);
    const key = `${slot}/${Math.floor(count / OPERATIONS_A_KEY)}`;
    let history = this.#histories.get(key);
    if (history === undefined) this.#histories.set(key, history = []);
    return { key, history };
  }

  #read(client: GcsClient, key: string, history: Operation[]) {
    return this.#timed(
      history,
      () => client.get(key),
      (entry) => ({ kind: "read", value: text(entry?.value) }),
    );
  }

  /** Does an operation and writes it down. @param lost What it may have done if its outcome is not known. */
  async #timed<T>(
    history: Operation[],
    ask: () => Promise<T>,
    action: (result: T) => Operation["action"],
    lost?: Operation["action"],
  ): Promise<T> {
    const called = performance.now();
    try {
      const result = await this.#clocked(ask);
      history.push({ called, returned: performance.now(), action: action(result) });
      return result;
    } catch (error) {
      if (lost !== undefined) history.push({ called, returned: Infinity, action: lost });
      throw error;
    }
  }

  /** Does an operation, and sees how long it takes. */
  async #clocked<T>(ask: () => Promise<T>): Promise<T> {
    const underWay = { since: performance.now() };
    this.#underWay.add(underWay);
    try {
      return await ask();
    } finally {
      this.#underWay.delete(underWay);
      this.#longestMs = Math.max(this.#longestMs, performance.now() - underWay.since);
    }
  }
}

const judgeHere: Judge = (histories) => Promise.resolve(histories.map((history) => linearizable(history)));

/** A clock that keeps the process alive while a client waits. */
export const clock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  turn: () => new Promise((resolve) => setTimeout(resolve, 0)),
};

/** A client's numbers are in one shard: what is told of several is in no order. */
function numberKey(client: number, number: number): string {
  return `${NUMBERS}{${client}}/${number}`;
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}
