//! What the governor tells about itself: a status of plain numbers and two rings of decisions of fixed size.
//!
//! The rings hold [`CHANGES_KEPT`] and [`STEADY_KEPT`] decisions of about 350 bytes each, 350 KB in sum when full; a flood of
//! steady samples never pushes out a change of level.

use std::time::Duration;

use super::Decision;
use crate::gauge::{Protected, Unread};
use crate::level::Level;

/// Changes of level or sight that are kept.
pub const CHANGES_KEPT: usize = 512;
/// Other decisions that are kept.
pub const STEADY_KEPT: usize = 512;

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
    changes: Ring,
    steady: Ring,
    /// Numbers decisions, so that the rings can be merged.
    next: u64,
}

impl Board {
    pub(super) fn new() -> Board {
        Board {
            status: GovernorStatus::default(),
            changes: Ring::new(CHANGES_KEPT),
            steady: Ring::new(STEADY_KEPT),
            next: 0,
        }
    }

    pub(super) fn keep(&mut self, decision: Decision) {
        let ring = if decision.is_change() { &mut self.changes } else { &mut self.steady };
        ring.push(self.next, decision);
        self.next += 1;
    }

    /// The newest `max` decisions of both rings, newest first, into `out`, which has room for them.
    pub(super) fn newest(&self, max: usize, out: &mut Vec<Decision>) {
        let (mut changes, mut steady) = (self.changes.newest_first().peekable(), self.steady.newest_first().peekable());
        while out.len() < max {
            let change_is_newer = match (changes.peek(), steady.peek()) {
                (Some(change), Some(other)) => change.0 > other.0,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let newest = if change_is_newer { changes.next() } else { steady.next() };
            let Some((_, decision)) = newest else { return };
            out.push(*decision);
        }
    }
}

/// The newest entries, up to a capacity that is set aside at once.
struct Ring {
    entries: Vec<(u64, Decision)>,
    capacity: usize,
    /// Where the next one goes once it is full.
    oldest: usize,
}

impl Ring {
    fn new(capacity: usize) -> Ring {
        Ring { entries: Vec::with_capacity(capacity), capacity, oldest: 0 }
    }

    fn push(&mut self, number: u64, decision: Decision) {
        if self.entries.len() < self.capacity {
            self.entries.push((number, decision));
        } else {
            self.entries[self.oldest] = (number, decision);
            self.oldest = (self.oldest + 1) % self.capacity;
        }
    }

    fn newest_first(&self) -> impl Iterator<Item = &(u64, Decision)> {
        let (newer, older) = self.entries.split_at(self.oldest);
        newer.iter().rev().chain(older.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reading, State, step};
    use super::*;
    use crate::policy::Policy;

    fn decision(second: u64, change: bool) -> Decision {
        let at = Duration::from_secs(second);
        let reading = Reading { at, fast_bytes: None, confirmed: None, guard_bytes: None, supply: None };
        let (_, decision) = step(&Policy::observe(), State::default(), &reading);
        Decision { previous: if change { Level::High } else { Level::Normal }, ..decision }
    }

    #[test]
    fn steady_decisions_never_push_out_a_change() {
        let mut board = Board::new();
        board.keep(decision(0, true));
        for second in 1..10_000 {
            board.keep(decision(second, second == 5_000));
        }
        let mut kept = Vec::new();
        board.newest(usize::MAX, &mut kept);
        assert_eq!(kept.len(), STEADY_KEPT + 2);
        let seconds: Vec<u64> = kept.iter().map(|d| d.at.as_secs()).collect();
        assert!(seconds.is_sorted_by(|a, b| a > b), "newest first: {seconds:?}");
        assert_eq!(seconds[0], 9_999);
        assert_eq!(&seconds[STEADY_KEPT..], [5_000, 0]);
        let mut few = Vec::new();
        board.newest(3, &mut few);
        assert_eq!(few.iter().map(|d| d.at.as_secs()).collect::<Vec<_>>(), [9_999, 9_998, 9_997]);
    }

    #[test]
    fn changes_are_bounded_too() {
        let mut board = Board::new();
        for second in 0..2 * CHANGES_KEPT as u64 + 7 {
            board.keep(decision(second, true));
        }
        let mut kept = Vec::new();
        board.newest(usize::MAX, &mut kept);
        assert_eq!(kept.len(), CHANGES_KEPT);
        assert_eq!(kept[CHANGES_KEPT - 1].at.as_secs(), CHANGES_KEPT as u64 + 7);
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
