//! Status codes of the C ABI and the `errno` that goes with `RS_IO`.

use std::cell::Cell;

pub const RS_OK: i32 = 0;

/// Why an operation did not happen. The numbers are the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// An object of that key is there, sealed or not.
    Exists = -1,
    NotFound = -2,
    /// The object is there, but its creator has not sealed it.
    Unsealed = -3,
    /// No room now; evicting or releasing something may make room.
    Full = -4,
    /// Larger than the whole store.
    TooBig = -5,
    /// Out of object, client or pin records.
    TableFull = -6,
    /// The caller may not do that to the object now (not its creator, already sealed, not pinned by it), or the store
    /// has been closed by its creator.
    BadState = -7,
    /// No such client, or one that has been released.
    NoClient = -8,
    /// A system call failed; `rs_last_errno` has the reason.
    Io = -9,
    /// The segment contradicts itself. Nothing in it can be trusted any more.
    Corrupt = -10,
    Pinned = -11,
    BadArg = -12,
    NoSpaceOnDisk = -13,
    /// The lock was held for `LOCK_WAIT_MS_MAX`: its owner is stopped.
    TimedOut = -14,
}

pub type Result<T> = core::result::Result<T, Status>;

thread_local! {
    static LAST_ERRNO: Cell<i32> = const { Cell::new(0) };
}

pub fn last_errno() -> i32 {
    LAST_ERRNO.get()
}

pub fn set_last_errno(errno: i32) {
    LAST_ERRNO.set(errno);
}

/// `errno` of the system call that just failed.
pub fn errno() -> i32 {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *libc::__errno_location() }
}

/// Keeps `errno` for `rs_last_errno` and says `Io`.
pub fn io_error() -> Status {
    set_last_errno(errno());
    Status::Io
}
