/**
 * Makes things fail, one after the other, on a cluster that works: processes are killed and stopped, hosts are parted, the
 * disk is full, strangers send garbage. Programs whose answers are known run all the while (tests/chaos/load.ts), and
 * clients write to the control store. At the end all is healed, and nothing may be wrong, lost, or left behind.
 *
 *     deno task chaos [--minutes 3] [--seed 1] [--places 5] [--only NAME]
 *
 * Needs the executable (bin/build). As root with `ip`, each node is on a host of its own, which can be parted from the
 * others; otherwise all are on loopback, and a line says why. The seed decides which faults there are, in which order,
 * whom they hit, and for how long. `--only` tries only faults whose name has that in it. Prints what was done and found, and ends with status 1 if anything was wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { random as randomFrom } from "../../bench/simulate/random.ts";
import type { Running } from "../e2e/rayd.ts";
import { ChaosCluster, ChaosError, HOME, isRunning, until } from "./cluster.ts";
import { type Fault, FAULTS } from "./faults.ts";
import { leftovers } from "./leftovers.ts";
import { Registers, type RegistersReport } from "./registers.ts";

/** What is asked for. */
export interface ChaosOptions {
  readonly minutes: number;
  readonly seed: number;
  /** How many nodes there are: a head, home, and others; at least 4. */
  readonly places: number;
  /** Only faults whose name has this in it. */
  readonly only: string;
  /** Takes what is worth telling while it goes on. */
  readonly say: (line: string) => void;
}

/** One fault, as it went. */
interface Inflicted {
  readonly name: string;
  /** From when it was healed until the cluster was whole again. */
  readonly recoveryMs: number;
  /** The longest that a program waited for an answer since it began, and a client of the control store. */
  readonly programMs: number;
  readonly storeMs: number;
}

/** What a run has shown. */
export interface ChaosReport {
  readonly faults: readonly Inflicted[];
  /** Of each kind of program: how many rounds it had. */
  readonly rounds: Readonly<Record<string, number>>;
  readonly registers: RegistersReport | undefined;
  /** What was wrong, in words; empty if nothing was. */
  readonly wrong: readonly string[];
}

const PROGRAMS = ["tasks", "objects", "actors", "transfers", "groups"];
const LOAD = new URL("load.ts", import.meta.url).pathname;
const CLIENTS = 3, CLIENT_REST_MS = 4;
/** From when on a wait for an answer is long; and for how long it may go on when nothing is wrong any more. */
const LONG_MS = 8_000, HANGS_MS = 60_000;
/** How long a program may take to end once it is told to, and the cluster to have nothing to do after that. */
const END_MS_MAX = 120_000, IDLE_MS_MAX = 60_000;

/** A program of the load. */
class Program {
  readonly kind: string;
  readonly running: Running;
  #read = 0;

  constructor(kind: string, running: Running) {
    this.kind = kind;
    this.running = running;
  }

  /** The longest that it has waited for an answer since this was last asked; it tells so ten times a second. */
  takeLongestMs(): number {
    const lines = this.running.stdout.slice(this.#read);
    this.#read += lines.length;
    return Math.max(0, ...[...lines.matchAll(/^pause (\d+)$/gm)].map(([, ms]) => Number(ms)));
  }

  /** How many rounds it had; `undefined` if it has not ended well. */
  get rounds(): number | undefined {
    const done = /^done (\d+)$/m.exec(this.running.stdout);
    return done === null ? undefined : Number(done[1]);
  }

  /** Why it ended, if it should not have. */
  get failure(): string {
    return `program ${this.kind}: ${this.running.stderr.trim().split("\n").slice(0, 12).join("\n  ")}`;
  }
}

/** Runs the chaos. */
export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  const { say } = options;
  const since = Date.now();
  const wrong: string[] = [];
  const faults: Inflicted[] = [];
  const rounds: Record<string, number> = {};
  let registers: RegistersReport | undefined;
  await using cluster = await ChaosCluster.start(options.places);
  try {
    if (typeof cluster.hosts === "string") say(`all nodes are on loopback: ${cluster.hosts}`);
    const possible: Fault[] = [];
    for (const fault of FAULTS.filter(({ name }) => name.includes(options.only))) {
      const reason = await fault.impossible(cluster);
      if (reason === undefined) possible.push(fault);
      else say(`not tried: ${fault.name}: ${reason}`);
    }
    const stop = `${cluster.directory}/stop`;
    const programs = PROGRAMS.map((kind, i) => {
      const { id, address } = cluster.members[HOME]!;
      const env = { RAYD_ADDRESS: address, RAYD_NODE: id };
      return new Program(kind, cluster.run(HOME, ["run", LOAD, kind, `${options.seed + i}`, stop], env));
    });
    for (const { running } of programs) await running.printed("started");
    const clients = new Registers(CLIENTS, {
      token: cluster.token,
      connect: (address) => cluster.connect(address),
      random: randomFrom(options.seed + PROGRAMS.length),
      restMs: CLIENT_REST_MS,
    });
    await clients.started;
    say(`${options.places} nodes, ${programs.length} programs, seed ${options.seed}`);
    await inflictFaults(options, cluster, possible, programs, clients, faults);
    Deno.writeTextFileSync(stop, "");
    for (const program of programs) {
      await until(
        `program ${program.kind} has ended`,
        END_MS_MAX,
        () => Promise.resolve(!isRunning(program.running.pid) || undefined),
      );
      await program.running.ended();
      if (program.rounds === undefined) wrong.push(program.failure);
      else rounds[program.kind] = program.rounds;
    }
    registers = await clients.finish();
    if (registers.wrong.length > 0) {
      wrong.push(`keys whose history is not linearizable: ${registers.wrong.join(", ")}`);
    }
    wrong.push(...await cluster.busy(IDLE_MS_MAX));
    wrong.push(...await cluster.end());
    wrong.push(...await leftovers(cluster, since));
  } catch (error) {
    wrong.push((error as Error).message);
  }
  if (wrong.length > 0) {
    const file = Deno.makeTempFileSync({ prefix: `rayd-chaos-${options.seed}-`, suffix: ".log" });
    Deno.writeTextFileSync(file, cluster.logs());
    say(`the logs of all nodes and programs are in ${file}`);
  }
  return { faults, rounds, registers, wrong };
}

/** One fault after the other, each healed and got over before the next, until the time is over. */
async function inflictFaults(
  { minutes, seed, say }: ChaosOptions,
  cluster: ChaosCluster,
  possible: readonly Fault[],
  programs: readonly Program[],
  clients: Registers,
  inflicted: Inflicted[],
): Promise<void> {
  const random = randomFrom(seed);
  const end = performance.now() + minutes * 60_000;
  const longest = () => Math.max(...programs.map((program) => program.takeLongestMs()));
  let order: Fault[] = [];
  while (performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 300 + random() * 1_200));
    longest();
    clients.takeLongestMs();
    // Each kind once, in an order by chance, before any comes again.
    if (order.length === 0) order = shuffled(possible, random);
    const fault = order.pop();
    if (fault === undefined) continue; // none is asked for: the load alone
    const what = await fault.inflict(cluster, random);
    const healed = performance.now();
    await cluster.whole();
    const recoveryMs = performance.now() - healed;
    const storeMs = clients.takeLongestMs(), programMs = longest();
    inflicted.push({ name: fault.name, recoveryMs, programMs, storeMs });
    say(
      `${fault.name}: ${what}; whole again after ${ms(recoveryMs)}; longest waits ${
        ms(programMs)
      } (programs), ` +
        `${ms(storeMs)} (control store)`,
    );
    if (programMs > LONG_MS) await getOver(cluster, longest);
    for (const program of programs) {
      if (!isRunning(program.running.pid)) {
        await program.running.ended();
        throw new Error(program.failure);
      }
    }
  }
}

/** Lets the cluster be until no program waits for an answer for long. @throws {ChaosError} If one still does. */
async function getOver(cluster: ChaosCluster, longest: () => number): Promise<void> {
  const deadline = performance.now() + HANGS_MS;
  for (;;) {
    longest();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const ms = longest();
    if (ms < LONG_MS) return;
    if (performance.now() < deadline) continue;
    await cluster.look();
    throw new ChaosError(
      `a program waits for an answer for ${Math.round(ms / 1000)} s, although all is healed`,
    );
  }
}

function shuffled<T>(all: readonly T[], random: () => number): T[] {
  const left = [...all];
  return Array.from(all, () => left.splice(Math.floor(random() * left.length), 1)[0]!);
}

/** A table: of each kind of fault how often it was tried, and what came of it. */
function summary({ faults, rounds, registers, wrong }: ChaosReport): string {
  const lines: string[] = [];
  for (const name of new Set(faults.map((fault) => fault.name))) {
    const these = faults.filter((fault) => fault.name === name);
    const most = (pick: (fault: Inflicted) => number) => ms(Math.max(...these.map(pick)));
    lines.push(
      `${String(these.length).padStart(4)} x ${name.padEnd(40)} whole again within ${
        most(({ recoveryMs }) => recoveryMs).padStart(7)
      }; longest waits ${most(({ programMs }) => programMs).padStart(7)} (programs), ${
        most(({ storeMs }) => storeMs).padStart(7)
      } (control store)`,
    );
  }
  lines.push(`rounds: ${Object.entries(rounds).map(([kind, n]) => `${kind} ${n}`).join(", ")}`);
  if (registers !== undefined) {
    lines.push(`control store: ${registers.operations} operations, ${registers.unknown} of unknown outcome`);
  }
  const pause = Math.max(0, ...faults.map(({ programMs, storeMs }) => Math.max(programMs, storeMs)));
  lines.push(`${faults.length} faults; the longest that anybody waited for an answer: ${ms(pause)}`);
  lines.push(...wrong.map((each) => `WRONG: ${each}`));
  return lines.join("\n");
}

function ms(value: number): string {
  return value < 1_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["minutes", "seed", "places", "only"],
    default: { minutes: "3", seed: "1", places: "5", only: "" },
    unknown: (argument: string) => {
      console.error(`Unknown argument ${argument}. There are --minutes, --seed, --places and --only`);
      Deno.exit(2);
    },
  });
  const [minutes, seed, places] = [args.minutes, args.seed, args.places].map(Number) as [
    number,
    number,
    number,
  ];
  if (!(minutes > 0 && Number.isInteger(seed) && Number.isInteger(places) && places >= 4)) {
    console.error("Give --minutes more than 0, a whole --seed, and at least 4 --places");
    Deno.exit(2);
  }
  const report = await chaos({ minutes, seed, places, only: args.only, say: (line) => console.log(line) });
  console.log(`\n${summary(report)}`);
  console.log(report.wrong.length === 0 ? "ok" : `failed; again with: deno task chaos --seed ${seed}`);
  Deno.exit(report.wrong.length === 0 ? 0 : 1);
}
