//! The gauge of one memory cgroup: its files stay open, a reading allocates nothing.
//!
//! At most 7 + [`KEPT_MEMBERS`] descriptors. `fast` is one or two `pread`s (0.5–1 µs): raw usage with swap, which the
//! kernel keeps exact and which includes page cache, so it is an upper bound. `confirm` reads `memory.stat`, kernel memory
//! and the `statm` of the largest members (13 µs with four; `benches/readings.rs`).
//!
//! Why members: the figures of `memory.stat` lag (up to 64 pages per CPU and more on old kernels, up to 2 s between Linux
//! 5.15 and 6.6), a process's own do not. The larger of the two counts, but never more than raw usage. One member
//! only, never a sum: processes share copy-on-write pages.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::{Group, Version, stat};
use crate::clock::{Clock as _, MonotonicClock};
use crate::gauge::files::{self, BUFFER_BYTES, KeptFile, StackPath};
use crate::gauge::process::{Statm, page_bytes, read_statm, statm_at};
use crate::gauge::{Gauge, Protected, Root, Unread};

/// How many members' `statm` files stay open: the largest ones at the last look.
pub const KEPT_MEMBERS: usize = 8;

/// How many members one look goes through (1.3–5 µs each, at most a tenth of the time); those listed later are not seen.
pub const SCANNED_MEMBERS: usize = 1024;

/// Looks at the members take at most this part of the time.
const SCAN_SHARE: u32 = 10;
const SCAN_INTERVAL: Duration = Duration::from_millis(50);

/// Reads the protected number of one memory cgroup.
#[derive(Debug)]
pub struct GroupGauge {
    version: Version,
    usage: KeptFile,
    /// v1: memory and swap in one figure. v2: swap alone.
    swap: Option<KeptFile>,
    stat: KeptFile,
    kernel: Option<KeptFile>,
    members: Members,
    confirm_cost: Option<Duration>,
}

impl GroupGauge {
    /// Opens the group's files. `root` is only needed for its `/proc`.
    ///
    /// # Errors
    /// `Missing` when the group is gone or has no memory controller (v2's top group).
    pub fn open(root: &Root, group: &Group) -> Result<GroupGauge, Unread> {
        let open = |name: &'static str| KeptFile::open(group.dir(), name, name);
        let version = group.version();
        let (swap, kernel) = match version {
            Version::V1 => ("memory.memsw.usage_in_bytes", open("memory.kmem.usage_in_bytes").ok()),
            Version::V2 => ("memory.swap.current", None),
        };
        Ok(GroupGauge {
            version,
            usage: open(group.usage_file())?,
            swap: open(swap).ok(),
            stat: open("memory.stat")?,
            kernel,
            members: Members::open(root, group),
            confirm_cost: None,
        })
    }

    fn with_swap(&self, usage: u64) -> u64 {
        match (self.version, self.swap.as_ref().map(KeptFile::read_u64)) {
            (Version::V1, Some(Ok(both))) => usage.max(both),
            (Version::V2, Some(Ok(swap))) => usage.saturating_add(swap),
            _ => usage,
        }
    }
}

impl Gauge for GroupGauge {
    fn fast(&mut self) -> Result<u64, Unread> {
        Ok(self.with_swap(self.usage.read_u64()?))
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let began = MonotonicClock.now();
        let mut buffer = [0; BUFFER_BYTES];
        let mut stat = stat::parse(self.version, self.stat.read(&mut buffer)?);
        match self.version {
            Version::V1 => stat.kernel_bytes = self.kernel.as_ref().and_then(|file| file.read_u64().ok()),
            Version::V2 => stat.swap_bytes = self.swap.as_ref().and_then(|file| file.read_u64().ok()),
        }
        let largest = self.members.largest_anon_bytes(began);
        // Read last: it bounds what was read before it.
        let usage = self.usage.read_u64();
        if let (Some(largest), Some(anon), Ok(usage)) = (largest, &mut stat.anon_bytes, usage) {
            *anon = largest.min(usage).max(*anon);
        }
        let protected = stat.protected(usage)?;
        self.confirm_cost = Some(MonotonicClock.now().saturating_sub(began));
        Ok(protected)
    }

    fn confirm_cost(&self) -> Option<Duration> {
        self.confirm_cost
    }
}

/// The largest members of the group, found again from time to time.
#[derive(Debug)]
struct Members {
    procs: Option<KeptFile>,
    proc_dir: Option<OwnedFd>,
    kept: [Option<KeptFile>; KEPT_MEMBERS],
    next_scan: Duration,
    page_bytes: u64,
}

impl Members {
    fn open(root: &Root, group: &Group) -> Members {
        Members {
            procs: KeptFile::open(group.dir(), "cgroup.procs", "cgroup.procs").ok(),
            proc_dir: files::open_dir(&root.proc, "/proc").ok(),
            kept: [const { None }; KEPT_MEMBERS],
            next_scan: Duration::ZERO,
            page_bytes: page_bytes(),
        }
    }

    /// The anonymous memory of the largest member, `None` when there is none to be read.
    fn largest_anon_bytes(&mut self, now: Duration) -> Option<u64> {
        if now >= self.next_scan {
            let pages = self.scan();
            let ended = MonotonicClock.now();
            self.next_scan = ended + ended.saturating_sub(now).saturating_mul(SCAN_SHARE).max(SCAN_INTERVAL);
            return pages.map(|pages| pages.saturating_mul(self.page_bytes));
        }
        let pages = self.kept.iter().flatten().filter_map(|file| read_statm(file).ok()).map(Statm::anon_pages);
        pages.max().map(|pages| pages.saturating_mul(self.page_bytes))
    }

    /// Looks at up to [`SCANNED_MEMBERS`] members and keeps the largest ones open.
    fn scan(&mut self) -> Option<u64> {
        let (Some(procs), Some(proc_dir)) = (&self.procs, &self.proc_dir) else { return None };
        let mut largest = [(0u64, 0i32); KEPT_MEMBERS];
        let mut text = [0; 4096];
        let (mut offset, mut seen) = (0, 0);
        'file: while let Ok(chunk) = procs.read_from(offset, &mut text) {
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            for pid in files::lines(chunk).filter_map(files::parse_pid) {
                if seen == SCANNED_MEMBERS {
                    break 'file;
                }
                seen += 1;
                // A member that vanished between the two reads is none any more.
                let Ok(statm) = statm_at(proc_dir.as_fd(), pid) else { continue };
                insert(&mut largest, statm, pid);
            }
        }
        for (slot, &(_, pid)) in self.kept.iter_mut().zip(&largest) {
            let path = StackPath::of_pid(pid, "statm");
            let path = path.as_c_str().filter(|_| pid != 0);
            *slot = path.and_then(|path| KeptFile::open_at(proc_dir.as_fd(), path, "statm").ok());
        }
        largest.first().filter(|(_, pid)| *pid != 0).map(|(pages, _)| *pages)
    }
}

/// Keeps `largest` sorted, largest first.
fn insert(largest: &mut [(u64, i32); KEPT_MEMBERS], statm: Statm, pid: i32) {
    let pages = statm.anon_pages();
    let at = largest.partition_point(|&(kept, of)| of != 0 && kept >= pages);
    if at < KEPT_MEMBERS {
        largest[at..].rotate_right(1);
        largest[at] = (pages, pid);
    }
}
