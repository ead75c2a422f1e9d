/**
 * Counts the words of any files and directories, on all cores:
 *
 *     rayd run examples/wordcount.ts PATH…
 *
 * Files are cut into chunks of some megabytes; a task counts each, and further tasks add the counts up, eight at a
 * time. Binary files, which have a zero byte near their beginning, are passed over. `--plain` counts on a single thread, to compare; `--all` prints every word instead of the most frequent ones.
 *
 * @module
 */

import { get, init, type Ref, remote } from "rayd";

/** A part of a file, in bytes. */
type Part = readonly [path: string, start: number, end: number];
type Counts = Map<string, number>;

const CHUNK_BYTES = 4 * 1024 * 1024;

/** Whether a byte belongs to a word: a letter or digit, `_`, or part of any character beyond ASCII. */
const IN_WORD = Uint8Array.from(
  { length: 256 },
  (_, byte) => byte >= 128 || /\w/.test(String.fromCharCode(byte)) ? 1 : 0,
);
const LATIN1 = new TextDecoder("latin1");

/** The bytes of a part, from the first word that begins in it to the end of the last one. */
function read([path, start, end]: Part): Uint8Array {
  using file = Deno.openSync(path);
  const from = Math.max(0, start - 1); // the byte before tells whether a word began there
  file.seekSync(from, Deno.SeekMode.Start);
  const bytes = new Uint8Array(end - from + 65_536);
  let length = 0;
  for (let n: number | null; length < bytes.length && (n = file.readSync(bytes.subarray(length))) !== null;) {
    length += n;
  }
  let first = start - from, last = Math.min(length, end - from);
  if (start > 0 && IN_WORD[bytes[0]!]) { while (first < length && IN_WORD[bytes[first]!]) first++; }
  while (last < length && IN_WORD[bytes[last - 1]!] && IN_WORD[bytes[last]!]) last++;
  return bytes.subarray(first, Math.max(first, last));
}

/** Counts the words of some parts. Most have come before, so a table by hash spares making a string for each. */
export const count = remote(function count(parts: Part[]): Counts {
  const texts = parts.map(read);
  const bytes = new Uint8Array(texts.reduce((sum, text) => sum + text.length + 1, 0));
  texts.reduce((at, text) => (bytes.set(text, at), at + text.length + 1), 0);
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! >= 65 && bytes[i]! <= 90) bytes[i]! += 32; // to lower case
  const text = LATIN1.decode(bytes);
  const counts: Counts = new Map();
  const recent: { word: string; hash: number; n: number }[] = [];
  for (let at = 0; at < bytes.length; at++) {
    const begin = at;
    let hash = 0;
    while (IN_WORD[bytes[at]!]) hash = Math.imul(hash, 31) + bytes[at++]! | 0;
    if (at === begin) continue;
    const slot = hash & 0xffff;
    const known = recent[slot];
    if (known?.hash === hash && text.startsWith(known.word, begin) && known.word.length === at - begin) {
      known.n++;
    } else {
      if (known !== undefined) counts.set(known.word, (counts.get(known.word) ?? 0) + known.n);
      recent[slot] = { word: text.slice(begin, at), hash, n: 1 };
    }
  }
  for (const known of recent) if (known) counts.set(known.word, (counts.get(known.word) ?? 0) + known.n);
  return counts;
});

export const add = remote(function add(first: Counts, ...others: Counts[]): Counts {
  for (const other of others) for (const [word, n] of other) first.set(word, (first.get(word) ?? 0) + n);
  return first;
});

/** Whether a file is text, as `grep` sees it. */
function isText(path: string): boolean {
  using file = Deno.openSync(path);
  const bytes = new Uint8Array(8192);
  return !bytes.subarray(0, file.readSync(bytes) ?? 0).includes(0);
}

/** All text files below some paths, in order. */
function* files(paths: string[]): Generator<string> {
  for (const path of paths) {
    const info = Deno.lstatSync(path);
    if (info.isFile && isText(path)) yield path;
    if (!info.isDirectory) continue;
    const names = [...Deno.readDirSync(path)].map((entry) => `${path}/${entry.name}`);
    yield* files(names.sort());
  }
}

/** The files in chunks of about `CHUNK_BYTES`: large files cut up, small ones together. */
function* chunks(paths: string[]): Generator<Part[]> {
  let chunk: Part[] = [], room = CHUNK_BYTES;
  for (const path of files(paths)) {
    const { size } = Deno.statSync(path);
    for (let start = 0; start < size;) {
      const end = Math.min(size, start + room);
      chunk.push([path, start, end]);
      room -= end - start;
      start = end;
      if (room > 0) continue;
      yield chunk;
      [chunk, room] = [[], CHUNK_BYTES];
    }
  }
  if (chunk.length > 0) yield chunk;
}

async function countAll(paths: string[]): Promise<Counts> {
  let refs: Ref<Counts>[] = [...chunks(paths)].map((parts) => count.remote(parts));
  if (refs.length === 0) return new Map();
  while (refs.length > 1) {
    const sums: Ref<Counts>[] = [];
    for (let i = 0; i < refs.length; i += 8) sums.push(add.remote(refs[i]!, ...refs.slice(i + 1, i + 8)));
    refs = sums;
  }
  return await get(refs[0]!);
}

if (import.meta.main) {
  const paths = Deno.args.filter((arg) => !arg.startsWith("--"));
  if (paths.length === 0) {
    console.error("usage: rayd run examples/wordcount.ts [--plain] [--all] PATH…");
    Deno.exit(2);
  }
  const started = performance.now();
  let counts: Counts;
  if (Deno.args.includes("--plain")) {
    counts = [...chunks(paths)].map((parts) => count(parts)).reduce((sum, counts) => add(sum, counts));
  } else {
    await using _ = await init();
    counts = await countAll(paths);
  }
  const seconds = (performance.now() - started) / 1000;
  const sorted = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  const total = sorted.reduce((sum, [, n]) => sum + n, 0);
  const toText = (word: string) => new TextDecoder().decode(Uint8Array.from(word, (c) => c.charCodeAt(0)));
  const lines = sorted.slice(0, Deno.args.includes("--all") ? sorted.length : 20);
  console.log(
    [`${total} words, ${sorted.length} different`, ...lines.map(([w, n]) => `${n}\t${toText(w)}`)].join("\n"),
  );
  const bytes = [...files(paths)].reduce((sum, path) => sum + Deno.statSync(path).size, 0);
  console.error(
    `${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(2)} s: ${(bytes / 1e6 / seconds).toFixed(1)} MB/s`,
  );
}
