/**
 * Where the token of a cluster is kept: a file of the user's own, that nobody else can read.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";

const TOKEN = /^[0-9a-f]{64}$/;

/** The file that the token is in unless told otherwise. */
export function tokenFile(): string {
  const given = Deno.env.get("RAYD_TOKEN_FILE");
  return given !== undefined && given !== "" ? given : `${stateDirectory()}/token`;
}

/** The user's directory for what outlasts a run. */
export function stateDirectory(): string {
  const home = Deno.env.get("HOME");
  if (home === undefined || home === "") {
    throw new UsageError("Cannot tell where the token of the cluster is: set HOME, or RAYD_TOKEN_FILE");
  }
  return `${home}/.rayd`;
}

/**
 * The token of the cluster: `RAYD_TOKEN`, or what the file holds.
 *
 * @throws {UsageError} If there is none, it is none, or others can read it.
 */
export function readToken(file = tokenFile()): string {
  const given = Deno.env.get("RAYD_TOKEN");
  if (given !== undefined && given !== "") return checked(given.trim(), "RAYD_TOKEN");
  let text: string;
  try {
    const { mode } = Deno.statSync(file);
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new UsageError(`Cannot use the token in ${file}: others can read it. Run "chmod 600 ${file}"`);
    }
    text = Deno.readTextFileSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UsageError(
      `Cannot find the token of the cluster: there is no ${file}. Copy it from the head ("rayd token" there prints it), ` +
        `or set RAYD_TOKEN or RAYD_TOKEN_FILE`,
    );
  }
  return checked(text.trim(), file);
}

/** As {@link readToken}; where there is no file yet, one is made with `fresh`. */
export function readOrMakeToken(fresh: string, file = tokenFile()): string {
  try {
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")) || "/", { recursive: true, mode: 0o700 });
    Deno.writeTextFileSync(file, `${fresh}\n`, { createNew: true, mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) {
      throw new UsageError(`Cannot write the token of the cluster to ${file}: ${(error as Error).message}`);
    }
  }
  return readToken(file);
}

function checked(token: string, from: string): string {
  if (TOKEN.test(token)) return token;
  throw new UsageError(`Cannot use the token in ${from}: it is not 64 hexadecimal digits`);
}
