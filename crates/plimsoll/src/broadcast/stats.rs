//! Gauges and counters of a broadcast: plain numbers, copied out under the lock. No counter is ever reset.

use super::Bounds;
use super::error::{Reason, Refusal};
use crate::queue::Tally;

/// A broadcast at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers that get messages.
    pub subscribers: u64,
    /// Subscribers that were removed and whose handles are still there; they take places of [`Bounds::subscribers`].
    pub lingering: u64,
    /// The most subscribers there ever were.
    pub peak_subscribers: u64,
    /// Bytes in the ring, each message with the overhead of its place.
    pub ring_bytes: u64,
    /// Bytes in the ring and in what readers still hold of what left it.
    pub alive_bytes: u64,
    /// The most of those there ever were.
    pub peak_alive_bytes: u64,
    /// Messages taken, and what they weighed.
    pub published: Tally,
    /// Messages that a subscriber finished reading, and messages it skipped by leaving or being removed are not in it.
    pub delivered_total: u64,
    /// Messages refused, by [`Refusal`].
    pub refused: [u64; 3],
    /// Subscribers ever let in.
    pub subscribed_total: u64,
    /// Subscribers that went by themselves.
    pub left_total: u64,
    /// Subscribers removed, by [`Reason`].
    pub removed: [u64; 3],
    /// Subscribers not let in, by [`SubscribeError::NAMES`](super::SubscribeError::NAMES).
    pub turned_away: [u64; 3],
    /// Whether nothing more is taken.
    pub closed: bool,
    /// The bounds.
    pub bounds: Bounds,
}

impl Stats {
    /// Subscribers removed for this reason.
    pub fn removed_for(&self, reason: Reason) -> u64 {
        self.removed[reason as usize]
    }

    /// Subscribers removed, for whatever reason.
    pub fn removed_total(&self) -> u64 {
        self.removed.iter().sum()
    }

    /// Messages refused for this reason.
    pub fn refused_for(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }
}
