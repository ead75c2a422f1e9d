/**
 * What programs bring along for their tasks: packets of variables and files.
 *
 * @module
 */

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../core/errors.ts";
import { WORKING_DIRECTORY_BYTES_MAX } from "../core/limits.ts";
import { packEnvironment, unpackEnvironment } from "../runtime/environment.ts";

function temporary(): { readonly path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "environment-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

function write(directory: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [name, content] of Object.entries(files)) {
    const path = `${directory}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }
}

/** All files under a directory, by path. */
function read(directory: string, prefix = ""): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { name, isDirectory } of Deno.readDirSync(`${directory}/${prefix}`)) {
    if (isDirectory) Object.assign(found, read(directory, `${prefix}${name}/`));
    else found[`${prefix}${name}`] = Deno.readTextFileSync(`${directory}/${prefix}${name}`);
  }
  return found;
}

Deno.test("an environment is unpacked as it was packed, but for what is left behind", () => {
  using directory = temporary();
  const source = `${directory.path}/source`;
  write(source, {
    "a.txt": "a",
    "deep/er/b.txt": "",
    "deep/secret.key": "no",
    "node_modules/x/index.js": "no",
    "deep/.git/config": "no",
    "data/large.bin": "no",
    ".raydignore": "# what stays\nsecret.key\n/data/  # all of it\n",
  });
  Deno.writeFileSync(`${source}/run.sh`, new TextEncoder().encode("#!/bin/sh"), { mode: 0o755 });
  Deno.symlinkSync("a.txt", `${source}/link.txt`);
  const { hash, bytes } = packEnvironment({ B: "2", A: "=\n" }, source);
  assertEquals(
    packEnvironment({ A: "=\n", B: "2" }, source).hash,
    hash,
    "what is the same has the same name",
  );
  Deno.writeFileSync(`${directory.path}/packet`, bytes);
  const files = `${directory.path}/files`;
  const unpacked = unpackEnvironment(`${directory.path}/packet`, files);
  assertEquals(unpacked, { env: { A: "=\n", B: "2" }, workingDirectory: files });
  const expected = { "a.txt": "a", "deep/er/b.txt": "", "run.sh": "#!/bin/sh", "link.txt": "a" };
  assertEquals(read(files), expected);
  assertEquals(Deno.statSync(`${files}/run.sh`).mode! & 0o777, 0o755);
  assertEquals(
    unpackEnvironment(`${directory.path}/packet`, files).workingDirectory,
    files,
    "it is there already",
  );
  assertEquals([...Deno.readDirSync(directory.path)].length, 3, "nothing else is left");
});

Deno.test("any variables and files come through", () => {
  const name = fc.stringMatching(/^[a-zA-Z0-9_. -]{1,12}$/).filter((text) => !/^\.*$/.test(text.trim()));
  const env = fc.dictionary(fc.stringMatching(/^[A-Z_]{1,8}$/), fc.string({ unit: "binary" }));
  const files = fc.dictionary(name, fc.uint8Array({ maxLength: 200 }), { maxKeys: 5 });
  fc.assert(
    fc.property(env, files, (env, files) => {
      using directory = temporary();
      Deno.mkdirSync(`${directory.path}/source`);
      write(`${directory.path}/source`, Object.fromEntries(Object.entries(files)));
      Deno.writeFileSync(
        `${directory.path}/packet`,
        packEnvironment(env, `${directory.path}/source`).bytes,
      );
      const unpacked = unpackEnvironment(`${directory.path}/packet`, `${directory.path}/files`);
      assertEquals({ ...unpacked.env }, { ...env });
      for (const [name, content] of Object.entries(files)) {
        assertEquals(Deno.readFileSync(`${directory.path}/files/${name}`), content);
      }
    }),
    { numRuns: 50 },
  );
});

Deno.test("an environment that is too large, or leads out of its directory, is refused", () => {
  using directory = temporary();
  write(directory.path, { "source/small.txt": "s" });
  const large = Deno.openSync(`${directory.path}/source/large.bin`, { write: true, create: true });
  large.truncateSync(WORKING_DIRECTORY_BYTES_MAX + 1);
  large.close();
  const error = assertThrows(() => packEnvironment({}, `${directory.path}/source`), UsageError) as UsageError;
  assertStringIncludes(error.message, "large.bin (50.3 MB)");
  assertStringIncludes(error.message, ".raydignore");
  assertThrows(() => packEnvironment({}, `${directory.path}/none`), UsageError, "no such directory");
  for (const [name, target] of [["dangling", "nowhere"], ["elsewhere", "/proc"]]) {
    write(directory.path, { [`${name}/a.txt`]: "a" });
    Deno.symlinkSync(target!, `${directory.path}/${name}/link`);
    const error = assertThrows(
      () => packEnvironment({}, `${directory.path}/${name}`),
      UsageError,
    ) as UsageError;
    assertStringIncludes(error.message, `${name}/link`);
    Deno.removeSync(`${directory.path}/${name}`, { recursive: true });
  }
  const evil = { env: {}, files: [{ path: "../evil", size: 1, mode: 0o644 }] };
  Deno.writeTextFileSync(`${directory.path}/packet`, `rayd environment 1\n${JSON.stringify(evil)}\nx`);
  const to = `${directory.path}/in/files`;
  Deno.mkdirSync(`${directory.path}/in`);
  assertThrows(() => unpackEnvironment(`${directory.path}/packet`, to), UsageError, "leads elsewhere");
  assertEquals([...Deno.readDirSync(`${directory.path}/in`)], [], "nothing of it is left");
  assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name).sort(), [
    "in",
    "packet",
    "source",
  ]);
  Deno.writeTextFileSync(`${directory.path}/packet`, "something else");
  assertThrows(() => unpackEnvironment(`${directory.path}/packet`, to), UsageError, "is none");
});
