/**
 * The functions that modules have declared in this isolate, by (source module, name).
 *
 * `remote()` registers a function when its module is evaluated. In the driver that gives the function its address; in
 * an isolate that imports the same module it makes the function findable. So a function need not be exported, and a
 * bundle that merges modules keeps them apart.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import type { FunctionAddress } from "../core/messages.ts";

/** What a module declared. */
export interface Declared {
  readonly module: string;
  readonly name: string;
  /** The function itself. */
  readonly fn: (...args: unknown[]) => unknown;
}

const declared = new Map<string, Declared>();

/** The URL that isolates import to have everything declared: the bundle, if there is one. */
let bundle: string | undefined;
/** The bundle's text, and what else is published beside it, for a cluster. */
let bundleCode: readonly Published[] | undefined;
/** What an isolate that serves several programs imports right now. */
let loading: string | undefined;
/** The source module whose part of the bundle is being evaluated, and all whose part was. */
let bundledModule: string | undefined;
const bundledModules = new Set<string>();

/** Something that is published, named by the SHA-256 of its content. */
export interface Published {
  readonly hash: string;
  readonly bytes: Uint8Array;
}

/** The program is a bundle. @param url What isolates are to import. @param code What to publish for it, in a cluster. */
export function setBundle(url: string, code?: readonly Published[]): void {
  bundle = url;
  bundleCode = code;
}

/** What to publish, if the program is one that runs on a cluster. */
export function bundleCodes(): readonly Published[] | undefined {
  return bundleCode;
}

/** An isolate begins to import something; what is declared from here on belongs to it, until `undefined` is given. */
export function setLoading(load: string | undefined): void {
  loading = load;
}

/** What isolates are to import, if the program is a bundle. */
export function bundleUrl(): string | undefined {
  return bundle;
}

/** The bundle's own notice that the code of another source module begins. */
export function enterModule(url: string): void {
  bundledModule = url;
  bundledModules.add(url);
}

/**
 * How the modules of rayd's own actors are named, in place of a URL: alike in every process and every version's
 * executable. They are there in each isolate before it runs anything, and never imported for a task.
 */
const BUILT_IN = "rayd:";

/** Whether what stands under an address needs no import. */
export function isBuiltIn(load: string): boolean {
  return load.startsWith(BUILT_IN);
}

/** The URL to import for what `module` declares. */
export function loadUrl(module: string): string {
  return isBuiltIn(module) ? module : loading ?? bundle ?? module;
}

/**
 * The address of what `module` declares under `name`. A program that was started from its sources may become a bundle
 * when it joins a cluster: until then nothing is fixed.
 */
export function addressOf(module: string, name: string): FunctionAddress {
  const load = loadUrl(module);
  if (load !== module || isBuiltIn(load)) return { load, module, name };
  return {
    get load() {
      return loadUrl(module);
    },
    module,
    name,
  };
}

/**
 * Registers a declaration.
 *
 * @throws {UsageError} If the module has declared another function of that name.
 */
export function declare(declaration: Declared): void {
  const key = keyOf(loadUrl(declaration.module), declaration.module, declaration.name);
  const known = declared.get(key);
  if (known !== undefined && known.fn !== declaration.fn) {
    throw new UsageError(
      `Cannot declare "${declaration.name}" twice in ${declaration.module}: give each remote function and actor its own name`,
    );
  }
  declared.set(key, declaration);
}

/** What `module` declared under `name`, as part of what was imported from `load`. */
export function find(load: string, module: string, name: string): Declared | undefined {
  return declared.get(keyOf(load, module, name));
}

/** Programs that share an isolate may have different modules of one name: two versions of one script. */
function keyOf(load: string, module: string, name: string): string {
  return `${load}\n${module}\n${name}`;
}

/** The names that `module` has declared. */
export function namesOf(module: string): string[] {
  return [...declared.values()].filter((each) => each.module === module).map((each) => each.name);
}

/** Frames of rayd's own, which are never the caller. In the executable, all that it carries is rayd's own. */
const OWN = new URL(Deno.build.standalone ? ".." : ".", import.meta.url).href;

/**
 * The module that calls: found from the stack, unless a bundle says which it is.
 *
 * @param what What is being declared, for the error.
 * @throws {UsageError} If the call is made inside a function, where an isolate could never find it.
 */
export function callingModule(what: string): string {
  const frames = callers();
  // At a module's top level there is one frame: or none, up to the wrapper that a bundler has put around the module.
  const wrapper = frames.findIndex(isBundleWrapper);
  if ((wrapper < 0 ? frames.length - 1 : wrapper) > 0) {
    throw new UsageError(
      `Cannot declare ${what} inside a function (${
        frames[0]!.trim()
      }): isolates find it by importing the module, so ` +
        `it must stand at the module's top level`,
    );
  }
  const match = frames[0] === undefined
    ? null
    : /((?:file|https?|data|blob):.*?)(?::\d+)?(?::\d+)?\)?$/.exec(frames[0]);
  // The bundle's source map names the source. Its notices are the second source: a dynamic import may come between.
  if (bundledModule !== undefined && !bundledModules.has(match?.[1] ?? "")) return bundledModule;
  if (match === null) {
    throw new UsageError(
      `Cannot tell which module declares ${what}: say it with the option { module: import.meta.url }`,
    );
  }
  return match[1]!;
}

/** The stack's frames above rayd's own, innermost first, without those of the event loop. */
function callers(): string[] {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 20;
  const { stack } = new Error();
  Error.stackTraceLimit = limit;
  const frames = (stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  const first = frames.findIndex((line) => !line.includes(OWN));
  return frames.slice(first < 0 ? frames.length : first)
    .filter((line) => !/^\s+at async /.test(line) && !line.includes("ext:") && !line.includes("<anonymous>"));
}

/** A frame of the wrappers that bundlers put around modules. */
function isBundleWrapper(line: string): boolean {
  return /at (?:__init|__esm|__require|__commonJS|init_\w+|require_\w+|Object\.<anonymous>|(?:[\w@./-]+)\.[mc]?[jt]sx?) /
    .test(line);
}
