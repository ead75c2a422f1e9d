//! The C ABI as its users see it: every function, every status it promises.

use raystore::segment::Handle;
use raystore::*;
use std::ptr::null_mut;

const EXISTS: i32 = -1;
const NOT_FOUND: i32 = -2;
const UNSEALED: i32 = -3;
const FULL: i32 = -4;
const TOO_BIG: i32 = -5;
const TABLE_FULL: i32 = -6;
const BAD_STATE: i32 = -7;
const NO_CLIENT: i32 = -8;
const IO: i32 = -9;
const PINNED: i32 = -11;
const BAD_ARG: i32 = -12;

const USED: usize = 1;
const OBJECTS: usize = 2;
const PINNED_BYTES: usize = 4;
const TOUCHED: usize = 5;
const CLIENTS: usize = 6;
const LARGEST: usize = 7;
const EVICTABLE: usize = 12;

#[derive(Clone, Copy)]
struct Store(*mut Handle);
// SAFETY: handles may be used from any thread.
unsafe impl Send for Store {}

fn key(n: u32) -> [u8; 20] {
    let mut key = [7; 20];
    key[16..].copy_from_slice(&n.to_le_bytes());
    key
}

// SAFETY (whole file): every pointer passed is to a live local of the size the function asks for.
impl Store {
    fn new(capacity: u64, objects: u32) -> Store {
        let mut h = null_mut();
        assert_eq!(
            unsafe { rs_store_create([].as_ptr(), 0, capacity, objects, 64, &mut h) },
            0
        );
        Store(h)
    }
    fn path(self) -> String {
        let mut buf = [0; 64];
        let n = unsafe { rs_store_path(self.0, buf.as_mut_ptr(), 64) };
        String::from_utf8(buf[..n as usize].to_vec()).unwrap()
    }
    fn open(path: &str) -> Result<Store, i32> {
        let mut h = null_mut();
        match unsafe { rs_store_open(path.as_ptr(), path.len(), &mut h) } {
            0 => Ok(Store(h)),
            code => Err(code),
        }
    }
    fn close(self) -> i32 {
        unsafe { rs_store_close(self.0) }
    }
    fn client(self) -> u32 {
        let mut id = 0;
        assert_eq!(unsafe { rs_client_register(self.0, &mut id) }, 0);
        id
    }
    fn leave(self, client: u32) -> i32 {
        unsafe { rs_client_release(self.0, client) }
    }
    fn create(self, client: u32, n: u32, size: u64) -> Result<*mut u8, i32> {
        let mut ptr = 0;
        match unsafe { rs_object_create(self.0, client, key(n).as_ptr(), size, &mut ptr) } {
            0 => Ok(ptr as *mut u8),
            code => Err(code),
        }
    }
    fn seal(self, client: u32, n: u32, meta: u64) -> i32 {
        unsafe { rs_object_seal(self.0, client, key(n).as_ptr(), meta) }
    }
    fn abort(self, client: u32, n: u32) -> i32 {
        unsafe { rs_object_abort(self.0, client, key(n).as_ptr()) }
    }
    fn get(self, client: u32, n: u32) -> Result<[u64; 3], i32> {
        let mut out = [0; 3];
        match unsafe { rs_object_get(self.0, client, key(n).as_ptr(), out.as_mut_ptr()) } {
            0 => Ok(out),
            code => Err(code),
        }
    }
    fn release(self, client: u32, n: u32) -> i32 {
        unsafe { rs_object_release(self.0, client, key(n).as_ptr()) }
    }
    fn delete(self, n: u32) -> i32 {
        unsafe { rs_object_delete(self.0, key(n).as_ptr()) }
    }
    fn evict(self, n: u32) -> i32 {
        unsafe { rs_object_evict(self.0, key(n).as_ptr()) }
    }
    fn stat(self, n: u32) -> Result<[u64; 4], i32> {
        let mut out = [0; 4];
        match unsafe { rs_object_stat(self.0, key(n).as_ptr(), out.as_mut_ptr()) } {
            0 => Ok(out),
            code => Err(code),
        }
    }
    fn stats(self) -> [u64; 20] {
        let mut out = [0; 20];
        assert_eq!(unsafe { rs_stats(self.0, out.as_mut_ptr(), 20) }, 20);
        out
    }
    fn lru(self, wanted: u64) -> Vec<u32> {
        let (mut keys, mut sizes) = ([0u8; 20 * 16], [0u64; 16]);
        let n = unsafe { rs_lru(self.0, wanted, keys.as_mut_ptr(), sizes.as_mut_ptr(), 16) };
        (0..n as usize)
            .map(|i| u32::from_le_bytes(keys[i * 20 + 16..i * 20 + 20].try_into().unwrap()))
            .collect()
    }
    /// A sealed object that nobody pins, filled with a byte.
    fn put(self, client: u32, n: u32, size: u64) {
        let ptr = self.create(client, n, size).unwrap();
        unsafe { ptr.write_bytes(n as u8, size as usize) };
        assert_eq!(self.seal(client, n, n as u64), 0);
        assert_eq!(self.release(client, n), 0);
    }
    fn check(self) {
        assert_eq!(unsafe { rs_check(self.0) }, 0);
    }
}

#[test]
fn an_object_goes_from_create_to_delete() {
    let store = Store::new(1 << 20, 100);
    let (writer, reader) = (store.client(), store.client());
    let ptr = store.create(writer, 1, 1000).unwrap();
    assert_eq!(ptr as u64 % 64, 0);
    assert_eq!(store.get(reader, 1), Err(UNSEALED));
    assert_eq!(store.create(reader, 1, 10), Err(EXISTS));
    assert_eq!(store.stat(1), Ok([1000, 1, 1, 0]));
    unsafe { ptr.write_bytes(42, 1000) };
    assert_eq!(store.seal(reader, 1, 5), BAD_STATE);
    assert_eq!(store.release(writer, 1), BAD_STATE);
    assert_eq!(store.seal(writer, 1, 5), 0);
    assert_eq!(store.seal(writer, 1, 5), BAD_STATE);
    assert_eq!(store.abort(writer, 1), BAD_STATE);
    let [at, size, meta] = store.get(reader, 1).unwrap();
    assert_eq!((at, size, meta), (ptr as u64, 1000, 5));
    assert_eq!(store.stat(1), Ok([1000, 2, 2, 5]));
    assert_eq!(store.stats()[PINNED_BYTES], 1000);
    assert_eq!(store.release(writer, 1), 0);
    assert_eq!(store.release(writer, 1), BAD_STATE);
    assert_eq!(store.evict(1), PINNED);
    assert_eq!(store.delete(1), 1);
    assert_eq!(store.get(writer, 1), Err(NOT_FOUND));
    assert_eq!(store.delete(1), NOT_FOUND);
    assert_eq!(unsafe { *(at as *const u8) }, 42);
    store.check();
    assert_eq!(store.release(reader, 1), 0);
    assert_eq!(store.release(reader, 1), NOT_FOUND);
    assert_eq!(store.stats()[OBJECTS], 0);
    assert_eq!(store.stats()[USED], 0);
    store.check();
    assert_eq!(store.close(), 0);
    assert_eq!(store.close(), BAD_ARG);
}

#[test]
fn abort_takes_back_a_create() {
    let store = Store::new(1 << 20, 100);
    let (writer, other) = (store.client(), store.client());
    store.create(writer, 1, 5000).unwrap();
    assert_eq!(store.abort(other, 1), BAD_STATE);
    assert_eq!(store.abort(other, 2), NOT_FOUND);
    assert_eq!(store.abort(writer, 1), 0);
    assert_eq!(store.stats()[USED], 0);
    store.put(other, 1, 100);
    store.check();
    store.close();
}

#[test]
fn a_client_that_leaves_gives_everything_back() {
    let store = Store::new(1 << 20, 1000);
    let (stays, leaves) = (store.client(), store.client());
    for n in 0..200 {
        store.put(stays, n, 100);
        store.get(leaves, n).unwrap();
        store.get(leaves, n).unwrap();
    }
    store.get(stays, 7).unwrap();
    store.create(leaves, 1000, 100).unwrap();
    assert_eq!(store.delete(3), 1);
    store.check();
    assert_eq!(store.leave(leaves), 0);
    assert_eq!(store.leave(leaves), NO_CLIENT);
    assert_eq!(store.get(leaves, 1), Err(NO_CLIENT));
    assert_eq!(store.create(leaves, 2000, 1), Err(NO_CLIENT));
    store.check();
    let stats = store.stats();
    assert_eq!(stats[OBJECTS], 199);
    assert_eq!(stats[PINNED_BYTES], 100);
    assert_eq!(stats[CLIENTS], 1);
    // The slot is used again under another id.
    assert_ne!(store.client(), leaves);
    store.close();
}

#[test]
fn lru_lists_unpinned_objects_in_order_of_last_use() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    for n in 0..5 {
        store.put(client, n, 100);
    }
    store.get(client, 0).unwrap();
    store.release(client, 0);
    store.get(client, 2).unwrap();
    assert_eq!(store.lru(u64::MAX), [1, 3, 4, 0]);
    assert_eq!(store.lru(129), [1, 3]);
    assert_eq!(store.lru(128), [1]);
    assert_eq!(store.lru(0), []);
    assert_eq!(store.evict(3), 0);
    assert_eq!(store.lru(u64::MAX), [1, 4, 0]);
    assert_eq!(store.stats()[EVICTABLE], 300);
    store.close();
}

#[test]
fn a_full_store_says_so_and_recovers() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    assert_eq!(store.create(client, 0, (1 << 20) + 1), Err(TOO_BIG));
    assert_eq!(store.create(client, 0, u64::MAX), Err(TOO_BIG));
    for n in 0..4 {
        store.put(client, n, 256 << 10);
    }
    assert_eq!(store.create(client, 9, 1), Err(FULL));
    assert_eq!(store.stats()[LARGEST], 0);
    store.delete(1);
    store.delete(2);
    assert_eq!(store.stats()[LARGEST], 512 << 10);
    store.put(client, 9, 512 << 10);
    for n in [0, 3, 9] {
        store.delete(n);
    }
    // All of it merges again.
    store.put(client, 10, 1 << 20);
    assert_eq!(store.stats()[TOUCHED], 1 << 20);
    store.check();
    store.close();
}

#[test]
fn warm_memory_is_used_before_fresh_memory() {
    let store = Store::new(64 << 20, 100);
    let client = store.client();
    store.put(client, 1, 1 << 20);
    for _ in 0..100 {
        store.delete(1);
        store.put(client, 1, 1 << 20);
    }
    // A larger one extends the free tail.
    store.delete(1);
    store.put(client, 1, 2 << 20);
    assert_eq!(store.stats()[TOUCHED], 2 << 20);
    store.close();
}

#[test]
fn a_full_table_says_so_and_recovers() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    for n in 0..100 {
        store.put(client, n, 0);
    }
    assert_eq!(store.create(client, 100, 0), Err(TABLE_FULL));
    store.check();
    store.delete(50);
    store.put(client, 100, 0);
    let mut id = 0;
    for _ in 1..64 {
        assert_eq!(unsafe { rs_client_register(store.0, &mut id) }, 0);
    }
    assert_eq!(unsafe { rs_client_register(store.0, &mut id) }, TABLE_FULL);
    store.check();
    store.close();
}

#[test]
fn a_key_can_be_made_anew_while_its_deleted_object_is_pinned() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    store.put(client, 1, 100);
    let old = store.get(client, 1).unwrap()[0];
    assert_eq!(store.delete(1), 1);
    store.put(client, 1, 200);
    let new = store.get(client, 1).unwrap()[0];
    assert_ne!(old, new);
    store.check();
    let at = |ptr| unsafe { rs_object_release_at(store.0, client, key(1).as_ptr(), ptr) };
    assert_eq!(at(old), 0);
    assert_eq!(at(old), BAD_STATE);
    assert_eq!(store.stat(1), Ok([200, 2, 1, 1]));
    assert_eq!(at(new), 0);
    assert_eq!(store.stats()[OBJECTS], 1);
    // Deleted before it was sealed: sealing works, nobody finds it, and it goes with the pin.
    store.create(client, 2, 10).unwrap();
    assert_eq!(store.delete(2), 1);
    assert_eq!(store.seal(client, 2, 0), 1);
    assert_eq!(store.get(client, 2), Err(NOT_FOUND));
    assert_eq!(store.release(client, 2), 0);
    assert_eq!(store.stats()[OBJECTS], 1);
    store.check();
    store.close();
}

#[test]
fn handles_of_one_process_share_one_mapping() {
    let store = Store::new(1 << 20, 100);
    let again = Store::open(&store.path()).unwrap();
    assert_ne!(store.0, again.0);
    assert_eq!(unsafe { rs_store_base(store.0) }, unsafe {
        rs_store_base(again.0)
    });
    let client = store.client();
    store.put(client, 1, 100);
    assert_eq!(store.close(), 0);
    // The mapping and the store go with the last handle.
    assert!(again.get(client, 1).is_ok());
    let path = again.path();
    assert_eq!(again.close(), 0);
    assert!(Store::open(&path).is_err());
    assert!(unsafe { rs_store_base(again.0) }.is_null());
}

#[test]
fn list_shows_every_object() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    for n in 0..50 {
        store.put(client, n, n as u64);
    }
    store.delete(20);
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let (mut keys, mut stats) = ([[0u8; 20]; 7], [[0u64; 4]; 7]);
        let n = unsafe {
            rs_list(
                store.0,
                &mut cursor,
                keys.as_mut_ptr().cast(),
                stats.as_mut_ptr().cast(),
                7,
            )
        };
        for i in 0..n as usize {
            let index = u32::from_le_bytes(keys[i][16..].try_into().unwrap());
            assert_eq!(stats[i], [index as u64, 2, 0, index as u64]);
            seen.push(index);
        }
        if cursor == 0 {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, (0..50).filter(|&n| n != 20).collect::<Vec<_>>());
    store.close();
}

#[test]
fn spilling_and_restoring_keeps_contents_and_order_of_use() {
    let store = Store::new(1 << 20, 100);
    let client = store.client();
    for n in 1..4 {
        store.put(client, n, 5000);
    }
    let mut fd = -1;
    assert_eq!(unsafe { rs_spill_create("/tmp".as_ptr(), 4, &mut fd) }, 0);
    assert_eq!(
        unsafe { rs_spill_write(store.0, client, key(1).as_ptr(), fd, 4096) },
        0
    );
    assert_eq!(store.lru(u64::MAX), [1, 2, 3]);
    assert_eq!(store.evict(1), 0);
    let read =
        |size| unsafe { rs_spill_read(store.0, client, fd, 4096, key(1).as_ptr(), size, 77) };
    // More than the file has: an error, and no object.
    assert_eq!(read(5001), IO);
    assert_ne!(rs_last_errno(), 0);
    assert_eq!(store.stat(1), Err(NOT_FOUND));
    assert_eq!(read(5000), 0);
    assert_eq!(read(5000), EXISTS);
    assert_eq!(store.stat(1), Ok([5000, 2, 0, 77]));
    let ptr = store.get(client, 1).unwrap()[0] as *const u8;
    let bytes = unsafe { std::slice::from_raw_parts(ptr, 5000) };
    assert!(bytes.iter().all(|&b| b == 1));
    assert_eq!(rs_spill_punch(fd, 4096, 4096), 0);
    assert_eq!(rs_spill_close(fd), 0);
    store.check();
    store.close();
}

#[test]
fn the_creators_last_close_ends_the_store_for_others() {
    let store = Store::new(8 << 20, 100);
    let client = store.client();
    store.put(client, 1, 1 << 20);
    store.put(client, 2, 1 << 20);
    let held = store.get(client, 2).unwrap()[0] as *const u8;
    // Another mapping of the same file, as another process has it.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(store.path())
        .unwrap();
    use std::os::unix::fs::MetadataExt;
    let before = file.metadata().unwrap().blocks();
    assert!(before * 512 >= 2 << 20);
    assert_eq!(unsafe { *held }, 2);
    assert_eq!(store.close(), 0);
    let after = file.metadata().unwrap().blocks();
    assert!(before - after >= (1 << 20) / 512, "{before} {after}");
}

#[test]
fn nonsense_is_refused() {
    let mut h = null_mut();
    let create = |h: &mut *mut Handle, capacity, objects, clients| unsafe {
        rs_store_create([].as_ptr(), 0, capacity, objects, clients, h)
    };
    assert_eq!(create(&mut h, 0, 1, 1), BAD_ARG);
    assert_eq!(create(&mut h, u64::MAX, 1, 1), BAD_ARG);
    assert_eq!(create(&mut h, 1, 0, 1), BAD_ARG);
    assert_eq!(create(&mut h, 1, u32::MAX, 1), BAD_ARG);
    assert_eq!(create(&mut h, 1, 1, 0), BAD_ARG);
    assert_eq!(create(&mut h, 1, 1, u32::MAX), BAD_ARG);
    assert_eq!(Store::open("/nowhere").err(), Some(IO));
    assert_eq!(Store::open("/dev/null").err(), Some(BAD_ARG));
    assert_eq!(Store::open("a\0b").err(), Some(BAD_ARG));
    let store = Store::new(1, 1);
    let client = store.client();
    unsafe {
        assert_eq!(rs_store_open(null_mut(), 4, &mut h), BAD_ARG);
        assert_eq!(rs_store_path(store.0, [0; 4].as_mut_ptr(), 4), BAD_ARG);
        assert_eq!(rs_check(null_mut()), BAD_ARG);
        assert_eq!(rs_store_close(null_mut()), BAD_ARG);
        assert_eq!(rs_client_register(store.0, null_mut()), BAD_ARG);
        assert_eq!(
            rs_object_create(store.0, client, null_mut(), 1, &mut 0),
            BAD_ARG
        );
        assert_eq!(
            rs_object_create(store.0, client, key(1).as_ptr(), 1, null_mut()),
            BAD_ARG
        );
        assert_eq!(
            rs_object_get(store.0, client, key(1).as_ptr(), null_mut()),
            BAD_ARG
        );
        assert_eq!(rs_stats(store.0, null_mut(), 3), BAD_ARG);
        assert_eq!(rs_copy(null_mut(), key(1).as_ptr(), 3), BAD_ARG);
        for wrong in [0, 1, u32::MAX, client + 1, client + (1 << 16)] {
            assert_eq!(rs_client_release(store.0, wrong), NO_CLIENT);
        }
        let overflow = rs_spill_read(store.0, client, 0, u64::MAX, key(1).as_ptr(), 2, 0);
        assert_eq!(overflow, BAD_ARG);
    }
    store.check();
    store.close();
}

#[test]
fn copies_of_every_size_are_exact() {
    for len in [0, 1, 63, 4 << 20, (4 << 20) + 1, 33_333_333] {
        let src: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut dst = vec![0; len];
        assert_eq!(unsafe { rs_copy(dst.as_mut_ptr(), src.as_ptr(), len) }, 0);
        assert!(src == dst);
        let hash = |v: &[u8]| unsafe { rs_hash64(v.as_ptr(), v.len()) };
        assert_eq!(hash(&src), hash(&dst));
    }
}

#[test]
fn objects_go_over_connections_of_this_process() {
    use std::net::{TcpListener, TcpStream};
    let (from, to) = (Store::new(8 << 20, 100), Store::new(8 << 20, 100));
    let len = 3 << 20;
    let source = from.create(from.client(), 1, len as u64).unwrap();
    let target = to.create(to.client(), 1, len as u64).unwrap();
    let (source, target) = unsafe {
        (
            std::slice::from_raw_parts_mut(source, len),
            std::slice::from_raw_parts_mut(target, len),
        )
    };
    for (i, byte) in source.iter_mut().enumerate() {
        *byte = (i * 7 + i / 251) as u8;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    let open = |socket: &TcpStream| {
        let local = socket.local_addr().unwrap().to_string();
        let peer = socket.peer_addr().unwrap().to_string();
        unsafe { rs_bulk_open(local.as_ptr(), local.len(), peer.as_ptr(), peer.len()) }
    };
    let (sender, receiver) = (open(&ours), open(&theirs));
    assert!(sender > 0 && receiver > 0);
    let (mut sent, mut received) = ([0u8; 8], [0u8; 8]);
    std::thread::scope(|scope| {
        let hash = sent.as_mut_ptr() as usize;
        let source = source.as_ptr() as usize;
        scope.spawn(move || unsafe {
            assert_eq!(
                rs_bulk_send(sender, source as *const u8, len, hash as *mut u8, 0),
                0
            );
        });
        let hash = received.as_mut_ptr();
        let status = unsafe { rs_bulk_receive(receiver, target.as_mut_ptr(), len, hash) };
        assert_eq!(status, 1);
    });
    assert!(source == target && sent == received);
    assert_eq!(rs_bulk_shutdown(sender), 0);
    assert_eq!(rs_bulk_shutdown(sender), 0);
    unsafe {
        let hash = sent.as_mut_ptr();
        assert_eq!(
            rs_bulk_receive(receiver, target.as_mut_ptr(), len, hash),
            IO
        );
        assert_eq!(rs_bulk_send(sender, source.as_ptr(), len, hash, 0), IO);
        assert_eq!(
            rs_bulk_send(sender, source.as_ptr(), len, null_mut(), 0),
            BAD_ARG
        );
        assert_eq!(rs_bulk_receive(receiver, hash, 8, hash), BAD_ARG);
        assert_eq!(rs_bulk_open(b"x".as_ptr(), 1, b"y".as_ptr(), 1), BAD_ARG);
    }
    assert_eq!(rs_bulk_close(sender), 0);
    assert_eq!(rs_bulk_close(receiver), 0);
    drop((ours, theirs));
    from.close();
    to.close();
}

#[test]
fn copies_into_the_store_are_exact_whether_its_memory_was_touched_or_not() {
    let store = Store::new(64 << 20, 100);
    let client = store.client();
    let src: Vec<u8> = (0..10_000_000).map(|i| (i * 7 + i / 251) as u8).collect();
    for round in 0..3 {
        for n in 0..4 {
            // Not all bytes of the object, and not from its start.
            let ptr = store.create(client, n, 10_000_100).unwrap();
            let at = unsafe { ptr.add(33 * n as usize) };
            assert_eq!(unsafe { rs_copy(at, src.as_ptr(), src.len()) }, 0);
            store.seal(client, n, 0);
            let copy = unsafe { std::slice::from_raw_parts(at, src.len()) };
            assert!(copy == src, "{round} {n}");
            if n == 1 && round == 0 {
                // From here on part of it has been touched.
                assert_eq!(unsafe { rs_prefault_start(store.0, 3 << 20, u64::MAX) }, 0);
                while store.stats()[16] < 3 << 20 {
                    std::thread::yield_now();
                }
                assert_eq!(unsafe { rs_prefault_stop(store.0) }, 0);
            }
        }
        for n in 0..4 {
            store.release(client, n);
            assert_eq!(store.delete(n), 0);
        }
    }
    store.check();
    store.close();
}

#[test]
fn prefaulting_stays_within_its_limit_and_stops() {
    let store = Store::new(64 << 20, 100);
    assert_eq!(unsafe { rs_prefault_start(store.0, 8 << 20, 6 << 20) }, 0);
    while store.stats()[16] < 6 << 20 {
        std::thread::yield_now();
    }
    let client = store.client();
    store.put(client, 1, 7 << 20);
    store.check();
    assert_eq!(unsafe { rs_prefault_stop(store.0) }, 0);
    assert_eq!(store.stats()[16], 6 << 20);
    assert_eq!(unsafe { rs_prefault_start(store.0, 8 << 20, u64::MAX) }, 0);
    while store.stats()[16] < 14 << 20 {
        std::thread::yield_now();
    }
    store.check();
    // Closing ends it as well.
    store.close();
}

#[test]
fn free_space_of_a_file_system_is_known() {
    let mut free = 0;
    assert_eq!(unsafe { rs_fs_free("/tmp".as_ptr(), 4, &mut free) }, 0);
    assert!(free > 0);
    assert_eq!(unsafe { rs_fs_free("/nowhere".as_ptr(), 8, &mut free) }, IO);
    assert_eq!(rs_last_errno(), libc::ENOENT);
}
