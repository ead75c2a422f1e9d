/** What is used of `npm:ws`. */
import type { EventEmitter } from "node:events";
import type { Server } from "node:http";
import type { Socket } from "node:net";

/** Data of one message, and whether it is binary. */
export type Listener = (data: Uint8Array, binary: boolean) => void;

export class WebSocket extends EventEmitter {
  static readonly OPEN: number;
  constructor(url: string, options: object);
  readonly readyState: number;
  readonly bufferedAmount: number;
  /** The request for the upgrade, until that is done; with the response, and whether what is left of it is not to be read. */
  readonly _req: EventEmitter & { readonly res?: { _dumped: boolean } } | null;
  /** The connection underneath. */
  readonly _socket: Socket | null;
  send(data: string | Uint8Array): void;
  close(): void;
  terminate(): void;
}

export class WebSocketServer extends EventEmitter {
  constructor(options: {
    server: Server;
    maxPayload: number;
    perMessageDeflate: boolean;
  });
  close(): void;
}
