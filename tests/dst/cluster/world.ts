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
import { Timeline } from "../timeline.ts";
import { SimNode, STORE_PORT, TOKEN } from "./machine.ts";
import { Network } from "./network.ts";
import { Program, type Script } from "./program.ts";
import { SimStore } from "./store.ts";

/** What a run came to. */
export interface ClusterOutcome {
  readonly seed: number;
  /** The same for the same seed. */
  readonly hash: string;
  readonly virtualMs: number;
  readonly events: number;
}

/** One run. */
export class Cluster {
  readonly token = TOKEN;
  readonly time = new Timeline();
  readonly chance: () => number;
  readonly network: Network;
  readonly nodes: SimNode[] = [];
  readonly programs: Program[] = [];
  readonly store: SimStore;
  readonly library = raystoreLibrary();
  readonly directory = Deno.makeTempDirSync({ prefix: "rayd-dst-" });
  /** What nodes say, if it is wanted. */
  verbose = false;
  readonly #seed: number;
  readonly #kept: ObjectStore[] = [];
  #thrown: Error | undefined;

  constructor(seed: number) {
    this.#seed = seed;
    this.chance = random(seed * 7919 + 17);
    this.network = new Network(this.time, this.chance, { delayMs: 1, late: 0.02, lateMs: 50, pieces: 0.05 });
    this.store = new SimStore(this);
  }

  /** A whole number below `n`. */
  below(n: number): number {
    return Math.floor(this.chance() * n);
  }

  storeAddresses(): { readonly hostname: string; readonly port: number }[] {
    return [{ hostname: "store", port: STORE_PORT }];
  }

  /** A store is closed when the run is over: what a dead process has left behind may still look at it. */
  keep(store: ObjectStore): ObjectStore {
    this.#kept.push(store);
    return store;
  }

  log(who: SimNode | SimStore, level: string, message: string): void {
    if (this.verbose) console.log(`${this.time.now.toFixed(3)} ${who.host} ${level}: ${message}`);
  }

  addNode(role: "head" | "worker", cpus: number): SimNode {
    const id = Array.from({ length: 16 }, () => this.below(256).toString(16).padStart(2, "0")).join("");
    const node = new SimNode(this, id, `host${this.nodes.length}`, role, cpus);
    this.nodes.push(node);
    return node;
  }

  addProgram(name: string, node: SimNode, script: Script): Program {
    const program = new Program(this, name, node, script);
    this.programs.push(program);
    return program;
  }

  /** Lets things happen until something holds. */
  async until(what: string, holds: () => boolean, withinMs: number): Promise<void> {
    const end = this.time.now + withinMs;
    while (!holds()) {
      if (this.time.now > end) throw new Error(`not so within ${withinMs} ms: ${what}`);
      await this.#step();
    }
  }

  async #step(): Promise<void> {
    if (!this.time.step()) throw new Error("nothing is going to happen any more");
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#thrown !== undefined) throw this.#thrown;
  }

  /** Runs it, from the beginning to the end. @throws {Error} If something that must hold does not. */
  async run(live: (world: Cluster) => Promise<void>): Promise<ClusterOutcome> {
    const thrown = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      this.#thrown ??= event.reason as Error;
    };
    globalThis.addEventListener("unhandledrejection", thrown);
    try {
      await live(this);
      return {
        seed: this.#seed,
        hash: this.time.hash,
        virtualMs: this.time.now,
        events: this.time.events,
      };
    } finally {
      for (const { process } of this.nodes) process.kill();
      this.store.process.kill();
      await new Promise<void>((resolve) => setImmediate(resolve));
      globalThis.removeEventListener("unhandledrejection", thrown);
      for (const store of this.#kept) store.close();
      Deno.removeSync(this.directory, { recursive: true });
    }
  }
}
