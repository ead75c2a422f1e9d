/**
 * What rayd does not do, to compare with: one scheduler for all nodes, which places every task.
 *
 * It is the same global scheduler, with the same reports, in one place. Every task goes there first; the thread looks at
 * all nodes for each, and a decision may be made to take some more milliseconds, as in the Ray paper's ablation: these
 * pass without the thread being busy.
 *
 * @module
 */

import type { TaskId } from "../../core/ids.ts";
import { GlobalScheduler } from "../../scheduler/global.ts";
import type { Inbound, NodeWorld } from "./node.ts";
import type { TaskSpec } from "./task.ts";

/** One scheduler for all. */
export class CentralScheduler {
  readonly #world: NodeWorld;
  readonly #decisionMs: number;
  readonly #global = new GlobalScheduler("" as TaskId);
  #inbox: Inbound[] = [];
  #busy = false;
  readonly #homeless: TaskSpec[] = [];
  /** Thread time, in milliseconds. */
  threadMs = 0;

  /** @param decisionMs How long each decision takes on top. */
  constructor(world: NodeWorld, decisionMs: number) {
    this.#world = world;
    this.#decisionMs = decisionMs;
    for (const description of world.descriptions) this.#global.join(description);
  }

  /** Takes tasks to be placed, and loads. */
  receive(messages: readonly Inbound[]): void {
    for (const message of messages) this.#inbox.push(message);
    if (!this.#busy) this.#block();
  }

  #block(): void {
    const { timeline, costs, descriptions, locality } = this.#world;
    this.#busy = true;
    let us = 0;
    const out = new Map<number, Inbound[]>();
    for (const message of this.#inbox.splice(0, BLOCK_MESSAGES_MAX)) {
      if (message.type === "loads") {
        us += message.loads.length * costs.reportUs;
        for (const { node, load } of message.loads) {
          this.#world.machines(() => this.#global.report(descriptions[node]!.id, load, timeline.now));
        }
      } else if (message.type === "delegate") {
        const { spec } = message;
        const { shape, ms, reads } = spec.draft;
        const id = this.#world.machines(() =>
          this.#global.place({
            demand: shape.demand,
            expectedMs: ms,
            betterThanMs: Infinity,
            missingBytes: (node) =>
              !locality || reads === undefined || descriptions[reads.home]!.id === node ? 0 : reads.bytes,
          }, timeline.now)
        );
        us += costs.nodeStartUs * 2 + this.#global.looked * costs.placeViewUs;
        if (id === undefined) {
          this.#homeless.push(spec);
          continue;
        }
        const target = this.#world.indexOf(id);
        this.#world.note("delegate", target, spec);
        const messages = out.get(target) ?? [];
        messages.push({ type: "delegate", from: spec.origin, spec });
        out.set(target, messages);
      }
    }
    this.threadMs += us / 1000;
    timeline.after(us / 1000, () => {
      timeline.after(this.#decisionMs, () => {
        for (const [target, messages] of out) this.#world.deliver(target, messages);
      });
      if (this.#inbox.length > 0) this.#block();
      else this.#busy = false;
    });
  }
}

/** Messages that make one block at most. */
const BLOCK_MESSAGES_MAX = 512;
