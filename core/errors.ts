/**
 * Every failure that rayd reports to a program, as one family of classes.
 *
 * A user must be able to tell failures apart in code (`code`, `instanceof`), and to learn from the message what
 * happened, to which task or object, where, and what to do about it. Errors cross isolates and processes as
 * {@link ErrorRecord}s: plain data that any part can read without loading the class that threw it.
 *
 * @module
 */

/** The `code` of a {@link RaydError}; stable, for programs to switch on. */
export type ErrorCode =
  | "TASK_FAILED"
  | "TASK_CANCELLED"
  | "TASK_TIMEOUT"
  | "WORKER_CRASHED"
  | "OUT_OF_MEMORY"
  | "GET_TIMEOUT"
  | "OBJECT_LOST"
  | "STORE_FULL"
  | "OUT_OF_DISK"
  | "NOT_SERIALIZABLE"
  | "UNSCHEDULABLE"
  | "PLACEMENT_GROUP"
  | "ACTOR_DIED"
  | "ACTOR_UNAVAILABLE"
  | "ACTOR_RESTARTING"
  | "ACTOR_DEADLOCK"
  | "ACTOR_NAME_TAKEN"
  | "PENDING_CALLS_LIMIT"
  | "QUEUE_FULL"
  | "QUEUE_EMPTY"
  | "QUEUE_SHUT_DOWN"
  | "ACQUIRE_TIMEOUT"
  | "BARRIER_BROKEN"
  | "COLLECTIVE_BROKEN"
  | "COLLECTIVE_MISMATCH"
  | "USAGE"
  | "DISCONNECTED"
  | "NO_MAJORITY"
  | "STORE_DAMAGED"
  | "PROTOCOL"
  | "STORE";

/** The root of all errors that rayd itself raises. */
export class RaydError extends Error {
  /** What kind of failure this is; stable across versions. */
  readonly code: ErrorCode;

  /**
   * Makes the error.
   *
   * @param code What kind of failure this is.
   * @param message What happened, where, and what to do.
   * @param options The error that led to this one.
   */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** Details of the task a failure is about. */
export interface TaskDetails {
  /** The task's name: the function's name unless `options({ name })` set another. */
  readonly task: string;
  /** The task's id, 32 hexadecimal digits. */
  readonly taskId: string;
  /** Which attempt failed, counted from 1. */
  readonly attempt: number;
}

/** A user's function threw; `cause` is what it threw, rebuilt where possible. */
export class TaskError extends RaydError implements TaskDetails {
  /** The task's name. */
  readonly task: string;
  /** The task's id, 32 hexadecimal digits. */
  readonly taskId: string;
  /** Which attempt failed, counted from 1. */
  readonly attempt: number;
  /** The stack where the function threw, in the user's own files and lines. */
  readonly remoteStack: string;

  /**
   * Makes the error.
   *
   * @param message What the user's function threw, as a line of text.
   * @param details The task, its attempt, the stack where it threw, and the thrown value.
   */
  constructor(message: string, details: TaskDetails & { remoteStack: string; cause?: unknown }) {
    super("TASK_FAILED", message, "cause" in details ? { cause: details.cause } : undefined);
    this.task = details.task;
    this.taskId = details.taskId;
    this.attempt = details.attempt;
    this.remoteStack = details.remoteStack;
    // The place that matters to the reader is where the task threw, not where `get` was called.
    const frames = details.remoteStack.split("\n").filter((line) => /^\s+at /.test(line));
    if (frames.length > 0) {
      const local = (this.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line) && !isCarried(line));
      this.stack = [`TaskError: ${message}`, ...frames, `    --- got by ---`, ...local].join("\n");
    }
  }
}

const ROOT = new URL("..", import.meta.url).href;

/** Whether a frame lies in what the executable carries: rayd's own code, merged, where lines tell nobody anything. */
function isCarried(line: string): boolean {
  return Deno.build.standalone && line.includes(ROOT);
}

/** The task was cancelled with `cancel()`, or the task that it belonged to was. */
export class TaskCancelledError extends RaydError {
  /** Makes the error. @param message Which task was cancelled and in which state it was. */
  constructor(message: string) {
    super("TASK_CANCELLED", message);
  }
}

/** The task ran longer than its `timeout` allows. */
export class TaskTimeoutError extends RaydError {
  /** Makes the error. @param message Which task, which limit, and in which state it was. */
  constructor(message: string) {
    super("TASK_TIMEOUT", message);
  }
}

/** The isolate or process that ran the task died, more often than the task may be retried. */
export class WorkerCrashedError extends RaydError {
  /** Makes the error. @param message Which task, how the worker died, and how many attempts were made. */
  constructor(message: string) {
    super("WORKER_CRASHED", message);
  }
}

/** The task was stopped as its node's memory ran out, more often than it may be retried. */
export class OutOfMemoryError extends RaydError {
  /** Makes the error. @param message Which task, and who used how much. */
  constructor(message: string) {
    super("OUT_OF_MEMORY", message);
  }
}

/** `get`, `wait` or an iteration with a `timeout` did not have its values in time. The tasks go on. */
export class GetTimeoutError extends RaydError {
  /** Makes the error. @param message What was waited for and for how long. */
  constructor(message: string) {
    super("GET_TIMEOUT", message);
  }
}

/** An object's value is gone: freed, or unreadable where it was kept. */
export class ObjectLostError extends RaydError {
  /** Makes the error. @param message Which object and how it was lost. */
  constructor(message: string) {
    super("OBJECT_LOST", message);
  }
}

/** The object store has no room for a value and nothing more can be spilled or freed. */
export class StoreFullError extends RaydError {
  /** Makes the error. @param message How much was asked, how much there is, and what holds it. */
  constructor(message: string) {
    super("STORE_FULL", message);
  }
}

/** Objects had to be spilled, and the disk they go to is full. */
export class OutOfDiskError extends RaydError {
  /** Makes the error. @param message Where, how much was needed, and how much was free. */
  constructor(message: string) {
    super("OUT_OF_DISK", message);
  }
}

/** A value cannot be carried to another isolate; `path` names the part of it that cannot. */
export class SerializationError extends RaydError {
  /** Where in the value the bad part is, such as `args[0].model.optimizer`. */
  readonly path: string;

  /**
   * Makes the error.
   *
   * @param message What could not be carried, where, and what to do.
   * @param options The path of the bad part, and the error that was met there, if any.
   */
  constructor(message: string, options: { path: string; cause?: unknown }) {
    super("NOT_SERIALIZABLE", message, "cause" in options ? { cause: options.cause } : undefined);
    this.path = options.path;
  }
}

/** No machine here could ever satisfy the request. */
export class UnschedulableError extends RaydError {
  /** Makes the error. @param message What was asked and what exists. */
  constructor(message: string) {
    super("UNSCHEDULABLE", message);
  }
}

/** A placement group was removed, or could not be reserved in time. */
export class PlacementGroupError extends RaydError {
  /** Makes the error. @param message Which group, and what it lacks. */
  constructor(message: string) {
    super("PLACEMENT_GROUP", message);
  }
}

/** The actor is dead, or died while it ran the call: the call has no answer, and further ones will have none. */
export class ActorDiedError extends RaydError {
  /** Why it died: how its isolate or its process ended, who killed it, or that its constructor threw. */
  readonly reason: string;
  /** The last lines that the actor printed, oldest first. */
  readonly output: readonly string[];

  /**
   * Makes the error.
   *
   * @param message Which actor, which call, and why.
   * @param details Why it died, what it printed last, and what its constructor threw, if that is why.
   */
  constructor(
    message: string,
    details: { reason: string; output?: readonly string[]; cause?: unknown },
  ) {
    super("ACTOR_DIED", message, "cause" in details ? { cause: details.cause } : undefined);
    this.reason = details.reason;
    this.output = details.output ?? [];
  }
}

/** The node knows no such actor: the last handle to it was let go of, or it belonged to another node's life. */
export class ActorUnavailableError extends RaydError {
  /** Makes the error. @param message Which actor and which call. */
  constructor(message: string) {
    super("ACTOR_UNAVAILABLE", message);
  }
}

/** The actor's isolate died while the call was there, so that nobody knows whether it ran; the actor comes back. */
export class ActorRestartingError extends RaydError {
  /** Makes the error. @param message Which actor, which call, and how its isolate ended. */
  constructor(message: string) {
    super("ACTOR_RESTARTING", message);
  }
}

/** The call would close a circle of actors that wait for each other, for ever. */
export class ActorDeadlockError extends RaydError {
  /** Makes the error. @param message The calls of the circle, in order. */
  constructor(message: string) {
    super("ACTOR_DEADLOCK", message);
  }
}

/** Another living actor has the name. */
export class ActorNameTakenError extends RaydError {
  /** Makes the error. @param message The name and its namespace. */
  constructor(message: string) {
    super("ACTOR_NAME_TAKEN", message);
  }
}

/** As many calls of the actor as its `maxPending` allows have not ended. */
export class PendingCallsLimitError extends RaydError {
  /** Makes the error. @param message Which actor, which call, and the limit. */
  constructor(message: string) {
    super("PENDING_CALLS_LIMIT", message);
  }
}

/** The queue had no room in time. */
export class QueueFullError extends RaydError {
  /** Makes the error. @param message How much was to go in, and how much there is. */
  constructor(message: string) {
    super("QUEUE_FULL", message);
  }
}

/** The queue had nothing in it in time. */
export class QueueEmptyError extends RaydError {
  /** Makes the error. @param message How long was waited. */
  constructor(message: string) {
    super("QUEUE_EMPTY", message);
  }
}

/** The queue was shut down: it takes nothing more, and what it had in it is gone. */
export class QueueShutDownError extends RaydError {
  /** Makes the error. @param message What was tried. */
  constructor(message: string) {
    super("QUEUE_SHUT_DOWN", message);
  }
}

/** A lock or a semaphore's permits were not free in time. */
export class AcquireTimeoutError extends RaydError {
  /** Makes the error. @param message How much was asked, for how long, and who holds it. */
  constructor(message: string) {
    super("ACQUIRE_TIMEOUT", message);
  }
}

/** Somebody whom a barrier waited for did not come, or it was reset: nobody passes it. */
export class BarrierBrokenError extends RaydError {
  /** Makes the error. @param message What broke it. */
  constructor(message: string) {
    super("BARRIER_BROKEN", message);
  }
}

/** A collective group cannot go on: a member is gone, or did not come in time. */
export class CollectiveBrokenError extends RaydError {
  /** Makes the error. @param message Which group, which member, and what happened to it. */
  constructor(message: string, options?: ErrorOptions) {
    super("COLLECTIVE_BROKEN", message, options);
  }
}

/** The members of a group called different collectives, or with arrays or options that do not fit together. */
export class CollectiveMismatchError extends RaydError {
  /** Makes the error. @param message Who gave what. */
  constructor(message: string) {
    super("COLLECTIVE_MISMATCH", message);
  }
}

/** The API was called wrongly. */
export class UsageError extends RaydError {
  /** Makes the error. @param message What was wrong and how it is done right. */
  constructor(message: string) {
    super("USAGE", message);
  }
}

/** The connection to the node is gone: it was shut down, or it died. */
export class DisconnectedError extends RaydError {
  /** Makes the error. @param message Which connection, and why it ended. */
  constructor(message: string, options?: ErrorOptions) {
    super("DISCONNECTED", message, options);
  }
}

/** Too few of those who keep the cluster's control store answer: nothing of it can be read or written. */
export class NoMajorityError extends RaydError {
  /** Makes the error. @param message How many answer, which do not, and what to do. */
  constructor(message: string) {
    super("NO_MAJORITY", message);
  }
}

/** What lies on disk of the control store is not what was written there, and nobody else has it. */
export class DamagedStoreError extends RaydError {
  /** Makes the error. @param message Which part of it, what is lost, and what to do. */
  constructor(message: string) {
    super("STORE_DAMAGED", message);
  }
}

/** A peer sent something that is not of the protocol; its connection ends. */
export class ProtocolError extends RaydError {
  /** Makes the error. @param message What was received and what was expected. */
  constructor(message: string) {
    super("PROTOCOL", message);
  }
}

/** The shared-memory store refused a call in a way that a program cannot cause. */
export class StoreError extends RaydError {
  /** Makes the error. @param message Which call and which status. */
  constructor(message: string) {
    super("STORE", message);
  }
}

/** An error as it travels: plain data. */
export interface ErrorRecord {
  /** Which class it becomes again. */
  readonly code: ErrorCode;
  /** The message, whole. */
  readonly message: string;
  /** Of `TASK_FAILED`: the task. */
  readonly task?: string;
  /** Of `TASK_FAILED`: its id. */
  readonly taskId?: string;
  /** Of `TASK_FAILED`: the attempt, from 1. */
  readonly attempt?: number;
  /** Of `TASK_FAILED`: where it was thrown. */
  readonly remoteStack?: string;
  /** Of `NOT_SERIALIZABLE`: where in the value. */
  readonly path?: string;
  /** Of `ACTOR_DIED`: why. */
  readonly reason?: string;
  /** Of `ACTOR_DIED`: the actor's last lines. */
  readonly output?: readonly string[];
  /** What was thrown: a value that the serializer takes. */
  readonly cause?: unknown;
}

/** Turns an error into plain data. @param error Any error of rayd's. */
export function errorToRecord(error: RaydError): ErrorRecord {
  const cause = error.cause === undefined ? {} : { cause: error.cause };
  if (error instanceof TaskError) {
    const { code, message, task, taskId, attempt, remoteStack } = error;
    return { code, message, task, taskId, attempt, remoteStack, ...cause };
  }
  if (error instanceof SerializationError) {
    return { code: error.code, message: error.message, path: error.path, ...cause };
  }
  if (error instanceof ActorDiedError) {
    return { code: error.code, message: error.message, reason: error.reason, output: error.output, ...cause };
  }
  return { code: error.code, message: error.message };
}

/** Makes the error again that a record was made of. @param record What {@link errorToRecord} gave. */
export function errorFromRecord(record: ErrorRecord): RaydError {
  const { message } = record;
  switch (record.code) {
    case "TASK_FAILED":
      return new TaskError(message, {
        task: record.task ?? "?",
        taskId: record.taskId ?? "?",
        attempt: record.attempt ?? 1,
        remoteStack: record.remoteStack ?? "",
        ...("cause" in record ? { cause: record.cause } : {}),
      });
    case "TASK_CANCELLED":
      return new TaskCancelledError(message);
    case "TASK_TIMEOUT":
      return new TaskTimeoutError(message);
    case "WORKER_CRASHED":
      return new WorkerCrashedError(message);
    case "OUT_OF_MEMORY":
      return new OutOfMemoryError(message);
    case "GET_TIMEOUT":
      return new GetTimeoutError(message);
    case "OBJECT_LOST":
      return new ObjectLostError(message);
    case "STORE_FULL":
      return new StoreFullError(message);
    case "OUT_OF_DISK":
      return new OutOfDiskError(message);
    case "NOT_SERIALIZABLE":
      return new SerializationError(message, {
        path: record.path ?? "?",
        ...("cause" in record ? { cause: record.cause } : {}),
      });
    case "UNSCHEDULABLE":
      return new UnschedulableError(message);
    case "PLACEMENT_GROUP":
      return new PlacementGroupError(message);
    case "ACTOR_DIED":
      return new ActorDiedError(message, {
        reason: record.reason ?? "?",
        output: record.output ?? [],
        ...("cause" in record ? { cause: record.cause } : {}),
      });
    case "ACTOR_UNAVAILABLE":
      return new ActorUnavailableError(message);
    case "ACTOR_RESTARTING":
      return new ActorRestartingError(message);
    case "ACTOR_DEADLOCK":
      return new ActorDeadlockError(message);
    case "ACTOR_NAME_TAKEN":
      return new ActorNameTakenError(message);
    case "PENDING_CALLS_LIMIT":
      return new PendingCallsLimitError(message);
    case "QUEUE_FULL":
      return new QueueFullError(message);
    case "QUEUE_EMPTY":
      return new QueueEmptyError(message);
    case "QUEUE_SHUT_DOWN":
      return new QueueShutDownError(message);
    case "ACQUIRE_TIMEOUT":
      return new AcquireTimeoutError(message);
    case "BARRIER_BROKEN":
      return new BarrierBrokenError(message);
    case "COLLECTIVE_BROKEN":
      return new CollectiveBrokenError(message);
    case "COLLECTIVE_MISMATCH":
      return new CollectiveMismatchError(message);
    case "DISCONNECTED":
      return new DisconnectedError(message);
    case "NO_MAJORITY":
      return new NoMajorityError(message);
    case "STORE_DAMAGED":
      return new DamagedStoreError(message);
    case "PROTOCOL":
      return new ProtocolError(message);
    case "STORE":
      return new StoreError(message);
    case "USAGE":
      return new UsageError(message);
    default:
      return new ProtocolError(`Cannot read an error record: its code is "${String(record.code)}"`);
  }
}
