/**
 * Gives actors to other nodes.
 *
 * Those whose node is gone: one node of a cluster does so, the one that also sees to what may go from the control store; if
 * two should do it at once, the record's revision lets one of them have its way. And those of this node that wait for
 * resources which another node has.
 *
 * The decision is a write to the actor's record, and whoever is named there takes the actor up (`node/actor_restorer.ts`).
 * So nothing is lost when this node, or that one, dies meanwhile: the next one finds an actor whose node is gone.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { hex, type TaskId } from "../core/ids.ts";
import { HEIR_MS } from "../core/limits.ts";
import type { ActorRegistry } from "./actor_registry.ts";
import type { FarActors, Located } from "./far_actors.ts";

/** What it is told. */
export interface MoverServices {
  /** This node: 32 hexadecimal digits. */
  readonly id: string;
  readonly registry: ActorRegistry;
  readonly clock: Clock;
  readonly actors: Pick<FarActors, "places" | "placeAgain">;
  /** Actors that have waited for resources of this node for so long, in milliseconds, and can as well be on another. */
  crowdedOut(ms: number): Iterable<TaskId>;
  /** As `crowdedOut`: those that do not survive their node, and were never begun with, go elsewhere. */
  passOn(ms: number): void;
  /** Such an actor is not begun with any more. Resolves when the control store knows all that was done with it. */
  holdBack(actor: TaskId): Promise<void>;
  /** It stays here after all. */
  letBe(actor: TaskId): void;
  /** Whether this node is the one that gives away actors of nodes that are gone. */
  leads(): boolean;
  /** Whether a node is there. @param id 32 hexadecimal digits. */
  isThere(id: string): boolean;
  /** Programs of other nodes that have actors here which end with them. */
  farJobs(): Iterable<TaskId>;
  /** Such a program is gone. */
  jobGone(job: TaskId): void;
  log(level: "info" | "warn" | "error", message: string): void;
}

/** How often it is looked for actors that could not be placed. */
const LOOK_MS = 1_000;

/** How long an actor waits for resources of its node before another one is looked for. */
const CROWDED_MS = 1_000;

/**
 * How long an actor is kept whose program is gone with its node: the node may have been given up by mistake, and go on with
 * both. One whose own node is there ends sooner.
 */
const FORSAKEN_MS = 60_000;
/** How long after a process has ended the control store has its programs no more. */
const JOBS_DIED_MS = 2_000;

/** Moves actors. */
export class ActorMover {
  readonly #node: MoverServices;
  readonly #busy = new Set<TaskId>();
  /** Actors whose program is gone: since when. */
  readonly #forsaken = new Map<TaskId, number>();
  /** Actors that no node can have now. */
  readonly homeless = new Set<TaskId>();

  /** @param node What it is told. */
  constructor(node: MoverServices) {
    this.#node = node;
  }

  /** Looks now and then. Returns what ends that. */
  start(): () => void {
    let cancel: () => void;
    const again = () => {
      this.look();
      cancel = this.#node.clock.after(LOOK_MS, again);
    };
    again();
    return () => cancel();
  }

  /** The process is known to have ended that had these programs. */
  jobsDied(jobs: readonly TaskId[]): void {
    this.#node.clock.after(JOBS_DIED_MS, () => {
      for (const job of jobs) this.#lookAfter(job, 0);
    });
  }

  /** Looks whether a program runs, and ends its actors here if it does not, and has not for so long. */
  #lookAfter(job: TaskId, keptMs: number): void {
    const { registry, clock, jobGone } = this.#node;
    registry.jobNode(hex(job)).then((node) => {
      if (node !== undefined) return void this.#forsaken.delete(job);
      const since = this.#forsaken.get(job) ?? clock.now();
      this.#forsaken.set(job, since);
      if (clock.now() - since < keptMs) return;
      this.#forsaken.delete(job);
      jobGone(job);
    }, () => {
      // The node is ending.
    });
  }

  /** Looks for actors whose node is gone, and for those here whose program is. */
  look(): void {
    for (const job of this.#node.farJobs()) this.#lookAfter(job, HEIR_MS);
    this.#node.passOn(CROWDED_MS);
    for (const id of this.#node.crowdedOut(CROWDED_MS)) this.#once(id, () => this.#makeWay(id));
    if (!this.#node.leads()) return;
    for (const [id, located] of this.#node.actors.places) {
      if (this.#node.isThere(located.place.node)) this.#forsaken.delete(id);
      else this.#once(id, () => this.#move(id, located));
    }
  }

  /** Does something about an actor, unless that is under way. */
  #once(id: TaskId, work: () => Promise<void>): void {
    if (this.#busy.has(id)) return;
    this.#busy.add(id);
    work().catch(() => {
      // The node is ending.
    }).finally(() => this.#busy.delete(id));
  }

  /** An actor of this node goes to one that has what it waits for, if there is one. */
  async #makeWay(id: TaskId): Promise<void> {
    const { id: self, registry, actors, holdBack, letBe, log } = this.#node;
    const located = actors.places.get(id);
    if (located?.place.node !== self) return;
    const { place, revision } = located;
    const target = actors.placeAgain(place);
    if (target === undefined || hex(target) === self) return;
    const moved = { ...place, node: hex(target), moves: place.moves + 1 };
    let gone = false;
    try {
      await holdBack(id);
      gone = await registry.assign(id, revision, moved);
    } finally {
      if (!gone) letBe(id);
    }
    if (gone) {
      log(
        "info",
        `Actor ${place.label} goes on at node ${moved.node.slice(0, 8)}, which has what it waited for`,
      );
    }
  }

  async #move(id: TaskId, { place, revision }: Located): Promise<void> {
    const { registry, actors, clock, log } = this.#node;
    const home = place.outlives ? undefined : await registry.jobNode(place.job);
    // Its program is there, or was: if the node comes back, it has both, and the program has heard of what is not written.
    if (!place.outlives && (home === undefined || home === place.node)) {
      const since = this.#forsaken.get(id) ?? clock.now();
      this.#forsaken.set(id, since);
      if (clock.now() - since < FORSAKEN_MS) return;
      this.#forsaken.delete(id);
      this.homeless.delete(id);
      if (place.name !== "") registry.releaseName(place.namespace, place.name, id, true);
      await registry.remove(id, revision);
      return;
    }
    this.#forsaken.delete(id);
    const target = actors.placeAgain(place);
    if (target === undefined) {
      if (!this.homeless.has(id)) {
        log("warn", `Actor ${place.label} waits: its node is gone, and no other has what it asks for`);
      }
      this.homeless.add(id);
      return;
    }
    this.homeless.delete(id);
    if (place.name !== "" && !await registry.confirmName(place.namespace, place.name, id)) {
      // Its node was given up, and another actor took the name, before it had its record: nobody has heard of it.
      await registry.remove(id, revision);
      return;
    }
    const moved = { ...place, node: hex(target), moves: place.moves + 1 };
    if (await registry.assign(id, revision, moved)) {
      const [from, to] = [place.node.slice(0, 8), moved.node.slice(0, 8)];
      log("info", `Actor ${place.label} goes on at node ${to}: node ${from} is gone`);
    }
  }
}
