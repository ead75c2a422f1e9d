//! The store against a model: a map from keys to what should be there, and a list of the gaps between blocks. After
//! every operation all invariants hold and every byte is accounted for.

use crate::check;
use crate::clients;
use crate::heap::block_bytes;
use crate::layout::{Key, NIL};
use crate::limits::RESERVE_STEP_BYTES;
use crate::objects;
use crate::pins::Use;
use crate::segment::Segment;
use crate::status::Status;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CAPACITY: u64 = 256 << 10;
const OBJECTS: u32 = 40;
const CLIENTS: usize = 3;
const KEYS: u32 = 60;

#[derive(Clone, Debug)]
enum Op {
    Create(usize, u32, u64),
    Seal(usize, u32),
    Abort(usize, u32),
    Get(usize, u32),
    Release(usize, u32),
    Delete(u32),
    Evict(u32),
    /// The client leaves and another comes.
    Leave(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let key = 0..KEYS;
    // Sizes of all magnitudes.
    let size = (0..19u32, 0..u64::MAX).prop_map(|(bits, n)| n % (1 << bits));
    prop_oneof![
        6 => (client.clone(), key.clone(), size).prop_map(|(c, k, s)| Op::Create(c, k, s)),
        5 => (client.clone(), key.clone()).prop_map(|(c, k)| Op::Seal(c, k)),
        1 => (client.clone(), key.clone()).prop_map(|(c, k)| Op::Abort(c, k)),
        4 => (client.clone(), key.clone()).prop_map(|(c, k)| Op::Get(c, k)),
        6 => (client.clone(), key.clone()).prop_map(|(c, k)| Op::Release(c, k)),
        2 => key.clone().prop_map(Op::Delete),
        3 => key.prop_map(Op::Evict),
        1 => client.prop_map(Op::Leave),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Model {
    size: u64,
    ptr: u64,
    sealed: bool,
    deleted: bool,
    creator: usize,
    pins: [u32; CLIENTS],
    /// When it was last put back into the LRU list.
    used: u64,
}

impl Model {
    fn pinned(&self) -> bool {
        self.pins.iter().any(|&n| n > 0)
    }
}

fn key(n: u32) -> Key {
    Key { a: 1, b: 2, c: n }
}

/// Objects of each key, newest last.
struct World {
    seg: Segment,
    clients: [u32; CLIENTS],
    objects: BTreeMap<u32, Vec<Model>>,
    clock: u64,
}

impl World {
    fn new() -> World {
        let seg = Segment::create(b"", CAPACITY, OBJECTS, 8).unwrap();
        let clients = [(); CLIENTS].map(|()| clients::register(&seg).unwrap());
        World {
            seg,
            clients,
            objects: BTreeMap::new(),
            clock: 0,
        }
    }

    fn live(&mut self, n: u32) -> Option<&mut Model> {
        self.objects.get_mut(&n)?.last_mut().filter(|o| !o.deleted)
    }

    fn all(&self) -> impl Iterator<Item = &Model> {
        self.objects.values().flatten()
    }

    /// Drops what is deleted and held by nobody.
    fn sweep(&mut self) {
        for objects in self.objects.values_mut() {
            objects.retain(|o| o.pinned() || (o.sealed && !o.deleted));
        }
    }

    fn apply(&mut self, op: &Op) {
        self.clock += 1;
        let clock = self.clock;
        match *op {
            Op::Create(c, n, size) => {
                let got = objects::create(&self.seg, self.clients[c], &key(n), size);
                let expected = if size > CAPACITY {
                    Err(Status::TooBig)
                } else if self.live(n).is_some() {
                    Err(Status::Exists)
                } else if self.all().count() == OBJECTS as usize {
                    Err(Status::TableFull)
                } else if self.largest_gap() < block_bytes(size) {
                    Err(Status::Full)
                } else {
                    Ok(())
                };
                assert_eq!(got.map(|_| ()), expected);
                if let Ok(ptr) = got {
                    let mut pins = [0; CLIENTS];
                    pins[c] = 1;
                    self.objects.entry(n).or_default().push(Model {
                        size,
                        ptr: ptr as u64,
                        sealed: false,
                        deleted: false,
                        creator: c,
                        pins,
                        used: 0,
                    });
                }
            }
            Op::Seal(c, n) => {
                let got = objects::seal(&self.seg, self.clients[c], &key(n), n as u64 * 3);
                match self.unsealed(c, n) {
                    Ok(object) => {
                        object.sealed = true;
                        assert_eq!(got, Ok(object.deleted as i32));
                    }
                    Err(status) => assert_eq!(got, Err(status)),
                }
            }
            Op::Abort(c, n) => {
                let got = objects::abort(&self.seg, self.clients[c], &key(n));
                match self.unsealed(c, n) {
                    Ok(object) => {
                        object.pins[c] = 0;
                        assert_eq!(got, Ok(()));
                    }
                    Err(status) => assert_eq!(got, Err(status)),
                }
            }
            Op::Get(c, n) => {
                let got = objects::get(&self.seg, self.clients[c], &key(n));
                match self.live(n) {
                    None => assert_eq!(got, Err(Status::NotFound)),
                    Some(object) if !object.sealed => assert_eq!(got, Err(Status::Unsealed)),
                    Some(object) => {
                        object.pins[c] += 1;
                        let view = got.unwrap();
                        let found = (view.ptr as u64, view.size, view.meta);
                        assert_eq!(found, (object.ptr, object.size, n as u64 * 3));
                    }
                }
            }
            Op::Release(c, n) => {
                let got = objects::release(&self.seg, self.clients[c], &key(n), None, Use::Counts);
                let known = self.objects.get(&n).is_some_and(|list| !list.is_empty());
                let newest = self
                    .objects
                    .entry(n)
                    .or_default()
                    .iter_mut()
                    .rev()
                    .find(|o| o.pins[c] > 0);
                match newest {
                    None if known => assert_eq!(got, Err(Status::BadState)),
                    None => assert_eq!(got, Err(Status::NotFound)),
                    Some(object) if !object.sealed => assert_eq!(got, Err(Status::BadState)),
                    Some(object) => {
                        object.pins[c] -= 1;
                        object.used = clock;
                        assert_eq!(got, Ok(()));
                    }
                }
            }
            Op::Delete(n) => {
                let got = objects::delete(&self.seg, &key(n));
                match self.live(n) {
                    None => assert_eq!(got, Err(Status::NotFound)),
                    Some(object) => {
                        object.deleted = true;
                        assert_eq!(got, Ok(object.pinned() as i32));
                    }
                }
            }
            Op::Evict(n) => {
                let got = objects::evict(&self.seg, &key(n));
                match self.live(n) {
                    None => assert_eq!(got, Err(Status::NotFound)),
                    Some(object) if object.pinned() => assert_eq!(got, Err(Status::Pinned)),
                    Some(object) => {
                        object.deleted = true;
                        assert_eq!(got, Ok(()));
                    }
                }
            }
            Op::Leave(c) => {
                clients::release(&self.seg, self.clients[c]).unwrap();
                let stale = self.clients[c];
                assert_eq!(clients::release(&self.seg, stale), Err(Status::NoClient));
                self.clients[c] = clients::register(&self.seg).unwrap();
                assert_ne!(self.clients[c], stale);
                for object in self.objects.values_mut().flatten() {
                    if object.pins[c] > 0 {
                        object.pins[c] = 0;
                        object.used = clock;
                        object.deleted |= !object.sealed;
                    }
                }
            }
        }
        self.sweep();
        self.compare(matches!(op, Op::Leave(_)));
    }

    fn unsealed(&mut self, c: usize, n: u32) -> Result<&mut Model, Status> {
        let live = self.live(n).is_some();
        self.objects
            .entry(n)
            .or_default()
            .iter_mut()
            .rev()
            .find(|o| !o.sealed && o.creator == c && o.pins[c] > 0)
            .ok_or(if live {
                Status::BadState
            } else {
                Status::NotFound
            })
    }

    /// The longest run of bytes that no block covers.
    fn largest_gap(&self) -> u64 {
        let base = self.seg.data(0) as u64;
        let mut blocks: Vec<_> = self
            .all()
            .map(|o| (o.ptr - base, block_bytes(o.size)))
            .collect();
        blocks.sort_unstable();
        let (mut at, mut largest) = (0, 0);
        for (offset, bytes) in blocks {
            assert!(offset >= at, "blocks overlap");
            largest = largest.max(offset - at);
            at = offset + bytes;
        }
        assert!(at <= CAPACITY);
        largest.max(CAPACITY - at)
    }

    fn compare(&self, several_left: bool) {
        assert_eq!(check::problem(&self.seg).unwrap(), None);
        let stats = objects::stats(&self.seg).unwrap();
        let used: u64 = self.all().map(|o| block_bytes(o.size)).sum();
        let pinned: u64 = self.all().filter(|o| o.pinned()).map(|o| o.size).sum();
        assert_eq!(stats[1], used);
        assert_eq!(stats[2], self.all().count() as u64);
        assert_eq!(stats[3], self.all().filter(|o| o.sealed).count() as u64);
        assert_eq!(stats[4], pinned);
        assert_eq!(stats[7], self.largest_gap());
        assert_eq!(stats[11], self.all().filter(|o| o.deleted).count() as u64);
        assert!(stats[9] <= stats[5] + RESERVE_STEP_BYTES);
        let mut expected: Vec<(u64, u32)> = self
            .objects
            .iter()
            .filter_map(|(&n, list)| {
                let object = list.last()?;
                let listed = object.sealed && !object.pinned() && !object.deleted;
                listed.then_some((object.used, n))
            })
            .collect();
        expected.sort_unstable();
        let mut listed = Vec::new();
        objects::lru(&self.seg, u64::MAX, u32::MAX, |_, key, _| {
            listed.push(key.c)
        })
        .unwrap();
        if several_left || expected.windows(2).any(|w| w[0].0 == w[1].0) {
            // What a leaving client held goes back in no promised order.
            listed.sort_unstable();
            expected.sort_unstable_by_key(|e| e.1);
        }
        assert_eq!(listed, expected.iter().map(|e| e.1).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 1..250)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        // All leave, everything goes, and one object fills the store.
        for n in 0..CLIENTS {
            clients::release(&world.seg, world.clients[n]).unwrap();
        }
        for n in 0..KEYS {
            let _ = objects::delete(&world.seg, &key(n));
        }
        prop_assert_eq!(objects::stats(&world.seg).unwrap()[1], 0);
        let client = clients::register(&world.seg).unwrap();
        objects::create(&world.seg, client, &key(0), CAPACITY).unwrap();
        prop_assert_eq!(check::problem(&world.seg).unwrap(), None);
    }
}

#[test]
fn an_index_of_many_objects_finds_each() {
    const MANY: u32 = 20_000;
    let seg = Segment::create(b"", 4 << 20, MANY, 8).unwrap();
    let before = objects::stats(&seg).unwrap()[17];
    let client = clients::register(&seg).unwrap();
    for n in 0..MANY {
        objects::create(&seg, client, &key(n), 100).unwrap();
        objects::seal(&seg, client, &key(n), n as u64).unwrap();
    }
    assert_eq!(check::problem(&seg).unwrap(), None);
    for n in 0..MANY {
        assert_eq!(objects::get(&seg, client, &key(n)).unwrap().meta, n as u64);
    }
    assert_eq!(
        objects::get(&seg, client, &key(MANY)),
        Err(Status::NotFound)
    );
    // A quarter of a kilobyte an object or so, and nothing before there are objects.
    let metadata = objects::stats(&seg).unwrap()[17];
    assert!(before < 512 << 10, "{before}");
    assert!(metadata < MANY as u64 * 256 + (512 << 10), "{metadata}");
    clients::release(&seg, client).unwrap();
    assert_eq!(objects::stats(&seg).unwrap()[15], 0);
    let longest = crate::journal::LONGEST.load(std::sync::atomic::Ordering::Relaxed);
    assert!(longest < 100, "an operation needed {longest} undo records");
    assert_eq!(check::problem(&seg).unwrap(), None);
}

#[test]
fn damage_is_noticed() {
    type Damage = fn(&Segment);
    let damages: &[(&str, Damage)] = &[
        ("a lost free block", |seg| {
            seg.header().heap.fl.0.store(0, RELAXED)
        }),
        ("a wrong size", |seg| {
            seg.block(1).unwrap().size.0.store(640, RELAXED)
        }),
        ("a wrong pin count", |seg| {
            seg.object(2).unwrap().pins.0.store(7, RELAXED)
        }),
        ("a broken LRU list", |seg| {
            seg.header().lru_newest.0.store(NIL, RELAXED)
        }),
        ("a wild index", |seg| {
            seg.object(2).unwrap().link.0.store(1 << 30, RELAXED)
        }),
        ("a wrong key", |seg| {
            seg.object(2).unwrap().key_c.0.store(99, RELAXED)
        }),
        ("a lost client pin", |seg| {
            seg.client(1).unwrap().pins.0.store(NIL, RELAXED)
        }),
        ("a lost record", |seg| {
            seg.header().object_pool.free.0.store(NIL, RELAXED)
        }),
    ];
    const RELAXED: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;
    for (name, damage) in damages {
        let seg = Segment::create(b"", CAPACITY, OBJECTS, 8).unwrap();
        let client = clients::register(&seg).unwrap();
        for n in 0..4 {
            objects::create(&seg, client, &key(n), 100).unwrap();
            objects::seal(&seg, client, &key(n), 0).unwrap();
            if n != 1 {
                objects::release(&seg, client, &key(n), None, Use::Counts).unwrap();
            }
        }
        objects::delete(&seg, &key(2)).unwrap();
        assert_eq!(check::problem(&seg).unwrap(), None);
        damage(&seg);
        assert!(check::problem(&seg).unwrap().is_some(), "{name}");
        assert_eq!(check::check(&seg), Err(Status::Corrupt), "{name}");
    }
}
