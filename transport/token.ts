/**
 * The token that every connection must show: 256 random bits, in hexadecimal.
 *
 * @module
 */

/** Compares tokens in a time that does not depend on where they differ. */
export function sameToken(given: string, expected: string): boolean {
  let difference = given.length ^ expected.length;
  for (let i = 0; i < expected.length; i++) difference |= (given.charCodeAt(i) || 0) ^ expected.charCodeAt(i);
  return difference === 0 && expected.length > 0;
}
