/**
 * The cluster that tests/chaos/main.ts makes things fail on: processes of the executable, each in a place of its own,
 * which is a host of a small network where such can be made, with a directory of its own.
 *
 * Place 0 has the head, place 1 is *home*, where the programs are connected and which is never killed, place 2 keeps its
 * replica of the control store, if it has one, from one node to the next, as the head does, and the last one's directory is
 * a small disk where one can be mounted. A node that is killed is replaced in its place; the cluster is
 * *whole* when every place's node is registered, and all of the control store's members are nodes that live.
 *
 * @module
 */

import { systemClock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { GcsClient } from "../../gcs/client.ts";
import { type NodeRegistration, NODES, readRegistration } from "../../node/registration.ts";
import { dialTcp, splitAddress } from "../../transport/tcp.ts";
import { Hosts } from "../e2e/hosts.ts";
import { childrenOf, RAYD, Running } from "../e2e/rayd.ts";
import { Shim } from "./shim.ts";
import { clock } from "./registers.ts";

/** The place of the head, that of the programs, and that of a worker whose replica stays where it is. */
export const HEAD = 0, HOME = 1, KEEPER = 2;
/** How many members the control store has. */
const REPLICAS = 3;
/** How long the cluster may take to be whole again. */
const WHOLE_MS_MAX = 60_000;
/** How long a node may take to end that is told to: it drains for 30 s. */
const END_MS_MAX = 45_000;
/** The disk that can be filled. */
const DISK_BYTES = 160e6;

/** A node in its place. */
export interface Member {
  readonly running: Running;
  /** The beginning of its id. */
  readonly id: string;
  /** Where clients of the control store reach it. */
  readonly address: string;
}

/** What `rayd status --json` says of a node. */
interface Status {
  readonly id: string;
  readonly resources: Readonly<Record<string, number>>;
  readonly free: Readonly<Record<string, number>>;
  readonly queued: number;
}

/** Something went wrong that must not. */
export class ChaosError extends Error {}

/** The cluster. */
export class ChaosCluster implements AsyncDisposable {
  readonly directory: string;
  /** Hosts of a network; or why there are none, and all is on this machine's loopback. */
  readonly hosts: Hosts | string;
  /** Where the small disk is mounted; or why there is none. */
  readonly disk: { readonly path: string } | string;
  /** What can be done to processes from within; or why it cannot. */
  readonly shim: Shim | string;
  readonly token: string;
  /** What all processes have in their environment, and nobody else's. */
  readonly mark: string;
  readonly members: Member[] = [];
  readonly places: number;
  #monitor: GcsClient | undefined;
  #seen = "";
  /** All that ever ran, with their output. */
  readonly #ran: { readonly place: number; readonly running: Running }[] = [];

  private constructor(
    places: number,
    directory: string,
    hosts: Hosts | string,
    disk: { path: string } | string,
    shim: Shim | string,
  ) {
    this.places = places;
    this.directory = directory;
    this.hosts = hosts;
    this.disk = disk;
    this.shim = shim;
    this.mark = `${Deno.pid}-${Date.now()}`;
    this.token = hex(32);
  }

  /** Starts a head and workers. @param places How many nodes there are. */
  static async start(places: number): Promise<ChaosCluster> {
    const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "rayd-chaos-" }));
    const hosts = await Hosts.make(places).catch((error: Error) => error.message);
    const shim = await Shim.make(directory).catch((error: Error) => error.message);
    const disk = await mountDisk(`${directory}/${places - 1}`);
    const cluster = new ChaosCluster(places, directory, hosts, disk, shim);
    try {
      for (let place = 0; place < places; place++) await cluster.replace(place);
      await cluster.whole();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The directory of a place. */
  directoryOf(place: number): string {
    return `${this.directory}/${place}`;
  }

  /** Where the control store lies in the place of the head, or of the keeper. */
  storeOf(place: typeof HEAD | typeof KEEPER): string {
    return `${this.directoryOf(place)}/${place === HEAD ? ".rayd/head" : "replica"}`;
  }

  /** Runs the executable in a place. */
  run(place: number, args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
    const directory = this.directoryOf(place);
    for (const each of ["tmp", "cache"]) Deno.mkdirSync(`${directory}/${each}`, { recursive: true });
    const options = {
      env: {
        HOME: directory,
        TMPDIR: `${directory}/tmp`,
        RAYD_CACHE: `${directory}/cache`,
        RAYD_TOKEN: this.token,
        RAYD_CHAOS: this.mark,
        ...(typeof this.shim === "string" ? {} : this.shim.env(place)),
        ...env,
      },
    };
    const running = typeof this.hosts === "string"
      ? new Running(args, options)
      : new Running(this.hosts.on(place, [RAYD, ...args]), { ...options, executable: "ip" });
    this.#ran.push({ place, running });
    return running;
  }

  /** Starts a node in a place where none is. */
  async replace(place: number): Promise<void> {
    const host = typeof this.hosts === "string" ? "127.0.0.1" : this.hosts.address(place);
    const settings = ["--host", host, "--insecure-bind", "--log-level", "info", "--store-memory", "96MB"];
    const former = this.members[place];
    const resources = ["--cpus", "1", "--resources", "slot=4"];
    if (place === HEAD) {
      const port = former === undefined ? "0" : former.address.split(":")[1]!;
      const running = this.run(place, [
        "head",
        "--port",
        port,
        "--replicas",
        `${REPLICAS}`,
        ...settings,
        ...resources,
      ]);
      await running.printed("The token is in");
      const [, id, address] = /rayd head (\w+) is up at (\S+)/.exec(running.stdout)!;
      this.members[place] = { running, id: id!, address: address! };
    } else {
      const to = this.members.find((member, i) => member !== undefined && i !== place)!.address;
      const kept = place === KEEPER ? ["--dir", this.storeOf(place)] : [];
      const running = this.run(place, ["worker", "--address", to, ...kept, ...settings, ...resources]);
      await running.printed("instead");
      const id = /rayd worker (\w+)/.exec(running.stdout)![1]!;
      this.members[place] = { running, id, address: /use --address (\S+) instead/.exec(running.stdout)![1]! };
    }
  }

  /** Kills a place's node, and waits until nothing of it runs. */
  async kill(place: number): Promise<void> {
    const { running } = this.members[place]!;
    const hosts = childrenOf(running.pid);
    await running.kill("SIGKILL");
    await until(
      `hosts ${hosts} of a node that was killed have ended`,
      10_000,
      () => Promise.resolve(hosts.every((pid) => !isRunning(pid)) || undefined),
    );
  }

  /**
   * Lets a place's node end as SIGTERM makes it.
   *
   * @param hurryMs After how long it is told not to wait for what runs there. @returns What was wrong with that, in words.
   */
  async stop(place: number, hurryMs = END_MS_MAX): Promise<string | undefined> {
    const { running } = this.members[place]!;
    const hurry = setTimeout(() => signal(running.pid, "SIGTERM"), hurryMs);
    const timer = setTimeout(() => signal(running.pid, "SIGKILL"), END_MS_MAX);
    const { code, signal: by } = await running.kill("SIGTERM");
    clearTimeout(timer);
    clearTimeout(hurry);
    if (code === 0) return undefined;
    return `the node in place ${place} ended with status ${code}${by ? ` (${by})` : ""}`;
  }

  /** The processes of a place's node: its own, and its hosts. */
  processesOf(place: number): number[] {
    const { pid } = this.members[place]!.running;
    return [pid, ...childrenOf(pid)];
  }

  /** Whether a place's node keeps a replica of the control store, as far as is known. */
  keepsReplica(place: number): boolean {
    return this.#monitor?.map?.members.includes(this.members[place]!.address) ?? false;
  }

  /** Waits until the control store is kept by as many as it can be, any of which could be lost. */
  async redundant(): Promise<void> {
    await until("any member of the control store could be lost", WHOLE_MS_MAX, async () => {
      await this.nodes().catch(() => {}); // it is told when something changes
      return this.#monitor?.map?.deciders.length === REPLICAS || undefined;
    });
  }

  /** Opens a connection to a member of the control store; or, if it does not matter to which, to any that can be reached. */
  async connect(address: string | undefined): Promise<Deno.Conn> {
    if (address !== undefined) {
      const { hostname, port } = splitAddress(address);
      return await dialTcp(hostname, port, systemClock);
    }
    const dialling = this.members.map(({ address }) => this.connect(address));
    const first = await Promise.any(dialling);
    for (const each of dialling) each.then((conn) => conn !== first && conn.close(), () => {});
    return first;
  }

  /** What is registered in the control store. */
  async nodes(): Promise<NodeRegistration[]> {
    if (this.#monitor === undefined) {
      const id = taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16)));
      const monitor = new GcsClient({
        id,
        token: this.token,
        clock,
        connect: (address) => this.connect(address),
      });
      await monitor.start();
      this.#monitor = monitor;
    }
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new ChaosError("the control store does not answer")), 5_000);
    try {
      return (await Promise.race([this.#monitor.list(NODES), late.promise]))
        .map(({ value }) => readRegistration(value));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until the cluster is whole. @throws {ChaosError} If it does not get so, or a node has ended by itself. */
  async whole(): Promise<void> {
    let why = "";
    await until(() => `the cluster is whole (${why})`, WHOLE_MS_MAX, async () => {
      for (const [place, { running }] of this.members.entries()) {
        if (!isRunning(running.pid)) throw new ChaosError(`the node in place ${place} has ended by itself`);
      }
      try {
        const found = (await this.nodes()).map(({ id }) => id.slice(0, 8)).sort().join(" ");
        const expected = this.members.map(({ id }) => id).sort().join(" ");
        const { members = [] } = this.#monitor!.map ?? {};
        const living = members.every((member) => this.members.some(({ address }) => address === member));
        why = `nodes ${found} instead of ${expected}; the control store is kept at ${members}`;
        return found === expected && members.length === REPLICAS && living || undefined;
      } catch (error) {
        why = (error as Error).message;
        return undefined;
      }
    });
  }

  /** Waits until nothing runs, waits or is kept any more. @returns What is left, in words, if that does not come. */
  async busy(msMax: number): Promise<string[]> {
    let left: string[] = [];
    const look = async () => {
      left = [];
      for (const kind of ["tasks", "actors", "objects", "groups", "jobs"]) {
        const rows = await this.#ask(["list", kind, "--json"]) as unknown[];
        if (rows.length > 0) {
          left.push(`${rows.length} ${kind} are left: ${JSON.stringify(rows.slice(0, 3))}`);
        }
      }
      const { nodes } = await this.#ask(["status", "--json"]) as { nodes: Status[] };
      for (const { id, resources, free, queued } of nodes) {
        for (const [name, amount] of Object.entries(resources)) {
          if (free[name] !== amount) left.push(`node ${id} has ${free[name]} of ${amount} ${name} free`);
        }
        if (queued > 0) left.push(`${queued} tasks wait at node ${id}`);
      }
      return left.length === 0 || undefined;
    };
    await until("nothing is left", msMax, look).catch((error) => {
      if (left.length === 0) throw error;
    });
    return left;
  }

  /** Keeps what all nodes have now, for the logs. */
  async look(): Promise<void> {
    for (const kind of ["tasks", "objects", "actors", "groups"]) {
      const rows = await this.#ask(["list", kind, "--json"]) as object[];
      this.#seen += `--- ${kind}, when a program had waited for long\n${
        rows.map((row) => JSON.stringify(row)).join("\n")
      }\n`;
    }
    this.#seen += `--- status\n${JSON.stringify(await this.#ask(["status", "--json"]))}\n`;
  }

  /** What a command that observes the cluster prints, as JSON. */
  async #ask(args: readonly string[]): Promise<unknown> {
    await using running = this.run(HOME, args, { RAYD_ADDRESS: this.members[HOME]!.address });
    await running.ended();
    try {
      return JSON.parse(running.stdout);
    } catch {
      throw new ChaosError(`rayd ${args.join(" ")} printed no JSON: ${running.stdout}${running.stderr}`);
    }
  }

  /** What all processes wrote on standard error, by place. */
  logs(): string {
    return this.#seen +
      this.#ran.map(({ place, running }) =>
        `--- place ${place}, process ${running.pid}\n${running.stdout}\n${running.stderr}`
      ).join("\n");
  }

  /** Lets all nodes end as SIGTERM makes them. @returns Those that did not end well, in words. */
  async end(): Promise<string[]> {
    this.#monitor?.close();
    const wrong: string[] = [];
    for (const place of [...this.members.keys()].reverse()) {
      const what = await this.stop(place);
      if (what !== undefined) wrong.push(what);
    }
    return wrong;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#monitor?.close();
    for (const { running } of this.#ran) await running[Symbol.asyncDispose]();
    if (typeof this.hosts !== "string") await this.hosts[Symbol.asyncDispose]();
    if (typeof this.disk !== "string") await new Deno.Command("umount", { args: [this.disk.path] }).output();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** Mounts a small disk. @returns Where it is; or why there is none. */
async function mountDisk(path: string): Promise<{ path: string } | string> {
  Deno.mkdirSync(path);
  try {
    const args = ["-t", "tmpfs", "-o", `size=${DISK_BYTES},mode=700`, "rayd-chaos", path];
    const { success, stderr } = await new Deno.Command("mount", { args }).output();
    if (success) return { path };
    return `a small disk cannot be mounted here (${new TextDecoder().decode(stderr).trim()})`;
  } catch (error) {
    return `a small disk cannot be mounted here (${(error as Error).message})`;
  }
}

/** Waits until `look` finds something. */
export async function until<T>(
  what: string | (() => string),
  msMax: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = performance.now() + msMax;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > deadline) {
      throw new ChaosError(`not so within ${msMax / 1000} s: ${typeof what === "string" ? what : what()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Whether a process runs, be it stopped. */
export function isRunning(pid: number): boolean {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** Sends a signal to a process, unless it has ended. */
export function signal(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch {
    // It has ended.
  }
}

function hex(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
