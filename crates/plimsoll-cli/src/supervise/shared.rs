//! What the supervise loop, the governor's books and the faces share: one short lock for plain values, another for the
//! descriptor counts. No file is read, and nothing is written, while a lock is held that the loop takes.

mod past;
#[cfg(test)]
mod testing;
mod view;

pub(crate) use past::Past;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock, MonotonicClock, wall};
use plimsoll::gauge::Root;
use plimsoll::gauge::descriptors::Counts;
use plimsoll::gauge::group::Group;
use plimsoll::governor::Decision;
use plimsoll::policy::Policy;
use plimsoll::units;

use super::beat::Beat;
use super::budget::Budget;
use super::child::Child;
use super::facts;
use super::group::ChildGroup;
use super::journal::Journal;
use super::logs::Logs;
use super::mailbox::{Mailbox, Stop};
use super::reach::Bond;
use super::reports::Reports;
use super::signals::Waker;
use super::speak::Mouth;
use super::stage::Stage;
use super::table::State;
use super::watch::Watch;
use crate::capture::Desk;
use crate::capture::shelf::Shelf;
use crate::snapshot::{DecisionView, DerivedView, ExitView, StageView};
use crate::tail::Notes;

/// What the faces ask of the loop.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Requests {
    /// A clean stop.
    pub(crate) stop: bool,
    /// Budget or reserve changed: the state file has to follow.
    pub(crate) limits_changed: bool,
}

/// What does not change in one supervisor's life.
pub(crate) struct Fixed {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) started_unix: f64,
    pub(crate) started: Duration,
    pub(crate) stages: Arc<[Stage]>,
    pub(crate) group: Option<Arc<ChildGroup>>,
    /// Whose `oom_kill` counter tells of the program: its own group, else the one that it shares with Plimsoll.
    pub(crate) oom_counter: Option<Group>,
    /// Why there is no group of its own.
    pub(crate) why_not: Option<String>,
    /// `--reserve` as given.
    pub(crate) reserve_asked: Option<u64>,
    pub(crate) policy_name: String,
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

/// What changes.
#[derive(Default)]
struct Inner {
    state: Option<State>,
    budget_bytes: Option<u64>,
    reserve_bytes: u64,
    child: Option<ChildFacts>,
    watch: Option<Seen>,
    next_start: Option<Duration>,
    stages: Vec<StageView>,
    restarts_total: u64,
    restarts_by_reason: BTreeMap<String, u64>,
    crash_loop: bool,
    last_exit: Option<ExitView>,
    derived: Vec<DerivedView>,
    /// What it is offered beside; shown with the derived ones.
    offered: Vec<DerivedView>,
    standing: Vec<String>,
    requests: Requests,
    rate: Option<(Duration, u64, u64)>,
    rates: Option<(f64, f64)>,
    adopted: bool,
    /// What of the program's memory is put down to a heap capture.
    attributed_bytes: u64,
}

#[derive(Clone, Copy)]
struct ChildFacts {
    pid: i32,
    started_unix: f64,
}

/// What the faces see of a governor; the loop's `Watch` is the one that ends it.
struct Seen {
    governor: Arc<plimsoll::governor::Governor>,
    bond: Bond,
}

/// Descriptor counts: the newest, and the one that growth is measured from.
#[derive(Default)]
struct Descriptors {
    first: Option<Counts>,
    newest: Option<Counts>,
    at: Duration,
    processes: usize,
}

/// The shared part of one supervisor.
pub(crate) struct Shared {
    pub(crate) fixed: Fixed,
    pub(crate) beat: Arc<Beat>,
    pub(crate) mouth: Mouth,
    pub(crate) journal: Journal,
    pub(crate) mailbox: Arc<Mailbox>,
    inner: Mutex<Inner>,
    /// Held while budget, kernel limit and policy change together; before `inner`, never inside it.
    changing: Mutex<()>,
    descriptors: Mutex<Descriptors>,
    notes: OnceLock<Notes>,
    logs: OnceLock<Arc<Logs>>,
    /// Where heap captures are asked for, and where they are kept.
    pub(crate) heap: OnceLock<(Arc<Desk>, Shelf)>,
    reports: OnceLock<Arc<Reports>>,
    past: Past,
    waker: Waker,
    clock: MonotonicClock,
}

impl Shared {
    pub(crate) fn new(
        fixed: Fixed,
        budget: &Budget,
        mouth: Mouth,
        journal: Journal,
        mailbox: Arc<Mailbox>,
        past: Past,
        waker: Waker,
    ) -> Shared {
        let view = |stage: &Stage| StageView {
            level: stage.level.as_str().to_owned(),
            action: stage.action.to_string(),
            sustain_seconds: stage.sustain.as_secs_f64(),
            ..StageView::default()
        };
        let inner = Inner {
            budget_bytes: budget.budget_bytes,
            reserve_bytes: budget.reserve_bytes,
            stages: fixed.stages.iter().map(view).collect(),
            standing: budget.warnings.clone(),
            ..Inner::default()
        };
        Shared {
            fixed,
            beat: Arc::new(Beat::default()),
            mouth,
            journal,
            mailbox,
            inner: Mutex::new(inner),
            changing: Mutex::default(),
            descriptors: Mutex::default(),
            notes: OnceLock::new(),
            logs: OnceLock::new(),
            heap: OnceLock::new(),
            reports: OnceLock::new(),
            past,
            waker,
            clock: MonotonicClock,
        }
    }

    /// From now on what is told goes into the program's log as well.
    pub(crate) fn log_to(&self, notes: Notes) {
        self.notes.set(notes).ok();
    }

    /// What the faces show of the log path.
    pub(crate) fn show_logs(&self, logs: Arc<Logs>) {
        self.logs.set(logs).ok();
    }

    /// From now on the program can report.
    pub(crate) fn hear_through(&self, reports: Arc<Reports>) {
        self.reports.set(reports).ok();
    }

    /// What the program told of itself; `None`: there is no socket for it.
    pub(crate) fn reports(&self) -> Option<&Arc<Reports>> {
        self.reports.get()
    }

    /// Into the decision log, the program's log, and to the terminal unless `--quiet`.
    pub(crate) fn tell(&self, kind: &str, text: &str) {
        self.enter(kind, None, text);
        self.mouth.say(text);
    }

    /// As [`Shared::tell`], with `--quiet` too.
    pub(crate) fn warn(&self, text: &str) {
        self.enter("warning", None, text);
        self.mouth.warn(text);
    }

    /// A warning that holds until the end: shown by every face.
    pub(crate) fn stand(&self, text: &str) {
        self.inner.lock().standing.push(text.to_owned());
        self.warn(text);
    }

    /// Into the decision log and the program's log only.
    pub(crate) fn enter(&self, kind: &str, decision: Option<&Decision>, text: &str) {
        let status = self.inner.lock().watch.as_ref().map(|seen| seen.governor.status());
        let decision = decision.copied().or_else(|| status.and_then(|status| status.decision));
        let level = |level: plimsoll::level::Level| level.as_str().to_owned();
        self.journal.add(DecisionView {
            at_unix: wall().as_secs_f64(),
            kind: kind.to_owned(),
            level: decision.map(|d| level(d.level)).unwrap_or_default(),
            previous: decision.filter(Decision::is_change).map(|d| level(d.previous)),
            charged_bytes: decision.and_then(|d| d.charged_bytes),
            budget_bytes: decision.and_then(|d| d.budget_bytes),
            growth_bytes_per_second: decision.and_then(|d| d.growth).map(|g| g.bytes_per_second),
            time_to_limit_seconds: decision.and_then(|d| d.time_to_limit).map(|t| t.as_secs_f64()),
            text: text.to_owned(),
        });
        if let Some(notes) = self.notes.get() {
            notes.note(text);
        }
    }

    /// The governor changed level or sight.
    pub(crate) fn level_changed(&self, decision: &Decision) {
        let figures = facts::figures(decision);
        let text = match (decision.blind, decision.level == decision.previous) {
            (true, _) => {
                let why = decision.unread.map(|why| why.to_string()).unwrap_or_default();
                format!("blind: the program's memory cannot be read ({why}); the level stays {}", decision.level)
            }
            (false, true) => format!("sighted again: {figures}"),
            (false, false) => format!("level {} (was {}): {figures}", decision.level, decision.previous),
        };
        let kind = if decision.level == decision.previous { "blind" } else { "level" };
        self.enter(kind, Some(decision), &text);
        if decision.blind {
            self.mouth.warn(&text);
        } else {
            self.mouth.say(&text);
        }
    }

    /// The governor's thread sent SIGTERM.
    pub(crate) fn stopped_for_memory(&self, stop: &Stop, grace: Duration) {
        let stage = self
            .fixed
            .stages
            .get(stop.stage)
            .map_or_else(String::new, |stage| format!("{} {}", stage.level, stage.action));
        self.stage_fired(stop.stage, None);
        let took = units::duration(stop.at.saturating_sub(stop.decision.at));
        let text = format!(
            "memory: {}: {stage}: SIGTERM sent {} {took} after the sample; SIGKILL in {}",
            facts::figures(&stop.decision),
            stop.sent,
            units::duration(grace)
        );
        self.enter("stage", Some(&stop.decision), &text);
        self.mouth.warn(&text);
    }

    /// A stage did what it does, or why not.
    pub(crate) fn stage_fired(&self, index: usize, skipped: Option<&str>) {
        let mut inner = self.inner.lock();
        let Some(view) = inner.stages.get_mut(index) else { return };
        match skipped {
            None => {
                view.fired_total += 1;
                view.last_fired_unix = Some(wall().as_secs_f64());
            }
            Some(why) => {
                view.skipped_total += 1;
                view.last_skip_reason = Some(why.to_owned());
            }
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.inner.lock().state = Some(state);
    }

    pub(crate) fn set_next_start(&self, at: Option<Duration>) {
        self.inner.lock().next_start = at;
    }

    /// Sets what is derived for the next life. True: it differs from what was.
    pub(crate) fn set_derived(&self, derived: Vec<DerivedView>) -> bool {
        let mut inner = self.inner.lock();
        let values = |all: &[DerivedView]| all.iter().map(|one| one.value.clone()).collect::<Vec<_>>();
        let changed = values(&inner.derived) != values(&derived);
        inner.derived = derived;
        changed
    }

    /// Shows what else the next life is given.
    pub(crate) fn set_offered(&self, offers: Vec<DerivedView>) {
        self.inner.lock().offered = offers;
    }

    pub(crate) fn set_last_exit(&self, exit: Option<ExitView>) {
        self.inner.lock().last_exit = exit;
    }

    pub(crate) fn child_started(&self, child: &Child, started_unix: f64) {
        let mut inner = self.inner.lock();
        inner.child = Some(ChildFacts { pid: child.pid.as_raw_nonzero().get(), started_unix });
        inner.adopted |= child.adopted;
        drop(inner);
        *self.descriptors.lock() = Descriptors::default();
    }

    /// No program runs any more. The faces let go of the governor, so that the loop's is the last hand on it.
    pub(crate) fn child_ended(&self) {
        let mut inner = self.inner.lock();
        inner.child = None;
        let seen = inner.watch.take();
        inner.attributed_bytes = 0;
        drop(inner);
        drop(seen);
        if let Some((desk, _)) = self.heap.get() {
            desk.life_ended();
        }
    }

    /// The governor of the life that began. Its policy may have been changed while it was being started.
    pub(crate) fn set_watch(&self, watch: &Watch) {
        let _changing = self.changing.lock();
        let policy = self.policy();
        if watch.governor.policy() != policy
            && let Err(errors) = watch.governor.set_policy(policy)
        {
            self.warn(&errors.to_string());
        }
        self.inner.lock().watch = Some(Seen { governor: Arc::clone(&watch.governor), bond: watch.bond.clone() });
    }

    /// Gives the program's group the limit in force, before a life begins.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn apply_limit(&self) -> std::io::Result<()> {
        let _changing = self.changing.lock();
        match (&self.fixed.group, self.budget()) {
            (Some(group), (Some(budget), reserve)) => group.set_limit(budget.saturating_add(reserve)),
            _ => Ok(()),
        }
    }

    /// A restart was decided, for this reason.
    pub(crate) fn restarting(&self, reason: &str, total: u64) {
        let mut inner = self.inner.lock();
        inner.restarts_total = total;
        *inner.restarts_by_reason.entry(reason.to_owned()).or_default() += 1;
    }

    pub(crate) fn set_restarts(&self, total: u64) {
        self.inner.lock().restarts_total = total;
    }

    pub(crate) fn set_crash_loop(&self) {
        self.inner.lock().crash_loop = true;
    }

    /// Budget and reserve in force.
    pub(crate) fn budget(&self) -> (Option<u64>, u64) {
        let inner = self.inner.lock();
        (inner.budget_bytes, inner.reserve_bytes)
    }

    /// The governor's policy for what is in force. What a heap capture makes the program grow by moves the budget up into
    /// the reserve, of which a quarter stays: the kernel's limit is where it was.
    pub(crate) fn policy(&self) -> Policy {
        let inner = self.inner.lock();
        let (budget, reserve, attributed) = (inner.budget_bytes, inner.reserve_bytes, inner.attributed_bytes);
        drop(inner);
        let Some(budget) = budget else { return Policy::observe() };
        let moved = attributed.min(reserve - reserve / 4);
        Policy::new(budget.saturating_add(moved), reserve - moved)
    }

    /// From now on so much of what the program holds is put down to a heap capture; 0: nothing is.
    pub(crate) fn attribute(&self, bytes: u64) {
        let _changing = self.changing.lock();
        self.inner.lock().attributed_bytes = bytes;
        let policy = self.policy();
        let governor = self.inner.lock().watch.as_ref().map(|seen| Arc::clone(&seen.governor));
        if let Some(Err(errors)) = governor.map(|governor| governor.set_policy(policy)) {
            self.warn(&errors.to_string());
        }
    }

    /// What the program is charged with, as the governor saw it last.
    pub(crate) fn charged_bytes(&self) -> Option<u64> {
        let status = self.inner.lock().watch.as_ref().map(|seen| seen.governor.status())?;
        status.decision?.charged_bytes
    }

    /// Where elevated begins, whatever is attributed to a capture.
    pub(crate) fn own_mark_bytes(&self) -> Option<u64> {
        let (budget, reserve) = self.budget();
        Policy::new(budget?, reserve).mark_bytes(plimsoll::level::Level::Elevated)
    }

    /// Takes what the faces asked for.
    pub(crate) fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.inner.lock().requests)
    }

    fn request(&self, ask: impl FnOnce(&mut Requests)) {
        ask(&mut self.inner.lock().requests);
        self.waker.wake();
    }

    /// The `oom_kill` counter that tells of the program.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        match &self.fixed.group {
            Some(group) => group.oom_kills(),
            None => self.fixed.oom_counter.as_ref()?.oom_kills().ok(),
        }
    }

    /// The processes of the program now.
    pub(crate) fn members(&self) -> Vec<i32> {
        let bond = self.inner.lock().watch.as_ref().map(|seen| seen.bond.clone());
        let mut pids = Vec::new();
        match bond {
            Some(Bond::Group(group)) => group.members(&mut pids),
            Some(Bond::Tree(monitor)) => {
                let mut processes = Vec::new();
                monitor.processes(&mut processes);
                pids.extend(processes.iter().map(|process| process.pid));
            }
            None => pids.extend(self.inner.lock().child.map(|child| child.pid)),
        }
        pids
    }

    /// Counts the program's descriptors by kind.
    pub(crate) fn scan_descriptors(&self) {
        let pids = self.members();
        let counts = facts::count_fds(&pids);
        let mut descriptors = self.descriptors.lock();
        descriptors.first.get_or_insert(counts);
        descriptors.newest = Some(counts);
        descriptors.at = self.clock.now();
        descriptors.processes = pids.len();
    }

    /// Changes budget and reserve of the running program.
    ///
    /// # Errors
    /// A sentence with the value that does not fit, or with what the kernel refused; then nothing is changed.
    pub(crate) fn change_budget(&self, asked: u64, reserve: Option<u64>) -> Result<(), String> {
        let _changing = self.changing.lock();
        let ceiling = super::budget::ceiling(&Root::default());
        let decided = super::budget::decide(Some(asked), reserve.or(self.fixed.reserve_asked), ceiling.as_ref())?;
        if let Some(lowered) = decided.warnings.first() {
            return Err(format!("{lowered}; nothing was changed"));
        }
        let budget = decided.budget_bytes.unwrap_or(asked);
        let limit = budget.saturating_add(decided.reserve_bytes);
        let policy = Policy::new(budget, decided.reserve_bytes);
        policy.validate().map_err(|errors| errors.to_string())?;
        let refused = self.fixed.group.as_ref().and_then(|group| group.set_limit(limit).err());
        let lowered = self.budget().0.is_some_and(|now| budget < now);
        if let Some(error) = refused.as_ref().filter(|_| !lowered) {
            let limit = units::size(limit);
            return Err(format!(
                "the kernel refuses a limit of {limit} (budget and reserve): {error}; nothing was changed"
            ));
        }
        let mut inner = self.inner.lock();
        let before = inner.budget_bytes;
        (inner.budget_bytes, inner.reserve_bytes) = (Some(budget), decided.reserve_bytes);
        inner.requests.limits_changed = true;
        let governor = inner.watch.as_ref().map(|seen| Arc::clone(&seen.governor));
        drop(inner);
        let governed = governor.map(|governor| governor.set_policy(self.policy()));
        self.waker.wake();
        if let Some(Err(errors)) = governed {
            return Err(errors.to_string());
        }
        let before = before.map_or_else(|| "none".to_owned(), |bytes| units::size(bytes).to_string());
        self.tell(
            "limit",
            &format!("budget {} (was {before}), reserve {}", units::size(budget), units::size(decided.reserve_bytes)),
        );
        if let Some(error) = refused {
            // v1 refuses what it cannot reclaim down to. The governor stops the program; the next life gets the limit.
            self.warn(&format!("the kernel's limit stays as it was while the program holds more: {error}"));
        }
        Ok(())
    }
}
