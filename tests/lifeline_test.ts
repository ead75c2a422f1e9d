/**
 * The port that ends with a process: with a real one, which is killed.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { systemClock } from "../core/clock.ts";
import { StoreError } from "../core/errors.ts";
import { raystoreLibrary } from "../store/library.ts";
import { openLifeline } from "../store/lifeline.ts";

/** A process with a lifeline, a port that it has closed again, and much memory to be taken away. */
const PROGRAM = `
import { openLifeline } from "${new URL("../store/lifeline.ts", import.meta.url)}";
const closed = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const open = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const lifeline = openLifeline("${raystoreLibrary()}", "127.0.0.1");
closed.close();
const memory = new Uint8Array(200e6).fill(1);
console.log(JSON.stringify({ lifeline, closed: closed.addr.port, open: open.addr.port, bytes: memory.length }));
for await (const conn of open) conn.read(memory).catch(() => {});
`;

const connect = (port: number) => Deno.connect({ hostname: "127.0.0.1", port });
const end = (conn: Deno.Conn) => conn.read(new Uint8Array(1)).then((read) => read, () => null);

/** How many files a thread of a process has open. */
function filesOf(pid: number, name: string): number | undefined {
  for (const { name: task } of Deno.readDirSync(`/proc/${pid}/task`)) {
    const directory = `/proc/${pid}/task/${task}`;
    if (Deno.readTextFileSync(`${directory}/comm`).trim() === name) {
      return [...Deno.readDirSync(`${directory}/fd`)].length;
    }
  }
}

Deno.test("a lifeline has files of its own, stands until its process is killed, and then ends", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(PROGRAM));
  await input.close();
  const output = child.stdout.getReader();
  const { value } = await output.read();
  const ports = JSON.parse(new TextDecoder().decode(value)) as Record<"lifeline" | "closed" | "open", number>;
  const [held, other] = [await connect(ports.lifeline), await connect(ports.open)];
  // It keeps nothing open that the process had open when it began.
  await assertRejects(() => connect(ports.closed), Deno.errors.ConnectionRefused);
  // Whoever comes and goes, or says something, disturbs nobody.
  for (let i = 0; i < 100; i++) (await connect(ports.lifeline)).close();
  const loud = await connect(ports.lifeline);
  await loud.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  assertEquals(await end(loud), null);
  loud.close();
  // Nothing of the process's own is in its table of files, and so nothing of it is in that of the process.
  const deadline = performance.now() + 60_000;
  while (filesOf(child.pid, "raystore-life") !== 2) {
    assert(performance.now() < deadline, "it has a listener and a connection, and nothing else");
    await systemClock.turn();
  }
  child.kill("SIGKILL");
  assertEquals(await end(held), null);
  await assertRejects(() => connect(ports.lifeline), Deno.errors.ConnectionRefused);
  assertEquals(await end(other), null);
  for (const conn of [held, other]) conn.close();
  await output.cancel();
  assert(!(await child.status).success);
});

Deno.test("a lifeline at an address that is no machine's is refused", () => {
  // EADDRNOTAVAIL
  assertThrows(() => openLifeline(raystoreLibrary(), "192.0.2.1"), StoreError, "errno 99");
});
