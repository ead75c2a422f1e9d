/**
 * House rules that a machine can check: which folder may import which, who may read clocks and dice, file headers,
 * sizes, and what must never be committed.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { VERSION } from "../core/version.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** What each folder may import from. Downwards only. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "core": [],
  "transport": ["core"],
  "store": ["transport", "core"],
  "scheduler": ["core"],
  "gcs": ["store", "transport", "core"],
  "node": ["scheduler", "gcs", "store", "transport", "core"],
  "runtime": ["store", "transport", "core"],
  "cli": ["runtime", "node", "scheduler", "gcs", "store", "transport", "core"],
  "main.ts": ["cli"],
};

/** What clients of a folder may import from it: the runtime speaks to nodes and to the control store. */
const CLIENT_FILES = [/^node\/config\.ts$/, /^node\/registration\.ts$/, /^gcs\/client\.ts$/];

/** Where time and chance may be read: the adapters, which hand them to everything else. */
const ADAPTERS = [
  /^core\/clock\.ts$/,
  /^runtime\/init\.ts$/,
  /^cli\//,
  /^bin\//,
  /^bench\//,
  /^tests\//,
  /^examples\//,
];

const LINES_MAX = 900;
/** Files that are longer, until they are divided. */
const LONGER = ["tests/serialize_test.ts"];

async function git(...args: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command("git", { args, cwd: ROOT }).output();
  const decoder = new TextDecoder();
  if (code !== 0) throw new Error(decoder.decode(stderr));
  return decoder.decode(stdout).split("\0").filter((name) => name !== "");
}

/** Text files that are, or are about to be, in the repository, by path. */
async function textFiles(pattern: RegExp): Promise<Map<string, string>> {
  const names = await git("ls-files", "-z", "--cached", "--others", "--exclude-standard");
  const files = new Map<string, string>();
  for (const name of names) {
    if (!pattern.test(name)) continue;
    try {
      files.set(name, Deno.readTextFileSync(ROOT + name));
    } catch (error) {
      // Removed, and not committed yet.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return files;
}

const sources = await textFiles(/\.ts$/);

/** The files that a module imports: their paths from the root. */
function importsOf(path: string, text: string): string[] {
  const pattern = /(?:\b(?:import|export)\s+(?:[\w*{}\s,$]+?\s+from\s+)?|\bimport\()"(\.[^"]*)"/g;
  return [...withoutComments(text).matchAll(pattern)]
    .map(([, specifier]) => new URL(specifier!, `file:///${path}`).pathname.slice(1));
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[^]*?\*\//g, (comment) => comment.replaceAll(/[^\n]/g, " ")).replaceAll(
    /^\s*\/\/.*$/gm,
    "",
  );
}

function folderOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : path;
}

Deno.test("imports point downwards only", () => {
  const wrong: string[] = [];
  for (const [path, text] of sources) {
    const folder = folderOf(path);
    const allowed = MAY_IMPORT[folder];
    if (allowed === undefined || path.endsWith("_test.ts")) continue;
    for (const target of importsOf(path, text)) {
      const to = folderOf(target);
      if (to === folder || allowed.includes(to)) continue;
      const asClient = folder === "runtime" && CLIENT_FILES.some((file) => file.test(target));
      if (!asClient) wrong.push(`${path} imports ${target}`);
    }
  }
  assertEquals(wrong, []);
});

Deno.test("examples import nothing of rayd's but rayd", () => {
  const wrong: string[] = [];
  for (const [path, text] of sources) {
    if (folderOf(path) !== "examples") continue;
    for (const target of importsOf(path, text)) {
      if (folderOf(target) !== "examples") wrong.push(`${path} imports ${target}`);
    }
  }
  assertEquals(wrong, []);
});

Deno.test("time and chance are read in adapters only", () => {
  const banned =
    /\b(?:Date\.now|performance\.now|setTimeout|setInterval|Math\.random|crypto\.getRandomValues|crypto\.randomUUID)\b|new Date\(\)/;
  const wrong: string[] = [];
  for (const [path, text] of sources) {
    if (ADAPTERS.some((adapter) => adapter.test(path)) || path.endsWith("_test.ts")) continue;
    withoutComments(text).split("\n").forEach((line, i) => {
      if (banned.test(line)) wrong.push(`${path}:${i + 1}: ${line.trim()}`);
    });
  }
  assertEquals(wrong, []);
});

Deno.test("Deno.dlopen is called in one place", () => {
  const callers = [...sources].filter(([path, text]) =>
    path !== "tests/tidy_test.ts" && text.includes("Deno.dlopen(")
  );
  assertEquals(callers.map(([path]) => path), ["store/raystore.ts"]);
});

Deno.test("every module starts with what it is for", () => {
  const without = [...sources].filter(([path, text]) => {
    if (path.endsWith(".d.ts") || !(folderOf(path) in MAY_IMPORT)) return false;
    return !/^\/\*\*(?:(?!\*\/)[^])*@module/.test(text);
  });
  assertEquals(without.map(([path]) => path), []);
});

Deno.test(`no file is longer than ${LINES_MAX} lines`, async () => {
  const longer: string[] = [];
  for (const [path, text] of await textFiles(/\.(?:ts|rs|sh)$/)) {
    if (text.split("\n").length > LINES_MAX) longer.push(path);
  }
  assertEquals(longer.filter((path) => !LONGER.includes(path)), []);
});

Deno.test("nothing is left to do later, and no place of one machine or network is named", async () => {
  // Put together, so that this file does not find itself.
  const later = new RegExp(`\\b(?:${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);
  const places = new RegExp(
    [
      "/ho" + "me/\\w",
      "/ro" + "ot/\\w",
      "/wo" + "rk/\\w",
      "npm" + "js\\.org",
      "py" + "pi\\.org",
      "dl\\.de" + "no\\.land",
    ].join("|"),
  );
  const wrong: string[] = [];
  for (const [path, text] of await textFiles(/^(?!.*\.lock$)(?!.*\.(?:png|svg|gif|so|bin)$).*$/)) {
    text.split("\n").forEach((line, i) => {
      if (later.test(line) || places.test(line)) wrong.push(`${path}:${i + 1}: ${line.trim().slice(0, 120)}`);
    });
  }
  assertEquals(wrong, []);
});

Deno.test("deno.json, the crate and the program name one version", () => {
  const config = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`)) as { version: string };
  const crate = /^version = "(.*)"$/m.exec(Deno.readTextFileSync(`${ROOT}ffi/Cargo.toml`))?.[1];
  assertEquals([config.version, crate], [VERSION, VERSION]);
});

Deno.test("every package of the import map has an exact version", () => {
  const config = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`)) as { imports: Record<string, string> };
  const loose = Object.values(config.imports).filter((target) => {
    return target.startsWith("npm:") &&
      !/^npm:(?:@[^/]+\/)?[^/@]+@\d+\.\d+\.\d+(?:-[\w.]+)?(?:\/|$)/.test(target);
  });
  assertEquals(loose, []);
});
