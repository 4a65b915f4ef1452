//! The decision: a reading in, a level and the next sleep out. Pure: no clock, no I/O, no allocation, about 100 ns.
//!
//! - A level is raised by a **confirmed** reading only, at once or after its sustain, straight to the highest mark
//!   reached; Critical exactly at `charged >= budget`. It is left, step by step or several at once, only after the charged
//!   bytes stayed below the leave mark for the dwell (5 s). Charged is the program's memory and kernel memory beyond its
//!   allowance, never page cache.
//! - The next sample comes before the fastest fill the policy allows for (2 GiB/s) could reach the budget, between 1 ms
//!   and 1 s. See [`State::sleep`] for the rule and [`wants_confirm`] for when the costly number is read.
//! - Without its main number the governor is blind: said once, then the policy's [`BlindPolicy`] holds.

use std::time::Duration;

use super::growth::{Growth, Track};
use super::law::{LawState, Supply, Want, law};
use crate::gauge::{Protected, Unread};
use crate::level::Level;
use crate::policy::{BlindPolicy, Policy, index};

/// Time between samples while Critical, and while a Critical mark that is reached waits for its sustain.
pub const CRITICAL_INTERVAL: Duration = Duration::from_millis(10);
/// Time between attempts while blind.
pub const BLIND_INTERVAL: Duration = Duration::from_millis(100);
/// The lower marks may be detected late by this part of the room to the budget: who rests just below a mark must not be
/// sampled every millisecond.
const LATE_PART: u64 = 4;
/// A kernel guard this close to the budget comes too late: its counters are batched (64 pages a CPU, 128 events).
const GUARD_LAG_BYTES: u64 = 16 << 20;
/// A move of the fast number by this part of the budget since the last confirmed reading is worth another one: while Normal,
/// and above, so that the slope has points between the marks.
const MOVED_PART: [u64; 2] = [16, 64];
/// Confirmed readings take at most one part in so many of a core.
const CONFIRM_SHARE: u32 = 10;
/// The same while the fast number says that the next mark was probably reached: then a late reading is what costs.
const URGENT_SHARE: u32 = 2;
/// A slope below this is rest: no time to limit is given. Bytes a second.
const REST_BYTES_PER_SECOND: f64 = 1024.0;
/// A slope of less confidence gives no time to limit.
pub const TIME_TO_LIMIT_CONFIDENCE: f64 = 0.5;
/// Longer times to limit are not given: ten years.
const TIME_TO_LIMIT_MAX: f64 = 3.2e8;

/// What one sample saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, on the governor's clock.
    pub at: Duration,
    /// The upper bound, page cache included; `None` when it could not be read.
    pub fast_bytes: Option<u64>,
    /// The confirmed number, when this sample took it: or why it could not be read.
    pub confirmed: Option<Result<Protected, Unread>>,
    /// Raw usage at which a kernel event will wake us; `None` when none is armed above the present usage.
    pub guard_bytes: Option<u64>,
    /// What stores hold that can give back, and what became of their orders; `None` when there are none.
    pub supply: Option<Supply>,
}

/// Why a decision is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing changed.
    Steady,
    /// An enter mark without a sustain was reached.
    EnteredMark,
    /// An enter mark was held for its sustain.
    Sustained,
    /// Below the leave mark for the dwell.
    LeftMark,
    /// The main number cannot be read, since now. Said once.
    WentBlind,
    /// Blind for so long that the policy assumes a level.
    AssumedBlind,
    /// The main number can be read again.
    Sighted,
    /// The policy has no budget any more: the level returned to Normal.
    BudgetGone,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 8] = [
        Cause::Steady,
        Cause::EnteredMark,
        Cause::Sustained,
        Cause::LeftMark,
        Cause::WentBlind,
        Cause::AssumedBlind,
        Cause::Sighted,
        Cause::BudgetGone,
    ];

    /// The name used in logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Steady => "steady",
            Cause::EnteredMark => "entered-mark",
            Cause::Sustained => "sustained",
            Cause::LeftMark => "left-mark",
            Cause::WentBlind => "went-blind",
            Cause::AssumedBlind => "assumed-blind",
            Cause::Sighted => "sighted",
            Cause::BudgetGone => "budget-gone",
        }
    }
}

/// What follows from one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// When the reading was taken, on the governor's clock.
    pub at: Duration,
    /// The level from now on.
    pub level: Level,
    /// The level before; equal to `level` when it did not change.
    pub previous: Level,
    /// The charged bytes of the last confirmed reading: program, and kernel memory beyond its allowance.
    pub charged_bytes: Option<u64>,
    /// Whether this sample confirmed them; a level only changes when it did.
    pub confirmed: bool,
    /// The upper bound that this sample read, page cache included.
    pub fast_bytes: Option<u64>,
    /// The budget that held.
    pub budget_bytes: Option<u64>,
    /// How fast the charged bytes grow; `None` until three confirmed readings.
    pub growth: Option<Growth>,
    /// (budget − charged) ÷ growth, at the time of the last confirmed reading. `None` without a budget, at rest, while
    /// shrinking, or when the slope's confidence is below [`TIME_TO_LIMIT_CONFIDENCE`]; 0 at or above the budget.
    pub time_to_limit: Option<Duration>,
    /// When to look again at the latest.
    pub sleep: Duration,
    /// Whether the main number cannot be read.
    pub blind: bool,
    /// Why it cannot, when this sample tried.
    pub unread: Option<Unread>,
    /// Why the decision is what it is.
    pub cause: Cause,
    /// What stores are asked for. Only where the reading is confirmed and carries a supply, and there is a budget; the last one holds until
    /// the next.
    pub want: Option<Want>,
}

impl Decision {
    /// Whether level or sight changed: such decisions are all kept, steady ones only for a while.
    pub fn is_change(&self) -> bool {
        self.level != self.previous || matches!(self.cause, Cause::WentBlind | Cause::Sighted)
    }

    /// Whether stores are asked for something.
    pub fn is_order(&self) -> bool {
        self.want.is_some_and(|want| want.evict_bytes > 0 || want.purge)
    }
}

/// The last confirmed reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Confirmed {
    at: Duration,
    charged_bytes: u64,
    fast_bytes: Option<u64>,
}

/// What is remembered between two readings. Begin with `State::default()`. About 450 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    level: Level,
    since: Duration,
    /// Since when the charged bytes are at or above each enter mark.
    above_since: [Option<Duration>; 3],
    /// Since when they are below each leave mark.
    below_since: [Option<Duration>; 3],
    last: Option<Confirmed>,
    blind_since: Option<Duration>,
    /// The level before blindness made another one assumed.
    before_blind: Option<Level>,
    track: Track,
}

impl Default for State {
    fn default() -> Self {
        State {
            level: Level::Normal,
            since: Duration::ZERO,
            above_since: [None; 3],
            below_since: [None; 3],
            last: None,
            blind_since: None,
            before_blind: None,
            track: Track::EMPTY,
        }
    }
}

/// Whether this sample should take the confirmed number too. The fast one is an upper bound: only where it reaches the next
/// mark can the level rise. Besides: once per poll interval, when a sustain or dwell ends, when it moved much, when blind,
/// and when page cache (or pages shared by copy-on-write) makes the fast number ask for far shorter sleeps than the
/// confirmed one would.
pub fn wants_confirm(
    policy: &Policy,
    state: &State,
    at: Duration,
    fast_bytes: Option<u64>,
    guard_bytes: Option<u64>,
) -> bool {
    let (Some(last), Some(fast), None) = (state.last, fast_bytes, state.blind_since) else { return true };
    if at.saturating_sub(last.at) >= policy.poll_interval {
        return true;
    }
    let Some(budget) = policy.budget_bytes else { return false };
    let Some(next) = Level::ALL.get(state.level as usize + 1) else { return true };
    let upper = state.upper(fast);
    if policy.mark_bytes(*next).is_some_and(|mark| upper >= mark) {
        return true;
    }
    if state.deadline(policy, at).is_some_and(|left| left.is_zero()) {
        return true;
    }
    let moved = budget / MOVED_PART[usize::from(state.level > Level::Normal)];
    if last.fast_bytes.is_none_or(|then| fast.abs_diff(then) >= moved) {
        return true;
    }
    let estimate = state.estimate(fast).unwrap_or(fast);
    let guarded = state.guard_holds(budget, estimate, Some(fast), guard_bytes);
    !guarded && 2 * pace(policy, budget, upper) < pace(policy, budget, estimate)
}

/// Whether what the fast number grew since the last confirmed reading is enough to have reached the next mark, page cache
/// that was there before left out.
pub fn confirm_is_urgent(policy: &Policy, state: &State, fast_bytes: Option<u64>) -> bool {
    let next = Level::ALL.get(state.level as usize + 1).and_then(|level| policy.mark_bytes(*level));
    let estimate = fast_bytes.and_then(|fast| state.estimate(fast));
    matches!((estimate, next), (Some(bytes), Some(mark)) if bytes >= mark)
}

/// How long after one confirmed reading the next may be taken, when it cost `cost`: ten times that, so that confirming takes
/// at most a tenth of a core; twice that when it is [urgent](confirm_is_urgent); 0 when that is shorter than the shortest
/// sleep anyway.
pub fn confirm_pause(policy: &Policy, cost: Duration, urgent: bool) -> Duration {
    let pause = cost.saturating_mul(if urgent { URGENT_SHARE } else { CONFIRM_SHARE });
    if pause > policy.min_interval { pause } else { Duration::ZERO }
}

/// Decides. `policy` must be [valid](Policy::validate); with another one the decision is unspecified, but nothing panics.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::{gauge::Protected, governor::{step, Reading, State}, level::Level, policy::Policy};
///
/// let policy = Policy::new(300 << 20, 100 << 20);
/// let program_bytes = 300 << 20;
/// let reading = Reading {
///     at: Duration::from_secs(1),
///     fast_bytes: Some(program_bytes),
///     confirmed: Some(Ok(Protected { program_bytes, ..Protected::default() })),
///     ..Reading::default()
/// };
/// let (_state, decision) = step(&policy, State::default(), &reading);
/// assert_eq!(decision.level, Level::Critical);
/// ```
pub fn step(policy: &Policy, mut state: State, reading: &Reading) -> (State, Decision) {
    let previous = state.level;
    let at = reading.at;
    let mut cause = Cause::Steady;
    match &reading.confirmed {
        Some(Ok(protected)) => {
            let charged_bytes = policy.charged_bytes(protected.program_bytes, protected.kernel_bytes);
            if state.blind_since.take().is_some() {
                cause = Cause::Sighted;
                state.level = state.before_blind.take().unwrap_or(state.level);
            }
            state.last = Some(Confirmed { at, charged_bytes, fast_bytes: reading.fast_bytes });
            state.track.push(at, charged_bytes);
            cause = state.settle(policy, at, charged_bytes).unwrap_or(cause);
        }
        Some(Err(_)) => {
            if state.blind_since.is_none() {
                state.blind_since = Some(at);
                cause = Cause::WentBlind;
            }
            cause = state.assume(policy, at).unwrap_or(cause);
        }
        None => {}
    }
    if policy.budget_bytes.is_none() && state.level != Level::Normal {
        state.level = Level::Normal;
        cause = Cause::BudgetGone;
    }
    if state.level != previous {
        state.since = at;
    }
    let growth = state.track.growth();
    let charged_bytes = state.last.map(|last| last.charged_bytes);
    let decision = Decision {
        at,
        level: state.level,
        previous,
        charged_bytes,
        confirmed: matches!(reading.confirmed, Some(Ok(_))),
        fast_bytes: reading.fast_bytes,
        budget_bytes: policy.budget_bytes,
        growth,
        time_to_limit: time_to_limit(policy.budget_bytes, charged_bytes, growth),
        sleep: state.sleep(policy, reading),
        blind: state.blind_since.is_some(),
        unread: reading.confirmed.and_then(Result::err),
        cause,
        want: None,
    };
    (state, decision)
}

/// The whole decision: [`step`], and the [reclaim law](super::law) where the reading carries a supply. Pure as they are; the two states are
/// apart because the law's is the larger by far and most services have no stores.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::{gauge::Protected, governor::{law::{LawState, Supply}, step_and_reclaim, Reading, State}, policy::Policy};
///
/// let policy = Policy::new(300 << 20, 100 << 20);
/// let protected = Protected { program_bytes: 200 << 20, ..Protected::default() };
/// let reading = Reading {
///     confirmed: Some(Ok(protected)),
///     supply: Some(Supply { held_bytes: 150 << 20, ..Supply::default() }),
///     ..Reading::default()
/// };
/// let (_, _, decision) = step_and_reclaim(&policy, State::default(), LawState::default(), &reading);
/// let want = decision.want.expect("there is a store");
/// assert_eq!((want.evict_bytes, want.hold_bytes), (0, 235 << 20), "50 MiB are not the store's, the mark is at 285 MiB");
/// ```
pub fn step_and_reclaim(
    policy: &Policy,
    state: State,
    law_state: LawState,
    reading: &Reading,
) -> (State, LawState, Decision) {
    let (state, mut decision) = step(policy, state, reading);
    let (Some(Ok(protected)), Some(supply)) = (&reading.confirmed, reading.supply) else {
        return (state, law_state, decision);
    };
    let (Some(budget), Some(fill)) = (policy.budget_bytes, policy.fill_bytes()) else {
        return (state, law_state, decision);
    };
    let charged = policy.charged_bytes(protected.program_bytes, protected.kernel_bytes);
    let (law_state, want) = law(law_state, reading.at, charged, fill, budget, supply);
    decision.want = Some(want);
    (state, law_state, decision)
}

impl State {
    /// A state of which only the level is known, and that nothing happened before `at`: where a log begins in mid-life.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn at_level(level: Level, at: Duration) -> State {
        State { level, since: at, ..State::default() }
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// When the level was entered, on the governor's clock.
    pub fn level_since(&self) -> Duration {
        self.since
    }

    /// Since when the main number cannot be read.
    pub fn blind_since(&self) -> Option<Duration> {
        self.blind_since
    }

    /// Sets the level by the marks. Quick up, slow down.
    fn settle(&mut self, policy: &Policy, at: Duration, charged_bytes: u64) -> Option<Cause> {
        let mut reached = Level::Normal;
        for level in [Level::Elevated, Level::High, Level::Critical] {
            let (i, Some(enter), Some(leave)) =
                (level as usize - 1, policy.mark_bytes(level), policy.leave_bytes(level))
            else {
                self.above_since = [None; 3];
                self.below_since = [None; 3];
                return None;
            };
            keep_since(&mut self.above_since[i], charged_bytes >= enter, at);
            keep_since(&mut self.below_since[i], charged_bytes < leave, at);
            if lasted(self.above_since[i], policy.sustain[i], at) {
                reached = level;
            }
        }
        if reached > self.level {
            self.level = reached;
            let sustain = index(reached).map(|i| policy.sustain[i]).unwrap_or_default();
            return Some(if sustain.is_zero() { Cause::EnteredMark } else { Cause::Sustained });
        }
        let before = self.level;
        while let Some(i) = index(self.level).filter(|i| lasted(self.below_since[*i], policy.dwell, at)) {
            self.level = Level::ALL[i];
        }
        (self.level < before).then_some(Cause::LeftMark)
    }

    /// What the policy assumes after a time of blindness.
    fn assume(&mut self, policy: &Policy, at: Duration) -> Option<Cause> {
        let BlindPolicy::Assume { after, level } = policy.blind else { return None };
        if level <= self.level || policy.budget_bytes.is_none() || !lasted(self.blind_since, after, at) {
            return None;
        }
        self.before_blind.get_or_insert(self.level);
        self.level = level;
        Some(Cause::AssumedBlind)
    }

    /// What the fast number was too low by at the last confirmed reading: it should be an upper bound, but batched
    /// counters and swap that it does not see make it less.
    fn short_bytes(&self) -> u64 {
        self.last.map_or(0, |last| last.charged_bytes.saturating_sub(last.fast_bytes.unwrap_or(u64::MAX)))
    }

    /// The most that the charged bytes can be by now.
    fn upper(&self, fast_bytes: u64) -> u64 {
        fast_bytes.saturating_add(self.short_bytes())
    }

    /// The charged bytes by now: confirmed, plus what the fast number grew since, never more than the upper bound.
    fn estimate(&self, fast_bytes: u64) -> Option<u64> {
        let last = self.last?;
        let grown = fast_bytes.saturating_sub(last.fast_bytes.unwrap_or(fast_bytes));
        Some(last.charged_bytes.saturating_add(grown).min(self.upper(fast_bytes)))
    }

    /// Whether a kernel event will wake us early enough, whatever happens: raw usage is below the guard, and the charged
    /// bytes cannot pass it unseen.
    fn guard_holds(&self, budget: u64, estimate: u64, fast_bytes: Option<u64>, guard_bytes: Option<u64>) -> bool {
        let (Some(fast), Some(guard)) = (fast_bytes, guard_bytes) else { return false };
        let at_guard = guard.saturating_add(self.short_bytes());
        fast < guard
            && at_guard.saturating_sub(estimate) <= budget.saturating_sub(estimate) / 2
            && budget.saturating_sub(at_guard) >= GUARD_LAG_BYTES.max(budget / 8)
    }

    /// How long until a sustain or dwell that has begun ends: a confirmed reading is due then.
    fn deadline(&self, policy: &Policy, at: Duration) -> Option<Duration> {
        let left = |since: Option<Duration>, wait: Duration| Some(since?.saturating_add(wait).saturating_sub(at));
        let above = (self.level as usize..3).filter_map(|i| left(self.above_since[i], policy.sustain[i])).min();
        let below = index(self.level).and_then(|i| left(self.below_since[i], policy.dwell));
        above.into_iter().chain(below).min()
    }

    /// The time until the next sample, between the shortest and the longest sleep:
    ///
    /// - the room to the next enter mark, or a quarter of the room to the budget if that is more, divided by the fastest
    ///   fill. Room is counted from the confirmed number when this sample took it, else from the upper bound.
    /// - The longest sleep while a kernel guard will wake us: above the present raw usage, at most half-way to the budget
    ///   from here, and no closer to the budget than an eighth of it or 16 MiB.
    /// - No later than the end of a sustain or dwell that has begun.
    /// - 10 ms while Critical, 100 ms while blind, the longest sleep without a budget.
    fn sleep(&self, policy: &Policy, reading: &Reading) -> Duration {
        let clamped =
            |sleep: Duration| sleep.clamp(policy.min_interval.min(policy.poll_interval), policy.poll_interval);
        if self.blind_since.is_some() {
            return clamped(BLIND_INTERVAL);
        }
        let Some(budget) = policy.budget_bytes else { return policy.poll_interval };
        let Some(last) = self.last else { return clamped(Duration::ZERO) };
        let estimate = reading.fast_bytes.and_then(|fast| self.estimate(fast)).unwrap_or(last.charged_bytes);
        let next = Level::ALL.get(self.level as usize + 1).and_then(|level| policy.mark_bytes(*level));
        let room = if self.level == Level::Critical {
            CRITICAL_INTERVAL
        } else if self.guard_holds(budget, estimate, reading.fast_bytes, reading.guard_bytes) {
            policy.poll_interval
        } else if reading.confirmed.is_some() {
            pace(policy, budget, last.charged_bytes)
        } else {
            // Not confirmed: below the next mark the upper bound is certain; from there on a confirmed reading was wanted
            // and is being paced by its cost.
            match reading.fast_bytes.map(|fast| self.upper(fast)).filter(|upper| next.is_none_or(|mark| *upper < mark))
            {
                Some(upper) => pace(policy, budget, upper),
                None => pace(policy, budget, estimate),
            }
        };
        clamped(self.deadline(policy, reading.at).map_or(room, |left| left.min(room)))
    }
}

/// How long the fastest fill needs to the next mark, or to a quarter of the room to the budget.
fn pace(policy: &Policy, budget: u64, bytes: u64) -> Duration {
    let Some(room) = budget.checked_sub(bytes).filter(|room| *room > 0) else { return CRITICAL_INTERVAL };
    let next = [Level::Elevated, Level::High, Level::Critical]
        .into_iter()
        .filter_map(|level| policy.mark_bytes(level)?.checked_sub(bytes).filter(|room| *room > 0))
        .min();
    let bytes = next.unwrap_or(room).max(room / LATE_PART);
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(policy.fill_bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(policy.poll_interval).max(policy.min_interval)
}

fn time_to_limit(budget: Option<u64>, charged: Option<u64>, growth: Option<Growth>) -> Option<Duration> {
    let room = budget?.saturating_sub(charged?);
    if room == 0 {
        return Some(Duration::ZERO);
    }
    let growth = growth.filter(|g| g.confidence >= TIME_TO_LIMIT_CONFIDENCE)?;
    if growth.bytes_per_second < REST_BYTES_PER_SECOND {
        return None;
    }
    let seconds = room as f64 / growth.bytes_per_second;
    (seconds < TIME_TO_LIMIT_MAX).then(|| Duration::from_secs_f64(seconds))
}

/// Remembers since when a condition holds.
fn keep_since(since: &mut Option<Duration>, holds: bool, at: Duration) {
    if holds {
        since.get_or_insert(at);
    } else {
        *since = None;
    }
}

fn lasted(since: Option<Duration>, wait: Duration, at: Duration) -> bool {
    since.is_some_and(|since| at.saturating_sub(since) >= wait)
}
