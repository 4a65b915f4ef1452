//! The level as admission sees it: one number that whoever knows it writes, and that every request reads.
//!
//! It is believed for [`LEVEL_HOLDS`] (30 s) after it was written; then, or when what writes it is dropped, it reads as calm. A gate that
//! went on refusing because nobody is left to say that it may stop would be an outage of its own; [`Stats::is_level_silent`] says that it is so.
//!
//! [`Stats::is_level_silent`]: super::Stats::is_level_silent

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, MonotonicClock};
use crate::level::Level;
use crate::policy::ENTER_RATIO;

/// How long a level is believed that is not written again, by default: 30 s. A governor tells it at least every poll interval (1 s).
pub const LEVEL_HOLDS: Duration = Duration::from_secs(30);
/// How far the used part may lie below a level's mark while that level lasts: as the leave marks of a policy by default.
const LEAVE_BELOW: f64 = 0.05;

/// The level as admission sees it. Clones are the same cell.
///
/// It is believed for [`LEVEL_HOLDS`], then it reads as 0: who writes it only when it changes makes the cell with [`LevelCell::holding`].
///
/// # Examples
/// ```
/// use plimsoll::admission::LevelCell;
/// use plimsoll::level::Level;
///
/// let cell = LevelCell::new();
/// cell.set(Level::High);
/// cell.set_used(0.91); // finer, where the figures are at hand
/// assert_eq!(cell.used_ratio(), 0.91);
/// ```
#[derive(Clone)]
pub struct LevelCell(Arc<Inner>);

struct Inner {
    /// An `f64`'s bits.
    used: AtomicU64,
    /// In nanoseconds. Written before `used`: who reads a ratio sees a time that is at least as new.
    written: AtomicU64,
    holds: Duration,
    clock: Arc<dyn Clock>,
}

impl Default for LevelCell {
    fn default() -> LevelCell {
        LevelCell::holding(LEVEL_HOLDS)
    }
}

impl LevelCell {
    /// Nothing used; what is written is believed for [`LEVEL_HOLDS`].
    pub fn new() -> LevelCell {
        LevelCell::default()
    }

    /// With another time for which it is believed; `Duration::MAX`: until it is written again or its driver is dropped.
    pub fn holding(holds: Duration) -> LevelCell {
        LevelCell::with_clock(holds, Arc::new(MonotonicClock))
    }

    /// As [`LevelCell::holding`], with the clock by which that time is measured.
    pub fn with_clock(holds: Duration, clock: Arc<dyn Clock>) -> LevelCell {
        LevelCell(Arc::new(Inner { used: AtomicU64::new(0), written: AtomicU64::new(0), holds, clock }))
    }

    /// Only the level is known: it stands for the middle of what it covers, so that half of the class whose ramp that is gets refused.
    pub fn set(&self, level: Level) {
        let [elevated, high, critical] = ENTER_RATIO;
        self.set_used(match level {
            Level::Normal => 0.0,
            Level::Elevated => (elevated + high) / 2.0,
            Level::High => (high + critical) / 2.0,
            Level::Critical => critical,
        });
    }

    /// The part of the budget that is used, 0..; what is no number is taken for 0.
    pub fn set_used(&self, ratio: f64) {
        let ratio = if ratio.is_finite() { ratio.max(0.0) } else { 0.0 };
        let now = u64::try_from(self.0.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.0.written.store(now, Ordering::Relaxed);
        self.0.used.store(ratio.to_bits(), Ordering::Release);
    }

    /// The part of the budget that is used; 0 when it [is silent](LevelCell::is_silent).
    pub fn used_ratio(&self) -> f64 {
        let used = f64::from_bits(self.0.used.load(Ordering::Acquire));
        if used > 0.0 && self.is_over() { 0.0 } else { used }
    }

    /// Whether something above 0 was written and not again for longer than it is believed: who writes it hangs, or tells changes only.
    pub fn is_silent(&self) -> bool {
        f64::from_bits(self.0.used.load(Ordering::Acquire)) > 0.0 && self.is_over()
    }

    fn is_over(&self) -> bool {
        let written = Duration::from_nanos(self.0.written.load(Ordering::Relaxed));
        self.0.clock.now().saturating_sub(written) > self.0.holds
    }

    /// What takes each decision of a governor: its level, and of how many bytes charged and budgeted, where both are known. Dropped with the
    /// governor, it leaves the cell at 0. It takes no lock and allocates nothing.
    ///
    /// The used part counts, unless it lies more than five points below the mark of the level: then the policy has other marks, or cannot see
    /// and assumes the level, and the level alone [counts](LevelCell::set).
    ///
    /// A watchdog tells only that its soft mark was entered or left: a cell [`holding`](LevelCell::holding) for ever, and
    /// `.on_soft(move |soft| drive(if matches!(soft, Soft::Entered(_)) { Level::High } else { Level::Normal }, None, None))`.
    ///
    /// # Examples
    /// ```
    /// # use std::sync::Arc;
    /// # use plimsoll::clock::MonotonicClock;
    /// # use plimsoll::gauge::{Gauge, Protected, Unread};
    /// # use plimsoll::governor::Setup;
    /// # use plimsoll::policy::Policy;
    /// use plimsoll::admission::{Answer, Arrival, Gate, LevelCell, Reason, Settings};
    /// use plimsoll::governor::Governor;
    ///
    /// # struct Fixed(u64);
    /// # impl Gauge for Fixed {
    /// #     fn fast(&mut self) -> Result<u64, Unread> {
    /// #         Ok(self.0)
    /// #     }
    /// #     fn confirm(&mut self) -> Result<Protected, Unread> {
    /// #         Ok(Protected { program_bytes: self.0, ..Protected::default() })
    /// #     }
    /// # }
    /// # let setup = Setup {
    /// #     policy: Policy::new(300 << 20, 100 << 20),
    /// #     gauge: Box::new(Fixed(310 << 20)), // more than the budget
    /// #     wakes: Vec::new(),
    /// #     clock: Arc::new(MonotonicClock),
    /// #     name: "governor".into(),
    /// # };
    /// let level = LevelCell::new();
    /// let gate = Gate::new(Settings::default(), level.clone());
    /// let mut drive = level.driver();
    /// let governor = Governor::start(setup, move |d| drive(d.level, d.charged_bytes, d.budget_bytes))?;
    /// # while level.used_ratio() == 0.0 {
    /// #     std::thread::yield_now();
    /// # }
    /// // The budget is used up:
    /// assert!(matches!(gate.admit(Arrival::default()), Answer::Refused(refused) if refused.reason == Reason::Level));
    /// governor.stop();
    /// assert!(matches!(gate.admit(Arrival::default()), Answer::Now(_)), "nobody says that memory is short");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn driver(&self) -> impl FnMut(Level, Option<u64>, Option<u64>) + Send + use<> {
        let driver = Driver(self.clone());
        move |level, charged_bytes, budget_bytes| driver.tell(level, charged_bytes, budget_bytes)
    }
}

impl fmt::Debug for LevelCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelCell")
            .field("used_ratio", &self.used_ratio())
            .field("is_silent", &self.is_silent())
            .finish()
    }
}

struct Driver(LevelCell);

impl Driver {
    fn tell(&self, level: Level, charged_bytes: Option<u64>, budget_bytes: Option<u64>) {
        let used = charged_bytes.zip(budget_bytes.filter(|bytes| *bytes > 0));
        let used = used.map(|(charged, budget)| charged as f64 / budget as f64);
        let entered = (level as usize).checked_sub(1).map_or(0.0, |mark| ENTER_RATIO[mark]);
        match used.filter(|used| *used >= entered - LEAVE_BELOW) {
            Some(used) => self.0.set_used(used),
            None => self.0.set(level),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.set_used(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn thousandths(cell: &LevelCell) -> i64 {
        (cell.used_ratio() * 1000.0).round() as i64
    }

    #[test]
    fn a_level_alone_stands_for_the_middle_of_its_range_and_nonsense_for_nothing() {
        let cell = LevelCell::new();
        let set = |level| {
            cell.set(level);
            thousandths(&cell)
        };
        assert_eq!(Level::ALL.map(set), [0, 815, 940, 1000]);
        for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
            cell.set_used(nonsense);
            assert_eq!(cell.used_ratio(), 0.0);
        }
    }

    #[test]
    fn what_is_not_written_again_is_believed_for_a_while_and_then_said_to_be_silent() {
        let clock = Arc::new(ManualClock::default());
        let cell = LevelCell::with_clock(LEVEL_HOLDS, clock.clone());
        let for_ever = LevelCell::with_clock(Duration::MAX, clock.clone());
        clock.advance(LEVEL_HOLDS * 9);
        assert!(!cell.is_silent(), "it was never written");
        cell.set(Level::Critical);
        for_ever.set(Level::Critical);
        clock.advance(LEVEL_HOLDS);
        assert_eq!((thousandths(&cell), cell.is_silent()), (1000, false));
        clock.advance(Duration::from_nanos(1));
        assert_eq!((thousandths(&cell), cell.is_silent()), (0, true));
        assert_eq!((thousandths(&for_ever), for_ever.is_silent()), (1000, false));
        cell.set(Level::Elevated);
        assert_eq!((thousandths(&cell), cell.is_silent()), (815, false));
    }

    #[test]
    fn a_driver_tells_the_used_part_or_the_level_and_leaves_the_cell_calm() {
        let cell = LevelCell::new();
        let mut drive = cell.driver();
        for (level, charged, budget, expected) in [
            (Level::Normal, Some(300), Some(1000), 300),
            (Level::High, Some(900), Some(1000), 900),
            // Not left yet.
            (Level::High, Some(840), Some(1000), 840),
            (Level::Critical, Some(1100), Some(1000), 1100),
            // Other marks, or assumed while nothing can be read.
            (Level::High, Some(500), Some(1000), 940),
            (Level::Critical, None, Some(1000), 1000),
            (Level::Elevated, Some(500), None, 815),
            (Level::Elevated, Some(500), Some(0), 815),
            (Level::Normal, None, None, 0),
            (Level::Critical, None, None, 1000),
        ] {
            drive(level, charged, budget);
            assert_eq!(thousandths(&cell), expected, "{level}, {charged:?} of {budget:?}");
        }
        drop(drive);
        assert_eq!(cell.used_ratio(), 0.0);
    }
}
