//! Gauges and counters of a gate: plain numbers, copied out under the lock. No counter is ever reset.

use std::time::Duration;

use super::class::{Class, Work};
use super::error::Reason;

/// One lane at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Requests that have a slot.
    pub in_flight: u64,
    /// The most that ever had one.
    pub peak_in_flight: u64,
    /// Slots there are now; `u64::MAX`: no limit.
    pub slots: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Requests that waited and got one.
    pub waited_total: u64,
    /// What those waited, all together.
    pub waited: Duration,
    /// The unloaded latency that a limit which finds itself reckons with.
    pub base_latency: Option<Duration>,
}

/// A gate at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The light lane.
    pub light: LaneStats,
    /// The heavy pool.
    pub heavy: LaneStats,
    /// Requests let in, by [`Class`].
    pub admitted: [u64; 4],
    /// Requests refused, by [`Class`] and [`Reason`].
    pub refused: [[u64; 5]; 4],
    /// Requests within one that was let in already, which took no second slot.
    pub nested_total: u64,
    /// Requests that went away while they waited.
    pub abandoned_total: u64,
    /// Requests whose peer could not be told where there is a cap by peer. Many: what tells who asks is not set up, and nobody is capped.
    pub unknown_peers_total: u64,
    /// Wakers of tasks that panicked when it was their turn; the others were woken.
    pub waker_panics_total: u64,
    /// The level was written once and is too old to be believed: it reads as calm ([`LevelCell::is_silent`](super::LevelCell::is_silent)).
    pub is_level_silent: bool,
    /// Peers that have requests here.
    pub peers: u64,
}

impl Stats {
    /// A lane by its work.
    pub fn lane(&self, work: Work) -> &LaneStats {
        match work {
            Work::Light => &self.light,
            Work::Heavy => &self.heavy,
        }
    }

    /// Requests of this class refused for this reason.
    pub fn refused_for(&self, class: Class, reason: Reason) -> u64 {
        self.refused[class as usize][reason as usize]
    }

    /// Requests refused, of any class and for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().flatten().sum()
    }

    /// Requests let in, of any class.
    pub fn admitted_total(&self) -> u64 {
        self.admitted.iter().sum()
    }
}
