/**
 * A node of a cluster, as `rayd head` and `rayd worker` run it: listens for programs of its machine and for other nodes,
 * registers itself in the control store, and connects to every other node that is registered there. The machine under it is
 * handed to it (`node/surroundings.ts`).
 *
 * Of two nodes the one with the lower id connects to the other, so that there is one connection between them. A node that
 * lost it connects again as long as both are registered.
 *
 * @module
 */

import { DisconnectedError } from "../core/errors.ts";
import { hex, taskIdFromHex } from "../core/ids.ts";
import { HEIR_MS, LOAD_MS, LOAD_MS_MAX } from "../core/limits.ts";
import { VERSION } from "../core/version.ts";
import { ANY, GcsClient } from "../gcs/client.ts";
import type { ByteStream } from "../transport/channel.ts";
import { splitAddress } from "../transport/tcp.ts";
import { CodeStore } from "./code.ts";
import { Events } from "./events.ts";
import { actorOf, actorRegistry, ACTORS, readPlace } from "./actor_registry.ts";
import { ActorMover } from "./actor_mover.ts";
import { NO_FAULTS, type NodeFault } from "./faults.ts";
import { JOBS, Jobs } from "./jobs.ts";
import { clusterTable } from "./key_value.ts";
import { Leases } from "./leases.ts";
import {
  describe,
  DRAINS,
  GROUPS,
  LINEAGE,
  lineageKey,
  lineageOf,
  type NodeRegistration,
  NODES,
  readLoad,
  readRegistration,
  writeLoad,
  writeRegistration,
} from "./registration.ts";
import { NodeServer } from "./server.ts";
import type { Surroundings } from "./surroundings.ts";
import { Transfers } from "./transfer.ts";

/** What a daemon is told. */
export interface DaemonConfig {
  readonly role: "head" | "worker";
  /** 32 random hexadecimal digits: the node's id. */
  readonly id: string;
  readonly token: string;
  /** Where the control store is said to be: each is tried in turn. */
  readonly stores: readonly { readonly hostname: string; readonly port: number }[];
  /** How long it may be without a majority before that is an error; without it, the node waits for one. */
  readonly patienceMs: number | undefined;
  /** The address to listen on, and to be reached by; by default the one that reaches the head. */
  readonly hostname: string | undefined;
  /** Refuses an address that may not be listened on. @throws {UsageError} */
  readonly checkHostname: (hostname: string) => void;
  /** The name of an abstract unix socket, for programs of this machine. */
  readonly socket: string;
  readonly resources: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly spillPath: string;
  readonly codeDirectory: string;
  readonly isolatesWarm: number;
  readonly isolatesMax: number;
  /** What an operator should know of what the process found when it started. */
  readonly found?: string | undefined;
  /** The machine's boot. */
  readonly machine: string;
  readonly startedAt: number;
  /** What is planted, by tests of the simulator. */
  readonly faults?: ReadonlySet<NodeFault>;
}

/** A running node. */
export interface Daemon {
  readonly registration: NodeRegistration;
  /** Its connection to the control store. */
  readonly gcs: GcsClient;
  /** Lets what runs here end, while others take what is new; until the deadline. */
  drain(deadlineMs: number): Promise<void>;
  /** Ends it. */
  close(): Promise<void>;
  /** Resolves when somebody has asked that the node drain and end. */
  readonly drainAsked: Promise<void>;
}

/** How long a node that ends waits for its last event to be written. */
const LAST_WORD_MS = 200;

/** How often, and how soon again, it is looked whether a node is gone that has lost its connection. */
const CONFIRM_LOOKS = 10, CONFIRM_MS = 20;

/** How often connections that are missing are made. */
const REDIAL_MS = 100;

/** How long there may be a connection to a node of which the control store does not know. */
const STRANGER_MS = 5_000;

/** Starts a node. @throws {RaydError} If the cluster cannot be joined. */
export async function startDaemon(config: DaemonConfig, surroundings: Surroundings): Promise<Daemon> {
  const { clock } = surroundings;
  const startedClock = clock.now();
  const wallClock = () => config.startedAt + clock.now() - startedClock;
  const log: Surroundings["log"] = (level, message) => {
    surroundings.log(level, message);
    if (level !== "info") events.add(level, message);
  };
  const dial = (hostname: string, port: number): Promise<ByteStream> =>
    surroundings.dial(hostname, port).then(({ stream }) => stream);
  const dialFirst = async ([first, ...others]: DaemonConfig["stores"]): ReturnType<Surroundings["dial"]> => {
    try {
      return await surroundings.dial(first!.hostname, first!.port);
    } catch (error) {
      if (others.length === 0 || !(error instanceof DisconnectedError)) throw error;
      return await dialFirst(others);
    }
  };
  const asked = Promise.withResolvers<void>();
  /** Whether the control store is known to have this node's entry. */
  let listed = false;
  const running: { server?: NodeServer; registration?: NodeRegistration; jobs?: Jobs } = {};
  let localAddress = "127.0.0.1";
  const gcs = new GcsClient({
    id: taskIdFromHex(config.id),
    token: config.token,
    clock,
    connect: async (address) => {
      const { stream, from } = await dialFirst(
        address === undefined ? config.stores : [splitAddress(address)],
      );
      localAddress = from;
      return stream;
    },
    connected: (known) => {
      const { registration } = running;
      if (registration === undefined) return;
      log("info", `Connected to the control store again${known ? "" : ", which had given this node up"}`);
      if (!known) {
        running.jobs?.tellAgain();
        leases.allAgain();
      }
      // A store that knows it still has its entry, unless a node has removed that meanwhile.
      if (known && listed) return;
      register(registration).catch((error) => log("error", `Cannot register: ${(error as Error).message}`));
    },
    disconnected: (error) => log("warn", `The control store is away: ${error.message}`),
    loads: (loads) => {
      for (const { node, load } of loads) {
        if (hex(node) !== config.id) running.server?.reported(node, readLoad(load));
      }
      running.server?.cluster?.balance();
    },
  });
  const leases = new Leases(
    gcs,
    (key) => log("warn", `Somebody else has ${key} now: this node was given up, and is back too late`),
  );
  const events = new Events(gcs, config.id, clock, wallClock);
  const register = (node: NodeRegistration) => gcs.put(NODES + node.id, writeRegistration(node), ANY, true);
  await gcs.start(config.patienceMs);
  const hostname = config.hostname ?? localAddress;
  try {
    config.checkHostname(hostname);
  } catch (error) {
    gcs.close();
    throw error;
  }
  const store = surroundings.createStore();
  const programs = surroundings.listenHere();
  const peers = surroundings.listen(hostname);
  const bulk = surroundings.listen(hostname);
  const code = new CodeStore(config.codeDirectory, gcs, wallClock);
  const others = new Map<string, NodeRegistration>();
  const revisions = new Map<string, number>();
  /** Nodes that the control store has given up, and since when: as long as their machines do not say that they have ended. */
  const givenUp = new Map<string, number>();
  const forgetGivenUp = () => {
    for (const [id, since] of givenUp) {
      if (others.has(id) || clock.now() - since >= HEIR_MS) givenUp.delete(id);
    }
  };
  /** Programs of all nodes. */
  const programsThere = new Set<string>();
  const { faults = NO_FAULTS } = config;
  const registry = actorRegistry(gcs, leases, config.id, JOBS, faults);
  const transfers = new Transfers({
    id: taskIdFromHex(config.id),
    store,
    token: config.token,
    clock,
    log,
    provide: (id, what) => running.server!.provide(id, what),
    makeRoom: (bytes) => running.server!.makeRoom(bytes),
    dial: (node) => {
      const other = others.get(hex(node));
      if (other === undefined) throw new DisconnectedError(`Node ${hex(node)} is gone`);
      return dial(other.hostname, other.bulkPort);
    },
  });
  const node: NodeServer = running.server = new NodeServer({
    id: taskIdFromHex(config.id),
    labels: config.labels,
    token: config.token,
    resources: config.resources,
    store,
    clock,
    isolates: surroundings.isolates(store),
    isolatesWarm: config.isolatesWarm,
    isolatesMax: config.isolatesMax,
    spillPath: config.spillPath,
    faults,
    log,
    abroad: {
      pull: (node, id, size, what) => transfers.pull(node, id, size, what),
      anyAway: () => {
        for (const id of others.keys()) if (!node.cluster!.has(taskIdFromHex(id))) return true;
        forgetGivenUp();
        return givenUp.size > 0;
      },
      hasCode: (hash) => code.has(hash),
      fetchCode: (hash) => code.fetch(hash),
      publishCode: (hash, bytes, job) => {
        code.publish(hash, bytes);
        jobs.published(hex(job), hash);
      },
      lineage: {
        put: (job, batch, bytes) =>
          gcs.put(lineageKey(config.id, hex(job), batch), bytes.slice()).then(() => {}),
        delete: (job, batch) => {
          gcs.delete(lineageKey(config.id, hex(job), batch)).catch(() => {});
        },
      },
      leftLineage: async () =>
        (await gcs.list(LINEAGE)).filter(({ key }) => {
          const { node: left } = lineageOf(key);
          return left !== config.id && !node.cluster!.has(taskIdFromHex(left));
        }).map(({ value }) => value),
      jobStarted: (job, pid) => jobs.started(hex(job), pid, Math.round(wallClock())),
      jobEnded: (job) => jobs.ended(hex(job)),
      programsRun: () => programsThere.size > 0,
      registry,
      keyValues: clusterTable(gcs),
      ...groupRecords(gcs, leases, (error) => log("warn", `Cannot remove a group: ${error.message}`)),
      peerLost: (id) => {
        const other = others.get(hex(id));
        if (other !== undefined && !closed) confirmGone(other);
      },
      resourcesChanged: () => {
        const { registration } = running;
        if (registration === undefined || closed) return;
        running.registration = { ...registration, resources: node.resources() };
        // If the store is away, the node registers anew when it is back.
        register(running.registration).catch(() => {});
      },
    },
  });
  // The head sees to what may go from the control store; where there is none any more, the first of the others does.
  const collects = () =>
    config.role === "head" ||
    [...others].every(([id, { role }]) => role !== "head" && id > config.id);
  const jobs = running.jobs = new Jobs(
    gcs,
    config.id,
    clock,
    code,
    () => node.codeInUse(),
    collects,
    wallClock,
  );
  const mover = new ActorMover({
    id: config.id,
    registry,
    clock,
    actors: node.cluster!.actors,
    crowdedOut: (ms) => node.crowdedOut(ms),
    passOn: (ms) => node.passOn(ms),
    holdBack: (id) => node.holdBack(id),
    letBe: (id) => node.letBe(id),
    leads: collects,
    isThere: (id) => id === config.id || others.has(id),
    farJobs: () => node.farJobs(),
    jobGone: (job) => node.jobGone(job),
    log,
  });
  let closed = false;
  programs.serve((stream) => node.accept(stream));
  peers.serve((stream) => node.acceptPeer(stream));
  bulk.serve((stream) => transfers.serve(stream));
  const registration: NodeRegistration = running.registration = {
    id: config.id,
    role: config.role,
    hostname,
    port: peers.port,
    bulkPort: bulk.port,
    resources: config.resources,
    labels: config.labels,
    machine: config.machine,
    socket: config.socket,
    storePath: store.path,
    storeCapacity: store.capacity,
    version: VERSION,
    draining: false,
    pid: surroundings.pid,
    startedAt: config.startedAt,
  };
  /** Whether a node's machine says that its process has ended. */
  const isDead = ({ hostname, port }: NodeRegistration): Promise<boolean> =>
    dial(hostname, port).then((conn) => {
      conn.close();
      return false;
    }, (error: Error) => surroundings.isRefusal(error));
  /**
   * Where a process is gone, its machine refuses connections to it at once. So the store need not be waited for to give it up;
   * should the node be there after all, it sees that its entry is gone, and registers anew.
   */
  const confirmGone = (other: NodeRegistration, looks = CONFIRM_LOOKS) => {
    const { id } = other;
    isDead(other).then((dead) => {
      if (dead) {
        const revision = revisions.get(id);
        if (revision === undefined) return;
        gcs.delete(NODES + id, revision).catch(() => {
          // This node is ending.
        });
      } else if (looks > 1 && !closed && !node.cluster!.has(taskIdFromHex(id))) {
        // A process that ends closes one thing after the other.
        clock.after(CONFIRM_MS, () => confirmGone(other, looks - 1));
      }
    });
  };
  const dialling = new Set<string>();
  const connectMissing = () => {
    for (const [id, other] of others) {
      if (id < config.id || dialling.has(id) || node.cluster!.has(taskIdFromHex(id))) continue;
      dialling.add(id);
      dial(other.hostname, other.port).then(
        (conn) => closed ? conn.close() : node.connectPeer(conn),
        (error) => log("info", `Cannot reach node ${id.slice(0, 8)}: ${(error as Error).message}`),
      ).finally(() => clock.after(REDIAL_MS, () => dialling.delete(id)));
    }
  };
  await register(registration);
  events.add(
    "info",
    `${config.role} started at ${hostname}:${peers.port}, process ${surroundings.pid}, rayd ${VERSION}`,
  );
  if (config.found !== undefined) log("warn", config.found);
  await gcs.watch(NODES, (key, value, revision) => {
    const id = key.slice(NODES.length);
    if (id === config.id) {
      listed = value !== undefined;
      // If it is the store that has given this node up, it says so when the connection is back.
      if (value === undefined && gcs.connected && !closed) register(running.registration!).catch(() => {});
      return;
    }
    if (value === undefined) {
      revisions.delete(id);
      const gone = others.get(id);
      const jobsThere = [...node.farJobs()].filter((job) => node.cameFrom(job, taskIdFromHex(id)));
      forgetGivenUp();
      if (gone !== undefined) givenUp.set(id, clock.now());
      if (gone !== undefined) {
        isDead(gone).then((dead) => {
          if (!dead) return;
          givenUp.delete(id);
          if (jobsThere.length > 0) mover.jobsDied(jobsThere);
        });
      }
      others.delete(id);
      transfers.forget(taskIdFromHex(id));
      node.nodeGone(taskIdFromHex(id));
      return mover.look();
    }
    const other = readRegistration(value);
    others.set(id, other);
    revisions.set(id, revision);
    node.describe(describe(other));
    connectMissing();
  });
  await gcs.watch(ACTORS, (key, value, revision) => {
    node.actorLocated(actorOf(key), value === undefined ? undefined : { place: readPlace(value), revision });
  });
  const stopMoving = mover.start();
  const stopWatching = surroundings.watchMemory({
    storeBytes: () => store.stats().used,
    users: () => node.memoryUsers(),
    stop: (isolate, reason) => node.stopForMemory(isolate, reason),
  });
  await gcs.watch(JOBS, (key, value) => {
    if (value === undefined) return void programsThere.delete(key);
    programsThere.add(key);
    node.programsRun();
  });
  await gcs.watch(GROUPS, (key, value) => {
    const removed = value?.length === 0;
    // A group that is coordinated here is only not in the store, as the node was given up.
    if (value === undefined && leases.has(key)) leases.again(key).catch(() => {});
    else if (value === undefined || removed) node.groupRemoved(key.slice(GROUPS.length));
  });
  await gcs.watch(DRAINS + config.id, (key, value) => {
    if (value === undefined) return;
    asked.resolve();
    gcs.delete(key).catch(() => {}); // it is heard; if the store is away, the entry stays, and nobody minds
  });
  const stopLoads = reportLoads(gcs, node, surroundings);
  let cancelRedial: () => void = () => {};
  /**
   * A node that has connected, and was gone from the control store before this one had heard of it there, is never said to
   * be gone: if its machine is silent, nothing else would end the connection.
   */
  const strangers = new Map<string, number>();
  const dropStrangers = () => {
    const now = clock.now();
    const unknown = node.cluster!.nodes().map(({ node }) => hex(node.id)).filter((id) => !others.has(id));
    for (const id of [...strangers.keys()]) if (!gcs.connected || !unknown.includes(id)) strangers.delete(id);
    for (const id of gcs.connected ? unknown : []) {
      const since = strangers.get(id) ?? now;
      strangers.set(id, since);
      if (now - since < STRANGER_MS) continue;
      strangers.delete(id);
      transfers.forget(taskIdFromHex(id));
      node.nodeGone(taskIdFromHex(id));
    }
  };
  const redial = () => {
    connectMissing();
    dropStrangers();
    cancelRedial = clock.after(REDIAL_MS, redial);
  };
  redial();
  return {
    registration,
    gcs,
    drainAsked: asked.promise,
    async drain(deadlineMs) {
      running.registration = { ...running.registration ?? registration, draining: true };
      events.add("info", "it drains: it takes nothing new, and ends when what runs there has ended");
      // Without the control store nobody is told; then it is done when all has ended.
      await Promise.race([register(running.registration), node.drain(deadlineMs)]);
      await node.drain(deadlineMs);
    },
    async close() {
      if (closed) return;
      closed = true;
      stopLoads();
      stopMoving();
      stopWatching();
      jobs.close();
      cancelRedial();
      for (const listener of [programs, peers, bulk]) listener.close();
      transfers.close();
      node.close();
      events.add("info", "it has ended");
      // If the store is away, the node does not wait to be able to tell.
      await Promise.race([
        events.flush(),
        new Promise<void>((resolve) => clock.after(LAST_WORD_MS, resolve)),
      ]);
      gcs.close();
      await clock.turn();
    },
  };
}

/** Tells others how the node is loaded: soon after it changes, and now and then as a sign of life. */
function reportLoads(
  gcs: GcsClient,
  node: NodeServer,
  { clock, wallTime }: Pick<Surroundings, "clock" | "wallTime">,
): () => void {
  let last = "";
  let reportedAt = 0;
  let cancel: () => void = () => {};
  const report = () => {
    const load = node.load();
    const now = clock.now();
    const rounded = { ...load, meanMs: Number(load.meanMs.toPrecision(2)) };
    const text = JSON.stringify(rounded);
    if (text !== last || now - reportedAt > LOAD_MS_MAX) {
      last = text;
      reportedAt = now;
      gcs.reportLoad(writeLoad(rounded, wallTime()));
    }
    cancel = clock.after(LOAD_MS, report);
  };
  report();
  return () => cancel();
}

/** Placement groups, as the control store has them. One that is empty is to be removed by whoever coordinates it. */
function groupRecords(gcs: GcsClient, leases: Leases, failed: (error: Error) => void) {
  return {
    async recordGroup(id: string, record: string | undefined): Promise<void> {
      const key = GROUPS + id;
      if (record !== undefined) return void await leases.put(key, new TextEncoder().encode(record));
      leases.forget(key);
      await gcs.delete(key);
    },
    async readGroup(id: string): Promise<string | undefined> {
      const value = (await gcs.get(GROUPS + id))?.value;
      return value === undefined || value.length === 0 ? undefined : new TextDecoder().decode(value);
    },
    removeGroup(id: string): void {
      const remove = async () => {
        for (let done = false; !done;) {
          const entry = await gcs.get(GROUPS + id);
          if (entry === undefined) return;
          done = await gcs.put(GROUPS + id, new Uint8Array(0), entry.revision, true) !== undefined;
        }
      };
      remove().catch(failed);
    },
  };
}
