/**
 * The buffers that a value reaches, while it is being packed.
 *
 * Which part of a buffer has to travel is known only when all views of it are: a buffer that the value reaches through
 * views alone travels as the part they cover, so that a row of a large matrix does not drag the matrix along. So views
 * are written with the place they have in the whole buffer, and the table behind the value says which part there is.
 *
 * @module
 */

import * as format from "./serialize_format.ts";
import { OUT_OF_BAND_BYTES_MIN, VIEW_CLASSES, VIEW_DATA } from "./serialize_format.ts";
import type { HeadWriter } from "./serialize_writer.ts";

/** A buffer, and the part of it that has to travel. */
interface TravellingBuffer {
  readonly index: number;
  readonly buffer: ArrayBufferLike;
  /** What may be resized travels with the length that it may grow to. */
  readonly reserve: number | undefined;
  /** The buffer itself is part of the value, or may change its length: all of it travels. */
  whole: boolean;
  start: number;
  end: number;
  /** The largest element size among its views. */
  elementBytes: number;
}

/** The table of one packet. */
export class BufferTable {
  readonly #buffers = new Map<ArrayBufferLike, TravellingBuffer>();
  #resizables = 0;
  #reserved = 0;

  /** Takes in a buffer that itself is part of the value; returns its number. */
  add(buffer: ArrayBufferLike): number {
    const travelling = this.#travelling(buffer);
    travelling.whole = true;
    return travelling.index;
  }

  /** Takes in a view and writes it; what it shows lies in the table. */
  addView(view: ArrayBufferView, kind: number, head: HeadWriter): void {
    const elementBytes = kind === VIEW_DATA ? 1 : VIEW_CLASSES[kind]!.BYTES_PER_ELEMENT;
    const travelling = this.#travelling(view.buffer);
    const start = view.byteOffset;
    const end = start + view.byteLength;
    travelling.start = Math.min(travelling.start, start);
    travelling.end = Math.max(travelling.end, end);
    travelling.elementBytes = Math.max(travelling.elementBytes, elementBytes);
    head.tag(format.TAG_VIEW);
    head.arrayHeader(4);
    head.number(kind);
    head.number(travelling.index);
    head.number(start);
    if (tracksLength(view, elementBytes)) head.byte(0xc0);
    else head.number((end - start) / elementBytes);
  }

  /** Whether the buffers are more than an unpacker makes; says what is too much. */
  get excess(): string | undefined {
    const tooMany = this.#resizables > format.RESIZABLE_BUFFERS_MAX;
    if (!tooMany && this.#reserved <= format.RESIZABLE_RESERVED_BYTES_MAX) return undefined;
    return `it holds ${this.#resizables} resizable buffers that reserve ${this.#reserved} bytes, more than a packet ` +
      `may (${format.RESIZABLE_BUFFERS_MAX}, ${format.RESIZABLE_RESERVED_BYTES_MAX}); copy them to fixed ones`;
  }

  /** Writes the table, small buffers in it; returns those that travel behind the head, in its order. */
  write(head: HeadWriter): Uint8Array[] {
    const outOfBand: Uint8Array[] = [];
    head.arrayHeader(this.#buffers.size);
    for (const { buffer, reserve, whole, start, end, elementBytes } of this.#buffers.values()) {
      // Any other start than a multiple of the largest element would leave some view misaligned.
      const from = whole ? 0 : start - start % elementBytes;
      const bytes = new Uint8Array(buffer, from, (whole ? buffer.byteLength : end) - from);
      head.arrayHeader(reserve === undefined ? 3 : 4);
      head.number(bufferKind(buffer, whole, reserve !== undefined));
      head.number(from);
      if (bytes.length < OUT_OF_BAND_BYTES_MIN) {
        head.binary(bytes);
      } else {
        head.number(bytes.length);
        outOfBand.push(bytes);
      }
      if (reserve !== undefined) head.number(reserve);
    }
    return outOfBand;
  }

  #travelling(buffer: ArrayBufferLike): TravellingBuffer {
    const known = this.#buffers.get(buffer);
    if (known !== undefined) return known;
    const resizable = buffer instanceof SharedArrayBuffer ? buffer.growable : buffer.resizable;
    const reserve = resizable ? buffer.maxByteLength : undefined;
    if (reserve !== undefined) {
      this.#resizables++;
      this.#reserved += reserve;
    }
    const index = this.#buffers.size;
    const travelling = { index, buffer, reserve, whole: resizable, start: Infinity, end: 0, elementBytes: 1 };
    this.#buffers.set(buffer, travelling);
    return travelling;
  }
}

function bufferKind(buffer: ArrayBufferLike, whole: boolean, resizable: boolean): number {
  if (buffer instanceof SharedArrayBuffer) {
    return resizable ? format.BUFFER_GROWABLE_SHARED : format.BUFFER_SHARED;
  }
  if (resizable) return format.BUFFER_RESIZABLE;
  return whole ? format.BUFFER_WHOLE : format.BUFFER_VIEWED;
}

/**
 * Whether a view follows the length of its resizable buffer. The language offers no way to ask, so a clone is resized
 * to see. A clone of shared memory is that memory, so views of growable shared buffers count as fixed.
 */
function tracksLength(view: ArrayBufferView, elementBytes: number): boolean {
  const { buffer } = view;
  if (buffer instanceof SharedArrayBuffer || !buffer.resizable) return false;
  if (buffer.byteLength - view.byteOffset - view.byteLength >= elementBytes) return false;
  const clone = structuredClone(view);
  const cloned = clone.buffer as ArrayBuffer;
  const before = clone.byteLength;
  if (cloned.maxByteLength - cloned.byteLength >= elementBytes) {
    cloned.resize(cloned.byteLength + elementBytes);
    return clone.byteLength !== before;
  }
  if (before === 0) return false;
  cloned.resize(cloned.byteLength - elementBytes);
  try {
    // A fixed view is out of bounds by now, and says so.
    if (clone instanceof DataView) return clone.byteLength !== before;
    return (clone as Uint8Array).fill(0).byteLength !== before;
  } catch {
    return false;
  }
}
