//! Gauges and counters of a queue: plain numbers, copied out under the lock. Nothing is ever reset.

use std::sync::Arc;
use std::time::Duration;

use super::Limits;
use super::error::Refusal;

/// Why a value was dropped inside the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No room for it: [`WhenFull::DropNewest`](super::WhenFull::DropNewest).
    Full,
    /// A newer one took its room: [`WhenFull::DropOldest`](super::WhenFull::DropOldest).
    Displaced,
    /// It alone is more than the queue may hold.
    TooLarge,
    /// The receiver went away while it waited.
    Abandoned,
}

impl DropReason {
    /// All of them, in the order of [`Counters::dropped`].
    pub const ALL: [DropReason; 4] =
        [DropReason::Full, DropReason::Displaced, DropReason::TooLarge, DropReason::Abandoned];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Full => "full",
            DropReason::Displaced => "displaced",
            DropReason::TooLarge => "too-large",
            DropReason::Abandoned => "abandoned",
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
    pub(super) fn add_one(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl std::ops::Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally { items: self.items + other.items, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// What became of everything that one producer sent, since the queue began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Taken in. Each was delivered, displaced, abandoned, or still waits.
    pub accepted: Tally,
    /// Received.
    pub delivered: Tally,
    /// Dropped, by [`DropReason`]: the owner no longer has them.
    pub dropped: [Tally; 4],
    /// Given back, by [`Refusal`]: the owner still has them.
    pub refused: [Tally; 3],
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
        self.dropped.into_iter().fold(Tally::default(), std::ops::Add::add)
    }
}

/// One producer's name and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStats {
    /// As given to [`Sender::named`](super::Sender::named).
    pub name: Arc<str>,
    /// What became of what it sent.
    pub counters: Counters,
}

/// A queue at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What waits now.
    pub queued: Tally,
    /// The most values that ever waited.
    pub peak_items: u64,
    /// The most bytes that ever waited.
    pub peak_bytes: u64,
    /// How long the oldest one has waited (as of the last clock tick, 1–10 ms); `None` when nothing waits.
    pub oldest_age: Option<Duration>,
    /// Whether nothing more is taken in.
    pub closed: bool,
    /// The bounds.
    pub limits: Limits,
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
}
