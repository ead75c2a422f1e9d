/**
 * How an error that nobody caught is shown: like Deno does, with the user's own lines, and without rayd's frames.
 *
 * @module
 */

import { coloured, complain } from "./output.ts";

/** How deep causes are followed. */
const CAUSES_MAX = 8;

/** Prints an uncaught error. @param how What was thrown, in words: `Uncaught` or `Uncaught (in promise)`. */
export function printFatal(how: string, error: unknown): void {
  const label = coloured() ? "\x1b[1;31merror\x1b[0m" : "error";
  complain(`${label}: ${how} ${describe(error, 0)}\n`);
}

function describe(error: unknown, depth: number): string {
  if (!(error instanceof Error)) return Deno.inspect(error, { colors: false });
  const stack = error.stack ?? String(error);
  const lines = stack.split("\n");
  const firstFrame = lines.findIndex((line) => /^\s+at /.test(line));
  const head = firstFrame < 0 ? lines : lines.slice(0, firstFrame);
  const frames = firstFrame < 0 ? [] : lines.slice(firstFrame).filter(isUsers);
  const parts = [...head, ...(depth === 0 ? excerpt(frames[0]) : []), ...frames];
  if (error instanceof AggregateError && depth < CAUSES_MAX) {
    for (const each of error.errors) parts.push(indent(describe(each, depth + 1)));
  }
  // A failed task's error tells its cause already: it stands in the message, and the stack is the cause's.
  if (error.cause !== undefined && error.name !== "TaskError" && depth < CAUSES_MAX) {
    parts.push(`Caused by: ${describe(error.cause, depth + 1)}`);
  }
  return parts.join("\n");
}

function indent(text: string): string {
  return text.split("\n").map((line) => `    ${line}`).join("\n");
}

const OWN = new URL("..", import.meta.url).href;

function isUsers(line: string): boolean {
  return !line.includes("(ext:") && !line.includes(" ext:") && !line.includes("(node:") &&
    !(Deno.build.standalone && line.includes(OWN));
}

/** The line of the user's source that the frame is in, with a mark under its column. */
function excerpt(frame: string | undefined): string[] {
  const match = frame === undefined ? null : /(file:\/\/\/[^()]+):(\d+):(\d+)\)?$/.exec(frame);
  if (match === null) return [];
  try {
    const line = Deno.readTextFileSync(new URL(match[1]!)).split("\n")[Number(match[2]) - 1];
    const column = Number(match[3]) - 1;
    if (line === undefined || line.length > 160 || column > line.length) return [];
    return [line, `${" ".repeat(column)}^`];
  } catch {
    return [];
  }
}
