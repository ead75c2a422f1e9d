/**
 * Control stores whose files were damaged: no damage that changes what is in them goes unnoticed, and LMDB is not let near
 * it; who has others copies from them, as a new member, and who has not says what is lost.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { random as randomFrom } from "../bench/simulate/random.ts";
import { openHeadDirectory, openReplicaDirectory } from "../cli/store_directory.ts";
import { DamagedStoreError } from "../core/errors.ts";
import { type ChainConfig, FOUNDER } from "../gcs/chain_config.ts";
import { writeKnownConfig } from "../gcs/known_config.ts";
import { DamagedFileError } from "../gcs/lmdb_pages.ts";
import { LmdbStorage } from "../gcs/lmdb_storage.ts";
import { checkShardFile, shardDirectory } from "../gcs/store_check.ts";
import { damageFile } from "./chaos/disk_damage.ts";

const PAGE = 4096;

function temporary(): { readonly path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "rayd-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Fills a shard over several commits, with values on leaves and on pages of their own, and with pages that are free again. */
async function fill(path: string, commits = 12): Promise<void> {
  const storage = new LmdbStorage(path);
  for (let commit = 0; commit < commits; commit++) {
    storage.transaction(() => {
      for (let i = 0; i < 40; i++) {
        const value = new Uint8Array(i === 7 ? 20_000 : i * 20).fill(commit + i);
        storage.put(`key/${commit}/${i}`, { value, revision: commit * 40 + i + 1, lease: "" });
        if (commit > 4) storage.delete(`key/${commit - 4}/${i}`);
      }
      storage.putMeta("revision", Uint8Array.of(commit));
    });
  }
  await storage.close();
}

/** All that LMDB reads in a file. */
async function contents(path: string): Promise<string> {
  const storage = new LmdbStorage(path);
  const entries = [...storage.scan("", "")].map(([key, { value, revision }]) =>
    `${key} ${revision} ${value.length} ${value[0]}`
  );
  const meta = [...storage.scanMeta("")].map(([name, value]) => `${name} ${[...value]}`);
  await storage.close();
  return [...entries, ...meta].join("\n");
}

Deno.test("no damage of a shard's file that changes what it has goes unnoticed, and nothing that was written counts as damage", async () => {
  using directory = temporary();
  await fill(`${directory.path}/whole`);
  const file = Deno.readFileSync(`${directory.path}/whole/data.mdb`);
  checkShardFile(file);
  const expected = await contents(`${directory.path}/whole`);
  const random = randomFrom(7);
  let noticed = 0, harmless = 0;
  for (let i = 0; i < 1_500; i++) {
    const { bytes, what } = damageFile(file, random);
    try {
      checkShardFile(bytes);
    } catch (error) {
      assert(error instanceof DamagedFileError, `${what}: ${(error as Error).stack}`);
      noticed++;
      continue;
    }
    // What is left is of no consequence, also for what is written next.
    if (++harmless > 60) continue;
    const path = `${directory.path}/${i}`;
    Deno.mkdirSync(path);
    Deno.writeFileSync(`${path}/data.mdb`, bytes);
    assertEquals(await contents(path), expected, what);
    await fill(path, 3);
    checkShardFile(Deno.readFileSync(`${path}/data.mdb`));
  }
  assert(noticed > 500 && harmless > 20, `${noticed} were noticed, and ${harmless} were of no consequence`);
});

Deno.test("whatever a key is made of, as clients' ids are of any bytes, it is no damage", async () => {
  using directory = temporary();
  const storage = new LmdbStorage(directory.path);
  for (let code = 0; code < 0x900; code++) {
    const name = `c${String.fromCharCode(code)}`.repeat(1 + code % 40);
    storage.put(name, { value: Uint8Array.of(code), revision: code, lease: "" });
    storage.putMeta(name, Uint8Array.of(code));
    if (code % 3 === 0) storage.delete(name);
    if (code % 5 === 0) storage.putMeta(name, Uint8Array.of(code, 1));
  }
  await storage.close();
  checkShardFile(Deno.readFileSync(`${directory.path}/data.mdb`));
});

Deno.test("a shard whose last commit is gone is damaged, though what is there is whole", async () => {
  using directory = temporary();
  await fill(directory.path);
  const file = Deno.readFileSync(`${directory.path}/data.mdb`);
  const view = new DataView(file.buffer);
  const number = (meta: number) => Number(view.getBigUint64(meta * PAGE + 152, true));
  const newest = number(0) > number(1) ? 0 : 1;
  const back = file.slice();
  new DataView(back.buffer).setBigUint64(newest * PAGE + 152, BigInt(number(newest) - 2), true);
  assertThrows(() => checkShardFile(back), DamagedFileError);
  const copied = file.slice();
  copied.copyWithin(newest * PAGE + 24, (1 - newest) * PAGE + 24, (1 - newest) * PAGE + PAGE);
  assertThrows(() => checkShardFile(copied), DamagedFileError, "last two commits");
});

Deno.test("a store of before there were sums gets them when it is opened, and all that it has is there", async () => {
  using directory = temporary();
  const { open } = await import("lmdb");
  const options = {
    path: directory.path,
    encoding: "binary",
    noSubdir: false,
    overlappingSync: false,
  } as const;
  const old = open<Uint8Array>(options);
  await old.put("mformat", Uint8Array.of(1));
  await old.put("ekey", new Uint8Array(10));
  await old.close();
  const file = `${directory.path}/data.mdb`;
  checkShardFile(Deno.readFileSync(file));
  assert((await contents(directory.path)).startsWith("key 0 1 0\nformat 2\n"));
  checkShardFile(Deno.readFileSync(file));
  const db = open<Uint8Array>(options);
  await db.remove("ekey"); // behind the sum's back
  await db.close();
  assertThrows(
    () => checkShardFile(Deno.readFileSync(file)),
    DamagedFileError,
    "not those that were written",
  );
});

const OTHERS = ["b".repeat(32), "c".repeat(32)];
const THREE: ChainConfig = {
  epoch: 5,
  chain: [FOUNDER, ...OTHERS],
  joining: undefined,
  acceptors: [FOUNDER, ...OTHERS],
  replicas: 3,
};
const ALONE: ChainConfig = { ...THREE, chain: [FOUNDER], acceptors: [FOUNDER] };

/** A store of two shards, the second of which is damaged. */
async function damaged(directory: string, config: ChainConfig | undefined): Promise<void> {
  for (const shard of [0, 1]) await fill(shardDirectory(directory, shard), 2);
  if (config !== undefined) await writeKnownConfig(directory, config);
  Deno.truncateSync(`${shardDirectory(directory, 1)}/data.mdb`, 3 * PAGE);
}

Deno.test("a head that has the store alone does not start on what is damaged, but says which shard it is, and what to do", async () => {
  for (const config of [undefined, ALONE, { ...THREE, acceptors: [FOUNDER] }]) {
    using directory = temporary();
    const { path } = directory;
    openHeadDirectory(path, "2", "3");
    await damaged(path, config);
    for (let i = 0; i < 2; i++) {
      const error = assertThrows(() => openHeadDirectory(path, undefined, undefined), DamagedStoreError);
      assert(
        error.message.includes(`Cannot start on ${path}: Shard 1 of the control store in ${path} is damaged`),
      );
      assert(error.message.includes(`Put a copy of ${path} back`) && error.message.includes("another --dir"));
    }
    assert([...Deno.readDirSync(path)].some(({ name }) => name === "shard-1"), "nothing is touched");
  }
});

Deno.test("a head that others have copies of starts as another member, that founds nothing, with what is damaged put aside", async () => {
  using directory = temporary();
  const { path } = directory;
  const first = openHeadDirectory(path, "2", "3");
  await damaged(path, THREE);
  const second = openHeadDirectory(path, undefined, undefined);
  const { member, founds, lingers } = second.chain!;
  assertEquals([founds, lingers, second.cluster, second.shards], [false, true, first.cluster, 2]);
  assert(member !== FOUNDER && member < OTHERS[0]!);
  assert(second.damage!.message.includes(`put aside in ${path}/damaged`), second.damage!.message);
  assertEquals([...Deno.readDirSync(`${path}/damaged`)].map(({ name }) => name).sort(), [
    "shard-0",
    "shard-1",
  ]);
  // Until it has copied what others have, it has nothing that could be damaged; and it stays who it is.
  const third = openHeadDirectory(path, undefined, undefined);
  assertEquals([third.chain!.member, third.chain!.founds, third.damage], [member, false, undefined]);
});

Deno.test("a worker's replica that is damaged is another member's from then on; a file of it that is gone is damage as well", async () => {
  using directory = temporary();
  const { path } = directory;
  Deno.writeTextFileSync(
    `${path}/cluster.json`,
    JSON.stringify({ cluster: "c".repeat(32), shards: 2, member: OTHERS[0], incarnation: 1 }),
  );
  for (const shard of [0, 1]) await fill(shardDirectory(path, shard), 2);
  await writeKnownConfig(path, THREE);
  assertEquals(openReplicaDirectory(path)!.chain!.member, OTHERS[0]);
  Deno.removeSync(`${shardDirectory(path, 0)}/data.mdb`);
  const opened = openReplicaDirectory(path)!;
  assert(opened.chain!.member !== OTHERS[0] && opened.damage!.message.includes("its file is missing"));
  assertEquals(openReplicaDirectory(path)!.chain!.member, opened.chain!.member);
});
