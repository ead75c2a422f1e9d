/**
 * The programs that a node serves: those that are connected to it, and those of other nodes that had something done here.
 *
 * @module
 */

import type { TaskId } from "../core/ids.ts";
import type { FromNode } from "../core/messages.ts";
import { CallRecord } from "./actor_records.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";

/** Knows programs by their jobs. */
export class Programs {
  readonly #node: NodeParts;
  readonly #drivers = new Map<TaskId, Client>();
  /** The peers that jobs of other nodes came from. */
  readonly #homes = new Map<TaskId, number>();

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
  }

  /** A program has connected. @returns Whether its job is not running already. */
  connected(client: Client, job: TaskId): boolean {
    if (this.#drivers.has(job)) return false;
    client.job = job;
    this.#drivers.set(job, client);
    this.#node.options.abroad?.jobStarted(job, client.pid);
    this.#node.isolates.wake();
    return true;
  }

  /** Whether a job's program is connected here. */
  has(job: TaskId): boolean {
    return this.#drivers.has(job);
  }

  /** Whether any program is connected here. */
  get any(): boolean {
    return this.#drivers.size > 0;
  }

  /** The jobs of programs that are connected here. */
  connectedJobs(): Iterable<readonly [TaskId, Client]> {
    return this.#drivers;
  }

  /** A peer asks on behalf of a job's program, or of its tasks. */
  behalf(client: Client, job: TaskId, driver: boolean): void {
    client.job = job;
    client.behalfOfDriver = driver;
    this.#homes.set(job, client.id);
  }

  /** The peer that a job of another node came from. */
  homeOf(job: TaskId): number | undefined {
    return this.#homes.get(job);
  }

  /** A program of another node has ended. */
  ended(job: TaskId): void {
    this.#homes.delete(job);
    this.#node.actors.jobEnded(job);
  }

  /** A program of this node is gone: its tasks are stopped, and its actors, unless they are detached. */
  gone(client: Client): void {
    this.#drivers.delete(client.job);
    this.#node.options.abroad?.jobEnded(client.job);
    for (const task of [...this.#node.tasks.values()]) {
      if (task.job === client.job && !task.finished && !this.#goesOn(task.parent)) {
        this.#node.cancellations.orphan(task);
      }
    }
    this.#node.actors.jobEnded(client.job);
    this.#node.groups.jobEnded(client.job);
    this.#node.cluster?.jobEnded(client.job);
  }

  /** Whether a task is, or was submitted by, a call that goes on without its program, as far as is known here. */
  #goesOn(id: TaskId): boolean {
    for (let task = this.#node.tasks.get(id); task !== undefined; task = this.#node.tasks.get(task.parent)) {
      if (task instanceof CallRecord && (task.remote >= 0 || task.outlivesProgram)) return true;
    }
    return false;
  }

  /** The job of what a client submits. */
  jobOf(client: Client, parent: TaskId): TaskId {
    return client.role === "driver" ? client.job : this.#node.tasks.get(parent)?.job ?? client.job;
  }

  /** Shows a program what a task of it has printed. */
  output(message: Extract<FromNode, { type: "output" }>): void {
    const program = this.#drivers.get(message.job) ??
      this.#node.clients.get(this.#homes.get(message.job) ?? -1) ??
      (this.#node.cluster === undefined ? this.#drivers.values().next().value : undefined);
    if (program !== undefined) this.#node.send(program, message);
  }
}
