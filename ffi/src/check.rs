//! Everything that must hold between operations, checked from the ground up. Linear in the size of the store, and
//! under its lock: for tests and for suspicion.

use crate::heap;
use crate::index;
use crate::journal::{journal_len, Tx};
use crate::layout::*;
use crate::limits::*;
use crate::pool::Record;
use crate::segment::Segment;
use crate::status::{Result, Status};

/// `Corrupt` if anything is wrong; `problem` says what.
pub fn check(seg: &Segment) -> Result<()> {
    problem(seg)?.map_or(Ok(()), |_| Err(Status::Corrupt))
}

/// The first violation found, in words.
pub fn problem(seg: &Segment) -> Result<Option<String>> {
    let tx = Tx::begin(seg)?;
    Ok(Check { tx }.all().err())
}

type Verdict = core::result::Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition { return Err(format!($($message)*)); }
    };
}

struct Check<'a> {
    tx: Tx<'a>,
}

fn bad(status: Status) -> String {
    format!("a record points outside of its table ({status:?})")
}

impl Check<'_> {
    fn all(&self) -> Verdict {
        ensure!(journal_len(self.tx.seg) == 0, "the journal is not empty");
        self.pool::<Client>("clients")?;
        self.pool::<Object>("objects")?;
        self.pool::<Block>("blocks")?;
        self.pool::<Pin>("pins")?;
        self.blocks()?;
        self.free_lists()?;
        self.objects()?;
        self.clients()?;
        self.lru()
    }

    /// Free and live records make up all that were ever used, and all of these have memory.
    fn pool<R: Record>(&self, name: &str) -> Verdict {
        let (head, region) = R::pool(&self.tx);
        let high = head.high.get();
        ensure!(
            high <= region.records_max,
            "{name}: more records than there can be"
        );
        ensure!(
            high == 0 || (high as u64 + 1) * region.record_bytes <= head.reserved.get(),
            "{name}: record {high} has no memory"
        );
        let mut free = 0u32;
        let mut index = head.free.get();
        while index != NIL {
            ensure!(index <= high, "{name}: free record {index} was never used");
            free += 1;
            ensure!(free <= high, "{name}: the free list has a cycle");
            index = R::at(&self.tx, index).map_err(bad)?.link().get();
        }
        let live = head.live.get();
        ensure!(
            free + live == high,
            "{name}: {free} free and {live} live of {high}"
        );
        Ok(())
    }

    /// Blocks tile the data area up to the frontier, free ones are apart, used ones are their object's.
    fn blocks(&self) -> Verdict {
        let seg = self.tx.seg;
        let heap = &seg.header().heap;
        let (mut at, mut used, mut count) = (0, 0, 0);
        let (mut previous, mut previous_free) = (NIL, false);
        let mut index = heap.first.get();
        while index != NIL {
            let block = seg.block(index).map_err(bad)?;
            let (offset, size) = (block.offset.get(), block.size.get());
            ensure!(
                offset == at,
                "block {index} is at {offset} and should be at {at}"
            );
            ensure!(
                size > 0 && size % GRANULE_BYTES == 0 && size <= seg.layout.capacity,
                "block {index} has {size} bytes"
            );
            ensure!(
                block.prev.get() == previous,
                "block {index} has a wrong neighbour"
            );
            let owner = block.owner.get();
            if owner == NIL {
                ensure!(
                    !previous_free,
                    "free blocks {previous} and {index} are not merged"
                );
            } else {
                let object = seg.object(owner).map_err(bad)?;
                ensure!(
                    object.state.get() != STATE_FREE && object.block.get() == index,
                    "block {index} belongs to object {owner}, which does not know of it"
                );
                ensure!(
                    object.offset.get() == offset && heap::block_bytes(object.size.get()) == size,
                    "object {owner} does not fill its block"
                );
                used += size;
            }
            at += size;
            count += 1;
            ensure!(
                count <= seg.header().block_pool.high.get(),
                "blocks form a cycle"
            );
            (previous, previous_free) = (index, owner == NIL);
            index = block.next.get();
        }
        ensure!(
            heap.last.get() == previous,
            "the last block is not the last"
        );
        ensure!(
            at == heap.frontier.get(),
            "blocks end at {at}, not at the frontier"
        );
        ensure!(
            used == heap.used.get(),
            "{used} bytes are used, not {}",
            heap.used.get()
        );
        let live = seg.header().block_pool.live.get();
        ensure!(count == live, "{count} blocks in place of {live}");
        let reserved = heap.reserved.get();
        ensure!(at <= reserved, "bytes {reserved} to {at} have no memory");
        ensure!(
            reserved <= seg.layout.capacity,
            "more is reserved than there is"
        );
        Ok(())
    }

    /// Every free block is in the list of its class, and nothing else is in any.
    fn free_lists(&self) -> Verdict {
        let seg = self.tx.seg;
        let heap = &seg.header().heap;
        let mut listed = 0u64;
        for fl in 0..FL_COUNT {
            let bits = heap.sl[fl].get();
            ensure!(
                (heap.fl.get() >> fl & 1 == 1) == (bits != 0),
                "first-level bit {fl} is wrong"
            );
            for sl in 0..SL_COUNT {
                let mut index = heap.free[fl][sl].get();
                ensure!(
                    (bits >> sl & 1 == 1) == (index != NIL),
                    "second-level bit {fl}/{sl} is wrong"
                );
                let mut previous = NIL;
                while index != NIL {
                    let block = seg.block(index).map_err(bad)?;
                    ensure!(block.owner.get() == NIL, "block {index} is listed as free");
                    ensure!(
                        block.free_prev.get() == previous,
                        "free list {fl}/{sl} is broken"
                    );
                    let class = heap::class_of(block.size.get() / GRANULE_BYTES);
                    ensure!(class == (fl, sl), "block {index} is in the wrong class");
                    listed += block.size.get();
                    ensure!(
                        listed <= seg.layout.capacity,
                        "free list {fl}/{sl} has a cycle"
                    );
                    previous = index;
                    index = block.free_next.get();
                }
            }
        }
        // All are free, none twice (a list has each at most once, by its back links), so sizes decide.
        let free = heap.frontier.get() - heap.used.get();
        ensure!(
            listed == free,
            "{listed} bytes are listed as free, not {free}"
        );
        Ok(())
    }

    /// Every object is found by its key, and its pins are those of its records.
    fn objects(&self) -> Verdict {
        let seg = self.tx.seg;
        let header = seg.header();
        let (mut count, mut sealed, mut doomed) = (0, 0, 0);
        let (mut pinned_bytes, mut evictable_bytes) = (0, 0);
        let mut records = 0;
        let buckets = header.buckets.get();
        ensure!(
            (BUCKETS_MIN..=seg.layout.buckets.records_max).contains(&buckets),
            "there are {buckets} buckets"
        );
        for bucket in 0..buckets {
            let mut index = seg.bucket(bucket).map_err(bad)?.get();
            while index != NIL {
                let object = seg.object(index).map_err(bad)?;
                count += 1;
                ensure!(
                    count <= header.object_pool.high.get(),
                    "bucket {bucket} has a cycle"
                );
                let hash = object.key().hash(header.seed);
                ensure!(
                    object.hash.get() == hash && index::bucket_of(hash, buckets) == bucket,
                    "object {index} is in the wrong bucket"
                );
                let state = object.state.get();
                let pins = object.pins.get();
                ensure!(
                    matches!(state & !STATE_DOOMED, STATE_CREATED | STATE_SEALED),
                    "object {index} has state {state}"
                );
                ensure!(
                    state == STATE_SEALED || pins > 0,
                    "object {index} should be gone"
                );
                if object.is_doomed() {
                    doomed += 1;
                } else {
                    let live = index::find_live(seg, &object.key()).map_err(bad)?;
                    ensure!(
                        live.map(|(found, _)| found) == Some(index),
                        "object {index} is not the only one of its key"
                    );
                }
                sealed += (state & STATE_SEALED != 0) as u32;
                if pins > 0 {
                    pinned_bytes += object.size.get();
                } else {
                    evictable_bytes += object.size.get();
                }
                let block = seg.block(object.block.get()).map_err(bad)?;
                ensure!(
                    block.owner.get() == index,
                    "object {index} has another's block"
                );

                let (mut sum, mut previous, mut at) = (0, NIL, object.pin_head.get());
                while at != NIL {
                    let pin = seg.pin(at).map_err(bad)?;
                    ensure!(
                        pin.object.get() == index && pin.object_prev.get() == previous,
                        "pin {at} is not in the list of object {index}"
                    );
                    ensure!(pin.count.get() > 0, "pin {at} pins nothing");
                    sum += pin.count.get();
                    records += 1;
                    ensure!(
                        records <= header.pin_pool.high.get(),
                        "pins of {index} form a cycle"
                    );
                    previous = at;
                    at = pin.object_next.get();
                }
                ensure!(
                    sum == pins,
                    "object {index} has {pins} pins and records of {sum}"
                );
                index = object.link.get();
            }
        }
        let live = header.object_pool.live.get();
        ensure!(count == live, "{count} objects are found of {live}");
        ensure!(sealed == header.sealed.get(), "{sealed} objects are sealed");
        ensure!(doomed == header.doomed.get(), "{doomed} objects are doomed");
        ensure!(
            records == header.pin_pool.live.get(),
            "{records} pin records are in use"
        );
        ensure!(
            pinned_bytes == header.pinned_bytes.get(),
            "{pinned_bytes} bytes are pinned"
        );
        ensure!(
            evictable_bytes == header.evictable_bytes.get(),
            "{evictable_bytes} bytes are evictable"
        );
        Ok(())
    }

    /// Every client's list has its pins, and together they have all.
    fn clients(&self) -> Verdict {
        let seg = self.tx.seg;
        let header = seg.header();
        let (mut live, mut all) = (0, 0);
        for slot in 1..=header.client_pool.high.get() {
            let client = seg.client(slot).map_err(bad)?;
            if client.state.get() == CLIENT_FREE {
                continue;
            }
            live += 1;
            let (mut records, mut previous, mut at) = (0, NIL, client.pins.get());
            while at != NIL {
                let pin = seg.pin(at).map_err(bad)?;
                ensure!(
                    pin.client.get() == slot && pin.client_prev.get() == previous,
                    "pin {at} is not in the list of client {slot}"
                );
                records += 1;
                ensure!(
                    records <= header.pin_pool.high.get(),
                    "pins of client {slot} form a cycle"
                );
                previous = at;
                at = pin.client_next.get();
            }
            ensure!(
                records == client.pin_records.get(),
                "client {slot} has {records} pin records"
            );
            all += records;
        }
        ensure!(
            live == header.client_pool.live.get(),
            "{live} clients are there"
        );
        ensure!(
            all == header.pin_pool.live.get(),
            "{all} pin records are some client's"
        );
        Ok(())
    }

    /// The list has exactly the sealed objects without pins.
    fn lru(&self) -> Verdict {
        let seg = self.tx.seg;
        let header = seg.header();
        let (mut bytes, mut count, mut previous) = (0, 0, NIL);
        let mut index = header.lru_oldest.get();
        while index != NIL {
            let object = seg.object(index).map_err(bad)?;
            ensure!(
                object.state.get() == STATE_SEALED && object.pins.get() == 0,
                "object {index} cannot be evicted"
            );
            ensure!(
                object.lru_older.get() == previous,
                "the LRU list is broken at {index}"
            );
            bytes += object.size.get();
            count += 1;
            ensure!(
                count <= header.object_pool.high.get(),
                "the LRU list has a cycle"
            );
            previous = index;
            index = object.lru_newer.get();
        }
        ensure!(
            header.lru_newest.get() == previous,
            "the LRU list ends elsewhere"
        );
        ensure!(
            bytes == header.evictable_bytes.get(),
            "the LRU list lacks objects"
        );
        let mut unpinned = 0;
        for index in 1..=header.object_pool.high.get() {
            let object = seg.object(index).map_err(bad)?;
            unpinned += (object.state.get() == STATE_SEALED && object.pins.get() == 0) as u32;
        }
        ensure!(
            count == unpinned,
            "{count} of {unpinned} unpinned objects are in the LRU list"
        );
        Ok(())
    }
}
