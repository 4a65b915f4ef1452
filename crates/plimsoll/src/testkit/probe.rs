//! A fake probe: a gauge that reads what a test says, also that it cannot. Clones are the same probe, so one half is given to the
//! governor or watchdog and the other turned by hand.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::gauge::{Gauge, Protected, Unread};

/// What a [`Probe`] reads now.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    program_bytes: u64,
    kernel_bytes: Option<u64>,
    file_bytes: u64,
    fast_unread: Option<Unread>,
    unread: Option<Unread>,
    fast_total: u64,
    confirmed_total: u64,
}

/// A gauge that reads what it is told to. Starts at 0 bytes.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::testkit::Probe;
/// use plimsoll::watchdog::{Config, Watchdog};
///
/// let probe = Probe::new(100 << 20);
/// let watchdog = Watchdog::new(Config::new(300 << 20)).gauge(probe.clone()).at_deadline(|| {});
/// watchdog.start()?;
/// assert!(!watchdog.has_fired());
/// probe.set(301 << 20);
/// assert!(watchdog.wait_fired(Duration::from_secs(10)).is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Mutex<Reads>>);

impl Probe {
    /// A probe that reads so many bytes of the program's own.
    pub fn new(program_bytes: u64) -> Probe {
        let probe = Probe::default();
        probe.set(program_bytes);
        probe
    }

    /// From now on it reads so many bytes of the program's own.
    pub fn set(&self, program_bytes: u64) {
        self.0.lock().program_bytes = program_bytes;
    }

    /// Page cache: in the fast number, never in the confirmed one.
    pub fn set_cache(&self, bytes: u64) {
        self.0.lock().file_bytes = bytes;
    }

    /// Kernel memory, which counts beyond the policy's allowance; `None`: not told.
    pub fn set_kernel(&self, bytes: Option<u64>) {
        self.0.lock().kernel_bytes = bytes;
    }

    /// From now on the confirmed number cannot be read, with this reason; `None`: it can again.
    pub fn fail(&self, why: Option<Unread>) {
        self.0.lock().unread = why;
    }

    /// The same for the fast number.
    pub fn fail_fast(&self, why: Option<Unread>) {
        self.0.lock().fast_unread = why;
    }

    /// How often the fast and the confirmed number were read.
    pub fn reads(&self) -> (u64, u64) {
        let reads = self.0.lock();
        (reads.fast_total, reads.confirmed_total)
    }
}

impl Gauge for Probe {
    fn fast(&mut self) -> Result<u64, Unread> {
        let mut reads = self.0.lock();
        reads.fast_total += 1;
        let all = [reads.program_bytes, reads.file_bytes, reads.kernel_bytes.unwrap_or(0)];
        reads.fast_unread.map_or(Ok(all.iter().fold(0, |sum, bytes| u64::saturating_add(sum, *bytes))), Err)
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let mut reads = self.0.lock();
        reads.confirmed_total += 1;
        let protected = Protected {
            program_bytes: reads.program_bytes,
            kernel_bytes: reads.kernel_bytes,
            file_bytes: Some(reads.file_bytes),
            ..Protected::default()
        };
        reads.unread.map_or(Ok(protected), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_what_was_set_and_fail_apart() {
        let probe = Probe::new(10);
        let mut gauge = probe.clone();
        probe.set_cache(100);
        probe.set_kernel(Some(5));
        assert_eq!(gauge.fast(), Ok(115));
        let read = gauge.confirm().unwrap();
        assert_eq!((read.program_bytes, read.kernel_bytes, read.file_bytes), (10, Some(5), Some(100)));
        probe.fail(Some(Unread::Denied("memory.stat")));
        assert_eq!((gauge.fast(), gauge.confirm()), (Ok(115), Err(Unread::Denied("memory.stat"))));
        probe.fail(None);
        probe.fail_fast(Some(Unread::Missing("usage")));
        assert_eq!((gauge.fast(), gauge.confirm().is_ok()), (Err(Unread::Missing("usage")), true));
        assert_eq!(probe.reads(), (3, 3));
    }
}
