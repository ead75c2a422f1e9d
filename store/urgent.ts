/**
 * A thread that runs before others: see `ffi/src/urgent.rs`.
 *
 * @module
 */

import { check, loadRaystore } from "./raystore.ts";

/** Says how the thread that calls it runs. */
export interface ThreadUrgency {
  /**
   * Before all threads of the usual kind on this machine, or as one of them again.
   *
   * @throws {StoreError} If the system does not allow it: that takes CAP_SYS_NICE, or a limit on real-time priorities
   * (`ulimit -r`) above 0.
   */
  set(urgent: boolean): void;
  /** Unloads the library, as far as this isolate is concerned. */
  close(): void;
}

/** @param library Where the shared library is. @throws {UsageError} If it cannot be loaded. */
export function threadUrgency(library: string): ThreadUrgency {
  const { lib, close } = loadRaystore(library);
  return {
    set: (urgent) => void check(lib, lib.rs_urgent(Number(urgent)), "Cannot have a thread run before others"),
    close,
  };
}
