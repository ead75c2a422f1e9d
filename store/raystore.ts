/**
 * The one `Deno.dlopen` of rayd: the C ABI of `ffi/` (crate `raystore`), in the same order and under the same names as
 * its `lib.rs`, and the one place where its status codes become errors.
 *
 * @module
 */

import { OutOfDiskError, StoreError, StoreFullError, UsageError } from "../core/errors.ts";
import { STORE_ABI_VERSION } from "../core/version.ts";

const SYMBOLS = {
  rs_abi_version: { parameters: [], result: "u32" },
  rs_store_create: { parameters: ["buffer", "usize", "u64", "u32", "u32", "buffer"], result: "i32" },
  rs_store_path: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  rs_store_open: { parameters: ["buffer", "usize", "buffer"], result: "i32" },
  rs_store_close: { parameters: ["pointer"], result: "i32" },
  rs_client_register: { parameters: ["pointer", "buffer"], result: "i32" },
  rs_client_release: { parameters: ["pointer", "u32"], result: "i32" },
  rs_clients_reap: { parameters: ["pointer"], result: "i32" },
  rs_object_create: { parameters: ["pointer", "u32", "buffer", "u64", "buffer"], result: "i32" },
  rs_object_seal: { parameters: ["pointer", "u32", "buffer", "u64"], result: "i32" },
  rs_object_abort: { parameters: ["pointer", "u32", "buffer"], result: "i32" },
  rs_object_get: { parameters: ["pointer", "u32", "buffer", "buffer"], result: "i32" },
  rs_object_release: { parameters: ["pointer", "u32", "buffer"], result: "i32" },
  rs_object_release_at: { parameters: ["pointer", "u32", "buffer", "u64"], result: "i32" },
  rs_object_delete: { parameters: ["pointer", "buffer"], result: "i32" },
  rs_object_evict: { parameters: ["pointer", "buffer"], result: "i32" },
  rs_object_stat: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  rs_lru: { parameters: ["pointer", "u64", "buffer", "buffer", "u32"], result: "i32" },
  rs_list: { parameters: ["pointer", "buffer", "buffer", "buffer", "u32"], result: "i32" },
  rs_stats: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  rs_copy: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  rs_reduce: { parameters: ["u32", "u32", "buffer", "u32", "pointer", "usize"], result: "i32" },
  rs_prefault_start: { parameters: ["pointer", "u64", "u64"], result: "i32" },
  rs_prefault_stop: { parameters: ["pointer"], result: "i32" },
  rs_hash64: { parameters: ["pointer", "usize"], result: "u64" },
  rs_spill_create: { parameters: ["buffer", "usize", "buffer"], result: "i32" },
  rs_spill_write: {
    parameters: ["pointer", "u32", "buffer", "i32", "u64"],
    result: "i32",
    nonblocking: true,
  },
  rs_spill_read: {
    parameters: ["pointer", "u32", "i32", "u64", "buffer", "u64", "u64"],
    result: "i32",
    nonblocking: true,
  },
  rs_spill_punch: { parameters: ["i32", "u64", "u64"], result: "i32" },
  rs_spill_close: { parameters: ["i32"], result: "i32" },
  rs_fs_free: { parameters: ["buffer", "usize", "buffer"], result: "i32" },
  rs_bulk_open: { parameters: ["buffer", "usize", "buffer", "usize"], result: "i32" },
  rs_bulk_send: {
    parameters: ["i32", "pointer", "usize", "pointer", "u32"],
    result: "i32",
    nonblocking: true,
  },
  rs_bulk_receive: { parameters: ["i32", "pointer", "usize", "pointer"], result: "i32", nonblocking: true },
  rs_bulk_shutdown: { parameters: ["i32"], result: "i32" },
  rs_bulk_close: { parameters: ["i32"], result: "i32" },
  rs_check: { parameters: ["pointer"], result: "i32" },
  rs_last_errno: { parameters: [], result: "i32" },
  rs_die_with_parent: { parameters: ["i32"], result: "i32" },
  rs_lifeline_open: { parameters: ["buffer", "usize"], result: "i32" },
  rs_urgent: { parameters: ["i32"], result: "i32" },
  rs_keep_freed: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The library's functions. */
export type Raystore = Deno.StaticForeignLibraryInterface<typeof SYMBOLS>;

/** The library, loaded by one isolate. */
export interface LoadedRaystore {
  readonly lib: Raystore;
  /** Where it is. */
  readonly path: string;
  /** Unloads it, as far as this isolate is concerned. */
  close(): void;
}

/** The statuses that callers handle; every other one is an error. */
export const STATUS = {
  exists: -1,
  notFound: -2,
  unsealed: -3,
  full: -4,
  tooBig: -5,
  tableFull: -6,
  badState: -7,
  pinned: -11,
  noSpaceOnDisk: -13,
} as const;

const MEANING: Readonly<Record<number, string>> = {
  [-1]: "the object exists already",
  [-2]: "there is no such object",
  [-3]: "the object is not sealed",
  [-4]: "the store is full",
  [-5]: "it is larger than the whole store",
  [-6]: "the store's tables are full",
  [-7]: "the object or the store is not in a state for it (the store may be closed)",
  [-8]: "this client is not registered",
  [-9]: "a system call failed",
  [-10]: "the store's memory contradicts itself",
  [-11]: "the object is pinned",
  [-12]: "an argument is wrong",
  [-13]: "the disk is full",
  [-14]: "the store's lock was held for too long: a process that uses it is stopped",
};

/** Libraries that are loaded, by path: many stores of one isolate have one. */
const loaded = new Map<string, { readonly library: Deno.DynamicLibrary<typeof SYMBOLS>; users: number }>();

/**
 * Loads the library; once for all stores of this isolate, as that takes longer than making one.
 *
 * @param path Where the shared library is.
 * @throws {UsageError} If it cannot be loaded, saying how it is made.
 */
export function loadRaystore(path: string): LoadedRaystore {
  const entry = loaded.get(path) ?? { library: openLibrary(path), users: 0 };
  loaded.set(path, entry);
  entry.users++;
  const { library } = entry;
  return {
    lib: library.symbols,
    path,
    close: () => {
      if (--entry.users > 0) return;
      loaded.delete(path);
      library.close();
    },
  };
}

function openLibrary(path: string): Deno.DynamicLibrary<typeof SYMBOLS> {
  let library: Deno.DynamicLibrary<typeof SYMBOLS>;
  try {
    library = Deno.dlopen(path, SYMBOLS);
  } catch (error) {
    throw new UsageError(
      `Cannot load the object store's library ${path}: ${(error as Error).message}. In a checkout, ` +
        `"bin/rayd version" builds it; elsewhere, set RAYD_STORE_LIBRARY to the library's path`,
    );
  }
  const version = library.symbols.rs_abi_version();
  if (version !== STORE_ABI_VERSION) {
    library.close();
    throw new UsageError(
      `Cannot use the object store's library ${path}: its interface has version ${version}, not ${STORE_ABI_VERSION}. ` +
        `Build both from the same sources ("bin/rayd version" in a checkout)`,
    );
  }
  return library;
}

/**
 * Turns a status into an error, unless it is none.
 *
 * @param lib The library.
 * @param status What a function returned.
 * @param action What was tried, to begin the message with: "Cannot …".
 * @returns The status, not negative.
 */
export function check(lib: Raystore, status: number, action: string): number {
  if (status >= 0) return status;
  const errno = status === -9 || status === -13 ? ` (errno ${lib.rs_last_errno()})` : "";
  const message = `${action}: ${MEANING[status] ?? `status ${status}`}${errno}`;
  if (status === STATUS.full || status === STATUS.tooBig || status === STATUS.tableFull) {
    throw new StoreFullError(message);
  }
  if (status === STATUS.noSpaceOnDisk) throw new OutOfDiskError(message);
  throw new StoreError(message);
}
