//! Clients that die at the worst moment.
//!
//! First systematically: every store to the segment is a crash point, before and after it and its undo record, and
//! each operation is killed at each of its points in turn. What is left must be the state before or the state after,
//! nothing else. Then at random: processes that work as fast as they can are killed by others, a thousand times.

use crate::check;
use crate::clients;
use crate::layout::Key;
use crate::objects;
use crate::pins::Use;
use crate::segment::Segment;
use crate::status::Status;
use std::sync::atomic::{AtomicU64, Ordering};

/// Crash points to pass before the end; 0 for "never". Set in forked children only.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

#[inline]
pub fn crash_point() {
    if COUNTDOWN.load(Ordering::Relaxed) != 0 && COUNTDOWN.fetch_sub(1, Ordering::Relaxed) == 1 {
        // SAFETY: ends this process, which is a test's child.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

#[derive(Debug, PartialEq)]
enum End {
    Exit(i32),
    Signal(i32),
}

struct Child(libc::pid_t);

impl Child {
    /// Runs `body` in a fork of this process. A child that hangs ends by SIGALRM.
    fn fork(body: impl FnOnce()) -> Child {
        // SAFETY: the child only uses the segment and allocates, which the C library allows after a fork.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: plain system calls of the child.
                unsafe { libc::alarm(30) };
                let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
                // SAFETY: as above; nothing of the parent's is flushed or dropped.
                unsafe { libc::_exit(if ok { 0 } else { 101 }) }
            }
            pid => {
                assert!(pid > 0);
                Child(pid)
            }
        }
    }

    fn kill(&self) {
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    fn wait(self) -> End {
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        if libc::WIFSIGNALED(status) {
            End::Signal(libc::WTERMSIG(status))
        } else {
            End::Exit(libc::WEXITSTATUS(status))
        }
    }
}

fn key(n: u32) -> Key {
    Key {
        a: 0x1234,
        b: 0x5678,
        c: n,
    }
}

fn segment(objects: u32) -> Segment {
    Segment::create(b"", 1 << 20, objects, 16).unwrap()
}

fn put(seg: &Segment, client: u32, n: u32, size: u64) {
    objects::create(seg, client, &key(n), size).unwrap();
    objects::seal(seg, client, &key(n), n as u64).unwrap();
    objects::release(seg, client, &key(n), None, Use::Counts).unwrap();
}

fn assert_sound(seg: &Segment, context: &dyn std::fmt::Debug) {
    assert_eq!(check::problem(seg).unwrap(), None, "{context:?}");
}

/// All that can be seen of a store, apart from what only ever grows.
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    objects: Vec<(u32, [u64; 4])>,
    lru: Vec<u32>,
    stats: Vec<u64>,
}

fn picture(seg: &Segment) -> Picture {
    let mut objects = Vec::new();
    objects::list(seg, 0, u32::MAX, |_, key, stat| objects.push((key.c, stat))).unwrap();
    objects.sort_unstable();
    let mut lru = Vec::new();
    objects::lru(seg, u64::MAX, u32::MAX, |_, key, _| lru.push(key.c)).unwrap();
    let stats = objects::stats(seg).unwrap();
    // Used bytes, objects, sealed, pinned bytes, touched bytes, clients, largest free, unsealed, doomed, evictable
    // bytes, pin records and blocks.
    let stats = [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 15, 18].map(|i| stats[i]);
    Picture {
        objects,
        lru,
        stats: stats.to_vec(),
    }
}

struct Scenario {
    name: &'static str,
    objects: u32,
    /// Operations of several transactions may stop between them.
    atomic: bool,
    prepare: fn(&Segment, u32),
    operation: fn(&Segment, u32),
}

fn nothing(_: &Segment, _: u32) {}

fn done<T>(_: T) {}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "register",
        objects: 10,
        atomic: true,
        prepare: nothing,
        operation: |seg, _| done(clients::register(seg)),
    },
    Scenario {
        name: "create on a fresh store",
        objects: 10,
        atomic: true,
        prepare: |seg, _| {
            let tx = crate::journal::Tx::begin(seg).unwrap();
            seg.reserve_data(0, 4096).unwrap();
            crate::heap::note_reserved(&tx, 4096);
            tx.commit();
        },
        operation: |seg, client| done(objects::create(seg, client, &key(1), 1000)),
    },
    Scenario {
        name: "create that has to reserve memory",
        objects: 10,
        atomic: true,
        prepare: nothing,
        operation: |seg, client| done(objects::create(seg, client, &key(1), 1000)),
    },
    Scenario {
        name: "create in a part of a free block",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..3).for_each(|n| put(seg, client, n, 5000));
            objects::delete(seg, &key(1)).unwrap();
        },
        operation: |seg, client| done(objects::create(seg, client, &key(7), 1000)),
    },
    Scenario {
        name: "create that extends the free tail",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..3).for_each(|n| put(seg, client, n, 5000));
            objects::delete(seg, &key(2)).unwrap();
        },
        operation: |seg, client| done(objects::create(seg, client, &key(7), 6000)),
    },
    Scenario {
        name: "create that divides a bucket",
        objects: 100,
        atomic: true,
        prepare: |seg, client| (0..64).for_each(|n| put(seg, client, n, 10)),
        operation: |seg, client| done(objects::create(seg, client, &key(1000), 10)),
    },
    Scenario {
        name: "create that makes the tables grow",
        objects: 2000,
        atomic: true,
        // 64 KiB hold 511 objects besides record 0.
        prepare: |seg, client| (0..511).for_each(|n| put(seg, client, n, 10)),
        operation: |seg, client| done(objects::create(seg, client, &key(1000), 10)),
    },
    Scenario {
        name: "seal",
        objects: 10,
        atomic: true,
        prepare: |seg, client| done(objects::create(seg, client, &key(1), 10)),
        operation: |seg, client| done(objects::seal(seg, client, &key(1), 9).unwrap()),
    },
    Scenario {
        name: "abort",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            put(seg, client, 0, 100);
            objects::create(seg, client, &key(1), 10).unwrap();
            put(seg, client, 2, 100);
        },
        operation: |seg, client| objects::abort(seg, client, &key(1)).unwrap(),
    },
    Scenario {
        name: "first get",
        objects: 10,
        atomic: true,
        prepare: |seg, client| (0..3).for_each(|n| put(seg, client, n, 100)),
        operation: |seg, client| done(objects::get(seg, client, &key(1)).unwrap()),
    },
    Scenario {
        name: "second get",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            put(seg, client, 1, 100);
            objects::get(seg, client, &key(1)).unwrap();
        },
        operation: |seg, client| done(objects::get(seg, client, &key(1)).unwrap()),
    },
    Scenario {
        name: "get of what another client pins",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            put(seg, client, 1, 100);
            put(seg, client, 2, 100);
            let other = clients::register(seg).unwrap();
            objects::get(seg, other, &key(1)).unwrap();
            objects::get(seg, client, &key(2)).unwrap();
        },
        operation: |seg, client| done(objects::get(seg, client, &key(1)).unwrap()),
    },
    Scenario {
        name: "last release",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..3).for_each(|n| put(seg, client, n, 100));
            objects::get(seg, client, &key(1)).unwrap();
        },
        operation: |seg, client| {
            objects::release(seg, client, &key(1), None, Use::Counts).unwrap();
        },
    },
    Scenario {
        name: "last release that does not count as use",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..3).for_each(|n| put(seg, client, n, 100));
            objects::get(seg, client, &key(1)).unwrap();
        },
        operation: |seg, client| {
            objects::release(seg, client, &key(1), None, Use::DoesNotCount).unwrap();
        },
    },
    Scenario {
        name: "last release of a deleted object between free blocks",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..4).for_each(|n| put(seg, client, n, 100));
            objects::get(seg, client, &key(1)).unwrap();
            [0, 1, 2]
                .iter()
                .for_each(|&n| done(objects::delete(seg, &key(n)).unwrap()));
        },
        operation: |seg, client| {
            objects::release(seg, client, &key(1), None, Use::Counts).unwrap();
        },
    },
    Scenario {
        name: "delete between free blocks",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            (0..4).for_each(|n| put(seg, client, n, 100));
            [0, 2]
                .iter()
                .for_each(|&n| done(objects::delete(seg, &key(n)).unwrap()));
        },
        operation: |seg, _| done(objects::delete(seg, &key(1)).unwrap()),
    },
    Scenario {
        name: "delete while pinned",
        objects: 10,
        atomic: true,
        prepare: |seg, client| {
            put(seg, client, 1, 100);
            objects::get(seg, client, &key(1)).unwrap();
        },
        operation: |seg, _| done(objects::delete(seg, &key(1)).unwrap()),
    },
    Scenario {
        name: "evict",
        objects: 10,
        atomic: true,
        prepare: |seg, client| (0..3).for_each(|n| put(seg, client, n, 100)),
        operation: |seg, _| objects::evict(seg, &key(1)).unwrap(),
    },
    Scenario {
        name: "release of a client",
        objects: 10,
        atomic: false,
        prepare: |seg, client| {
            (0..4).for_each(|n| put(seg, client, n, 100));
            (0..3).for_each(|n| done(objects::get(seg, client, &key(n)).unwrap()));
            objects::delete(seg, &key(1)).unwrap();
            objects::create(seg, client, &key(9), 10).unwrap();
        },
        operation: |seg, client| clients::release(seg, client).unwrap(),
    },
    Scenario {
        name: "closing the store",
        objects: 10,
        atomic: false,
        prepare: |seg, client| {
            (0..4).for_each(|n| put(seg, client, n, 5000));
            objects::get(seg, client, &key(1)).unwrap();
        },
        operation: |seg, _| objects::shut(seg).unwrap(),
    },
];

#[test]
fn every_operation_killed_at_every_point_is_done_or_undone() {
    let mut points = 0;
    for scenario in SCENARIOS {
        let start = || {
            let seg = segment(scenario.objects);
            let keeper = clients::register(&seg).unwrap();
            put(&seg, keeper, 5000, 300);
            objects::get(&seg, keeper, &key(5000)).unwrap();
            seg
        };
        for n in 1.. {
            let seg = start();
            let idle = picture(&seg);
            // The child tells what it saw before, and the parent has what an undisturbed run comes to.
            let client = clients::register(&seg).unwrap();
            (scenario.prepare)(&seg, client);
            let before = picture(&seg);
            let child = Child::fork(|| {
                COUNTDOWN.store(n, Ordering::Relaxed);
                (scenario.operation)(&seg, client);
                COUNTDOWN.store(0, Ordering::Relaxed);
            });
            let end = child.wait();
            let context = (scenario.name, n);
            assert_sound(&seg, &context);
            let now = picture(&seg);
            let after = {
                let seg = start();
                let client = clients::register(&seg).unwrap();
                (scenario.prepare)(&seg, client);
                (scenario.operation)(&seg, client);
                picture(&seg)
            };
            if end == End::Exit(0) {
                assert_eq!(now, after, "{context:?}");
                assert!(n > 3, "{context:?}: nothing was tried");
                break;
            }
            assert_eq!(end, End::Signal(libc::SIGKILL), "{context:?}");
            points += 1;
            if scenario.atomic {
                assert!(
                    now == before || now == after,
                    "{context:?}\n{before:?}\n{now:?}\n{after:?}"
                );
            }
            // The store goes on, and nothing is lost with the client.
            if scenario.name == "closing the store" {
                objects::shut(&seg).unwrap();
            } else {
                put(&seg, clients::register(&seg).unwrap(), 7000, 2000);
                // All but the keeper, which has slot 1; ids of the first generation.
                for slot in 2..=16 {
                    let _ = clients::release(&seg, 1 << 16 | slot);
                }
                let now = picture(&seg);
                assert_eq!(now.stats[3], idle.stats[3], "{context:?}: pinned bytes");
                assert_eq!(now.stats[10], idle.stats[10], "{context:?}: pin records");
            }
            assert_sound(&seg, &context);
        }
    }
    assert!(points > 500, "{points}");
}

#[test]
fn a_repair_killed_at_every_point_is_finished_by_the_next() {
    let scenario = SCENARIOS
        .iter()
        .find(|s| s.name == "delete between free blocks")
        .unwrap();
    let after = {
        let seg = segment(10);
        let client = clients::register(&seg).unwrap();
        (scenario.prepare)(&seg, client);
        (scenario.operation)(&seg, client);
        picture(&seg)
    };
    for first in (5..).step_by(7) {
        let mut killed = false;
        for second in 1.. {
            let seg = segment(10);
            let client = clients::register(&seg).unwrap();
            (scenario.prepare)(&seg, client);
            let before = picture(&seg);
            let child = Child::fork(|| {
                COUNTDOWN.store(first, Ordering::Relaxed);
                (scenario.operation)(&seg, client);
            });
            killed = child.wait() != End::Exit(0);
            if !killed {
                break;
            }
            // The next to come repairs, and is killed as well.
            let end = Child::fork(|| {
                COUNTDOWN.store(second, Ordering::Relaxed);
                let _ = objects::stat(&seg, &key(77));
            })
            .wait();
            assert_sound(&seg, &(first, second));
            assert!(
                picture(&seg) == before || picture(&seg) == after,
                "{first} {second}"
            );
            if end == End::Exit(0) {
                break;
            }
        }
        if !killed {
            break;
        }
    }
}

/// What a child does until it is killed: anything, on keys it shares with others, checking all it reads.
fn work(seg: &Segment, seed: u64) {
    const KEYS: u64 = 200;
    let mut state = seed | 1;
    let mut random = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % n
    };
    let client = clients::register(seg).unwrap();
    let mut held: Vec<(u32, u64)> = Vec::new();
    loop {
        let n = random(KEYS) as u32;
        let key = key(n);
        match random(10) {
            0..=2 => {
                let size = 1 + (random(1 << 13) >> random(8));
                match objects::create(seg, client, &key, size) {
                    Ok(ptr) => {
                        // SAFETY: the object is ours until it is sealed.
                        unsafe { ptr.write_bytes(n as u8, size as usize) };
                        if random(8) == 0 {
                            objects::abort(seg, client, &key).unwrap();
                        } else {
                            objects::seal(seg, client, &key, n as u64).unwrap();
                            objects::release(seg, client, &key, Some(ptr as u64), Use::Counts)
                                .unwrap();
                        }
                    }
                    Err(Status::Exists) => {}
                    Err(Status::Full | Status::TableFull) => {
                        let mut victims = Vec::new();
                        objects::lru(seg, 1 << 14, 32, |_, key, _| victims.push(*key)).unwrap();
                        for victim in victims {
                            let _ = objects::evict(seg, &victim);
                        }
                    }
                    Err(status) => panic!("create: {status:?}"),
                }
            }
            3..=6 => match objects::get(seg, client, &key) {
                Ok(view) => {
                    assert_eq!(view.meta, n as u64);
                    // SAFETY: sealed and pinned.
                    let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.size as usize) };
                    assert!(bytes.iter().all(|&byte| byte == n as u8), "wrong contents");
                    held.push((n, view.ptr as u64));
                }
                Err(Status::NotFound | Status::Unsealed) => {}
                Err(status) => panic!("get: {status:?}"),
            },
            7..=8 => {
                if !held.is_empty() {
                    let (n, ptr) = held.swap_remove(random(held.len() as u64) as usize);
                    objects::release(
                        seg,
                        client,
                        &crate::crash_test::key(n),
                        Some(ptr),
                        Use::Counts,
                    )
                    .unwrap();
                }
            }
            _ => match objects::delete(seg, &key) {
                Ok(_) | Err(Status::NotFound) => {}
                Err(status) => panic!("delete: {status:?}"),
            },
        }
        if held.len() > 20 {
            for (n, ptr) in held.drain(..) {
                objects::release(
                    seg,
                    client,
                    &crate::crash_test::key(n),
                    Some(ptr),
                    Use::Counts,
                )
                .unwrap();
            }
        }
    }
}

#[test]
fn a_thousand_killed_clients_leave_a_sound_store() {
    const KILLS: u64 = 1200;
    const AT_ONCE: usize = 3;
    let seg = Segment::create(b"", 1 << 20, 150, 16).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut children = std::collections::VecDeque::new();
    for n in 0..KILLS {
        children.push_back(Child::fork(|| work(&seg, 0x5151 + n * 7919)));
        if children.len() < AT_ONCE {
            continue;
        }
        // Not to wait for anything: the instant of the kill is what is random here.
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        std::thread::sleep(std::time::Duration::from_micros((random >> 33) % 1500));
        let child: Child = children.pop_front().unwrap();
        child.kill();
        assert_eq!(
            child.wait(),
            End::Signal(libc::SIGKILL),
            "client {n} ended by itself"
        );
        assert_sound(&seg, &n);
        let reaped = clients::reap(&seg).unwrap();
        assert!(reaped <= 1);
        assert_sound(&seg, &n);
    }
    for child in children {
        child.kill();
        assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
    }
    clients::reap(&seg).unwrap();
    assert_sound(&seg, &"the end");
    let stats = objects::stats(&seg).unwrap();
    assert_eq!(
        (stats[4], stats[6], stats[10], stats[11], stats[15]),
        (0, 0, 0, 0, 0)
    );
    assert!(
        stats[8] > 0,
        "no client died holding the lock: the test tests nothing"
    );
    println!(
        "{} of {KILLS} kills hit a client that held the lock",
        stats[8]
    );
    // No byte is lost: without objects, all of the store is one free block.
    let mut all = Vec::new();
    objects::lru(&seg, u64::MAX, u32::MAX, |_, key, _| all.push(*key)).unwrap();
    all.iter()
        .for_each(|key| objects::evict(&seg, key).unwrap());
    let client = clients::register(&seg).unwrap();
    put(&seg, client, 1, 1 << 20);
    assert_sound(&seg, &"empty");
}
