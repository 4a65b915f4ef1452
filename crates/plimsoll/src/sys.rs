//! The only unsafe code of this crate: system calls that no safe wrapper offers.
#![allow(
    unsafe_code,
    reason = "no safe wrapper sets a scheduling class, maps memory without a slice into it, or ends the process at once"
)]

use std::io;

/// Puts the calling thread, and only it, into `SCHED_FIFO` with this priority (1 is the lowest). What it forks is ordinary.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_NICE` and without `RLIMIT_RTPRIO`, or when the cgroup has no real-time share.
pub(crate) fn schedule_fifo(priority: i32) -> io::Result<()> {
    // All fields are set: some C libraries have more than the kernel reads, and all zero is right for those.
    // SAFETY: `sched_param` is made of integers, for which all zero bits are a value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // The raw call: musl's wrapper only returns ENOSYS. Pid 0 is the calling thread.
    // SAFETY: the kernel reads one `sched_param` behind a pointer that lives across the call, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const param) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process at once: no destructors, no `atexit` handlers, nothing is flushed, no thread is asked.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any status, touches no memory of ours and does not return.
    unsafe { libc::_exit(code) }
}

/// Anonymous memory of our own that is really there: private, written to, never a huge page, not inherited by what is
/// forked, not in core dumps. Nobody reads or writes it; dropping it gives every page back.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: usize,
    bytes: usize,
    locked: bool,
}

impl Mapping {
    /// Maps and touches `bytes`, rounded up to pages. Locked in memory too where that is allowed.
    pub(crate) fn touched(bytes: usize) -> io::Result<Mapping> {
        let page = rustix::param::page_size();
        let bytes = bytes.max(1).checked_next_multiple_of(page).ok_or(io::ErrorKind::InvalidInput)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapping = Mapping { base: base as usize, bytes, locked: false };
        // Each may be refused by a kernel that does not know it, which then has nothing to forbid. Before the first touch:
        // a page that is part of a huge one would stay so.
        for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_DONTFORK, libc::MADV_DONTDUMP, libc::MADV_UNMERGEABLE] {
            // SAFETY: the range is the mapping just made; none of these changes what it holds.
            unsafe { libc::madvise(base, bytes, advice) };
        }
        // SAFETY: as above; this one writes zeros to pages that are zero. Linux 5.14 and later.
        if unsafe { libc::madvise(base, bytes, libc::MADV_POPULATE_WRITE) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
            for offset in (0..bytes).step_by(page) {
                let byte = (mapping.base + offset) as *mut u8;
                // SAFETY: inside the mapping, which is writable and which no reference points into.
                unsafe { byte.write_volatile(1) };
            }
        }
        // SAFETY: the range is the mapping; locking changes nothing that it holds.
        mapping.locked = unsafe { libc::mlock(base, bytes) } == 0;
        Ok(mapping)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it cannot be swapped out.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, unmapped once; no pointer into it was handed out.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.bytes) };
    }
}
