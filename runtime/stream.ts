/**
 * Streams: the results of a generator task, one Ref an item, as they are yielded.
 *
 * The generator is held back when it is a window ahead of its consumer, so a stream of any length needs bounded
 * memory. Items have ids of their own (task, index), so a generator that is run again after a crash goes on where the
 * consumer is: what was yielded before is passed over.
 *
 * @module
 */

import { errorFromRecord, type ErrorRecord, UsageError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { STREAM_WINDOW_ITEMS } from "../core/limits.ts";
import type { Entry, Ref } from "./ref.ts";

/** What a stream needs of its program. */
export interface StreamSource {
  /** Makes a Ref of an item, which takes over the stream's hold on it. */
  ref(entry: Entry): Ref<unknown>;
  /** Lets go of items that nobody will take. */
  drop(entries: readonly Entry[]): void;
  /** Lets the generator go on. */
  consumed(task: TaskId, count: number): void;
  /** Ends the generator: nobody will take more of it. */
  cancel(task: TaskId): void;
  /** Reads the error that ended the stream. */
  error(bytes: Uint8Array): ErrorRecord;
  /** Waits until `ready` is called. */
  wait(register: (ready: () => void) => void): Promise<void>;
}

/** The state of a stream, apart from the user's handle, so that the handle can be collected. */
export class StreamState {
  readonly task: TaskId;
  /** Items that have arrived and were not taken. */
  readonly arrived: Entry[] = [];
  taken = 0;
  ended = false;
  failure: Uint8Array | undefined;
  wake: (() => void) | undefined;
  acknowledged = 0;

  /** @param task The generator's task. */
  constructor(task: TaskId) {
    this.task = task;
  }

  /** Something has arrived. */
  notify(): void {
    const { wake } = this;
    this.wake = undefined;
    wake?.();
  }
}

/**
 * The results of a generator task: iterate with `for await`, once. Each item is a {@link Ref} of one yielded value.
 * Leaving the loop early ends the generator.
 */
export class RefStream<T> implements AsyncIterableIterator<Ref<T>> {
  readonly #state: StreamState;
  readonly #source: StreamSource;

  /** @internal Streams are made by the runtime. */
  constructor(state: StreamState, source: StreamSource) {
    this.#state = state;
    this.#source = source;
    tasks.set(this, state.task);
  }

  /** The stream itself. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The next item.
   *
   * @throws {TaskError} After the last item, if the generator threw.
   */
  async next(): Promise<IteratorResult<Ref<T>, undefined>> {
    const state = this.#state;
    while (state.arrived.length === 0) {
      if (state.ended) {
        if (state.failure === undefined) return { done: true, value: undefined };
        const failure = state.failure;
        state.failure = undefined;
        throw errorFromRecord(this.#source.error(failure));
      }
      if (state.wake !== undefined) {
        throw new UsageError(
          "Cannot read a stream twice at once: await each next() before the following one",
        );
      }
      await this.#source.wait((ready) => state.wake = ready);
    }
    const entry = state.arrived.shift()!;
    state.taken++;
    if (state.taken - state.acknowledged >= STREAM_WINDOW_ITEMS / 4) {
      state.acknowledged = state.taken;
      this.#source.consumed(state.task, state.taken);
    }
    return { done: false, value: this.#source.ref(entry) as Ref<T> };
  }

  /** Ends the generator and the iteration. */
  return(): Promise<IteratorResult<Ref<T>, undefined>> {
    const state = this.#state;
    if (!state.ended) {
      state.ended = true;
      this.#source.cancel(state.task);
    }
    this.#source.drop(state.arrived.splice(0));
    return Promise.resolve({ done: true, value: undefined });
  }
}

/** The task behind a stream. */
export function streamTask(stream: RefStream<unknown>): TaskId {
  return tasks.get(stream)!;
}

const tasks = new WeakMap<object, TaskId>();
