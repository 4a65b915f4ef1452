//! Why a request was refused, and when to try again.

use std::time::Duration;

use super::class::{Class, Kind};

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Memory is short, and the class is one that is refused then.
    Level,
    /// This peer has as many requests here as one may have.
    Peer,
    /// Every slot is taken, and so is every place to wait.
    Busy,
    /// It waited as long as it may.
    Expired,
    /// The service is leaving.
    Closed,
}

impl Reason {
    /// All of them, in the order of [`Stats::refused`](super::Stats::refused).
    pub const ALL: [Reason; 5] = [Reason::Level, Reason::Peer, Reason::Busy, Reason::Expired, Reason::Closed];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Level => "level",
            Reason::Peer => "peer",
            Reason::Busy => "busy",
            Reason::Expired => "expired",
            Reason::Closed => "closed",
        }
    }
}

/// A request that was refused. Nothing of it was done, and its body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overloaded ({}): try again in {} ms", reason.as_str(), retry_after.as_millis())]
#[non_exhaustive]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// What it was.
    pub kind: Kind,
    /// When to try again: different for each, so that those refused together do not come back together.
    pub retry_after: Duration,
    /// A throw of dice for this one: 0..=`u32::MAX`.
    dice: u32,
}

impl Refused {
    /// With a time between `least` and twice that, by two throws of dice (0..1): where in it, and how it is rounded.
    pub(super) fn new(reason: Reason, kind: Kind, least: Duration, [time, rounded]: [f64; 2]) -> Refused {
        let retry_after = Duration::try_from_secs_f64(least.as_secs_f64() * (1.0 + time)).unwrap_or(Duration::MAX);
        Refused { reason, kind, retry_after, dice: (rounded * f64::from(u32::MAX)) as u32 }
    }

    /// [`Refused::retry_after`] for a protocol that has whole seconds only: rounded up or down by chance, so that the mean stays and those
    /// refused together are spread over them too. At least 1; a time of less than a second becomes 1 or 2 s.
    pub fn retry_after_seconds(&self) -> u64 {
        // As likely up as there is left over a whole second.
        let dice = f64::from(self.dice) / f64::from(u32::MAX);
        let over = f64::from(self.retry_after.subsec_nanos()) / 1e9;
        match self.retry_after.as_secs() {
            0 => 1 + u64::from(dice < 0.5),
            seconds => seconds.saturating_add(u64::from(dice < over)),
        }
    }

    /// Its class.
    pub const fn class(&self) -> Class {
        self.kind.class
    }
}
