/**
 * Isolates of a simulated node: the real executor and client of `runtime/`, each in a simulated process of its own on the
 * node's host, connected to it as hosts are.
 *
 * @module
 */

import { UsageError } from "../../../core/errors.ts";
import type { TaskId } from "../../../core/ids.ts";
import { CLAIM_SLOTS } from "../../../core/limits.ts";
import type { IsolateFactory } from "../../../node/peers.ts";
import { Client } from "../../../runtime/client.ts";
import { Executor, taskScope } from "../../../runtime/executor.ts";
import type { ObjectStore } from "../../../store/object_store.ts";
import type { ByteStream } from "../../../transport/channel.ts";
import { isolates } from "./functions.ts";
import type { SimProcess } from "./process.ts";

/** What isolates need of their node's host. */
export interface IsolateServices {
  /** The node, 32 hexadecimal digits. */
  readonly node: string;
  readonly token: string;
  /** Starts a process. */
  spawn(name: string): SimProcess;
  /** Connects one to the node. */
  connect(from: SimProcess): Promise<ByteStream>;
  openStore(): ObjectStore;
  /** How long a process takes to start. */
  startMs(): number;
  /** A task holds something, until its process ends or what is returned is called. */
  holds(by: SimProcess, amount: number): () => void;
  /** The node's operating system tells it something. */
  tell(news: () => void): void;
}

const NO_JOB = "\0".repeat(16) as TaskId;

/** Starts isolates on a node's host. */
export function simIsolates(host: IsolateServices): IsolateFactory {
  return {
    start(number, exited) {
      const process = host.spawn(`isolate ${number}`);
      const claims = new Int32Array(CLAIM_SLOTS);
      let ended = false;
      process.onEnd(() => {
        isolates.delete(`${host.node}/${number}`);
        if (ended) return;
        ended = true;
        host.tell(() => exited("its host process ended with SIGKILL"));
      });
      process.clock.after(host.startMs(), () => {
        // One that cannot reach its node ends.
        begin(host, process, number, claims).catch(() => process.kill());
      });
      return {
        claims,
        terminate() {
          ended = true;
          process.kill();
        },
      };
    },
  };
}

async function begin(
  host: IsolateServices,
  process: SimProcess,
  number: number,
  claims: Int32Array,
): Promise<void> {
  const { clock } = process;
  const stream = await host.connect(process);
  const client = new Client({
    role: "isolate",
    isolate: number,
    job: NO_JOB,
    clock,
    flush: "manual",
    keepAlive: false,
    scope: () => {
      const scope = taskScope();
      if (scope === undefined) throw new UsageError("rayd was called outside of any task");
      return scope;
    },
    other: (message) => executor.message(message),
    drained: () => executor.drain(),
    closed: () => process.kill(),
  });
  const executor = new Executor(client, claims, clock, number);
  isolates.set(`${host.node}/${number}`, {
    client,
    clock,
    holds: (amount) => host.holds(process, amount),
  });
  await client.connect({ conn: stream as Deno.Conn, token: host.token, store: host.openStore() });
}
