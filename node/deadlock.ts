/**
 * Circles of actors that wait for each other.
 *
 * A call that waits inside of an actor that takes one call at a time keeps the actor's other calls from running. If it
 * waits, however indirectly, for one of these, nothing will ever go on. Such a circle closes when something begins to
 * wait, so that is when it is looked for: from what is waited for, to what that waits for, or waits behind.
 *
 * @module
 */

import { type ObjectId, type TaskId, taskOf } from "../core/ids.ts";
import { CallRecord } from "./actor_records.ts";
import type { TaskRecord } from "./tasks.ts";

/** A circle: the call that is to fail so that the rest can go on, and all names along it. */
export interface Circle {
  readonly call: CallRecord;
  readonly names: readonly string[];
}

/**
 * Looks for a circle that `task` closes by waiting for all of `objects`.
 *
 * @param tasks The tasks that have not ended.
 * @param waits What tasks that are no calls wait for.
 */
export function circleOf(
  task: TaskRecord,
  objects: readonly ObjectId[],
  tasks: ReadonlyMap<TaskId, TaskRecord>,
  waits: ReadonlyMap<TaskRecord, readonly ObjectId[]>,
): Circle | undefined {
  const seen = new Set<TaskRecord>();
  const waitsOf = (each: TaskRecord): readonly TaskRecord[] => {
    const missing =
      (each === task ? objects : each instanceof CallRecord ? each.waitsFor : waits.get(each)) ?? [];
    const next = [...missing, ...(each.state === "new" ? each.dependencies : [])]
      .map((object) => tasks.get(taskOf(object))).filter((producer) => producer !== undefined);
    if (!(each instanceof CallRecord) || each === each.actor.creation) return next;
    const running = runningBefore(each);
    return running === undefined ? next : [...next, running];
  };
  // Depth first, with the way that led here.
  const ways: TaskRecord[][] = waitsOf(task).map((next) => [next]);
  for (let way = ways.pop(); way !== undefined; way = ways.pop()) {
    const last = way[way.length - 1]!;
    if (last === task) {
      const call = way.find((each) => each instanceof CallRecord && runningBefore(each) !== undefined);
      if (call === undefined) return undefined;
      return { call: call as CallRecord, names: [task, ...way].map((each) => each.entry.settings.name) };
    }
    if (seen.has(last)) continue;
    seen.add(last);
    for (const next of waitsOf(last)) ways.push([...way, next]);
  }
  return undefined;
}

/** The call that keeps another one of its actor from running. */
function runningBefore(call: CallRecord): CallRecord | undefined {
  const { actor } = call;
  if (actor.settings.concurrency > 1 || Object.keys(actor.settings.groups).length > 0) return undefined;
  const running = actor.sent.values().next().value;
  return running === call ? undefined : running;
}
