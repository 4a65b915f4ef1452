//! How the capture thread waits: for a while, and no longer once the supervisor ends; and for commands that it starts.
//!
//! The supervise loop reaps every child, so what a command ended with is not known here: what it wrote is judged instead.

use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::tree::Excluded;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

/// Sleeps; false once nothing should be waited for any more.
pub(crate) trait Pause {
    /// At most for `time`.
    fn pause(&self, time: Duration) -> bool;
}

/// How often a command that runs is looked at, beside its end.
const LOOK: Duration = Duration::from_millis(200);

/// Starts `command` in a process group of its own, not counted as the program's, and waits for its end.
///
/// # Errors
/// A sentence: it cannot be started, or was killed after `patience` or because the supervisor ends.
pub(crate) fn run(
    mut command: Command,
    patience: Duration,
    excluded: &Excluded,
    pause: &dyn Pause,
) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).process_group(0);
    let started = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let Some(pid) = i32::try_from(started.id()).ok().and_then(Pid::from_raw) else {
        return Err(format!("{program}: the kernel gave an impossible pid"));
    };
    if !excluded.exclude(pid.as_raw_nonzero().get()) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
        return Err(format!("{program}: too many commands run at once"));
    }
    // Reaped already: it has ended.
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return Ok(()) };
    let until = MonotonicClock.now() + patience;
    loop {
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&look)).is_ok_and(|ready| ready > 0) {
            return Ok(());
        }
        let late = MonotonicClock.now() > until;
        if late || !pause.pause(Duration::ZERO) {
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
            let why =
                if late { format!("not done within {} s", patience.as_secs()) } else { "the supervisor ends".into() };
            return Err(format!("{program}: {why}"));
        }
    }
}
