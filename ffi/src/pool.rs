//! Tables of records: a list of free ones, and a mark up to which records have ever been used. Memory is reserved as
//! the mark moves, so an empty table of a million records costs nothing.

use crate::journal::Tx;
use crate::layout::*;
use crate::limits::POOL_STEP_BYTES;
use crate::status::{Result, Status};

/// A record with a word that chains free ones.
pub trait Record: Sized {
    fn link(&self) -> &W32;
    fn at<'a>(tx: &Tx<'a>, index: u32) -> Result<&'a Self>;
    fn pool<'a>(tx: &Tx<'a>) -> (&'a PoolHead, &'a Region);
}

macro_rules! record {
    ($type:ident, $link:ident, $at:ident, $head:ident, $region:ident) => {
        impl Record for $type {
            #[inline(always)]
            fn link(&self) -> &W32 {
                &self.$link
            }
            #[inline(always)]
            fn at<'a>(tx: &Tx<'a>, index: u32) -> Result<&'a Self> {
                tx.seg.$at(index)
            }
            #[inline(always)]
            fn pool<'a>(tx: &Tx<'a>) -> (&'a PoolHead, &'a Region) {
                (&tx.seg.header().$head, &tx.seg.layout.$region)
            }
        }
    };
}

record!(Client, link, client, client_pool, clients);
record!(Object, link, object, object_pool, objects);
record!(Block, free_next, block, block_pool, blocks);
record!(Pin, client_next, pin, pin_pool, pins);

/// Takes a record. Its contents are whatever its last user left; `TableFull` when there is none.
#[inline]
pub fn take<'a, R: Record>(tx: &Tx<'a>) -> Result<(u32, &'a R)> {
    let (head, region) = R::pool(tx);
    let mut index = head.free.get();
    if index != NIL {
        tx.set(&head.free, R::at(tx, index)?.link().get());
    } else {
        index = head.high.get() + 1;
        if index > region.records_max {
            return Err(Status::TableFull);
        }
        grow(tx, head, region, index)?;
        tx.set(&head.high, index);
    }
    tx.set(&head.live, head.live.get() + 1);
    Ok((index, R::at(tx, index)?))
}

/// Gives a record back.
#[inline]
pub fn give<R: Record>(tx: &Tx, index: u32) -> Result<()> {
    let (head, _) = R::pool(tx);
    tx.set(R::at(tx, index)?.link(), head.free.get());
    tx.set(&head.free, index);
    tx.set(&head.live, head.live.get() - 1);
    Ok(())
}

/// Sees to it that record `index` has memory behind it.
#[inline]
pub fn grow(tx: &Tx, head: &PoolHead, region: &Region, index: u32) -> Result<()> {
    let end = (index as u64 + 1) * region.record_bytes;
    let reserved = head.reserved.get();
    if end <= reserved {
        return Ok(());
    }
    grow_slowly(tx, head, region, reserved, end)
}

#[cold]
fn grow_slowly(tx: &Tx, head: &PoolHead, region: &Region, from: u64, end: u64) -> Result<()> {
    let to = align_up(end, POOL_STEP_BYTES).min(region.bytes);
    tx.seg.reserve_table(region, from, to)?;
    tx.set(&head.reserved, to);
    Ok(())
}
