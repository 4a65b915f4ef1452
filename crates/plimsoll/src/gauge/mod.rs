//! Readings: how much memory is really in use. Every gauge takes a [`Root`], so that tests run on fixture trees.
//!
//! The number that decides is the **protected** one: what the kernel would kill for. It has two rates: [`Gauge::fast`]
//! is an upper bound that costs about a microsecond and may only raise suspicion; [`Gauge::confirm`] costs up to 20 µs a
//! level and is what is acted on. What cannot be read is an [`Unread`] with a reason, never 0. A reading allocates nothing.

use std::path::PathBuf;
use std::time::Duration;

pub mod allocator;
pub mod descriptors;
pub(crate) mod files;
pub mod group;
pub mod host;
mod numbers;
pub mod offered;
mod own;
pub mod pressure;
pub mod process;
pub mod tree;
mod wake;

pub use numbers::Numbers;
pub use own::ProcessGauge;
pub use wake::{UNPRIVILEGED_WINDOW, Wake, WakeKind, events_wake, pressure_wake, threshold_wake};

/// Where the operating system's files are: the real ones, or a fixture tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The directory that plays `/proc`.
    pub proc: PathBuf,
    /// The directory that plays `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Root { proc: "/proc".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

impl Root {
    /// A fixture tree: `dir/proc` and `dir/cgroup`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Root { proc: dir.join("proc"), cgroup: dir.join("cgroup") }
    }
}

/// Why a number could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The file is not there (or no longer).
    #[error("{0}: missing")]
    Missing(&'static str),
    /// The file may not be read by us.
    #[error("{0}: permission denied")]
    Denied(&'static str),
    /// The file does not hold what its format promises.
    #[error("{0}: malformed")]
    Malformed(&'static str),
    /// The kernel refused; the number is the errno.
    #[error("{0}: errno {1}")]
    Failed(&'static str, i32),
}

/// A confirming reading of the protected number, in bytes, with its parts. A part that the kernel does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Shared memory and tmpfs.
    pub shmem_bytes: Option<u64>,
    /// Swapped out.
    pub swap_bytes: Option<u64>,
    /// Locked or otherwise unevictable, beyond what anon and shmem already count.
    pub unevictable_bytes: Option<u64>,
    /// Kernel memory that cannot be reclaimed (v1: all kernel memory, it is not split there).
    pub kernel_bytes: Option<u64>,
    /// Page cache, hot or cold. Shown; never part of the protected number.
    pub file_bytes: Option<u64>,
    /// What the program itself holds: the marks compare this (plus kernel memory beyond its allowance) with the budget.
    pub program_bytes: u64,
}

/// Something that reads the protected number of one target (a cgroup or a process tree).
pub trait Gauge: Send {
    /// An upper bound of the protected number, in about a microsecond: it may only raise suspicion.
    fn fast(&mut self) -> Result<u64, Unread>;
    /// The protected number, confirmed; always read before acting.
    fn confirm(&mut self) -> Result<Protected, Unread>;
    /// What the last [`Gauge::confirm`] cost, `None` before the first one. A tree's PSS costs milliseconds per GB: who
    /// samples often paces confirming readings by it.
    fn confirm_cost(&self) -> Option<Duration> {
        None
    }
    /// What the last confirmed reading had to do without: it was read another way and is an upper bound then.
    fn caveat(&self) -> Option<Unread> {
        None
    }
}
