//! The gauge of this very process, for where no group bounds it: `RssAnon + RssShmem + VmSwap`, and any closure as a gauge.
//!
//! Two descriptors, kept open. `fast` is the resident set of `statm` (0.3 µs; file pages included, so an upper bound but for
//! swap, which the governor corrects by the last confirmed reading). `confirm` reads `status` (2 µs, without allocating).
//! Between Linux 6.2 and 6.15 both lag by up to 32 pages a core. Pages freed with `MADV_FREE` count until the kernel takes them.

use std::time::Duration;

use super::files::{BUFFER_BYTES, KeptFile};
use super::process::{page_bytes, parse_status, read_statm};
use super::{Gauge, Protected, Root, Unread};
use crate::clock::{Clock as _, MonotonicClock};

/// Reads what this process itself holds.
#[derive(Debug)]
pub struct ProcessGauge {
    statm: KeptFile,
    status: KeptFile,
    page_bytes: u64,
    confirm_cost: Option<Duration>,
}

impl ProcessGauge {
    /// Opens this process's files. They stay this process's also in a child that is forked later.
    ///
    /// # Errors
    /// `Missing` or `Denied` where `/proc` is not mounted or hidden.
    pub fn own(root: &Root) -> Result<ProcessGauge, Unread> {
        let dir = root.proc.join("self");
        Ok(ProcessGauge {
            statm: KeptFile::open(&dir, "statm", "/proc/self/statm")?,
            status: KeptFile::open(&dir, "status", STATUS)?,
            page_bytes: page_bytes(),
            confirm_cost: None,
        })
    }
}

const STATUS: &str = "/proc/self/status";

impl Gauge for ProcessGauge {
    fn fast(&mut self) -> Result<u64, Unread> {
        Ok(read_statm(&self.statm)?.resident.saturating_mul(self.page_bytes))
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let began = MonotonicClock.now();
        let mut buffer = [0; BUFFER_BYTES];
        let status = parse_status(self.status.read(&mut buffer)?);
        let told = |part: Option<u64>| part.ok_or(Unread::Malformed(STATUS));
        let (anon, shmem) = (told(status.anon_bytes)?, told(status.shmem_bytes)?);
        self.confirm_cost = Some(MonotonicClock.now().saturating_sub(began));
        Ok(Protected {
            anon_bytes: Some(anon),
            shmem_bytes: Some(shmem),
            swap_bytes: status.swap_bytes,
            unevictable_bytes: None,
            kernel_bytes: None,
            file_bytes: status.file_bytes,
            program_bytes: anon.saturating_add(shmem).saturating_add(status.swap_bytes.unwrap_or(0)),
        })
    }

    fn confirm_cost(&self) -> Option<Duration> {
        self.confirm_cost
    }
}

/// Any closure that tells bytes is a gauge whose two rates are the same: an estimator of one's own, or a script in a test.
///
/// # Examples
/// ```
/// use plimsoll::gauge::{Gauge, Unread};
///
/// let mut readings = [Ok(10), Err(Unread::Missing("estimate")), Ok(30)].into_iter();
/// let mut gauge = move || readings.next().unwrap_or(Ok(0));
/// assert_eq!(gauge.fast(), Ok(10));
/// assert!(gauge.confirm().is_err());
/// assert_eq!(gauge.confirm().unwrap().program_bytes, 30);
/// ```
impl<F: FnMut() -> Result<u64, Unread> + Send> Gauge for F {
    fn fast(&mut self) -> Result<u64, Unread> {
        self()
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        Ok(Protected { program_bytes: self()?, ..Protected::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_and_what_is_not_told_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("proc/self");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("statm"), "900 400 300 1 0 1 0\n").unwrap();
        std::fs::write(own.join("status"), "RssAnon:\t100 kB\nRssFile:\t50 kB\nRssShmem:\t10 kB\nVmSwap:\t7 kB\n")
            .unwrap();
        let root = Root::at(dir.path());
        let mut gauge = ProcessGauge::own(&root).unwrap();
        assert_eq!(gauge.fast(), Ok(400 * page_bytes()));
        let read = gauge.confirm().unwrap();
        assert_eq!((read.program_bytes, read.file_bytes, read.kernel_bytes), (117 << 10, Some(50 << 10), None));
        std::fs::write(own.join("status"), "RssAnon:\t100 kB\n").unwrap();
        assert_eq!(gauge.confirm(), Err(Unread::Malformed(STATUS)));
        assert_eq!(ProcessGauge::own(&Root::at("/nonexistent")).unwrap_err(), Unread::Missing("/proc/self/statm"));
    }
}
