/**
 * Virtual time: what is to happen, in the order in which it happens, and a hash of what has.
 *
 * Nothing here waits. The clock jumps from one event to the next; events of one moment happen in the order in which they
 * were planned. So a run depends on its seed alone, and the hash of its trace is the same however fast the machine is.
 *
 * @module
 */

/** A time, in milliseconds, and what happens then. */
export class Timeline {
  #now = 0;
  #planned = 0;
  #happened = 0;
  // A binary heap in three columns: comparing numbers that lie side by side is most of the work.
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #actions: (() => void)[] = [];

  /** The time, in milliseconds. */
  get now(): number {
    return this.#now;
  }

  /** How many events have happened. */
  get happened(): number {
    return this.#happened;
  }

  /** Plans an event. @param time When; the past counts as now. @param action What happens. */
  at(time: number, action: () => void): void {
    const times = this.#times, orders = this.#orders, actions = this.#actions;
    const order = this.#planned++;
    if (time < this.#now) time = this.#now;
    let i = times.length;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (times[parent]! <= time) break; // planned earlier
      times[i] = times[parent]!;
      orders[i] = orders[parent]!;
      actions[i] = actions[parent]!;
      i = parent;
    }
    times[i] = time;
    orders[i] = order;
    actions[i] = action;
  }

  /** Plans an event. @param ms How far ahead. @param action What happens. */
  after(ms: number, action: () => void): void {
    this.at(this.#now + ms, action);
  }

  /** Lets the next event happen. @returns Whether there was one. */
  step(): boolean {
    const times = this.#times;
    if (times.length === 0) return false;
    const action = this.#actions[0]!;
    this.#now = times[0]!;
    this.#happened++;
    this.#removeFirst();
    action();
    return true;
  }

  #removeFirst(): void {
    const times = this.#times, orders = this.#orders, actions = this.#actions;
    const time = times.pop()!, order = orders.pop()!, action = actions.pop()!;
    const length = times.length;
    if (length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= length) break;
      const right = child + 1;
      if (
        right < length &&
        (times[right]! < times[child]! || times[right]! === times[child]! && orders[right]! < orders[child]!)
      ) child = right;
      if (time < times[child]! || time === times[child]! && order < orders[child]!) break;
      times[i] = times[child]!;
      orders[i] = orders[child]!;
      actions[i] = actions[child]!;
      i = child;
    }
    times[i] = time;
    orders[i] = order;
    actions[i] = action;
  }
}

/** A hash of all that happened, in order: FNV-1a over 32-bit words, twice with different primes. */
export class Trace {
  #low = 0x811c9dc5;
  #high = 0x9747b28c;
  readonly #time = new Float64Array(1);
  readonly #words = new Uint32Array(this.#time.buffer);

  /** Takes one thing that happened. */
  note(kind: number, time: number, a: number, b: number): void {
    this.#time[0] = time;
    this.#add(kind);
    this.#add(this.#words[0]!);
    this.#add(this.#words[1]!);
    this.#add(a);
    this.#add(b);
  }

  #add(word: number): void {
    this.#low = Math.imul(this.#low ^ word, 0x01000193);
    this.#high = Math.imul((this.#high ^ word) + 0x7f4a7c15 | 0, 0x5bd1e995);
    // Without this, a word would never reach the bits below its own.
    this.#low ^= this.#low >>> 15;
    this.#high ^= this.#high >>> 13;
  }

  /** The hash so far, as 16 hexadecimal digits. */
  get hash(): string {
    return [this.#high, this.#low].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }
}
