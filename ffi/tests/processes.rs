//! Several real processes on one store: this test's binary starts itself again with a store's path in its environment.

use raystore::segment::Handle;
use raystore::*;
use std::process::{Child, Command};
use std::ptr::null_mut;

const PATH: &str = "RAYSTORE_TEST_PATH";
const SEED: &str = "RAYSTORE_TEST_SEED";
const ROUNDS: u32 = 300_000;
const KEYS: u64 = 300;

fn key(n: u64) -> [u8; 20] {
    let mut key = [3; 20];
    key[..8].copy_from_slice(&n.to_le_bytes());
    key
}

fn open(path: &str) -> *mut Handle {
    let mut h = null_mut();
    // SAFETY (whole file): every pointer passed is to a live local of the size the function asks for.
    assert_eq!(
        unsafe { rs_store_open(path.as_ptr(), path.len(), &mut h) },
        0
    );
    h
}

fn register(h: *mut Handle) -> u32 {
    let mut client = 0;
    assert_eq!(unsafe { rs_client_register(h, &mut client) }, 0);
    client
}

fn stats(h: *mut Handle) -> [u64; 20] {
    let mut stats = [0; 20];
    assert_eq!(unsafe { rs_stats(h, stats.as_mut_ptr(), 20) }, 20);
    stats
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Words that only object `n` of that size has, with their hash at the end as `meta`.
fn fill(ptr: u64, size: u64, n: u64) -> u64 {
    let bytes = unsafe { std::slice::from_raw_parts_mut(ptr as *mut u8, size as usize) };
    let mut random = Random((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ size);
    for chunk in bytes.chunks_mut(8) {
        let word = random.below(u64::MAX).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    unsafe { rs_hash64(ptr as *const u8, size as usize) }
}

/// What a program does with a store, many times over, on keys that others use as well.
fn hammer(h: *mut Handle, seed: u64, rounds: u32) {
    let client = register(h);
    let mut random = Random(seed | 1);
    let mut held: Vec<(u64, u64)> = Vec::new();
    let mut read = 0;
    for _ in 0..rounds {
        let n = random.below(KEYS);
        let key_n = key(n);
        match random.below(10) {
            0..=2 => {
                let (mut ptr, size) = (0, random.below(1 << (4 + random.0 % 12)));
                match unsafe { rs_object_create(h, client, key_n.as_ptr(), size, &mut ptr) } {
                    0 => {
                        let meta = fill(ptr, size, n);
                        // 1: someone has deleted it already.
                        assert!(unsafe { rs_object_seal(h, client, key_n.as_ptr(), meta) } >= 0);
                        held.push((n, ptr));
                    }
                    -1 => {}
                    -4 => {
                        let (mut keys, mut sizes) = ([0u8; 20 * 8], [0u64; 8]);
                        let n =
                            unsafe { rs_lru(h, size, keys.as_mut_ptr(), sizes.as_mut_ptr(), 8) };
                        for victim in keys.chunks(20).take(n as usize) {
                            // Someone else may have been faster, or may want it.
                            let code = unsafe { rs_object_evict(h, victim.as_ptr()) };
                            assert!(matches!(code, 0 | -2 | -11), "evict: {code}");
                        }
                    }
                    code => panic!("create: {code}"),
                }
            }
            3..=6 => {
                let mut out = [0; 3];
                match unsafe { rs_object_get(h, client, key_n.as_ptr(), out.as_mut_ptr()) } {
                    0 => {
                        let hash = unsafe { rs_hash64(out[0] as *const u8, out[1] as usize) };
                        assert_eq!(hash, out[2], "object {n} has wrong contents");
                        held.push((n, out[0]));
                        read += 1;
                    }
                    -2 | -3 => {}
                    code => panic!("get: {code}"),
                }
            }
            7..=8 => {
                let code = unsafe { rs_object_delete(h, key_n.as_ptr()) };
                assert!(matches!(code, 0 | 1 | -2), "delete: {code}");
            }
            _ => {}
        }
        while held.len() > 10 {
            let (n, ptr) = held.swap_remove(random.below(held.len() as u64) as usize);
            let code = unsafe { rs_object_release_at(h, client, key(n).as_ptr(), ptr) };
            assert_eq!(code, 0, "release");
        }
    }
    assert!(read > 0);
    assert_eq!(unsafe { rs_client_release(h, client) }, 0);
}

/// Not a test: what a child process runs.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let h = open(&path);
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    hammer(h, seed, ROUNDS);
    assert_eq!(unsafe { rs_store_close(h) }, 0);
}

fn start(path: &str, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(PATH, path)
        .env(SEED, seed.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_and_threads_share_a_store() {
    if std::env::var(PATH).is_ok() {
        return;
    }
    let mut h = null_mut();
    assert_eq!(
        unsafe { rs_store_create([].as_ptr(), 0, 1 << 20, 400, 16, &mut h) },
        0
    );
    assert_eq!(unsafe { rs_prefault_start(h, 256 << 10, u64::MAX) }, 0);
    let mut buf = [0; 64];
    let n = unsafe { rs_store_path(h, buf.as_mut_ptr(), 64) };
    let path = std::str::from_utf8(&buf[..n as usize]).unwrap();
    let children: Vec<Child> = (1..=3).map(|n| start(path, n * 0x1234_5677)).collect();
    std::thread::scope(|scope| {
        for n in 1..=2 {
            scope.spawn(move || {
                let h = open(path);
                hammer(h, n * 0x7654_3211, ROUNDS);
                assert_eq!(unsafe { rs_store_close(h) }, 0);
            });
        }
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(unsafe { rs_check(h) }, 0);
    assert_eq!(unsafe { rs_clients_reap(h) }, 0);
    let stats = stats(h);
    assert_eq!(
        (stats[6], stats[4], stats[10], stats[11], stats[15]),
        (0, 0, 0, 0, 0)
    );
    assert_eq!(stats[8], 0, "nobody died");
    assert_eq!(unsafe { rs_store_close(h) }, 0);
}

#[test]
fn a_store_outlives_the_process_that_made_it() {
    if std::env::var(PATH).is_ok() {
        return;
    }
    // The maker is a fork of this process that is killed; this process then has the only mapping.
    let mut pipe = [0; 2];
    assert_eq!(
        unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) },
        0
    );
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        unsafe {
            let mut h = null_mut();
            let mut buf = [0u8; 64];
            rs_store_create([].as_ptr(), 0, 1 << 20, 400, 16, &mut h);
            let client = register(h);
            let (mut ptr, mut abandoned) = (0, 0);
            rs_object_create(h, client, key(1).as_ptr(), 100, &mut ptr);
            rs_object_seal(h, client, key(1).as_ptr(), fill(ptr, 100, 1));
            rs_object_create(h, client, key(2).as_ptr(), 100, &mut abandoned);
            let n = rs_store_path(h, buf.as_mut_ptr(), 64);
            libc::write(pipe[1], buf.as_ptr().cast(), n as usize);
            libc::alarm(30);
            loop {
                libc::pause();
            }
        }
    }
    let mut buf = [0u8; 64];
    let n = unsafe { libc::read(pipe[0], buf.as_mut_ptr().cast(), 64) };
    let h = open(std::str::from_utf8(&buf[..n as usize]).unwrap());
    let client = register(h);
    assert_eq!(unsafe { rs_clients_reap(h) }, 0);
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        // Not waited for with waitpid yet: a zombie counts as gone.
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(
            libc::P_PID,
            pid as u32,
            &mut info,
            libc::WEXITED | libc::WNOWAIT,
        );
    }
    assert_eq!(unsafe { rs_clients_reap(h) }, 1);
    unsafe { libc::waitpid(pid, null_mut(), 0) };
    assert_eq!(unsafe { rs_check(h) }, 0);
    let mut out = [0; 3];
    assert_eq!(
        unsafe { rs_object_get(h, client, key(1).as_ptr(), out.as_mut_ptr()) },
        0
    );
    assert_eq!(
        unsafe { rs_hash64(out[0] as *const u8, out[1] as usize) },
        out[2]
    );
    // What it had not sealed went with it.
    let code = unsafe { rs_object_get(h, client, key(2).as_ptr(), out.as_mut_ptr()) };
    assert_eq!(code, -2);
    unsafe {
        rs_store_close(h);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
    }
}
