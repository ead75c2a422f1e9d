/**
 * Where in a value the packer is, and why a part of it cannot travel.
 *
 * Packing must not pay for errors that do not happen: a step down stores its key, and only a failure makes a path of
 * the keys. What is below the present depth is left over from other branches.
 *
 * @module
 */

/** What a step leads through. */
export type Step = "property" | "map value" | "map value by place" | "map key" | "set element" | "state";

/** Steps of a path that an error shows. */
const PATH_STEPS_MAX = 32;

/** The way from the root of a value to the part at hand. */
export class Trail {
  /** The key at each depth, counted from 1: a property's name, an index, a Map's key. */
  readonly keys: unknown[] = [undefined];
  /** What the key at each depth is. */
  readonly steps: Step[] = ["property"];
  /** How many steps lead to the part at hand. */
  depth = 0;

  /** Goes one level down; the new depth's key is set for each part. @returns The new depth. */
  enter(step: Step): number {
    const depth = ++this.depth;
    this.steps[depth] = step;
    return depth;
  }

  /** Goes one level up. */
  leave(): void {
    this.depth--;
  }

  /** The way as text, such as `args[0].model.optimizer` or `value.get("k")[3]`. @param root What it starts with. */
  path(root: string): string {
    let path = root;
    for (let i = 1; i <= this.depth; i++) {
      if (i > PATH_STEPS_MAX) return `${path}…`;
      path += showStep(this.steps[i]!, this.keys[i]);
    }
    return path;
  }
}

function showStep(step: Step, key: unknown): string {
  switch (step) {
    case "map value":
      return `.get(${showKey(key)})`;
    case "map value by place":
      return `.get(<key ${String(key)}>)`;
    case "map key":
      return `.keys()[${String(key)}]`;
    case "set element":
      return `.values()[${String(key)}]`;
    case "state":
      return ".serialize()";
    case "property":
      if (typeof key === "number") return `[${key}]`;
      return /^[A-Za-z_$][\w$]*$/.test(String(key)) ? `.${String(key)}` : `[${showKey(key)}]`;
  }
}

/** Why an object of a class cannot travel, and what to do instead. */
export function refusal(value: object): string {
  const name = className(value);
  switch (name) {
    case "Promise":
      return "a Promise belongs to its isolate; await it first";
    case "WeakMap":
    case "WeakSet":
    case "WeakRef":
      return `a ${name} depends on its isolate's garbage collector; pass a copy of what it holds`;
    case "Generator":
    case "AsyncGenerator":
      return `a ${name} runs in its isolate; collect what it yields first`;
    default:
      return `an instance of class ${name || "(anonymous)"} would lose its class; ` +
        `call registerClass(${
          name || "TheClass"
        }, { serialize, deserialize }) next to the class, or pass plain data`;
  }
}

function className(value: object): string {
  const constructor: unknown = Reflect.get(value, "constructor");
  if (typeof constructor === "function" && constructor.name !== "" && constructor !== Object) {
    return constructor.name;
  }
  return Object.prototype.toString.call(value).slice("[object ".length, -1);
}

function showKey(key: unknown): string {
  if (typeof key !== "string") return String(key);
  return JSON.stringify(key.length > 64 ? `${key.slice(0, 64)}…` : key);
}

/** An error as a line of text, whatever was thrown. */
export function showError(error: unknown): string {
  try {
    return String(error);
  } catch {
    return "an error that cannot be shown";
  }
}
