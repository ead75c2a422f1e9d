/**
 * Runs each example on a cluster of a head and two workers, three times: undisturbed, with a worker killed in the middle,
 * and with the head killed. The program is connected to the worker that is spared, which has no CPUs, so that tasks and what
 * else needs one are on the two others. What it prints, and the file that it writes, must be what they are undisturbed, but
 * for what depends on time or chance by the example's own doing. Of an example with actors, some must be on a node that is
 * killed, or nothing would have been shown.
 *
 *     deno task chaos:examples [--only NAME]
 *
 * Needs the executable (bin/build). Prints a line for each, and ends with status 1 if any output differs.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { project, raydOutput, Running } from "../e2e/rayd.ts";
import { TestCluster } from "../e2e/test_cluster.ts";

/** An example, with inputs for which it takes some seconds. */
interface Example {
  readonly name: string;
  /** @param directory Where it may write. @param texts Where files are whose words can be counted. */
  readonly args: (directory: string, texts: string) => readonly string[];
  /** What of its output must be the same each time. */
  readonly same: (output: string) => string;
  /** Whether it has actors. */
  readonly actors?: boolean;
  /** A file that it writes, which must be the same each time. */
  readonly file?: string;
}

const TIMES = /\d+(?:\.\d+)? ?(?:ms|s|samples\/s)\b/g;
const withoutTimes = (output: string) => output.replaceAll(TIMES, "…");

const EXAMPLES: readonly Example[] = [
  { name: "fib", args: () => ["21"], same: withoutTimes },
  {
    name: "kv_service",
    args: () => [],
    actors: true,
    // How many actors it kills itself depends on how long it takes.
    same: (output) => output.replace(/\d+ actors killed/, "… actors killed"),
  },
  {
    name: "mandelbrot",
    args: (directory) => [`${directory}/mandelbrot.png`, "4000"],
    same: (output) => withoutTimes(output).replace(/^\S*\//, ""),
    file: "mandelbrot.png",
  },
  {
    name: "parameter_server",
    args: () => ["400"],
    actors: true,
    // In the asynchronous way it depends on time which weights a gradient is of.
    same: (output) => withoutTimes(output.slice(0, output.indexOf("asynchronous"))),
  },
  {
    name: "pi",
    args: () => ["400000000"],
    // It throws by chance: with so many darts, three decimals are certain.
    same: (output) => withoutTimes(output).replace(/3\.14[12]\d*/, (pi) => Number(pi).toFixed(2)),
  },
  { name: "pipeline", args: () => ["20000"], same: withoutTimes },
  {
    name: "simulation",
    args: () => ["20000"],
    actors: true,
    // Policies are changed by chance.
    same: (output) => /^\d+ episodes(?=, \d+ steps)/m.exec(output)?.[0] ?? output,
  },
  {
    name: "wordcount",
    args: (_directory, texts) => [texts],
    same: (output) => output,
  },
];

/** How long an example may take before it counts as one that hangs. */
const MS_MAX = 90_000;

/** What a run came to. */
interface Run {
  readonly output: string;
  readonly file: string;
  readonly seconds: number;
  /** How many actors the node had that was killed. */
  readonly actors: number;
}

/** How an example is disturbed. */
type Disturbance = "nothing" | "a worker" | "the head";

/** Runs an example. @param middleMs When what is to be killed is killed, after the program's start. */
async function run(
  example: Example,
  disturbance: Disturbance,
  middleMs: number,
  texts: string,
): Promise<Run> {
  const settings = ["--log-level", "info"], computes = ["--cpus", "2", ...settings];
  await using cluster = await TestCluster.start(
    "",
    ["--replicas", "3", ...computes],
    ["--cpus", "0", ...settings],
    computes,
  );
  const [head, spared, worker] = cluster.nodes as [Running, Running, Running];
  await whole(cluster.nodes);
  const directory = cluster.directory.path;
  const env = {
    ...cluster.env,
    RAYD_ADDRESS: /use --address (\S+) instead/.exec(spared.stdout)![1]!,
    RAYD_NODE: /rayd worker (\w+)/.exec(spared.stdout)![1]!,
  };
  const script = new URL(`../../examples/${example.name}.ts`, import.meta.url).pathname;
  const began = performance.now();
  await using program = new Running(["run", script, ...example.args(directory, texts)], {
    cwd: directory,
    env,
  });
  const ended = program.ended();
  let actors = 0;
  if (disturbance !== "nothing") {
    await new Promise((resolve) => setTimeout(resolve, middleMs));
    const victim = disturbance === "the head" ? head : worker;
    const id = /rayd (?:head|worker) (\w+)/.exec(victim.stdout)![1]!;
    const rows = JSON.parse(await raydOutput(["list", "actors", "--json"], { env })) as { node: string }[];
    actors = rows.filter(({ node }) => id.startsWith(node)).length;
    await victim.kill("SIGKILL");
  }
  const late = setTimeout(() => Deno.kill(program.pid, "SIGKILL"), MS_MAX);
  const { code } = await ended;
  clearTimeout(late);
  const seconds = (performance.now() - began) / 1000;
  if (code !== 0) {
    const why = seconds * 1000 > MS_MAX ? "it had not ended" : program.stderr;
    return { output: `status ${code} after ${seconds.toFixed(1)} s: ${why}`, file: "", seconds, actors };
  }
  const file = example.file === undefined ? "" : await hash(`${directory}/${example.file}`);
  return { output: example.same(program.stdout).replaceAll(directory, ""), file, seconds, actors };
}

/** Waits until three nodes keep the control store: before that no two of them would do without the third. */
async function whole(nodes: readonly Running[]): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!nodes.some(({ stderr }) => /Epoch \d+ of the control store: \w+, \w+, \w+$/m.test(stderr))) {
    if (performance.now() > deadline) throw new Error("the control store does not get three members");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function hash(path: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Some hundred megabytes of words, the same each time. */
function makeTexts(directory: string): void {
  let state = 1;
  for (let file = 0; file < 12; file++) {
    const words: string[] = [];
    for (let i = 0; i < 3_000_000; i++) {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      words.push((state >>> 12).toString(36).slice(0, 1 + state % 4));
    }
    Deno.writeTextFileSync(`${directory}/${file}.txt`, words.join(file % 2 === 0 ? " " : "\n"));
  }
}

if (import.meta.main) {
  const { only } = parseArgs(Deno.args, { string: ["only"], default: { only: "" } });
  using texts = project({});
  const examples = EXAMPLES.filter(({ name }) => name.includes(only));
  if (examples.some(({ name }) => name === "wordcount")) makeTexts(texts.path);
  let wrong = 0;
  for (const example of examples) {
    const calm = await run(example, "nothing", 0, texts.path);
    if (calm.output.startsWith("status")) {
      throw new Error(`${example.name} fails undisturbed: ${calm.output}`);
    }
    let moved = 0;
    for (const disturbance of ["a worker", "the head"] as const) {
      const disturbed = await run(example, disturbance, calm.seconds * 500, texts.path);
      const holds = disturbed.output === calm.output && disturbed.file === calm.file;
      if (!holds) wrong++;
      moved += disturbed.actors;
      console.log(
        `${example.name}, ${disturbance} killed${example.actors ? ` with ${disturbed.actors} actors` : ""}: ${
          holds ? "the same" : "DIFFERS"
        } ` + `(${disturbed.seconds.toFixed(1)} s, ${calm.seconds.toFixed(1)} s undisturbed)`,
      );
      if (!holds) console.log(`undisturbed:\n${calm.output}\ndisturbed:\n${disturbed.output}`);
    }
    if (example.actors && moved === 0) {
      wrong++;
      console.log(`${example.name}: no node that was killed had an actor`);
    }
  }
  Deno.exit(wrong === 0 ? 0 : 1);
}
