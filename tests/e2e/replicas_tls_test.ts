/**
 * A control store on several nodes whose members speak to each other over TLS, as processes of the executable.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { systemClock } from "../../core/clock.ts";
import { taskIdFromBytes } from "../../core/ids.ts";
import { readBook } from "../../gcs/chain_book.ts";
import { GcsClient } from "../../gcs/client.ts";
import { dialTcp, splitAddress } from "../../transport/tcp.ts";
import { makeCertificates } from "./certificates.ts";
import type { Running } from "./rayd.ts";
import { TestCluster } from "./test_cluster.ts";

/** Waits until a node has said something in its log. */
async function logged(node: Running, pattern: RegExp): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!pattern.test(node.stderr)) {
    if (performance.now() > deadline) throw new Error(`${pattern} is not in the log:\n${node.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What a stranger without TLS is answered who says something to a port. */
async function answerTo(port: number, said: string): Promise<string> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const late = setTimeout(() => conn.close(), 20_000);
  let answer = "";
  try {
    await conn.write(new TextEncoder().encode(said));
    const block = new Uint8Array(4096);
    for (let count; (count = await conn.read(block)) !== null;) {
      answer += new TextDecoder().decode(block.subarray(0, count));
    }
    conn.close();
  } catch (error) {
    // To be cut off is as good; but by them.
    if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) {
      throw new Error("it was not closed within 20 s");
    }
    conn.close();
  } finally {
    clearTimeout(late);
  }
  return answer;
}

Deno.test("members of the control store replicate over TLS, one may be killed, and who speaks without it is told nothing", async () => {
  using certificates = await makeCertificates();
  if (certificates === undefined) return;
  const file = (name: string) => `${certificates.path}/${name}`;
  const settings = ["--cpus", "0", "--log-level", "info"];
  const tls = ["--tls-cert", file("node.pem"), "--tls-key", file("node.key"), "--tls-ca", file("ca.pem")];
  const options = [...settings, ...tls];
  await using cluster = await TestCluster.start("", ["--replicas", "3", ...options], options, options);
  const [head, ...workers] = cluster.nodes as [Running, Running, Running];
  for (const node of [head, ...workers]) {
    await logged(node, /Epoch \d+ of the control store: \w+, \w+, \w+$/m);
  }
  const token = Deno.readTextFileSync(`${cluster.directory.path}/.rayd/token`).trim();
  const book = readBook(`${cluster.directory.path}/.rayd/head`);
  assertEquals(Object.keys(book).length, 3);
  const headers =
    `Host: localhost\r\nx-rayd-token: ${token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  for (const { chain } of Object.values(book)) {
    const answer = await answerTo(splitAddress(chain).port, `GET /chain HTTP/1.1\r\n${headers}`);
    assert(!answer.includes("101") && !answer.includes("rayd") && !answer.includes("member"), answer);
  }

  const authority = Deno.readTextFileSync(file("ca.pem"));
  const client = new GcsClient({
    id: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
    token,
    clock: systemClock,
    connect: (member) => {
      const { hostname, port } = splitAddress(member ?? cluster.address);
      return dialTcp(hostname, port, systemClock, { identity: undefined, authority });
    },
  });
  try {
    await client.start();
    await client.put("before", Uint8Array.of(1));
    await head.kill("SIGKILL");
    await client.put("after", Uint8Array.of(2));
    for (const [key, value] of [["before", 1], ["after", 2]] as const) {
      assertEquals((await client.get(key))?.value, Uint8Array.of(value));
    }
  } finally {
    client.close();
  }
  for (const worker of workers) await logged(worker, /Epoch \d+ of the control store: \w+, \w+$/m);
});
