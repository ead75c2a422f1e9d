/**
 * How imports are resolved when a program is bundled: as Deno would, by import map and `npm:`, and without Deno's
 * cache, from `node_modules`. rayd's own build uses the same plugin.
 *
 * @module
 */

import type { OnResolveArgs, OnResolveResult, Plugin, PluginBuild } from "esbuild";
import { builtinModules } from "node:module";
import { dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { type ImportMap, pathOf } from "./import_map.ts";

/** What a resolver is made of. */
export interface ResolverOptions {
  /** The project's import map. */
  readonly map: ImportMap;
  /** Says that a resolved file, or a bare name, is provided otherwise. */
  readonly provide?: (
    what: { readonly path: string } | { readonly name: string },
  ) => OnResolveResult | undefined;
  /** Provides packages that `node_modules` lacks. */
  readonly missing?: (name: string) => OnResolveResult | undefined;
}

/** Marks imports that this plugin has passed on to esbuild itself. */
const PASSED_ON = { rayd: "passed on" };

/** The plugin for esbuild. */
export function resolver(options: ResolverOptions): Plugin {
  return {
    name: "rayd-resolver",
    setup(build) {
      build.onResolve({ filter: /.*/ }, (args) => {
        if (args.pluginData === PASSED_ON || args.kind === "entry-point") return undefined;
        return resolve(build, options, args);
      });
    },
  };
}

async function resolve(
  build: PluginBuild,
  { map, provide, missing }: ResolverOptions,
  args: OnResolveArgs,
): Promise<OnResolveResult | undefined> {
  const inPackage = args.importer.includes("/node_modules/");
  const direct = provide?.({ name: args.path });
  if (direct !== undefined) return direct;
  const importer = pathToFileURL(args.importer === "" ? `${args.resolveDir}/` : args.importer).href;
  const target = (inPackage ? undefined : map.resolve(args.path, importer)) ?? args.path;
  const path = pathOf(target) ?? (/^\.{0,2}\//.test(target) ? target : undefined);
  if (path !== undefined) {
    const result = await passOn(build, args, path);
    if (result.errors.length > 0) {
      return { errors: [{ text: `Cannot find ${args.path}${target === args.path ? "" : ` (${path})`}` }] };
    }
    return provide?.({ path: result.path }) ?? found(result);
  }
  if (/^(data|https?|jsr|blob):/.test(target)) return unsupported(target);
  if (target.startsWith("node:") || builtinModules.includes(target)) {
    return { path: target.startsWith("node:") ? target : `node:${target}`, external: true };
  }
  const name = target.startsWith("npm:") ? withoutVersion(target.slice(4)) : target;
  const provided = provide?.({ name });
  if (provided !== undefined) return provided;
  const result = await passOn(build, args, name);
  if (result.errors.length === 0) return provide?.({ path: result.path }) ?? found(result);
  const substitute = missing?.(name);
  // A package asked for inside of a function or a `try` may be missing: esbuild knows when that matters.
  return substitute ?? (args.kind === "import-statement" ? notInstalled(name, target) : undefined);
}

function passOn(
  build: PluginBuild,
  { kind, importer, resolveDir, with: attributes }: OnResolveArgs,
  path: string,
) {
  const from = resolveDir === "" ? dirname(importer) : resolveDir;
  return build.resolve(path, { kind, importer, resolveDir: from, pluginData: PASSED_ON, with: attributes });
}

function found({ path, namespace, external, sideEffects, suffix }: OnResolveResult): OnResolveResult {
  return { path, namespace, external, sideEffects, suffix };
}

/** `@scope/name@1.2.3/path` → `@scope/name/path`. */
export function withoutVersion(specifier: string): string {
  const match = /^\/?((?:@[^/]+\/)?[^/@]+)(?:@[^/]*)?(\/.*)?$/.exec(specifier);
  return match === null ? specifier : `${match[1]}${match[2] ?? ""}`;
}

function unsupported(target: string): OnResolveResult {
  if (target.startsWith("data:")) return { path: target, external: true };
  return {
    errors: [{
      text:
        `Cannot import ${target}: rayd takes modules from disk and packages from node_modules. Install it as an npm ` +
        `package, or download it`,
    }],
  };
}

function notInstalled(name: string, target: string): OnResolveResult {
  const of = /^(?:@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name;
  const wanted = target.startsWith("npm:") ? target.slice(4) : of;
  return {
    errors: [{
      text:
        `Cannot find package "${of}" in node_modules: run "npm install ${wanted}" beside the script, or have Deno ` +
        `make node_modules ("nodeModulesDir": "auto" in deno.json, then "deno install")`,
    }],
  };
}
