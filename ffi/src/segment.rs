//! The mapped file: making it, opening it, reserving its memory, and sharing one mapping among all who open it in a
//! process.
//!
//! The file has no name (`O_TMPFILE`), so nothing is left behind however its users end; others reach it through the
//! creator's `/proc/<pid>/fd/<n>` while the creator lives, and keep it by their own mapping after that.
//!
//! The file is sparse. A store to a page that has no memory behind it would be answered with `SIGBUS` if the file
//! system is full, so every range is reserved with `fallocate` before anyone is told of it, and a refusal is an
//! ordinary "full".

use crate::journal;
use crate::layout::*;
use crate::limits::*;
use crate::prefault::Prefault;
use crate::status::{errno, io_error, set_last_errno, Result, Status};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Segment {
    base: *mut u8,
    file: File,
    pub layout: Layout,
    creator: bool,
    identity: (u64, u64),
    /// Data below this offset has been written through this process's mapping, as far as large copies and the prefault
    /// thread know. A hint: copies above it go a way that is faster for untouched pages and right for all.
    pub warm: AtomicU64,
    pub prefault: Mutex<Option<Prefault>>,
}

// SAFETY: the mapping is shared memory; everything in it is accessed through atomics under the segment's own lock,
// or, for data, handed out as addresses whose use is the caller's to order.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes an unnamed segment in `dir`, or in anonymous memory where `dir` cannot hold one.
    pub fn create(
        dir: &[u8],
        capacity: u64,
        max_objects: u32,
        max_clients: u32,
    ) -> Result<Segment> {
        let layout = Layout::new(capacity, max_objects, max_clients)?;
        let dir = if dir.is_empty() { b"/dev/shm" } else { dir };
        let file = match unnamed_file(dir) {
            Ok(file) => file,
            Err(status) => memory_file().ok_or(status)?,
        };
        let len = layout.file_len as libc::off_t;
        // SAFETY: a plain system call on a descriptor that `file` owns.
        if without_sigxfsz(|| unsafe { libc::ftruncate(file.as_raw_fd(), len) }) != 0 {
            return Err(io_error());
        }
        let segment = Segment::map(file, layout, true)?;
        segment.initialise()?;
        Ok(segment)
    }

    fn initialise(&self) -> Result<()> {
        let layout = &self.layout;
        self.reserve_file(0, layout.clients.start)?;
        // SAFETY: the mapping begins with the header, whose pages were just reserved; it is zeroed, which is a valid
        // value of every field, and nobody else knows of the file yet.
        let header = unsafe { &mut *(self.base as *mut Header) };
        header.abi = ABI_VERSION;
        header.max_objects = layout.max_objects;
        header.max_clients = layout.max_clients;
        header.capacity = layout.capacity;
        header.file_len = layout.file_len;
        header.seed = random_seed();
        journal::init_mutex(&header.mutex)?;
        let first = POOL_STEP_BYTES.min(layout.buckets.bytes);
        self.reserve_file(layout.buckets.start, first)?;
        *header.bucket_pool.reserved.0.get_mut() = first;
        *header.buckets.0.get_mut() = BUCKETS_MIN;
        header.magic.store(MAGIC, Ordering::Release);
        Ok(())
    }

    /// Opens a segment by path, sharing this process's mapping of it if there is one.
    pub fn open(path: &[u8]) -> Result<Arc<Segment>> {
        let path = CString::new(path).map_err(|_| Status::BadArg)?;
        // SAFETY: `path` is a C string; the descriptor is owned by the `File` made from it.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io_error());
        }
        // SAFETY: `fd` is open and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        let stat = fstat(fd)?;
        let mut registry = registry();
        if let Some(open) = registry
            .iter_mut()
            .find(|open| open.segment.identity == identity(&stat))
        {
            open.refs += 1;
            return Ok(open.segment.clone());
        }
        // Only a file of our own user can be trusted not to lie about itself.
        // SAFETY: geteuid cannot fail.
        if stat.st_uid != unsafe { libc::geteuid() }
            || stat.st_mode & libc::S_IFMT != libc::S_IFREG
            || (stat.st_size as usize) < std::mem::size_of::<Header>()
        {
            return Err(Status::BadArg);
        }
        let layout = read_layout(&file, stat.st_size as u64)?;
        let segment = Arc::new(Segment::map(file, layout, false)?);
        registry.push(Open {
            segment: segment.clone(),
            refs: 1,
        });
        Ok(segment)
    }

    /// Enters a segment this process made into the registry.
    pub fn publish(self) -> Arc<Segment> {
        let segment = Arc::new(self);
        registry().push(Open {
            segment: segment.clone(),
            refs: 1,
        });
        segment
    }

    /// Drops one reference of the process; the last one ends the background work and, for the creator, the store.
    pub fn close(segment: Arc<Segment>) {
        let last = {
            let mut registry = registry();
            let Some(at) = registry
                .iter()
                .position(|open| Arc::ptr_eq(&open.segment, &segment))
            else {
                return;
            };
            registry[at].refs -= 1;
            if registry[at].refs > 0 {
                return;
            }
            registry.swap_remove(at).segment
        };
        Prefault::stop(&last);
        if last.creator {
            // A store that is damaged or held by a stopped process has nothing more to give back.
            let _ = crate::objects::shut(&last);
        }
    }

    fn map(file: File, layout: Layout, creator: bool) -> Result<Segment> {
        let stat = fstat(file.as_raw_fd())?;
        // SAFETY: a new shared mapping of a file that is `file_len` long; the result is checked.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                layout.file_len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io_error());
        }
        Ok(Segment {
            base: base as *mut u8,
            file,
            layout,
            creator,
            identity: identity(&stat),
            warm: AtomicU64::new(0),
            prefault: Mutex::new(None),
        })
    }

    #[inline(always)]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    #[inline(always)]
    pub fn header(&self) -> &Header {
        // SAFETY: every mapping begins with an initialised header (checked on open) and lives as long as `self`; all
        // fields that change are atomics or the mutex.
        unsafe { &*(self.base as *const Header) }
    }

    pub fn is_creator(&self) -> bool {
        self.creator
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Address in this process of an offset into the data area, which the caller has checked.
    #[inline(always)]
    pub fn data(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.layout.capacity);
        // SAFETY: the data area ends with the mapping, and `offset` is within it.
        unsafe { self.base.add((self.layout.data + offset) as usize) }
    }

    #[inline(always)]
    fn record<T>(&self, region: &Region, index: u32) -> Result<&T> {
        debug_assert!(std::mem::size_of::<T>() as u64 == region.record_bytes);
        if index == NIL || index > region.records_max {
            return Err(Status::Corrupt);
        }
        // SAFETY: the region lies within the mapping and `index` within the region; records consist of atomics.
        unsafe {
            let at = region.start as usize + index as usize * std::mem::size_of::<T>();
            Ok(&*(self.base.add(at) as *const T))
        }
    }

    #[inline(always)]
    pub fn client(&self, index: u32) -> Result<&Client> {
        self.record(&self.layout.clients, index)
    }
    #[inline(always)]
    pub fn object(&self, index: u32) -> Result<&Object> {
        self.record(&self.layout.objects, index)
    }
    #[inline(always)]
    pub fn block(&self, index: u32) -> Result<&Block> {
        self.record(&self.layout.blocks, index)
    }
    #[inline(always)]
    pub fn pin(&self, index: u32) -> Result<&Pin> {
        self.record(&self.layout.pins, index)
    }
    /// Bucket `bucket`, counted from 0.
    #[inline(always)]
    pub fn bucket(&self, bucket: u32) -> Result<&W32> {
        self.record(&self.layout.buckets, bucket + 1)
    }

    /// A word of the metadata by its offset, for undoing.
    pub fn meta_word<T>(&self, offset: u64) -> Result<&T> {
        let size = std::mem::size_of::<T>() as u64;
        if offset % size != 0 || offset > self.layout.data - size {
            return Err(Status::Corrupt);
        }
        // SAFETY: aligned and within the metadata, which consists of atomics.
        Ok(unsafe { &*(self.base.add(offset as usize) as *const T) })
    }

    /// Backs a range of the file with memory. Idempotent, and safe to do without the lock.
    fn reserve_file(&self, offset: u64, len: u64) -> Result<()> {
        loop {
            // SAFETY: a plain system call on a descriptor that `self.file` owns.
            let rc = without_sigxfsz(|| unsafe {
                libc::fallocate(self.file.as_raw_fd(), 0, offset as i64, len as i64)
            });
            if rc == 0 {
                return Ok(());
            }
            match errno() {
                libc::EINTR => continue,
                libc::ENOSPC | libc::ENOMEM | libc::EDQUOT | libc::EFBIG => {
                    set_last_errno(errno());
                    return Err(Status::Full);
                }
                _ => return Err(io_error()),
            }
        }
    }

    /// Backs a range of a metadata table.
    pub fn reserve_table(&self, region: &Region, from: u64, to: u64) -> Result<()> {
        self.reserve_file(region.start + from, to - from)
    }

    /// Backs a range of the data area.
    pub fn reserve_data(&self, from: u64, to: u64) -> Result<()> {
        self.reserve_file(self.layout.data + from, to - from)
    }

    /// Gives the memory of a range of the data area back to the system. Its contents become zero.
    pub fn punch_data(&self, from: u64, to: u64) {
        if from < to {
            // SAFETY: a plain system call on a descriptor that `self.file` owns. Failure leaves the memory in use.
            unsafe {
                libc::fallocate(
                    self.file.as_raw_fd(),
                    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    (self.layout.data + from) as i64,
                    (to - from) as i64,
                )
            };
        }
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of this length; nobody refers to it, or `self` would still be shared.
        unsafe {
            libc::munmap(
                self.base as *mut libc::c_void,
                self.layout.file_len as usize,
            )
        };
    }
}

struct Open {
    segment: Arc<Segment>,
    refs: usize,
}

static REGISTRY: Mutex<Vec<Open>> = Mutex::new(Vec::new());

fn registry() -> MutexGuard<'static, Vec<Open>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open segment whose data area has this range, and where in it.
pub fn containing(at: *const u8, len: usize) -> Option<(Arc<Segment>, u64)> {
    registry().iter().find_map(|open| {
        let offset = (at as u64).checked_sub(open.segment.data(0) as u64)?;
        let end = offset.checked_add(len as u64)?;
        (end <= open.segment.layout.capacity).then(|| (open.segment.clone(), offset))
    })
}

fn identity(stat: &libc::stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn fstat(fd: RawFd) -> Result<libc::stat> {
    // SAFETY: `stat` is plain data that the call fills in.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut stat) != 0 {
            return Err(io_error());
        }
        Ok(stat)
    }
}

/// Reads and checks the header of a file that claims to be a segment.
fn read_layout(file: &File, file_len: u64) -> Result<Layout> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0u8; std::mem::offset_of!(Header, seed)];
    file.read_exact_at(&mut bytes, 0).map_err(|_| Status::Io)?;
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    if u64_at(std::mem::offset_of!(Header, magic)) != MAGIC
        || u32_at(std::mem::offset_of!(Header, abi)) != ABI_VERSION
    {
        return Err(Status::BadArg);
    }
    let layout = Layout::new(
        u64_at(std::mem::offset_of!(Header, capacity)),
        u32_at(std::mem::offset_of!(Header, max_objects)),
        u32_at(std::mem::offset_of!(Header, max_clients)),
    )?;
    if layout.file_len != u64_at(std::mem::offset_of!(Header, file_len))
        || layout.file_len != file_len
    {
        return Err(Status::Corrupt);
    }
    Ok(layout)
}

/// A file in `dir` without a name, readable and writable by its user only.
pub fn unnamed_file(dir: &[u8]) -> Result<File> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    let dir_c = CString::new(dir).map_err(|_| Status::BadArg)?;
    // SAFETY: `dir_c` is a C string; a descriptor that comes back is nobody else's.
    unsafe {
        let fd = libc::open(dir_c.as_ptr(), libc::O_TMPFILE | flags, 0o600);
        if fd >= 0 {
            return Ok(File::from_raw_fd(fd));
        }
    }
    if !matches!(errno(), libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) {
        return Err(io_error());
    }
    // A file system without O_TMPFILE: make a name and remove it at once.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..16 {
        let unique = random_seed() ^ COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = [dir, format!("/.raystore-{unique:016x}").as_bytes()].concat();
        let name = CString::new(name).map_err(|_| Status::BadArg)?;
        // SAFETY: as above.
        unsafe {
            let fd = libc::open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL | flags, 0o600);
            if fd >= 0 {
                let unlinked = libc::unlink(name.as_ptr());
                let file = File::from_raw_fd(fd);
                return if unlinked == 0 {
                    Ok(file)
                } else {
                    Err(io_error())
                };
            }
        }
        if errno() != libc::EEXIST {
            break;
        }
    }
    Err(io_error())
}

fn memory_file() -> Option<File> {
    // SAFETY: the name is a C string; a descriptor that comes back is nobody else's.
    unsafe {
        let fd = libc::memfd_create(c"raystore".as_ptr(), libc::MFD_CLOEXEC);
        (fd >= 0).then(|| File::from_raw_fd(fd))
    }
}

fn random_seed() -> u64 {
    let mut seed = 0u64;
    // SAFETY: the buffer is as long as said. Fewer bytes than asked for only make the seed weaker.
    unsafe {
        libc::getrandom(
            &mut seed as *mut u64 as *mut libc::c_void,
            8,
            libc::GRND_NONBLOCK,
        )
    };
    seed
}

/// Runs a system call that may hit the process's file size limit, which would otherwise kill the process by signal.
pub fn without_sigxfsz<T: Copy + Into<i64>>(call: impl Fn() -> T) -> T {
    // SAFETY: all sets are initialised by the calls that fill them; the mask is this thread's own and is restored.
    unsafe {
        let mut block: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut block);
        libc::sigaddset(&mut block, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &block, &mut old);
        let result = call();
        let failure = errno();
        if result.into() < 0
            && failure == libc::EFBIG
            && libc::sigismember(&old, libc::SIGXFSZ) == 0
        {
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            libc::sigtimedwait(&block, std::ptr::null_mut(), &now);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        *libc::__errno_location() = failure;
        result
    }
}

/// An opaque handle of the C ABI. It is never freed, only marked, so that a handle used after it was closed is an
/// error and not a wild pointer; it is two words, and a process opens a handful.
pub struct Handle {
    live: AtomicU64,
    segment: Mutex<Option<Arc<Segment>>>,
    raw: *const Segment,
}

// SAFETY: `raw` is what `segment` holds, and shared as that is.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

static HANDLES: Mutex<Vec<&'static Handle>> = Mutex::new(Vec::new());

const HANDLE_LIVE: u64 = 0x5ca1_ab1e_0b5e_55ed;

impl Handle {
    pub fn new(segment: Arc<Segment>) -> *mut Handle {
        let raw = Arc::as_ptr(&segment);
        let handle: &'static Handle = Box::leak(Box::new(Handle {
            live: AtomicU64::new(HANDLE_LIVE),
            segment: Mutex::new(Some(segment)),
            raw,
        }));
        // So that leak checkers see that it is meant.
        let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push(handle);
        handle as *const Handle as *mut Handle
    }

    /// The segment, for a call that ends before its caller can close the handle.
    ///
    /// # Safety
    /// `handle` came from `new`, or is null.
    #[inline(always)]
    pub unsafe fn segment<'a>(handle: *mut Handle) -> Result<&'a Segment> {
        // SAFETY: handles are never freed; while one is live it holds its segment.
        unsafe {
            if handle.is_null() || (*handle).live.load(Ordering::Relaxed) != HANDLE_LIVE {
                return Err(Status::BadArg);
            }
            Ok(&*(*handle).raw)
        }
    }

    /// The segment, kept alive for a call that runs beside others on the same handle.
    ///
    /// # Safety
    /// `handle` came from `new`, or is null.
    pub unsafe fn hold(handle: *mut Handle) -> Result<Arc<Segment>> {
        if handle.is_null() {
            return Err(Status::BadArg);
        }
        // SAFETY: handles are never freed.
        let slot = unsafe { &(*handle).segment };
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or(Status::BadArg)
    }

    /// # Safety
    /// `handle` came from `new`, or is null.
    pub unsafe fn close(handle: *mut Handle) -> Result<()> {
        if handle.is_null() {
            return Err(Status::BadArg);
        }
        // SAFETY: handles are never freed.
        let handle = unsafe { &*handle };
        handle.live.store(0, Ordering::Relaxed);
        let segment = handle
            .segment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Segment::close(segment.ok_or(Status::BadArg)?);
        Ok(())
    }
}
