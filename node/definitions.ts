/**
 * Functions and settings that clients have defined, each kept once however many define it. Submissions refer to them by
 * the numbers that their client gave; isolates and peers are told of them by the numbers that they have here.
 *
 * @module
 */

import { ProtocolError } from "../core/errors.ts";
import type { FunctionAddress } from "../core/messages.ts";
import type { TaskSettings } from "../core/options.ts";
import type { Shape, Shapes } from "../scheduler/resources.ts";
import type { Client } from "./peers.ts";
import { type FunctionEntry, functionEntry, type SettingsEntry, type TaskRecord } from "./tasks.ts";

/** What was defined on a node. */
export class Definitions {
  readonly #shapes: Shapes;
  readonly #functions = new Map<string, FunctionEntry>();
  readonly #settings = new Map<string, SettingsEntry>();

  /** @param shapes Where demands are interned. */
  constructor(shapes: Shapes) {
    this.#shapes = shapes;
  }

  /** The entry of a function. */
  function(address: FunctionAddress): FunctionEntry {
    const key = `${address.load}\n${address.module}\n${address.name}`;
    let entry = this.#functions.get(key);
    if (entry === undefined) {
      entry = functionEntry(this.#functions.size, address);
      this.#functions.set(key, entry);
    }
    return entry;
  }

  /** The entry of settings. */
  settings(settings: TaskSettings): SettingsEntry {
    const key = JSON.stringify(settings);
    let entry = this.#settings.get(key);
    if (entry === undefined) {
      entry = { index: this.#settings.size, settings, shape: shapeOf(this.#shapes, settings) };
      this.#settings.set(key, entry);
    }
    return entry;
  }

  /** A task's settings, with what it was given where it had left a choice. */
  chosen({ entry, shape }: TaskRecord): SettingsEntry {
    if (entry.shape === shape) return entry;
    const { alternatives: _, ...settings } = entry.settings;
    return this.settings({ ...settings, demand: shape.demand });
  }

  /** What a submission refers to by index. @throws {ProtocolError} If its client has not defined it. */
  of(
    client: Client,
    message: { readonly fn: number; readonly settings: number },
  ): { fn: FunctionEntry; entry: SettingsEntry } {
    const fn = client.functions.get(message.fn);
    const entry = client.settings.get(message.settings);
    if (fn !== undefined && entry !== undefined) return { fn, entry };
    throw new ProtocolError(
      `Cannot submit: function ${message.fn} or settings ${message.settings} are not defined`,
    );
  }
}

/** What settings ask for. */
export function shapeOf(
  shapes: Shapes,
  { demand, alternatives = [] }: Pick<TaskSettings, "demand" | "alternatives">,
): Shape {
  return alternatives.length === 0 ? shapes.of(demand) : shapes.anyOf([demand, ...alternatives]);
}
