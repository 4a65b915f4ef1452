//! What a sink is given: values, and gaps where values are missing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::core::Loss;
use super::super::{DropReason, Tally};
use super::SinkError;
use crate::units;

/// One record of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<T> {
    /// What somebody sent.
    Value(T),
    /// What is missing here.
    Gap(Gap),
}

/// The producer of a gap for a value that came back from the overflow, where nobody knows any more whose it was.
pub const FROM_OVERFLOW: &str = "overflow";

/// What one producer lost for one reason since the gap before. Stands behind what had been queued then; of what was displaced, before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Whose values are missing; [`FROM_OVERFLOW`] where a value that came back from there was given up.
    pub producer: Arc<str>,
    /// Why.
    pub reason: DropReason,
    /// How many, and what they weighed.
    pub lost: Tally,
    /// When the first of them was lost, since 1970-01-01 UTC.
    pub first: Duration,
    /// When the last of them was lost, since 1970-01-01 UTC; not earlier than that, and at the latest when the gap was made.
    pub last: Duration,
}

impl Gap {
    /// One value that came by the overflow and was given up now. Whose it was and what it weighed the store did not keep.
    pub(super) fn of_the_overflow(wall: Duration) -> Gap {
        let lost = Tally { items: 1, bytes: 0 };
        Gap { producer: FROM_OVERFLOW.into(), reason: DropReason::Sink, lost, first: wall, last: wall }
    }

    /// Told on the queue's clock, which reads `now` when the wall clock reads `wall`.
    pub(super) fn of(loss: &Loss, now: Duration, wall: Duration) -> Gap {
        let on_the_wall = |at: Duration| wall.saturating_sub(now.saturating_sub(at));
        Gap {
            producer: Arc::clone(&loss.producer),
            reason: loss.reason,
            lost: loss.missing.lost,
            first: on_the_wall(loss.missing.first),
            last: on_the_wall(loss.missing.last),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = units::duration(self.last.saturating_sub(self.first));
        let (items, bytes, reason) = (self.lost.items, units::size(self.lost.bytes), self.reason.as_str());
        write!(f, "{items} of {} missing ({bytes}, {reason}) within {span}", self.producer)
    }
}

/// Where batches go: a table, a file, another service. Called on the batcher's thread, one batch at a time.
///
/// A closure `FnMut(&[Record<T>]) -> Result<(), SinkError>` is one.
pub trait Sink<T>: Send {
    /// Writes all of these records, in this order, or none of them: in one transaction, where there are such.
    ///
    /// May wait as long as it likes: values wait in the queue meanwhile, bounded. One that panics is treated as if it had refused.
    ///
    /// # Errors
    /// [`SinkError`]: nothing was written; says whether to try again or to look for the value at fault.
    fn write(&mut self, records: &[Record<T>]) -> Result<(), SinkError>;
}

impl<T, F: FnMut(&[Record<T>]) -> Result<(), SinkError> + Send> Sink<T> for F {
    fn write(&mut self, records: &[Record<T>]) -> Result<(), SinkError> {
        self(records)
    }
}
