/**
 * Threads that go before others for a while.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { StoreError } from "../core/errors.ts";
import { Urgency } from "../gcs/urgency.ts";
import { raystoreLibrary } from "../store/library.ts";
import { threadUrgency } from "../store/urgent.ts";
import { Timers } from "./timers.ts";

Deno.test("what is urgent is so for a while after the last of what has happened", () => {
  const clock = new Timers();
  const set: boolean[] = [];
  const urgency = new Urgency(clock, (urgent) => set.push(urgent), assert);
  urgency.hurry();
  clock.pass(199);
  urgency.hurry();
  assertEquals([set, clock.waiting()], [[true], 1]);
  clock.pass(199);
  assertEquals(set, [true]);
  clock.pass(1);
  assertEquals(set, [true, false]);
  urgency.hurry();
  clock.pass(200);
  assertEquals([set, clock.waiting()], [[true, false, true, false], 0]);
});

Deno.test("what the system does not allow is told once, and not tried again", () => {
  const clock = new Timers();
  const told: string[] = [];
  let tries = 0;
  const refuse = () => {
    tries++;
    throw new StoreError("not allowed");
  };
  const urgency = new Urgency(clock, refuse, ({ message }) => told.push(message));
  urgency.hurry();
  urgency.hurry();
  assertEquals([tries, told, clock.waiting()], [1, ["not allowed"], 0]);
});

/** The scheduling policy of this thread: field 41 of proc_pid_stat(5), where 0 is the usual one, and 2 SCHED_RR. */
function policy(): string {
  const text = Deno.readTextFileSync("/proc/thread-self/stat");
  return text.slice(text.lastIndexOf(")")).split(" ")[39]!;
}

Deno.test("a thread goes before others where the system allows it, and is of the usual kind after that", () => {
  const thread = threadUrgency(raystoreLibrary());
  let refused: Error | undefined;
  try {
    thread.set(true);
  } catch (error) {
    refused = error as Error;
  }
  const urgent = policy();
  thread.set(false);
  thread.close();
  if (refused === undefined) assertEquals(urgent, "2");
  else {assertMatch(
      refused.message,
      /Cannot have a thread run before others: a system call failed \(errno 1\)/,
    );}
  assertEquals(policy(), "0");
});
