/**
 * Collectives, through the public API on an embedded node.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import * as fc from "fast-check";
import {
  ActorDiedError,
  collective,
  CollectiveBrokenError,
  CollectiveMismatchError,
  get,
  init,
  kill,
  type Ref,
  StoreFullError,
  TaskError,
  UsageError,
} from "../runtime/mod.ts";
import * as f from "./fixtures/collective.ts";

/** Runs a test on a node of its own. */
function onNode(name: string, body: () => Promise<void>, options: Parameters<typeof init>[0] = {}): void {
  Deno.test(name, async () => {
    await using _ = await init({ cpus: 2, storeMemory: 128 * 1024 * 1024, logLevel: "off", ...options });
    await body();
  });
}

/** All members of a group, in this program. */
async function groupOf(
  size: number,
  options: Partial<collective.JoinOptions> = {},
): Promise<collective.Group[]> {
  const joining = Array.from({ length: size }, (_, rank) => {
    return collective.join({ name: "test", size, rank, timeout: "10s", ...options });
  });
  return await Promise.all(joining);
}

/** What every member's call gives. */
async function all<T>(
  groups: readonly collective.Group[],
  call: (group: collective.Group) => Promise<T>,
): Promise<T[]> {
  return await Promise.all(groups.map(call));
}

/** Why a call of an actor failed: what its method threw. */
async function causeOf(ref: Ref<unknown>): Promise<Error> {
  const error = await assertRejects(() => get(ref));
  return error instanceof TaskError ? error.cause as Error : error as Error;
}

for (const via of ["memory", "objects"] as const) {
  const options: Partial<collective.JoinOptions> = via === "objects" ? { via } : {};

  onNode(`collectives via ${via} give what plain loops give, for any sizes`, async () => {
    for (const size of [1, 3, 4]) {
      const groups = await groupOf(size, options);
      assertEquals(
        groups.map((group) => [group.rank, group.size, group.via]),
        groups.map((_, i) => [i, size, via]),
      );
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom("sum", "max", "min", "prod") as fc.Arbitrary<collective.ReduceOp>,
          // Small ones travel in messages, larger ones in memory; lengths that the size does not divide.
          fc.oneof(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 1025, max: 30_000 })),
          fc.integer({ min: 0, max: size - 1 }),
          fc.integer({ min: 1, max: 1000 }),
          async (op, length, root, seed) => {
            const inputs = groups.map((_, rank) =>
              Int32Array.from({ length }, (_, i) => seed * (i % 7) - 3 * rank * i)
            );
            const fold = {
              sum: (a: number, b: number) => a + b,
              max: Math.max,
              min: Math.min,
              prod: Math.imul,
            };
            const reducer = fold[op as "sum"];
            const expected = Int32Array.from({ length }, (_, i) => {
              return inputs.map((input) => input[i]!).reduce((a, b) => reducer(a, b) | 0);
            });
            const reduced = await all(groups, (group) => group.allReduce(inputs[group.rank]!, { op }));
            for (const result of reduced) assertEquals(result, Object.assign(expected));
            const atRoot = await all(groups, (group) => group.reduce(inputs[group.rank]!, { op, root }));
            assertEquals(
              atRoot.map((each) => each?.join()),
              groups.map((_, i) => i === root ? expected.join() : undefined),
            );
            const slices = await all(groups, (group) => group.reduceScatter(inputs[group.rank]!, { op }));
            assertEquals(slices.flatMap((slice) => [...slice]), [...expected]);
            const sent = await all(
              groups,
              (group) => group.broadcast(group.rank === root ? expected : undefined, { root }),
            );
            for (const each of sent) assertEquals([...each], [...expected]);
            const parts = inputs.map((input, rank) => input.subarray(0, Math.min(length, rank * 3000)));
            for (const each of await all(groups, (group) => group.allGather(parts[group.rank]!))) {
              assertEquals(each.map((part) => part.join()), parts.map((part) => part.join()));
            }
            await all(groups, (group) => group.barrier());
          },
        ),
        { numRuns: 12 },
      );
      await all(groups, (group) => group.leave());
    }
  });

  onNode(`collectives via ${via}: members are actors and tasks, in isolates of their own`, async () => {
    const members = [0, 1, 2].map(() => f.Member.remote());
    const ranks = await get(
      members.map((member) => member.join.remote({ name: "actors", size: 3, ...options })),
    );
    assertEquals(ranks.toSorted(), [0, 1, 2]);
    assertEquals(await get(members.map((member, i) => member.sum.remote(i + 1, 200_000))), [6, 6, 6]);
    assertEquals(await get(members.map((member) => member.rounds.remote(15, 20_000, 2))), [true, true, true]);
    const tasks = [1, 2].map((value) => f.sums.remote({ name: "tasks", size: 2, ...options }, value));
    assertEquals(await get(tasks), [3, 3]);
  });
}

onNode(
  "collective results stay as they are for as long as they are held, and are then written anew",
  async () => {
    const groups = await groupOf(2);
    const fill = (value: number) =>
      all(groups, (group) => group.allReduce(new Float64Array(50_000).fill(value)));
    const held = await fill(1);
    const views = held.map((result) => result.subarray(10, 20));
    const address = (array: Float64Array<ArrayBufferLike>) =>
      Deno.UnsafePointer.value(Deno.UnsafePointer.of(array as Float64Array<ArrayBuffer>));
    const first = address(held[0]!);
    assertEquals(address(held[1]!), first, "all members share one result");
    const next = await fill(2);
    assert(address(next[0]!) !== first);
    assertEquals(views.map((view) => view[0]), [2, 2]);
    held.forEach((result) => result[Symbol.dispose]());
    assertEquals(address((await fill(3))[0]!), first, "the memory is used again");
    assertEquals(next[0]![0], 4);
  },
);

onNode("collective means, and inputs that lie in the group's memory", async () => {
  const groups = await groupOf(2);
  const inputs = await all(groups, (group) => group.allocate(Float32Array, 10_000));
  inputs.forEach((input, i) => input.fill(i + 1));
  for (const result of await all(groups, (group) => group.allReduce(inputs[group.rank]!, { op: "mean" }))) {
    assertEquals([result[0], result[9_999]], [1.5, 1.5]);
  }
  inputs[0]!.fill(10, 5_000);
  const halves = await all(groups, (group) => group.reduceScatter(inputs[group.rank]!.subarray(5_000)));
  assertEquals(halves.map((half) => [half.length, half[0]]), [[2_500, 12], [2_500, 12]]);
});

onNode("collective calls that do not agree fail for all, and say who gave what", async () => {
  const groups = await groupOf(3);
  const wrong: [string, (group: collective.Group) => Promise<unknown>][] = [
    [
      "member 2 (the program) called allReduce sum of Float32Array(3)",
      (group) => group.allReduce(new Float32Array(group.rank + 1)),
    ],
    [
      "called allReduce max of Float32Array(2)",
      (group) => group.allReduce(new Float32Array(2), { op: group.rank === 1 ? "max" : "sum" }),
    ],
    [
      "called allReduce sum of Int32Array(2)",
      (group) => group.rank === 1 ? group.allReduce(new Int32Array(2)) : group.allReduce(new Float32Array(2)),
    ],
    [
      "member 0 (the program) called barrier; member 1 (the program) called allGather of Uint8Array",
      (group) => group.rank === 0 ? group.barrier() : group.allGather(new Uint8Array(2)),
    ],
    ["called broadcast from 1", (group) => group.broadcast(new Int8Array(3), { root: group.rank })],
  ];
  for (const [text, call] of wrong) {
    for (const outcome of await Promise.allSettled(groups.map(call))) {
      const reason: unknown = outcome.status === "rejected" ? outcome.reason : outcome.value;
      assert(reason instanceof CollectiveMismatchError, String(reason));
      assertStringIncludes((reason as Error).message, text);
    }
  }
  const sums = await all(groups, (group) => group.allReduce(new Float32Array([1])));
  assertEquals(sums.map((sum) => sum[0]), [3, 3, 3], "the group goes on");
});

onNode("collective groups whose members do not fit together are not formed", async () => {
  const sizes = [2, 3].map((size) =>
    assertRejects(() => collective.join({ name: "a", size }), CollectiveMismatchError)
  );
  for (const error of await Promise.all(sizes)) {
    assertStringIncludes(error.message, "disagree about its size");
    for (const size of [2, 3]) assertStringIncludes(error.message, `the program said ${size}`);
  }
  const ranks = [1, 1].map((rank) =>
    assertRejects(() => collective.join({ name: "b", size: 2, rank }), CollectiveMismatchError)
  );
  for (const error of await Promise.all(ranks)) assertStringIncludes(error.message, "asked for rank 1");
  const late = await assertRejects(
    () => collective.join({ name: "c", size: 2, timeout: 30 }),
    CollectiveBrokenError,
  );
  assertStringIncludes(late.message, "1 of 2 members joined within 30 ms: the program");
  const [one] = await groupOf(1, { name: "d" });
  await assertRejects(() => collective.join({ name: "d", size: 1 }), UsageError, "has all its 1 members");
  await one!.leave();
  await assertRejects(() => one!.barrier(), UsageError, "has left it");
  await (await groupOf(1, { name: "d" }))[0]!.barrier();
});

onNode("collective members fail at once when one dies, and may join again", async () => {
  const members = [0, 1, 2].map(() => f.Member.remote());
  const join = (handles: typeof members, name = "g") =>
    get(handles.map((member, rank) => member.join.remote({ name, size: 3, rank })));
  await join(members);
  const waiting = members.slice(0, 2).map((member) => causeOf(member.sum.remote(1, 100_000)));
  const killed = members[2]!.die.remote();
  for (const error of await Promise.all(waiting)) {
    assertEquals(error.name, "CollectiveBrokenError");
    assertStringIncludes(error.message, 'Group "g" is broken: member 2 (actor Member) ended without leaving');
  }
  await assertRejects(() => get(killed), ActorDiedError);
  assertStringIncludes((await causeOf(members[0]!.sum.remote(1, 1))).message, "member 2");
  const again = [...members.slice(0, 2), f.Member.remote()];
  await join(again);
  assertEquals(await get(again.map((member) => member.sum.remote(1, 100_000))), [3, 3, 3]);
  await get(again[0]!.leave.remote());
  assertStringIncludes((await causeOf(again[1]!.sum.remote(1, 1))).message, "has left");
});

onNode("collective members that do not come in time are named to those who wait", async () => {
  const [first] = await groupOf(3, { timeout: 50 });
  const error = await assertRejects(() => first!.allReduce(new Uint8Array(5)), CollectiveBrokenError);
  assertStringIncludes(
    error.message,
    "member 1 (the program), member 2 (the program) did not come within 50 ms",
  );
  assertStringIncludes(error.message, "member 0 called allReduce sum of Uint8Array(5)");
});

onNode("collective members that are run again are no members any more, and may join anew", async () => {
  const group = { name: "tasks", size: 2 };
  const other = (async () => {
    const member = await collective.join(group);
    await member.barrier();
    await assertRejects(() => member.barrier(), CollectiveBrokenError, "died and came back");
    const again = await collective.join(group);
    await again.barrier();
    return (await again.allReduce(new Float32Array([2])))[0];
  })();
  assertEquals([await get(f.diesOnce.remote(group)), await other], [3, 3]);
  const ended = collective.join({ name: "short", size: 2 }).then((member) =>
    assertRejects(() => member.barrier(), CollectiveBrokenError, "task joinsOnly) ended without leaving")
  );
  await get(f.joinsOnly.remote({ name: "short", size: 2 }));
  await ended;
});

onNode("a durable actor that comes back finds its group broken, and so do the others", async () => {
  const members = [f.Durable.remote(), f.Durable.remote()];
  await get(members.map((member) => member.join.remote({ name: "d", size: 2 })));
  assertEquals(await get(members.map((member) => member.sum.remote(2))), [4, 4]);
  const waiting = causeOf(members[0]!.sum.remote(1));
  kill(members[1]!, { restart: true });
  assertStringIncludes((await waiting).message, "died and came back");
  assertStringIncludes((await causeOf(members[1]!.sum.remote(1))).message, "must join anew");
});

onNode("a member without room fails, and the others with it", async () => {
  const groups = await groupOf(2);
  const calls = await Promise.allSettled(groups.map((group) => group.allReduce(new Float64Array(1_000_000))));
  const reasons = calls.map((call) => call.status === "rejected" ? call.reason as Error : undefined);
  assert(reasons.some((reason) => reason instanceof StoreFullError), String(reasons));
  assert(
    reasons.every((reason) => reason instanceof StoreFullError || reason instanceof CollectiveBrokenError),
  );
}, { storeMemory: 10 * 1024 * 1024 });

onNode("wrong uses of collectives are told apart with what to do", async () => {
  const [group] = await groupOf(1);
  const cases: [() => unknown, string][] = [
    [() => collective.join({ name: "", size: 1 }), "without a name"],
    [() => collective.join({ name: "x", size: 0 }), "of size 0"],
    [() => collective.join({ name: "x", size: 2, rank: 2 }), "give 0 to 1"],
    [
      () => collective.join({ name: "x", size: 2, world: 2 } as unknown as collective.JoinOptions),
      'Unknown option "world"',
    ],
    [() => collective.join({ name: "x", size: 2, via: "tcp" as "objects" }), "via tcp"],
    [
      () => group!.allReduce([1, 2] as unknown as Float32Array),
      "Cannot call allReduce with object: give one of Int8Array",
    ],
    [
      () => group!.allReduce(new Float32Array(1), { op: "avg" as "mean" }),
      "there are sum, prod, min, max, mean",
    ],
    [() => group!.allReduce(new Int8Array(1), { op: "mean" }), "mean of whole numbers"],
    [
      () => group!.allReduce(new Float32Array(1), { root: 0 } as object),
      'Unknown option "root" for allReduce',
    ],
    [() => group!.reduce(new Float32Array(1), { root: 1 }), "Cannot use root 1"],
    [() => group!.broadcast(undefined), "Cannot call broadcast with undefined"],
    [() => group!.allGather(new Uint8ClampedArray(1) as unknown as Uint8Array), "with Uint8ClampedArray"],
  ];
  for (const [call, text] of cases) {
    const promise = call();
    assert(promise instanceof Promise, "it rejects rather than throws");
    assertStringIncludes((await assertRejects(() => promise, UsageError)).message, text);
  }
});
