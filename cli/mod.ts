/**
 * The command line: one file a command, loaded only when it is called for, so that none pays for another's modules.
 *
 * Statuses: 0 done, 1 failed, 2 called wrongly, 128 + n ended by signal n; `run` passes the script's own status on.
 *
 * @module
 */

import { CommandLineError, complain, print } from "./output.ts";
import { didYouMean } from "./suggest.ts";

/** A command. */
export interface Command {
  /** What `rayd help COMMAND` prints. */
  readonly help: string;
  /** Runs it. @param args What follows its name. @returns The status; `undefined` to go on until nothing is left to do. */
  run(args: readonly string[]): Promise<number | undefined>;
}

/** Every command, with what it does in one line. */
const COMMANDS: Readonly<Record<string, { summary: string; load: () => Promise<Command> }>> = {
  run: { summary: "run a script on all cores", load: async () => (await import("./run.ts")).command },
  head: {
    summary: "start the first node of a cluster",
    load: async () => (await import("./head.ts")).command,
  },
  worker: {
    summary: "add this machine to a cluster",
    load: async () => (await import("./worker.ts")).command,
  },
  status: { summary: "show a cluster", load: async () => (await import("./status.ts")).command },
  list: { summary: "list tasks, actors and more", load: async () => (await import("./list.ts")).command },
  stop: { summary: "end this machine's nodes", load: async () => (await import("./stop.ts")).command },
  drain: { summary: "let a node finish, and end it", load: async () => (await import("./drain.ts")).command },
  doctor: {
    summary: "look for what could go wrong here",
    load: async () => (await import("./doctor.ts")).command,
  },
  token: { summary: "print the cluster's token", load: async () => (await import("./token.ts")).command },
  new: { summary: "make a new project", load: async () => (await import("./new.ts")).command },
  bundle: {
    summary: "print a script as one module",
    load: async () => (await import("./bundle_script.ts")).command,
  },
  version: { summary: "say which version this is", load: async () => (await import("./version.ts")).command },
};

/** Commands that rayd starts itself. */
const INTERNAL: Readonly<Record<string, () => Promise<Command>>> = {
  host: async () => (await import("./host.ts")).command,
};

/** Runs the command that the arguments name, and ends the process with its status. */
export async function main(args: readonly string[]): Promise<void> {
  let status: number | undefined;
  try {
    status = await dispatch(args);
  } catch (error) {
    if (!(error instanceof CommandLineError)) throw error;
    complain(`error: ${error.message}\n`);
    status = 2;
  }
  if (status !== undefined) Deno.exit(status);
}

async function dispatch([name, ...args]: readonly string[]): Promise<number | undefined> {
  if (name === undefined) {
    complain(overview());
    return 2;
  }
  if (name === "--help" || name === "-h" || name === "help") return await help(args[0]);
  if (Object.hasOwn(INTERNAL, name)) return await (await INTERNAL[name]!()).run(args);
  const { load } = find(name === "--version" || name === "-V" ? "version" : name);
  const command = await load();
  const end = args.indexOf("--");
  const own = end < 0 ? args : args.slice(0, end);
  if (name !== "run" && (own.includes("--help") || own.includes("-h"))) return await help(name);
  return await command.run(args);
}

async function help(name: string | undefined): Promise<number> {
  print(name === undefined ? overview() : (await find(name).load()).help);
  return 0;
}

function find(name: string): { load: () => Promise<Command> } {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  if (name.startsWith("-")) {
    throw new CommandLineError(
      `Unknown option ${name}. Options come after a command; "rayd help" lists the commands`,
    );
  }
  const hint = /\.[cm]?[jt]sx?$/.test(name)
    ? ` Did you mean "rayd run ${name}"?`
    : didYouMean(name, [...Object.keys(COMMANDS), "help"]);
  throw new CommandLineError(`Unknown command "${name}".${hint} "rayd help" lists the commands`);
}

function overview(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) =>
    `  rayd ${name.padEnd(10)} ${summary}\n`
  );
  return `rayd: tasks and objects over all cores, for programs in TypeScript\n\n${lines.join("")}` +
    `  rayd help [command]\n`;
}
