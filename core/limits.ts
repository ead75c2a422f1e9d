/**
 * Every limit of the system, in one place, units last in the name. Relations between them are asserted at load.
 *
 * @module
 */

import { assert } from "./assert.ts";

/** A value up to this size travels inside messages; a larger one lies in the shared-memory store. */
export const INLINE_BYTES_MAX = 16 * 1024;

/** The largest single message that a peer accepts. Nothing larger than a batch of inline values is ever sent. */
export const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** The largest message of a peer that has not shown the token yet, and how long it may take to. */
export const GREETING_BYTES_MAX = 4096;
export const GREETING_MS_MAX = 5_000;

/** All files of a working directory together: they travel as one message. */
export const WORKING_DIRECTORY_BYTES_MAX = 48 * 1024 * 1024;

/** Arguments that travel with a task; an isolate asks for what goes beyond it. */
export const ARGUMENT_BYTES_MAX = 1024 * 1024;

/** A channel reads into blocks of this size. */
export const READ_BLOCK_BYTES = 64 * 1024;

/** An outbox that has grown to this size is written out without waiting for the turn's end. */
export const FLUSH_BYTES = 64 * 1024;

/** The longest text a name, module or option may have on the wire. */
export const TEXT_BYTES_MAX = 64 * 1024;

/** Tasks that may be sent ahead to one isolate. Work that waits there can still be taken back. */
export const WINDOW_TASKS_MAX = 64;

/** Words in an isolate's claim table: at least the window. */
export const CLAIM_SLOTS = 256;

/** Tasks below one CPU that one isolate may run at once. */
export const CONCURRENT_TASKS_MAX = 100;

/** Returns that a task may declare. */
export const RETURNS_MAX = 1024;

/** Items of a stream that may wait unconsumed before its generator is held back. */
export const STREAM_WINDOW_ITEMS = 32;

/** How often a task is run again after its worker died, unless its options say otherwise. */
export const RETRIES_DEFAULT = 3;

/** An isolate that has had nothing to do for so long ends, unless it is kept ready for programs. */
export const ISOLATE_IDLE_MS = 60_000;

/** An isolate that has had nothing to do for so long collects its garbage. */
export const ISOLATE_COLLECT_MS = 10_000;

/** Isolates are kept ready until no program has run in the cluster for so long. */
export const PROGRAM_IDLE_MS = 5 * 60_000;

/** A key of the key-value table, in UTF-8; and its value, packed. */
export const KEY_BYTES_MAX = 512;
export const KEY_VALUE_BYTES_MAX = 1024 * 1024;

/** Watches of the key-value table that one program, or one isolate, may have open. */
export const KEY_WATCHES_MAX = 1000;

/** Calls that may be sent ahead to one actor. */
export const ACTOR_WINDOW_CALLS = 256;

/** Calls of a durable actor between two checkpoints, unless its options say otherwise. */
export const CHECKPOINT_CALLS_DEFAULT = 1000;

/** What the log of a durable actor may hold: arguments, and {@link ACTOR_LOG_CALL_BYTES} for each call. */
export const ACTOR_LOG_BYTES_MAX = 256 * 1024 * 1024;

/** What a logged call takes apart from its arguments, roughly. */
export const ACTOR_LOG_CALL_BYTES = 256;

/** An argument, or an answer, of an actor's call that is kept in the control store. */
export const JOURNAL_VALUE_BYTES_MAX = 1024 * 1024;

/** The state of an actor, and the arguments of its constructor, that are kept in the control store. */
export const JOURNAL_STATE_BYTES_MAX = 256 * 1024 * 1024;
export const JOURNAL_MADE_BYTES_MAX = 16 * 1024 * 1024;

/** A value of the control store that holds part of an actor's journal; and calls that are written together. */
export const JOURNAL_PIECE_BYTES = 1024 * 1024;
export const JOURNAL_BATCH_BYTES = 256 * 1024;

/** How long what a node held is kept for those who take its place. */
export const HEIR_MS = 30_000;

/** How often in a row the isolate of an actor may die without one new answer before the actor is given up. */
export const ACTOR_FRUITLESS_STARTS_MAX = 3;

/** How long a virtual actor stays awake without calls, unless its options say otherwise. */
export const ACTOR_IDLE_MS_DEFAULT = 300_000;

/** Lines of an actor's output that are kept for the error that tells of its death. */
export const ACTOR_OUTPUT_LINES = 20;

/** How long a running task may take to stop of itself before its isolate is ended. */
export const STOP_GRACE_MS = 100;

/** How long an allocation waits for room in the store before it fails. */
export const ROOM_DEADLINE_MS = 10_000;

/** How long an isolate may take from its start to its first message. */
export const ISOLATE_START_MS_MAX = 30_000;

/** How long `init` waits for the embedded node. */
export const NODE_START_MS_MAX = 30_000;

/** Tasks that a node remembers so that what they made can be made again. */
export const LINEAGE_TASKS_MAX = 200_000;

/** Lineage is written in batches of about this size. */
export const LINEAGE_BATCH_BYTES = 256 * 1024;

/** Objects travel between nodes in pieces of this size: what is verified, passed on, and asked for again, by itself. */
export const PULL_PIECE_BYTES = 16 * 1024 * 1024;

/** Pieces from this size on are moved by the library: a call of it costs about 110 us. */
export const NATIVE_PIECE_BYTES_MIN = 1024 * 1024;

/** Bulk connections that are kept to each node while nothing is fetched. */
export const BULK_CONNECTIONS_KEPT_MAX = 2;

/** How long connecting to another node may take. */
export const DIAL_MS_MAX = 5_000;

/** How often a node tells others how it is loaded, while that changes; and at the least. */
export const LOAD_MS = 20, LOAD_MS_MAX = 500;

/** Lines of `console` output that an isolate may send in one second before the rest is counted and dropped. */
export const LOG_LINES_PER_SECOND = 2_000;

/** The longest line of `console` output that is passed on whole. */
export const LOG_LINE_BYTES_MAX = 32 * 1024;

/** How long somebody who asks the control store once waits, if it seems to have no majority. */
export const CONTROL_STORE_MS_MAX = 4_000;

/** The share of the machine's memory that the store takes unless told otherwise. */
export const STORE_SHARE_DEFAULT = 0.3;

/** The smallest store that is any use. */
export const STORE_BYTES_MIN = 1024 * 1024;

/** Objects that a store's table holds. */
export const STORE_OBJECTS_MAX = 1_000_000;

/** Clients (isolates and drivers) that a store's table holds. */
export const STORE_CLIENTS_MAX = 1024;

assert(
  WORKING_DIRECTORY_BYTES_MAX < MESSAGE_BYTES_MAX - 8 * 1024 * 1024,
  "a packet of files must fit a message",
);
assert(INLINE_BYTES_MAX * 4 < MESSAGE_BYTES_MAX, "an inline value must fit a message");
assert(INLINE_BYTES_MAX * RETURNS_MAX * 2 < MESSAGE_BYTES_MAX, "all that a task returns must fit a message");
assert(
  WINDOW_TASKS_MAX + CONCURRENT_TASKS_MAX < CLAIM_SLOTS,
  "claims must cover all that an isolate was sent",
);
