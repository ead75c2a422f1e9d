/**
 * Faults that can be planted in the chain's machines, one rule of the protocol broken by each. The simulator has to find
 * every one of them: what it cannot find, it does not test. Nothing but a test passes any.
 *
 * @module
 */

/** The faults, and the rule that each breaks. */
export const CHAIN_FAULTS = {
  "forward-unfenced": "a replica takes entries of another epoch than its own, whoever sends them",
  "ack-unfenced": "a replica takes acknowledgements of another epoch than its own",
  "commit-early": "the head applies and answers a write before the tail has it",
  "ack-early": "a middle replica acknowledges what it received, not what the tail did",
  "tell-early": "what a replica tells of entries does not wait until they are on its disk",
  "tail-tells-early": "a tail tells what it has applied before that is on its disk",
  "resend-from-wrong-number": "after a change of the chain, entries are resent from one too late",
  "no-resend": "after a change of the chain, what was sent and not acknowledged is not sent again",
  "take-gap": "a replica appends entries though some before them are missing",
  "take-doubles": "a replica appends entries that it has already",
  "forget-duplicates": "a command that comes again takes effect again",
  "take-client-gap": "the head takes a command though an earlier one of that client is missing",
  "read-without-lease": "a tail answers reads without asking whether it still is the tail",
  "read-anywhere": "any replica of the chain answers reads",
  "keep-tail-of-log": "a returning replica keeps what it had that was never committed",
  "keep-state-when-copying": "a copy is written over what the member had before",
  "copy-unheld": "the copy of the state is taken piece by piece, while the state changes",
  "copy-unsettled": "a copy lacks what the state has put off writing to the end of the transaction",
  "promote-unsynced": "a joining member becomes the tail before it has all",
  "synced-long-ago": "a tail says in a new epoch what was so in an old one: that the joining member has all",
  "commit-without-joiner": "the tail commits without the joining member after saying that it will not",
  "forget-synced": "the tail forgets over a restart that the joining member has to have all",
  "log-not-kept": "a replica keeps its log in memory only",
  "adopt-older": "a member goes back to an older configuration",
  "forget-promise": "an acceptor forgets over a restart what it has promised and accepted",
  "ignore-promise": "an acceptor accepts a ballot below the one it promised",
  "ignore-accepted": "a proposer passes over what acceptors have accepted already",
  "minority-decides": "one acceptor's vote is a decision",
  "vote-assumed": "an acceptor takes it that who asks for its vote has voted",
  "first-ballot-of-all": "who proposes first asks nobody what was voted for, whoever it is",
  "first-ballot-twice": "a member that has started anew uses the first ballot again",
  "ignore-leases": "an acceptor lets the tail go that it has granted a lease",
  "lease-no-grace": "an acceptor forgets over a restart that it may have granted a lease",
  "lease-too-long": "the tail counts its lease from the answer, not from the question, and for longer",
  "dead-whatever-run": "what is said of a run that has ended is taken for the run that is there now",
  "read-while-leaving": "a tail that has given up its lease to leave still answers reads",
  "leave-untold": "a member that leaves ends before those who decide from then on know that it is out",
  "leave-keeps-seat": "a member that has left is still one of those who decide",
  "leave-of-the-dead": "an acceptor takes what a member said that left for what its next run says",
} as const;

/** The name of a fault. */
export type ChainFault = keyof typeof CHAIN_FAULTS;

/** None, as everywhere but in tests of the simulator. */
export const NO_FAULTS: ReadonlySet<ChainFault> = new Set();
