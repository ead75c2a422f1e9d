/**
 * Asks a simulated node what it has, over the protocol, as `rayd list` does.
 *
 * @module
 */

import type { TaskId } from "../../../core/ids.ts";
import { type FromNode, PROTOCOL_VERSION, type ToNode, type Topic } from "../../../core/messages.ts";
import { VERSION } from "../../../core/version.ts";
import { unpack } from "../../../store/serialize.ts";
import { Channel } from "../../../transport/channel.ts";
import { decodeFromNode } from "../../../transport/codec.ts";
import { type SimNode, TOKEN } from "./machine.ts";
import { SimProcess } from "./process.ts";

/** A row of a list. */
export type Row = Readonly<Record<string, string | number>>;

const NOBODY = "\0".repeat(16) as TaskId;

/** Asks a node about something. Resolves with nothing if it ends meanwhile. */
export async function ask(node: SimNode, topics: readonly Topic[]): Promise<unknown[] | undefined> {
  const observer = new SimProcess("observer", node.host, node.world.time);
  let channel: Channel<ToNode, FromNode>;
  try {
    channel = new Channel(await node.connect(observer), decodeFromNode, "microtask");
  } catch {
    return undefined;
  }
  const { promise, resolve } = Promise.withResolvers<unknown[] | undefined>();
  const answers: unknown[] = [];
  channel.start({
    message: (message) => {
      if (message.type !== "answer") return;
      answers[message.request] = unpack(message.body);
      if (message.request === topics.length - 1) resolve(answers);
    },
    closed: () => resolve(undefined),
  });
  channel.send({
    type: "hello",
    role: "observer",
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    token: TOKEN,
    isolate: 0,
    job: NOBODY,
    storeClient: 0,
    pid: 1,
  });
  topics.forEach((topic, request) => channel.send({ type: "ask", request, topic }));
  const result = await promise;
  channel.close();
  observer.kill();
  return result;
}

/** Rows of several kinds, each with what kind it is. */
export async function lists(
  node: SimNode,
  topics: readonly ("tasks" | "actors" | "objects" | "jobs" | "groups" | "unmet" | "workers")[],
): Promise<Row[]> {
  const answers = await ask(node, topics) as { rows: Row[] }[] | undefined;
  return (answers ?? []).flatMap(({ rows }, i) => rows.map((row) => ({ kind: topics[i]!, ...row })));
}
