//! What went to the overflow and has not come back: from its first value until it is empty everything goes there.

use std::time::Duration;

use super::super::stats::{DropReason, Tally};
use super::{Core, Offer};

/// What lies in the overflow.
#[derive(Default)]
pub(super) struct Spill {
    /// Values go there, room or not, until it is empty: what came first leaves first.
    pub(super) active: bool,
    /// Values on their way there.
    pub(super) in_flight: u64,
    /// Values kept there.
    pub(super) kept: u64,
    pub(super) total: Tally,
    pub(super) returned: u64,
    pub(super) lost: u64,
}

impl<T> Core<T> {
    pub(super) fn begin_spill(&mut self, value: T) -> Offer<T> {
        self.spill.active = true;
        self.spill.in_flight += 1;
        Offer::Spill(value)
    }

    /// What came of a value that went to the overflow: kept, or dropped.
    pub(in crate::queue) fn spilled(&mut self, producer: usize, bytes: u64, kept: bool, at: Duration) {
        self.spill.in_flight -= 1;
        let one = Tally { items: 1, bytes };
        if kept {
            self.spill.kept += 1;
            self.spill.total += one;
        } else {
            self.note_drop(producer, DropReason::Overflow, one, at);
            self.end_spill();
        }
    }

    /// Values that lie in the overflow and may be taken: what waits here came before them.
    pub(in crate::queue) fn kept(&self) -> u64 {
        if self.waiting().items > 0 { 0 } else { self.spill.kept }
    }

    /// So many came back from the overflow; `empty`: it says that it has no more.
    pub(in crate::queue) fn unspilled(&mut self, count: u64, empty: bool) {
        self.spill.returned += count;
        self.spill.kept = self.spill.kept.saturating_sub(count);
        // Values that arrive there meanwhile are counted once they have; only without any is the word "empty" its own.
        if empty && self.spill.in_flight == 0 {
            self.spill.lost += std::mem::take(&mut self.spill.kept);
        }
        self.end_spill();
    }

    fn end_spill(&mut self) {
        self.spill.active &= self.spill.kept > 0 || self.spill.in_flight > 0;
    }
}
