/**
 * A simulated host with a node on it: the real daemon, in surroundings of virtual time and a simulated network.
 *
 * @module
 */

import { assert } from "@std/assert";
import { DisconnectedError } from "../../../core/errors.ts";
import { CPU, RESOURCE_UNIT } from "../../../core/options.ts";
import { type Daemon, startDaemon } from "../../../node/daemon.ts";
import type { Surroundings } from "../../../node/surroundings.ts";
import { ObjectStore } from "../../../store/object_store.ts";
import type { ByteStream } from "../../../transport/channel.ts";
import { simIsolates } from "./isolate.ts";
import { type Network, Refused } from "./network.ts";
import { SimProcess } from "./process.ts";
import type { Cluster } from "./world.ts";

/** The cluster's token. */
export const TOKEN = "ab".repeat(32);

/** Where the control store is. */
export const STORE_PORT = 6380;

/** How soon a node is started again that could not join. */
const JOIN_AGAIN_MS = 300;

/** How much each node has of the resource "slot". */
const SLOTS = 2;

/** So large that nothing is spilled, which would take real time. */
const STORE_BYTES = 32 * 1024 * 1024;

/** A node and its host. */
export class SimNode {
  readonly id: string;
  readonly host: string;
  readonly role: "head" | "worker";
  readonly process: SimProcess;
  readonly isolates = new Set<SimProcess>();
  /** Once it is up. */
  daemon: Daemon | undefined;
  /** It is ending. */
  leaving = false;
  readonly world: Cluster;
  readonly #network: Network;
  #store: ObjectStore | undefined;
  #held = 0;
  #accept: ((stream: ByteStream) => void) | undefined;

  constructor(world: Cluster, id: string, host: string, role: "head" | "worker", cpus: number) {
    this.world = world;
    this.#network = world.network;
    this.id = id;
    this.host = host;
    this.role = role;
    this.process = new SimProcess(`node ${id.slice(0, 4)}`, host, world.time, world.below(10_000));
    this.process.onEnd(() => {
      for (const isolate of [...this.isolates]) isolate.kill();
    });
    startDaemon({
      role,
      id,
      token: TOKEN,
      stores: world.storeAddresses(),
      patienceMs: undefined,
      hostname: host,
      checkHostname: () => {},
      socket: "",
      resources: { [CPU]: cpus * RESOURCE_UNIT, slot: SLOTS * RESOURCE_UNIT },
      labels: {},
      spillPath: world.directory,
      codeDirectory: `${world.directory}/code`,
      isolatesWarm: 1,
      isolatesMax: cpus + 2,
      machine: host,
      startedAt: 0,
      faults: world.faults,
    }, this.#surroundings()).then(
      (daemon) => this.daemon = daemon,
      () => this.#couldNotJoin(),
    );
  }

  /** The control store was away, most likely: its process ends, and whoever started it starts another one. */
  #couldNotJoin(): void {
    if (!this.process.alive) return;
    this.process.kill();
    this.world.time.after(JOIN_AGAIN_MS, () => this.world.addNode(this.role));
  }

  /** Connects a process of this host. */
  async connect(process: SimProcess): Promise<ByteStream> {
    if (this.#accept === undefined || !this.process.alive) {
      throw new DisconnectedError("the node is gone", { cause: new Refused() });
    }
    const [here, there] = this.#network.pair(process, this.process);
    this.process.run(() => this.#accept!(there));
    return await Promise.resolve(here);
  }

  /** Lets what runs here end, for a while, and ends. @param left Told when it has. */
  leave(deadlineMs: number, left: () => void): void {
    const { daemon } = this;
    if (daemon === undefined || this.leaving) return;
    this.leaving = true;
    daemon.drain(deadlineMs).then(() => daemon.close()).then(() => {
      this.process.kill();
      left();
    });
  }

  /** Another user of the node's store. */
  openStore(): ObjectStore {
    return this.world.keep(ObjectStore.open(this.world.library, this.#store!.path));
  }

  /** The node stands still, with its isolates. */
  pause(): void {
    for (const process of [this.process, ...this.isolates]) process.pause();
  }

  resume(): void {
    for (const process of [this.process, ...this.isolates]) process.resume();
  }

  /** A task holds some of the resource "slot": there is not more of it than there is. */
  #holds(isolate: SimProcess, amount: number): () => void {
    this.#held += amount;
    assert(this.#held <= SLOTS, `tasks hold ${this.#held} of ${SLOTS} slots on ${this.host}`);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      this.#held -= amount;
    };
    isolate.onEnd(release);
    return release;
  }

  #surroundings(): Surroundings {
    const { process } = this;
    const world = this.world;
    const network = this.#network;
    return {
      clock: process.clock,
      wallTime: () => process.clock.now(),
      pid: 1,
      log: (level, message) => world.log(this, level, message),
      dial: async (hostname, port) => ({
        stream: await network.dial(process, hostname, port),
        from: this.host,
      }),
      isRefusal: (error) => error.cause instanceof Refused,
      listen: () => {
        let accept: (stream: ByteStream) => void = () => {};
        const { port, close } = network.listen(process, 0, (stream) => accept(stream));
        return {
          port,
          serve: (accepts) => {
            accept = accepts;
            return Promise.resolve();
          },
          close,
        };
      },
      listenHere: () => ({
        serve: (accept) => {
          this.#accept = accept;
          return Promise.resolve();
        },
        close: () => this.#accept = undefined,
      }),
      createStore: () =>
        this.#store = world.keep(ObjectStore.create(world.library, { capacity: STORE_BYTES })),
      isolates: () =>
        simIsolates({
          node: this.id,
          token: TOKEN,
          spawn: (name) => {
            const isolate = new SimProcess(`${process.name} ${name}`, this.host, world.time);
            this.isolates.add(isolate);
            isolate.onEnd(() => this.isolates.delete(isolate));
            return isolate;
          },
          connect: (isolate) => this.connect(isolate),
          openStore: () => this.openStore(),
          startMs: () => 5 + world.below(20),
          holds: (isolate, amount) => this.#holds(isolate, amount),
          tell: (news) => void process.clock.after(world.below(3), news),
        }),
      watchMemory: () => () => {},
    };
  }
}
