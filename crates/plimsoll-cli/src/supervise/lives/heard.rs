//! What the loop does with what the program tells over the report socket, and what it says to a service manager above.

use std::time::Duration;

use super::super::reports::Reports;
use super::super::reports::relay::Relay;
use super::Lives;
use crate::snapshot::report::LastWordsView;

impl Lives {
    /// Reads what waits in the report socket, and tells once of a program that leaves.
    pub(super) fn hear_reports(&mut self) {
        self.hear(Reports::hear);
    }

    /// Reads all of it, at the end of a life.
    pub(in super::super) fn hear_last_reports(&mut self) {
        self.hear(Reports::hear_rest);
    }

    fn hear(&mut self, read: fn(&Reports, Option<i32>, &mut dyn FnMut() -> Vec<i32>)) {
        let Some(reports) = self.shared.reports() else { return };
        let main = self.child.as_ref().map(|child| child.pid.as_raw_nonzero().get());
        read(reports, main, &mut || self.shared.members());
        if let Some(words) = reports.news() {
            let deadline =
                plimsoll::units::duration(Duration::try_from_secs_f64(words.deadline_seconds).unwrap_or_default());
            let text = format!(
                "memory: the program (pid {}) says that it leaves: {}; its drain takes at most {deadline}",
                words.pid,
                words.figures()
            );
            self.shared.warn(&text);
        }
        reports.relay(Relay::alive);
    }

    /// Whether the program that has just ended with `code` left for memory by its own word.
    pub(in super::super) fn left_for_memory(&self, code: Option<i32>) -> Option<(Duration, LastWordsView)> {
        let main = self.child.as_ref()?.pid.as_raw_nonzero().get();
        self.shared.reports()?.left_for_memory(main, code)
    }

    /// Another life begins.
    pub(super) fn begin_to_hear(&self) {
        self.shared.reports().iter().for_each(|reports| reports.new_life());
    }

    /// When a flood of reports is over, and the socket is looked at again.
    pub(super) fn reports_again(&self) -> Option<Duration> {
        self.shared.reports().and_then(|reports| reports.poll().err())
    }

    /// When a manager above wants the next sign of life.
    pub(super) fn alive_due(&self, now: Duration) -> Option<Duration> {
        let every = self.shared.reports()?.relay(Relay::alive_interval)?;
        Some(now + every)
    }

    /// Says something to a manager above, if there is one.
    pub(in super::super) fn say_above(&self, message: &str) {
        self.shared.reports().iter().for_each(|reports| reports.relay(|relay| relay.send(message)));
    }
}
