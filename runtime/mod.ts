/**
 * rayd: tasks and objects over all cores, for programs in TypeScript.
 *
 * Declare functions as {@link remote} at the top level of a module, call them with `.remote()`, and read what they
 * give with {@link get}. Values that several tasks need are stored once with {@link put}. What keeps a state between calls
 * is an {@link actor}.
 *
 * @example
 * ```ts
 * import { get, init, remote } from "rayd";
 *
 * export const square = remote(function square(x: number): number {
 *   return x * x;
 * });
 *
 * if (import.meta.main) {
 *   await using _ = await init();
 *   const squares = await get([1, 2, 3].map((x) => square.remote(x)));
 *   console.log(squares); // [1, 4, 9]
 * }
 * ```
 *
 * @module
 */

export {
  allocate,
  asCompleted,
  availableResources,
  cancel,
  type CancelOptions,
  clusterResources,
  context,
  get,
  type GetOptions,
  map,
  type MapOptions,
  type Mappable,
  type NodeInfo,
  nodes,
  type NumericArray,
  put,
  type Values,
  wait,
  type WaitOptions,
} from "./api.ts";
export {
  actor,
  type ActorClass,
  type ActorDeath,
  type ActorHandle,
  type ActorMethod,
  type ActorMethodReturning,
  type AnyActorClass,
  died,
  getActor,
  kill,
  type KillOptions,
  ready,
  self,
} from "./actor.ts";
export { Handle } from "./handle.ts";
export { ActorPool, type PoolCall } from "./actor_pool.ts";
export { Barrier } from "./barrier.ts";
export * as collective from "./collective.ts";
export { Event } from "./event.ts";
export {
  type BundleOptions,
  gang,
  type GangOptions,
  type InBundle,
  PlacementGroup,
  placementGroup,
  type PlacementGroupOptions,
} from "./placement_group.ts";
export * as kv from "./key_value.ts";
export { Queue, type QueueOptions } from "./queue.ts";
export { type AcquireOptions, Lock, type Permit, Semaphore } from "./semaphore.ts";
export type { ToolOptions, WaitingOptions } from "./tool.ts";
export type { ActorOptions, CallOptions } from "../core/actor_options.ts";
export { type Cluster, init, type InitOptions, isInitialized, shutdown } from "./init.ts";
export { Ref, type RefArguments, type RefOr, type RemoteResult, type ValueOf } from "./ref.ts";
export { RefStream } from "./stream.ts";
export {
  type AnyFunction,
  type RefEach,
  remote,
  type RemoteFunction,
  type RemoteFunctionReturning,
  type RemoteOptions,
  type RemoteValue,
} from "./remote.ts";
export type { TaskContext } from "./executor.ts";
export type { TaskOptions } from "../core/options.ts";
export type { Strategy } from "../core/groups.ts";
export type { GroupHandle, PlacementOptions } from "../core/placement.ts";
export type { Duration } from "../core/duration.ts";
export type { Isolation, LogLevel } from "../node/config.ts";
export { type ClassCodec, registerClass } from "../store/serialize.ts";
export {
  AcquireTimeoutError,
  ActorDeadlockError,
  ActorDiedError,
  ActorNameTakenError,
  ActorRestartingError,
  ActorUnavailableError,
  BarrierBrokenError,
  CollectiveBrokenError,
  CollectiveMismatchError,
  DamagedStoreError,
  DisconnectedError,
  type ErrorCode,
  GetTimeoutError,
  NoMajorityError,
  ObjectLostError,
  OutOfDiskError,
  OutOfMemoryError,
  PendingCallsLimitError,
  PlacementGroupError,
  ProtocolError,
  QueueEmptyError,
  QueueFullError,
  QueueShutDownError,
  RaydError,
  SerializationError,
  StoreError,
  StoreFullError,
  TaskCancelledError,
  type TaskDetails,
  TaskError,
  TaskTimeoutError,
  UnschedulableError,
  UsageError,
  WorkerCrashedError,
} from "../core/errors.ts";
export { VERSION } from "../core/version.ts";
