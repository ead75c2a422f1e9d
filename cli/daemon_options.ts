/**
 * The arguments of `rayd head` and `rayd worker`, checked where they come in.
 *
 * @module
 */

// @ts-types="./std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { parseDemand } from "../core/options.ts";
import type { LogLevel } from "../node/config.ts";
import { UsageError } from "../core/errors.ts";
import { readTls } from "../transport/credentials.ts";
import type { TlsOptions } from "../transport/tcp.ts";
import { argumentsFromFile } from "./config_file.ts";
import { CommandLineError } from "./output.ts";
import { amount, parseBytes, parseResources } from "./run_options.ts";
import { didYouMean } from "./suggest.ts";

/** What both commands take. */
export interface DaemonOptions {
  readonly host: string | undefined;
  readonly cpus: number;
  /** Amounts in units of 1/10000. */
  readonly resources: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly storeMemory: number | undefined;
  readonly hostMemory: number;
  /** 0 for none. */
  readonly memoryLimit: number;
  readonly tokenFile: string | undefined;
  readonly logLevel: LogLevel;
  readonly insecureBind: boolean;
  readonly tls: TlsOptions | undefined;
  /** It is to go to the background. */
  readonly detach: boolean;
  /** The options that are the command's own. */
  readonly own: Readonly<Record<string, string>>;
}

const FLAGS = ["insecure-bind", "detach"];
const VALUED = [
  "host",
  "cpus",
  "gpus",
  "resources",
  "labels",
  "store-memory",
  "host-memory",
  "memory-limit",
  "token-file",
  "log-level",
  "tls-cert",
  "tls-key",
  "tls-ca",
];

/** Lines of help for what both commands take. */
export const DAEMON_HELP = `  --host ADDRESS         the address to listen on and to be reached by
  --cpus N               CPUs to offer (default: what the machine has)
  --gpus N               GPUs to offer (default: what is found)
  --resources LIST       other resources to offer: name=amount,… or JSON
  --labels LIST          labels of the node: name=value,…
  --store-memory SIZE    size of the object store: bytes, or 512MB, 2GiB, …
  --host-memory SIZE     what each process for tasks may use, such as 1GiB
  --memory-limit SIZE    what the node, its store and all its processes may use together (default: what there is);
                         near it, the newest work is stopped and tried again
  --token-file FILE      where the cluster's token is (default: ~/.rayd/token; or RAYD_TOKEN)
  --tls-cert, --tls-key  files (PEM) with a certificate for the address, and its key: all links are encrypted then
  --tls-ca FILE          the authority that signed the certificates of all nodes (or RAYD_TLS_CA, also for programs)
  --insecure-bind        allow an address other than loopback, though what is sent there is not encrypted
  --config FILE          options from a JSON file, by these names; what is said here as well goes first
  --detach               go to the background when it is up; the log is in ~/.rayd/log
  --log-level LEVEL      debug, info, warn (default), error, off
`;

/** Reads the arguments. @param own Options with a value that only this command has. */
export function parseDaemonOptions(
  command: string,
  argv: readonly string[],
  own: readonly string[],
): DaemonOptions {
  const valued = [...VALUED, ...own];
  const config = configFile(argv);
  const fromFile = config === undefined ? [] : argumentsFromFile(config, valued, FLAGS);
  const parsed = parseArgs([...fromFile, ...argv], {
    boolean: FLAGS,
    string: [...valued, "config"],
    unknown: (argument, key) => {
      if (key === undefined) throw new CommandLineError(`"rayd ${command}" takes no argument "${argument}"`);
      throw new CommandLineError(
        `Unknown option ${argument} of "rayd ${command}".${didYouMean(key, valued, "--")} ` +
          `"rayd help ${command}" lists the options`,
      );
    },
  });
  const given = (name: string): string | undefined => {
    const value = parsed[name];
    if (value === undefined) return undefined;
    if (typeof value === "string" && value !== "") return value;
    throw new CommandLineError(`Option --${name} needs a value. "rayd help ${command}" shows how`);
  };
  const cpus = Number(amount(given("cpus") ?? String(navigator.hardwareConcurrency), "--cpus"));
  const gpus = given("gpus");
  const level = given("log-level") ?? "warn";
  if (!["debug", "info", "warn", "error", "off"].includes(level)) {
    throw new CommandLineError(`Cannot use --log-level ${level}: there are debug, info, warn, error and off`);
  }
  const resources = given("resources");
  const memory = given("store-memory"), hostMemory = given("host-memory");
  const memoryLimit = given("memory-limit");
  return {
    host: given("host"),
    cpus,
    resources: parseDemand({
      cpus,
      gpus: gpus === undefined ? detectGpus() : Number(amount(gpus, "--gpus")),
      memory: Deno.systemMemoryInfo().total,
      resources: resources === undefined
        ? {}
        : JSON.parse(parseResources(resources)) as Record<string, number>,
    }, "this node"),
    labels: parseLabels(given("labels")),
    storeMemory: memory === undefined ? undefined : parseBytes(memory, "--store-memory"),
    hostMemory: hostMemory === undefined ? 0 : parseBytes(hostMemory, "--host-memory"),
    memoryLimit: memoryLimit === undefined ? 0 : parseBytes(memoryLimit, "--memory-limit"),
    tokenFile: given("token-file"),
    logLevel: level as LogLevel,
    insecureBind: parsed["insecure-bind"] === true,
    detach: parsed.detach === true,
    tls: tlsOf(given("tls-cert"), given("tls-key"), given("tls-ca")),
    own: Object.fromEntries(own.flatMap((name) => {
      const value = given(name);
      return value === undefined ? [] : [[name, value]];
    })),
  };
}

/** The file that `--config` names. */
function configFile(argv: readonly string[]): string | undefined {
  const { config } = parseArgs(argv, { string: ["config"] });
  if (config === undefined) return undefined;
  if (typeof config === "string" && config !== "") return config;
  throw new CommandLineError("Option --config needs one value: a file");
}

function tlsOf(
  cert: string | undefined,
  key: string | undefined,
  ca: string | undefined,
): TlsOptions | undefined {
  try {
    const tls = readTls({ cert, key, ca });
    if (tls !== undefined && tls.identity === undefined) {
      throw new CommandLineError(
        "Cannot use TLS without a certificate of this node: give --tls-cert and --tls-key",
      );
    }
    return tls;
  } catch (error) {
    throw error instanceof UsageError ? new CommandLineError(error.message) : error;
  }
}

/** GPUs of this machine, by the device files that drivers make. */
function detectGpus(): number {
  let count = 0;
  try {
    for (const { name } of Deno.readDirSync("/dev")) if (/^nvidia\d+$/.test(name)) count++;
  } catch {
    // Nothing to be seen.
  }
  return count;
}

function parseLabels(text: string | undefined): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const part of text?.split(",") ?? []) {
    const match = /^\s*([^=\s]+)\s*=\s*(\S+)\s*$/.exec(part);
    if (match === null) throw new CommandLineError(`Cannot use --labels ${text}: give name=value,…`);
    labels[match[1]!] = match[2]!;
  }
  return labels;
}

/** `HOST:PORT`, or `[HOST]:PORT`. @throws {CommandLineError} If it is none. */
export function parseAddress(text: string, option: string): { hostname: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65_535) {
    throw new CommandLineError(`Cannot use ${option} ${text}: give HOST:PORT, such as 127.0.0.1:6380`);
  }
  return { hostname: match[1] ?? match[2]!, port };
}

/** A port of 0 to 65535. @throws {CommandLineError} If it is none. */
export function parsePort(text: string, option: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65_535) return port;
  throw new CommandLineError(`Cannot use ${option} ${text}: give a number from 0 to 65535`);
}

/** The arguments of a process that is in the background already. */
export function withoutDetach(argv: readonly string[]): string[] {
  return [...argv.filter((argument) => !/^--detach(?:=|$)/.test(argument)), "--detach=false"];
}
