/**
 * How often each word of a text occurs, counted on bytes.
 *
 * The obvious way, a `Map` from string to number, makes a string for every word of the text, and adding up two maps
 * hashes every string again: more work than the counting. Here no word becomes a string until it is printed. A counter
 * is a hash table with open addressing, whose words lie one after the other in one array of bytes. What was counted
 * goes through the object store as three arrays, without being copied, and hashes go with the words.
 *
 * A word's place in the table are the upper bits of its hash, so that words come out in the order of their hashes, but
 * for a few that had to move: adding a table to another goes through memory from front to back, instead of here and
 * there. The lower bits share words out to several tables, which have none in common, so that the shares of many texts
 * are added up independently, on as many cores as there are.
 *
 * @module
 */

/** The words of a text, each once, and how often each occurs. */
export interface WordTable {
  /** The words, in lower case, each with a zero byte after it. */
  readonly bytes: Uint8Array;
  readonly hashes: Int32Array;
  readonly counts: Float64Array;
}

/** A word and how often it occurs. */
export type WordCount = readonly [word: string, count: number];

/**
 * What a byte is within a word: itself, in lower case, if it is a letter, a digit, `_`, or part of any character beyond
 * ASCII; 0 if it separates words.
 */
const WORD_BYTE = Uint8Array.from(
  { length: 256 },
  (_, byte) => byte >= 128 ? byte : /\w/.test(char(byte)) ? char(byte).toLowerCase().charCodeAt(0) : 0,
);

/** Whether a byte belongs to a word. */
export function inWord(byte: number): boolean {
  return WORD_BYTE[byte] !== 0;
}

/** Counts words. */
export class WordCounter {
  /** At `4 * place` a word's hash, and where it begins in `bytes`, plus one; or 0 where no word is. */
  #places!: Int32Array;
  /** The same memory: at `2 * place + 1` how often the word at that place occurs. */
  #counts!: Float64Array;
  /** How far right to shift a hash to have a place. Half of the places, at most, are taken. */
  #shift = 32;
  #size = 0;
  /** The words, each with a zero byte after it. */
  #bytes = new Uint8Array(64 * 1024);
  #used = 0;

  constructor() {
    this.#makeRoom(PLACES_MIN / 2);
  }

  /**
   * Counts the words of a block of text that begin and end within it.
   *
   * @param text The block, which is turned into lower case on the way.
   * @returns Where a last word begins that goes up to the end of the block, and may go on after it; or its length.
   */
  addBlock(text: Uint8Array): number {
    const { length } = text;
    for (let at = 0;;) {
      while (at < length && WORD_BYTE[text[at]!] === 0) at++;
      const begin = at;
      let hash = HASH_SEED;
      for (let byte; at < length && (byte = WORD_BYTE[text[at]!]!) !== 0; at++) {
        text[at] = byte;
        hash = Math.imul(hash ^ byte, HASH_PRIME);
      }
      if (at === length) return begin;
      this.#add(text, begin, at, Math.imul(hash ^ hash >>> 15, HASH_MIX), 1);
    }
  }

  /** Adds the counts of a table. */
  addTable({ bytes, hashes, counts }: WordTable): void {
    this.#makeRoom(this.#size + counts.length); // first: in too small a table, words of neighbouring hashes pile up
    for (let i = 0, begin = 0; i < counts.length; i++) {
      const end = endOfWord(bytes, begin);
      this.#add(bytes, begin, end, hashes[i]!, counts[i]!);
      begin = end + 1;
    }
  }

  /** What was counted, shared out by hash to some tables. */
  tables(shares: number): WordTable[] {
    const places = this.#places, counts = this.#counts, bytes = this.#bytes;
    const lengths = new Uint32Array(shares), sizes = new Uint32Array(shares);
    const tables = Array.from(sizes, () => ({
      bytes: new Uint8Array(this.#used),
      hashes: new Int32Array(this.#size),
      counts: new Float64Array(this.#size),
    }));
    for (let place = 0; place < places.length; place += 4) {
      if (places[place + 1] === 0) continue;
      const hash = places[place]!, share = (hash >>> 0) % shares;
      const table = tables[share]!, index = sizes[share]!++;
      for (let from = places[place + 1]! - 1; bytes[from] !== 0; from++) {
        table.bytes[lengths[share]!++] = bytes[from]!;
      }
      lengths[share]!++;
      table.hashes[index] = hash;
      table.counts[index] = counts[(place >> 1) + 1]!;
    }
    return tables.map(({ bytes, hashes, counts }, share) => ({
      bytes: bytes.slice(0, lengths[share]),
      hashes: hashes.slice(0, sizes[share]),
      counts: counts.slice(0, sizes[share]),
    }));
  }

  /** Forgets what was counted, and keeps its memory. */
  clear(): void {
    this.#places.fill(0);
    this.#size = this.#used = 0;
  }

  #add(text: Uint8Array, begin: number, end: number, hash: number, count: number): void {
    const places = this.#places, bytes = this.#bytes;
    let place = 4 * (hash >>> this.#shift);
    for (let start; (start = places[place + 1]! - 1) >= 0; place = (place + 4) & (places.length - 1)) {
      if (places[place] !== hash) continue;
      let at = begin;
      while (at < end && bytes[start] === text[at]) start++, at++;
      if (at < end || bytes[start] !== 0) continue;
      this.#counts[(place >> 1) + 1]! += count;
      return;
    }
    this.#addNew(place, text, begin, end, hash, count);
  }

  #addNew(place: number, text: Uint8Array, begin: number, end: number, hash: number, count: number): void {
    const used = this.#used;
    this.#used += end - begin + 1;
    if (this.#used > this.#bytes.length) {
      const bytes = new Uint8Array(2 * this.#used);
      bytes.set(this.#bytes);
      this.#bytes = bytes;
    }
    for (let from = begin, to = used; from < end; from++) this.#bytes[to++] = text[from]!;
    this.#bytes[this.#used - 1] = 0;
    this.#places[place] = hash;
    this.#places[place + 1] = used + 1;
    this.#counts[(place >> 1) + 1] = count;
    this.#makeRoom(++this.#size);
  }

  /** Sees to it that half of the places are free if there are so many words. */
  #makeRoom(words: number): void {
    if (2 * words <= 2 ** (32 - this.#shift)) return;
    const oldPlaces = this.#places, oldCounts = this.#counts;
    this.#shift = Math.min(Math.clz32(2 * words - 1), this.#shift - 1);
    const places = this.#places = new Int32Array(4 * 2 ** (32 - this.#shift));
    this.#counts = new Float64Array(places.buffer);
    for (let old = 0; old < (oldPlaces?.length ?? 0); old += 4) {
      if (oldPlaces[old + 1] === 0) continue;
      let place = 4 * (oldPlaces[old]! >>> this.#shift);
      while (places[place + 1] !== 0) place = (place + 4) & (places.length - 1);
      places[place] = oldPlaces[old]!;
      places[place + 1] = oldPlaces[old + 1]!;
      this.#counts[(place >> 1) + 1] = oldCounts[(old >> 1) + 1]!;
    }
  }
}

/** The most frequent words of a table, as {@link mostFrequent} sorts them. */
export function topWords({ bytes, counts }: WordTable, limit: number): WordCount[] {
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  let top: WordCount[] = [];
  let least = 0;
  for (let i = 0, begin = 0; i < counts.length; i++) {
    const end = endOfWord(bytes, begin);
    if (counts[i]! >= least) top.push([utf8.decode(bytes.subarray(begin, end)), counts[i]!]);
    if (top.length > 1000 + 2 * limit) {
      top = mostFrequent(top, limit);
      least = top.at(-1)?.[1] ?? Infinity;
    }
    begin = end + 1;
  }
  return mostFrequent(top, limit);
}

/** Sorts words by how often they occur, then by their characters, and keeps the first ones. */
export function mostFrequent(words: WordCount[], limit: number): WordCount[] {
  return words.sort(([a, m], [b, n]) => n - m || (a < b ? -1 : a > b ? 1 : 0)).slice(0, limit);
}

const PLACES_MIN = 4096;

/** FNV-1a, and at the end what spreads its bits to the upper ones. */
const HASH_SEED = 0x811c9dc5 | 0, HASH_PRIME = 0x01000193, HASH_MIX = 0x9e3779b1;

/** Where the zero byte after a word is. */
function endOfWord(bytes: Uint8Array, begin: number): number {
  let end = begin;
  while (bytes[end] !== 0) end++;
  return end;
}

function char(byte: number): string {
  return String.fromCharCode(byte);
}
