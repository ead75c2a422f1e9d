/**
 * Actors, through the public API on an embedded node.
 *
 * @module
 */

// deno-lint-ignore-file require-await
import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import {
  actor,
  ActorDeadlockError,
  ActorDiedError,
  type ActorHandle,
  ActorNameTakenError,
  ActorRestartingError,
  availableResources,
  cancel,
  died,
  get,
  getActor,
  init,
  kill,
  nodes,
  PendingCallsLimitError,
  put,
  ready,
  type Ref,
  self,
  TaskCancelledError,
  TaskError,
  TaskTimeoutError,
  UnschedulableError,
  UsageError,
  wait,
} from "../runtime/mod.ts";
import * as f from "./fixtures/actors.ts";
import { temporaryFile, until } from "./fixtures/files.ts";
import { add, identity, later } from "./fixtures/functions.ts";

/** Runs a test on a node of its own. */
function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * 1024 * 1024, logLevel: "off", ...options });
    await body();
  });
}

async function rejection(promise: Promise<unknown>): Promise<Error & { code: string; reason: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error & { code: string; reason: string };
  }
  throw new Error("it did not reject");
}

const asNode = (handle: unknown) => handle as ActorHandle<f.NodeObject>;

// --- Calls ---

onNode("calls of an actor are applied to its state in the order in which they were made", async () => {
  const counter = f.Counter.remote(10);
  assertEquals(await get(counter.add.remote(5)), 15);
  const refs = Array.from({ length: 2_000 }, () => counter.add.remote(1));
  assertEquals(await get(refs), refs.map((_, i) => 16 + i));
});

onNode(
  "arguments of constructor and calls may be Refs, and a call that waits holds its caller's line",
  async () => {
    const counter = f.Counter.remote(later.remote(10, 50));
    const slow = counter.add.remote(later.remote(5, 150));
    const next = counter.add.remote(counter.add.remote(1));
    assertEquals(await get([slow, next]), [15, 32]);
    const other = get(f.adds.remote(counter, 1));
    const held = counter.add.remote(later.remote(1_000, 1_000));
    assertEquals((await other)[0]! < 1_000, true, "another caller is not held back");
    assertEquals(await get(held) > 1_000, true);
  },
);

onNode("a call with large arguments and a large result keeps its place", async () => {
  const counter = f.Counter.remote(1);
  const sum = counter.sum.remote(new Float64Array(100_000).fill(1));
  const two = counter.add.remote(1);
  assertEquals(await get(sum), 100_000);
  assertEquals(await get(two), 2);
  const filled = await get(counter.filled.remote(100_000));
  assertEquals([filled.length, filled[99_999]], [100_000, 2]);
});

onNode("a generator's results stream, and returns gives a Ref for each element", async () => {
  const counter = f.Counter.remote();
  const items: number[] = [];
  for await (const ref of counter.upTo.remote(100)) items.push(await get(ref));
  assertEquals(items, Array.from({ length: 100 }, (_, i) => i));
  const [n, text] = counter.pair.options({ returns: 2 }).remote();
  assertEquals([await get(n), await get(text)], [100, "x"]);
});

onNode("a method that throws answers with the exception, and the actor goes on", async () => {
  const counter = f.Counter.remote();
  const error = await rejection(get(counter.fail.remote("too far")));
  assertEquals(error instanceof TaskError, true);
  assertStringIncludes(error.message, "RangeError: too far");
  assertEquals(error.cause instanceof RangeError, true);
  assertEquals(await get(counter.value.remote()), 100);
});

onNode("methods take one call at a time unless concurrency says otherwise", async () => {
  const counter = f.Counter.remote();
  assertEquals(await get([counter.addLater.remote(1, 30), counter.addLater.remote(1, 1)]), [1, 2]);
  const side = f.Concurrent.options({ concurrency: 3 }).remote();
  await get(Array.from({ length: 9 }, () => side.quick.remote(20)));
  assertEquals(await get(side.most.remote()), 3);
});

onNode("concurrency groups have lines of their own", async () => {
  const actor = f.Concurrent.options({ concurrencyGroups: { io: 2 } }).remote();
  const slow = Array.from({ length: 4 }, () => actor.slow.remote(100));
  assertEquals(await get(actor.most.remote()) <= 2, true, "the actor's own line is not behind the group's");
  assertEquals(Math.max(...await get(slow)), 2);
  const error = await rejection(get(actor.quick.options({ group: "nope" }).remote(1)));
  assertStringIncludes(error.message, 'no concurrency group "nope"; there is io');
});

onNode("context tells a method of its actor", async () => {
  const about = await get(f.Counter.options({ name: "hits" }).remote().about.remote());
  assertMatch(about.actorId!, /^[0-9a-f]{32}$/);
  assertEquals([about.actorName, about.replaying, about.name], ["hits", false, "CounterObject.about"]);
});

onNode("actors of shared isolates live side by side", async () => {
  const counters = Array.from({ length: 20 }, (_, i) => f.Counter.options({ isolate: "shared" }).remote(i));
  assertEquals(await get(counters.map((each) => each.add.remote(1))), counters.map((_, i) => i + 1));
  kill(counters[0]!);
  assertEquals((await rejection(get(counters[0]!.value.remote()))) instanceof ActorDiedError, true);
  assertEquals(await get(counters[2]!.value.remote()), 3);
});

// --- Handles ---

onNode("handles pass to tasks and actors, inside of values, and come back", async () => {
  const counter = f.Counter.remote();
  assertEquals(await get(f.adds.remote(counter, 3)), [1, 2, 3]);
  const box = await get(identity.remote({ in: [counter] })) as { in: [typeof counter] };
  assertEquals(await get(box.in[0].value.remote()), 3);
  const { counter: made } = await get(f.createsAndReturns.remote());
  assertEquals(await get(made.value.remote()), 6);
  const own = await get(counter.self.remote());
  assertEquals(await get(own.add.remote(1)), 4);
  assertEquals(await get(await get(await put(counter)).then((each) => each.value.remote())), 4);
});

onNode("a handle prints its class, has no then, and says which methods there are", async () => {
  const counter = f.Counter.remote();
  assertMatch(Deno.inspect(counter), /^ActorHandle\(CounterObject [0-9a-f]{12}…\)$/);
  assertEquals(await (async () => counter)() === counter, true);
  assertEquals("then" in counter, false);
  const error = await rejection((async () => (counter as unknown as { sub: unknown }).sub)());
  assertEquals(error instanceof UsageError, true);
  assertStringIncludes(error.message, 'no method "sub": there are add, value, addLater');
  assertEquals((await rejection((async () => JSON.stringify(counter))())) instanceof TypeError, true);
});

onNode("an actor stops after the calls made so far when its last handle is let go of", async () => {
  using notes = temporaryFile();
  const ref = (() => {
    using handle = f.Noted.remote(notes.path);
    handle.add.remote(1);
    return handle.add.remote(2);
  })();
  assertEquals(await get(ref), 3);
  await until("it has stopped", () => notes.lines().includes("stopped at 3"));
  const gone = f.Counter.remote();
  gone[Symbol.dispose]();
  assertStringIncludes((await rejection((async () => gone.add.remote(1))())).message, "Symbol.dispose");
});

// --- Names ---

onNode("getActor and getOrCreate find an actor by name; a taken name is an error", async () => {
  const hits = f.Counter.options({ name: "hits" });
  const counter = hits.remote(1);
  await ready(counter);
  assertEquals(await get((await getActor(f.Counter, "hits")).add.remote(1)), 2);
  const twin = hits.remote(1);
  assertEquals(await rejection(ready(twin)) instanceof ActorNameTakenError, true);
  assertEquals(await rejection(get(twin.value.remote())) instanceof ActorNameTakenError, true);
  assertEquals(await get((await hits.getOrCreate(7)).value.remote()), 2);
  const other = hits.options({ namespace: "b" });
  const both = await Promise.all([other.getOrCreate(7), other.getOrCreate(7)]);
  await get(both.map((each) => each.add.remote(1)));
  assertEquals(await get(both[0]!.value.remote()), 9);
  await assertRejects(() => getActor(f.Counter, "hits", { namespace: "c" }), UsageError, "no living actor");
  await assertRejects(() => getActor(f.Noted, "hits"), UsageError, "is a CounterObject of");
  kill(counter);
  await died(counter);
  await assertRejects(() => getActor(f.Counter, "hits"), UsageError, "no living actor");
});

// --- Death ---

onNode("kill fails the calls that are there and those that come", async () => {
  const counter = f.Counter.remote();
  const waiting = counter.addLater.remote(1, 10_000);
  await ready(counter);
  const death = died(counter);
  kill(counter);
  for (const ref of [waiting, counter.add.remote(1)]) {
    const error = await rejection(get(ref));
    assertEquals(error instanceof ActorDiedError, true);
    assertStringIncludes(error.reason, "killed with kill()");
  }
  assertStringIncludes((await death).reason, "killed with kill()");
  await assertRejects(
    () => ready(f.Counter.remote()).then(() => kill({} as typeof counter)),
    UsageError,
    "handle",
  );
});

onNode("a constructor that throws is the cause of its calls' failure", async () => {
  const broken = f.Broken.remote("no good");
  const error = await rejection(ready(broken));
  assertEquals(error instanceof TaskError, true);
  const call = await rejection(get(broken.hello.remote()));
  assertEquals(call instanceof ActorDiedError, true);
  assertStringIncludes(call.reason, "RangeError: no good");
  assertEquals(call.cause instanceof RangeError, true);
});

onNode("an actor that is not durable fails with its isolate, and says what it printed last", async () => {
  const counter = f.Counter.options({ durable: false }).remote();
  const error = await rejection(get(counter.exit.remote()));
  assertEquals(error instanceof ActorDiedError, true);
  assertStringIncludes(error.message, "these are my last words");
  const again = f.Counter.options({ durable: false, restarts: 1 }).remote(3);
  await get(again.add.remote(4));
  assertEquals(await rejection(get(again.exit.remote())) instanceof ActorRestartingError, true);
  assertEquals(await get(again.value.remote()), 3, "it begins anew");
  assertEquals(await rejection(get(again.exit.remote())) instanceof ActorDiedError, true);
});

onNode("linked actors die together", async () => {
  using notes = temporaryFile();
  const parent = f.Parent.remote();
  const child = await get(parent.adopt.remote(notes.path)) as ReturnType<typeof f.Noted.remote>;
  assertEquals(await get(child.add.remote(1)), 1);
  kill(parent);
  assertStringIncludes((await died(child)).reason, "linked to actor Parent");
  const second = f.Parent.remote();
  kill(await get(second.adopt.remote(notes.path)) as typeof child);
  assertStringIncludes((await died(second)).reason, "linked to actor Noted");
  assertStringIncludes(
    (await rejection(ready(f.Noted.options({ linked: true }).remote(notes.path)))).message,
    "only an actor's own methods",
  );
});

onNode("timeout and cancel end calls, queued, running and endless", async () => {
  const counter = f.Counter.remote();
  const running = counter.addLater.remote(1, 300);
  const queued = counter.add.remote(1);
  cancel(queued);
  assertEquals(await rejection(get(queued)) instanceof TaskCancelledError, true);
  assertEquals(await get(running), 1);
  assertEquals(await get(counter.value.remote()), 1, "it never ran");
  const endless = counter.endless.options({ timeout: 100 }).remote();
  assertEquals(await rejection(get(endless)) instanceof TaskTimeoutError, true);
  assertEquals(await get(counter.value.remote()), 1, "the state is rebuilt");
});

onNode("maxPending bounds the calls that have not ended", async () => {
  const counter = f.Counter.options({ maxPending: 2 }).remote();
  const refs = Array.from({ length: 4 }, () => counter.addLater.remote(1, 100));
  assertEquals(await get(refs.slice(0, 2)), [1, 2]);
  for (const ref of refs.slice(2)) {
    assertEquals(await rejection(get(ref)) instanceof PendingCallsLimitError, true);
  }
  assertEquals(await get(counter.add.remote(1)), 3);
});

// --- Resources ---

onNode("an actor holds its resources for as long as it lives", async () => {
  const holder = f.Counter.options({ cpus: 1, resources: { licence: 1 } }).remote();
  const next = f.Counter.options({ resources: { licence: 1 } }).remote();
  await ready(holder);
  assertEquals((await availableResources()).licence, 0);
  assertEquals((await wait([next.value.remote()], { timeout: 50 }))[0], []);
  kill(holder);
  assertEquals(await get(next.value.remote()), 0);
  const error = await rejection(get(f.Counter.options({ cpus: 3 }).remote().value.remote()));
  assertEquals(error instanceof UnschedulableError, true);
}, { resources: { licence: 1 } });

onNode("an actor that waits lends its CPU", async () => {
  const a = asNode(f.Node.options({ cpus: 1 }).remote());
  const b = asNode(f.Node.options({ concurrency: 2 }).remote());
  await get(a.meet.remote(b));
  assertEquals(await get(a.askOther.remote()), "hello");
  assertEquals(await get(add.remote(1, a.hello.remote().id.length)), 41);
  assertEquals(
    await get(asNode(f.Node.options({ cpus: 1, concurrency: 2 }).remote()).throughTask.remote()),
    "hello",
  );
}, { cpus: 2 });

// --- Circles ---

onNode("a circle of actors that wait for each other fails with the circle", async () => {
  const a = asNode(f.Node.remote()), b = asNode(f.Node.remote());
  await get([a.meet.remote(b), b.meet.remote(a)]);
  for (const call of [a.askInCircle, a.askMyself, a.throughTask]) {
    const error = await rejection(get(call.remote()));
    assertStringIncludes(error.message, "waits for");
    const cause = error.cause instanceof TaskError ? error.cause.cause : error.cause;
    assertEquals((cause as Error).name === "ActorDeadlockError" || error instanceof ActorDeadlockError, true);
  }
  assertEquals(await get(a.askOther.remote()), "hello");
});

// --- Durability ---

onNode("a durable actor comes back with its state and applies each call once", async () => {
  using notes = temporaryFile();
  const actor = f.Noted.remote(notes.path);
  assertEquals(await get([actor.add.remote(1), actor.add.remote(2)]), [1, 3]);
  kill(actor, { restart: true });
  assertEquals(await get(actor.add.remote(3)), 6);
  assertEquals(notes.lines(), ["new", "add 1", "add 2", "new", "again 1", "again 2", "add 3"]);
});

onNode("checkpoints by saveState and by fields cover the calls before them", async () => {
  const saved = f.Saved.options({ checkpoint: { every: 500 } }).remote();
  await get(Array.from({ length: 10_000 }, () => saved.add.remote(1)));
  kill(saved, { restart: true });
  const { n, saves, replays } = await get(saved.counts.remote());
  assertEquals([n, saves >= 19, replays <= 500], [10_000, true, true], `${n} ${saves} ${replays}`);
  using notes = temporaryFile();
  const fields = f.Noted.options({ checkpoint: { every: 10 } }).remote(notes.path);
  await get(Array.from({ length: 25 }, () => fields.add.remote(1)));
  kill(fields, { restart: true });
  assertEquals(await get(fields.add.remote(1)), 26);
  assertEquals(notes.lines().filter((line) => line.startsWith("again")).length, 5);
});

onNode("a state that cannot be saved is kept by its log, also when saveState throws", async () => {
  for (const kind of [f.Unsavable, f.ThrowsOnSave]) {
    const actor = kind.options({ checkpoint: { every: 5 } }).remote() as ReturnType<
      typeof f.ThrowsOnSave.remote
    >;
    await get(Array.from({ length: 33 }, () => actor.add.remote()));
    kill(actor, { restart: true });
    assertEquals(await get(actor.add.remote()), 34);
  }
});

onNode("a caller that is run again gets its first answers", async () => {
  const counter = f.Counter.remote();
  assertEquals(await get(f.addsAndDies.remote(counter)), [1, 2, 2, 3]);
  assertEquals(await get(counter.value.remote()), 3);
});

onNode("a caller that is run again finds the actor that it made, which still works for it", async () => {
  assertEquals(await get(f.makesAddsAndDies.remote()), [1, 2, 2]);
});

onNode("a call that kills its isolate each time ends the actor", async () => {
  using notes = temporaryFile();
  const actor = f.Noted.remote(notes.path);
  await get(actor.add.remote(1));
  const error = await rejection(get(actor.exit.remote()));
  assertEquals(error instanceof ActorDiedError, true);
  assertStringIncludes(
    error.reason,
    "3 times in a row without one new answer, the last time with Noted.exit to be run",
  );
});

onNode("virtual actors are made by their first call, sleep, and wake with their state", async () => {
  const Saved = f.Saved.options({ idle: 50 });
  const one = Saved.get("one");
  assertEquals(await get(one.add.remote(2)), 2);
  assertEquals(await get(Saved.get("one").add.remote(2)), 4);
  assertEquals(await get(Saved.get(2).add.remote(1)), 1);
  await until("both sleep", async () => (await nodes())[0]!.isolates === 2);
  assertEquals(await get(one.add.remote(1)), 5);
  assertEquals((await get(one.counts.remote())).replays, 0);
});

onNode("wrong uses are told apart with what to do", async () => {
  const inside = class Inside {};
  const cases: [() => unknown, string][] = [
    [() => actor(class {}), "without a name"],
    [() => actor(inside), "inside a function"],
    [() => actor(3 as unknown as typeof inside), "give a class"],
    [
      () => f.Counter.options({ cpu: 1 } as object),
      'Unknown option "cpu" for actor CounterObject: there are cpus',
    ],
    [() => f.Counter.options({ concurrency: 2, durable: true }), "cannot be replayed in order"],
    [() => f.Counter.options({ isolate: "mine" as "own" }), 'there are "own" and "shared"'],
    [() => f.Counter.options({ maxPending: 0 }), "Cannot use maxPending"],
    [() => f.Counter.options({ checkpoint: { every: 0 } }), "Cannot use checkpoint.every"],
    [() => f.Counter.options({ durable: false, checkpoint: { every: 5 } }), "only a durable actor"],
    [() => f.Counter.options({ name: "" }), "Cannot use name"],
    [() => f.Counter.remote().add.options({ cpus: 1 } as object), 'Unknown option "cpus"'],
    [() => f.Counter.getOrCreate(), "give its name first"],
    [() => f.Counter.get(""), "text that is not empty"],
    [() => f.Counter.options({ durable: false }).get("x"), "must survive its sleep"],
    [() => self({}), "self(this)"],
    [() => getActor({} as typeof f.Counter, "x"), "made by actor()"],
    [() => ready(3 as unknown as ReturnType<typeof f.Counter.remote>), "give an actor's handle"],
  ];
  for (const [call, text] of cases) {
    const error = await rejection((async () => await call())());
    assertEquals(error instanceof UsageError, true, `${text}: ${String(error)}`);
    assertStringIncludes(error.message, text);
  }
  const refs: Ref<number>[] = [f.Counter.remote().add.remote(1)];
  assertEquals(await get(refs), [1]);
});
