/**
 * `rayd new`: a project to start from, which an editor and `deno check` understand.
 *
 * @module
 */

import { basename, dirname, resolve } from "node:path";
import { VERSION } from "../core/version.ts";
import type { Command } from "./mod.ts";
import { CommandLineError, print } from "./output.ts";

/** The command. */
export const command: Command = {
  help: `rayd new DIRECTORY

Makes a project in a new or empty directory: a program, a test, and the declarations that editors and "deno check" need.
`,

  async run(args) {
    const option = args.find((arg) => arg.startsWith("-"));
    if (option !== undefined) {
      throw new CommandLineError(`Unknown option ${option} of "rayd new": it has none`);
    }
    const [directory, ...more] = args;
    if (directory === undefined || more.length > 0) {
      throw new CommandLineError('Name one directory: "rayd new DIRECTORY"');
    }
    const path = resolve(directory);
    requireEmpty(path, directory);
    for (const [name, text] of Object.entries(await files(basename(path)))) {
      Deno.mkdirSync(dirname(`${path}/${name}`), { recursive: true });
      Deno.writeTextFileSync(`${path}/${name}`, text);
    }
    print(`Made ${directory}. Try it:\n\n  cd ${directory}\n  rayd run main.ts\n  rayd run main_test.ts\n`);
    return 0;
  },
};

function requireEmpty(path: string, directory: string): void {
  try {
    for (const _ of Deno.readDirSync(path)) {
      throw new CommandLineError(
        `Cannot make a project in ${directory}: it is not empty. Name a new directory`,
      );
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (error instanceof Deno.errors.NotADirectory) {
      throw new CommandLineError(`Cannot make a project in ${directory}: it is a file. Name a new directory`);
    }
    throw error;
  }
}

/** Where the declarations lie in the project. */
const DECLARATIONS = ".rayd/types";

async function files(name: string): Promise<Record<string, string>> {
  const declarations = JSON.parse(
    Deno.readTextFileSync(new URL("../dist/assets/declarations.json", import.meta.url)),
  ) as Record<string, string>;
  const exports = Object.keys(await import("../runtime/mod.ts"));
  return {
    "deno.json": `${JSON.stringify(CONFIG, null, 2)}\n`,
    "main.ts": MAIN,
    "squares.ts": SQUARES,
    "main_test.ts": TEST,
    "README.md": readme(name),
    ".rayd/rayd.js": stub(exports),
    ...Object.fromEntries(
      Object.entries(declarations).map(([path, text]) => [`${DECLARATIONS}/${path}`, text]),
    ),
  };
}

const CONFIG = {
  imports: { rayd: "./.rayd/rayd.js" },
  compilerOptions: { strict: true },
  exclude: [".rayd"],
};

/** Stands for rayd where there is only Deno: carries the types, and says how the program is run. */
function stub(exports: readonly string[]): string {
  return `// @ts-self-types="./types/runtime/mod.d.ts"
// Made by rayd ${VERSION}. The types of "rayd", for editors and "deno check"; what runs is in the executable.
throw new Error('This program runs with "rayd run", not with "deno run" or "deno test"');
export const { ${exports.join(", ")} } = {};
`;
}

const SQUARES = `import { remote } from "rayd";

/** Runs in one of the workers when it is called as \`square.remote(x)\`, and right here as \`square(x)\`. */
export const square = remote(function square(x: number): number {
  return x * x;
});

/** Adds up what other tasks have made: arguments may be Refs. */
export const sum = remote(function sum(...values: number[]): number {
  return values.reduce((a, b) => a + b, 0);
});
`;

const MAIN = `import { get, init } from "rayd";
import { square, sum } from "./squares.ts";

if (import.meta.main) {
  await using _ = await init();
  const squares = [1, 2, 3, 4].map((x) => square.remote(x));
  console.log(await get(squares), await get(sum.remote(...squares)));
}
`;

const TEST = `import { get, init } from "rayd";
import { square, sum } from "./squares.ts";

// Workers import this module too: what drives the program stands under import.meta.main.
if (import.meta.main) {
  await using _ = await init();
  expect("a square", await get(square.remote(7)), 49);
  const nine = square.remote(3);
  expect("a sum of tasks", await get(sum.remote(nine, square.remote(4))), 25);
  expect("called directly", square(5), 25);
}

function expect(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) {
    throw new Error(\`\${what}: expected \${expected}, got \${actual}\`);
  }
  console.log(\`ok  \${what}\`);
}
`;

function readme(name: string): string {
  return `# ${name}

\`\`\`sh
rayd run main.ts         # the program
rayd run main_test.ts    # its test: plain code that throws when something is wrong
deno check               # types, if Deno is installed
\`\`\`

\`.rayd/\` holds the declarations of the module \`rayd\`, for editors and
\`deno check\`. The implementation is inside the \`rayd\` executable, so \`deno run\`
and \`deno test\` cannot run code that imports it: they say so.
`;
}
