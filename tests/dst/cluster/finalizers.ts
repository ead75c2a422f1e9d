/**
 * Garbage is collected when the engine likes, which no seed decides. So nothing is finalized in a simulated cluster: programs
 * let go of what they hold by saying so. Imported before anything that makes a registry.
 *
 * @module
 */

class NeverFinalized {
  readonly [Symbol.toStringTag] = "FinalizationRegistry";
  register(): void {}
  unregister(): boolean {
    return false;
  }
}

Object.assign(globalThis, { FinalizationRegistry: NeverFinalized });
