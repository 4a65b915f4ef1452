//! What the governor is told: one budget, the marks below it, and how closely to look. Plain values, no I/O.
//!
//! The marks are ratios (0..=1) of the budget: 0.75, 0.88 and 1.0 are entered, 5 points lower left, after a dwell of 5 s.
//! A sleep lasts between 1 ms and the poll interval of 1 s. A policy that does not [`validate`](Policy::validate) is
//! refused whole, with everything that is wrong with it.

mod text;

use std::fmt;
use std::time::Duration;

pub(crate) use text::write_exact;
pub use text::{KEYS, Overrides, TEXT_BYTES_MAX, TextError, TextErrors, shown_values};

use crate::level::Level;
use crate::units::{duration, size};

/// Part of the budget at which Elevated, High and Critical are entered.
pub const ENTER_RATIO: [f64; 3] = [0.75, 0.88, 1.0];
/// Part of the budget below which they are left: 5 points lower.
pub const LEAVE_RATIO: [f64; 3] = [0.70, 0.83, 0.95];
/// Part of the budget up to which stores that give back may fill it, while nothing else moves: Critical's leave mark.
pub const FILL_RATIO: f64 = 0.95;
/// How long the charged bytes stay below a leave mark before the level is left.
pub const DWELL: Duration = Duration::from_secs(5);
/// The longest sleep between two samples.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// What a user may set the poll interval to.
pub const POLL_INTERVAL_RANGE: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];
/// The shortest sleep between two samples.
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// The shortest that the shortest sleep may be set to.
pub const MIN_INTERVAL_FLOOR: Duration = Duration::from_micros(100);
/// The fastest fill the sampler allows for, in bytes a second: twice what one thread touches on the machines we measured.
pub const FILL_BYTES_PER_SECOND: u64 = 2 << 30;
/// The smallest budget: below it the kernel's own batches (64 pages a CPU) are larger than the marks' distances.
pub const BUDGET_BYTES_MIN: u64 = 1 << 20;
/// The smallest default reserve.
pub const RESERVE_BYTES_MIN: u64 = 64 << 20;
/// The longest dwell or sustain.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What holds while the governor cannot read its main number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlindPolicy {
    /// The level stays what it was; the alarm is the decision that says `blind`. The default.
    #[default]
    Hold,
    /// As [`Hold`](BlindPolicy::Hold), and after `after` of blindness at least `level` is assumed, until a reading
    /// succeeds. The only way in which a level rises without a confirmed reading.
    Assume {
        /// How long to hold first.
        after: Duration,
        /// The level that is assumed then, if the one held is lower.
        level: Level,
    },
}

/// The governor's settings. Build one with [`Policy::new`] or [`Policy::observe`] and change what differs.
///
/// # Examples
/// ```
/// use plimsoll::{level::Level, policy::Policy};
/// let mut policy = Policy::new(300 << 20, 100 << 20);
/// assert_eq!(policy.mark_bytes(Level::Critical), Some(300 << 20));
/// policy.enter_ratio[0] = 0.9; // above the mark of High
/// assert!(policy.validate().unwrap_err().to_string().contains("enter_ratio"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// What the program may hold, in bytes: Critical is entered when it is reached. `None`: observe only, the level
    /// stays Normal.
    pub budget_bytes: Option<u64>,
    /// What the kernel allows beyond the budget, for the time between the signal and the exit. Bytes.
    pub reserve_bytes: u64,
    /// Kernel memory (page tables, sockets, pipes) up to this is charged to the reserve, beyond it to the budget.
    /// Bytes; default half the reserve.
    pub kernel_allowance_bytes: u64,
    /// Enter marks of Elevated, High, Critical as parts of the budget. Default [`ENTER_RATIO`].
    pub enter_ratio: [f64; 3],
    /// Leave marks of Elevated, High, Critical as parts of the budget. Default [`LEAVE_RATIO`].
    pub leave_ratio: [f64; 3],
    /// Part of the budget up to which stores that give back ([`reclaim`](crate::reclaim)) may fill it; the level is then what this part
    /// says, so who sheds load by level sets it below his first mark. Above 0, at most 1. Default [`FILL_RATIO`].
    pub fill_ratio: f64,
    /// How long the charged bytes stay at or above an enter mark before that level is entered. Default 0: at once.
    pub sustain: [Duration; 3],
    /// How long they stay below a leave mark before that level is left. Default [`DWELL`].
    pub dwell: Duration,
    /// The longest sleep. Default [`POLL_INTERVAL`].
    pub poll_interval: Duration,
    /// The shortest sleep. Default [`MIN_INTERVAL`].
    pub min_interval: Duration,
    /// The fastest fill the sampler allows for, in bytes a second. Default [`FILL_BYTES_PER_SECOND`].
    pub fill_bytes_per_second: u64,
    /// What holds while the main number cannot be read. Default [`BlindPolicy::Hold`].
    pub blind: BlindPolicy,
}

impl Policy {
    /// Governs: `budget_bytes` for the program, `reserve_bytes` beyond it before the kernel acts; defaults otherwise.
    pub fn new(budget_bytes: u64, reserve_bytes: u64) -> Policy {
        Policy {
            budget_bytes: Some(budget_bytes),
            reserve_bytes,
            kernel_allowance_bytes: reserve_bytes / 2,
            ..Policy::observe()
        }
    }

    /// Observes: no budget, the level stays Normal, one sample per poll interval.
    pub fn observe() -> Policy {
        Policy {
            budget_bytes: None,
            reserve_bytes: 0,
            kernel_allowance_bytes: 0,
            enter_ratio: ENTER_RATIO,
            leave_ratio: LEAVE_RATIO,
            fill_ratio: FILL_RATIO,
            sustain: [Duration::ZERO; 3],
            dwell: DWELL,
            poll_interval: POLL_INTERVAL,
            min_interval: MIN_INTERVAL,
            fill_bytes_per_second: FILL_BYTES_PER_SECOND,
            blind: BlindPolicy::Hold,
        }
    }

    /// The reserve for a budget when none is given: the larger of 64 MiB and an eighth of the budget.
    pub fn default_reserve_bytes(budget_bytes: u64) -> u64 {
        RESERVE_BYTES_MIN.max(budget_bytes / 8)
    }

    /// The charged bytes at which `level` is entered: rounded up, so that nothing below the ratio enters it. `None`
    /// without a budget, and for Normal, which has no mark.
    pub fn mark_bytes(&self, level: Level) -> Option<u64> {
        Some(part_up(self.budget_bytes?, self.enter_ratio[index(level)?]))
    }

    /// The charged bytes below which `level` is left. `None` without a budget, and for Normal.
    pub fn leave_bytes(&self, level: Level) -> Option<u64> {
        Some(part_up(self.budget_bytes?, self.leave_ratio[index(level)?]))
    }

    /// Up to how many charged bytes stores may fill the budget. `None` without a budget.
    pub fn fill_bytes(&self) -> Option<u64> {
        Some(part_up(self.budget_bytes?, self.fill_ratio))
    }

    /// Where kernel thresholds are worth arming, in bytes of raw usage, lowest first: while usage is below one that
    /// leaves enough room to the budget, the governor sleeps the whole poll interval. `None` without a budget.
    pub fn guard_bytes(&self) -> Option<[u64; 7]> {
        let budget = self.budget_bytes?;
        Some([0.125, 0.25, 0.375, 0.50, 0.625, 0.75, 0.85].map(|ratio| part_up(budget, ratio)))
    }

    /// The growth in bytes a second that the reserve survives when the program takes `drain` to end after its signal,
    /// with the signal at most `reaction` after the crossing. Half of what is promised to kernel memory is not counted.
    pub fn survives_bytes_per_second(&self, drain: Duration, reaction: Duration) -> f64 {
        let room = self.reserve_bytes.saturating_sub(self.kernel_allowance_bytes);
        let seconds = (drain + reaction).as_secs_f64();
        if seconds > 0.0 { room as f64 / seconds } else { f64::INFINITY }
    }

    /// What is charged to the budget: the program's bytes and kernel memory beyond its allowance.
    pub(crate) fn charged_bytes(&self, program_bytes: u64, kernel_bytes: Option<u64>) -> u64 {
        program_bytes.saturating_add(kernel_bytes.unwrap_or(0).saturating_sub(self.kernel_allowance_bytes))
    }

    /// Checks everything at once.
    ///
    /// # Errors
    /// One [`PolicyError`] for each value out of its range, in the order of the fields.
    pub fn validate(&self) -> Result<(), PolicyErrors> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, field: &'static str, value: String, allowed: String| {
            if !holds {
                wrong.push(PolicyError { field, value, allowed });
            }
        };
        if let Some(budget) = self.budget_bytes {
            let allowed = format!("at least {}", size(BUDGET_BYTES_MIN));
            check(budget >= BUDGET_BYTES_MIN, "budget_bytes", size(budget).to_string(), allowed);
            let fits = budget.checked_add(self.reserve_bytes).is_some();
            let allowed = "budget + reserve below 16 EiB".to_owned();
            check(fits, "reserve_bytes", size(self.reserve_bytes).to_string(), allowed);
        }
        let allowance = self.kernel_allowance_bytes;
        let allowed = format!("at most the reserve of {}", size(self.reserve_bytes));
        check(allowance <= self.reserve_bytes, "kernel_allowance_bytes", size(allowance).to_string(), allowed);
        let [low, middle, high] = self.enter_ratio;
        let rising = 0.0 < low && low < middle && middle < high && high <= 1.0;
        let allowed = "three rising numbers above 0, at most 1".to_owned();
        check(rising, "enter_ratio", format!("{:?}", self.enter_ratio), allowed);
        let below = self.leave_ratio.iter().zip(self.enter_ratio).all(|(leave, enter)| 0.0 < *leave && *leave < enter);
        let rising = self.leave_ratio.windows(2).all(|pair| pair[0] <= pair[1]);
        let allowed = format!("rising numbers above 0, each below its enter mark of {:?}", self.enter_ratio);
        check(below && rising, "leave_ratio", format!("{:?}", self.leave_ratio), allowed);
        let within = 0.0 < self.fill_ratio && self.fill_ratio <= 1.0;
        check(within, "fill_ratio", self.fill_ratio.to_string(), "above 0, at most 1".to_owned());
        for wait in self.sustain {
            check(wait <= WAIT_MAX, "sustain", duration(wait).to_string(), format!("at most {}", duration(WAIT_MAX)));
        }
        let allowed = format!("at most {}", duration(WAIT_MAX));
        check(self.dwell <= WAIT_MAX, "dwell", duration(self.dwell).to_string(), allowed);
        let [shortest, longest] = POLL_INTERVAL_RANGE;
        let allowed = format!("{} to {}", duration(shortest), duration(longest));
        let within = (shortest..=longest).contains(&self.poll_interval);
        check(within, "poll_interval", duration(self.poll_interval).to_string(), allowed);
        let allowed =
            format!("{} to the poll interval of {}", duration(MIN_INTERVAL_FLOOR), duration(self.poll_interval));
        let within = MIN_INTERVAL_FLOOR <= self.min_interval && self.min_interval <= self.poll_interval;
        check(within, "min_interval", duration(self.min_interval).to_string(), allowed);
        let fill = self.fill_bytes_per_second;
        check(fill >= 1 << 20, "fill_bytes_per_second", format!("{}/s", size(fill)), "at least 1 MiB/s".to_owned());
        if wrong.is_empty() { Ok(()) } else { Err(PolicyErrors(wrong)) }
    }
}

/// The place of a level in the arrays of marks; Normal has none.
pub(crate) fn index(level: Level) -> Option<usize> {
    (level as usize).checked_sub(1)
}

/// A part of the whole, rounded up; exactly the whole at a ratio of 1.
fn part_up(whole: u64, ratio: f64) -> u64 {
    if ratio >= 1.0 { whole } else { ((whole as f64 * ratio).ceil() as u64).min(whole) }
}

/// One value that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: allowed is {allowed}")]
pub struct PolicyError {
    /// The field of [`Policy`].
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// Everything that is wrong with a policy; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marks_are_exact_at_the_budget_and_rounded_up_below_it() {
        let policy = Policy::new(300 * MIB, 100 * MIB);
        assert_eq!(policy.mark_bytes(Level::Normal), None);
        assert_eq!(policy.mark_bytes(Level::Elevated), Some(225 * MIB));
        assert_eq!(policy.mark_bytes(Level::High), Some(264 * MIB));
        assert_eq!(policy.mark_bytes(Level::Critical), Some(300 * MIB));
        assert_eq!(policy.leave_bytes(Level::Critical), Some(285 * MIB));
        assert_eq!(Policy::observe().mark_bytes(Level::Critical), None);
        // 2^53 + 1 is no f64: the budget itself must not be rounded.
        let huge = (1 << 53) + 1;
        assert_eq!(Policy::new(huge, 0).mark_bytes(Level::Critical), Some(huge));
        assert_eq!(Policy::new(u64::MAX, 0).mark_bytes(Level::Critical), Some(u64::MAX));
    }

    #[test]
    fn kernel_memory_beyond_its_allowance_is_charged() {
        let policy = Policy::new(300 * MIB, 100 * MIB);
        assert_eq!(policy.charged_bytes(10 * MIB, None), 10 * MIB);
        assert_eq!(policy.charged_bytes(10 * MIB, Some(50 * MIB)), 10 * MIB);
        assert_eq!(policy.charged_bytes(10 * MIB, Some(51 * MIB)), 11 * MIB);
        assert_eq!(policy.charged_bytes(u64::MAX, Some(u64::MAX)), u64::MAX);
    }

    #[test]
    fn defaults_hold() {
        assert_eq!(Policy::new(300 * MIB, 100 * MIB).validate(), Ok(()));
        assert_eq!(Policy::observe().validate(), Ok(()));
        assert_eq!(Policy::default_reserve_bytes(300 * MIB), 64 * MIB);
        assert_eq!(Policy::default_reserve_bytes(8 << 30), 1 << 30);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let wrong = Policy {
            budget_bytes: Some(10),
            reserve_bytes: 5,
            kernel_allowance_bytes: 6,
            enter_ratio: [0.9, 0.88, 1.1],
            leave_ratio: [0.95, f64::NAN, 0.9],
            fill_ratio: f64::NAN,
            sustain: [Duration::MAX, Duration::ZERO, Duration::ZERO],
            dwell: Duration::MAX,
            poll_interval: Duration::from_millis(1),
            min_interval: Duration::ZERO,
            fill_bytes_per_second: 0,
            blind: BlindPolicy::Hold,
        };
        let errors = wrong.validate().expect_err("all of it is wrong");
        let fields: Vec<_> = errors.0.iter().map(|e| e.field).collect();
        let expected = [
            "budget_bytes",
            "kernel_allowance_bytes",
            "enter_ratio",
            "leave_ratio",
            "fill_ratio",
            "sustain",
            "dwell",
            "poll_interval",
            "min_interval",
            "fill_bytes_per_second",
        ];
        assert_eq!(fields, expected);
        assert!(errors.to_string().starts_with("budget_bytes is 10 B: allowed is at least 1.0 MiB; kernel_allowance"));
    }

    #[test]
    fn each_rule_has_a_value_that_only_it_refuses() {
        let good = Policy::new(300 * MIB, 100 * MIB);
        let cases: [(&str, Policy); 10] = [
            ("fill_ratio", Policy { fill_ratio: 0.0, ..good }),
            ("budget_bytes", Policy { budget_bytes: Some(MIB - 1), ..good }),
            ("reserve_bytes", Policy { reserve_bytes: u64::MAX, ..good }),
            ("kernel_allowance_bytes", Policy { kernel_allowance_bytes: 101 * MIB, ..good }),
            ("enter_ratio", Policy { enter_ratio: [0.95, 0.88, 1.0], ..good }),
            ("enter_ratio", Policy { enter_ratio: [0.75, 0.88, f64::INFINITY], ..good }),
            ("leave_ratio", Policy { leave_ratio: [0.70, 0.88, 0.95], ..good }),
            ("leave_ratio", Policy { leave_ratio: [0.70, 0.69, 0.95], ..good }),
            ("poll_interval", Policy { poll_interval: Duration::from_secs(61), ..good }),
            ("min_interval", Policy { min_interval: Duration::from_secs(2), ..good }),
        ];
        for (field, policy) in cases {
            let errors = policy.validate().expect_err(field).0;
            assert_eq!(errors.iter().map(|e| e.field).collect::<Vec<_>>(), [field], "{policy:?}");
        }
    }

    #[test]
    fn what_is_survived_is_the_free_reserve_over_the_time() {
        let policy = Policy::new(300 * MIB, 100 * MIB);
        let survived =
            policy.survives_bytes_per_second(Duration::from_millis(245), Duration::from_millis(5)) / MIB as f64;
        assert!((survived - 200.0).abs() < 0.01, "{survived}");
    }
}
