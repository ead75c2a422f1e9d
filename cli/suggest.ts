/**
 * "Did you mean …": the nearest of the names there are.
 *
 * @module
 */

/** A sentence with the nearest name, or nothing when none is near. */
export function didYouMean(word: string, names: readonly string[], prefix = ""): string {
  let best: string | undefined;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const name of names) {
    const d = distance(word, name);
    if (d < least) [best, least] = [name, d];
  }
  return best === undefined ? "" : ` Did you mean "${prefix}${best}"?`;
}

/** Insertions, deletions, replacements, and swaps of neighbours that turn one word into the other (Damerau). */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, i) => i)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      row[j] = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        row[j] = Math.min(row[j]!, rows[i - 2]![j - 2]! + 1);
      }
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
