/**
 * A simulated cluster: nodes, control store, programs, and what befalls them, all from one seed.
 *
 * The nodes are the real ones (`node/daemon.ts` and all that it is made of), and so are the control store's server, the
 * clients and the executors of tasks. Time, network, disks and processes are simulated. Everything runs in one thread, one
 * event after the other; after each, all that it sets off runs to its end before the next.
 *
 * @module
 */

import "./finalizers.ts";
import { setImmediate } from "node:timers";
import type { ObjectStore } from "../../../store/object_store.ts";
import { raystoreLibrary } from "../../../store/library.ts";
import { random } from "../../../bench/simulate/random.ts";
import { NO_FAULTS, type NodeFault } from "../../../node/faults.ts";
import { Timeline } from "../timeline.ts";
import { SimNode, STORE_PORT, TOKEN } from "./machine.ts";
import { Book } from "./book.ts";
import { Fate, type FatePlan } from "./fate.ts";
import { Network, type NetworkPlan } from "./network.ts";
import { LINEAGE } from "../../../node/registration.ts";
import { ask, lists } from "./observer.ts";
import { Program, type Script } from "./program.ts";
import { SCRIPTS, settleLedgers } from "./scripts.ts";
import { Watcher } from "./watcher.ts";
import { SimStore, type StoreMember } from "./store.ts";

/** What a run came to. */
export interface ClusterOutcome {
  readonly seed: number;
  /** The same for the same seed. */
  readonly hash: string;
  readonly virtualMs: number;
  readonly events: number;
  /** Programs that came to their end, and calls of shared ledgers that were answered. */
  readonly programs: number;
  readonly calls: number;
  /** How often what befell it. */
  readonly fate: Readonly<Record<string, number>>;
}

/** What a run is told beside its seed. */
export interface ClusterOptions {
  /** It tells what nodes say, and what befalls them. */
  readonly verbose?: boolean;
  /** How long there is trouble. */
  readonly troubleMs?: number;
  /** What is planted in all nodes. */
  readonly faults?: ReadonlySet<NodeFault>;
  /** What programs do, if not everything there is. */
  readonly scripts?: readonly Script[];
}

interface Plan extends FatePlan {
  readonly network: NetworkPlan;
  readonly workers: number;
  readonly programs: number;
  /** Of the control store. */
  readonly members: number;
}

/** How long everything may take once all has healed, in milliseconds. */
const HEALED_MS_MAX = 120_000;

/** How long it may take until nothing is left of programs that have ended. */
const SETTLED_MS_MAX = 150_000;

/** How long a watch may lack what has changed. */
const WATCHED_MS_MAX = 5_000;

/** Of so many runs one goes on until nothing is left. */
const SETTLED_SEEDS = 3;

/** So much is told of a run that does not come to its end. */
const WHERE_LINES = 60;

/** What is there of a cluster on which nothing runs. */
const LASTING_KEYS = /^(?:node|event|probe)\//;

/** One run. */
export class Cluster {
  readonly token = TOKEN;
  readonly time = new Timeline();
  readonly chance: () => number;
  readonly plan: Plan;
  readonly #scripts: readonly Script[];
  readonly faults: ReadonlySet<NodeFault>;
  readonly network: Network;
  readonly nodes: SimNode[] = [];
  readonly programs: Program[] = [];
  /** What is known of ledgers that several programs use. */
  readonly books = new Map<string, Book>();
  readonly store: SimStore;
  readonly library = raystoreLibrary();
  readonly directory = Deno.makeTempDirSync({ prefix: "rayd-dst-" });
  readonly #seed: number;
  readonly #verbose: boolean;
  readonly #kept: ObjectStore[] = [];
  #watcher: Watcher | undefined;
  #thrown: Error | undefined;

  /** @param seed Decides everything. */
  constructor(seed: number, options: ClusterOptions = {}) {
    this.#seed = seed;
    this.faults = options.faults ?? NO_FAULTS;
    this.#verbose = options.verbose ?? false;
    this.#scripts = options.scripts ?? SCRIPTS;
    this.chance = random(seed * 7919 + 17);
    this.plan = this.#draw(options.troubleMs);
    this.network = new Network(this.time, this.chance, this.plan.network);
    this.store = new SimStore(this, this.plan.members);
  }

  /** A whole number below `n`. */
  readonly below = (n: number): number => Math.floor(this.chance() * n);

  storeAddresses(): { readonly hostname: string; readonly port: number }[] {
    return this.store.members.map(({ host }) => ({ hostname: host, port: STORE_PORT }));
  }

  /** A store is closed when the run is over: what a dead process has left behind may still look at it. */
  keep(store: ObjectStore): ObjectStore {
    this.#kept.push(store);
    return store;
  }

  log(who: SimNode | StoreMember | undefined, level: string, message: string): void {
    if (this.#verbose) console.log(`${this.time.now.toFixed(3)} ${who?.host ?? "-"} ${level}: ${message}`);
  }

  /** What is known of a shared ledger. */
  book(name: string): Book {
    let book = this.books.get(name);
    if (book === undefined) this.books.set(name, book = new Book(name));
    return book;
  }

  /** Whether a program is connected to a node. */
  isHome(node: SimNode): boolean {
    return this.programs.some((program) => program.node === node && !program.ended);
  }

  /** Whether a program ended with its node. */
  get lostPrograms(): boolean {
    return this.programs.some(({ process, finished }) => !process.alive && !finished);
  }

  addNode(role: "head" | "worker", cpus = 1 + this.below(3)): SimNode {
    const id = Array.from({ length: 16 }, () => this.below(256).toString(16).padStart(2, "0")).join("");
    this.log(undefined, "join", `host${this.nodes.length} is node ${id}`);
    const node = new SimNode(this, id, `host${this.nodes.length}`, role, cpus);
    this.nodes.push(node);
    return node;
  }

  addProgram(name: string, node: SimNode, script: Script): Program {
    this.log(node, "program", `${name} (${script.name}) begins`);
    const program = new Program(this, name, node, script);
    this.programs.push(program);
    return program;
  }

  /** Lets things happen until something holds. @throws {Error} If it does not come about. */
  async until(what: string, holds: () => boolean, withinMs: number): Promise<void> {
    const end = this.time.now + withinMs;
    while (!holds()) {
      if (this.time.now > end) throw new Error(`not within ${withinMs} ms: ${what}${await this.#where()}`);
      await this.#step();
    }
  }

  async #step(): Promise<void> {
    if (!this.time.step()) throw new Error("nothing is going to happen any more");
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#thrown !== undefined) throw this.#thrown;
    for (const { failure } of this.#failed) throw failure;
    if (this.#watcher?.failure !== undefined) throw this.#watcher.failure;
  }

  /** Runs it, from the beginning to the end. @throws {Error} If something that must hold does not. */
  async run(): Promise<ClusterOutcome> {
    const thrown = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      this.#thrown ??= event.reason as Error;
    };
    globalThis.addEventListener("unhandledrejection", thrown);
    try {
      return await this.#run();
    } finally {
      for (const { process } of this.nodes) process.kill();
      for (const { process } of this.store.members) process.kill();
      await new Promise<void>((resolve) => setImmediate(resolve));
      globalThis.removeEventListener("unhandledrejection", thrown);
      for (const store of this.#kept) store.close();
      Deno.removeSync(this.directory, { recursive: true });
    }
  }

  async #run(): Promise<ClusterOutcome> {
    this.addNode("head");
    for (let i = 0; i < this.plan.workers; i++) this.addNode("worker");
    await this.until("all nodes are up", () => this.nodes.every(isUp), 10_000);
    const fate = new Fate(this, this.plan);
    this.#watcher = new Watcher(this, () => fate.over);
    this.#startPrograms(fate);
    await this.until("the trouble is over", () => fate.over, this.plan.troubleMs + 1);
    const alive = () => this.nodes.filter(({ process }) => process.alive);
    const joined = () => alive().length > 0 && alive().every((node) => isUp(node) && !node.leaving);
    await this.until("all nodes are up", joined, HEALED_MS_MAX);
    await this.until(
      "all programs come to their end",
      () => this.programs.length === this.plan.programs && this.programs.every(({ ended }) => ended),
      HEALED_MS_MAX,
    );
    const last = this.addProgram("last", alive()[0]!, settleLedgers);
    await this.until("ledgers have what they must", () => last.ended, HEALED_MS_MAX);
    // That nobody needs what a node held takes a while to be certain, in which nothing else happens.
    if (this.#seed % SETTLED_SEEDS === 0) await this.#nothingLeft();
    const watched = () => this.#watcher!.differences().length === 0;
    await this.until("a watch has what the store has", watched, WATCHED_MS_MAX).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.#watcher!.differences().slice(0, 5).join("\n")}`);
    });
    return {
      seed: this.#seed,
      hash: this.time.hash,
      virtualMs: this.time.now,
      events: this.time.events,
      programs: this.programs.filter(({ finished }) => finished).length,
      calls: [...this.books.values()].reduce((sum, { size }) => sum + size, 0),
      fate: fate.counts,
    };
  }

  /** Programs begin at some time, on some node that is up then. */
  #startPrograms(fate: Fate): void {
    for (let i = 0; i < this.plan.programs; i++) {
      const script = this.#scripts[this.below(this.#scripts.length)]!;
      const start = () => {
        const up = this.nodes.filter((node) => isUp(node) && node.process.running && !node.leaving);
        const node = up[this.below(up.length)];
        if (node === undefined) this.time.after(100, start);
        else this.addProgram(`program${i}`, node, script);
      };
      this.time.after(this.below(fate.over ? 1 : this.plan.troubleMs * 0.8), start);
    }
  }

  /** Of programs that have ended nothing is left, on no node and in no table. */
  async #nothingLeft(): Promise<void> {
    const end = this.time.now + SETTLED_MS_MAX;
    for (;;) {
      const left = await this.#left();
      if (left.length === 0) return;
      if (this.time.now > end) {
        throw new Error(
          `${left.length} things are left when all programs have ended: ${left.slice(0, 12).join("; ")}`,
        );
      }
      const next = this.time.now + 1_000;
      await this.until("a second goes by", () => this.time.now >= next, 2_000);
    }
  }

  async #left(): Promise<string[]> {
    const nodes = this.nodes.filter(isUp);
    // What nodes have left that are gone is seen to every ten minutes.
    const isOfGone = (key: string) =>
      key.startsWith(LINEAGE) && !nodes.some(({ id }) => key.startsWith(`${LINEAGE}${id}/`));
    const keys = this.store.keys().filter((key) => !LASTING_KEYS.test(key) && !isOfGone(key));
    const rows: string[] = [];
    let asked = 0;
    for (const node of nodes) {
      lists(node, ["tasks", "actors", "objects", "jobs", "groups", "unmet"]).then((found) => {
        asked++;
        // Actors that are dead are remembered for who asks for them.
        for (const row of found) if (row.state !== "dead") rows.push(`${node.host} ${JSON.stringify(row)}`);
      });
    }
    await this.until("nodes have told what they have", () => asked === nodes.length, 10_000);
    return [...keys, ...rows];
  }

  /** What there is, for whoever looks for the reason. */
  async #where(): Promise<string> {
    for (const node of this.nodes.filter(isUp)) {
      ask(node, ["nodes"]).then((answers) => this.log(node, "sees", JSON.stringify(answers?.[0])));
    }
    let told: string[] | undefined;
    this.#left().then((left) => told = left, () => told = []);
    for (let i = 0; i < 10_000 && told === undefined; i++) await this.#step().catch(() => {});
    const programs = this.programs.filter(({ ended }) => !ended)
      .map(({ name, node, script }) => `${name} (${script.name}) on ${node.host} goes on`);
    // Of journals it is enough that they are there.
    const others = (told ?? []).filter((what) => !/^journal\/.*\/(?:call|state|answer)\//.test(what));
    return [", but:", ...programs, ...others].slice(0, WHERE_LINES).join("\n  ");
  }

  get #failed(): Program[] {
    return this.programs.filter(({ failure }) => failure !== undefined);
  }

  #draw(troubleMs: number | undefined): Plan {
    const { chance, below } = this;
    return {
      members: chance() < 0.6 ? 1 : 3,
      workers: 1 + below(3),
      programs: 3 + below(5),
      troubleMs: troubleMs ?? 1_500 + below(4_500),
      everyMs: 150 + below(900),
      strikes: chance() < 0.5 ? 0 : 0.0005,
      sparesHomes: chance() < 0.7,
      network: {
        delayMs: 0.2 + chance() * 3,
        late: chance() < 0.5 ? 0.01 : 0.1,
        lateMs: chance() < 0.5 ? 40 : 400,
        pieces: chance() < 0.5 ? 0 : 0.1,
      },
    };
  }
}

function isUp({ process, daemon }: SimNode): boolean {
  return process.alive && daemon !== undefined;
}
