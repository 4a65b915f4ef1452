//! "I leave for memory": one datagram with the figures and the last words, from the watchdog's own thread.
//!
//! It is what lets a supervisor say `reason = memory` because it was told, never because of an exit code. The datagram is allocated
//! at the start; sending it takes one system call. A supervisor that does not take it at once is tried again once the drain has
//! begun, for at most [`PATIENCE`].

use std::time::Duration;

use super::wire::{Part, key};
use super::{Dropped, Shared};
use crate::clock::{self, Clock as _, MonotonicClock};
use crate::governor::Decision;
use crate::last_words::PATIENCE;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(5);

/// The datagram, and whether it still has to go.
pub(super) struct Leave {
    part: Part,
    pub(super) waits: bool,
}

impl Leave {
    pub(super) fn new() -> Leave {
        Leave { part: Part::new(), waits: false }
    }
}

impl Shared {
    /// Says that the service leaves, and what its last words are. Never waits, allocates nothing.
    pub(crate) fn leave(&self, decision: &Decision, deadline: Duration, words: &str) {
        if let Some(mut seen) = self.seen.try_lock() {
            (seen.decision, seen.leaving) = (Some(*decision), true);
        }
        let Some(outlet) = &self.outlet else { return };
        // Only the watchdog's thread and `stay` take this lock.
        let Some(mut leave) = self.leave.try_lock() else { return };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        leave.part.begin();
        leave.part.line(key::LEAVE, |line| {
            line.put("leaving", true).put("deadline_ms", ms(deadline)).put("protected_bytes", decision.charged_bytes);
            line.put("threshold_bytes", decision.budget_bytes).put("at_unix_ms", ms(clock::wall()));
        });
        for line in words.lines() {
            leave.part.text(key::WORDS, line);
        }
        leave.waits = outlet.send(leave.part.bytes()) == Err(Dropped::Full);
        self.nudge();
    }

    /// Sends what was not taken, for at most [`PATIENCE`]: after the drain has begun.
    pub(crate) fn finish_leaving(&self) {
        let Some(outlet) = &self.outlet else { return };
        let Some(mut leave) = self.leave.try_lock() else { return };
        let until = MonotonicClock.now() + PATIENCE;
        while leave.waits && MonotonicClock.now() < until {
            leave.waits = outlet.send(leave.part.bytes()) == Err(Dropped::Full);
            if leave.waits {
                std::thread::sleep(RETRY);
            }
        }
        leave.waits = false;
    }

    /// The process lives on after all.
    pub(crate) fn stay(&self) {
        let left = std::mem::take(&mut self.seen.lock().leaving);
        let Some(outlet) = self.outlet.as_ref().filter(|_| left) else { return };
        let Some(mut leave) = self.leave.try_lock() else { return };
        leave.part.begin();
        leave.part.line(key::LEAVE, |line| {
            line.put("leaving", false);
        });
        outlet.send(leave.part.bytes()).ok();
    }
}
