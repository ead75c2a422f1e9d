/**
 * What simulated programs do: each script's outcome is known, whatever befalls the cluster meanwhile, as long as the program's
 * own node lives.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { TaskError } from "../../../core/errors.ts";
import { HEIR_MS, JOURNAL_VALUE_BYTES_MAX } from "../../../core/limits.ts";
import { taskIdFromBytes, taskIdFromHex } from "../../../core/ids.ts";
import type { TaskOptions } from "../../../core/options.ts";
import type { Client } from "../../../runtime/client.ts";
import { entryOfHandle as entryOf, type Handle } from "../../../runtime/handle.ts";
import type { Ref } from "../../../runtime/ref.ts";
import {
  add,
  AGAIN,
  type Box,
  boxText,
  call,
  checkShelf,
  fail,
  found,
  hold,
  ledger,
  ledgerOptions,
  letGo,
  make,
  measure,
  openBox,
  read,
  type Receipt,
  receipt,
  record,
  recordAll,
  scatter,
  type Scattered,
  shelfText,
  textOf,
  tree,
  weigh,
} from "./functions.ts";
import { Book } from "./book.ts";
import type { Program, Script } from "./program.ts";

/** Options of a task that may be spread. */
function maybeSpread(program: Program): TaskOptions {
  return { ...AGAIN, ...(program.below(2) === 0 ? { spread: true } : {}) };
}

/** A graph of tasks, of which some results are read. */
export const sums: Script = async (program) => {
  const { client } = program;
  const made: { readonly ref: Ref<unknown>; readonly value: number }[] = [];
  const count = 10 + program.below(40);
  for (let i = 0; i < count; i++) {
    const terms = Array.from({ length: program.below(4) }, () => made[program.below(made.length)])
      .filter((term) => term !== undefined);
    const target = add({ ...AGAIN, ...(program.below(5) === 0 ? { spread: true } : {}) });
    const ref = client.submit(
      target,
      [program.below(3) === 0 ? 0 : program.below(40), i, ...terms.map((term) => term.ref)],
    ) as Ref<unknown>;
    made.push({ ref, value: terms.reduce((sum, { value }) => sum + value, i) });
    if (program.below(6) === 0) await program.sleep(program.below(60));
    if (program.below(8) === 0 && made.length > 5) {
      const [gone] = made.splice(program.below(made.length), 1);
      letGo(client, gone!.ref);
    }
  }
  for (const { ref, value } of made) assertEquals(await read<number>(client, ref), value, "a sum is wrong");
  for (const { ref } of made) letGo(client, ref);
};

/** Trees of tasks that wait for their children. */
export const forest: Script = async (program) => {
  const { client } = program;
  for (let i = 0; i < 1 + program.below(3); i++) {
    const depth = 1 + program.below(3), width = 1 + program.below(3);
    const ref = client.submit(tree(AGAIN), [depth, width, program.below(60)]) as Ref<unknown>;
    assertEquals(await read<number>(client, ref), width ** depth, "a tree's leaves were counted wrong");
    letGo(client, ref);
  }
};

/** Large objects that are read at once, and much later. */
export const texts: Script = async (program) => {
  const { client } = program;
  const made = Array.from({ length: 2 + program.below(4) }, (_, i) => {
    const name = `${program.name}-${i} `, size = 20_000 + program.below(60_000);
    const target = make(maybeSpread(program));
    return { name, size, ref: client.submit(target, [name, size, program.below(20)]) as Ref<unknown> };
  });
  for (let round = 0; round < 3; round++) {
    const chosen = made.filter(() => program.below(2) === 0);
    const target = measure(maybeSpread(program));
    const ref = client.submit(
      target,
      [chosen.map(({ name }) => name), ...chosen.map((each) => each.ref)],
    ) as Ref<unknown>;
    const length = chosen.reduce((sum, { size }) => sum + size, 0);
    assertEquals(await read<number>(client, ref), length, "texts have another length");
    letGo(client, ref);
    await program.sleep(program.below(1500));
  }
  for (const { ref } of made) letGo(client, ref);
};

/** Large objects that tasks put, and that are needed longer than what they came in. */
export const boxes: Script = async (program) => {
  const { client } = program;
  const made: { readonly name: string; readonly size: number; readonly box: Box }[] = [];
  for (let i = 0, count = 1 + program.below(4); i < count; i++) {
    const name = `${program.name}-box${i} `, size = 20_000 + program.below(60_000);
    const ref = client.submit(boxText(maybeSpread(program)), [name, size, program.below(20)]) as Ref<unknown>;
    made.push({ name, size, box: await read<Box>(client, ref) });
    letGo(client, ref);
  }
  for (let round = 0; round < 3; round++) {
    for (const { name, size, box } of made) {
      if (program.below(2) === 0) continue;
      if (program.below(2) === 0) {
        assertEquals(await read<string>(client, box.text), textOf(name, size), "a text is wrong");
        continue;
      }
      const ref = client.submit(openBox(maybeSpread(program)), [box, name]) as Ref<unknown>;
      assertEquals(await read<number>(client, ref), size, "a text has another length");
      letGo(client, ref);
    }
    await program.sleep(program.below(1500));
  }
  for (const { box } of made) letGo(client, box.text);
};

/** Actors that tasks have made, and that hold what those have put. */
export const shelves: Script = async (program) => {
  const { client } = program;
  const made: {
    readonly name: string;
    readonly size: number;
    readonly box: Partial<Box> & { shelf: Handle };
  }[] = [];
  for (let i = 0, count = 1 + program.below(4); i < count; i++) {
    const name = `${program.name}-shelf${i} `, size = 20_000 + program.below(60_000);
    const args = [name, size, program.below(20), program.below(2) === 0];
    const ref = client.submit(shelfText(maybeSpread(program)), args) as Ref<unknown>;
    made.push({ name, size, box: await read(client, ref) });
    letGo(client, ref);
  }
  for (let round = 0; round < 3; round++) {
    for (const { name, size, box } of made) {
      if (program.below(2) === 0) continue;
      const ref = checkShelf(client, box.shelf, name);
      assertEquals(await read<number>(client, ref), size, "a text has another length");
      letGo(client, ref);
    }
    await program.sleep(program.below(1500));
  }
  for (const { box } of made) {
    if (box.text !== undefined) letGo(client, box.text);
    letGo(client, box.shelf);
  }
};

/** Tasks that call an actor, and whose results are needed for longer than they run: they may have to run again. */
export const receipts: Script = async (program) => {
  const { client } = program;
  const book = new Book(program.name);
  const actor = ledger(client, ledgerOptions(someOptions(program)), 0);
  const made = Array.from({ length: 1 + program.below(4) }, (_, i) => {
    const name = `${program.name}-receipt${i}`, size = 20_000 + program.below(60_000);
    const args = [actor, name, 1 + program.below(3), size];
    return { name, size, ref: client.submit(receipt(maybeSpread(program)), args) as Ref<unknown> };
  });
  for (let round = 0; round < 3; round++) {
    const chosen = made.filter(() => program.below(2) === 0);
    const ref = client.submit(weigh(maybeSpread(program)), chosen.map((each) => each.ref)) as Ref<unknown>;
    const length = chosen.reduce((sum, { size }) => sum + size, 0);
    assertEquals(await read<number>(client, ref), length, "receipts have another length");
    letGo(client, ref);
    await program.sleep(program.below(1500));
  }
  for (const { name, ref } of made) {
    const { positions } = await read<Receipt>(client, ref);
    positions.forEach((position, i) => book.answered(`${name}.${i}`, position));
    letGo(client, ref);
  }
  await finish(client, actor, book, true);
  letGo(client, actor);
};

/** Tasks that submit others, which call an actor, and do not wait for them. */
export const strays: Script = async (program) => {
  const { client } = program;
  const book = new Book(program.name);
  const actor = ledger(client, ledgerOptions(someOptions(program)), 0);
  const made = Array.from({ length: 1 + program.below(4) }, (_, i) => {
    const name = `${program.name}-stray${i}`, depth = program.below(4);
    const args = [actor, name, depth, 1 + program.below(5), program.below(60)];
    return { name, depth, ref: client.submit(scatter(maybeSpread(program)), args) as Ref<unknown> };
  });
  for (const { name, depth, ref } of made) {
    await program.sleep(program.below(1500));
    let last = ref;
    for (let i = 0; i <= depth; i++) {
      const { text, rest } = await read<Scattered>(client, last);
      assertEquals(text, textOf(name, text.length), "a text is wrong");
      letGo(client, last);
      last = rest;
    }
    const positions = await read<number[]>(client, last);
    positions.forEach((position, i) => book.answered(`${name}.${i}`, position));
    letGo(client, last);
  }
  await finish(client, actor, book, true);
  letGo(client, actor);
};

/** Tasks that hold something that there is little of. */
export const slots: Script = async (program) => {
  const { client } = program;
  const refs = Array.from({ length: 5 + program.below(15) }, () => {
    const slot = 1 + program.below(2);
    const target = hold({ ...AGAIN, cpus: 0.1, resources: { slot } });
    return client.submit(target, [slot, program.below(60)]) as Ref<unknown>;
  });
  for (const ref of refs) {
    assertEquals(await read(client, ref), "held");
    letGo(client, ref);
  }
};

/** Functions that throw. */
export const failures: Script = async (program) => {
  const { client } = program;
  for (let i = 0; i < 3; i++) {
    const ref = client.submit(fail(AGAIN), [`because of ${i}`]) as Ref<unknown>;
    const after = client.submit(add(AGAIN), [0, ref]) as Ref<unknown>;
    for (const each of [ref, after]) {
      const error = await read(client, each).then(() => undefined, (error) => error);
      assert(error instanceof TaskError, `a function that throws gives ${error}`);
      assert(error.message.includes(`because of ${i}`), `another error: ${error.message}`);
      letGo(client, each);
    }
  }
};

/** A ledger of the program's own, called by the program and its tasks. */
export const ownLedger: Script = async (program) => {
  const { client } = program;
  const book = new Book(program.name);
  const actor = ledger(client, ledgerOptions(someOptions(program)), someBytes(program));
  await useLedger(program, actor, book);
  await useLater(program, actor, book);
  await finish(client, actor, book, true);
  letGo(client, actor);
};

/** A ledger that several programs find by its name, and that outlives them. */
export const sharedLedger: Script = async (program) => {
  const { client, world } = program;
  const name = `shared-${program.below(2)}`;
  const book = world.book(name); // from when on there may be one, whatever becomes of this program
  const actor = await namedLedger(program, name);
  await useLedger(program, actor, book);
  await useLater(program, actor, book);
  letGo(client, actor);
};

/** A ledger that is there under its key. */
export const keyedLedger: Script = async (program) => {
  const { client, world } = program;
  const key = program.below(2);
  const actor = keyed(client, key);
  await useLedger(program, actor, world.book(`keyed-${key}`));
  if (program.below(2) === 0) {
    await program.sleep(program.below(2000));
    await useLedger(program, actor, world.book(`keyed-${key}`), "-again");
  }
  await useLater(program, actor, world.book(`keyed-${key}`));
  letGo(client, actor);
};

/** All scripts that may come in any order; `strays` is not among them: see what is not mended in docs/simulation.md. */
export const SCRIPTS: readonly Script[] = [
  sums,
  forest,
  texts,
  boxes,
  shelves,
  receipts,
  slots,
  failures,
  ownLedger,
  ownLedger,
  sharedLedger,
  sharedLedger,
  keyedLedger,
  keyedLedger,
];

/** In the end: all ledgers that outlive their programs have what they must, and are ended. */
export const settleLedgers: Script = async (program) => {
  const { client, world } = program;
  for (const book of world.books.values()) {
    const actor = book.name.startsWith("keyed-")
      ? keyed(client, Number(book.name.slice("keyed-".length)))
      : await namedLedger(program, book.name);
    await finish(client, actor, book, !world.lostPrograms);
    client.killActor(entryOf(actor), false);
    await client.awaitDeath(entryOf(actor));
    letGo(client, actor);
  }
};

function someOptions(program: Program): Parameters<typeof ledgerOptions>[0] {
  return {
    ...(program.below(2) === 0 ? { checkpoint: { every: 1 + program.below(8) } } : {}),
    ...(program.below(3) === 0 ? { cpus: 0.5 } : {}),
    ...(program.below(3) === 0 ? { isolate: "shared" as const } : {}),
    ...(program.below(4) === 0 ? { spread: true } : {}),
  };
}

/** A state that goes with messages, or one that is an object of the store. */
function someBytes(program: Program): number {
  return program.below(2) * LARGE_BYTES;
}
const LARGE_BYTES = 20_000;

/** A further argument of a call: one that lies in the store, or one that is too large for a journal. */
function someBallast(program: Program): string[] {
  const chance = program.below(30);
  return chance > 6 ? [] : [" ".repeat(chance > 0 ? LARGE_BYTES : JOURNAL_VALUE_BYTES_MAX + 1)];
}

/** Holds a ledger for longer than those who have lost sight of others wait for them, and uses it again. */
async function useLater(program: Program, actor: Handle, book: Book): Promise<void> {
  if (program.below(3) > 0) return;
  await program.sleep(HEIR_MS * (0.6 + program.below(10) / 10));
  await useLedger(program, actor, book, "-later");
}

/** Finds a ledger by its name, or makes it. */
async function namedLedger(program: Program, name: string): Promise<Handle> {
  const { client } = program;
  for (;;) {
    const known = await client.findActor("default", name);
    if (known !== null) return found(client, taskIdFromHex(known.id));
    const actor = ledger(
      client,
      ledgerOptions({ ...someOptions(program), name, detached: true }),
      someBytes(program),
    );
    try {
      await client.value(entryOf(actor), Infinity);
      return actor;
    } catch (error) {
      if ((error as { code?: string }).code !== "ACTOR_NAME_TAKEN") throw error;
      letGo(client, actor);
    }
  }
}

function keyed(client: Client, key: number): Handle {
  const id = taskIdFromBytes(new Uint8Array(16).fill(0xa0 + key));
  return ledger(
    client,
    ledgerOptions({ idle: "300ms", detached: true, checkpoint: { every: 4 + key } }, true),
    key * LARGE_BYTES,
    id,
  );
}

/** Calls a ledger from the program itself and from tasks. */
async function useLedger(program: Program, actor: Handle, book: Book, suffix = ""): Promise<void> {
  const { client } = program;
  const name = program.name + suffix;
  const own: { readonly entry: string; readonly ref: Ref<unknown> }[] = [];
  const tasks: { readonly name: string; readonly ref: Ref<unknown>; readonly nested: boolean }[] = [];
  for (let i = 0, steps = 3 + program.below(8); i < steps; i++) {
    if (program.below(15) === 0) client.killActor(entryOf(actor), true);
    if (program.below(2) === 0) {
      const entry = `${name}.${own.length}`;
      const args = [entry, program.below(3) * program.below(10), ...someBallast(program)];
      own.push({ entry, ref: call(client, actor, "enter", args) });
    } else {
      const caller = `${name}-task${i}`;
      const options = maybeSpread(program);
      const nested = program.below(3) === 0;
      const args = nested
        ? [actor, caller, 1 + program.below(3), 1 + program.below(4)]
        : [actor, caller, 1 + program.below(6), program.below(30)];
      tasks.push({
        name: caller,
        nested,
        ref: client.submit(nested ? recordAll(options) : record(options), args) as Ref<unknown>,
      });
    }
    if (program.below(3) === 0) await program.sleep(program.below(200));
  }
  for (const { entry, ref } of own) {
    const position = await read<number>(client, ref);
    program.log(`${entry} is answered with ${position}`);
    book.answered(entry, position);
    letGo(client, ref);
  }
  for (const { name, ref, nested } of tasks) {
    const positions = await read<number[] | number[][]>(client, ref);
    letGo(client, ref);
    if (nested) {
      (positions as number[][]).forEach((each, child) =>
        each.forEach((position, i) => book.answered(`${name}-${child}.${i}`, position))
      );
    } else (positions as number[]).forEach((position, i) => book.answered(`${name}.${i}`, position));
  }
}

async function finish(client: Client, actor: Handle, book: Book, whole: boolean): Promise<void> {
  const ref = call(client, actor, "all", []);
  book.check(await read<string[]>(client, ref), whole);
  letGo(client, ref);
}
