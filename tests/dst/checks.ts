/**
 * What must hold at every step of a simulated run, and at its end.
 *
 * @module
 */

import { assert } from "@std/assert";
import type { ChainConfig, MemberId } from "../../gcs/chain_config.ts";
import type { ChainEntry } from "../../gcs/chain_messages.ts";
import type { GcsResult } from "../../gcs/shard.ts";
import { linearizable, type Operation } from "../linearizable.ts";

/** The one history that all members' states come from, as it becomes known. */
export class Checks {
  /** Committed entries, by their number from 1, as who applied one first had it. */
  readonly #truth: string[] = [""];
  readonly #positions = new Map<string, number>();
  readonly #configs = new Map<number, string>();
  readonly #histories = new Map<string, Operation[]>();

  /** How long the history is. */
  get length(): number {
    return this.#truth.length - 1;
  }

  /** A member applies an entry: the same one as everybody who applied that number, and the next one if nobody has. */
  applied(member: MemberId, entry: ChainEntry): void {
    const name = nameOf(entry);
    const known = this.#truth[entry.seq];
    assert(entry.seq <= this.#truth.length, `${member} applies ${entry.seq}, and ${this.length} are known`);
    assert(
      known === undefined || known === name,
      `${member} applies ${name} as ${entry.seq}, which is ${known}`,
    );
    this.#truth[entry.seq] = name;
    if (entry.command.kind === "apply") {
      const { client, sequence } = entry.command.command;
      const command = `${client}/${sequence}`;
      const at = this.#positions.get(command);
      assert(at === undefined || at === entry.seq, `${command} is in the history twice: ${at}, ${entry.seq}`);
      this.#positions.set(command, entry.seq);
    }
  }

  /** A member learns a configuration: the same as everybody who learned that epoch. @returns Whether it is the first. */
  configured(member: MemberId, config: ChainConfig): boolean {
    const { epoch, chain, joining, acceptors } = config;
    const name = JSON.stringify([chain, joining, acceptors]);
    const known = this.#configs.get(epoch);
    assert(
      known === undefined || known === name,
      `${member} has epoch ${epoch} as ${name}, others as ${known}`,
    );
    this.#configs.set(epoch, name);
    return known === undefined;
  }

  /** A write is acknowledged: it is in the history. */
  acknowledged(client: string, sequence: number, results: readonly GcsResult[]): void {
    void results;
    assert(
      this.#positions.has(`${client}/${sequence}`),
      `${client}/${sequence} is acknowledged, and was never committed`,
    );
  }

  /** Something was done to a key, and seen. */
  note(key: string, operation: Operation): void {
    const history = this.#histories.get(key);
    if (history === undefined) this.#histories.set(key, [operation]);
    else history.push(operation);
  }

  /** At the end: what clients saw of each key could have come about one operation after another. */
  finish(): void {
    for (const [key, history] of this.#histories) {
      assert(
        linearizable(history),
        `what clients saw of "${key}" is not linearizable: ${JSON.stringify(history)}`,
      );
    }
  }
}

function nameOf({ seq, epoch, command }: ChainEntry): string {
  if (command.kind !== "apply") return `${epoch}.${seq} ${command.kind} ${command.client}`;
  return `${epoch}.${seq} ${command.command.client}/${command.command.sequence}`;
}
