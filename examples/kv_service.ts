/**
 * Counters over HTTP: keys are spread over durable actors, so an increment that was answered is never lost and never
 * applied twice, although the actors are killed all the time; or, in a cluster, over whose nodes they are spread, nodes.
 *
 *     rayd run examples/kv_service.ts                  counts 2,000 requests of its own while actors are killed
 *     rayd run examples/kv_service.ts --port 8080      serves: curl -X POST 'http://127.0.0.1:8080/hits?by=2'
 *
 * @module
 */

import { actor, type ActorHandle, get, init, kill } from "rayd";

class Shard {
  counts = new Map<string, number>();

  add(key: string, by: number): number {
    const count = (this.counts.get(key) ?? 0) + by;
    this.counts.set(key, count);
    return count;
  }

  read(key: string): number {
    return this.counts.get(key) ?? 0;
  }
}

export const Counters = actor(Shard, { checkpoint: { every: 100 }, spread: true });

function shardOf(key: string, shards: readonly ActorHandle<Shard>[]): ActorHandle<Shard> {
  let hash = 0;
  for (const char of key) hash = Math.imul(hash, 31) + char.codePointAt(0)! >>> 0;
  return shards[hash % shards.length]!;
}

async function answer(request: Request, shards: readonly ActorHandle<Shard>[]): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  const key = decodeURIComponent(pathname.slice(1));
  const by = Number(searchParams.get("by") ?? 1);
  if (key === "" || !Number.isSafeInteger(by)) {
    return new Response("give a key, and whole numbers\n", { status: 400 });
  }
  const shard = shardOf(key, shards);
  const count = await get(request.method === "POST" ? shard.add.remote(key, by) : shard.read.remote(key));
  return new Response(`${count}\n`);
}

/** Makes requests from several clients at once while the shards are killed; says what came of it. */
async function demo(url: string, shards: readonly ActorHandle<Shard>[], requests: number): Promise<void> {
  const keys = ["apples", "pears", "plums", "quinces", "figs"];
  let killed = 0;
  const killer = setInterval(() => kill(shards[killed++ % shards.length]!, { restart: true }), 200);
  await Promise.all(Array.from({ length: 8 }, async (_, client) => {
    for (let i = client; i < requests; i += 8) {
      await (await fetch(`${url}/${keys[i % keys.length]}`, { method: "POST" })).text();
    }
  }));
  clearInterval(killer);
  let total = 0;
  for (const key of keys) total += Number(await (await fetch(`${url}/${key}`)).text());
  console.log(
    `${requests} increments were answered, ${killed} actors killed meanwhile: the counters hold ${total}`,
  );
}

if (import.meta.main) {
  await using _ = await init();
  const shards = Array.from({ length: 4 }, () => Counters.remote());
  const at = Deno.args.indexOf("--port");
  const port = at < 0 ? 0 : Number(Deno.args[at + 1]);
  const server = Deno.serve(
    { hostname: "127.0.0.1", port, onListen: () => {} },
    (request) => answer(request, shards),
  );
  const url = `http://127.0.0.1:${server.addr.port}`;
  if (at < 0) {
    await demo(url, shards, 2_000);
    await server.shutdown();
  } else {
    console.log(`counting at ${url}`);
    await server.finished;
  }
}
