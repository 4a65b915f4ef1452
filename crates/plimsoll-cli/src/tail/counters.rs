//! What the tail thread did: plain relaxed counters, written by it alone, read by anyone.

use std::sync::atomic::AtomicU64;
#[cfg(test)]
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) wakeups: AtomicU64,
    pub(super) pauses: AtomicU64,
    pub(super) rests: AtomicU64,
    pub(super) streams: [StreamCounters; 2],
    pub(super) notes: AtomicU64,
}

/// Of one stream.
#[derive(Debug, Default)]
pub(super) struct StreamCounters {
    pub(super) reads: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Why it cannot be read now.
    pub(super) failing: Mutex<Option<String>>,
}

/// What a test asks. The counters at one moment; `[stdout, stderr]` where there are two.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TailCounters {
    /// Returns from `poll`.
    pub(crate) wakeups_total: u64,
    /// Rounds that waited a moment so that one read takes many lines.
    pub(crate) pauses_total: u64,
    /// Times that a ring more than half full was given a moment.
    pub(crate) rests_total: u64,
    /// Reads that brought something.
    pub(crate) reads_total: [u64; 2],
    pub(crate) bytes_total: [u64; 2],
    /// Reads that failed with anything but "would block".
    pub(crate) read_errors_total: [u64; 2],
    pub(crate) notes_total: u64,
    pub(crate) notes_dropped_total: u64,
}

impl Counters {
    #[cfg(test)]
    pub(super) fn snapshot(&self, notes_dropped_total: u64) -> TailCounters {
        let each = |of: fn(&StreamCounters) -> &AtomicU64| std::array::from_fn(|i| of(&self.streams[i]).load(Relaxed));
        TailCounters {
            wakeups_total: self.wakeups.load(Relaxed),
            pauses_total: self.pauses.load(Relaxed),
            rests_total: self.rests.load(Relaxed),
            reads_total: each(|s| &s.reads),
            bytes_total: each(|s| &s.bytes),
            read_errors_total: each(|s| &s.errors),
            notes_total: self.notes.load(Relaxed),
            notes_dropped_total,
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.streams.iter().filter_map(|stream| stream.failing.lock().clone()).collect()
    }
}
