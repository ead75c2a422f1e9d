/**
 * Starting isolates: as threads of this process, or each in a host process of its own.
 *
 * A thread starts in 20 ms and takes 10 MB, but an exhausted heap or a native crash in one of them ends the whole
 * process. A host takes some 60 MB, and when it dies its tasks are run again elsewhere; with a limit on its memory it is
 * the host that dies of a task that wants too much, not the machine. Hosts end by themselves when their node is gone.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { CLAIM_SLOTS } from "../core/limits.ts";
import type { ObjectStore } from "../store/object_store.ts";
import {
  claimsId,
  type EmbeddedNodeConfig,
  type HostConfig,
  type HostedNodeConfig,
  type IsolateConfig,
} from "./config.ts";
import type { IsolateFactory } from "./peers.ts";

/** What an isolate is told, whatever it is. */
function isolateConfig(config: HostedNodeConfig, storePath: string, isolate: number): IsolateConfig {
  const { token, socket, library, bundle, args, node, codeDirectory, environment } = config;
  return {
    isolate,
    token,
    socket,
    storePath,
    library,
    node,
    bundle,
    args,
    claims: undefined,
    parent: Deno.pid,
    codeDirectory,
    environment,
  };
}

/** Isolates as threads of this process. */
export function isolateThreads(config: EmbeddedNodeConfig, store: ObjectStore): IsolateFactory {
  return {
    start(number, exited) {
      const claims = new SharedArrayBuffer(CLAIM_SLOTS * 4);
      const worker = new Worker(config.isolateModule, { type: "module", name: `rayd isolate ${number}` });
      worker.onerror = (event) => {
        event.preventDefault();
        exited(event.message);
      };
      worker.postMessage({ ...isolateConfig(config, store.path, number), claims });
      return { claims: new Int32Array(claims), terminate: () => worker.terminate() };
    },
  };
}

/** Isolates in processes of their own. */
export function isolateProcesses(
  config: HostedNodeConfig,
  store: ObjectStore,
  host: HostConfig,
): IsolateFactory {
  return {
    start(number, exited) {
      const id = claimsId(config.node, number);
      const claims = claimTable(store, id);
      const limit = host.memory === 0
        ? ""
        : `ulimit -d ${Math.ceil((host.memory + HOST_BASE_BYTES) / 1024)}; `;
      const process = new Deno.Command("/bin/sh", {
        args: ["-c", `${limit}exec "$0" "$@"`, host.command, ...host.args],
        stdin: "piped",
      }).spawn();
      let ended = false;
      process.status.then(({ code, signal }) => {
        store.delete(id);
        if (ended) return;
        ended = true;
        exited(`its host process ended with ${signal ?? `status ${code}`}`);
      });
      const writer = process.stdin.getWriter();
      const line = `${JSON.stringify(isolateConfig(config, store.path, number))}\n`;
      writer.write(new TextEncoder().encode(line)).then(() => writer.close()).catch(() => {
        // It ended before it could read; its status says so.
      });
      return {
        claims,
        terminate() {
          if (ended) return;
          ended = true;
          try {
            process.kill("SIGKILL");
          } catch {
            // It has ended by itself, and its status is on the way.
          }
        },
      };
    },
  };
}

/** A claim table in the store, as another process can see it. */
function claimTable(store: ObjectStore, id: ReturnType<typeof claimsId>): Int32Array {
  const memory = store.create(id, CLAIM_SLOTS * 4);
  assert(typeof memory !== "string", `no room for a claim table: ${String(memory)}`);
  memory.fill(0);
  store.seal(id);
  const view = store.get(id);
  assert(view !== undefined, "a claim table that was just made is gone");
  return new Int32Array(view.bytes.buffer);
}

/** What a host takes before it runs anything, address space that the engine reserves for code included. */
const HOST_BASE_BYTES = 512 * 1024 * 1024;
