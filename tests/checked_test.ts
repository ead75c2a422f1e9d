/**
 * Byte streams between machines: whatever is garbled on the way, what is read is what was written up to there, and then
 * an error.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../core/errors.ts";
import type { ByteStream } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";

/** A stream that keeps what is written to it, and gives bytes to be read in pieces. */
class Wire implements ByteStream {
  readonly written: number[] = [];
  #at = 0;

  constructor(readonly bytes: Uint8Array = new Uint8Array(), readonly piece: () => number = () => 100_000) {}

  read(into: Uint8Array): Promise<number | null> {
    if (this.#at === this.bytes.length) return Promise.resolve(null);
    const part = this.bytes.subarray(this.#at, this.#at + Math.min(into.length, this.piece()));
    into.set(part);
    this.#at += part.length;
    return Promise.resolve(part.length);
  }

  write(bytes: Uint8Array): Promise<number> {
    const part = bytes.subarray(0, this.piece());
    this.written.push(...part);
    return Promise.resolve(part.length);
  }

  close(): void {}
}

/** How some messages travel. @param piece How many bytes are taken at once. */
async function sent(messages: readonly Uint8Array[], piece: () => number): Promise<Uint8Array> {
  const wire = new Wire(undefined, piece);
  const stream = checked(wire);
  for (const message of messages) {
    for (let at = 0; at < message.length;) at += await stream.write(message.subarray(at));
  }
  return Uint8Array.from(wire.written);
}

/** Reads to the end, or to an error. */
async function read(bytes: Uint8Array, piece: () => number): Promise<{ got: number[]; error: unknown }> {
  const stream = checked(new Wire(bytes, piece));
  const got: number[] = [], into = new Uint8Array(777);
  try {
    for (let count; (count = await stream.read(into)) !== null;) got.push(...into.subarray(0, count));
    return { got, error: undefined };
  } catch (error) {
    return { got, error };
  }
}

const pieces = fc.infiniteStream(fc.integer({ min: 1, max: 3_000 })).map((stream) => () =>
  stream.next().value!
);
const messages = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 20 });

Deno.test("a checked stream gives what was written, in whatever pieces it travels", async () => {
  await fc.assert(
    fc.asyncProperty(messages, pieces, pieces, async (messages, there, back) => {
      const { got, error } = await read(await sent(messages, there), back);
      assertEquals([got, error], [messages.flatMap((message) => [...message]), undefined]);
    }),
    { numRuns: 60 },
  );
  const large = Uint8Array.from({ length: 300_000 }, (_, i) => i * 31);
  const { got } = await read(await sent([large], () => 100_000), () => 50_000);
  assertEquals(Uint8Array.from(got), large);
});

Deno.test("a checked stream gives all that is there at once, of however many blocks it is", async () => {
  const blocks = Array.from({ length: 5 }, (_, i) => new Uint8Array(50_000).fill(i));
  const bytes = await sent(blocks, () => 100_000);
  const stream = checked(new Wire(bytes, () => bytes.length), 300_000);
  const into = new Uint8Array(220_000);
  assertEquals(await stream.read(into), 220_000);
  assertEquals([into[0], into[219_999]], [0, 4]);
  assertEquals([await stream.read(into), await stream.read(into)], [30_000, null]);
});

Deno.test("a bit that turns over anywhere ends a checked stream with an error, and nothing wrong is read", async () => {
  await fc.assert(
    fc.asyncProperty(
      messages,
      pieces,
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      async (messages, piece, where) => {
        const bytes = await sent(messages, () => 100_000);
        const bit = Math.floor(where * bytes.length * 8);
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        const { got, error } = await read(bytes, piece);
        const expected = messages.flatMap((message) => [...message]);
        assertEquals(got, expected.slice(0, got.length));
        // Not only at the end of the stream: until then, it would be waited for.
        const waits = error instanceof ProtocolError &&
          error.message.includes("the stream ended inside of it");
        assert(!waits, `bit ${bit} of ${bytes.length * 8} is only noticed at the end`);
        assert(error instanceof ProtocolError, `bit ${bit} of ${bytes.length * 8}`);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("a checked stream takes no block that is too large, or empty, and none that ends within", async () => {
  const refused = async (bytes: Uint8Array, why: string) => {
    await assertRejects(() => checked(new Wire(bytes)).read(new Uint8Array(9)), ProtocolError, why);
  };
  await refused(
    Uint8Array.of(1, 0, 1, 0, 254, 255, 254, 255, 0, 0, 0, 0),
    "its length is 65537 or 65537, the limit 65536",
  );
  await refused(Uint8Array.of(1, 0, 0, 0, 254, 255, 254, 255, 0, 0, 0, 0), "its length is 1 or 65537");
  await refused(new Uint8Array(12), "its length is 0");
  await refused(
    (await sent([new Uint8Array(50)], () => 100)).subarray(0, 61),
    "the stream ended inside of it",
  );
});
