/**
 * The actor table against a simple model: random calls, deaths, checkpoints and cancellations, in any order. A failing
 * run prints its seed and path; pass them to `fc.assert` to repeat it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type ActorSettings, parseActorOptions } from "../core/actor_options.ts";
import type { TaskId } from "../core/ids.ts";
import { type ActorEffect, ActorEntry, ActorTable, type CallPhase, type TableCall } from "../node/actors.ts";

class Call implements TableCall {
  readonly label = "call";
  readonly logBytes = 100;
  phase: CallPhase = "new";
  ready = false;
  answered = false;
  applied = false;
  failures = 0;
  /** What its caller was told, and how often; and how often its arguments were let go of. */
  answers: (number | string)[] = [];
  /** The state after it, as it ran for the first time. */
  value: number | undefined;
  forgotten = 0;
  constructor(readonly index: number, readonly caller: TaskId, readonly retries = 0) {}
}

type Actor = ActorEntry<Call>;
type Command =
  | { kind: "construct" }
  | { kind: "call"; call: Call; replaying: boolean }
  | { kind: "checkpoint" }
  | { kind: "stop" };
type Answer =
  | { kind: "constructed" }
  | { kind: "done"; call: Call; ran: boolean; value: number; replaying: boolean }
  | { kind: "checkpointed"; state: number[] | undefined }
  | { kind: "stopped" };

/** One actor, its isolate, and what travels between: the isolate works and answers when it is told to. */
class World {
  readonly table = new ActorTable<Actor, Call>();
  readonly actor: Actor;
  readonly calls: Call[] = [];
  isolate: { state: number[] | undefined; inbox: Command[]; outbox: Answer[] } | undefined;
  saved: number[] | undefined;
  aborted = new Set<Call>();
  now = 0;
  placing = false;
  dead = false;
  /** Answered calls that the last isolate was sent again. */
  replayed = 0;
  savable = true;

  constructor(settings: ActorSettings) {
    this.actor = new ActorEntry<Call>(settings);
    this.step({ type: "created", actor: this.actor, now: 0 });
  }

  step(event: Parameters<ActorTable<Actor, Call>["step"]>[0]): void {
    for (const effect of this.table.step(event)) this.perform(effect);
  }

  perform(effect: ActorEffect<Actor, Call>): void {
    switch (effect.type) {
      case "place":
        assert(!this.placing && this.isolate === undefined, "placed twice");
        this.placing = true;
        return;
      case "construct":
        this.isolate!.inbox.push({ kind: "construct" });
        return;
      case "send":
        assert(effect.call.ready, "a call is sent before its arguments exist");
        if (effect.replaying) this.replayed++;
        this.isolate!.inbox.push({ kind: "call", call: effect.call, replaying: effect.replaying });
        return;
      case "abort":
        this.aborted.add(effect.call);
        return;
      case "fail":
        effect.call.answers.push(effect.why);
        return;
      case "forget":
        effect.call.forgotten++;
        return;
      case "checkpoint":
        this.isolate!.inbox.push({ kind: "checkpoint" });
        return;
      case "stop":
        this.isolate!.inbox.push({ kind: "stop" });
        return;
      case "vacate":
        this.isolate = undefined;
        this.placing = false;
        return;
      case "dead":
        this.dead = true;
        return;
    }
  }

  call(caller: number, ready: boolean, retries = 0): Call {
    const call = new Call(this.calls.length, `caller${caller}` as TaskId, retries);
    this.calls.push(call);
    this.step({ type: "call", actor: this.actor, call, ready });
    return call;
  }

  place(): void {
    if (!this.placing) return;
    this.placing = false;
    this.replayed = 0;
    this.aborted.clear();
    this.isolate = { state: undefined, inbox: [], outbox: [] };
    this.step({ type: "placed", actor: this.actor, now: this.now });
  }

  /** The isolate does the next thing that it was told. */
  work(): void {
    const { isolate } = this;
    const command = isolate?.inbox.shift();
    if (isolate === undefined || command === undefined) return;
    switch (command.kind) {
      case "construct":
        isolate.state = [...this.saved ?? []];
        isolate.outbox.push({ kind: "constructed" });
        return;
      case "call": {
        const { call, replaying } = command;
        const ran = !this.aborted.has(call) || replaying;
        if (ran) isolate.state!.push(call.index);
        isolate.outbox.push({ kind: "done", call, ran, value: isolate.state!.length, replaying });
        return;
      }
      case "checkpoint":
        isolate.outbox.push({ kind: "checkpointed", state: this.savable ? [...isolate.state!] : undefined });
        return;
      case "stop":
        isolate.outbox.push({ kind: "stopped" });
        return;
    }
  }

  /** The node hears the next thing that the isolate said. */
  hear(): void {
    const answer = this.isolate?.outbox.shift();
    if (answer === undefined) return;
    const { actor, now } = this;
    switch (answer.kind) {
      case "constructed":
        return this.step({ type: "constructed", actor, now });
      case "done": {
        const { call, ran, value, replaying } = answer;
        if (!call.answered) call.answers.push(value);
        if (replaying) assertEquals(value, call.value, "a replay ends as the first run did");
        else if (ran) call.value = value;
        return this.step({ type: "done", actor, call, ran, now });
      }
      case "checkpointed":
        if (answer.state !== undefined) this.saved = answer.state;
        return this.step({ type: "checkpointed", actor, saved: answer.state !== undefined, now });
      case "stopped":
        return this.step({ type: "stopped", actor });
    }
  }

  die(blame: boolean): void {
    if (this.isolate === undefined) return;
    this.isolate = undefined;
    this.step({ type: "isolateGone", actor: this.actor, reason: "it was killed", blame });
  }

  cancel(call: Call): void {
    if (call.answered) return;
    call.answers.push("cancelled");
    this.step({ type: "removed", actor: this.actor, call });
  }

  arrive(call: Call): void {
    if (!call.ready && !call.answered) this.step({ type: "ready", actor: this.actor, call });
  }

  /** Everything that is under way comes to its end. */
  finish(): void {
    for (const call of this.calls) this.arrive(call);
    for (let i = 0; i < 100_000; i++) {
      this.place();
      this.work();
      this.hear();
      if (!this.placing && !this.isolate?.inbox.length && !this.isolate?.outbox.length) return;
    }
    throw new Error("it never comes to rest");
  }
}

const settings = (options: Parameters<typeof parseActorOptions>[0], virtual = false) =>
  parseActorOptions(options, "Model", virtual);

const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("call" as const), caller: fc.nat(3), ready: fc.boolean() }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("work" as const) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("hear" as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("arrive" as const), of: fc.nat(200) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("place" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("die" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cancel" as const), of: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("tick" as const) }) },
);

function run(
  world: World,
  actions: readonly (typeof action extends fc.Arbitrary<infer A> ? A : never)[],
): void {
  for (const each of actions) {
    world.now += 10;
    switch (each.do) {
      case "call":
        world.call(each.caller, each.ready, each.caller === 0 ? 2 : 0);
        break;
      case "work":
        world.work();
        break;
      case "hear":
        world.hear();
        break;
      case "arrive":
        if (world.calls.length > 0) world.arrive(world.calls[each.of % world.calls.length]!);
        break;
      case "place":
        world.place();
        break;
      case "die":
        // Deaths without a blame: a call that kills its isolate each time is another matter.
        world.die(false);
        break;
      case "cancel":
        if (world.calls.length > 0) world.cancel(world.calls[each.of % world.calls.length]!);
        break;
      case "tick":
        world.step({ type: "tick", actor: world.actor, now: world.now });
        break;
    }
  }
  world.finish();
}

/** Each call ended once, its arguments were let go of at most once, and the state has the answered ones in order. */
function check(world: World): void {
  for (const call of world.calls) {
    assertEquals(call.answers.length, 1, `call ${call.index} ends exactly once`);
    assert(call.forgotten <= 1, "arguments are let go of once");
  }
  assertEquals(world.actor.unanswered, 0);
}

Deno.test("ActorTable applies each call of a durable actor once and in its caller's order, whatever dies", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), fc.integer({ min: 1, max: 20 }), (actions, every) => {
      const world = new World(settings({ checkpoint: { every } }));
      run(world, actions);
      check(world);
      // Once more from what is kept: the state must be the same.
      const state = world.isolate?.state ?? [];
      world.die(false);
      world.finish();
      assertEquals(world.isolate?.state, state);
      assert(
        world.replayed <= every,
        `${world.replayed} calls were replayed, with a checkpoint every ${every}`,
      );
      assertEquals(new Set(state).size, state.length, "each is applied once");
      for (const call of world.calls) {
        const [answer] = call.answers;
        if (typeof answer === "number") {
          assertEquals(state[answer - 1], call.index, "it was applied where it was told");
        } else assertEquals(answer, "cancelled");
      }
      for (let caller = 0; caller < 4; caller++) {
        const order = state.filter((index) => world.calls[index]!.caller === `caller${caller}`);
        assertEquals(order, order.toSorted((a, b) => a - b), "a caller's calls keep their order");
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("ActorTable keeps all calls of a durable actor that cannot be saved", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      const world = new World(settings({ checkpoint: { every: 3 } }));
      world.savable = false;
      run(world, actions);
      check(world);
      const state = world.isolate?.state;
      world.die(false);
      world.finish();
      assertEquals(world.isolate?.state, state);
    }),
    { numRuns: 200 },
  );
});

Deno.test("ActorTable applies each call of another actor at most once for each retry, and ends it once", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const world = new World(settings({ durable: false, restarts: "always" }));
      run(world, actions);
      check(world);
      for (const { answers } of world.calls) assert(["number", "string"].includes(typeof answers[0]));
    }),
    { numRuns: 300 },
  );
});

Deno.test("ActorTable puts an idle virtual actor to sleep and wakes it without losing anything", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const world = new World(settings({ idle: 20 }, true));
      run(world, actions);
      check(world);
      const [answered] = [world.calls.filter((call) => typeof call.answers[0] === "number").length];
      world.now += 100;
      for (let i = 0; i < 3; i++) {
        world.step({ type: "tick", actor: world.actor, now: world.now += 100 });
        world.finish();
      }
      if (answered > 0) assertEquals(world.actor.state, "asleep");
      const call = world.call(1, true);
      world.finish();
      assert(typeof call.answers[0] === "number" && call.answers[0] > answered);
    }),
    { numRuns: 300 },
  );
});

Deno.test("ActorTable never lets more calls in than maxPending", () => {
  fc.assert(
    fc.property(
      fc.array(action, { maxLength: 150 }),
      fc.integer({ min: 1, max: 5 }),
      (actions, maxPending) => {
        const world = new World(settings({ maxPending }));
        run(world, actions);
        check(world);
        assert(world.actor.unanswered <= maxPending);
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("ActorTable fails all calls of an actor that is killed, and all later ones", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), fc.array(action, { maxLength: 30 }), (before, after) => {
      const world = new World(settings({}));
      for (const each of before) if (each.do === "call") world.call(each.caller, each.ready);
      world.step({ type: "kill", actor: world.actor, reason: "killed" });
      assert(world.dead);
      run(world, after);
      check(world);
      for (const { answers } of world.calls) assertEquals(answers, ["died"]);
    }),
  );
});

Deno.test("ActorTable gives an actor up whose isolate dies three times under the same call", () => {
  const world = new World(settings({}));
  world.call(0, true);
  world.finish();
  const killer = world.call(0, true);
  for (let i = 0; i < 3; i++) {
    world.place();
    world.work();
    world.die(true);
  }
  assertEquals([world.dead, killer.answers], [true, ["died"]]);
});

Deno.test("ActorTable stops an actor that was let go of after its last call", () => {
  const world = new World(settings({}));
  const call = world.call(0, true);
  world.step({ type: "released", actor: world.actor });
  assertEquals(world.dead, false);
  world.finish();
  assertEquals([world.dead, call.answers], [true, [1]]);
});
