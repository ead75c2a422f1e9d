/**
 * One line at the bottom of the terminal that shows what the node is doing, while a script runs.
 *
 * The line is on standard error and is never part of the output: before anything else is written it is wiped, and it
 * comes back on the next beat, unless the output stopped in the middle of a line. The cursor waits below it and is not
 * hidden, so that a kill at any moment leaves the terminal as it should be.
 *
 * @module
 */

import type { NodeStats } from "../node/questions.ts";
import { setLineWriter } from "../runtime/console.ts";
import { clientIfAny } from "../runtime/session.ts";
import { coloured, complain, print } from "./output.ts";

/** Time between two looks at the node. */
const BEAT_MS = 200;
/** How much a new measurement counts in the shown rate. */
const RATE_WEIGHT = 0.3;

/** Up to the line, and all of it away. */
const WIPE = "\x1b[1A\r\x1b[2K";

/** Starts the line; it ends with the process. */
export function startStatusLine(): void {
  const line = new StatusLine();
  line.hookOutput();
  Deno.unrefTimer(setInterval(() => line.beat(), BEAT_MS));
  addEventListener("unload", () => line.wipe());
}

class StatusLine {
  #shown = false;
  /** Other output has stopped in the middle of a line. */
  #midLine = false;
  #asking = false;
  /** What is being written is the line itself. */
  #drawing = false;
  #done = 0;
  #at = 0;
  #rate = 0;

  /** Asks the node and shows what it says. */
  async beat(): Promise<void> {
    const client = clientIfAny();
    if (client === undefined || client.ended !== undefined) return this.wipe();
    if (this.#asking) return;
    this.#asking = true;
    try {
      const stats = await client.ask("stats") as NodeStats;
      this.#observe(stats.done);
      if (clientIfAny() === client) this.#show(stats);
    } catch {
      this.wipe();
    } finally {
      this.#asking = false;
    }
  }

  /** Wipes the line, if it is there. */
  wipe(): void {
    if (!this.#shown) return;
    this.#shown = false;
    this.#draw(WIPE);
  }

  /** Has the line wiped before anything else is written. */
  hookOutput(): void {
    setLineWriter((stream, text) => {
      this.#before(text);
      (stream === "stdout" ? print : complain)(text);
    });
    const methods = console as unknown as Record<string, (...args: unknown[]) => void>;
    for (const name of CONSOLE_METHODS) {
      const original = methods[name]!.bind(console);
      methods[name] = (...args) => {
        this.#before("\n");
        original(...args);
      };
    }
    // Standard output may go elsewhere; then it does not touch the terminal.
    const streams = Deno.stdout.isTerminal() ? [Deno.stdout, Deno.stderr] : [Deno.stderr];
    for (const stream of streams) this.#hookStream(stream);
    for (const name of ["alert", "confirm", "prompt"] as const) {
      const original = globalThis[name] as (...args: unknown[]) => unknown;
      Object.defineProperty(globalThis, name, {
        configurable: true,
        writable: true,
        value: (...args: unknown[]) => {
          this.#before("\n");
          return original(...args);
        },
      });
    }
  }

  #hookStream(stream: typeof Deno.stdout): void {
    const { write, writeSync } = stream;
    stream.write = (bytes) => {
      this.#beforeBytes(bytes);
      return write.call(stream, bytes);
    };
    stream.writeSync = (bytes) => {
      this.#beforeBytes(bytes);
      return writeSync.call(stream, bytes);
    };
  }

  #beforeBytes(bytes: Uint8Array): void {
    if (this.#drawing || bytes.length === 0) return;
    this.#before(bytes[bytes.length - 1] === 10 ? "\n" : " ");
  }

  #before(text: string): void {
    this.wipe();
    this.#midLine = !text.endsWith("\n");
  }

  #show(stats: NodeStats): void {
    if (this.#midLine) return;
    const { done, failed, running, queued, waiting, store } = stats;
    const count = (n: number) => n.toLocaleString("en");
    const parts = [
      `${count(done)} done`,
      ...(failed > 0 ? [`${count(failed)} failed`] : []),
      `${count(running)} running`,
      `${count(Math.max(0, queued))} queued`,
      ...(waiting > 0 ? [`${count(waiting)} waiting`] : []),
      `${count(Math.round(this.#rate))}/s`,
      `store ${formatBytes(store.used)} of ${formatBytes(store.capacity)}`,
    ];
    const text = `rayd: ${parts.join(" · ")}`.slice(0, columns() - 1);
    this.#draw(`${this.#shown ? WIPE : "\r"}${coloured() ? `\x1b[2m${text}\x1b[0m` : text}\n`);
    this.#shown = true;
  }

  #draw(text: string): void {
    this.#drawing = true;
    complain(text);
    this.#drawing = false;
  }

  #observe(done: number): void {
    const now = performance.now();
    if (this.#at > 0) {
      const rate = (done - this.#done) / (now - this.#at) * 1000;
      this.#rate += (rate - this.#rate) * RATE_WEIGHT;
      if (this.#rate < 0.5) this.#rate = 0;
    }
    this.#done = done;
    this.#at = now;
  }
}

const CONSOLE_METHODS = [
  ...["log", "info", "debug", "warn", "error", "table", "dir", "dirxml", "trace", "assert"],
  ...["count", "group", "groupCollapsed", "timeEnd", "timeLog", "clear"],
];

/** Bytes with three digits and a binary unit. */
function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes, unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

/** The terminal's width; some terminals do not know theirs and say 0. */
function columns(): number {
  try {
    const { columns } = Deno.consoleSize();
    if (columns > 0) return columns;
  } catch {
    // As below.
  }
  return 80;
}
