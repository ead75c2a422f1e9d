/**
 * Objects of a node: what programs put, who is told that an object exists, and how its bytes come into memory, from disk,
 * from another node, or by making it again. Who holds what is the directory's (`node/directory.ts`).
 *
 * @module
 */

import { DisconnectedError, ObjectLostError, RaydError } from "../core/errors.ts";
import { hex, isArguments, isPut, type ObjectId, type TaskId, taskOf } from "../core/ids.ts";
import { HEIR_MS } from "../core/limits.ts";
import type { Outcome } from "../core/messages.ts";
import { type Copy, NO_PROSPECTS, type Prospects } from "./copies.ts";
import type { ObjectRecord } from "./directory.ts";
import { lost, lostError, packError } from "./outcomes.ts";
import type { NodeParts } from "./parts.ts";
import type { Client } from "./peers.ts";
import { Spiller } from "./spill.ts";

/** Memory that is kept faulted in ahead of its use. */
const PREFAULT_BYTES = 256 * 1024 * 1024;

/** How soon a node is asked again for an object that could not be brought from it. */
const PULL_AGAIN_MS = 100;

/** Keeps objects and brings them here. */
export class Objects {
  readonly #node: NodeParts;
  /** Makes room in the store. */
  readonly spiller: Spiller;
  /** Objects that are being brought here. */
  readonly #arriving = new Map<ObjectId, Promise<RaydError | undefined>>();
  /** Objects whose bytes come from their homes: what has them made again here instead. */
  readonly #pulls = new Map<ObjectRecord, () => void>();
  /** Objects that are being made again on other nodes, which are asked for them. */
  readonly #lookedFor = new Set<ObjectRecord>();
  /** Told when an object has been made again. */
  readonly remade = new Map<ObjectId, (() => void)[]>();
  readonly #waits = new Set<{ readonly over: () => void; cancel: () => void }>();
  #prefaulting = false;

  /** @param node What the node is made of. */
  constructor(node: NodeParts) {
    this.#node = node;
    this.spiller = new Spiller({
      store: node.store,
      directory: node.directory,
      clock: node.clock,
      path: node.options.spillPath,
      collect: () => this.collect(),
    });
  }

  /** A client has put a value, or told of a large one that it stored. */
  put(client: Client, id: ObjectId, outcome: Outcome): void {
    this.#node.rebuilder.put(id);
    // One that was expected has its owner's hold already.
    const known = this.#node.directory.get(id);
    const record = known?.owner === client.id ? known : this.#node.directory.declare(id, client.id);
    // What another node had, and is put here again, is this node's own from now on.
    if (record.foreign && outcome.kind === "stored") this.#node.cluster?.settledHere(record);
    if (this.#node.directory.seal(record, outcome)) this.#node.results.announce(record);
  }

  /** A client wants to be told of an object, once its bytes are at hand. */
  subscribe(client: Client, id: ObjectId): void {
    const record = this.#node.directory.get(id);
    if (record === undefined) {
      return this.#node.send(client, { type: "object", object: id, outcome: lost(id) });
    }
    if (record.outcome === undefined) {
      record.subscribers ??= [];
      if (!record.subscribers.includes(client.id)) record.subscribers.push(client.id);
      return this.#node.cluster?.want(record);
    }
    // A peer fetches the bytes when it needs them.
    if (client.role === "peer" || this.isHere(record)) {
      return this.#node.send(client, { type: "object", object: id, outcome: record.outcome });
    }
    this.#node.directory.use(id);
    this.bring(record).then((error) => {
      const outcome: Outcome = error === undefined
        ? record.outcome!
        : { kind: "error", bytes: packError(error) };
      this.#node.send(client, { type: "object", object: id, outcome });
      this.#node.flush();
      this.#node.directory.unuse(id);
    });
  }

  /** Whether all of an object's value is at hand. */
  isHere(record: ObjectRecord): boolean {
    return record.outcome?.kind !== "stored" ||
      record.spilled === undefined && this.#node.store.has(record.id);
  }

  /** Brings an object into memory, from disk or from the node that has it. @returns What went wrong. */
  bring(record: ObjectRecord): Promise<RaydError | undefined> {
    if (record.spilled !== undefined) return this.spiller.restore(record);
    const { id, outcome, home } = record;
    if (outcome !== undefined && this.isHere(record)) return Promise.resolve(undefined);
    const known = this.#arriving.get(id);
    if (known !== undefined) return known;
    const node = home === undefined ? undefined : this.#node.cluster?.nodeOf(home);
    const arriving =
      (node === undefined || outcome?.kind !== "stored"
        ? this.#remake(record)
        : this.#pullOrRemake(record, node, outcome.size))
        .finally(() => this.#arriving.delete(id));
    this.#arriving.set(id, arriving);
    return arriving;
  }

  async #pullOrRemake(record: ObjectRecord, node: TaskId, size: number): Promise<RaydError | undefined> {
    const { home } = record;
    for (;;) {
      const left = new Promise<"left">((resolve) => this.#pulls.set(record, () => resolve("left")));
      const error = await Promise.race([this.#pull(node, record.id, size, "object"), left])
        .finally(() => this.#pulls.delete(record));
      if (error === "left") return await this.#remake(record);
      const away = error instanceof DisconnectedError;
      if (!away && !(error instanceof ObjectLostError)) return error;
      if (this.#node.closed || this.#node.directory.get(record.id) !== record) return error;
      // The node may just be found dead; one that lives and does not have it will not have it the next time.
      if (record.home === undefined) return await this.#remake(record);
      if (!away) return error;
      // Either it can be reached again, or it is found dead.
      await this.#aWhile();
      if (record.home === undefined) return await this.#remake(record);
      if (record.home !== home) {
        this.#arriving.delete(record.id);
        return await this.bring(record);
      }
    }
  }

  /** Waits until an object has been made again, and is here. @returns Why it is not. */
  async #remake(record: ObjectRecord): Promise<RaydError | undefined> {
    const { id } = record;
    if (isArguments(id)) return await this.#argumentsAgain(record);
    for (;;) {
      if (this.#node.closed) return lostError(id);
      const running = this.#node.tasks.has(taskOf(id));
      const found = running ? "here" : await this.#copy(record);
      if (found instanceof RaydError) return found;
      if (found !== "here" && !this.#node.tasks.has(taskOf(id))) {
        const hope = await this.hopeFor(record, found);
        if (hope === "again") continue;
        const why = hope === "adopted" ? undefined : await this.#node.rebuilder.rebuildAnyhow(record);
        if (why !== undefined) {
          return new ObjectLostError(`Object ${hex(id, true)} is lost with the node that had it, and ${why}`);
        }
      }
      // What came inside of another object is told of by the task that puts it again. And a task that was running again
      // already, for something else that it makes, did not know that this was to be lost.
      if (!this.#isAnywhere(record)) this.#node.directory.unseal(record);
      if (record.outcome === undefined) {
        await new Promise<void>((resolve) => {
          const waiting = this.remade.get(id);
          if (waiting === undefined) this.remade.set(id, [resolve]);
          else waiting.push(resolve);
          this.#node.rebuilder.expect(record);
          // What a task puts again elsewhere is told to those who ask for it.
          this.#node.cluster?.want(record);
          this.lookWhereItIsMade(record);
          this.#node.flush();
        });
      }
      // As an error, it is told as an outcome.
      if (record.outcome?.kind !== "stored" || this.#isAnywhere(record)) break;
      // The node that has made it again is gone as well.
    }
    this.#arriving.delete(id);
    return record.outcome?.kind === "stored" ? await this.bring(record) : undefined;
  }

  /**
   * Brings a copy of an object whose home is gone.
   *
   * @returns That the object is here, or can be had again; why there is no place for it; or, as nobody has a copy, what others
   *   know of it.
   */
  async #copy(record: ObjectRecord): Promise<"here" | RaydError | Prospects> {
    const { id } = record;
    const wanted = () => !this.#node.closed && this.#node.directory.get(id) === record;
    for (const asked = new Set<TaskId>();;) {
      const found = await this.#node.copies.seek(id, asked);
      if (record.outcome !== undefined && this.#isAnywhere(record)) return "here";
      if (!("outcome" in found)) return found;
      if (!wanted()) return NO_PROSPECTS;
      asked.add(found.node);
      if (!this.#accept(record, found)) {
        if (this.#isBack(record, found)) return "here";
        continue;
      }
      if (record.outcome?.kind !== "stored") return "here";
      const error = await this.#pull(found.node, id, record.outcome.size, "copy");
      if (!wanted()) return NO_PROSPECTS;
      if (error === undefined || this.#isAnywhere(record)) return "here";
      if (!(error instanceof DisconnectedError || error instanceof ObjectLostError)) return error;
    }
  }

  /**
   * What cannot be made again here is not lost as long as another node can make it, or the task that makes it is still to
   * end there, or some node cannot be asked.
   *
   * @param others What the others know of it.
   * @returns Whether it is to be had from another node, which makes it again; or looked for once more, after a while; or
   *   neither.
   */
  async hopeFor(record: ObjectRecord, { maker, later }: Prospects): Promise<"adopted" | "again" | "nothing"> {
    const { directory, rebuilder, cluster, copies } = this.#node;
    if (rebuilder.makes(record.id) || directory.get(record.id) !== record) return "nothing";
    if (maker !== undefined) {
      const found = await copies.seekAt(maker, record.id, true);
      const isWanted = directory.get(record.id) === record && record.home === undefined;
      const makes = !("outcome" in found) && found.maker === maker;
      if (isWanted && makes && cluster!.adopt(record, maker)) return "adopted";
    } else if (!later) return "nothing";
    await this.#aWhile();
    return "again";
  }

  /** The home of an object has no more of it than anybody else: it is made again here, if it is wanted. */
  leaveHome(record: ObjectRecord): void {
    this.#node.cluster!.leave(record);
    if (record.outcome === undefined && record.asked) this.#node.rebuilder.remakeForeign(record);
    this.#pulls.get(record)?.();
  }

  /**
   * Learns the outcome of an object whose home is gone from a node that has it.
   *
   * @returns That it is known now; or what others know of it. The bytes are brought when somebody wants them.
   */
  async learn(record: ObjectRecord): Promise<"known" | Prospects> {
    for (const asked = new Set<TaskId>();;) {
      const found = await this.#node.copies.seek(record.id, asked);
      if (record.outcome !== undefined) return "known";
      if (!("outcome" in found)) return found;
      if (this.#node.closed || this.#node.directory.get(record.id) !== record) return NO_PROSPECTS;
      asked.add(found.node);
      if (this.#accept(record, found) || this.#isBack(record, found)) return "known";
    }
  }

  /** The node that had an object is there again, and has it still: it is had from there. */
  #isBack(record: ObjectRecord, { node }: Copy): boolean {
    return node === record.lostBy && this.#node.cluster!.adopt(record, node);
  }

  /**
   * A task that runs on another node may have put an object there that is waited for here, and not end before somebody has
   * it: that node is asked, until the task has ended.
   */
  async lookWhereItIsMade(record: ObjectRecord): Promise<void> {
    const { id } = record;
    const { cluster, copies, directory, tasks } = this.#node;
    if (!isPut(id) || cluster === undefined || this.#lookedFor.has(record)) return;
    this.#lookedFor.add(record);
    for (;;) {
      const task = tasks.get(taskOf(id));
      const isWanted = record.home === undefined &&
        (record.outcome === undefined || !this.#isAnywhere(record));
      if (task === undefined || this.#node.closed || directory.get(id) !== record || !isWanted) break;
      const node = cluster.nodeOf(task.remote);
      if (node !== undefined) {
        const found = await copies.seekAt(node, id);
        if ("outcome" in found && record.home === undefined && cluster.adopt(record, node)) break;
      }
      await this.#aWhile();
    }
    this.#lookedFor.delete(record);
    this.#node.flush();
  }

  /**
   * Takes a copy's outcome as the object's, unless that is known.
   *
   * @returns Whether the copy is one of the object as it is known here. What a copy refers to may be let go of there before
   *   this node could hold it.
   */
  #accept(record: ObjectRecord, { outcome }: Copy): boolean {
    const known = record.outcome;
    if (known !== undefined) {
      return known.kind === "stored" && outcome.kind === "stored" && known.size === outcome.size;
    }
    if (outcome.contains.length > 0) return false;
    if (this.#node.directory.seal(record, outcome)) this.#node.results.announce(record);
    return true;
  }

  /**
   * Arguments of a task go with whoever submitted it. If that runs again on another node, it submits the task again, and has
   * them there.
   */
  async #argumentsAgain(record: ObjectRecord): Promise<RaydError | undefined> {
    const { id } = record;
    const end = this.#node.clock.now() + HEIR_MS;
    while (!this.#isAnywhere(record)) {
      const needless = this.#node.closed || this.#node.directory.get(id) !== record;
      if (needless || this.#node.clock.now() >= end) {
        return new ObjectLostError(
          `The arguments of task ${
            hex(taskOf(id))
          } are lost with the node that had them, and whoever submitted it ` +
            `has not done so again`,
        );
      }
      await this.#aWhile();
    }
    this.#arriving.delete(id);
    return await this.bring(record);
  }

  /** Whether an object's bytes are in this node's memory, or on its disk. */
  keepsBytes(record: ObjectRecord): boolean {
    return record.spilled !== undefined || this.#node.store.has(record.id);
  }

  /** Whether the bytes of a stored object are here, or where they can be had. */
  #isAnywhere(record: ObjectRecord): boolean {
    return record.outcome?.kind !== "stored" || record.home !== undefined || this.keepsBytes(record);
  }

  async #pull(
    node: TaskId,
    id: ObjectId,
    size: number,
    what: "object" | "copy",
  ): Promise<RaydError | undefined> {
    const error = await this.#node.options.abroad!.pull(node, id, size, what);
    // Nobody may have wanted it any more by the time it was here.
    if (error === undefined && this.#node.directory.get(id) === undefined) this.#node.store.delete(id);
    return error;
  }

  /** Some time, in which nodes may come back. */
  #aWhile(): Promise<void> {
    return new Promise<void>((resolve) => {
      const wait = { over: resolve, cancel: () => {} };
      this.#waits.add(wait);
      wait.cancel = this.#node.clock.after(PULL_AGAIN_MS, () => {
        this.#waits.delete(wait);
        resolve();
      });
    });
  }

  /** The node has ended: nothing is waited for any more. */
  close(): void {
    this.spiller.close();
    for (const { over, cancel } of this.#waits) {
      cancel();
      over();
    }
    this.#waits.clear();
  }

  /** Makes room in the store. @returns What went wrong. */
  makeRoom(bytes: number): Promise<RaydError | undefined> {
    return this.spiller.makeRoom(bytes);
  }

  /**
   * Has an object's bytes in memory, for another node that wants them.
   *
   * @param what Of a `"copy"`, only what is here: whoever wants it may be the one that would be asked for it.
   * @returns Whether they are.
   */
  async provide(id: ObjectId, what: "object" | "copy" = "object"): Promise<boolean> {
    const record = this.#node.directory.get(id);
    if (record === undefined) return false;
    if (what === "copy" && !this.keepsBytes(record)) return false;
    this.#node.directory.use(id);
    // It may be on its way to be made again: the other node knows only that it was here, or that this one can get it.
    const error = await this.bring(record);
    this.#node.directory.unuse(id);
    return error === undefined;
  }

  /** From the first object in the store on, memory is kept faulted in ahead of its use. */
  stored(bytes: number): void {
    this.spiller.stored(bytes);
    if (this.#prefaulting) return;
    this.#prefaulting = true;
    this.#node.store.prefault(Math.min(PREFAULT_BYTES, this.#node.store.capacity / 4));
  }

  /** Nothing refers to an object any more. */
  freed(record: ObjectRecord): void {
    if (this.#node.closed) return; // all is freed with the store
    if (record.outcome?.kind === "stored") this.#node.store.delete(record.id);
    this.spiller.freed(record);
    this.#node.actors.freed(record.id);
    this.#node.cluster?.freed(record);
    this.#node.rebuilder.freed(record.id);
  }

  /** Asks all programs and isolates to collect garbage. */
  collect(): void {
    for (const client of this.#node.clients.values()) {
      if (client.role !== undefined) this.#node.send(client, { type: "collect" });
    }
    this.#node.flush();
  }
}
