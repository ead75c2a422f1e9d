/**
 * `rayd new`: a project that works at once.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { project, rayd, raydOutput } from "./rayd.ts";

async function deno(args: readonly string[], cwd: string): Promise<{ code: number; output: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  return { code, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

Deno.test("a new project runs, tests and type-checks", async () => {
  using directory = project({});
  const { path } = directory;
  await raydOutput(["new", "app"], { cwd: path });
  assertEquals(await raydOutput(["run", "app/main.ts"], { cwd: path }), "[ 1, 4, 9, 16 ] 30\n");
  assertStringIncludes(
    await raydOutput(["run", "main_test.ts"], { cwd: `${path}/app` }),
    "ok  a sum of tasks",
  );
  const checked = await deno(["check", "--all", "."], `${path}/app`);
  assertEquals(checked.code, 0, checked.output);
  const formatted = await deno(["fmt", "--check"], `${path}/app`);
  assertEquals(formatted.code, 0, formatted.output);
});

Deno.test("the types of a new project are exact", async () => {
  using directory = project({});
  const { path } = directory;
  await raydOutput(["new", "."], { cwd: path });
  Deno.writeTextFileSync(
    `${path}/wrong.ts`,
    `import { get } from "rayd";
import { square } from "./squares.ts";
export const text: string = await get(square.remote(3));
square.remote("three");
`,
  );
  const { code, output } = await deno(["check", "wrong.ts"], path);
  assertEquals(code, 1);
  assertStringIncludes(output, "Type 'number' is not assignable to type 'string'");
  assertStringIncludes(output, "wrong.ts:4:15");
});

Deno.test("a program run with Deno itself says that rayd runs it", async () => {
  using directory = project({});
  await raydOutput(["new", "."], { cwd: directory.path });
  const { code, output } = await deno(["run", "-A", "main.ts"], directory.path);
  assertEquals(code, 1);
  assertStringIncludes(output, 'runs with "rayd run"');
});

Deno.test("rayd new touches no directory that has something in it", async () => {
  using directory = project({ "app/precious.txt": "mine" });
  const { code, stderr } = await rayd(["new", "app"], { cwd: directory.path });
  assertEquals(code, 2);
  assertStringIncludes(stderr, "it is not empty");
  assertEquals([...Deno.readDirSync(`${directory.path}/app`)].map(({ name }) => name), ["precious.txt"]);
});
