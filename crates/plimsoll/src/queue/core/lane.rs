//! What a sender sees of a full queue without taking its lock, and what it counts there.
//!
//! Who floods a full queue must not stand in the way of the receiver that empties it. So once a producer was turned away because no
//! value of any weight would fit, that is noted here; until something leaves, its senders turn away by themselves and count it.
//! The note is set and taken back under the queue's lock only; the counts are fetched under it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::stats::Tally;

/// One producer's; on lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(in crate::queue) struct Lane {
    /// Values that weigh less than this are turned away; 0: none. Heavier ones are another case.
    below_bytes: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
}

impl Lane {
    /// Whether a value of so many bytes would find no room now.
    #[inline]
    pub(in crate::queue) fn is_full(&self, bytes: u64) -> bool {
        bytes < self.below_bytes.load(Ordering::Acquire)
    }

    /// Nothing gets in now, of all that weighs less than `below_bytes`; 0: all may try.
    pub(super) fn turn_away(&self, below_bytes: u64) {
        self.below_bytes.store(below_bytes, Ordering::Release);
    }

    /// Counts a value that was turned away.
    pub(in crate::queue) fn turned_away(&self, bytes: u64) {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was turned away since the last call. A value that is counted in this moment may have its weight in the next.
    pub(super) fn fetch(&self) -> Tally {
        if self.items.load(Ordering::Relaxed) == 0 && self.bytes.load(Ordering::Relaxed) == 0 {
            return Tally::default();
        }
        Tally { items: self.items.swap(0, Ordering::Relaxed), bytes: self.bytes.swap(0, Ordering::Relaxed) }
    }
}
