//! Who uses the store: a slot for each thread (isolate) of each process, found again when the process is gone.

use crate::journal::Tx;
use crate::layout::*;
use crate::limits::*;
use crate::pins::{self, Use};
use crate::pool;
use crate::segment::Segment;
use crate::status::{Result, Status};

const SLOT_BITS: u32 = 16;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// The slot of a client that may do things.
#[inline]
pub fn live(seg: &Segment, id: u32) -> Result<u32> {
    let (slot, client) = lookup(seg, id)?;
    if client.state.get() != CLIENT_LIVE {
        return Err(Status::NoClient);
    }
    Ok(slot)
}

#[inline]
fn lookup(seg: &Segment, id: u32) -> Result<(u32, &Client)> {
    let slot = id & SLOT_MASK;
    if slot == NIL || slot > seg.header().client_pool.high.get() {
        return Err(Status::NoClient);
    }
    let client = seg.client(slot).map_err(|_| Status::NoClient)?;
    if client.state.get() == CLIENT_FREE || client.generation.get() != id >> SLOT_BITS {
        return Err(Status::NoClient);
    }
    Ok((slot, client))
}

pub fn register(seg: &Segment) -> Result<u32> {
    let pid = std::process::id();
    let start = process(pid).map_or(0, |process| process.start);
    let tx = Tx::begin(seg)?;
    if seg
        .header()
        .closed
        .load(std::sync::atomic::Ordering::Relaxed)
        != 0
    {
        return Err(Status::BadState);
    }
    let (slot, client) = pool::take::<Client>(&tx)?;
    let generation = client.generation.get() % CLIENT_GENERATION_MAX + 1;
    tx.set(&client.generation, generation);
    tx.init(&client.pid, pid);
    tx.init(&client.start, start);
    tx.init(&client.pins, NIL);
    tx.init(&client.pin_records, 0);
    tx.set(&client.state, CLIENT_LIVE);
    tx.commit();
    Ok(generation << SLOT_BITS | slot)
}

/// Drops all that a client holds and frees its slot. The client may be oneself, or anyone known to be gone.
pub fn release(seg: &Segment, id: u32) -> Result<()> {
    loop {
        let tx = Tx::begin(seg)?;
        let (slot, client) = lookup(seg, id)?;
        tx.set(&client.state, CLIENT_LEAVING);
        tx.checkpoint();
        for _ in 0..RELEASE_BATCH {
            let index = client.pins.get();
            if index == NIL {
                tx.set(&client.state, CLIENT_FREE);
                pool::give::<Client>(&tx, slot)?;
                tx.commit();
                return Ok(());
            }
            let pin = seg.pin(index)?;
            let object_index = pin.object.get();
            let object = seg.object(object_index)?;
            let count = pin.count.get();
            pins::drop_pins(&tx, object_index, object, index, pin, count, Use::Counts)?;
            tx.checkpoint();
        }
        tx.commit();
    }
}

/// Releases every client whose process is gone. Returns how many.
pub fn reap(seg: &Segment) -> Result<u32> {
    let mut clients = Vec::new();
    {
        let _tx = Tx::begin(seg)?;
        for slot in 1..=seg.header().client_pool.high.get() {
            let client = seg.client(slot)?;
            if client.state.get() != CLIENT_FREE {
                let id = client.generation.get() << SLOT_BITS | slot;
                clients.push((client.pid.get(), client.start.get(), id));
            }
        }
    }
    // Asking about processes takes long, so it is done without the lock; ids are not reused soon enough to matter.
    clients.sort_unstable();
    let mut reaped = 0;
    let mut last = None;
    for (pid, start, id) in clients {
        let gone = match last {
            Some((last_pid, last_start, gone)) if (last_pid, last_start) == (pid, start) => gone,
            _ => is_gone(pid, start),
        };
        last = Some((pid, start, gone));
        if gone && release(seg, id).is_ok() {
            reaped += 1;
        }
    }
    Ok(reaped)
}

struct Process {
    start: u64,
    dead: bool,
}

fn is_gone(pid: u32, start: u64) -> bool {
    match process(pid) {
        Some(process) => process.dead || (start != 0 && process.start != start),
        None => {
            // Without /proc, ask the kernel.
            // SAFETY: signal 0 only checks for existence.
            unsafe {
                libc::kill(pid as libc::pid_t, 0) != 0 && crate::status::errno() == libc::ESRCH
            }
        }
    }
}

/// What /proc says of a process: fields 3 (state), 20 (threads) and 22 (start time) of its `stat`.
fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything; its closing bracket is the last one.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 2;
    let text = std::str::from_utf8(stat.get(after..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    // A leader that ended before its threads is a zombie as well.
    let dead = matches!(state, "Z" | "X") && threads <= 1;
    Some(Process { start, dead })
}
