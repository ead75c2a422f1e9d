/**
 * What becomes of a control store's directory that is damaged.
 *
 * A member is what is on its disk: one that has lost a part of it has also lost what it promised the others, and must not
 * take part as if it had not. So what lies there is put aside as a whole, and the directory gets a new member, which copies
 * from the others all that they have; they leave the old one out, as one that is dead. Where there are no others that could,
 * the damage is an error, as to begin anew is to forget what the cluster knew, which is not for a program to decide.
 *
 * @module
 */

import { DamagedStoreError } from "../core/errors.ts";
import type { MemberId } from "../gcs/chain_config.ts";
import { othersHave, readKnownConfig, removeKnownConfig } from "../gcs/known_config.ts";
import { checkShards, type ShardDamage, shardDirectory } from "../gcs/store_check.ts";

/** What was put aside. */
export interface Damage {
  /** What happened, in words. */
  readonly message: string;
}

/**
 * Looks whether a store is damaged, and puts it aside if others have what it had.
 *
 * @param member Whose it is. @param becomeAnother Writes down that the directory is another member's from now on; before
 *   anything is put aside, or a directory that is empty would be taken for that of the member it was.
 * @returns What was put aside, if anything was.
 * @throws {DamagedStoreError} If it is damaged, and nobody else has what it had.
 */
export function putDamageAside(
  directory: string,
  shards: number,
  member: MemberId,
  becomeAnother: () => void,
): Damage | undefined {
  const known = readKnownConfig(directory);
  const damage = checkShards(directory, shards, known !== undefined);
  if (damage.length === 0) return undefined;
  const what = `${namesOf(damage)} of the control store in ${directory} ${
    damage.length === 1 ? "is" : "are"
  } damaged (${damage[0]!.what})`;
  if (known === undefined || !othersHave(known, member)) {
    throw new DamagedStoreError(
      `Cannot start on ${directory}: ${what}, and ${
        known === undefined
          ? "it is not known here whether others have"
          : "no others have, or could go on with,"
      } what it had. Put a copy of ${directory} back that was made before; or begin a new, empty control store with ` +
        `another --dir: what the cluster knew of jobs, names, actors and code is lost with this one`,
    );
  }
  becomeAnother();
  const aside = `${directory}/damaged`;
  // One is kept to look into, not one for each time.
  remove(aside);
  Deno.mkdirSync(aside, { mode: 0o700 });
  for (let shard = 0; shard < shards; shard++) {
    const from = shardDirectory(directory, shard);
    if (exists(from)) Deno.renameSync(from, `${aside}/shard-${shard}`);
  }
  removeKnownConfig(directory);
  return {
    message: `${what}: it is put aside in ${aside}, and a new replica is copied from the other nodes`,
  };
}

function namesOf(damage: readonly ShardDamage[]): string {
  const numbers = damage.map(({ shard }) => shard).join(", ");
  return damage.length === 1 ? `Shard ${numbers}` : `Shards ${numbers}`;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return false;
  }
}

function remove(path: string): void {
  if (exists(path)) Deno.removeSync(path, { recursive: true });
}
