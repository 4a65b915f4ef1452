//! The only unsafe code of the loads: fork, a signal handler that stamps and writes, anonymous mappings and touching them.
//!
//! Every load is single-threaded, so `fork` needs no more care than in C. The handler does what POSIX allows in one: reads a
//! clock, stores into atomics, formats into its own stack, writes once.
#![allow(unsafe_code, reason = "fork, sigaction and mmap have no safe form; this is the one file that has them")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// The page that everything is touched by, in bytes. Transparent huge pages are refused for the mappings of [`Region`].
pub(crate) const PAGE_BYTES: usize = 4096;

/// What the processes of one load share, in a page that survives `fork`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Bytes touched by all of them, with what each had before it began.
    pub(crate) total_bytes: AtomicU64,
    /// When `total_bytes` reached the mark; 0 before.
    pub(crate) crossed_ns: AtomicU64,
    /// The process that leaks on its own, 0 before it exists.
    pub(crate) leaf_pid: AtomicI32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
static TOUCHED_BYTES: AtomicU64 = AtomicU64::new(0);
static SIGNAL_NS: AtomicU64 = AtomicU64::new(0);
static EVIDENCE_FD: AtomicI32 = AtomicI32::new(-1);

/// The shared page, mapped on first use: call it before the first `fork`.
pub(crate) fn shared() -> io::Result<&'static Shared> {
    let mut page = SHARED.load(Ordering::Acquire);
    if page.is_null() {
        page = map(PAGE_BYTES, libc::MAP_SHARED)?.as_ptr().cast();
        SHARED.store(page, Ordering::Release);
    }
    // SAFETY: the mapping is page-aligned, zeroed (a valid `Shared` of atomics), and is never unmapped.
    Ok(unsafe { &*page })
}

/// Where the handler writes its line; the descriptor must stay open for the life of the process.
pub(crate) fn set_evidence_fd(fd: i32) {
    EVIDENCE_FD.store(fd, Ordering::Release);
}

/// When the first caught signal arrived in this process; 0 before.
pub(crate) fn signal_ns() -> u64 {
    SIGNAL_NS.load(Ordering::Acquire)
}

/// Notes for the handler what this process has touched so far.
pub(crate) fn set_touched(bytes: u64) {
    TOUCHED_BYTES.store(bytes, Ordering::Relaxed);
}

/// A forked child must not look as if its parent's signal had been its own.
pub(crate) fn forget_signal() {
    SIGNAL_NS.store(0, Ordering::Release);
    TOUCHED_BYTES.store(0, Ordering::Relaxed);
}

/// Which side of a `fork` this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the pid of the new.
    Parent(i32),
}

/// Splits the process. Only for single-threaded callers.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the loads run one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends the process at once, without destructors: for forked children.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(code) }
}

/// Catches a signal: the first one is stamped, each is written to the evidence.
pub(crate) fn catch(signal: i32) -> io::Result<()> {
    install(signal, on_signal as extern "C" fn(i32) as libc::sighandler_t)
}

/// Sets a signal to be ignored.
pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    install(signal, libc::SIG_IGN)
}

fn install(signal: i32, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid value: no flags (so that a sleep is cut short), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` is initialised and outlives the call; the old action is not asked for.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in signal context.
extern "C" fn on_signal(signal: i32) {
    let now = now_ns();
    // A later signal keeps the first one's time.
    SIGNAL_NS.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).ok();
    let fd = EVIDENCE_FD.load(Ordering::Acquire);
    let shared = SHARED.load(Ordering::Acquire);
    if fd < 0 || shared.is_null() {
        return;
    }
    // SAFETY: a non-null `SHARED` points to the page that `shared` mapped and that is never unmapped.
    let total = unsafe { &*shared }.total_bytes.load(Ordering::Relaxed);
    let mut line = StackLine { bytes: [0; 256], length: 0 };
    line.text(b"{\"event\":\"signal\",\"pid\":");
    line.number(u64::from(std::process::id()));
    line.text(b",\"ns\":");
    line.number(now);
    line.text(b",\"signal\":");
    line.number(signal.unsigned_abs().into());
    line.text(b",\"touched_bytes\":");
    line.number(TOUCHED_BYTES.load(Ordering::Relaxed));
    line.text(b",\"total_bytes\":");
    line.number(total);
    line.text(b"}\n");
    // SAFETY: `write` is async-signal-safe and reads `length` initialised bytes of `bytes`.
    unsafe { libc::write(fd, line.bytes.as_ptr().cast(), line.length) };
}

/// A line on the stack: the handler may not allocate.
struct StackLine {
    bytes: [u8; 256],
    length: usize,
}

impl StackLine {
    fn text(&mut self, text: &[u8]) {
        let end = (self.length + text.len()).min(self.bytes.len());
        let taken = end - self.length;
        self.bytes[self.length..end].copy_from_slice(&text[..taken]);
        self.length = end;
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return self.text(&digits[at..]);
            }
        }
    }
}

fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for one timespec; clock_gettime is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn map(bytes: usize, sharing: i32) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))
}

/// Private anonymous memory that becomes real page by page, as it is touched. Never unmapped: it goes with the process.
pub(crate) struct Region {
    base: NonNull<u8>,
    pages: usize,
}

impl Region {
    /// Reserves address space for `bytes`, rounded up to pages; nothing of it is memory yet.
    pub(crate) fn reserve(bytes: u64) -> io::Result<Region> {
        let pages = usize::try_from(bytes).map_err(io::Error::other)?.div_ceil(PAGE_BYTES).max(1);
        let base = map(pages * PAGE_BYTES, libc::MAP_PRIVATE)?;
        // SAFETY: the range is the mapping just made. A kernel without huge pages refuses, which is as good.
        unsafe { libc::madvise(base.as_ptr().cast(), pages * PAGE_BYTES, libc::MADV_NOHUGEPAGE) };
        Ok(Region { base, pages })
    }

    /// Writes to a page, so that it becomes memory of this process.
    #[inline]
    pub(crate) fn touch(&self, page: usize) {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies inside the mapping (asserted), which lives as long as the process.
        let byte = unsafe { self.base.add(page * PAGE_BYTES) };
        // SAFETY: `byte` is valid for writes and no reference to it exists.
        unsafe { byte.write_volatile(page as u8 | 1) };
    }

    /// Reads from a page; a page shared copy-on-write stays shared.
    #[inline]
    pub(crate) fn read(&self, page: usize) -> u8 {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies inside the mapping (asserted), which lives as long as the process.
        let byte = unsafe { self.base.add(page * PAGE_BYTES) };
        // SAFETY: `byte` is valid for reads; untouched pages read as zero.
        unsafe { byte.read_volatile() }
    }
}
