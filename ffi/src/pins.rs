//! Who holds what: one record for each client and object, in a list of the object and in a list of the client, so that
//! whatever a dead client held can be found without looking at anything else.
//!
//! Objects that are sealed and held by nobody are in the LRU list; the first pin takes an object out of it and the
//! last one puts it back at the newest end. So the list holds exactly what may be evicted, in order of last use.

use crate::heap;
use crate::index;
use crate::journal::Tx;
use crate::layout::*;
use crate::pool;
use crate::segment::Segment;
use crate::status::{Result, Status};

/// Where an object whose last pin goes enters the LRU list.
#[derive(Clone, Copy, PartialEq)]
pub enum Use {
    /// It was used just now.
    Counts,
    /// Looking at it did not count as use (spilling): it stays the first to go.
    DoesNotCount,
}

/// The record of `slot`'s pins of an object. Objects are rarely pinned by more than a few clients.
#[inline]
pub fn find<'a>(seg: &'a Segment, object: &Object, slot: u32) -> Result<Option<(u32, &'a Pin)>> {
    let mut index = object.pin_head.get();
    for _ in 0..=seg.layout.max_clients {
        if index == NIL {
            return Ok(None);
        }
        let pin = seg.pin(index)?;
        if pin.client.get() == slot {
            return Ok(Some((index, pin)));
        }
        index = pin.object_next.get();
    }
    Err(Status::Corrupt)
}

#[inline]
pub fn add(tx: &Tx, object_index: u32, object: &Object, slot: u32) -> Result<()> {
    let header = tx.seg.header();
    let pins = object.pins.get();
    if pins == 0 {
        if object.state.get() == STATE_SEALED {
            lru_remove(tx, object)?;
        }
        tx.set(
            &header.pinned_bytes,
            header.pinned_bytes.get() + object.size.get(),
        );
    }
    tx.set(&object.pins, pins.checked_add(1).ok_or(Status::TableFull)?);
    if let Some((_, pin)) = find(tx.seg, object, slot)? {
        tx.set(&pin.count, pin.count.get() + 1);
        return Ok(());
    }
    let client = tx.seg.client(slot)?;
    let (index, pin) = pool::take::<Pin>(tx)?;
    let (of_object, of_client) = (object.pin_head.get(), client.pins.get());
    tx.init(&pin.object, object_index);
    tx.init(&pin.client, slot);
    tx.init(&pin.count, 1);
    tx.init(&pin.object_prev, NIL);
    tx.init(&pin.object_next, of_object);
    tx.init(&pin.client_prev, NIL);
    tx.set(&pin.client_next, of_client);
    if of_object != NIL {
        tx.set(&tx.seg.pin(of_object)?.object_prev, index);
    }
    if of_client != NIL {
        tx.set(&tx.seg.pin(of_client)?.client_prev, index);
    }
    tx.set(&object.pin_head, index);
    tx.set(&client.pins, index);
    tx.set(&client.pin_records, client.pin_records.get() + 1);
    Ok(())
}

/// Drops `count` of the pins of one record, and the object itself if it was only waiting for that.
#[inline]
pub fn drop_pins(
    tx: &Tx,
    object_index: u32,
    object: &Object,
    pin_index: u32,
    pin: &Pin,
    count: u32,
    usage: Use,
) -> Result<()> {
    let held = pin.count.get();
    if held > count {
        tx.set(&pin.count, held - count);
    } else {
        remove_record(tx, object, pin_index, pin)?;
    }
    let pins = object
        .pins
        .get()
        .checked_sub(count)
        .ok_or(Status::Corrupt)?;
    tx.set(&object.pins, pins);
    if pins > 0 {
        return Ok(());
    }
    let header = tx.seg.header();
    tx.set(
        &header.pinned_bytes,
        header.pinned_bytes.get() - object.size.get(),
    );
    if object.state.get() == STATE_SEALED {
        lru_insert(tx, object_index, object, usage)
    } else {
        // Deleted while it was pinned, or never sealed.
        destroy(tx, object_index, object)
    }
}

fn remove_record(tx: &Tx, object: &Object, index: u32, pin: &Pin) -> Result<()> {
    let client = tx.seg.client(pin.client.get())?;
    let (prev, next) = (pin.object_prev.get(), pin.object_next.get());
    if prev == NIL {
        tx.set(&object.pin_head, next);
    } else {
        tx.set(&tx.seg.pin(prev)?.object_next, next);
    }
    if next != NIL {
        tx.set(&tx.seg.pin(next)?.object_prev, prev);
    }
    let (prev, next) = (pin.client_prev.get(), pin.client_next.get());
    if prev == NIL {
        tx.set(&client.pins, next);
    } else {
        tx.set(&tx.seg.pin(prev)?.client_next, next);
    }
    if next != NIL {
        tx.set(&tx.seg.pin(next)?.client_prev, prev);
    }
    tx.set(&client.pin_records, client.pin_records.get() - 1);
    pool::give::<Pin>(tx, index)
}

/// Frees an object that has no pins and is not in the LRU list.
pub fn destroy(tx: &Tx, index: u32, object: &Object) -> Result<()> {
    let header = tx.seg.header();
    let state = object.state.get();
    if state & STATE_DOOMED != 0 {
        tx.set(&header.doomed, header.doomed.get() - 1);
    }
    if state & STATE_SEALED != 0 {
        tx.set(&header.sealed, header.sealed.get() - 1);
    }
    index::remove(tx, index, object)?;
    heap::free(tx, object.block.get())?;
    tx.set(&object.state, STATE_FREE);
    pool::give::<Object>(tx, index)
}

pub fn lru_insert(tx: &Tx, index: u32, object: &Object, usage: Use) -> Result<()> {
    let header = tx.seg.header();
    let evictable = header.evictable_bytes.get();
    tx.set(&header.evictable_bytes, evictable + object.size.get());
    let (older, newer) = match usage {
        Use::Counts => (header.lru_newest.get(), NIL),
        Use::DoesNotCount => (NIL, header.lru_oldest.get()),
    };
    tx.set(&object.lru_older, older);
    tx.set(&object.lru_newer, newer);
    if older == NIL {
        tx.set(&header.lru_oldest, index);
    } else {
        tx.set(&tx.seg.object(older)?.lru_newer, index);
    }
    if newer == NIL {
        tx.set(&header.lru_newest, index);
    } else {
        tx.set(&tx.seg.object(newer)?.lru_older, index);
    }
    Ok(())
}

pub fn lru_remove(tx: &Tx, object: &Object) -> Result<()> {
    let header = tx.seg.header();
    let evictable = header.evictable_bytes.get();
    tx.set(&header.evictable_bytes, evictable - object.size.get());
    let (older, newer) = (object.lru_older.get(), object.lru_newer.get());
    if older == NIL {
        tx.set(&header.lru_oldest, newer);
    } else {
        tx.set(&tx.seg.object(older)?.lru_newer, newer);
    }
    if newer == NIL {
        tx.set(&header.lru_newest, older);
    } else {
        tx.set(&tx.seg.object(newer)?.lru_older, older);
    }
    Ok(())
}
