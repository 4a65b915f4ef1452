//! What two courses of decisions over the same recording have reached, and when.

use std::time::Duration;

use super::model::{self, Modelled};
use super::{Course, Recording, Replay, Step};
use crate::governor::Decision;
use crate::level::Level;
use crate::policy::{Overrides, Policy, TextErrors, shown_values};

/// What a course of decisions came to. Times are since the first reading of that life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// When each level, or a higher one, was first reached; Normal at once.
    pub reached_at: [Option<Duration>; 4],
    /// How long each level, or a higher one, held.
    pub held_for: [Duration; 4],
    /// When something was first done: a store was asked, or High was reached.
    pub acted_at: Option<Duration>,
    /// When it was left: Critical was reached, or eviction was stuck.
    pub drained_at: Option<Duration>,
    /// When eviction was first said to be stuck.
    pub stuck_at: Option<Duration>,
    /// Orders to stores, and their bytes.
    pub orders: u64,
    /// Their bytes.
    pub ordered_bytes: u64,
    /// Purges of the allocator.
    pub purges: u64,
    /// The most bytes charged.
    pub peak_bytes: u64,
    /// Changes of level.
    pub changes: u64,
}

impl Summary {
    fn of(decisions: &[Decision]) -> Summary {
        let mut sum = Summary::default();
        let Some(begin) = decisions.first().map(|first| first.at) else { return sum };
        for (i, decision) in decisions.iter().enumerate() {
            let at = decision.at.saturating_sub(begin);
            let until = decisions.get(i + 1).map_or(decision.at, |next| next.at);
            let lasts = until.saturating_sub(decision.at);
            for level in Level::ALL.into_iter().filter(|level| *level <= decision.level) {
                sum.reached_at[level as usize].get_or_insert(at);
                sum.held_for[level as usize] += lasts;
            }
            sum.changes += u64::from(decision.level != decision.previous);
            sum.peak_bytes = sum.peak_bytes.max(decision.charged_bytes.unwrap_or(0));
            if decision.level >= Level::High {
                sum.acted_at.get_or_insert(at);
            }
            if decision.level == Level::Critical {
                sum.drained_at.get_or_insert(at);
            }
            let Some(want) = decision.want else { continue };
            if want.evict_bytes > 0 {
                sum.acted_at.get_or_insert(at);
                sum.orders += 1;
                sum.ordered_bytes = sum.ordered_bytes.saturating_add(want.evict_bytes);
            }
            sum.purges += u64::from(want.purge);
            if want.stuck {
                sum.stuck_at.get_or_insert(at);
                sum.drained_at.get_or_insert(at);
            }
        }
        sum
    }
}

/// One start of a governor to the next, as it was and as it would have been.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Life {
    /// When it began, since 1970-01-01 UTC (for a trace: its own time). `None`: the log begins later.
    pub began_unix: Option<Duration>,
    /// From its first reading to its last.
    pub lasted: Duration,
    /// Readings in it.
    pub readings: usize,
    /// Samples that the log lacks.
    pub missing: u64,
    /// The policy that held at its end.
    pub policy: Policy,
    /// What came of that.
    pub recorded: Summary,
    /// The other policy.
    pub other_policy: Policy,
    /// What would have come of it.
    pub replayed: Summary,
    /// There were stores: how they were modelled, and how well.
    pub modelled: Option<Modelled>,
}

/// A recording as it was, beside what it would have been under another policy.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Keys whose values differ, with the values: as recorded (in the last life), as replayed.
    pub changed: Vec<(&'static str, String, String)>,
    /// The lives, in their order; never empty.
    pub lives: Vec<Life>,
}

impl Comparison {
    /// The whole recording in one: the first time that anything was reached counts, from the begin of its life.
    pub fn is_different(&self) -> bool {
        self.lives.iter().any(|life| life.recorded != life.replayed)
    }
}

pub(super) fn compare(recording: &Recording, overrides: &Overrides) -> Result<Comparison, TextErrors> {
    let lives: Vec<Life> = recording.courses.iter().map(|course| life(course, overrides)).collect::<Result<_, _>>()?;
    let changed = lives.last().map(|life| changed(&life.policy, &life.other_policy, overrides)).unwrap_or_default();
    Ok(Comparison { changed, lives })
}

/// Those that are set come first, in the order of their text; then what followed from them.
fn changed(from: &Policy, to: &Policy, overrides: &Overrides) -> Vec<(&'static str, String, String)> {
    let differs = shown_values(from).into_iter().zip(shown_values(to)).filter(|(from, to)| from.1 != to.1);
    let mut all: Vec<_> = differs.map(|((key, from), (_, to))| (key, from, to)).collect();
    all.sort_by_key(|(key, ..)| overrides.place_of(key).unwrap_or(usize::MAX));
    all
}

fn life(course: &Course, overrides: &Overrides) -> Result<Life, TextErrors> {
    let mut others = Vec::new();
    for step in &course.steps {
        if let Step::Policy(policy) = step {
            others.push((*policy, overrides.apply(policy)?));
        }
    }
    let other = |policy: &Policy| others.iter().find(|(known, _)| known == policy).map_or(*policy, |(_, other)| *other);
    let recorded: Vec<Decision> = course.samples().map(|(_, decision)| *decision).collect();
    let has_stores = course.samples().any(|(reading, _)| reading.supply.is_some());
    let (replayed, modelled) = if has_stores {
        let fit = model::run(course, |policy| *policy);
        let run = model::run(course, other);
        (run.decisions, Some(fit.modelled))
    } else {
        let mut replay = Replay::resume(course);
        let mut decisions = Vec::with_capacity(recorded.len());
        course.each(|policy, reading, _| decisions.push(replay.decide(&other(policy), reading)));
        (decisions, None)
    };
    let (policy, other_policy) = others.last().copied().unwrap_or((Policy::observe(), Policy::observe()));
    let (first, last) = (recorded.first().map(|d| d.at), recorded.last().map(|d| d.at));
    Ok(Life {
        began_unix: course.start.map(|(_, unix)| unix),
        lasted: last.unwrap_or_default().saturating_sub(first.unwrap_or_default()),
        readings: recorded.len(),
        missing: course.missing,
        policy,
        recorded: Summary::of(&recorded),
        other_policy,
        replayed: Summary::of(&replayed),
        modelled,
    })
}
