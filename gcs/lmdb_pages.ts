/**
 * Reads an LMDB data file as bytes, page by page, and holds it to what LMDB keeps to: for files that may be damaged.
 *
 * LMDB trusts its file, which it maps into memory: it has no checksums, so a page that a disk has garbled is a wrong
 * answer, an endless walk, or a signal that ends the process. So before LMDB opens a file that another run has left, this
 * reads it without it, and follows no number that it has not looked at: each page is where it says, within the file, and
 * used once, by a tree or by the list of what is free; keys ascend; all counts are as the root says. What the records
 * themselves say is for the caller to check.
 *
 * The format (version 2, as `lmdb` 3 writes it, little-endian). Two *metas*, on pages 0 and 1, of which the one with the
 * higher transaction number tells where the trees' roots are: that of free pages, and that of records. A commit writes
 * new pages, and then the older meta; so the other one is that of the commit before, and its pages are still there.
 *
 * @module
 */

/** What is wrong with a file. */
export class DamagedFileError extends Error {}

/** A file whose pages are in order. */
export interface LmdbFile {
  /** The record with a key, as it was before the last commit. */
  readonly before: (key: Uint8Array) => Uint8Array | undefined;
}

const PAGE_BYTES = 4096;
/** A page's head: its number (8), its transaction (8), 2 unused, flags (2), and where its free room begins and ends (2 + 2). */
const HEAD_BYTES = 24;
/** Flags that say what a page is; others are of no meaning on disk. */
const BRANCH = 1, LEAF = 2, OVERFLOW = 4, META = 8, KINDS = 0x6f;
/** In a meta: what it begins with; where the trees are described, of free pages and of records; and what follows. */
const MAGIC = 0xbeefc0de, VERSION = 2, MAP_AT = 40, FREE_AT = 48, MAIN_AT = 96, LAST_AT = 144, TXN_AT = 152;
/** No root: the tree is empty. */
const NOWHERE = 0xffff_ffff_ffff_ffffn;
/** Keys of free pages are numbers; nothing else has a flag. */
const INTEGER_KEYS = 8;
/** A value on pages of its own: on the leaf are the first one's number, a transaction, and how many there are. */
const BIG = 1, BIG_BYTES = 24;
const DEPTH_MAX = 32, MAP_BYTES_MAX = 2 ** 44;

interface Tree {
  readonly depth: number;
  readonly branches: number;
  readonly leaves: number;
  readonly overflows: number;
  readonly entries: number;
  readonly root: number | undefined;
}

interface Meta {
  readonly free: Tree;
  readonly main: Tree;
  readonly last: number;
  readonly transaction: number;
}

interface Node {
  readonly key: Uint8Array;
  /** Of a branch: the page below. */
  readonly child: number;
  /** Of a leaf. */
  readonly size: number;
  readonly flags: number;
  /** Where its data begins in the file. */
  readonly at: number;
}

/**
 * Checks a file.
 *
 * @param bytes All of it. @param visit Given each record, in the order of keys.
 * @throws {DamagedFileError} If anything is not as LMDB writes it.
 */
export function readLmdb(
  bytes: Uint8Array,
  visit: (key: Uint8Array, value: Uint8Array) => void,
): LmdbFile {
  return new Reader(bytes).read(visit);
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #used = new Uint8Array();
  #last = 1;
  #transaction = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(visit: (key: Uint8Array, value: Uint8Array) => void): LmdbFile {
    if (this.#bytes.length < 2 * PAGE_BYTES) damaged(`it ends within its first pages`);
    const [first, second] = [this.#meta(0), this.#meta(1)];
    const newest = second.transaction > first.transaction ? second : first;
    const older = newest === first ? second : first;
    const { transaction } = newest;
    const isNext = transaction === older.transaction + 1 &&
      newest === (transaction % 2 === 0 ? first : second);
    if (!isNext && !(transaction === 0 && older.transaction === 0)) {
      damaged(`its last two commits have the numbers ${older.transaction} and ${transaction}`);
    }
    this.#last = newest.last;
    this.#transaction = transaction;
    // The file may end earlier, where the last pages are free.
    if (newest.last > this.#bytes.length / PAGE_BYTES * 2 + 1_000_000) {
      damaged(`it should have ${newest.last} pages, and is of ${this.#bytes.length} bytes`);
    }
    this.#used = new Uint8Array(newest.last + 1);
    this.#use(0, 1);
    this.#use(1, 1);
    this.#walk(newest.free, byNumber, (node) => this.#freePages(node));
    this.#walk(newest.main, byBytes, (node) => visit(node.key, this.#value(node, true)));
    return { before: (key) => this.#find(older.main.root, key) };
  }

  #meta(page: number): Meta {
    const at = page * PAGE_BYTES, view = this.#view;
    const flags = view.getUint16(at + 18, true);
    if (this.#number(at) !== page || flags !== META) damaged(`page ${page} is no meta`);
    if (
      view.getUint32(at + HEAD_BYTES, true) !== MAGIC || view.getUint32(at + HEAD_BYTES + 4, true) !== VERSION
    ) {
      damaged(`page ${page} does not begin as LMDB's do`);
    }
    if (view.getUint32(at + FREE_AT, true) !== PAGE_BYTES) damaged(`its pages are of another size`);
    if (this.#number(at + MAP_AT) > MAP_BYTES_MAX) damaged(`page ${page} asks for too much memory`);
    const last = this.#number(at + LAST_AT);
    if (last < 1) damaged(`page ${page} says that there are no pages`);
    return {
      free: this.#tree(at + FREE_AT, INTEGER_KEYS),
      main: this.#tree(at + MAIN_AT, 0),
      last,
      transaction: this.#number(at + TXN_AT),
    };
  }

  #tree(at: number, flags: number): Tree {
    if (this.#view.getUint16(at + 4, true) !== flags) damaged(`a tree is of another kind`);
    const root = this.#view.getBigUint64(at + 40, true);
    return {
      depth: this.#view.getUint16(at + 6, true),
      branches: this.#number(at + 8),
      leaves: this.#number(at + 16),
      overflows: this.#number(at + 24),
      entries: this.#number(at + 32),
      root: root === NOWHERE ? undefined : this.#number(at + 40),
    };
  }

  /** Visits each leaf's nodes, and sees that pages, order and counts are right. */
  #walk(tree: Tree, compare: Compare, visit: (node: Node) => void): void {
    const seen = { branches: 0, leaves: 0, entries: 0 };
    const overflowsBefore = this.#overflows;
    let lastKey: Uint8Array | undefined, lower: Uint8Array | undefined;
    const down = (page: number, depth: number) => {
      this.#use(page, 1);
      const kind = this.#kind(page);
      if (kind === BRANCH) {
        if (depth >= Math.min(tree.depth, DEPTH_MAX)) damaged(`page ${page} is deeper than its tree`);
        seen.branches++;
        for (const [i, { key, child }] of this.#nodes(page, kind).entries()) {
          if (i > 0) {
            if (lastKey !== undefined && compare(lastKey, key) >= 0) {
              damaged(`keys below page ${page} are out of order`);
            }
            lower = key;
          }
          down(child, depth + 1);
        }
        return;
      }
      if (kind !== LEAF || depth !== tree.depth) {
        damaged(`page ${page} is not of the kind that belongs there`);
      }
      seen.leaves++;
      for (const node of this.#nodes(page, kind)) {
        const { key } = node;
        const sorted = lastKey === undefined || compare(lastKey, key) < 0;
        if (!sorted || lower !== undefined && compare(lower, key) > 0) {
          damaged(`keys on page ${page} are out of order`);
        }
        lastKey = key;
        lower = undefined;
        seen.entries++;
        visit(node);
      }
    };
    if (tree.root !== undefined) down(tree.root, 1);
    const right = seen.branches === tree.branches && seen.leaves === tree.leaves &&
      seen.entries === tree.entries && this.#overflows - overflowsBefore === tree.overflows;
    if (!right) {
      damaged(
        `it has ${seen.entries} records on ${seen.leaves} pages where it says ${tree.entries} on ${tree.leaves}`,
      );
    }
  }

  #overflows = 0;

  /** What a leaf's node has. @param use Whether the pages of a large one count as used. */
  #value({ flags, size, at }: Node, use: boolean): Uint8Array {
    if (flags === 0) return this.#bytes.subarray(at, at + size);
    const first = this.#number(at), pages = this.#number(at + 16);
    // A value that got shorter may keep the pages that it had.
    this.#inFile(first, Math.max(pages, Math.ceil((size + HEAD_BYTES) / PAGE_BYTES)));
    const start = first * PAGE_BYTES;
    const fits = pages * PAGE_BYTES >= size + HEAD_BYTES && this.#view.getUint32(start + 20, true) === pages;
    if (this.#kind(first) !== OVERFLOW || !fits) {
      damaged(`page ${first} is not the beginning of a value of ${size} bytes`);
    }
    if (use) {
      this.#use(first, pages);
      this.#overflows += pages;
    }
    return this.#bytes.subarray(start + HEAD_BYTES, start + HEAD_BYTES + size);
  }

  /** A record of the list of free pages: how many numbers follow, and they: of pages, or negative, of how many the next one begins. */
  #freePages(node: Node): void {
    const value = this.#value(node, true);
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    const room = Math.floor(value.length / 8) - 1;
    const count = room < 0 ? 1 : Number(view.getBigInt64(0, true));
    if (count < 0 || count > room) {
      damaged(`a list of free pages says that it has ${count}, in room for ${room}`);
    }
    for (let i = 1, pages = 1; i <= count; i++) {
      const number = Number(view.getBigInt64(i * 8, true));
      if (number < 0) pages = -number;
      else if (number > 0) {
        this.#use(number, pages);
        pages = 1;
      }
    }
  }

  /** Notes that pages are used, which they may be once. */
  #use(first: number, count: number): void {
    if (!(count >= 1 && first + count - 1 <= this.#last)) {
      damaged(`it refers to page ${first}, of ${this.#last}`);
    }
    for (let page = first; page < first + count; page++) {
      if (this.#used[page] === 1) damaged(`page ${page} is used twice`);
      this.#used[page] = 1;
    }
  }

  #inFile(first: number, count: number): void {
    if (first < 0 || (first + count) * PAGE_BYTES > this.#bytes.length) {
      damaged(`it ends before page ${first + count - 1}`);
    }
  }

  /** What a page is, once it is certain that it is one. */
  #kind(page: number): number {
    this.#inFile(page, 1);
    const at = page * PAGE_BYTES;
    if (this.#number(at) !== page) damaged(`page ${page} says that it is page ${this.#number(at)}`);
    if (this.#number(at + 8) > this.#transaction) damaged(`page ${page} is of a commit that has not been`);
    return this.#view.getUint16(at + 18, true) & KINDS;
  }

  #nodes(page: number, kind: number): Node[] {
    const start = page * PAGE_BYTES, view = this.#view;
    const lower = view.getUint16(start + 20, true), upper = view.getUint16(start + 22, true);
    if (lower % 2 !== 0 || lower === 0 || lower > upper || upper > PAGE_BYTES - HEAD_BYTES) {
      damaged(`page ${page} is not filled as a page is`);
    }
    const nodes: Node[] = [];
    for (let i = 0; i < lower / 2; i++) {
      const offset = view.getUint16(start + HEAD_BYTES + 2 * i, true);
      const at = start + HEAD_BYTES + offset, end = start + PAGE_BYTES;
      if (offset < upper || at + 8 > end) damaged(`page ${page} has a record outside of it`);
      const low = view.getUint32(at, true),
        flags = view.getUint16(at + 4, true),
        length = view.getUint16(at + 6, true);
      const data = at + 8 + length;
      if (kind === LEAF && flags !== 0 && flags !== BIG) {
        damaged(`page ${page} has a record of an unknown kind`);
      }
      const size = kind === BRANCH ? 0 : flags === BIG ? BIG_BYTES : low;
      if (data + size > end) damaged(`page ${page} has a record that is longer than it`);
      nodes.push({
        key: this.#bytes.subarray(at + 8, data),
        child: low + flags * 2 ** 32,
        size: low,
        flags,
        at: data,
      });
    }
    return nodes;
  }

  /** Looks a key up below a page that the last commit has left as it was. */
  #find(root: number | undefined, key: Uint8Array): Uint8Array | undefined {
    let page = root;
    for (let depth = 0; page !== undefined && depth < DEPTH_MAX; depth++) {
      const kind = this.#kind(page);
      if (kind !== BRANCH && kind !== LEAF) {
        damaged(`page ${page} was a part of a tree before the last commit, and is not`);
      }
      const nodes = this.#nodes(page, kind);
      if (kind === LEAF) {
        const node = nodes.find((node) => byBytes(node.key, key) === 0);
        return node === undefined ? undefined : this.#value(node, false);
      }
      page = nodes.findLast((node, i) => i === 0 || byBytes(node.key, key) <= 0)?.child;
    }
    return undefined;
  }

  #number(at: number): number {
    const number = Number(this.#view.getBigUint64(at, true));
    if (number > Number.MAX_SAFE_INTEGER) damaged(`it has a number that is too large`);
    return number;
  }
}

type Compare = (a: Uint8Array, b: Uint8Array) => number;

function byBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

/** Numbers of 8 bytes, little-endian. */
function byNumber(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== 8 || b.length !== 8) damaged(`a list of free pages has no number`);
  for (let i = 7; i >= 0; i--) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return 0;
}

function damaged(what: string): never {
  throw new DamagedFileError(what);
}
