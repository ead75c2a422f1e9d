/**
 * What a node tells the control store of the programs that it serves, and of the code that is in use on it; and, on the
 * head, how code goes that nothing uses any more.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { ANY, type GcsClient } from "../gcs/client.ts";
import { CODES, type CodeStore, FUNCTIONS } from "./code.ts";
import { CodeCollector } from "./code_collector.ts";
import { EVENTS, EVENTS_KEPT_MS, readEvents } from "./events.ts";
import { LINEAGE, lineageOf, NODES } from "./registration.ts";

/** The prefix of running programs in the control store; the job's id follows. */
export const JOBS = "job/";

/** The prefix of lists of code in use beyond the program that published it; the node's id follows. */
const USES = "uses/";

/** How often the code in use is told, and how often it is looked for what may go. */
const USES_MS = 5_000, COLLECT_MS = 60_000;

/** How often it is looked for lineage that nobody needs. */
const LINEAGE_MS = 10 * 60_000;

/** How often files of code in use are kept from being taken for old. */
const TOUCH_MS = 3_600_000;

/** A running program. */
export interface JobRecord {
  /** The node that it is connected to: 32 hexadecimal digits. */
  readonly node: string;
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** Hashes of what it has published. */
  readonly code: readonly string[];
}

/** A program's entry, from bytes. */
export function readJob(bytes: Uint8Array): JobRecord {
  return JSON.parse(new TextDecoder().decode(bytes)) as JobRecord;
}

/** The programs of one node. */
export class Jobs {
  readonly #gcs: GcsClient;
  readonly #node: string;
  readonly #jobs = new Map<string, JobRecord>();
  #uses = "[]";
  readonly #cancel = new Set<() => void>();

  /**
   * @param gcs The control store. @param node The node's id. @param clock For what is done again and again.
   * @param code The code of this node. @param inUse Hashes of that of its actors.
   * @param collects Whether this node sees to what may go. @param wall The time, in milliseconds since 1970.
   */
  constructor(
    gcs: GcsClient,
    node: string,
    clock: Clock,
    code: CodeStore,
    inUse: () => Iterable<string>,
    collects: () => boolean,
    wall: () => number,
  ) {
    this.#gcs = gcs;
    this.#node = node;
    const every = (ms: number, work: () => void) => {
      let cancel: () => void;
      const again = () =>
        cancel = clock.after(ms, () => {
          work();
          again();
        });
      again();
      this.#cancel.add(() => cancel());
    };
    every(USES_MS, () => this.#tellUses([...new Set(inUse())].sort()));
    every(TOUCH_MS, () => {
      for (const hash of [...inUse(), ...[...this.#jobs.values()].flatMap((job) => job.code)]) {
        code.touch(hash);
      }
    });
    const collector = new CodeCollector();
    every(LINEAGE_MS, () => {
      if (!collects()) return;
      Promise.all([this.#collectLineage(), this.#collectEvents(wall())]).catch(() => {
        // The control store is away: next time.
      });
    });
    every(COLLECT_MS, () => {
      if (!collects()) return;
      this.#collect(collector, clock.now()).catch(() => {
        // The control store is away: next time.
      });
    });
  }

  /** A program has connected. */
  started(id: string, pid: number, startedAt: number): void {
    this.#put(id, { node: this.#node, pid, startedAt, code: [] });
  }

  /** A program has published code. */
  published(id: string, hash: string): void {
    const job = this.#jobs.get(id);
    if (job !== undefined && !job.code.includes(hash)) this.#put(id, { ...job, code: [...job.code, hash] });
  }

  /** A program is gone. */
  ended(id: string): void {
    this.#jobs.delete(id);
    this.#gcs.delete(JOBS + id).catch(() => {});
  }

  /** The connection to the control store is back, and it had given this node up: it is told everything again. */
  tellAgain(): void {
    for (const [id, job] of this.#jobs) this.#put(id, job);
    this.#uses = "[]";
  }

  /** Ends all that is done again and again. */
  close(): void {
    for (const cancel of this.#cancel) cancel();
  }

  #put(id: string, job: JobRecord): void {
    this.#jobs.set(id, job);
    this.#gcs.put(JOBS + id, json(job), ANY, true).catch(() => {
      // The connection was closed for good: the node is ending.
    });
  }

  #tellUses(hashes: readonly string[]): void {
    const text = JSON.stringify(hashes);
    if (text === this.#uses) return;
    this.#uses = text;
    this.#gcs.put(USES + this.#node, json(hashes), ANY, true).catch(() => {});
  }

  /** Events of nodes that are gone are kept for a while. */
  async #collectEvents(now: number): Promise<void> {
    for (const { key, value, revision } of await this.#gcs.list(EVENTS)) {
      const newest = readEvents(value).at(-1)?.at ?? 0;
      if (now - newest > EVENTS_KEPT_MS) await this.#gcs.delete(key, revision);
    }
  }

  /** Lineage that a node has left goes with the program whose tasks it is of. */
  async #collectLineage(): Promise<void> {
    // In this order: a program's lineage comes after its record.
    const left = await this.#gcs.list(LINEAGE);
    const [jobs, nodes] = await Promise.all([JOBS, NODES].map((prefix) => this.#gcs.list(prefix)));
    const there = new Set([...jobs!, ...nodes!].map(({ key }) => key));
    for (const { key } of left) {
      const { node, job } = lineageOf(key);
      if (!there.has(JOBS + job) && !there.has(NODES + node)) await this.#gcs.delete(key);
    }
  }

  async #collect(collector: CodeCollector, now: number): Promise<void> {
    const [codes, jobs, uses] = await Promise.all(
      [CODES, JOBS, USES].map((prefix) => this.#gcs.list(prefix)),
    );
    const used = new Set([
      ...jobs!.flatMap(({ value }) => readJob(value).code),
      ...uses!.flatMap(({ value }) => JSON.parse(new TextDecoder().decode(value)) as string[]),
    ]);
    const revisions = new Map(codes!.map(({ key, revision }) => [key.slice(CODES.length), revision]));
    for (const hash of collector.look(revisions.keys(), used, now)) {
      // Published again meanwhile, it has other revisions, and stays.
      const code = await this.#gcs.get(FUNCTIONS + hash);
      if (!await this.#gcs.delete(CODES + hash, revisions.get(hash))) continue;
      if (code !== undefined) await this.#gcs.delete(FUNCTIONS + hash, code.revision);
    }
  }
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
