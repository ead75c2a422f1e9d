/**
 * What the isolates of a node's actors are told: to construct an actor, to run a call, to save the state, to let go.
 *
 * @module
 */

import type { ActorSettings } from "../core/actor_options.ts";
import { assert } from "../core/assert.ts";
import type { ObjectId } from "../core/ids.ts";
import { ACTOR_EXECUTIONS, type Dependency, type FromNode } from "../core/messages.ts";
import type { Shape } from "../scheduler/resources.ts";
import type { CallRecord, NodeActor } from "./actor_records.ts";
import type { ActorServices } from "./actor_services.ts";

/** Tells isolates what to do with actors. */
export class ActorTeller {
  readonly #node: ActorServices;
  #nextExecution = 0;
  #nextInstance = 0;
  readonly #settingsIndex = new Map<ActorSettings, number>();
  readonly #chosenSettings = new Map<ActorSettings, Map<Shape, ActorSettings>>();

  /** @param node What it needs of its node. */
  constructor(node: ActorServices) {
    this.#node = node;
  }

  /** A number for something that an isolate is told to do. */
  execution(): number {
    return ACTOR_EXECUTIONS + (this.#nextExecution = (this.#nextExecution + 1) % EXECUTIONS_MAX);
  }

  /** Construct an actor, from its newest checkpoint if there is one. */
  construct(actor: NodeActor): void {
    const { isolate, creation } = actor;
    if (isolate?.client === undefined) return;
    this.#node.define(isolate, creation);
    const settings = this.#chosen(actor);
    let index = this.#settingsIndex.get(settings);
    if (index === undefined) this.#settingsIndex.set(settings, index = this.#settingsIndex.size);
    if (!isolate.residents!.knownActors.has(settings)) {
      isolate.residents!.knownActors.add(settings);
      this.#node.send(isolate.client, { type: "defineActor", index, settings });
    }
    actor.instance = this.#nextInstance = (this.#nextInstance + 1) % EXECUTIONS_MAX;
    isolate.client.job = actor.job;
    const dependencies = this.#node.argumentsOf(creation);
    if (actor.checkpoint !== undefined) {
      const record = this.#node.directory.get(actor.checkpoint);
      assert(record?.outcome !== undefined, "an actor's checkpoint is gone");
      dependencies.push({ object: actor.checkpoint, outcome: record.outcome });
    }
    this.#tell(actor, "construct", (handle) => ({
      type: "constructActor",
      handle,
      instance: actor.instance,
      attempt: ++actor.attempts,
      task: actor.id,
      job: actor.job,
      fn: creation.fn.index,
      settings: creation.entry.index,
      actor: index,
      restore: actor.checkpoint !== undefined,
      gpus: actor.gpus,
      dependencies,
      args: creation.args,
    }));
  }

  /** An actor's settings, with what it was given where it had left a choice. */
  #chosen({ settings, asked, shape }: NodeActor): ActorSettings {
    if (asked === shape) return settings;
    const known = this.#chosenSettings.get(settings) ?? new Map<Shape, ActorSettings>();
    this.#chosenSettings.set(settings, known);
    const { alternatives: _, ...rest } = settings;
    const chosen = known.get(shape) ?? { ...rest, demand: shape.demand };
    known.set(shape, chosen);
    return chosen;
  }

  /** Run a call. @param replaying Only its effect on the state is wanted. */
  call(actor: NodeActor, call: CallRecord, replaying: boolean): void {
    const { isolate } = actor;
    if (isolate?.client === undefined) return;
    this.#node.define(isolate, call);
    const handle = this.execution();
    isolate.nextExecution++;
    isolate.residents!.calls.set(handle, call);
    isolate.client.job = call.job;
    call.execution = handle;
    this.#node.send(isolate.client, {
      type: "executeCall",
      handle,
      instance: actor.instance,
      attempt: ++call.sends,
      replaying: replaying || call.restored,
      silent: replaying,
      task: call.id,
      job: call.job,
      fn: call.fn.index,
      settings: call.entry.index,
      dependencies: call.dependencies.length === 0 ? NO_DEPENDENCIES : this.#node.argumentsOf(call),
      args: call.args,
    });
  }

  /** A call that runs is told that nobody wants it any more. */
  abort({ actor, execution, entry }: CallRecord): void {
    const client = actor.isolate?.client;
    if (client === undefined || execution < 0) return;
    const reason = `${entry.settings.name} is no longer wanted`;
    this.#node.send(client, { type: "abort", handle: execution, reason });
  }

  /** Save an actor's state as it is after all that was sent. @param object What it is to be. */
  checkpoint(actor: NodeActor, object: ObjectId): void {
    const { instance } = actor;
    this.#tell(actor, "checkpoint", (handle) => ({ type: "checkpointActor", handle, instance, object }));
  }

  /** Let go of an actor. @param hook Whether its `onStop` is called first. */
  stop(actor: NodeActor, hook: boolean): void {
    const { instance } = actor;
    this.#tell(actor, "stop", (handle) => ({ type: "stopActor", handle, instance, hook }));
  }

  /** Has an isolate do something to an actor other than a call. */
  #tell(
    actor: NodeActor,
    kind: "construct" | "checkpoint" | "stop",
    message: (handle: number) => FromNode,
  ): void {
    const { isolate } = actor;
    if (isolate?.client === undefined) return;
    const handle = this.execution();
    isolate.nextExecution++;
    isolate.residents!.works.set(handle, { actor, kind });
    this.#node.send(isolate.client, message(handle));
  }
}

const EXECUTIONS_MAX = 2 ** 29;
const NO_DEPENDENCIES: readonly Dependency[] = Object.freeze([]);
