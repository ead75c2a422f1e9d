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

const HASH = /^[0-9a-f]{64}$/;

/** The code that one node has. */
export class CodeStore {
  readonly #directory: string;
  readonly #gcs: GcsClient;
  readonly #fetching = new Map<string, Promise<void>>();

  /** @param directory Where the files lie: of this node alone, or shared by nodes of one user. */
  constructor(directory: string, gcs: GcsClient) {
    this.#directory = directory;
    this.#gcs = gcs;
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
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
    this.#gcs.put(tableKey(hash), code.slice()).catch(() => {
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
      tableKey(hash),
      (_, code) => code !== undefined && arrived.resolve(code),
    );
    try {
      this.#write(hash, await arrived.promise);
    } finally {
      end();
    }
  }

  #write(hash: string, code: Uint8Array): void {
    if (!HASH.test(hash) || createHash("sha256").update(code).digest("hex") !== hash) {
      throw new ProtocolError("Cannot take code: it is not what its hash says");
    }
    if (this.has(hash)) return;
    const temporary = Deno.makeTempFileSync({ dir: this.#directory, prefix: ".code-" });
    Deno.writeFileSync(temporary, code);
    Deno.chmodSync(temporary, 0o600);
    Deno.renameSync(temporary, codePath(this.#directory, hash));
  }
}

function tableKey(hash: string): string {
  return `function/${hash}`;
}

/** The file of code. */
export function codePath(directory: string, hash: string): string {
  return `${directory}/${hash}.mjs`;
}
