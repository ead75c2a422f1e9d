/**
 * A simulated program: connected to a node as a driver, by the real client, it does some things whose outcome is known.
 *
 * @module
 */

import { UsageError } from "../../../core/errors.ts";
import { type TaskId, taskIdFromBytes } from "../../../core/ids.ts";
import { Client } from "../../../runtime/client.ts";
import { type Scope, scopeOf } from "../../../runtime/scope.ts";
import type { SimNode } from "./machine.ts";
import { SimProcess } from "./process.ts";
import type { Cluster } from "./world.ts";

/** What a program does. Throws if something is not as it must be. */
export type Script = (program: Program) => Promise<void>;

/** One program. */
export class Program {
  readonly name: string;
  readonly world: Cluster;
  readonly node: SimNode;
  readonly process: SimProcess;
  readonly job: TaskId;
  readonly client: Client;
  /** It has come to its end, or its node has. */
  ended = false;
  /** It came to its own end. */
  finished = false;
  /** What was wrong. */
  failure: Error | undefined;
  readonly script: Script;
  readonly #scope: Scope;

  constructor(world: Cluster, name: string, node: SimNode, script: Script) {
    this.world = world;
    this.name = name;
    this.node = node;
    this.script = script;
    this.process = new SimProcess(name, node.host, world.time);
    this.job = taskIdFromBytes(Uint8Array.from({ length: 16 }, () => world.below(256)));
    this.#scope = scopeOf(this.job);
    this.client = new Client({
      role: "driver",
      isolate: 0,
      job: this.job,
      clock: this.process.clock,
      flush: "microtask",
      keepAlive: false,
      scope: () => this.#scope,
    });
    this.process.onEnd(() => this.ended = true);
    // A program ends with its node.
    node.process.onEnd(() => this.process.kill());
    this.#run(script);
  }

  /** A number below `n`: programs have chance from the seed. */
  below(n: number): number {
    return this.world.below(n);
  }

  log(what: string): void {
    this.world.log(this.node, "program", what);
  }

  /** Lets virtual time go by. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.process.clock.after(ms, resolve));
  }

  async #run(script: Script): Promise<void> {
    const { node } = this;
    try {
      const stream = await node.connect(this.process);
      await this.client.connect({
        conn: stream as Deno.Conn,
        token: this.world.token,
        store: node.openStore(),
      });
      await script(this);
      this.finished = true;
    } catch (error) {
      // It is told that its node ends before it ends with it.
      if (this.process.alive && !node.leaving) {
        this.failure = new Error(`${this.name} (${script.name}): ${(error as Error).message}`, {
          cause: error,
        });
      }
    }
    this.client.end(new UsageError("The program has ended"));
    if (this.finished) this.ended = true;
    else this.process.kill();
  }
}
