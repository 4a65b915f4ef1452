//! The verdict on a figure: does it leak? One of five words, how sure, why in plain words, how fast, and when the limit is reached.
//!
//! A pure function of what [`crate::trend`] measured. `leaking` needs all of: a rise that is significant by ranks and by least
//! squares, a growth that matters for the time watched ([`growth_that_matters`]), floors and tops that rise with it, no deceleration,
//! no steps that explain it better, and most of the growth above any level that the process came back from. `docs/trend.md` has the measured error rates.

mod retention;
mod words;

pub use retention::{Split, split};

use crate::series::{Series, Unit};
use crate::trend::{Setup, Shape, Trend, measure, measure_restarted};

/// A rise is significant below this probability (one-sided), by ranks; by least squares, as a second opinion, below
/// `2.5` times as much.
pub const SIGNIFICANT: f64 = 0.01;
/// See [`SIGNIFICANT`]. Both tests have to agree, so both at 1 % would be stricter than 1 %.
const SECOND_TEST: f64 = 2.5;
/// Among many keys, of those called leaking one in so many may be wrong (Benjamini and Hochberg 1995).
pub const FALSE_DISCOVERIES: f64 = 0.01;
/// The floors must rise at least this much as fast as the middle.
const FLOOR_RATIO: f64 = 0.4;
/// … and each third of the time must lift them by this part of its share.
const FLOOR_THIRD_RATIO: f64 = 0.1;
/// From the first third to the last the tops must rise by this part of what a line does there.
const TOP_RATIO: f64 = 0.5;
/// A slope that has become less than this part of what it was decelerates.
const DECELERATION: f64 = 0.5;
/// Earlier growth of this part of the level makes a level stretch a plateau.
const PLATEAU_RATIO: f64 = 0.1;
/// What grew after a bend is judged for itself when the stretch before was shorter than this part of the whole.
const WARM_UP_RATIO: f64 = 0.25;
const HOUR: f64 = 3_600.0;

/// Growth, as a part of the level, that matters in so many seconds. A day tells a daily rhythm from a leak; less time needs more.
#[must_use]
pub fn growth_that_matters(seconds: f64) -> f64 {
    match seconds / HOUR {
        h if h >= 44.0 => 0.08,
        h if h >= 20.0 => 0.12,
        h if h >= 12.0 => 0.15,
        h if h >= 4.0 => 0.20,
        h if h >= 1.0 => 0.35,
        _ => 0.50,
    }
}

/// Does it leak?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Too few readings to say.
    #[default]
    InsufficientData,
    /// No rise beyond noise, or one too small to matter.
    Stable,
    /// It grew, and has stopped growing.
    Plateau,
    /// It grows, but not as a leak does, or not surely enough.
    Growing,
    /// It grows steadily, and nothing of it is ever given back.
    Leaking,
}

impl State {
    /// As it is written everywhere: `insufficient-data`, `stable`, `plateau`, `growing`, `leaking`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::InsufficientData => "insufficient-data",
            State::Stable => "stable",
            State::Plateau => "plateau",
            State::Growing => "growing",
            State::Leaking => "leaking",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// When the limit is reached, in seconds from the last reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeToLimit {
    /// At the slope measured.
    pub seconds: f64,
    /// At the steepest slope of the interval.
    pub soonest_seconds: f64,
    /// At the flattest; `None`: perhaps never.
    pub latest_seconds: Option<f64>,
}

/// The verdict on one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The word.
    pub state: State,
    /// How sure, from 0 to 1: an order, not a frequency.
    pub confidence: f64,
    /// Why, in plain words; the first is the deciding one.
    pub reasons: Vec<String>,
    /// What was measured; `None` for too little data.
    pub trend: Option<Trend>,
    /// When the limit is reached, where there is one and the figure grows.
    pub time_to_limit: Option<TimeToLimit>,
}

impl Verdict {
    /// Growth an hour with its 95 % interval, in the unit of the series; `None` where it was not measured.
    #[must_use]
    pub fn rate_per_hour(&self) -> Option<(f64, f64, f64)> {
        let trend = self.trend.as_ref()?;
        Some((trend.slope * HOUR, trend.slope_low * HOUR, trend.slope_high * HOUR))
    }

    /// The same verdict with the time to this limit, for series of many that have limits of their own.
    #[must_use]
    pub fn with_limit(self, limit: Option<f64>) -> Verdict {
        let grows = self.trend.as_ref().filter(|_| self.state >= State::Growing);
        let time_to_limit = grows.zip(limit).and_then(|(trend, limit)| time_to_limit(trend, limit));
        Verdict { time_to_limit, ..self }
    }
}

/// Growth of a part over the time judged below this share of the whole does not matter: of hundreds of parts one always creeps, and
/// it is not what fills the memory.
pub const PART_MATTERS_RATIO: f64 = 0.01;

impl Verdict {
    /// The verdict on a part of a whole of this size, in the same unit: `growing` and `leaking` become `stable`, with the reason that it
    /// creeps, where it grew by less than [`PART_MATTERS_RATIO`] (1 %) of the whole. Nothing changes where the whole is not above 0.
    #[must_use]
    pub fn of_part(mut self, whole: f64, unit: Unit) -> Verdict {
        let Some(growth) = self.trend.as_ref().map(|trend| trend.growth) else { return self };
        if self.state >= State::Growing && growth < PART_MATTERS_RATIO * whole {
            self.state = State::Stable;
            self.time_to_limit = None;
            let of = format!("{} of {}", shown(growth.max(0.0), unit), shown(whole, unit));
            self.reasons.insert(0, format!("creeps, by {of}: too little to matter"));
        }
        self
    }
}

/// Judges one series.
///
/// # Examples
///
/// ```
/// use plimsoll_heap::series::{Point, Series, Unit};
/// use plimsoll_heap::trend::Setup;
/// use plimsoll_heap::verdict::{State, judge};
///
/// // Two days of readings, ten minutes apart: 200 MB and 2 MB more each hour.
/// let reading = |i: u32| Point::counted(f64::from(i) * 600.0, 200e6 + f64::from(i) * 2e6 / 6.0 + f64::from(i * 7919 % 1000) * 1e3);
/// let rss = Series::new("rss", Unit::Bytes, (0..288).map(reading));
/// let verdict = judge(&rss, &Setup::default().limit(Some(1e9)));
/// assert_eq!(verdict.state, State::Leaking);
/// assert!((verdict.time_to_limit.unwrap().seconds / 3_600.0 - 352.0).abs() < 5.0);
/// ```
#[must_use]
pub fn judge(series: &Series, setup: &Setup) -> Verdict {
    decide(series, &courses(series, setup), setup, SIGNIFICANT)
}

/// Judges many series together: the more keys, the stricter the test, so that of those called leaking at most
/// [`FALSE_DISCOVERIES`] are so by chance. In the order of the series.
#[must_use]
pub fn judge_all(series: &[Series], setup: &Setup) -> Vec<Verdict> {
    let trends: Vec<Vec<Trend>> = series.iter().map(|one| courses(one, setup)).collect();
    let chances: Vec<f64> = trends.iter().filter_map(|courses| courses.iter().map(chance).reduce(f64::min)).collect();
    let bound =
        if chances.len() > 1 { benjamini_hochberg(chances, FALSE_DISCOVERIES).min(SIGNIFICANT) } else { SIGNIFICANT };
    series.iter().zip(trends).map(|(one, courses)| decide(one, &courses, setup, bound)).collect()
}

/// The largest probability that is still significant when so many are tested at once.
fn benjamini_hochberg(mut chances: Vec<f64>, rate: f64) -> f64 {
    chances.sort_unstable_by(f64::total_cmp);
    let n = chances.len() as f64;
    let passed = chances.iter().enumerate().rev().find(|(rank, p)| **p <= (*rank + 1) as f64 / n * rate);
    passed.map_or(rate / n.max(1.0), |(_, p)| *p)
}

/// The course as it is, and where falls may be restarts that nobody marked, also with those as breaks. Empty for too little data.
fn courses(series: &Series, setup: &Setup) -> Vec<Trend> {
    let as_it_is = measure(series, setup);
    let restarted = as_it_is.as_ref().and_then(|_| measure_restarted(series, setup));
    as_it_is.into_iter().chain(restarted).collect()
}

/// Probability of such a rise where there is none: that of the ranks, or that of least squares where it is much the weaker. Doubled
/// where restarts were guessed, as the course was looked at twice.
fn chance(trend: &Trend) -> f64 {
    let looks = if trend.inferred_restarts > 0 { 2.0 } else { 1.0 };
    (looks * trend.p_rise.max(trend.p_slope / SECOND_TEST)).min(1.0)
}

fn decide(series: &Series, courses: &[Trend], setup: &Setup, significant: f64) -> Verdict {
    let findings = || courses.iter().map(|trend| (find(trend, significant), *trend));
    let Some((finding, trend)) = findings().find(|(finding, _)| *finding == Finding::Leak).or(findings().next()) else {
        let reasons = vec![words::too_little(series)];
        return Verdict { reasons, ..Verdict::default() };
    };
    let state = finding.state();
    let mut reasons = vec![words::reason(finding, &trend, series.unit)];
    reasons.extend(words::remarks(&trend, state, series.unit));
    let confidence = confidence(&trend, finding);
    Verdict { state, confidence, reasons, trend: Some(trend), time_to_limit: None }.with_limit(setup.limit)
}

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finding {
    /// Everything a leak does.
    Leak,
    /// Significant, and too small to matter in the time watched.
    Small,
    /// Not significant.
    Level,
    /// Falls.
    Falls,
    /// It grew before, and no longer does.
    Stopped,
    /// It grows ever more slowly.
    Slowing,
    /// It rose in one or two steps.
    Stepped,
    /// It rises in steps, each about twice the one before.
    Doubles,
    /// The floors do not rise.
    FloorsStay,
    /// The tops do not rise.
    TopsStay,
    /// Below a level that it came back from.
    BelowCeiling,
    /// It grows, and less than a day was watched.
    TooSoon,
}

impl Finding {
    fn state(self) -> State {
        match self {
            Finding::Leak => State::Leaking,
            Finding::Small | Finding::Level | Finding::Falls => State::Stable,
            Finding::Stopped | Finding::Stepped => State::Plateau,
            Finding::Slowing
            | Finding::Doubles
            | Finding::FloorsStay
            | Finding::TopsStay
            | Finding::BelowCeiling
            | Finding::TooSoon => State::Growing,
        }
    }
}

fn find(trend: &Trend, significant: f64) -> Finding {
    let level = trend.level_from.abs().max(trend.noise).max(f64::MIN_POSITIVE);
    let finding = find_in_course(trend, level, significant);
    match trend.shape {
        // A table that has just doubled is level since; its floors are those of before.
        Shape::Doubling { rise, .. } if finding != Finding::Leak => {
            let before = (trend.level.abs() - rise).max(f64::MIN_POSITIVE);
            if rise / before >= growth_that_matters(trend.span_seconds) { Finding::Doubles } else { finding }
        }
        _ => finding,
    }
}

fn find_in_course(trend: &Trend, level: f64, significant: f64) -> Finding {
    let matters = growth_that_matters(trend.grown_seconds);
    let ratio = trend.growth / level;
    if let Shape::Steps { rise, .. } = trend.shape {
        return if rise > PLATEAU_RATIO * level { Finding::Stepped } else { Finding::Level };
    }
    let grew_before = match trend.shape {
        Shape::Bend { before, after } if before > after => {
            before * trend.span_seconds * (1.0 - trend.part_ratio) > PLATEAU_RATIO * level
        }
        _ => false,
    };
    let is_significant = chance(trend) <= significant && trend.slope_low > 0.0;
    // A day's rhythm can take so much of a rise for its own that least squares no longer see it; the ranks still do.
    if !is_significant && !grew_before && trend.rhythm.is_some() && trend.p_rise <= significant && ratio >= matters {
        return if slows(trend) { Finding::Slowing } else { Finding::TooSoon };
    }
    if !is_significant || ratio < matters.min(0.05) {
        return match (grew_before, trend.slope < 0.0, is_significant) {
            (true, _, _) => Finding::Stopped,
            (_, true, _) => Finding::Falls,
            (_, _, true) => Finding::Small,
            (_, _, false) => Finding::Level,
        };
    }
    if slows(trend) {
        return Finding::Slowing;
    }
    if ratio < matters {
        return Finding::TooSoon;
    }
    let each_third = FLOOR_THIRD_RATIO * trend.growth_a_life / 3.0;
    if trend.floor_slope < FLOOR_RATIO * trend.slope || trend.floor_rise < each_third {
        return Finding::FloorsStay;
    }
    if trend.top_rise < TOP_RATIO * trend.growth_a_life * 2.0 / 3.0 {
        return Finding::TopsStay;
    }
    if trend.ceiling.is_some_and(|ceiling| trend.level - ceiling < TOP_RATIO * trend.growth) {
        return Finding::BelowCeiling;
    }
    Finding::Leak
}

/// It grows ever more slowly: inside the part, or after a stretch that was more than a warm-up.
fn slows(trend: &Trend) -> bool {
    let inside = trend.bends_to.is_some_and(|to| to < DECELERATION);
    let warm_up = trend.part_ratio >= 1.0 - WARM_UP_RATIO;
    let after = match trend.shape {
        Shape::Bend { before, after } => !warm_up && before > 0.0 && after < DECELERATION * before,
        _ => false,
    };
    inside || after
}

/// How sure: the weaker test's certainty, and less where less than a day was watched. For level figures, how surely the rise is
/// below what matters.
fn confidence(trend: &Trend, finding: Finding) -> f64 {
    let days = (trend.grown_seconds / (24.0 * HOUR)).min(1.0);
    let watched = 0.5 + 0.5 * days.sqrt();
    let sure = match finding.state() {
        State::Stable | State::Plateau => {
            let level = trend.level_from.abs().max(trend.noise).max(f64::MIN_POSITIVE);
            let most = trend.slope_high * trend.grown_seconds / level;
            (1.0 - most.max(0.0) / (2.0 * growth_that_matters(trend.grown_seconds))).clamp(0.05, 0.99)
        }
        _ => 1.0 - chance(trend),
    };
    (sure * watched).clamp(0.0, 0.99)
}

fn time_to_limit(trend: &Trend, limit: f64) -> Option<TimeToLimit> {
    let room = (limit - trend.level).max(0.0);
    let at = |slope: f64| (slope > 0.0).then(|| room / slope);
    Some(TimeToLimit {
        seconds: at(trend.slope)?,
        soonest_seconds: at(trend.slope_high)?,
        latest_seconds: at(trend.slope_low),
    })
}

/// Writes a value of this unit: `1.5 MiB`, `42`.
pub(crate) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => words::size(value),
        Unit::Count => words::count(value),
    }
}

#[cfg(test)]
mod tests;
