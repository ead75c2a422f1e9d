/**
 * The import map of a Deno project, for a bundler that does not know of it: `imports` and `scopes` of the nearest
 * `deno.json`, `deno.jsonc` or of the file that its `importMap` names.
 *
 * Follows the import maps standard (longest prefix wins, scopes before the rest), with Deno's one addition: a name that
 * maps to an `npm:` package also maps its subpaths.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
// @ts-types="./std_jsonc.d.ts"
import { parse as parseJsonc } from "@std/jsonc/parse";

type Table = readonly (readonly [name: string, target: string])[];

/** Something that a program's own files are wrong about; shown as one message. */
export class ProjectError extends Error {}

/** Where names of modules lead to, for one project. */
export class ImportMap {
  readonly #imports: Table;
  readonly #scopes: readonly (readonly [scope: string, imports: Table])[];
  /** The file that it was read from. */
  readonly path: string | undefined;
  /** The project's options for JSX, in esbuild's and TypeScript's names. */
  readonly jsx: Readonly<Record<string, unknown>>;

  private constructor(
    path: string | undefined,
    imports: Table,
    scopes: [string, Table][],
    jsx: Record<string, unknown>,
  ) {
    this.path = path;
    this.#imports = imports;
    this.#scopes = scopes;
    this.jsx = jsx;
  }

  /**
   * Reads the map that counts for the files of a directory: that of the nearest configuration above.
   *
   * @throws {ProjectError} If the configuration cannot be read.
   */
  static of(directory: string): ImportMap {
    for (let at = directory;; at = dirname(at)) {
      for (const name of ["deno.json", "deno.jsonc"]) {
        const path = join(at, name);
        const config = readJson(path);
        if (config === undefined) continue;
        const { importMap } = config;
        if (typeof importMap !== "string") return ImportMap.#parse(path, config, config);
        const other = join(at, importMap);
        const map = readJson(other);
        if (map === undefined) {
          throw new ProjectError(`Cannot read ${other}, which ${path} names as its import map`);
        }
        return ImportMap.#parse(other, map, config);
      }
      if (at === dirname(at)) return new ImportMap(undefined, [], [], {});
    }
  }

  static #parse(path: string, map: Record<string, unknown>, config: Record<string, unknown>): ImportMap {
    const base = pathToFileURL(path);
    const scopes = Object.entries(record(map.scopes))
      .map(([scope, imports]): [string, Table] => [new URL(scope, base).href, table(record(imports), base)])
      .sort(([a], [b]) => b.length - a.length);
    const options = record(config.compilerOptions);
    const jsx = Object.fromEntries(Object.entries(options).filter(([name]) => name.startsWith("jsx")));
    return new ImportMap(path, table(record(map.imports), base), scopes, jsx);
  }

  /**
   * Where a name leads.
   *
   * @param specifier What stands in the import.
   * @param importer The URL of the module that it stands in.
   * @returns A URL or a bare name; `undefined` if the map says nothing of it.
   */
  resolve(specifier: string, importer: string): string | undefined {
    const relative = /^\.{0,2}\//.test(specifier);
    const name = relative ? new URL(specifier, importer).href : specifier;
    for (const [scope, imports] of this.#scopes) {
      if (importer !== scope && !(scope.endsWith("/") && importer.startsWith(scope))) continue;
      const found = lookUp(imports, name);
      if (found !== undefined) return found;
    }
    return lookUp(this.#imports, name);
  }
}

function lookUp(imports: Table, name: string): string | undefined {
  for (const [key, target] of imports) {
    if (key === name) return target;
    if (key.endsWith("/") && name.startsWith(key)) return target + name.slice(key.length);
    if (target.startsWith("npm:") && name.startsWith(`${key}/`)) return target + name.slice(key.length);
  }
  return undefined;
}

/** A map's table with absolute targets, longest names first. */
function table(imports: Record<string, unknown>, base: URL): Table {
  const rows: [string, string][] = [];
  for (const [name, target] of Object.entries(imports)) {
    if (typeof target !== "string") continue;
    const absolute = (text: string) => /^\.{0,2}\//.test(text) ? new URL(text, base).href : text;
    rows.push([absolute(name), absolute(target)]);
  }
  return rows.sort(([a], [b]) => b.length - a.length);
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}

function readJson(path: string): Record<string, unknown> | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
  try {
    return record(parseJsonc(text));
  } catch (error) {
    throw new ProjectError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** The path of a file URL, or `undefined` for another URL. */
export function pathOf(url: string): string | undefined {
  return url.startsWith("file:") ? fileURLToPath(url) : undefined;
}
