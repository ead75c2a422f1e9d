//! What the segment looks like: one file, mapped by every process of the node.
//!
//! ```text
//! +--------+---------+---------+---------+--------+------+----------------------------------+
//! | Header | clients | buckets | objects | blocks | pins | data                             |
//! +--------+---------+---------+---------+--------+------+----------------------------------+
//!   lock,    64 B      4 B       128 B     40 B     32 B   0 .. frontier .. reserved .. capacity
//!   journal, each      each      each      each     each   blocks  | warm, free | untouched
//!   counters
//! ```
//!
//! Records refer to each other by index, 0 meaning none (so fresh, zeroed memory reads as empty lists), and to data by
//! offset from the start of the data area, because every process maps the file at another address. Block descriptions
//! are kept apart from the data they describe: a program that writes past the end of its object cannot destroy them,
//! and dividing a block touches no page of it. Each table is as long as its limit allows, but the file is sparse and
//! a table's memory is reserved step by step as records are first used, so the limits cost address space only.
//!
//! Words that change are `W32` and `W64`: readable by anyone holding the lock, writable only through a transaction
//! (`journal.rs`), which is what makes an operation all or nothing.

use crate::limits::*;
use crate::status::{Result, Status};
use std::cell::UnsafeCell;
use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicU64};

pub const MAGIC: u64 = u64::from_le_bytes(*b"raystore");

/// "No record".
pub const NIL: u32 = 0;

#[repr(transparent)]
pub struct W32(pub(crate) AtomicU32);
#[repr(transparent)]
pub struct W64(pub(crate) AtomicU64);

/// First-in line of every growing table.
#[repr(C)]
pub struct PoolHead {
    /// First free record, chained through the record's link.
    pub free: W32,
    /// Records 1..=high have been used at some time.
    pub high: W32,
    /// Records in use.
    pub live: W32,
    pub _pad: u32,
    /// Bytes of the table that are backed by memory.
    pub reserved: W64,
}

#[repr(C)]
pub struct HeapHead {
    /// Bytes of the data area that were ever handed out: blocks tile `0..frontier`.
    pub frontier: W64,
    /// Bytes of the data area that are backed by memory; at least `frontier`.
    pub reserved: W64,
    /// Bytes in blocks that belong to objects.
    pub used: W64,
    /// First-level bitmap: bit f is set when `sl[f]` is not zero.
    pub fl: W64,
    /// Physically first and last block of `0..frontier`.
    pub first: W32,
    pub last: W32,
    pub sl: [W32; FL_COUNT],
    pub free: [[W32; SL_COUNT]; FL_COUNT],
}

#[repr(C)]
pub struct JournalEntry {
    /// Offset of the word from the start of the segment; the lowest bit says it is 8 bytes wide.
    pub place: AtomicU64,
    pub old: AtomicU64,
}

#[repr(C)]
pub struct Journal {
    /// Entries that are valid. 0 whenever no operation is under way.
    pub len: AtomicU64,
    pub entries: [JournalEntry; JOURNAL_ENTRIES_MAX],
}

/// `pthread_mutex_t` on a cache line of its own.
#[repr(C, align(64))]
pub struct MutexCell(pub UnsafeCell<libc::pthread_mutex_t>);

#[repr(C)]
pub struct Header {
    /// Written last by the creator.
    pub magic: AtomicU64,
    pub abi: u32,
    pub max_objects: u32,
    pub max_clients: u32,
    pub _pad: u32,
    pub capacity: u64,
    pub file_len: u64,
    /// Seed of the hash index, so that keys cannot be chosen to collide.
    pub seed: u64,

    pub mutex: MutexCell,

    /// Set when a repair found nonsense; every operation says `Corrupt` from then on.
    pub corrupt: AtomicU32,
    /// Set by the creator's last close: no more creates and gets.
    pub closed: AtomicU32,
    /// Times a lock was taken over from a dead owner.
    pub repairs: AtomicU64,
    /// Futex on which the prefault thread waits for the frontier to move.
    pub prefault_seq: AtomicU32,
    pub prefault_waiting: AtomicU32,
    /// Bytes the prefault thread has faulted in.
    pub prefaulted: AtomicU64,

    /// Buckets in use of the hash index.
    pub buckets: W32,
    /// Oldest and newest of the sealed, unpinned objects.
    pub lru_oldest: W32,
    pub lru_newest: W32,
    /// Objects that are sealed; of these or others, objects whose deletion waits for a pin.
    pub sealed: W32,
    pub doomed: W32,
    pub _pad2: u32,
    /// Sizes of all objects with a pin, and of all in the LRU list.
    pub pinned_bytes: W64,
    pub evictable_bytes: W64,

    pub client_pool: PoolHead,
    pub bucket_pool: PoolHead,
    pub object_pool: PoolHead,
    pub block_pool: PoolHead,
    pub pin_pool: PoolHead,

    pub heap: HeapHead,
    pub journal: Journal,
}

pub const CLIENT_FREE: u32 = 0;
pub const CLIENT_LIVE: u32 = 1;
/// Its pins are being dropped; it may take no new ones.
pub const CLIENT_LEAVING: u32 = 2;

#[repr(C, align(64))]
pub struct Client {
    pub state: W32,
    /// Part of the id, so that a released id is not mistaken for the slot's next owner.
    pub generation: W32,
    pub pid: W32,
    /// First of this client's pin records.
    pub pins: W32,
    /// Start time of the process in clock ticks, so that a reused pid is not mistaken for it.
    pub start: W64,
    pub link: W32,
    pub pin_records: W32,
}

pub const STATE_FREE: u32 = 0;
pub const STATE_CREATED: u32 = 1;
pub const STATE_SEALED: u32 = 2;
/// Added to the state of an object that was deleted while pinned: invisible, freed with the last pin.
pub const STATE_DOOMED: u32 = 0x10;

/// Two cache lines; a get of a pinned object needs the first only.
#[repr(C, align(64))]
pub struct Object {
    pub key_a: W64,
    pub key_b: W64,
    pub key_c: W32,
    /// Next in the bucket, or next free record.
    pub link: W32,
    pub offset: W64,
    pub size: W64,
    pub meta: W64,
    pub state: W32,
    /// Sum of the counts of its pin records.
    pub pins: W32,
    pub pin_head: W32,
    /// Id of the client that may seal it.
    pub creator: W32,

    pub lru_older: W32,
    pub lru_newer: W32,
    pub block: W32,
    pub hash: W32,
}

#[repr(C)]
pub struct Block {
    pub offset: W64,
    pub size: W64,
    /// Physical neighbours.
    pub prev: W32,
    pub next: W32,
    /// Neighbours in the free list of its class. `free_next` chains unused records as well.
    pub free_next: W32,
    pub free_prev: W32,
    /// The object it belongs to, or `NIL` when free.
    pub owner: W32,
    pub _pad: u32,
}

/// "This client pinned this object this many times."
#[repr(C)]
pub struct Pin {
    pub object: W32,
    /// Slot, not id.
    pub client: W32,
    pub count: W32,
    pub object_next: W32,
    pub object_prev: W32,
    /// Next in the client's list, or next free record.
    pub client_next: W32,
    pub client_prev: W32,
    pub _pad: u32,
}

const _: () = {
    assert!(size_of::<Client>() == 64);
    assert!(size_of::<Object>() == 128);
    assert!(size_of::<Block>() == 40);
    assert!(size_of::<Pin>() == 32);
};

/// Where a table lies in the file, and how many records it can hold. Record 0 exists and is not used.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub start: u64,
    pub bytes: u64,
    pub records_max: u32,
    pub record_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub capacity: u64,
    pub max_objects: u32,
    pub max_clients: u32,
    pub clients: Region,
    pub buckets: Region,
    pub objects: Region,
    pub blocks: Region,
    pub pins: Region,
    pub data: u64,
    pub file_len: u64,
}

pub fn align_up(n: u64, to: u64) -> u64 {
    n.div_ceil(to) * to
}

impl Layout {
    pub fn new(capacity: u64, max_objects: u32, max_clients: u32) -> Result<Layout> {
        if capacity == 0
            || capacity > CAPACITY_BYTES_MAX
            || max_objects == 0
            || max_objects > OBJECTS_MAX
            || max_clients == 0
            || max_clients > CLIENTS_MAX
        {
            return Err(Status::BadArg);
        }
        let capacity = align_up(capacity, PAGE_BYTES);
        let mut at = align_up(size_of::<Header>() as u64, PAGE_BYTES);
        let mut region = |records_max: u64, record_bytes: usize| {
            let start = at;
            let bytes = align_up((records_max + 1) * record_bytes as u64, PAGE_BYTES);
            at += bytes;
            Region {
                start,
                bytes,
                records_max: records_max as u32,
                record_bytes: record_bytes as u64,
            }
        };
        let objects = max_objects as u64;
        let clients = region(max_clients as u64, size_of::<Client>());
        let buckets = region(objects.max(BUCKETS_MIN as u64), size_of::<W32>());
        let object_region = region(objects, size_of::<Object>());
        // Free blocks are never neighbours, so there is at most one more of them than of used ones.
        let blocks = region(2 * objects + 2, size_of::<Block>());
        let pins = region(
            PINS_PER_OBJECT * objects + PINS_EXTRA + max_clients as u64,
            size_of::<Pin>(),
        );
        let data = align_up(at, DATA_ALIGN_BYTES);
        Ok(Layout {
            capacity,
            max_objects,
            max_clients,
            clients,
            buckets,
            objects: object_region,
            blocks,
            pins,
            data,
            file_len: data + capacity,
        })
    }
}

/// An object key as it is kept and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub a: u64,
    pub b: u64,
    pub c: u32,
}

impl Key {
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Key {
        Key {
            a: u64::from_ne_bytes(bytes[0..8].try_into().unwrap()),
            b: u64::from_ne_bytes(bytes[8..16].try_into().unwrap()),
            c: u32::from_ne_bytes(bytes[16..20].try_into().unwrap()),
        }
    }

    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[0..8].copy_from_slice(&self.a.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.b.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.c.to_ne_bytes());
        bytes
    }

    pub fn hash(&self, seed: u64) -> u32 {
        twox_hash::XxHash3_64::oneshot_with_seed(seed, &self.to_bytes()) as u32
    }
}

impl Object {
    pub fn key(&self) -> Key {
        Key {
            a: self.key_a.get(),
            b: self.key_b.get(),
            c: self.key_c.get(),
        }
    }

    pub fn has_key(&self, key: &Key) -> bool {
        self.key_a.get() == key.a && self.key_b.get() == key.b && self.key_c.get() == key.c
    }

    pub fn is_doomed(&self) -> bool {
        self.state.get() & STATE_DOOMED != 0
    }
}
