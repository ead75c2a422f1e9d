/**
 * Which GPUs the code of this process may see: libraries for GPUs ask `CUDA_VISIBLE_DEVICES`, of the whole process, when
 * they are first used. So it is set where the process is one task's or actor's at a time, before its code runs.
 *
 * @module
 */

let ownProcess = false;
let shown = "";

/** This isolate has a process of its own. */
export function inOwnProcess(): void {
  ownProcess = true;
}

/** Shows a task's GPUs to what it calls. @param gpus Their ids; none leaves all as it is. */
export function showGpus(gpus: readonly number[]): void {
  if (!ownProcess || gpus.length === 0) return;
  const text = gpus.join(",");
  if (text === shown) return;
  shown = text;
  Deno.env.set("CUDA_VISIBLE_DEVICES", text);
}
