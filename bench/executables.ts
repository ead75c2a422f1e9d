/**
 * The executable's processes that a benchmark starts: a head, workers and a program, with a home of their own, which all end
 * with the scope.
 *
 * @module
 */

const RAYD = new URL("../dist/rayd", import.meta.url).pathname;

/** Processes of one cluster. */
export class Executables implements AsyncDisposable {
  /** A directory of their own. */
  readonly home: string = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
  readonly env: Record<string, string> = { HOME: this.home, RAYD_CACHE: `${this.home}/cache` };
  readonly #children: Deno.ChildProcess[] = [];

  /** Starts a process. */
  start(...args: readonly string[]): Deno.ChildProcess {
    const child = new Deno.Command(RAYD, { args: [...args], env: this.env, stdin: "null", stdout: "piped" })
      .spawn();
    this.#children.push(child);
    return child;
  }

  /** Starts a head, which the others find. */
  async head(...args: readonly string[]): Promise<Deno.ChildProcess> {
    const head = this.start("head", "--port", "0", ...args);
    this.env.RAYD_ADDRESS = /is up at (\S+)/.exec(await printed(head, "The token is in"))![1]!;
    return head;
  }

  /** Starts a worker. */
  async worker(...args: readonly string[]): Promise<Deno.ChildProcess> {
    const worker = this.start("worker", ...args);
    await printed(worker, "has joined");
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children.reverse()) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await child.status;
    }
    Deno.removeSync(this.home, { recursive: true });
  }
}

/** Reads what a process prints until it has said that it is ready. */
async function printed(child: Deno.ChildProcess, ready: string): Promise<string> {
  let text = "";
  for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += part;
    if (text.includes(ready)) return text;
  }
  throw new Error(`it ended before it printed "${ready}":\n${text}`);
}
