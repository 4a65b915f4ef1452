//! The two clocks of the store's own threads: monotonic for waiting, wall for stamping records that nobody else stamps.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since the machine started (`CLOCK_MONOTONIC`); two processes agree on it.
pub(crate) fn monotonic() -> Duration {
    from(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since 1970-01-01 UTC.
pub(crate) fn unix_ns() -> u64 {
    u64::try_from(from(clock_gettime(ClockId::Realtime)).as_nanos()).unwrap_or(u64::MAX)
}

fn from(t: Timespec) -> Duration {
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}
