//! What the allocator says: bytes it has handed out (**live**), bytes of pages it uses for them, and a way to have it give pages back.
//!
//! | allocator | feature | live | a reading costs | purge |
//! |---|---|---|---|---|
//! | [`Jemalloc`](jemalloc::Jemalloc) | `jemalloc` | exact | 6 µs to 1.8 ms, by arenas | all arenas |
//! | [`Mimalloc`](mimalloc::Mimalloc) | `mimalloc` | only with [`Counted`] around it | 1–2 µs | `mi_collect` |
//! | [`Glibc`](glibc::Glibc) | `glibc` | exact | 49 ms on a fragmented 1 GB heap, **under the arena locks** | `malloc_trim` |
//! | [`Counted`] | – | exact, Rust's allocations only | 0.1 µs | – |
//! | any closure | – | what it says | | – |
//!
//! Readings go through [`Cached`]: at most one per time to live (1 s; glibc 10 s), and never more than 1 % of one core; what
//! they cost is measured and told. Nothing here polls: who asks, reads. Only for the program's global allocator: a jemalloc with
//! a prefix sees neither SQLite's memory nor that of other C libraries.

mod cached;
mod counted;
#[cfg(all(feature = "glibc", target_env = "gnu"))]
pub mod glibc;
#[cfg(feature = "jemalloc")]
pub mod jemalloc;
#[cfg(feature = "mimalloc")]
pub mod mimalloc;
mod sys;
#[cfg(all(test, not(loom)))]
mod tests;

use std::time::Duration;

pub use cached::{Cached, Costs, DEFAULT_SHARE, DEFAULT_TTL, PURGE_INTERVAL, Purged, Sample};
pub use counted::Counted;

use super::Unread;

/// What an allocator says of itself, in bytes. What it does not tell is an [`Unread`], never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Handed out and not given back.
    pub live_bytes: Result<u64, Unread>,
    /// In pages that hold something that was handed out, or that it could hand out at once.
    pub active_bytes: Result<u64, Unread>,
    /// In pages that are really there as far as the allocator knows: active ones, its own, and those it has not given back.
    pub resident_bytes: Result<u64, Unread>,
}

impl Heap {
    /// A heap of which only the live bytes are known.
    pub fn live(live_bytes: Result<u64, Unread>) -> Heap {
        let untold = Err(Unread::Missing("allocator figure"));
        Heap { live_bytes, active_bytes: untold, resident_bytes: untold }
    }
}

/// An allocator that can be asked.
pub trait Allocator: Send {
    /// The name used in logs and metrics.
    fn name(&self) -> &'static str;
    /// Reads its figures now. May take microseconds to tens of milliseconds, and locks that allocations wait for.
    fn read(&mut self) -> Heap;
    /// Has it give back to the system what it does not use.
    ///
    /// # Errors
    /// It cannot, or refused.
    fn purge(&mut self) -> Result<(), Unread>;
    /// How long a reading is good for, unless told otherwise.
    fn ttl(&self) -> Duration {
        DEFAULT_TTL
    }
}

/// Any closure that tells live bytes is an allocator: an estimator of one's own, or a script in a test. It cannot purge.
impl<F: FnMut() -> Result<u64, Unread> + Send> Allocator for F {
    fn name(&self) -> &'static str {
        "estimator"
    }

    fn read(&mut self) -> Heap {
        Heap::live(self())
    }

    fn purge(&mut self) -> Result<(), Unread> {
        Err(Unread::Missing("purge of an estimator"))
    }

    fn ttl(&self) -> Duration {
        Duration::ZERO
    }
}
