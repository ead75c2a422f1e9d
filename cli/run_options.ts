/**
 * The arguments of `rayd run`, checked where they come in.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { CommandLineError } from "./output.ts";
import { didYouMean } from "./suggest.ts";

/** What `rayd run` was asked to do. */
export interface RunOptions {
  readonly help: boolean;
  readonly quiet: boolean;
  readonly script: string | undefined;
  /** The script's own arguments. */
  readonly args: readonly string[];
  /** Variables for the script and its tasks. */
  readonly env: Readonly<Record<string, string>>;
  /** The directory whose files its tasks are to have. */
  readonly workingDirectory: string | undefined;
  /** What `init()` in the script takes its defaults from. */
  readonly environment: Readonly<Record<string, string>>;
}

const VALUED = [
  "cpus",
  "gpus",
  "resources",
  "store-memory",
  "isolation",
  "host-memory",
  "log-level",
  "env",
  "env-file",
  "working-dir",
];
const REPEATED = ["env", "env-file"];
const FLAGS = ["help", "quiet"];
const LEVELS = ["debug", "info", "warn", "error", "off"];

/** Reads the arguments. @throws {CommandLineError} If one is wrong. */
export function parseRunOptions(argv: readonly string[]): RunOptions {
  const parsed = parseArgs(argv, {
    "--": argv.includes("--"),
    boolean: FLAGS,
    string: [...VALUED, "_"],
    collect: REPEATED,
    alias: { h: "help", q: "quiet" },
    stopEarly: true,
    unknown: (argument, key) => {
      if (key === undefined) return true;
      const options = [...VALUED, ...FLAGS];
      const hint = didYouMean(key, options, "--");
      throw new CommandLineError(
        `Unknown option ${argument} of "rayd run".${hint} The script's own options come after the script; ` +
          `"rayd help run" lists the options`,
      );
    },
  });
  const environment: Record<string, string> = {};
  const given = (name: string) => {
    const value = parsed[name];
    if (value === undefined) return undefined;
    if (typeof value === "string" && value !== "") return value;
    throw new CommandLineError(`Option --${name} needs a value, such as ${EXAMPLES[name]}`);
  };
  for (const name of ["cpus", "gpus"]) {
    const text = given(name);
    if (text !== undefined) environment[`RAYD_${name.toUpperCase()}`] = amount(text, `--${name}`);
  }
  const resources = given("resources");
  if (resources !== undefined) environment.RAYD_RESOURCES = parseResources(resources);
  const memory = given("store-memory");
  if (memory !== undefined) environment.RAYD_STORE_MEMORY = String(parseBytes(memory, "--store-memory"));
  const isolation = given("isolation");
  if (isolation !== undefined) {
    if (isolation !== "thread" && isolation !== "process") {
      throw new CommandLineError(`Cannot use --isolation ${isolation}: there are thread and process`);
    }
    environment.RAYD_ISOLATION = isolation;
  }
  const hostMemory = given("host-memory");
  if (hostMemory !== undefined) {
    environment.RAYD_HOST_MEMORY = String(parseBytes(hostMemory, "--host-memory"));
  }
  const level = given("log-level");
  if (level !== undefined) {
    if (!LEVELS.includes(level)) {
      throw new CommandLineError(`Cannot use --log-level ${level}: there are ${LEVELS.join(", ")}`);
    }
    environment.RAYD_LOG_LEVEL = level;
  }
  const env: Record<string, string> = {};
  for (const file of (parsed["env-file"] ?? []) as string[]) Object.assign(env, envFile(file));
  for (const text of (parsed.env ?? []) as string[]) {
    const at = text.indexOf("=");
    if (at < 1) throw new CommandLineError(`Cannot use --env ${text}: write NAME=VALUE`);
    env[text.slice(0, at)] = text.slice(at + 1);
  }
  const workingDirectory = given("working-dir");
  if (workingDirectory !== undefined) checkDirectory(workingDirectory);
  const [script, ...args] = positional(parsed);
  return {
    help: parsed.help === true,
    quiet: parsed.quiet === true,
    script,
    args,
    env,
    workingDirectory,
    environment,
  };
}

/** The script and its arguments. A `--` before the script ends rayd's options; one behind it is the script's. */
function positional(parsed: ReturnType<typeof parseArgs>): string[] {
  const before = parsed._.map(String);
  const after = parsed["--"];
  if (after === undefined) return before;
  return before.length === 0 ? after : [...before, "--", ...after];
}

/** Variables of a file: a NAME=VALUE a line, with `#` before comments, and quotes around values if need be. */
function envFile(file: string): Record<string, string> {
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    throw new CommandLineError(`Cannot use --env-file ${file}: ${(error as Error).message}`);
  }
  const env: Record<string, string> = {};
  text.split("\n").forEach((line, i) => {
    if (/^\s*(?:#.*)?$/.test(line)) return;
    const match = /^\s*(?:export\s+)?([\w.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|(.*?))\s*$/.exec(line);
    if (match === null) {
      throw new CommandLineError(`Cannot use --env-file ${file}: line ${i + 1} is no NAME=VALUE`);
    }
    env[match[1]!] = match[2] ?? match[3] ?? match[4]!;
  });
  return env;
}

function checkDirectory(path: string): void {
  let isDirectory = false;
  try {
    isDirectory = Deno.statSync(path).isDirectory;
  } catch {
    // Said below.
  }
  if (!isDirectory) {
    throw new CommandLineError(`Cannot use --working-dir ${path}: there is no such directory`);
  }
}

const EXAMPLES: Readonly<Record<string, string>> = {
  cpus: "--cpus 4",
  gpus: "--gpus 1",
  resources: "--resources licence=2",
  "store-memory": "--store-memory 2GiB",
  isolation: "--isolation process",
  "host-memory": "--host-memory 1GiB",
  "log-level": "--log-level info",
  env: "--env LEVEL=1",
  "env-file": "--env-file .env",
  "working-dir": "--working-dir .",
};

/** An amount of 0 or more. @throws {CommandLineError} If it is none. */
export function amount(text: string, option: string): string {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < 0) {
    throw new CommandLineError(`Cannot use ${option} ${text}: give a number of 0 or more`);
  }
  return String(value);
}

/** `name=amount,…` or JSON, as JSON. */
export function parseResources(text: string): string {
  const bad = () =>
    new CommandLineError(
      `Cannot use --resources ${text}: give name=amount,… or JSON, such as licence=2,disk=0.5`,
    );
  if (text.trimStart().startsWith("{")) {
    try {
      const value = JSON.parse(text) as Record<string, unknown>;
      if (Object.values(value).every((n) => typeof n === "number" && n >= 0)) return JSON.stringify(value);
    } catch {
      // Said below.
    }
    throw bad();
  }
  const resources: Record<string, number> = {};
  for (const part of text.split(",")) {
    const match = /^\s*([^=\s]+)\s*=\s*([0-9.eE+-]+)\s*$/.exec(part);
    if (match === null) throw bad();
    resources[match[1]!] = Number(amount(match[2]!, `--resources ${match[1]}`));
  }
  return JSON.stringify(resources);
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  t: 1e12,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `512MB`, `2GiB`, `1000000`: as bytes. @throws {CommandLineError} If it is none of these. */
export function parseBytes(text: string, option: string): number {
  const match = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*$/i.exec(text);
  const unit = match === null ? undefined : UNITS[match[2]!.toLowerCase()];
  if (match === null || unit === undefined) {
    throw new CommandLineError(`Cannot use ${option} ${text}: give bytes, or a size such as 512MB or 2GiB`);
  }
  return Math.floor(Number(match[1]) * unit);
}
