//! Why a message was not taken, why nobody more may subscribe, and why a subscriber is no longer one.

use std::fmt;
use std::time::Duration;

use crate::units;

/// WebSocket close code "try again later" (IANA registry of RFC 6455 codes): for a subscriber that was removed, or not let in.
pub const CLOSE_TRY_AGAIN_LATER: u16 = 1013;
/// WebSocket close code "going away" (RFC 6455, 7.4.1): the broadcast was closed.
pub const CLOSE_GOING_AWAY: u16 = 1001;

/// Why a subscriber was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Further behind than [`Bounds::behind_bytes`](super::Bounds::behind_bytes).
    Behind,
    /// Further behind than the soft bound, and for longer than it allows.
    BehindTooLong,
    /// It was the furthest behind when the sum, or the ledger, had no more room.
    Sum,
}

impl Reason {
    /// All of them, in the order of [`Stats::removed`](super::Stats::removed).
    pub const ALL: [Reason; 3] = [Reason::Behind, Reason::BehindTooLong, Reason::Sum];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Behind => "behind",
            Reason::BehindTooLong => "behind-too-long",
            Reason::Sum => "sum",
        }
    }
}

/// A subscriber that was removed: why, and how far behind it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Why.
    pub reason: Reason,
    /// What it had not finished reading then, in bytes.
    pub behind_bytes: u64,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscriber removed ({}), {} behind", self.reason.as_str(), units::size(self.behind_bytes))
    }
}

impl std::error::Error for Removed {}

/// Nothing comes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The broadcast was closed, or its last publisher is gone, and everything was read.
    #[error("broadcast closed")]
    Closed,
    /// This subscriber was too slow.
    #[error(transparent)]
    Removed(#[from] Removed),
}

impl Ended {
    /// The close code to tell a WebSocket client.
    pub const fn close_code(self) -> u16 {
        match self {
            Ended::Closed => CLOSE_GOING_AWAY,
            Ended::Removed(_) => CLOSE_TRY_AGAIN_LATER,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It alone is more than a subscriber may be behind: it would remove everybody.
    #[error("message larger than a subscriber may be behind")]
    TooLarge,
    /// The sum, or the ledger, has no room, and removing subscribers would not make it: what holds it is in the hands of readers, or of
    /// other accounts.
    #[error("no room in the sum")]
    Full,
    /// It was closed.
    #[error("broadcast closed")]
    Closed,
}

impl Refusal {
    /// All of them, in the order of [`Stats::refused`](super::Stats::refused).
    pub const ALL: [Refusal; 3] = [Refusal::TooLarge, Refusal::Full, Refusal::Closed];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::TooLarge => "too-large",
            Refusal::Full => "full",
            Refusal::Closed => "closed",
        }
    }
}

/// A message that was not taken, and why. It is handed back; nobody got it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublishError<M> {
    /// What was to be published.
    pub message: M,
    /// Why it was not.
    pub refusal: Refusal,
}

impl<M> fmt::Debug for PublishError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishError").field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for PublishError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl<M> std::error::Error for PublishError<M> {}

/// Why nobody more may subscribe now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// There are as many as there may be.
    #[error("{most} subscribers are as many as there may be")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
    /// Too many came in too short a time.
    #[error("too many new subscribers: try again in {} ms", retry_after.as_millis())]
    TooFast {
        /// After this there is room for one.
        retry_after: Duration,
    },
    /// It was closed.
    #[error("broadcast closed")]
    Closed,
}

impl SubscribeError {
    /// The names used in logs, metrics and JSON, in the order of [`Stats::turned_away`](super::Stats::turned_away).
    pub const NAMES: [&'static str; 3] = ["too-many", "too-fast", "closed"];

    pub(super) const fn index(self) -> usize {
        match self {
            SubscribeError::TooMany { .. } => 0,
            SubscribeError::TooFast { .. } => 1,
            SubscribeError::Closed => 2,
        }
    }

    /// The close code to tell a WebSocket client.
    pub const fn close_code(self) -> u16 {
        match self {
            SubscribeError::Closed => CLOSE_GOING_AWAY,
            SubscribeError::TooMany { .. } | SubscribeError::TooFast { .. } => CLOSE_TRY_AGAIN_LATER,
        }
    }
}
