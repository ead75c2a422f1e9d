/**
 * Virtual time: what happens when, in an order that one seed decides, and a hash of all that happened.
 *
 * @module
 */

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** A queue of events in virtual time, in milliseconds. */
export class Timeline {
  readonly #heap: Event[] = [];
  #order = 0;
  /** The virtual time. */
  now = 0;
  /** Events that have run. */
  events = 0;
  #hash = 0x811c9dc5;

  /** Lets something happen after a while. */
  after(ms: number, run: () => void): void {
    const event = { at: this.now + ms, order: this.#order++, run };
    const heap = this.#heap;
    let i = heap.push(event) - 1;
    for (; i > 0;) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
  }

  /** Runs the next event. @returns Whether there was one. */
  step(): boolean {
    const heap = this.#heap;
    const next = heap[0];
    if (next === undefined) return false;
    const last = heap.pop()!;
    if (heap.length > 0) sink(heap, last);
    this.now = next.at;
    this.events++;
    this.note(next.order);
    next.run();
    return true;
  }

  /** Takes a number into the hash of what happened. */
  note(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193);
  }

  /** The hash of what happened: two runs of one seed have the same. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || a.at === b.at && a.order < b.order;
}

function sink(heap: Event[], event: Event): void {
  let i = 0;
  for (;;) {
    let child = i * 2 + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
    if (!before(heap[child]!, event)) break;
    heap[i] = heap[child]!;
    i = child;
  }
  heap[i] = event;
}
