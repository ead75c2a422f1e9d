/**
 * The configuration that a member knew last, in a file beside its shards: what can still be read when a shard cannot, and
 * says whether others have what this one had.
 *
 * That it is there also says that all shards have been opened once, so that none may be missing.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import type { Clock } from "../core/clock.ts";
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

/**
 * The file while a member runs, which has more urgent things to do when the configuration changes: clients wait. Only what
 * says that the member is needed is written at once.
 */
export class KnownConfigFile {
  readonly #options: KnownConfigOptions;
  #next: ChainConfig | undefined;
  #cancelDelay: (() => void) | undefined;
  #writing: Promise<void> | undefined;

  /** @param options What it is told. */
  constructor(options: KnownConfigOptions) {
    this.#options = options;
  }

  /** Has a configuration written, and none of those before. */
  write(config: ChainConfig): void {
    this.#next = config;
    if (!othersHave(config, this.#options.member)) this.flush();
    else this.#cancelDelay ??= this.#options.clock.after(DELAY_MS, () => this.flush());
  }

  /** Does not put off what is to be written. @returns Resolves when the file has the last configuration that it was told. */
  flush(): Promise<void> {
    this.#cancelDelay?.();
    this.#cancelDelay = undefined;
    if (this.#next !== undefined) this.#writing ??= this.#write();
    return this.#writing ?? Promise.resolve();
  }

  async #write(): Promise<void> {
    for (let config; (config = this.#next) !== undefined;) {
      this.#next = undefined;
      await writeKnownConfig(this.#options.directory, config).catch(this.#options.failed);
    }
    this.#writing = undefined;
  }
}

/** What a {@link KnownConfigFile} is told. */
export interface KnownConfigOptions {
  /** Where it lies. */
  readonly directory: string;
  /** Whose it is. */
  readonly member: MemberId;
  readonly clock: Clock;
  /** Told when it could not be written. */
  readonly failed: (error: Error) => void;
}

/** For how long a change is not written that can wait. */
const DELAY_MS = 100;

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
