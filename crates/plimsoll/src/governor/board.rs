//! What the governor tells about itself: a status of plain numbers and two rings of fixed size.
//!
//! The decision log holds the newest [`LOG_KEPT`] records of about 500 bytes each, without a hole unless it says so; beside it the last
//! [`CHANGES_KEPT`] changes of level or sight are kept, so that a flood of steady samples never pushes one out. 450 KB in sum when full.

use std::time::Duration;

use super::Decision;
use super::log::Record;
use crate::gauge::{Protected, Unread};
use crate::level::Level;

/// Changes of level or sight that are kept.
pub const CHANGES_KEPT: usize = 512;
/// Records of the decision log that are kept.
pub const LOG_KEPT: usize = 512;

/// The scheduling class that the governor's thread obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// `SCHED_FIFO` 1: it runs before every ordinary thread.
    Fifo,
    /// Nice −11: about twelve times the share of an ordinary thread.
    Raised,
    /// As any thread: under load a sample may come late.
    #[default]
    Normal,
}

impl Scheduling {
    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheduling::Fifo => "fifo",
            Scheduling::Raised => "nice-11",
            Scheduling::Normal => "normal",
        }
    }
}

/// What one kind of reading costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The last one.
    pub last: Duration,
    /// A moving mean: the newest weighs one eighth.
    pub mean: Duration,
    /// The dearest one.
    pub max: Duration,
}

impl Cost {
    pub(super) fn add(&mut self, cost: Duration) {
        self.mean = if self.max.is_zero() { cost } else { (self.mean * 7 + cost) / 8 };
        self.last = cost;
        self.max = self.max.max(cost);
    }
}

/// What ended the governor's sleeps, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeCounts {
    /// The time was up.
    pub timeout_total: u64,
    /// [`Governor::nudge`](super::Governor::nudge) or a change of policy.
    pub nudge_total: u64,
    /// A cgroup v1 threshold was crossed.
    pub threshold_total: u64,
    /// A PSI trigger fired.
    pub pressure_total: u64,
    /// `memory.events` changed.
    pub events_total: u64,
    /// A service manager said that memory is short.
    pub offered_total: u64,
    /// Times a wake fired too often and was not listened to for a second.
    pub muted_total: u64,
    /// Wakes that died, with their group, and were dropped.
    pub dead_total: u64,
}

/// The governor's state and health at one moment. Times are on the governor's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GovernorStatus {
    /// Whether its thread runs.
    pub running: bool,
    /// The last decision; `None` before the first sample.
    pub decision: Option<Decision>,
    /// The parts of the last confirmed reading.
    pub protected: Option<Protected>,
    /// When that was taken.
    pub confirmed_at: Option<Duration>,
    /// How old it is.
    pub confirmed_age: Option<Duration>,
    /// How old the last sample is, confirmed or not.
    pub sample_age: Option<Duration>,
    /// When the level was entered.
    pub level_since: Duration,
    /// How often each level was entered: normal, elevated, high, critical.
    pub entered_total: [u64; 4],
    /// The highest charged bytes that were confirmed.
    pub peak_bytes: Option<u64>,
    /// Since when the main number cannot be read.
    pub blind_since: Option<Duration>,
    /// How often it became unreadable.
    pub blind_total: u64,
    /// Why the fast number could not be read last time, when it could not; the confirmed one is then read each time.
    pub fast_unread: Option<Unread>,
    /// Samples taken.
    pub samples_total: u64,
    /// Samples that read the confirmed number.
    pub confirms_total: u64,
    /// Confirmed readings that had to wait, because the last one was dear.
    pub confirms_postponed_total: u64,
    /// Wake-ups later than planned by more than the sleep itself and [`LATE_TICK`](super::LATE_TICK).
    pub missed_ticks_total: u64,
    /// The latest wake-up: by how much.
    pub latest_tick: Duration,
    /// What the fast reading costs, wall time.
    pub fast_cost: Cost,
    /// What the confirmed reading costs, CPU time.
    pub confirm_cost: Cost,
    /// What the callback costs, wall time.
    pub callback_cost: Cost,
    /// Panics of the callback.
    pub callback_panics_total: u64,
    /// Panics of the gauge: each is a reading that failed.
    pub gauge_panics_total: u64,
    /// What ended its sleeps.
    pub wakes: WakeCounts,
    /// Its scheduling class.
    pub scheduling: Scheduling,
    /// Decisions that are in no ring, because readers of the status held it for too long.
    pub decisions_lost_total: u64,
}

impl GovernorStatus {
    /// The level of the last decision; Normal before the first.
    pub fn level(&self) -> Level {
        self.decision.map(|d| d.level).unwrap_or_default()
    }
}

/// The status and the rings behind one lock.
pub(super) struct Board {
    pub(super) status: GovernorStatus,
    changes: Ring<Decision>,
    log: Ring<Record>,
    /// The policy that held before the oldest record.
    policy_before: Option<Record>,
    /// Numbers records, so that the rings can be merged.
    next: u64,
}

impl Board {
    pub(super) fn new() -> Board {
        Board {
            status: GovernorStatus::default(),
            changes: Ring::new(CHANGES_KEPT),
            log: Ring::new(LOG_KEPT),
            policy_before: None,
            next: 0,
        }
    }

    pub(super) fn keep(&mut self, record: Record) {
        if let Record::Sample { decision, .. } = &record
            && decision.is_change()
        {
            self.changes.push(self.next, *decision);
        }
        if let Some(lost @ Record::Policy { .. }) = self.log.push(self.next, record) {
            self.policy_before = Some(lost);
        }
        self.next += 1;
    }

    /// The newest `max` decisions of both rings, newest first, into `out`, which has room for them.
    pub(super) fn newest(&self, max: usize, out: &mut Vec<Decision>) {
        let mut oldest = u64::MAX;
        for (number, record) in self.log.newest_first() {
            oldest = *number;
            let Record::Sample { decision, .. } = record else { continue };
            if out.len() == max {
                return;
            }
            out.push(*decision);
        }
        let older = self.changes.newest_first().filter(|(number, _)| *number < oldest);
        out.extend(older.map(|(_, decision)| *decision).take(max - out.len()));
    }

    /// The log, newest first, into `out`, which has room for it.
    pub(super) fn log(&self, out: &mut Vec<Record>) {
        out.extend(self.log.newest_first().map(|(_, record)| *record));
        out.extend(self.policy_before);
    }
}

/// The newest entries, up to a capacity that is set aside at once.
struct Ring<T> {
    entries: Vec<(u64, T)>,
    capacity: usize,
    /// Where the next one goes once it is full.
    oldest: usize,
}

impl<T> Ring<T> {
    fn new(capacity: usize) -> Ring<T> {
        Ring { entries: Vec::with_capacity(capacity), capacity, oldest: 0 }
    }

    /// Adds one; what had to go for it.
    fn push(&mut self, number: u64, entry: T) -> Option<T> {
        if self.entries.len() < self.capacity {
            self.entries.push((number, entry));
            return None;
        }
        let (_, gone) = std::mem::replace(&mut self.entries[self.oldest], (number, entry));
        self.oldest = (self.oldest + 1) % self.capacity;
        Some(gone)
    }

    fn newest_first(&self) -> impl Iterator<Item = &(u64, T)> {
        let (newer, older) = self.entries.split_at(self.oldest);
        newer.iter().rev().chain(older.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reading, State, step};
    use super::*;
    use crate::policy::Policy;

    fn sample(second: u64, change: bool) -> Record {
        let reading = Reading { at: Duration::from_secs(second), ..Reading::default() };
        let (_, decision) = step(&Policy::observe(), State::default(), &reading);
        let previous = if change { Level::High } else { Level::Normal };
        Record::Sample { reading, decision: Decision { previous, ..decision } }
    }

    #[test]
    fn steady_decisions_never_push_out_a_change() {
        let mut board = Board::new();
        board.keep(sample(0, true));
        for second in 1..10_000 {
            board.keep(sample(second, second == 5_000));
        }
        let mut kept = Vec::new();
        board.newest(usize::MAX, &mut kept);
        assert_eq!(kept.len(), LOG_KEPT + 2);
        let seconds: Vec<u64> = kept.iter().map(|d| d.at.as_secs()).collect();
        assert!(seconds.is_sorted_by(|a, b| a > b), "newest first: {seconds:?}");
        assert_eq!(seconds[0], 9_999);
        assert_eq!(&seconds[LOG_KEPT..], [5_000, 0]);
        let mut few = Vec::new();
        board.newest(3, &mut few);
        assert_eq!(few.iter().map(|d| d.at.as_secs()).collect::<Vec<_>>(), [9_999, 9_998, 9_997]);
    }

    #[test]
    fn changes_are_bounded_too() {
        let mut board = Board::new();
        for second in 0..2 * CHANGES_KEPT as u64 + 7 {
            board.keep(sample(second, true));
        }
        let mut kept = Vec::new();
        board.newest(usize::MAX, &mut kept);
        assert_eq!(kept.len(), CHANGES_KEPT);
        assert_eq!(kept[CHANGES_KEPT - 1].at.as_secs(), CHANGES_KEPT as u64 + 7);
    }

    #[test]
    fn the_log_begins_with_the_policy_that_held_before_its_oldest_record() {
        let mut board = Board::new();
        let policy = |at, policy| Record::Policy { at: Duration::from_secs(at), policy };
        let (first, second) = (policy(0, Policy::observe()), policy(7, Policy::new(300 << 20, 0)));
        board.keep(Record::Start { at: Duration::ZERO, at_unix: Duration::ZERO });
        board.keep(first);
        board.keep(second);
        let log = |board: &Board| {
            let mut log = Vec::new();
            board.log(&mut log);
            log.reverse();
            log
        };
        assert_eq!(log(&board)[1..], [first, second]);
        (0..LOG_KEPT as u64 - 1).for_each(|n| board.keep(sample(n, false)));
        assert_eq!(log(&board)[..3], [first, second, sample(0, false)], "the start is gone, one policy stays");
        (0..2 * LOG_KEPT as u64).for_each(|n| board.keep(sample(n, false)));
        let log = log(&board);
        assert_eq!((log[0], log[1], log.len()), (second, sample(LOG_KEPT as u64, false), LOG_KEPT + 1));
    }

    #[test]
    fn a_cost_remembers_last_mean_and_max() {
        let mut cost = Cost::default();
        for micros in [80, 80, 160] {
            cost.add(Duration::from_micros(micros));
        }
        let micros = Duration::from_micros;
        assert_eq!(cost, Cost { last: micros(160), mean: micros(90), max: micros(160) });
    }
}
