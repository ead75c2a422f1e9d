/**
 * What runs on the cluster while tests/chaos/main.ts makes things fail: a program that does one kind of work, round after
 * round, and knows what must come out. A wrong answer, an error that is not due, and an answer that does not come end it
 * with status 1.
 *
 *     rayd run tests/chaos/load.ts KIND SEED STOP
 *
 * It prints `pause MS` while it waits for an answer for long, and goes on until the file STOP exists. Then it looks at
 * all that it has kept, and prints `done` with how many rounds there were.
 *
 * @module
 */

import {
  actor,
  type ActorHandle,
  context,
  get,
  init,
  kill,
  placementGroup,
  put,
  RaydError,
  type Ref,
  remote,
  wait,
} from "rayd";
import { random as randomFrom } from "../../bench/simulate/random.ts";

/** A task may be hit by more faults than a user's should: its node dies, or is parted from the others, again and again. */
const ANYWHERE = { spread: true, retries: 10_000 };

/** How long an answer may take, whatever fails: faults last some seconds, and what they undid has to be done again. */
const PATIENCE_MS = 90_000;
/** A wait for an answer that is worth a line. */
const PAUSE_MS = 100;
/** Errors that a node with a full disk may give, and the kinds of work that may get them: those that fill stores. */
const REFUSALS = ["OUT_OF_DISK", "STORE_FULL"], REFUSED = ["objects", "transfers"];
/** Between rounds, so that the work of the programs leaves the machine time for what is tested. */
const REST_MS = 20;

/** An array whose numbers depend on their places and on a seed. */
export function numbers(seed: number, length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => (seed * 31 + i * 17) % 65_521);
}

/** What becomes of such an array in one step. */
export function stepped(array: Float64Array, by: number): Float64Array {
  return array.map((value) => (value * 31 + by) % 65_521);
}

/** A checksum of an array. */
export function digest(array: Float64Array): number {
  let hash = 0x811c9dc5 | 0;
  for (const word of new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4)) {
    hash = Math.imul(hash ^ word, 0x01000193);
  }
  return hash >>> 0;
}

/** Keeps a CPU busy, and comes to a number. */
export function mixed(seed: number, rounds: number): number {
  let hash = seed | 0;
  for (let i = 0; i < rounds; i++) hash = Math.imul(hash ^ hash >>> 15, 0x2c1b3c6d) + i | 0;
  return hash;
}

export const mix = remote(function mix(seed: number, rounds: number): number {
  return mixed(seed, rounds);
}, ANYWHERE);

/** A sum over a tree of tasks that wait for each other. */
export const tree: { remote(depth: number, seed: number): Ref<number> } = remote(
  async function tree(depth: number, seed: number): Promise<number> {
    if (depth === 0) return mixed(seed, 1_000) & 0xff;
    const [a, b] = await get([branch.remote(depth - 1, 2 * seed), branch.remote(depth - 1, 2 * seed + 1)]);
    return a + b;
  },
  ANYWHERE,
);
const branch = tree;

function treeSum(depth: number, seed: number): number {
  if (depth === 0) return mixed(seed, 1_000) & 0xff;
  return treeSum(depth - 1, 2 * seed) + treeSum(depth - 1, 2 * seed + 1);
}

export const make = remote(function make(seed: number, length: number): Float64Array {
  return numbers(seed, length);
}, ANYWHERE);

export const step = remote(function step(array: Float64Array, by: number): Float64Array {
  return stepped(array, by);
}, ANYWHERE);

export const digestOf = remote(function digestOf(array: Float64Array): number {
  return digest(array);
}, ANYWHERE);

/** Calls that an actor remembers. */
const RECENT_MAX = 100;

/** Which run of which task this is. */
function here(): string {
  const { taskId, attempt, nodeId } = context();
  return `${taskId.slice(0, 8)}, run ${attempt} on ${nodeId.slice(0, 8)} at ${
    new Date().toISOString().slice(11, 23)
  }`;
}

/** What a call was answered: its number among all calls of its actor, and among its caller's. */
interface Counted {
  readonly n: number;
  readonly own: number;
}

class Tally {
  all = 0;
  by: Record<number, number> = {};
  /** The last calls: to be looked at when a count is wrong. */
  recent: string[] = [];
  add(caller: number, from: string): Counted {
    const own = this.by[caller] = (this.by[caller] ?? 0) + 1;
    const { taskId, nodeId, attempt, replaying } = context();
    this.recent.push(
      `${own} of caller ${caller}: call ${taskId} by ${from}, applied on ${nodeId.slice(0, 8)} at ${
        new Date().toISOString().slice(11, 23)
      } (${replaying ? "replayed, " : ""}attempt ${attempt})`,
    );
    if (this.recent.length > RECENT_MAX) this.recent.shift();
    return { n: ++this.all, own };
  }
  history(): readonly string[] {
    return this.recent;
  }
  total(): number {
    return this.all;
  }
}
export const Durable = actor(Tally, { spread: true, checkpoint: { every: 100 } });
export const Mortal = actor(Tally, { durable: false, spread: true });

export const addMany = remote(
  async function addMany(tally: ActorHandle<Tally>, caller: number, calls: number): Promise<Counted[]> {
    return await get(Array.from({ length: calls }, () => tally.add.remote(caller, here())));
  },
  ANYWHERE,
);

/** One kind of work: does a round; and at the end, without a number, looks at what it has kept. */
type Round = (round: number | undefined) => Promise<void>;

const kinds: Readonly<Record<string, (random: () => number) => Round>> = {
  tasks,
  objects,
  actors,
  transfers,
  groups,
};

/** Tasks on all nodes, and trees of tasks that wait for each other. */
function tasks(): Round {
  return async (round) => {
    if (round === undefined) return;
    const seeds = Array.from({ length: 24 }, (_, i) => round * 100 + i);
    const [values, sum] = await answer(
      Promise.all([
        get(seeds.map((seed) => mix.remote(seed, 200_000)), PATIENCE),
        get(tree.remote(4, round + 1), PATIENCE),
      ]),
    );
    seeds.forEach((seed, i) => same(`mix of ${seed}`, values[i], mixed(seed, 200_000)));
    same(`tree of round ${round}`, sum, treeSum(4, round + 1));
  };
}

/** Chains of tasks, each of which reads what the one before has made; their ends are read only much later. */
function objects(random: () => number): Round {
  const LENGTH = 20_000, STEPS = 6, KEPT = 30;
  const kept: { readonly seed: number; readonly end: Ref<Float64Array> }[] = [];
  const check = async ({ seed, end }: (typeof kept)[number]) => {
    const array = await answer(get(end, PATIENCE));
    let expected = numbers(seed, LENGTH);
    for (let by = 0; by < STEPS; by++) expected = stepped(expected, by);
    same(`chain ${seed}`, digest(array), digest(expected));
  };
  return async (round) => {
    if (round === undefined) {
      for (const each of kept) await check(each);
      return;
    }
    const seeds = [0, 1, 2].map((i) => round * 10 + i);
    const ends = seeds.map((seed) => {
      let end = make.remote(seed, LENGTH);
      for (let by = 0; by < STEPS; by++) end = step.remote(end, by);
      return end;
    });
    await answer(all(ends));
    kept.push(...ends.map((end, i) => ({ seed: seeds[i]!, end })));
    while (kept.length > KEPT) await check(kept.splice(Math.floor(random() * kept.length), 1)[0]!);
  };
}

/** Durable actors, whose every call counts once, though their isolates are killed; and others, which may die. */
function actors(random: () => number): Round {
  const tallies = [0, 1, 2].map(() => Durable.remote());
  const CALLERS = 3;
  const seen = tallies.map(() => Array.from({ length: CALLERS }, () => 0));
  const calls = tallies.map(() => 0);
  let mortal = Mortal.remote(), mortalCalls = 0;
  const count = (which: number, caller: number, counted: readonly Counted[]) => {
    for (const { own } of counted) {
      same(`call of caller ${caller} at actor ${which}`, own, ++seen[which]![caller]!);
      calls[which]!++;
    }
  };
  return async (round) => {
    if (round === undefined) {
      const totals = await answer(get(tallies.map((tally) => tally.total.remote()), PATIENCE));
      totals.forEach((total, which) =>
        same(`calls of actor ${which} that were applied`, total, calls[which])
      );
      return;
    }
    const which = Math.floor(random() * tallies.length), tally = tallies[which]!;
    if (random() < 0.05) kill(tally, { restart: true });
    const [own, ...others] = await answer(Promise.all([
      get(Array.from({ length: 10 }, () => tally.add.remote(0, "the program")), PATIENCE),
      ...Array.from({ length: CALLERS - 1 }, (_, i) => get(addMany.remote(tally, i + 1, 10), PATIENCE)),
    ]));
    try {
      [own, ...others].forEach((counted, caller) => count(which, caller, counted));
    } catch (error) {
      console.log((await get(tally.history.remote(), PATIENCE)).join("\n"));
      throw error;
    }
    try {
      const { n } = await answer(get(mortal.add.remote(0, "the program"), PATIENCE));
      if (n > ++mortalCalls) throw new Error(`Wrong: ${mortalCalls} calls of an actor were applied as ${n}`);
    } catch (error) {
      if (!(error instanceof RaydError && DEATHS.includes(error.code))) throw error;
      mortal = Mortal.remote();
      mortalCalls = 0;
    }
  };
}
const DEATHS = ["ACTOR_DIED", "ACTOR_UNAVAILABLE", "ACTOR_RESTARTING", "WORKER_CRASHED"];

/** Arrays of megabytes, made far away and read here, and made here and read far away, by two at once. */
function transfers(random: () => number): Round {
  return async (round) => {
    if (round === undefined) return;
    const length = Math.floor(100_000 + random() * 900_000);
    const expected = digest(numbers(round, length));
    const far = make.remote(round, length);
    same(`array ${round} from elsewhere`, digest(await answer(get(far, PATIENCE))), expected);
    const here = await put(numbers(round, length));
    const digests = await answer(
      get([digestOf.remote(here), digestOf.remote(far), digestOf.remote(here)], PATIENCE),
    );
    for (const each of digests) same(`array ${round} elsewhere`, each, expected);
  };
}

/** Placement groups on two nodes, with a task in each bundle, again and again; of what no other work asks for. */
function groups(): Round {
  return async (round) => {
    if (round === undefined) return;
    const bundles = [0, 1].map(() => ({ cpus: 0, resources: { slot: 1 } }));
    const group = await answer(placementGroup(bundles, { strategy: "SPREAD", timeout: PATIENCE_MS }));
    try {
      const refs = [0, 1].map((bundle) =>
        mix.options({ cpus: 0, resources: { slot: 1 }, spread: false, group, bundle }).remote(
          round + bundle,
          20_000,
        )
      );
      const values = await answer(get(refs, PATIENCE));
      values.forEach((value, bundle) =>
        same(`mix in bundle ${bundle}`, value, mixed(round + bundle, 20_000))
      );
    } finally {
      await group.remove();
    }
  };
}

const PATIENCE = { timeout: PATIENCE_MS };

/** Waits for all, without reading them. */
async function all(refs: readonly Ref<unknown>[]): Promise<void> {
  const [, pending] = await wait([...refs], { count: refs.length, timeout: PATIENCE_MS });
  if (pending.length > 0) throw new Error(`${pending.length} of ${refs.length} tasks have no outcome`);
}

/** Since when an answer is waited for. */
const waiting = new Set<{ readonly since: number }>();

/** Waits for an answer. */
async function answer<T>(promise: Promise<T>): Promise<T> {
  const wait = { since: performance.now() };
  waiting.add(wait);
  try {
    return await promise;
  } finally {
    waiting.delete(wait);
    tell(wait.since);
  }
}

/** Says how long an answer took, or has taken so far, if that is long. */
function tell(since: number): void {
  const ms = performance.now() - since;
  if (ms > PAUSE_MS) console.log(`pause ${Math.round(ms)}`);
}

function same(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw new Error(`Wrong: ${what} is ${found} instead of ${expected}`);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  const [kind = "", seed = "", stop = ""] = Deno.args;
  await using _ = await init();
  const work = kinds[kind]!(randomFrom(Number(seed)));
  let rounds = 0;
  console.log("started");
  const telling = setInterval(() => {
    for (const { since } of waiting) tell(since);
  }, PAUSE_MS);
  while (!exists(stop)) {
    try {
      await work(rounds);
    } catch (error) {
      // A node's disk was full, and said so: an answer. The next round makes another attempt.
      if (!(REFUSED.includes(kind) && error instanceof RaydError && REFUSALS.includes(error.code))) {
        throw error;
      }
      console.log(`refused ${error.code}`);
    }
    rounds++;
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
  }
  await work(undefined);
  clearInterval(telling);
  console.log(`done ${rounds}`);
}
