/**
 * A simulated control store: members with the real machines, clients, a network that loses, doubles, delays and cuts, and
 * a fate that crashes, pauses and fills disks. All of it is drawn from one seed.
 *
 * After a time of trouble everything heals; then everybody has to be done within a deadline.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { random } from "../../bench/simulate/random.ts";
import type { TaskId } from "../../core/ids.ts";
import type { ChainConfig, MemberId } from "../../gcs/chain_config.ts";
import { type ChainFault, NO_FAULTS } from "../../gcs/chain_faults.ts";
import { PACE, type Pace } from "../../gcs/chain_member.ts";
import type { MemberMessage, ReplicaMessage } from "../../gcs/chain_messages.ts";
import type { GcsResult } from "../../gcs/shard.ts";
import { Checks } from "./checks.ts";
import { SimClient } from "./client.ts";
import { SimMember, type ToStore } from "./member.ts";
import { Timeline } from "./timeline.ts";

/** To a client. */
export type FromStore =
  | { readonly type: "answer"; readonly sequence: number; readonly results: readonly GcsResult[] }
  | { readonly type: "refused"; readonly sequence: number; readonly config: ChainConfig | undefined }
  | { readonly type: "config"; readonly config: ChainConfig | undefined };

/** What a run is. */
export interface Plan {
  readonly members: readonly MemberId[];
  readonly replicas: number;
  readonly clients: number;
  readonly operations: number;
  /** Whether another comes for each that goes. */
  readonly others: boolean;
  /** By how much longer what befalls members lasts: 1, or 10 as members are as slow as real ones. */
  readonly slowness: number;
  readonly pace: Pace;
  /** After how long a client asks again. */
  readonly retryMs: number;
  /** How long there is trouble. */
  readonly troubleMs: number;
  /** How often something happens to somebody. */
  readonly everyMs: number;
  readonly loss: number;
  readonly doubles: number;
  readonly delayMs: number;
  readonly strikes: number;
  /** How long a member collects what it is told before it writes; 0: not at all. */
  readonly turnMs: number;
  /** How many messages are late, and by how much at most. */
  readonly late: number;
  readonly lateMs: number;
  /** What a tail is told of changes and receipts is late, though what it is sent to keep is not. */
  readonly tailLate: boolean;
  /** How many reads go to whoever. */
  readonly astray: number;
  /** How long a client waits at most before it does something else. */
  readonly thinkMs: number;
}

/** What came of a run. */
export interface Outcome {
  readonly seed: number;
  /** The same for the same seed. */
  readonly hash: string;
  readonly virtualMs: number;
  readonly events: number;
  readonly committed: number;
  readonly epochs: number;
  readonly crashes: number;
  readonly leaves: number;
  readonly longestMs: number;
}

/** Who is not healed and done after so long, or so much that happens, never will be. */
const HEALED_MS_MAX = 20_000, HEALED_EVENTS_MAX = 100_000;

/** What a client does in a run whose length is given. */
const LONG_OPERATIONS = 400;

/** Members of short runs are in a hurry, so that much happens in little time. */
const HASTE: Pace = {
  tickMs: 25,
  suspectMs: 110,
  leaseMs: 90,
  leaveMsMax: 400,
  linger: { ms: 150, msMax: 1_000 },
};

/** How long nothing changes before all are told to leave, within what time, and how long those who lack the last of it are watched. */
const QUIET_MS = 200, STOPPING_MS = 120, ALONE_MS = 500;

const TAIL_LATE: ReadonlySet<string> = new Set(["ack", "decided", "position", "prepare", "accept"]);

/** One run. */
export class World {
  readonly plan: Plan;
  readonly faults: ReadonlySet<ChainFault>;
  readonly time = new Timeline();
  readonly checks = new Checks();
  readonly chance: () => number;
  readonly members: SimMember[] = [];
  readonly clients: SimClient[] = [];
  readonly keys = ["a", "b", "c"];
  longestMs = 0;
  #crashes = 0;
  #leaves = 0;
  #healed = false;
  #stopped = false;
  readonly #seed: number;
  readonly #cut = new Set<string>();
  /** The last tail that a member joined behind. */
  #tail: MemberId | undefined;

  /** @param seed Decides everything. @param faults What is planted. @param troubleMs How long there is trouble. */
  constructor(seed: number, faults: ReadonlySet<ChainFault> = NO_FAULTS, troubleMs?: number) {
    this.#seed = seed;
    this.faults = faults;
    this.chance = random(seed * 7919 + 17);
    this.plan = this.#draw(troubleMs);
    this.plan.members.forEach((id) => {
      this.members.push(new SimMember(id, this, 0.97 + this.chance() * 0.06, this.below(10_000)));
    });
    const chain = this.chance() < 0.4
      ? this.plan.members.slice(0, 1)
      : this.plan.members.slice(0, this.plan.replicas);
    for (const member of this.members) member.start(chain.includes(member.id) ? chain : []);
    for (let i = 0; i < this.plan.clients; i++) this.#comes();
    this.#trouble();
    this.time.after(this.plan.troubleMs, () => this.#heal());
  }

  /** Runs to the end. @throws {Error} If something that must hold does not. */
  run(): Outcome {
    while (!this.#healed) this.time.step();
    this.#until("all was healed", () => this.#settled());
    for (const client of this.clients) client.readAll();
    this.#until("all was read once more", () => this.#settled());
    if (this.chance() < 0.5) this.#stopAndStart();
    this.checks.finish();
    const states = new Set(this.#chain().map((member) => member.state()));
    assertEquals(states.size, 1, "the members of the chain differ");
    return {
      seed: this.#seed,
      hash: this.time.hash,
      virtualMs: this.time.now,
      events: this.time.events,
      committed: this.checks.length,
      epochs: this.#config()?.epoch ?? 0,
      crashes: this.#crashes,
      leaves: this.#leaves,
      longestMs: this.longestMs,
    };
  }

  /** Lets time go on until something holds. @throws {Error} If it does not come about. */
  #until(since: string, holds: () => boolean): void {
    const began = this.time.now;
    for (let step = 1; step % 64 !== 0 || !holds(); step++) {
      const late = this.time.now - began > HEALED_MS_MAX * this.plan.slowness || step > HEALED_EVENTS_MAX;
      if (!late && (this.time.step() || holds())) continue;
      const ms = (this.time.now - began).toFixed();
      throw new Error(`not done ${ms} ms and ${step} events after ${since}: ${this.#where()}`);
    }
  }

  /**
   * All members are stopped gently at about the same time: each gets to leave, the last one has everything, and that is
   * the founder if it had a part. The others do not go on without that one; it does without them.
   */
  #stopAndStart(): void {
    // Somebody may still have been on the way out.
    for (
      let since = this.time.now, epoch = 0;
      this.time.now < since + QUIET_MS * this.plan.slowness;
      this.time.step()
    ) {
      if (epoch === this.#config()!.epoch && this.#settled()) continue;
      epoch = this.#config()!.epoch;
      since = this.time.now;
    }
    this.#stopped = true;
    const config = this.#config()!;
    const lasts: SimMember[] = [];
    for (const member of this.members) {
      const left = () => {
        const { chain } = member.master!.config!;
        if (chain.length === 1 && chain[0] === member.id) lasts.push(member);
        this.#end(member);
      };
      this.time.after(this.#time(STOPPING_MS), () => member.leave("now", left));
    }
    this.#until("all were told to leave", () => this.members.every(({ running }) => !running));
    const [founder] = this.plan.members;
    assertEquals(lasts.length, 1, "as many were the last to leave");
    const last = lasts[0]!;
    const others = this.members.filter((member) => member !== last);
    assert(
      last.id === founder || !config.chain.includes(founder!),
      `${last.id} was the last to leave, not the founder`,
    );
    if (this.chance() < 0.5) {
      const until = this.time.now + ALONE_MS * this.plan.slowness;
      for (const member of others) member.start();
      for (let at = 0; at < until; at = this.time.now) {
        for (const { id, readable } of others) assert(!readable, `${id} has old data, and answers reads`);
        this.time.step();
      }
      last.start();
    } else {
      last.start();
      this.#until("the last one was started", () => last.readable);
      assertEquals(last.replica!.applied.seq, this.checks.length, "the last one to leave lacks something");
      for (const member of others) member.start();
    }
    this.#until("all were started again", () => this.#settled());
  }

  /** A whole number below `n`. */
  below(n: number): number {
    return Math.floor(this.chance() * n);
  }

  /** How long something lasts that befalls a member: below `n` milliseconds, and `least` more. */
  #time(n: number, least = 0): number {
    return (least + this.below(n)) * this.plan.slowness;
  }

  someMember(): MemberId {
    return this.plan.members[this.below(this.plan.members.length)]!;
  }

  /** A message between members. */
  send(from: MemberId, to: MemberId, message: MemberMessage | ReplicaMessage): void {
    const deliver = () => this.members.find(({ id }) => id === to)?.receive(from, message);
    const slow = this.plan.tailLate && !this.#healed && TAIL_LATE.has(message.type) && to === this.#tail;
    if (slow && this.chance() < 0.7) this.time.after(this.#time(80), () => this.#carry(from, to, deliver));
    else this.#carry(from, to, deliver);
  }

  /** A message of a client. */
  ask(client: SimClient, to: MemberId, message: ToStore): void {
    const member = this.members.find(({ id }) => id === to)!;
    const reply = (answer: FromStore) => this.#reply(to, client, answer);
    this.#carry(client.id, to, () => {
      // What comes on a connection ends with it: whoever lets a client expire has closed it.
      if (!client.gone || message.type === "gone") member.request(reply, message);
    });
  }

  /** A member answers a client's write. */
  answer(from: MemberId, client: TaskId, message: FromStore): void {
    const found = this.clients.find(({ id }) => id === client);
    if (found !== undefined) this.#reply(from, found, message);
  }

  /** Whether fate ends the process of a member between two of its effects. */
  strikes(member: SimMember): boolean {
    if (this.#healed || this.chance() >= this.plan.strikes) return false;
    this.crash(member);
    return true;
  }

  /** There is a new configuration. While a member joins, now and then the tail hears nobody for a while. */
  changed(config: ChainConfig): void {
    if (config.joining !== undefined) this.#tail = config.chain.at(-1);
    if (this.#healed || config.joining === undefined || this.chance() < 0.6) return;
    const tail = config.chain.at(-1)!;
    const forMs = this.#time(120, 40);
    this.time.after(this.#time(50), () => {
      for (const { id } of this.members) {
        if (id === tail || this.#healed) continue;
        this.#cut.add(`${id}>${tail}`);
        this.time.after(forMs, () => this.#cut.delete(`${id}>${tail}`));
      }
    });
  }

  /** A member's process ends, and starts again some time. */
  crash(member: SimMember): void {
    if (!member.running) return;
    this.#crashes++;
    this.#end(member);
    const awayMs = this.chance() < 0.5 ? this.#time(60) : this.#time(600);
    this.time.after(awayMs, () => {
      if (!member.running && !this.#stopped) member.start();
    });
  }

  /** A member that leaves has waited for long enough. If all leave, all can but tell the last one. */
  couldNotLeave(member: SimMember, left: () => void): void {
    if (!this.#stopped) return this.crash(member);
    const { chain, acceptors, joining } = member.master!.config!;
    // It is the last one; whom it waits for have ended, and it has not seen that yet.
    if ([...chain, ...acceptors].every((id) => id === member.id)) return left();
    assert(
      ![...chain, ...acceptors, joining].includes(member.id),
      `${member.id} could not leave: ${this.#where()}`,
    );
    this.#end(member);
  }

  #end(member: SimMember): void {
    const { incarnation } = member;
    member.crash();
    for (const other of this.members) {
      if (other === member || this.chance() < 0.3 || this.#cut.has(`${member.id}>${other.id}`)) continue;
      this.time.after(1 + this.below(20), () => other.seeDead(member.id, incarnation));
    }
  }

  /** A member is stopped gently, now or in a while, and starts again some time. */
  #leave(member: SimMember): void {
    if (!member.running) return;
    const left = () => {
      this.#leaves++;
      this.#end(member);
      this.time.after(this.#time(600), () => {
        if (!member.running && !this.#stopped) member.start();
      });
    };
    const { incarnation } = member;
    const now = () => {
      if (member.running && member.incarnation === incarnation) member.leave("now", left);
    };
    if (this.chance() < 0.5) return now();
    member.leave("soon", left);
    this.time.after(this.#time(200), now);
  }

  #draw(troubleMs: number | undefined): Plan {
    const { chance } = this;
    const replicas = chance() < 0.8 ? 3 : chance() < 0.5 ? 2 : 1;
    const members = replicas + this.below(2) + (replicas === 1 ? 1 : 0);
    const plan: Plan = {
      members: Array.from({ length: members }, (_, i) => `n${i}`),
      replicas,
      clients: 2 + this.below(2),
      operations: 30 + this.below(40),
      others: false,
      slowness: 1,
      pace: HASTE,
      retryMs: 60,
      troubleMs: troubleMs ?? 600 + this.below(1400),
      everyMs: 20 + this.below(80),
      loss: chance() < 0.5 ? 0 : chance() * 0.1,
      doubles: chance() < 0.5 ? 0 : chance() * 0.1,
      delayMs: 1 + this.below(8),
      strikes: chance() < 0.5 ? 0 : 0.002,
      turnMs: this.#seed % 4 === 0 ? 1 + this.#seed / 4 % 8 : 0,
      late: chance() < 0.5 ? 0.02 : 0.2,
      lateMs: chance() < 0.5 ? 300 : 80,
      tailLate: chance() < 0.25,
      astray: chance() < 0.5 ? 0.1 : 0.6,
      thinkMs: 1 + this.below(30),
    };
    if (troubleMs === undefined) return plan;
    return {
      ...plan,
      slowness: 10,
      pace: PACE,
      everyMs: plan.everyMs * 10,
      retryMs: 200,
      operations: LONG_OPERATIONS,
      others: true,
      // Somebody should want something all the while: three things at once, after half of that time on average.
      thinkMs: Math.ceil(6 * troubleMs / LONG_OPERATIONS),
    };
  }

  /** What happens to members and links while there is trouble. */
  #trouble(): void {
    this.time.after(this.plan.everyMs * (0.5 + this.chance()), () => {
      if (this.#healed) return;
      const member = this.members[this.below(this.members.length)]!;
      const kind = this.chance();
      if (kind < 0.3) this.crash(member);
      else if (kind < 0.45) member.pause(this.#time(300));
      else if (kind < 0.55) {
        member.fill(true);
        this.time.after(this.#time(100), () => member.fill(false));
      } else if (kind < 0.8) this.#cutSome(member);
      else if (kind < 0.85) this.#cut.clear();
      else if (kind < 0.95) this.#leave(member);
      else if (this.chance() < 0.4) this.#loseClient();
      this.#trouble();
    });
  }

  /** Links to or from a member carry nothing for a while. */
  #cutSome(member: SimMember): void {
    const direction = this.below(3);
    for (const other of this.members) {
      if (other === member || this.chance() < 0.3) continue;
      for (
        const link of [`${member.id}>${other.id}`, `${other.id}>${member.id}`].slice(
          direction === 1 ? 1 : 0,
          direction === 0 ? 1 : 2,
        )
      ) {
        this.#cut.add(link);
        this.time.after(this.#time(400), () => this.#cut.delete(link));
      }
    }
  }

  #comes(): void {
    const id = `client-${this.clients.length}`.padEnd(16) as TaskId;
    this.clients.push(new SimClient(id, this, this.plan.operations));
  }

  #loseClient(): void {
    const client = this.clients[this.below(this.clients.length)]!;
    if (this.plan.others && !client.gone) this.#comes();
    client.leave();
    const config = this.#config();
    if (config !== undefined) this.ask(client, config.chain[0]!, { type: "gone", client: client.id });
  }

  #heal(): void {
    this.#healed = true;
    this.#cut.clear();
    for (const member of this.members) {
      member.fill(false);
      if (!member.running) member.start();
    }
  }

  #reply(from: MemberId, client: SimClient, message: FromStore): void {
    this.#carry(from, client.id, () => client.receive(from, message));
  }

  #carry(from: string, to: string, deliver: () => void): void {
    const { loss, doubles, delayMs, late, lateMs } = this.plan;
    if (this.#healed) {
      const sender = this.members.find(({ id }) => id === from);
      // A process that ends may take with it what it has just sent.
      const lost = () => sender?.running === false && this.chance() < 0.3;
      return this.time.after(this.chance() * delayMs, () => {
        if (!lost()) deliver();
      });
    }
    if (this.#cut.has(`${from}>${to}`) || this.chance() < loss) return;
    const copies = this.chance() < doubles ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const slow = this.chance() < late ? this.below(lateMs) : 0;
      this.time.after(this.chance() * delayMs + slow, deliver);
    }
  }

  /** The latest configuration that anybody knows. */
  #config(): ChainConfig | undefined {
    let latest: ChainConfig | undefined;
    for (const { master } of this.members) {
      const config = master?.config;
      if (config !== undefined && config.epoch > (latest?.epoch ?? 0)) latest = config;
    }
    return latest;
  }

  #chain(): SimMember[] {
    return this.#config()!.chain.map((id) => this.members.find((member) => member.id === id)!);
  }

  /** Everybody has what it asked for, and the chain is whole. */
  #settled(): boolean {
    if (!this.clients.every(({ done }) => done) || this.members.some(({ leaving }) => leaving)) return false;
    const config = this.#config();
    if (config === undefined || config.joining !== undefined) return false;
    if (config.chain.length !== Math.min(this.plan.replicas, this.members.length)) return false;
    return this.#chain().every(({ master, replica }) =>
      master?.config?.epoch === config.epoch && replica?.applied.seq === this.checks.length &&
      replica.last.seq === this.checks.length
    );
  }

  #where(): string {
    return JSON.stringify({
      config: this.#config(),
      members: this.members.map(({ id, master, replica }) => ({
        id,
        epoch: master?.config?.epoch,
        last: replica?.last.seq,
        applied: replica?.applied.seq,
        alive: master?.alive,
      })),
      clients: this.clients.map(({ id, done }) => `${id.trim()} ${done}`),
      committed: this.checks.length,
    });
  }
}
