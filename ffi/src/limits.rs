//! Every limit of the store, with its unit last in the name, and the relations between them asserted at compile time.

/// Bumped on any change of the C ABI or of the segment's layout; a segment of another version is refused.
pub const ABI_VERSION: u32 = 5;

/// Bytes in an object key: a 16-byte task id and a 4-byte index.
pub const KEY_BYTES: usize = 20;

/// Blocks start and end on this boundary, so typed arrays of any element type can view an object.
pub const GRANULE_BYTES: u64 = 64;

/// Page size assumed for the layout of the segment. Larger hardware pages only make reservations coarser.
pub const PAGE_BYTES: u64 = 4096;

/// The data area starts on this boundary so that huge pages, where the system gives them, line up.
pub const DATA_ALIGN_BYTES: u64 = 2 << 20;

/// Largest data area: 16 TiB. Bounds every addition on offsets far below overflow.
pub const CAPACITY_BYTES_MAX: u64 = 1 << 44;

pub const OBJECTS_MAX: u32 = 1 << 26;
/// A client id carries its slot in the low 16 bits.
pub const CLIENTS_MAX: u32 = 0xffff;
/// Generations wrap below this so that a client id stays positive as an `i32`.
pub const CLIENT_GENERATION_MAX: u32 = 0x7fff;

/// Pin records per object slot. A record is one (client, object) pair, however often that client pinned it.
pub const PINS_PER_OBJECT: u64 = 4;
pub const PINS_EXTRA: u64 = 1024;

/// Undo records an operation may need. The longest seen (a create that divides a block and a bucket) needs 38; dividing
/// the longest bucket allowed adds three for each of its objects.
pub const JOURNAL_ENTRIES_MAX: usize = 512;

/// Metadata grows in steps of this many bytes, reserved before they are touched.
pub const POOL_STEP_BYTES: u64 = 64 << 10;
/// Small creates reserve data this far ahead, so that not every one of them enters the kernel.
pub const RESERVE_STEP_BYTES: u64 = 1 << 20;

/// Buckets the hash index starts with; it grows one bucket at a time from there.
pub const BUCKETS_MIN: u32 = 64;
/// A bucket with a longer chain than this is not split (its undo records would be many). With a seeded hash and one
/// object a bucket on average, such chains do not occur.
pub const SPLIT_CHAIN_MAX: u32 = 48;

/// Second-level classes per power of two of the allocator, as a power of two: 16 classes, so a block is at most
/// 1/16 larger than the class that found it.
pub const SL_BITS: u32 = 4;
pub const SL_COUNT: usize = 1 << SL_BITS;
pub const FL_COUNT: usize = 40;
/// Blocks of the request's own class looked at before fresh memory is taken.
pub const CLASS_SCAN_WARM: u32 = 16;
/// Blocks of the request's own class looked at before the store is called full.
pub const CLASS_SCAN_FULL: u32 = 1024;

/// Attempts to take the lock before sleeping on it. Critical sections last about 100 ns.
pub const LOCK_SPINS: u32 = 64;
/// A lock held longer than this belongs to a process that was stopped, not killed.
pub const LOCK_WAIT_MS_MAX: i64 = 30_000;
/// Pins dropped for a leaving client before others get a turn at the lock.
pub const RELEASE_BATCH: u32 = 64;

/// Copies below this stay on the calling thread: they end sooner than another thread wakes up (about 30 us).
pub const COPY_PARALLEL_BYTES_MIN: usize = 4 << 20;
/// Copies to pages never touched go through the file from this size on.
pub const COPY_FRESH_BYTES_MIN: usize = 256 << 10;
/// At most this much at a time, as the file is locked against other writes and reservations meanwhile.
pub const COPY_FRESH_SLICE_BYTES: usize = 8 << 20;
pub const COPY_CHUNK_BYTES: usize = 1 << 20;
/// Threads of a copy, the caller's among them: one for every two cores, and no more than this. Where there are only two
/// cores a second thread gains nothing (measured: 7.9 GB/s with one and with two, warm; no more on fresh memory), and
/// the other core has tasks to run.
pub const COPY_THREADS_MAX: usize = 4;
pub const COPY_CORES_PER_THREAD: usize = 2;

/// Pages are faulted in this many bytes at a time, so neither the lock nor the address space is held for long.
pub const PREFAULT_CHUNK_BYTES: u64 = 2 << 20;
/// Priority of the prefault thread: it gives way to whoever computes, but is not starved while it holds kernel locks.
pub const PREFAULT_NICE: i32 = 10;

/// One read or write of a spill file asks for at most this much (Linux stops at 2 GiB).
pub const SPILL_IO_BYTES_MAX: usize = 64 << 20;

/// Bytes on their way between nodes are hashed in blocks of this size, which are in the cache as they are sent and
/// received. Part of the protocol of transfers (`node/bulk_connection.ts`).
pub const BULK_BLOCK_BYTES: usize = 1 << 20;
/// Whoever waits for such bytes is woken when so much is there.
pub const BULK_WAKE_BYTES: usize = 1 << 20;
/// So much memory that such bytes are received into is faulted in at once, if it was never touched: less than a socket
/// takes meanwhile.
pub const BULK_FAULT_BYTES: usize = 4 << 20;

const _: () = {
    assert!(GRANULE_BYTES.is_power_of_two());
    assert!(PAGE_BYTES % GRANULE_BYTES == 0);
    assert!(POOL_STEP_BYTES % PAGE_BYTES == 0);
    assert!(RESERVE_STEP_BYTES % PAGE_BYTES == 0);
    assert!(PREFAULT_CHUNK_BYTES % PAGE_BYTES == 0);
    assert!(DATA_ALIGN_BYTES % PAGE_BYTES == 0);
    assert!(BUCKETS_MIN.is_power_of_two());
    // The largest block, in granules, must have a first-level class.
    assert!((CAPACITY_BYTES_MAX / GRANULE_BYTES).ilog2() - SL_BITS + 1 < FL_COUNT as u32);
    // Block and pin indices must fit 32 bits.
    assert!(
        PINS_PER_OBJECT * OBJECTS_MAX as u64 + PINS_EXTRA + (CLIENTS_MAX as u64) < u32::MAX as u64
    );
    // A split may journal 3 words a moved object.
    assert!((SPLIT_CHAIN_MAX as usize) * 3 + 200 < JOURNAL_ENTRIES_MAX);
    assert!(COPY_PARALLEL_BYTES_MIN >= 2 * COPY_CHUNK_BYTES);
};

/// How often a process looks whether its parent is still there.
pub const PARENT_LOOK_MS: u64 = 500;

/// Values up to this size come from the C library's heap, larger ones from the system, which takes them back at once;
/// and so much of what was freed stays at the top of each heap. A heap has at most 64 MB.
pub const HEAP_VALUE_BYTES_MAX: i32 = 16 << 20;
pub const FREED_KEPT_BYTES_MAX: i32 = 32 << 20;

/// Connections that are held at a time by those who want to know when this process ends, and how long a thread that can
/// take none rests.
pub const LIFELINES_MAX: usize = 1_000;
pub const LIFELINE_RETRY_MS: u64 = 20;
/// After so long without a word the system asks whether the other side's machine is still there.
pub const LIFELINE_IDLE_S: i32 = 60;
