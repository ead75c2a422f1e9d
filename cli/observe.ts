/**
 * Asks the nodes of a cluster how they are, one connection each.
 *
 * A node that does not answer is left out and named: it may just be ending.
 *
 * @module
 */

import { systemClock } from "../core/clock.ts";
import { DisconnectedError } from "../core/errors.ts";
import { taskIdFromBytes } from "../core/ids.ts";
import { type FromNode, PROTOCOL_VERSION, type ToNode, type Topic } from "../core/messages.ts";
import { VERSION } from "../core/version.ts";
import type { Row } from "../node/listing.ts";
import type { NodeRegistration } from "../node/registration.ts";
import { unpack } from "../store/serialize.ts";
import { Channel } from "../transport/channel.ts";
import { checked } from "../transport/checked.ts";
import { decodeFromNode } from "../transport/codec.ts";
import { readTls, readToken, tokenFile } from "../transport/credentials.ts";
import { dialTcp } from "../transport/tcp.ts";

/** What all nodes said. */
export interface Answers {
  /** Their rows, each with the beginning of its node's id as `node`. */
  readonly rows: readonly Row[];
  /** How many there are, if not all were told. */
  readonly total: number;
  /** Nodes that did not answer, and why. */
  readonly silent: readonly string[];
}

/** How long a node may take to answer. */
const ANSWER_MS_MAX = 5_000;

/** Asks all nodes to list something. @param file Where the token is, if not where it is by default. */
export async function askNodes(
  nodes: readonly NodeRegistration[],
  topic: Topic,
  file: string | undefined,
): Promise<Answers> {
  const token = readToken(file ?? tokenFile());
  const silent: string[] = [];
  const answers = await Promise.all(nodes.map(async (node) => {
    const short = node.id.slice(0, 8);
    try {
      const { rows, total } = await ask(node, topic, token) as { rows: Row[]; total: number };
      return { rows: rows.map((row) => ({ ...row, node: short })), total };
    } catch (error) {
      silent.push(`node ${short} did not answer: ${(error as Error).message}`);
      return { rows: [], total: 0 };
    }
  }));
  return {
    rows: answers.flatMap(({ rows }) => rows),
    total: answers.reduce((sum, { total }) => sum + total, 0),
    silent,
  };
}

async function ask(node: NodeRegistration, topic: Topic, token: string): Promise<unknown> {
  const conn = await dialTcp(node.hostname, node.port, systemClock, readTls());
  const channel = new Channel<ToNode, FromNode>(checked(conn), decodeFromNode, "microtask");
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const late = systemClock.after(
    ANSWER_MS_MAX,
    () => reject(new DisconnectedError(`there was none within ${ANSWER_MS_MAX} ms`)),
  );
  channel.start({
    message(message) {
      if (message.type === "answer") resolve(unpack(message.body));
      if (message.type === "refused") reject(new DisconnectedError(message.reason));
    },
    closed: (error) => reject(error ?? new DisconnectedError("it closed the connection")),
  });
  channel.send({
    type: "hello",
    role: "observer",
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    token,
    isolate: 0,
    job: taskIdFromBytes(crypto.getRandomValues(new Uint8Array(16))),
    storeClient: 0,
    pid: Deno.pid,
  });
  channel.send({ type: "ask", request: 1, topic });
  try {
    return await promise;
  } finally {
    late();
    channel.close();
  }
}
