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
import { baseName } from "../core/bundles.ts";
import { CPU, GPU, RESOURCE_UNIT, showDemand } from "../core/options.ts";

/** One combination of demanded amounts, or a choice between several. */
export interface Shape {
  /** Equal keys, equal demands. */
  readonly key: string;
  /** Of a choice: the first one's. */
  readonly demand: Readonly<Record<string, number>>;
  /** What of it is lent while a task waits, and under which name: a machine's CPUs, or those of a bundle. */
  readonly cpu: number;
  readonly cpuName: string;
  readonly gpu: number;
  readonly gpuName: string;
  /** All that is demanded apart from CPU: held for a task's whole life, also while it waits. */
  readonly rest: readonly (readonly [name: string, units: number])[];
  /** How many such tasks one isolate may run at once. */
  readonly concurrency: number;
  /** Whether tasks may be sent ahead to a busy isolate: only where nothing but CPU must be handed from one to the next. */
  readonly pipelined: boolean;
  /** The shapes that will do, the preferred one first; of one that is no choice, only itself. */
  readonly alternatives: readonly Shape[];
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
      const cpuName = names.find((name) => baseName(name) === CPU) ?? CPU;
      const gpuName = names.find((name) => baseName(name) === GPU) ?? GPU;
      const cpu = demand[cpuName] ?? 0;
      const rest = names.filter((name) => name !== cpuName).map((name) => [name, demand[name]!] as const);
      const alternatives: Shape[] = [];
      shape = {
        key,
        demand,
        cpu,
        cpuName,
        gpu: demand[gpuName] ?? 0,
        gpuName,
        rest,
        concurrency: cpu >= RESOURCE_UNIT ? 1 : Math.min(
          CONCURRENT_TASKS_MAX,
          cpu === 0 ? CONCURRENT_TASKS_MAX : Math.floor(RESOURCE_UNIT / cpu),
        ),
        pipelined: rest.length === 0 && cpu > 0,
        alternatives,
      };
      alternatives.push(shape);
      this.#byKey.set(key, shape);
    }
    return shape;
  }

  /** The first of several demands that fits. @param demands One or more, the preferred one first. */
  anyOf(demands: readonly Readonly<Record<string, number>>[]): Shape {
    assert(demands.length > 0, "a choice between no demands");
    const alternatives = [...new Set(demands.map((demand) => this.of(demand)))];
    if (alternatives.length === 1) return alternatives[0]!;
    const key = JSON.stringify(alternatives.map((shape) => shape.key));
    let shape = this.#byKey.get(key);
    if (shape === undefined) {
      shape = { ...alternatives[0]!, key, pipelined: false, alternatives };
      this.#byKey.set(key, shape);
    }
    return shape;
  }
}

/** What a shape asks for, for people: `{cpu: 2, gpu: 1} or {cpu: 16}`. */
export function showShape({ alternatives }: Shape): string {
  return alternatives.map(({ demand }) => showDemand(demand)).join(" or ");
}

/**
 * What a machine has, and what of it is free.
 *
 * Bundles of placement groups are carved out of it: what a bundle holds is taken as a task's resources are, and is there
 * again under the bundle's names (`core/bundles.ts`), for tasks that ask for these.
 */
export class ResourcePool {
  readonly #total: Map<string, number>;
  /** Free amounts but for the machine's own CPUs, which change with each task. */
  readonly #free: Map<string, number>;
  #freeCpu: number;
  /** Free units by GPU id, of the machine's and of bundles' GPUs; a whole one is `RESOURCE_UNIT`. */
  readonly #gpus = new Map<string, Map<number, number>>();
  /** CPU units that are held for good. */
  readonly #held = new Map<string, number>();

  /** @param total Amounts in units of 1/10000. */
  constructor(total: Readonly<Record<string, number>>) {
    this.#total = new Map(Object.entries(total));
    this.#free = new Map(this.#total);
    this.#freeCpu = total[CPU] ?? 0;
    this.#free.delete(CPU);
    const gpus = Array.from({ length: Math.ceil((total[GPU] ?? 0) / RESOURCE_UNIT) }, (_, i) => i);
    this.#gpus.set(GPU, new Map(gpus.map((gpu) => [gpu, RESOURCE_UNIT])));
  }

  /** All amounts there are. */
  total(): Record<string, number> {
    return Object.fromEntries(this.#total);
  }

  /** All free amounts; CPU may be below zero while tasks that had lent theirs have resumed. */
  free(): Record<string, number> {
    return { ...(this.#total.has(CPU) ? { [CPU]: this.#freeCpu } : {}), ...Object.fromEntries(this.#free) };
  }

  /** Free units of a kind of CPU; below zero while tasks that had lent theirs have resumed beyond what there is. */
  freeCpu(name: string = CPU): number {
    return name === CPU ? this.#freeCpu : this.#free.get(name) ?? 0;
  }

  /** Whether a machine with nothing running could satisfy `shape`, or one of its alternatives. */
  couldEverFit(shape: Shape): boolean {
    return shape.alternatives.some(({ demand }) => {
      for (const name in demand) if ((this.#total.get(name) ?? 0) < demand[name]!) return false;
      return true;
    });
  }

  /** Whether a task could ever run here while actors and groups hold the CPUs that they hold now. */
  fitsBesideActors({ alternatives }: Shape): boolean {
    return alternatives.some(({ cpu, cpuName }) =>
      (this.#total.get(cpuName) ?? 0) - (this.#held.get(cpuName) ?? 0) >= cpu
    );
  }

  /** The first of `shape`'s alternatives that fits in what is free now. */
  choose(shape: Shape): Shape | undefined {
    const { alternatives } = shape;
    for (let i = 0; i < alternatives.length; i++) if (this.fits(alternatives[i]!)) return alternatives[i];
    return undefined;
  }

  /** Whether `shape`, which is no choice, fits in what is free now. */
  fits(shape: Shape): boolean {
    if (shape.cpu > 0 && this.freeCpu(shape.cpuName) < shape.cpu) return false;
    if (shape.rest.length === 0) return true;
    for (const [name, units] of shape.rest) if ((this.#free.get(name) ?? 0) < units) return false;
    return shape.gpu === 0 || this.#chooseGpus(shape) !== undefined;
  }

  /** How often `shape`, or one of its alternatives, fits in what is free now, fractions of single GPUs aside. */
  times(shape: Shape): number {
    return Math.max(
      0,
      ...shape.alternatives.map((each) => {
        let times = each.cpu > 0 ? Math.floor(this.freeCpu(each.cpuName) / each.cpu) : Infinity;
        for (const [name, units] of each.rest) {
          times = Math.min(times, Math.floor((this.#free.get(name) ?? 0) / units));
        }
        return times;
      }),
    );
  }

  /** Takes what `shape` demands, which must fit. Returns the ids of the GPUs lent. */
  acquire(shape: Shape): readonly number[] {
    assert(this.fits(shape), `acquire of ${shape.key} which does not fit`);
    this.takeCpu(shape);
    for (const [name, units] of shape.rest) this.#change(name, -units);
    if (shape.gpu === 0) return NO_GPUS;
    const chosen = this.#chooseGpus(shape)!;
    this.#takeGpus(shape, chosen);
    return chosen;
  }

  /** Gives back all that {@link acquire} took, or all but the CPUs. */
  release(shape: Shape, gpus: readonly number[], cpuLent = false): void {
    if (!cpuLent) this.giveCpu(shape);
    for (const [name, units] of shape.rest) this.#change(name, units);
    const free = this.#gpus.get(shape.gpuName);
    for (const gpu of gpus) free!.set(gpu, free!.get(gpu)! + Math.min(shape.gpu, RESOURCE_UNIT));
  }

  /**
   * Takes what `shape` demands for good: for an actor, or a bundle. CPUs are taken at once, also beyond what is free just
   * now, as tasks make room soon and what is to stay would otherwise wait behind them for ever; but all that is held for
   * good never comes to more than there is.
   *
   * @returns The ids of the GPUs lent; `undefined` if there is no room.
   */
  hold(shape: Shape): readonly number[] | undefined {
    const { cpu, cpuName, rest } = shape;
    const held = (this.#held.get(cpuName) ?? 0) + cpu;
    if (cpu > 0 && held > (this.#total.get(cpuName) ?? 0)) return undefined;
    for (const [name, units] of rest) if ((this.#free.get(name) ?? 0) < units) return undefined;
    const gpus = shape.gpu === 0 ? NO_GPUS : this.#chooseGpus(shape);
    if (gpus === undefined) return undefined;
    this.takeCpu(shape);
    for (const [name, units] of rest) this.#change(name, -units);
    this.#takeGpus(shape, gpus);
    this.#held.set(cpuName, held);
    return gpus;
  }

  /** Gives back all that {@link hold} took, or all but the CPUs. */
  unhold(shape: Shape, gpus: readonly number[], cpuLent = false): void {
    this.release(shape, gpus, cpuLent);
    this.#held.set(shape.cpuName, this.#held.get(shape.cpuName)! - shape.cpu);
  }

  /** What would be free if all tasks ended: CPUs that are not held for good, and what is free of all else. */
  lasting(): Record<string, number> {
    const amounts = this.free();
    for (const name of this.#total.keys()) {
      if (baseName(name) === CPU) amounts[name] = this.#total.get(name)! - (this.#held.get(name) ?? 0);
    }
    return amounts;
  }

  /** Takes the CPUs of `shape`, also beyond what is free: a task that lent them resumes at once. */
  takeCpu({ cpu, cpuName }: Shape): void {
    if (cpuName === CPU) this.#freeCpu -= cpu;
    else this.#free.set(cpuName, (this.#free.get(cpuName) ?? 0) - cpu);
  }

  /** Gives the CPUs of `shape` back. */
  giveCpu({ cpu, cpuName }: Shape): void {
    if (cpuName !== CPU) return this.#change(cpuName, cpu);
    this.#freeCpu += cpu;
    assert(this.#freeCpu <= (this.#total.get(CPU) ?? 0), "more CPU given back than there is");
  }

  /**
   * Offers what was acquired under other names: a bundle.
   *
   * @param amounts What is offered, in units of 1/10000. @param gpus The GPUs among it, and a share of each.
   */
  add(amounts: Readonly<Record<string, number>>, gpus: readonly number[]): void {
    for (const [name, units] of Object.entries(amounts)) {
      assert(!this.#total.has(name), `${name} is there already`);
      this.#total.set(name, units);
      this.#free.set(name, units);
      if (baseName(name) !== GPU) continue;
      this.#gpus.set(name, new Map(gpus.map((gpu) => [gpu, Math.min(units, RESOURCE_UNIT)])));
    }
  }

  /** No longer offers what {@link add} did. What is in use of it stays so, and is missing from what is free. */
  withdraw(names: readonly string[]): void {
    for (const name of names) {
      this.#free.set(name, this.#free.get(name)! - this.#total.get(name)!);
      this.#total.delete(name);
    }
  }

  /** Forgets what was withdrawn, unless something of it is in use. @returns Whether it is gone. */
  remove(names: readonly string[]): boolean {
    if (names.some((name) => this.#free.get(name) !== 0)) return false;
    for (const name of names) {
      this.#free.delete(name);
      this.#held.delete(name);
      this.#gpus.delete(name);
    }
    return true;
  }

  #takeGpus({ gpu, gpuName }: Shape, chosen: readonly number[]): void {
    const gpus = this.#gpus.get(gpuName);
    for (const id of chosen) gpus!.set(id, gpus!.get(id)! - Math.min(gpu, RESOURCE_UNIT));
  }

  #change(name: string, by: number): void {
    const now = (this.#free.get(name) ?? 0) + by;
    assert(now <= (this.#total.get(name) ?? 0), `more ${name} given back than there is`);
    this.#free.set(name, now);
  }

  /** Whole GPUs that are wholly free; for a fraction, the fullest GPU that still has it. */
  #chooseGpus({ gpu: units, gpuName }: Shape): number[] | undefined {
    const gpus = this.#gpus.get(gpuName);
    if (gpus === undefined) return undefined;
    if (units < RESOURCE_UNIT) {
      let best = -1;
      for (const [gpu, free] of gpus) {
        if (free >= units && (best < 0 || free < gpus.get(best)!)) best = gpu;
      }
      return best < 0 ? undefined : [best];
    }
    const chosen: number[] = [];
    for (const [gpu, free] of gpus) {
      if (chosen.length * RESOURCE_UNIT >= units) break;
      if (free === RESOURCE_UNIT) chosen.push(gpu);
    }
    return chosen.length * RESOURCE_UNIT < units ? undefined : chosen;
  }
}

const NO_GPUS: readonly number[] = Object.freeze([]);
