/**
 * Measures the control store of a running head, through its own client over TCP: batched writes and reads of 200-byte
 * entries, single writes of many clients' worth at once, and one durable write at a time.
 *
 *     bin/build && deno run -A bench/gcs.ts [--rounds 5] [--operations 100000]
 *
 * Every write that is counted was acknowledged, and so is on disk. What the disk itself takes for a sync is printed as
 * well: no write at a time can be faster.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { systemClock } from "../core/clock.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { ANY, GcsClient } from "../gcs/client.ts";
import { median, show } from "./figures.ts";

const RAYD = new URL("../dist/rayd", import.meta.url).pathname;
const BATCH = 100, LANES = 20, SINGLES = 500;

const args = parseArgs(Deno.args, {
  string: ["rounds", "operations"],
  default: { rounds: "5", operations: "100000" },
});
const operations = Number(args.operations);
const home = Deno.makeTempDirSync({ prefix: "rayd-bench-" });
const head = new Deno.Command(RAYD, {
  args: ["head", "--port", "0", "--cpus", "0", "--store-memory", "16MB"],
  env: { HOME: home, RAYD_CACHE: `${home}/cache` },
  stdin: "null",
  stdout: "piped",
}).spawn();
try {
  let said = "";
  for await (const part of head.stdout.pipeThrough(new TextDecoderStream())) {
    said += part;
    if (said.includes("The token is in")) break;
  }
  const port = Number(/is up at \S+:(\d+)/.exec(said)![1]);
  const client = new GcsClient({
    id: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
    token: Deno.readTextFileSync(`${home}/.rayd/token`).trim(),
    clock: systemClock,
    connect: async () => {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      conn.setNoDelay(true);
      return conn;
    },
  });
  await client.start();
  const value = new Uint8Array(200).fill(7);
  const keyOf = (i: number) => `bench/${i.toString(36)}`;
  const batches = async (operation: (i: number) => Parameters<GcsClient["many"]>[0][number]) => {
    let next = 0;
    const started = performance.now();
    const lane = async () => {
      while (next < operations) {
        const at = next;
        next += BATCH;
        await client.many(Array.from({ length: BATCH }, (_, i) => operation(at + i)));
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return operations / (performance.now() - started) * 1000;
  };
  const figures: Record<string, number[]> = { writes: [], reads: [], singles: [], oneMs: [], syncMs: [] };
  for (let round = 0; round < Number(args.rounds); round++) {
    figures.writes!.push(
      await batches((i) => ({ kind: "put", key: keyOf(i), value, expect: ANY, lease: false })),
    );
    figures.reads!.push(await batches((i) => ({ kind: "get", key: keyOf(i) })));
    let started = performance.now(), next = 0;
    const single = async () => {
      while (next < operations / 5) await client.put(`single/${next++}`, value);
    };
    await Promise.all(Array.from({ length: SINGLES }, single));
    figures.singles!.push(operations / 5 / (performance.now() - started) * 1000);
    started = performance.now();
    for (let i = 0; i < 200; i++) await client.put(`one/${i}`, value);
    figures.oneMs!.push((performance.now() - started) / 200);
    figures.syncMs!.push(diskSync());
  }
  client.close();
  const of = (name: string) => show(median(figures[name]!));
  console.log(`writes, ${BATCH} a request: ${of("writes")}/s`);
  console.log(`reads, ${BATCH} a request: ${of("reads")}/s`);
  console.log(`writes, one a request, ${SINGLES} at once: ${of("singles")}/s`);
  console.log(`writes, one at a time: ${of("oneMs")} ms each; a sync of 4 KB by itself: ${of("syncMs")} ms`);
} finally {
  head.kill("SIGKILL");
  await head.status;
  Deno.removeSync(home, { recursive: true });
}

/** Milliseconds of a write of 4 KB with a sync, the median of 50. */
function diskSync(): number {
  const path = `${home}/sync`;
  using file = Deno.openSync(path, { create: true, write: true });
  const times: number[] = [];
  for (let i = 0; i < 50; i++) {
    const started = performance.now();
    file.writeSync(new Uint8Array(4096).fill(i));
    file.syncDataSync();
    times.push(performance.now() - started);
  }
  return median(times);
}
