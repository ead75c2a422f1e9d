/**
 * Faults that can be planted in a node, one rule broken by each. The simulator of clusters has to find every one of them:
 * what it cannot find, it does not test. Nothing but a test passes any.
 *
 * @module
 */

/** The faults, and the rule that each breaks. */
export const NODE_FAULTS = {
  "write-unfenced": "a node goes on with an actor that was given to another one, and writes to its journal",
  "forget-answers": "a call that comes again, as its caller was run again, takes effect again",
  "replay-covered": "an actor that is taken up runs calls again that its state covers",
  "tell-unwritten": "other nodes are told what depends on calls that are in no journal yet",
  "end-answers": "answers are forgotten when their caller has ended, though it may have to run again",
  "forget-lineage": "nobody remembers how objects were made",
  "overcommit": "a node gives away twice what it has",
  "lose-delegated": "tasks that were given to a node that is gone are not run again",
} as const;

/** The name of a fault. */
export type NodeFault = keyof typeof NODE_FAULTS;

/** None, as everywhere but in tests of the simulator. */
export const NO_FAULTS: ReadonlySet<NodeFault> = new Set();
