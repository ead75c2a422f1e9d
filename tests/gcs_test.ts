/**
 * The control store: shards held to a model, LMDB held to memory, and clients whose connections break at random.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { assert } from "../core/assert.ts";
import type { Clock } from "../core/clock.ts";
import { systemClock } from "../core/clock.ts";
import { DisconnectedError, UsageError } from "../core/errors.ts";
import { type TaskId, taskIdFromBytes } from "../core/ids.ts";
import { copyOf, writeChunk } from "../gcs/chain_copy.ts";
import { ORIGIN } from "../gcs/chain_log.ts";
import {
  CHANGES_BYTES_MAX,
  CHANGES_DISK_BYTES_MAX,
  CHANGES_KEPT_MAX,
  HISTORY,
} from "../gcs/change_history.ts";
import { ABSENT, ANY, GcsClient } from "../gcs/client.ts";
import { LmdbStorage } from "../gcs/lmdb_storage.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";
import { GcsServer, LEASE_GRACE_MS, type TransactionalStorage } from "../gcs/server.ts";
import { type GcsChange, type GcsCommand, type GcsOp, type GcsResult, Shard } from "../gcs/shard.ts";
import { type ByteStream, streamPair } from "../transport/channel.ts";
import { until } from "./fixtures/files.ts";
import { Timers } from "./timers.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);
const idOf = (n: number) => taskIdFromBytes(new Uint8Array(16).fill(n));

/** Memory with transactions that cannot fail. */
class Transactional extends MemoryStorage implements TransactionalStorage {
  transaction<T>(body: () => T): T {
    return body();
  }
}

function temporaryDirectory(): { readonly path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "rayd-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

// --- Shards ---

/** The plainest thing that a shard could be: what it must agree with. */
class Model {
  readonly entries = new Map<string, { value: string; revision: number; lease: number }>();
  readonly applied = new Map<number, { last: number; results: Map<number, GcsResult[]> }>();
  revision = 0;

  apply(client: number, sequence: number, operations: readonly GcsOp[]): GcsResult[] | undefined {
    let record = this.applied.get(client);
    if (record === undefined) this.applied.set(client, record = { last: 0, results: new Map() });
    if (sequence <= record.last) return record.results.get(sequence);
    record.last = sequence;
    const results = this.#run(client, operations);
    record.results.set(sequence, results);
    return results;
  }

  #run(client: number, operations: readonly GcsOp[]): GcsResult[] {
    const conflict = operations.findIndex((operation) =>
      "expect" in operation && operation.expect !== ANY &&
      (this.entries.get(operation.key)?.revision ?? 0) !== operation.expect
    );
    return operations.map((operation, i): GcsResult => {
      if (conflict >= 0) {
        const { key } = operation as { key: string };
        return i === conflict
          ? { kind: "conflict", revision: this.entries.get(key)?.revision ?? 0 }
          : { kind: "skipped" };
      }
      if (operation.kind === "put") {
        const revision = ++this.revision;
        const lease = operation.lease ? client : -1;
        this.entries.set(operation.key, { value: text(operation.value)!, revision, lease });
        return { kind: "done", revision };
      }
      if (operation.kind === "delete") {
        if (this.entries.delete(operation.key)) this.revision++;
        return { kind: "done", revision: this.revision };
      }
      if (operation.kind === "check") return { kind: "done", revision: operation.expect };
      const entry = operation.kind === "get" ? this.entries.get(operation.key) : undefined;
      return entry === undefined
        ? { kind: "absent" }
        : { kind: "entry", value: bytes(entry.value), revision: entry.revision };
    });
  }

  expire(client: number): void {
    for (const [key, { lease }] of [...this.entries]) {
      if (lease !== client) continue;
      this.entries.delete(key);
      this.revision++;
    }
    this.applied.delete(client);
  }
}

const keys = fc.constantFrom("a", "b", "b/1", "b/2", "c/ü");
const expectation = fc.oneof(
  { weight: 3, arbitrary: fc.constant(ANY) },
  fc.constant(ABSENT),
  fc.nat({ max: 12 }),
);
const operation: fc.Arbitrary<GcsOp> = fc.oneof(
  fc.record({ kind: fc.constant("get" as const), key: keys }),
  fc.record({
    kind: fc.constant("put" as const),
    key: keys,
    value: fc.string({ maxLength: 5 }).map(bytes),
    expect: expectation,
    lease: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("delete" as const), key: keys, expect: expectation }),
  fc.record({ kind: fc.constant("check" as const), key: keys, expect: fc.nat({ max: 12 }) }),
);
type Step =
  | { readonly kind: "command"; readonly client: number; readonly operations: readonly GcsOp[] }
  /** The last command of a client once more. */
  | { readonly kind: "again"; readonly client: number }
  | { readonly kind: "expire"; readonly client: number }
  /** The process is started again. */
  | { readonly kind: "restart" };
const client = fc.nat({ max: 2 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("command" as const),
      client,
      operations: fc.array(operation, { minLength: 1, maxLength: 3 }),
    }),
  },
  fc.record({ kind: fc.constant("again" as const), client }),
  fc.record({ kind: fc.constant("expire" as const), client }),
  fc.record({ kind: fc.constant("restart" as const) }),
);

/** Runs steps on a shard and on the model, and compares all that can be seen. */
function agreesWithModel(storage: TransactionalStorage, steps: readonly Step[]): void {
  let shard = new Shard(storage);
  const model = new Model();
  const sequences = [0, 0, 0];
  const last: (GcsCommand | undefined)[] = [];
  const seen = new Map<string, string>();
  const told: GcsChange[] = [];
  const watch = () => {
    for (const change of shard.takeChanges()) {
      told.push(change);
      assertEquals(change.revision, told.length, "changes are in the order of revisions");
      if (change.value === undefined) seen.delete(change.key);
      else seen.set(change.key, text(change.value)!);
    }
  };
  for (const step of steps) {
    storage.transaction(() => {
      switch (step.kind) {
        case "command": {
          const sequence = ++sequences[step.client]!;
          const command = {
            client: idOf(step.client),
            sequence,
            acknowledged: sequence - 1,
            operations: step.operations,
          };
          last[step.client] = command;
          const results = shard.apply(command).map(plain);
          assertEquals(results, model.apply(step.client, sequence, step.operations)!.map(plain));
          break;
        }
        case "again": {
          const command = last[step.client];
          if (command === undefined) break;
          const before = model.revision;
          const expected = model.apply(step.client, command.sequence, command.operations);
          const results = shard.apply(command);
          if (model.revision !== before) break; // the client was forgotten: this was its first command
          const conditional = command.operations.some((each) => "expect" in each && each.expect !== ANY);
          if (conditional && command.operations.every(({ kind }) => kind !== "get")) {
            assertEquals(results.map(plain), expected!.map(plain));
          }
          break;
        }
        case "expire":
          shard.expire(idOf(step.client));
          model.expire(step.client);
          break;
        case "restart":
          break;
      }
      shard.settle();
    });
    watch();
    if (step.kind === "restart") shard = new Shard(storage);
    assertEquals(shard.revision, model.revision);
    const all = shard.entries("").map(({ key, value, revision }) => [key, text(value), revision]);
    const expected = [...model.entries].map(([key, { value, revision }]) => [key, value, revision])
      .sort((a, b) => a[0]! < b[0]! ? -1 : 1);
    assertEquals(all, expected);
    assertEquals([...seen].sort(), [...model.entries].map(([key, { value }]) => [key, value]).sort());
    for (const after of [0, told.length >>> 1, told.length]) {
      assertEquals(shard.missed("", after)?.map(plainChange), told.slice(after).map(plainChange));
    }
  }
}

/** A change that can be compared. */
function plainChange({ key, value, revision }: GcsChange): unknown[] {
  return [key, text(value), revision];
}

/** A result that can be compared. */
function plain(result: GcsResult): unknown {
  return result.kind === "entry" ? { ...result, value: text(result.value) } : result;
}

Deno.test("Shard agrees with a plain model: conditions, leases, commands sent again, restarts", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => agreesWithModel(new Transactional(), steps)),
    { numRuns: 300 },
  );
});

Deno.test("Shard on LMDB agrees with the model as well", async () => {
  using directory = temporaryDirectory();
  let run = 0;
  const storages: LmdbStorage[] = [];
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const storage = new LmdbStorage(`${directory.path}/${run++}`);
      storages.push(storage);
      agreesWithModel(storage, steps);
    }),
    { numRuns: 25 },
  );
  for (const storage of storages) await storage.close();
});

Deno.test("a command that met a conflict meets it again when it is sent again, though there is none any more", () => {
  const shard = new Shard(new Transactional());
  const put = (client: number, sequence: number, expect: number) =>
    shard.apply({
      client: idOf(client),
      sequence,
      acknowledged: 0,
      operations: [{ kind: "put", key: "k", value: bytes(`${client}`), expect, lease: false }],
    })[0]!.kind;
  assertEquals(put(1, 1, ABSENT), "done");
  assertEquals(put(2, 1, ABSENT), "conflict");
  shard.apply({
    client: idOf(1),
    sequence: 2,
    acknowledged: 1,
    operations: [{ kind: "delete", key: "k", expect: ANY }],
  });
  assertEquals(put(2, 1, ABSENT), "conflict");
  assertEquals(shard.entries("k"), []);
});

Deno.test("what a shard has settled is there after a restart of the process, on disk", async () => {
  using directory = temporaryDirectory();
  const first = new LmdbStorage(directory.path);
  const shard = new Shard(first);
  first.transaction(() => {
    for (let i = 0; i < 100; i++) {
      shard.apply({
        client: idOf(1),
        sequence: i + 1,
        acknowledged: i,
        operations: [{ kind: "put", key: `k/${i}`, value: bytes(`v${i}`), expect: ANY, lease: i % 2 === 0 }],
      });
    }
    shard.settle();
  });
  await first.close();
  const second = new LmdbStorage(directory.path);
  const again = new Shard(second);
  assertEquals([again.revision, again.entries("k/").length, again.leaseholders()], [100, 100, [idOf(1)]]);
  second.transaction(() => again.expire(idOf(1)));
  assertEquals(again.entries("k/").length, 50);
  await second.close();
});

Deno.test("a watcher who was away for too long is told so", () => {
  const shard = new Shard(new Transactional());
  let sequence = 0;
  const put = (key: string) => putValue(shard, ++sequence, key, bytes("v"));
  put("a");
  assertEquals(shard.missed("a", 0)?.length, 1);
  for (let i = 0; i < CHANGES_KEPT_MAX * 2; i++) put("b");
  assertEquals(shard.missed("a", 1), undefined);
  assertEquals(shard.missed("b", shard.revision - 3)?.length, 3);
  assertEquals(shard.missed("b", shard.revision + 1), undefined);
});

Deno.test("a shard does not keep large changes for longer than their size allows", () => {
  const shard = new Shard(new Transactional());
  const value = new Uint8Array(CHANGES_BYTES_MAX / 4);
  for (let sequence = 1; sequence <= 100; sequence++) {
    putValue(shard, sequence, "a", value);
    const kept = Array.from({ length: sequence + 1 }, (_, after) => shard.missed("a", after)?.length)
      .find((missed) => missed !== undefined)!;
    assert(kept >= Math.min(sequence, 4) && kept < 8, `${kept} changes are kept after ${sequence}`);
    assertEquals(shard.missed("a", sequence - kept)?.length, kept);
  }
  putValue(shard, 101, "a", new Uint8Array(CHANGES_BYTES_MAX * 2));
  assertEquals([shard.missed("a", 100), shard.missed("a", 101)], [undefined, []]);
});

Deno.test("what a watcher has missed is known after a restart as well, the newest of it", () => {
  const storage = new Transactional();
  const shard = new Shard(storage);
  let sequence = 0;
  for (let i = 0; i < CHANGES_KEPT_MAX + 1_000; i++) {
    putValue(shard, ++sequence, "a", bytes(`${sequence}`));
    shard.settle();
  }
  const again = new Shard(storage);
  const missed = again.missed("a", sequence - CHANGES_KEPT_MAX)!;
  assertEquals(missed.map(({ value }) => Number(text(value))), missed.map(({ revision }) => revision));
  assertEquals([missed.length, again.missed("a", 1)], [CHANGES_KEPT_MAX, undefined]);
});

Deno.test("of changes on disk no more is kept than their size allows", () => {
  const storage = new Transactional();
  let shard = new Shard(storage);
  let sequence = 0;
  const value = new Uint8Array(CHANGES_DISK_BYTES_MAX / 4);
  while (sequence < 20) {
    putValue(shard, ++sequence, "a", value);
    shard.settle();
    const kept = storage.scanMeta(HISTORY).reduce((sum, [, { length }]) => sum + length, 0);
    assert(kept <= CHANGES_DISK_BYTES_MAX, `${kept} bytes are kept`);
  }
  shard = new Shard(storage);
  assertEquals([shard.missed("a", 17)?.length, shard.missed("a", 16)], [3, undefined]);
  putValue(shard, ++sequence, "a", new Uint8Array(CHANGES_DISK_BYTES_MAX));
  putValue(shard, ++sequence, "a", value);
  shard.settle();
  assertEquals(shard.missed("a", 17)?.length, 5);
  shard = new Shard(storage);
  assertEquals([shard.missed("a", 22), shard.missed("a", 21)], [[], undefined]);
  putValue(shard, ++sequence, "a", value);
  shard.settle();
  shard = new Shard(storage);
  assertEquals([shard.missed("a", 22)?.length, shard.missed("a", 21)], [1, undefined]);
});

Deno.test("changes on disk that do not lead up to the state are not told, and removed", () => {
  const [storage, other] = [new Transactional(), new Transactional()];
  let shard = new Shard(storage);
  for (let sequence = 1; sequence <= 3; sequence++) putValue(shard, sequence, "a", bytes(`${sequence}`));
  shard.settle();
  // What an older version does, which knows of no history.
  const [[name, history]] = storage.scanMeta(HISTORY) as [[string, Uint8Array]];
  shard = new Shard(other);
  for (let sequence = 1; sequence <= 5; sequence++) putValue(shard, sequence, "a", bytes(`${sequence}`));
  shard.settle();
  for (const [name] of other.scanMeta(HISTORY)) other.deleteMeta(name);
  other.putMeta(name, history);
  shard = new Shard(other);
  assertEquals([shard.missed("a", 5), shard.missed("a", 4), shard.missed("a", 2)], [
    [],
    undefined,
    undefined,
  ]);
  putValue(shard, 6, "a", bytes("6"));
  shard.settle();
  assertEquals(other.getMeta(name), undefined);
  shard = new Shard(other);
  assertEquals([shard.missed("a", 5)?.length, shard.missed("a", 4)], [1, undefined]);
});

Deno.test("a copy of a shard knows as much of what watchers have missed, in pieces that are not large", () => {
  const [storage, copied] = [new Transactional(), new Transactional()];
  const shard = new Shard(storage);
  for (let sequence = 1; sequence <= 40; sequence++) {
    putValue(shard, sequence, `a/${sequence}`, new Uint8Array(50_000));
    shard.settle();
  }
  const { chunks } = copyOf(storage, ORIGIN);
  for (const chunk of chunks) {
    const sizes = [...chunk.entries.map(([, { value }]) => value), ...chunk.meta.map(([, value]) => value)];
    assert(sizes.reduce((sum, { length }) => sum + length, 0) < 320_000);
    writeChunk(copied, chunk);
  }
  assertEquals(new Shard(copied).missed("a/", 0)?.map(plainChange), shard.missed("a/", 0)?.map(plainChange));
});

/** Writes a key, as a client's command. */
function putValue(shard: Shard, sequence: number, key: string, value: Uint8Array): void {
  shard.apply({
    client: idOf(1),
    sequence,
    acknowledged: sequence - 1,
    operations: [{ kind: "put", key, value, expect: ANY, lease: false }],
  });
}

// --- Server and clients ---

/** The machine's clock, with timers that keep the test going until they have fired. */
const waking: Clock = {
  ...systemClock,
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** A server in this process, and a way to reach it that can be cut. */
class Store {
  readonly storages: TransactionalStorage[];
  readonly ends = new Set<ByteStream>();
  server: GcsServer;
  up = true;

  constructor(shards = 2, readonly clock: Clock = systemClock, storages?: TransactionalStorage[]) {
    this.storages = storages ?? Array.from({ length: shards }, () => new Transactional());
    this.server = this.#start();
  }

  #start(): GcsServer {
    return new GcsServer({
      cluster: idOf(9),
      token: "t".repeat(64),
      storages: this.storages,
      clock: this.clock,
      log: () => {},
    });
  }

  /** Ends the server as a crash would, and starts another one on the same storages. */
  restart(): void {
    this.server.close();
    this.server = this.#start();
  }

  readonly connect = (): Promise<ByteStream> => {
    if (!this.up) return Promise.reject(new Error("it is down"));
    const [mine, theirs] = streamPair();
    this.ends.add(mine);
    this.server.accept(theirs);
    return Promise.resolve(mine);
  };

  /** Breaks all connections. */
  cut(): void {
    for (const end of this.ends) end.close();
    this.ends.clear();
  }

  async client(
    id: number,
    options: Partial<ConstructorParameters<typeof GcsClient>[0]> = {},
  ): Promise<GcsClient> {
    const client = new GcsClient({
      connect: this.connect,
      token: "t".repeat(64),
      id: idOf(id),
      clock: waking,
      ...options,
    });
    await client.start();
    return client;
  }

  close(): void {
    this.server.close();
  }
}

Deno.test("GcsClient reads, writes under conditions, lists over shards in order, and deletes", async () => {
  const store = new Store(3);
  const client = await store.client(1);
  const revision = await client.put("a/1", bytes("x"), ABSENT);
  assertEquals(await client.put("a/1", bytes("y"), ABSENT), undefined);
  assertEquals(text((await client.get("a/1"))?.value), "x");
  assertEquals(typeof await client.put("a/1", bytes("y"), revision), "number");
  for (let i = 0; i < 2_500; i++) client.put(`b/${String(i).padStart(4, "0")}`, bytes(`${i}`));
  const listed = await client.list("b/");
  assertEquals(
    listed.map(({ key }) => key),
    Array.from({ length: 2_500 }, (_, i) => `b/${String(i).padStart(4, "0")}`),
  );
  assertEquals(await client.delete("a/1", revision), false);
  assertEquals(await client.delete("a/1"), true);
  assertEquals(await client.get("a/1"), undefined);
  client.close();
  await assertRejects(() => client.get("a/1"), DisconnectedError);
  store.close();
});

Deno.test("the store refuses a wrong token and another version by name", async () => {
  const store = new Store();
  await assertRejects(() => store.client(1, { token: "wrong" }), UsageError, "the token is wrong");
  store.close();
});

Deno.test("writes take effect once, and watches see each change once, through any number of broken connections", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          kind: fc.oneof(
            { weight: 4, arbitrary: fc.constant("write") },
            fc.constant("cut"),
            fc.constant("restart"),
          ),
          // How long the writes before have had when the connections break.
          microtasks: fc.nat({ max: 40 }),
        }),
        { minLength: 5, maxLength: 60 },
      ),
      async (steps) => {
        const store = new Store();
        const writer = await store.client(1), watcher = await store.client(2);
        const seen: number[] = [];
        await watcher.watch("n", (_, value) => seen.push(Number(text(value))));
        let wrote = 0;
        // A condition on each write: if one took effect twice, or a retry was taken for a new one, it would fail.
        const write = async () => {
          for (;;) {
            const entry = await writer.get("n");
            const next = Number(text(entry?.value) ?? 0) + 1;
            if (await writer.put("n", bytes(`${next}`), entry?.revision ?? ABSENT) !== undefined) return;
            throw new Error("a write met a conflict, with one writer");
          }
        };
        let writing = Promise.resolve();
        for (const { kind, microtasks } of steps) {
          if (kind === "write") {
            wrote++;
            writing = writing.then(write);
            continue;
          }
          for (let i = 0; i < microtasks; i++) await undefined;
          if (kind === "cut") store.cut();
          else store.restart();
        }
        await writing;
        await until("the watcher has caught up", () => (seen.at(-1) ?? 0) === wrote);
        // While it was away, it may have missed what was overwritten; but it saw nothing twice, and nothing out of order.
        assertEquals(seen, [...new Set(seen)].sort((a, b) => a - b));
        writer.close();
        watcher.close();
        store.close();
      },
    ),
    { numRuns: 40 },
  );
});

/** What a watcher is told that was away while another server wrote. @param forget Whether its changes are no longer known. */
async function toldAfterAnother(forget: boolean): Promise<string[]> {
  const storage = new Transactional();
  const store = new Store(1, systemClock, [storage]);
  const writer = await store.client(1), watcher = await store.client(2);
  const seen: string[] = [];
  for (const key of ["k/a", "k/b", "k/c"]) await writer.put(key, bytes("1"));
  await watcher.watch("k/", (key, value) => seen.push(`${key}=${text(value)}`));
  assertEquals(seen.sort(), ["k/a=1", "k/b=1", "k/c=1"]);
  seen.length = 0;
  store.up = false;
  store.cut();
  store.server.close();
  const other = new Store(1, systemClock, store.storages);
  const writer2 = await other.client(3);
  await writer2.put("k/a", bytes("2"));
  await writer2.put("k/d", bytes("1"));
  await writer2.delete("k/d");
  await writer2.delete("k/b");
  await writer2.put("other", bytes("x"));
  writer2.close();
  other.close();
  if (forget) { for (const [name] of storage.scanMeta(HISTORY)) storage.deleteMeta(name); }
  store.restart();
  store.up = true;
  await until("it has caught up", () => seen.includes("k/b=undefined"));
  await watcher.put("k/e", bytes("1"));
  await until("it is told of what comes", () => seen.includes("k/e=1"));
  writer.close();
  watcher.close();
  store.close();
  return seen;
}

Deno.test("a watcher that was away while the store was killed is told all that changed, in order", async () => {
  assertEquals(await toldAfterAnother(false), ["k/a=2", "k/d=1", "k/d=undefined", "k/b=undefined", "k/e=1"]);
});

Deno.test("a watcher that was away for too long finds the difference itself, no more and no less", async () => {
  assertEquals((await toldAfterAnother(true)).sort(), ["k/a=2", "k/b=undefined", "k/e=1"]);
});

Deno.test("what several clients ask for at once is one transaction", async () => {
  let transactions = 0;
  class Counting extends Transactional {
    override transaction<T>(body: () => T): T {
      transactions++;
      return super.transaction(body);
    }
  }
  const store = new Store(1, systemClock, [new Counting()]);
  const clients = await Promise.all(Array.from({ length: 20 }, (_, i) => store.client(i + 1)));
  transactions = 0;
  await Promise.all(clients.map((client, i) => client.put(`${i}`, bytes("1"))));
  assertEquals(transactions, 1);
  for (const client of clients) client.close();
  store.close();
});

Deno.test("leases go with their holder: at once when it says goodbye, after a grace when it is lost", async () => {
  const timers = new Timers();
  const store = new Store(2, timers);
  const holder = await store.client(1), other = await store.client(2);
  await holder.put("node/1", bytes("here"), ANY, true);
  await other.put("node/2", bytes("here"), ANY, true);
  other.close();
  await until("it is gone", async () => await holder.get("node/2") === undefined);
  // Back within the grace: nothing happens.
  store.cut();
  await until("it is back", () => holder.connected);
  timers.pass(LEASE_GRACE_MS - 1);
  assertEquals(text((await holder.get("node/1"))?.value), "here");
  store.up = false;
  store.cut();
  await until("the store knows", () => timers.waiting(LEASE_GRACE_MS) > 0);
  timers.pass(LEASE_GRACE_MS);
  assertEquals(store.storages.flatMap((storage) => [...storage.scan("node/", "")]), []);
  holder.close();
  store.close();
});

Deno.test("a store that cannot commit loses nothing that it acknowledged, and clients try again", async () => {
  let failures = 0;
  class Failing extends Transactional {
    override transaction<T>(body: () => T): T {
      const entries = this.scan("", ""), meta = this.scanMeta("");
      const result = body();
      if (failures-- <= 0) return result;
      for (const [key] of this.scan("", "")) this.delete(key);
      for (const [key, entry] of entries) this.put(key, entry);
      for (const [name] of this.scanMeta("")) this.deleteMeta(name);
      for (const [name, value] of meta) this.putMeta(name, value);
      throw new Error("no space left on device");
    }
  }
  const store = new Store(1, systemClock, [new Failing()]);
  const client = await store.client(1);
  failures = 3;
  assertEquals(await client.put("a", bytes("1"), ABSENT), 1);
  assertEquals(text((await client.get("a"))?.value), "1");
  assertEquals(failures < 0, true);
  client.close();
  store.close();
});

Deno.test("loads that nodes report reach those who follow, the newest of each", async () => {
  const store = new Store();
  const seen = new Map<TaskId, string>();
  const follower = await store.client(1, {
    loads: (loads) => loads.forEach(({ node, load }) => seen.set(node, text(load)!)),
  });
  const a = await store.client(2), b = await store.client(3);
  a.reportLoad(bytes("a1"));
  b.reportLoad(bytes("b1"));
  a.reportLoad(bytes("a2"));
  await until("all have come", () => seen.get(idOf(2)) === "a2" && seen.get(idOf(3)) === "b1");
  for (const each of [follower, a, b]) each.close();
  store.close();
});
