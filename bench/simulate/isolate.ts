/**
 * An isolate of the simulated cluster: it works through what it is sent, in order, and says so.
 *
 * A task that reads what is not on its node waits for it: it lends its CPUs, and the isolate goes on with others.
 *
 * @module
 */

import type { Execution } from "./task.ts";

/** What an isolate needs of its node. */
export interface IsolateHost {
  readonly alive: boolean;
  /** An execution starts. @returns Whether what it reads is here; otherwise `arrived` is called when it is. */
  start(execution: Execution, arrived: () => void): boolean;
  /** Its values are here. */
  resume(execution: Execution): void;
  /** It runs, from now on. */
  run(execution: Execution, ended: (durationMs: number) => void): void;
  ended(execution: Execution, durationMs: number): void;
}

/** An isolate. */
export class SimIsolate {
  readonly number: number;
  readonly #host: IsolateHost;
  readonly #queue: Execution[] = [];
  #running = 0;

  constructor(number: number, host: IsolateHost) {
    this.number = number;
    this.#host = host;
  }

  /** Takes what it was sent. */
  receive(executions: readonly Execution[]): void {
    for (const execution of executions) this.#queue.push(execution);
    this.#next();
  }

  #next(): void {
    for (;;) {
      const head = this.#queue[0];
      if (head === undefined) return;
      if (head.revoked) {
        this.#queue.shift();
        continue;
      }
      if (this.#running >= head.attempt.shape.concurrency) return;
      this.#queue.shift();
      head.claimed = true;
      const here = this.#host.start(head, () => {
        this.#host.resume(head);
        this.#run(head);
      });
      if (here) this.#run(head);
    }
  }

  #run(execution: Execution): void {
    this.#running++;
    this.#host.run(execution, (durationMs) => {
      this.#running--;
      this.#host.ended(execution, durationMs);
      this.#next();
    });
  }
}
