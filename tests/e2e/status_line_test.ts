/**
 * The status line: on a terminal, and nowhere else.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { project, RAYD, rayd } from "./rayd.ts";

const SCRIPT = `import { get, remote } from "rayd";
export const gate = remote(function gate(): Promise<void> { return new Promise(() => {}); });
export const step = remote(function step(n: number): number { return n; });
if (import.meta.main) {
  await get([1, 2, 3].map((n) => step.remote(n)));
  gate.remote();
  // Ends when the line has been seen: it asks the node, and so do we.
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setInterval(() => {
    console.log("tick");
    if (++ticks === 8) resolve();
  }, 100);
  await promise;
  clearInterval(timer);
  Deno.stdout.writeSync(new TextEncoder().encode("half a line, "));
  console.log("the other half");
}
`.replace("const timer", "let ticks = 0;\n  const timer");

/** Runs rayd on a terminal. @returns All that the terminal got. */
async function onTerminal(args: readonly string[], cwd: string): Promise<string> {
  const { stdout } = await new Deno.Command("script", {
    args: ["-qec", [RAYD, ...args].join(" "), "/dev/null"],
    cwd,
    stdin: "null",
    stdout: "piped",
    signal: AbortSignal.timeout(60_000),
  }).output();
  return new TextDecoder().decode(stdout);
}

/** What one would see in the end, on a terminal that knows the few codes that are used. */
function screen(text: string): string[] {
  const lines = [""];
  let row = 0, column = 0;
  // deno-lint-ignore no-control-regex
  for (const [token] of text.matchAll(/\x1b\[(?:1A|2K|[\d;]*m)|\r|\n|[^\x1b\r\n]+/g)) {
    if (token === "\n") lines[++row] ??= "";
    else if (token === "\r") column = 0;
    else if (token === "\x1b[1A") row--;
    else if (token === "\x1b[2K") lines[row] = "";
    else if (!token.startsWith("\x1b")) {
      lines[row] = lines[row]!.slice(0, column) + token + lines[row]!.slice(column + token.length);
      column += token.length;
    }
  }
  return lines;
}

Deno.test("on a terminal the status line shows the node's counters, and never mixes with output", async () => {
  using directory = project({ "main.ts": SCRIPT });
  const text = await onTerminal(["run", "--cpus", "2", "main.ts"], directory.path);
  assertMatch(text, /rayd: 3 done · 1 running · 0 queued · [\d,]+\/s · store [\d.]+ \w+ of [\d.]+ \w+/);
  assertEquals(screen(text).filter((line) => line !== ""), [
    ...Array(8).fill("tick"),
    "half a line, the other half",
  ]);
});

Deno.test("there is no status line with --quiet, or when standard error is no terminal", async () => {
  using directory = project({ "main.ts": SCRIPT });
  const quiet = await onTerminal(["run", "--quiet", "main.ts"], directory.path);
  assertEquals(quiet.replaceAll("\r", ""), `${"tick\n".repeat(8)}half a line, the other half\n`);
  const piped = await rayd(["run", "main.ts"], { cwd: directory.path });
  assertEquals(piped.stderr, "");
});

Deno.test("the status line has no colour with NO_COLOR", async () => {
  using directory = project({ "main.ts": SCRIPT });
  const text = await onTerminal(["run", "main.ts"], directory.path);
  assertStringIncludes(text, "rayd: ");
  assert(Deno.env.get("NO_COLOR") === undefined || !text.includes("\x1b[2m"));
});
