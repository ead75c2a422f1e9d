/**
 * The machine: what it is, what its processes use, and how busy others keep it while figures are taken.
 *
 * @module
 */

/** Clock ticks a second of /proc, the same on every Linux that Deno runs on. */
const TICKS_PER_SECOND = 100;

/** What a result is worth nothing without. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly deno: string;
  readonly v8: string;
}

/** Describes this machine; without its name or place. */
export function describeMachine(): Machine {
  const cpu = /^model name\s*:\s*(.*)$/m.exec(read("/proc/cpuinfo"))?.[1] ?? Deno.build.arch;
  return {
    cpu,
    cores: navigator.hardwareConcurrency,
    memoryGb: Math.round(Deno.systemMemoryInfo().total / 1e8) / 10,
    kernel: `${Deno.build.os} ${Deno.osRelease()}`,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
  };
}

/** CPU time since boot, in seconds: of all processes, and of this one with the children that it has waited for. */
export interface CpuTime {
  readonly at: number;
  readonly all: number;
  readonly own: number;
}

/** Reads the machine's CPU time. */
export function cpuTime(): CpuTime {
  // user nice system idle iowait irq softirq steal
  const all = read("/proc/stat").split("\n", 1)[0]!.trim().split(/\s+/).slice(1, 9).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = all;
  // After the name, which is in brackets and may contain anything: utime, stime, cutime, cstime are fields 14 to 17.
  const stat = read("/proc/self/stat");
  const own = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 15).map(Number);
  return {
    at: performance.now() / 1000,
    all: (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND,
    own: own.reduce((sum, ticks) => sum + ticks, 0) / TICKS_PER_SECOND,
  };
}

/** How many cores others kept busy between two moments. */
export function busyElsewhere(from: CpuTime, to: CpuTime): number {
  return Math.max(0, ((to.all - from.all) - (to.own - from.own)) / (to.at - from.at));
}

/** Memory in MB of a process with all its descendants: now (pages that several share count once), and at its peak. */
export function treeMemory(root: number): { readonly now: number; readonly peak: number } {
  let now = 0, peak = 0;
  for (const pid of descendants(root)) {
    now += kilobytes(`/proc/${pid}/smaps_rollup`, "Pss");
    peak += kilobytes(`/proc/${pid}/status`, "VmHWM");
  }
  return { now: now / 1000, peak: peak / 1000 };
}

function descendants(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = read(`/proc/${name}/stat`);
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      const siblings = children.get(parent) ?? [];
      siblings.push(Number(name));
      children.set(parent, siblings);
    } catch {
      // Ended meanwhile.
    }
  }
  const found = [root];
  for (let i = 0; i < found.length; i++) found.push(...children.get(found[i]!) ?? []);
  return found;
}

/** A size from one of /proc's files, in units of 1,000 bytes. */
function kilobytes(path: string, field: string): number {
  try {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(read(path))?.[1];
    return kib === undefined ? 0 : Number(kib) * 1.024;
  } catch {
    return 0;
  }
}

function read(path: string): string {
  return Deno.readTextFileSync(path);
}
