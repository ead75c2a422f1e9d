/**
 * `--config FILE`: options of `rayd head` and `rayd worker` in a file, by the names that they have on the command line.
 *
 * @module
 */

// @ts-types="./std_jsonc.d.ts"
import { parse as parseJsonc } from "@std/jsonc/parse";
import { CommandLineError } from "./output.ts";
import { didYouMean } from "./suggest.ts";

/** Options with amounts or texts by name. */
const MAPS: readonly string[] = ["resources", "labels"];

/**
 * Reads options from a file.
 *
 * @param file JSON, or JSON with comments: an object.
 * @param valued Options with a value. @param flags Options without.
 * @returns Arguments as they would stand on the command line.
 * @throws {CommandLineError} If the file cannot be read, or says something else.
 */
export function argumentsFromFile(
  file: string,
  valued: readonly string[],
  flags: readonly string[],
): string[] {
  const wrong = (what: string) => new CommandLineError(`Cannot use --config ${file}: ${what}`);
  let options: unknown;
  try {
    options = parseJsonc(Deno.readTextFileSync(file));
  } catch (error) {
    throw wrong((error as Error).message);
  }
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw wrong('it must be an object such as { "cpus": 4, "labels": { "zone": "a" } }');
  }
  return Object.entries(options).map(([name, value]: [string, unknown]) => {
    if (flags.includes(name)) {
      if (typeof value !== "boolean") throw wrong(`"${name}" is true or false`);
      return `--${name}=${value}`;
    }
    if (!valued.includes(name)) {
      const known = [...valued, ...flags];
      throw wrong(
        `there is no option "${name}".${didYouMean(name, known, "")} There are ${known.join(", ")}`,
      );
    }
    if (typeof value === "number" || typeof value === "string") return `--${name}=${value}`;
    if (!MAPS.includes(name)) throw wrong(`"${name}" is a number or a text`);
    const amounts = typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.entries(value)
      : [["", undefined]];
    const fits = (each: unknown) => name === "labels" ? typeof each === "string" : typeof each === "number";
    if (!amounts.every(([, each]) => fits(each))) {
      throw wrong(`"${name}" is an object of ${name === "labels" ? "texts" : "numbers"} by name`);
    }
    const text = name === "labels"
      ? amounts.map(([label, text]) => `${label}=${text}`).join(",")
      : JSON.stringify(value);
    return `--${name}=${text}`;
  });
}
