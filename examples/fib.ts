/**
 * Fibonacci numbers the hard way: every call is a task that waits for two others. A task that waits lends its CPU, so
 * this needs no more isolates than cores, whatever the depth.
 *
 *     rayd run examples/fib.ts [N]
 *
 * @module
 */

import { get, type Ref, remote } from "rayd";

export const fib: { remote(n: number): Ref<number> } = remote(async function fib(n: number): Promise<number> {
  if (n < 2) return n;
  const [a, b] = await get([next.remote(n - 1), next.remote(n - 2)]);
  return a + b;
});
const next = fib;

if (import.meta.main) {
  const n = Number(Deno.args[0] ?? 16);
  const started = performance.now();
  const value = await get(fib.remote(n));
  console.log(`fib(${n}) = ${value} in ${(performance.now() - started).toFixed(0)} ms`);
}
