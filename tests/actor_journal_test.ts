/**
 * Actors across nodes, without nodes: the bytes of journals, who is given an actor whose node is gone, and for how long
 * answers are kept for callers elsewhere.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { systemClock } from "../core/clock.ts";
import { ProtocolError } from "../core/errors.ts";
import { hex, returnId, type TaskId, taskIdFromBytes, taskIdFromHex } from "../core/ids.ts";
import { JOURNAL_VALUE_BYTES_MAX } from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import { parseActorOptions } from "../core/actor_options.ts";
import { parseTaskOptions } from "../core/options.ts";
import { shardOf } from "../gcs/shard.ts";
import { ActorJournals, type JournalServices } from "../node/actor_journal.ts";
import { type JournalItem, JournalWriter, readJournal } from "../node/actor_journal_format.ts";
import { ActorMover } from "../node/actor_mover.ts";
import { CallRecord, NodeActor } from "../node/actor_records.ts";
import type { ActorPlace, ActorRegistry, JournalChange } from "../node/actor_registry.ts";
import { AnswerBook, type FarCall } from "../node/answers.ts";
import { Definitions } from "../node/definitions.ts";
import { ObjectDirectory } from "../node/directory.ts";
import { NO_FAULTS } from "../node/faults.ts";
import type { Located } from "../node/far_actors.ts";
import { NO_CLIENT } from "../node/peers.ts";
import { TaskRecord } from "../node/tasks.ts";
import { Shapes } from "../scheduler/resources.ts";

const idOf = (n: number): TaskId => taskIdFromHex(n.toString(16).padStart(32, "0"));
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(taskIdFromBytes);
const inline = fc.record({
  kind: fc.constant("inline" as const),
  bytes: fc.uint8Array({ maxLength: 20 }),
  contains: fc.array(id.map((task) => returnId(task, 1)), { maxLength: 2 }),
});
const item = fc.oneof(
  fc.record({
    kind: fc.constant("call" as const),
    task: id,
    parent: id,
    job: id,
    name: fc.constantFrom("A#f", "A#g"),
    args: inline,
    dependencies: fc.array(fc.record({ object: id.map((task) => returnId(task, 0)), outcome: inline })),
  }),
  fc.record({ kind: fc.constant("withdrawn" as const), call: id }),
  fc.record({
    kind: fc.constant("answer" as const),
    job: id,
    object: id.map((task) => returnId(task, 2)),
    outcome: inline,
  }),
);

Deno.test("a journal is read as it was written, and refused when it was cut short", () => {
  fc.assert(fc.property(fc.array(item, { maxLength: 8 }), fc.nat(), (items, first) => {
    const definitions = new Definitions(new Shapes());
    const writer = new JournalWriter();
    const expected: unknown[] = [];
    for (const each of items) {
      if (each.kind === "withdrawn") writer.withdrawn(each.call);
      else if (each.kind === "answer") writer.answer(each.job, each.object, each.outcome);
      else {
        const { task, parent, job, name, args, dependencies } = each;
        const address = { load: "code:x", module: "file:///m.ts", name };
        const settings = parseTaskOptions({}, name, false);
        const submitted = {
          handle: 3,
          task,
          parent,
          args,
          dependencies: dependencies.map(({ object }) => object),
        };
        const record = new TaskRecord(
          submitted,
          job,
          definitions.function(address),
          definitions.settings(settings),
          NO_CLIENT,
        );
        writer.call({ task: record, args, dependencies });
        expected.push({ kind: "call", task, parent, job, address, settings, args, dependencies });
        continue;
      }
      expected.push(each);
    }
    const bytes = writer.bytes({ first });
    const { header, items: read } = readJournal(bytes);
    assertEquals(header.first, first);
    assertEquals(read.map(plain), expected);
    for (let cut = 0; cut < bytes.length; cut++) {
      try {
        // Cut between two messages it is a shorter journal, which is why each is written in one transaction.
        assertEquals(readJournal(bytes.subarray(0, cut)).items.length < items.length, true);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }
  }));
  assertThrows(() => readJournal(new Uint8Array(3)), ProtocolError, "cut off");
  assertThrows(() => readJournal(Uint8Array.of(9, 0, 0, 0, 1)), ProtocolError, "cut off");
});

function plain(item: JournalItem): unknown {
  if (item.kind !== "call") return item;
  const { message: { task, parent, args, dependencies }, job, address, settings } = item;
  return { kind: "call", task, parent, job, address, settings, args, dependencies };
}

Deno.test("keys with the same text in braces are in one shard, and the others are spread", () => {
  fc.assert(fc.property(fc.nat().map((n) => n.toString(16)), fc.string(), fc.string(), (tag, a, b) => {
    const [left, right] = [a.replaceAll("{", ""), b];
    assertEquals(shardOf(`${left}{${tag}}${right}`, 7), shardOf(`x/{${tag}}`, 7));
  }));
  assertEquals(new Set(Array.from({ length: 100 }, (_, i) => shardOf(`actor/{${hex(idOf(i))}}`, 4))).size, 4);
});

const PLACE: ActorPlace = {
  node: hex(idOf(1)),
  moves: 0,
  job: hex(idOf(90)),
  label: "A",
  namespace: "default",
  name: "",
  outlives: false,
  needs: { demand: {} },
};

/** A mover, with what it did. */
function mover(
  options: {
    place?: Partial<ActorPlace>;
    target?: TaskId;
    runs?: boolean;
    leads?: boolean;
    far?: boolean;
    home?: TaskId;
    waits?: boolean;
    refused?: boolean;
  },
) {
  const did: string[] = [];
  const places = new Map<TaskId, Located>([[idOf(5), {
    place: { ...PLACE, ...options.place },
    revision: 7,
  }]]);
  let now = 0, runs = options.runs ?? true;
  const registry = {
    jobNode: () => Promise.resolve(runs ? hex(options.home ?? idOf(2)) : undefined),
    assign: (_: TaskId, revision: number, { node, moves }: ActorPlace) => {
      did.push(`assign ${revision} to ${Number.parseInt(node, 16)}, move ${moves}`);
      return Promise.resolve(options.refused !== true);
    },
    remove: () => {
      did.push("remove");
      return Promise.resolve(true);
    },
    releaseName: (_: string, name: string) => did.push(`release ${name}`),
  } as unknown as ActorRegistry;
  const machine = new ActorMover({
    id: hex(idOf(2)),
    registry,
    crowdedOut: (ms) => options.waits === true && now >= ms ? [idOf(5)] : [],
    passOn: () => {},
    holdBack: () => {
      did.push("hold back");
      return Promise.resolve();
    },
    letBe: () => did.push("let be"),
    clock: { ...systemClock, now: () => now },
    actors: { places, placeAgain: () => options.target },
    leads: () => options.leads ?? true,
    isThere: (node) => node === hex(idOf(2)),
    farJobs: () => options.far === true ? [idOf(90)] : [],
    jobGone: () => did.push("job gone"),
    log: (level) => {
      if (level === "warn") did.push("warn");
    },
  });
  return {
    did,
    machine,
    async look(at: number, running = runs) {
      now = at;
      runs = running;
      machine.look();
      await systemClock.turn();
    },
  };
}

Deno.test("an actor whose node is gone is given to another by the one node that does so", async () => {
  const moves = mover({ target: idOf(2) });
  await moves.look(0);
  assertEquals(moves.did, ["assign 7 to 2, move 1"]);
  const elsewhere = mover({ target: idOf(2), place: { node: hex(idOf(2)) } });
  await elsewhere.look(0);
  const follower = mover({ target: idOf(2), leads: false });
  await follower.look(0);
  assertEquals([...elsewhere.did, ...follower.did], []);
});

Deno.test("an actor that has waited here for what another node has goes there, whoever leads", async () => {
  const here = { node: hex(idOf(2)) };
  const waits = mover({ target: idOf(3), place: here, waits: true, leads: false });
  await waits.look(999);
  assertEquals(waits.did, []);
  await waits.look(1_000);
  assertEquals(waits.did, ["hold back", "assign 7 to 3, move 1"]);
  const given = mover({ target: idOf(3), place: here, waits: true, refused: true });
  await given.look(1_000);
  assertEquals(given.did, ["hold back", "assign 7 to 3, move 1", "let be"]);
  const nowhere = mover({ place: here, waits: true });
  const stays = mover({ target: idOf(2), place: here, waits: true });
  const gone = mover({ target: idOf(3), place: { node: hex(idOf(4)) }, waits: true, leads: false });
  for (const each of [nowhere, stays, gone]) await each.look(1_000);
  assertEquals([...nowhere.did, ...stays.did, ...gone.did], []);
});

Deno.test("an actor that no node can have waits, and is told of once", async () => {
  const waits = mover({});
  await waits.look(0);
  await waits.look(1_000);
  assertEquals(waits.did, ["warn"]);
  assertEquals([...waits.machine.homeless], [idOf(5)]);
});

Deno.test("an actor whose program is gone as well is removed, though not at once; a detached one goes on", async () => {
  const forsaken = mover({ runs: false, target: idOf(2), place: { name: "hits" } });
  await forsaken.look(0);
  await forsaken.look(59_000);
  assertEquals(forsaken.did, []);
  await forsaken.look(60_000);
  assertEquals(forsaken.did, ["release hits", "remove"]);
  const detached = mover({ runs: false, target: idOf(2), place: { outlives: true } });
  await detached.look(0);
  assertEquals(detached.did, ["assign 7 to 2, move 1"]);
});

Deno.test("an actor is not moved from the node that its program is connected to, which may come back with both", async () => {
  const both = mover({ target: idOf(2), home: idOf(1) });
  await both.look(0);
  await both.look(59_000);
  assertEquals(both.did, []);
  const detached = mover({ target: idOf(2), home: idOf(1), place: { outlives: true } });
  await detached.look(0);
  assertEquals(detached.did, ["assign 7 to 2, move 1"]);
});

Deno.test("actors end whose program has not been running for long, and not when it was only away twice", async () => {
  const away = mover({ leads: false, far: true });
  for (const [at, runs] of [[0, false], [15_000, true], [31_000, false], [32_000, true]] as const) {
    await away.look(at, runs);
  }
  assertEquals(away.did, []);
  const gone = mover({ leads: false, far: true, runs: false });
  await gone.look(0);
  await gone.look(29_000);
  assertEquals(gone.did, []);
  await gone.look(30_000);
  assertEquals(gone.did, ["job gone"]);
});

/** A book of answers of a node with these tasks. */
function book(...running: readonly (readonly [task: number, parent: number])[]) {
  const definitions = new Definitions(new Shapes());
  const tasks = new Map<TaskId, TaskRecord>();
  const run = (...pairs: readonly (readonly [task: number, parent: number])[]) => {
    for (const [task, parent] of pairs) {
      const submitted = {
        handle: 0,
        task: idOf(task),
        parent: idOf(parent),
        dependencies: [],
        args: { kind: "inline" as const, bytes: new Uint8Array(), contains: [] },
      };
      const fn = definitions.function({ load: "code:x", module: "file:///m.ts", name: "f" });
      const entry = definitions.settings(parseTaskOptions({}, "f", false));
      const record = new TaskRecord(submitted, idOf(90), fn, entry, NO_CLIENT);
      tasks.set(idOf(task), record);
      const submitter = tasks.get(idOf(parent));
      if (submitter !== undefined) answers.submits(submitter, record);
    }
  };
  const kept: FarCall[] = [], forgotten: FarCall[] = [];
  const directory = new ObjectDirectory({ freed: () => {}, pending: () => undefined });
  const remembered = new Map<TaskId, TaskRecord>();
  const answers = new AnswerBook(
    tasks,
    directory,
    (id) => remembered.get(id),
    (call) => kept.push(call),
    (call) => forgotten.push(call),
    () => 0,
  );
  run(...running);
  const call = (parent: number, n: number) => {
    const far = { actor: { id: idOf(50) }, parent: idOf(parent), id: idOf(n), forgetDone: false };
    answers.expectFar(far as never);
    return far;
  };
  const end = (task: number) => {
    const record = tasks.get(idOf(task))!;
    tasks.delete(idOf(task));
    record.finished = true;
    answers.leaves(record);
    answers.finished(record);
  };
  /** What a task has made is needed. @returns Says that it is not any more. */
  const remember = (task: number) => {
    const record = tasks.get(idOf(task))!;
    remembered.set(record.id, record);
    return () => {
      remembered.delete(record.id);
      answers.unremembered(record);
    };
  };
  return { answers, kept, forgotten, call, end, remember, run, tasks };
}

Deno.test("answers of another node's actor are asked to be kept until no caller can be run again", () => {
  const { call, end, forgotten } = book([1, 90], [2, 1]);
  assertEquals(call(90, 100).forgetDone, true, "a program asks once");
  assertEquals(call(2, 101).forgetDone, false);
  end(2);
  assertEquals(forgotten, [], "task 1 may be run again, and submits task 2 then");
  end(1);
  assertEquals(forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("a task that another node has submitted leaves its calls to that node", () => {
  const there = book([2, 1]);
  there.call(2, 101);
  const task = there.tasks.get(idOf(2))!;
  const calls = there.answers.bequeath(task);
  there.end(2);
  assertEquals(calls, [{ actor: idOf(50), call: idOf(101) }]);
  assertEquals(there.forgotten, []);
  const here = book([1, 90], [2, 1]);
  here.tasks.get(idOf(2))!.bequeathed = calls;
  here.end(2);
  assertEquals(here.forgotten, []);
  here.end(1);
  assertEquals(here.forgotten, calls);
});

Deno.test("a task whose node is gone leaves the answers of its calls, and of what it has submitted, to its next run", () => {
  const here = book([1, 90], [2, 1], [3, 2]);
  here.call(3, 101);
  here.end(1); // as its node is gone; the others still run
  here.answers.abandon(idOf(1));
  here.end(2);
  here.end(3);
  assertEquals(here.forgotten, []);
  // It runs here once more, and to its end.
  here.run([1, 90], [2, 1], [3, 2]);
  here.call(3, 101);
  for (const n of [3, 2, 1]) here.end(n);
  assertEquals(here.forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("answers are kept for as long as what their caller has made may have to be made again", () => {
  const { call, end, forgotten, remember } = book([1, 90], [2, 1]);
  call(2, 101);
  const two = remember(2), one = remember(1);
  end(2);
  end(1);
  one();
  assertEquals(forgotten, [], "task 2 may be run again");
  two();
  assertEquals(forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("answers are kept for whoever would submit their caller again", () => {
  const here = book([1, 90], [2, 1], [3, 2]);
  here.call(3, 101);
  const one = here.remember(1), three = here.remember(3);
  for (const n of [3, 2, 1]) here.end(n);
  three();
  assertEquals(here.forgotten, [], "task 1 may be run again, and all that it has submitted");
  one();
  assertEquals(here.forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("answers of a task that outlives who submitted it are kept for whoever submitted that", () => {
  const here = book([1, 90], [2, 1], [3, 2], [4, 3]);
  here.call(4, 101);
  const four = here.remember(4);
  for (const n of [2, 3, 4]) here.end(n);
  four();
  assertEquals(here.forgotten, [], "task 1 may be run again, and all that comes of it");
  here.end(1);
  assertEquals(here.forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("answers stay that pass to a task whose node is gone, of one that could have been run again here", () => {
  const here = book([1, 90], [2, 1]);
  here.call(2, 101);
  const two = here.remember(2);
  here.end(2);
  here.tasks.get(idOf(1))!.foreign = true;
  here.answers.abandon(idOf(1));
  here.end(1);
  two();
  assertEquals(here.forgotten, []);
});

Deno.test("a task counts what it has submitted, and what came of that, and has not ended", () => {
  for (const isRemembered of [false, true]) {
    const { answers, tasks, end, run, remember } = book([1, 90], [2, 1], [3, 2], [4, 3], [5, 1]);
    const one = tasks.get(idOf(1))!;
    const counts = [one.children];
    for (const n of [2, 3]) {
      if (isRemembered) remember(n);
      end(n);
      counts.push(one.children);
    }
    run([6, 90]);
    const six = tasks.get(idOf(6))!;
    answers.submits(six, tasks.get(idOf(4))!); // once more
    counts.push(one.children, six.children);
    end(5);
    end(4);
    counts.push(one.children, six.children);
    assertEquals(counts, [2, 2, 2, 1, 1, 0, 0]);
  }
});

Deno.test("of tasks that each submit the next one, the last does not hold those that nobody remembers", () => {
  for (const order of ["remembered for a while", "never remembered"] as const) {
    const { tasks, run, end, remember } = book();
    let needless: (() => void)[] = [];
    let last: TaskRecord | undefined;
    for (let n = 1; n <= 60; n++) {
      run([n, n - 1]);
      last = tasks.get(idOf(n))!;
      if (n > 1 && order === "remembered for a while") needless.push(remember(n - 1));
      if (n > 1) end(n - 1);
      if (needless.length < 10) continue;
      const newest = needless.pop()!;
      for (const each of needless) each();
      needless = [newest];
    }
    let held = 0;
    for (let each = last; each !== undefined; each = each.submitter) held++;
    assert(held < 15, `the last of 60 holds ${held}: ${order}`);
  }
});

Deno.test("an answer that nobody will ask for when it is given is not kept; nor one that all have let go of", () => {
  const { answers, tasks, run, end } = book([1, 90]);
  const { record } = journals();
  const make = (n: number, parent = 1) => {
    const call = record(idOf(n));
    tasks.set(call.id, call);
    Object.assign(call, { parent: idOf(parent) });
    answers.expect(call);
    return () => {
      tasks.delete(call.id);
      call.finished = true;
      answers.finished(call);
    };
  };
  const answer = [101, 102, 103].map((n) => make(n));
  assertEquals(answers.bequeath(tasks.get(idOf(1))!).length, 3, "those that are not answered yet, too");
  answers.keep(idOf(102));
  for (const n of [101, 102]) answers.end(idOf(n));
  for (const each of answer) each();
  assertEquals([101, 102, 103].map((n) => answers.answerOf(idOf(n)) !== undefined), [false, true, true]);
  answers.end(idOf(102));
  answers.end(idOf(103));
  assertEquals([answers.size, answers.hasEnded(idOf(1))], [0, true]);
  run([2, 90]);
  const late = make(104, 2);
  end(2);
  late();
  assertEquals(answers.size, 0, "task 2 has ended for good before its call was answered");
});

Deno.test("answers that two nodes may ask for again are kept for both", () => {
  const { answers } = book();
  const { actor } = journals();
  answers.enter(actor, idOf(101), idOf(90), []);
  answers.keep(idOf(101));
  answers.end(idOf(101));
  assertEquals(answers.answerOf(idOf(101)), []);
  answers.end(idOf(101));
  assertEquals(answers.answerOf(idOf(101)), undefined);
});

Deno.test("what a task has submitted that another node has submitted is that node's, and this one's while it is needed", () => {
  const here = book([1, 90], [2, 1], [3, 2]);
  const task = here.tasks.get(idOf(1))!;
  task.foreign = true;
  here.call(1, 100);
  here.call(2, 101);
  here.call(3, 102);
  const two = here.remember(2), three = here.remember(3);
  for (const n of [3, 2]) here.end(n);
  const far = [100, 101, 102].map((call) => ({ actor: idOf(50), call: idOf(call) }));
  assertEquals(here.answers.bequeath(task), far);
  here.end(1);
  assertEquals([here.kept, here.forgotten], [far.slice(1), []]);
  two();
  assertEquals(here.forgotten, far.slice(1, 2));
  three();
  assertEquals(here.forgotten, far.slice(1));
});

Deno.test("calls of a task that two nodes may run again are kept for both", () => {
  const here = book([1, 90]);
  const task = here.tasks.get(idOf(1))!;
  task.foreign = true;
  here.call(1, 100);
  const needless = here.remember(1);
  const far = [{ actor: idOf(50), call: idOf(100) }];
  assertEquals(here.answers.bequeath(task), far);
  here.end(1);
  assertEquals([here.kept, here.forgotten], [far, []]);
  needless();
  assertEquals(here.forgotten, far);
});

Deno.test("a task that runs again for what it has made keeps the answers of its first run", () => {
  const here = book([1, 90]);
  here.tasks.get(idOf(1))!.bequeathed = [{ actor: idOf(50), call: idOf(101) }];
  const needless = here.remember(1);
  here.end(1);
  here.run([1, 90]);
  needless();
  assertEquals(here.forgotten, [], "it runs");
  here.end(1);
  assertEquals(here.forgotten, [{ actor: idOf(50), call: idOf(101) }]);
});

Deno.test("a call that was answered is known when its program has ended, and another program's is not", () => {
  const { answers } = book();
  const { actor } = journals();
  for (const [call, job] of [[101, 90], [102, 91]] as const) answers.enter(actor, idOf(call), idOf(job), []);
  answers.jobEnded(idOf(90));
  assertEquals([101, 102].map((call) => answers.hasEnded(idOf(call))), [true, false]);
  assertEquals([101, 102].map((call) => answers.answerOf(idOf(call))), [undefined, []]);
});

/** The journals of a node that keeps an actor which outlives its program, and what they write. */
function journals() {
  const inline = (byte: number): Outcome => ({ kind: "inline", bytes: Uint8Array.of(byte), contains: [] });
  const written: JournalChange[] = [], removed: string[] = [], released: number[] = [];
  const directory = new ObjectDirectory({ freed: () => {}, pending: () => undefined });
  const answers = new AnswerBook(new Map(), directory, () => undefined, () => {}, () => {}, () => 0);
  const journals = new ActorJournals(
    {
      id: idOf(1),
      faults: NO_FAULTS,
      registry: {
        enter: () => Promise.resolve(1),
        write: (_: TaskId, __: number, change: JournalChange) => Promise.resolve(written.push(change) > 0),
        remove: (_: TaskId, __: number, parts?: readonly string[]) => {
          removed.push(...parts ?? ["whatever there is"]);
          return Promise.resolve(true);
        },
      } as Partial<ActorRegistry> as ActorRegistry,
      clock: { now: () => 0, after: () => () => {}, turn: () => Promise.resolve() },
      directory,
      store: undefined as never,
      answers,
      nodeOf: () => undefined,
      provide: () => Promise.resolve(true),
      log: () => {},
      isLocal: () => true,
      release: (_, before) => void released.push(before),
      fenced: () => {},
      nameLost: () => {},
      closed: () => false,
    } satisfies JournalServices,
  );
  const shapes = new Shapes(), definitions = new Definitions(shapes);
  const actor = new NodeActor(
    idOf(50),
    idOf(90),
    parseActorOptions({ detached: true }, "A", false),
    shapes.of({}),
  );
  const record = (task: TaskId, args = inline(1)) => {
    const name = "A#f", address = { load: "code:x", module: "file:///m.ts", name };
    const message = { handle: 1, task, parent: idOf(90), dependencies: [], args };
    const settings = definitions.settings(parseTaskOptions({}, name, false));
    return new CallRecord(message, idOf(90), definitions.function(address), settings, 7, actor);
  };
  actor.creation = record(actor.id);
  journals.enter(actor);
  /** A checkpoint that covers a call is written. @returns The answers that are written with it. */
  const save = async (call: CallRecord): Promise<unknown[]> => {
    const object = returnId(idOf(60), 0);
    directory.seal(directory.add(object, 0), inline(9));
    journals.saved(actor, [call], object, inline(9));
    while (!written.some(({ put }) => put.some(({ part }) => part === "meta"))) await Promise.resolve();
    return written.flatMap(({ put }) => put).filter(({ part }) => part.startsWith("answer/"))
      .flatMap(({ bytes }) => readJournal(bytes).items);
  };
  return { journals, actor, record, save, inline, written, removed, released };
}

Deno.test("calls after one that is too large for a journal are answered once a checkpoint covers that one", async () => {
  const { journals: all, actor, record, save, released } = journals();
  const large = record(idOf(5), { kind: "stored", size: JOURNAL_VALUE_BYTES_MAX + 1, contains: [] });
  const small = record(idOf(6));
  for (const call of [large, small]) all.called(actor, call);
  assertEquals([all.withholds(large), all.withholds(small)], [true, true]);
  await all.settled();
  assertEquals(Math.max(...released), 0);
  await save(large);
  await all.settled();
  assertEquals(Math.max(...released), 2);
  assertEquals(all.withholds(small), false);
});

Deno.test("an actor that ends while an answer of it is being removed takes that along", async () => {
  const { journals: all, actor, record, save, inline, removed } = journals();
  const call = record(idOf(5));
  all.called(actor, call);
  actor.withheld.set(call.id, { call, outcomes: [inline(3)] });
  await save(call);
  await all.settled();
  all.forgotten(actor, call.id);
  all.ended(actor);
  await all.settled();
  await systemClock.turn();
  assertEquals(removed.filter((part) => part.startsWith("answer/")), ["answer/0000000000"]);
});

Deno.test("a checkpoint takes along answers that were withheld from callers of its own node", async () => {
  const { journals: all, actor, record, save, inline, written } = journals();
  const call = record(idOf(5));
  all.called(actor, call);
  assertEquals(all.withholds(call), true);
  actor.withheld.set(call.id, { call, outcomes: [inline(3)] });
  assertEquals(await save(call), [
    { kind: "answer", job: idOf(90), object: returnId(call.id, 0), outcome: inline(3) },
  ]);
  // Once it was told, nobody asks again.
  actor.withheld.delete(call.id);
  all.forgotten(actor, call.id);
  await all.settled();
  assertEquals(written.flatMap((change) => change.delete), ["answer/0000000000"]);
});

Deno.test("a checkpoint leaves out answers that a caller has and asks for once", async () => {
  const { journals: all, actor, record, save } = journals();
  const call = record(idOf(5));
  all.called(actor, call);
  assertEquals(await save(call), []);
});
