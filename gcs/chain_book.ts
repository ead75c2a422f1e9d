/**
 * The book of members: where each was reached when this one last heard of it, itself included, on disk beside the shards.
 *
 * It is how members that all start again find each other: each looks where the others were, and those who have moved find
 * one who has not.
 *
 * @module
 */

import type { MemberId } from "./chain_config.ts";

/** Where a member is reached. */
export interface MemberAddresses {
  /** By other members: HOST:PORT. */
  readonly chain: string;
  /** By clients: HOST:PORT. */
  readonly client: string;
}

/** All members that are known of. */
export type MemberBook = Readonly<Record<MemberId, MemberAddresses>>;

/** What lies in a directory; empty if there is nothing, or nothing that can be read: it is learned anew from others. */
export function readBook(directory: string): MemberBook {
  try {
    return JSON.parse(Deno.readTextFileSync(`${directory}/${BOOK}`)) as MemberBook;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof SyntaxError)) throw error;
    return {};
  }
}

/** Writes it. */
export function writeBook(directory: string, book: MemberBook): void {
  const file = `${directory}/${BOOK}`;
  Deno.writeTextFileSync(`${file}.new`, JSON.stringify(book));
  Deno.renameSync(`${file}.new`, file);
}

const BOOK = "members.json";
