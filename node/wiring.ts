/**
 * How a node's parts serve its actors and its dealings with other nodes, which know no more of it than they are handed.
 *
 * @module
 */

import { type ObjectId, taskIdFromHex } from "../core/ids.ts";
import { mayRunOn } from "../core/placement.ts";
import type { ActorServices } from "./actor_services.ts";
import type { ClusterServices } from "./cluster.ts";
import { shapeOf } from "./definitions.ts";
import type { NodeParts } from "./parts.ts";

/** What actors need of their node. */
export function actorServices(node: NodeParts): ActorServices {
  const { options, submissions, executions, results, isolates } = node;
  return {
    clock: node.clock,
    faults: node.faults,
    pool: node.pool,
    directory: node.directory,
    store: node.store,
    tasks: node.tasks,
    clients: node.clients,
    isLocal: (job) => node.programs.has(job),
    now: () => node.now(),
    closed: () => node.closed,
    flush: () => node.flush(),
    log: options.log,
    send: (client, message) => node.send(client, message),
    shape: (settings) => shapeOf(node.shapes, settings),
    settings: (settings) => node.definitions.settings(settings),
    admit: (task) => submissions.admit(task),
    awaitArguments: (task, missing) => executions.dependencies.hold(task, missing),
    adopt: (client, message) => submissions.adopt(client, message),
    limitTime: (task) => submissions.limitTime(task),
    define: (isolate, task) => executions.define(isolate, task),
    argumentsOf: (task) => executions.argumentsOf(task),
    finish: (task, outcomes) => results.finish(task, outcomes),
    fail: (task, error) => results.fail(task, error),
    failWith: (task, outcome) => results.finishWith(task, outcome),
    unuse: (task) => submissions.unuse(task),
    drop: (id, outcome) => results.drop(id, outcome),
    startIsolate: (residents) => isolates.start(residents),
    endIsolate: (isolate) => isolates.end(isolate, false),
    dispatch: () => executions.step({ type: "tick", now: node.now() }),
    mayBeHere: (placement) => mayRunOn(placement, node.place),
    id: options.id,
    nodeOf: (client) => node.cluster?.nodeOf(client),
    provide: (id) => node.objects.provide(id),
    holdForHeirs: (ids) => node.holdForHeirs(ids),
    remembered: (task) => node.faults.has("end-answers") ? undefined : node.rebuilder.remembered(task),
    kept: (call) => node.cluster?.actors.keep(call),
    forgotten: (call) => {
      if (node.actors.has(call.actor)) node.actors.forget(call);
      else node.cluster?.actors.forget(call);
    },
    madeHere: (actor) => node.cluster?.actors.madeHere(actor),
    recall: (call) => node.cluster?.recall(call),
    tookOver: (call) => node.cluster?.actors.letActorGo(call),
    surrendered: (actor, calls, given) => {
      // What was said to peers and not sent could tell of what is void.
      for (const client of given ? [] : node.clients.values()) {
        if (client.role === "peer") client.channel.close();
      }
      node.cluster?.actors.surrendered(actor, calls);
      // It may be this node that the actor was given to, which had it made as if there were none.
      node.restorer?.restore(actor);
    },
    ...names(node),
  };
}

/** How soon it is looked again whether an actor has come to its name. */
const FIND_AGAIN_MS = 20;

/** How names of actors hold in the whole cluster. */
function names(node: NodeParts): Pick<ActorServices, "registry" | "findName"> {
  const { abroad } = node.options;
  if (abroad === undefined) return {};
  return {
    registry: abroad.registry,
    findName: async (client, namespace, name) => {
      let found = await abroad.registry.findName(namespace, name);
      while (found?.certain === false && !node.closed && node.clients.has(client.id)) {
        await new Promise<void>((resolve) => node.clock.after(FIND_AGAIN_MS, resolve));
        found = await abroad.registry.findName(namespace, name);
      }
      if (found === undefined || !node.clients.has(client.id)) return undefined;
      const { id, module, name: className, node: where } = found;
      const actor = taskIdFromHex(id);
      const reached = await node.cluster!.actors.found(client, actor, where);
      if (reached === undefined || !node.clients.has(client.id)) return undefined;
      if (reached === "here") node.directory.retain(client.id, [actor as string as ObjectId]);
      return { id, module, name: className };
    },
  };
}

/** What dealings with other nodes need of this one. */
export function clusterServices(node: NodeParts): ClusterServices {
  const { options, submissions, executions, results } = node;
  const { scheduler } = executions;
  return {
    id: options.id,
    labels: options.labels ?? {},
    directory: node.directory,
    faults: node.faults,
    pool: node.pool,
    tasks: node.tasks,
    clients: node.clients,
    now: () => node.now(),
    log: options.log,
    send: (client, message) => node.send(client, message),
    soon: (work) => {
      node.clock.after(0, () => {
        if (node.closed) return;
        work();
        node.flush();
      });
    },
    hasActor: (id) => node.actors.has(id),
    locate: (id) => options.abroad!.registry.get(id),
    enterFor: (creation, settings, at) =>
      node.actors.journals!.enterFor(creation, settings, at).catch(() => {
        // The connection is closed for good: the node is ending.
      }),
    takeOver: (call) => node.actors.takeOver(call),
    killHere: (actor, restart) => node.actors.kill(actor, restart),
    awaitDeathHere: (client, request, actor) => node.actors.awaitDeath(client, request, actor),
    expectFar: (call) => node.actors.answers.expectFar(call),
    shape: (settings) => shapeOf(node.shapes, settings),
    settings: (settings) => node.definitions.settings(settings),
    after: (ms, work) =>
      node.clock.after(ms, () => {
        if (node.closed) return;
        work();
        node.flush();
      }),
    flush: () => node.flush(),
    admit: (task) => submissions.admit(task),
    limitTime: (task) => submissions.limitTime(task),
    ready: (task) => executions.step({ type: "ready", task, now: node.now() }),
    settle: (task, index, outcome) => results.settle(task, index, outcome),
    finish: (task, outcomes) => results.finish(task, outcomes),
    fail: (task, error) => results.fail(task, error),
    announce: (record) => results.announce(record),
    remake: (record) => node.rebuilder.remakeForeign(record),
    comesWith: (object, task) => node.rebuilder.lineage.containerOf(object)?.task.id === task,
    isHere: (record) => node.objects.keepsBytes(record),
    giveAway: (accept) => scheduler.giveAway(accept),
    backlog: () => ({
      queued: scheduler.queued,
      waitedMs: scheduler.waitedMs(node.now()),
      meanMs: node.meanMs,
      lanes: node.lanes,
    }),
    checkGroup: (task) => node.groups.check(task),
    output: (message) => node.programs.output(message),
  };
}
