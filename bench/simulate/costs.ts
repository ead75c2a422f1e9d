/**
 * What things cost in the simulated cluster: the times that a simulation cannot know and a measurement can.
 *
 * They are constants, so that a run depends on its seed alone. Each says where it comes from; `deno task simulate costs`
 * measures those of the scheduler's machines again, on the machine that it runs on.
 *
 * @module
 */

/** Times, and the network. */
export interface Costs {
  /** Thread time of a driver for a task: to submit it, and to take its result. In microseconds, as all `Us`. */
  readonly driverUs: number;
  /** Thread time of a node to take in a task from a program or a peer; and to take in that it ended, and tell of it. */
  readonly nodeStartUs: number;
  readonly nodeEndUs: number;
  /** Thread time of an isolate for a task, apart from the task's own. */
  readonly isolateUs: number;
  /** Thread time to look at one node when a place is chosen. */
  readonly placeViewUs: number;
  /** Thread time of a node to take in how one other node is loaded. */
  readonly reportUs: number;
  /** Thread time of the head to write how one node is loaded to one other node. */
  readonly relayUs: number;
  /** One way over a unix socket of a machine, with the wake-up of who reads. In milliseconds, as all `Ms`. */
  readonly localMs: number;
  /** One way between two machines, likewise. */
  readonly networkMs: number;
  /** Bytes a millisecond that a machine can send, and as many that it can receive. */
  readonly bandwidth: number;
  /** How long an isolate takes to start. */
  readonly spawnMs: number;
  /** After how long the others know that a node is gone: its connections close. */
  readonly detectMs: number;
}

/** What was measured on two cores of an AMD EPYC, and the network of the Ray paper's machines. */
export const COSTS: Costs = {
  driverUs: 10, // 2 cores / 88,900 tasks/s = 22 us in all, of which node and isolate have 9; the rest is not only this
  nodeStartUs: 3.5, // docs/architecture.md: 7.0 us of node time a task
  nodeEndUs: 3.5,
  isolateUs: 1.6, // docs/architecture.md
  placeViewUs: 0.014, // as measured by `costs`, like the next two
  reportUs: 2.1,
  relayUs: 0.11,
  localMs: 0.031, // half a round trip of 62 us
  networkMs: 0.1,
  bandwidth: 3.125e6, // 25 Gbit/s
  spawnMs: 20,
  detectMs: 1,
};
