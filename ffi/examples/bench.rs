//! What the store costs: `cargo run --release --example bench`. Figures are the best of several runs.

use raystore::segment::Handle;
use raystore::*;
use std::ptr::null_mut;
use std::time::Instant;

const MB: usize = 1 << 20;

/// Nanoseconds of one of `n` calls of `body`, in the fastest of several runs.
fn ns(n: u32, mut body: impl FnMut(u32)) -> f64 {
    (0..7)
        .map(|_| {
            let begun = Instant::now();
            (0..n).for_each(&mut body);
            begun.elapsed().as_nanos() as f64 / n as f64
        })
        .fold(f64::MAX, f64::min)
}

fn gb_per_s(bytes: usize, nanoseconds: f64) -> f64 {
    bytes as f64 / nanoseconds
}

fn key(n: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
    key[16..].copy_from_slice(&n.to_le_bytes());
    key
}

// SAFETY (whole file): every pointer passed is to a live local of the size the function asks for.
fn store(capacity: u64) -> (*mut Handle, u32) {
    let (mut h, mut client) = (null_mut(), 0);
    unsafe {
        assert_eq!(
            rs_store_create([].as_ptr(), 0, capacity, 1 << 20, 64, &mut h),
            0
        );
        assert_eq!(rs_client_register(h, &mut client), 0);
    }
    (h, client)
}

fn create(h: *mut Handle, client: u32, n: u32, size: usize) -> *mut u8 {
    let mut ptr = 0;
    assert_eq!(
        unsafe { rs_object_create(h, client, key(n).as_ptr(), size as u64, &mut ptr) },
        0
    );
    ptr as *mut u8
}

fn seal(h: *mut Handle, client: u32, n: u32) {
    unsafe {
        assert_eq!(rs_object_seal(h, client, key(n).as_ptr(), 0), 0);
        assert_eq!(rs_object_release(h, client, key(n).as_ptr()), 0);
    }
}

fn get_release(h: *mut Handle, client: u32, n: u32) {
    let mut out = [0; 3];
    unsafe {
        assert_eq!(
            rs_object_get(h, client, key(n).as_ptr(), out.as_mut_ptr()),
            0
        );
        assert_eq!(rs_object_release(h, client, key(n).as_ptr()), 0);
    }
}

fn main() {
    small();
    many();
    two_threads();
    large();
}

fn small() {
    let (h, client) = store(64 << 20);
    create(h, client, 1, 1000);
    seal(h, client, 1);
    let t = ns(200_000, |_| get_release(h, client, 1));
    println!("get + release                          {t:8.0} ns");
    let mut out = [0; 3];
    unsafe { rs_object_get(h, client, key(1).as_ptr(), out.as_mut_ptr()) };
    let t = ns(200_000, |_| get_release(h, client, 1));
    println!("get + release of a pinned object       {t:8.0} ns");
    let mut stat = [0; 4];
    let t = ns(200_000, |_| {
        unsafe { rs_object_stat(h, key(1).as_ptr(), stat.as_mut_ptr()) };
    });
    println!("stat                                   {t:8.0} ns");
    let t = ns(200_000, |n| {
        create(h, client, n + 2, 1024);
        seal(h, client, n + 2);
        unsafe { rs_object_delete(h, key(n + 2).as_ptr()) };
    });
    println!("create + seal + release + delete, 1 KB {t:8.0} ns");
    unsafe { rs_store_close(h) };
}

fn many() {
    const N: u32 = 500_000;
    let (h, client) = store(1 << 30);
    let begun = Instant::now();
    for n in 0..N {
        create(h, client, n, 1024);
        seal(h, client, n);
    }
    let t = begun.elapsed().as_nanos() as f64 / N as f64;
    println!("create + seal + release, 1 KB, {N} objects never touched before {t:8.0} ns");
    let t = ns(N, |n| {
        get_release(h, client, n.wrapping_mul(0x9e37_79b1) % N)
    });
    println!("get + release at random among them     {t:8.0} ns");
    let begun = Instant::now();
    unsafe { assert_eq!(rs_check(h), 0) };
    println!(
        "check of them                          {:8.0} ms",
        begun.elapsed().as_millis()
    );
    for n in 0..N {
        unsafe { rs_object_delete(h, key(n).as_ptr()) };
    }
    let begun = Instant::now();
    for n in 0..N {
        create(h, client, n, 1024);
        seal(h, client, n);
    }
    let t = begun.elapsed().as_nanos() as f64 / N as f64;
    println!("create + seal + release again, warm    {t:8.0} ns");
    unsafe { rs_store_close(h) };
}

fn two_threads() {
    let (h, client) = store(64 << 20);
    for n in 0..2 {
        create(h, client, n, 1000);
        seal(h, client, n);
    }
    let h_addr = h as usize;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..2 {
            scope.spawn(move || {
                let h = h_addr as *mut Handle;
                let mut client = 0;
                unsafe { rs_client_register(h, &mut client) };
                (0..500_000).for_each(|_| get_release(h, client, n));
            });
        }
    });
    let t = begun.elapsed().as_nanos() as f64 / 1e6;
    println!("get + release, two threads at once     {t:8.0} ns each of all");
    unsafe { rs_store_close(h) };
}

fn large() {
    for size in [1, 2, 4, 8, 32, 100] {
        let size = size * MB;
        let src = vec![1u8; size];
        let mut dst = vec![2u8; size];
        let runs = (200 * MB / size) as u32;
        let plain = ns(runs.min(20), |_| {
            // SAFETY: both are of that size.
            unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), dst.as_mut_ptr(), size) };
            std::hint::black_box(&mut dst);
        });
        let ours = ns(runs.min(20), |_| {
            unsafe { rs_copy(dst.as_mut_ptr(), src.as_ptr(), size) };
        });
        println!(
            "copy of {:3} MB: one thread {:5.1} GB/s, rs_copy {:5.1} GB/s",
            size / MB,
            gb_per_s(size, plain),
            gb_per_s(size, ours)
        );
    }
    let size = 100 * MB;
    let src = vec![1u8; size];
    for (ahead, name) in [(0, "fresh"), (400 << 20, "prefaulted")] {
        let (h, client) = store(1 << 30);
        if ahead > 0 {
            unsafe { rs_prefault_start(h, ahead, u64::MAX) };
            let begun = Instant::now();
            let mut stats = [0; 20];
            while stats[16] < ahead {
                unsafe { rs_stats(h, stats.as_mut_ptr(), 20) };
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            println!(
                "prefaulting 400 MB took {} ms at its own pace",
                begun.elapsed().as_millis()
            );
            unsafe { rs_prefault_stop(h) };
        }
        for (n, how) in [(1, "plain"), (2, "rs_copy"), (3, "rs_copy")] {
            let begun = Instant::now();
            let ptr = create(h, client, n, size);
            let made = begun.elapsed();
            unsafe {
                if how == "plain" {
                    std::ptr::copy_nonoverlapping(src.as_ptr(), ptr, size);
                } else {
                    rs_copy(ptr, src.as_ptr(), size);
                }
            }
            seal(h, client, n);
            let all = begun.elapsed().as_nanos() as f64;
            println!(
                "put of 100 MB, {name} memory, {how}: {:5.2} GB/s (create alone {} us)",
                gb_per_s(size, all),
                made.as_micros()
            );
        }
        let mut best = f64::MAX;
        for _ in 0..5 {
            unsafe { rs_object_delete(h, key(3).as_ptr()) };
            let begun = Instant::now();
            let ptr = create(h, client, 3, size);
            unsafe { rs_copy(ptr, src.as_ptr(), size) };
            seal(h, client, 3);
            best = best.min(begun.elapsed().as_nanos() as f64);
        }
        println!(
            "put of 100 MB, reused memory, rs_copy: {:5.2} GB/s",
            gb_per_s(size, best)
        );
        unsafe { rs_store_close(h) };
    }
}
