/**
 * `console` inside tasks: what a task prints appears at its driver, in order, prefixed with the task's name and the
 * worker. A flood is cut off: after a number of lines a second, the rest of the second is counted and dropped.
 *
 * @module
 */

import { formatWithOptions } from "node:util";
import type { Clock } from "../core/clock.ts";
import { LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND } from "../core/limits.ts";
import { type FromNode, OUTPUT_LEVELS } from "../core/messages.ts";
import type { Client } from "./client.ts";

/** How long a line may wait for others to be sent with. */
const FLUSH_MS = 20;

/** No task: what is printed while a module is imported, or by what a task left behind. */
const NO_TASK = 0xffff_ffff;

/**
 * Sends what this isolate prints to the node.
 *
 * @param client The isolate's connection.
 * @param clock For the rate.
 * @param task The execution that prints, if one does.
 */
export function forwardConsole(client: Client, clock: Clock, task: () => number | undefined): void {
  let second = 0, lines = 0, dropped = 0, flushedAt = 0, flushing = false;
  const print = (level: number, args: unknown[]) => {
    const now = Math.floor(clock.now() / 1000);
    if (now !== second) {
      second = now;
      lines = 0;
    }
    if (++lines > LOG_LINES_PER_SECOND) {
      dropped++;
      if (dropped === 1) clock.after(1000, report);
      return;
    }
    let text = formatWithOptions({ colors: false }, ...args);
    if (text.length > LOG_LINE_BYTES_MAX) {
      text = `${text.slice(0, LOG_LINE_BYTES_MAX)}… (${text.length} characters)`;
    }
    client.send({ type: "log", handle: task() ?? NO_TASK, level, dropped: 0, text });
    // A task that computes for long is not to be silent for as long.
    if (task() === undefined) queueMicrotask(() => client.flush());
    else if (clock.now() - flushedAt > FLUSH_MS) {
      flushedAt = clock.now();
      client.flush();
    } else if (!flushing) {
      flushing = true;
      clock.after(FLUSH_MS, () => {
        flushing = false;
        client.flush();
      });
    }
  };
  const report = () => {
    client.send({ type: "log", handle: NO_TASK, level: 3, dropped, text: "" });
    dropped = 0;
    client.flush();
  };
  OUTPUT_LEVELS.forEach((name, level) => console[name] = (...args: unknown[]) => print(level, args));
  console.trace = (...args: unknown[]) => print(4, [...args, new Error().stack]);
  console.table = (...args: unknown[]) => print(1, args);
  console.dir = (...args: unknown[]) => print(1, args.slice(0, 1));
  console.assert = (condition?: boolean, ...args: unknown[]) => {
    if (!condition) print(4, ["Assertion failed", ...args]);
  };
}

/** Where a driver's lines go; the executable's status line takes its place. */
export type LineWriter = (stream: "stdout" | "stderr", text: string) => void;

const encoder = new TextEncoder();

let writer: LineWriter = (stream, text) => {
  const bytes = encoder.encode(text);
  const target = stream === "stdout" ? Deno.stdout : Deno.stderr;
  for (let at = 0; at < bytes.length;) at += target.writeSync(bytes.subarray(at));
};

/** Writes lines of tasks elsewhere. */
export function setLineWriter(to: LineWriter): void {
  writer = to;
}

/** Prints what a task printed. */
export function printOutput(message: Extract<FromNode, { type: "output" }>): void {
  const prefix = `(${message.task === "" ? "worker" : `${message.task} worker`}=${message.worker}) `;
  const text = message.dropped > 0
    ? `${message.dropped} lines were dropped: more than ${LOG_LINES_PER_SECOND} a second`
    : message.text;
  const lines = text.split("\n").map((line) => `${prefix}${line}\n`).join("");
  writer(message.level >= 3 ? "stderr" : "stdout", lines);
}
