/**
 * The actor table: every actor of a node, the calls that wait for it or run in it, and the log of a durable one.
 *
 * The node is the sequencer: all calls of an actor pass this machine, so the order in which it sends them on is the
 * order of execution. A durable actor's calls are kept from when they are sent until a checkpoint covers them; when its
 * isolate dies, what was answered is sent again to be *replayed* (only its effect on the state is wanted), and then
 * what was not answered, whose effect has died with the isolate: so each call is applied exactly once.
 *
 * Results come back in the order of sending, as a durable actor takes one call at a time; so what was answered is the
 * log's beginning, and nobody has seen an effect of what comes after it.
 *
 * Pure: no clock, no sockets. `step` takes an event and adds what is to be done, in order.
 *
 * @module
 */

// @ts-types="../scheduler/std_deque.d.ts"
import { Deque } from "@std/data-structures/deque";
import type { ActorSettings } from "../core/actor_options.ts";
import type { TaskId } from "../core/ids.ts";
import { ACTOR_FRUITLESS_STARTS_MAX, ACTOR_LOG_BYTES_MAX, ACTOR_WINDOW_CALLS } from "../core/limits.ts";
import { unreachable } from "../core/unreachable.ts";

/** A call, as the table sees it; the fields below `logBytes` are the table's own. */
export interface TableCall {
  /** Whose line it stands in: the task that makes the call. */
  readonly caller: TaskId;
  /** How often it is made again when an actor that is not durable dies under it. */
  readonly retries: number;
  /** Its name, for people. */
  readonly label: string;
  /** What it takes in a log. */
  readonly logBytes: number;
  phase: CallPhase;
  /** Its arguments exist. */
  ready: boolean;
  /** Its caller has an answer, from the actor or an error. */
  answered: boolean;
  /** The actor has run it and answered it: what is left of it is its place in the log. */
  applied: boolean;
  failures: number;
}

/** Where a call is: in its caller's line, in the actor's queue, with the isolate, or nowhere. */
export type CallPhase = "new" | "held" | "queued" | "sent" | "ended";

/** Where an actor is. */
export type ActorState = "pending" | "starting" | "alive" | "stopping" | "asleep" | "dead";

/** One actor. */
export class ActorEntry<C extends TableCall> {
  readonly settings: ActorSettings;
  /** Calls that may be with the isolate at once: all that may run, which may wait for others yet to come, and some ahead. */
  readonly window: number;
  state: ActorState;
  /** Lines of callers whose first call waits for its arguments. */
  readonly held = new Map<TaskId, C[]>();
  /** Ready, not sent yet. */
  readonly queue = new Deque<C>();
  /** With the isolate, in the order of sending. */
  readonly sent = new Set<C>();
  /** Of a durable actor: what was sent since the last checkpoint; a call that never ran is `undefined`. */
  log: (C | undefined)[] = [];
  logBytes = 0;
  /** How much of the log the present instance was sent. */
  replayed = 0;
  /** Calls without an answer. */
  unanswered = 0;
  /** Calls sent since the last checkpoint was asked for. */
  sinceCheckpoint = 0;
  /** How much of the log each checkpoint under way will cover, in order. */
  covering: number[] = [];
  checkpointedAt = 0;
  /** When its last call ended. */
  activeAt = 0;
  restarts = 0;
  /** Deaths in a row without a new answer. */
  fruitless = 0;
  /** Nobody can reach it any more: it stops when its calls have ended. */
  released = false;
  /** It is to sleep once its state is saved. */
  drowsy = false;
  /** Why it is dead. */
  reason = "";

  /** @param settings What was asked for. */
  constructor(settings: ActorSettings) {
    this.settings = settings;
    this.window = ACTOR_WINDOW_CALLS + settings.concurrency - 1;
    for (const limit of Object.values(settings.groups)) this.window += limit;
    this.state = settings.virtual ? "asleep" : "pending";
  }
}

/** Why a call fails: the actor is dead, comes back, or has too much to do. */
export type CallFailure = "died" | "restarting" | "limit" | "logFull";

/** What happens to an actor. Times are in milliseconds. */
export type ActorEvent<A, C> =
  /** It was created; its constructor's arguments exist. */
  | { readonly type: "created"; readonly actor: A; readonly now: number }
  /** It was on a node that is gone: calls since its checkpoint, if it has one, are to run again. */
  | {
    readonly type: "restored";
    readonly actor: A;
    readonly log: readonly (C | undefined)[];
    readonly now: number;
  }
  /** It has its resources, and an isolate that is up. */
  | { readonly type: "placed"; readonly actor: A; readonly now: number }
  | { readonly type: "constructed"; readonly actor: A; readonly now: number }
  | { readonly type: "call"; readonly actor: A; readonly call: C; readonly ready: boolean }
  /** The arguments of a call exist now. */
  | { readonly type: "ready"; readonly actor: A; readonly call: C }
  /** The isolate is done with a call; `ran` is false of one that was aborted before it started. */
  | {
    readonly type: "done";
    readonly actor: A;
    readonly call: C;
    readonly ran: boolean;
    readonly now: number;
  }
  /** A call's caller has got an error: it was cancelled, is out of time, or an argument of it failed. */
  | { readonly type: "removed"; readonly actor: A; readonly call: C }
  /** Its state is to be saved as soon as that can be. */
  | { readonly type: "save"; readonly actor: A }
  | { readonly type: "checkpointed"; readonly actor: A; readonly saved: boolean; readonly now: number }
  /** Its isolate is gone. `blame` is false when that was not the actor's doing. */
  | { readonly type: "isolateGone"; readonly actor: A; readonly reason: string; readonly blame: boolean }
  | { readonly type: "kill"; readonly actor: A; readonly reason: string }
  /** No handle is left. */
  | { readonly type: "released"; readonly actor: A }
  /** The isolate has let go of the instance, as it was told. */
  | { readonly type: "stopped"; readonly actor: A }
  /** Time has passed; of actors that sleep, or save their state by time. */
  | { readonly type: "tick"; readonly actor: A; readonly now: number };

/** What the table wants done, in order. */
export type ActorEffect<A, C> =
  /** Find resources and an isolate; answer with `placed`. */
  | { readonly type: "place"; readonly actor: A }
  /** Construct it, from its newest checkpoint if there is one; answer with `constructed`. */
  | { readonly type: "construct"; readonly actor: A }
  | { readonly type: "send"; readonly actor: A; readonly call: C; readonly replaying: boolean }
  | { readonly type: "abort"; readonly actor: A; readonly call: C }
  | { readonly type: "fail"; readonly actor: A; readonly call: C; readonly why: CallFailure }
  /** A call of the log has never run, and will not: its place in the log is empty. */
  | { readonly type: "unlog"; readonly actor: A; readonly call: C }
  /** A call will never be sent again: its arguments may go. */
  | { readonly type: "forget"; readonly actor: A; readonly call: C }
  /** Save its state as it is after all that was sent; answer with `checkpointed`. */
  | { readonly type: "checkpoint"; readonly actor: A }
  /** Let go of the instance, after `onStop` if `hook`; answer with `stopped`. */
  | { readonly type: "stop"; readonly actor: A; readonly hook: boolean }
  /** Give back resources and isolate. */
  | { readonly type: "vacate"; readonly actor: A }
  | { readonly type: "dead"; readonly actor: A };

/** The machine; it has no state but that of the actors. */
export class ActorTable<A extends ActorEntry<C>, C extends TableCall> {
  #effects: ActorEffect<A, C>[] = [];

  /**
   * Takes an event.
   *
   * @param event What has happened.
   * @param effects Where what is to be done is added, in order.
   */
  step(event: ActorEvent<A, C>, effects: ActorEffect<A, C>[] = []): ActorEffect<A, C>[] {
    this.#effects = effects;
    const { actor } = event;
    if (actor.state === "dead" && event.type !== "call") return effects;
    switch (event.type) {
      case "created":
        actor.activeAt = actor.checkpointedAt = event.now;
        if (actor.state === "pending") effects.push({ type: "place", actor });
        break;
      case "restored":
        this.#restored(actor, event.log, event.now);
        break;
      case "placed":
        if (actor.state !== "pending") break;
        actor.state = "starting";
        actor.activeAt = actor.checkpointedAt = event.now;
        effects.push({ type: "construct", actor });
        this.#pump(actor);
        break;
      case "constructed":
        if (actor.state !== "starting") break;
        actor.state = "alive";
        this.#pump(actor);
        this.#settle(actor);
        break;
      case "call":
        this.#call(actor, event.call, event.ready);
        break;
      case "ready":
        event.call.ready = true;
        if (event.call.phase === "held") this.#advance(actor, event.call.caller);
        this.#pump(actor);
        break;
      case "done":
        this.#done(actor, event.call, event.ran, event.now);
        break;
      case "removed":
        this.#removed(actor, event.call);
        break;
      case "save":
        if (actor.state === "alive" && actor.covering.length === 0 && actor.replayed === actor.log.length) {
          this.#checkpoint(actor);
        }
        break;
      case "checkpointed":
        this.#checkpointed(actor, event.saved, event.now);
        break;
      case "isolateGone":
        this.#isolateGone(actor, event.reason, event.blame);
        break;
      case "kill":
        this.#die(actor, event.reason);
        break;
      case "released":
        actor.released = true;
        this.#settle(actor);
        break;
      case "stopped":
        if (actor.state !== "stopping") break;
        effects.push({ type: "vacate", actor });
        if (actor.drowsy) this.#sleep(actor);
        else this.#die(actor, "no handle to it was left");
        break;
      case "tick":
        this.#tick(actor, event.now);
        break;
      default:
        unreachable(event);
    }
    return effects;
  }

  #restored(actor: A, log: readonly (C | undefined)[], now: number): void {
    actor.activeAt = actor.checkpointedAt = now;
    for (const call of log) {
      if (call === undefined) {
        actor.log.push(undefined);
        continue;
      }
      call.phase = "ended"; // until it is sent
      call.ready = true;
      actor.log.push(call);
      actor.logBytes += call.logBytes;
      actor.unanswered++;
    }
    actor.sinceCheckpoint = log.length;
    if (actor.state === "asleep" && log.length > 0) this.#wake(actor);
    else if (actor.state === "pending") this.#effects.push({ type: "place", actor });
  }

  #call(actor: A, call: C, ready: boolean): void {
    const { maxPending, durable } = actor.settings;
    call.ready = ready;
    const why: CallFailure | undefined = actor.state === "dead" || actor.state === "stopping" && !actor.drowsy
      ? "died"
      : maxPending > 0 && actor.unanswered >= maxPending
      ? "limit"
      : durable && actor.logBytes > ACTOR_LOG_BYTES_MAX
      ? "logFull"
      : undefined;
    if (why !== undefined) {
      call.phase = "ended";
      call.answered = true;
      this.#effects.push({ type: "fail", actor, call, why }, { type: "forget", actor, call });
      return;
    }
    actor.unanswered++;
    const line = actor.held.size === 0 ? undefined : actor.held.get(call.caller);
    if (line !== undefined) {
      call.phase = "held";
      line.push(call);
    } else if (!ready) {
      call.phase = "held";
      actor.held.set(call.caller, [call]);
    } else {
      call.phase = "queued";
      actor.queue.pushBack(call);
    }
    if (actor.state === "asleep") this.#wake(actor);
    this.#pump(actor);
  }

  /** Moves what is ready at the front of a caller's line to the queue. */
  #advance(actor: A, caller: TaskId): void {
    const line = actor.held.get(caller);
    if (line === undefined) return;
    let moved = 0;
    for (; moved < line.length; moved++) {
      const call = line[moved]!;
      if (call.phase !== "held") continue; // it has failed meanwhile
      if (!call.ready) break;
      call.phase = "queued";
      actor.queue.pushBack(call);
    }
    if (moved === line.length) actor.held.delete(caller);
    else line.splice(0, moved);
  }

  /** Sends what may be sent: first what is to be run again, then what is new, with checkpoints between. */
  #pump(actor: A): void {
    if (actor.state !== "starting" && actor.state !== "alive") return;
    const { durable, checkpointCalls } = actor.settings;
    while (actor.sent.size < actor.window) {
      if (actor.replayed < actor.log.length) {
        const call = actor.log[actor.replayed++];
        if (call !== undefined) this.#send(actor, call);
        continue;
      }
      if (durable && checkpointCalls > 0 && actor.sinceCheckpoint >= checkpointCalls) this.#checkpoint(actor);
      const call = actor.queue.popFront();
      if (call === undefined) return;
      if (call.phase !== "queued") continue; // it has failed meanwhile
      if (durable) {
        actor.log.push(call);
        actor.replayed = actor.log.length;
        actor.logBytes += call.logBytes;
        actor.sinceCheckpoint++;
      }
      this.#send(actor, call);
    }
  }

  #send(actor: A, call: C): void {
    call.phase = "sent";
    actor.sent.add(call);
    this.#effects.push({ type: "send", actor, call, replaying: call.applied });
  }

  #checkpoint(actor: A): void {
    actor.covering.push(actor.log.length);
    actor.sinceCheckpoint = 0;
    this.#effects.push({ type: "checkpoint", actor });
  }

  #done(actor: A, call: C, ran: boolean, now: number): void {
    if (!actor.sent.delete(call)) return;
    call.phase = "ended";
    actor.activeAt = now;
    if (!call.applied) {
      actor.fruitless = 0;
      this.#answered(actor, call);
      if (actor.settings.durable && ran) call.applied = true;
      else this.#unlog(actor, call);
    }
    this.#pump(actor);
    this.#settle(actor);
  }

  #answered(actor: A, call: C): void {
    if (call.answered) return;
    call.answered = true;
    actor.unanswered--;
  }

  /** A call will not be sent again. */
  #unlog(actor: A, call: C): void {
    if (actor.settings.durable) {
      // What never ran is among the newest.
      const at = actor.log.lastIndexOf(call);
      if (at >= 0) {
        actor.log[at] = undefined;
        actor.logBytes -= call.logBytes;
        this.#effects.push({ type: "unlog", actor, call });
      }
    }
    this.#effects.push({ type: "forget", actor, call });
  }

  #removed(actor: A, call: C): void {
    if (call.answered) return;
    this.#answered(actor, call);
    if (call.phase === "sent") {
      this.#effects.push({ type: "abort", actor, call });
      return;
    }
    const { phase } = call;
    call.phase = "ended";
    // One that was on its way when the isolate died is still in the log: it is not to be sent again.
    this.#unlog(actor, call);
    if (phase === "held") this.#advance(actor, call.caller);
    this.#pump(actor);
    this.#settle(actor);
  }

  #checkpointed(actor: A, saved: boolean, now: number): void {
    const covering = actor.covering.shift();
    if (covering === undefined) return;
    actor.checkpointedAt = now;
    if (saved) {
      for (let i = 0; i < covering; i++) {
        const call = actor.log[i];
        if (call === undefined) continue;
        actor.logBytes -= call.logBytes;
        this.#effects.push({ type: "forget", actor, call });
      }
      actor.log = actor.log.slice(covering);
      actor.replayed -= covering;
      actor.covering = actor.covering.map((length) => length - covering);
    } else if (actor.drowsy) {
      actor.drowsy = false;
      actor.activeAt = now;
    }
    this.#pump(actor);
    this.#settle(actor);
  }

  /** With nothing left to do, an actor that nobody can reach stops, and one that was idle for long goes to sleep. */
  #settle(actor: A): void {
    if (actor.unanswered > 0) {
      if (actor.state === "alive") actor.drowsy = false;
      return;
    }
    if (actor.released) {
      if (actor.state === "pending" || actor.state === "asleep") {
        this.#die(actor, "no handle to it was left");
      } else if (actor.state === "alive" && actor.sent.size === 0) {
        actor.drowsy = false;
        actor.state = "stopping";
        this.#effects.push({ type: "stop", actor, hook: true });
      }
    } else if (
      actor.drowsy && actor.state === "alive" && actor.covering.length === 0 && actor.log.length === 0
    ) {
      actor.state = "stopping";
      this.#effects.push({ type: "stop", actor, hook: false });
    }
  }

  #tick(actor: A, now: number): void {
    if (actor.state !== "alive" || actor.covering.length > 0 || !actor.settings.durable) return;
    const { virtual, idleMs, checkpointMs } = actor.settings;
    if (virtual && actor.unanswered === 0 && actor.sent.size === 0 && now - actor.activeAt >= idleMs) {
      actor.drowsy = true;
      if (actor.log.length > 0) this.#checkpoint(actor);
      else this.#settle(actor);
    } else if (checkpointMs > 0 && actor.log.length > 0 && now - actor.checkpointedAt >= checkpointMs) {
      if (actor.replayed === actor.log.length) this.#checkpoint(actor);
    }
  }

  #sleep(actor: A): void {
    actor.drowsy = false;
    actor.state = "asleep";
    if (actor.unanswered > 0) this.#wake(actor);
  }

  #wake(actor: A): void {
    actor.state = "pending";
    this.#effects.push({ type: "place", actor });
  }

  #isolateGone(actor: A, reason: string, blame: boolean): void {
    if (actor.state !== "starting" && actor.state !== "alive" && actor.state !== "stopping") return;
    const { durable, restarts } = actor.settings;
    actor.covering = [];
    this.#effects.push({ type: "vacate", actor });
    if (actor.state === "stopping") {
      if (actor.drowsy) this.#sleep(actor);
      else this.#die(actor, reason);
      return;
    }
    let first: C | undefined;
    for (const call of actor.sent) if (!call.applied && first === undefined) first = call;
    if (blame) {
      if (actor.restarts >= restarts) return this.#die(actor, reason);
      actor.restarts++;
      if (first !== undefined || actor.state === "starting") actor.fruitless++;
      if (actor.fruitless >= ACTOR_FRUITLESS_STARTS_MAX) {
        return this.#die(
          actor,
          `its isolate died ${actor.fruitless} times in a row without one new answer, the last time with ` +
            `${first === undefined ? "its constructor" : first.label} to be run: ${reason}`,
        );
      }
    }
    const again: C[] = [];
    for (const call of actor.sent) {
      if (call.applied) call.phase = "ended";
      else if (call.answered) {
        call.phase = "ended";
        this.#unlog(actor, call);
      } else if (durable) call.phase = "ended";
      else if (!blame || call.failures < call.retries) {
        if (blame) call.failures++;
        again.push(call);
      } else {
        call.phase = "ended";
        this.#answered(actor, call);
        this.#effects.push({ type: "fail", actor, call, why: "restarting" }, { type: "forget", actor, call });
      }
    }
    actor.sent.clear();
    for (const call of again.reverse()) {
      call.phase = "queued";
      actor.queue.pushFront(call);
    }
    actor.replayed = 0;
    actor.sinceCheckpoint = actor.log.length;
    actor.drowsy = false;
    this.#wake(actor);
    this.#settle(actor);
  }

  #die(actor: A, reason: string): void {
    actor.state = "dead";
    actor.reason = reason;
    const calls = new Set<C>();
    for (const call of actor.log) if (call !== undefined) calls.add(call);
    for (const call of actor.sent) calls.add(call);
    for (let call = actor.queue.popFront(); call !== undefined; call = actor.queue.popFront()) {
      if (call.phase === "queued") calls.add(call);
    }
    for (const line of actor.held.values()) {
      for (const call of line) if (call.phase === "held") calls.add(call);
    }
    actor.log = [];
    actor.logBytes = actor.unanswered = 0;
    actor.covering = [];
    actor.sent.clear();
    actor.held.clear();
    this.#effects.push({ type: "vacate", actor }, { type: "dead", actor });
    for (const call of calls) {
      call.phase = "ended";
      if (!call.answered) {
        call.answered = true;
        this.#effects.push({ type: "fail", actor, call, why: "died" });
      }
      this.#effects.push({ type: "forget", actor, call });
    }
  }
}
