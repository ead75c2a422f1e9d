/**
 * Gives actors whose node is gone to other nodes. One node of a cluster does so, the one that also sees to what may go from
 * the control store; if two should do it at once, the record's revision lets one of them have its way.
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
  readonly registry: ActorRegistry;
  readonly clock: Clock;
  readonly actors: Pick<FarActors, "places" | "placeAgain">;
  /** Whether this node is the one that does it. */
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
    if (!this.#node.leads()) return;
    for (const [id, located] of this.#node.actors.places) {
      if (this.#busy.has(id)) continue;
      if (this.#node.isThere(located.place.node)) {
        this.#forsaken.delete(id);
        continue;
      }
      this.#busy.add(id);
      this.#move(id, located).catch(() => {
        // The node is ending.
      }).finally(() => this.#busy.delete(id));
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
      if (place.name !== "") registry.releaseName(place.namespace, place.name, id);
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
