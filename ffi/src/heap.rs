//! The data area: two-level segregated fit (Masmano, Ripoll, Crespo and Real, "TLSF: a new dynamic memory allocator
//! for real-time systems", ECRTS 2004) with its block descriptions in a table apart.
//!
//! Blocks tile the data area from 0 to the frontier. Free blocks are kept in lists by size class: a power of two,
//! divided into 16. A request is served from the first class all of whose blocks are large enough, found with two
//! bitmaps, so taking and giving a block are a fixed number of steps. Neighbouring free blocks are always merged.
//!
//! Memory that was touched before is an order of magnitude faster to write than fresh memory, so the frontier moves
//! only when no free block behind it fits, and a free block that ends at the frontier is extended first.

use crate::journal::Tx;
use crate::layout::*;
use crate::limits::*;
use crate::pool;
use crate::segment::Segment;
use crate::status::{Result, Status};

/// How an allocation ended, if nothing is wrong.
pub enum Allocated {
    Block {
        index: u32,
        offset: u64,
        /// The frontier moved: fresh memory was taken.
        fresh: bool,
    },
    /// There is room, but data up to this offset must be reserved first (without the lock), and then tried again.
    Reserve { from: u64, to: u64 },
}

/// Bytes a block for an object of `size` bytes has.
#[inline]
pub fn block_bytes(size: u64) -> u64 {
    size.max(1).div_ceil(GRANULE_BYTES) * GRANULE_BYTES
}

/// The class a block of this many granules is kept in.
#[inline]
pub fn class_of(granules: u64) -> (usize, usize) {
    let msb = 63 - granules.leading_zeros();
    if msb < SL_BITS {
        (0, granules as usize)
    } else {
        let fl = msb - SL_BITS + 1;
        let sl = (granules >> (msb - SL_BITS)) as usize - SL_COUNT;
        (fl as usize, sl)
    }
}

/// The first class in which every block has at least this many granules.
#[inline]
fn class_holding(granules: u64) -> (usize, usize) {
    let msb = 63 - granules.leading_zeros();
    if msb < SL_BITS {
        class_of(granules)
    } else {
        class_of(granules + (1 << (msb - SL_BITS)) - 1)
    }
}

/// Takes a block for object `owner`.
pub fn allocate(tx: &Tx, size: u64, owner: u32) -> Result<Allocated> {
    let heap = &tx.seg.header().heap;
    let bytes = block_bytes(size);
    if let Some(index) = find(tx.seg, bytes, CLASS_SCAN_WARM)? {
        return take_block(tx, index, bytes, owner);
    }
    // Nothing behind the frontier is known to fit.
    let last = heap.last.get();
    let frontier = heap.frontier.get();
    let tail = match last {
        NIL => 0,
        last => {
            let block = tx.seg.block(last)?;
            if block.owner.get() == NIL {
                block.size.get()
            } else {
                0
            }
        }
    };
    // A free tail that is large enough by itself was missed by the class scan.
    let missing = bytes.saturating_sub(tail);
    let end = frontier + missing;
    if end > tx.seg.layout.capacity {
        return match find(tx.seg, bytes, CLASS_SCAN_FULL)? {
            Some(index) => take_block(tx, index, bytes, owner),
            None => Err(Status::Full),
        };
    }
    if missing == 0 {
        return take_block(tx, last, bytes, owner);
    }
    let reserved = heap.reserved.get();
    if end > reserved {
        return Ok(Allocated::Reserve {
            from: reserved,
            to: end,
        });
    }
    let (index, offset) = if tail > 0 {
        let block = tx.seg.block(last)?;
        remove_free(tx, last, block)?;
        tx.set(&block.size, bytes);
        tx.set(&block.owner, owner);
        (last, block.offset.get())
    } else {
        let (index, block) = pool::take::<Block>(tx)?;
        tx.init(&block.offset, frontier);
        tx.init(&block.size, bytes);
        tx.init(&block.prev, last);
        tx.init(&block.next, NIL);
        tx.init(&block.owner, owner);
        if last == NIL {
            tx.set(&heap.first, index);
        } else {
            tx.set(&tx.seg.block(last)?.next, index);
        }
        tx.set(&heap.last, index);
        (index, frontier)
    };
    tx.set(&heap.frontier, end);
    tx.set(&heap.used, heap.used.get() + bytes);
    Ok(Allocated::Block {
        index,
        offset,
        fresh: true,
    })
}

/// Notes that the data area has memory behind it up to `to`.
pub fn note_reserved(tx: &Tx, to: u64) {
    let heap = &tx.seg.header().heap;
    if to > heap.reserved.get() {
        tx.set(&heap.reserved, to);
    }
}

/// Gives a block back, merging it with free neighbours.
pub fn free(tx: &Tx, index: u32) -> Result<()> {
    let heap = &tx.seg.header().heap;
    let block = tx.seg.block(index)?;
    let (mut index, mut kept) = (index, block);
    let mut bytes = block.size.get();
    tx.set(&heap.used, heap.used.get() - bytes);

    let prev = block.prev.get();
    if prev != NIL {
        let before = tx.seg.block(prev)?;
        if before.owner.get() == NIL {
            remove_free(tx, prev, before)?;
            bytes += before.size.get();
            unlink(tx, index, block)?;
            (index, kept) = (prev, before);
        }
    }
    let next = kept.next.get();
    if next != NIL {
        let after = tx.seg.block(next)?;
        if after.owner.get() == NIL {
            remove_free(tx, next, after)?;
            bytes += after.size.get();
            unlink(tx, next, after)?;
        }
    }
    tx.set(&kept.size, bytes);
    tx.set(&kept.owner, NIL);
    insert_free(tx, index, kept)
}

/// Size of the largest object that could be created now without removing another.
pub fn largest_free(seg: &Segment) -> Result<u64> {
    let heap = &seg.header().heap;
    let mut fresh = seg.layout.capacity - heap.frontier.get();
    let last = heap.last.get();
    if last != NIL && seg.block(last)?.owner.get() == NIL {
        fresh += seg.block(last)?.size.get();
    }
    let mut largest = 0;
    let fl = heap.fl.get();
    if fl != 0 {
        let fl = 63 - fl.leading_zeros() as usize;
        let sl = 31 - heap.sl[fl].get().leading_zeros() as usize;
        let mut index = heap.free[fl][sl].get();
        let mut steps = 0;
        while index != NIL && steps < CLASS_SCAN_FULL {
            let block = seg.block(index)?;
            largest = largest.max(block.size.get());
            index = block.free_next.get();
            steps += 1;
        }
    }
    Ok(largest.max(fresh))
}

/// A free block of at least `bytes`: any of the first class that promises it, or one of the first `scan` of the class
/// that only may have it.
fn find(seg: &Segment, bytes: u64, scan: u32) -> Result<Option<u32>> {
    let heap = &seg.header().heap;
    let granules = bytes / GRANULE_BYTES;
    let (fl, sl) = class_holding(granules);
    if fl < FL_COUNT {
        let here = heap.sl[fl].get() & (u32::MAX << sl);
        let found = if here != 0 {
            Some((fl, here.trailing_zeros() as usize))
        } else {
            let above = heap.fl.get() & (u64::MAX << fl << 1);
            match above {
                0 => None,
                _ => {
                    let fl = above.trailing_zeros() as usize;
                    let sl = heap.sl.get(fl).ok_or(Status::Corrupt)?.get();
                    Some((fl, sl.trailing_zeros() as usize))
                }
            }
        };
        if let Some((fl, sl)) = found {
            let list = heap.free.get(fl).and_then(|row| row.get(sl));
            let index = list.ok_or(Status::Corrupt)?.get();
            if seg.block(index)?.size.get() < bytes {
                return Err(Status::Corrupt);
            }
            return Ok(Some(index));
        }
    }
    let (fl, sl) = class_of(granules);
    let mut index = heap.free[fl][sl].get();
    for _ in 0..scan {
        if index == NIL {
            break;
        }
        let block = seg.block(index)?;
        if block.size.get() >= bytes {
            return Ok(Some(index));
        }
        index = block.free_next.get();
    }
    Ok(None)
}

/// Takes a free block, giving back what is more than `bytes`.
fn take_block(tx: &Tx, index: u32, bytes: u64, owner: u32) -> Result<Allocated> {
    let heap = &tx.seg.header().heap;
    let block = tx.seg.block(index)?;
    remove_free(tx, index, block)?;
    let size = block.size.get();
    let offset = block.offset.get();
    if size > bytes {
        let (rest_index, rest) = pool::take::<Block>(tx)?;
        let next = block.next.get();
        tx.init(&rest.offset, offset + bytes);
        tx.init(&rest.size, size - bytes);
        tx.init(&rest.prev, index);
        tx.init(&rest.next, next);
        tx.init(&rest.owner, NIL);
        if next == NIL {
            tx.set(&heap.last, rest_index);
        } else {
            tx.set(&tx.seg.block(next)?.prev, rest_index);
        }
        tx.set(&block.next, rest_index);
        tx.set(&block.size, bytes);
        insert_free(tx, rest_index, rest)?;
    }
    tx.set(&block.owner, owner);
    tx.set(&heap.used, heap.used.get() + bytes);
    Ok(Allocated::Block {
        index,
        offset,
        fresh: false,
    })
}

/// Takes a block out of the physical order and gives its record back.
fn unlink(tx: &Tx, index: u32, block: &Block) -> Result<()> {
    let heap = &tx.seg.header().heap;
    let (prev, next) = (block.prev.get(), block.next.get());
    if prev == NIL {
        tx.set(&heap.first, next);
    } else {
        tx.set(&tx.seg.block(prev)?.next, next);
    }
    if next == NIL {
        tx.set(&heap.last, prev);
    } else {
        tx.set(&tx.seg.block(next)?.prev, prev);
    }
    pool::give::<Block>(tx, index)
}

fn insert_free(tx: &Tx, index: u32, block: &Block) -> Result<()> {
    let heap = &tx.seg.header().heap;
    let (fl, sl) = class_of(block.size.get() / GRANULE_BYTES);
    let list = &heap.free[fl][sl];
    let head = list.get();
    tx.set(&block.free_next, head);
    tx.set(&block.free_prev, NIL);
    if head != NIL {
        tx.set(&tx.seg.block(head)?.free_prev, index);
    }
    tx.set(list, index);
    tx.set(&heap.sl[fl], heap.sl[fl].get() | 1 << sl);
    tx.set(&heap.fl, heap.fl.get() | 1 << fl);
    Ok(())
}

fn remove_free(tx: &Tx, index: u32, block: &Block) -> Result<()> {
    let heap = &tx.seg.header().heap;
    let (prev, next) = (block.free_prev.get(), block.free_next.get());
    if next != NIL {
        tx.set(&tx.seg.block(next)?.free_prev, prev);
    }
    if prev != NIL {
        tx.set(&tx.seg.block(prev)?.free_next, next);
        return Ok(());
    }
    let (fl, sl) = class_of(block.size.get() / GRANULE_BYTES);
    if heap.free[fl][sl].get() != index {
        return Err(Status::Corrupt);
    }
    tx.set(&heap.free[fl][sl], next);
    if next == NIL {
        let bits = heap.sl[fl].get() & !(1 << sl);
        tx.set(&heap.sl[fl], bits);
        if bits == 0 {
            tx.set(&heap.fl, heap.fl.get() & !(1 << fl));
        }
    }
    Ok(())
}
