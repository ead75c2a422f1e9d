/**
 * Connections between machines: TCP, encrypted where certificates are given.
 *
 * With TLS, every node and every program checks the other side's certificate against the cluster's authority, by its
 * address; who may take part is still decided by the token.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { DisconnectedError, UsageError } from "../core/errors.ts";
import { DIAL_MS_MAX } from "../core/limits.ts";
import type { ByteStream } from "./channel.ts";

/** Certificates in PEM. */
export interface TlsIdentity {
  /** The certificate that is shown, and those between it and the authority. */
  readonly cert: string;
  readonly key: string;
}

/** What makes connections secret. */
export interface TlsOptions {
  /** Of whoever listens. */
  readonly identity: TlsIdentity | undefined;
  /** The authority that signed what others show, in PEM. */
  readonly authority: string | undefined;
}

/** A listener of either kind. */
export interface TcpListener {
  readonly port: number;
  /** Calls `accept` for each connection, until it is closed. */
  serve(accept: (stream: ByteStream) => void): Promise<void>;
  close(): void;
}

/** Listens. @throws {UsageError} If the certificate or its key is none. */
export function listenTcp(hostname: string, port: number, tls?: TlsOptions): TcpListener {
  const identity = tls?.identity;
  const listener = identity === undefined
    ? Deno.listen({ transport: "tcp", hostname, port })
    : listenTls(hostname, port, identity);
  return {
    port: (listener.addr as Deno.NetAddr).port,
    async serve(accept) {
      for await (const conn of listener as AsyncIterable<Deno.TcpConn | Deno.TlsConn>) {
        if ("setNoDelay" in conn) conn.setNoDelay(true);
        accept(conn);
      }
    },
    close: () => listener.close(),
  };
}

function listenTls(hostname: string, port: number, { cert, key }: TlsIdentity): Deno.TlsListener {
  try {
    return Deno.listenTls({ hostname, port, cert, key });
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) throw error;
    throw new UsageError(`Cannot use the certificate or its key: ${(error as Error).message}`);
  }
}

/**
 * Connects.
 *
 * @throws {DisconnectedError} If nobody listens there, or answers within the deadline, or if it shows a certificate that the authority did not
 *   sign.
 */
export async function dialTcp(
  hostname: string,
  port: number,
  clock: Clock,
  tls?: TlsOptions,
): Promise<Deno.TcpConn | Deno.TlsConn> {
  const late = Promise.withResolvers<never>();
  const connecting = connect(hostname, port, tls?.authority);
  const cancel = clock.after(DIAL_MS_MAX, () => {
    late.reject(new DisconnectedError(`${hostname}:${port} did not answer within ${DIAL_MS_MAX} ms`));
    connecting.then((conn) => conn.close(), () => {});
  });
  try {
    return await Promise.race([connecting, late.promise]);
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    throw new DisconnectedError(
      `nobody listens at ${hostname}:${port}: start a head there (rayd head), or see that it runs`,
      {
        cause: error,
      },
    );
  } finally {
    cancel();
  }
}

async function connect(
  hostname: string,
  port: number,
  authority: string | undefined,
): Promise<Deno.TcpConn | Deno.TlsConn> {
  if (authority === undefined) {
    const conn = await Deno.connect({ hostname, port });
    conn.setNoDelay(true);
    return conn;
  }
  const conn = await Deno.connectTls({ hostname, port, caCerts: [authority] });
  try {
    await conn.handshake();
  } catch (error) {
    conn.close();
    throw new DisconnectedError(
      `${hostname}:${port} does not show a certificate of this cluster's authority: ${
        (error as Error).message
      }`,
      { cause: error },
    );
  }
  return conn;
}

/**
 * Whether the process that listened at an address has ended, as its machine says: nobody listens there any more. To be
 * asked when a connection to it has ended. A process that is killed closes one thing after the other, so for a moment a
 * connection may still be made to it, which then ends as well.
 *
 * @param withinMs How long it may take to end.
 */
export async function hasEnded(
  hostname: string,
  port: number,
  clock: Clock,
  withinMs: number,
): Promise<boolean> {
  const late = Promise.withResolvers<"late">();
  const cancel = clock.after(withinMs, () => late.resolve("late"));
  try {
    for (;;) {
      const connecting = Deno.connect({ hostname, port });
      const conn = await Promise.race([connecting, late.promise]);
      if (conn === "late") {
        connecting.then((conn) => conn.close(), () => {});
        return false;
      }
      const ended = conn.read(new Uint8Array(1)).then((read) => read === null, () => true);
      const first = await Promise.race([ended, late.promise]);
      conn.close();
      if (first !== true) return false; // it waits to be told something, or says something itself
    }
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused;
  } finally {
    cancel();
  }
}

/**
 * The two ends of a connection, as HOST:PORT, if its bytes travel as they are: over TCP, and not encrypted.
 *
 * @returns `undefined` if it is none of that kind.
 */
export function plainTcp(stream: ByteStream): { readonly local: string; readonly peer: string } | undefined {
  if (!("localAddr" in stream) || "handshake" in stream) return undefined;
  const { localAddr, remoteAddr } = stream as unknown as Deno.Conn;
  if (localAddr.transport !== "tcp" || remoteAddr.transport !== "tcp") return undefined;
  return { local: joinAddress(localAddr), peer: joinAddress(remoteAddr) };
}

function joinAddress({ hostname, port }: Deno.NetAddr): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/** The parts of HOST:PORT, where an IPv6 address stands in brackets. @throws {UsageError} If it is none. */
export function splitAddress(address: string): { readonly hostname: string; readonly port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(address);
  if (match === null) throw new UsageError(`Cannot use the address "${address}": give HOST:PORT`);
  return { hostname: match[1] ?? match[2]!, port: Number(match[3]) };
}
