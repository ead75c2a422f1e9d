//! Transactions: the lock, and the undo journal that makes whatever happens under it all or nothing.
//!
//! A client may be killed at any instruction while it holds the lock. The kernel then hands the lock to the next
//! caller with `EOWNERDEAD`, and that caller has to make sense of whatever was half done. Rebuilding lists and counters
//! from "primary" records needs a careful order of writes in every operation, and costs a pass over all objects. Here
//! every word is instead written twice: its place and old value go to the journal first, then the new value goes to
//! the word. Committing is one store, setting the journal's length to 0. Undoing is writing the old values back,
//! newest first. It is the classic undo log of databases without the disk: memory shared between processes survives
//! the death of any of them, and a killed process has executed its stores in program order up to some instruction, so
//! fences for the compiler are enough, and the handover of the lock orders them for the next processor.
//!
//! Undoing is idempotent, so a repairer killed half-way leaves the next one the same work. Its length is bounded by
//! one operation, not by the size of the store. Operations that are too long for one transaction (dropping all pins of
//! a client) are a sequence of them, each of which leaves a valid store.
//!
//! There is nothing lock-free about objects: every reader and writer of a `W32` or `W64` holds the lock.

use crate::layout::{Journal, MutexCell, W32, W64};
use crate::limits::*;
use crate::segment::Segment;
use crate::status::{Result, Status};
use std::sync::atomic::{compiler_fence, AtomicU64, Ordering};

const WIDE: u64 = 1;

/// A word of the segment that a transaction may change.
pub trait Word {
    type Value: Copy + PartialEq;
    const TAG: u64;
    fn get(&self) -> Self::Value;
    fn store(&self, value: Self::Value);
    fn widen(value: Self::Value) -> u64;
}

impl W32 {
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl W64 {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Word for W32 {
    type Value = u32;
    const TAG: u64 = 0;
    #[inline(always)]
    fn get(&self) -> u32 {
        W32::get(self)
    }
    #[inline(always)]
    fn store(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn widen(value: u32) -> u64 {
        value as u64
    }
}

impl Word for W64 {
    type Value = u64;
    const TAG: u64 = WIDE;
    #[inline(always)]
    fn get(&self) -> u64 {
        W64::get(self)
    }
    #[inline(always)]
    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn widen(value: u64) -> u64 {
        value
    }
}

/// The lock, held. Dropped without `commit`, everything written through it is undone.
pub struct Tx<'a> {
    pub seg: &'a Segment,
}

impl<'a> Tx<'a> {
    #[inline]
    pub fn begin(seg: &'a Segment) -> Result<Tx<'a>> {
        lock(seg)?;
        crash_point();
        Ok(Tx { seg })
    }

    /// Writes a word so that it can be undone.
    #[inline]
    pub fn set<W: Word>(&self, word: &W, value: W::Value) {
        let old = word.get();
        if old == value {
            return;
        }
        let journal = &self.seg.header().journal;
        let place = (word as *const W as usize - self.seg.base() as usize) as u64;
        let len = journal.len.load(Ordering::Relaxed) as usize;
        // Limits are such that no operation comes near; beyond it an operation could not be undone.
        assert!(len < JOURNAL_ENTRIES_MAX, "undo journal is too short");
        let entry = &journal.entries[len];
        entry.place.store(place | W::TAG, Ordering::Relaxed);
        entry.old.store(W::widen(old), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash_point();
        journal.len.store(len as u64 + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash_point();
        word.store(value);
        crash_point();
    }

    /// Writes a word of a record that was free when this transaction began: undone, the record is free again and what
    /// it says does not matter. Never for the word that links free records.
    #[inline]
    pub fn init<W: Word>(&self, word: &W, value: W::Value) {
        word.store(value);
        crash_point();
    }

    /// Makes everything so far permanent and keeps the lock.
    #[inline]
    pub fn checkpoint(&self) {
        compiler_fence(Ordering::SeqCst);
        crash_point();
        #[cfg(test)]
        LONGEST.fetch_max(journal_len(self.seg), Ordering::Relaxed);
        self.seg.header().journal.len.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash_point();
    }

    /// Makes everything permanent and gives the lock back.
    #[inline]
    pub fn commit(self) {
        self.checkpoint();
    }
}

impl Drop for Tx<'_> {
    #[inline]
    fn drop(&mut self) {
        let journal = &self.seg.header().journal;
        if journal.len.load(Ordering::Relaxed) != 0 && undo(self.seg, journal).is_err() {
            self.seg.header().corrupt.store(1, Ordering::Relaxed);
        }
        // SAFETY: the mutex was initialised by the creator and this thread holds it.
        unsafe { libc::pthread_mutex_unlock(self.seg.header().mutex.0.get()) };
    }
}

/// Writes old values back, newest first.
#[cold]
fn undo(seg: &Segment, journal: &Journal) -> Result<()> {
    let len = journal.len.load(Ordering::Relaxed) as usize;
    if len > JOURNAL_ENTRIES_MAX {
        return Err(Status::Corrupt);
    }
    for entry in journal.entries[..len].iter().rev() {
        let place = entry.place.load(Ordering::Relaxed);
        let old = entry.old.load(Ordering::Relaxed);
        if place & WIDE != 0 {
            seg.meta_word::<W64>(place & !WIDE)?.store(old);
        } else {
            seg.meta_word::<W32>(place)?.store(old as u32);
        }
        crash_point();
    }
    compiler_fence(Ordering::SeqCst);
    journal.len.store(0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    Ok(())
}

fn lock(seg: &Segment) -> Result<()> {
    let mutex = seg.header().mutex.0.get();
    // SAFETY (here and below): the creator initialised the mutex before it published the segment, and the mapping
    // lives as long as `seg`.
    let mut rc = unsafe { libc::pthread_mutex_trylock(mutex) };
    let mut spins = 0;
    while rc == libc::EBUSY && spins < LOCK_SPINS {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
        // SAFETY: as above.
        rc = unsafe { libc::pthread_mutex_trylock(mutex) };
        spins += 1;
    }
    if rc == libc::EBUSY {
        rc = lock_slowly(mutex);
    }
    match rc {
        0 => {}
        libc::EOWNERDEAD => repair(seg)?,
        libc::ETIMEDOUT => return Err(Status::TimedOut),
        _ => return Err(Status::Corrupt),
    }
    if seg.header().corrupt.load(Ordering::Relaxed) != 0 {
        // SAFETY: as above, and held.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        return Err(Status::Corrupt);
    }
    Ok(())
}

extern "C" {
    /// In glibc from 2.30 on; the `libc` crate does not declare it.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> libc::c_int;
}

/// Waits by the clock that nobody sets: by the wall clock, a lock would time out at once, or never, when that is set.
#[cold]
fn lock_slowly(mutex: *mut libc::pthread_mutex_t) -> i32 {
    let mut deadline = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `deadline` outlives both calls; the mutex is initialised and mapped.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut deadline);
        deadline.tv_sec += LOCK_WAIT_MS_MAX / 1000;
        pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, &deadline)
    }
}

/// The last owner died. Undo what it had begun and declare the lock usable again.
#[cold]
fn repair(seg: &Segment) -> Result<()> {
    let header = seg.header();
    let mutex = header.mutex.0.get();
    if undo(seg, &header.journal).is_err() {
        header.corrupt.store(1, Ordering::Relaxed);
    }
    header.repairs.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread holds the mutex in its inconsistent state.
    if unsafe { libc::pthread_mutex_consistent(mutex) } != 0 {
        // SAFETY: as above; unlocking it now makes it unusable for good, which every later caller sees.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        return Err(Status::Corrupt);
    }
    Ok(())
}

/// Initialises the lock in a new segment.
pub fn init_mutex(cell: &MutexCell) -> Result<()> {
    let mutex = cell.0.get();
    // SAFETY: the cell is zeroed, mapped memory that no other process can see yet.
    unsafe {
        let mut attr: libc::pthread_mutexattr_t = std::mem::zeroed();
        if libc::pthread_mutexattr_init(&mut attr) != 0 {
            return Err(Status::Io);
        }
        let ok = libc::pthread_mutexattr_setpshared(&mut attr, libc::PTHREAD_PROCESS_SHARED) == 0
            && libc::pthread_mutexattr_setrobust(&mut attr, libc::PTHREAD_MUTEX_ROBUST) == 0
            && libc::pthread_mutex_init(mutex, &attr) == 0;
        libc::pthread_mutexattr_destroy(&mut attr);
        if ok {
            Ok(())
        } else {
            Err(Status::Io)
        }
    }
}

/// Undo records of the operation under way.
pub fn journal_len(seg: &Segment) -> u64 {
    let len: &AtomicU64 = &seg.header().journal.len;
    len.load(Ordering::Relaxed)
}

/// Undo records of the longest operation so far.
#[cfg(test)]
pub static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Where tests kill a process. Nothing at all outside of tests.
#[cfg(not(test))]
#[inline(always)]
pub fn crash_point() {}

#[cfg(test)]
pub use crate::crash_test::crash_point;
