//! The memory of a process tree, where no cgroup of its own bounds it.
//!
//! `fast` sums anonymous, shared and swapped memory per process: an upper bound, in which a page that four workers share
//! since a fork counts five times. `confirm` counts each page once (PSS) and costs 2.6–3.3 ms per GB mapped: pace it by
//! [`Gauge::confirm_cost`]. A worker that writes to pages it shares moves `confirm` and not `fast`.
//!
//! At most 4 + [`KEPT_PROCESSES`] descriptors (one of them only while it reads), however many processes come and go; the
//! tables are reserved at the start ([`MAX_PROCESSES`] on the machine, [`MAX_MEMBERS`] in the tree; what is beyond is
//! counted, not seen). Who belongs to the tree is found again (about 10 µs per process of the machine) when the kernel has
//! given out a new pid, a member has ended, or half a second has passed: before a `confirm`, and at most a tenth of the
//! time by `fast`.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::files::{self, KeptFile};
use super::process;
use super::{Gauge, Protected, Root, Unread};
use crate::clock::{Clock as _, MonotonicClock};

mod members;
mod scan;
mod scope;

use members::{Member, Members};
use scan::Scanner;
pub use scan::{MAX_MEMBERS, MAX_PROCESSES};
pub use scope::{Excluded, MAX_EXCLUDED, TreeScope};

/// How many processes' `statm` stay open: the largest ones. Others are opened and closed, as many again per fast reading,
/// in turn.
pub const KEPT_PROCESSES: usize = 64;

/// Finding the members takes at most one part in this many of the time.
const SCAN_SHARE: u32 = 10;

/// A fork is done this long after its pid was given out, mostly.
const BIRTH: Duration = Duration::from_millis(20);

/// The members are looked for again after this long, whatever else says that they are the same.
const SETTLED_FOR: Duration = Duration::from_millis(500);

/// When all members but the largest hold less than this part of the sum, the sum is confirmed without PSS: it is then at
/// most 0.8 % too high, and a thousand times cheaper.
const SHARED_PART: u64 = 128;

const TREE: &str = "process tree";

/// One process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeProcess {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the machine's start: with the pid it names one process for ever.
    pub start_ticks: u64,
}

/// What a tree gauge did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStatus {
    /// Processes in the tree at the last look.
    pub members: usize,
    /// Of these, how many are kept open.
    pub kept_open: usize,
    /// Processes that ended while they were being read. Not an error.
    pub vanished_total: u64,
    /// Members whose `smaps_rollup` may not be read, at the last confirmed reading: their RSS counts instead.
    pub denied: usize,
    /// Processes beyond [`MAX_PROCESSES`] or members beyond [`MAX_MEMBERS`], at the last look: not seen.
    pub overflow: usize,
    /// How often the members were looked for.
    pub scans_total: u64,
    /// What the last look cost.
    pub scan_cost: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    status: TreeStatus,
    processes: Vec<TreeProcess>,
}

/// A view of a tree gauge that another thread can hold: who is in the tree, and how the gauge fares.
#[derive(Clone, Debug)]
pub struct TreeMonitor(Arc<Mutex<Shared>>);

impl TreeMonitor {
    /// What the gauge did so far.
    pub fn status(&self) -> TreeStatus {
        self.0.lock().status
    }

    /// Replaces `processes` with those of the last look, by pid. Allocates only if `processes` is too small.
    pub fn processes(&self, processes: &mut Vec<TreeProcess>) {
        processes.clear();
        processes.extend_from_slice(&self.0.lock().processes);
    }
}

/// Reads the protected number of a process tree.
pub struct TreeGauge {
    scanner: Scanner,
    members: Members,
    last_pid: Option<KeptFile>,
    seen_pid: Option<u64>,
    /// Whether the last look was the first since a pid was given out.
    is_fresh: bool,
    scanned_at: Duration,
    next_scan: Duration,
    page_bytes: u64,
    monitor: Arc<Mutex<Shared>>,
    confirm_cost: Option<Duration>,
    caveat: Option<Unread>,
}

impl fmt::Debug for TreeGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeGauge").field("scope", self.scanner.scope()).finish_non_exhaustive()
    }
}

impl TreeGauge {
    /// Opens a gauge and looks for the members once.
    ///
    /// # Errors
    /// `Missing` when the process that roots the tree is not there.
    pub fn open(root: &Root, scope: TreeScope) -> Result<TreeGauge, Unread> {
        let monitor = Shared { processes: Vec::with_capacity(MAX_MEMBERS), ..Shared::default() };
        let mut gauge = TreeGauge {
            scanner: Scanner::open(root, scope)?,
            members: Members::new(),
            last_pid: KeptFile::open(&root.proc, "loadavg", "/proc/loadavg").ok(),
            seen_pid: None,
            is_fresh: true,
            scanned_at: Duration::ZERO,
            next_scan: Duration::ZERO,
            page_bytes: process::page_bytes(),
            monitor: Arc::new(Mutex::new(monitor)),
            confirm_cost: None,
            caveat: None,
        };
        gauge.scan()?;
        Ok(gauge)
    }

    /// A view that another thread can hold.
    pub fn monitor(&self) -> TreeMonitor {
        TreeMonitor(Arc::clone(&self.monitor))
    }

    /// Looks for the members if they can be others, at most a tenth of the time.
    fn scan_if_due(&mut self) -> Result<(), Unread> {
        if MonotonicClock.now() < self.next_scan || self.is_settled() {
            return Ok(());
        }
        self.scan()
    }

    /// Whether the members must be those of the last look: no pid was given out since, nothing ended, the list of the
    /// excluded is the same. A pid is given out a moment before its process can be seen (longer when the fork waits for
    /// memory), hence a second look [`BIRTH`] later, and one every [`SETTLED_FOR`] at least.
    fn is_settled(&self) -> bool {
        let newest = self.newest_pid();
        let since = MonotonicClock.now().saturating_sub(self.scanned_at);
        newest.is_some()
            && newest == self.seen_pid
            && since < SETTLED_FOR
            && !(self.is_fresh && since >= BIRTH)
            && self.scanner.is_scope_unchanged()
    }

    /// The last field of `loadavg`: the pid given out last, threads included.
    fn newest_pid(&self) -> Option<u64> {
        let mut buffer = [0; 128];
        files::fields(self.last_pid.as_ref()?.read(&mut buffer).ok()?).last().and_then(files::parse_u64)
    }

    fn scan(&mut self) -> Result<(), Unread> {
        let began = MonotonicClock.now();
        // Before the look: what is born during it is looked for again.
        let newest = self.newest_pid();
        self.is_fresh = newest != self.seen_pid;
        self.seen_pid = newest;
        self.scanned_at = began;
        let overflow = self.scanner.scan()?;
        let unseen = self.members.update(self.scanner.processes(), self.scanner.proc_dir());
        let cost = MonotonicClock.now().saturating_sub(began);
        self.next_scan = began + cost.saturating_mul(SCAN_SHARE);
        let mut shared = self.monitor.lock();
        shared.processes.clear();
        shared.processes.extend(self.members.iter().map(Member::process));
        shared.status.members = self.members.len();
        shared.status.kept_open = self.members.kept_open();
        shared.status.overflow = overflow + unseen;
        shared.status.scans_total += 1;
        shared.status.scan_cost = cost;
        Ok(())
    }

    /// Counts processes that ended, and has the others looked for again: one that ended may have left children.
    fn vanished(&mut self, processes: u64) {
        if processes > 0 {
            self.seen_pid = None;
            self.monitor.lock().status.vanished_total += processes;
        }
    }

    /// An empty tree below a parent holds nothing; a tree whose root is gone too is none. A sum that lacks a living
    /// member (we have no descriptor left, say) is no sum.
    fn whole(&self) -> Result<(), Unread> {
        match self.members.iter().find_map(Member::trouble) {
            Some(why) => Err(why),
            None if self.members.all_gone() && self.scanner.scope().counts_root() => Err(Unread::Missing(TREE)),
            None => Ok(()),
        }
    }
}

impl Gauge for TreeGauge {
    fn fast(&mut self) -> Result<u64, Unread> {
        self.scan_if_due()?;
        let vanished = self.members.refresh(self.scanner.proc_dir());
        self.vanished(vanished);
        self.whole()?;
        Ok(self.members.iter().map(|member| member.upper_bytes(self.page_bytes)).fold(0, u64::saturating_add))
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let began = MonotonicClock.now();
        let settled = self.is_settled();
        if !settled {
            self.scan()?;
        }
        let mut vanished = self.members.refresh_all(self.scanner.proc_dir());
        self.vanished(vanished);
        if settled && vanished > 0 {
            self.scan()?;
        }
        self.whole()?;
        let sum = self.members.iter().map(|m| m.upper_bytes(self.page_bytes)).fold(0, u64::saturating_add);
        let largest = self.members.iter().map(|m| m.upper_bytes(self.page_bytes)).max().unwrap_or(0);
        let shared_at_most = sum.saturating_sub(largest);
        let mut total = Total::default();
        vanished = 0;
        for member in self.members.iter_mut().filter(|member| !member.is_gone()) {
            let read = if shared_at_most <= sum / SHARED_PART {
                total.add_resident(member, self.scanner.proc_dir())
            } else {
                total.add_proportional(member, self.scanner.proc_dir())
            };
            match read {
                Ok(()) => {}
                Err(Unread::Missing(_)) => vanished += 1,
                Err(why) => return Err(why),
            }
        }
        self.caveat = total.caveat;
        self.vanished(vanished);
        self.monitor.lock().status.denied = total.denied;
        self.confirm_cost = Some(MonotonicClock.now().saturating_sub(began));
        Ok(total.protected())
    }

    fn confirm_cost(&self) -> Option<Duration> {
        self.confirm_cost
    }

    fn caveat(&self) -> Option<Unread> {
        self.caveat
    }
}

/// The sums of a confirmed reading.
#[derive(Default)]
struct Total {
    anon: u64,
    shmem: u64,
    file: u64,
    swap: u64,
    denied: usize,
    caveat: Option<Unread>,
}

impl Total {
    /// Each page in proportion to how many map it; resident memory where that may not be read.
    fn add_proportional(&mut self, member: &mut Member, proc_dir: BorrowedFd<'_>) -> Result<(), Unread> {
        match process::rollup_at(proc_dir, member.pid()) {
            Ok(rollup) => {
                self.add(rollup.anon_bytes, rollup.shmem_bytes, rollup.file_bytes, rollup.swap_bytes);
                if let Ok(status) = process::status_at(proc_dir, member.pid()) {
                    member.split(status.shmem_bytes.unwrap_or(0), status.swap_bytes.unwrap_or(0));
                }
                Ok(())
            }
            // A kernel without smaps_rollup (before 4.14), one that refuses it, or one that words it differently.
            Err(why) => {
                self.add_resident(member, proc_dir)?;
                self.denied += 1;
                self.caveat = Some(why);
                Ok(())
            }
        }
    }

    /// Resident memory: exact for a process that shares nothing, else an upper bound.
    fn add_resident(&mut self, member: &mut Member, proc_dir: BorrowedFd<'_>) -> Result<(), Unread> {
        let status = process::status_at(proc_dir, member.pid())?;
        // A zombie's status has no such lines: it holds nothing.
        let (Some(anon), Some(shmem)) = (status.anon_bytes, status.shmem_bytes) else {
            return Ok(());
        };
        let swap = status.swap_bytes.unwrap_or(0);
        member.split(shmem, swap);
        self.add(anon, shmem, status.file_bytes.unwrap_or(0), swap);
        Ok(())
    }

    fn add(&mut self, anon: u64, shmem: u64, file: u64, swap: u64) {
        self.anon = self.anon.saturating_add(anon);
        self.shmem = self.shmem.saturating_add(shmem);
        self.file = self.file.saturating_add(file);
        self.swap = self.swap.saturating_add(swap);
    }

    fn protected(&self) -> Protected {
        Protected {
            anon_bytes: Some(self.anon),
            shmem_bytes: Some(self.shmem),
            swap_bytes: Some(self.swap),
            unevictable_bytes: None,
            kernel_bytes: None,
            file_bytes: Some(self.file),
            program_bytes: self.anon.saturating_add(self.shmem).saturating_add(self.swap),
        }
    }
}
