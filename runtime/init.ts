/**
 * Starting and ending rayd in a program: an embedded node in this process, reached like any other.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError, RaydError, UsageError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { NODE_START_MS_MAX } from "../core/limits.ts";
import { checkOptions, MEMORY, parseDemand, show } from "../core/options.ts";
import type {
  EmbeddedNodeConfig,
  EmbeddedNodeReply,
  Isolation,
  LogLevel,
  TaskEnvironment,
} from "../node/config.ts";
import { raystoreLibrary } from "../store/library.ts";
import { ObjectStore } from "../store/object_store.ts";
import { Client } from "./client.ts";
import { type Scope, scopeOf } from "./scope.ts";
import { printOutput } from "./console.ts";
import { taskContext } from "./executor.ts";
import { findNode } from "./attach.ts";
import { bundleCodes, bundleUrl } from "./registry.ts";
import { hostCommand, storeMemoryOf } from "./machine.ts";
import { bundleProgram } from "./bundle_program.ts";
import { clientIfAny, setAutoInit, setClient } from "./session.ts";

/** Options of {@link init}. */
export interface InitOptions {
  /** CPUs that the embedded node offers. Default: `RAYD_CPUS`, or what the machine has. */
  cpus?: number;
  /** GPUs that it offers. Default: `RAYD_GPUS`, or none. */
  gpus?: number;
  /** Custom resources that it offers, by name. Default: `RAYD_RESOURCES` (JSON), or none. */
  resources?: Readonly<Record<string, number>>;
  /** Bytes of memory that tasks may reserve with `options({ memory })`. Default: what the machine has. */
  memory?: number;
  /** Bytes of the object store. Default: `RAYD_STORE_MEMORY`, or 30% of memory, as far as shared memory has room. */
  storeMemory?: number;
  /**
   * Where tasks run. `"thread"` (the default): in threads of this process, which start fast and take little memory.
   * `"process"`: each isolate in a process of its own, so that a task that exhausts its heap or crashes natively costs
   * retries and nothing else. Default: `RAYD_ISOLATION`, or "thread".
   */
  isolation?: Isolation;
  /** With `isolation: "process"`: bytes of memory that each process may use. Default: `RAYD_HOST_MEMORY`, or no limit. */
  hostMemory?: number;
  /** How much the node says on standard error. Default: `RAYD_LOG_LEVEL`, or "warn". */
  logLevel?: LogLevel;
}

/** A started rayd; ends when it goes out of an `await using` scope. */
export interface Cluster extends AsyncDisposable {
  /** Ends rayd in this program, as {@link shutdown} does. */
  shutdown(): Promise<void>;
}

/** What {@link init} has started. */
interface Session {
  readonly client: Client;
  /** The embedded node; absent in a program that has joined a cluster. */
  readonly node: Worker | undefined;
  readonly started: Promise<void>;
  ended: Promise<void> | undefined;
}

let session: Session | undefined;

/**
 * Starts rayd in this program: a node embedded in this process; or, if `RAYD_ADDRESS` names the head of a cluster
 * (`HOST:PORT`), the connection to a node of it that runs on this machine, and then what the node offers is not this
 * program's to say. Optional: the first call that needs it does the same
 * with default options.
 *
 * @param options What the node offers.
 * @returns A handle that ends rayd at the end of its `await using` scope.
 * @throws {UsageError} If rayd runs already, an option is wrong, or the node cannot start.
 */
export async function init(options: InitOptions = {}): Promise<Cluster> {
  if (session !== undefined && session.ended === undefined) {
    throw new UsageError(
      "Cannot init rayd: it runs already in this program, by an earlier init() or because it was used before. Call " +
        "init() once, before anything else",
    );
  }
  await session?.ended;
  const started = start(options);
  await started.started;
  return { shutdown, [Symbol.asyncDispose]: shutdown };
}

/** Ends rayd in this program: running tasks are ended, and memory, files and threads are given back. */
export async function shutdown(): Promise<void> {
  const ending = session;
  if (ending === undefined) return;
  ending.ended ??= end(ending);
  await ending.ended;
  if (session === ending) session = undefined;
}

/** Whether rayd runs in this program. */
export function isInitialized(): boolean {
  return session !== undefined && session.ended === undefined;
}

function start(options: InitOptions): Session {
  const address = Deno.env.get("RAYD_ADDRESS");
  // In a cluster it is the nodes that say what they offer; but a wrong option is wrong there too.
  const config = configOf(options);
  const job = taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16)));
  const root: Scope = scopeOf(job);
  const client = new Client({
    role: "driver",
    isolate: 0,
    job,
    clock: systemClock,
    flush: "microtask",
    keepAlive: true,
    scope: () => root,
    other: (message) => {
      if (message.type === "output") printOutput(message);
    },
  });
  if (address) {
    if (bundleCodes() === undefined) bundleProgram();
    const started = attach(client, address);
    started.catch((error) => client.end(asRaydError(error)));
    setClient(client);
    return session = { client, node: undefined, started, ended: undefined };
  }
  const node = new Worker(new URL("../node/main.ts", import.meta.url));
  const ended = (error: RaydError) => client.end(error);
  const started = new Promise<void>((resolve, reject) => {
    const fail = (error: RaydError) => {
      reject(error);
      ended(error);
    };
    const giveUp = systemClock.after(NODE_START_MS_MAX, () => {
      fail(new DisconnectedError(`The embedded node did not start within ${NODE_START_MS_MAX} ms`));
    });
    node.on("message", (reply: EmbeddedNodeReply) => {
      giveUp();
      if (reply.type === "failed") return fail(new UsageError(reply.message));
      connect(client, config, reply.storePath).then(resolve, (error) => fail(asRaydError(error)));
    });
    node.on(
      "error",
      (error: Error) => fail(new DisconnectedError(`The embedded node failed: ${error.message}`)),
    );
  });
  started.catch(() => {});
  node.postMessage(config);
  session = { client, node, started, ended: undefined };
  setClient(client);
  // From here on only waiting keeps the program alive, not the node as such.
  started.then(() => node.unref(), () => node.unref());
  return session;
}

/** Joins the cluster at `address`, by a node of it that runs on this machine. */
async function attach(client: Client, address: string): Promise<void> {
  const code = bundleCodes();
  if (code === undefined) {
    throw new UsageError(
      "Cannot join the cluster at RAYD_ADDRESS: its nodes run code as a bundle. Start the program with `rayd run`",
    );
  }
  const { conn, token, storePath } = await findNode(
    address,
    taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
  );
  const store = ObjectStore.open(raystoreLibrary(), storePath);
  await client.connect({ conn, token, store, code });
}

async function connect(client: Client, config: EmbeddedNodeConfig, storePath: string): Promise<void> {
  const conn = await Deno.connect({ transport: "unix", path: config.socket });
  const store = ObjectStore.open(config.library, storePath);
  await client.connect({ conn, token: config.token, store });
}

async function end({ client, node, started }: Session): Promise<void> {
  await started.catch(() => {});
  await client.settleViews();
  client.end(new DisconnectedError("rayd was shut down in this program"));
  setClient(undefined);
  if (node === undefined) return;
  const down = Promise.withResolvers<void>();
  node.on("message", (reply: EmbeddedNodeReply) => reply.type === "failed" && down.resolve());
  const giveUp = systemClock.after(NODE_STOP_MS_MAX, down.resolve);
  node.ref();
  node.postMessage("shutdown");
  await down.promise;
  giveUp();
  await node.terminate();
}

function configOf(options: InitOptions): EmbeddedNodeConfig {
  const env = (name: string) => Deno.env.get(name) || undefined;
  const number = (name: string) => {
    const text = env(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (Number.isFinite(value) && value >= 0) return value;
    throw new UsageError(`Cannot use ${name}: "${text}" is not a number of 0 or more`);
  };
  const known = ["cpus", "gpus", "resources", "memory", "storeMemory", "isolation", "hostMemory", "logLevel"];
  checkOptions(options, known, "init()", "{ cpus: 4 }");
  const machine = Deno.systemMemoryInfo();
  const given = {
    cpus: options.cpus ?? number("RAYD_CPUS") ?? navigator.hardwareConcurrency,
    gpus: options.gpus ?? number("RAYD_GPUS") ?? 0,
    memory: options.memory ?? machine.total,
    resources: options.resources ?? resourcesOf(env("RAYD_RESOURCES")),
  };
  const resources = parseDemand(given, "this node");
  if (resources[MEMORY] === undefined) {
    throw new UsageError("Cannot use memory of this node: it must be more than 0");
  }
  const cpus = Math.max(1, Math.ceil(given.cpus));
  const logLevel = options.logLevel ?? env("RAYD_LOG_LEVEL") as LogLevel | undefined ?? "warn";
  if (!["debug", "info", "warn", "error", "off"].includes(logLevel)) {
    throw new UsageError(
      `Cannot use log level ${show(logLevel)}: there are debug, info, warn, error and off`,
    );
  }
  const isolation = options.isolation ?? env("RAYD_ISOLATION") ?? "thread";
  if (isolation !== "thread" && isolation !== "process") {
    throw new UsageError(`Cannot use isolation ${show(isolation)}: there are "thread" and "process"`);
  }
  const hostMemory = options.hostMemory ?? number("RAYD_HOST_MEMORY") ?? 0;
  if (!Number.isFinite(hostMemory) || hostMemory < 0) {
    throw new UsageError(`Cannot use hostMemory: ${show(hostMemory)} is not a number of bytes of 0 or more`);
  }
  if (hostMemory !== 0 && isolation === "thread") {
    throw new UsageError(
      'Cannot limit hostMemory: isolates are threads of this process; set isolation: "process"',
    );
  }
  const random = (bytes: number) =>
    [...crypto.getRandomValues(new Uint8Array(bytes))]
      .map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const isolatesWarm = Math.min(cpus, Math.max(navigator.hardwareConcurrency, 8));
  return {
    token: random(32),
    socket: `\0rayd-${random(16)}`,
    node: random(16),
    resources,
    storeMemory: storeMemoryOf(options.storeMemory ?? number("RAYD_STORE_MEMORY"), machine.total),
    library: raystoreLibrary(),
    spillPath: env("RAYD_SPILL_DIR") ?? env("TMPDIR") ?? "/tmp",
    isolateModule: new URL("./isolate_main.ts", import.meta.url).href,
    host: isolation === "process" ? { ...hostCommand(), memory: hostMemory } : undefined,
    isolatesWarm,
    isolatesMax: cpus + EXTRA_ISOLATES,
    logLevel,
    bundle: bundleUrl(),
    args: Deno.args,
    environment: environmentOf(env("RAYD_JOB_ENV"), env("RAYD_WORKING_DIR")),
  };
}

/** What `rayd run --env … --working-dir …` said. */
function environmentOf(env: string | undefined, workingDirectory: string | undefined): TaskEnvironment {
  return { env: env === undefined ? {} : JSON.parse(env) as Record<string, string>, workingDirectory };
}

/** How long an embedded node may take to end before it is ended. */
const NODE_STOP_MS_MAX = 2_000;

/** Isolates beyond one a CPU, for tasks that ask for less than one. */
const EXTRA_ISOLATES = 8;

function resourcesOf(text: string | undefined): Record<string, number> {
  if (text === undefined) return {};
  try {
    const value: unknown = JSON.parse(text);
    if (
      typeof value === "object" && value !== null && Object.values(value).every((n) => typeof n === "number")
    ) {
      return value as Record<string, number>;
    }
  } catch {
    // Said below.
  }
  throw new UsageError(`Cannot use resources ${text}: give JSON such as {"licence": 2}`);
}

function asRaydError(error: unknown): RaydError {
  return error instanceof RaydError
    ? error
    : new DisconnectedError(`Cannot reach the node: ${String(error)}`);
}

setAutoInit(() => {
  const ended = clientIfAny()?.ended;
  if (ended !== undefined) throw ended;
  if (taskContext() !== undefined) throw new UsageError("Cannot init rayd inside a task");
  return start({}).client;
});
