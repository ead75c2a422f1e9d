/**
 * A control store on several nodes, as processes of the executable: what goes on when any of them is killed.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { random } from "../../bench/simulate/random.ts";
import { systemClock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { GcsClient } from "../../gcs/client.ts";
import { dialTcp, splitAddress } from "../../transport/tcp.ts";
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

/** A head and workers that keep the control store in directories of their own, and what is in it. */
class Kept implements AsyncDisposable {
  readonly #directory = project({});
  readonly #nodes = new Set<Running>();
  readonly env: Record<string, string> = { HOME: this.#directory.path };
  address = "";

  async head(): Promise<Running> {
    const head = this.#start(["head", "--port", this.address.split(":")[1] ?? "0", "--replicas", "3"]);
    await head.printed("The token is in");
    this.address = /is up at (\S+)/.exec(head.stdout)![1]!;
    return head;
  }

  /** A head that is not up yet. */
  startHead(): Running {
    return this.#start(["head", "--port", this.address.split(":")[1]!]);
  }

  async worker(name: string): Promise<Running> {
    const worker = this.#start(["worker", "--address", this.address, "--dir", this.directoryOf(name)]);
    await worker.printed("instead");
    return worker;
  }

  directoryOf(name: string): string {
    return `${this.#directory.path}/${name}`;
  }

  #start(args: readonly string[]): Running {
    const settings = ["--cpus", "0", "--store-memory", "16MB", "--log-level", "info"];
    const node = new Running([...args, ...settings], { env: this.env });
    this.#nodes.add(node);
    return node;
  }

  /** A key of the store, which is written first if a value is given. */
  async value(value?: string): Promise<string | undefined> {
    const token = Deno.readTextFileSync(`${this.#directory.path}/.rayd/token`).trim();
    const client = new GcsClient({
      id: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
      token,
      clock: systemClock,
      connect: (member) => {
        const { hostname, port } = splitAddress(member ?? this.address);
        return dialTcp(hostname, port, systemClock);
      },
    });
    try {
      await client.start();
      if (value !== undefined) await client.put("kept", new TextEncoder().encode(value));
      const entry = await client.get("kept");
      return entry === undefined ? undefined : new TextDecoder().decode(entry.value);
    } finally {
      client.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes) await node[Symbol.asyncDispose]();
    this.#directory[Symbol.dispose]();
  }
}

const WHOLE = /Epoch \d+ of the control store: \w+, \w+, \w+$/m;

Deno.test("a cluster that is stopped as a whole comes back with its head alone", async () => {
  await using kept = new Kept();
  const head = await kept.head();
  const workers = [await kept.worker("a"), await kept.worker("b")];
  await logged(head, WHOLE);
  assertEquals(await kept.value("x"), "x");
  for (const node of [...workers, head]) {
    Deno.kill(node.pid, "SIGTERM");
    await logged(node, /rayd: ending/);
  }
  for (const node of [...workers, head]) {
    assertEquals((await node.ended()).code, 0);
    assert(!node.stderr.includes("may need this node's replica"), node.stderr);
  }
  await kept.head();
  assertEquals(await kept.value(), "x");
});

Deno.test("a cluster that is killed as a whole comes back with two of its three members; one alone says who is missing", async () => {
  await using kept = new Kept();
  const head = await kept.head();
  const workers = [await kept.worker("a"), await kept.worker("b")];
  await logged(head, WHOLE);
  assertEquals(await kept.value("x"), "x");
  await Promise.all([head, ...workers].map((node) => node.kill("SIGKILL")));
  const again = kept.startHead();
  let status;
  do status = await rayd(["status", "--address", kept.address], { env: kept.env }); while (
    status.stderr.includes("nobody listens")
  );
  assertEquals(status.code, 1);
  assertStringIncludes(
    status.stderr,
    `The control store has no majority: of the 3 members that decide, 1 answers (${kept.address}) and 2 do not (`,
  );
  assertStringIncludes(status.stderr, "Start 1 of them again, on the --dir that it had");
  await kept.worker("b");
  await again.printed("The token is in");
  assertEquals(await kept.value(), "x");
});

Deno.test("a head that left before the others does not start on what it has, but names who has the newest", async () => {
  await using kept = new Kept();
  const head = await kept.head();
  const worker = await kept.worker("a");
  await logged(head, /Epoch \d+ of the control store: \w+, \w+$/m);
  const survivor = /use --address (\S+) instead/.exec(worker.stdout)![1]!;
  assertEquals((await head.kill("SIGTERM")).code, 0);
  assertStringIncludes(head.stderr, `the control store goes on without this node, at ${survivor}`);
  const headAddress = kept.address;
  kept.address = survivor;
  assertEquals(await kept.value("newer"), "newer");
  assertEquals((await worker.kill("SIGTERM")).code, 0);
  assertStringIncludes(
    worker.stderr,
    `this node was the last that kept the control store, in ${
      kept.directoryOf("a")
    }. To take it up again: rayd worker`,
  );
  kept.address = headAddress;
  const old = kept.startHead();
  await logged(old, /is old: this node had left it/);
  assertStringIncludes(old.stderr, `The newest is kept at ${survivor}, which does not answer`);
  await kept.worker("a");
  await old.printed("The token is in");
  assertEquals(await kept.value(), "newer");
});

Deno.test("members whose files were damaged say so and copy from the others, as others; one that is alone does not start", async () => {
  await using kept = new Kept();
  let head = await kept.head();
  const workers = [await kept.worker("a"), await kept.worker("b")];
  await logged(head, WHOLE);
  assertEquals(await kept.value("x"), "x");
  const damage = (name: string) => Deno.truncateSync(`${kept.directoryOf(name)}/shard-2/data.mdb`, 2 * 4096);
  const found = /Shard 2 of the control store in .* is damaged \(.*\): it is put aside in/;

  await workers[0]!.kill("SIGKILL");
  damage("a");
  const worker = await kept.worker("a");
  await logged(worker, found);
  await logged(worker, WHOLE);

  await head.kill("SIGKILL");
  damage(".rayd/head");
  head = await kept.head();
  await logged(head, found);
  await logged(head, WHOLE);
  assertEquals(await kept.value(), "x");
  // An event is written a moment after it is logged.
  let told = 0;
  for (const deadline = performance.now() + 60_000; told < 2 && performance.now() < deadline;) {
    const events = await raydOutput(["list", "events", "--address", kept.address], { env: kept.env });
    told = events.split("\n").filter((line) => found.test(line)).length;
  }
  assertEquals(told, 2);

  for (const node of [workers[1]!, worker, head]) {
    Deno.kill(node.pid, "SIGTERM");
    await logged(node, /rayd: ending/);
  }
  for (const node of [workers[1]!, worker, head]) assertEquals((await node.ended()).code, 0, node.stderr);
  await (await kept.head()).kill("SIGTERM"); // the one that has another id now is the last of all, as before
  damage(".rayd/head");
  const alone = kept.startHead();
  assertEquals((await alone.ended()).code, 1);
  assertStringIncludes(alone.stderr, "no others have, or could go on with, what it had. Put a copy of");
});

Deno.test("nothing that the store has acknowledged is lost or read too late, though nodes that keep it are killed", async () => {
  const { kills, wrong } = await killReplicas({
    kills: 3,
    clients: 3,
    random: random(Date.now() % 1_000_000),
  });
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
