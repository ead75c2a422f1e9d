//! A port by which others learn that this process has ended, before the system has taken its memory away.
//!
//! A process that is killed gives its memory back first and closes its files after that, when the last of its threads
//! has gone: 5 to 20 ms for one of 150 MB on a busy machine. But a thread may have a table of files of its own, and that
//! one is closed when the thread ends, which all do at once. So this thread has one, with nothing in it but a socket that
//! listens and the connections to it, on which nothing is ever said. When they end, no thread of the process gets to run
//! its program any more: the system marks all of them before it lets the first one end.
//!
//! The other way round it must hold as well: as long as the process lives, the port is there. So the thread never ends by
//! itself, whatever fails.

use crate::limits::{LIFELINES_MAX, LIFELINE_IDLE_S, LIFELINE_RETRY_MS};
use crate::status::{io_error, set_last_errno, Result, Status};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Listens at an address of this machine, or a name of one, on any port, until the process ends. Returns the port.
pub fn open(host: &str) -> Result<u16> {
    let at = (host, 0)
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .ok_or(Status::BadArg)?;
    let (tell, told) = mpsc::channel();
    thread::Builder::new()
        .name("raystore-life".into())
        .stack_size(64 * 1024)
        .spawn(move || match listen(at) {
            Ok((listener, port)) => {
                let _ = tell.send(Ok(port));
                hold(&listener)
            }
            Err(errno) => {
                let _ = tell.send(Err(errno));
            }
        })
        .map_err(|_| io_error())?;
    match told.recv() {
        Ok(Ok(port)) => Ok(port),
        Ok(Err(errno)) => {
            set_last_errno(errno);
            Err(Status::Io)
        }
        Err(_) => Err(Status::Io),
    }
}

fn listen(at: SocketAddr) -> std::result::Result<(TcpListener, u16), i32> {
    let listen = || {
        own_files()?;
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    listen().map_err(|error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Gives this thread a table of files of its own, which is empty: what the process has open is not to be kept open here.
fn own_files() -> std::io::Result<()> {
    // SAFETY: a plain system call; no file that this thread has used is used again.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            0u32,
            u32::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Takes connections, and lets go of those that the other side has ended, for ever.
fn hold(listener: &TcpListener) -> ! {
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        let fds = std::iter::once(listener.as_raw_fd()).chain(held.iter().map(AsRawFd::as_raw_fd));
        let mut waits: Vec<libc::pollfd> = fds
            .map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: `waits` is a live array of that length.
        let ready = unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, -1) };
        if ready < 0 {
            thread::sleep(Duration::from_millis(LIFELINE_RETRY_MS));
            continue;
        }
        let mut at = 0;
        held.retain_mut(|stream| {
            at += 1;
            waits[at].revents == 0 || !has_ended(stream)
        });
        if waits[0].revents == 0 {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                // Whoever comes when there are too many is not kept, and learns of the end in another way.
                let room = held.len() < LIFELINES_MAX;
                if room && stream.set_nonblocking(true).is_ok() && ask_if_there(&stream).is_ok() {
                    held.push(stream);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // No more files, or no memory.
            Err(_) => thread::sleep(Duration::from_millis(LIFELINE_RETRY_MS)),
        }
    }
}

/// Has the system ask now and then whether the other side's machine is there: it may vanish without a word.
fn ask_if_there(stream: &TcpStream) -> std::io::Result<()> {
    let set = |level: i32, option: i32, value: i32| {
        // SAFETY: `value` is read while the call runs.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                std::mem::size_of::<i32>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, LIFELINE_IDLE_S)
}

/// Whether the other side has ended a connection, or says something, which nobody is to do here.
fn has_ended(stream: &mut TcpStream) -> bool {
    !stream
        .read(&mut [0])
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
