//! Gauges and counters of a queue: plain numbers, copied out under the lock. Nothing is ever reset.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;
use std::time::Duration;

use super::Limits;
use super::error::Refusal;

/// Why a value was dropped inside the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No room for it: [`WhenFull::DropNewest`](super::WhenFull::DropNewest), or its producer had nothing waiting to give up.
    Full,
    /// It was queued, and made room: for a newer one with [`WhenFull::DropOldest`](super::WhenFull::DropOldest), for another producer's
    /// share with either.
    Displaced,
    /// It alone is more than its producer may ever have queued.
    TooLarge,
    /// It was queued when the receiver went away.
    Abandoned,
    /// The queue has room, the sum of the queues has not: the account's or its ledger's cap.
    SumFull,
    /// The overflow did not take it.
    Overflow,
    /// Its sender's future was dropped while it waited for room.
    Cancelled,
    /// The sink of a [batcher](super::batch) did not take it while it took others.
    Sink,
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them, in the order of [`Counters::dropped`].
    pub const ALL: [DropReason; DropReason::COUNT] = [
        DropReason::Full,
        DropReason::Displaced,
        DropReason::TooLarge,
        DropReason::Abandoned,
        DropReason::SumFull,
        DropReason::Overflow,
        DropReason::Cancelled,
        DropReason::Sink,
    ];
    /// Those of values that had been accepted.
    pub const AFTER_ACCEPTED: [DropReason; 3] = [DropReason::Displaced, DropReason::Abandoned, DropReason::Sink];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Full => "full",
            DropReason::Displaced => "displaced",
            DropReason::TooLarge => "too-large",
            DropReason::Abandoned => "abandoned",
            DropReason::SumFull => "sum-full",
            DropReason::Overflow => "overflow",
            DropReason::Cancelled => "cancelled",
            DropReason::Sink => "sink",
        }
    }
}

/// Values and the bytes they weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub items: u64,
    /// What they weigh together.
    pub bytes: u64,
}

impl Tally {
    pub(super) const MAX: Tally = Tally { items: u64::MAX, bytes: u64::MAX };

    /// The lesser of each.
    pub(super) fn min(self, other: Tally) -> Tally {
        Tally { items: self.items.min(other.items), bytes: self.bytes.min(other.bytes) }
    }

    #[inline]
    pub(super) fn add_one(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Add for Tally {
    type Output = Tally;

    #[inline]
    fn add(self, other: Tally) -> Tally {
        Tally { items: self.items + other.items, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        *self = *self + other;
    }
}

impl Sub for Tally {
    type Output = Tally;

    #[inline]
    fn sub(self, other: Tally) -> Tally {
        Tally { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Tally) {
        *self = *self - other;
    }
}

/// What is missing, and between which moments of the queue's clock it was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) lost: Tally,
    pub(super) first: Duration,
    pub(super) last: Duration,
}

impl Missing {
    pub(super) fn add(&mut self, lost: Tally, at: Duration) {
        if self.lost.items == 0 {
            self.first = at;
        }
        self.lost += lost;
        self.last = self.last.max(at);
    }
}

/// What became of everything that one producer sent, since the queue began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Taken in. Each was delivered, displaced, abandoned, refused by the sink, or is still queued.
    pub accepted: Tally,
    /// Received; by a batcher's sink: written.
    pub delivered: Tally,
    /// Dropped, by [`DropReason`]: the owner no longer has them.
    pub dropped: [Tally; DropReason::COUNT],
    /// Given back, by [`Refusal`]: the owner still has them.
    pub refused: [Tally; Refusal::COUNT],
}

impl Counters {
    /// What was dropped for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> Tally {
        self.dropped[reason as usize]
    }

    /// What was given back for this reason.
    pub fn refused_for(&self, refusal: Refusal) -> Tally {
        self.refused[refusal as usize]
    }

    /// What was dropped, for whatever reason.
    pub fn dropped_total(&self) -> Tally {
        self.dropped.into_iter().fold(Tally::default(), Add::add)
    }
}

/// One producer's name, gauge and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStats {
    /// As given to [`Sender::named`](super::Sender::named).
    pub name: Arc<str>,
    /// What it has queued now.
    pub queued: Tally,
    /// What became of what it sent.
    pub counters: Counters,
}

/// What went by the overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverflowStats {
    /// Values that lie there now.
    pub kept_items: u64,
    /// What it has taken, in sum.
    pub taken_total: Tally,
    /// Values that came back from it, in sum; those of an earlier process included.
    pub returned_items_total: u64,
    /// Values that it had taken and did not give back.
    pub lost_items_total: u64,
}

/// A queue at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What is queued now: what waits, and what a batcher has in hand.
    pub queued: Tally,
    /// The most values that were ever queued, as far as anybody looked: a peak between two looks may be higher by what was on
    /// [credit](super) then.
    pub peak_items: u64,
    /// The most bytes that were ever queued, as far as anybody looked.
    pub peak_bytes: u64,
    /// How long the oldest one has waited (as of the last clock tick, 1–10 ms); `None` when nothing waits.
    pub oldest_age: Option<Duration>,
    /// Whether nothing more is taken in.
    pub closed: bool,
    /// The bounds.
    pub limits: Limits,
    /// What each producer has for itself, now.
    pub share: Tally,
    /// What went by the overflow.
    pub overflow: OverflowStats,
    /// Each producer, in the order in which they came.
    pub producers: Vec<ProducerStats>,
}

impl Stats {
    /// The sum over all producers.
    pub fn total(&self) -> Counters {
        let sum = |a: Counters, b: Counters| Counters {
            accepted: a.accepted + b.accepted,
            delivered: a.delivered + b.delivered,
            dropped: std::array::from_fn(|i| a.dropped[i] + b.dropped[i]),
            refused: std::array::from_fn(|i| a.refused[i] + b.refused[i]),
        };
        self.producers.iter().map(|producer| producer.counters).fold(Counters::default(), sum)
    }

    /// The producer of this name.
    pub fn producer(&self, name: &str) -> Option<&ProducerStats> {
        self.producers.iter().find(|producer| &*producer.name == name)
    }
}
