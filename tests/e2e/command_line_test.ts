/**
 * The command line: what it answers, and what it says when it is called wrongly.
 *
 * @module
 */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VERSION } from "../../core/version.ts";
import { project, rayd, raydOutput } from "./rayd.ts";

Deno.test("rayd version names the versions of all parts", async () => {
  const text = await raydOutput(["version"]);
  assertMatch(
    text,
    new RegExp(
      `^rayd ${VERSION.replaceAll(".", "\\.")}\ndeno \\d+\\.\\d+\\.\\d+, v8 .*, object store ABI \\d+`,
    ),
  );
  assertEquals(await raydOutput(["--version"]), text);
});

Deno.test("rayd help lists the commands, and explains each", async () => {
  const overview = await raydOutput(["help"]);
  assertEquals(await raydOutput(["--help"]), overview);
  const commands = [...overview.matchAll(/^ {2}rayd (\w+)/gm)].map(([, name]) => name!).filter((name) =>
    name !== "help"
  );
  assertEquals(["run", "new", "version"].every((name) => commands.includes(name)), true);
  for (const name of commands) {
    const text = await raydOutput(["help", name]);
    assertStringIncludes(text, `rayd ${name}`);
    assertEquals(await raydOutput([name, "--help"]), text);
  }
});

/** Called wrongly: arguments, and what the message must contain. */
const WRONG: readonly (readonly [args: readonly string[], says: string])[] = [
  [[], "rayd run"],
  [["rnu"], 'Did you mean "run"?'],
  [["toString"], "Unknown command"],
  [["main.ts"], 'Did you mean "rayd run main.ts"?'],
  [["--cpus", "2"], "Options come after a command"],
  [["help", "nothing"], "Unknown command"],
  [["run"], "No script is given"],
  [["run", "--cpu", "2", "main.ts"], 'Did you mean "--cpus"?'],
  [["run", "--cpus", "many", "main.ts"], "Cannot use --cpus many"],
  [["run", "--cpus=", "main.ts"], "needs a value"],
  [["run", "--store-memory", "2 apples", "main.ts"], "512MB"],
  [["run", "--resources", "licence", "main.ts"], "name=amount"],
  [["run", "--log-level", "loud", "main.ts"], "debug, info, warn, error, off"],
  [["run", "missing.ts"], "there is no such file"],
  [["run", "/"], "it is a directory"],
  [["new"], "rayd new DIRECTORY"],
];

for (const [args, says] of WRONG) {
  Deno.test(`rayd ${args.join(" ")}: says what is wrong, status 2`, async () => {
    const { code, stdout, stderr } = await rayd(args);
    assertEquals({ code, stdout }, { code: 2, stdout: "" });
    assertStringIncludes(stderr, says);
  });
}

Deno.test("rayd run of a script with a syntax error points at it, status 1", async () => {
  using directory = project({ "main.ts": "const a = 1;\nconst b = = 2;\n" });
  const { code, stderr } = await rayd(["run", "main.ts"], { cwd: directory.path });
  assertEquals(code, 1);
  assertStringIncludes(stderr, `${directory.path}/main.ts:2:11`);
  assertStringIncludes(stderr, "const b = = 2;");
});

Deno.test("rayd run of a script with an import that leads nowhere says what to do, status 1", async () => {
  using directory = project({
    "file.ts": 'import "./other.ts";',
    "package.ts": 'import "not-installed/part";',
    "versioned.ts": 'import "npm:@some/thing@^2.0.0";',
    "remote.ts": 'import "https://example.com/mod.ts";',
    "name.ts": 'import { gett } from "rayd"; gett();',
  });
  const messages = {
    "file.ts": "Cannot find ./other.ts",
    "package.ts": 'npm install not-installed"',
    "versioned.ts": 'npm install @some/thing@^2.0.0"',
    "remote.ts": "Cannot import https://example.com/mod.ts",
    "name.ts": '"gett"',
  };
  for (const [script, message] of Object.entries(messages)) {
    const { code, stderr } = await rayd(["run", script], { cwd: directory.path });
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, message);
    assertStringIncludes(stderr, `${directory.path}/${script}:1`);
  }
});
