/**
 * A port by which others learn at once that this process has ended: see `ffi/src/lifeline.rs`.
 *
 * @module
 */

import { check, loadRaystore } from "./raystore.ts";

/**
 * Listens, without ever saying anything, until this process ends.
 *
 * @param library Where the shared library is. @param hostname At which address of this machine.
 * @returns The port.
 * @throws {UsageError} If the library cannot be loaded.
 * @throws {StoreError} If there is no such address here, or the system has no such thing: a table of files of a thread of its own can be had since Linux 5.9.
 */
export function openLifeline(library: string, hostname: string): number {
  const { lib, close } = loadRaystore(library);
  try {
    const at = new TextEncoder().encode(hostname);
    return check(lib, lib.rs_lifeline_open(at, BigInt(at.length)), "Cannot listen for who waits for the end");
  } finally {
    close();
  }
}
