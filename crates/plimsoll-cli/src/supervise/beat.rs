//! The supervisor's sign of life, without a timer of its own: the governor's tick refreshes it at least once a second, but
//! only while the supervise loop sleeps or has been busy for less than [`HUNG`] (5 s).
//!
//! So a stopped process (SIGSTOP), a dead one, and one whose loop hangs all fall silent; `status` then says "stale, N s".

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock, MonotonicClock};

/// A loop that works on one thing for longer hangs.
pub(crate) const HUNG: Duration = Duration::from_secs(5);

/// Writes the sign, in nanoseconds of the monotonic clock, where other processes see it. Never blocks.
pub(crate) type Show = Box<dyn Fn(u64) + Send>;

/// The sign of life.
#[derive(Default)]
pub(crate) struct Beat {
    /// Nanoseconds of the monotonic clock at the last sign; 0: none yet.
    last_ns: AtomicU64,
    /// Since when the loop is busy; 0: it sleeps.
    busy_since_ns: AtomicU64,
    /// Where other processes see it.
    ring: Mutex<Option<Show>>,
}

impl Beat {
    /// Shows it in the log ring as well, where readers find it after a death.
    pub(crate) fn show_in(&self, show: Show) {
        *self.ring.lock() = Some(show);
    }

    /// The loop begins to work.
    pub(crate) fn busy(&self) {
        self.busy_since_ns.store(now_ns().max(1), Ordering::Relaxed);
    }

    /// The loop goes to sleep; that is a sign of life, too.
    pub(crate) fn idle(&self) {
        self.busy_since_ns.store(0, Ordering::Relaxed);
        self.tick();
    }

    /// Refreshes the sign, unless the loop hangs.
    pub(crate) fn tick(&self) {
        let now = now_ns();
        let busy = self.busy_since_ns.load(Ordering::Relaxed);
        if busy != 0 && Duration::from_nanos(now.saturating_sub(busy)) > HUNG {
            return;
        }
        self.last_ns.store(now, Ordering::Relaxed);
        // Taken for longer only while it is being set.
        if let Some(ring) = self.ring.try_lock().as_deref().and_then(Option::as_ref) {
            ring(now);
        }
    }

    /// How old the last sign is.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_nanos(now_ns().saturating_sub(self.last_ns.load(Ordering::Relaxed)))
    }
}

fn now_ns() -> u64 {
    u64::try_from(MonotonicClock.now().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_hangs_gives_no_sign_however_often_the_governor_ticks() {
        let beat = Beat::default();
        beat.idle();
        assert!(beat.age() < HUNG);
        let long_ago = now_ns().saturating_sub(60_000_000_000).max(1);
        beat.last_ns.store(long_ago, Ordering::Relaxed);
        beat.busy_since_ns.store(long_ago, Ordering::Relaxed);
        beat.tick();
        assert!(beat.age() > HUNG);
        beat.busy();
        beat.tick();
        assert!(beat.age() < HUNG);
    }
}
