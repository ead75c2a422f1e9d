//! The life of an object: created (its creator writes it), sealed (anyone reads it), deleted. Each operation is one
//! transaction.

use crate::clients;
use crate::heap::{self, Allocated};
use crate::index;
use crate::journal::Tx;
use crate::layout::*;
use crate::limits::*;
use crate::pins::{self, Use};
use crate::pool;
use crate::prefault;
use crate::segment::Segment;
use crate::status::{Result, Status};
use std::sync::atomic::Ordering;

/// A pinned object, as `get` hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub ptr: *mut u8,
    pub size: u64,
    pub meta: u64,
}

/// Makes an object that `client` may write until it seals it. Returns its address.
pub fn create(seg: &Segment, client: u32, key: &Key, size: u64) -> Result<*mut u8> {
    if size > seg.layout.capacity {
        return Err(Status::TooBig);
    }
    loop {
        let tx = Tx::begin(seg)?;
        let slot = clients::live(seg, client)?;
        refuse_when_closed(seg)?;
        if index::find_live(seg, key)?.is_some() {
            return Err(Status::Exists);
        }
        let (object_index, object) = pool::take::<Object>(&tx)?;
        match heap::allocate(&tx, size, object_index)? {
            Allocated::Reserve { from, to } => {
                drop(tx);
                reserve(seg, from, to)?;
            }
            Allocated::Block {
                index: block,
                offset,
                fresh,
            } => {
                if offset > seg.layout.capacity - heap::block_bytes(size) {
                    return Err(Status::Corrupt);
                }
                tx.init(&object.key_a, key.a);
                tx.init(&object.key_b, key.b);
                tx.init(&object.key_c, key.c);
                tx.init(&object.hash, key.hash(seg.header().seed));
                tx.init(&object.offset, offset);
                tx.init(&object.size, size);
                tx.init(&object.meta, 0);
                tx.init(&object.pins, 0);
                tx.init(&object.pin_head, NIL);
                tx.init(&object.creator, client);
                tx.init(&object.block, block);
                tx.set(&object.state, STATE_CREATED);
                index::insert(&tx, object_index, object)?;
                pins::add(&tx, object_index, object, slot)?;
                tx.commit();
                if fresh {
                    prefault::notify(seg);
                }
                return Ok(seg.data(offset));
            }
        }
    }
}

/// Backs data with memory, a step ahead of what is needed where there is that much.
fn reserve(seg: &Segment, from: u64, to: u64) -> Result<()> {
    let exact = align_up(to, PAGE_BYTES).min(seg.layout.capacity);
    let ahead = align_up(to, RESERVE_STEP_BYTES).min(seg.layout.capacity);
    let end = match seg.reserve_data(from, ahead) {
        Ok(()) => ahead,
        Err(Status::Full) if exact < ahead => {
            seg.reserve_data(from, exact)?;
            exact
        }
        Err(status) => return Err(status),
    };
    let tx = Tx::begin(seg)?;
    heap::note_reserved(&tx, end);
    tx.commit();
    Ok(())
}

/// Makes an object immutable and visible. Its creator keeps its pin. 1 when it was deleted in the meantime: it goes
/// when the pin goes.
pub fn seal(seg: &Segment, client: u32, key: &Key, meta: u64) -> Result<i32> {
    let tx = Tx::begin(seg)?;
    clients::live(seg, client)?;
    let (_, object) = find_unsealed(seg, client, key)?;
    let state = object.state.get();
    tx.set(&object.meta, meta);
    tx.set(&object.state, state & !STATE_CREATED | STATE_SEALED);
    let header = seg.header();
    tx.set(&header.sealed, header.sealed.get() + 1);
    tx.commit();
    Ok((state & STATE_DOOMED != 0) as i32)
}

/// Takes back a create.
pub fn abort(seg: &Segment, client: u32, key: &Key) -> Result<()> {
    let tx = Tx::begin(seg)?;
    let slot = clients::live(seg, client)?;
    let (index, object) = find_unsealed(seg, client, key)?;
    let (pin_index, pin) = pins::find(seg, object, slot)?.ok_or(Status::Corrupt)?;
    let count = pin.count.get();
    pins::drop_pins(&tx, index, object, pin_index, pin, count, Use::DoesNotCount)?;
    tx.commit();
    Ok(())
}

/// The object of that key which `client` may seal.
fn find_unsealed<'a>(seg: &'a Segment, client: u32, key: &Key) -> Result<(u32, &'a Object)> {
    let mut other = false;
    let mine = index::find(seg, key, |index, object| {
        let unsealed = object.state.get() & STATE_CREATED != 0;
        if unsealed && object.creator.get() == client {
            return Ok(Some((index, object)));
        }
        other |= !object.is_doomed();
        Ok(None)
    })?;
    mine.ok_or(if other {
        Status::BadState
    } else {
        Status::NotFound
    })
}

/// Pins a sealed object and says where it is.
pub fn get(seg: &Segment, client: u32, key: &Key) -> Result<View> {
    let tx = Tx::begin(seg)?;
    let slot = clients::live(seg, client)?;
    refuse_when_closed(seg)?;
    let (index, object) = index::find_live(seg, key)?.ok_or(Status::NotFound)?;
    if object.state.get() != STATE_SEALED {
        return Err(Status::Unsealed);
    }
    let (offset, size) = (object.offset.get(), object.size.get());
    if size > seg.layout.capacity || offset > seg.layout.capacity - size {
        return Err(Status::Corrupt);
    }
    let view = View {
        ptr: seg.data(offset),
        size,
        meta: object.meta.get(),
    };
    pins::add(&tx, index, object, slot)?;
    tx.commit();
    Ok(view)
}

/// Drops one pin of `client`. Where several objects of one key are pinned (one was deleted and made anew while the
/// client still held the first), `ptr` says which; without it the newest one that the client holds is meant.
pub fn release(seg: &Segment, client: u32, key: &Key, ptr: Option<u64>, usage: Use) -> Result<()> {
    let tx = Tx::begin(seg)?;
    let slot = clients::live(seg, client)?;
    let base = seg.data(0) as u64;
    let mut seen = false;
    let held = index::find(seg, key, |index, object| {
        seen = true;
        if ptr.is_some_and(|ptr| ptr != base + object.offset.get()) {
            return Ok(None);
        }
        let pin = pins::find(seg, object, slot)?;
        Ok(pin.map(|(pin_index, pin)| (index, object, pin_index, pin)))
    })?;
    let (index, object, pin_index, pin) = held.ok_or(if seen {
        Status::BadState
    } else {
        Status::NotFound
    })?;
    if object.state.get() & STATE_CREATED != 0 {
        // Its creator seals or aborts it.
        return Err(Status::BadState);
    }
    pins::drop_pins(&tx, index, object, pin_index, pin, 1, usage)?;
    tx.commit();
    Ok(())
}

/// Frees an object, or hides it until its last pin goes (1).
pub fn delete(seg: &Segment, key: &Key) -> Result<i32> {
    let tx = Tx::begin(seg)?;
    let (index, object) = index::find_live(seg, key)?.ok_or(Status::NotFound)?;
    if object.pins.get() == 0 {
        pins::lru_remove(&tx, object)?;
        pins::destroy(&tx, index, object)?;
        tx.commit();
        return Ok(0);
    }
    let header = seg.header();
    tx.set(&object.state, object.state.get() | STATE_DOOMED);
    tx.set(&header.doomed, header.doomed.get() + 1);
    tx.commit();
    Ok(1)
}

/// Frees an object if nobody holds it.
pub fn evict(seg: &Segment, key: &Key) -> Result<()> {
    let tx = Tx::begin(seg)?;
    let (index, object) = index::find_live(seg, key)?.ok_or(Status::NotFound)?;
    if object.pins.get() != 0 {
        return Err(Status::Pinned);
    }
    pins::lru_remove(&tx, object)?;
    pins::destroy(&tx, index, object)?;
    tx.commit();
    Ok(())
}

/// Size, state (1 created, 2 sealed), pins and meta.
pub fn stat(seg: &Segment, key: &Key) -> Result<[u64; 4]> {
    let _tx = Tx::begin(seg)?;
    let (_, object) = index::find_live(seg, key)?.ok_or(Status::NotFound)?;
    Ok([
        object.size.get(),
        object.state.get() as u64,
        object.pins.get() as u64,
        object.meta.get(),
    ])
}

/// The least recently used of the objects that nobody holds, oldest first, until their blocks cover `wanted` bytes.
pub fn lru(
    seg: &Segment,
    wanted: u64,
    max: u32,
    mut each: impl FnMut(u32, &Key, u64),
) -> Result<u32> {
    let _tx = Tx::begin(seg)?;
    let mut index = seg.header().lru_oldest.get();
    let mut covered = 0u64;
    let mut n = 0;
    while index != NIL && n < max && covered < wanted {
        let object = seg.object(index)?;
        let size = object.size.get();
        each(n, &object.key(), size);
        covered = covered.saturating_add(heap::block_bytes(size));
        n += 1;
        index = object.lru_newer.get();
    }
    Ok(n)
}

/// Objects by record, for whoever lists the store: starts at record `cursor` (0 at first) and returns the cursor to go
/// on with, 0 at the end. What is created or deleted meanwhile may or may not be seen.
pub fn list(
    seg: &Segment,
    cursor: u32,
    max: u32,
    mut each: impl FnMut(u32, &Key, [u64; 4]),
) -> Result<(u32, u32)> {
    let _tx = Tx::begin(seg)?;
    let high = seg.header().object_pool.high.get();
    let mut n = 0;
    let mut index = cursor.max(1);
    while index <= high && n < max {
        let object = seg.object(index)?;
        let state = object.state.get();
        if state != STATE_FREE {
            each(
                n,
                &object.key(),
                [
                    object.size.get(),
                    state as u64,
                    object.pins.get() as u64,
                    object.meta.get(),
                ],
            );
            n += 1;
        }
        index += 1;
    }
    Ok((n, if index > high { 0 } else { index }))
}

pub const STATS: usize = 20;

/// Everything the store counts; the order is the ABI (see `rs_stats`).
pub fn stats(seg: &Segment) -> Result<[u64; STATS]> {
    let _tx = Tx::begin(seg)?;
    let header = seg.header();
    let objects = header.object_pool.live.get() as u64;
    let sealed = header.sealed.get() as u64;
    let tables = [
        &header.client_pool,
        &header.bucket_pool,
        &header.object_pool,
        &header.block_pool,
        &header.pin_pool,
    ];
    let metadata: u64 = tables.iter().map(|pool| pool.reserved.get()).sum();
    Ok([
        seg.layout.capacity,
        header.heap.used.get(),
        objects,
        sealed,
        header.pinned_bytes.get(),
        header.heap.frontier.get(),
        header.client_pool.live.get() as u64,
        heap::largest_free(seg)?,
        header.repairs.load(Ordering::Relaxed),
        header.heap.reserved.get(),
        objects - sealed,
        header.doomed.get() as u64,
        header.evictable_bytes.get(),
        seg.layout.max_objects as u64,
        seg.layout.max_clients as u64,
        header.pin_pool.live.get() as u64,
        header.prefaulted.load(Ordering::Relaxed),
        metadata + seg.layout.clients.start,
        header.block_pool.live.get() as u64,
        header.closed.load(Ordering::Relaxed) as u64,
    ])
}

/// The creator leaves: nobody may create or get any more, what nobody holds goes, and its memory goes back to the
/// system at once, however long others keep their mapping.
pub fn shut(seg: &Segment) -> Result<()> {
    let tx = Tx::begin(seg)?;
    let header = seg.header();
    header.closed.store(1, Ordering::Relaxed);
    loop {
        let index = header.lru_oldest.get();
        if index == NIL {
            break;
        }
        let object = seg.object(index)?;
        pins::lru_remove(&tx, object)?;
        pins::destroy(&tx, index, object)?;
        tx.checkpoint();
    }
    let mut index = header.heap.first.get();
    while index != NIL {
        let block = seg.block(index)?;
        if block.owner.get() == NIL {
            let from = block.offset.get();
            let to = from.saturating_add(block.size.get());
            if to <= seg.layout.capacity {
                seg.punch_data(align_up(from, PAGE_BYTES), to / PAGE_BYTES * PAGE_BYTES);
            }
        }
        index = block.next.get();
    }
    let frontier = align_up(header.heap.frontier.get(), PAGE_BYTES);
    seg.punch_data(frontier, seg.layout.capacity);
    tx.commit();
    Ok(())
}

fn refuse_when_closed(seg: &Segment) -> Result<()> {
    if seg.header().closed.load(Ordering::Relaxed) != 0 {
        return Err(Status::BadState);
    }
    Ok(())
}
