//! A process that must not outlive the one that started it. A host that computes does not look at its connection, so
//! only a thread of its own can notice that its node is gone.
//!
//! `PR_SET_PDEATHSIG` would be the obvious answer, but it speaks of the parent's *thread*: it fires when the thread that
//! happened to start the process ends, though the parent lives on.

use std::thread;
use std::time::Duration;

use crate::limits::PARENT_LOOK_MS;

/// Ends this process, at once and whatever it does, when `parent` is no longer its parent.
pub fn die_with(parent: i32) -> std::io::Result<()> {
    thread::Builder::new()
        .name("raystore-parent".into())
        .stack_size(64 * 1024)
        .spawn(move || loop {
            // SAFETY: neither call touches memory.
            unsafe {
                if libc::getppid() != parent {
                    libc::kill(libc::getpid(), libc::SIGKILL);
                }
            }
            thread::sleep(Duration::from_millis(PARENT_LOOK_MS));
        })
        .map(|_| ())
}
