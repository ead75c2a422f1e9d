/**
 * Resource accounting. Amounts are whole numbers of 1/10000 (`RESOURCE_UNIT`), so that sums never drift.
 *
 * A {@link Shape} is one combination of demands, interned, so that tasks that ask for the same share one object and
 * the scheduler compares shapes by identity. A {@link ResourcePool} is what a machine has: amounts, and which GPU is
 * lent to whom.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { CONCURRENT_TASKS_MAX } from "../core/limits.ts";
import { CPU, GPU, RESOURCE_UNIT } from "../core/options.ts";

/** One combination of demanded amounts. */
export interface Shape {
  /** Equal keys, equal demands. */
  readonly key: string;
  readonly demand: Readonly<Record<string, number>>;
  readonly cpu: number;
  readonly gpu: number;
  /** All that is demanded apart from CPU: held for a task's whole life, also while it waits. */
  readonly rest: readonly (readonly [name: string, units: number])[];
  /** How many such tasks one isolate may run at once. */
  readonly concurrency: number;
  /** Whether tasks may be sent ahead to a busy isolate: only where nothing but CPU must be handed from one to the next. */
  readonly pipelined: boolean;
}

/** Interns shapes. */
export class Shapes {
  readonly #byKey = new Map<string, Shape>();

  /** @param demand Amounts in units of 1/10000, without zeros. */
  of(demand: Readonly<Record<string, number>>): Shape {
    const names = Object.keys(demand).sort();
    const key = JSON.stringify(names.map((name) => [name, demand[name]])); // names hold any character
    let shape = this.#byKey.get(key);
    if (shape === undefined) {
      const cpu = demand[CPU] ?? 0;
      const rest = names.filter((name) => name !== CPU).map((name) => [name, demand[name]!] as const);
      shape = {
        key,
        demand,
        cpu,
        gpu: demand[GPU] ?? 0,
        rest,
        concurrency: cpu >= RESOURCE_UNIT ? 1 : Math.min(
          CONCURRENT_TASKS_MAX,
          cpu === 0 ? CONCURRENT_TASKS_MAX : Math.floor(RESOURCE_UNIT / cpu),
        ),
        pipelined: rest.length === 0 && cpu > 0,
      };
      this.#byKey.set(key, shape);
    }
    return shape;
  }
}

/** What a machine has, and what of it is free. */
export class ResourcePool {
  readonly #total: Map<string, number>;
  /** Free amounts but for CPU, which changes with each task. */
  readonly #free: Map<string, number>;
  #freeCpu: number;
  /** Free units by GPU id; a whole GPU is `RESOURCE_UNIT`. */
  readonly #gpus: number[];

  /** @param total Amounts in units of 1/10000. */
  constructor(total: Readonly<Record<string, number>>) {
    this.#total = new Map(Object.entries(total));
    this.#free = new Map(this.#total);
    this.#freeCpu = total[CPU] ?? 0;
    this.#free.delete(CPU);
    this.#gpus = Array.from({ length: Math.ceil((total[GPU] ?? 0) / RESOURCE_UNIT) }, () => RESOURCE_UNIT);
  }

  /** All amounts there are. */
  total(): Record<string, number> {
    return Object.fromEntries(this.#total);
  }

  /** All free amounts; CPU may be below zero while tasks that had lent theirs have resumed. */
  free(): Record<string, number> {
    return { ...(this.#total.has(CPU) ? { [CPU]: this.#freeCpu } : {}), ...Object.fromEntries(this.#free) };
  }

  /** Free CPU units; below zero while tasks that had lent theirs have resumed beyond what there is. */
  get freeCpu(): number {
    return this.#freeCpu;
  }

  /** Whether a machine with nothing running could satisfy `shape`. */
  couldEverFit(shape: Shape): boolean {
    for (const name in shape.demand) if ((this.#total.get(name) ?? 0) < shape.demand[name]!) return false;
    return true;
  }

  /** Whether `shape` fits in what is free now. */
  fits(shape: Shape): boolean {
    if (shape.cpu > 0 && this.#freeCpu < shape.cpu) return false;
    if (shape.rest.length === 0) return true;
    for (const [name, units] of shape.rest) if ((this.#free.get(name) ?? 0) < units) return false;
    return shape.gpu === 0 || this.#chooseGpus(shape.gpu) !== undefined;
  }

  /** How often `shape` fits in what is free now, fractions of single GPUs aside. */
  times(shape: Shape): number {
    let times = shape.cpu > 0 ? Math.floor(this.#freeCpu / shape.cpu) : Infinity;
    for (const [name, units] of shape.rest) {
      times = Math.min(times, Math.floor((this.#free.get(name) ?? 0) / units));
    }
    return Math.max(0, times);
  }

  /** Takes what `shape` demands, which must fit. Returns the ids of the GPUs lent. */
  acquire(shape: Shape): readonly number[] {
    assert(this.fits(shape), `acquire of ${shape.key} which does not fit`);
    this.takeCpu(shape);
    for (const [name, units] of shape.rest) this.#change(name, -units);
    if (shape.gpu === 0) return NO_GPUS;
    const gpus = this.#chooseGpus(shape.gpu)!;
    for (const gpu of gpus) this.#gpus[gpu]! -= Math.min(shape.gpu, RESOURCE_UNIT);
    return gpus;
  }

  /** Gives back all that {@link acquire} took, or all but the CPUs. */
  release(shape: Shape, gpus: readonly number[], cpuLent = false): void {
    if (!cpuLent) this.giveCpu(shape);
    for (const [name, units] of shape.rest) this.#change(name, units);
    for (const gpu of gpus) this.#gpus[gpu]! += Math.min(shape.gpu, RESOURCE_UNIT);
  }

  /** Takes the CPUs of `shape`, also beyond what is free: a task that lent them resumes at once. */
  takeCpu(shape: Shape): void {
    this.#freeCpu -= shape.cpu;
  }

  /** Gives the CPUs of `shape` back. */
  giveCpu(shape: Shape): void {
    this.#freeCpu += shape.cpu;
    assert(this.#freeCpu <= (this.#total.get(CPU) ?? 0), "more CPU given back than there is");
  }

  #change(name: string, by: number): void {
    const now = (this.#free.get(name) ?? 0) + by;
    assert(now <= (this.#total.get(name) ?? 0), `more ${name} given back than there is`);
    this.#free.set(name, now);
  }

  /** Whole GPUs that are wholly free; for a fraction, the fullest GPU that still has it. */
  #chooseGpus(units: number): number[] | undefined {
    if (units < RESOURCE_UNIT) {
      let best = -1;
      this.#gpus.forEach((free, gpu) => {
        if (free >= units && (best < 0 || free < this.#gpus[best]!)) best = gpu;
      });
      return best < 0 ? undefined : [best];
    }
    const chosen: number[] = [];
    for (let gpu = 0; gpu < this.#gpus.length && chosen.length * RESOURCE_UNIT < units; gpu++) {
      if (this.#gpus[gpu] === RESOURCE_UNIT) chosen.push(gpu);
    }
    return chosen.length * RESOURCE_UNIT < units ? undefined : chosen;
  }
}

const NO_GPUS: readonly number[] = Object.freeze([]);
