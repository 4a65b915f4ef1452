//! The gauge of this very process, for where no group bounds it: `RssAnon + RssShmem + VmSwap`, and any closure as a gauge.
//!
//! Two descriptors, kept open. `fast` is the resident set of `statm` (file pages included, so an upper bound but for swap, which the
//! governor corrects by the last confirmed reading). `confirm` takes anonymous memory from `statm` too, exactly, and what is shared memory
//! or swap from `status`, which costs four times as much: that is read again after [`STATUS_EVERY`] (1 s), when file and shared pages
//! moved by [`MOVED_BYTES`] (1 MiB; less than that counts as shared memory, an upper bound), and each time where there is swap.
//! `statm` takes 0.3 to 1 µs and `status` 2 to 8 in a loop; after a sleep, with cold caches, `benches/cold.rs` says how much more. Neither
//! allocates. Between Linux 6.2 and 6.15 both lag by up to 32 pages a core. Pages freed with `MADV_FREE` count until the kernel takes them.

use std::time::Duration;

use super::files::{BUFFER_BYTES, KeptFile};
use super::process::{page_bytes, parse_status, read_statm};
use super::{Gauge, Protected, Root, Unread, host};
use crate::clock::{Clock as _, MonotonicClock};

/// The longest time for which `status` is not read again.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A move of file and shared pages after which it is.
const MOVED_BYTES: u64 = 1 << 20;

/// Reads what this process itself holds.
#[derive(Debug)]
pub struct ProcessGauge {
    statm: KeptFile,
    status: KeptFile,
    page_bytes: u64,
    /// The machine has no swap, as far as was known at the start.
    swapless: bool,
    known: Option<Known>,
    confirm_cost: Option<Duration>,
}

/// What `status` said last.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: Duration,
    /// File and shared pages by `statm` at that time.
    shared_bytes: u64,
    shmem_bytes: u64,
    file_bytes: Option<u64>,
    swap_bytes: Option<u64>,
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
            swapless: host::read(root).is_ok_and(|host| host.swap_total_bytes == 0),
            known: None,
            confirm_cost: None,
        })
    }

    /// What `status` said, where that still holds.
    fn still_known(&self, at: Duration, shared_bytes: u64) -> Option<Known> {
        let holds = |known: &Known| {
            self.swapless
                && known.swap_bytes.unwrap_or(0) == 0
                && at.saturating_sub(known.at) < STATUS_EVERY
                && known.shared_bytes.abs_diff(shared_bytes) < MOVED_BYTES
        };
        self.known.filter(holds)
    }

    fn read_status(&self, at: Duration, shared_bytes: u64) -> Result<(u64, Known), Unread> {
        let mut buffer = [0; BUFFER_BYTES];
        let status = parse_status(self.status.read(&mut buffer)?);
        let told = |part: Option<u64>| part.ok_or(Unread::Malformed(STATUS));
        let (anon, shmem_bytes) = (told(status.anon_bytes)?, told(status.shmem_bytes)?);
        let (file_bytes, swap_bytes) = (status.file_bytes, status.swap_bytes);
        Ok((anon, Known { at, shared_bytes, shmem_bytes, file_bytes, swap_bytes }))
    }
}

const STATUS: &str = "/proc/self/status";

impl Gauge for ProcessGauge {
    fn fast(&mut self) -> Result<u64, Unread> {
        Ok(read_statm(&self.statm)?.resident.saturating_mul(self.page_bytes))
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let at = MonotonicClock.now();
        let protected = self.confirm_at(at)?;
        self.confirm_cost = Some(MonotonicClock.now().saturating_sub(at));
        Ok(protected)
    }

    fn confirm_cost(&self) -> Option<Duration> {
        self.confirm_cost
    }
}

impl ProcessGauge {
    fn confirm_at(&mut self, at: Duration) -> Result<Protected, Unread> {
        let statm = read_statm(&self.statm)?;
        let shared_bytes = statm.shared.saturating_mul(self.page_bytes);
        let (anon, known) = match self.still_known(at, shared_bytes) {
            Some(known) => (statm.anon_pages().saturating_mul(self.page_bytes), known),
            None => self.read_status(at, shared_bytes)?,
        };
        self.known = Some(known);
        let shmem = known.shmem_bytes.saturating_add(shared_bytes.saturating_sub(known.shared_bytes));
        Ok(Protected {
            anon_bytes: Some(anon),
            shmem_bytes: Some(shmem),
            swap_bytes: known.swap_bytes,
            unevictable_bytes: None,
            kernel_bytes: None,
            file_bytes: known.file_bytes,
            program_bytes: anon.saturating_add(shmem).saturating_add(known.swap_bytes.unwrap_or(0)),
        })
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

    /// A process with these pages by `statm` and kilobytes by `status`, on a machine with so much swap.
    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(swap_kb: u64) -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
            let meminfo = format!(
                "MemTotal: 9 kB\nMemFree: 9 kB\nMemAvailable: 9 kB\nSwapTotal: {swap_kb} kB\nSwapFree: {swap_kb} kB\n"
            );
            std::fs::write(dir.path().join("proc/meminfo"), meminfo).unwrap();
            Fixture(dir)
        }

        fn set(&self, resident: u64, shared: u64, status: [u64; 4]) {
            let own = self.0.path().join("proc/self");
            std::fs::write(own.join("statm"), format!("9000 {resident} {shared} 1 0 1 0\n")).unwrap();
            let [anon, file, shmem, swap] = status;
            let text = format!("RssAnon: {anon} kB\nRssFile: {file} kB\nRssShmem: {shmem} kB\nVmSwap: {swap} kB\n");
            std::fs::write(own.join("status"), text).unwrap();
        }
    }

    #[test]
    fn status_is_read_again_when_it_is_old_when_shared_pages_moved_and_where_there_is_swap() {
        let (page, second) = (page_bytes(), Duration::from_secs(1));
        for (swap_kb, is_kept) in [(0, true), (4, false)] {
            let fixture = Fixture::new(swap_kb);
            fixture.set(1_000, 300, [1, 2, 10, 0]);
            let mut gauge = ProcessGauge::own(&Root::at(fixture.0.path())).unwrap();
            let first = gauge.confirm_at(second).unwrap();
            assert_eq!(first.program_bytes, 11 << 10, "the first is all of status");
            // Anonymous memory grows by 500 pages, file pages by 5: those could be shared memory.
            fixture.set(1_505, 305, [20, 22, 10, 0]);
            let read = gauge.confirm_at(second + STATUS_EVERY - Duration::from_millis(1)).unwrap();
            let kept = 1_200 * page + (10 << 10) + 5 * page;
            assert_eq!(read.program_bytes, if is_kept { kept } else { 30 << 10 }, "swap of {swap_kb} kB");
            let read = gauge.confirm_at(second + STATUS_EVERY).unwrap();
            assert_eq!(read.program_bytes, 30 << 10, "old enough");
            let moved = 305 + MOVED_BYTES / page;
            fixture.set(3_000, moved, [40, 44, 50, 0]);
            let read = gauge.confirm_at(second + STATUS_EVERY).unwrap();
            assert_eq!((read.program_bytes, read.shmem_bytes), (90 << 10, Some(50 << 10)), "shared pages moved");
        }
    }

    #[test]
    fn what_is_swapped_out_counts_also_where_no_swap_was_known_at_the_start() {
        let fixture = Fixture::new(0);
        fixture.set(1_000, 300, [10, 2, 10, 7]);
        let mut gauge = ProcessGauge::own(&Root::at(fixture.0.path())).unwrap();
        assert_eq!(gauge.confirm_at(Duration::ZERO).unwrap().program_bytes, 27 << 10);
        fixture.set(1_000, 300, [10, 2, 10, 70]);
        assert_eq!(gauge.confirm_at(Duration::ZERO).unwrap().program_bytes, 90 << 10, "read each time from then on");
    }

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
