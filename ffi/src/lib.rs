//! `raystore`: the memory of a node. One shared-memory segment, mapped by every process, that holds objects and
//! everything known about them.
//!
//! It owns the segment: allocation, the object table, who pins what, the order of last use, spilling an object's bytes
//! to a file; and a few things that only native code can do: ending with its parent, reducing arrays with vector
//! instructions, moving bytes between objects and sockets at the speed of the network, and having the C library keep
//! memory that was freed. It has no policy: it never decides what to evict, spill or wait for, starts no clocks, and
//! sends no messages. `layout.rs` describes the segment, `journal.rs` why a client killed at any instruction does no harm.
//!
//! This file is the C ABI and nothing else: the same names, in the same order, as the symbol table of the program that
//! loads the library. Every function returns 0 or a count, or a negative `Status`, and checks what it is given as far
//! as that is possible; addresses and lengths are the caller's word.
//!
//! Threads: every function may be called from any thread of any process at any time, except that a handle must not be
//! closed while another thread uses it (`rs_spill_write` and `rs_spill_read`, made to run beside others, excepted; so are
//! `rs_bulk_send` and `rs_bulk_receive`, which take none).

// The safety of each entry point is that of C: addresses are valid for what the signature says.
#![allow(clippy::missing_safety_doc)]

pub mod bulk;
pub mod check;
pub mod clients;
pub mod copy;
pub mod freed;
pub mod heap;
pub mod index;
pub mod journal;
pub mod layout;
pub mod lifeline;
pub mod limits;
pub mod objects;
pub mod parent;
pub mod pins;
pub mod pool;
pub mod prefault;
pub mod reduce;
pub mod segment;
pub mod spill;
pub mod status;
pub mod urgent;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod model_test;

use layout::Key;
use limits::KEY_BYTES;
use pins::Use;
use segment::{Handle, Segment};
use status::{Result, Status, RS_OK};

fn code(result: Result<i32>) -> i32 {
    match result {
        Ok(value) => value,
        Err(status) => status as i32,
    }
}

fn unit(result: Result<()>) -> i32 {
    code(result.map(|()| RS_OK))
}

/// # Safety
/// `ptr` is null or valid for `len` bytes.
unsafe fn bytes<'a>(ptr: *const u8, len: usize) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() || len > isize::MAX as usize {
        return Err(Status::BadArg);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// # Safety
/// `ptr` is null or valid for a key.
#[inline]
unsafe fn key(ptr: *const u8) -> Result<Key> {
    if ptr.is_null() {
        return Err(Status::BadArg);
    }
    // SAFETY: the caller's promise; an array of bytes needs no alignment.
    Ok(Key::from_bytes(unsafe {
        &*(ptr as *const [u8; KEY_BYTES])
    }))
}

/// # Safety
/// `out` is null or valid for `values.len()` values.
#[inline]
unsafe fn put<T: Copy>(out: *mut T, values: &[T]) -> Result<()> {
    if out.is_null() {
        return Err(Status::BadArg);
    }
    // SAFETY: the caller's promise; written byte-wise, as callers' buffers may not be aligned.
    unsafe {
        std::ptr::copy_nonoverlapping(
            values.as_ptr() as *const u8,
            out as *mut u8,
            std::mem::size_of_val(values),
        )
    };
    Ok(())
}

/// Version of this interface and of the segment.
#[no_mangle]
pub extern "C" fn rs_abi_version() -> u32 {
    limits::ABI_VERSION
}

/// Makes a store in a new unnamed file in `dir` (`/dev/shm` if empty). `capacity` is bytes of object data.
#[no_mangle]
pub unsafe extern "C" fn rs_store_create(
    dir: *const u8,
    dir_len: usize,
    capacity: u64,
    max_objects: u32,
    max_clients: u32,
    out: *mut *mut Handle,
) -> i32 {
    // SAFETY: as C (see the top of this file), here and in every function below.
    unit(unsafe {
        bytes(dir, dir_len).and_then(|dir| {
            if out.is_null() {
                return Err(Status::BadArg);
            }
            let segment = Segment::create(dir, capacity, max_objects, max_clients)?;
            put(out, &[Handle::new(segment.publish())])
        })
    })
}

/// The path by which other processes of the same user open the store while this process lives. Returns its length.
#[no_mangle]
pub unsafe extern "C" fn rs_store_path(h: *mut Handle, buf: *mut u8, len: usize) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        Handle::segment(h).and_then(|seg| {
            let path = seg.path();
            if path.len() > len {
                return Err(Status::BadArg);
            }
            put(buf, path.as_bytes())?;
            Ok(path.len() as i32)
        })
    })
}

/// Opens a store by path. Within a process all handles of one store share one mapping.
#[no_mangle]
pub unsafe extern "C" fn rs_store_open(
    path: *const u8,
    path_len: usize,
    out: *mut *mut Handle,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        bytes(path, path_len).and_then(|path| {
            if out.is_null() {
                return Err(Status::BadArg);
            }
            put(out, &[Handle::new(Segment::open(path)?)])
        })
    })
}

/// Ends a handle; the process's last one unmaps the store. The last one of the process that made the store also ends
/// creates and gets for everyone, and frees what nobody pins.
#[no_mangle]
pub unsafe extern "C" fn rs_store_close(h: *mut Handle) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::close(h) })
}

/// Address of the data area in this process; null for a handle that is not open.
#[no_mangle]
pub unsafe extern "C" fn rs_store_base(h: *mut Handle) -> *mut u8 {
    // SAFETY: as C.
    unsafe { Handle::segment(h).map_or(std::ptr::null_mut(), |seg| seg.data(0)) }
}

/// Takes a client slot for the calling process. Every isolate takes its own.
#[no_mangle]
pub unsafe extern "C" fn rs_client_register(h: *mut Handle, out: *mut u32) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h).and_then(|seg| {
            if out.is_null() {
                return Err(Status::BadArg);
            }
            put(out, &[clients::register(seg)?])
        })
    })
}

/// Drops all pins of a client, aborts what it has not sealed, and frees its slot.
#[no_mangle]
pub unsafe extern "C" fn rs_client_release(h: *mut Handle, client: u32) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::segment(h).and_then(|seg| clients::release(seg, client)) })
}

/// Releases every client whose process is gone. Returns how many.
#[no_mangle]
pub unsafe extern "C" fn rs_clients_reap(h: *mut Handle) -> i32 {
    // SAFETY: as C.
    code(unsafe { Handle::segment(h).and_then(|seg| clients::reap(seg).map(|n| n as i32)) })
}

/// Makes an object of `size` bytes for the client to write, pinned by it once. `*out_ptr` is its address.
#[no_mangle]
pub unsafe extern "C" fn rs_object_create(
    h: *mut Handle,
    client: u32,
    key_ptr: *const u8,
    size: u64,
    out_ptr: *mut u64,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h).and_then(|seg| {
            if out_ptr.is_null() {
                return Err(Status::BadArg);
            }
            let ptr = objects::create(seg, client, &key(key_ptr)?, size)?;
            put(out_ptr, &[ptr as u64])
        })
    })
}

/// Makes an object immutable and visible to all; the creator keeps its pin. `meta` is kept for `rs_object_get`.
/// 1 when the object was deleted meanwhile, so that nobody will find it.
#[no_mangle]
pub unsafe extern "C" fn rs_object_seal(
    h: *mut Handle,
    client: u32,
    key_ptr: *const u8,
    meta: u64,
) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        Handle::segment(h).and_then(|seg| objects::seal(seg, client, &key(key_ptr)?, meta))
    })
}

/// Takes back a create.
#[no_mangle]
pub unsafe extern "C" fn rs_object_abort(h: *mut Handle, client: u32, key_ptr: *const u8) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::segment(h).and_then(|seg| objects::abort(seg, client, &key(key_ptr)?)) })
}

/// Pins a sealed object. `out` receives its address, size and meta.
#[no_mangle]
pub unsafe extern "C" fn rs_object_get(
    h: *mut Handle,
    client: u32,
    key_ptr: *const u8,
    out: *mut u64,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h).and_then(|seg| {
            if out.is_null() {
                return Err(Status::BadArg);
            }
            let view = objects::get(seg, client, &key(key_ptr)?)?;
            put(out, &[view.ptr as u64, view.size, view.meta])
        })
    })
}

/// Drops one pin of the client: of the newest object of that key that it pins.
#[no_mangle]
pub unsafe extern "C" fn rs_object_release(h: *mut Handle, client: u32, key_ptr: *const u8) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h)
            .and_then(|seg| objects::release(seg, client, &key(key_ptr)?, None, Use::Counts))
    })
}

/// Drops one pin of the client: of the object of that key at that address. A client can pin two objects of one key at
/// once if the first was deleted and the key made anew.
#[no_mangle]
pub unsafe extern "C" fn rs_object_release_at(
    h: *mut Handle,
    client: u32,
    key_ptr: *const u8,
    ptr: u64,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h)
            .and_then(|seg| objects::release(seg, client, &key(key_ptr)?, Some(ptr), Use::Counts))
    })
}

/// Frees an object, or, if it is pinned, hides it at once and frees it with its last pin (returns 1).
#[no_mangle]
pub unsafe extern "C" fn rs_object_delete(h: *mut Handle, key_ptr: *const u8) -> i32 {
    // SAFETY: as C.
    code(unsafe { Handle::segment(h).and_then(|seg| objects::delete(seg, &key(key_ptr)?)) })
}

/// Frees an object only if nobody pins it.
#[no_mangle]
pub unsafe extern "C" fn rs_object_evict(h: *mut Handle, key_ptr: *const u8) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::segment(h).and_then(|seg| objects::evict(seg, &key(key_ptr)?)) })
}

/// `out` receives size, state (1 created, 2 sealed), pins and meta.
#[no_mangle]
pub unsafe extern "C" fn rs_object_stat(h: *mut Handle, key_ptr: *const u8, out: *mut u64) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::segment(h).and_then(|seg| put(out, &objects::stat(seg, &key(key_ptr)?)?))
    })
}

/// The least recently used objects that nobody pins, oldest first, until they cover `bytes_wanted` or are `max`.
/// Returns how many keys (20 bytes each) and sizes were written.
#[no_mangle]
pub unsafe extern "C" fn rs_lru(
    h: *mut Handle,
    bytes_wanted: u64,
    out_keys: *mut u8,
    out_sizes: *mut u64,
    max: u32,
) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        Handle::segment(h).and_then(|seg| {
            if out_keys.is_null() || out_sizes.is_null() || max > i32::MAX as u32 {
                return Err(Status::BadArg);
            }
            let n = objects::lru(seg, bytes_wanted, max, |n, key, size| {
                let _ = put(out_keys.add(n as usize * KEY_BYTES), &key.to_bytes());
                let _ = put(out_sizes.add(n as usize), &[size]);
            })?;
            Ok(n as i32)
        })
    })
}

/// Objects in no order: `*cursor` is 0 at first, says where to go on, and is 0 again at the end. Of each, its key (20
/// bytes) and size, state (1 created, 2 sealed, 16 more if it is deleted but pinned), pins and meta.
#[no_mangle]
pub unsafe extern "C" fn rs_list(
    h: *mut Handle,
    cursor: *mut u32,
    out_keys: *mut u8,
    out_stats: *mut u64,
    max: u32,
) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        Handle::segment(h).and_then(|seg| {
            let absent = cursor.is_null() || out_keys.is_null() || out_stats.is_null();
            if absent || max > i32::MAX as u32 {
                return Err(Status::BadArg);
            }
            let (n, next) = objects::list(seg, cursor.read_unaligned(), max, |n, key, stat| {
                let _ = put(out_keys.add(n as usize * KEY_BYTES), &key.to_bytes());
                let _ = put(out_stats.add(n as usize * stat.len()), &stat);
            })?;
            put(cursor, &[next])?;
            Ok(n as i32)
        })
    })
}

/// Up to `n` counters; returns how many were written. In order: 0 capacity, 1 used bytes (blocks of objects),
/// 2 objects, 3 sealed objects, 4 pinned bytes, 5 touched bytes (high-water mark of data handed out), 6 clients,
/// 7 largest object that fits now, 8 repairs after a client died holding the lock, 9 bytes of data backed by memory,
/// 10 unsealed objects, 11 objects deleted but pinned, 12 evictable bytes (sealed, unpinned), 13 limit of objects,
/// 14 limit of clients, 15 pin records, 16 bytes faulted in ahead, 17 bytes of metadata backed by memory, 18 blocks,
/// 19 whether the creator has closed the store.
#[no_mangle]
pub unsafe extern "C" fn rs_stats(h: *mut Handle, out: *mut u64, n: usize) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        Handle::segment(h).and_then(|seg| {
            let stats = objects::stats(seg)?;
            let n = n.min(stats.len());
            put(out, &stats[..n])?;
            Ok(n as i32)
        })
    })
}

/// Copies between ranges that do not overlap, in the way that is fastest: on several threads where they gain anything,
/// and to memory of a store that was never touched without faulting it in page by page.
#[no_mangle]
pub unsafe extern "C" fn rs_copy(dst: *mut u8, src: *const u8, len: usize) -> i32 {
    if len == 0 {
        return RS_OK;
    }
    if dst.is_null() || src.is_null() || len > isize::MAX as usize {
        return Status::BadArg as i32;
    }
    // SAFETY: as C.
    unsafe { copy::copy(dst, src, len) };
    RS_OK
}

/// Reduces `count` arrays of `len` elements, whose addresses are given, into `out`. `op` and `element` are the codes of
/// `reduce::Op` and `reduce::Element`. `out` may be the first input; otherwise it overlaps none.
#[no_mangle]
pub unsafe extern "C" fn rs_reduce(
    op: u32,
    element: u32,
    inputs: *const u64,
    count: u32,
    out: *mut u8,
    len: usize,
) -> i32 {
    if inputs.is_null() || len > isize::MAX as usize / 8 {
        return Status::BadArg as i32;
    }
    // SAFETY: as C; the addresses need not be aligned where they stand.
    unit(unsafe {
        let addresses: Vec<*const u8> = (0..count as usize)
            .map(|i| inputs.add(i).read_unaligned() as *const u8)
            .collect();
        reduce::Op::of(op)
            .and_then(|op| Ok((op, reduce::Element::of(element)?)))
            .and_then(|(op, element)| reduce::reduce(op, element, &addresses, out, len))
    })
}

/// Keeps `ahead` bytes beyond what was handed out warm, up to `limit` bytes of data in all. For the process that made
/// the store; replaces an earlier start.
#[no_mangle]
pub unsafe extern "C" fn rs_prefault_start(h: *mut Handle, ahead: u64, limit: u64) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::hold(h).and_then(|seg| prefault::Prefault::start(&seg, ahead, limit)) })
}

/// Ends that, and waits until it has ended.
#[no_mangle]
pub unsafe extern "C" fn rs_prefault_stop(h: *mut Handle) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::segment(h).map(prefault::Prefault::stop) })
}

/// XXH3, 64 bits. 0 for a null address.
#[no_mangle]
pub unsafe extern "C" fn rs_hash64(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: as C.
    unsafe { bytes(ptr, len).map_or(0, twox_hash::XxHash3_64::oneshot) }
}

/// Makes an unnamed file in `dir`, readable by its user only.
#[no_mangle]
pub unsafe extern "C" fn rs_spill_create(dir: *const u8, dir_len: usize, out_fd: *mut i32) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        bytes(dir, dir_len).and_then(|dir| {
            if out_fd.is_null() || dir.is_empty() {
                return Err(Status::BadArg);
            }
            put(out_fd, &[spill::create(dir)?])
        })
    })
}

/// Writes a sealed object's bytes to a file. Not a use of the object as far as `rs_lru` is concerned.
#[no_mangle]
pub unsafe extern "C" fn rs_spill_write(
    h: *mut Handle,
    client: u32,
    key_ptr: *const u8,
    fd: i32,
    offset: u64,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::hold(h).and_then(|seg| {
            check_range(offset, seg.layout.capacity)?;
            spill::write(&seg, client, &key(key_ptr)?, fd, offset)
        })
    })
}

/// Makes an object of `size` bytes of a file: sealed, with that meta, and not pinned.
#[no_mangle]
pub unsafe extern "C" fn rs_spill_read(
    h: *mut Handle,
    client: u32,
    fd: i32,
    offset: u64,
    key_ptr: *const u8,
    size: u64,
    meta: u64,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        Handle::hold(h).and_then(|seg| {
            check_range(offset, size)?;
            spill::read(&seg, client, fd, offset, &key(key_ptr)?, size, meta)
        })
    })
}

/// Gives the disk space of a range of a file back.
#[no_mangle]
pub extern "C" fn rs_spill_punch(fd: i32, offset: u64, len: u64) -> i32 {
    unit(check_range(offset, len).and_then(|()| spill::punch(fd, offset, len)))
}

#[no_mangle]
pub extern "C" fn rs_spill_close(fd: i32) -> i32 {
    unit(spill::close(fd))
}

/// `*out` receives the bytes that may still be written to the file system of `path`.
#[no_mangle]
pub unsafe extern "C" fn rs_fs_free(path: *const u8, len: usize, out: *mut u64) -> i32 {
    // SAFETY: as C.
    unit(unsafe { bytes(path, len).and_then(|path| put(out, &[spill::free_bytes(path)?])) })
}

/// Verifies everything the store relies on, under its lock; linear in the number of objects.
#[no_mangle]
pub unsafe extern "C" fn rs_check(h: *mut Handle) -> i32 {
    // SAFETY: as C.
    unit(unsafe { Handle::segment(h).and_then(check::check) })
}

/// `errno` of this thread's last `RS_IO` or `RS_NO_SPACE_ON_DISK`.
#[no_mangle]
pub extern "C" fn rs_last_errno() -> i32 {
    status::last_errno()
}

/// Ends this process when `parent` is no longer its parent.
#[no_mangle]
pub extern "C" fn rs_die_with_parent(parent: i32) -> i32 {
    unit(parent::die_with(parent).map_err(|_| status::io_error()))
}

/// Listens at an address or name of this machine, on a port that it returns, until the moment in which this process ends.
#[no_mangle]
pub unsafe extern "C" fn rs_lifeline_open(at: *const u8, len: usize) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        bytes(at, len)
            .and_then(|at| std::str::from_utf8(at).map_err(|_| Status::BadArg))
            .and_then(lifeline::open)
            .map(i32::from)
    })
}

/// Has the calling thread run before all of the usual kind, or as one of them if `urgent` is 0. `RS_IO` with `EPERM` where
/// it may not.
#[no_mangle]
pub extern "C" fn rs_urgent(urgent: i32) -> i32 {
    unit(urgent::set(urgent != 0))
}

/// Finds the TCP connection of this process between two addresses ("1.2.3.4:5", "[::1]:5") and returns a descriptor of
/// its own for it, to be given back with `rs_bulk_close`.
#[no_mangle]
pub unsafe extern "C" fn rs_bulk_open(
    local: *const u8,
    local_len: usize,
    peer: *const u8,
    peer_len: usize,
) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        bytes(local, local_len).and_then(|local| {
            bulk::open(
                bulk::address(local)?,
                bulk::address(bytes(peer, peer_len)?)?,
            )
        })
    })
}

/// Sends `len` bytes of an object, which stays pinned meanwhile, and the hash of their blocks. `hash` holds that of
/// 8 bytes if it is `known`, and receives it otherwise. Waits for the other side until `rs_bulk_shutdown`.
#[no_mangle]
pub unsafe extern "C" fn rs_bulk_send(
    fd: i32,
    ptr: *const u8,
    len: usize,
    hash: *mut u8,
    known: u32,
) -> i32 {
    // SAFETY: as C.
    unit(unsafe {
        if hash.is_null() {
            Err(Status::BadArg)
        } else {
            let hash = hash as *mut [u8; bulk::HASH_BYTES];
            let before = (known != 0).then(|| hash.read());
            bulk::send(fd, ptr, len, before).and_then(|sent| put(hash, &[sent]))
        }
    })
}

/// Receives `len` bytes of an object, which is the caller's and not sealed, and the hash of their blocks. `hash` receives
/// it. 1 if it is right, 0 if not. Waits for the other side until `rs_bulk_shutdown`.
#[no_mangle]
pub unsafe extern "C" fn rs_bulk_receive(fd: i32, ptr: *mut u8, len: usize, hash: *mut u8) -> i32 {
    // SAFETY: as C.
    code(unsafe {
        if hash.is_null() {
            Err(Status::BadArg)
        } else {
            bulk::receive(fd, ptr, len).and_then(|received| {
                put(hash as *mut [u8; bulk::HASH_BYTES], &[received.hash])?;
                Ok(i32::from(received.sound))
            })
        }
    })
}

/// Ends a connection both ways: whoever waits in a call on it returns.
#[no_mangle]
pub extern "C" fn rs_bulk_shutdown(fd: i32) -> i32 {
    unit(bulk::shutdown(fd))
}

/// Gives a descriptor of `rs_bulk_open` back, on which no call is under way. The connection goes on by its others.
#[no_mangle]
pub extern "C" fn rs_bulk_close(fd: i32) -> i32 {
    unit(spill::close(fd))
}

/// Memory that this process frees is kept for what it allocates next.
#[no_mangle]
pub extern "C" fn rs_keep_freed() -> i32 {
    unit(freed::keep().then_some(()).ok_or(Status::BadArg))
}

/// A range of a file whose end still is a file offset.
fn check_range(offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(Status::BadArg),
    }
}
