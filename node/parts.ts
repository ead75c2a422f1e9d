/**
 * What a node is made of, and how its parts reach each other.
 *
 * A node is one state machine with many concerns: tasks on their way in, executions, results, objects, isolates, actors,
 * other nodes. Each is a class of its own that owns its state; what several need (clients, tasks by id, the object
 * directory, the time) is here. Messages are queued and leave at the end of a turn (`flush`).
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import type { RaydError } from "../core/errors.ts";
import { hex, type ObjectId, type TaskId } from "../core/ids.ts";
import { HEIR_MS } from "../core/limits.ts";
import type { Message } from "../core/messages.ts";
import { CPU, RESOURCE_UNIT } from "../core/options.ts";
import type { PlacedNode } from "../core/placement.ts";
import { ResourcePool, Shapes } from "../scheduler/resources.ts";
import type { ObjectStore } from "../store/object_store.ts";
import type { ActorRegistry } from "./actor_registry.ts";
import { ActorRestorer } from "./actor_restorer.ts";
import { ActorServer } from "./actor_server.ts";
import { Cancellations } from "./cancellations.ts";
import { Cluster } from "./cluster.ts";
import { Copies } from "./copies.ts";
import { Definitions } from "./definitions.ts";
import { ObjectDirectory } from "./directory.ts";
import { Executions } from "./executions.ts";
import { NO_FAULTS, type NodeFault } from "./faults.ts";
import { Groups } from "./groups.ts";
import { Isolates } from "./isolates.ts";
import { KeyValues, type KeyValueTable, localTable } from "./key_value.ts";
import type { LineageTable } from "./lineage_log.ts";
import { Objects } from "./objects.ts";
import type { Client, IsolateFactory } from "./peers.ts";
import { Programs } from "./programs.ts";
import { Rebuilder } from "./rebuilder.ts";
import { Results } from "./results.ts";
import { Submissions } from "./submissions.ts";
import type { TaskRecord } from "./tasks.ts";
import { actorServices, clusterServices } from "./wiring.ts";

/** What a node is made of. */
export interface NodeOptions {
  readonly id: TaskId;
  readonly labels?: Readonly<Record<string, string>>;
  readonly token: string;
  /** Amounts in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly isolates: IsolateFactory;
  /** Isolates that are kept ready. */
  readonly isolatesWarm: number;
  readonly isolatesMax: number;
  /** Where objects are spilled to. */
  readonly spillPath: string;
  /** Told of what an operator should know. */
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
  /** How the node reaches others; absent of one that is alone. */
  readonly abroad?: Abroad;
  /** What is planted, by tests of the simulator. */
  readonly faults?: ReadonlySet<NodeFault>;
}

/** What a node in a cluster is given. */
export interface Abroad {
  /**
   * Brings the bytes of an object of `size` bytes from a node into the store. Returns what went wrong. A `"copy"` is one
   * that the node has itself, or has no more: it is not to look for it.
   */
  pull(node: TaskId, id: ObjectId, size: number, what: "object" | "copy"): Promise<RaydError | undefined>;
  /**
   * Whether there are nodes that cannot be asked now and may know something: to which there is no connection, or which were
   * taken for gone not long ago, while nothing is known of their processes having ended.
   */
  anyAway(): boolean;
  /** Whether code was published that is here, and else brings it. */
  hasCode(hash: string): boolean;
  fetchCode(hash: string): Promise<void>;
  /** Takes code from a program. @throws {ProtocolError} If it is not what its name says. */
  publishCode(hash: string, code: Uint8Array, job: TaskId): void;
  /** A program has connected to this node, or is gone. */
  jobStarted(job: TaskId, pid: number): void;
  jobEnded(job: TaskId): void;
  /** Whether a program runs on any node. */
  programsRun(): boolean;
  /** The control store's side of actors. */
  readonly registry: ActorRegistry;
  /** Tells the cluster of a placement group; without a record, that it is gone. Resolves when others can know. */
  recordGroup(id: string, record: string | undefined): Promise<void>;
  readGroup(id: string): Promise<string | undefined>;
  /** Has a placement group removed that another node coordinates. */
  removeGroup(id: string): void;
  /** What programs keep in the control store. */
  readonly keyValues: KeyValueTable;
  /** The connection to a node has ended. */
  peerLost(node: TaskId): void;
  /** What the node offers has changed. */
  resourcesChanged(): void;
  /** Where this node's lineage is kept, and what nodes have left that are gone. */
  readonly lineage: LineageTable;
  leftLineage(): Promise<Uint8Array[]>;
}

/** A node's parts, and what they share. */
export class NodeParts {
  readonly options: NodeOptions;
  readonly faults: ReadonlySet<NodeFault>;
  readonly clock: Clock;
  readonly store: ObjectStore;
  readonly pool: ResourcePool;
  readonly shapes: Shapes = new Shapes();
  readonly directory: ObjectDirectory;
  /** Tasks and calls of actors that have not ended. */
  readonly tasks: Map<TaskId, TaskRecord> = new Map();
  readonly clients: Map<number, Client> = new Map();
  readonly definitions: Definitions;
  readonly programs: Programs;
  readonly submissions: Submissions;
  readonly executions: Executions;
  readonly results: Results;
  readonly cancellations: Cancellations;
  readonly objects: Objects;
  readonly copies: Copies;
  readonly rebuilder: Rebuilder;
  readonly isolates: Isolates;
  readonly groups: Groups;
  readonly keyValues: KeyValues;
  readonly actors: ActorServer;
  /** Takes up actors of nodes that are gone; absent of a node that is alone. */
  readonly restorer: ActorRestorer | undefined;
  /** Its dealings with others; absent of a node that is alone. */
  readonly cluster: Cluster | undefined;
  /** How long a task takes here, in milliseconds: an average that forgets. */
  meanMs = 1;
  /** Tasks that ended, and how. */
  done = 0;
  failed = 0;
  closed = false;
  /** Clients to whom messages wait to be sent. */
  readonly #dirty: Client[] = [];
  #time = -1;

  /** @param options What the node is made of. */
  constructor(options: NodeOptions) {
    this.options = options;
    this.clock = options.clock;
    this.store = options.store;
    this.faults = options.faults ?? NO_FAULTS;
    this.pool = new ResourcePool(
      this.faults.has("overcommit") ? twice(options.resources) : options.resources,
    );
    this.directory = new ObjectDirectory({
      freed: (record) => this.objects.freed(record),
      pending: (id) => this.submissions.pendingResult(id),
    });
    this.definitions = new Definitions(this.shapes);
    this.programs = new Programs(this);
    this.submissions = new Submissions(this);
    this.executions = new Executions(this);
    this.results = new Results(this);
    this.cancellations = new Cancellations(this);
    this.objects = new Objects(this);
    this.copies = new Copies(this);
    this.rebuilder = new Rebuilder(this);
    this.isolates = new Isolates(this);
    this.groups = new Groups(this);
    this.keyValues = new KeyValues(this, options.abroad?.keyValues ?? localTable());
    this.cluster = options.abroad === undefined ? undefined : new Cluster(clusterServices(this));
    this.actors = new ActorServer(actorServices(this));
    this.restorer = options.abroad === undefined ? undefined : new ActorRestorer(this, options.abroad);
  }

  /** This node, as placement looks at it. */
  get place(): PlacedNode {
    return { id: hex(this.options.id), labels: this.options.labels ?? {} };
  }

  /** How many tasks of one CPU run here at once. */
  get lanes(): number {
    return Math.max(1, (this.pool.total()[CPU] ?? 0) / RESOURCE_UNIT);
  }

  /** The time of the block of messages that is being worked on: reading the clock costs as much as a look-up. */
  now(): number {
    return this.#time >= 0 ? this.#time : this.#time = this.clock.now();
  }

  /** Bundles were added, or are gone: tasks that wait for them may run, and others are to know. */
  resourcesChanged(): void {
    this.options.abroad?.resourcesChanged();
    this.cluster?.placeHomeless();
    this.executions.step({ type: "tick", now: this.now() });
  }

  /** Says something to a client, at the end of the turn. */
  send(client: Client, message: Message): void {
    if (client.late !== undefined) {
      client.late.push(message);
      return;
    }
    client.channel.send(message);
    if (!client.dirty) {
      client.dirty = true;
      this.#dirty.push(client);
    }
  }

  /** Sends a last message to a client that is refused, and ends the connection. */
  dismiss(client: Client, message: Message): void {
    client.channel.send(message);
    client.channel.finish();
  }

  /** Ends a turn: what was queued for clients leaves. */
  flush(): void {
    this.#time = -1;
    this.cluster?.tellAllHolds();
    this.#hold();
    for (const client of this.#dirty) {
      client.dirty = false;
      client.channel.flush();
    }
    this.#dirty.length = 0;
  }

  /** Holds objects for whoever goes on in somebody's place, until they can have said that they want them. */
  holdForHeirs(ids: readonly ObjectId[]): void {
    if (ids.length === 0) return;
    for (const id of ids) this.directory.use(id);
    this.clock.after(HEIR_MS, () => {
      if (this.closed) return;
      for (const id of ids) this.directory.unuse(id);
      this.flush();
    });
  }

  /**
   * What other nodes are told waits until the lineage is durable that they could come to need, and the journals of actors;
   * what they are told meanwhile waits for that which comes up meanwhile.
   */
  #hold(): void {
    const { log } = this.rebuilder;
    const { journals } = this.actors;
    const journalled = journals?.pending === true;
    if (!journalled && !log?.pending) return;
    const held = this.#dirty.filter(({ role, late }) => late === undefined && role === "peer");
    if (held.length === 0) return;
    for (const client of held) {
      client.channel.held = true;
      client.late = [];
    }
    Promise.all([log?.pending && log.settled(), journalled && journals!.settled()]).then(() => {
      for (const client of held) {
        const late = client.late ?? [];
        client.late = undefined;
        client.channel.held = false;
        client.channel.flush();
        for (const message of late) this.send(client, message);
      }
      this.flush();
    });
  }
}

function twice(amounts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(amounts).map(([name, amount]) => [name, 2 * amount]));
}
