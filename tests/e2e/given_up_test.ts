/**
 * A node that was silent for so long that the cluster has given it up, and then goes on: what it has is found again.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { raydOutput, Running } from "./rayd.ts";
import { parse, TestCluster } from "./test_cluster.ts";

Deno.test("a node that stood still and was given up has its names and placement groups again, and its program goes on", async () => {
  await using cluster = await TestCluster.start(
    `
import { actor, context, get, getActor, init, placementGroup, remote } from "rayd";
export const where = remote(function where(): string { return context().nodeId; });
export const Counter = actor(class Counter {
  n = 0;
  add() { return ++this.n; }
});
const print = (name: string, value: unknown) => console.log(name + ": " + JSON.stringify(value));
const isThere = (path: string) => Deno.stat(path).then(() => true, () => false);
if (import.meta.main) {
  await using _ = await init();
  if (Deno.args[0] === "find") {
    print("found", await get((await getActor(Counter, "kept")).add.remote()));
  } else {
    const near = { resources: { near: 1 } };
    const counter = Counter.options({ ...near, name: "kept", detached: true }).remote();
    print("counted", await get(counter.add.remote()));
    const group = await placementGroup([{ cpus: 1 }, { cpus: 1 }], { strategy: "STRICT_SPREAD" });
    print("reserved", true);
    while (!await isThere("go")) await new Promise((resolve) => setTimeout(resolve, 10));
    const places = await get([0, 1].map((bundle) => where.options({ group, bundle }).remote()));
    print("in both bundles", new Set(places).size);
    await group.remove();
  }
}`,
    ["--cpus", "1"],
  );
  const worker = await cluster.worker(["--cpus", "1", "--resources", "near=1"]);
  const id = /rayd worker (\w+)/.exec(worker.stdout)![1]!;
  const cwd = cluster.directory.path;
  await using run = new Running(["run", "main.ts"], { cwd, env: { ...cluster.env, RAYD_NODE: id } });
  await run.printed("reserved");
  const listed = async () => (await raydOutput(["status"], { env: cluster.env })).includes(id);
  const until = async (state: boolean) => {
    const deadline = performance.now() + 60_000;
    while (await listed() !== state) assert(performance.now() < deadline, `the node is listed: ${!state}`);
  };
  Deno.kill(worker.pid, "SIGSTOP");
  await until(false);
  Deno.kill(worker.pid, "SIGCONT");
  await until(true);
  Deno.writeTextFileSync(`${cwd}/go`, "");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(parse(run.stdout), { "counted": 1, "reserved": true, "in both bundles": 2 });
  assertEquals(await cluster.run("find"), { "found": 2 });
});
