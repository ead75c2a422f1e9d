/**
 * Lineage: what is remembered, for how long, and how it is written into the control store.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Clock, systemClock } from "../core/clock.ts";
import { ProtocolError } from "../core/errors.ts";
import { hex, type ObjectId, putId, returnId, type TaskId, taskIdFromHex } from "../core/ids.ts";
import { parseTaskOptions } from "../core/options.ts";
import { Definitions } from "../node/definitions.ts";
import type { ObjectRecord } from "../node/directory.ts";
import { Lineage } from "../node/lineage.ts";
import { HOLD_MS_MAX, LineageLog, readLineage } from "../node/lineage_log.ts";
import type { NodeParts } from "../node/parts.ts";
import { NO_CLIENT } from "../node/peers.ts";
import { Rebuilder } from "../node/rebuilder.ts";
import { TaskRecord } from "../node/tasks.ts";
import { Shapes } from "../scheduler/resources.ts";

const idOf = (n: number): TaskId => taskIdFromHex(n.toString(16).padStart(32, "0"));
const JOBS = [idOf(0xa), idOf(0xb)];

function makeTask(
  definitions: Definitions,
  n: number,
  reads: readonly ObjectId[],
  contains: readonly ObjectId[],
  job = 0,
) {
  return new TaskRecord(
    {
      handle: 0,
      task: idOf(n),
      parent: idOf(9999),
      dependencies: reads,
      args: { kind: "inline", bytes: Uint8Array.of(n & 255), contains },
    },
    JOBS[job]!,
    definitions.function({ load: "code:x", module: "file:///m.ts", name: `f${n % 3}` }),
    definitions.settings(parseTaskOptions({ retries: n % 2 }, `f${n % 3}`, false)),
    NO_CLIENT,
  );
}

Deno.test("Rebuilder keeps no task for an object that was let go of while it was looked for", () => {
  const definitions = new Definitions(new Shapes());
  const held = new Map<ObjectId, unknown>();
  const rebuilder = new Rebuilder(
    { options: {}, directory: held, actors: { answers: { unremembered: () => {} } } } as unknown as NodeParts,
  );
  const [kept, gone] = [returnId(idOf(1), 0), putId(idOf(1), 0)];
  rebuilder.lineage.remember(makeTask(definitions, 1, [], []), [kept, gone]);
  const record = { id: gone } as ObjectRecord;
  held.set(gone, record);
  rebuilder.expect(record);
  held.delete(gone);
  rebuilder.lineage.freed(gone);
  rebuilder.expect(record);
  rebuilder.lineage.freed(kept);
  assertEquals(rebuilder.lineage.size, 0);
});

Deno.test("Lineage keeps a task while something can need what it made, also by way of what was made of that", () => {
  const definitions = new Definitions(new Shapes());
  const dropped: string[] = [];
  const lineage = new Lineage(100, ({ id }) => dropped.push(hex(id)));
  const out = (n: number) => returnId(idOf(n), 0);
  lineage.remember(makeTask(definitions, 1, [], []), [out(1)]);
  lineage.remember(makeTask(definitions, 2, [out(1)], []), [out(2)]);
  lineage.remember(makeTask(definitions, 3, [], [out(2)]), [out(3)]);
  lineage.freed(out(1));
  lineage.freed(out(2));
  assertEquals([1, 2, 3].map((n) => lineage.get(idOf(n)) !== undefined), [true, true, true]);
  lineage.freed(out(3));
  assertEquals(lineage.size, 0);
  assertEquals(dropped.sort(), [1, 2, 3].map((n) => hex(idOf(n))));
});

Deno.test("Lineage keeps a task while something can need what came in its results, and no longer", () => {
  const definitions = new Definitions(new Shapes());
  const lineage = new Lineage(2, () => {});
  const out = (n: number) => returnId(idOf(n), 0);
  lineage.remember(makeTask(definitions, 1, [], []), [out(1)], [out(11)]);
  lineage.remember(makeTask(definitions, 2, [], []), [], [out(11), out(12)]);
  lineage.freed(out(1));
  assertEquals([11, 12, 13].map((n) => lineage.containerOf(out(n))?.task.id), [idOf(1), idOf(2), undefined]);
  lineage.freed(out(11));
  assertEquals([lineage.size, lineage.containerOf(out(11))], [1, undefined]);
  for (const n of [3, 4]) lineage.remember(makeTask(definitions, n, [], []), [out(n)]);
  assertEquals(lineage.containerOf(out(12)), undefined, "it was the oldest");
  lineage.freed(out(12));
  lineage.remember(makeTask(definitions, 5, [], []), [], []);
  assertEquals(lineage.size, 2);
});

/** A table whose writes end when the test says, and a clock that it sets. */
class Fake {
  readonly stored = new Map<string, Uint8Array>();
  readonly writes: (() => void)[] = [];
  readonly timers: { at: number; callback: () => void }[] = [];
  now = 0;
  readonly clock: Clock = {
    now: () => this.now,
    after: (ms, callback) => {
      this.timers.push({ at: this.now + ms, callback });
      return () => {};
    },
    turn: () => Promise.resolve(),
  };
  readonly log = new LineageLog({
    put: (job, batch, bytes) => {
      this.stored.set(`${hex(job)}/${batch}`, bytes.slice());
      return new Promise((resolve) => this.writes.push(resolve));
    },
    delete: (job, batch) => void this.stored.delete(`${hex(job)}/${batch}`),
  }, this.clock);

  pass(ms: number): void {
    this.now += ms;
    for (const timer of this.timers.splice(0)) {
      if (timer.at <= this.now) timer.callback();
      else this.timers.push(timer);
    }
  }

  async end(): Promise<void> {
    this.pass(100);
    for (const resolve of this.writes.splice(0)) resolve();
    await systemClock.turn();
  }
}

Deno.test("LineageLog has in the store what was not dropped, as it was, and nothing in the end", async () => {
  const action = fc.oneof(
    fc.record({
      kind: fc.constant("add" as const),
      job: fc.nat(1),
      reads: fc.array(fc.nat(20), { maxLength: 3 }),
    }),
    fc.record({ kind: fc.constant("drop" as const), which: fc.nat(20) }),
    fc.record({ kind: fc.constant("end" as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
      const fake = new Fake();
      const definitions = new Definitions(new Shapes());
      const live = new Map<TaskId, TaskRecord>();
      let n = 0;
      for (const act of actions) {
        if (act.kind === "add") {
          const reads = act.reads.map((read) => returnId(idOf(read), 0));
          const task = makeTask(definitions, ++n, reads.slice(1), reads.slice(0, 1), act.job);
          live.set(task.id, task);
          fake.log.add(task);
        } else if (act.kind === "drop") {
          const id = [...live.keys()][act.which];
          if (id === undefined) continue;
          live.delete(id);
          fake.log.drop(id);
        } else await fake.end();
      }
      await fake.end();
      assertEquals(fake.log.pending, false);
      const read = new Map<TaskId, TaskRecord>();
      for (const [key, bytes] of fake.stored) {
        for (const task of readLineage(bytes, new Definitions(new Shapes()))) {
          assert(key.startsWith(hex(task.job)), "a batch is of one program");
          read.set(task.id, task);
        }
      }
      for (const [id, task] of live) {
        const { parent, dependencies, args, job, fn, entry } = read.get(id)!;
        assertEquals(
          [parent, dependencies, args, job, fn.address, entry.settings],
          [task.parent, task.dependencies, task.args, task.job, task.fn.address, task.entry.settings],
        );
      }
      for (const id of live.keys()) fake.log.drop(id);
      await fake.end();
      assertEquals(fake.stored.size, 0);
    }),
    { numRuns: 100 },
  );
});

Deno.test("LineageLog makes others wait until what it has is durable, but not for a store that is away", async () => {
  const fake = new Fake();
  const definitions = new Definitions(new Shapes());
  fake.log.add(makeTask(definitions, 1, [], []));
  assertEquals(fake.log.pending, true);
  let settled = false;
  fake.log.settled().then(() => settled = true);
  assertEquals(fake.stored.size, 1, "it is written at once when somebody waits");
  await systemClock.turn();
  assertEquals(settled, false);
  // What is added meanwhile is not waited for.
  fake.log.add(makeTask(definitions, 9, [], []));
  fake.writes.shift()!();
  await systemClock.turn();
  assertEquals([settled, fake.log.pending], [true, true]);
  await fake.end();
  assertEquals(fake.log.pending, false);
  fake.log.add(makeTask(definitions, 2, [], []));
  settled = false;
  fake.log.settled().then(() => settled = true);
  fake.pass(HOLD_MS_MAX);
  await systemClock.turn();
  assertEquals([settled, fake.log.pending], [true, false]);
  fake.log.add(makeTask(definitions, 3, [], []));
  assertEquals(fake.log.pending, false, "the store is away: nobody waits for what comes now either");
  await fake.end();
});

Deno.test("LineageLog writes nothing of what is not needed any more by then", async () => {
  const fake = new Fake();
  const definitions = new Definitions(new Shapes());
  const tasks = [1, 2, 3].map((n) => makeTask(definitions, n, [], []));
  for (const task of tasks) fake.log.add(task);
  for (const { id } of tasks.slice(0, 2)) fake.log.drop(id);
  await fake.end();
  const read = [...fake.stored.values()].flatMap((bytes) =>
    readLineage(bytes, new Definitions(new Shapes()))
  );
  assertEquals(read.map(({ id }) => id), [tasks[2]!.id]);
  const others = [4, 5].map((n) => makeTask(definitions, n, [], []));
  for (const task of others) fake.log.add(task);
  for (const { id } of others) fake.log.drop(id);
  assertEquals(fake.log.pending, false, "there is nothing to wait for");
  await fake.end();
  assertEquals(fake.stored.size, 1);
});

Deno.test("readLineage refuses what is none", () => {
  const definitions = new Definitions(new Shapes());
  const fake = new Fake();
  fake.log.add(makeTask(definitions, 1, [], []));
  fake.log.settled();
  const [bytes] = [...fake.stored.values()];
  for (let length = 1; length < bytes!.length; length++) {
    try {
      readLineage(bytes!.subarray(0, length), definitions);
    } catch (error) {
      assert(error instanceof ProtocolError, String(error));
    }
  }
  assertThrows(() => readLineage(Uint8Array.of(1, 2, 3), definitions), ProtocolError);
});
