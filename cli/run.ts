/**
 * `rayd run`: a TypeScript file and its imports become one bundle, which this process runs as the driver.
 *
 * The script ends as it would under Deno: when nothing is left to wait for, when it exits, when an error is not caught,
 * or by a signal. Signals are left to do what they always do, which also ends a script that never pauses: the node's
 * memory, its files and the bundle have no names, so nothing stays behind however the process ends.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { UsageError } from "../core/errors.ts";
import { CODE } from "../core/messages.ts";
import { DRIVER_SYMBOL, MODULE_SYMBOL, RUNTIME_SYMBOL } from "./bundle.ts";
import { printFatal } from "./fatal.ts";
import { ProjectError } from "./import_map.ts";
import type { Published } from "../runtime/registry.ts";
import type { Command } from "./mod.ts";
import { namelessModule } from "./nameless_module.ts";
import { CommandLineError, complain, print } from "./output.ts";
import { parseRunOptions, type RunOptions } from "./run_options.ts";
import { bundleEntry, scriptPath } from "./script.ts";

/** The command. */
export const command: Command = {
  help: `rayd run [options] script.ts [arguments of the script …]

Runs a TypeScript or JavaScript file. Its imports may be files, names of an import map (deno.json), npm packages that
lie in node_modules, and "rayd". Nothing has to be installed; types are not checked ("deno check" does that).

  --cpus N             CPUs to offer to tasks (default: what the machine has)
  --gpus N             GPUs to offer
  --resources LIST     other resources to offer: name=amount,… or JSON
  --store-memory SIZE  size of the object store: bytes, or 512MB, 2GiB, …
  --isolation WHERE    where tasks run: thread (default), or process: each isolate in a process of its own
  --host-memory BYTES  with --isolation process: what each process may use, such as 1GiB
  --log-level LEVEL    what rayd says about itself: debug, info, warn (default), error, off
  --env NAME=VALUE     a variable for the script and its tasks, which find it in context().env; may be repeated
  --env-file FILE      variables from a file, a NAME=VALUE a line
  --working-dir DIR    files for tasks, which find a copy of DIR at context().workingDirectory (not .git, not
                       node_modules, not what DIR/.raydignore names)
  --quiet, -q          no status line (there is none either when standard error is not a terminal)

They are defaults for init() in the script: what the script itself says, wins.
Ends with the script's status; 130 after Ctrl-C.
`,

  async run(args) {
    const options = parseRunOptions(args);
    if (options.help) {
      print(command.help);
      return 0;
    }
    if (options.script === undefined) {
      throw new CommandLineError(
        'No script is given: "rayd run script.ts". "rayd help run" lists the options',
      );
    }
    const entry = scriptPath(options.script);
    const variables = { ...options.environment, ...options.env };
    for (const [name, value] of Object.entries(variables)) Deno.env.set(name, value);
    let url: string;
    try {
      url = await prepare(entry, options);
    } catch (error) {
      if (!(error instanceof ProjectError) && !(error instanceof UsageError)) throw error;
      complain(`error: ${error.message}\n`);
      return 1;
    }
    Object.defineProperty(Deno, "args", { value: Object.freeze([...options.args]), configurable: true });
    const { startStatusLine } = await import("./status_line.ts");
    if (!options.quiet && Deno.stderr.isTerminal()) startStatusLine();
    catchFatal();
    shutDownAtTheEnd();
    try {
      await import(url);
    } catch (error) {
      fatal("Uncaught", error);
    }
    return undefined;
  },
};

/** Bundles the script, and gives the runtime what the bundle will ask it for. @returns The bundle's URL. */
async function prepare(entry: string, options: RunOptions): Promise<string> {
  const runtime = await import("../runtime/mod.ts");
  const { enterModule, setBundle } = await import("../runtime/registry.ts");
  const code = await bundleEntry(entry);
  const url = namelessModule(code);
  const globals = globalThis as Record<symbol, unknown>;
  globals[Symbol.for(RUNTIME_SYMBOL)] = runtime;
  globals[Symbol.for(MODULE_SYMBOL)] = enterModule;
  globals[Symbol.for(DRIVER_SYMBOL)] = true;
  // In a cluster, isolates on any machine load the code by its hash.
  const { env, workingDirectory } = options;
  const directory = workingDirectory === undefined ? undefined : Deno.realPathSync(workingDirectory);
  const given = directory !== undefined || Object.keys(env).length > 0;
  if (!Deno.env.get("RAYD_ADDRESS")) {
    Deno.env.set("RAYD_JOB_ENV", JSON.stringify(env));
    if (directory !== undefined) Deno.env.set("RAYD_WORKING_DIR", directory);
    setBundle(url);
    return url;
  }
  const { packEnvironment } = await import("../runtime/environment.ts");
  const bytes = new TextEncoder().encode(code);
  const published: Published[] = [{ hash: createHash("sha256").update(bytes).digest("hex"), bytes }];
  if (given) published.push(packEnvironment(env, directory));
  setBundle(`${CODE}${published.map(({ hash }) => hash).join("+")}`, published);
  return url;
}

async function shutDown(): Promise<void> {
  const { shutdown } = await import("../runtime/mod.ts");
  await shutdown();
}

/** When nothing is left to wait for, rayd is ended properly before the process is. */
function shutDownAtTheEnd(): void {
  let done = false;
  addEventListener("beforeunload", (event) => {
    if (done) return;
    done = true;
    event.preventDefault();
    shutDown().catch((error) => fatal("Uncaught (in promise)", error));
  });
}

/** Shows errors that nobody caught. Comes after the script's own listeners, which may have dealt with them. */
function catchFatal(): void {
  const onError = (event: ErrorEvent) => {
    if (event.defaultPrevented) return;
    event.preventDefault();
    fatal("Uncaught", event.error);
  };
  const onRejection = (event: PromiseRejectionEvent) => {
    if (event.defaultPrevented) return;
    event.preventDefault();
    fatal("Uncaught (in promise)", event.reason);
  };
  const add = globalThis.addEventListener.bind(globalThis) as (type: string, ...rest: unknown[]) => void;
  const remove = globalThis.removeEventListener.bind(globalThis) as (
    type: string,
    ...rest: unknown[]
  ) => void;
  const ours: Readonly<Record<string, unknown>> = { error: onError, unhandledrejection: onRejection };
  for (const [type, listener] of Object.entries(ours)) add(type, listener);
  Object.defineProperty(globalThis, "addEventListener", {
    configurable: true,
    writable: true,
    value: (type: string, ...rest: unknown[]) => {
      add(type, ...rest);
      if (!Object.hasOwn(ours, type)) return;
      remove(type, ours[type]);
      add(type, ours[type]);
    },
  });
}

function fatal(how: string, error: unknown): never {
  printFatal(how, error);
  Deno.exit(1);
}
