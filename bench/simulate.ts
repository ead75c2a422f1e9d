/**
 * Simulates clusters of up to 10,000 nodes around the scheduler's real machines, in virtual time.
 *
 *     deno task simulate [SCENARIO...] [--seed 1] [--nodes-max 10000] [--charts DIR]
 *
 * Scenarios: scaling, knee, locality, rounds, mixed, stragglers, loss, and costs, which measures the machines on this
 * computer. All of them unless some are named. `--charts docs` draws the charts of docs/simulation.md. What is simulated
 * is the same for the same seed, which the hash of each run's trace shows; what is measured ("machines", "costs") is not.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { describeMachine } from "./machine.ts";
import { COSTS } from "./simulate/costs.ts";
import { measure } from "./simulate/measure.ts";
import { draw, short } from "./simulate/plot.ts";
import { SCENARIOS } from "./simulate/scenarios.ts";

const COST_SCENARIO = "costs";

function main(): void {
  const args = parseArgs(Deno.args, {
    string: ["seed", "nodes-max", "charts"],
    default: { "seed": "1", "nodes-max": "10000" },
    unknown: (argument: string) => {
      if (argument.startsWith("-")) fail(`Unknown option ${argument}: see the head of bench/simulate.ts`);
    },
  });
  const names = [...Object.keys(SCENARIOS), COST_SCENARIO];
  const asked = args._.map(String);
  for (const name of asked) if (!names.includes(name)) fail(`No scenario "${name}": ${names.join(", ")}`);
  const settings = {
    seed: whole("--seed", args.seed),
    nodesMax: whole("--nodes-max", args["nodes-max"]),
    clock: () => performance.now(),
  };
  const { cpu, cores, deno } = describeMachine();
  console.log(`Seed ${settings.seed}. Measured times are of ${cpu}, ${cores} cores, deno ${deno}.`);
  for (const name of asked.length === 0 ? names : asked) {
    if (name === COST_SCENARIO) {
      printCosts();
      continue;
    }
    const started = performance.now();
    const { title, about, rows, findings, charts } = SCENARIOS[name]!(settings);
    console.log(`\n## ${title}\n\n${name}: ${about}.\n\n${table(rows)}`);
    if (findings.length > 0) console.log(`\n${findings.map((finding) => `- ${finding}`).join("\n")}`);
    console.log(`\n(${((performance.now() - started) / 1000).toFixed(1)} s)`);
    if (args.charts === undefined) continue;
    for (const [chart, content] of Object.entries(charts)) {
      Deno.writeTextFileSync(`${args.charts}/simulation_${chart}.svg`, draw(content));
    }
  }
}

/** What the machines take on this computer, what follows from it, and what simulations take for it. */
function printCosts(): void {
  const { localUs, placeUs, reportUs, relayUs } = measure(() => performance.now());
  const bound = (us: number) => `${short(1e6 / us)}/s`;
  console.log(`\n## What the machines cost here, in thread time\n`);
  console.log(table([
    {
      "what": "local scheduler: a task ready, sent, done",
      "us": localUs.toFixed(2),
      "at most": bound(localUs),
    },
    ...placeUs.map(({ nodes, us }) => ({
      "what": `global scheduler: a place among ${nodes.toLocaleString("en-US")} nodes`,
      "us": us.toFixed(2),
      "at most": bound(us),
    })),
    { "what": "a node's load, read and taken in", "us": reportUs.toFixed(2), "at most": bound(reportUs) },
    { "what": "a node's load, written for one other", "us": relayUs.toFixed(2), "at most": bound(relayUs) },
  ]));
  const perNode = placeUs.at(-1)!.us / placeUs.at(-1)!.nodes;
  console.log(
    `\nSimulations take ${COSTS.placeViewUs} us a node looked at (here ${perNode.toFixed(3)}), ` +
      `${COSTS.reportUs} us a load read (${reportUs.toFixed(2)}), ${COSTS.relayUs} us one written (${
        relayUs.toFixed(2)
      }), and ${COSTS.nodeStartUs + COSTS.nodeEndUs} us for all that a node does for a task.`,
  );
}

/** A table in Markdown. */
function table(rows: readonly Readonly<Record<string, string>>[]): string {
  const names = Object.keys(rows[0]!);
  const cells = [names, ...rows.map((row) => names.map((name) => row[name]!))];
  const isNumber = names.map((name) => rows.every((row) => /^[\d.,%-]+$/.test(row[name]!)));
  const widths = names.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    `| ${
      row.map((cell, i) => isNumber[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join(" | ")
    } |`;
  const rule = widths.map((width, i) => isNumber[i] ? `${"-".repeat(width - 1)}:` : "-".repeat(width));
  return [line(cells[0]!), line(rule), ...cells.slice(1).map(line)].join("\n");
}

function whole(option: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    fail(`Cannot use ${option} ${text}: give a whole number above 0`);
  }
  return value;
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}

if (import.meta.main) main();
