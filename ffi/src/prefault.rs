//! Touching memory before it is needed.
//!
//! The first store to a page of shared memory enters the kernel, which finds, clears and maps a page: 0.3 to 1.1 GB/s
//! where warm memory takes 11 GB/s. A thread of the creator's process therefore keeps some memory beyond the frontier
//! reserved, cleared and mapped. Page tables belong to a mapping, and all isolates of a process share one.
//!
//! It works in small chunks, outside of the store's lock, at a lower priority, and rests as long as it worked unless
//! someone is eating up what it prepared. With nothing to do it sleeps on a futex that `create` wakes when the
//! frontier moves, from whatever process.

use crate::heap;
use crate::journal::Tx;
use crate::layout::align_up;
use crate::limits::*;
use crate::segment::Segment;
use crate::status::{errno, io_error, Result, Status};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub struct Prefault {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prefault {
    /// Keeps `ahead` bytes warm beyond the frontier, but nothing beyond `limit` bytes of the data area. Replaces what
    /// was started before.
    pub fn start(seg: &Arc<Segment>, ahead: u64, limit: u64) -> Result<()> {
        if !seg.is_creator() {
            return Err(Status::BadState);
        }
        Prefault::stop(seg);
        let mut running = seg.prefault.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            seg: seg.clone(),
            stop: stop.clone(),
            ahead,
            limit: limit.min(seg.layout.capacity) / PAGE_BYTES * PAGE_BYTES,
        };
        let thread = std::thread::Builder::new()
            .name("raystore-fault".into())
            .stack_size(128 << 10)
            .spawn(move || worker.run())
            .map_err(|_| io_error())?;
        *running = Some(Prefault { stop, thread });
        Ok(())
    }

    /// Ends the thread, if there is one, and waits for it.
    pub fn stop(seg: &Segment) {
        let running = seg
            .prefault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Prefault { stop, thread }) = running {
            stop.store(true, Ordering::SeqCst);
            wake(&seg.header().prefault_seq);
            let _ = thread.join();
        }
    }
}

/// The frontier moved. A system call only if the thread sleeps.
#[inline]
pub fn notify(seg: &Segment) {
    let header = seg.header();
    if header.prefault_waiting.load(Ordering::SeqCst) != 0 {
        header.prefault_waiting.store(0, Ordering::SeqCst);
        wake(&header.prefault_seq);
    }
}

struct Worker {
    seg: Arc<Segment>,
    stop: Arc<AtomicBool>,
    ahead: u64,
    limit: u64,
}

impl Worker {
    fn run(self) {
        block_signals();
        // SAFETY: a thread's nice value is its own on Linux; failure changes nothing.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PREFAULT_NICE) };
        let header = self.seg.header();
        let mut warm = 0;
        let mut full_at = None;
        while !self.stop.load(Ordering::SeqCst) {
            // Announced before the frontier is read: if it moves after that, the futex will not sleep.
            let seq = header.prefault_seq.load(Ordering::SeqCst);
            header.prefault_waiting.store(1, Ordering::SeqCst);
            let Ok(frontier) = self.frontier() else {
                return;
            };
            // Whoever took what is behind the frontier is touching it now.
            warm = warm.max(frontier / PAGE_BYTES * PAGE_BYTES);
            let goal = align_up(frontier.saturating_add(self.ahead), PAGE_BYTES).min(self.limit);
            if warm >= goal || full_at == Some(frontier) {
                self.sleep(seq, None);
                continue;
            }
            let chunk = PREFAULT_CHUNK_BYTES.min(goal - warm);
            let begun = Instant::now();
            match self.warm_up(warm, warm + chunk) {
                Ok(()) => {
                    warm += chunk;
                    self.seg.warm.fetch_max(warm, Ordering::Relaxed);
                    full_at = None;
                    header.prefaulted.fetch_add(chunk, Ordering::Relaxed);
                }
                // No memory: not asked for again until someone else found some.
                Err(_) => full_at = Some(frontier),
            }
            let needed_soon = warm - frontier < self.ahead / 4 && frontier > 0;
            if !needed_soon {
                self.sleep(seq, Some(begun.elapsed()));
            }
        }
    }

    fn frontier(&self) -> Result<u64> {
        let _tx = Tx::begin(&self.seg)?;
        Ok(self.seg.header().heap.frontier.get())
    }

    fn warm_up(&self, from: u64, to: u64) -> Result<()> {
        let seg = &self.seg;
        seg.reserve_data(from, to)?;
        {
            let tx = Tx::begin(seg)?;
            // Only what follows directly is known to be backed all the way.
            if from <= seg.header().heap.reserved.get() {
                heap::note_reserved(&tx, to);
            }
            tx.commit();
        }
        let len = (to - from) as usize;
        let at = seg.data(from);
        // SAFETY: a range of our own mapping that has memory behind it; contents are left as they are.
        let rc = unsafe { libc::madvise(at.cast(), len, libc::MADV_POPULATE_WRITE) };
        if rc == 0 {
            return Ok(());
        }
        if errno() != libc::EINVAL {
            return Err(io_error());
        }
        // Kernels before 5.14: touch every page. Adding nothing keeps what its owner may be writing there.
        for page in (0..len).step_by(PAGE_BYTES as usize) {
            // SAFETY: within the range above, aligned, and atomic.
            unsafe { AtomicU32::from_ptr(at.add(page).cast()) }.fetch_add(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sleep(&self, seq: u32, time: Option<Duration>) {
        let timeout = time.map(|time| libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: time.subsec_nanos() as libc::c_long,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |t| t as *const _);
        if self.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the word is in the mapping, which `self.seg` keeps; the timeout outlives the call. Shared between
        // processes, so not the private kind.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.seg.header().prefault_seq.as_ptr(),
                libc::FUTEX_WAIT,
                seq,
                timeout,
            )
        };
    }
}

fn wake(seq: &AtomicU32) {
    seq.fetch_add(1, Ordering::SeqCst);
    // SAFETY: waking only needs the address, which is in our mapping.
    unsafe { libc::syscall(libc::SYS_futex, seq.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Signals belong to the program, not to the store's threads.
pub fn block_signals() {
    // SAFETY: the set is initialised by the first call; the mask is this thread's own.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}
