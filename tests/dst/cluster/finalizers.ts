/**
 * Garbage is collected when the engine likes, which no seed decides. So nothing is finalized in a simulated cluster: programs
 * let go of what they hold by saying so, and to collect garbage is to do nothing. Imported before anything that makes a
 * registry, or has garbage collected.
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

Object.assign(globalThis, { FinalizationRegistry: NeverFinalized, gc: () => {} });
