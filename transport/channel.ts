/**
 * A channel: messages both ways over a byte stream.
 *
 * The problem is the price of a wake-up, about 30 us each way, against a budget of 10 us a task. So nothing is sent
 * by itself: `send` encodes into an outbox, and all that was queued in one turn of the event loop leaves in one
 * write; what arrives is read in large blocks and handed over message by message without a turn between. Two outboxes
 * alternate, one being filled while the other is written.
 *
 * Received payloads are views of the block they arrived in, which is never reused.
 *
 * @module
 */

import { DisconnectedError, ProtocolError, RaydError } from "../core/errors.ts";
import { FLUSH_BYTES, MESSAGE_BYTES_MAX, READ_BLOCK_BYTES } from "../core/limits.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { encode as encodeMessage } from "./codec.ts";

/** A byte stream: what {@linkcode Deno.Conn} is, as far as a channel needs it. */
export interface ByteStream {
  /** Reads up to `into.length` bytes; `null` at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes some of `bytes`; returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends both directions; pending reads and writes reject. */
  close(): void;
}

/** What a channel tells its owner. */
export interface ChannelEvents<In> {
  /** One message. Called in order, many times a turn. */
  message(message: In): void;
  /** The messages of one block were all handed over: the moment to act on them together. */
  drained?(): void;
  /** The channel ended: by the peer (`undefined`), by `close`, or by an error. Called once. */
  closed(error: RaydError | undefined): void;
}

/** How a channel decides when to write. */
export type FlushPolicy =
  /** At the end of the current microtask run: for programs, whose turns are short. */
  | "microtask"
  /** When its owner calls `flush`, or the outbox is large: for loops that know when they are done. */
  | "manual";

/** Messages of type `Out` one way and of type `In` the other. */
export class Channel<Out, In> {
  readonly #stream: ByteStream;
  readonly #decode: (from: ByteReader) => In;
  readonly #policy: FlushPolicy;
  readonly #encode: (to: ByteWriter, message: Out) => void;
  readonly #reader = new ByteReader();
  #events: ChannelEvents<In> | undefined;
  #outbox = new ByteWriter(FLUSH_BYTES * 2);
  #spare = new ByteWriter(FLUSH_BYTES * 2);
  #writing = false;
  #scheduled = false;
  #closed = false;
  #closeWhenWritten = false;
  readonly #blockBytes: number;
  /** The largest message that is taken. A peer that nobody knows yet has no business to send large ones. */
  messageBytesMax = MESSAGE_BYTES_MAX;
  /** While it is set, what is sent stays here. */
  held = false;

  /**
   * @param stream The bytes; the channel owns it from now on.
   * @param decode Reads one message of the kind that the peer sends.
   * @param policy When to write.
   * @param encode Appends a message, length and all; of the messages of `core/messages.ts` by default.
   * @param blockBytes How much is read at once, if it is there.
   */
  constructor(
    stream: ByteStream,
    decode: (from: ByteReader) => In,
    policy: FlushPolicy,
    encode: (to: ByteWriter, message: Out) => void = encodeMessage as (to: ByteWriter, message: Out) => void,
    blockBytes = READ_BLOCK_BYTES,
  ) {
    this.#stream = stream;
    this.#decode = decode;
    this.#policy = policy;
    this.#encode = encode;
    this.#blockBytes = blockBytes;
  }

  /** Begins to read. @param events Who to tell. */
  start(events: ChannelEvents<In>): void {
    this.#events = events;
    this.#readAll();
  }

  /** Whether the channel has ended. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Queues a message. After the end it is dropped: the owner has been told by `closed`. */
  send(message: Out): void {
    if (this.#closed) return;
    this.#encode(this.#outbox, message);
    if (this.#outbox.length >= FLUSH_BYTES) this.flush();
    else if (this.#policy === "microtask" && !this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => this.flush());
    }
  }

  /** Writes what is queued. */
  flush(): void {
    this.#scheduled = false;
    if (this.#writing || this.#closed || this.held || this.#outbox.length === 0) return;
    this.#writeAll();
  }

  /** Ends the channel at once; what was not written is lost. */
  close(): void {
    this.#end(undefined);
  }

  /** Ends the channel once all that was sent so far is written. */
  finish(): void {
    this.#closeWhenWritten = true;
    this.flush();
    if (!this.#writing) this.#end(undefined);
  }

  async #writeAll(): Promise<void> {
    this.#writing = true;
    try {
      while (this.#outbox.length > 0 && !this.#closed && !this.held) {
        const full = this.#outbox;
        this.#outbox = this.#spare;
        this.#spare = full;
        const bytes = full.bytes();
        for (let at = 0; at < bytes.length;) {
          at += await this.#stream.write(at === 0 ? bytes : bytes.subarray(at));
        }
        full.length = 0;
        // A burst may have grown the buffer far beyond what ordinary turns need.
        if (full.capacity > FLUSH_BYTES * 16) this.#spare = new ByteWriter(FLUSH_BYTES * 2);
      }
      if (this.#closeWhenWritten) this.#end(undefined);
    } catch (error) {
      this.#end(asDisconnected(error));
    } finally {
      this.#writing = false;
    }
  }

  async #readAll(): Promise<void> {
    let block = new Uint8Array(this.#blockBytes);
    let start = 0, end = 0;
    this.#reader.block(block);
    try {
      while (!this.#closed) {
        const count = await this.#stream.read(end === 0 ? block : block.subarray(end));
        if (count === null) {
          if (end > start) throw new ProtocolError(`Cannot read a message: the stream ended inside of it`);
          return this.#end(undefined);
        }
        end += count;
        const view = new DataView(block.buffer);
        let needed = 4;
        while (end - start >= 4) {
          const length = view.getUint32(start, true);
          if (length === 0 || length > this.messageBytesMax) {
            throw new ProtocolError(
              `Cannot read a message: its length is ${length}, the limit ${this.messageBytesMax}`,
            );
          }
          needed = 4 + length;
          if (end - start < needed) break;
          this.#reader.window(start + 4, start + needed);
          start += needed;
          needed = 4;
          this.#events!.message(this.#decode(this.#reader));
          if (this.#closed) return;
        }
        this.#events!.drained?.();
        if (block.length - start < needed || end === block.length) {
          const next = new Uint8Array(Math.max(this.#blockBytes, needed));
          next.set(block.subarray(start, end));
          block = next;
          end -= start;
          start = 0;
          this.#reader.block(block);
        }
      }
    } catch (error) {
      this.#end(asDisconnected(error));
    }
  }

  #end(error: RaydError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#stream.close();
    } catch {
      // Already closed by the other direction.
    }
    this.#events?.closed(error);
  }
}

/** Two ends of a stream inside one program, for tests and for parts that share an isolate. */
export function streamPair(): [ByteStream, ByteStream] {
  const [there, back] = [new Pipe(), new Pipe()];
  const end = (input: Pipe, output: Pipe): ByteStream => ({
    read: (into) => input.read(into),
    write: (bytes) => output.write(bytes),
    close: () => {
      input.close();
      output.close();
    },
  });
  return [end(back, there), end(there, back)];
}

/** One direction of a {@link streamPair}. */
class Pipe {
  #queued: Uint8Array[] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#queued.length === 0) {
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const first = this.#queued[0]!;
    const count = Math.min(first.length, into.length);
    into.set(first.subarray(0, count));
    if (count === first.length) this.#queued.shift();
    else this.#queued[0] = first.subarray(count);
    return count;
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#ended) return Promise.reject(new DisconnectedError("Cannot write: the other end is closed"));
    this.#queued.push(bytes.slice());
    this.#wake?.();
    return Promise.resolve(bytes.length);
  }

  close(): void {
    this.#ended = true;
    this.#wake?.();
  }
}

function asDisconnected(error: unknown): RaydError {
  if (error instanceof RaydError) return error;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new DisconnectedError(`The connection broke: ${message}`, { cause: error });
}
