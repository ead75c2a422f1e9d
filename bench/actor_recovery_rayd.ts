/**
 * What bench/actor_recovery.ts runs: actors that are called one call after the other until the time is over. Each call
 * writes a line when it runs, so that it can be told which ran again. Prints how many calls there were, and ends with
 * status 1 if one was lost or applied twice.
 *
 *     rayd run bench/actor_recovery_rayd.ts ACTORS EVERY CALL_MS SECONDS LOG
 *
 * @module
 */

import { actor, context, get, init } from "rayd";

/** Counts its calls. */
export const Worker = actor(
  class Worker {
    calls = 0;
    async work(name: string, callMs: number, log: string): Promise<number> {
      const call = ++this.calls;
      await new Promise((resolve) => setTimeout(resolve, callMs));
      const again = context().replaying ? 1 : 0;
      Deno.writeTextFileSync(log, `${name}/${call} ${Date.now()} ${again}\n`, { append: true });
      return call;
    }
  },
);

if (import.meta.main) {
  await using _ = await init();
  const [actors, every, callMs, seconds] = Deno.args.map(Number) as [number, number, number, number];
  const log = Deno.args[4]!;
  const workers = Array.from(
    { length: actors },
    () => Worker.options({ checkpoint: { every }, spread: true, isolate: "shared" }).remote(),
  );
  await get(workers.map((worker, n) => worker.work.remote(`${n}`, callMs, log)));
  console.log("started");
  const end = performance.now() + seconds * 1000;
  let calls = 0;
  await Promise.all(workers.map(async (worker, n) => {
    for (let expected = 2; performance.now() < end; expected++, calls++) {
      const call = await get(worker.work.remote(`${n}`, callMs, log));
      if (call === expected) continue;
      console.error(`wrong: call ${expected} of actor ${n} was its ${call}th`);
      Deno.exit(1);
    }
  }));
  console.log(`${calls} calls`);
}
