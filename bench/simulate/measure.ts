/**
 * What the scheduler's machines cost on this machine, in thread time: the real ones, with nothing around them.
 *
 * These are the figures from which a bound follows: one thread that did nothing but decide could decide so many tasks a
 * second. What a node does besides (sockets, outcomes, references) is not in them, and costs more.
 *
 * @module
 */

import { type TaskId, taskIdFromBytes } from "../../core/ids.ts";
import { CPU, RESOURCE_UNIT } from "../../core/options.ts";
import { decodeFromGcs, encodeGcs } from "../../gcs/protocol.ts";
import { readLoad, writeLoad } from "../../node/registration.ts";
import { GlobalScheduler, type NodeLoad } from "../../scheduler/global.ts";
import { LocalScheduler, type SchedulerEffect } from "../../scheduler/local.ts";
import { ResourcePool, Shapes } from "../../scheduler/resources.ts";
import { ByteReader, ByteWriter } from "../../transport/bytes.ts";
import { median } from "../figures.ts";
import { Attempt, TaskSpec } from "./task.ts";

/** What was measured, in microseconds of thread time. */
export interface Measured {
  /** A task's way through a local scheduler: ready, sent, done. */
  readonly localUs: number;
  /** Choosing a node among so many. */
  readonly placeUs: readonly { readonly nodes: number; readonly us: number }[];
  /** Taking in how one node is loaded, from bytes. */
  readonly reportUs: number;
  /** Writing how one node is loaded to one other. */
  readonly relayUs: number;
}

const ROUNDS = 7;
const CPU_1 = { [CPU]: RESOURCE_UNIT };

/** Measures all of it, which takes some seconds. @param now A clock, in milliseconds. */
export function measure(now: () => number): Measured {
  const us = (count: number, run: () => void) => {
    const times = Array.from({ length: ROUNDS }, () => {
      const start = now();
      run();
      return (now() - start) * 1000 / count;
    });
    return median(times);
  };
  const tasks = 50_000;
  const placements = 2_000;
  return {
    localUs: us(tasks, () => runLocally(tasks)),
    placeUs: [10, 100, 1_000, 10_000].map((nodes) => {
      const scheduler = globalOf(nodes);
      let time = 0;
      const request = { demand: CPU_1, expectedMs: 10, betterThanMs: Infinity, missingBytes: () => 0 };
      return {
        nodes,
        us: us(placements, () => {
          for (let i = 0; i < placements; i++) scheduler.place(request, time++);
        }),
      };
    }),
    reportUs: measureReports(us),
    relayUs: measureRelay(us),
  };
}

/** A node of 8 CPUs works through a queue of tasks, in blocks, as messages come in. */
function runLocally(tasks: number): void {
  const scheduler = new LocalScheduler<Attempt>(new ResourcePool({ [CPU]: 8 * RESOURCE_UNIT }), {
    isolatesMax: 8,
  });
  const effects: SchedulerEffect<Attempt>[] = [];
  for (let i = 1; i <= 8; i++) {
    scheduler.spawnStarted();
    scheduler.step({ type: "isolateReady", isolate: i, now: 0 }, effects);
  }
  const shape = new Shapes().of(CPU_1);
  const fn = { meanMs: 0.002 };
  for (let i = 0; i < tasks; i++) {
    const attempt = new Attempt(new TaskSpec(i, { shape, ms: 0 }, 0, 0), idOf(0), fn, undefined);
    scheduler.step({ type: "ready", task: attempt, now: 0 }, effects);
  }
  for (let i = 0; i < effects.length; i++) {
    const effect = effects[i]!;
    if (effect.type !== "send") continue;
    scheduler.step({ type: "done", task: effect.task, retry: false, now: 0 }, effects);
  }
}

function idOf(n: number): TaskId {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, n);
  return taskIdFromBytes(bytes);
}

function globalOf(nodes: number): GlobalScheduler {
  const scheduler = new GlobalScheduler(idOf(0));
  for (let i = 0; i < nodes; i++) {
    scheduler.join({ id: idOf(i), resources: { [CPU]: 8 * RESOURCE_UNIT }, labels: {} });
    scheduler.report(idOf(i), loadOf(i), 0);
  }
  return scheduler;
}

function loadOf(n: number): NodeLoad {
  return { free: { [CPU]: 0, gpu: 0, memory: 1e9 }, queued: 10 + n % 7, meanMs: 9.8 };
}

function measureReports(us: (count: number, run: () => void) => number): number {
  const nodes = 1_000;
  const scheduler = globalOf(nodes);
  const frame = new ByteWriter(1 << 16);
  encodeGcs(frame, { type: "loads", loads: loads(nodes) });
  const bytes = frame.bytes().slice(4); // without its length
  return us(nodes, () => {
    const reader = new ByteReader();
    reader.block(bytes);
    reader.window(0, bytes.length);
    const message = decodeFromGcs(reader);
    if (message.type !== "loads") throw new Error("Read something else than was written");
    for (const { node, load } of message.loads) scheduler.report(node, readLoad(load), 0);
  });
}

function measureRelay(us: (count: number, run: () => void) => number): number {
  const nodes = 1_000;
  const entries = loads(nodes);
  const frame = new ByteWriter(1 << 16);
  return us(nodes, () => {
    frame.length = 0;
    encodeGcs(frame, { type: "loads", loads: entries });
  });
}

function loads(nodes: number): { readonly node: TaskId; readonly load: Uint8Array }[] {
  return Array.from({ length: nodes }, (_, i) => ({ node: idOf(i), load: writeLoad(loadOf(i), i) }));
}
