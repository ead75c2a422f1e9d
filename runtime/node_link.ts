/**
 * A client's connection to its node: messages in the order in which they were sent, from before the connection is up until
 * it ends, and questions with their answers.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { DisconnectedError, type RaydError } from "../core/errors.ts";
import type { TaskId } from "../core/ids.ts";
import { type FromNode, PROTOCOL_VERSION, type ToNode } from "../core/messages.ts";
import { VERSION } from "../core/version.ts";
import type { ObjectStore } from "../store/object_store.ts";
import { Channel, type ChannelEvents } from "../transport/channel.ts";
import { decodeFromNode } from "../transport/codec.ts";
import type { Published } from "./registry.ts";

/** How a client reaches its node. */
export interface Connection {
  readonly conn: Deno.Conn;
  readonly token: string;
  readonly store: ObjectStore;
  /** Code to publish before anything else, named by its hash. */
  readonly code?: readonly Published[];
}

/** Who it is that connects. */
export interface LinkOptions {
  readonly role: "driver" | "isolate";
  readonly isolate: number;
  readonly job: TaskId;
  /** When to write what is sent. */
  readonly flush: "microtask" | "manual";
  /** Whether waiting keeps the process alive, as it must in a driver. */
  readonly keepAlive: boolean;
}

/** A connection to a node. */
export class NodeLink {
  readonly #options: LinkOptions;
  #channel: Channel<ToNode, FromNode> | undefined;
  #connection: Connection | undefined;
  /** What was sent before the connection was up. */
  #early: ToNode[] = [];
  readonly #welcomed = Promise.withResolvers<void>();
  #ended: RaydError | undefined;
  readonly #questions = new Map<number, (answer: Uint8Array) => void>();
  #nextQuestion = 0;
  /** Waits of any kind that are under way. */
  #waiting = 0;
  /** The node's id, once it has said welcome. */
  node: TaskId | undefined;

  /** @param options Who it is that connects. */
  constructor(options: LinkOptions) {
    this.#options = options;
    this.#welcomed.promise.catch(() => {});
  }

  /** Why the connection cannot be used any more. */
  get ended(): RaydError | undefined {
    return this.#ended;
  }

  /** Whether there is a way to the node, though it may not have answered. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** The node's object store. */
  get store(): ObjectStore {
    assert(this.#connection !== undefined, "the store is used before the connection is up");
    return this.#connection.store;
  }

  /** Resolves when the node is up. */
  get ready(): Promise<void> {
    return this.#welcomed.promise;
  }

  /** Connects. Resolves when the node has said welcome. @param connection The way there. @param listener Is told what comes. */
  connect(connection: Connection, listener: ChannelEvents<FromNode>): Promise<void> {
    const { role, isolate, job, flush } = this.#options;
    this.#connection = connection;
    this.#channel = new Channel(connection.conn as Deno.UnixConn, decodeFromNode, flush);
    this.#channel.start(listener);
    this.#channel.send({
      type: "hello",
      role,
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      token: connection.token,
      isolate,
      job,
      storeClient: connection.store.client,
      pid: Deno.pid,
    });
    if (connection.code !== undefined) {
      for (const { hash, bytes } of connection.code) {
        this.#channel.send({ type: "publish", hash, code: bytes });
      }
    }
    for (const message of this.#early) this.#channel.send(message);
    this.#early = [];
    this.#channel.flush();
    this.#updateKeepAlive();
    return this.#welcomed.promise;
  }

  /** The node has said welcome. */
  welcomed(node: TaskId): void {
    this.node = node;
    this.#welcomed.resolve();
  }

  /** Sends a message, or keeps it until there is a connection. */
  send(message: ToNode): void {
    if (this.#channel !== undefined) this.#channel.send(message);
    else this.#early.push(message);
  }

  /** Writes out what was sent. */
  flush(): void {
    this.#channel?.flush();
  }

  /** Ends the connection. @param error Why. @returns Whether it had not ended before. */
  end(error: RaydError): boolean {
    if (this.#ended !== undefined) return false;
    this.#ended = error;
    this.#channel?.close();
    this.#connection?.store.close();
    this.#welcomed.reject(error);
    for (const answer of this.#questions.values()) answer(NO_BYTES);
    return true;
  }

  /** @throws {DisconnectedError} If the connection has ended. */
  check(): void {
    if (this.#ended === undefined) return;
    throw new DisconnectedError(this.#ended.message, { cause: this.#ended });
  }

  // --- Waiting ------------------------------------------------------------------------------------------------

  /** Something is waited for: the process stays alive meanwhile. */
  waits(): void {
    if (++this.#waiting === 1) this.#updateKeepAlive();
  }

  /** It is not waited for any more. */
  goesOn(): void {
    if (--this.#waiting === 0) this.#updateKeepAlive();
  }

  #updateKeepAlive(): void {
    if (!this.#options.keepAlive || this.#connection === undefined || this.#ended !== undefined) return;
    const conn = this.#connection.conn as Deno.UnixConn;
    if (this.#waiting > 0) conn.ref();
    else conn.unref();
  }

  // --- Questions ----------------------------------------------------------------------------------------------

  /** Sends a question. @param question Makes it from its number. @returns Its number. */
  pose(question: (request: number) => ToNode): number {
    const request = this.#nextQuestion++;
    this.send(question(request));
    return request;
  }

  /** The answer to a question. */
  async answer(request: number): Promise<Uint8Array> {
    const answer = new Promise<Uint8Array>((resolve) => this.#questions.set(request, resolve));
    this.waits();
    try {
      return await answer;
    } finally {
      this.#questions.delete(request);
      this.goesOn();
    }
  }

  /** Asks, once the node is up, and waits for the answer. @throws {DisconnectedError} If the connection ends before. */
  async ask(question: (request: number) => ToNode): Promise<Uint8Array> {
    this.check();
    await this.ready;
    const request = this.pose(question);
    this.flush();
    const body = await this.answer(request);
    this.check();
    return body;
  }

  /** Asks something that may be answered at any time; nobody waits for it. */
  askAside(question: (request: number) => ToNode, answered: () => void): void {
    const request = this.pose(question);
    this.#questions.set(request, () => {
      this.#questions.delete(request);
      answered();
    });
    this.flush();
  }

  /** A question was answered. */
  answered(request: number, body: Uint8Array): void {
    this.#questions.get(request)?.(body);
  }
}

const NO_BYTES = new Uint8Array(0);
