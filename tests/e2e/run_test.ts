/**
 * `rayd run`: scripts as users write them.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { project, RAYD, rayd, raydOutput, Running } from "./rayd.ts";

const WORDCOUNT = new URL("../../examples/wordcount.ts", import.meta.url).pathname;

const SQUARE = `import { get, remote } from "rayd";
export const square = remote(function square(x: number): number { return x * x; });
`;

Deno.test("a script gets its arguments, and its status is passed on", async () => {
  using directory = project({
    "main.ts": `console.log(JSON.stringify(Deno.args)); Deno.exit(Number(Deno.args[0]));`,
    "later.ts": `Deno.exitCode = 5;`,
  });
  const ended = await rayd(["run", "--cpus", "1", "main.ts", "7", "--cpus", "-x", "--", "last"], {
    cwd: directory.path,
  });
  assertEquals(ended.stdout, '["7","--cpus","-x","--","last"]\n');
  assertEquals(ended.code, 7);
  assertEquals((await rayd(["run", "later.ts"], { cwd: directory.path })).code, 5);
});

Deno.test("modules keep their own import.meta, and only the script is main", async () => {
  using directory = project({
    "main.ts": `#!/usr/bin/env rayd run
import { other } from "./lib/other.ts";
console.log(import.meta.main, import.meta.url, import.meta.filename, import.meta.dirname, import.meta.resolve("./x.ts"));
console.log(other.join(" "));`,
    "lib/other.ts": `export const other = [import.meta.main, import.meta.url, import.meta.dirname];`,
  });
  const { path } = directory;
  assertEquals(
    await raydOutput(["run", "main.ts"], { cwd: path }),
    `true file://${path}/main.ts ${path}/main.ts ${path} file://${path}/x.ts\nfalse file://${path}/lib/other.ts ${path}/lib\n`,
  );
});

Deno.test("tasks run in isolates, where the script is not main", async () => {
  using directory = project({
    "main.ts": `${SQUARE}
if (import.meta.main) {
  console.log(await get([1, 2, 3].map((x) => square.remote(x))));
} else console.log("imported");`,
  });
  const output = await raydOutput(["run", "--cpus", "1", "main.ts"], { cwd: directory.path });
  assertStringIncludes(output, "[ 1, 4, 9 ]\n");
  assertStringIncludes(output, "(worker=1) imported\n");
});

Deno.test("functions of one name in several modules of a bundle are kept apart, and know their name", async () => {
  using directory = project({
    "main.ts": `import { get, remote } from "rayd";
import { scale as b } from "./b.ts";
const { scale: c } = await import("./c.ts");
export const scale = remote(function scale(x: number): string { return scale.name + x; });
export const late = remote(function late(x: number): string { return late.name + x; });
if (import.meta.main) {
  console.log(await get([scale.remote(1), b.remote(1), c.remote(1), late.remote(1)]));
}`,
    "b.ts": `import { remote } from "rayd";
export const scale = remote(function scale(x: number): string { return scale.name + x * 2; });`,
    "c.ts": `import { remote } from "rayd";
function scale(x: number): string { return scale.name + x * 3; }
const wrapped = remote(scale);
export { wrapped as scale };`,
  });
  assertEquals(
    await raydOutput(["run", "main.ts"], { cwd: directory.path }),
    '[ "scale1", "scale2", "scale3", "late1" ]\n',
  );
});

Deno.test("remote() inside a function is an error that says where it must stand", async () => {
  using directory = project({
    "main.ts": `import { remote } from "rayd";
function declare() {
  return remote(function inner() {});
}
declare();`,
  });
  const { code, stderr } = await rayd(["run", "main.ts"], { cwd: directory.path });
  assertEquals(code, 1);
  assertStringIncludes(stderr, 'UsageError: Cannot declare remote function "inner" inside a function');
  assertStringIncludes(stderr, `${directory.path}/main.ts:3:`);
});

Deno.test("an error that is not caught is shown with the user's line, status 1", async () => {
  using directory = project({
    "top.ts": `interface Nothing { a: string }\n\nthrow new TypeError("at the top");`,
    "promise.ts":
      `type T = string;\nconst text: T = "rejected";\nPromise.reject(new Error(text));\nawait new Promise(() => setTimeout(() => {}, 60_000));`,
    "timer.ts": `interface A {}\n\n\nsetTimeout(() => {\n  throw new Error("in a timer");\n});`,
    "task.ts": `import { get, remote } from "rayd";
export const fail = remote(function fail(n: number): number {

  throw new RangeError("bad " + n);
});
if (import.meta.main) await get(fail.remote(3));`,
  });
  for (
    const [script, message, place] of [
      ["top.ts", "error: Uncaught TypeError: at the top", "top.ts:3:7"],
      ["promise.ts", "error: Uncaught (in promise) Error: rejected", "promise.ts:3:16"],
      ["timer.ts", "error: Uncaught Error: in a timer", "timer.ts:5:9"],
      ["task.ts", "error: Uncaught TaskError: Task fail failed: RangeError: bad 3", "task.ts:4:9"],
    ] as const
  ) {
    const { code, stderr } = await rayd(["run", script], { cwd: directory.path });
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, message);
    assertStringIncludes(stderr, `file://${directory.path}/${place}`);
    assert(!stderr.includes("deno-compile"), stderr);
  }
});

Deno.test("a module that cannot be imported on a worker fails its tasks with where and why", async () => {
  const main = (elsewhere: string) =>
    `import { get, remote } from "rayd";
export const task = remote(function task(): void {});
if (import.meta.main) {
  await get(task.remote()).catch((error) => console.log(error.name + "|" + error.message + "|" + error.remoteStack));
} else {
  ${elsewhere}
}`;
  using directory = project({
    "throws.ts": main(`interface A {}

  throw new RangeError("no port");`),
    "value.ts": main(`throw { reason: "none" };`),
    "missing.ts": main(`await import(new URL("./not_there.js", import.meta.url).href);`),
    "syntax.ts": main(`await import(new URL("./broken.js", import.meta.url).href);`),
    "broken.js": "export const x = 1;\nconst y;\n",
  });
  const url = `file://${directory.path}`;
  for (
    const [script, why, place] of [
      ["throws.ts", "RangeError: no port (at PLACE)", "throws.ts:8:9"],
      ["value.ts", '{ reason: "none" }', ""],
      ["missing.ts", `Module not found: ${url}/not_there.js`, "missing.ts:6:3"],
      ["syntax.ts", "SyntaxError: Missing initializer in const declaration at PLACE", "broken.js:2:7"],
    ] as const
  ) {
    const output = await raydOutput(["run", "--cpus", "1", script], { cwd: directory.path });
    assertStringIncludes(
      output,
      `TaskError|Task task failed: importing ${url}/${script} on a worker failed: `,
    );
    assertStringIncludes(output, why.replace("PLACE", `${url}/${place}`));
    assertStringIncludes(output, place);
  }
});

Deno.test("a script may deal with errors itself", async () => {
  using directory = project({
    "main.ts": `addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  console.log("mine:", event.reason);
});
Promise.reject("no");`,
  });
  assertEquals(await raydOutput(["run", "main.ts"], { cwd: directory.path }), "mine: no\n");
});

Deno.test("imports go through the import map, with prefixes and scopes, and to node_modules", async () => {
  using directory = project({
    "deno.jsonc": `{
  // comments are fine
  "imports": { "@lib/": "./lib/", "one": "./lib/one.ts", "left": "npm:left@^1.0.0", "common": "npm:common@2" },
  "scopes": { "./lib/": { "one": "./lib/two.ts" } },
}`,
    "app/main.ts": `import { a } from "@lib/a.ts";
import { name } from "one";
import left from "left";
import { sub } from "left/sub.js";
import common from "common";
import { direct } from "npm:@scope/direct@1/deep.js";
import { basename } from "path";
import data from "../data.json" with { type: "json" };
import text from "../note.txt" with { type: "text" };
import type { Nothing } from "./types-only.ts";
console.log(a, name, left, sub, common.dir("/x/y"), direct, basename("/q/r"), data.n, text);
export type X = Nothing;`,
    "data.json": `{"n": 5}`,
    "note.txt": "a note",
    "lib/a.ts": `export { name as a } from "one";`,
    "lib/one.ts": `export const name: string = "one";`,
    "lib/two.ts": `export const name: string = "two";`,
    "node_modules/left/package.json":
      `{"name":"left","type":"module","exports":{".":{"deno":"./deno.js","default":"./no.js"},"./sub.js":"./sub.js"}}`,
    "node_modules/left/deno.js": `export default "left";`,
    "node_modules/left/sub.js": `export const sub = "sub";`,
    "node_modules/common/package.json": `{"name":"common","main":"index.js"}`,
    "node_modules/common/index.js": `const path = require("path"); exports.dir = (p) => path.dirname(p);`,
    "node_modules/@scope/direct/package.json": `{"name":"@scope/direct","type":"module"}`,
    "node_modules/@scope/direct/deep.js": `export const direct = "direct";`,
  });
  assertEquals(
    await raydOutput(["run", "app/main.ts"], { cwd: directory.path }),
    "two one left sub /x direct r 5 a note\n",
  );
});

Deno.test("fast-png is there although nothing is installed", async () => {
  using directory = project({
    "main.ts": `import { decode, encode } from "fast-png";
const png = encode({ width: 2, height: 1, data: new Uint8Array([1, 2, 3, 4, 5, 6]), channels: 3 });
console.log([...decode(png).data].join());`,
  });
  assertEquals(await raydOutput(["run", "main.ts"], { cwd: directory.path }), "1,2,3,4,5,6\n");
});

Deno.test("what a task prints appears with its name and worker", async () => {
  using directory = project({
    "main.ts": `import { get, remote } from "rayd";
export const talk = remote(function talk() { console.log("one\\ntwo"); console.error("three"); });
if (import.meta.main) await get(talk.remote());`,
  });
  const { code, stdout, stderr } = await rayd(["run", "main.ts"], { cwd: directory.path });
  assertEquals(code, 0);
  assertMatch(stdout, /^\(talk worker=\d+\) one\n\(talk worker=\d+\) two\n$/);
  assertMatch(stderr, /^\(talk worker=\d+\) three\n$/);
});

Deno.test("a script goes on for as long as it has something to wait for", async () => {
  using directory = project({
    "main.ts": `${SQUARE}
if (import.meta.main) {
  await get(square.remote(1));
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async () => {
    return new Response(String(await get(square.remote(12))));
  });
  setTimeout(async () => {
    console.log(await (await fetch("http://127.0.0.1:" + server.addr.port)).text());
    await server.shutdown();
  }, 50);
}`,
  });
  assertEquals(await raydOutput(["run", "main.ts"], { cwd: directory.path }), "144\n");
});

Deno.test("options are defaults for init(), called or not", async () => {
  using directory = project({
    "auto.ts": `import { clusterResources, nodes } from "rayd";
const { cpu, gpu, licence } = await clusterResources();
const [node] = await nodes();
console.log(cpu, gpu, licence, node.storeCapacity >= 64e6 && node.storeCapacity < 80e6);`,
    "init.ts": `import { clusterResources, init } from "rayd";
await using _ = await init({ gpus: 2 });
const { cpu, gpu, licence } = await clusterResources();
console.log(cpu, gpu, licence);`,
  });
  const options = ["--cpus", "3", "--gpus=1", "--resources", "licence=1.5,disk=4", "--store-memory", "64MiB"];
  assertEquals(await raydOutput(["run", ...options, "auto.ts"], { cwd: directory.path }), "3 1 1.5 true\n");
  assertEquals(await raydOutput(["run", ...options, "init.ts"], { cwd: directory.path }), "3 2 1.5\n");
});

Deno.test("a program that runs under plain Deno from the sources runs the same in the executable", async () => {
  const source = new URL("../../runtime/mod.ts", import.meta.url).pathname;
  using directory = project({
    "main.ts": `${SQUARE.replace('"rayd"', JSON.stringify(source))}
if (import.meta.main) console.log(await get(square.remote(6)));`,
  });
  assertEquals(await raydOutput(["run", "main.ts"], { cwd: directory.path }), "36\n");
});

Deno.test("the executable alone, copied to an empty directory, runs everything", async () => {
  using directory = project({
    "main.ts": `${SQUARE}\nif (import.meta.main) console.log(await get(square.remote(5)));`,
  });
  const copy = `${directory.path}/somewhere`;
  Deno.mkdirSync(copy);
  Deno.copyFileSync(RAYD, `${copy}/tool`);
  Deno.renameSync(`${directory.path}/main.ts`, `${copy}/main.ts`);
  const env = { PATH: "/nowhere", HOME: copy, RAYD_CACHE: "", XDG_CACHE_HOME: "" };
  const options = { cwd: copy, env, executable: `${copy}/tool` };
  assertEquals(await raydOutput(["run", "main.ts"], options), "25\n");
  assertStringIncludes(await raydOutput(["version"], options), "rayd ");
  assertEquals([...Deno.readDirSync(`${copy}/.cache/rayd`)].length, 2);
});

Deno.test("actors in a bundle keep their state, and come back with it when they are killed", async () => {
  const text = await raydOutput(["run", new URL("../../examples/kv_service.ts", import.meta.url).pathname]);
  assertMatch(
    text,
    /^2000 increments were answered, [1-9]\d* actors killed meanwhile: the counters hold 2000\n$/,
  );
});

Deno.test("counting words on all cores gives what a plain count does, whatever the files hold", async () => {
  const words = "Été été ÉTÉ naïve snake_case x1 — \u{1f600}\ufeffb b the The\r\nthe";
  const large = new TextEncoder().encode(`${words}\n`.repeat(330_000));
  const border = 16 * 1024 * 1024;
  large.fill("q".charCodeAt(0), border - 300_000, border + 20_000); // a word longer than a block, over a chunk's border
  using directory = project({
    "text/empty": "",
    "text/no/newline": words,
    "text/one-word": "w".repeat(300_000),
  });
  const path = `${directory.path}/text`;
  Deno.writeFileSync(`${path}/large`, large);
  Deno.writeFileSync(`${path}/invalid`, Uint8Array.of(97, 0xff, 32, 97, 0xfe, 32, 97, 0xff, 10));
  Deno.writeFileSync(`${path}/binary`, Uint8Array.of(97, 32, 0, 32, 98));
  Deno.writeFileSync(`${path}/large-binary`, new Uint8Array(border + 1));
  const expected = new Map<string, number>();
  for (const name of ["no/newline", "one-word", "large", "invalid"]) {
    const bytes = Buffer.from(Deno.readFileSync(`${path}/${name}`));
    for (const [word] of bytes.toString("latin1").matchAll(/[\w\x80-\xff]+/g)) {
      const lower = word.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
      expected.set(lower, (expected.get(lower) ?? 0) + 1);
    }
  }
  const total = [...expected.values()].reduce((sum, n) => sum + n, 0);
  const lines = [...expected].map(([word, n]) => `${n}\t${Buffer.from(word, "latin1").toString()}`);
  const count = async (...options: string[]) => {
    const ended = await rayd(["run", "--quiet", WORDCOUNT, ...options, path]);
    assertEquals(ended.code, 0, ended.stderr);
    return ended.stdout;
  };
  const plain = await count("--all", "--plain");
  const [first, ...rest] = plain.trimEnd().split("\n");
  assertEquals(first, `${total} words, ${expected.size} different`);
  assertEquals(rest.toSorted(), lines.toSorted());
  assert(await count("--all") === plain, "the counts differ");
  assertEquals(await count(), await count("--plain"));
});

Deno.test("a parameter server learns, in step and out of step, where no package is installed", async () => {
  const example = new URL("../../examples/parameter_server.ts", import.meta.url);
  using directory = project({ "parameter_server.ts": Deno.readTextFileSync(example) });
  const text = await raydOutput(["run", "parameter_server.ts", "80"], { cwd: directory.path });
  for (const way of ["synchronous", "asynchronous"]) {
    const [, from, to] = new RegExp(`^${way}: loss ([0-9.]+) to ([0-9.]+)`, "m").exec(text)!;
    assert(Number(from) > 1 && Number(to) < 0.5, text);
  }
  const right = [...text.matchAll(/^([0-9]+) of 30 flowers/gm)].map(([, count]) => Number(count));
  assert(right.length === 2 && right.every((count) => count >= 24), text);
});

Deno.test("queues and locks are rayd's own, whatever the bundle", async () => {
  using directory = project({
    "main.ts": `import { get, Lock, Queue } from "rayd";
import { consume } from "./consume.ts";
if (import.meta.main) {
  const [queue, lock] = [new Queue<number>({ capacity: 2 }), new Lock()];
  const sums = [consume.remote(queue, lock), consume.remote(queue, lock)];
  for (let i = 1; i <= 10; i++) await queue.put(i);
  await queue.shutdown();
  const [a, b] = await get(sums);
  console.log(a! + b!, new Event("web").type, queue instanceof Queue);
}`,
    "consume.ts": `import { type Lock, type Queue, remote } from "rayd";
export const consume = remote(async function consume(queue: Queue<number>, lock: Lock): Promise<number> {
  let sum = 0;
  for await (const n of queue) {
    await using _ = await lock.acquire();
    sum += n;
  }
  return sum;
});`,
  });
  for (const isolation of ["thread", "process"]) {
    const output = await raydOutput(["run", "--isolation", isolation, "main.ts"], { cwd: directory.path });
    assertEquals(output, "55 web true\n", isolation);
  }
});

Deno.test("many first starts at once, with an empty cache, all work", async () => {
  using directory = project({
    "main.ts": `${SQUARE}\nif (import.meta.main) console.log(await get(square.remote(5)));`,
  });
  const env = { RAYD_CACHE: `${directory.path}/cache` };
  const runs = Array.from(
    { length: 4 },
    () => raydOutput(["run", "--cpus", "1", "main.ts"], { cwd: directory.path, env }),
  );
  assertEquals(await Promise.all(runs), ["25\n", "25\n", "25\n", "25\n"]);
  // The library and esbuild, once each, and nothing unfinished.
  assertEquals([...Deno.readDirSync(env.RAYD_CACHE)].map(({ name }) => name.slice(33)).sort(), [
    "esbuild",
    "libraystore.so",
  ]);
});

Deno.test("what is left waiting for ever does not keep a finished script", async () => {
  using directory = project({
    "main.ts": `import { get, put, remote } from "rayd";
export const forever = remote(function forever() { return new Promise(() => {}); });
if (import.meta.main) {
  const ref = await put(1);
  forever.remote();
  console.log(await get(ref));
}`,
  });
  await using run = new Running(["run", "main.ts"], { cwd: directory.path });
  assertEquals((await run.ended()).code, 0);
  assertEquals(run.stdout, "1\n");
});
