/**
 * Directories that the control store lies in: who a member is stays with its directory, and a directory is of one kind,
 * and of one process.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  keepReplicaDirectory,
  makeReplicaDirectory,
  openHeadDirectory,
  openReplicaDirectory,
  removeNotNeeded,
  takeDirectory,
  temporaryReplicaDirectory,
} from "../cli/store_directory.ts";
import { UsageError } from "../core/errors.ts";
import { writeBook } from "../gcs/chain_book.ts";
import { writeKnownConfig } from "../gcs/known_config.ts";

const CLUSTER = { cluster: "c".repeat(32), shards: 4 };

function temporary(): { readonly path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "rayd-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

Deno.test("a worker's replica is the same member again, in a later run, at the address that it had", () => {
  using parent = temporary();
  const dir = `${parent.path}/replica`;
  assertEquals(openReplicaDirectory(dir), undefined);
  const made = makeReplicaDirectory(dir, true, CLUSTER, ["a:1"]);
  assertEquals([made.cluster, made.shards, made.chain!.seeds], [CLUSTER.cluster, 4, ["a:1"]]);
  const { member, incarnation } = made.chain!;
  writeBook(dir, { [member]: { chain: "10.0.0.7:1", client: "10.0.0.7:2" } });
  // The clock may have been set back.
  const file = `${dir}/cluster.json`;
  const ahead = incarnation + 1e9;
  Deno.writeTextFileSync(file, JSON.stringify({ ...CLUSTER, member, incarnation: ahead }));
  const again = openReplicaDirectory(dir)!;
  assertEquals([again.cluster, again.shards, again.hostname], [CLUSTER.cluster, 4, "10.0.0.7"]);
  assertEquals(again.chain, { ...made.chain!, incarnation: ahead + 1, seeds: [] });
});

Deno.test("a head is the founder of the store in its directory, and keeps to how many replicas there are", () => {
  using parent = temporary();
  const alone = openHeadDirectory(parent.path, "2", undefined);
  assertEquals([alone.shards, alone.chain], [2, undefined]);
  const first = openHeadDirectory(parent.path, undefined, "3");
  assertEquals([first.cluster, first.chain!.replicas, first.chain!.founds], [alone.cluster, 3, true]);
  const again = openHeadDirectory(parent.path, undefined, undefined);
  assertEquals([again.cluster, again.chain!.replicas], [alone.cluster, 3]);
  assert(again.chain!.incarnation > first.chain!.incarnation);
});

Deno.test("a directory is of a head or of a worker, and of one process at a time", () => {
  using parent = temporary();
  const head = `${parent.path}/head`, replica = `${parent.path}/replica`;
  const refused = (open: () => unknown, message: string) => assertThrows(open, UsageError, message);
  {
    using _ = takeDirectory(head);
    refused(() => takeDirectory(head), "another head or worker that runs here has it");
    openHeadDirectory(head, undefined, "3");
  }
  using _ = takeDirectory(head);
  makeReplicaDirectory(replica, true, CLUSTER, []);
  refused(() => openReplicaDirectory(head), "a head's control store lies there");
  refused(() => openHeadDirectory(replica, undefined, undefined), "it has a worker's replica");
});

Deno.test("a replica that was to go with its process is kept when what killed processes have left is cleared away", () => {
  using parent = temporary();
  const killed = `${parent.path}/${Deno.hostname()}.${2 ** 30}-1`;
  Deno.mkdirSync(killed);
  const own = temporaryReplicaDirectory(parent.path);
  makeReplicaDirectory(own, false, CLUSTER, []);
  const kept = keepReplicaDirectory(own);
  temporaryReplicaDirectory(parent.path);
  const names = [...Deno.readDirSync(parent.path)].map(({ name }) => `${parent.path}/${name}`);
  assertEquals([names.includes(killed), names.includes(kept), names.length], [false, true, 2]);
  assert(openReplicaDirectory(kept) !== undefined);
});

Deno.test("what was kept of a member goes when the cluster is known to go on without it, and not before", async () => {
  using parent = temporary();
  const own = temporaryReplicaDirectory(parent.path);
  const { chain: { member } = {} } = makeReplicaDirectory(own, false, CLUSTER, []);
  const config = { epoch: 7, chain: [member!], joining: undefined, acceptors: [member!], replicas: 3 };
  await writeKnownConfig(own, config);
  const kept = keepReplicaDirectory(own);
  const stays = (cluster: string, epoch: number, parts: string[]) => {
    removeNotNeeded(parent.path, cluster, { epoch, parts });
    return [...Deno.readDirSync(parent.path)].some(({ name }) => `${parent.path}/${name}` === kept);
  };
  const other = "f".repeat(32);
  assert(stays(CLUSTER.cluster, 9, [other, member!]), "it has a part");
  assert(stays(CLUSTER.cluster, 6, [other]), "others may not know yet that it has one");
  assert(stays(other, 9, [other]), "it is another cluster's");
  {
    using _ = takeDirectory(kept);
    assert(stays(CLUSTER.cluster, 9, [other]), "somebody uses it");
  }
  assert(!stays(CLUSTER.cluster, 9, [other]));
});
