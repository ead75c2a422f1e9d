/**
 * Counts the words of any files and directories, on all cores:
 *
 *     rayd run examples/wordcount.ts PATH…
 *
 * Files are cut into chunks: large ones between words, small ones put together. A task counts each chunk, and splits
 * its table of words by hash into shares; further tasks add up the first shares of all tables, the second ones, and so
 * on. Binary files, which have a zero byte near their beginning, are passed over. `--plain` counts on a single thread,
 * to compare; `--all` prints every word instead of the most frequent ones.
 *
 * @module
 */

import { clusterResources, get, init, type Ref, remote } from "rayd";
import {
  inWord,
  mostFrequent,
  topWords,
  type WordCount,
  WordCounter,
  type WordTable,
} from "./word_counter.ts";

/** A part of a file, in bytes, that begins and ends between words. */
type Part = readonly [path: string, start: number, end: number];

/** What is printed of a table. */
interface Summary {
  readonly occurrences: number;
  readonly different: number;
  readonly top: WordCount[];
}

const CHUNK_BYTES = 16 * 1024 * 1024;
const BLOCK_BYTES = 256 * 1024;
const TABLES_ADDED_AT_ONCE = 64;

/** Counts one thing after the other: memory that was used before is faster than new memory. */
const counter = new WordCounter();

/** Counts the words of some parts. @returns Their bytes of text, and `shares` tables without a word in common. */
export const count = remote(function count(parts: Part[], shares: number): [number, ...WordTable[]] {
  counter.clear();
  const bytes = parts.reduce((sum, part) => sum + countPart(part), 0);
  return [bytes, ...counter.tables(shares)];
});

export const add = remote(function add(...tables: WordTable[]): WordTable {
  counter.clear();
  for (const table of tables) counter.addTable(table);
  return counter.tables(1)[0]!;
});

export const summarize = remote(function summarize(table: WordTable, limit: number): Summary {
  const occurrences = table.counts.reduce((sum, n) => sum + n, 0);
  return { occurrences, different: table.counts.length, top: topWords(table, limit) };
});

/** Counts on all cores. */
async function countAll(paths: string[], limit: number): Promise<[bytes: number, Summary]> {
  await using _ = await init();
  const shares = 2 * Math.ceil((await clusterResources()).cpu ?? 1);
  const counting = count.options({ returns: 1 + shares });
  const counted: ReturnType<typeof counting.remote>[] = [];
  for await (const parts of chunks(paths)) { // with `await`, tasks start while the next chunk is looked for
    counted.push(counting.remote(parts, shares));
  }
  const summaries = Array.from({ length: shares }, (_, share) => {
    const tables = counted.map(([_bytes, ...tables]) => tables[share]!);
    return summarize.remote(addAll(tables), limit);
  });
  const bytes = await get(counted.map(([bytes]) => bytes));
  return [bytes.reduce((sum, n) => sum + n, 0), combine(await get(summaries), limit)];
}

/** Adds up tables, some at a time. */
function addAll(tables: Ref<WordTable>[]): Ref<WordTable> {
  const sums: Ref<WordTable>[] = [];
  for (let i = 0; i < tables.length; i += TABLES_ADDED_AT_ONCE) {
    sums.push(add.remote(...tables.slice(i, i + TABLES_ADDED_AT_ONCE)));
  }
  return sums.length > 1 ? addAll(sums) : sums[0] ?? add.remote();
}

/** The summary of tables that have no word in common. */
function combine(summaries: Summary[], limit: number): Summary {
  const sum = (numbers: number[]) => numbers.reduce((sum, n) => sum + n, 0);
  return {
    occurrences: sum(summaries.map(({ occurrences }) => occurrences)),
    different: sum(summaries.map(({ different }) => different)),
    top: mostFrequent(summaries.flatMap(({ top }) => top), limit),
  };
}

/** Counts on this thread. */
function countPlainly(paths: string[], limit: number): [bytes: number, Summary] {
  let bytes = 0;
  for (const parts of chunks(paths)) for (const part of parts) bytes += countPart(part);
  return [bytes, summarize(counter.tables(1)[0]!, limit)];
}

/** Where files are read into, a block at a time. */
let block = new Uint8Array(BLOCK_BYTES);

/** Counts the words of a part. @returns How many bytes of text it has: none if it is binary. */
function countPart([path, start, end]: Part): number {
  using file = Deno.openSync(path);
  if (start > 0) file.seekSync(start, Deno.SeekMode.Start);
  let at = start;
  let kept = 0; // bytes at the front of the block: a word that has not ended yet
  while (at < end) {
    const n = file.readSync(block.subarray(kept, kept + end - at));
    if (n === null) break; // the file has become shorter
    if (at === 0 && isBinary(block.subarray(0, n))) return 0;
    at += n;
    const text = block.subarray(0, kept + n);
    const last = counter.addBlock(text);
    block.copyWithin(0, last, text.length);
    kept = text.length - last;
    if (kept > block.length / 2) block = enlarged(block);
  }
  block[kept] = 0; // ends the last word
  counter.addBlock(block.subarray(0, kept + 1));
  return at - start;
}

function enlarged(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(2 * bytes.length);
  larger.set(bytes);
  return larger;
}

/** Whether a file that begins with these bytes is not text, as `grep` sees it. */
function isBinary(beginning: Uint8Array): boolean {
  return beginning.subarray(0, 8192).includes(0);
}

/** The files in chunks of about `CHUNK_BYTES`: large files cut up, small ones together. */
function* chunks(paths: string[]): Generator<Part[]> {
  let chunk: Part[] = [], bytes = 0;
  for (const [path, size] of files(paths)) {
    if (size > CHUNK_BYTES) {
      for (const part of cut(path, size)) yield [part];
      continue;
    }
    chunk.push([path, 0, size]);
    bytes += size;
    if (bytes < CHUNK_BYTES) continue;
    yield chunk;
    [chunk, bytes] = [[], 0];
  }
  if (chunk.length > 0) yield chunk;
}

/** The parts of a large file of text. */
function* cut(path: string, size: number): Generator<Part> {
  using file = Deno.openSync(path);
  const bytes = new Uint8Array(8192);
  if (isBinary(bytes.subarray(0, file.readSync(bytes) ?? 0))) return;
  for (let start = 0, end; start < size; start = end) {
    end = Math.min(start + CHUNK_BYTES, size);
    file.seekSync(end, Deno.SeekMode.Start);
    for (let n; (n = file.readSync(bytes) ?? 0) > 0;) {
      const border = bytes.subarray(0, n).findIndex((byte) => !inWord(byte));
      end += border < 0 ? n : border;
      if (border >= 0) break;
    }
    yield [path, start, end];
  }
}

/** All files below some paths, in order. */
function* files(paths: string[]): Generator<[path: string, size: number]> {
  for (const path of paths) {
    const { isFile, isDirectory, size } = Deno.lstatSync(path);
    if (isFile) yield [path, size];
    if (isDirectory) yield* files([...Deno.readDirSync(path)].map(({ name }) => `${path}/${name}`).sort());
  }
}

if (import.meta.main) {
  const paths = Deno.args.filter((arg) => !arg.startsWith("--"));
  if (paths.length === 0) {
    console.error("usage: rayd run examples/wordcount.ts [--plain] [--all] PATH…");
    Deno.exit(2);
  }
  const limit = Deno.args.includes("--all") ? Infinity : 20;
  const started = performance.now();
  const [bytes, summary] = Deno.args.includes("--plain")
    ? countPlainly(paths, limit)
    : await countAll(paths, limit);
  const seconds = (performance.now() - started) / 1000;
  const lines = summary.top.map(([word, n]) => `${n}\t${word}`);
  console.log([`${summary.occurrences} words, ${summary.different} different`, ...lines].join("\n"));
  console.error(
    `${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(2)} s: ${(bytes / 1e6 / seconds).toFixed(1)} MB/s`,
  );
}
