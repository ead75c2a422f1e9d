/**
 * The object directory against a model in which an object lives exactly while something can reach it; and the ranges
 * of the spill file.
 *
 * @module
 */

import { assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { assert } from "../core/assert.ts";
import { ChildIds, type ObjectId, returnId, type TaskId } from "../core/ids.ts";
import type { Outcome } from "../core/messages.ts";
import { ObjectDirectory, type ObjectRecord } from "../node/directory.ts";
import { Extents } from "../node/spill.ts";

const object = (n: number): ObjectId => `object ${n}` as ObjectId;

function inline(...contains: ObjectId[]): Outcome {
  return { kind: "inline", bytes: new Uint8Array(1), contains };
}

/** A directory that writes down what it frees. */
function directory(): { directory: ObjectDirectory; freed: ObjectId[] } {
  const freed: ObjectId[] = [];
  const events = { freed: ({ id }: ObjectRecord) => void freed.push(id), pending: () => undefined };
  return { directory: new ObjectDirectory(events), freed };
}

/** Declares and seals an object at once, as a `put` does. */
function put(directory: ObjectDirectory, id: ObjectId, owner: number, outcome: Outcome): ObjectRecord {
  const record = directory.declare(id, owner);
  if (directory.seal(record, outcome)) directory.sealed(record);
  return record;
}

// --- Stories ---

Deno.test("ObjectDirectory.seal keeps the first outcome and refuses every later one", () => {
  const { directory: objects, freed } = directory();
  const first = inline();
  const record = put(objects, object(1), 1, first);
  put(objects, object(2), 1, inline());
  assertEquals(objects.seal(record, inline(object(2))), false);
  assertStrictEquals(objects.get(object(1))!.outcome, first);
  objects.release(1, [object(2)]);
  assertEquals(freed, [object(2)], "the refused outcome holds nothing");
});

Deno.test("ObjectDirectory keeps an object that is not sealed yet, though its owner lets go of it", () => {
  const { directory: objects, freed } = directory();
  const record = objects.declare(object(1), 1);
  objects.release(1, [object(1)]);
  assertEquals(freed, []);
  objects.seal(record, inline());
  assertEquals(freed, []);
  objects.sealed(record);
  assertEquals(freed, [object(1)]);
  assertEquals(objects.size, 0);
});

Deno.test("ObjectDirectory.release beyond what a client holds changes nothing for the others", () => {
  const { directory: objects, freed } = directory();
  put(objects, object(1), 1, inline());
  objects.retain(2, [object(1)]);
  for (let i = 0; i < 5; i++) objects.release(1, [object(1)]);
  objects.release(3, [object(1), object(7)]);
  assertEquals(freed, []);
  objects.retain(1, [object(1)]);
  objects.release(2, [object(1)]);
  assertEquals(freed, []);
  objects.release(1, [object(1)]);
  assertEquals(freed, [object(1)]);
});

Deno.test("ObjectDirectory.clientGone lets go of all that the client held, and of its subscriptions", () => {
  const { directory: objects, freed } = directory();
  put(objects, object(1), 1, inline());
  put(objects, object(2), 1, inline());
  objects.retain(1, [object(1), object(1)]);
  objects.retain(2, [object(2)]);
  const waited = objects.declare(object(3), 2);
  waited.subscribers = [1, 2];
  objects.clientGone(1);
  assertEquals(freed, [object(1)]);
  assertEquals(waited.subscribers, [2]);
  objects.clientGone(2);
  assertEquals(freed, [object(1), object(2)]);
  assertEquals(objects.size, 1, "what is being made stays until it is sealed");
});

Deno.test("ObjectDirectory holds what an object contains that was unknown when it was sealed, once it is made", () => {
  const { directory: objects, freed } = directory();
  put(objects, object(1), 1, inline(object(2)));
  put(objects, object(2), 2, inline());
  objects.release(2, [object(2)]);
  assertEquals(freed, [], "the first object contains it");
  objects.release(1, [object(1)]);
  assertEquals(freed, [object(1), object(2)]);
});

Deno.test("ObjectDirectory.unuse of an object that was unknown when it was used takes nobody else's hold", () => {
  const { directory: objects, freed } = directory();
  objects.use(object(1));
  const record = objects.declare(object(1), 1);
  objects.release(1, [object(1)]);
  objects.unuse(object(1));
  assertEquals(freed, [], "it is being made");
  objects.seal(record, inline());
  objects.sealed(record);
  assertEquals(freed, [object(1)]);
});

Deno.test("ObjectDirectory.get asks for the record of an object that a task will make", () => {
  const asked: ObjectId[] = [];
  const objects: ObjectDirectory = new ObjectDirectory({
    freed: () => {},
    pending: (id) => {
      asked.push(id);
      return id === object(1) ? objects.add(id, 1) : undefined;
    },
  });
  assertEquals(objects.get(object(2)), undefined);
  const record = objects.get(object(1))!;
  assertStrictEquals(objects.get(object(1)), record);
  assertStrictEquals(objects.declare(object(1), 1), record);
  assertEquals(record.ownerCount, 2);
  assertEquals(asked, [object(2), object(1)]);
});

Deno.test("ObjectDirectory frees a chain of 100k objects, each inside the next, without running out of stack", () => {
  const { directory: objects, freed } = directory();
  const ids = new ChildIds("a task of sixteen" as TaskId);
  const chain = Array.from({ length: 100_000 }, (_, i) => returnId(ids.next(), i % 3));
  chain.forEach((id, i) => {
    put(objects, id, 1, i === 0 ? inline() : inline(chain[i - 1]!));
    if (i > 0) objects.release(1, [chain[i - 1]!]);
  });
  assertEquals([objects.size, freed.length], [100_000, 0]);
  objects.release(1, [chain.at(-1)!]);
  assertEquals(objects.size, 0);
  assertEquals(freed, chain.toReversed());
});

// --- The model ---

interface Known {
  readonly contains: Set<number> | undefined;
}

const CLIENTS = 3, OBJECTS = 12;

const id = fc.nat({ max: OBJECTS - 1 });
const client = fc.nat({ max: CLIENTS - 1 });
const command = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("declare" as const), id, client }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("seal" as const),
      id,
      contains: fc.array(id, { maxLength: 3 }),
      error: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("retain" as const), client, ids: fc.array(id) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("release" as const), client, ids: fc.array(id) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("use" as const), id }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("unuse" as const), id }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("clientGone" as const), client }) },
);

Deno.test("ObjectDirectory frees an object exactly when nothing can reach it any more", () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 200, size: "max" }), (commands) => {
      const { directory: objects, freed } = directory();
      /** What exists; `contains` once it is sealed. */
      const known = new Map<number, Known>();
      const counts = Array.from({ length: CLIENTS }, () => new Array<number>(OBJECTS).fill(0));
      const uses = new Array<number>(OBJECTS).fill(0);
      const hold = (client: number, id: number, by: number) => {
        if (known.has(id)) counts[client]![id] = Math.max(0, counts[client]![id]! + by);
      };
      /** Removes what cannot be reached from a client, a task or an object in the making. Returns what it was. */
      const sweep = (): ObjectId[] => {
        const reached = new Set<number>();
        const reach = (id: number) => {
          if (reached.has(id) || !known.has(id)) return;
          reached.add(id);
          known.get(id)!.contains?.forEach(reach);
        };
        for (const [id, { contains }] of known) {
          if (contains === undefined || uses[id]! > 0 || counts.some((held) => held[id]! > 0)) reach(id);
        }
        const gone = [...known.keys()].filter((id) => !reached.has(id));
        gone.forEach((id) => known.delete(id));
        return gone.map(object);
      };
      for (const command of commands) {
        freed.length = 0;
        switch (command.kind) {
          case "declare":
            objects.declare(object(command.id), command.client);
            if (!known.has(command.id)) known.set(command.id, { contains: undefined });
            hold(command.client, command.id, 1);
            break;
          case "seal": {
            const record = objects.get(object(command.id));
            assertEquals(record !== undefined, known.has(command.id));
            if (record === undefined) break;
            // An object contains older ones only: whoever made it had their Refs.
            const contains = command.contains.filter((inner) => inner < command.id);
            const outcome: Outcome = command.error
              ? { kind: "error", bytes: new Uint8Array(1) }
              : inline(...contains.map(object));
            const first = known.get(command.id)!.contains === undefined;
            assertEquals(objects.seal(record, outcome), first);
            if (!first) break;
            known.set(command.id, { contains: new Set(command.error ? [] : contains) });
            objects.sealed(record);
            break;
          }
          case "retain":
            objects.retain(command.client, command.ids.map(object));
            for (const id of command.ids) hold(command.client, id, 1);
            break;
          case "release": {
            objects.release(command.client, command.ids.map(object));
            const all: ObjectId[] = [];
            for (const id of command.ids) {
              hold(command.client, id, -1);
              all.push(...sweep());
            }
            assertEquals(freed.splice(0).sort(), all.sort());
            break;
          }
          case "use":
            objects.use(object(command.id));
            uses[command.id]!++;
            break;
          case "unuse":
            if (uses[command.id] === 0) break;
            uses[command.id]!--;
            objects.unuse(object(command.id));
            break;
          case "clientGone":
            objects.clientGone(command.client);
            counts[command.client]!.fill(0);
            break;
        }
        assertEquals(freed.toSorted(), sweep().sort());
        assertEquals([...objects.values()].map(({ id }) => id).sort(), [...known.keys()].map(object).sort());
      }
    }),
    { numRuns: 300 },
  );
});

// --- Extents ---

Deno.test("Extents.take hands out what was given back before the file grows", () => {
  const extents = new Extents();
  const [a, b, c] = [extents.take(10), extents.take(20), extents.take(30)];
  assertEquals([a, b, c], [0, 10, 30]);
  extents.give(b, 20);
  assertEquals(extents.take(5), 10);
  assertEquals(extents.take(15), 15);
  assertEquals(extents.take(1), 60);
  assertEquals(extents.used, 61);
});

Deno.test("Extents.give at the end shrinks the file, over all free ranges before it", () => {
  const extents = new Extents();
  const [a, b, c] = [extents.take(10), extents.take(20), extents.take(30)];
  extents.give(b, 20);
  extents.give(c, 30);
  assertEquals(extents.used, 10);
  assertEquals(extents.take(1_000), 10, "nothing of what was free is left as a hole");
  extents.give(10, 1_000);
  extents.give(a, 10);
  assertEquals([extents.used, extents.take(7)], [0, 0]);
});

Deno.test("Extents never lends a byte twice, counts exactly, and grows only for want of a hole", () => {
  const step = fc.record({
    take: fc.boolean(),
    size: fc.integer({ min: 1, max: 9 }),
    which: fc.nat({ max: 999 }),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 150, size: "max" }), (steps) => {
    const extents = new Extents();
    const lent: { offset: number; size: number }[] = [];
    const bytes: boolean[] = [];
    for (const { take, size, which } of steps) {
      if (take) {
        const end = bytes.lastIndexOf(true) + 1;
        const hole = [...bytes.keys()].find((at) =>
          at + size <= end && !bytes.slice(at, at + size).includes(true)
        );
        const offset = extents.take(size);
        assertEquals(offset, hole ?? end, "the first place where it fits");
        for (let at = offset; at < offset + size; at++) {
          assert(!bytes[at], `byte ${at} is lent twice`);
          bytes[at] = true;
        }
        lent.push({ offset, size });
      } else if (lent.length > 0) {
        const [back] = lent.splice(which % lent.length, 1);
        bytes.fill(false, back!.offset, back!.offset + back!.size);
        extents.give(back!.offset, back!.size);
      }
      assertEquals(extents.used, lent.reduce((sum, range) => sum + range.size, 0));
    }
  }));
});
