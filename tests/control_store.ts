/**
 * A control store in memory, for tests of what works with one: the real server and the real clients, over streams in this
 * process.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { type TaskId, taskIdFromBytes } from "../core/ids.ts";
import { GcsClient } from "../gcs/client.ts";
import { MemoryStorage } from "../gcs/memory_storage.ts";
import { GcsServer, type TransactionalStorage } from "../gcs/server.ts";
import { streamPair } from "../transport/channel.ts";

/** Memory with transactions that cannot fail. */
class Transactional extends MemoryStorage implements TransactionalStorage {
  transaction<T>(body: () => T): T {
    return body();
  }
}

/** The store, with two shards. */
export class ControlStore implements Disposable {
  readonly #server = new GcsServer({
    cluster: taskIdFromBytes(new Uint8Array(16).fill(1)),
    token: "t",
    storages: [new Transactional(), new Transactional()],
    clock: systemClock,
    log: () => {},
  });
  readonly #clients: GcsClient[] = [];

  /** A client of it, which is connected. */
  async client(id: TaskId): Promise<GcsClient> {
    const client = new GcsClient({
      id,
      token: "t",
      clock: systemClock,
      connect: () => {
        const [here, there] = streamPair();
        this.#server.accept(there);
        return Promise.resolve(here);
      },
    });
    this.#clients.push(client);
    await client.start();
    return client;
  }

  /** Ends it, and its clients. */
  [Symbol.dispose](): void {
    for (const client of this.#clients) client.close();
    this.#server.close();
  }
}
