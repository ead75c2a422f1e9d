/**
 * A control store on several nodes, as processes of the executable: what goes on when any of them is killed.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { random } from "../../bench/simulate/random.ts";
import { killReplicas } from "../chaos/chain_kill.ts";
import { project, rayd, raydOutput, Running } from "./rayd.ts";

const SCRIPT = `
import { get, init, remote } from "rayd";
export const busy = remote(function busy(i: number, ms: number): number {
  const end = performance.now() + ms;
  while (performance.now() < end);
  return i;
});
if (import.meta.main) {
  await using _ = await init();
  console.log("first", await get(busy.remote(1, 1)));
  while (!Deno.args[0] || !existsSync(Deno.args[0])) await get(busy.remote(0, 20));
  console.log("after", (await get(Array.from({ length: 20 }, (_, i) => busy.remote(i, 1)))).length);
}
function existsSync(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
`;

/** Waits until a node has said something in its log. */
async function logged(node: Running, pattern: RegExp): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!pattern.test(node.stderr)) {
    if (performance.now() > deadline) throw new Error(`${pattern} is not in the log:\n${node.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

Deno.test("a head that is killed is replaced: programs and workers go on, a survivor is asked, and it comes back as one of them", async () => {
  using directory = project({ "main.ts": SCRIPT });
  const env: Record<string, string> = { HOME: directory.path };
  const settings = ["--store-memory", "64MB", "--log-level", "info"];
  await using head = new Running(["head", "--port", "0", "--replicas", "3", "--cpus", "0", ...settings], {
    env,
  });
  await head.printed("The token is in");
  const address = /is up at (\S+)/.exec(head.stdout)![1]!;
  await using first = new Running(["worker", "--address", address, "--cpus", "1", ...settings], { env });
  await using second = new Running(["worker", "--address", address, "--cpus", "1", ...settings], { env });
  for (const worker of [first, second]) await worker.printed("instead");
  const whole = /Epoch \d+ of the control store: \w+, \w+, \w+$/m;
  await logged(first, whole);
  const survivor = /use --address (\S+) instead/.exec(first.stdout)![1]!;
  await using run = new Running(["run", "main.ts", `${directory.path}/go`], {
    cwd: directory.path,
    env: { ...env, RAYD_ADDRESS: survivor, RAYD_NODE: /rayd worker (\w+)/.exec(first.stdout)![1]! },
  });
  await run.printed("first");
  await head.kill("SIGKILL");
  // The head's node is given up by whoever took its place, as any node is that dies.
  const headId = /rayd head (\w+)/.exec(head.stdout)![1]!;
  const deadline = performance.now() + 60_000;
  let status = "";
  do {
    assert(performance.now() < deadline, `the dead head is still in the status:\n${status}`);
    status = await raydOutput(["status", "--address", survivor], { env });
  } while (status.includes(headId));
  Deno.writeTextFileSync(`${directory.path}/go`, "");
  assertEquals((await run.ended()).code, 0, run.stderr);
  assertEquals(run.stdout, "first 1\nafter 20\n");
  // On its directory, it is one member among three again.
  await using again = new Running(
    ["head", "--port", address.split(":")[1]!, "--replicas", "3", "--cpus", "0", ...settings],
    { env },
  );
  await again.printed("The token is in");
  await logged(again, whole);
  assertStringIncludes(await raydOutput(["status", "--address", address], { env }), "head");
});

Deno.test("nothing that the store has acknowledged is lost or read too late, though nodes that keep it are killed", async () => {
  const { kills, wrong } = await killReplicas(3, 3, random(Date.now() % 1_000_000));
  assertEquals({ kills, wrong }, { kills: 3, wrong: [] });
});

Deno.test("rayd head refuses a number of replicas that is none, or less than there are", async () => {
  using directory = project({});
  const env = { HOME: directory.path };
  const wrong = await rayd(["head", "--replicas", "0"], { env });
  assertStringIncludes(wrong.stderr, "Cannot use --replicas 0: give a whole number from 1 to 7");
  assert(wrong.code !== 0);
  await using head = new Running([
    "head",
    "--port",
    "0",
    "--replicas",
    "3",
    "--cpus",
    "0",
    "--store-memory",
    "16MB",
  ], { env });
  await head.printed("The token is in");
  await head.kill("SIGTERM");
  const fewer = await rayd(["head", "--port", "0", "--replicas", "1"], { env });
  assertStringIncludes(fewer.stderr, "has 3 replicas, and cannot have fewer");
  assertEquals(fewer.code, 1);
});
