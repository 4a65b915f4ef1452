//! The governor of one life of the child: its gauge, what wakes it early, and what it does on its own thread.
//!
//! On that thread, in the decision callback: SIGTERM to everything when a `stop` stage is due, before any lock is taken and
//! without a hop to another thread; then a word to the supervise loop, which does everything else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::clock::{Clock, MonotonicClock};
use plimsoll::gauge::Wake;
use plimsoll::gauge::group::{GroupGauge, Version};
use plimsoll::gauge::tree::{Excluded, TreeGauge, TreeMonitor};
use plimsoll::gauge::{self, Gauge, Root};
use plimsoll::governor::{Decision, Governor, Setup};
use plimsoll::policy::Policy;
use rustix::process::{Pid, Signal};

use super::beat::Beat;
use super::group::ChildGroup;
use super::mailbox::{Mailbox, Report, Stop};
use super::reach::{self, Bond, Reach};
use super::recorder::Recorder;
use super::stage::{Do, Rise, Stage};

/// A PSI trigger wakes the governor when tasks stalled for so long …
const PRESSURE_STALL: Duration = Duration::from_millis(150);
/// … within this window, the shortest that needs no privilege.
const PRESSURE_WINDOW: Duration = Duration::from_secs(2);

/// What the loop and the governor's thread share about one life.
#[derive(Debug)]
pub(crate) struct Life {
    /// SIGTERM for memory may still be sent: false once it was, or once another stop is under way.
    pub(crate) armed: AtomicBool,
    /// The highest charged bytes of this life.
    pub(crate) peak_bytes: AtomicU64,
}

/// A running governor and what it looks at.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The governor itself.
    pub(crate) governor: Arc<Governor>,
    /// What it shares with the loop.
    pub(crate) life: Arc<Life>,
    /// For signals from the loop.
    pub(crate) bond: Bond,
}

/// What a watch is made of.
pub(crate) struct Subject<'a> {
    /// The child's main process.
    pub(crate) main: Pid,
    /// It was taken over.
    pub(crate) adopted: bool,
    /// Its cgroup, when it has one.
    pub(crate) group: Option<&'a Arc<ChildGroup>>,
    /// Plimsoll's own helpers, which do not count.
    pub(crate) helpers: &'a Excluded,
    /// Marks and times.
    pub(crate) policy: Policy,
    /// The stages in force.
    pub(crate) stages: &'a Arc<[Stage]>,
    /// Where reports go.
    pub(crate) mailbox: &'a Arc<Mailbox>,
    /// Where the decision log goes.
    pub(crate) recorder: &'a Recorder,
    /// The supervisor's sign of life.
    pub(crate) beat: &'a Arc<Beat>,
}

/// Starts watching. The first sample is taken before the governor first sleeps.
///
/// # Errors
/// When neither the group nor the tree can be read, or no thread can be had.
pub(crate) fn start(subject: &Subject<'_>) -> io::Result<Watch> {
    let root = Root::default();
    let (gauge, bond, wakes) = look(&root, subject)?;
    let life = Arc::new(Life { armed: AtomicBool::new(true), peak_bytes: AtomicU64::new(0) });
    let mut callback = Callback {
        reach: Reach::new(subject.main, subject.adopted, bond.clone(), subject.helpers.clone()),
        rise: Rise::new(subject.stages),
        stages: Arc::clone(subject.stages),
        stops: stops(subject.stages),
        life: Arc::clone(&life),
        mailbox: Arc::clone(subject.mailbox),
        beat: Arc::clone(subject.beat),
        clock: MonotonicClock,
    };
    let setup =
        Setup { policy: subject.policy, gauge, wakes, clock: Arc::new(MonotonicClock), name: "governor".to_owned() };
    let on_decision = move |decision: &Decision| callback.decided(decision);
    let governor = match subject.recorder.begin() {
        Some(record) => Governor::start_recorded(setup, None, record, on_decision)?,
        None => Governor::start(setup, on_decision)?,
    };
    Ok(Watch { governor: Arc::new(governor), life, bond })
}

type Eyes = (Box<dyn Gauge>, Bond, Vec<Wake>);

fn look(root: &Root, subject: &Subject<'_>) -> io::Result<Eyes> {
    let unread = |why: plimsoll::gauge::Unread| io::Error::other(why.to_string());
    match subject.group {
        Some(child) => {
            let gauge = GroupGauge::open(root, child.group()).map_err(unread)?;
            let wakes = group_wakes(child, &subject.policy);
            Ok((Box::new(gauge), Bond::Group(Arc::clone(child)), wakes))
        }
        None => {
            let scope = reach::scope(subject.main, subject.adopted, subject.helpers);
            let gauge = TreeGauge::open(root, scope).map_err(unread)?;
            let monitor: TreeMonitor = gauge.monitor();
            Ok((Box::new(gauge), Bond::Tree(monitor), pressure("/proc/pressure/memory".as_ref()).into_iter().collect()))
        }
    }
}

/// Every wake is optional: sampling alone is enough, and what the kernel refuses is left out.
fn group_wakes(child: &ChildGroup, policy: &Policy) -> Vec<Wake> {
    let group = child.group();
    let mut wakes = Vec::new();
    match group.version() {
        Version::V1 => {
            let guards = policy.guard_bytes().into_iter().flatten().chain(policy.budget_bytes);
            wakes.extend(guards.filter_map(|bytes| gauge::threshold_wake(group, bytes).ok()));
        }
        Version::V2 => wakes.extend(gauge::events_wake(group).ok()),
    }
    let own = child.pressure_file().and_then(|file| pressure(&file));
    wakes.extend(own.or_else(|| pressure("/proc/pressure/memory".as_ref())));
    wakes
}

fn pressure(file: &Path) -> Option<Wake> {
    gauge::pressure_wake(file, PRESSURE_STALL, PRESSURE_WINDOW).ok()
}

/// The stages that stop, as a bit set by index.
fn stops(stages: &[Stage]) -> u32 {
    stages
        .iter()
        .enumerate()
        .filter(|(_, stage)| stage.action == Do::Stop)
        .fold(0, |bits, (index, _)| bits | 1 << index)
}

/// What runs on the governor's thread at each decision. Allocates nothing of its own.
struct Callback {
    reach: Reach,
    rise: Rise,
    stages: Arc<[Stage]>,
    stops: u32,
    life: Arc<Life>,
    mailbox: Arc<Mailbox>,
    beat: Arc<Beat>,
    clock: MonotonicClock,
}

impl Callback {
    fn decided(&mut self, decision: &Decision) {
        let due = self.rise.observe(&self.stages, decision.at, decision.level);
        let stop = due & self.stops;
        if stop != 0 && self.life.armed.swap(false, Ordering::SeqCst) {
            let sent = self.reach.signal(Signal::TERM);
            let stage = usize::try_from(stop.trailing_zeros()).unwrap_or(0);
            self.mailbox.stopped(Stop { stage, decision: *decision, sent, at: self.clock.now() });
        }
        if let Some(charged) = decision.charged_bytes {
            self.life.peak_bytes.fetch_max(charged, Ordering::Relaxed);
        }
        if decision.is_change() {
            self.mailbox.report(Report::Changed(*decision));
        }
        let others = due & !self.stops;
        if others != 0 {
            self.mailbox.report(Report::Due(others, *decision));
        }
        self.beat.tick();
    }
}
