/**
 * The global scheduler: the rule of the least expected wait, and that stale reports do not send all to one node.
 *
 * @module
 */

import { type Candidate, FairShares } from "../scheduler/fair_shares.ts";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { type TaskId, taskIdFromBytes } from "../core/ids.ts";
import { GlobalScheduler, type PlaceRequest } from "../scheduler/global.ts";

const idOf = (n: number) => taskIdFromBytes(new Uint8Array(16).fill(n));
const SELF = idOf(255);
const CPU = 10_000;

function request(given: Partial<PlaceRequest> = {}): PlaceRequest {
  return { demand: { cpu: CPU }, expectedMs: 10, betterThanMs: Infinity, missingBytes: () => 0, ...given };
}

function cluster(cpus: readonly number[]): GlobalScheduler {
  const scheduler = new GlobalScheduler(SELF);
  cpus.forEach((n, i) => scheduler.join({ id: idOf(i), resources: { cpu: n * CPU }, labels: {} }));
  return scheduler;
}

Deno.test("place chooses a node that has what is asked for, and none where no node ever has", () => {
  const scheduler = cluster([4]);
  scheduler.join({ id: idOf(7), resources: { cpu: CPU, gpu: 2 * CPU }, labels: {} });
  assertEquals(scheduler.place(request({ demand: { gpu: CPU } }), 0), idOf(7));
  assertEquals(scheduler.place(request({ demand: { gpu: 3 * CPU } }), 0), undefined);
  assertEquals(scheduler.feasible({ gpu: 2 * CPU }), true);
  assertEquals(scheduler.feasible({ gpu: 3 * CPU }), false);
  scheduler.leave(idOf(7));
  assertEquals(scheduler.place(request({ demand: { gpu: CPU } }), 0), undefined);
});

Deno.test("place prefers an idle node to a short queue, and a short queue to a long one", () => {
  const scheduler = cluster([1, 1, 1]);
  scheduler.report(idOf(0), { free: { cpu: 0 }, queued: 10, meanMs: 10 }, 0);
  scheduler.report(idOf(1), { free: { cpu: 0 }, queued: 2, meanMs: 10 }, 0);
  scheduler.report(idOf(2), { free: { cpu: CPU }, queued: 0, meanMs: 10 }, 0);
  assertEquals(scheduler.place(request(), 0), idOf(2));
  assertEquals(scheduler.place(request(), 0), idOf(2)); // behind one that runs: still the least
  scheduler.leave(idOf(2));
  assertEquals(scheduler.place(request(), 0), idOf(1));
});

Deno.test("place waits on a busy node rather than where actors hold the CPUs, and there only if nowhere else", () => {
  const scheduler = cluster([1, 1]);
  scheduler.report(idOf(0), { free: { cpu: 0 }, lasting: { cpu: CPU / 2 }, queued: 0, meanMs: 10 }, 0);
  scheduler.report(idOf(1), { free: { cpu: 0 }, lasting: { cpu: CPU }, queued: 100, meanMs: 10 }, 0);
  assertEquals(scheduler.fitsBesideActors(idOf(0), { cpu: CPU }), false);
  assertEquals(scheduler.fitsBesideActors(idOf(0), { cpu: CPU / 2 }), true);
  assertEquals(scheduler.place(request(), 0), idOf(1));
  assertEquals(scheduler.place(request({ demand: { cpu: CPU / 2 } }), 0), idOf(0));
  scheduler.leave(idOf(1));
  assertEquals(scheduler.place(request(), 0), idOf(0));
});

Deno.test("place sends a task to where its arguments are, unless the wait there costs more than bringing them", () => {
  const scheduler = cluster([1, 1]);
  scheduler.report(idOf(0), { free: { cpu: CPU }, queued: 0, meanMs: 10 }, 0);
  scheduler.report(idOf(1), { free: { cpu: 0 }, queued: 1, meanMs: 10 }, 0);
  const missing = (bytes: number) => (node: TaskId) => node === idOf(1) ? 0 : bytes;
  assertEquals(scheduler.place(request({ missingBytes: missing(100e6) }), 0), idOf(1));
  assertEquals(scheduler.place(request({ missingBytes: missing(1e6) }), 0), idOf(0));
});

Deno.test("place gives up on nodes that are no better than waiting", () => {
  const scheduler = cluster([1]);
  scheduler.report(idOf(0), { free: { cpu: 0 }, queued: 100, meanMs: 10 }, 0);
  assertEquals(scheduler.place(request({ betterThanMs: 500 }), 0), undefined);
  assertEquals(scheduler.place(request({ betterThanMs: 5_000 }), 0), idOf(0));
});

Deno.test("tasks that are placed between two reports spread by the nodes' CPUs, and never rush to one", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 2, maxLength: 8 }), (cpus) => {
      const scheduler = cluster(cpus);
      const total = cpus.reduce((a, b) => a + b, 0);
      const counts = cpus.map(() => 0);
      const rounds = 10;
      for (let i = 0; i < total * rounds; i++) {
        const node = scheduler.place(request(), 0)!;
        counts[node.charCodeAt(0)]!++;
      }
      counts.forEach((count, i) => {
        const share = cpus[i]! * rounds;
        // A node with many CPUs is taken to start a task sooner even if as much waits there for each of them.
        assertEquals(Math.abs(count - share) <= share * 0.5 + cpus[i]!, true, `${counts} of ${cpus}`);
      });
    }),
  );
});

Deno.test("a report takes the place of what was sent long before it, and not of what was sent just now", () => {
  const scheduler = cluster([2]);
  scheduler.place(request(), 0);
  scheduler.report(idOf(0), { free: { cpu: 2 * CPU }, queued: 0, meanMs: 1 }, 10);
  assertEquals(scheduler.free(idOf(0)), { cpu: CPU }); // the report may be older than the task
  scheduler.report(idOf(0), { free: { cpu: 2 * CPU }, queued: 0, meanMs: 1 }, 1_000);
  assertEquals(scheduler.free(idOf(0)), { cpu: 2 * CPU });
});

Deno.test("each node looks at the others from its own id on, and round, whoever joins and leaves", () => {
  fc.assert(
    fc.property(
      fc.nat(255),
      fc.array(fc.record({ join: fc.boolean(), n: fc.nat(255) }), { maxLength: 40 }),
      (self, changes) => {
        const scheduler = new GlobalScheduler(idOf(self));
        const there = new Set<number>();
        for (const { join, n } of changes) {
          if (join) scheduler.join({ id: idOf(n), resources: { cpu: 1000 * CPU }, labels: {} });
          else scheduler.leave(idOf(n));
          if (join) there.add(n);
          else there.delete(n);
        }
        const behind = [...there].filter((n) => n > self), before = [...there].filter((n) => n <= self);
        const order = [...behind.sort((a, b) => a - b), ...before.sort((a, b) => a - b)];
        assertEquals(scheduler.place(request(), 0), order[0] === undefined ? undefined : idOf(order[0]));
      },
    ),
  );
});

Deno.test("FairShares gives by CPUs, and a node that joins or comes back its share of what comes, not of what was", () => {
  const shares = new FairShares<string>();
  const give = (tasks: number, ...candidates: Candidate<string>[]) => {
    const given: Record<string, number> = {};
    for (let i = 0; i < tasks; i++) {
      const id = shares.choose(candidates)!;
      given[id] = (given[id] ?? 0) + 1;
    }
    return given;
  };
  const [a, b, c] = [{ id: "a", cpus: 1 }, { id: "b", cpus: 3 }, { id: "c", cpus: 0 }];
  assertEquals(give(400, a, b), { a: 100, b: 300 });
  assertEquals(give(500, a, b, c), { a: 100, b: 300, c: 100 });
  assertEquals(give(1000, b), { b: 1000 });
  assertEquals(give(40, a, b), { a: 10, b: 30 });
  assertEquals(shares.choose([]), undefined);
});
