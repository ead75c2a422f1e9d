/**
 * Directories that the control store lies in: the head's, and those where workers keep their replicas of it.
 *
 * `cluster.json` says what a directory is of: the cluster, how many shards, and which member has it. A member is what is
 * on its disk, so the directory has its name, and the number of its last run. One process at a time may have a directory,
 * which a socket in the abstract namespace sees to: the kernel closes it when the process ends, however it does.
 *
 * @module
 */

import { DamagedStoreError, RaydError, UsageError } from "../core/errors.ts";
import { FOUNDER } from "../gcs/chain_config.ts";
import { readBook } from "../gcs/chain_book.ts";
import type { GcsConfig } from "../gcs/config.ts";
import { readKnownConfig } from "../gcs/known_config.ts";
import type { StoreMap } from "../gcs/protocol.ts";
import { splitAddress } from "../transport/tcp.ts";
import { type Damage, putDamageAside } from "./damaged_store.ts";
import { randomHex } from "./daemon.ts";
import { CommandLineError } from "./output.ts";

/** What `cluster.json` has. */
interface Contents {
  readonly cluster: string;
  readonly shards: number;
  /** Of a replicated store's head: how many replicas there are to be. */
  readonly replicas?: number;
  /** Of a worker's replica: 32 hexadecimal digits. */
  readonly member?: string;
  /** Of a head that lost what it had, and copies from others: who it is instead of the founder. */
  readonly successor?: string;
  /** The number of the member's last run. */
  readonly incarnation?: number;
}

/** What a control store is started with that its directory says. */
export interface StoreOf extends Pick<GcsConfig, "directory" | "cluster" | "shards" | "chain"> {
  /** The address that it had when it last ran. */
  readonly hostname?: string;
  /** What was damaged there and put aside, if anything was. */
  readonly damage?: Damage;
}

/**
 * Takes a directory for this process, until it ends or what is returned is disposed of; makes it if need be.
 *
 * @throws {UsageError} If another one has it.
 */
export function takeDirectory(directory: string): Disposable {
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { dev, ino } = Deno.statSync(directory);
  try {
    const listener = Deno.listen({ transport: "unix", path: `\0rayd-directory-${dev}-${ino}` });
    listener.unref();
    return { [Symbol.dispose]: () => listener.close() };
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new UsageError(
      `Cannot use ${directory}: another head or worker that runs here has it. Give each a --dir of its own`,
    );
  }
}

/**
 * The head's directory, with a new store if there is none.
 *
 * @throws {UsageError} If what is asked for is not what lies there.
 * @throws {DamagedStoreError} If that is damaged, and others do not have it.
 */
export function openHeadDirectory(
  directory: string,
  shards: string | undefined,
  replicas: string | undefined,
): StoreOf {
  const wanted = wholeNumber("--shards", shards ?? String(SHARDS_DEFAULT), SHARDS_MAX);
  let found = read(directory) ?? write(directory, { cluster: randomHex(16), shards: wanted });
  if (found.member !== undefined) {
    throw new UsageError(
      `Cannot start a head on ${directory}: it has a worker's replica. Start that with rayd worker --dir ${directory}, ` +
        `or give another --dir`,
    );
  }
  if (shards !== undefined && found.shards !== wanted) {
    throw new UsageError(
      `Cannot use --shards ${wanted}: the control store in ${directory} has ${found.shards}, which cannot be changed`,
    );
  }
  const count = replicas === undefined
    ? found.replicas ?? 1
    : wholeNumber("--replicas", replicas, REPLICAS_MAX);
  if (count < (found.replicas ?? 1)) {
    throw new UsageError(
      `Cannot use --replicas ${count}: the control store in ${directory} has ${found.replicas} replicas, and cannot ` +
        `have fewer`,
    );
  }
  const { cluster } = found;
  const damage = putDamageAside(directory, found.shards, found.successor ?? FOUNDER, () => {
    // Ids decide who goes first when those who leave are of no other difference: a head does.
    found = write(directory, { ...found, successor: "0".repeat(16) + randomHex(8) });
  });
  if (count === 1) return { directory, cluster, shards: found.shards, chain: undefined };
  const incarnation = incarnationAfter(found);
  write(directory, { ...found, replicas: count, incarnation });
  const chain = {
    member: found.successor ?? FOUNDER,
    incarnation,
    replicas: count,
    founds: found.successor === undefined,
    lingers: true,
    durable: true,
    seeds: [],
  };
  return { directory, cluster, shards: found.shards, chain, ...(damage === undefined ? {} : { damage }) };
}

/**
 * A worker's replica, if one lies in the directory already.
 *
 * @throws {UsageError} If something else does.
 * @throws {DamagedStoreError} If it is damaged, and others do not have it.
 */
export function openReplicaDirectory(directory: string): StoreOf | undefined {
  let found = read(directory);
  if (found === undefined) return undefined;
  const { cluster, shards } = found;
  const former = found.member;
  if (former === undefined) {
    throw new UsageError(
      `Cannot start a worker on ${directory}: a head's control store lies there. Start that with rayd head --dir ` +
        `${directory}, or give another --dir`,
    );
  }
  let member = former;
  const damage = putDamageAside(directory, shards, former, () => {
    member = randomHex(16);
    found = write(directory, { ...found!, member });
  });
  const incarnation = incarnationAfter(found);
  write(directory, { ...found, incarnation });
  const before = readBook(directory)[former];
  return {
    directory,
    cluster,
    shards,
    chain: { ...REPLICA, member, incarnation },
    ...(before === undefined ? {} : { hostname: splitAddress(before.client).hostname }),
    ...(damage === undefined ? {} : { damage }),
  };
}

/** Begins a worker's replica. @param durable Whether it is to outlast the process. @param seeds Members to begin with: HOST:PORT. */
export function makeReplicaDirectory(
  directory: string,
  durable: boolean,
  { cluster, shards }: Pick<GcsConfig, "cluster" | "shards">,
  seeds: readonly string[],
): StoreOf {
  const member = randomHex(16);
  const incarnation = Date.now();
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  write(directory, { cluster, shards, member, incarnation });
  return { directory, cluster, shards, chain: { ...REPLICA, member, incarnation, durable, seeds } };
}

const REPLICA = { replicas: undefined, founds: false, lingers: false, durable: true, seeds: [] };

/** A directory for a replica that goes with its process. */
export function temporaryReplicaDirectory(parent: string): string {
  Deno.mkdirSync(parent, { recursive: true, mode: 0o700 });
  removeLeft(parent);
  const directory = `${parent}/${prefix()}${Deno.pid}-${randomHex(8)}`;
  Deno.mkdirSync(directory, { mode: 0o700 });
  return directory;
}

/** Keeps what was to go with its process, until {@link removeNotNeeded} finds that nobody needs it. @returns Where it is now. */
export function keepReplicaDirectory(directory: string): string {
  const kept = `${directory.slice(0, directory.lastIndexOf("/"))}/${KEPT}${prefix()}${randomHex(8)}`;
  Deno.renameSync(directory, kept);
  return kept;
}

/**
 * Removes what was kept on this machine of members that a cluster goes on without: what they have is part of what it has.
 *
 * @param cluster The cluster's id. @param map Who has a part in its control store.
 */
export function removeNotNeeded(
  parent: string,
  cluster: string,
  { epoch, parts }: Pick<StoreMap, "epoch" | "parts">,
): void {
  for (const name of namesIn(parent)) {
    const directory = `${parent}/${name}`;
    if (!name.startsWith(KEPT + prefix())) continue;
    try {
      using _ = takeDirectory(directory);
      const contents = read(directory);
      const known = readKnownConfig(directory);
      if (contents?.cluster !== cluster || contents.member === undefined || known === undefined) continue;
      if (epoch < known.epoch || parts.includes(contents.member)) continue;
      Deno.removeSync(directory, { recursive: true });
    } catch (error) {
      // It is in use, or damaged; or another process that starts has removed it.
      if (!(error instanceof RaydError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

function namesIn(directory: string): string[] {
  try {
    return Array.from(Deno.readDirSync(directory), ({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

const KEPT = "kept-";

/** Machines may share a home; processes are a machine's own. */
function prefix(): string {
  return `${Deno.hostname()}.`;
}

/** Removes what processes of this machine that were killed have left. */
function removeLeft(parent: string): void {
  for (const { name } of Deno.readDirSync(parent)) {
    if (!name.startsWith(prefix())) continue;
    try {
      Deno.statSync(`/proc/${Number(name.slice(prefix().length).split("-")[0])}`);
    } catch {
      // Another process that starts may be at it, too.
      try {
        Deno.removeSync(`${parent}/${name}`, { recursive: true });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }
}

/** Runs are numbered by the clock, unless it was set back. */
function incarnationAfter({ incarnation }: Contents): number {
  return Math.max(Date.now(), (incarnation ?? 0) + 1);
}

function read(directory: string): Contents | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(fileIn(directory))) as Contents;
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new DamagedStoreError(
        `Cannot read ${
          fileIn(directory)
        }, which says whose control store lies there: ${error.message}. Put a copy of ` +
          `${directory} back that was made before, or give another --dir`,
      );
    }
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return undefined;
  }
}

function write(directory: string, contents: Contents): Contents {
  const file = fileIn(directory);
  using to = Deno.openSync(`${file}.new`, { write: true, create: true, truncate: true, mode: 0o600 });
  to.writeSync(new TextEncoder().encode(JSON.stringify(contents)));
  to.syncSync();
  Deno.renameSync(`${file}.new`, file);
  return contents;
}

function fileIn(directory: string): string {
  return `${directory}/cluster.json`;
}

function wholeNumber(option: string, text: string, max: number): number {
  const n = Number(text);
  if (Number.isInteger(n) && n >= 1 && n <= max) return n;
  throw new CommandLineError(`Cannot use ${option} ${text}: give a whole number from 1 to ${max}`);
}

const SHARDS_DEFAULT = 4;
const SHARDS_MAX = 64;
const REPLICAS_MAX = 7;
