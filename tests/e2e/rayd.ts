/**
 * The executable as a user has it: run in a directory of its own, with a cache of its own.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/** The executable. */
export const RAYD = new URL("../../dist/rayd", import.meta.url).pathname;

/** How long anything may take before a test gives up. */
const DEADLINE_MS = 60_000;

/** How a run ended. */
export interface Ended {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Options of a run. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly executable?: string;
}

/** Runs rayd to its end. */
export async function rayd(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { code, signal, stdout, stderr } = await new Deno.Command(options.executable ?? RAYD, {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(DEADLINE_MS),
    ...withoutUndefined({ cwd: options.cwd, env: options.env }),
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, signal, stdout: text(stdout), stderr: text(stderr) };
}

function withoutUndefined(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** Runs rayd to its end, which must be a good one. @returns Its standard output. */
export async function raydOutput(args: readonly string[], options: RunOptions = {}): Promise<string> {
  const ended = await rayd(args, options);
  assertEquals({ code: ended.code, stderr: ended.stderr }, { code: 0, stderr: "" }, ended.stdout);
  return ended.stdout;
}

/** A directory with files in it, which goes at the end of the scope. */
export function project(files: Readonly<Record<string, string>>): { readonly path: string } & Disposable {
  const path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "project-" }));
  for (const [name, text] of Object.entries(files)) {
    const file = `${path}/${name}`;
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(file, text);
  }
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** A running rayd whose output can be waited for. */
export class Running implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>[];
  stdout = "";
  stderr = "";
  #changed = Promise.withResolvers<void>();
  #over = false;

  constructor(args: readonly string[], options: RunOptions = {}) {
    this.#child = new Deno.Command(options.executable ?? RAYD, {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      ...withoutUndefined({ cwd: options.cwd, env: options.env }),
    }).spawn();
    this.#reading = [
      this.#read(this.#child.stdout, (text) => this.stdout += text),
      this.#read(this.#child.stderr, (text) => this.stderr += text),
    ];
    Promise.allSettled(this.#reading).then(() => {
      this.#over = true;
      this.#changed.resolve();
    });
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>, add: (text: string) => void): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      add(text);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Waits until it has printed something. @throws If it ends without, or does not in time. */
  async printed(text: string): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE_MS);
    const late = new Promise<never>((_, reject) => {
      deadline.onabort = () =>
        reject(new Error(`"${text}" was not printed, but:\n${this.stdout}\n${this.stderr}`));
    });
    late.catch(() => {});
    while (!this.stdout.includes(text)) {
      if (this.#over) {
        throw new Error(`"${text}" was not printed before the end, but:\n${this.stdout}\n${this.stderr}`);
      }
      await Promise.race([this.#changed.promise, late]);
    }
  }

  /** Sends it a signal and waits for its end. */
  async kill(signal: Deno.Signal): Promise<Deno.CommandStatus> {
    this.#child.kill(signal);
    return await this.ended();
  }

  /** Waits for its end. */
  async ended(): Promise<Deno.CommandStatus> {
    const status = await this.#child.status;
    await Promise.all(this.#reading);
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.ended();
  }
}

/** Waits until a process is gone. */
export async function gone(pid: number): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    try {
      if (/\) Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`))) return;
    } catch {
      return;
    }
    if (performance.now() > deadline) throw new Error(`Process ${pid} has not ended`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits until a file is there. */
export async function exists(path: string): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    try {
      Deno.statSync(path);
      return;
    } catch {
      if (performance.now() > deadline) throw new Error(`${path} did not appear`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** The children of a process that still run. */
export function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(parent) === pid && state !== "Z") children.push(Number(name));
    } catch {
      // It has just ended.
    }
  }
  return children;
}
