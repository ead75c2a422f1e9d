/**
 * What can befall a cluster: each fault chooses a victim by chance, does its harm, lasts for a while, and is healed when
 * it returns. Whether the cluster comes back to what it was is for the caller to see.
 *
 * @module
 */

import { type ChaosCluster, ChaosError, HEAD, HOME, KEEPER, signal } from "./cluster.ts";
import { damageFile } from "./disk_damage.ts";

/** A kind of fault. */
export interface Fault {
  readonly name: string;
  /** Why it cannot be tried on this cluster; `undefined` if it can. */
  impossible(cluster: ChaosCluster): Promise<string | undefined>;
  /** Does it, and heals it. @param random Gives numbers from 0 to 1. @returns What was done, in words. */
  inflict(cluster: ChaosCluster, random: () => number): Promise<string>;
}

const always = () => Promise.resolve(undefined);
const withShim = ({ shim }: ChaosCluster) => Promise.resolve(typeof shim === "string" ? shim : undefined);
const onNetwork = ({ hosts }: ChaosCluster) => Promise.resolve(typeof hosts === "string" ? hosts : undefined);

/** A node's process and its hosts vanish, and another node takes its place. */
const killOf = (name: string, choose: (cluster: ChaosCluster, random: () => number) => number): Fault => ({
  name,
  impossible: always,
  async inflict(cluster, random) {
    const place = choose(cluster, random);
    const kept = cluster.keepsReplica(place) ? ", which kept a replica" : "";
    const afterMs = random() * 3_000;
    await cluster.kill(place);
    await sleep(afterMs);
    await cluster.replace(place);
    return `${nameOf(place)}${kept}; another after ${seconds(afterMs)}`;
  },
});

/**
 * All nodes but home, in an order by chance, are stopped gently, one after the other, and others take their places. A node
 * that drains waits for its actors, too; after a while it is told to wait for nothing more.
 */
const rollingRestart: Fault = {
  name: "rolling restart",
  impossible: always,
  async inflict(cluster, random) {
    const places = Array.from({ length: cluster.places }, (_, place) => place).filter((place) =>
      place !== HOME
    );
    const went: string[] = [];
    while (places.length > 0) {
      const [place] = places.splice(Math.floor(random() * places.length), 1) as [number];
      const began = performance.now();
      const wrong = await cluster.stop(place, 500 + random() * 4_000);
      if (wrong !== undefined) throw new ChaosError(wrong);
      went.push(`${nameOf(place)} in ${seconds(performance.now() - began)}`);
      await cluster.replace(place);
      await cluster.whole();
    }
    return went.join(", ");
  },
};

/** A node's process stands still, alone or with its hosts, and goes on as if nothing had been. */
const stop: Fault = {
  name: "SIGSTOP of a node",
  impossible: always,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), ms = 200 + random() * 4_800, all = random() < 0.5;
    const pids = all ? cluster.processesOf(place) : [cluster.members[place]!.running.pid];
    for (const pid of pids) signal(pid, "SIGSTOP");
    await sleep(ms);
    for (const pid of pids) signal(pid, "SIGCONT");
    return `${nameOf(place)}${all ? " and its hosts" : ""} for ${seconds(ms)}`;
  },
};

/** All that is sent to a host and from it is lost in silence. */
const cutOff: Fault = {
  name: "partition of one host",
  impossible: onNetwork,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), ms = 200 + random() * 7_800;
    await network(cluster).link(place, "down");
    await sleep(ms);
    await network(cluster).link(place, "up");
    return `${nameOf(place)} for ${seconds(ms)}`;
  },
};

/** Two hosts cannot reach each other, and all others can. */
const part: Fault = {
  name: "partition of two hosts from each other",
  impossible: onNetwork,
  async inflict(cluster, random) {
    const one = anyPlace(cluster, random), ms = 200 + random() * 7_800;
    const other = (one + 1 + Math.floor(random() * (cluster.places - 1))) % cluster.places;
    await network(cluster).part(one, other, true);
    await sleep(ms);
    await network(cluster).part(one, other, false);
    return `${nameOf(one)} and ${nameOf(other)} for ${seconds(ms)}`;
  },
};

/** A link that comes and goes, several times a second. */
const flap: Fault = {
  name: "link that flaps",
  impossible: onNetwork,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), times = 3 + Math.floor(random() * 12);
    for (let i = 0; i < times; i++) {
      await network(cluster).link(place, "down");
      await sleep(20 + random() * 200);
      await network(cluster).link(place, "up");
      await sleep(20 + random() * 300);
    }
    return `${nameOf(place)}, ${times} times`;
  },
};

/** A link with little room, so that what is sent waits in line, and is lost when the line is long. */
const slow: Fault = shaping("slow link (tbf)", ["tbf", "rate", "8mbit", "burst", "32kb", "latency", "300ms"]);

/** A link that delays, and loses some. */
const lossy: Fault = shaping("delay and loss (netem)", ["netem", "delay", "40ms", "20ms", "loss", "2%"]);

function shaping(name: string, discipline: readonly string[]): Fault {
  return {
    name,
    async impossible(cluster) {
      if (typeof cluster.hosts === "string") return cluster.hosts;
      try {
        await cluster.hosts.shape(HOME, discipline);
        await cluster.hosts.shape(HOME, undefined);
        return undefined;
      } catch (error) {
        return (error as Error).message.trim().split("\n")[0];
      }
    },
    async inflict(cluster, random) {
      const place = anyPlace(cluster, random), ms = 500 + random() * 5_000;
      await network(cluster).shape(place, discipline);
      await sleep(ms);
      await network(cluster).shape(place, undefined);
      return `${nameOf(place)} for ${seconds(ms)}`;
    },
  };
}

/** A node's disk, with its spilled objects, its code, and its replica of the control store if it keeps one, is full. */
const fullDisk: Fault = {
  name: "full disk",
  impossible: ({ disk }) => Promise.resolve(typeof disk === "string" ? disk : undefined),
  async inflict(cluster, random) {
    if (typeof cluster.disk === "string") throw new Error(cluster.disk);
    const ms = 500 + random() * 5_500, place = cluster.places - 1;
    const ballast = `${cluster.disk.path}/ballast`;
    const kept = cluster.keepsReplica(place) ? ", which kept a replica" : "";
    const bytes = await fill(ballast);
    await sleep(ms);
    await Deno.remove(ballast);
    return `${nameOf(place)}${kept}: ${Math.round(bytes / 1e6)} MB taken for ${seconds(ms)}`;
  },
};

/** A node is killed, and what its disk has of the control store is not what was written when it is started again. */
const damagedDisk: Fault = {
  name: "damaged replica of the control store",
  impossible: always,
  async inflict(cluster, random) {
    await cluster.redundant();
    const place = random() < 0.5 ? HEAD : KEEPER, store = cluster.storeOf(place);
    const kept = cluster.keepsReplica(place) ? ", which kept a replica" : "";
    await cluster.kill(place);
    const harm: string[] = [];
    const shards = [...Deno.readDirSync(store)].filter(({ name }) => name.startsWith("shard-"))
      .map(({ name }) => name).sort();
    for (let i = 1 + Math.floor(random() * 3); i > 0 && shards.length > 0; i--) {
      const shard = shards[Math.floor(random() * shards.length)]!;
      // What others have of this file is locks, which are made anew.
      const file = `${store}/${shard}/${random() < 0.9 ? "data.mdb" : "lock.mdb"}`;
      const { bytes, what } = damageFile(Deno.readFileSync(file), random);
      Deno.writeFileSync(file, bytes);
      harm.push(`${shard}: ${what}`);
    }
    await cluster.replace(place);
    const aside = cluster.members[place]!.running.stderr.includes("is put aside in");
    return `${nameOf(place)}${kept}: ${harm.join(", ")}; ${aside ? "put aside" : "of no consequence"}`;
  },
};

/** A machine's wall clock is set, by seconds or by days, ahead or back, a few times; half of the time it stays wrong. */
const setClock: Fault = {
  name: "wall clock that is set",
  impossible: withShim,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), jumps: string[] = [];
    for (let i = 1 + Math.floor(random() * 3); i > 0; i--) {
      // From a second to a month.
      const by = (random() < 0.5 ? -1 : 1) * 1_000 * Math.pow(30 * 86_400, random());
      shim(cluster).setClock(place, by);
      jumps.push(`${by < 0 ? "back" : "ahead"} by ${seconds(Math.abs(by))}`);
      await sleep(300 + random() * 2_000);
    }
    const stays = random() < 0.5;
    if (!stays) shim(cluster).setClock(place, 0);
    return `${nameOf(place)}: ${jumps.join(", ")}${stays ? ", and it stays so" : ", and right again"}`;
  },
};

/** Bits turn over in what a node, its hosts and the programs there receive from others by TCP. */
const garbled: Fault = {
  name: "bits that turn over on the network",
  impossible: withShim,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), times = 1 + Math.floor(random() * 20);
    let turned = 0;
    for (let i = 0; i < times; i++) {
      shim(cluster).garble(place, 1);
      await sleep(random() * 300);
      turned += 1 - shim(cluster).left(place);
    }
    shim(cluster).garble(place, 0);
    return `${nameOf(place)}, ${turned} of them`;
  },
};

/** Strangers connect to all ports of a node, and send what is not of any protocol, or nothing. */
const garbage: Fault = {
  name: "garbage to all ports",
  impossible: always,
  async inflict(cluster, random) {
    const place = anyPlace(cluster, random), { id, address } = cluster.members[place]!;
    const node = (await cluster.nodes()).find((node) => node.id.startsWith(id));
    const addresses = [
      address,
      ...(node ? [node.port, node.bulkPort].map((port) => `${node.hostname}:${port}`) : []),
    ];
    const conns: Deno.Conn[] = [];
    for (let i = 0; i < 30; i++) {
      const conn = await cluster.connect(addresses[i % addresses.length]!);
      conns.push(conn);
      // It may be closed before all is sent, as it should be.
      await conn.write(rubbish(random)).catch(() => {});
    }
    await sleep(random() * 1_000);
    for (const conn of conns) conn.close();
    return `${nameOf(place)}: ${conns.length} connections to ${addresses.length} ports`;
  },
};

/** The kinds there are. A kind that is named twice is tried twice as often. */
export const FAULTS: readonly Fault[] = [
  killOf("kill -9 of a worker", ({ places }, random) => 2 + Math.floor(random() * (places - 2))),
  killOf("kill -9 of the head", () => HEAD),
  rollingRestart,
  stop,
  cutOff,
  part,
  flap,
  slow,
  lossy,
  fullDisk,
  damagedDisk,
  setClock,
  garbled,
  garbage,
];

/** Bytes of one of several kinds: none, chance, a frame that claims to be huge, one that claims to be empty. */
function rubbish(random: () => number): Uint8Array {
  const bytes = Uint8Array.from({ length: 1 + Math.floor(random() * 4_000) }, () => random() * 256);
  switch (Math.floor(random() * 4)) {
    case 0:
      return bytes.subarray(0, 1);
    case 1:
      bytes.fill(0xff, 0, 8);
      return bytes;
    case 2:
      bytes.fill(0, 0, 8);
      return bytes;
    default:
      return bytes;
  }
}

/** Writes until the disk is full. @returns How much. */
async function fill(path: string): Promise<number> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const block = new Uint8Array(1 << 20);
  let bytes = 0;
  for (let size = block.length; size > 0;) {
    try {
      bytes += await file.write(block.subarray(0, size));
    } catch {
      size >>= 1; // what is left may take less
    }
  }
  return bytes;
}

function shim({ shim }: ChaosCluster) {
  if (typeof shim === "string") throw new Error(shim);
  return shim;
}

function network({ hosts }: ChaosCluster) {
  if (typeof hosts === "string") throw new Error(hosts);
  return hosts;
}

function anyPlace({ places }: ChaosCluster, random: () => number): number {
  return Math.floor(random() * places);
}

function nameOf(place: number): string {
  return place === HEAD ? "the head" : place === HOME ? "home" : `worker ${place}`;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
