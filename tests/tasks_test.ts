/**
 * Tasks, through the public API on an embedded node.
 *
 * @module
 */

// deno-lint-ignore-file require-await
import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import {
  allocate,
  asCompleted,
  availableResources,
  cancel,
  clusterResources,
  context,
  get,
  GetTimeoutError,
  init,
  map,
  nodes,
  put,
  RaydError,
  type Ref,
  remote,
  SerializationError,
  shutdown,
  TaskCancelledError,
  TaskError,
  TaskTimeoutError,
  UnschedulableError,
  UsageError,
  wait,
  WorkerCrashedError,
} from "../runtime/mod.ts";
import { temporaryFile, until } from "./fixtures/files.ts";
import * as f from "./fixtures/functions.ts";

/** Runs a test on a node of its own. */
function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * 1024 * 1024, logLevel: "off", ...options });
    await body();
  });
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not reject");
}

onNode("get gives the values of one Ref, an array, a tuple and a record", async () => {
  assertEquals(await get(f.add.remote(1, 2)), 3);
  assertEquals(await get([1, 2, 3].map((x) => f.square.remote(x))), [1, 4, 9]);
  const [a, b] = await get([f.add.remote(1, 1), f.identity.remote("x")] as const);
  assertEquals([a, b], [2, "x"]);
  assertEquals(await get({ two: f.add.remote(1, 1), nine: f.square.remote(3) }), { two: 2, nine: 9 });
  assertEquals(await get([]), []);
});

onNode("what a task submits is done though the task itself waits for something else", async () => {
  using notes = temporaryFile();
  assertEquals(await get(f.submitsAndLooks.remote(notes.path)), true);
});

onNode("items of a stream do not wait for the next one", async () => {
  using notes = temporaryFile();
  const items: unknown[] = [];
  for await (const item of f.itemsUntil.remote(notes.path, 5)) {
    items.push(await get(item));
    if (items.length === 5) Deno.writeTextFileSync(notes.path, "");
  }
  assertEquals(items, [0, 1, 2, 3, 4, true]);
});

onNode("remote takes Refs as arguments and resolves them, also those of pending tasks", async () => {
  const nine = f.square.remote(3);
  assertEquals(await get(f.add.remote(nine, f.square.remote(nine))), 90);
  let chain: Ref<number> = f.add.remote(0, 0);
  for (let i = 0; i < 200; i++) chain = f.add.remote(chain, 1);
  assertEquals(await get(chain), 200);
});

onNode("remote passes Refs nested in values as Refs", async () => {
  assertEquals(await get(f.getAll.remote([f.square.remote(1), f.square.remote(2), await put(10)])), 15);
});

onNode("a Ref that a task makes outlives the task", async () => {
  const { ref } = await get(f.makeRef.remote({ big: new Float64Array(100_000).fill(2) }));
  const { big } = await get(ref) as { big: Float64Array };
  assertEquals([big.length, big[99_999]], [100_000, 2]);
  const [task] = await get(f.makeTaskRef.remote(7));
  assertEquals(await get(task!), 49);
});

onNode("values of every size pass through arguments and results", async () => {
  for (const length of [0, 1, 100, 2_000, 2_048, 2_100, 100_000]) {
    const values = await get(f.filled.remote(length, 3));
    assertEquals([values.length, values.at(-1)], [length, length === 0 ? undefined : 3]);
    assertEquals(await get(f.sum.remote(values)), 3 * length);
    assertEquals(await get(f.sum.remote(f.filled.remote(length, 2))), 2 * length);
    assertEquals(await get(f.sum.remote(await put(new Float64Array(length).fill(1)))), length);
  }
});

onNode("recursive tasks finish on a single CPU", async () => {
  assertEquals(await get(f.fibonacci.remote(12)), 144);
}, { cpus: 1 });

onNode("options returns gives a Ref for each element", async () => {
  const [a, b] = f.pair.options({ returns: 2 }).remote(1, "x");
  assertEquals(await get(a), 1);
  assertEquals(await get(b), "x");
  const refs = f.identity.options({ returns: 3 }).remote([1, 2]);
  const error = await rejection(get((refs as unknown as Ref<unknown>[])[0]!));
  assertStringIncludes((error as Error).message, "returned an array of 2");
});

onNode("a task's exception arrives with message, cause, attempt and the user's stack", async () => {
  const error = await rejection(get(f.throwing.remote("too far")));
  assertEquals(error instanceof TaskError, true);
  const { message, cause, attempt, task, stack, code } = error as TaskError;
  assertStringIncludes(message, "RangeError: too far");
  assertEquals([attempt, task, code], [1, "throwing", "TASK_FAILED"]);
  assertEquals(cause instanceof RangeError, true);
  assertEquals((cause as Error).cause instanceof TypeError, true);
  assertMatch(stack!, /throwing \(file:\/\/.*functions\.ts:\d+:\d+\)/);
});

onNode("a task may throw anything", async () => {
  for (const value of [undefined, null, 3, "text", { a: 1 }, [1]]) {
    const error = await rejection(get(f.throwingValue.remote(value)));
    assertEquals((error as TaskError).cause, value);
  }
});

onNode(
  "a failed dependency fails the task with the dependency's error, along a chain of any length",
  async () => {
    let chain = f.throwing.remote("first") as unknown as Ref<number>;
    for (let i = 0; i < 5_000; i++) chain = f.add.remote(chain, 1);
    const error = await rejection(get(chain));
    assertStringIncludes((error as Error).message, "first");
  },
);

onNode("a generator's results stream, one Ref an item", async () => {
  const items: number[] = [];
  for await (const ref of f.count.remote(500)) items.push(await get(ref));
  assertEquals(items, Array.from({ length: 500 }, (_, i) => i));
});

onNode("a generator's exception comes after its items", async () => {
  const items: number[] = [];
  const error = await rejection((async () => {
    for await (const ref of f.countThenThrow.remote(3)) items.push(await get(ref));
  })());
  assertEquals(items, [0, 1, 2]);
  assertStringIncludes((error as Error).message, "after the last");
});

onNode("a generator is held back by its consumer, and ends when its consumer leaves", async () => {
  using notes = temporaryFile();
  const stream = f.generatorProgress.remote(notes.path, 10_000);
  await get((await stream.next()).value!);
  // The CPUs that the waiting generator lends let other tasks run meanwhile.
  assertEquals(await get(Array.from({ length: 20 }, (_, i) => f.square.remote(i))).then((v) => v.length), 20);
  assertEquals(notes.lines().length < 200, true);
  await stream.return();
  assertEquals((await stream.next()).done, true);
});

onNode("large stream items do not fill the store", async () => {
  let total = 0;
  for await (const ref of f.bigItems.remote(100, 250_000)) total += (await get(ref))[0]!;
  assertEquals(total, 4950);
}, { storeMemory: 96 * 1024 * 1024 });

onNode("wait gives ready and pending in input order, and at most count", async () => {
  const refs = [f.later.remote(0, 5_000), f.later.remote(1, 0), f.later.remote(2, 0)];
  const [ready, pending] = await wait(refs.slice(1), { count: 2 });
  assertEquals(await get(ready), [1, 2]);
  assertEquals(pending, []);
  const [one, rest] = await wait(refs, { count: 1 });
  assertEquals(one[0] === refs[1], true);
  assertEquals(rest.length, 2);
  assertEquals(rest[0] === refs[0], true);
  const [none, all] = await wait([refs[0]!], { timeout: "20ms" });
  assertEquals([none.length, all.length], [0, 1]);
  assertEquals(await wait([], { count: 0 }), [[], []]);
});

onNode("wait inside of a task works on Refs that were passed in", async () => {
  assertEquals(await get(f.waitInside.remote([f.square.remote(1), f.square.remote(2)])), 101);
});

onNode("get with a timeout throws GetTimeoutError and leaves the task alone", async () => {
  const ref = f.later.remote(7, 300);
  const error = await rejection(get(ref, { timeout: 30 }));
  assertEquals(error instanceof GetTimeoutError, true);
  assertEquals(await get(ref), 7);
});

onNode("GetTimeoutError says how many of how many values are missing, and whose they are", async () => {
  const held = Array.from({ length: 5 }, () => f.later.remote(1, 60_000));
  const { message } = await rejection(get([await put(1), ...held], { timeout: 0 })) as Error;
  assertMatch(
    message,
    new RegExp(
      `^5 of 6 values did not exist in time: that of task later \\(${held[0]!.taskId}\\), .* and 2 more\\. `,
    ),
  );
  const nested = await get(await put([held[0]!]));
  const unnamed = await rejection(get(nested[0]!, { timeout: 0 })) as Error;
  assertStringIncludes(unnamed.message, `1 of 1 values did not exist in time: object ${held[0]!.id}. `);
});

onNode("asCompleted gives each Ref once, the quick ones first", async () => {
  using notes = temporaryFile();
  const held = f.untilAborted.remote(notes.path), quick = f.square.remote(2);
  const order: Ref<unknown>[] = [];
  for await (const ref of asCompleted<Ref<unknown>>([held, quick])) {
    order.push(ref);
    if (ref === quick) cancel(held);
  }
  assertEquals(order, [quick, held]);
});

onNode("map keeps order, bounds its window, and takes endless inputs", async () => {
  const results: number[] = [];
  let made = 0;
  function* endless() {
    for (;;) yield made++;
  }
  for await (const value of map(f.square, endless(), { window: 8 })) {
    results.push(value);
    if (results.length === 50) break;
  }
  assertEquals(results, Array.from({ length: 50 }, (_, i) => i * i));
  assertEquals(made <= 60, true);
  const unordered: number[] = [];
  for await (const value of map(f.square, [1, 2, 3, 4], { ordered: false })) unordered.push(value);
  assertEquals(unordered.sort((a, b) => a - b), [1, 4, 9, 16]);
});

onNode("cancel of a queued task keeps it from ever running", async () => {
  using notes = temporaryFile();
  const blockers = [0, 1].map(() => f.later.remote(0, 200));
  const queued = Array.from({ length: 50 }, (_, i) => f.noted.remote(notes.path, String(i)));
  queued.forEach((ref) => cancel(ref));
  for (const ref of queued) assertEquals(await rejection(get(ref)) instanceof TaskCancelledError, true);
  await get(blockers);
  assertEquals(await get(f.square.remote(2)), 4);
  assertEquals(notes.lines(), []);
});

onNode("cancel of a task that waits for its arguments", async () => {
  const slow = f.later.remote(1, 500);
  const dependent = f.add.remote(slow, 1);
  cancel(dependent);
  assertEquals(await rejection(get(dependent)) instanceof TaskCancelledError, true);
  assertEquals(await get(slow), 1);
});

onNode("cancel aborts the signal of a running task, and of what it has submitted", async () => {
  using notes = temporaryFile();
  const ref = f.parent.remote(notes.path);
  await until("the child runs", () => notes.lines().includes("started"));
  cancel(ref);
  assertEquals(await rejection(get(ref)) instanceof TaskCancelledError, true);
  await until("the child is aborted", () => notes.lines().includes("aborted"));
});

onNode("cancel reaches what a running task submits after it was cancelled", async () => {
  using notes = temporaryFile();
  const ref = f.submitsLate.remote(notes.path);
  await until("it runs", () => notes.lines().includes("started"));
  cancel(ref);
  await until("its child has an answer", () => notes.lines().length > 1);
  assertEquals(notes.lines(), ["started", "TASK_CANCELLED"]);
});

onNode("cancel with force ends even an endless loop, and other tasks go on", async () => {
  using notes = temporaryFile();
  const ref = f.endless.remote(notes.path);
  const others = Array.from({ length: 20 }, (_, i) => f.later.remote(i, 20));
  await until("the loop runs", () => notes.lines().length > 0);
  cancel(ref, { force: true });
  assertEquals(await rejection(get(ref)) instanceof TaskCancelledError, true);
  assertEquals(await get(others), Array.from({ length: 20 }, (_, i) => i));
});

onNode(
  "timeout ends an endless loop; other tasks of the isolate are run again without a charge",
  async () => {
    const started = performance.now();
    const loop = f.endless.options({ timeout: "200ms" }).remote();
    const others = Array.from({ length: 30 }, (_, i) => f.later.options({ retries: 0 }).remote(i, 10));
    const error = await rejection(get(loop));
    assertEquals(error instanceof TaskTimeoutError, true);
    assertEquals(performance.now() - started < 5_000, true);
    assertEquals(await get(others), Array.from({ length: 30 }, (_, i) => i));
  },
);

onNode("timeout covers the time in the queue", async () => {
  using notes = temporaryFile();
  const blockers = [1, 2].map(() => f.pidThenLater.remote(notes.path, 600_000));
  await until("both CPUs are taken", () => notes.lines().length === 2);
  const error = await rejection(get(f.square.options({ timeout: 50 }).remote(1)));
  assertEquals(error instanceof TaskTimeoutError, true);
  for (const blocker of blockers) cancel(blocker, { force: true });
});

onNode(
  "a task whose isolate ends is run again, and fails with WorkerCrashedError beyond its retries",
  async () => {
    using notes = temporaryFile();
    assertEquals(await get(f.exits.remote(notes.path, 2)), 3);
    using more = temporaryFile();
    const error = await rejection(get(f.exits.options({ retries: 1 }).remote(more.path, 10)));
    assertEquals(error instanceof WorkerCrashedError, true);
    assertEquals(more.lines().length, 2);
    assertEquals(await get(f.square.remote(5)), 25);
  },
);

onNode("retryOn runs a throwing function again, by error name or always", async () => {
  using notes = temporaryFile();
  assertEquals(await get(f.flaky.options({ retryOn: ["RangeError"] }).remote(notes.path, 2)), 3);
  using other = temporaryFile();
  const error = await rejection(get(f.flaky.options({ retryOn: ["TypeError"] }).remote(other.path, 2)));
  assertEquals(error instanceof TaskError, true);
  assertEquals(other.lines().length, 1);
  using always = temporaryFile();
  const last = await rejection(get(f.flaky.options({ retryOn: true, retries: 2 }).remote(always.path, 9)));
  assertEquals(always.lines().length, 3);
  assertStringIncludes((last as Error).message, "attempt 3");
});

onNode(
  "a request that nothing here can satisfy fails at once, saying what was asked and what exists",
  async () => {
    for (const options of [{ gpus: 1 }, { cpus: 3 }, { resources: { licence: 1 } }]) {
      const error = await rejection(get(f.square.options(options).remote(1)));
      assertEquals(error instanceof UnschedulableError, true);
      assertStringIncludes(
        (error as Error).message,
        Object.keys(options.resources ?? options)[0]!.replace("s", ""),
      );
    }
  },
);

onNode("GPU ids are lent to one task at a time", async () => {
  const ids = await get(Array.from({ length: 8 }, () => f.gpuIds.options({ gpus: 1, cpus: 0.1 }).remote(20)));
  assertEquals(ids.every((each) => each.length === 1 && (each[0] === 0 || each[0] === 1)), true);
  assertEquals((await get(f.gpuIds.options({ gpus: 2 }).remote(0))).toSorted(), [0, 1]);
}, { gpus: 2 });

onNode("a value that cannot be carried is refused with its path, as argument, put and result", async () => {
  const model = { model: { optimizer: () => 1 } };
  const submit = () => f.identity.remote(model);
  const error = await rejection((async () => submit())());
  assertEquals((error as SerializationError).path, "args[0].model.optimizer");
  await assertRejects(() => put(model), SerializationError, "model.optimizer");
  const result = await rejection(get(f.returnsFunction.remote()));
  assertEquals(result instanceof SerializationError, true);
  assertStringIncludes((result as Error).message, "return value.model.optimizer");
});

onNode("context tells a task who it is; outside of tasks it is refused", async () => {
  const about = await get(f.about.options({ name: "who", resources: { licence: 0.5 } }).remote());
  assertEquals([about.name, about.attempt, about.aborted], ["who", 1, false]);
  assertEquals(about.resources, { cpu: 1, licence: 0.5 });
  assertMatch(about.taskId, /^[0-9a-f]{32}$/);
  assertEquals((await rejection((async () => context())())) instanceof UsageError, true);
}, { resources: { licence: 1 } });

onNode("nodes and resources tell what there is and what is free", async () => {
  const [node] = await nodes();
  assertEquals(node!.alive, true);
  const all = await clusterResources();
  assertEquals([all.cpu, all.licence], [2, 3]);
  const busy = f.later.options({ resources: { licence: 2 } }).remote(0, 300);
  await until("the licence is lent", async () => (await availableResources()).licence === 1);
  await get(busy);
  await until("the licence is back", async () => (await availableResources()).licence === 3);
}, { resources: { licence: 3 } });

onNode("a task that nobody waits for runs all the same", async () => {
  using notes = temporaryFile();
  assertEquals(await get(f.spawnAndLeave.remote(notes.path)), "left");
  await until("the child has run", () => notes.lines().includes("child"));
});

onNode("what a task leaves behind does not end its isolate", async () => {
  assertEquals(await get(f.leavesRejection.remote()), "done");
  assertEquals(
    await get(Array.from({ length: 10 }, () => f.leavesRejection.remote())).then((v) => v.length),
    10,
  );
});

onNode("priority starts more important tasks first", async () => {
  using notes = temporaryFile();
  const blocker = f.later.remote(0, 200);
  const low = Array.from(
    { length: 5 },
    (_, i) => f.noted.options({ priority: -1 }).remote(notes.path, `low${i}`),
  );
  const high = Array.from(
    { length: 5 },
    (_, i) => f.noted.options({ priority: 5 }).remote(notes.path, `high${i}`),
  );
  await get([blocker, ...low, ...high] as Ref<unknown>[]);
  const order = notes.lines();
  assertEquals(order.findLastIndex((line) => line.startsWith("high")) < order.length - 1, true);
  assertEquals(order.indexOf("high4") < order.indexOf("low3"), true);
}, { cpus: 1 });

onNode("a task may take thousands of arguments, of any size together", async () => {
  const refs = await Promise.all(Array.from({ length: 3_000 }, () => put(new Float64Array(1_000).fill(1))));
  assertEquals(await get(f.lengths.remote(...refs)), 3_000_000);
  const rows = f.identity.options({ returns: 1_024 }).remote(
    Array.from({ length: 1_024 }, () => new Float64Array(1_900)),
  );
  assertEquals((await get(rows as unknown as Ref<Float64Array>[])).length, 1_024);
});

onNode("many tasks at once all end", async () => {
  const refs = Array.from({ length: 20_000 }, (_, i) => f.square.remote(i));
  const values = await get(refs);
  assertEquals(values.every((value, i) => value === i * i), true);
});

onNode("fire and forget: Refs that are dropped do not stop tasks", async () => {
  using notes = temporaryFile();
  for (let i = 0; i < 100; i++) f.noted.remote(notes.path, String(i));
  await until("all have run", () => notes.lines().length === 100);
});

onNode("wrong uses are told apart with what to do", async () => {
  const ready = await put(1);
  const cases: [() => unknown, string][] = [
    [() => remote(() => 1), "without a name"],
    [() => remote(function inner() {}), "inside a function"],
    [() => get(3 as unknown as Ref<number>), "Cannot get 3"],
    [() => get([Promise.resolve(1)] as unknown as Ref<number>[]), "await it first"],
    [() => wait([f.square.remote(1)], { count: 2 }), "Cannot wait for 2 of 1"],
    [() => wait([f.square.remote(1)], { timeout: "soon" as "1s" }), "Cannot read timeout"],
    [() => f.square.options({ cpus: -1 }), "Cannot use cpus of square"],
    [() => f.square.options({ cpu: 1 } as object), 'Unknown option "cpu"'],
    [() => f.square.options({ returns: 0 }), "Cannot use returns of square"],
    [() => f.square.options({ gpus: 1.5 }), "whole number, or a fraction below 1"],
    [() => f.square.options(null as unknown as object), "Cannot use options of square: null is no object"],
    [() => get(ready, { timout: 5 } as object), 'Unknown option "timout" for get(): there is timeout'],
    [() => get([ready], { count: 1 } as object), 'Unknown option "count" for get()'],
    [() => get(ready, 5 as unknown as object), "Cannot use options of get(): 5 is no object"],
    [() => get(ready, { timeout: Number.NaN }), "Cannot read timeout of get(): NaN"],
    [
      () => wait([ready], { tiemout: 5 } as object),
      'Unknown option "tiemout" for wait(): there are count, timeout',
    ],
    [() => wait([ready], { timeout: "1" as "1s" }), 'Cannot read timeout of wait(): "1"'],
    [() => asCompleted([ready], { count: 1 } as object).next(), 'Unknown option "count" for asCompleted()'],
    [() => asCompleted(ready as unknown as Ref<number>[]).next(), "over a Ref: give an array"],
    [() => map(f.square, [1], { windows: 1 } as object).next(), 'Unknown option "windows" for map()'],
    [() => map(f.square, [1], { ordered: 0 as unknown as boolean }).next(), "0 is neither true nor false"],
    [() => map(f.square, 3 as unknown as number[]).next(), "Cannot map over 3"],
    [() => map(f.count as unknown as typeof f.square, [1]).next(), "Cannot map a generator"],
    [
      () => cancel(ready, { froce: true } as object),
      'Unknown option "froce" for cancel(): there are force, recursive',
    ],
    [() => cancel(ready, { force: "yes" as unknown as boolean }), '"yes" is neither true nor false'],
    [() => get(new Map([["a", ready]]) as unknown as Ref<number>), "Cannot get a Map"],
    [() => get({ a: 1 } as unknown as Record<string, Ref<number>>), 'Cannot get: "a" is 1, not a Ref'],
    [() => allocate(Array as unknown as typeof Int8Array, 1), "Cannot allocate function Array"],
    [() => allocate(Int8Array, "5" as unknown as number), 'Cannot allocate "5" elements'],
    [() => remote(f.square), "Cannot make square remote: it is already"],
    [() => remote(class Foo {} as unknown as () => void), "Cannot make class Foo remote: write actor(Foo)"],
    [() => remote(function inner() {}, { module: 5 as unknown as string }), "5 is no URL"],
    [() => init(null as unknown as object), "it runs already"],
    [() => cancel({} as Ref<unknown>), "give a Ref or a stream"],
    [() => init(), "it runs already"],
    [() => put(f.square.remote(1)), "Cannot put a Ref"],
    [() => get(f.count.remote(1) as unknown as Ref<number>), "for await"],
  ];
  for (const [call, text] of cases) {
    const error = await rejection((async () => await call())());
    assertEquals(error instanceof UsageError, true, `${text}: ${String(error)}`);
    assertStringIncludes((error as Error).message, text);
  }
});

Deno.test("shutdown fails what waits, and init starts anew", async () => {
  await init({ cpus: 1, storeMemory: 16 * 1024 * 1024, logLevel: "off" });
  const waiting = rejection(get(f.later.remote(1, 60_000)));
  await shutdown();
  assertEquals(await waiting instanceof RaydError, true);
  assertEquals(((await waiting) as RaydError).code, "DISCONNECTED");
  await using _ = await init({ cpus: 1, storeMemory: 16 * 1024 * 1024, logLevel: "off" });
  assertEquals(await get(f.square.remote(3)), 9);
});

Deno.test("a Ref whose value did not exist at shutdown says so in the next session, instead of waiting for ever", async () => {
  const options = { cpus: 1, storeMemory: 16 * 1024 * 1024, logLevel: "off" } as const;
  await init(options);
  const pending = f.later.remote(1, 60_000), large = await put(new Float64Array(10_000));
  const [small] = [await put(5)];
  await shutdown();
  await using _ = await init(options);
  assertEquals(await get(small), 5);
  assertEquals((await wait([pending]))[0], [pending]);
  for (const use of [get(pending), get([pending]), get(f.square.remote(pending))]) {
    const error = await rejection(use);
    assertMatch(String(error), /did not exist yet when the session ended: rayd was shut down/);
  }
  assertEquals((await rejection(get(large)) as RaydError).code, "OBJECT_LOST");
});

Deno.test("options of init are checked before anything starts", async () => {
  const cases: [object, string][] = [
    [null as unknown as object, "Cannot use options of init(): null is no object"],
    [{ cpu: 2 }, 'Unknown option "cpu" for init()'],
    [{ cpus: "2" }, 'Cannot use cpus of this node: "2"'],
    [{ storeMemory: "1g" }, 'Cannot use storeMemory "1g"'],
  ];
  for (const [options, text] of cases) {
    assertStringIncludes((await rejection(init(options)) as Error).message, text);
  }
});

Deno.test("the first use starts rayd by itself", async () => {
  assertEquals(await get(f.square.remote(4)), 16);
  await shutdown();
});
