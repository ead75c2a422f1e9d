//! Objects to files and back. Which, when and where is the caller's business.

use crate::layout::Key;
use crate::limits::SPILL_IO_BYTES_MAX;
use crate::objects;
use crate::pins::Use;
use crate::segment::{unnamed_file, without_sigxfsz, Segment};
use crate::status::{errno, io_error, set_last_errno, Result, Status};
use std::ffi::CString;
use std::os::fd::{IntoRawFd, RawFd};

/// An unnamed file in `dir`; it goes with its descriptor.
pub fn create(dir: &[u8]) -> Result<RawFd> {
    Ok(unnamed_file(dir).map_err(disk_full)?.into_raw_fd())
}

/// Writes a sealed object to a file. Doing so does not count as use of the object.
pub fn write(seg: &Segment, client: u32, key: &Key, fd: RawFd, offset: u64) -> Result<()> {
    let view = objects::get(seg, client, key)?;
    let written = write_all(fd, view.ptr, view.size, offset);
    let released = objects::release(seg, client, key, Some(view.ptr as u64), Use::DoesNotCount);
    written.and(released)
}

/// Makes an object of a part of a file, sealed and held by nobody.
pub fn read(
    seg: &Segment,
    client: u32,
    fd: RawFd,
    offset: u64,
    key: &Key,
    size: u64,
    meta: u64,
) -> Result<()> {
    let ptr = objects::create(seg, client, key, size)?;
    if let Err(status) = read_all(fd, ptr, size, offset) {
        let _ = objects::abort(seg, client, key);
        return Err(status);
    }
    objects::seal(seg, client, key, meta)?;
    objects::release(seg, client, key, Some(ptr as u64), Use::Counts)
}

fn write_all(fd: RawFd, ptr: *const u8, size: u64, offset: u64) -> Result<()> {
    let mut done = 0;
    while done < size {
        let len = (size - done).min(SPILL_IO_BYTES_MAX as u64) as usize;
        // SAFETY: the object is pinned, so `size` bytes at `ptr` stay valid.
        let n = without_sigxfsz(|| unsafe {
            libc::pwrite(
                fd,
                ptr.add(done as usize).cast(),
                len,
                (offset + done) as i64,
            ) as i64
        });
        match n {
            0 => {
                set_last_errno(libc::ENOSPC);
                return Err(Status::NoSpaceOnDisk);
            }
            n if n > 0 => done += n as u64,
            _ if errno() == libc::EINTR => {}
            _ => return Err(disk_full(io_error())),
        }
    }
    Ok(())
}

fn read_all(fd: RawFd, ptr: *mut u8, size: u64, offset: u64) -> Result<()> {
    let mut done = 0;
    while done < size {
        let len = (size - done).min(SPILL_IO_BYTES_MAX as u64) as usize;
        // SAFETY: the object is unsealed and ours, so `size` bytes at `ptr` are ours to write.
        let n = unsafe {
            libc::pread(
                fd,
                ptr.add(done as usize).cast(),
                len,
                (offset + done) as i64,
            )
        };
        match n {
            0 => {
                // The file is shorter than it should be.
                set_last_errno(libc::ENODATA);
                return Err(Status::Io);
            }
            n if n > 0 => done += n as u64,
            _ if errno() == libc::EINTR => {}
            _ => return Err(io_error()),
        }
    }
    Ok(())
}

/// Gives the disk space of a part of the file back.
pub fn punch(fd: RawFd, offset: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    // SAFETY: a plain system call.
    let rc = unsafe {
        libc::fallocate(
            fd,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            offset as i64,
            len as i64,
        )
    };
    if rc != 0 {
        return Err(io_error());
    }
    Ok(())
}

pub fn close(fd: RawFd) -> Result<()> {
    // SAFETY: the caller gives the descriptor up.
    if unsafe { libc::close(fd) } != 0 {
        return Err(io_error());
    }
    Ok(())
}

/// Bytes an unprivileged user may still write to the file system of `path`.
pub fn free_bytes(path: &[u8]) -> Result<u64> {
    let path = CString::new(path).map_err(|_| Status::BadArg)?;
    // SAFETY: `path` is a C string and `stat` plain data that the call fills in.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &mut stat) != 0 {
            return Err(io_error());
        }
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn disk_full(status: Status) -> Status {
    match crate::status::last_errno() {
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG if status == Status::Io => Status::NoSpaceOnDisk,
        _ => status,
    }
}
