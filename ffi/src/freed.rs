//! Memory of the process that was freed and is soon wanted again.
//!
//! Values of a megabyte come from the C library's heap when a program makes them, and go back to it when the engine has
//! collected them: several at once, as they are collected together. By default the library then gives the top of its
//! heap back to the system, from 2 MB on, and the next values fault it in anew, page by page: of a task that makes and
//! returns 1 MB, that was 0.3 of 0.7 ms, in those runs in which nothing else happened to lie on top.

use crate::limits::{FREED_KEPT_BYTES_MAX, HEAP_VALUE_BYTES_MAX};

/// Has the C library keep what is freed: in each of its heaps, at most `FREED_KEPT_BYTES_MAX` at the top.
pub fn keep() -> bool {
    // The sizes count together: when one is set, the library no longer adapts the other.
    // SAFETY: it changes two numbers that allocation reads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_VALUE_BYTES_MAX) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, FREED_KEPT_BYTES_MAX) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that this thread has faulted in.
    fn faults() -> i64 {
        // SAFETY: all zeros is a valid value, and the call writes all of it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
            usage.ru_minflt
        }
    }

    /// Other tests use the heap at the same time, each from a thread of its own: so this one runs in a process of its own.
    #[test]
    fn values_that_were_freed_together_leave_warm_memory() {
        if std::env::var_os(ALONE).is_some() {
            return leaves_warm_memory();
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "freed::tests::values_that_were_freed_together_leave_warm_memory",
            ])
            .args(["--test-threads=1", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    const ALONE: &str = "RAYSTORE_TEST_ALONE";

    fn leaves_warm_memory() {
        assert!(keep());
        let round = || {
            let values: Vec<Vec<u8>> = (0..6).map(|i| vec![i + 1; 1 << 20]).collect();
            assert_eq!(values[5][1 << 19], 6);
        };
        round();
        let before = faults();
        for _ in 0..10 {
            round();
        }
        let faults = faults() - before;
        assert!(faults < 1000, "{faults} of 15,360 pages were faulted in");
    }
}
