/**
 * The bytes of each message of `core/messages.ts`. Written by hand, field by field: these run several times a task.
 * Whatever is rare and has many fields travels as msgpack.
 *
 * A message on the wire is a 4-byte little-endian length of what follows, a kind byte, and the fields. `decode`
 * trusts nothing: each field is checked as it is read, and left-over bytes are an error.
 *
 * @module
 */

// @ts-types="../core/std_msgpack.d.ts"
import { decode as msgpackDecode, encode as msgpackEncode } from "@std/msgpack";
import { type ActorSettings, isActorSettings } from "../core/actor_options.ts";
import { unreachable } from "../core/unreachable.ts";
import { ProtocolError } from "../core/errors.ts";
import {
  type Dependency,
  type FromNode,
  type FromPeer,
  type FunctionAddress,
  type Message,
  type Outcome,
  OUTPUT_LEVELS,
  type Prospect,
  type ToNode,
  type Topic,
} from "../core/messages.ts";
import { areDemands, type TaskSettings } from "../core/options.ts";
import { isPlacement } from "../core/placement.ts";
import type { ByteReader, ByteWriter } from "./bytes.ts";

const KIND = {
  hello: 1,
  defineFunction: 2,
  defineSettings: 3,
  submit: 4,
  put: 5,
  retain: 6,
  release: 7,
  subscribe: 8,
  consumed: 9,
  cancel: 10,
  makeRoom: 11,
  ask: 12,
  done: 13,
  yielded: 14,
  blocked: 15,
  unblocked: 16,
  log: 17,
  expect: 18,
  createActor: 19,
  call: 20,
  killActor: 21,
  findActor: 22,
  awaitDeath: 23,
  waiting: 24,
  defineActor: 25,
  behalf: 26,
  delegate: 27,
  publish: 28,
  jobEnded: 29,
  group: 30,
  bundles: 31,
  welcome: 32,
  refused: 33,
  result: 34,
  object: 35,
  room: 36,
  answer: 37,
  output: 38,
  execute: 39,
  abort: 40,
  collect: 41,
  constructActor: 42,
  executeCall: 43,
  checkpointActor: 44,
  stopActor: 45,
  forget: 46,
  bequeath: 47,
  turnedAway: 48,
  keyValue: 49,
  orphan: 50,
  seek: 51,
  copy: 52,
  keep: 53,
} as const satisfies Record<Message["type"], number>;

const TOPICS = [
  "nodes",
  "cluster",
  "available",
  "stats",
  "tasks",
  "actors",
  "objects",
  "workers",
  "jobs",
  "groups",
  "unmet",
] as const satisfies readonly Topic[];
const ROLES = ["driver", "isolate", "peer", "observer"] as const;
const PROSPECTS = ["none", "soon", "again"] as const satisfies readonly Prospect[];

/**
 * Appends a message, length and kind included; all of it or, if a field cannot be written, nothing.
 *
 * @param to Where to.
 * @param message What.
 */
export function encode(to: ByteWriter, message: Message): void {
  const start = to.length;
  try {
    to.u32(0);
    to.u8(KIND[message.type]);
    fields(to, message);
  } catch (error) {
    to.length = start;
    throw error;
  }
  to.patchU32(start, to.length - start - 4);
}

function fields(to: ByteWriter, m: Message): void {
  switch (m.type) {
    case "submit":
      to.u32(m.handle);
      to.taskId(m.task);
      to.taskId(m.parent);
      to.u32(m.fn);
      to.u32(m.settings);
      to.objectIds(m.dependencies);
      return outcome(to, m.args);
    case "call":
      to.u32(m.handle);
      to.taskId(m.task);
      to.taskId(m.parent);
      to.taskId(m.actor);
      to.u32(m.fn);
      to.u32(m.settings);
      to.objectIds(m.dependencies);
      return outcome(to, m.args);
    case "executeCall":
      to.u32(m.handle);
      to.u32(m.instance);
      to.u32(m.attempt);
      to.u8((m.replaying ? 1 : 0) | (m.silent ? 2 : 0));
      to.taskId(m.task);
      to.taskId(m.job);
      to.u32(m.fn);
      to.u32(m.settings);
      dependencies(to, m.dependencies);
      return outcome(to, m.args);
    case "execute":
      to.u32(m.handle);
      to.u16(m.slot);
      to.u32(m.attempt);
      to.u16(m.concurrency);
      to.taskId(m.task);
      to.taskId(m.job);
      to.u32(m.fn);
      to.u32(m.settings);
      to.u32(m.gpus.length);
      for (const gpu of m.gpus) to.u16(gpu);
      dependencies(to, m.dependencies);
      return outcome(to, m.args);
    case "done":
      to.u32(m.handle);
      to.f64(m.durationUs);
      to.u8(m.retry ? 1 : 0);
      to.u32(m.outcomes.length);
      for (let i = 0; i < m.outcomes.length; i++) outcome(to, m.outcomes[i]!);
      return;
    case "result":
      to.u32(m.handle);
      to.u32(m.index);
      to.u8(m.kept ? 1 : 0);
      return outcome(to, m.outcome);
    case "object":
    case "put":
      to.objectId(m.object);
      return outcome(to, m.outcome);
    case "yielded":
      to.u32(m.handle);
      to.u32(m.index);
      return outcome(to, m.outcome);
    case "expect":
    case "retain":
    case "release":
    case "subscribe":
      return to.objectIds(m.objects);
    case "seek":
      to.u32(m.request);
      to.u8(m.make ? 1 : 0);
      return to.objectId(m.object);
    case "copy":
      to.u32(m.request);
      to.u8(PROSPECTS.indexOf(m.prospect));
      return optionalOutcome(to, m.outcome);
    case "blocked":
    case "unblocked":
      return to.u32(m.handle);
    case "waiting":
      to.u32(m.handle);
      return to.objectIds(m.objects);
    case "behalf":
      to.taskId(m.job);
      return to.u8(m.driver ? 1 : 0);
    case "delegate":
      to.u32(m.handle);
      to.taskId(m.task);
      to.taskId(m.parent);
      to.u32(m.fn);
      to.u32(m.settings);
      dependencies(to, m.dependencies);
      return outcome(to, m.args);
    case "publish":
      to.text(m.hash);
      return to.blob(m.code);
    case "jobEnded":
      return to.taskId(m.job);
    case "createActor":
      to.u32(m.handle);
      to.taskId(m.task);
      to.taskId(m.parent);
      to.u32(m.fn);
      to.u32(m.settings);
      to.u32(m.actor);
      to.objectIds(m.dependencies);
      return outcome(to, m.args);
    case "constructActor":
      to.u32(m.handle);
      to.u32(m.instance);
      to.u32(m.attempt);
      to.taskId(m.task);
      to.taskId(m.job);
      to.u32(m.fn);
      to.u32(m.settings);
      to.u32(m.actor);
      to.u8(m.restore ? 1 : 0);
      to.u32(m.gpus.length);
      for (const gpu of m.gpus) to.u16(gpu);
      dependencies(to, m.dependencies);
      return outcome(to, m.args);
    case "checkpointActor":
      to.u32(m.handle);
      to.u32(m.instance);
      return to.objectId(m.object);
    case "stopActor":
      to.u32(m.handle);
      to.u32(m.instance);
      return to.u8(m.hook ? 1 : 0);
    case "killActor":
      to.taskId(m.actor);
      return to.u8(m.restart ? 1 : 0);
    case "keep":
    case "forget":
      to.taskId(m.actor);
      to.u32(m.calls.length);
      for (const call of m.calls) to.taskId(call);
      return;
    case "bequeath":
      to.u32(m.handle);
      to.u32(m.calls.length);
      for (const { actor, call } of m.calls) {
        to.taskId(actor);
        to.taskId(call);
      }
      return;
    case "findActor":
      to.u32(m.request);
      to.text(m.namespace);
      return to.text(m.name);
    case "awaitDeath":
      to.u32(m.request);
      return to.taskId(m.actor);
    case "consumed":
      to.taskId(m.task);
      return to.u32(m.count);
    case "cancel":
      to.taskId(m.task);
      return to.u8((m.force ? 1 : 0) | (m.recursive ? 2 : 0));
    case "orphan":
      return to.taskId(m.task);
    case "makeRoom":
      to.u32(m.request);
      return to.f64(m.bytes);
    case "ask":
      to.u32(m.request);
      return to.u8(TOPICS.indexOf(m.topic));
    case "group":
    case "keyValue":
      to.u32(m.request);
      return to.blob(m.body);
    case "bundles":
      return to.blob(m.body);
    case "log":
      to.u32(m.handle);
      to.u8(m.level);
      to.u32(m.dropped);
      return to.text(m.text);
    case "defineFunction":
      to.u32(m.index);
      to.text(m.address.load);
      to.text(m.address.module);
      return to.text(m.address.name);
    case "defineSettings":
    case "defineActor":
      to.u32(m.index);
      return to.blob(msgpackEncode(m.settings));
    case "hello":
      to.u8(ROLES.indexOf(m.role));
      to.u32(m.protocol);
      to.text(m.version);
      to.text(m.token);
      to.u32(m.isolate);
      to.taskId(m.job);
      to.u32(m.storeClient);
      return to.u32(m.pid);
    case "welcome":
      return to.taskId(m.node);
    case "refused":
      return to.text(m.reason);
    case "turnedAway":
      return to.u32(m.handle);
    case "room":
      to.u32(m.request);
      return to.blob(m.error);
    case "answer":
      to.u32(m.request);
      return to.blob(m.body);
    case "output":
      to.taskId(m.job);
      to.u32(m.worker);
      to.text(m.task);
      to.u8(m.level);
      to.u32(m.dropped);
      return to.text(m.text);
    case "collect":
      return;
    case "abort":
      to.u32(m.handle);
      return to.text(m.reason);
    default:
      unreachable(m);
  }
}

function dependencies(to: ByteWriter, list: readonly Dependency[]): void {
  to.u32(list.length);
  for (let i = 0; i < list.length; i++) {
    const dependency = list[i]!;
    to.objectId(dependency.object);
    optionalOutcome(to, dependency.outcome);
  }
}

function optionalOutcome(to: ByteWriter, value: Outcome | undefined): void {
  if (value === undefined) to.u8(NO_OUTCOME);
  else outcome(to, value);
}

function outcome(to: ByteWriter, value: Outcome): void {
  switch (value.kind) {
    case "inline":
      to.u8(value.contains.length === 0 ? 0 : 1);
      if (value.contains.length > 0) to.objectIds(value.contains);
      return to.blob(value.bytes);
    case "stored":
      to.u8(2);
      to.f64(value.size);
      return to.objectIds(value.contains);
    case "error":
      to.u8(3);
      return to.blob(value.bytes);
    default:
      unreachable(value);
  }
}

/** Reads what a node receives. @param from A reader whose window is one message, kind first. */
export function decodeToNode(from: ByteReader): ToNode {
  const message = toNode(from, from.u8());
  finished(from, message);
  return message;
}

/** Reads what a client receives. @param from A reader whose window is one message, kind first. */
export function decodeFromNode(from: ByteReader): FromNode {
  const message = fromNode(from, from.u8());
  finished(from, message);
  return message;
}

/** Reads what a node receives from a peer. @param from A reader whose window is one message, kind first. */
export function decodeFromPeer(from: ByteReader): FromPeer {
  const kind = from.u8();
  const message = PEER_ANSWERS.has(kind) ? fromNode(from, kind) as FromPeer : toNode(from, kind);
  finished(from, message);
  return message;
}

/** The answers of a node that a peer may give. */
const PEER_ANSWERS: ReadonlySet<number> = new Set([
  KIND.welcome,
  KIND.refused,
  KIND.result,
  KIND.turnedAway,
  KIND.object,
  KIND.copy,
  KIND.answer,
  KIND.output,
]);

function toNode(from: ByteReader, kind: number): ToNode {
  switch (kind) {
    case KIND.submit:
      return {
        type: "submit",
        handle: from.u32(),
        task: from.taskId(),
        parent: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        dependencies: from.objectIds(),
        args: readOutcome(from),
      };
    case KIND.call:
      return {
        type: "call",
        handle: from.u32(),
        task: from.taskId(),
        parent: from.taskId(),
        actor: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        dependencies: from.objectIds(),
        args: readOutcome(from),
      };
    case KIND.done: {
      const handle = from.u32();
      const durationUs = from.f64();
      const retry = from.u8() !== 0;
      return { type: "done", handle, durationUs, retry, outcomes: from.list(() => readOutcome(from)) };
    }
    case KIND.behalf:
      return { type: "behalf", job: from.taskId(), driver: from.u8() !== 0 };
    case KIND.delegate:
      return {
        type: "delegate",
        handle: from.u32(),
        task: from.taskId(),
        parent: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        dependencies: from.list(() => readDependency(from)),
        args: readOutcome(from),
      };
    case KIND.publish:
      return { type: "publish", hash: from.text(), code: from.blob() };
    case KIND.jobEnded:
      return { type: "jobEnded", job: from.taskId() };
    case KIND.yielded:
      return { type: "yielded", handle: from.u32(), index: from.u32(), outcome: readOutcome(from) };
    case KIND.put:
      return { type: "put", object: from.objectId(), outcome: readOutcome(from) };
    case KIND.expect:
      return { type: "expect", objects: from.objectIds() };
    case KIND.retain:
      return { type: "retain", objects: from.objectIds() };
    case KIND.release:
      return { type: "release", objects: from.objectIds() };
    case KIND.subscribe:
      return { type: "subscribe", objects: from.objectIds() };
    case KIND.seek:
      return { type: "seek", request: from.u32(), make: from.u8() !== 0, object: from.objectId() };
    case KIND.blocked:
      return { type: "blocked", handle: from.u32() };
    case KIND.unblocked:
      return { type: "unblocked", handle: from.u32() };
    case KIND.waiting:
      return { type: "waiting", handle: from.u32(), objects: from.objectIds() };
    case KIND.createActor:
      return {
        type: "createActor",
        handle: from.u32(),
        task: from.taskId(),
        parent: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        actor: from.u32(),
        dependencies: from.objectIds(),
        args: readOutcome(from),
      };
    case KIND.killActor:
      return { type: "killActor", actor: from.taskId(), restart: from.u8() !== 0 };
    case KIND.keep:
      return { type: "keep", actor: from.taskId(), calls: from.list(() => from.taskId()) };
    case KIND.forget:
      return { type: "forget", actor: from.taskId(), calls: from.list(() => from.taskId()) };
    case KIND.bequeath:
      return {
        type: "bequeath",
        handle: from.u32(),
        calls: from.list(() => ({ actor: from.taskId(), call: from.taskId() })),
      };
    case KIND.findActor:
      return { type: "findActor", request: from.u32(), namespace: from.text(), name: from.text() };
    case KIND.awaitDeath:
      return { type: "awaitDeath", request: from.u32(), actor: from.taskId() };
    case KIND.defineActor:
      return { type: "defineActor", index: from.u32(), settings: readActorSettings(from.blob()) };
    case KIND.consumed:
      return { type: "consumed", task: from.taskId(), count: from.u32() };
    case KIND.cancel: {
      const task = from.taskId();
      const flags = from.u8();
      return { type: "cancel", task, force: (flags & 1) !== 0, recursive: (flags & 2) !== 0 };
    }
    case KIND.orphan:
      return { type: "orphan", task: from.taskId() };
    case KIND.makeRoom:
      return { type: "makeRoom", request: from.u32(), bytes: from.size() };
    case KIND.ask:
      return { type: "ask", request: from.u32(), topic: choice(TOPICS, from.u8(), "topic") };
    case KIND.group:
      return { type: "group", request: from.u32(), body: from.blob() };
    case KIND.keyValue:
      return { type: "keyValue", request: from.u32(), body: from.blob() };
    case KIND.bundles:
      return { type: "bundles", body: from.blob() };
    case KIND.log:
      return {
        type: "log",
        handle: from.u32(),
        level: readLevel(from),
        dropped: from.u32(),
        text: from.text(),
      };
    case KIND.defineFunction:
      return { type: "defineFunction", index: from.u32(), address: readAddress(from) };
    case KIND.defineSettings:
      return { type: "defineSettings", index: from.u32(), settings: readSettings(from.blob()) };
    case KIND.hello:
      return {
        type: "hello",
        role: choice(ROLES, from.u8(), "role"),
        protocol: from.u32(),
        version: from.text(),
        token: from.text(),
        isolate: from.u32(),
        job: from.taskId(),
        storeClient: from.u32(),
        pid: from.u32(),
      };
    default:
      throw new ProtocolError(`Cannot read a message: a node takes no message of kind ${kind}`);
  }
}

function fromNode(from: ByteReader, kind: number): FromNode {
  switch (kind) {
    case KIND.result:
      return {
        type: "result",
        handle: from.u32(),
        index: from.u32(),
        kept: from.u8() !== 0,
        outcome: readOutcome(from),
      };
    case KIND.execute:
      return {
        type: "execute",
        handle: from.u32(),
        slot: from.u16(),
        attempt: from.u32(),
        concurrency: from.u16(),
        task: from.taskId(),
        job: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        gpus: from.list(() => from.u16()),
        dependencies: from.list(() => readDependency(from)),
        args: readOutcome(from),
      };
    case KIND.executeCall: {
      const [handle, instance, attempt, flags] = [from.u32(), from.u32(), from.u32(), from.u8()];
      return {
        type: "executeCall",
        handle,
        instance,
        attempt,
        replaying: (flags & 1) !== 0,
        silent: (flags & 2) !== 0,
        task: from.taskId(),
        job: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        dependencies: from.list(() => readDependency(from)),
        args: readOutcome(from),
      };
    }
    case KIND.constructActor:
      return {
        type: "constructActor",
        handle: from.u32(),
        instance: from.u32(),
        attempt: from.u32(),
        task: from.taskId(),
        job: from.taskId(),
        fn: from.u32(),
        settings: from.u32(),
        actor: from.u32(),
        restore: from.u8() !== 0,
        gpus: from.list(() => from.u16()),
        dependencies: from.list(() => readDependency(from)),
        args: readOutcome(from),
      };
    case KIND.checkpointActor:
      return {
        type: "checkpointActor",
        handle: from.u32(),
        instance: from.u32(),
        object: from.objectId(),
      };
    case KIND.stopActor:
      return { type: "stopActor", handle: from.u32(), instance: from.u32(), hook: from.u8() !== 0 };
    case KIND.defineActor:
      return { type: "defineActor", index: from.u32(), settings: readActorSettings(from.blob()) };
    case KIND.object:
      return { type: "object", object: from.objectId(), outcome: readOutcome(from) };
    case KIND.copy:
      return {
        type: "copy",
        request: from.u32(),
        prospect: choice(PROSPECTS, from.u8(), "prospect"),
        outcome: readOptionalOutcome(from),
      };
    case KIND.consumed:
      return { type: "consumed", task: from.taskId(), count: from.u32() };
    case KIND.welcome:
      return { type: "welcome", node: from.taskId() };
    case KIND.refused:
      return { type: "refused", reason: from.text() };
    case KIND.turnedAway:
      return { type: "turnedAway", handle: from.u32() };
    case KIND.room:
      return { type: "room", request: from.u32(), error: from.blob() };
    case KIND.answer:
      return { type: "answer", request: from.u32(), body: from.blob() };
    case KIND.output:
      return {
        type: "output",
        job: from.taskId(),
        worker: from.u32(),
        task: from.text(),
        level: readLevel(from),
        dropped: from.u32(),
        text: from.text(),
      };
    case KIND.defineFunction:
      return { type: "defineFunction", index: from.u32(), address: readAddress(from) };
    case KIND.defineSettings:
      return { type: "defineSettings", index: from.u32(), settings: readSettings(from.blob()) };
    case KIND.collect:
      return { type: "collect" };
    case KIND.abort:
      return { type: "abort", handle: from.u32(), reason: from.text() };
    default:
      throw new ProtocolError(`Cannot read a message: a client takes no message of kind ${kind}`);
  }
}

function readDependency(from: ByteReader): Dependency {
  return { object: from.objectId(), outcome: readOptionalOutcome(from) };
}

function readOptionalOutcome(from: ByteReader): Outcome | undefined {
  const kind = from.u8();
  return kind === NO_OUTCOME ? undefined : readOutcome(from, kind);
}

function readOutcome(from: ByteReader, kind = from.u8()): Outcome {
  switch (kind) {
    case 0:
      return { kind: "inline", contains: NO_OBJECTS, bytes: from.blob() };
    case 1:
      return { kind: "inline", contains: from.objectIds(), bytes: from.blob() };
    case 2:
      return { kind: "stored", size: from.size(), contains: from.objectIds() };
    case 3:
      return { kind: "error", bytes: from.blob() };
    default:
      throw new ProtocolError(`Cannot read an outcome: there is none of kind ${kind}`);
  }
}

function readAddress(from: ByteReader): FunctionAddress {
  return { load: from.text(), module: from.text(), name: from.text() };
}

/** Reads and checks settings, which a peer may have made up. */
function readSettings(bytes: Uint8Array): TaskSettings {
  let value: unknown;
  try {
    value = msgpackDecode(bytes);
  } catch (error) {
    throw new ProtocolError(`Cannot read a task's settings: ${(error as Error).message}`);
  }
  if (!isSettings(value)) {
    throw new ProtocolError("Cannot read a task's settings: a field is missing or wrong");
  }
  return value;
}

/** Reads and checks an actor's settings, which a peer may have made up. */
function readActorSettings(bytes: Uint8Array): ActorSettings {
  let value: unknown;
  try {
    value = msgpackDecode(bytes);
  } catch (error) {
    throw new ProtocolError(`Cannot read an actor's settings: ${(error as Error).message}`);
  }
  if (!isActorSettings(value)) {
    throw new ProtocolError("Cannot read an actor's settings: a field is missing or wrong");
  }
  return value;
}

function isSettings(value: unknown): value is TaskSettings {
  if (typeof value !== "object" || value === null) return false;
  const v = value as Record<string, unknown>;
  const whole = (x: unknown) => typeof x === "number" && Number.isInteger(x);
  return typeof v.name === "string" && whole(v.returns) && whole(v.retries) && whole(v.priority) &&
    typeof v.timeoutMs === "number" && v.timeoutMs >= 0 && typeof v.stream === "boolean" &&
    (v.alternatives === undefined || areDemands(v.alternatives)) &&
    (v.placement === undefined || isPlacement(v.placement)) &&
    (v.group === undefined || typeof v.group === "string") &&
    (typeof v.retryOn === "boolean" ||
      Array.isArray(v.retryOn) && v.retryOn.every((name) => typeof name === "string")) &&
    typeof v.demand === "object" && v.demand !== null && !Array.isArray(v.demand) &&
    Object.values(v.demand).every((units) => whole(units) && (units as number) > 0);
}

function readLevel(from: ByteReader): number {
  const level = from.u8();
  choice(OUTPUT_LEVELS, level, "level");
  return level;
}

function choice<T>(choices: readonly T[], index: number, what: string): T {
  const chosen = choices[index];
  if (chosen === undefined) throw new ProtocolError(`Cannot read a message: there is no ${what} ${index}`);
  return chosen;
}

function finished(from: ByteReader, message: Message): void {
  if (from.remaining !== 0) {
    throw new ProtocolError(`Cannot read "${message.type}": ${from.remaining} bytes are left over`);
  }
}

/** Stands where an outcome would, when there is none yet. */
const NO_OUTCOME = 4;

const NO_OBJECTS = Object.freeze([]);
