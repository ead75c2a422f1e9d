/**
 * The configuration that a member knew last, in a file beside its shards: what can still be read when a shard cannot, and
 * says whether others have what this one had.
 *
 * That it is there also says that all shards have been opened once, so that none may be missing.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { type ChainConfig, majorityOf, type MemberId } from "./chain_config.ts";

/** Reads it. @returns `undefined` if there is none, or if what is there is damaged. */
export function readKnownConfig(directory: string): ChainConfig | undefined {
  try {
    const text = Deno.readTextFileSync(`${directory}/${FILE}`);
    const end = text.lastIndexOf(" ");
    if (text.slice(end + 1) !== sumOf(text.slice(0, end))) return undefined;
    return JSON.parse(text.slice(0, end)) as ChainConfig;
  } catch {
    return undefined; // it is looked at to mend what is worse
  }
}

/** Writes it. Not twice at once: {@link KnownConfigFile} sees to that. */
export async function writeKnownConfig(directory: string, config: ChainConfig): Promise<void> {
  const file = `${directory}/${FILE}`;
  const text = JSON.stringify(config);
  await Deno.writeTextFile(`${file}.new`, `${text} ${sumOf(text)}`, { mode: 0o600 });
  await Deno.rename(`${file}.new`, file);
}

/** The file while a member runs, which has more urgent things to do than to wait for it. */
export class KnownConfigFile {
  readonly #directory: string;
  readonly #failed: (error: Error) => void;
  #next: ChainConfig | undefined;
  #writing: Promise<void> | undefined;

  /** @param directory Where it lies. @param failed Told when it could not be written. */
  constructor(directory: string, failed: (error: Error) => void) {
    this.#directory = directory;
    this.#failed = failed;
  }

  /** Resolves when it has the last configuration that it was told. */
  get written(): Promise<void> {
    return this.#writing ?? Promise.resolve();
  }

  /** Has a configuration written, and none of those before. */
  write(config: ChainConfig): void {
    this.#next = config;
    this.#writing ??= this.#write();
  }

  async #write(): Promise<void> {
    for (let config; (config = this.#next) !== undefined;) {
      this.#next = undefined;
      await writeKnownConfig(this.#directory, config).catch(this.#failed);
    }
    this.#writing = undefined;
  }
}

/** Removes it, with the shards. */
export function removeKnownConfig(directory: string): void {
  try {
    Deno.removeSync(`${directory}/${FILE}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Whether a member is not needed: others have all that it had, and can decide that they go on without it. */
export function othersHave({ chain, acceptors }: ChainConfig, member: MemberId): boolean {
  const deciders = acceptors.filter((each) => each !== member);
  return chain.some((each) => each !== member) && deciders.length >= majorityOf(acceptors);
}

const FILE = "configuration";

function sumOf(text: string): string {
  return crc32(text).toString(16);
}
