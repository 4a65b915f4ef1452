//! The only unsafe code of the command: what runs between fork and exec, a signal handler, and one ioctl.

#![allow(unsafe_code)] // pre_exec, signal handlers and PIDFD_GET_INFO have no safe form; each block says why it is sound.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;
use signal_hook::SigId;

/// What the child does to itself between fork and exec.
#[derive(Debug, Default)]
pub(crate) struct Prelude {
    /// `cgroup.procs` files, open for writing: the child writes itself into each. A refusal is not an error here; the
    /// parent looks afterwards where the child is.
    pub(crate) cgroups: Vec<OwnedFd>,
    /// The text for `/proc/self/oom_score_adj`.
    pub(crate) oom_score_adj: Option<String>,
    /// A terminal whose foreground group the child's becomes.
    pub(crate) terminal: Option<OwnedFd>,
    /// A pseudo-terminal that becomes the controlling terminal of a new session.
    pub(crate) pty: Option<OwnedFd>,
}

/// Has `command` do `prelude` in the child, and start with the signals it would have under a shell.
pub(crate) fn before_exec(command: &mut Command, prelude: Prelude) {
    let steps = move || {
        for procs in &prelude.cgroups {
            if rustix::io::write(procs, b"0").is_err() {
                continue; // looked at by the parent
            }
        }
        if let Some(text) = &prelude.oom_score_adj
            && let Ok(file) = rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())
        {
            // Where it is refused the child keeps the score it inherited: harmless.
            rustix::io::write(&file, text.as_bytes()).ok();
        }
        if let Some(pty) = &prelude.pty {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(pty)?;
        }
        if let Some(terminal) = &prelude.terminal {
            // SIGTTOU is still ignored here, so a background group may take the terminal.
            rustix::termios::tcsetpgrp(terminal, rustix::process::getpid()).ok();
        }
        for signal in [libc::SIGTTOU, libc::SIGTTIN, libc::SIGTSTP] {
            // SAFETY: async-signal-safe, and SIG_DFL is a valid disposition for these signals.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child; it only makes system calls on descriptors and constants that were
    // prepared before the fork, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(steps) };
}

/// Calls `handler` for each `signal` until the id is unregistered.
///
/// `handler` runs inside the signal handler: it may only use atomics and async-signal-safe system calls.
pub(crate) fn on_signal(signal: c_int, handler: impl Fn() + Send + Sync + 'static) -> io::Result<SigId> {
    // SAFETY: the callers in signals.rs pass closures of one atomic or and one write(2) to an eventfd.
    unsafe { signal_hook::low_level::register(signal, handler) }
}

/// One arena for all threads: what one frees another can use, and an idle supervisor stays small. Before any thread.
pub(crate) fn one_arena() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number inside malloc; no memory is involved. A refusal only means more memory.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Gives back the pages of our own code that are mapped: what runs on is mapped again from the page cache at its next use
/// (a minor fault each), what only the start needed is not. Called once, when the program has run for a while.
pub(crate) fn forget_code() {
    let Ok(maps) = super::files::read_bounded("/proc/self/maps".as_ref()) else { return };
    let maps = String::from_utf8_lossy(&maps);
    let Ok(own) = std::env::current_exe() else { return };
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(&*own.to_string_lossy())) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (number(from), number(to))) {
            let start = std::ptr::with_exposed_provenance_mut::<std::ffi::c_void>(from);
            // SAFETY: the range is a whole mapping of this program's file, executable and never writable, so none of its
            // pages differs from the file; dropping them changes no byte that anybody can read.
            unsafe { libc::madvise(start, to.saturating_sub(from), libc::MADV_DONTNEED) };
        }
    }
}

/// Ignores a signal in this process.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is a valid disposition; no handler of ours is replaced.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// The head of the kernel's `struct pidfd_info` (64 bytes, its first published version).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: ask for the exit status of a process that has been reaped.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)` with the size of the first version.
const GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;

/// The raw wait status of a process that was not our child, once it has been reaped by whoever is its parent.
/// `None` while it is not, and on kernels before 6.15.
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size is that of `PidfdInfo`, which lives and is exclusively borrowed for the call; the
    // kernel writes at most that many bytes, and every bit pattern is a valid `PidfdInfo`.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (done == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// A pidfd of a process, with which no later process of the same number can be meant.
pub(crate) fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Duplicates a descriptor, close-on-exec.
pub(crate) fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_of_a_reaped_process_is_read_where_the_kernel_has_it() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()).unwrap();
        assert_eq!(pidfd_exit_status(pidfd.as_fd()), None, "not reaped yet");
        child.wait().unwrap();
        // Linux 6.15 and later tell; older ones must say nothing rather than something wrong.
        assert!(matches!(pidfd_exit_status(pidfd.as_fd()), Some(0x700) | None));
    }
}
