/**
 * What a disk can do to a file: bits that turn over, bytes and pages that are others or zero, pages that are where another
 * belongs, an end that is missing.
 *
 * @module
 */

const PAGE = 4096;

/** A file's bytes with one damage. @param random Gives numbers from 0 to 1. */
export function damageFile(
  file: Uint8Array,
  random: () => number,
): { readonly bytes: Uint8Array; readonly what: string } {
  const bytes = file.slice();
  const below = (n: number) => Math.floor(random() * n);
  // The first two pages say where all others are: they get their share.
  const page = random() < 0.3 ? below(2) : below(bytes.length / PAGE);
  const at = page * PAGE;
  switch (below(5)) {
    case 0: {
      // Where there is something to turn over, rather than in the room that a page has left.
      const offset = at + below(random() < 0.5 ? 200 : PAGE);
      bytes[offset]! ^= 1 << below(8);
      return { bytes, what: `a bit of byte ${offset} turned over` };
    }
    case 1: {
      const from = at + below(PAGE), length = 1 + below(64);
      for (let i = from; i < Math.min(from + length, bytes.length); i++) bytes[i] = below(256);
      return { bytes, what: `${length} bytes from ${from} are others` };
    }
    case 2:
      bytes.fill(0, at, at + PAGE);
      return { bytes, what: `page ${page} is zero` };
    case 3: {
      const other = below(bytes.length / PAGE);
      bytes.copyWithin(at, other * PAGE, other * PAGE + PAGE);
      return { bytes, what: `page ${page} is as page ${other}` };
    }
    default: {
      const length = below(bytes.length);
      return { bytes: bytes.slice(0, length), what: `it ends after ${length} bytes` };
    }
  }
}
