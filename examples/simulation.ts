/**
 * A population of simulators whose episodes differ in length, gathered as they end: none waits for the slowest. In a cluster
 * they are spread over its nodes, and go on elsewhere when a node dies.
 *
 * Each actor balances a pole on a cart (Barto, Sutton and Anderson, 1983) with a linear policy of its own. Whenever one
 * ends an episode, the best policy so far is changed a little and tried there next.
 *
 *     rayd run examples/simulation.ts [EPISODES]
 *
 * @module
 */

import { actor, type ActorHandle, get, init, type Ref, wait } from "rayd";

type Policy = readonly number[];

class CartPole {
  /** Plays until the pole falls or the cart leaves the track; at most 5,000 steps of 20 ms. */
  play(policy: Policy, seed: number): number {
    let state = seed;
    const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) / 2 ** 32 * 0.1 - 0.05;
    let [x, v, angle, spin] = [random(), random(), random(), random()];
    let steps = 0;
    for (; steps < 5_000 && Math.abs(x) < 2.4 && Math.abs(angle) < 0.21; steps++) {
      const push = policy[0]! * x + policy[1]! * v + policy[2]! * angle + policy[3]! * spin > 0 ? 10 : -10;
      const force = (push + 0.05 * spin ** 2 * Math.sin(angle)) / 1.1;
      const turn = (9.8 * Math.sin(angle) - Math.cos(angle) * force) /
        (0.5 * (4 / 3 - 0.1 * Math.cos(angle) ** 2 / 1.1));
      const acceleration = force - 0.05 * turn * Math.cos(angle) / 1.1;
      x += 0.02 * v;
      v += 0.02 * acceleration;
      angle += 0.02 * spin;
      spin += 0.02 * turn;
    }
    return steps;
  }
}

export const Simulator = actor(CartPole, { spread: true });

interface Episode {
  readonly simulator: ActorHandle<CartPole>;
  readonly policy: Policy;
}

if (import.meta.main) {
  await using _ = await init();
  const episodes = Number(Deno.args[0] ?? 2_000);
  const simulators = Array.from({ length: 2 * navigator.hardwareConcurrency }, () => Simulator.remote());
  let best = { policy: [0, 0, 0, 0] as Policy, steps: 0 };
  let started = 0, ended = 0, steps = 0;
  const running = new Map<Ref<number>, Episode>();
  const start = (simulator: ActorHandle<CartPole>) => {
    const policy = best.policy.map((weight) => weight + (Math.random() - 0.5) / (1 + best.steps / 500));
    running.set(simulator.play.remote(policy, ++started), { simulator, policy });
  };
  for (let i = 0; i < 4; i++) simulators.forEach(start); // a few each, so that none runs dry
  const began = performance.now();
  while (running.size > 0) {
    const [[ref]] = await wait([...running.keys()]);
    const { simulator, policy } = running.get(ref!)!;
    running.delete(ref!);
    const length = await get(ref!);
    ended++;
    steps += length;
    if (length > best.steps) {
      best = { policy, steps: length };
      console.log(`episode ${ended}: ${length} steps, policy ${policy.map((w) => w.toFixed(2)).join(" ")}`);
    }
    if (started < episodes) start(simulator);
  }
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `${ended} episodes, ${steps} steps in ${seconds.toFixed(2)} s; the best lasted ${best.steps} steps`,
  );
}
