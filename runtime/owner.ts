/**
 * Who is behind a call: what a lock or a group must know to tell when the one that it deals with is gone.
 *
 * An owner is named by an id that a run of its own shares with every further run, and by a *run*, which it does not: a
 * task whose isolate died is run again under its id, and what its first run held is nobody's. That a task has ended, or
 * an actor has died, its node tells without being asked again, and without keeping anything of it.
 *
 * @module
 */

import { hex, type TaskId, taskIdFromHex } from "../core/ids.ts";
import type { Client } from "./client.ts";
import { hostedContext, taskContext, taskScope } from "./executor.ts";

/** Somebody, as others know them. */
export interface Owner {
  /** A task (or a call of an actor), an actor, or the program itself, whose end is the end of its node. */
  readonly kind: "task" | "actor" | "program";
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** Which run of it. */
  readonly run: string;
  /** For people. */
  readonly label: string;
}

/** Numbers for runs, by what is there exactly as long as the run. */
const runs = new WeakMap<object, number>();
let nextRun = 0;

function runOf(of: object): string {
  let run = runs.get(of);
  if (run === undefined) runs.set(of, run = nextRun++);
  const context = taskContext();
  return context === undefined ? String(run) : `${context.nodeId}/${context.workerId}/${run}`;
}

const PROGRAM = {};

/** The task or the call that calls; outside of both, the program. */
export function callingTask(): Owner {
  const scope = taskScope();
  if (scope === undefined) return { kind: "program", id: "", run: runOf(PROGRAM), label: "the program" };
  const { name } = taskContext()!;
  return { kind: "task", id: hex(scope.task), run: runOf(scope), label: `task ${name}` };
}

/** The actor whose method calls; outside of actors, the task. */
export function callingMember(): Owner {
  const hosted = hostedContext();
  if (hosted === undefined) return callingTask();
  const { instance } = hosted;
  return {
    kind: "actor",
    id: hex(instance.id),
    run: runOf(instance),
    label: `actor ${instance.settings.name || instance.settings.label}`,
  };
}

/** Whether the calling code only rebuilds the state of a durable actor. */
export function isReplaying(): boolean {
  return hostedContext()?.replaying ?? false;
}

/** Tells once when an owner will never run again. */
export function onGone(client: Client, owner: Owner, gone: () => void): void {
  const id: TaskId = taskIdFromHex(owner.id);
  if (owner.kind === "task") client.onTaskEnd(id, gone);
  else if (owner.kind === "actor") client.onActorDeath(id, gone);
}
