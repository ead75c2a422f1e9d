/**
 * What strangers send to the ports of a cluster: nothing of it is answered, kept, or hurts anybody else.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { assertEquals } from "@std/assert";
import { project, raydOutput, Running } from "./rayd.ts";

const text = (content: string) => new TextEncoder().encode(content);

/** A frame: a length and what follows. */
function frame(...body: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length, true);
  bytes.set(body, 4);
  return bytes;
}

/** Bytes as they travel between machines: a length, the same once more, a checksum, and they. */
function block(bytes: Uint8Array): Uint8Array {
  const block = new Uint8Array(12 + bytes.length);
  const view = new DataView(block.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, ~bytes.length, true);
  view.setUint32(8, crc32(bytes), true);
  block.set(bytes, 12);
  return block;
}

/** Numbers that are the same in each run. */
function* noise(seed: number): Generator<number, never> {
  for (;;) {
    seed = Math.imul(seed ^ seed >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    yield seed >>> 24;
  }
}

function randomBytes(seed: number, length: number): Uint8Array {
  const source = noise(seed);
  return Uint8Array.from({ length }, () => source.next().value);
}

const PROBES: Readonly<Record<string, readonly Uint8Array[]>> = {
  "HTTP": [text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
  "a WebSocket": [
    text(
      "GET /ws HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: Upgrade\r\n" +
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
  ],
  "a block that promises 4 GB": [Uint8Array.of(255, 255, 255, 255), randomBytes(1, 1000)],
  "a frame that promises 4 GB": [block(Uint8Array.of(255, 255, 255, 255)), randomBytes(1, 1000)],
  "a frame that promises 60 MB": [block(Uint8Array.of(0, 0, 0x90, 3, ...randomBytes(2, 1000)))],
  "an empty frame": [block(frame())],
  "every kind of message, without a greeting": Array.from(
    { length: 64 },
    (_, kind) => block(frame(kind, ...randomBytes(kind, 80))),
  ),
  "noise": Array.from({ length: 20 }, (_, i) => randomBytes(i, 4096)),
  "a greeting with a wrong token": [
    block(frame(
      1,
      1,
      0,
      0,
      0,
      5,
      0,
      0,
      0,
      ...text("0.1.0"),
      64,
      0,
      0,
      0,
      ...text("0".repeat(64)),
      ...randomBytes(3, 16),
    )),
  ],
  "a bulk connection with a wrong token": [text(`rayd-bulk-3\n${"0".repeat(64)}`), randomBytes(4, 60)],
};

/** Connects once for each part, sends it, and reads until the other side closes. @returns All that it answered. */
async function probe(port: number, parts: readonly Uint8Array[]): Promise<string> {
  let answer = "";
  for (const part of parts) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    const timer = setTimeout(() => conn.close(), 20_000);
    try {
      await conn.write(part);
      await conn.closeWrite();
      const block = new Uint8Array(4096);
      for (let n; (n = await conn.read(block)) !== null;) {
        answer += new TextDecoder().decode(block.subarray(0, n));
      }
    } catch (error) {
      // Closed while we wrote or read, which is as good; but by them.
      if (error instanceof Deno.errors.BadResource) throw new Error("it was not closed within 20 s");
    } finally {
      clearTimeout(timer);
      try {
        conn.close();
      } catch {
        // Closed already.
      }
    }
  }
  return answer;
}

Deno.test("strangers at every port of a cluster are sent away, and its programs go on", async () => {
  using directory = project({
    "main.ts": `import { get, init, remote } from "rayd";
export const add = remote(function add(a: number, b: number) { return a + b; });
if (import.meta.main) {
  await using _ = await init();
  console.log("up");
  for (let i = 0;; i++) {
    if (await get(add.options(i % 2 ? { gpus: 1 } : {}).remote(i, 1)) !== i + 1) throw new Error("wrong");
    if (i === 200) console.log("going");
  }
}`,
  });
  const env: Record<string, string> = { HOME: directory.path };
  const options = ["--cpus", "1", "--store-memory", "64MB", "--log-level", "off"];
  await using head = new Running(["head", "--port", "0", ...options], { env });
  await head.printed("The token is in");
  env.RAYD_ADDRESS = /is up at (\S+)/.exec(head.stdout)![1]!;
  await using worker = new Running(["worker", "--gpus", "1", ...options], { env });
  await worker.printed("has joined");
  await using program = new Running(["run", "main.ts"], { cwd: directory.path, env });
  await program.printed("up");
  const { nodes } = JSON.parse(await raydOutput(["status", "--json"], { env })) as {
    nodes: { address: string; bulkPort: number }[];
  };
  const ports = [
    Number(env.RAYD_ADDRESS.split(":")[1]),
    ...nodes.flatMap(({ address, bulkPort }) => [Number(address.split(":")[1]), bulkPort]),
  ];
  assertEquals(ports.length, 5);
  for (const port of ports) {
    for (const [name, parts] of Object.entries(PROBES)) {
      const answer = await probe(port, parts);
      // A greeting is told why it is refused, and nothing else is told anything.
      const said = answer.replaceAll(/[^ -~]/g, "");
      assertEquals(
        said === "" || /(token is wrong|is rayd)/.test(said),
        true,
        `port ${port}, ${name}: ${said}`,
      );
    }
  }
  await program.printed("going");
  assertEquals(program.stderr, "");
  const left = JSON.parse(await raydOutput(["status", "--json"], { env })) as { nodes: unknown[] };
  assertEquals(left.nodes.length, 2);
  await program.kill("SIGTERM");
});
