/**
 * Connections between the members of a replicated control store: WebSockets, of which each member opens one to every
 * other that it knows of. What it has to say goes over its own; what it hears comes over theirs.
 *
 * Members find each other by the *book*: their ids with their addresses, which everybody tells everybody on connecting.
 * It is kept on disk, so that members which all start again at other addresses find each other if one has kept its own.
 *
 * Death: when a connection ends, the other process may be gone or just unreachable, and what follows is quicker if it is
 * known to be gone. So its machine is asked at once, and if it says that nobody listens there any more, it is. A process
 * that is killed closes its connections last of all, so members also hold each other's *lifeline*, which ends first
 * (`store/lifeline.ts`). Whom a machine says to be gone is dialled again ever more rarely, until it dials itself; nobody
 * else is told of it, and it is forgotten in the end, unless it has a part in the store.
 *
 * `npm:ws` on Deno 2.6 corrupts messages of 16 KB and more when the other side reads slowly, as partial vectored writes of
 * its sockets lose their place. So what waits to be written is copied together: as two writes, the head of a message would
 * leave at once, and the message itself with the next turn of the event loop.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { Agent, createServer as createSecureServer } from "node:https";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";
// @ts-types="./ws.d.ts"
import { WebSocket, WebSocketServer } from "ws";
import type { Clock } from "../core/clock.ts";
import { MESSAGE_BYTES_MAX } from "../core/limits.ts";
import { VERSION } from "../core/version.ts";
import { hasEnded, splitAddress, type TlsOptions } from "../transport/tcp.ts";
import { sameToken } from "../transport/token.ts";
import type { MemberAddresses, MemberBook } from "./chain_book.ts";
import type { MemberId } from "./chain_config.ts";

/** What links are made of. */
export interface ChainLinksOptions {
  readonly member: MemberId;
  readonly incarnation: number;
  readonly cluster: string;
  readonly token: string;
  readonly hostname: string;
  /** The port to listen on, if it is free; 0 for any. */
  readonly port: number;
  /** Where clients reach this member. */
  readonly client: string;
  /** The port, at the same host, that is there exactly as long as this process; if there is one. */
  readonly lifeline: number | undefined;
  readonly tls: TlsOptions | undefined;
  readonly clock: Clock;
  /** Whether a member has a part in the store, so that its address is kept though it is gone. */
  readonly hasPart: (member: MemberId) => boolean;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

/** What links tell their owner. */
export interface ChainLinksEvents {
  received(from: MemberId, data: string | Uint8Array): void;
  /** A process may have ended: if it has, that is said soon. */
  ends(): void;
  /** The process has ended. */
  dead(member: MemberId, incarnation: number): void;
  /** There is a member in the book that was not, or one has moved. */
  learned(book: MemberBook): void;
}

/** What one says of oneself on connecting. */
interface Hello {
  readonly member: MemberId;
  readonly incarnation: number;
  readonly lifeline: number | undefined;
  readonly book: MemberBook;
}

const REDIAL_MS_MIN = 20, REDIAL_MS_MAX = 500;
/** As long as the machine says that nobody listens there. Whoever is back says so itself. */
const GONE_REDIAL_MS_MIN = 200, GONE_REDIAL_MS_MAX = 10_000;
/** How long after a connection has ended its process may do so. */
const ENDS_MS_MAX = 200;
/** A member without a part is forgotten when it was gone for so long. */
const FORGET_MS = 10 * 60_000;
/** How long nothing may come on a connection; and how long it may take to be made. */
const SILENCE_MS_MAX = 10_000, HANDSHAKE_MS_MAX = 5_000;
const PROTOCOL = 4;

interface Outgoing {
  readonly address: string;
  socket: WebSocket | undefined;
  member: MemberId | undefined;
  incarnation: number;
  /** Whether that run of its process is known to have ended. */
  ended: boolean;
  /** Ends the connection to its lifeline. */
  release: () => void;
  waitMs: number;
  /** Since when nobody listens there. */
  goneSince: number | undefined;
  cancel: () => void;
}

/** A member's connections. */
export class ChainLinks {
  readonly #options: ChainLinksOptions;
  readonly #events: ChainLinksEvents;
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #byMember = new Map<MemberId, Outgoing>();
  /** Connections that others made, and when something came last. */
  readonly #incoming = new Map<WebSocket, number>();
  #cancelWatch: () => void = () => {};
  readonly #garbled = new WeakSet<WebSocket>();
  readonly #server;
  readonly #sockets: WebSocketServer;
  #book: Record<MemberId, MemberAddresses> = {};
  #closed = false;

  /** @param options What they are made of. @param events Whom they tell. */
  constructor(options: ChainLinksOptions, events: ChainLinksEvents) {
    this.#options = options;
    this.#events = events;
    const identity = options.tls?.identity;
    this.#server = identity === undefined
      ? createServer()
      : createSecureServer({ cert: identity.cert, key: identity.key });
    this.#sockets = new WebSocketServer({
      server: this.#server as ReturnType<typeof createServer>,
      maxPayload: MESSAGE_BYTES_MAX,
      perMessageDeflate: false,
    });
    this.#sockets.on("connection", (socket: WebSocket, request: IncomingMessage) => {
      whole(request.socket);
      if (this.#verify(request)) this.#accept(socket);
      else socket.terminate(); // an answer with a status does not get through on Deno 2.6
    });
  }

  /** Listens. @returns The port. */
  async listen(): Promise<number> {
    const { hostname: at, port: wanted } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(isFree(at, wanted) ? wanted : 0, at, () => resolve());
    });
    const { port } = this.#server.address() as AddressInfo;
    const { member, hostname, client } = this.#options;
    this.#book[member] = { chain: addressOf(hostname, port), client };
    this.#watch();
    return port;
  }

  /** All members that are known of, this one included. */
  get book(): MemberBook {
    return this.#book;
  }

  /** Those of them that others are told of: not who is gone, without a part. If that one is back, it tells so itself. */
  get present(): MemberBook {
    const present: Record<MemberId, MemberAddresses> = {};
    for (const [id, addresses] of Object.entries(this.#book)) {
      const gone = this.#outgoing.get(addresses.chain)?.goneSince !== undefined;
      if (!gone || this.#options.hasPart(id)) present[id] = addresses;
    }
    return present;
  }

  /** Takes up members that somebody knows of, and dials them. */
  learn(book: MemberBook): void {
    let news = false;
    for (const [id, addresses] of Object.entries(book)) {
      if (id === this.#options.member) continue;
      const known = this.#book[id];
      if (known?.chain === addresses.chain && known.client === addresses.client) continue;
      this.#book[id] = addresses;
      news = true;
    }
    if (news) this.#events.learned(this.#book);
    for (const [id, { chain }] of Object.entries(this.#book)) {
      if (id !== this.#options.member) this.dial(chain);
    }
  }

  /** Connects to an address, and again whenever that ends. */
  dial(address: string): void {
    if (this.#outgoing.has(address) || this.#closed) return;
    const outgoing: Outgoing = {
      address,
      socket: undefined,
      member: undefined,
      incarnation: 0,
      ended: false,
      release: () => {},
      waitMs: REDIAL_MS_MIN,
      goneSince: undefined,
      cancel: () => {},
    };
    this.#outgoing.set(address, outgoing);
    this.#connect(outgoing);
  }

  /** Sends to a member, if there is a connection; otherwise it is lost. */
  send(to: MemberId, data: string | Uint8Array): void {
    const socket = this.#byMember.get(to)?.socket;
    if (socket?.readyState === WebSocket.OPEN) socket.send(sealed(data));
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    this.#cancelWatch();
    for (const { cancel, release } of this.#outgoing.values()) {
      cancel();
      release();
    }
    for (const socket of this.#incoming.keys()) socket.terminate();
    this.#sockets.close();
    this.#server.close();
  }

  /**
   * Ends connections on which nothing comes: members say all the time that they live. A length that was garbled on its way
   * is waited for, and neither side would notice.
   */
  #watch(): void {
    const { clock } = this.#options;
    for (const [socket, heardAt] of this.#incoming) {
      if (clock.now() - heardAt > SILENCE_MS_MAX) socket.terminate();
    }
    this.#cancelWatch = clock.after(SILENCE_MS_MAX / 10, () => this.#watch());
  }

  #verify({ headers }: IncomingMessage): boolean {
    const { cluster, token } = this.#options;
    // Browsers name the page that asks; no member does.
    const good = headers.origin === undefined && sameToken(`${headers["x-rayd-token"] ?? ""}`, token) &&
      headers["x-rayd-version"] === VERSION && headers["x-rayd-protocol"] === String(PROTOCOL) &&
      headers["x-rayd-cluster"] === cluster;
    if (!good) {
      this.#options.log("warn", "Refused a connection of a member: token, version or cluster is another");
    }
    return good;
  }

  #hello(): string {
    const { member, incarnation, lifeline } = this.#options;
    const hello: Hello = { member, incarnation, lifeline, book: this.present };
    return JSON.stringify(hello);
  }

  #accept(socket: WebSocket): void {
    const { clock } = this.#options;
    this.#incoming.set(socket, clock.now());
    let from: MemberId | undefined;
    socket.on(
      "message",
      ((data, binary) => {
        const body = this.#unsealed(socket, data);
        if (body === undefined) return;
        this.#incoming.set(socket, clock.now());
        // What is binary is kept for a while, and lies in a block that the socket reads into again.
        if (from !== undefined) {
          return this.#events.received(from, binary ? Uint8Array.from(body) : text(body));
        }
        const hello = JSON.parse(text(body)) as Hello;
        from = hello.member;
        this.learn(hello.book);
        this.#isBack(from);
        socket.send(sealed(this.#hello()));
      }) satisfies (data: Uint8Array, binary: boolean) => void,
    );
    socket.on("error", (error: unknown) => {
      this.#options.log("warn", `A connection of a member ended: ${(error as Error).message}`);
      socket.terminate();
    });
    socket.on("close", () => this.#incoming.delete(socket));
  }

  /** What a message has, if it is as it was sent; if not, the connection ends. */
  #unsealed(socket: WebSocket, data: Uint8Array): Uint8Array | undefined {
    if (this.#garbled.has(socket)) return undefined; // what came with it is still told
    const end = data.length - SEAL_BYTES;
    const seal = end < 0 ? "" : text(data.subarray(end));
    if (end >= 0 && seal === sealOf(data.subarray(0, end))) return data.subarray(0, end);
    this.#garbled.add(socket);
    this.#options.log("warn", "A connection of a member ended: a message was garbled on its way");
    socket.terminate();
    return undefined;
  }

  #connect(outgoing: Outgoing): void {
    const { token, cluster, tls } = this.#options;
    const authority = tls?.authority;
    const secure = tls?.identity !== undefined;
    const socket = new WebSocket(`${secure ? "wss" : "ws"}://${outgoing.address}/chain`, {
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      headers: {
        "x-rayd-token": token,
        "x-rayd-cluster": cluster,
        "x-rayd-version": VERSION,
        "x-rayd-protocol": String(PROTOCOL),
      },
      ...(secure && authority !== undefined ? { agent: new Agent({ ca: authority }) } : {}),
    });
    let failure: unknown;
    // The option of ws for this ends the isolate on Deno 2.6, where a request that has failed can still be late.
    const cancelLate = this.#options.clock.after(HANDSHAKE_MS_MAX, () => abandon(socket));
    outgoing.cancel = () => {
      cancelLate();
      abandon(socket);
    };
    socket.on("unexpected-response", (_request: unknown, response: IncomingMessage) => {
      abandon(socket); // it is no member that listens there
      response.destroy();
    });
    // Small messages leave at once. The socket that an upgrade leaves cannot be set so on Deno 2.6: it has to be done before.
    socket._req?.once("socket", (raw: Socket) => {
      if (raw.connecting) raw.once("connect", () => raw.setNoDelay(true));
      else raw.setNoDelay(true);
    });
    socket.on("open", () => {
      cancelLate();
      whole(socket._socket);
      outgoing.socket = socket;
      socket.send(sealed(this.#hello()));
    });
    socket.on(
      "message",
      ((data) => {
        const body = this.#unsealed(socket, data);
        if (body === undefined) return;
        const hello = JSON.parse(text(body)) as Hello;
        outgoing.member = hello.member;
        outgoing.incarnation = hello.incarnation;
        outgoing.waitMs = REDIAL_MS_MIN;
        outgoing.goneSince = undefined;
        outgoing.ended = false;
        this.#byMember.set(hello.member, outgoing);
        this.#hold(outgoing, hello.lifeline);
        this.learn(hello.book);
      }) satisfies (data: Uint8Array) => void,
    );
    socket.on("error", (error: unknown) => {
      cancelLate();
      failure = error;
      if (outgoing.socket !== socket) return; // it was never there
      this.#options.log("warn", `The connection to ${outgoing.address} ended: ${(error as Error).message}`);
    });
    socket.on("close", () => {
      cancelLate();
      const was = outgoing.socket !== undefined;
      outgoing.socket = undefined;
      if (this.#closed) return;
      if (was && !outgoing.ended) this.#confirm(outgoing, splitAddress(outgoing.address).port);
      this.#ended(outgoing, failure);
    });
  }

  /** Takes hold of the lifeline of whoever has said hello: when it ends, so has the process. */
  #hold(outgoing: Outgoing, lifeline: number | undefined): void {
    outgoing.release();
    if (lifeline === undefined) return;
    const { hostname } = splitAddress(outgoing.address);
    let released = false;
    let letGo = () => {};
    outgoing.release = () => {
      released = true;
      letGo();
      letGo = () => {};
    };
    const hold = async () => {
      const held = await Deno.connect({ hostname, port: lifeline });
      if (released) return held.close();
      letGo = () => held.close();
      await held.read(new Uint8Array(1)).catch(() => {}); // however it ended
      if (released) return;
      outgoing.release();
      this.#confirm(outgoing, lifeline);
    };
    hold().catch(() => {}); // it was never reached: that says nothing
  }

  /** A connection has ended: has the process? Its machine is asked whether there is anybody at a port that it had. */
  #confirm(outgoing: Outgoing, port: number): void {
    const { address, member, incarnation } = outgoing;
    if (member === undefined) return;
    this.#events.ends();
    const { hostname } = splitAddress(address);
    hasEnded(hostname, port, this.#options.clock, ENDS_MS_MAX).then((dead) => {
      if (!dead || this.#closed) return;
      if (outgoing.member === member && outgoing.incarnation === incarnation) outgoing.ended = true;
      this.#events.dead(member, incarnation);
    });
  }

  /** Somebody who was gone has connected: so it can be connected to. */
  #isBack(member: MemberId): void {
    const outgoing = this.#outgoing.get(this.#book[member]?.chain ?? "");
    if (outgoing?.goneSince === undefined || outgoing.socket !== undefined) return;
    outgoing.goneSince = undefined;
    outgoing.waitMs = REDIAL_MS_MIN;
    outgoing.cancel();
    this.#connect(outgoing);
  }

  #ended(outgoing: Outgoing, failure: unknown): void {
    const { member, incarnation, address, ended } = outgoing;
    const { clock, hasPart } = this.#options;
    const refused = isRefused(failure);
    if (member !== undefined && refused) this.#events.dead(member, incarnation);
    const gone = refused || ended;
    outgoing.ended = false; // who is dialled next is another run
    const current = member === undefined ? true : this.#book[member]?.chain === address;
    if (!current && member !== undefined && this.#byMember.get(member) !== outgoing) {
      this.#forget(outgoing); // it lives elsewhere now
      return;
    }
    outgoing.goneSince = gone ? outgoing.goneSince ?? clock.now() : undefined;
    if (member !== undefined && gone && clock.now() - outgoing.goneSince! > FORGET_MS && !hasPart(member)) {
      this.#forget(outgoing);
      this.#byMember.delete(member);
      delete this.#book[member];
      this.#events.learned(this.#book);
      return;
    }
    const [msMin, msMax] = gone ? [GONE_REDIAL_MS_MIN, GONE_REDIAL_MS_MAX] : [REDIAL_MS_MIN, REDIAL_MS_MAX];
    const waitMs = Math.min(Math.max(outgoing.waitMs, msMin), msMax);
    outgoing.waitMs = waitMs * 2;
    outgoing.cancel = clock.after(waitMs, () => this.#connect(outgoing));
  }

  #forget(outgoing: Outgoing): void {
    outgoing.release();
    this.#outgoing.delete(outgoing.address);
  }
}

/** Whether nobody listens on a port. To find out by listening ends the isolate: node:http does not catch the error. */
function isFree(hostname: string, port: number): boolean {
  try {
    Deno.listen({ hostname, port }).close();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    return false;
  }
}

/** Lets a socket write what waits to be written as one buffer. */
function whole(socket: Socket | null): void {
  if (socket === null) return;
  const writable = socket as unknown as WritableSocket;
  writable._writev = (chunks, done) => {
    const buffers = chunks.map(({ chunk, encoding }) =>
      typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk
    );
    writable._write(Buffer.concat(buffers), "buffer", done);
  };
}

/** What a stream of node:stream calls to write: one chunk, or all that wait. */
interface WritableSocket {
  _write(chunk: Uint8Array, encoding: "buffer", done: (error?: Error | null) => void): void;
  _writev: (
    chunks: readonly { readonly chunk: Uint8Array | string; readonly encoding: "utf8" }[],
    done: (error?: Error | null) => void,
  ) => void;
}

/**
 * Ends a connection, also one that is just being made.
 *
 * When a request is given up, node:http reads what is left of the response; on Deno 2.6 it does so even if the response is
 * an upgrade, which has nothing to be read, and the failure ends the isolate. And a socket that comes of an upgrade all the
 * same is nobody's.
 */
function abandon(socket: WebSocket): void {
  const request = socket._req;
  if (request?.res) request.res._dumped = true;
  request?.once("upgrade", (_response: unknown, late: Socket) => late.destroy());
  socket.terminate();
}

/** A checksum as text, as which it can end messages of both kinds: 8 hexadecimal digits. */
const SEAL_BYTES = 8;

function sealOf(data: Uint8Array): string {
  return crc32(data).toString(16).padStart(SEAL_BYTES, "0");
}

/** A message with its checksum (see transport/checked.ts) at its end. */
function sealed(data: string | Uint8Array): string | Uint8Array {
  if (typeof data === "string") return data + sealOf(new TextEncoder().encode(data));
  const whole = new Uint8Array(data.length + SEAL_BYTES);
  whole.set(data);
  whole.set(new TextEncoder().encode(sealOf(data)), data.length);
  return whole;
}

function isRefused(failure: unknown): boolean {
  return (failure as { code?: string } | undefined)?.code === "ECONNREFUSED";
}

function text(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}

/** HOST:PORT, of an IPv6 address in brackets. */
export function addressOf(hostname: string, port: number): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}
