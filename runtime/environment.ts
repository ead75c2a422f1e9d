/**
 * What a program brings along for its tasks besides code: environment variables, and the files of a directory.
 *
 * On a cluster both travel as one packet that is named by the hash of its content, beside the bundle: an address says
 * `code:<hash of the bundle>+<hash of the packet>`. So tasks of programs with different environments are different code,
 * and whatever moves code, keeps it and drops it does so with packets as well. An isolate unpacks the files once into
 * its node's cache.
 *
 * An isolate is a process that may serve several programs, so the process's own environment and directory belong to
 * none of them: tasks find theirs in `context().env` and `context().workingDirectory`.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { UsageError } from "../core/errors.ts";
import { WORKING_DIRECTORY_BYTES_MAX } from "../core/limits.ts";
import { show } from "../core/options.ts";
import type { TaskEnvironment } from "../node/config.ts";

/** One that says nothing. */
export const NO_ENVIRONMENT: TaskEnvironment = Object.freeze({
  env: Object.freeze({}),
  workingDirectory: undefined,
});

/** Names in any directory that stay where they are, whatever `.raydignore` says. */
const IGNORED: readonly string[] = [".git", "node_modules"];

/** The file that names what else stays: a name or a path a line, `#` begins a comment. */
const IGNORE_FILE = ".raydignore";

const MAGIC = "rayd environment 1\n";

interface Manifest {
  readonly env: Readonly<Record<string, string>>;
  readonly files:
    | readonly { readonly path: string; readonly size: number; readonly mode: number }[]
    | undefined;
}

/** Checks variables. @throws {UsageError} If they are no texts by name. */
function checkEnv(env: unknown): Readonly<Record<string, string>> {
  if (typeof env !== "object" || env === null || Array.isArray(env)) {
    throw new UsageError(`Cannot use env ${show(env)}: give texts by name, such as { LEVEL: "1" }`);
  }
  for (const [name, value] of Object.entries(env)) {
    if (name === "" || name.includes("=") || name.includes("\0")) {
      throw new UsageError(`Cannot use env: ${JSON.stringify(name)} is no name of a variable`);
    }
    if (typeof value !== "string") {
      throw new UsageError(`Cannot use env: ${name} is ${show(value)} and not text`);
    }
  }
  return { ...env as Record<string, string> };
}

/**
 * Packs an environment.
 *
 * @param env Variables. @param directory The directory whose files go along, if any.
 * @returns The packet, and the SHA-256 of it in hexadecimal digits.
 * @throws {UsageError} If there is no such directory, or its files are too large together.
 */
export function packEnvironment(
  env: Readonly<Record<string, string>>,
  directory: string | undefined,
): { readonly hash: string; readonly bytes: Uint8Array } {
  const files = directory === undefined ? undefined : filesOf(directory);
  const manifest: Manifest = {
    env: Object.fromEntries(Object.entries(env).sort(([a], [b]) => a < b ? -1 : 1)),
    files: files?.map(({ path, size, mode }) => ({ path, size, mode })),
  };
  const head = new TextEncoder().encode(`${MAGIC}${JSON.stringify(manifest)}\n`);
  const bytes = new Uint8Array((files ?? []).reduce((sum, { size }) => sum + size, head.length));
  bytes.set(head);
  let at = head.length;
  for (const { path, size } of files ?? []) {
    const content = Deno.readFileSync(`${directory}/${path}`);
    if (content.length !== size) {
      throw new UsageError(`Cannot take ${path} along: it was changed just now. Start the program again`);
    }
    bytes.set(content, at);
    at += size;
  }
  return { hash: createHash("sha256").update(bytes).digest("hex"), bytes };
}

interface Found {
  readonly path: string;
  readonly size: number;
  readonly mode: number;
}

function filesOf(directory: string): Found[] {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(directory);
  } catch {
    throw new UsageError(`Cannot take ${directory} along as working directory: there is no such directory`);
  }
  if (!info.isDirectory) {
    throw new UsageError(`Cannot take ${directory} along as working directory: it is a file`);
  }
  const ignored = ignoredOf(directory);
  const found: Found[] = [];
  const walk = (prefix: string) => {
    const entries = [...Deno.readDirSync(`${directory}/${prefix}`)].sort((a, b) => a.name < b.name ? -1 : 1);
    for (const { name, isSymlink, isDirectory } of entries) {
      const path = `${prefix}${name}`;
      if (ignored.has(name) || ignored.has(path)) continue;
      if (isDirectory) walk(`${path}/`);
      else {
        const file = statLinked(directory, path);
        // A link to a file is taken for the file; one to a directory could lead anywhere. Sockets and the like stay.
        if (file.isFile) found.push({ path, size: file.size, mode: (file.mode ?? 0o644) & 0o777 });
        else if (isSymlink && file.isDirectory) {
          throw new UsageError(
            `Cannot take ${directory}/${path} along: it is a link to a directory. Name it in ${IGNORE_FILE}, or put ` +
              `the files themselves there`,
          );
        }
      }
    }
  };
  walk("");
  const bytes = found.reduce((sum, { size }) => sum + size, 0);
  if (bytes > WORKING_DIRECTORY_BYTES_MAX) {
    const largest = [...found].sort((a, b) => b.size - a.size).slice(0, 3)
      .map(({ path, size }) => `${path} (${megabytes(size)})`).join(", ");
    throw new UsageError(
      `Cannot take ${directory} along as working directory: its ${found.length} files have ${
        megabytes(bytes)
      }, and ` +
        `${
          megabytes(WORKING_DIRECTORY_BYTES_MAX)
        } may travel. The largest are ${largest}. Name what tasks do not need in ` +
        `${IGNORE_FILE}, and give tasks large data as objects (put)`,
    );
  }
  return found;
}

function statLinked(directory: string, path: string): Deno.FileInfo {
  try {
    return Deno.statSync(`${directory}/${path}`);
  } catch (error) {
    throw new UsageError(
      `Cannot take ${directory}/${path} along: ${
        (error as Error).message
      }. Name it in ${IGNORE_FILE} if tasks do not ` +
        `need it`,
    );
  }
}

function ignoredOf(directory: string): ReadonlySet<string> {
  const ignored = new Set([...IGNORED, IGNORE_FILE]);
  let text = "";
  try {
    text = Deno.readTextFileSync(`${directory}/${IGNORE_FILE}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  for (const line of text.split("\n")) {
    const name = line.replace(/#.*/, "").trim().replace(/^\.?\//, "").replace(/\/$/, "");
    if (name !== "") ignored.add(name);
  }
  return ignored;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Unpacks a packet.
 *
 * @param file The packet. @param directory Where the files go, unless they are there already.
 * @throws {UsageError} If it is no packet.
 */
export function unpackEnvironment(file: string, directory: string): TaskEnvironment {
  const bytes = Deno.readFileSync(file);
  const magic = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
  const end = bytes.indexOf(0x0a, MAGIC.length);
  if (magic !== MAGIC || end < 0) {
    throw new UsageError(`Cannot read the environment of a program: ${file} is none`);
  }
  const { env, files } = JSON.parse(new TextDecoder().decode(bytes.subarray(MAGIC.length, end))) as Manifest;
  if (files === undefined) return { env: Object.freeze(checkEnv(env)), workingDirectory: undefined };
  if (!isDirectory(directory)) {
    const temporary = Deno.makeTempDirSync({
      dir: directory.slice(0, directory.lastIndexOf("/")),
      prefix: ".files-",
    });
    try {
      writeFiles(temporary, files, bytes.subarray(end + 1));
      Deno.renameSync(temporary, directory);
    } catch (error) {
      Deno.removeSync(temporary, { recursive: true });
      // Another isolate may have been faster.
      if (!isDirectory(directory)) throw error;
    }
  }
  return { env: Object.freeze(checkEnv(env)), workingDirectory: directory };
}

function writeFiles(directory: string, files: NonNullable<Manifest["files"]>, bytes: Uint8Array): void {
  let at = 0;
  for (const { path, size, mode } of files) {
    const parts = path.split("/");
    if (parts.some((part) => part === "" || part === "." || part === "..")) {
      throw new UsageError(`Cannot unpack the files of a program: "${path}" leads elsewhere`);
    }
    if (parts.length > 1) Deno.mkdirSync(`${directory}/${parts.slice(0, -1).join("/")}`, { recursive: true });
    Deno.writeFileSync(`${directory}/${path}`, bytes.subarray(at, at + size), { mode });
    at += size;
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
