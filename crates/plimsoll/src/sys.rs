//! The only unsafe code of this crate: system calls that no safe wrapper offers.
#![allow(unsafe_code, reason = "no safe wrapper sets a thread's scheduling class")]

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
