//! One word: whether the drain's deadline is armed, and until when. Arming, stopping and dropping meet in it.
//!
//! The first arming counts; a drop stops it only if it was never armed; a stop ends it in any case. Each operation is one atomic one, nothing
//! waits. Loom models below: `RUSTFLAGS="--cfg loom" cargo test -p plimsoll --release --lib watchdog::until`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const IDLE: u64 = 0;
const STOP: u64 = u64::MAX;

/// Starts idle.
#[derive(Debug)]
pub(super) struct Until(AtomicU64);

/// What it says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not armed.
    Idle,
    /// The time is up then, on the monotonic clock.
    Armed(Duration),
    /// Ended for good.
    Stopped,
}

impl Until {
    pub(super) fn new() -> Until {
        Until(AtomicU64::new(IDLE))
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            IDLE => Phase::Idle,
            STOP => Phase::Stopped,
            until => Phase::Armed(Duration::from_nanos(until)),
        }
    }

    /// Only the first arming counts, and none after a stop. True: this one.
    pub(super) fn arm(&self, until: Duration) -> bool {
        let until = u64::try_from(until.as_nanos()).unwrap_or(STOP - 1).clamp(IDLE + 1, STOP - 1);
        self.0.compare_exchange(IDLE, until, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends it, armed or not.
    pub(super) fn stop(&self) {
        self.0.swap(STOP, Ordering::AcqRel);
    }

    /// Ends it unless it is armed. True: it was idle, and is stopped.
    pub(super) fn stop_if_idle(&self) -> bool {
        self.0.compare_exchange(IDLE, STOP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_arming_counts_and_the_ends_of_time_are_times() {
        let until = Until::new();
        assert!(until.arm(Duration::MAX) && !until.arm(Duration::ZERO));
        assert_eq!(until.phase(), Phase::Armed(Duration::from_nanos(STOP - 1)));
        let until = Until::new();
        assert!(until.arm(Duration::ZERO));
        assert_eq!(until.phase(), Phase::Armed(Duration::from_nanos(1)));
        assert!(!until.stop_if_idle());
        until.stop();
        assert!(!until.arm(Duration::ZERO));
        assert_eq!(until.phase(), Phase::Stopped);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// The watchdog fires while its owner is dropped: either it is armed and stays so, or it was stopped and never is.
    #[test]
    fn a_drop_never_stops_what_was_armed() {
        loom::model(|| {
            let until = Arc::new(Until::new());
            let watcher = {
                let until = Arc::clone(&until);
                thread::spawn(move || until.arm(Duration::from_secs(1)))
            };
            let stopped = until.stop_if_idle();
            let armed = watcher.join().expect("no panic");
            assert!(armed != stopped, "one of the two");
            assert_eq!(until.phase() == Phase::Stopped, stopped);
        });
    }

    /// Two that arm beside one that stops: at most one arms, and the stop holds whatever the order.
    #[test]
    fn a_stop_is_final_and_one_arming_counts() {
        loom::model(|| {
            let until = Arc::new(Until::new());
            let arm = |seconds| {
                let until = Arc::clone(&until);
                thread::spawn(move || usize::from(until.arm(Duration::from_secs(seconds))))
            };
            let (one, two) = (arm(1), arm(2));
            until.stop();
            let armed = one.join().expect("no panic") + two.join().expect("no panic");
            assert!(armed <= 1);
            assert_eq!(until.phase(), Phase::Stopped);
        });
    }
}
