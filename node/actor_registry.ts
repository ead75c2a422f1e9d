/**
 * What the control store has of actors: names, which node has an actor of `get(key)`, and, of every actor that is to
 * survive its node, where it is and its journal.
 *
 * An actor's record is under `actor/{<id>}`, and its journal under `journal/{<id>}/`: how it is made, its newest state, the
 * calls since, and answers that may be asked for again. All of these are in one shard, so each step of the journal is one
 * transaction, and each has the condition that the record is as this node wrote it. Whoever gives the actor to another node
 * writes the record; from then on the node before can add nothing (it is *fenced*), and as nothing leaves a node before the
 * journal has it, nobody hears of what that node still does to it.
 *
 * @module
 */

import { hex, type TaskId, taskIdFromHex } from "../core/ids.ts";
import { DisconnectedError, ProtocolError } from "../core/errors.ts";
import type { FoundActor } from "../core/messages.ts";
import type { ActorSettings } from "../core/actor_options.ts";
import { ABSENT, ANY, type GcsClient, type GcsEntry } from "../gcs/client.ts";
import type { GcsOp } from "../gcs/shard.ts";
import { NO_FAULTS, type NodeFault } from "./faults.ts";
import { readJob } from "./jobs.ts";
import type { Leases } from "./leases.ts";

/** The prefix of actors that are to survive their node; their id follows, in braces. */
export const ACTORS = "actor/";

/** What is known of an actor wherever it is. */
export interface ActorPlace {
  /** The node that has it: 32 hexadecimal digits. */
  readonly node: string;
  /** How often it was given to another node. */
  readonly moves: number;
  readonly job: string;
  readonly label: string;
  readonly namespace: string;
  /** Empty for none. */
  readonly name: string;
  /** It does not end with its program. */
  readonly outlives: boolean;
  /** What whoever places it must know. */
  readonly needs: Pick<ActorSettings, "demand" | "alternatives" | "placement">;
}

/** Where an actor is. */
export function placeOf(settings: ActorSettings, job: TaskId, node: TaskId, moves: number): ActorPlace {
  const { demand, alternatives, placement } = settings;
  return {
    node: hex(node),
    moves,
    job: hex(job),
    label: settings.label,
    namespace: settings.namespace,
    name: settings.name,
    outlives: settings.detached,
    needs: {
      demand,
      ...(alternatives === undefined ? {} : { alternatives }),
      ...(placement === undefined ? {} : { placement }),
    },
  };
}

/** A journal's parts, by what follows the actor's prefix. */
export interface JournalChange {
  readonly put: readonly { readonly part: string; readonly bytes: Uint8Array }[];
  readonly delete: readonly string[];
}

/** Who has a name. */
export interface NamedActor extends FoundActor {
  readonly node: TaskId;
  readonly certain: boolean;
}

/** What the control store has of a name. */
interface NameEntry extends FoundActor {
  readonly node: string;
  /** Of an actor that is to survive its node. */
  readonly lasting: boolean;
}

/** The control store's side of actors. */
export interface ActorRegistry {
  /** Reserves a name. `lasting` of an actor that is to survive its node: then the name does as well. */
  reserveName(namespace: string, name: string, actor: FoundActor, lasting: boolean): Promise<boolean>;
  /**
   * Makes a lasting name certain, once the actor's record is there: only a record keeps a name of a node that was given up,
   * so another may have taken it before; from now on none can. @returns Whether it is this actor's.
   */
  confirmName(namespace: string, name: string, actor: TaskId): Promise<boolean>;
  /**
   * An actor is gone, and its name is free. Where its creation came to two nodes, it may be another node that has made the
   * actor: then the name stays.
   *
   * @param entered It was this node's, or nobody's, by its record. Otherwise the name must have been taken by this node.
   */
  releaseName(namespace: string, name: string, actor: TaskId, entered: boolean): void;
  /** Who has a name, and where; not `certain` while it may still lose it, as it has no record yet. */
  findName(namespace: string, name: string): Promise<NamedActor | undefined>;
  /**
   * The node that has, or from now on is to have, an actor of `get(key)`: this one, if there is none yet; and whether it was
   * given the actor, which is then not to be made there, but taken up.
   */
  virtualHome(actor: TaskId): Promise<{ readonly node: TaskId; readonly moved: boolean }>;
  /** Such an actor is not here any more. */
  releaseVirtual(actor: TaskId): void;
  /** Enters an actor. @returns The record's revision; `undefined` if there is one. */
  enter(actor: TaskId, place: ActorPlace, change: JournalChange): Promise<number | undefined>;
  /** Takes a step in its journal. @returns Whether the record has that revision still; otherwise nothing was done. */
  write(actor: TaskId, revision: number, change: JournalChange): Promise<boolean>;
  /**
   * Removes an actor with all that there is of it.
   *
   * @param parts Its journal's parts, if they are known.
   * @returns Whether the record had that revision still.
   */
  remove(actor: TaskId, revision: number, parts?: readonly string[]): Promise<boolean>;
  get(actor: TaskId): Promise<{ readonly place: ActorPlace; readonly revision: number } | undefined>;
  /** Gives an actor to another node. @returns Whether the record had that revision still. */
  assign(actor: TaskId, revision: number, place: ActorPlace): Promise<boolean>;
  /** The parts of a journal whose name begins with `part`, in the order of names. */
  read(actor: TaskId, part: string): Promise<{ readonly part: string; readonly bytes: Uint8Array }[]>;
  /** The node that a running program is connected to: 32 hexadecimal digits; `undefined` if it is not running. */
  jobNode(job: string): Promise<string | undefined>;
}

/** The key of an actor's record. */
function keyOf(actor: TaskId): string {
  return `${ACTORS}{${hex(actor)}}`;
}

/** The prefix of an actor's journal. */
function journalOf(actor: TaskId): string {
  return `journal/{${hex(actor)}}/`;
}

/** The actor that a record is of. */
export function actorOf(key: string): TaskId {
  return taskIdFromHex(key.slice(ACTORS.length + 1, -1));
}

/** A record as bytes. */
export function writePlace(place: ActorPlace): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(place));
}

/** From bytes. @throws {ProtocolError} If they are none. */
export function readPlace(bytes: Uint8Array): ActorPlace {
  try {
    const place = JSON.parse(new TextDecoder().decode(bytes)) as ActorPlace;
    if (typeof place.node === "string" && typeof place.moves === "number") return place;
  } catch {
    // Said below.
  }
  throw new ProtocolError("Cannot read an actor's record");
}

/**
 * Actors, as the control store has them.
 *
 * @param leases What goes with this node. @param self The node. @param jobs The prefix of running programs.
 */
export function actorRegistry(
  gcs: GcsClient,
  leases: Leases,
  self: string,
  jobs: string,
  faults: ReadonlySet<NodeFault> = NO_FAULTS,
): ActorRegistry {
  const virtualKey = (actor: TaskId) => `virtual/${hex(actor)}`;
  const nodeOf = (value: Uint8Array) => taskIdFromHex(new TextDecoder().decode(value));
  const nameKey = (namespace: string, name: string) =>
    `name/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const entryOf = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes)) as NameEntry;
  const get = async (actor: TaskId) => {
    const entry = await gcs.get(keyOf(actor));
    return entry === undefined ? undefined : { place: readPlace(entry.value), revision: entry.revision };
  };
  /** Whether what a name stands for is gone: its node is, and it was not one that survives that. */
  const isLeft = async ({ id, node }: { readonly id: string; readonly node: string }) => {
    const [record, there] = await Promise.all([get(taskIdFromHex(id)), gcs.get(`node/${node}`)]);
    if (record === undefined) return there === undefined;
    if (await gcs.get(`node/${record.place.node}`) !== undefined || record.place.outlives) return false;
    return await gcs.get(jobs + record.place.job) === undefined;
  };
  const operations = (actor: TaskId, { put, delete: gone }: JournalChange): GcsOp[] => {
    const prefix = journalOf(actor);
    return [
      ...put.map(({ part, bytes }): GcsOp => ({
        kind: "put",
        key: prefix + part,
        value: bytes,
        expect: -1,
        lease: false,
      })),
      ...gone.map((part): GcsOp => ({ kind: "delete", key: prefix + part, expect: -1 })),
    ];
  };
  /**
   * Does something again whose outcome is not known, since the store has forgotten this client: it is on the condition that
   * the record is as it was, and all that it writes is the same again.
   */
  const surely = async <T>(work: () => Promise<T>): Promise<T> => {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof DisconnectedError) || gcs.closed) throw error;
      }
    }
  };
  return {
    async reserveName(namespace, name, actor, lasting) {
      const value = new TextEncoder().encode(JSON.stringify({ ...actor, node: self, lasting }));
      const key = nameKey(namespace, name);
      // If it was this node that took the name, unknowingly, that is seen below.
      const put = (expect: number) =>
        surely(async () =>
          lasting ? await gcs.put(key, value, expect) !== undefined : await leases.put(key, value, expect)
        );
      for (;;) {
        if (await put(ABSENT)) return true;
        const entry = await gcs.get(key);
        if (entry === undefined) continue;
        const other = entryOf(entry.value);
        if (other.id === actor.id && other.node === self) return true;
        // The actor's creation has come to another node before.
        if (other.id !== actor.id && !await isLeft(other)) return false;
        if (await put(entry.revision)) return true;
      }
    },
    async confirmName(namespace, name, actor) {
      const key = nameKey(namespace, name);
      for (;;) {
        const entry = await surely(() => gcs.get(key));
        if (entry === undefined || entryOf(entry.value).id !== hex(actor)) return false;
        // Whoever found it left, and is about to take it, has the revision before.
        const { value, revision } = entry;
        if (await surely(() => gcs.put(key, value, revision)) !== undefined) return true;
      }
    },
    releaseName(namespace, name, actor, entered) {
      const key = nameKey(namespace, name);
      leases.forget(key);
      gcs.get(key).then(async (entry) => {
        if (entry === undefined) return;
        const { id, node } = entryOf(entry.value);
        if (id === hex(actor) && (entered || node === self)) await gcs.delete(key, entry.revision);
      }).catch(() => {
        // The node is ending: its names go with it.
      });
    },
    async findName(namespace, name) {
      const entry = await gcs.get(nameKey(namespace, name));
      if (entry === undefined) return undefined;
      const { id, module, name: className, node, lasting } = entryOf(entry.value);
      const found = { id, module, name: className };
      const record = await get(taskIdFromHex(id));
      if (record !== undefined) return { ...found, node: taskIdFromHex(record.place.node), certain: true };
      // Once its node is gone it is as if it had never been.
      if (lasting && await gcs.get(`node/${node}`) === undefined) return undefined;
      return { ...found, node: taskIdFromHex(node), certain: !lasting };
    },
    async virtualHome(actor) {
      const key = virtualKey(actor);
      for (;;) {
        const record = await get(actor);
        if (record !== undefined) {
          return { node: taskIdFromHex(record.place.node), moved: record.place.moves > 0 };
        }
        const entry = await gcs.get(key);
        if (entry !== undefined) return { node: nodeOf(entry.value), moved: false };
        const put = () => leases.put(key, new TextEncoder().encode(self), ABSENT);
        if (await surely(put)) return { node: taskIdFromHex(self), moved: false };
      }
    },
    releaseVirtual(actor) {
      const key = virtualKey(actor);
      leases.forget(key);
      gcs.get(key).then(async (entry) => {
        if (entry === undefined || hex(nodeOf(entry.value)) !== self) return;
        await gcs.delete(key, entry.revision);
      }).catch(() => {
        // The node is ending: its actors go with it.
      });
    },
    get,
    async enter(actor, place, change) {
      return await surely(async () => {
        const [first] = await gcs.batch([
          { kind: "put", key: keyOf(actor), value: writePlace(place), expect: ABSENT, lease: false },
          ...operations(actor, change),
        ]);
        if (first?.kind === "done") return first.revision;
        // It may have been this node, whose connection broke before it had the answer.
        const record = await get(actor);
        return record?.place.node === self && record.place.moves === place.moves
          ? record.revision
          : undefined;
      });
    },
    async write(actor, revision, change) {
      return await surely(async () => {
        const [first] = await gcs.batch([
          { kind: "check", key: keyOf(actor), expect: faults.has("write-unfenced") ? ANY : revision },
          ...operations(actor, change),
        ]);
        return first?.kind === "done";
      });
    },
    async remove(actor, revision, known) {
      const prefix = journalOf(actor);
      const found = async () =>
        (await surely(() => gcs.list(prefix))).map(({ key }) => key.slice(prefix.length));
      const parts = known ?? await found();
      const [first] = await surely(() =>
        gcs.batch([
          { kind: "delete", key: keyOf(actor), expect: revision },
          ...operations(actor, { put: [], delete: parts }),
        ])
      );
      if (first?.kind !== "done") return false;
      // What was on its way when it was looked what there is; now nothing can follow.
      const late = known === undefined ? await found() : [];
      if (late.length > 0) {
        await surely(() =>
          gcs.batch([
            { kind: "check", key: keyOf(actor), expect: ABSENT },
            ...operations(actor, { put: [], delete: late }),
          ])
        );
      }
      return true;
    },
    async assign(actor, revision, place) {
      return await gcs.put(keyOf(actor), writePlace(place), revision) !== undefined;
    },
    async read(actor, part) {
      const prefix = journalOf(actor);
      return (await gcs.list(prefix + part)).map(({ key, value }: GcsEntry) => ({
        part: key.slice(prefix.length),
        bytes: value,
      }));
    },
    async jobNode(job) {
      const entry = await gcs.get(jobs + job);
      return entry === undefined ? undefined : readJob(entry.value).node;
    },
  };
}
