/**
 * How much memory a node and its hosts use, as Linux tells it, and the guard that acts on it (`node/memory_guard.ts`).
 *
 * The limit is that of the machine, or of the container that the node runs in; or, if one was given, what the node, its
 * store and its hosts use together.
 *
 * @module
 */

import type { Clock } from "../core/clock.ts";
import { MemoryGuard, type MemorySample, type MemoryUser } from "./memory_guard.ts";

/** How often memory is looked at. */
const LOOK_MS = 250;

const PAGE_BYTES = 4096;

/** What watching needs of its node. */
export interface MemoryServices {
  readonly clock: Clock;
  /** What the node, its store and its hosts may use together; 0 for what the machine has. */
  readonly limitBytes: number;
  /** Bytes that the object store uses. */
  storeBytes(): number;
  /** The processes that run tasks and actors. */
  users(): readonly (Omit<MemoryUser, "bytes"> & { readonly pid: number })[];
  /** Stops what runs in an isolate. */
  stop(isolate: number, reason: string): void;
}

/** Watches a node's memory. Returns what ends that. */
export function watchMemory(node: MemoryServices): () => void {
  const guard = new MemoryGuard();
  let cancel: () => void;
  const look = () => {
    cancel = node.clock.after(LOOK_MS, look);
    const sample = sampleOf(node);
    const verdict = sample === undefined ? undefined : guard.look(sample, node.clock.now());
    if (verdict !== undefined) node.stop(verdict.isolate, verdict.reason);
  };
  cancel = node.clock.after(LOOK_MS, look);
  return () => cancel();
}

function sampleOf({ limitBytes, storeBytes, users }: MemoryServices): MemorySample | undefined {
  if (limitBytes === 0) {
    const machine = machineMemory();
    // Processes are looked at only when it matters.
    if (machine.usedBytes < machine.limitBytes * 0.9) return undefined;
    return { ...machine, users: users().map(measured) };
  }
  const all = users().map(measured);
  const usedBytes = all.reduce((sum, { bytes }) => sum + bytes, storeBytes() + ownBytes(Deno.pid));
  return { usedBytes, limitBytes, users: all };
}

function measured<T extends { readonly pid: number }>(user: T): T & { readonly bytes: number } {
  return { ...user, bytes: ownBytes(user.pid) };
}

/** What a process has for itself, without what it shares with others. 0 of one that is gone. */
function ownBytes(pid: number): number {
  const [, resident = 0, shared = 0] = read(`/proc/${pid}/statm`)?.split(" ").map(Number) ?? [];
  return (resident - shared) * PAGE_BYTES;
}

/** The machine's memory, or the container's, whichever is nearer to its end. */
function machineMemory(): Pick<MemorySample, "usedBytes" | "limitBytes"> {
  const { total, available } = Deno.systemMemoryInfo();
  const machine = { usedBytes: total - available, limitBytes: total };
  const limit = Number(read("/sys/fs/cgroup/memory.max"));
  if (!(limit > 0)) return machine;
  const cache = Number(/^inactive_file (\d+)$/m.exec(read("/sys/fs/cgroup/memory.stat") ?? "")?.[1] ?? 0);
  const used = Number(read("/sys/fs/cgroup/memory.current")) - cache;
  return used / limit > machine.usedBytes / total ? { usedBytes: used, limitBytes: limit } : machine;
}

function read(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined; // no such process, or no cgroup
  }
}
