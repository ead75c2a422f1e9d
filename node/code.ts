/**
 * Code that programs publish: bundles, each a file named by the hash of its content, from which isolates import.
 *
 * A worker never sees the source tree of a program. Its driver publishes the bundle to the node that it is connected to,
 * which puts it into the function table of the control store, from where other nodes take it when a task needs it.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { ProtocolError } from "../core/errors.ts";
import type { GcsClient } from "../gcs/client.ts";

/** The prefix of code in the control store, and of its sizes, for who wants to know what there is; the hash follows. */
export const FUNCTIONS = "function/", CODES = "code/";

/** Code that no program has used here for so long goes from a node's disk when it starts, in milliseconds. */
const CACHED_MS = 7 * 24 * 3_600_000;

const HASH = /^[0-9a-f]{64}$/;

/** The code that one node has. */
export class CodeStore {
  readonly #directory: string;
  readonly #gcs: GcsClient;
  readonly #now: () => number;
  readonly #fetching = new Map<string, Promise<void>>();

  /**
   * @param directory Where the files lie: of this node alone, or shared by nodes of one user.
   * @param gcs The control store. @param now The time, in milliseconds since 1970.
   */
  constructor(directory: string, gcs: GcsClient, now: () => number) {
    this.#now = now;
    this.#directory = directory;
    this.#gcs = gcs;
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#tidy(now());
  }

  /** Removes what was used long ago. */
  #tidy(now: number): void {
    for (const { name } of [...Deno.readDirSync(this.#directory)]) {
      const path = `${this.#directory}/${name}`;
      try {
        const at = Deno.statSync(path).mtime?.getTime() ?? now;
        if (now - at > CACHED_MS) Deno.removeSync(path, { recursive: true });
      } catch {
        // Another node of this user was faster.
      }
    }
  }

  /** Whether code is here. */
  has(hash: string): boolean {
    if (!HASH.test(hash)) throw new ProtocolError("Cannot load code: its name is no hash");
    try {
      return Deno.statSync(codePath(this.#directory, hash)).isFile;
    } catch {
      return false;
    }
  }

  /** Takes code from a program, and tells the cluster. @throws {ProtocolError} If it is not what its name says. */
  publish(hash: string, code: Uint8Array): void {
    this.#write(hash, code);
    const bytes = code.slice();
    const told = async () => {
      // In this order: what is collected just now is there again afterwards.
      await this.#gcs.put(CODES + hash, new TextEncoder().encode(String(code.length)));
      await this.#gcs.put(FUNCTIONS + hash, bytes);
    };
    told().catch(() => {
      // The connection to the control store was closed for good: there are no other nodes to tell.
    });
  }

  /** Brings code here. */
  fetch(hash: string): Promise<void> {
    const known = this.#fetching.get(hash);
    if (known !== undefined) return known;
    const fetching = this.#fetch(hash).finally(() => this.#fetching.delete(hash));
    this.#fetching.set(hash, fetching);
    return fetching;
  }

  async #fetch(hash: string): Promise<void> {
    const arrived = Promise.withResolvers<Uint8Array>();
    // It may be on its way into the table still.
    const end = await this.#gcs.watch(
      FUNCTIONS + hash,
      (_, code) => code !== undefined && arrived.resolve(code),
    );
    try {
      this.#write(hash, await arrived.promise);
    } finally {
      end();
    }
  }

  /** Code is in use here still: it is not to be taken for old. */
  touch(hash: string): void {
    const path = codePath(this.#directory, hash);
    const seconds = this.#now() / 1000;
    for (const used of [path, path.replace(/\.mjs$/, ".files")]) {
      try {
        Deno.utimeSync(used, seconds, seconds);
      } catch {
        // Most code has no files.
      }
    }
  }

  #write(hash: string, code: Uint8Array): void {
    if (!HASH.test(hash) || createHash("sha256").update(code).digest("hex") !== hash) {
      throw new ProtocolError("Cannot take code: it is not what its hash says");
    }
    if (this.has(hash)) {
      return this.touch(hash);
    }
    const temporary = Deno.makeTempFileSync({ dir: this.#directory, prefix: ".code-" });
    Deno.writeFileSync(temporary, code);
    Deno.chmodSync(temporary, 0o600);
    Deno.renameSync(temporary, codePath(this.#directory, hash));
  }
}

/** The file of code. */
export function codePath(directory: string, hash: string): string {
  return `${directory}/${hash}.mjs`;
}
