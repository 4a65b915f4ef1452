//! What the governor's thread tells the supervise loop: at most [`WAITING`] (256) reports wait, none is allocated, and what
//! has no room is counted. A stop is never lost: it has a place of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::governor::Decision;

use super::reach::Sent;
use super::signals::Waker;

/// The most reports that wait.
pub(crate) const WAITING: usize = 256;

/// One report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    /// Level or sight changed.
    Changed(Decision),
    /// These stages (a bit set by index) are due.
    Due(u32, Decision),
}

/// SIGTERM went out from the governor's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Which stage asked for it.
    pub(crate) stage: usize,
    /// On what grounds.
    pub(crate) decision: Decision,
    /// Whom it reached.
    pub(crate) sent: Sent,
    /// When it had been sent, on the monotonic clock.
    pub(crate) at: Duration,
}

/// The mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Mutex<(VecDeque<Report>, Option<Stop>)>,
    dropped: AtomicU64,
    waker: Waker,
}

impl Mailbox {
    /// An empty one that wakes `waker`.
    pub(crate) fn new(waker: Waker) -> Mailbox {
        Mailbox { inner: Mutex::new((VecDeque::with_capacity(WAITING), None)), dropped: AtomicU64::new(0), waker }
    }

    /// Puts a report in, or counts it.
    pub(crate) fn report(&self, report: Report) {
        let mut inner = self.inner.lock();
        if inner.0.len() < WAITING {
            inner.0.push_back(report);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(inner);
        self.waker.wake();
    }

    /// Tells of the stop.
    pub(crate) fn stopped(&self, stop: Stop) {
        self.inner.lock().1 = Some(stop);
        self.waker.wake();
    }

    /// The next report; `None` when there is none.
    pub(crate) fn take(&self) -> Option<Report> {
        self.inner.lock().0.pop_front()
    }

    /// The stop, once.
    pub(crate) fn take_stop(&self) -> Option<Stop> {
        self.inner.lock().1.take()
    }

    /// Forgets what waits: it is about a life that is over.
    pub(crate) fn empty(&self) {
        let mut inner = self.inner.lock();
        inner.0.clear();
        inner.1 = None;
    }

    /// Reports that had no room.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll::gauge::Protected;
    use plimsoll::governor::{Reading, State, step};
    use plimsoll::policy::Policy;

    use super::*;

    fn decision() -> Decision {
        let confirmed = Some(Ok(Protected { program_bytes: 400 << 20, ..Protected::default() }));
        let reading = Reading { at: Duration::ZERO, fast_bytes: None, confirmed, ..Reading::default() };
        step(&Policy::new(300 << 20, 64 << 20), State::default(), &reading).1
    }

    #[test]
    fn reports_without_room_are_counted_and_a_stop_always_has_one() {
        let mailbox = Mailbox::new(Waker::new().unwrap());
        for _ in 0..WAITING + 3 {
            mailbox.report(Report::Changed(decision()));
        }
        assert_eq!(mailbox.dropped_total(), 3);
        mailbox.stopped(Stop { stage: 1, decision: decision(), sent: Sent::default(), at: Duration::ZERO });
        assert!(mailbox.take_stop().is_some_and(|stop| stop.stage == 1));
        assert!(mailbox.take_stop().is_none());
        mailbox.empty();
        assert!(mailbox.take().is_none());
    }
}
