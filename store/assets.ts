/**
 * Native files that the executable carries. They cannot be loaded from inside of it, so each is written once to a
 * private cache, under a name that holds the hash of its content: another version is another name, and a file that is
 * there is complete, because it got its name by a rename.
 *
 * @module
 */

import { UsageError } from "../core/errors.ts";

/** Where the executable keeps what it carries. */
const EMBEDDED = new URL("../dist/assets/", import.meta.url);

/** Names the file that says where native files lie in the executable; if there is none, they are among the assets. */
export const CARRIED = "carried.json";

/** Where a file lies in the executable, in bytes. */
export interface Carried {
  readonly offset: number;
  readonly size: number;
}

/**
 * The path of a carried file, written out if it was not yet. Safe when many processes do it at once.
 *
 * @param name The file's name among the assets.
 * @param executable Whether it is to be run.
 * @throws {UsageError} If no cache directory can be written.
 */
export function extractAsset(name: string, executable = false): string {
  const hash = Deno.readTextFileSync(new URL(`${name}.sha256`, EMBEDDED)).trim();
  const directory = cacheDirectory();
  const target = `${directory}/${hash.slice(0, 32)}-${name}`;
  try {
    if (Deno.statSync(target).isFile) return target;
  } catch {
    // Not there yet.
  }
  const temporary = Deno.makeTempFileSync({ dir: directory, prefix: `.${name}-` });
  copyAsset(name, temporary);
  Deno.chmodSync(temporary, executable ? 0o700 : 0o600);
  Deno.renameSync(temporary, target);
  return target;
}

function copyAsset(name: string, to: string): void {
  let places: Readonly<Record<string, Carried>>;
  try {
    places = JSON.parse(Deno.readTextFileSync(new URL(CARRIED, EMBEDDED)));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return Deno.writeFileSync(to, Deno.readFileSync(new URL(name, EMBEDDED)));
  }
  const { offset, size } = places[name]!;
  using from = Deno.openSync(Deno.execPath());
  using into = Deno.openSync(to, { write: true });
  from.seekSync(offset, Deno.SeekMode.Start);
  const block = new Uint8Array(COPY_BYTES);
  for (let left = size; left > 0;) {
    const count = from.readSync(block.subarray(0, Math.min(left, COPY_BYTES)));
    if (count === null) throw new UsageError(`${Deno.execPath()} was cut off: get rayd anew`);
    for (let written = 0; written < count;) written += into.writeSync(block.subarray(written, count));
    left -= count;
  }
}

/** How much of a file is in memory while it is copied. */
const COPY_BYTES = 64 * 1024;

/** The user's private cache directory of rayd, made if need be: `RAYD_CACHE`, or in the XDG cache directory. */
export function cacheDirectory(): string {
  const home = Deno.env.get("HOME");
  const candidates = [
    Deno.env.get("RAYD_CACHE"),
    Deno.env.get("XDG_CACHE_HOME") && `${Deno.env.get("XDG_CACHE_HOME")}/rayd`,
    home && `${home}/.cache/rayd`,
    `/tmp/rayd-cache-${Deno.uid() ?? 0}`,
  ];
  let failure = "";
  for (const directory of candidates) {
    if (!directory) continue;
    try {
      Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
      const info = Deno.statSync(directory);
      // A directory of another user could be used to hand us a library of theirs.
      if (info.uid !== null && info.uid !== Deno.uid()) throw new Error(`it belongs to user ${info.uid}`);
      if (info.mode !== null && (info.mode & 0o022) !== 0) Deno.chmodSync(directory, 0o700);
      return directory;
    } catch (error) {
      failure += `\n  ${directory}: ${(error as Error).message}`;
    }
  }
  throw new UsageError(`Cannot make a cache directory; set RAYD_CACHE to one of your own. Tried:${failure}`);
}
