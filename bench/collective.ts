/**
 * Measures collectives: allReduce of float32 arrays among four actors on one node, beside what memory allows and beside
 * OpenMPI, in turns in one run.
 *
 *     deno run -A bench/collective.ts [--rounds 9] [--size 4]
 *
 * The bound: of W inputs of N bytes, W·N must be read and N written. Memory moves 2 bytes for each byte of a memcpy, so
 * this takes as long as a memcpy of (W·N + N) / 2 bytes, by as many members at once as reduce at once; their memcpy is
 * measured in the same run. What a member gives in memory of its own is copied first: W·N more. bench/peers.sh installs
 * OpenMPI.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { actor, collective, get, init } from "rayd";
import { median, show } from "./figures.ts";

/** Elements of the arrays: 100 MB, 1 MB, 4 kB. */
const LENGTHS = [25_000_000, 250_000, 1_000];

/** One member. */
export const Member = actor(
  class Member {
    #group!: collective.Group;
    #own!: Float32Array;
    #shared!: Float32Array;
    #target!: Float32Array;
    async join(size: number): Promise<void> {
      this.#group = await collective.join({ name: "bench", size });
    }
    async prepare(length: number): Promise<void> {
      this.#own = new Float32Array(length).fill(this.#group.rank + 1);
      this.#target = new Float32Array(length).fill(0);
      this.#shared = await this.#group.allocate(Float32Array, length);
      this.#shared.set(this.#own);
    }
    /** Copies its array a few times, all members at once. @returns Seconds for one copy. */
    async copy(times: number): Promise<number> {
      await this.#group.barrier();
      const started = performance.now();
      for (let i = 0; i < times; i++) this.#target.set(this.#own);
      await this.#group.barrier();
      return (performance.now() - started) / 1000 / times;
    }
    /** Reduces again and again. @returns The seconds of each round, until this member had its result. */
    async reduce(rounds: number, shared: boolean): Promise<number[]> {
      const times: number[] = [];
      const { size } = this.#group;
      for (let i = 0; i < rounds; i++) {
        await this.#group.barrier();
        const started = performance.now();
        using sum = await this.#group.allReduce(shared ? this.#shared : this.#own);
        times.push((performance.now() - started) / 1000);
        if (sum.at(-1) !== size * (size + 1) / 2) throw new Error("The sum is wrong");
      }
      return times;
    }
  },
  { durable: false },
);

/** The middle of the rounds, each of which lasts until the last member has its result. */
function seconds(members: readonly number[][]): number {
  return median(members[0]!.map((_, i) => Math.max(...members.map((times) => times[i]!))));
}

async function openMpi(size: number, rounds: number): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  const script = new URL("peers/mpi_bench.py", import.meta.url).pathname;
  const command = ["-np", String(size), "--oversubscribe", "--allow-run-as-root", "/usr/bin/python3", script];
  try {
    const { stdout, stderr, success } = await new Deno.Command("mpirun", {
      args: [...command, JSON.stringify({ lengths: LENGTHS, rounds })],
      signal: AbortSignal.timeout(120_000),
    }).output();
    const decoder = new TextDecoder();
    if (!success) console.log(`OpenMPI failed: ${decoder.decode(stderr).trim().slice(-300)}`);
    for (const line of decoder.decode(stdout).split("\n").filter((line) => line.startsWith("{"))) {
      const said = JSON.parse(line) as { length: number; seconds: number } | { version: string };
      if ("version" in said) console.log(said.version);
      else found.set(said.length, said.seconds);
    }
  } catch (error) {
    console.log(`OpenMPI is not measured: ${(error as Error).message}. bench/peers.sh installs it`);
  }
  return found;
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, { string: ["rounds", "size"], default: { rounds: "9", size: "4" } });
  const rounds = Number(args.rounds), size = Number(args.size);
  await using _ = await init({ storeMemory: 2_000_000_000 });
  const members = Array.from({ length: size }, () => Member.remote());
  await get(members.map((member) => member.join.remote(size)));
  const mpi = await openMpi(size, rounds);
  console.log(`| allReduce, ${size} members | bound, ms | rayd, in place | rayd, copied | OpenMPI |`);
  console.log("| --- | ---: | ---: | ---: | ---: |");
  for (const length of LENGTHS) {
    const bytes = length * 4;
    await get(members.map((member) => member.prepare.remote(length)));
    await get(members.map((member) => member.copy.remote(3)));
    const copy = median(await get(members.map((member) => member.copy.remote(length > 1e6 ? 5 : 50))));
    const bound = (size * bytes + bytes) / 2 * (copy / (size * bytes));
    const measure = async (shared: boolean) => {
      await get(members.map((member) => member.reduce.remote(3, shared)));
      return seconds(await get(members.map((member) => member.reduce.remote(rounds, shared))));
    };
    const inPlace = await measure(true), copied = await measure(false);
    const cell = (value: number | undefined) =>
      value === undefined ? "-" : `${show(value * 1000)} ms (${show(value / bound)}x)`;
    const ms = show(bound * 1000);
    const row = [`${show(bytes / 1e6)} MB`, ms, cell(inPlace), cell(copied), cell(mpi.get(length))];
    console.log(`| ${row.join(" | ")} |`);
  }
}
