/**
 * The key-value table on a cluster of the executable's own processes: programs of several nodes share it, and it survives
 * them and the head.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Running } from "./rayd.ts";
import { TestCluster } from "./test_cluster.ts";

const SCRIPT = `
import { get, init, kv, nodes, remote } from "rayd";
export const count = remote(async function count(times: number) {
  for (let i = 0; i < times; i++) await kv.update<number>("count", (n = 0) => n + 1);
});
const print = (name: string, value: unknown) => console.log(name + ": " + JSON.stringify(value));
if (import.meta.main) {
  await using _ = await init();
  const [what] = Deno.args;
  if (what === "count") {
    while ((await nodes()).length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    await get([count.remote(30), count.options({ cpus: 0, resources: { far: 1 } }).remote(30), count.remote(30)]);
    print("count", await kv.get("count"));
    await kv.set("for others", { bytes: Uint8Array.of(1, 2) });
  } else if (what === "read") {
    print("count", await kv.get("count"));
    print("keys", (await kv.list()).map(({ key }) => key));
  } else {
    for await (const { key, value } of kv.watch<number>("count")) {
      print(key, value ?? null);
      if (value === 180) break;
    }
  }
}`;

Deno.test("programs of several nodes share keys, which survive them, and the head's sudden end", async () => {
  const settings = ["--cpus", "2", "--replicas", "1"];
  await using cluster = await TestCluster.start(SCRIPT, settings, ["--cpus", "2", "--resources", "far=4"]);
  const [head, worker] = cluster.nodes as [Running, Running];
  const env = { ...cluster.env, RAYD_NODE: /rayd worker (\w+)/.exec(worker.stdout)![1]! };
  await using watching = new Running(["run", "main.ts", "watch"], { cwd: cluster.directory.path, env });
  assertEquals(await cluster.run("count"), { count: 90 });
  await watching.printed("count: 90");
  await head.kill("SIGKILL");
  cluster.nodes.shift();
  await cluster.head(["--port", cluster.address.split(":")[1]!, ...settings]);
  assertEquals(await cluster.run("read"), { count: 90, keys: ["count", "for others"] });
  assertEquals(await cluster.run("count"), { count: 180 });
  assertEquals((await watching.ended()).code, 0);
  // Of what was written while it looked, some; of what it was told, the last.
  const told = watching.stdout.trim().split("\n").map((line) => Number(line.slice("count: ".length)));
  assertEquals(told, [...told].sort((a, b) => a - b));
  assertEquals(told.at(-1), 180);
});
