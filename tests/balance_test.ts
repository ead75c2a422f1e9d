/**
 * When a node gives tasks away: how long the wait must be, how good the other node, and where it stops.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Backlog, balance, farLimitMs, spillLimitMs } from "../scheduler/balance.ts";

function backlog(given: Partial<Backlog>): Backlog {
  return { queued: 10, waitedMs: 0, meanMs: 1, lanes: 4, ...given };
}

Deno.test("spillLimitMs is the wait where that is long, and none where it is short", () => {
  assertEquals(spillLimitMs(backlog({ queued: 40 })), 10);
  assertEquals(spillLimitMs(backlog({ queued: 20 })), 0);
  assertEquals(spillLimitMs(backlog({ queued: 0, waitedMs: 100, meanMs: 100 })), 0);
});

Deno.test("spillLimitMs allows only idle nodes where a task has waited against all estimates", () => {
  assertEquals(spillLimitMs(backlog({ waitedMs: 5 })), 0);
  assertEquals(spillLimitMs(backlog({ waitedMs: 6 })), 2);
});

Deno.test("balance gives the youngest away until the wait is short, or no node is better", () => {
  const run = (places: number) => {
    const queue = Array.from({ length: 30 }, (_, i) => i);
    const given: number[] = [];
    balance<number, string>({
      backlog: () => backlog({ queued: queue.length, lanes: 1 }),
      giveAway: (accept) => accept(queue.at(-1)!) ? queue.pop() : undefined,
      place: (_, limitMs) => {
        assertEquals(limitMs, queue.length);
        return given.length < places ? "other" : undefined;
      },
      delegate: (task, target) => {
        assertEquals(target, "other");
        given.push(task);
      },
    });
    return { given, left: queue.length };
  };
  assertEquals(run(3), { given: [29, 28, 27], left: 27 });
  assertEquals(run(Infinity).left, 5);
});

Deno.test("farLimitMs sends a task to its arguments when bringing them takes longer than a short wait", () => {
  const idle = { queued: 0, waitedMs: 0, meanMs: 1, lanes: 4 };
  assertEquals(farLimitMs(idle, 1e6), 0);
  assertEquals(farLimitMs(idle, 100e6), 100);
  assertEquals(farLimitMs({ ...idle, queued: 8, meanMs: 10 }, 100e6), 120);
});

Deno.test("balance gives no more than it may, and says whether there may be more", () => {
  let queued = 10;
  const node = {
    backlog: () => ({ queued, waitedMs: 100, meanMs: 100, lanes: 1 }),
    giveAway: (accept: (task: number) => boolean) => queued > 0 && accept(queued) ? queued-- : undefined,
    place: () => "there",
    delegate: () => {},
  };
  assertEquals(balance(node, 4), true);
  assertEquals(queued, 6);
  assertEquals(balance(node), false);
  assertEquals(queued, 0);
});
