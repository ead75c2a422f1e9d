//! From key to object: a linear hash (W. Litwin, "Linear hashing: a new tool for file and table addressing", VLDB
//! 1980) of chains.
//!
//! A table that doubles would stop the store for as long as it takes to move a million objects, and one that is made
//! as large as the limit would cost its memory at once. A linear hash grows by one bucket with every object: the
//! bucket next in turn is divided into itself and a new one at the end.

use crate::journal::Tx;
use crate::layout::*;
use crate::limits::{BUCKETS_MIN, SPLIT_CHAIN_MAX};
use crate::pool;
use crate::segment::Segment;
use crate::status::{Result, Status};

/// The bucket of a hash when there are `buckets` of them.
#[inline]
pub fn bucket_of(hash: u32, buckets: u32) -> u32 {
    let mask = buckets.next_power_of_two() - 1;
    let bucket = hash & mask;
    if bucket < buckets {
        bucket
    } else {
        // Not divided yet.
        hash & (mask >> 1)
    }
}

/// Calls `visit` with each object of that key, newest first, until it returns something.
///
/// There is at most one that is not doomed, and it is the newest.
#[inline]
pub fn find<'a, T>(
    seg: &'a Segment,
    key: &Key,
    mut visit: impl FnMut(u32, &'a Object) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let header = seg.header();
    let bucket = bucket_of(key.hash(header.seed), header.buckets.get());
    let mut index = seg.bucket(bucket)?.get();
    let mut steps = 0;
    while index != NIL {
        let object = seg.object(index)?;
        if object.has_key(key) {
            if let Some(found) = visit(index, object)? {
                return Ok(Some(found));
            }
        }
        index = object.link.get();
        steps += 1;
        if steps > seg.layout.max_objects {
            return Err(Status::Corrupt);
        }
    }
    Ok(None)
}

/// The object of that key that is not doomed.
#[inline]
pub fn find_live<'a>(seg: &'a Segment, key: &Key) -> Result<Option<(u32, &'a Object)>> {
    find(seg, key, |index, object| {
        Ok((!object.is_doomed()).then_some((index, object)))
    })
}

#[inline]
pub fn insert(tx: &Tx, index: u32, object: &Object) -> Result<()> {
    let header = tx.seg.header();
    if header.object_pool.live.get() > header.buckets.get() {
        split(tx)?;
    }
    let bucket = tx
        .seg
        .bucket(bucket_of(object.hash.get(), header.buckets.get()))?;
    tx.set(&object.link, bucket.get());
    tx.set(bucket, index);
    Ok(())
}

#[inline]
pub fn remove(tx: &Tx, index: u32, object: &Object) -> Result<()> {
    let header = tx.seg.header();
    let mut word = tx
        .seg
        .bucket(bucket_of(object.hash.get(), header.buckets.get()))?;
    for _ in 0..=tx.seg.layout.max_objects {
        let next = word.get();
        if next == NIL {
            break;
        }
        if next == index {
            tx.set(word, object.link.get());
            return Ok(());
        }
        word = &tx.seg.object(next)?.link;
    }
    Err(Status::Corrupt)
}

/// Adds a bucket at the end and moves to it what belongs there.
fn split(tx: &Tx) -> Result<()> {
    let header = tx.seg.header();
    let buckets = header.buckets.get();
    let region = &tx.seg.layout.buckets;
    if buckets >= region.records_max {
        return Ok(());
    }
    let grown = buckets + 1;
    let half = grown.next_power_of_two() >> 1;
    debug_assert!(buckets >= BUCKETS_MIN);
    let source = tx.seg.bucket(buckets - half)?;

    let mut length = 0;
    let mut index = source.get();
    while index != NIL {
        length += 1;
        if length > SPLIT_CHAIN_MAX {
            return Ok(());
        }
        index = tx.seg.object(index)?.link.get();
    }

    pool::grow(tx, &header.bucket_pool, region, grown)?;
    // Both chains keep their order: newest first matters among objects of one key.
    let mut stays = source;
    let mut moves = tx.seg.bucket(buckets)?;
    let mut index = source.get();
    while index != NIL {
        let object = tx.seg.object(index)?;
        if bucket_of(object.hash.get(), grown) == buckets {
            tx.set(moves, index);
            moves = &object.link;
        } else {
            tx.set(stays, index);
            stays = &object.link;
        }
        index = object.link.get();
    }
    tx.set(stays, NIL);
    tx.set(moves, NIL);
    tx.set(&header.buckets, grown);
    Ok(())
}
