/**
 * A simulated network of byte streams, as TCP makes them: bytes of a stream arrive in order, late, and in pieces of any size.
 * A host that is cut off from another hears nothing of it, and nobody is told; what was sent arrives when the cut is mended.
 * A process that ends takes with it part of what it has just sent; a host that goes dark leaves its connections standing.
 *
 * @module
 */

import { DisconnectedError } from "../../../core/errors.ts";
import { DIAL_MS_MAX } from "../../../core/limits.ts";
import type { ByteStream } from "../../../transport/channel.ts";
import type { Timeline } from "../timeline.ts";
import type { SimProcess } from "./process.ts";

/** How the network is. */
export interface NetworkPlan {
  /** The longest that something takes from host to host, usually; and how often it takes up to `lateMs`. */
  readonly delayMs: number;
  readonly late: number;
  readonly lateMs: number;
  /** How often what is written arrives in pieces. */
  readonly pieces: number;
}

/** The cause of a failed dial: the host is there, and no process listens. */
export class Refused extends Error {}

interface Listening {
  readonly process: SimProcess;
  readonly accept: (stream: ByteStream) => void;
}

/** What may be written to a stream before any of it has arrived. */
const WINDOW_BYTES = 256 * 1024;

/** How soon it is tried again to connect where no answer comes; twice as long each time. */
const DIAL_AGAIN_MS = 1_000;

/** From process to process on one host. */
const LOCAL_MS = 0.05;

/** The network. */
export class Network {
  readonly time: Timeline;
  readonly chance: () => number;
  readonly plan: NetworkPlan;
  /** Called before a process writes: fate may end it here. */
  beforeWrite: (writer: SimProcess) => void = () => {};
  /** No more trouble: nothing is late. */
  calm = false;
  readonly #ports = new Map<string, Listening>();
  readonly #cut = new Set<string>();
  readonly #dark = new Set<string>();
  /** Directions of streams that wait until a cut is mended. */
  #stalled: Pipe[] = [];
  #nextPort = 40_000;

  constructor(time: Timeline, chance: () => number, plan: NetworkPlan) {
    this.time = time;
    this.chance = chance;
    this.plan = plan;
  }

  /** Listens. @param port 0 for any. */
  listen(
    process: SimProcess,
    port: number,
    accept: (stream: ByteStream) => void,
  ): { readonly port: number; close(): void } {
    const chosen = port === 0 ? this.#nextPort++ : port;
    const key = `${process.host}:${chosen}`;
    this.#ports.set(key, { process, accept });
    const close = () => {
      if (this.#ports.get(key)?.process === process) this.#ports.delete(key);
    };
    process.onEnd(close);
    return { port: chosen, close };
  }

  /** Connects. @throws {DisconnectedError} If nobody listens there, or no answer comes. */
  dial(from: SimProcess, hostname: string, port: number): Promise<ByteStream> {
    const { promise, resolve, reject } = Promise.withResolvers<ByteStream>();
    let over = false;
    const late = from.clock.after(DIAL_MS_MAX, () => {
      over = true;
      reject(new DisconnectedError(`${hostname}:${port} did not answer within ${DIAL_MS_MAX} ms`));
    });
    const arrive = (againMs: number) => {
      if (over) return;
      if (!this.#open(from.host, hostname) || !this.#open(hostname, from.host)) {
        return this.time.after(againMs, () => arrive(againMs * 2));
      }
      over = true;
      const listening = this.#ports.get(`${hostname}:${port}`);
      from.run(() => {
        late();
        if (listening === undefined || !listening.process.alive) {
          return reject(
            new DisconnectedError(`nobody listens at ${hostname}:${port}`, { cause: new Refused() }),
          );
        }
        const [here, there] = this.pair(from, listening.process);
        listening.process.run(() => listening.accept(there));
        resolve(here);
      });
    };
    this.time.after(2 * this.#delay(from.host, hostname), () => arrive(DIAL_AGAIN_MS));
    return promise;
  }

  /** A stream between two processes: an end for each. */
  pair(a: SimProcess, b: SimProcess): [ByteStream, ByteStream] {
    const there = new Pipe(this, a, b), back = new Pipe(this, b, a);
    const end = (own: SimProcess, input: Pipe, output: Pipe): ByteStream => ({
      read: (into) => input.read(into),
      write: (bytes) => output.write(bytes),
      close: () => {
        if (!own.alive) return;
        input.abandon();
        output.end();
      },
    });
    for (const [process, input, output] of [[a, back, there], [b, there, back]] as const) {
      process.onEnd(() => {
        input.forsake();
        if (!this.#dark.has(process.host)) output.cutShort();
      });
    }
    return [end(a, back, there), end(b, there, back)];
  }

  /** Something that is one message: it arrives once, or is lost if there is no way. */
  send(from: SimProcess, to: SimProcess, deliver: () => void): void {
    if (!from.alive) return;
    this.time.after(this.#delay(from.host, to.host), () => {
      if (this.#open(from.host, to.host)) to.run(deliver);
    });
  }

  /** Nothing arrives from one host at another. */
  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
  }

  mend(from: string, to: string): void {
    this.#cut.delete(`${from}>${to}`);
    this.#goOn();
  }

  /** A host stops: nothing of it is heard any more, not even that its processes are gone. */
  darken(host: string): void {
    this.#dark.add(host);
  }

  mendAll(): void {
    this.#cut.clear();
    this.#goOn();
  }

  #goOn(): void {
    const stalled = this.#stalled;
    this.#stalled = [];
    for (const pipe of stalled) pipe.go();
  }

  /** Whether anything arrives. */
  open(from: SimProcess, to: SimProcess): boolean {
    return this.#open(from.host, to.host);
  }

  #open(from: string, to: string): boolean {
    return from === to || !this.#cut.has(`${from}>${to}`) && !this.#dark.has(from) && !this.#dark.has(to);
  }

  /** How long something takes. */
  delay(from: SimProcess, to: SimProcess): number {
    return this.#delay(from.host, to.host);
  }

  #delay(from: string, to: string): number {
    if (from === to) return LOCAL_MS * (0.5 + this.chance());
    const { delayMs, late, lateMs } = this.plan;
    const slow = !this.calm && this.chance() < late ? this.chance() * lateMs : 0;
    return 0.1 + this.chance() * delayMs + slow;
  }

  /** @internal A direction of a stream waits for a cut to be mended. */
  stall(pipe: Pipe): void {
    this.#stalled.push(pipe);
  }
}

/** One direction of a stream. */
class Pipe {
  readonly #network: Network;
  readonly #from: SimProcess;
  readonly #to: SimProcess;
  /** On the way; without bytes: the end. */
  #way: { readonly at: number; readonly bytes: Uint8Array | undefined }[] = [];
  #wayBytes = 0;
  #moving = false;
  readonly #arrived: Uint8Array[] = [];
  #ended = false;
  /** Nobody reads any more. */
  #abandoned = false;
  #closed = false;
  #reader: (() => void) | undefined;
  #writer: (() => void) | undefined;

  constructor(network: Network, from: SimProcess, to: SimProcess) {
    this.#network = network;
    this.#from = from;
    this.#to = to;
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#arrived.length === 0) {
      if (this.#abandoned) throw new DisconnectedError("Cannot read: the stream is closed");
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#reader = resolve);
    }
    const first = this.#arrived[0]!;
    const count = Math.min(first.length, into.length);
    into.set(first.subarray(0, count));
    if (count === first.length) this.#arrived.shift();
    else this.#arrived[0] = first.subarray(count);
    return count;
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#network.beforeWrite(this.#from);
    if (!this.#from.alive) return await new Promise<never>(() => {});
    while (this.#wayBytes >= WINDOW_BYTES && !this.#closed && !this.#abandoned) {
      await new Promise<void>((resolve) => this.#writer = resolve);
    }
    if (this.#closed) throw new DisconnectedError("Cannot write: the stream is closed");
    const { chance, plan } = this.#network;
    const piece = bytes.length > 1 && chance() < plan.pieces
      ? 1 + Math.floor(chance() * (bytes.length - 1))
      : Math.min(bytes.length, WINDOW_BYTES);
    this.#network.time.note(piece);
    this.#push(bytes.slice(0, piece));
    return piece;
  }

  /** The writer ends it: the reader gets what was sent, and then the end. */
  end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake();
    this.#push(undefined);
  }

  /** The writer's process has ended: part of what is on the way may be lost. */
  cutShort(): void {
    if (this.#closed) return;
    const { chance } = this.#network;
    if (chance() < 0.5) {
      this.#way.length = Math.floor(chance() * (this.#way.length + 1));
      this.#wayBytes = this.#way.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
    }
    this.end();
  }

  /** The reader's process has ended. */
  forsake(): void {
    this.#abandoned = true;
    this.#arrived.length = 0;
    this.#reader = undefined;
  }

  /** The reader closes it. */
  abandon(): void {
    this.#abandoned = true;
    this.#arrived.length = 0;
    this.#reader?.();
    this.#reader = undefined;
  }

  #push(bytes: Uint8Array | undefined): void {
    const { time } = this.#network;
    const earliest = this.#way.at(-1)?.at ?? 0;
    const at = Math.max(earliest, time.now + this.#network.delay(this.#from, this.#to));
    this.#way.push({ at, bytes });
    this.#wayBytes += bytes?.length ?? 0;
    this.go();
  }

  /** Sees that the next piece arrives. */
  go(): void {
    const next = this.#way[0];
    if (this.#moving || next === undefined) return;
    this.#moving = true;
    this.#network.time.after(Math.max(0, next.at - this.#network.time.now), () => {
      if (!this.#network.open(this.#from, this.#to)) {
        this.#moving = false;
        return this.#network.stall(this);
      }
      if (!this.#to.alive) return;
      this.#to.run(() => this.#arrive());
    });
  }

  #arrive(): void {
    this.#moving = false;
    const next = this.#way.shift();
    if (next === undefined) return;
    this.#wayBytes -= next.bytes?.length ?? 0;
    this.#wake();
    if (next.bytes === undefined) this.#ended = true;
    else if (!this.#abandoned) this.#arrived.push(next.bytes);
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.();
    this.go();
  }

  #wake(): void {
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer !== undefined) this.#from.run(writer);
  }
}
