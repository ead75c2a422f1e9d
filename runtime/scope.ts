/**
 * Whose work is being done: the program's itself, or a task's. What it makes is named after it.
 *
 * @module
 */

import { ChildIds, type ObjectId, putId, type TaskId } from "../core/ids.ts";
import type { Entry } from "./ref.ts";

/** Whose work is being done: the driver itself, or a task. Gives children their ids. */
export interface Scope {
  readonly task: TaskId;
  /** Made when the first child is. */
  children: ChildIds | undefined;
  /** Of children that belong to this run of the work alone; made when the first one is. */
  ownChildren: ChildIds | undefined;
  puts: number;
  /** It has called an actor, or is a call itself: the node wants to know what it waits for. */
  calls: boolean;
  /** Waits under way, and what tells the node that the task waits and goes on. */
  waits: number;
  /** Told of the objects that it waits for, if it waits for all of them. */
  readonly blocked: ((objects?: readonly Entry[]) => void) | undefined;
  readonly unblocked: (() => void) | undefined;
  /** What check mode saw of objects that the task read. */
  reads?: { id: ObjectId; hash: bigint; bytes: Uint8Array<ArrayBuffer>; release(): void }[];
}

/** Makes a scope. */
export function scopeOf(
  task: TaskId,
  blocked?: (objects?: readonly Entry[]) => void,
  unblocked?: () => void,
): Scope {
  return {
    task,
    children: undefined,
    ownChildren: undefined,
    puts: 0,
    waits: 0,
    calls: false,
    blocked,
    unblocked,
  };
}

/** The id of the next child of a scope: the same in each run of its work. */
export function childOf(scope: Scope): TaskId {
  return (scope.children ??= new ChildIds(scope.task)).next();
}

/** The id of the next object that a scope puts. */
export function nextPut(scope: Scope): ObjectId {
  return putId(scope.task, scope.puts++);
}
