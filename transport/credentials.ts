/**
 * Where the token of a cluster is kept, a file of the user's own that nobody else can read, and its certificates.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";
import type { TlsOptions } from "./tcp.ts";

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

/**
 * The certificates of the cluster, from files.
 *
 * @param files The certificate and its key, of whoever listens; and the authority's certificate, by default
 *   `RAYD_TLS_CA`. A node whose certificate is its own authority's is checked against that.
 * @returns `undefined` where nothing is encrypted.
 * @throws {UsageError} If one of certificate and key is missing, or a file cannot be read.
 */
export function readTls(
  files: {
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
    readonly ca?: string | undefined;
  } = {},
): TlsOptions | undefined {
  const ca = files.ca ?? (Deno.env.get("RAYD_TLS_CA") || undefined);
  if ((files.cert === undefined) !== (files.key === undefined)) {
    throw new UsageError("Cannot use TLS: give the certificate and its key, --tls-cert FILE --tls-key FILE");
  }
  if (files.cert === undefined && ca === undefined) return undefined;
  if (ca === undefined) {
    throw new UsageError(
      "Cannot use TLS: give the authority that signed the certificates, --tls-ca FILE or RAYD_TLS_CA",
    );
  }
  const read = (file: string) => {
    try {
      return Deno.readTextFileSync(file);
    } catch (error) {
      throw new UsageError(`Cannot read ${file}: ${(error as Error).message}`);
    }
  };
  return {
    authority: read(ca),
    identity: files.cert === undefined ? undefined : { cert: read(files.cert), key: read(files.key!) },
  };
}
