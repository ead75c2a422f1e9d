/**
 * What befalls a simulated cluster, one thing after the other, as the seed has it: processes end or stand still, hosts go dark,
 * links are cut, the control store's disk fills up, nodes leave and join.
 *
 * @module
 */

import type { SimNode } from "./machine.ts";
import type { SimProcess } from "./process.ts";
import type { StoreMember } from "./store.ts";
import type { Cluster } from "./world.ts";

/** How much trouble there is. */
export interface FatePlan {
  /** How long, in milliseconds; and how often something happens. */
  readonly troubleMs: number;
  readonly everyMs: number;
  /** How often a process ends as it is about to write something. */
  readonly strikes: number;
  /** Whether nodes live that programs are connected to. */
  readonly sparesHomes: boolean;
}

/** How long a node that leaves gently may take. */
const DRAIN_MS = 3_000;

/** Brings trouble, until it heals. */
export class Fate {
  readonly counts: Record<string, number> = {};
  readonly #world: Cluster;
  readonly #plan: FatePlan;
  #over = false;

  constructor(world: Cluster, plan: FatePlan) {
    this.#world = world;
    this.#plan = plan;
    world.network.beforeWrite = (process) => this.#strike(process);
    this.#next();
    if (world.store.members.length > 1) this.#nextMember();
    world.time.after(plan.troubleMs, () => this.heal());
  }

  /** Whether it has left everybody alone for good. */
  get over(): boolean {
    return this.#over;
  }

  /** All goes on, and nothing happens any more. */
  heal(): void {
    this.#over = true;
    this.#world.log(undefined, "fate", "heals");
    const { network, store, nodes } = this.#world;
    network.calm = true;
    network.mendAll();
    store.heal();
    for (const node of nodes) if (node.process.alive) node.resume();
    // Whatever actors hold, there is room for tasks beside them.
    this.#world.addNode("worker", RELIEF_CPUS);
  }

  #next(): void {
    const { time, chance } = this.#world;
    time.after(this.#plan.everyMs * (0.3 + 1.4 * chance()), () => {
      if (this.#over) return;
      this.#happens();
      this.#next();
    });
  }

  /** One of several members of the control store ends now and then, whatever else happens: the others go on. */
  #nextMember(): void {
    const { time, below, store } = this.#world;
    time.after(MEMBER_MS_MIN + below(MEMBER_MS_MAX - MEMBER_MS_MIN), () => {
      if (this.#over) return;
      if (store.members.every(({ process }) => process.running)) this.#killMember();
      this.#nextMember();
    });
  }

  #happens(): void {
    const { below, chance } = this.#world;
    const nodes = this.#world.nodes.filter(({ process, daemon }) => process.alive && daemon !== undefined);
    const node = nodes[below(nodes.length)];
    if (node === undefined) return;
    const kind = chance();
    if (kind < 0.16) this.#killNode(node);
    else if (kind < 0.3) this.#killIsolate(node);
    else if (kind < 0.44) this.#pause(node);
    else if (kind < 0.5) this.#darken(node);
    else if (kind < 0.68) this.#part(node);
    else if (kind < 0.76) this.#killMember();
    else if (kind < 0.82) this.#fillMember();
    else if (kind < 0.85 && this.#world.store.members.length > 1) this.#partMembers();
    else if (kind < 0.87) this.#pauseMember();
    else if (kind < 0.95) this.#leave(node);
    else this.#count("join", () => this.#join(0));
  }

  /** Does what it is called by the first word. */
  #count(what: string, work: () => void): void {
    const kind = what.replace(/ host.*/, "");
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    this.#world.log(undefined, "fate", what);
    work();
  }

  #spared(node: SimNode): boolean {
    return this.#plan.sparesHomes && this.#world.isHome(node);
  }

  #killNode(node: SimNode): void {
    if (this.#spared(node)) return;
    this.#count(`kill ${node.host}`, () => {
      node.process.kill();
      this.#join(this.#world.below(800));
    });
  }

  #darken(node: SimNode): void {
    if (this.#spared(node)) return;
    this.#count(`dark ${node.host}`, () => {
      this.#world.network.darken(node.host);
      node.process.kill();
      this.#join(this.#world.below(800));
    });
  }

  #killIsolate(node: SimNode): void {
    const isolates = [...node.isolates];
    const isolate = isolates[this.#world.below(isolates.length)];
    if (isolate !== undefined) this.#count("isolate", () => isolate.kill());
  }

  #pause(node: SimNode): void {
    this.#count(`pause ${node.host}`, () => {
      node.pause();
      const ms = this.#world.chance() < 0.5 ? this.#world.below(500) : this.#world.below(6_000);
      this.#world.time.after(ms, () => node.resume());
    });
  }

  /** A host and some others, or the control store, do not hear each other; or one not the other. */
  #part(node: SimNode): void {
    const { network, time, nodes, store, chance, below } = this.#world;
    const others = [...nodes.filter((other) => other !== node && other.process.alive), ...store.members];
    const whole = chance() < 0.4;
    const direction = below(3);
    const ms = chance() < 0.5 ? below(400) : below(7_000);
    this.#count(`${whole ? "cut off" : "part"} ${node.host}`, () => {
      for (const { host } of whole ? others : [others[below(others.length)]!]) {
        const links = [[node.host, host], [host, node.host]] as const;
        for (
          const [from, to] of direction === 0 ? links : direction === 1 ? links.slice(0, 1) : links.slice(1)
        ) {
          network.cut(from, to);
          time.after(ms, () => network.mend(from, to));
        }
      }
    });
  }

  /** Some member of the control store. */
  #member(): StoreMember {
    const { members } = this.#world.store;
    return members[members.length === 1 ? 0 : this.#world.below(members.length)]!;
  }

  #killMember(member = this.#member()): void {
    const { time, chance, below } = this.#world;
    if (!member.process.alive) return;
    this.#count("store", () => {
      member.process.kill();
      const ms = chance() < 0.6 ? below(600) : below(6_000);
      time.after(ms, () => {
        if (!member.process.alive) member.start();
      });
    });
  }

  #fillMember(): void {
    const { time, below } = this.#world;
    const member = this.#member();
    this.#count("full", () => {
      member.fill(true);
      time.after(below(1_000), () => member.fill(false));
    });
  }

  #pauseMember(): void {
    const { time, below } = this.#world;
    const { process } = this.#member();
    this.#count("pause store", () => {
      process.pause();
      time.after(below(4_000), () => process.resume());
    });
  }

  /** Members of the control store do not hear each other, or one not the other. */
  #partMembers(): void {
    const { network, time, store, chance, below } = this.#world;
    const from = this.#member();
    const to = store.members.filter((member) => member !== from);
    const both = chance() < 0.6, ms = chance() < 0.5 ? below(600) : below(5_000);
    this.#count("part store", () => {
      for (const { host } of chance() < 0.5 ? to : to.slice(0, 1)) {
        for (const [a, b] of both ? [[from.host, host], [host, from.host]] : [[from.host, host]]) {
          network.cut(a!, b!);
          time.after(ms, () => network.mend(a!, b!));
        }
      }
    });
  }

  /** A node is asked to end, and does so when what runs there has ended. */
  #leave(node: SimNode): void {
    if (this.#spared(node) || node.leaving) return;
    this.#count(`leave ${node.host}`, () => {
      node.leave(DRAIN_MS, () => {
        if (!this.#over) this.#join(this.#world.below(500));
      });
    });
  }

  #join(afterMs: number): void {
    this.#world.time.after(afterMs, () => {
      if (this.#world.nodes.filter(({ process }) => process.alive).length >= NODES_MAX) return;
      this.#world.addNode("worker");
    });
  }

  #strike(process: SimProcess): void {
    if (this.#over || this.#plan.strikes === 0 || this.#world.chance() >= this.#plan.strikes) return;
    const node = this.#world.nodes.find((each) => each.process === process);
    if (node !== undefined) return this.#killNode(node);
    for (const member of this.#world.store.members) {
      if (member.process === process) return this.#killMember(member);
    }
    for (const { isolates } of this.#world.nodes) {
      if (isolates.has(process)) return this.#count("isolate", () => process.kill());
    }
  }
}

const NODES_MAX = 6, RELIEF_CPUS = 6;
/** How often a member of a control store of several ends. */
const MEMBER_MS_MIN = 300, MEMBER_MS_MAX = 1_500;
