/**
 * What simulated programs run on simulated isolates: tasks whose results can be told from their arguments, and actors that
 * remember each call. They stand under a name that needs no import, and take virtual time.
 *
 * @module
 */

import { describeClass } from "../../../runtime/actor_class.ts";
import { creationSettings, parseActorOptions, parseCallOptions } from "../../../core/actor_options.ts";
import type { ActorOptions, ActorSettings } from "../../../core/actor_options.ts";
import { parseTaskOptions, type TaskOptions, type TaskSettings } from "../../../core/options.ts";
import type { Clock } from "../../../core/clock.ts";
import type { ActorTarget, Client, RemoteTarget } from "../../../runtime/client.ts";
import { taskContext } from "../../../runtime/executor.ts";
import { entryOfHandle, Handle, makeHandle, packedDescription } from "../../../runtime/handle.ts";
import { entryOf, Ref } from "../../../runtime/ref.ts";
import { declare } from "../../../runtime/registry.ts";

const MODULE = "rayd:simulated";

/** Tasks are run again however often their nodes die. */
export const AGAIN: TaskOptions = { retries: 1_000_000 };

/** What a task finds of the isolate that it runs in. */
export interface Surrounding {
  readonly client: Client;
  readonly clock: Clock;
  /** Told of what the task holds, and that it does not hold it any more. */
  readonly holds: (amount: number) => () => void;
}

/** The isolates of all nodes, by node and number. */
export const isolates = new Map<string, Surrounding>();

function here(): Surrounding {
  const { nodeId, workerId } = taskContext()!;
  return isolates.get(`${nodeId}/${workerId}`)!;
}

/** Virtual time goes by. */
export function sleep({ clock }: Pick<Surrounding, "clock">, ms: number): Promise<void> {
  return new Promise((resolve) => clock.after(ms, resolve));
}

function task<A extends unknown[]>(
  name: string,
  fn: (...args: A) => unknown,
): (options?: TaskOptions) => RemoteTarget {
  declare({ module: MODULE, name, fn: fn as (...args: unknown[]) => unknown });
  const address = { load: MODULE, module: MODULE, name };
  const known = new Map<string, RemoteTarget>();
  return (options = {}) => {
    const key = JSON.stringify(options);
    let target = known.get(key);
    if (target === undefined) {
      known.set(key, target = { address, settings: parseTaskOptions(options, name, false) });
    }
    return target;
  };
}

/** Adds what it is given, after a while. */
export const add = task("add", async function (ms: number, ...terms: number[]) {
  if (ms > 0) await sleep(here(), ms);
  return terms.reduce((sum, term) => sum + term, 0);
});

/** A tree of tasks: as many as its leaves are. */
export const tree = task("tree", async function (depth: number, width: number, ms: number): Promise<number> {
  const { client, clock } = here();
  if (depth === 0) {
    await sleep({ clock }, ms);
    return 1;
  }
  const refs = Array.from(
    { length: width },
    () => client.submit(tree(AGAIN), [depth - 1, width, ms]) as Ref<unknown>,
  );
  try {
    const values = await Promise.all(refs.map((ref) => read<number>(client, ref)));
    return values.reduce((sum, value) => sum + value, 0);
  } finally {
    for (const ref of refs) letGo(client, ref);
  }
});

/** Text of a size that does not fit a message, and that can be told from its name. */
export function textOf(name: string, size: number): string {
  return name.repeat(Math.ceil(size / name.length)).slice(0, size);
}

/** Makes a large object. */
export const make = task("make", async function (name: string, size: number, ms: number) {
  await sleep(here(), ms);
  return textOf(name, size);
});

/** Reads large objects: how long they are, if they are as they must be. */
export const measure = task("measure", async function (names: string[], ...texts: string[]) {
  await sleep(here(), 1);
  texts.forEach((text, i) => {
    if (text !== textOf(names[i]!, text.length)) throw new Error(`text ${names[i]} is wrong`);
  });
  return texts.reduce((sum, text) => sum + text.length, 0);
});

/** What came in a box. */
export interface Box {
  readonly text: Ref<unknown>;
}

/** Puts a large object, and returns its Ref in a box. */
export const boxText = task("boxText", async function (name: string, size: number, ms: number): Promise<Box> {
  const { client, clock } = here();
  await sleep({ clock }, ms);
  const text = await client.put(textOf(name, size)) as Ref<unknown>;
  clock.after(BOX_MS, () => letGo(client, text)); // it has been sent by then
  return { text };
});
const BOX_MS = 10;

/** Reads what is in a box: how long it is, if it is as it must be. */
export const openBox = task("openBox", async function ({ text: ref }: Box, name: string) {
  const { client } = here();
  try {
    const text = await read<string>(client, ref);
    if (text !== textOf(name, text.length)) throw new Error(`text ${name} is wrong`);
    return text.length;
  } finally {
    letGo(client, ref);
  }
});

/** Calls an actor some times, and returns what came of it. */
export const record = task(
  "record",
  async function (ledger: Handle, name: string, count: number, ms: number) {
    const { client, clock } = here();
    const results: Ref<unknown>[] = [];
    try {
      for (let i = 0; i < count; i++) {
        results.push(call(client, ledger, "enter", [`${name}.${i}`, ms]));
        if (ms > 0) await sleep({ clock }, ms);
      }
      return await Promise.all(results.map((ref) => read<number>(client, ref)));
    } finally {
      for (const ref of results) letGo(client, ref);
      client.disown(ledger, entryOfHandle(ledger));
    }
  },
);

/** What an actor answered to a task, in an object that is large. */
export interface Receipt {
  readonly positions: readonly number[];
  readonly text: string;
}

/** As {@link record}; what it returns may have to be made again, long after it has ended. */
export const receipt = task(
  "receipt",
  async function (ledger: Handle, name: string, count: number, size: number): Promise<Receipt> {
    const { client } = here();
    const positions: number[] = [];
    try {
      for (let i = 0; i < count; i++) {
        const ref = call(client, ledger, "enter", [`${name}.${i}`, 1]);
        positions.push(await read<number>(client, ref).finally(() => letGo(client, ref)));
      }
      return { positions, text: textOf(name, size) };
    } finally {
      client.disown(ledger, entryOfHandle(ledger));
    }
  },
);

/** Reads receipts: how long their texts are. */
export const weigh = task("weigh", async function (...receipts: Receipt[]) {
  await sleep(here(), 1);
  return receipts.reduce((sum, { text }) => sum + text.length, 0);
});

/** Has others call an actor, and waits for them. */
export const recordAll = task(
  "recordAll",
  async function (ledger: Handle, name: string, children: number, count: number) {
    const { client } = here();
    const refs = Array.from(
      { length: children },
      (_, i) => client.submit(record(AGAIN), [ledger, `${name}-${i}`, count, i]) as Ref<unknown>,
    );
    try {
      return await Promise.all(refs.map((ref) => read<number[]>(client, ref)));
    } finally {
      for (const ref of refs) letGo(client, ref);
      client.disown(ledger, entryOfHandle(ledger));
    }
  },
);

/** What a task has that does not wait for the one it has submitted. */
export interface Scattered {
  readonly text: string;
  /** Of another one of these, or of what {@link record} returns. */
  readonly rest: Ref<unknown>;
}

/** Has another task call an actor, at so many removes, and waits for none of them: most end after whoever submitted them. */
export const scatter = task(
  "scatter",
  async function (
    ledger: Handle,
    name: string,
    depth: number,
    count: number,
    ms: number,
  ): Promise<Scattered> {
    const { client, clock } = here();
    const rest =
      (depth > 0
        ? client.submit(scatter(AGAIN), [ledger, name, depth - 1, count, ms])
        : client.submit(record(AGAIN), [ledger, name, count, ms])) as Ref<unknown>;
    client.disown(ledger, entryOfHandle(ledger));
    await sleep({ clock }, depth * count * ms);
    clock.after(BOX_MS, () => letGo(client, rest));
    return { text: textOf(name, SCATTERED_BYTES), rest };
  },
);
const SCATTERED_BYTES = 20_000;

/** Holds so much of the resource "slot" for a while. */
export const hold = task("hold", async function (slots: number, ms: number) {
  const surrounding = here();
  const release = surrounding.holds(slots);
  await sleep(surrounding, ms);
  release();
  return "held";
});

/** Fails, as user code may. */
export const fail = task("fail", async function (why: string) {
  await sleep(here(), 1);
  throw new RangeError(why);
});

/** An actor that knows what was entered, in order. */
class Ledger {
  entries: string[] = [];
  /** What makes its state large. */
  ballast: string;

  constructor(bytes: number) {
    this.ballast = " ".repeat(bytes);
  }

  /** @param _ballast Makes the call large. @returns How many entries there are then. */
  async enter(name: string, ms: number, _ballast?: string): Promise<number> {
    if (ms > 0) await sleep(here(), ms);
    return this.entries.push(name);
  }

  all(): string[] {
    return [...this.entries];
  }
}

const LEDGER = { load: MODULE, module: MODULE, name: "Ledger" };
declare({ module: MODULE, name: "Ledger", fn: Ledger as unknown as (...args: unknown[]) => unknown });
const LEDGER_CLASS = packedDescription(describeClass(Ledger as never, LEDGER));
const LEDGER_SETTINGS = creationSettings("Ledger");
const methods = new Map<string, TaskSettings>();

/** Makes a ledger. @param bytes What its state takes at least. @returns Its handle. */
export function ledger(
  client: Client,
  actor: ActorSettings,
  bytes: number,
  id = client.nextChild(),
): Handle {
  const target: ActorTarget = { address: LEDGER, settings: LEDGER_SETTINGS, actor };
  return makeHandle(client, LEDGER_CLASS, client.createActor(target, id, [bytes]));
}

/** What a ledger asks for. */
export function ledgerOptions(options: ActorOptions, virtual = false): ActorSettings {
  return parseActorOptions(options, "Ledger", virtual);
}

/** A handle of an actor that was found by its name. */
export function found(client: Client, id: Parameters<Client["heldActor"]>[0]): Handle {
  return makeHandle(client, LEDGER_CLASS, client.heldActor(id));
}

/** Calls a ledger. */
export function call(client: Client, actor: Handle, method: string, args: readonly unknown[]): Ref<unknown> {
  return callMethod(client, actor, LEDGER, method, args);
}

function callMethod(
  client: Client,
  actor: Handle,
  of: typeof LEDGER,
  method: string,
  args: readonly unknown[],
): Ref<unknown> {
  const name = `${of.name}.${method}`;
  let settings = methods.get(name);
  if (settings === undefined) methods.set(name, settings = parseCallOptions({}, name, false, undefined));
  const address = { ...of, name: `${of.name}#${method}` };
  return client.submit({ address, settings }, args, entryOfHandle(actor)) as Ref<unknown>;
}

/** An actor that holds a Ref. */
class Shelf {
  kept: [Ref<unknown>] | undefined;

  async keep(kept: [Ref<unknown>], name: string): Promise<void> {
    this.kept = kept;
    await this.check(name);
  }

  /** Reads it: how long it is, if it is as it must be. */
  async check(name: string): Promise<number> {
    const text = await read<string>(here().client, this.kept![0]);
    if (text !== textOf(name, text.length)) throw new Error(`text ${name} is wrong`);
    return text.length;
  }
}

const SHELF = { load: MODULE, module: MODULE, name: "Shelf" };
declare({ module: MODULE, name: "Shelf", fn: Shelf as unknown as (...args: unknown[]) => unknown });
const SHELF_CLASS = packedDescription(describeClass(Shelf as never, SHELF));
const SHELF_SETTINGS = creationSettings("Shelf");

/** As {@link boxText}, with an actor of the task's own that holds the object as well; or alone, unless it `gives` it. */
export const shelfText = task(
  "shelfText",
  async function (
    name: string,
    size: number,
    ms: number,
    gives: boolean,
  ): Promise<Partial<Box> & { shelf: Handle }> {
    const { client, clock } = here();
    await sleep({ clock }, ms);
    const text = await client.put(textOf(name, size)) as Ref<unknown>;
    const actor = parseActorOptions({ spread: true }, SHELF.name, false);
    const target: ActorTarget = { address: SHELF, settings: SHELF_SETTINGS, actor };
    const shelf = makeHandle(client, SHELF_CLASS, client.createActor(target, client.nextChild(), []));
    const kept = callMethod(client, shelf, SHELF, "keep", [[text], name]);
    try {
      await read(client, kept);
    } finally {
      letGo(client, kept);
      clock.after(BOX_MS, () => {
        letGo(client, text);
        letGo(client, shelf);
      });
    }
    return gives ? { text, shelf } : { shelf };
  },
);

/** Has a shelf read what it holds. */
export function checkShelf(client: Client, shelf: Handle, name: string): Ref<unknown> {
  return callMethod(client, shelf, SHELF, "check", [name]);
}

/** The value of a Ref. */
export function read<T>(client: Client, ref: Ref<unknown>): Promise<T> {
  return client.value(entryOf(ref), Infinity) as Promise<T>;
}

/** Lets go of a Ref or a handle. */
export function letGo(client: Client, what: Ref<unknown> | Handle): void {
  client.disown(what, what instanceof Handle ? entryOfHandle(what) : entryOf(what));
}
