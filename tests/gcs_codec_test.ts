/**
 * The bytes of the control store's messages: each comes back as it was, and hostile ones are refused with a
 * ProtocolError, whatever they are.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { decodeFromGcs, decodeToGcs, encodeGcs, type FromGcs, type ToGcs } from "../gcs/protocol.ts";
import type { GcsOp, GcsResult } from "../gcs/shard.ts";
import { ByteReader, ByteWriter } from "../transport/bytes.ts";

/** How many broken frames are tried: `RAYD_FUZZ_FRAMES`. */
const FRAMES = Number(Deno.env.get("RAYD_FUZZ_FRAMES") ?? 100_000);

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const number = fc.maxSafeNat();
const text = fc.string({ unit: "binary", maxLength: 40 });
const bytes = fc.uint8Array({ maxLength: 100 });
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(taskIdFromBytes);
const expect = fc.oneof(fc.constant(-1), number);
const constant = <T extends string>(value: T) => fc.constant(value);

const operation: fc.Arbitrary<GcsOp> = fc.oneof(
  fc.record({ kind: constant("get"), key: text }),
  fc.record({ kind: constant("list"), prefix: text, after: text, limit: u32 }),
  fc.record({ kind: constant("put"), key: text, value: bytes, expect, lease: fc.boolean() }),
  fc.record({ kind: constant("delete"), key: text, expect }),
  fc.record({ kind: constant("check"), key: text, expect }),
);
const result: fc.Arbitrary<GcsResult> = fc.oneof(
  fc.record({ kind: constant("entry"), value: bytes, revision: number }),
  fc.record({ kind: constant("absent") }),
  fc.record({
    kind: constant("entries"),
    entries: fc.array(fc.record({ key: text, value: bytes, revision: number }), { maxLength: 4 }),
    more: fc.boolean(),
  }),
  fc.record({ kind: constant("done"), revision: number }),
  fc.record({ kind: constant("conflict"), revision: number }),
  fc.record({ kind: constant("skipped") }),
);
const toGcs: fc.Arbitrary<ToGcs> = fc.oneof(
  fc.record({ type: constant("hello"), protocol: u32, version: text, token: text, client: id }),
  fc.record({
    type: constant("request"),
    request: u32,
    shard: u16,
    sequence: number,
    acknowledged: number,
    operations: fc.array(operation, { maxLength: 5 }),
  }),
  fc.record({ type: constant("watch"), watch: u32, shard: u16, prefix: text, after: number }),
  fc.record({ type: constant("unwatch"), watch: u32 }),
  fc.record({ type: constant("load"), load: bytes }),
  fc.record({ type: constant("follow") }),
  fc.record({ type: constant("goodbye") }),
);
const fromGcs: fc.Arbitrary<FromGcs> = fc.oneof(
  fc.record({
    type: constant("map"),
    cluster: id,
    shards: u16,
    self: text,
    map: fc.record({
      epoch: number,
      head: text,
      tail: text,
      members: fc.array(text, { maxLength: 3 }),
      deciders: fc.array(text, { maxLength: 3 }),
      chain: fc.array(text, { maxLength: 3 }),
      parts: fc.array(text, { maxLength: 3 }),
      replicas: u16,
    }),
  }),
  fc.record({ type: constant("welcome"), known: fc.boolean() }),
  fc.record({ type: constant("again"), request: u32 }),
  fc.record({ type: constant("refused"), reason: text }),
  fc.record({ type: constant("response"), request: u32, results: fc.array(result, { maxLength: 5 }) }),
  fc.record({
    type: constant("changes"),
    watch: u32,
    shard: u16,
    whole: fc.boolean(),
    revision: number,
    changes: fc.array(
      fc.record({ key: text, value: fc.option(bytes, { nil: undefined }), revision: number }),
      { maxLength: 5 },
    ),
  }),
  fc.record({
    type: constant("loads"),
    loads: fc.array(fc.record({ node: id, load: bytes }), { maxLength: 5 }),
  }),
);

function encoded(message: ToGcs | FromGcs): Uint8Array {
  const writer = new ByteWriter(16);
  encodeGcs(writer, message);
  return writer.bytes().slice(4);
}

function read<T>(bytes: Uint8Array, decode: (from: ByteReader) => T): T {
  const reader = new ByteReader();
  reader.block(bytes);
  reader.window(0, bytes.length);
  return decode(reader);
}

Deno.test("every message of the control store comes back as it was", () => {
  fc.assert(fc.property(toGcs, (message) => assertEquals(read(encoded(message), decodeToGcs), message)));
  fc.assert(fc.property(fromGcs, (message) => assertEquals(read(encoded(message), decodeFromGcs), message)));
});

Deno.test("broken frames of the control store are refused with a ProtocolError, or are other messages", () => {
  const seed = Number(Deno.env.get("CODEC_SEED") ?? 1);
  const corpus = [
    ...fc.sample(toGcs, { numRuns: 300, seed }),
    ...fc.sample(fromGcs, { numRuns: 300, seed }),
  ].map(encoded);
  let state = seed;
  const below = (count: number) => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return (state >>> 8) % count;
  };
  for (let run = 0; run < FRAMES; run++) {
    let frame = corpus[below(corpus.length)]!.slice();
    const how = below(5);
    if (how === 0) frame = frame.map(() => below(256));
    else if (how === 1) frame = frame.subarray(0, below(frame.length + 1));
    else {for (let flips = below(6); flips >= 0 && frame.length > 0; flips--) {
        frame[below(frame.length)] = below(256);
      }}
    for (const decode of [decodeToGcs, decodeFromGcs] as const) {
      try {
        read<unknown>(frame, decode);
      } catch (error) {
        if (!(error instanceof ProtocolError)) {
          throw new Error(`CODEC_SEED=${seed}, run ${run}`, { cause: error });
        }
      }
    }
  }
});
