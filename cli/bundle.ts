/**
 * A user's script with everything that it imports, as one file that the executable can run: it has no compiler for
 * TypeScript, no package cache, and its isolates must find the same functions that the driver declared.
 *
 * Merging modules loses what told them apart. So the first line of each gets a prefix that tells the runtime which
 * module begins (a function's identity is its source module and its name) and constants in place of `import.meta`.
 * The prefix is on the module's own first line, so that lines in stacks, by the inline source map, are the user's.
 *
 * `rayd` itself is not bundled: it is a module that hands out the runtime which runs already.
 *
 * @module
 */

import type { BuildFailure, Loader, Message, OnLoadResult, Plugin } from "esbuild";
import { dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { ImportMap, ProjectError } from "./import_map.ts";
import { resolver } from "./resolver.ts";

/** What a bundle is made from. */
export interface BundleOptions {
  /** The absolute path of the script. */
  readonly entry: string;
  /** The names that `rayd` exports. */
  readonly exports: readonly string[];
  /** A bundled package that is there although it is not installed. */
  readonly vendored: (name: string) => string | undefined;
}

/** The global that a bundle takes `rayd` from. */
export const RUNTIME_SYMBOL = "rayd.runtime";
/** The global that is `true` where the entry module is the main module. */
export const DRIVER_SYMBOL = "rayd.driver";
/** The global function that is told which source module begins. */
export const MODULE_SYMBOL = "rayd.module";

/** An import that leads to rayd's own sources instead of to a name in the import map. */
const RUNTIME_SOURCE = /\/runtime\/mod\.ts$/;

/**
 * Bundles a script.
 *
 * @returns The code, with an inline source map.
 * @throws {ProjectError} If it cannot be bundled: a syntax error, or an import that leads nowhere.
 */
export async function bundle(options: BundleOptions): Promise<string> {
  const esbuild = (await import("esbuild")).default;
  const map = ImportMap.of(dirname(options.entry));
  try {
    const result = await esbuild.build({
      entryPoints: [options.entry],
      absWorkingDir: "/",
      outfile: "/main.mjs",
      bundle: true,
      write: false,
      format: "esm",
      platform: "node",
      target: "esnext",
      supported: { decorators: false },
      conditions: ["deno", "node", "import", "module"],
      mainFields: ["module", "main"],
      sourcemap: "external",
      sourcesContent: false,
      // Merging renames what has the name of something else; a function must still know its own.
      keepNames: true,
      logLevel: "silent",
      tsconfigRaw: { compilerOptions: { ...map.jsx } },
      define: {
        "import.meta.url": "__rayd_url",
        "import.meta.filename": "__rayd_filename",
        "import.meta.dirname": "__rayd_dirname",
        "import.meta.main": "__rayd_main",
        "import.meta.resolve": "__rayd_resolve",
      },
      plugins: [
        resolver({
          map,
          provide: (what) => {
            const isRuntime = "name" in what ? what.name === "rayd" : isRuntimeSource(what.path);
            return isRuntime ? { path: "rayd", namespace: "rayd" } : undefined;
          },
          missing: (name) =>
            options.vendored(name) === undefined ? undefined : { path: name, namespace: "rayd-vendor" },
        }),
        loaders(options),
      ],
    });
    return assemble(result.outputFiles);
  } catch (error) {
    throw isBuildFailure(error) ? new ProjectError(error.errors.map(describe).join("\n")) : error;
  } finally {
    await esbuild.stop();
  }
}

/** Code, what it needs of Node, and the source map with absolute sources. */
function assemble(files: readonly { path: string; text: string }[]): string {
  const code = files.find(({ path }) => path.endsWith(".mjs"))!.text.replace(NAME_HELPER, NAME_HELPER_FAST);
  const map = JSON.parse(files.find(({ path }) => path.endsWith(".map"))!.text) as {
    sources: string[];
    mappings: string;
  };
  map.sources = map.sources.map((source) => new URL(source, "file:///").href);
  let head = "";
  if (code.includes("__require(")) {
    // CommonJS packages that ask for Node's modules. On the code's own first line, to move no lines.
    head =
      `import { createRequire as __rayd_require } from "node:module"; var require = __rayd_require("file:///"); `;
    map.mappings = shiftFirstLine(map.mappings, head.length);
  }
  const bytes = new TextEncoder().encode(JSON.stringify(map));
  return `${head}${code}\n//# sourceMappingURL=data:application/json;base64,${base64(bytes)}\n`;
}

/** What esbuild defines to give functions back their names, and the same for functions that have theirs already: a
 * closure made in a hot loop should not pay for it. No longer in lines, so that the source map stays right. */
const NAME_HELPER = "var __name = (target, value) => __defProp(";
const NAME_HELPER_FAST = "var __name = (target, value) => target.name === value ? target : __defProp(";

/** Moves what a source map says of the first line to the right; the first line of a bundle maps nothing but helpers. */
function shiftFirstLine(mappings: string, columns: number): string {
  const end = mappings.indexOf(";");
  const first = end < 0 ? mappings : mappings.slice(0, end);
  return first === "" ? mappings : `${vlq(columns)},${mappings}`;
}

function vlq(value: number): string {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let text = "";
  for (let rest = value << 1;; rest >>= 5) {
    text += digits[(rest & 31) | (rest >> 5 > 0 ? 32 : 0)];
    if (rest >> 5 === 0) return text;
  }
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

function loaders(options: BundleOptions): Plugin {
  return {
    name: "rayd-loaders",
    setup(build) {
      build.onLoad({ filter: /.*/, namespace: "rayd" }, () => ({
        contents: `export const { ${
          options.exports.join(", ")
        } } = globalThis[Symbol.for("${RUNTIME_SYMBOL}")];`,
        loader: "js",
      }));
      build.onLoad({ filter: /.*/, namespace: "rayd-vendor" }, ({ path }) => ({
        contents: options.vendored(path)!,
        loader: "js",
      }));
      build.onLoad({ filter: /.*/, namespace: "file" }, async ({ path, with: attributes }) => {
        if (attributes.type === "text") return { contents: await Deno.readTextFile(path), loader: "text" };
        if (attributes.type === "bytes") return { contents: await Deno.readFile(path), loader: "binary" };
        const loader = LOADERS[/\.[cm]?[jt]sx?$/.exec(path)?.[0] ?? ""];
        if (loader === undefined) return undefined;
        return await loadModule(path, loader, path === options.entry);
      });
    },
  };
}

const LOADERS: Readonly<Record<string, Loader>> = {
  ".ts": "ts",
  ".mts": "ts",
  ".cts": "ts",
  ".tsx": "tsx",
  ".js": "js",
  ".mjs": "js",
  ".cjs": "js",
  ".jsx": "jsx",
};

async function loadModule(path: string, loader: Loader, isEntry: boolean): Promise<OnLoadResult> {
  const text = await Deno.readTextFile(path);
  const inPackage = path.includes("/node_modules/");
  const url = JSON.stringify(pathToFileURL(path).href);
  let prefix = "";
  if (!inPackage || text.includes("rayd")) prefix += `globalThis[Symbol.for("${MODULE_SYMBOL}")]?.(${url});`;
  if (text.includes("import.meta")) {
    const main = isEntry ? `globalThis[Symbol.for("${DRIVER_SYMBOL}")]===true` : "false";
    prefix += `const __rayd_url=${url},__rayd_filename=${JSON.stringify(path)},` +
      `__rayd_dirname=${JSON.stringify(dirname(path))},__rayd_main=${main},` +
      `__rayd_resolve=(s)=>new URL(s,__rayd_url).href;`;
  }
  // A hash-bang must be the very first thing of a file: behind the prefix it becomes a comment.
  return { contents: prefix + text.replace(/^#!/, "//#!"), loader, resolveDir: dirname(path) };
}

function isRuntimeSource(path: string): boolean {
  if (!RUNTIME_SOURCE.test(path)) return false;
  try {
    return Deno.statSync(`${dirname(path)}/isolate_main.ts`).isFile;
  } catch {
    return false;
  }
}

function isBuildFailure(error: unknown): error is BuildFailure {
  return error instanceof Error && Array.isArray((error as Partial<BuildFailure>).errors);
}

function describe({ text: said, location, notes }: Message): string {
  const text = said.replaceAll('"rayd:rayd"', '"rayd"'); // esbuild puts a namespace before the name
  if (location === null) return text;
  const { file, line, column, lineText } = location;
  const prefixed = line === 1
    ? lineText.lastIndexOf(`globalThis[Symbol.for("${MODULE_SYMBOL}")]`) >= 0
    : false;
  const place = `${file.startsWith("/") ? file : `/${file}`}:${line}`;
  const source = prefixed ? "" : `\n    ${lineText}\n    ${" ".repeat(column)}^`;
  const more = notes.map((note) => `\n    ${note.text}`).join("");
  return `${text}\n    at ${place}${prefixed ? "" : `:${column + 1}`}${source}${more}`;
}
