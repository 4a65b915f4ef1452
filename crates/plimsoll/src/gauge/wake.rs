//! Descriptors that become ready when the kernel sees memory pressure: they wake a sleeper early, they never decide.
//!
//! Four kinds, at most one descriptor each: a cgroup v1 **threshold** (an eventfd, fires when raw usage crosses a number of
//! bytes, up or down), a **pressure** trigger (PSI, fires at most once per window) and cgroup v2 **events** (`memory.events`
//! changed), and what a service manager [offers](super::offered). Page cache can trip each of them. Dropping a [`Wake`] disarms it. Poll for [`WakeKind::poll_flags`], then
//! call [`Wake::clear`] before sleeping again.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::group::{Group, Version};

/// The shortest window that a PSI trigger may have without `CAP_SYS_RESOURCE` (Linux 6.5 and later allow only multiples
/// of it); also what [`pressure_wake`] falls back to.
pub const UNPRIVILEGED_WINDOW: Duration = Duration::from_secs(2);

/// What makes a [`Wake`] ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeKind {
    /// The group's raw usage crossed a number of bytes (cgroup v1).
    Threshold,
    /// Tasks stalled on memory for longer than the trigger allows (PSI).
    Pressure,
    /// A counter of `memory.events` changed: high, max, oom, oom_kill (cgroup v2).
    Events,
    /// A FIFO or socket of a service manager was written to ([`offered`](super::offered)).
    Offered,
}

impl WakeKind {
    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            WakeKind::Threshold => "threshold",
            WakeKind::Pressure => "pressure",
            WakeKind::Events => "events",
            WakeKind::Offered => "offered",
        }
    }

    /// What to poll for. `POLLERR` besides it is normal for [`WakeKind::Events`]; for [`WakeKind::Pressure`] it means
    /// that the group is gone.
    pub const fn poll_flags(self) -> PollFlags {
        match self {
            WakeKind::Threshold | WakeKind::Offered => PollFlags::IN,
            WakeKind::Pressure | WakeKind::Events => PollFlags::PRI,
        }
    }
}

/// A descriptor that becomes ready when the kernel sees memory pressure.
#[derive(Debug)]
pub struct Wake {
    /// What to poll; disarmed when it is closed.
    pub fd: OwnedFd,
    /// What makes it ready.
    pub kind: WakeKind,
    /// For a threshold: the raw usage in bytes at which it fires. While usage is below it, a sleeper need not look.
    pub guard_bytes: Option<u64>,
}

impl Wake {
    /// Takes note of the event, so that the next poll waits for the next one. Never blocks, allocates nothing.
    ///
    /// # Errors
    /// When the group is gone (`ENODEV`) or the descriptor is no longer what it was: drop the wake then.
    pub fn clear(&self) -> io::Result<()> {
        match self.kind {
            WakeKind::Threshold => {
                let mut count = [0u8; 8];
                match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut count[..])) {
                    Ok(_) | Err(Errno::AGAIN) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            WakeKind::Offered => super::offered::drain(&self.fd),
            // The kernel forgets a trigger's event when poll reports it.
            WakeKind::Pressure => Ok(()),
            WakeKind::Events => {
                let mut text = [0u8; 512];
                rustix::io::retry_on_intr(|| rustix::io::pread(&self.fd, &mut text[..], 0))?;
                Ok(())
            }
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Arms a cgroup v1 threshold: ready each time the group's raw usage (page cache included) crosses `bytes`, up or down,
/// and once when the group is removed.
///
/// # Errors
/// `Unsupported` for a v2 group; otherwise what the kernel says (`EACCES`: `cgroup.event_control` may not be written).
pub fn threshold_wake(group: &Group, bytes: u64) -> io::Result<Wake> {
    if group.version() != Version::V1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "usage thresholds exist in cgroup v1 only"));
    }
    let usage =
        rustix::fs::open(group.dir().join("memory.usage_in_bytes"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let control =
        rustix::fs::open(group.dir().join("cgroup.event_control"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let mut line = String::new();
    let (event_fd, usage_fd) = (raw(event.as_fd()), raw(usage.as_fd()));
    write!(line, "{event_fd} {usage_fd} {bytes}").map_err(io::Error::other)?;
    rustix::io::write(&control, line.as_bytes())?;
    Ok(Wake { fd: event, kind: WakeKind::Threshold, guard_bytes: Some(bytes) })
}

fn raw(fd: BorrowedFd<'_>) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&fd)
}

/// Arms a PSI trigger on `path` (`/proc/pressure/memory`, or a v2 group's `memory.pressure`): ready when some task was
/// stalled for `stall` within `window`. A window that the kernel refuses is widened to [`UNPRIVILEGED_WINDOW`], the
/// stall in proportion.
///
/// # Errors
/// What the kernel says to both windows; `EOPNOTSUPP` where PSI is disabled.
pub fn pressure_wake(path: &Path, stall: Duration, window: Duration) -> io::Result<Wake> {
    match arm_pressure(path, stall, window) {
        Err(errno) if window < UNPRIVILEGED_WINDOW && matches!(errno, Errno::INVAL | Errno::PERM) => {
            let ratio = stall.as_secs_f64() / window.as_secs_f64().max(f64::MIN_POSITIVE);
            let stall = UNPRIVILEGED_WINDOW.mul_f64(ratio.clamp(0.0, 1.0));
            Ok(arm_pressure(path, stall, UNPRIVILEGED_WINDOW)?)
        }
        armed => Ok(armed?),
    }
}

fn arm_pressure(path: &Path, stall: Duration, window: Duration) -> Result<Wake, Errno> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let line = format!("some {} {}\0", stall.as_micros(), window.as_micros());
    rustix::io::write(&fd, line.as_bytes())?;
    Ok(Wake { fd, kind: WakeKind::Pressure, guard_bytes: None })
}

/// Watches a v2 group's `memory.events`: ready when one of its counters changed since the last [`Wake::clear`].
///
/// # Errors
/// `Unsupported` for a v1 group; `NotFound` where the memory controller is not enabled for the group.
pub fn events_wake(group: &Group) -> io::Result<Wake> {
    if group.version() != Version::V2 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "memory.events exists in cgroup v2 only"));
    }
    let path = group.dir().join("memory.events");
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let wake = Wake { fd, kind: WakeKind::Events, guard_bytes: None };
    // The first read arms it: poll compares with what was last read.
    wake.clear()?;
    Ok(wake)
}
