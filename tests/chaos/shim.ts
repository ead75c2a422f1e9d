/**
 * What a test can do to the processes of a cluster's places from within: set their wall clock, and garble what they receive.
 * A library (shim.c) does it, which is built for the occasion and preloaded into what runs there.
 *
 * @module
 */

/** The library, and what it is told in each place. */
export class Shim {
  readonly #directory: string;
  readonly #library: string;

  private constructor(directory: string, library: string) {
    this.#directory = directory;
    this.#library = library;
  }

  /** Builds the library. @param directory Where it may lie. @throws {Error} If there is no compiler, with the reason. */
  static async make(directory: string): Promise<Shim> {
    const library = `${directory}/shim.so`;
    const source = new URL("shim.c", import.meta.url).pathname;
    try {
      const args = ["-shared", "-fPIC", "-O2", "-Wall", "-o", library, source, "-ldl"];
      const { success, stderr } = await new Deno.Command("cc", { args }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
    } catch (error) {
      throw new Error(`nothing can be preloaded here: cc: ${(error as Error).message}`);
    }
    return new Shim(directory, library);
  }

  /** The variables of what runs in a place, where all is well at first. */
  env(place: number): Record<string, string> {
    const file = this.#file(place);
    try {
      Deno.statSync(file);
    } catch {
      Deno.writeFileSync(file, new Uint8Array(16));
    }
    return { LD_PRELOAD: this.#library, RAYD_CHAOS_SHIM: file };
  }

  /** Sets a place's wall clock so far ahead, or back. */
  setClock(place: number, ms: number): void {
    this.#write(place, 0, BigInt(Math.round(ms)) * 1_000_000n);
  }

  /** Turns bits over in what arrives next at a place by TCP. @param times How many. */
  garble(place: number, times: number): void {
    this.#write(place, 8, BigInt(times));
  }

  /** How many of those are still to come. */
  left(place: number): number {
    const bytes = Deno.readFileSync(this.#file(place));
    return Math.max(0, Number(new DataView(bytes.buffer).getBigInt64(8, true)));
  }

  /** In place, as it is mapped; eight bytes are written as one. */
  #write(place: number, at: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigInt64(0, value, true);
    using file = Deno.openSync(this.#file(place), { write: true });
    file.seekSync(at, Deno.SeekMode.Start);
    file.writeSync(bytes);
  }

  #file(place: number): string {
    return `${this.#directory}/shim-${place}`;
  }
}
