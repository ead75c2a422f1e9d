/**
 * The last of a numbered sequence of records, as bytes in a few large blocks: tens of thousands of objects that live for a
 * while are what makes a collection of garbage long. The oldest block goes as a whole.
 *
 * A block is written once, so what is read from it are views.
 *
 * @module
 */

/** What is to be kept. */
export interface HistoryLimits {
  /** So many records at least, unless they are larger together than this. */
  readonly records: number;
  readonly bytes: number;
}

/** A record. */
export interface HistoryRecord {
  readonly number: number;
  readonly bytes: Uint8Array;
}

const BLOCK_BYTES = 64 * 1024;
/** Of so many records of a block, it is known where one lies. */
const MARK_EVERY = 32;
/** Before a record: its number, a little-endian double, and its length, a little-endian integer of 4 bytes. */
const HEAD_BYTES = 12;

interface Block {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  used: number;
  count: number;
  /** Of its newest record. */
  newest: number;
  /** Records in it, not all: their numbers, and where they are. */
  readonly marks: { readonly number: number; readonly at: number }[];
}

/** The records. */
export class ByteHistory {
  readonly #limits: HistoryLimits;
  readonly #blocks: Block[] = [];
  #count = 0;
  #bytes = 0;

  /** @param limits What is to be kept. */
  constructor(limits: HistoryLimits) {
    this.#limits = limits;
  }

  /**
   * Adds a record with a number above all before it.
   *
   * @param most How many bytes it has at most. @param write Writes it. Returns how many it has.
   */
  add(number: number, most: number, write: (into: Uint8Array, at: number) => number): void {
    const block = this.#room(HEAD_BYTES + most);
    const { bytes, view, used } = block;
    const length = write(bytes, used + HEAD_BYTES);
    view.setFloat64(used, number, true);
    view.setUint32(used + 8, length, true);
    if (block.count % MARK_EVERY === 0) block.marks.push({ number, at: used });
    block.used += HEAD_BYTES + length;
    block.count++;
    block.newest = number;
    this.#count++;
  }

  /** Records with numbers above one, in order. */
  *after(number: number): Iterable<HistoryRecord> {
    for (const block of this.#blocks) if (block.newest > number) yield* recordsOf(block, number);
  }

  /**
   * Lets go of the oldest records, as far as there are enough without them.
   *
   * @param floor Of none with a number above this. @returns The last one that is gone, if any is.
   */
  trim(floor = Infinity): HistoryRecord | undefined {
    let gone: Block | undefined;
    for (let oldest; (oldest = this.#blocks[0]) !== undefined && oldest.newest <= floor; gone = oldest) {
      const { records, bytes } = this.#limits;
      const enough = this.#count - oldest.count >= records || this.#bytes - oldest.bytes.length >= bytes;
      if (!enough && this.#bytes <= bytes * 2) break;
      this.#blocks.shift();
      this.#count -= oldest.count;
      this.#bytes -= oldest.bytes.length;
    }
    if (gone === undefined) return undefined;
    let last: HistoryRecord | undefined;
    for (const record of recordsOf(gone, -Infinity)) last = record;
    return last;
  }

  /** The newest block, if so many bytes fit into it, or another one. */
  #room(bytes: number): Block {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.bytes.length - last.used >= bytes) return last;
    const block = new Uint8Array(Math.max(BLOCK_BYTES, bytes));
    const view = new DataView(block.buffer);
    const next: Block = { bytes: block, view, used: 0, count: 0, newest: 0, marks: [] };
    this.#blocks.push(next);
    this.#bytes += block.length;
    return next;
  }
}

function* recordsOf({ bytes, view, used, marks }: Block, after: number): Iterable<HistoryRecord> {
  let mark = marks.length - 1;
  while (mark > 0 && marks[mark]!.number > after) mark--;
  for (let at = marks[mark]?.at ?? 0; at < used;) {
    const number = view.getFloat64(at, true);
    const end = at + HEAD_BYTES + view.getUint32(at + 8, true);
    if (number > after) yield { number, bytes: bytes.subarray(at + HEAD_BYTES, end) };
    at = end;
  }
}
