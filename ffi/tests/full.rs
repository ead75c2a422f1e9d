//! No memory, no disk: an answer, never a signal.
//!
//! The first tests mount a small tmpfs where only they see it, in a child with its own mount namespace; where the
//! system allows neither root nor user namespaces they say so and check nothing.

use raystore::segment::Handle;
use raystore::*;
use std::ptr::null_mut;

const FULL: i32 = -4;
const NO_SPACE_ON_DISK: i32 = -13;
const SKIPPED: i32 = 77;

fn key(n: u32) -> [u8; 20] {
    let mut key = [9; 20];
    key[..4].copy_from_slice(&n.to_le_bytes());
    key
}

/// Runs `body` in a forked child and gives back its exit status.
fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY (whole file): children only use the store and plain system calls; every pointer passed is to a live local
    // of the size the function asks for.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::alarm(30);
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(code.unwrap_or(101));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        assert!(
            libc::WIFEXITED(status),
            "killed by signal {}",
            libc::WTERMSIG(status)
        );
        libc::WEXITSTATUS(status)
    }
}

/// Mounts a tmpfs of 4 MiB on /mnt for this process alone.
fn small_tmpfs() -> bool {
    unsafe {
        let own = libc::unshare(libc::CLONE_NEWNS) == 0
            || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0;
        let none = null_mut::<libc::c_void>();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        own && libc::mount(c"none".as_ptr(), c"/".as_ptr(), c"".as_ptr(), private, none) == 0
            && libc::mount(
                c"tmpfs".as_ptr(),
                c"/mnt".as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=4m".as_ptr().cast(),
            ) == 0
    }
}

fn store(dir: &str, capacity: u64, objects: u32) -> (*mut Handle, u32) {
    let (mut h, mut client) = (null_mut(), 0);
    unsafe {
        let code = rs_store_create(dir.as_ptr(), dir.len(), capacity, objects, 8, &mut h);
        assert_eq!(code, 0);
        assert_eq!(rs_client_register(h, &mut client), 0);
    }
    (h, client)
}

fn put(h: *mut Handle, client: u32, n: u32, size: u64) -> i32 {
    unsafe {
        let mut ptr = 0;
        let code = rs_object_create(h, client, key(n).as_ptr(), size, &mut ptr);
        if code == 0 {
            (ptr as *mut u8).write_bytes(n as u8, size as usize);
            assert_eq!(rs_object_seal(h, client, key(n).as_ptr(), 0), 0);
            assert_eq!(rs_object_release(h, client, key(n).as_ptr()), 0);
        }
        code
    }
}

fn finish(code: i32) {
    if code == SKIPPED {
        eprintln!("skipped: no tmpfs may be mounted here");
    } else {
        assert_eq!(code, 0);
    }
}

#[test]
fn a_store_larger_than_its_file_system_is_full_when_that_is() {
    finish(in_child(|| {
        if !small_tmpfs() {
            return SKIPPED;
        }
        for size in [3000, 200 << 10, 1 << 20] {
            let (h, client) = store("/mnt", 64 << 20, 100_000);
            let mut n = 0;
            let code = loop {
                match put(h, client, n, size) {
                    0 => n += 1,
                    code => break code,
                }
            };
            assert_eq!(code, FULL);
            assert!(n as u64 * size > 2 << 20, "{n} objects of {size} bytes");
            assert_eq!(rs_last_errno(), libc::ENOSPC);
            assert_eq!(unsafe { rs_check(h) }, 0);
            // What was given back is used again.
            for n in 0..2 {
                assert_eq!(unsafe { rs_object_delete(h, key(n).as_ptr()) }, 0);
            }
            assert_eq!(put(h, client, 0, size), 0);
            // Prefaulting finds no memory either, and bears it.
            assert_eq!(unsafe { rs_prefault_start(h, 32 << 20, u64::MAX) }, 0);
            assert_eq!(put(h, client, 1, size), 0);
            assert_eq!(put(h, client, 2, size), -1);
            assert_eq!(put(h, client, n, 1 << 20), FULL);
            assert_eq!(unsafe { rs_check(h) }, 0);
            assert_eq!(unsafe { rs_store_close(h) }, 0);
        }
        0
    }));
}

#[test]
fn tables_that_cannot_grow_make_the_store_full() {
    finish(in_child(|| {
        if !small_tmpfs() {
            return SKIPPED;
        }
        let (h, client) = store("/mnt", 64 << 20, 1_000_000);
        let mut n = 0;
        while put(h, client, n, 1) == 0 {
            n += 1;
        }
        assert_eq!(put(h, client, n, 1), FULL);
        assert!(n > 5000, "{n}");
        assert_eq!(unsafe { rs_check(h) }, 0);
        // Pins need records as well.
        let mut out = [0; 3];
        let mut code = 0;
        for m in 0..n {
            code = unsafe { rs_object_get(h, client, key(m).as_ptr(), out.as_mut_ptr()) };
            if code != 0 {
                break;
            }
        }
        assert_eq!(code, FULL);
        assert_eq!(unsafe { rs_check(h) }, 0);
        assert_eq!(unsafe { rs_store_close(h) }, 0);
        0
    }));
}

#[test]
fn a_file_system_too_small_for_the_header_is_an_error() {
    finish(in_child(|| {
        if !small_tmpfs() {
            return SKIPPED;
        }
        let mut fd = -1;
        unsafe {
            assert_eq!(rs_spill_create("/mnt".as_ptr(), 4, &mut fd), 0);
            assert_eq!(libc::fallocate(fd, 0, 0, 4 << 20), 0);
            let mut h = null_mut();
            assert_eq!(
                rs_store_create("/mnt".as_ptr(), 4, 1 << 20, 10, 8, &mut h),
                FULL
            );
            assert_eq!(rs_last_errno(), libc::ENOSPC);
            // Space that is given back can be used.
            assert_eq!(rs_spill_punch(fd, 0, 4 << 20), 0);
            assert_eq!(
                rs_store_create("/mnt".as_ptr(), 4, 1 << 20, 10, 8, &mut h),
                0
            );
            assert_eq!(rs_store_close(h), 0);
        }
        0
    }));
}

#[test]
fn spilling_to_a_full_disk_says_so() {
    finish(in_child(|| {
        if !small_tmpfs() {
            return SKIPPED;
        }
        let (h, client) = store("", 16 << 20, 10);
        assert_eq!(put(h, client, 1, 3 << 20), 0);
        assert_eq!(put(h, client, 2, 3 << 20), 0);
        let mut fd = -1;
        unsafe {
            assert_eq!(rs_spill_create("/mnt".as_ptr(), 4, &mut fd), 0);
            assert_eq!(rs_spill_write(h, client, key(1).as_ptr(), fd, 0), 0);
            let code = rs_spill_write(h, client, key(2).as_ptr(), fd, 3 << 20);
            assert_eq!(code, NO_SPACE_ON_DISK);
            assert_eq!(rs_last_errno(), libc::ENOSPC);
            // The object is as it was.
            let mut stat = [0; 4];
            assert_eq!(rs_object_stat(h, key(2).as_ptr(), stat.as_mut_ptr()), 0);
            assert_eq!(stat, [3 << 20, 2, 0, 0]);
            assert_eq!(rs_check(h), 0);
        }
        0
    }));
}

#[test]
fn the_limit_of_file_sizes_is_an_error_not_a_signal() {
    let code = in_child(|| {
        let (h, client) = store("", 16 << 20, 10);
        assert_eq!(put(h, client, 1, 3 << 20), 0);
        let mut fd = -1;
        unsafe {
            assert_eq!(rs_spill_create("/tmp".as_ptr(), 4, &mut fd), 0);
            let limit = libc::rlimit {
                rlim_cur: 1 << 20,
                rlim_max: 1 << 20,
            };
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
            let code = rs_spill_write(h, client, key(1).as_ptr(), fd, 0);
            assert_eq!(code, NO_SPACE_ON_DISK);
            assert_eq!(rs_last_errno(), libc::EFBIG);
            let mut h = null_mut();
            assert_eq!(rs_store_create("".as_ptr(), 0, 64 << 20, 10, 8, &mut h), -9);
            assert_eq!(rs_last_errno(), libc::EFBIG);
        }
        0
    });
    assert_eq!(code, 0);
}
