/**
 * Objects whose node is gone, and that are made again: however often that happens, and whatever happens in between, whoever
 * waits for one gets it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { RaydError } from "../core/errors.ts";
import { type ObjectId, returnId, type TaskId, taskIdFromBytes } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { ObjectDirectory } from "../node/directory.ts";
import { Objects } from "../node/objects.ts";
import type { NodeParts } from "../node/parts.ts";

const TASK = taskIdFromBytes(new Uint8Array(16).fill(7));
const OBJECT: ObjectId = returnId(TASK, 0);
const STORED: Outcome = { kind: "stored", size: 1000, contains: [] };
const PROGRAM = 1, PEER = 5;

/** A node with one object, whose bytes were on a peer that is gone. */
function node() {
  const directory = new ObjectDirectory({ freed: () => {}, pending: () => undefined });
  const tasks = new Map<TaskId, unknown>(), here = new Set<ObjectId>();
  let runs = 0;
  const objects = new Objects({
    directory,
    tasks,
    closed: false,
    clock: { now: () => 0, after: () => () => {}, turn: () => Promise.resolve() },
    store: { has: (id: ObjectId) => here.has(id) },
    options: {
      spillPath: "/nowhere",
      abroad: {
        pull: (_: TaskId, id: ObjectId) => {
          here.add(id);
          return Promise.resolve(undefined);
        },
      },
    },
    cluster: { nodeOf: (client: number) => client === PEER ? TASK : undefined, want: () => {} },
    rebuilder: {
      makes: () => true,
      expect: () => {},
      rebuildAnyhow: () => {
        runs++;
        tasks.set(TASK, {});
        return Promise.resolve(undefined);
      },
    },
    copies: { seek: () => Promise.resolve({ maker: undefined, later: false }) },
    flush: () => {},
  } as unknown as NodeParts);
  const record = directory.add(OBJECT, PROGRAM);
  directory.seal(record, STORED);
  directory.sealed(record);
  return {
    record,
    tasks,
    objects,
    runs: () => runs,
    bring(): Promise<{ error: RaydError | undefined }> {
      return objects.bring(record).then((error) => ({ error }));
    },
    /** The task has made it again, on a peer. @param stays Whether the peer is there still when anybody can look. */
    made(stays: boolean): void {
      tasks.delete(TASK);
      assertEquals(directory.seal(record, STORED), true, "nobody knew that it is lost");
      directory.sealed(record);
      record.home = stays ? PEER : undefined;
      for (const resolve of objects.remade.get(OBJECT) ?? []) resolve();
      objects.remade.delete(OBJECT);
    },
  };
}

/** Lets everything go on that need not wait for anybody. */
async function turn(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

Deno.test("an object is waited for that is being made again for another reason already", async () => {
  const { bring, made, tasks, runs } = node();
  tasks.set(TASK, {});
  const brought = bring();
  await turn();
  made(true);
  assertEquals(await brought, { error: undefined });
  assertEquals(runs(), 0);
});

Deno.test("an object is made once more when the node that has made it again is gone at once", async () => {
  const { bring, made, runs } = node();
  const brought = bring();
  await turn();
  made(false);
  await turn();
  made(true);
  assertEquals(await brought, { error: undefined });
  assertEquals(runs(), 2);
});

Deno.test("an object that is to be made yet is waited for", async () => {
  const { bring, made, record, tasks } = node();
  tasks.set(TASK, {});
  record.outcome = undefined;
  record.pending = true;
  record.uses++;
  const brought = bring();
  await turn();
  made(true);
  assertEquals(await brought, { error: undefined });
});
