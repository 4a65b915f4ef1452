//! The dull loop: read, decide, tell, note, sleep. Everything that decides is in `step`; this file only carries it out.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fd::AsFd as _;

use super::board::{GovernorStatus, Scheduling};
use super::law::LawState;
use super::log::Record;
use super::waits::Waits;
use super::{
    Decision, Reading, RecordFn, Shared, State, SupplyFn, confirm_is_urgent, confirm_pause, step_and_reclaim,
    wants_confirm,
};
use crate::clock::{self, Clock};
use crate::gauge::{Gauge, Unread, Wake};
use crate::policy::{MIN_INTERVAL_FLOOR, Policy};
use crate::sys;

/// A wake-up that is late by more than this, and by more than the sleep itself, is a missed tick.
pub const LATE_TICK: Duration = Duration::from_millis(5);
/// Records that wait while somebody reads the board.
const PENDING_MAX: usize = 64;

/// What a governor's thread is given.
pub(super) struct Started {
    pub(super) policy: Policy,
    pub(super) gauge: Box<dyn Gauge>,
    pub(super) wakes: Vec<Wake>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) supply: Option<SupplyFn>,
    pub(super) record: Option<RecordFn>,
}

/// What lives on the governor's thread.
pub(super) struct Inside<F> {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    gauge: Box<dyn Gauge>,
    supply: Option<SupplyFn>,
    record: Option<RecordFn>,
    waits: Waits,
    on_decision: F,
    policy: Policy,
    policy_version: u64,
    state: State,
    law: LawState,
    status: GovernorStatus,
    /// When the last confirmed reading was taken, and what it cost: a dear one is not repeated at once.
    last_confirm: Option<(Duration, Duration)>,
    /// When the callback was last called.
    told: Option<Duration>,
    pending: Vec<Record>,
    /// Samples that found no room among those that wait.
    lost: u64,
}

impl<F: FnMut(&Decision)> Inside<F> {
    pub(super) fn new(
        shared: Arc<Shared>,
        Started { policy, gauge, wakes, clock, supply, record }: Started,
        on_decision: F,
    ) -> Inside<F> {
        Inside {
            shared,
            clock,
            gauge,
            supply,
            record,
            waits: Waits::new(wakes),
            on_decision,
            policy,
            policy_version: 0,
            state: State::default(),
            law: LawState::default(),
            status: GovernorStatus::default(),
            last_confirm: None,
            told: None,
            pending: Vec::with_capacity(PENDING_MAX),
            lost: 0,
        }
    }

    pub(super) fn run(mut self) {
        self.status.scheduling = raise_own_priority();
        sit_down_once();
        let at = self.clock.now();
        self.log(Record::Start { at, at_unix: clock::wall() });
        self.log(Record::Policy { at, policy: self.policy });
        while !self.shared.stop.load(Ordering::Acquire) {
            self.take_policy();
            let (reading, postponed) = self.read();
            let (state, law, decision) = step_and_reclaim(&self.policy, self.state, self.law, &reading);
            (self.state, self.law) = (state, law);
            self.tell(&decision);
            self.note(&decision, &reading);
            // A reading that had to wait is taken when it may be; meanwhile the fast number is not let out of sight.
            let sleep = postponed.map_or(decision.sleep, |wait| decision.sleep.min(wait.max(self.policy.min_interval)));
            self.sleep(decision.at, sleep);
        }
    }

    /// Takes over a changed policy, unless its lock is held just now: then with the next sample, in a moment.
    fn take_policy(&mut self) {
        let version = self.shared.policy_version.load(Ordering::Acquire);
        if version == self.policy_version {
            return;
        }
        let taken = self.shared.policy.try_lock().map(|policy| *policy);
        match taken {
            Some(policy) => {
                self.policy = policy;
                self.policy_version = version;
                self.log(Record::Policy { at: self.clock.now(), policy: self.policy });
            }
            None => {
                rustix::io::write(&self.shared.nudge, &1u64.to_ne_bytes()).ok();
            }
        }
    }

    /// The fast number, and the confirmed one where it is wanted and not too dear; else how long it has to wait.
    fn read(&mut self) -> (Reading, Option<Duration>) {
        let at = self.clock.now();
        let fast = read_or_unread(|| self.gauge.fast(), &mut self.status.gauge_panics_total);
        self.status.fast_cost.add(self.clock.now().saturating_sub(at));
        self.status.fast_unread = fast.err();
        self.status.samples_total += 1;
        let fast_bytes = fast.ok();
        let guard_bytes = fast_bytes.and_then(|bytes| self.waits.guard_above(bytes, at));
        let mut reading = Reading { at, fast_bytes, confirmed: None, guard_bytes, supply: None };
        if !wants_confirm(&self.policy, &self.state, at, fast_bytes, guard_bytes) {
            return (reading, None);
        }
        let urgent = confirm_is_urgent(&self.policy, &self.state, fast_bytes);
        let from = self.last_confirm.map(|(then, cost)| then.saturating_add(confirm_pause(&self.policy, cost, urgent)));
        let wait = from.map_or(Duration::ZERO, |from| from.saturating_sub(at));
        if !wait.is_zero() {
            self.status.confirms_postponed_total += 1;
            return (reading, Some(wait));
        }
        // CPU time, not wall time: being preempted while reading must not delay the next reading.
        let before = clock::thread_cpu();
        reading.confirmed = Some(read_or_unread(|| self.gauge.confirm(), &mut self.status.gauge_panics_total));
        let cost = clock::thread_cpu().saturating_sub(before);
        self.status.confirm_cost.add(cost);
        self.status.confirms_total += 1;
        self.last_confirm = Some((at, cost));
        let panics = &mut self.status.gauge_panics_total;
        let ask = |supply: &mut SupplyFn| read_or_unread(|| Ok(supply()), panics).ok();
        reading.supply = self.supply.as_mut().and_then(ask);
        (reading, None)
    }

    /// Calls back on everything that is not calm, and often enough to be a sign of life.
    fn tell(&mut self, decision: &Decision) {
        let next = decision.at + decision.sleep;
        let due = self.told.is_none_or(|told| next > told + self.policy.poll_interval);
        if !(due || decision.is_change() || decision.is_order() || decision.level != crate::level::Level::Normal) {
            return;
        }
        self.told = Some(decision.at);
        let before = self.clock.now();
        if catch_unwind(AssertUnwindSafe(|| (self.on_decision)(decision))).is_err() {
            self.status.callback_panics_total += 1;
        }
        self.status.callback_cost.add(self.clock.now().saturating_sub(before));
    }

    /// Bookkeeping; where a reader holds the board, it is made up for with the next sample.
    fn note(&mut self, decision: &Decision, reading: &Reading) {
        let status = &mut self.status;
        status.decision = Some(*decision);
        status.level_since = self.state.level_since();
        status.blind_total += u64::from(decision.blind && status.blind_since.is_none());
        status.blind_since = self.state.blind_since();
        if let Some(Ok(protected)) = reading.confirmed {
            status.protected = Some(protected);
            status.confirmed_at = Some(reading.at);
            status.peak_bytes = status.peak_bytes.max(decision.charged_bytes);
        }
        if decision.level != decision.previous {
            status.entered_total[decision.level as usize] += 1;
        }
        if Record::is_due(decision, reading) {
            self.log(Record::Sample { reading: *reading, decision: *decision });
        }
        if let Some(mut board) = self.shared.board.try_lock() {
            for record in self.pending.drain(..) {
                board.keep(record);
            }
            board.status = self.status;
        }
    }

    /// To the recorder, and among those that wait for the board; the last place is for saying that some found none.
    fn log(&mut self, record: Record) {
        if let Some(call) = &mut self.record
            && catch_unwind(AssertUnwindSafe(|| call(&record))).is_err()
        {
            self.status.callback_panics_total += 1;
        }
        if self.lost > 0 && self.pending.is_empty() {
            self.pending.push(Record::Gap { samples: self.lost });
            self.lost = 0;
            // It may be among what was lost.
            self.pending.push(Record::Policy { at: self.clock.now(), policy: self.policy });
        }
        if self.pending.len() < PENDING_MAX {
            self.pending.push(record);
        } else {
            self.lost += 1;
            self.status.decisions_lost_total += 1;
        }
    }

    /// Sleeps until `at + sleep`, or until something happens.
    fn sleep(&mut self, at: Duration, sleep: Duration) {
        let planned = at + sleep;
        let timeout = planned.saturating_sub(self.clock.now()).max(MIN_INTERVAL_FLOOR).min(sleep);
        let clock = &self.clock;
        let timed_out = self.waits.sleep(self.shared.nudge.as_fd(), timeout, || clock.now(), &mut self.status.wakes);
        if timed_out {
            let late = self.clock.now().saturating_sub(planned);
            self.status.latest_tick = self.status.latest_tick.max(late);
            self.status.missed_ticks_total += u64::from(late > sleep.max(LATE_TICK));
        }
    }
}

/// A gauge that panics has read nothing: the governor goes blind and says so, its thread does not die silently.
fn read_or_unread<T>(read: impl FnOnce() -> Result<T, Unread>, panics_total: &mut u64) -> Result<T, Unread> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        *panics_total += 1;
        Err(Unread::Malformed("gauge (it panicked)"))
    })
}

/// Asks for the best scheduling that is to be had, and for timers that are not rounded.
fn raise_own_priority() -> Scheduling {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
    if sys::schedule_fifo(1).is_ok() {
        Scheduling::Fifo
    } else if rustix::process::setpriority_process(Some(rustix::thread::gettid()), -11).is_ok() {
        Scheduling::Raised
    } else {
        Scheduling::Normal
    }
}

/// Waits on a lock of its own for a moment. A thread's first wait for a lock makes what all such waits share, on the heap: here, and not
/// in the middle of sampling, when a reader of the board happens to be in the way.
fn sit_down_once() {
    let lock = parking_lot::Mutex::new(());
    parking_lot::Condvar::new().wait_for(&mut lock.lock(), Duration::from_nanos(1));
}
