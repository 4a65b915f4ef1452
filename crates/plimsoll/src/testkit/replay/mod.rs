//! A recorded decision log, or a recorded trace, run through a policy: the same one must give the same decisions, another one says what
//! would have been different.
//!
//! A log is what [`governor::log`](crate::governor::log) wrote; a trace is lines of `time,bytes` from anywhere ([`Recording::from_trace`]).
//! One pass over the recording, in memory, about 1 µs a record. The readings are those that were taken: what another policy would
//! have looked at more closely is not known. Stores that gave back are [modelled](Life::modelled), because other orders would have been
//! other readings; whatever else the service would have done differently is not.

mod compare;
mod model;
mod tell;
#[cfg(test)]
mod tests;
mod trace;

use std::time::Duration;

use crate::governor::law::LawState;
use crate::governor::log::{Log, LogError, Record};
use crate::governor::{Decision, Reading, State, step_and_reclaim};
use crate::policy::{Overrides, Policy};

pub use compare::{Comparison, Life, Summary};
pub use model::Modelled;

/// What was read and decided from one start of a governor to the next.
#[derive(Clone, Debug, PartialEq)]
struct Course {
    /// When it began: on the governor's clock, and since 1970-01-01 UTC. `None` where the log begins later.
    start: Option<(Duration, Duration)>,
    steps: Vec<Step>,
    /// Samples that the log says it lacks.
    missing: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are samples")]
enum Step {
    Policy(Policy),
    Sample { reading: Reading, decision: Decision },
}

/// A recording that cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Not a log, or a damaged one; not a trace.
    #[error(transparent)]
    Unreadable(#[from] LogError),
    /// There is a sample before any policy.
    #[error("record {record}: a sample before any policy: the begin of the log is missing")]
    NoPolicy {
        /// Its place, from 1.
        record: usize,
    },
    /// There is nothing to replay.
    #[error("no sample in it")]
    Empty,
}

/// A recording, ready to be replayed.
///
/// # Examples
/// ```
/// use plimsoll::policy::{Overrides, Policy};
/// use plimsoll::testkit::replay::Recording;
///
/// // 100 MiB, growing by 10 MiB a second.
/// let trace: String = (0..25).map(|s| format!("{s},{}M\n", 100 + 10 * s)).collect();
/// let recording = Recording::from_trace(trace.as_bytes(), &Policy::new(300 << 20, 100 << 20))?;
/// let comparison = recording.against(&Overrides::parse("high = 70 %\nelevated = 60 %").unwrap()).unwrap();
/// assert!(comparison.to_string().ends_with("with high = 70 %, elevated = 60 % you would have acted 6.0 s earlier\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    courses: Vec<Course>,
    torn_bytes: usize,
}

/// Whether a recording's own policy gives what was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Reproduction {
    /// Decisions replayed.
    pub decisions: usize,
    /// Of those, how many differ although everything before them is in the log: never, unless the program or the log was changed.
    pub differing: usize,
    /// How many differ where the log begins in mid-life or has a gap: what was remembered then is not known.
    pub unsettled: usize,
    /// The first that differs: what was recorded and what came out.
    pub first: Option<(Decision, Decision)>,
}

impl Recording {
    /// A decision log.
    ///
    /// # Errors
    /// It holds no sample, or one before any policy.
    pub fn from_log(log: &Log) -> Result<Recording, ReplayError> {
        let mut courses: Vec<Course> = Vec::new();
        let new = |start| Course { start, steps: Vec::new(), missing: 0 };
        let mut has_policy = false;
        for (number, record) in (1..).zip(&log.records) {
            if let Record::Start { at, at_unix } = record {
                courses.push(new(Some((*at, *at_unix))));
                has_policy = false;
                continue;
            }
            if courses.is_empty() {
                courses.push(new(None));
            }
            let Some(course) = courses.last_mut() else { continue };
            match *record {
                Record::Policy { policy, .. } => {
                    has_policy = true;
                    course.steps.push(Step::Policy(policy));
                }
                Record::Sample { .. } if !has_policy => return Err(ReplayError::NoPolicy { record: number }),
                Record::Sample { reading, decision } => course.steps.push(Step::Sample { reading, decision }),
                Record::Gap { samples } => course.missing = course.missing.saturating_add(samples),
                Record::Start { .. } => {}
            }
        }
        courses.retain(|course| course.samples().next().is_some());
        if courses.is_empty() { Err(ReplayError::Empty) } else { Ok(Recording { courses, torn_bytes: log.torn_bytes }) }
    }

    /// A trace: one `time,bytes` a line, as [`policy`](Policy) would have seen it. The time is in seconds, from whatever origin, and never
    /// goes back; bytes are a number, or a size like `300M`. A comma, semicolon, tab or blanks between them; more columns are not looked
    /// at. Empty lines, lines that begin with `#` and one line of headings do not count.
    ///
    /// # Errors
    /// A line that is none of these, with its byte and number; no line at all.
    pub fn from_trace(text: &[u8], policy: &Policy) -> Result<Recording, ReplayError> {
        let readings = trace::parse(text)?;
        let Some(first) = readings.first() else { return Err(ReplayError::Empty) };
        let mut course = Course { start: Some((first.at, first.at)), steps: vec![Step::Policy(*policy)], missing: 0 };
        let mut replay = Replay::default();
        for reading in readings {
            let decision = replay.decide(policy, &reading);
            course.steps.push(Step::Sample { reading, decision });
        }
        Ok(Recording { courses: vec![course], torn_bytes: 0 })
    }

    /// Replays it under the policy that held.
    pub fn reproduce(&self) -> Reproduction {
        let mut found = Reproduction::default();
        for course in &self.courses {
            let settled = course.start.is_some() && course.missing == 0;
            let mut replay = Replay::resume(course);
            course.each(|policy, reading, recorded| {
                let replayed = replay.decide(policy, reading);
                found.decisions += 1;
                if replayed == *recorded {
                    return;
                }
                if settled {
                    found.differing += 1;
                    found.first.get_or_insert((*recorded, replayed));
                } else {
                    found.unsettled += 1;
                }
            });
        }
        found
    }

    /// Replays it with what `overrides` changes of each policy that held.
    ///
    /// # Errors
    /// A policy that results is not valid.
    pub fn against(&self, overrides: &Overrides) -> Result<Comparison, crate::policy::TextErrors> {
        compare::compare(self, overrides)
    }

    /// Bytes at the end of the log that were no whole line.
    pub fn torn_bytes(&self) -> usize {
        self.torn_bytes
    }
}

impl Course {
    fn samples(&self) -> impl Iterator<Item = (&Reading, &Decision)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Sample { reading, decision } => Some((reading, decision)),
            Step::Policy(_) => None,
        })
    }

    /// Each sample under the policy that held.
    fn each(&self, mut call: impl FnMut(&Policy, &Reading, &Decision)) {
        let mut now = None;
        for step in &self.steps {
            match (step, &now) {
                (Step::Policy(policy), _) => now = Some(*policy),
                (Step::Sample { reading, decision }, Some(policy)) => call(policy, reading, decision),
                // A recording has no sample before its policy.
                (Step::Sample { .. }, None) => {}
            }
        }
    }
}

/// The governor's memory, from reading to reading.
#[derive(Debug, Default)]
struct Replay {
    state: State,
    law: LawState,
}

impl Replay {
    /// As much of what was remembered when the course begins as can be told.
    fn resume(course: &Course) -> Replay {
        let state = match (course.start, course.samples().next()) {
            (None, Some((_, first))) => State::at_level(first.previous, first.at),
            _ => State::default(),
        };
        Replay { state, law: LawState::default() }
    }

    fn decide(&mut self, policy: &Policy, reading: &Reading) -> Decision {
        let decided = step_and_reclaim(policy, self.state, self.law, reading);
        (self.state, self.law) = (decided.0, decided.1);
        decided.2
    }
}
