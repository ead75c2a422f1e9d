/**
 * Wall clocks of a cluster's places, which a test can set: a library (clock_shim.c) that is built for the occasion and
 * preloaded into what runs there.
 *
 * @module
 */

/** Clocks, one a place. */
export class Clocks {
  readonly #directory: string;
  readonly #library: string;

  private constructor(directory: string, library: string) {
    this.#directory = directory;
    this.#library = library;
  }

  /** Builds the library. @param directory Where it may lie. @throws {Error} If there is no compiler, with the reason. */
  static async make(directory: string): Promise<Clocks> {
    const library = `${directory}/clock_shim.so`;
    const source = new URL("clock_shim.c", import.meta.url).pathname;
    try {
      const args = ["-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"];
      const { success, stderr } = await new Deno.Command("cc", { args }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
    } catch (error) {
      throw new Error(`clocks cannot be set here: cc: ${(error as Error).message}`);
    }
    return new Clocks(directory, library);
  }

  /** The variables of what runs in a place, whose clock is right at first. */
  env(place: number): Record<string, string> {
    const file = this.#file(place);
    try {
      Deno.statSync(file);
    } catch {
      this.set(place, 0);
    }
    return { LD_PRELOAD: this.#library, RAYD_CHAOS_CLOCK: file };
  }

  /** Sets a place's clock so far ahead, or back. */
  set(place: number, ms: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigInt64(0, BigInt(Math.round(ms)) * 1_000_000n, true);
    // In place, as it is mapped; eight bytes are written as one.
    using file = Deno.openSync(this.#file(place), { write: true, create: true });
    file.writeSync(bytes);
  }

  #file(place: number): string {
    return `${this.#directory}/clock-${place}`;
  }
}
