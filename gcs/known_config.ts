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

/** Writes it. */
export function writeKnownConfig(directory: string, config: ChainConfig): void {
  const file = `${directory}/${FILE}`;
  const text = JSON.stringify(config);
  Deno.writeTextFileSync(`${file}.new`, `${text} ${sumOf(text)}`, { mode: 0o600 });
  Deno.renameSync(`${file}.new`, file);
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
