//! The two clocks of the harness, in whole nanoseconds, and waiting for something with a deadline.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// `CLOCK_MONOTONIC` in nanoseconds: the same origin in every process of the machine.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The wall clock in nanoseconds since 1970-01-01 UTC.
pub fn unix_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// CPU time that this process has used, user and system, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(id: ClockId) -> u64 {
    let now = clock_gettime(id);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Asks `probe` every `step` until it answers or `deadline` has passed; the last question is asked after the deadline.
pub fn wait_for<T>(deadline: Duration, step: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = monotonic_ns().saturating_add(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if monotonic_ns() >= end {
            return probe();
        }
        std::thread::sleep(step);
    }
}
