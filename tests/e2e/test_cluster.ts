/**
 * Clusters of the executable's own processes, for tests: a head and workers, and scripts that run on them.
 *
 * @module
 */

import { project, raydOutput, Running } from "./rayd.ts";

/** A head and workers, which end with the scope. */
export class TestCluster implements AsyncDisposable {
  readonly directory: { readonly path: string } & Disposable;
  readonly env: Record<string, string>;
  readonly nodes: Running[] = [];
  address = "";

  private constructor(script: string) {
    this.directory = project({ "main.ts": script });
    this.env = { HOME: this.directory.path };
  }

  static async start(
    script: string,
    head: readonly string[],
    ...workers: readonly (readonly string[])[]
  ): Promise<TestCluster> {
    const cluster = new TestCluster(script);
    await cluster.head(["--port", "0", ...head]);
    for (const worker of workers) await cluster.worker(worker);
    return cluster;
  }

  async head(options: readonly string[]): Promise<Running> {
    const head = new Running(["head", "--store-memory", "256MB", ...options], { env: this.env });
    this.nodes.push(head);
    await head.printed("The token is in");
    this.address = /is up at (\S+)/.exec(head.stdout)![1]!;
    this.env.RAYD_ADDRESS = this.address;
    return head;
  }

  async worker(options: readonly string[]): Promise<Running> {
    const worker = new Running(["worker", "--store-memory", "256MB", ...options], { env: this.env });
    this.nodes.push(worker);
    await worker.printed("has joined");
    return worker;
  }

  /** Runs the script. @returns What it printed, by name. */
  async run(...args: readonly string[]): Promise<Record<string, unknown>> {
    return parse(await raydOutput(["run", "main.ts", ...args], { cwd: this.directory.path, env: this.env }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes.reverse()) await node[Symbol.asyncDispose]();
    this.directory[Symbol.dispose]();
  }
}

/** What a script has printed, by name. */
export function parse(stdout: string): Record<string, unknown> {
  return Object.fromEntries(
    stdout.trim().split("\n").map((line) => {
      const at = line.indexOf(": ");
      return [line.slice(0, at), JSON.parse(line.slice(at + 2)) as unknown];
    }),
  );
}
