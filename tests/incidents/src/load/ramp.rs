//! `ramp`: memory at a rate, the moment of crossing a mark, the moment of being told, and how it is obeyed.
//!
//! Pages of 4 KiB are touched in steps of at most 1 ms of the rate; each page is added to the count of the whole tree, which
//! begins with the memory the process has anyway, so `--mark 300M` is crossed when the *program* has 300 MiB. A load
//! that was not scheduled for more than [`LATE`] does not catch up: over any longer time its rate is the given one or less.

use crate::evidence::Evidence;
use crate::parse::{Rate, Size};
use crate::sys::{self, PAGE_BYTES, Region};
use plimsoll_incidents::{clock, files};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What `--forever` stops at, so that a mistake does not take the machine with it.
pub(crate) const FOREVER_BYTES: u64 = 2 << 30;
/// The pause between two steps.
const STEP: Duration = Duration::from_millis(1);
/// Behind schedule by more than this, the schedule moves.
const LATE: Duration = Duration::from_millis(5);
/// The longest hold, so that nothing forgotten stays.
const HOLD_MAX: Duration = Duration::from_secs(600);

/// Allocate and touch memory at a rate, then hold it; obey SIGTERM at once or late.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ramp {
    /// How fast, in MiB a second: `200` or `200M`
    #[arg(long, default_value = "200")]
    pub(crate) rate: Rate,
    /// Stop growing when the whole tree has this much
    #[arg(long, value_name = "SIZE")]
    pub(crate) to: Option<Size>,
    /// Grow until stopped (2G at most)
    #[arg(long, conflicts_with = "to")]
    pub(crate) forever: bool,
    /// Note when the whole tree has this much
    #[arg(long, value_name = "SIZE")]
    pub(crate) mark: Option<Size>,
    /// Stay this long once `--to` is reached, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) hold_ms: u64,
    /// Go on for this long after SIGTERM, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) obey_delay_ms: u64,
    /// How fast to allocate while not yet obeying
    #[arg(long, default_value = "0")]
    pub(crate) keep_rate: Rate,
    /// Wait before the first page, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) delay_ms: u64,
}

/// Runs the ramp in this process. The exit code is 0 whether it was told to stop or reached its end.
pub(crate) fn run(plan: &Ramp, role: &str, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start(role);
    let region = Region::reserve(FOREVER_BYTES)?;
    pause(Duration::from_millis(plan.delay_ms));
    let mut grower = Grower::new(plan, region, evidence)?;
    let end_bytes = if plan.forever { FOREVER_BYTES } else { plan.to.map_or(FOREVER_BYTES, |size| size.0) };
    grower.grow(plan.rate, end_bytes, None);
    if sys::signal_ns() == 0 && !plan.forever {
        hold(Duration::from_millis(plan.hold_ms));
    }
    if sys::signal_ns() != 0 && plan.obey_delay_ms > 0 {
        grower.grow(plan.keep_rate, FOREVER_BYTES, Some(sys::signal_ns() + plan.obey_delay_ms * 1_000_000));
    }
    evidence.done(0, grower.own_bytes, "");
    Ok(0)
}

/// Sleeps `length` or until a signal was caught.
pub(crate) fn hold(length: Duration) {
    clock::wait_for(length.min(HOLD_MAX), Duration::from_millis(10), || (sys::signal_ns() != 0).then_some(()));
}

fn pause(length: Duration) {
    if !length.is_zero() {
        std::thread::sleep(length);
    }
}

struct Grower<'a> {
    region: Region,
    evidence: &'a Evidence,
    shared: &'static sys::Shared,
    mark_bytes: u64,
    next_page: usize,
    own_bytes: u64,
}

impl<'a> Grower<'a> {
    /// Adds what the process has by itself to the count of the tree.
    fn new(plan: &Ramp, region: Region, evidence: &'a Evidence) -> io::Result<Grower<'a>> {
        let base =
            files::anonymous_bytes(std::process::id()).ok_or_else(|| io::Error::other("own memory cannot be read"))?;
        let shared = sys::shared()?;
        shared.total_bytes.fetch_add(base, Ordering::Relaxed);
        let mark_bytes = plan.mark.map_or(u64::MAX, |size| size.0);
        Ok(Grower { region, evidence, shared, mark_bytes, next_page: 0, own_bytes: base })
    }

    /// Grows until the tree has `end_bytes`, until `until_ns`, or, when that is not given, until a signal was caught.
    fn grow(&mut self, rate: Rate, end_bytes: u64, until_ns: Option<u64>) {
        let (mut schedule_ns, mut due_bytes) = (clock::monotonic_ns(), 0.0);
        loop {
            let now = clock::monotonic_ns();
            if until_ns.map_or(sys::signal_ns() != 0, |until| now >= until) {
                return;
            }
            let elapsed = (now - schedule_ns).min(LATE.as_nanos() as u64);
            schedule_ns = now;
            due_bytes += rate.0 as f64 * elapsed as f64 / 1e9;
            while due_bytes >= PAGE_BYTES as f64 {
                if self.shared.total_bytes.load(Ordering::Relaxed) >= end_bytes || self.own_bytes >= FOREVER_BYTES {
                    return;
                }
                self.page();
                due_bytes -= PAGE_BYTES as f64;
                if until_ns.is_none() && sys::signal_ns() != 0 {
                    return;
                }
            }
            std::thread::sleep(STEP);
        }
    }

    fn page(&mut self) {
        // The moment before the page is the crossing's: whoever is told by it is told after it.
        let before = clock::monotonic_ns();
        self.region.touch(self.next_page);
        self.next_page += 1;
        self.own_bytes += PAGE_BYTES as u64;
        sys::set_touched(self.own_bytes);
        let total = self.shared.total_bytes.fetch_add(PAGE_BYTES as u64, Ordering::Relaxed) + PAGE_BYTES as u64;
        if total >= self.mark_bytes
            && self.shared.crossed_ns.compare_exchange(0, before, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.evidence.write("crossed", before, &format!("\"total_bytes\":{total}"));
        }
    }
}
