/**
 * What the commands themselves say: plain lines, colour only where it is wanted.
 *
 * @module
 */

const encoder = new TextEncoder();

/** A command was called wrongly. The message says what, and how it is done right; the status is 2. */
export class CommandLineError extends Error {}

/** Whether standard error may be coloured. */
export function coloured(): boolean {
  return !Deno.noColor && Deno.stderr.isTerminal();
}

/** Writes to standard output, whole. */
export function print(text: string): void {
  writeAll(Deno.stdout, text);
}

/** Writes to standard error, whole. */
export function complain(text: string): void {
  writeAll(Deno.stderr, text);
}

function writeAll(to: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
  } catch (error) {
    // Whoever read us has gone (`rayd help | head`).
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Columns in line, under their names. @param rows Each as long as `names`. */
export function showTable(names: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [names, ...rows];
  const widths = names.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
  return all.map((row) => `${row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()}\n`).join("");
}
