/**
 * The file beside the shards that keeps the last configuration: when it is written.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { ChainConfig } from "../gcs/chain_config.ts";
import { KnownConfigFile, readKnownConfig } from "../gcs/known_config.ts";
import { Timers } from "./timers.ts";

/** A configuration of three, or of those that are left of them. */
function configuration(epoch: number, chain: readonly string[], acceptors = chain): ChainConfig {
  return { epoch, chain, joining: undefined, acceptors, replicas: 3 };
}

const ALL = ["a", "b", "c"];

async function withFile(
  body: (file: KnownConfigFile, clock: Timers, epoch: () => number | undefined) => Promise<void>,
) {
  const directory = Deno.makeTempDirSync();
  const clock = new Timers();
  const failures: string[] = [];
  const failed = ({ message }: Error) => void failures.push(message);
  try {
    await body(
      new KnownConfigFile({ directory, member: "a", clock, failed }),
      clock,
      () => readKnownConfig(directory)?.epoch,
    );
    assertEquals(failures, []);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("a configuration in which others have all is written in a while, and only the last of several", () =>
  withFile(async (file, clock, epoch) => {
    file.write(configuration(1, ALL));
    clock.pass(99);
    file.write(configuration(2, ["a", "b"], ALL));
    assertEquals([epoch(), clock.waiting()], [undefined, 1]);
    clock.pass(1);
    await file.flush();
    assertEquals([epoch(), clock.waiting()], [2, 0]);
    file.write(configuration(3, ALL));
    assertEquals(clock.waiting(), 1);
    clock.pass(100);
    await file.flush();
    assertEquals(epoch(), 3);
  }));

Deno.test("a configuration in which the member is needed is written at once, and what was put off with it", () =>
  withFile(async (file, clock, epoch) => {
    file.write(configuration(1, ALL));
    file.write(configuration(2, ["a"]));
    assertEquals(clock.waiting(), 0);
    await file.flush();
    assertEquals(epoch(), 2);
  }));

Deno.test("a member that ends does not put off what it knows", () =>
  withFile(async (file, clock, epoch) => {
    await file.flush();
    file.write(configuration(1, ALL));
    await file.flush();
    assertEquals([epoch(), clock.waiting()], [1, 0]);
  }));
