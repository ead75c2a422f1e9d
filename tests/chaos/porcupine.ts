/**
 * Porcupine (A. Athalye, "Porcupine: A fast linearizability checker in Go") as a second opinion on histories, and on the
 * checker of our own:
 *
 *     deno run -A tests/chaos/porcupine.ts [--histories 3000] [--seed 1]
 *
 * makes random histories, right ones and wrong ones, and has both checkers judge them. Needs Go, and the network once.
 * `tests/chaos/gcs_kill.ts --porcupine` has it judge what clients of a real control store saw.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Action, linearizable, type Operation } from "../linearizable.ts";

/** Which of some histories are linearizable, says Porcupine. @throws If it cannot be run. */
export async function porcupine(histories: readonly (readonly Operation[])[]): Promise<boolean[]> {
  const child = new Deno.Command("go", {
    args: ["run", "."],
    cwd: new URL("./porcupine/", import.meta.url),
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  const written = writer.write(
    new TextEncoder().encode(
      JSON.stringify(histories.map((history) =>
        history.map(({ called, returned, action }) => ({
          called,
          ...returned === Infinity ? {} : { returned },
          ...action,
        }))
      )),
    ),
  ).then(() => writer.close());
  const { code, stdout } = await child.output();
  await written;
  if (code !== 0) throw new Error(`Porcupine ended with status ${code}: is Go installed?`);
  return JSON.parse(new TextDecoder().decode(stdout)) as boolean[];
}

/** A history of some clients that use one register, with a wrong answer now and then. */
function randomHistory(random: () => number): Operation[] {
  const history: Operation[] = [];
  const wrong = random() < 0.5 ? 0 : 0.05;
  let state: string | undefined, next = 0;
  // Each takes effect at one instant, in order; its call and its return lie around it.
  for (let at = 0; at < 4 + random() * 12; at++) {
    const called = at - random() * 3, returned = random() < 0.1 ? Infinity : at + random() * 3;
    const lie = random() < wrong;
    const other = random() < 0.5 ? undefined : String(Math.floor(random() * (next + 1)));
    const happens = returned !== Infinity || random() < 0.5;
    let action: Action;
    const kind = random();
    if (kind < 0.4) {
      if (returned === Infinity) continue; // a read that nobody has an answer of says nothing
      action = { kind: "read", value: lie ? other : state };
    } else if (kind < 0.7) {
      action = { kind: "write", value: String(next++) };
      if (happens) state = action.value;
    } else {
      const expected = random() < 0.6 ? state : other;
      const done = expected === state;
      action = {
        kind: "swap",
        expected,
        value: String(next++),
        done: returned === Infinity ? undefined : lie ? !done : done,
      };
      if (happens && done) state = action.value;
    }
    history.push({ called, returned, action });
  }
  return history;
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, { string: ["histories", "seed"] });
  let state = Number(args.seed ?? 1);
  const random = () => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return (state >>> 0) / 2 ** 32;
  };
  const histories = Array.from({ length: Number(args.histories ?? 3000) }, () => randomHistory(random));
  const theirs = await porcupine(histories);
  const ours = histories.map((history) => linearizable(history));
  const differ = histories.filter((_, i) => ours[i] !== theirs[i]);
  console.log(
    `${histories.length} histories, ${theirs.filter((right) => !right).length} of them wrong: ` +
      (differ.length === 0 ? "both checkers agree on all" : `the checkers differ on ${differ.length}`),
  );
  if (differ.length > 0) console.log(JSON.stringify(differ[0], null, 1));
  Deno.exit(differ.length === 0 ? 0 : 1);
}
