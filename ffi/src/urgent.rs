//! A thread for which others wait, on this machine and on others: it runs as soon as it wakes, before all threads of the
//! usual kind, whatever process they are of.
//!
//! Other priorities do not do that. A nice value only says how much each thread gets in the long run; the scheduler lets
//! one that runs go on for some milliseconds, whoever wakes, and a process that was killed takes its memory down as one of
//! those that run. The system sees to it that such a thread leaves a twentieth of the time to the others.

use crate::status::{io_error, Result};

/// Makes the calling thread such a one, or one of the usual kind again. What it starts is of the usual kind.
pub fn set(urgent: bool) -> Result<()> {
    let policy = if urgent {
        libc::SCHED_RR
    } else {
        libc::SCHED_OTHER
    };
    // SAFETY: plain system calls, the second of which reads `param`.
    let result = unsafe {
        let param = libc::sched_param {
            sched_priority: libc::sched_get_priority_min(policy),
        };
        libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &param)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{last_errno, Status};

    fn policy() -> i32 {
        // SAFETY: a plain system call.
        unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
    }

    #[test]
    fn a_thread_is_urgent_for_a_while_where_the_system_allows_it() {
        match set(true) {
            Ok(()) => assert_eq!(policy(), libc::SCHED_RR),
            Err(status) => {
                assert_eq!((status, last_errno()), (Status::Io, libc::EPERM));
                assert_eq!(policy(), libc::SCHED_OTHER);
            }
        }
        assert_eq!(
            std::thread::spawn(policy).join().unwrap(),
            libc::SCHED_OTHER
        );
        set(false).unwrap();
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
