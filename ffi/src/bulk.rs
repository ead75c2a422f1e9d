//! Bytes between objects and TCP connections, for the transfers of objects between nodes. A range of bytes here is a
//! piece there.
//!
//! A connection is made, and asked for a range, by whoever loaded the library; for the bytes of the range it lends the
//! socket. Read and written there, each piece costs a turn of an event loop, which has other work, and the bytes have left
//! the cache when they are hashed. Here a range is one call on a thread of its own, that hashes block by block what it has
//! just received, or is about to send.
//!
//! The bytes are copied into the socket. `sendfile` would send pages of the segment by reference; measured over loopback,
//! both sides together then take 0.55 ns a byte rather than 0.37, as the receiver copies from memory what is in the cache
//! otherwise, and page by page. It would also ask for an object to be pinned until the other side has read it all.
//!
//! The socket does not block, as its owner's event loop wants it; so calls wait by `poll`, without a deadline: only the
//! owner knows whether the other node lives. It ends them with `shutdown`.

use crate::limits::{BULK_BLOCK_BYTES, BULK_FAULT_BYTES, BULK_WAKE_BYTES, PAGE_BYTES};
use crate::segment;
use crate::status::{errno, io_error, set_last_errno, Result, Status};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use twox_hash::XxHash3_64;

/// Bytes of a range's hash.
pub const HASH_BYTES: usize = 8;

type Hash = [u8; HASH_BYTES];

/// What came of a range.
pub struct Received {
    /// Of the bytes that came.
    pub hash: Hash,
    /// Whether it is the one that was sent.
    pub sound: bool,
}

/// The address that a text says.
pub fn address(text: &[u8]) -> Result<SocketAddr> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Status::BadArg)
}

/// A descriptor of its own for this process's TCP connection between two addresses. There is one such connection: a
/// system has no two with the same ends.
pub fn open(local: SocketAddr, peer: SocketAddr) -> Result<RawFd> {
    let is_it = |fd: RawFd| {
        name(fd, libc::getsockname) == Some(local) && name(fd, libc::getpeername) == Some(peer)
    };
    for entry in std::fs::read_dir("/proc/self/fd").map_err(|_| io_error())? {
        let Some(fd) = entry
            .ok()
            .and_then(|entry| entry.file_name().to_str()?.parse().ok())
        else {
            continue;
        };
        if !is_it(fd) {
            continue;
        }
        // SAFETY: a plain system call; what it returns is nobody else's.
        let own = unsafe {
            let own = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
            if own < 0 {
                continue;
            }
            OwnedFd::from_raw_fd(own)
        };
        // Another thread may have closed it, and opened something else by that number.
        if is_it(own.as_raw_fd()) {
            return Ok(own.into_raw_fd());
        }
    }
    Err(Status::NotFound)
}

type GetName =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// An address of a socket; none if it is no socket of TCP.
fn name(fd: RawFd, get: GetName) -> Option<SocketAddr> {
    // SAFETY: `storage` is plain data, as large as any address, that the call fills in; each family has its own layout.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let mut len = std::mem::size_of_val(&storage) as libc::socklen_t;
        if get(fd, (&raw mut storage).cast(), &mut len) != 0 {
            return None;
        }
        let (ip, port): (IpAddr, u16) = match i32::from(storage.ss_family) {
            libc::AF_INET => {
                let it = &*(&raw const storage).cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(it.sin_addr.s_addr.to_ne_bytes());
                (ip.into(), it.sin_port)
            }
            libc::AF_INET6 => {
                let it = &*(&raw const storage).cast::<libc::sockaddr_in6>();
                (Ipv6Addr::from(it.sin6_addr.s6_addr).into(), it.sin6_port)
            }
            _ => return None,
        };
        let mut kind: libc::c_int = 0;
        let mut len = std::mem::size_of_val(&kind) as libc::socklen_t;
        let kind_at = (&raw mut kind).cast();
        if libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, kind_at, &mut len) != 0
            || kind != libc::SOCK_STREAM
        {
            return None;
        }
        Some(SocketAddr::new(ip, u16::from_be(port)))
    }
}

/// Sends a range and its hash, which may be known before. Returns the hash.
///
/// # Safety
/// `len` bytes at `ptr` stay what they are until this returns, if they are of an open segment.
pub unsafe fn send(fd: RawFd, ptr: *const u8, len: usize, known: Option<Hash>) -> Result<Hash> {
    // Held, so that the memory stays mapped whatever becomes of the caller's handle.
    let (_segment, _) = segment::containing(ptr, len).ok_or(Status::BadArg)?;
    // SAFETY: a part of the segment's data, which the caller keeps as it is.
    let range = unsafe { std::slice::from_raw_parts(ptr, len) };
    let mut hasher = RangeHasher::default();
    for block in range.chunks(BULK_BLOCK_BYTES) {
        if known.is_none() {
            hasher.add(block);
        }
        send_all(fd, block)?;
    }
    let hash = known.unwrap_or_else(|| hasher.value());
    send_all(fd, &hash)?;
    Ok(hash)
}

/// Receives a range and its hash.
///
/// # Safety
/// `len` bytes at `ptr` are the caller's alone until this returns, if they are of an open segment.
pub unsafe fn receive(fd: RawFd, ptr: *mut u8, len: usize) -> Result<Received> {
    let (segment, offset) = segment::containing(ptr, len).ok_or(Status::BadArg)?;
    let touched = segment.warm.load(Ordering::Relaxed).saturating_sub(offset);
    let warm = usize::try_from(touched).unwrap_or(len).min(len);
    let mut hasher = RangeHasher::default();
    let mut socket = Receiver {
        fd,
        expected: len + HASH_BYTES,
        woken_by: 1,
    };
    // SAFETY: a part of the segment's data, which is the caller's to write.
    let range = unsafe { std::slice::from_raw_parts_mut(ptr, len) };
    receive_range(&mut socket, range, warm, &mut hasher)?;
    segment
        .warm
        .fetch_max(offset + len as u64, Ordering::Relaxed);
    let mut sent: Hash = [0; HASH_BYTES];
    socket.fill(&mut sent)?;
    socket.wake_by(1)?;
    let hash = hasher.value();
    Ok(Received {
        sound: hash == sent,
        hash,
    })
}

/// Receives as much at once as there is, so that the other side is told early that there is room. Memory beyond what is
/// `warm` is faulted in ahead, a part at a time, while the socket takes what comes: 100 MB then take 56 ms rather than 79
/// (medians), as the system maps many pages at once. To receive into other memory, and write that through the segment's
/// file (`copy.rs`), gained nothing that could be measured.
fn receive_range(
    socket: &mut Receiver,
    range: &mut [u8],
    warm: usize,
    hasher: &mut RangeHasher,
) -> Result<()> {
    let (mut at, mut hashed, mut mapped) = (0, 0, warm);
    while at < range.len() {
        if at >= mapped {
            let end = (at + BULK_FAULT_BYTES).min(range.len());
            fault_in(&mut range[at..end]);
            mapped = end;
        }
        at += socket.some(&mut range[at..mapped])?;
        while at - hashed >= BULK_BLOCK_BYTES || at == range.len() && hashed < at {
            let end = (hashed + BULK_BLOCK_BYTES).min(at);
            hasher.add(&range[hashed..end]);
            hashed = end;
        }
    }
    Ok(())
}

/// Has the system map pages before they are written to. It is only faster: a system that cannot maps them one by one.
fn fault_in(range: &mut [u8]) {
    let page = PAGE_BYTES as usize;
    let from = range.as_mut_ptr() as usize / page * page;
    let len = range.as_ptr() as usize + range.len() - from;
    // SAFETY: a range of a segment's mapping, and the rest of its first page, none of which is changed.
    unsafe { libc::madvise(from as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) };
}

/// The hash of a range: of the hashes of its blocks.
#[derive(Default)]
struct RangeHasher(Vec<u8>);

impl RangeHasher {
    fn add(&mut self, block: &[u8]) {
        self.0
            .extend_from_slice(&XxHash3_64::oneshot(block).to_le_bytes());
    }

    fn value(&self) -> Hash {
        XxHash3_64::oneshot(&self.0).to_le_bytes()
    }
}

fn send_all(fd: RawFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: `bytes` is valid. Without the flag a connection that ended would be a signal, which ends the process.
        let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match n {
            n if n >= 0 => bytes = &bytes[n as usize..],
            _ if errno() == libc::EAGAIN => wait(fd, libc::POLLOUT)?,
            _ if errno() == libc::EINTR => {}
            _ => return Err(io_error()),
        }
    }
    Ok(())
}

/// The receiving side of a range.
///
/// Each time that it has nothing to do and sleeps, the sender must wake it, and so it should find much to do when it
/// wakes: a mebibyte at a time both sides together take 0.31 ns a byte, hashes included, rather than 0.35 (measured over
/// loopback, where a packet has 64 KB). The system wakes it earlier if the socket has no room for that much.
struct Receiver {
    fd: RawFd,
    /// Bytes that are still to come.
    expected: usize,
    /// What must be there to wake whoever waits: a property of the socket, 1 for its owner.
    woken_by: usize,
}

impl Receiver {
    fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < into.len() {
            at += self.some(&mut into[at..])?;
        }
        Ok(())
    }

    /// Receives at least one byte.
    fn some(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            // SAFETY: `into` is valid and ours to write.
            let n = unsafe { libc::recv(self.fd, into.as_mut_ptr().cast(), into.len(), 0) };
            match n {
                n if n > 0 => {
                    self.expected -= n as usize;
                    return Ok(n as usize);
                }
                0 => {
                    set_last_errno(libc::ECONNRESET);
                    return Err(Status::Io);
                }
                _ if errno() == libc::EAGAIN => {
                    self.wake_by(self.expected.min(BULK_WAKE_BYTES))?;
                    wait(self.fd, libc::POLLIN)?;
                }
                _ if errno() == libc::EINTR => {}
                _ => return Err(io_error()),
            }
        }
    }

    fn wake_by(&mut self, count: usize) -> Result<()> {
        if count == self.woken_by {
            return Ok(());
        }
        let value = count as libc::c_int;
        let len = std::mem::size_of_val(&value) as libc::socklen_t;
        let at = (&raw const value).cast();
        // SAFETY: the value outlives the call.
        match unsafe { libc::setsockopt(self.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, at, len) } {
            0 => self.woken_by = count,
            _ => return Err(io_error()),
        }
        Ok(())
    }
}

/// Waits until a call that would have blocked may go on. A shutdown of the socket ends it.
fn wait(fd: RawFd, events: libc::c_short) -> Result<()> {
    let mut wanted = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one descriptor, in a place that outlives the call.
    match unsafe { libc::poll(&mut wanted, 1, -1) } {
        n if n < 0 && errno() != libc::EINTR => Err(io_error()),
        _ => Ok(()),
    }
}

pub fn shutdown(fd: RawFd) -> Result<()> {
    // SAFETY: a plain system call.
    match unsafe { libc::shutdown(fd, libc::SHUT_RDWR) } {
        0 => Ok(()),
        // The other side was first.
        _ if errno() == libc::ENOTCONN => Ok(()),
        _ => Err(io_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    /// Two ends of a connection, that do not block, as an event loop has them.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    fn segment() -> Arc<Segment> {
        Segment::create(b"", 16 << 20, 64, 8).unwrap().publish()
    }

    /// The first `len` bytes of a segment's data, as memory that nobody else uses.
    #[allow(clippy::mut_from_ref)] // what is shared is the mapping, not this part of it
    fn place(segment: &Segment, len: usize) -> &mut [u8] {
        segment.reserve_data(0, len as u64).unwrap();
        // SAFETY: backed, within the data area, and of a segment without objects that this test alone has.
        unsafe { std::slice::from_raw_parts_mut(segment.data(0), len) }
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn woken_by(socket: &TcpStream) -> libc::c_int {
        let mut value: libc::c_int = 0;
        let mut len = 4;
        // SAFETY: the value is of the size that is said.
        let rc = unsafe {
            let at = (&raw mut value).cast();
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                at,
                &mut len,
            )
        };
        assert_eq!(rc, 0);
        value
    }

    #[test]
    fn what_is_sent_is_received_with_its_hash() {
        for len in [1, BULK_BLOCK_BYTES - 1, 5 * BULK_BLOCK_BYTES + 17] {
            let (from, to) = (segment(), segment());
            let (ours, theirs) = connection();
            let sent = pattern(len);
            place(&from, len).copy_from_slice(&sent);
            let target = place(&to, len).as_mut_ptr() as usize;
            // SAFETY: the memory is this test's alone.
            let receiver = std::thread::spawn(move || unsafe {
                let received = receive(theirs.as_raw_fd(), target as *mut u8, len).unwrap();
                assert_eq!(woken_by(&theirs), 1, "the socket is as it was");
                (received, theirs)
            });
            let hash = unsafe { send(ours.as_raw_fd(), from.data(0), len, None) }.unwrap();
            let (received, theirs) = receiver.join().unwrap();
            assert!(received.sound && received.hash == hash);
            assert!(place(&to, len) == sent);
            // Passed on by whoever knows the hash; and the connection can be used again.
            let receiver = std::thread::spawn(move || unsafe {
                receive(theirs.as_raw_fd(), target as *mut u8, len).unwrap()
            });
            let again = unsafe { send(ours.as_raw_fd(), from.data(0), len, Some(hash)) }.unwrap();
            assert!(again == hash && receiver.join().unwrap().sound);
        }
    }

    #[test]
    fn a_bit_that_was_turned_over_is_noticed() {
        let (from, to) = (segment(), segment());
        let len = 3 * BULK_BLOCK_BYTES;
        place(&from, len).copy_from_slice(&pattern(len));
        let (ours, theirs) = connection();
        // SAFETY: the memory is this test's alone.
        let hash = std::thread::spawn(move || unsafe {
            send(ours.as_raw_fd(), from.data(0), len, None).unwrap()
        });
        let mut bytes = vec![0; len + HASH_BYTES];
        theirs.set_nonblocking(false).unwrap();
        (&theirs).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[len..], hash.join().unwrap());
        for (place_of_bit, sound) in [(len, true), (len / 2, false), (len + 3, false)] {
            let (mut sender, receiver) = connection();
            let mut spoilt = bytes.clone();
            if !sound {
                spoilt[place_of_bit] ^= 16;
            }
            let target = place(&to, len).as_mut_ptr() as usize;
            let received = std::thread::spawn(move || unsafe {
                receive(receiver.as_raw_fd(), target as *mut u8, len).unwrap()
            });
            sender.set_nonblocking(false).unwrap();
            sender.write_all(&spoilt).unwrap();
            assert_eq!(received.join().unwrap().sound, sound);
        }
    }

    #[test]
    fn whoever_waits_is_told_of_the_end_by_either_side() {
        for by_peer in [true, false] {
            for sends in [true, false] {
                let memory = segment();
                let len = 12 << 20; // more than a socket takes
                let at = place(&memory, len).as_mut_ptr() as usize;
                let (ours, theirs) = connection();
                let fd = ours.as_raw_fd();
                let begun = Arc::new(std::sync::Barrier::new(2));
                let meeting = begun.clone();
                let waiting = std::thread::spawn(move || {
                    meeting.wait();
                    // SAFETY: the memory is this test's alone.
                    unsafe {
                        if sends {
                            send(fd, at as *const u8, len, None).map(|_| ())
                        } else {
                            receive(fd, at as *mut u8, len).map(|_| ())
                        }
                    }
                });
                begun.wait();
                if by_peer {
                    drop(theirs);
                    assert_eq!(waiting.join().unwrap(), Err(Status::Io));
                } else {
                    shutdown(fd).unwrap();
                    assert_eq!(waiting.join().unwrap(), Err(Status::Io));
                    drop(theirs);
                }
                drop(ours);
            }
        }
    }

    #[test]
    fn a_connection_is_found_by_its_ends() {
        let (ours, theirs) = connection();
        let [local, peer] = [ours.local_addr().unwrap(), ours.peer_addr().unwrap()];
        let [own, back] = [open(local, peer).unwrap(), open(peer, local).unwrap()];
        // SAFETY: both are new and nobody else's.
        let own = unsafe { TcpStream::from_raw_fd(own) };
        let mut back = unsafe { TcpStream::from_raw_fd(back) };
        back.set_nonblocking(false).unwrap();
        (&ours).write_all(b"a").unwrap();
        (&own).write_all(b"b").unwrap();
        let mut read = [0; 2];
        back.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ab");
        drop((own, back, theirs));
        let other = SocketAddr::new(local.ip(), local.port() ^ 1);
        assert_eq!(open(other, peer), Err(Status::NotFound));
        assert_eq!(address(b"[::1]:80").unwrap().port(), 80);
        assert_eq!(address(b"localhost:80"), Err(Status::BadArg));
    }

    #[test]
    fn memory_of_no_segment_is_refused() {
        let (ours, _theirs) = connection();
        let mut bytes = [0u8; 8];
        // SAFETY: the memory is this test's alone.
        unsafe {
            let sent = send(ours.as_raw_fd(), bytes.as_ptr(), 8, None);
            assert_eq!(sent, Err(Status::BadArg));
            let received = receive(ours.as_raw_fd(), bytes.as_mut_ptr(), 8).map(|_| ());
            assert_eq!(received, Err(Status::BadArg));
        }
    }
}
