/**
 * Queues, locks, semaphores, events, barriers and pools of actors, through the public API on an embedded node.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  AcquireTimeoutError,
  ActorPool,
  Barrier,
  BarrierBrokenError,
  cancel,
  Event,
  get,
  GetTimeoutError,
  init,
  kill,
  Lock,
  Queue,
  QueueEmptyError,
  QueueFullError,
  QueueShutDownError,
  type Ref,
  Semaphore,
  TaskError,
  UsageError,
  WorkerCrashedError,
} from "../runtime/mod.ts";
import { temporaryFile, until } from "./fixtures/files.ts";
import * as f from "./fixtures/tools.ts";

/** Runs a test on a node of its own. */
function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 64 * 1024 * 1024, logLevel: "off", ...options });
    await body();
  });
}

// --- Queue ---

onNode("Queue passes items of many producers to many consumers, each once", async () => {
  const queue = new Queue<number>({ capacity: 5 });
  const consumers = [f.consumes.remote(queue), f.consumes.remote(queue), f.consumes.remote(queue)];
  await get([f.produces.remote(queue, 0, 100), f.produces.remote(queue, 100, 200)]);
  await queue.shutdown();
  const taken = await get(consumers);
  assertEquals(taken.flat().sort((a, b) => a - b), Array.from({ length: 200 }, (_, i) => i));
  for (const items of taken) {
    const first = items.filter((item) => item < 100);
    assertEquals(first, first.toSorted((a, b) => a - b), "the items of one producer keep their order");
  }
});

onNode("Queue keeps order and says when it is full and when it is empty", async () => {
  const queue = new Queue<string>({ capacity: 3 });
  assertEquals([await queue.size(), await queue.empty(), await queue.full()], [0, true, false]);
  await queue.putBatch(["a", "b"]);
  await queue.put("c", { timeout: 0 });
  assertEquals([await queue.size(), await queue.empty(), await queue.full()], [3, false, true]);
  const full = await assertRejects(() => queue.put("d", { timeout: 0 }), QueueFullError);
  assertStringIncludes(full.message, "a queue of 3 now: it has 3 in it");
  await assertRejects(() => queue.put("d", { timeout: 20 }), QueueFullError, "within 20 ms");
  assertEquals(await queue.getBatch(2), ["a", "b"]);
  await assertRejects(() => queue.putBatch(["d", "e", "f"], { timeout: 0 }), QueueFullError, "3 items");
  await assertRejects(() => queue.putBatch(["d", "e", "f", "g"]), QueueFullError, "4 items");
  assertEquals(await queue.getBatch(10), ["c"]);
  const empty = await assertRejects(() => queue.get({ timeout: 0 }), QueueEmptyError);
  assertEquals(empty.code, "QUEUE_EMPTY");
  await assertRejects(() => queue.get({ timeout: "10ms" }), QueueEmptyError, "within 10 ms");
});

onNode("Queue serves those who wait in order, also when one before them gives up", async () => {
  const queue = new Queue<number>({ capacity: 1 });
  const late = queue.get({ timeout: 30 });
  const first = queue.get(), second = queue.get();
  await assertRejects(() => late, QueueEmptyError);
  await queue.put(1);
  await queue.put(2);
  assertEquals([await first, await second], [1, 2]);
  await queue.put(3);
  const puts = [queue.put(4), queue.put(5)];
  assertEquals([await queue.get(), await queue.get(), await queue.get()], [3, 4, 5]);
  await Promise.all(puts);
});

onNode("Queue gives nothing to a consumer that was cancelled", async () => {
  const queue = new Queue<number>();
  const waiting = f.takesOne.remote(queue);
  await assertRejects(() => get(waiting, { timeout: 200 }), GetTimeoutError);
  cancel(waiting);
  await queue.put(1);
  assertEquals(await queue.get({ timeout: 5_000 }), 1);
});

onNode("Queue gives a task that is run again the item that it was given first", async () => {
  const queue = new Queue<number>();
  await queue.putBatch([1, 2]);
  assertEquals(await get(f.takesAndDies.remote(queue)), 1);
  assertEquals(await queue.getBatch(10), [2]);
});

onNode("Queue carries Refs as they are, and takes a thousand waiting consumers", async () => {
  const large = new Queue<Ref<Float64Array>>();
  await get(f.putsLarge.remote(large));
  assertEquals((await get(await large.get()))[99_999], 7);
  const queue = new Queue<number>();
  const waiting = Array.from({ length: 1_000 }, () => queue.get());
  assertEquals(await queue.size(), 0, "the queue answers while they wait");
  await queue.putBatch(Array.from({ length: 1_000 }, (_, i) => i));
  assertEquals(await Promise.all(waiting), Array.from({ length: 1_000 }, (_, i) => i));
});

onNode("Queue that is shut down fails who puts, and who gets once it is empty", async () => {
  const queue = new Queue<number>({ capacity: 1 });
  await queue.put(1);
  const waiting = assertRejects(() => queue.put(2), QueueShutDownError);
  await until("it waits", async () => await queue.full());
  await queue.shutdown();
  await waiting;
  await assertRejects(() => queue.put(2), QueueShutDownError, "was shut down");
  assertEquals(await queue.get(), 1);
  await assertRejects(() => queue.get(), QueueShutDownError, "nothing left");
  const dropped = new Queue<number>();
  await dropped.put(1);
  const other = new Queue<number>();
  const getting = assertRejects(() => other.get(), QueueShutDownError);
  await dropped.shutdown({ drop: true });
  await assertRejects(() => dropped.get(), QueueShutDownError);
  await other.shutdown();
  await getting;
});

onNode("tools of one name are one tool, and travel inside of values", async () => {
  const queue = await Queue.named<number>("jobs", { capacity: 2 });
  await (await Queue.named<number>("jobs")).put(4);
  assertEquals(await queue.get(), 4);
  const lock = await Lock.named("one");
  await using _ = await (await Lock.named("one")).acquire();
  assertEquals(await lock.locked(), true);
  const [a, b] = [await Event.named("go"), await Event.named("go", { namespace: "other" })];
  await a.set();
  assertEquals([await a.isSet(), await b.isSet()], [true, false]);
  await assertRejects(() => Barrier.named("go", 2), UsageError, "is a EventObject");
  const many = await Semaphore.named("many", 3);
  const nested = new Queue<{ tools: [Semaphore] }>();
  await nested.put({ tools: [many] });
  const carried = (await nested.get()).tools[0];
  await carried.acquire(2);
  assertEquals(await many.available(), 1);
});

// --- Lock and Semaphore ---

onNode("Lock is held by one task at a time", async () => {
  using file = temporaryFile();
  Deno.writeTextFileSync(file.path, "0");
  const lock = new Lock();
  await get([1, 2, 3].map(() => f.countsUp.remote(lock, file.path, 20)));
  assertEquals(Deno.readTextFileSync(file.path), "60");
  assertEquals(await lock.locked(), false);
});

onNode("Lock that is held says by whom, and passes on when its holder is cancelled", async () => {
  const lock = new Lock(), acquired = new Event();
  const holder = f.acquiresForEver.remote(lock, acquired);
  assertEquals(await acquired.wait({ timeout: 10_000 }), true);
  const late = await assertRejects(() => lock.acquire({ timeout: 0 }), AcquireTimeoutError);
  assertStringIncludes(late.message, "Cannot acquire the lock now: held by task acquiresForEver");
  const next = lock.acquire({ timeout: 10_000 });
  cancel(holder);
  (await next).release();
});

onNode("Lock of a holder that dies for good, or returns without a release, passes on", async () => {
  const lock = new Lock();
  const crash = get(f.acquiresAndDies.options({ retries: 0 }).remote(lock));
  await assertRejects(() => crash, WorkerCrashedError);
  (await lock.acquire({ timeout: 10_000 })).release();
  assertEquals(await get(f.returnsHolding.remote(lock)), "never released");
  (await lock.acquire({ timeout: 10_000 })).release();
});

onNode("Lock of a task that is run again is acquired anew, not taken for held", async () => {
  const lock = new Lock();
  assertEquals(await get(f.acquiresAndDies.remote(lock)), 2);
  const released = new Event(), die = new Event();
  const ref = f.releasesAndDies.remote(lock, released, die);
  await released.wait();
  const permit = await lock.acquire({ timeout: 10_000 });
  await die.set();
  await assertRejects(() => get(ref, { timeout: 500 }), GetTimeoutError);
  permit.release();
  assertEquals(await get(ref), 2);
});

onNode("Lock in a durable actor's call is not acquired again when the actor is rebuilt", async () => {
  const lock = new Lock();
  const guarded = f.Guarded.remote();
  assertEquals(await get(guarded.add.remote(lock)), 1);
  const permit = await lock.acquire();
  kill(guarded, { restart: true });
  const next = guarded.add.remote(lock);
  await assertRejects(() => get(next, { timeout: 300 }), GetTimeoutError);
  permit.release();
  assertEquals(await get(next), 2);
  await get(f.Keeper.remote().keep.remote(lock));
  (await lock.acquire({ timeout: 10_000 })).release(); // it ended with the call
});

onNode("Lock with a lease passes on when that ends, unless it is renewed", async () => {
  const lock = new Lock(), acquired = new Event();
  const holder = f.acquiresForEver.remote(lock, acquired, 50);
  await acquired.wait();
  const permit = await lock.acquire({ timeout: 10_000, lease: "10s" });
  assertEquals(await permit.renew(30), true);
  const next = await lock.acquire({ timeout: 10_000 });
  assertEquals(await permit.renew(), false);
  permit.release(); // does not release what another one holds
  assertEquals(await lock.locked(), true);
  next.release();
  next.release();
  cancel(holder);
});

onNode("Semaphore lets as many in as it has permits, first come first", async () => {
  const semaphore = new Semaphore(2);
  const gauge = f.Gauge.remote();
  await get(Array.from({ length: 12 }, () => f.measures.remote(semaphore, gauge)));
  assert(await get(gauge.change.remote(0)) <= 2);
  const one = await semaphore.acquire();
  const both = semaphore.acquire(2);
  const late = await assertRejects(() => semaphore.acquire(1, { timeout: 10 }), AcquireTimeoutError);
  assertStringIncludes(late.message, "held by the program");
  one.release();
  (await both).release();
  assertEquals(await semaphore.available(), 2);
  await assertRejects(() => semaphore.acquire(3), UsageError, "has 2 in all");
});

// --- Event and Barrier ---

onNode("Event lets all who wait go on, until it is cleared", async () => {
  const event = new Event();
  const waiting = [1, 2, 3].map(() => f.waitsForEvent.remote(event));
  assertEquals(await event.wait({ timeout: 0 }), false);
  await event.set();
  assertEquals(await get(waiting), [true, true, true]);
  assertEquals(await event.wait({ timeout: 0 }), true);
  await event.clear();
  assertEquals([await event.isSet(), await event.wait({ timeout: 20 })], [false, false]);
});

onNode("Barrier lets its parties through together, round after round", async () => {
  const barrier = new Barrier(3);
  const places = await get([1, 2, 3].map(() => f.meets.remote(barrier, 20)));
  for (let round = 0; round < 20; round++) {
    assertEquals(places.map((each) => each[round]!).sort(), [0, 1, 2]);
  }
});

onNode("Barrier breaks for all when one is late, or gone, until it is reset", async () => {
  const barrier = new Barrier(3);
  const first = assertRejects(() => barrier.wait(), BarrierBrokenError, "was not joined within 50 ms");
  const late = await assertRejects(() => barrier.wait({ timeout: 50 }), BarrierBrokenError);
  assertStringIncludes(late.message, "when 2 of 3 had come");
  await first;
  await assertRejects(() => barrier.wait(), BarrierBrokenError, "after reset()");
  await barrier.reset();
  const waits = assertRejects(() => barrier.wait(), BarrierBrokenError, "task meetsAndDies ended");
  await assertRejects(() => get(f.meetsAndDies.remote(barrier)), WorkerCrashedError);
  await waits;
});

// --- ActorPool ---

const names = ["a", "b"];
const workers = () => new ActorPool(names.map((name) => f.Worker.remote(name)));

onNode("ActorPool maps in order, and as results come", async () => {
  const pool = workers();
  const ordered: string[] = [];
  for await (
    const result of pool.map((worker, n: number) => worker.work.remote(n, n === 0 ? 100 : 0), [0, 1, 2, 3])
  ) {
    ordered.push(result);
  }
  assertEquals(ordered.map((text) => text.slice(1)), ["0", "1", "2", "3"]);
  const unordered: string[] = [];
  const slow = (worker: ReturnType<typeof f.Worker.remote>, n: number) =>
    worker.work.remote(n, n === 0 ? 300 : 0);
  for await (const result of pool.mapUnordered(slow, [0, 1, 2, 3])) unordered.push(result.slice(1));
  assertEquals(unordered, ["1", "2", "3", "0"]);
});

onNode("ActorPool reads endless values no further ahead than it has actors", async () => {
  const pool = workers();
  let read = 0;
  function* values(): Generator<number> {
    for (;;) yield read++;
  }
  for await (const result of pool.map((worker, n: number) => worker.work.remote(n), values())) {
    if (result.endsWith("9")) break;
  }
  assert(read <= 13, `${read} were read`);
  pool.submit((worker, n) => worker.work.remote(n), 7);
  assertEquals(String(await pool.getNext()).slice(1), "7", "what was left behind is not in the way");
});

onNode("ActorPool begins submitted work when an actor is idle", async () => {
  const pool = workers(), event = new Event();
  for (const n of [1, 2, 3]) {
    pool.submit((worker, n) => n === 1 ? worker.workAfter.remote(n, event) : worker.work.remote(n), n);
  }
  assertEquals([pool.hasNext(), pool.hasFree()], [true, false]);
  assertEquals(await pool.getNextUnordered(), "b2");
  await assertRejects(() => pool.getNext({ timeout: 1 }), GetTimeoutError);
  await event.set();
  assertEquals([await pool.getNext(), await pool.getNext()], ["a1", "b3"]);
  assertEquals([pool.hasNext(), pool.hasFree()], [false, true]);
  await assertRejects(() => pool.getNext(), UsageError, "has no work");
  pool.push(f.Worker.remote("c"));
  const taken = [pool.popIdle(), pool.popIdle(), pool.popIdle()];
  assertEquals([taken.every((each) => each !== undefined), pool.popIdle()], [true, undefined]);
  pool.submit((worker, n) => worker.work.remote(n), 1);
  await assertRejects(() => pool.getNext(), UsageError, "no actor is left");
});

onNode("ActorPool goes on after a failed call, and without an actor that died", async () => {
  const pool = workers();
  pool.submit((worker) => worker.fail.remote() as Ref<unknown>, 0);
  await assertRejects(() => pool.getNext(), TaskError, "no");
  pool.submit((worker) => worker.exit.remote(), 0);
  await assertRejects(() => pool.getNext());
  const results: string[] = [];
  for await (const each of pool.map((worker, n: number) => worker.work.remote(n), [1, 2, 3])) {
    results.push(each);
  }
  assertEquals(new Set(results.map((text) => text[0])).size, 1);
  assertThrows(() => new ActorPool([]), UsageError, "no actors");
  assertThrows(
    () => new ActorPool([3 as unknown as ReturnType<typeof f.Worker.remote>]),
    UsageError,
    "handles",
  );
});

onNode("wrong uses of tools are told apart with what to do", async () => {
  const queue = new Queue<number>();
  const cases: [() => unknown, string][] = [
    [() => new Queue({ size: 3 } as object), 'Unknown option "size" for a queue: there are capacity'],
    [() => new Queue({ capacity: 0 }), "give a whole number of 1 or more"],
    [() => queue.put(1, { wait: 3 } as object), 'Unknown option "wait" for put: there are timeout'],
    [() => queue.get({ timeout: "soon" as "1s" }), "Cannot read timeout of get"],
    [() => queue.getBatch(0), "Cannot get 0 items"],
    [() => queue.shutdown({ force: true } as object), 'Unknown option "force"'],
    [() => new Semaphore(0), "Cannot make a semaphore of 0 permits"],
    [() => new Lock({ name: "x" } as object), 'Unknown option "name" for a lock'],
    [
      () => new Lock().acquire({ ttl: 1 } as object),
      'Unknown option "ttl" for acquire: there are timeout, lease',
    ],
    [() => new Barrier(1.5), "Cannot make a barrier for 1.5"],
    [() => Lock.named("x", { ttl: 3 } as object), 'Unknown option "ttl"'],
  ];
  for (const [call, text] of cases) {
    const error = await assertRejects(async () => await call(), UsageError);
    assertStringIncludes(error.message, text);
  }
});
