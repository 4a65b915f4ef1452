//! The decision log: inputs, terms, chosen action and measured effect of each decision that counted, one [`Record`] each.
//!
//! Kept in a ring of [`LOG_KEPT`](super::LOG_KEPT) records that is set aside at the start ([`Governor::log`](super::Governor::log)), handed to
//! a recorder where there is one ([`Governor::start_recorded`](super::Governor::start_recorded)), and written as text, one line of at most
//! [`LINE_BYTES_MAX`] bytes each: version 1 of the format, `docs/replay.md`. What is logged: every sample that took the confirmed number or
//! tried to, and every change. What is not: samples of the fast number alone, which change nothing. So a log from its `start` on, run
//! through the same policy, gives the same decisions; `testkit::replay` does that, and with another policy says what would have been
//! different.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::time::Duration;

use super::{Decision, Reading};
use crate::policy::Policy;

pub use read::{Log, LogError, parse};
pub use write::{LINE_BYTES_MAX, Line};

/// The first line of a log: the format and its version.
pub const HEADER: &str = "plimsoll-decisions 1";

/// One line of the decision log. About 500 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record {
    /// A governor began, with nothing remembered.
    Start {
        /// When, on its clock.
        at: Duration,
        /// When, since 1970-01-01 UTC.
        at_unix: Duration,
    },
    /// This policy holds from here on.
    Policy {
        /// Since when.
        at: Duration,
        /// All of it.
        policy: Policy,
    },
    /// What was read, and what was decided.
    Sample {
        /// The inputs.
        reading: Reading,
        /// What followed.
        decision: Decision,
    },
    /// Records are missing here.
    Gap {
        /// How many samples.
        samples: u64,
    },
}

impl Record {
    /// Whether a decision belongs into the log.
    pub(super) fn is_due(decision: &Decision, reading: &Reading) -> bool {
        reading.confirmed.is_some() || decision.is_change() || decision.cause != super::Cause::Steady
    }
}
