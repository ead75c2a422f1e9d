/**
 * What to say when too few members of the control store answer: how many do, which do not, and what to do about it.
 *
 * Nothing is to be had from a store without a majority of those who decide: nobody knows what they agreed on last. That is
 * mended by starting members again where they had their replicas, not by waiting, so it is an error rather than a delay.
 *
 * @module
 */

import { NoMajorityError } from "../core/errors.ts";

/** Of those who decide: where clients reach them. */
export interface Quorum {
  readonly answering: readonly string[];
  readonly missing: readonly string[];
}

/** An address that nobody has. */
export const UNKNOWN = "unknown";

/** How many more have to answer: 0 if they are a majority. */
export function lackingOf({ answering, missing }: Quorum): number {
  return Math.max(0, Math.floor((answering.length + missing.length) / 2) + 1 - answering.length);
}

/** Too few answer, or not what they were asked. */
export function noMajority(quorum: Quorum): NoMajorityError {
  const { answering, missing } = quorum;
  const lacking = lackingOf(quorum);
  const all = answering.length + missing.length;
  const members = all === 1 ? "the member that decides" : `the ${all} members that decide`;
  if (lacking === 0) {
    return new NoMajorityError(
      `The control store does not answer, though ${answering.length} of ${members} can be reached ` +
        `(${answering.join(", ")}): see whether they reach each other`,
    );
  }
  const who = all === 1
    ? `${members} does not answer (${listOf(missing)})`
    : `of ${members}, ${answering.length} answer${answering.length === 1 ? "s" : ""}` +
      `${answering.length === 0 ? "" : ` (${listOf(answering)})`} and ${missing.length} ` +
      `do${missing.length === 1 ? "es" : ""} not (${listOf(missing)})`;
  return new NoMajorityError(
    `The control store has no majority: ${who}. Start ${
      lacking === missing.length ? (missing.length === 1 ? "it" : "them") : `${lacking} of them`
    } again, on the --dir that it had (rayd head, rayd worker)`,
  );
}

/** The member that says this has no part any more: others went on without it. @param quorum Of those. */
export function outOfDate(directory: string, { answering, missing }: Quorum): NoMajorityError {
  const newest = [...missing, ...answering];
  return new NoMajorityError(
    `The control store in ${directory} is old: this node had left it, and it went on without. The newest is kept at ` +
      `${listOf(newest)}, which ${
        newest.length === 1 ? "does" : "do"
      } not answer. Start that again on the --dir that it ` +
      `had (rayd worker), and this one then; or begin a new cluster with another --dir`,
  );
}

function listOf(addresses: readonly string[]): string {
  const named = (address: string) =>
    address === UNKNOWN ? "one whose address is not known" : address === "" ? "where it was asked" : address;
  return addresses.map(named).join(", ");
}
