//! Where time comes from. Everything that decides takes the time from here, so that a test can hold it still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A monotonic clock: the time since an origin that stays the same while the process lives.
pub trait Clock: Send + Sync {
    /// Time since the origin. Never goes back.
    fn now(&self) -> Duration;
}

/// The kernel's `CLOCK_MONOTONIC`; its origin is the machine's start, so two processes agree on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
    }
}

/// The kernel's `CLOCK_MONOTONIC_COARSE`: the same time as [`MonotonicClock`], as of the last tick (1–10 ms ago), for a
/// third of the price. For ages that are shown, not for deciding.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoarseClock;

impl Clock for CoarseClock {
    fn now(&self) -> Duration {
        from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse))
    }
}

/// The CPU time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime))
}

/// The wall clock as the time since 1970-01-01 UTC; for showing and storing, never for deciding.
pub fn wall() -> Duration {
    from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Realtime))
}

fn from_timespec(t: rustix::time::Timespec) -> Duration {
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// A clock that moves only when told to. For tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the clock forward by `step` (whole nanoseconds).
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(u64::try_from(step.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::default();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Duration::from_millis(7));
    }

    #[test]
    fn coarse_clock_is_the_monotonic_one_as_of_the_last_tick() {
        let (before, coarse, after) = (MonotonicClock.now(), CoarseClock.now(), MonotonicClock.now());
        assert!(coarse <= after, "{coarse:?} > {after:?}");
        assert!(before.saturating_sub(coarse) <= Duration::from_millis(20), "{before:?} {coarse:?}");
    }

    #[test]
    fn thread_cpu_time_is_spent_by_working() {
        let before = thread_cpu();
        let mut sum = 0u64;
        while thread_cpu() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu() > before);
    }

    #[test]
    fn monotonic_clock_does_not_go_back() {
        let first = MonotonicClock.now();
        assert!(MonotonicClock.now() >= first);
    }
}
