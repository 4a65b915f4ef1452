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
}

impl Refused {
    pub(super) fn new(reason: Reason, kind: Kind, retry_after: Duration) -> Refused {
        Refused { reason, kind, retry_after }
    }

    /// Its class.
    pub const fn class(&self) -> Class {
        self.kind.class
    }
}
