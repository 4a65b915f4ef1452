//! How a figure moves: slope with interval, significance, and the shape of the course. Pure; at most [`BLOCKS_MAX`] (144) medians of
//! equal spans of time are looked at, so the cost does not grow with the length of the series beyond one pass and a sort.
//!
//! In order: lives and sawteeth (`blocks`), a day's rhythm and a bend (`fit`), steps (`steps`), then the ranks of what is
//! left after the bend (`rank`). `docs/trend.md` names the sources.

pub(crate) mod blocks;
pub(crate) mod fit;
pub(crate) mod rank;
pub(crate) mod steps;

use blocks::{Block, FLOOR_QUANTILE, Prepared, at_quantile, prepare, prepare_restarted};
use fit::{Fit, Model};
use rank::{Pair, normal_tail, ranks, spread};

use crate::series::{Series, median};

/// Spans of time that a series is cut into.
pub const BLOCKS_MAX: usize = 144;
/// Fewer blocks say nothing.
pub const BLOCKS_MIN: usize = 8;
/// A rhythm of a day can be told from a slope from this span on (seconds).
pub const RHYTHM_SPAN_SECONDS: f64 = 22.0 * 3_600.0;
/// Bends are looked for at so many places.
const KNOTS: usize = 28;
/// Slopes on both sides of a bend, the second over the first, that are still one slope.
const ALIKE: (f64, f64) = (0.5, 3.0);
/// The interval of slopes holds 95 of 100.
const INTERVAL: f64 = 1.96;
/// Below this part of the level nothing is told apart.
const RESOLUTION: f64 = 1e-4;
/// Lives that are told by falls begin within this part of what one of them grows by.
const START_RATIO: f64 = 0.5;
/// The top of a third of the time: a job of an hour or two does not make it.
const TOP_QUANTILE: f64 = 0.9;
/// Spans whose steps are looked at as those of a walk.
const WALK_SPANS: f64 = 12.0;
/// A model of steps must be better than that of a slope by this much (natural logarithm of the odds).
const STEPS_BETTER: f64 = 2.0;

/// What the caller knows beside the series.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Setup {
    /// The value that must not be reached, for the time to limit.
    pub limit: Option<f64>,
    /// Left out at the start of each life, in seconds. A bend early in a single life is found without it.
    pub warm_up_seconds: f64,
}

impl Default for Setup {
    /// No limit, no warm-up left out.
    fn default() -> Setup {
        Setup { limit: None, warm_up_seconds: 0.0 }
    }
}

impl Setup {
    /// With a limit.
    #[must_use]
    pub fn limit(self, limit: Option<f64>) -> Setup {
        Setup { limit, ..self }
    }

    /// With so many seconds left out at the start of each life.
    #[must_use]
    pub fn warm_up_seconds(self, warm_up_seconds: f64) -> Setup {
        Setup { warm_up_seconds, ..self }
    }
}

/// The shape of the course.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// One slope throughout.
    Line,
    /// Another slope from a time on: `before` and `after`, in values per second.
    Bend {
        /// Slope before it.
        before: f64,
        /// Slope after it.
        after: f64,
    },
    /// So many steps between level stretches; `rise` is the last level above the first.
    Steps {
        /// 1 or 2.
        count: usize,
        /// In the unit of the series; negative for a fall.
        rise: f64,
    },
    /// So many steps, three or more, each about twice the one before, and the next is due: a table that is never emptied.
    Doubling {
        /// Steps.
        count: usize,
        /// All of them together.
        rise: f64,
    },
}

/// How a figure moves. Slopes in values per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The part that slope and test are of: from here …
    pub from_unix: f64,
    /// … until here, seconds since 1970.
    pub until_unix: f64,
    /// From the first point of the series to the last.
    pub span_seconds: f64,
    /// Blocks in the part.
    pub blocks: usize,
    /// Blocks that are independent of each other, by the memory of the noise.
    pub independent: f64,
    /// Theil–Sen slope with its 95 % interval.
    pub slope: f64,
    /// See `slope`.
    pub slope_low: f64,
    /// See `slope`.
    pub slope_high: f64,
    /// Mann–Kendall with Hamed's and Rao's correction: probability of such a rise where there is none.
    pub p_rise: f64,
    /// The same by least squares over the independent blocks.
    pub p_slope: f64,
    /// The level at the beginning of the part, and now, without rhythm and noise.
    pub level_from: f64,
    /// See `level_from`.
    pub level: f64,
    /// The part's share of the whole.
    pub part_ratio: f64,
    /// Growth over the part, all lives together; where restarts were guessed, that of the longest life.
    pub growth: f64,
    /// Seconds over which it grew so much.
    pub grown_seconds: f64,
    /// Growth over a life of mean length.
    pub growth_a_life: f64,
    /// What noise adds, one standard deviation.
    pub noise: f64,
    /// Theil–Sen slope of the floors.
    pub floor_slope: f64,
    /// The least that the lowest level of a third of the part is above that of the third before; the median over the lives.
    pub floor_rise: f64,
    /// The same of the highest level: of the last third above that of the first.
    pub top_rise: f64,
    /// Slope at the end over slope at the beginning of the part, where the difference is significant.
    pub bends_to: Option<f64>,
    /// The shape of the whole course.
    pub shape: Shape,
    /// Highest level before the part, in the same life; `None` where there is none.
    pub ceiling: Option<f64>,
    /// Half the height of the day's rhythm, where it has one.
    pub rhythm: Option<f64>,
    /// Length of a collector's tooth in seconds, where the figures are the floors of teeth.
    pub tooth_seconds: Option<f64>,
    /// Lives of the process.
    pub lives: usize,
    /// The lives overlap in time: they are of processes side by side, and are no restarts.
    pub is_parallel: bool,
    /// Restarts among them that nobody marked.
    pub inferred_restarts: usize,
}

/// Measures how `series` moves; `None` where there are fewer than [`BLOCKS_MIN`] blocks to look at.
#[must_use]
pub fn measure(series: &Series, setup: &Setup) -> Option<Trend> {
    measure_ready(series, &prepare(series.points(), setup))
}

/// The same with falls taken for restarts that nobody marked. Growth and the time for it are then those of the longest life: to cut a
/// course at its falls makes the rest of it rise, so what all pieces rise together proves nothing. `None` where no fall is like a restart.
#[must_use]
pub fn measure_restarted(series: &Series, setup: &Setup) -> Option<Trend> {
    let ready = prepare_restarted(series.points(), setup)?;
    let trend = measure_ready(series, &ready)?;
    // A program begins each life where it began the others; a fall that ends elsewhere is none.
    let (first, later) = ready.starts.split_first()?;
    let highest = later.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = later.iter().copied().fold(f64::INFINITY, f64::min);
    let near = START_RATIO * trend.growth;
    (highest - lowest <= near && highest - first <= near).then_some(trend)
}

fn measure_ready(series: &Series, ready: &Prepared) -> Option<Trend> {
    let all = ready.blocks.as_slice();
    if all.len() < BLOCKS_MIN {
        return None;
    }
    let scale = median(all.iter().map(|b| b.value.abs()).collect());
    // Sampling noise that is known is a floor of the noise, too.
    let sampling = median(all.iter().map(|b| b.variance).collect()).sqrt();
    let resolution = (RESOLUTION * scale).max(sampling);
    let (fit, independent) = best_fit(all, series.span_seconds(), resolution)?;
    let level: Vec<Block> =
        all.iter().map(|b| Block { value: b.value - fit.rhythm(b), floor: b.floor - fit.rhythm(b), ..*b }).collect();
    let knot = fit.model.knot;
    let part: Vec<Block> = level.iter().filter(|b| knot.is_none_or(|knot| b.age >= knot)).copied().collect();
    // Also as it is: taking a rhythm out may remove a slope, never make one.
    let raw: Vec<Block> = all.iter().filter(|b| knot.is_none_or(|knot| b.age >= knot)).copied().collect();
    let plain = ranks(&groups(&raw, |b| b.value), INTERVAL)?;
    let found = ranks(&groups(&part, |b| b.value), INTERVAL)?;
    let (slope, error) = fit.final_slope(independent);
    let error = error.hypot(resolution / part.len() as f64 / grown(&part).max(1.0));
    // Of lives side by side, the last block in order is not the last in time.
    let from = part.iter().min_by(|a, b| a.at.total_cmp(&b.at))?;
    let until = part.iter().max_by(|a, b| a.at.total_cmp(&b.at))?;
    let grown_seconds = if ready.inferred > 0 { longest(&part) } else { grown(&part) };
    let rate = found.slope.min(plain.slope);
    let centre = centre(&part, found.slope, until.life);
    // The rising part of a day is no walk.
    let drift = match series.span_seconds() / RHYTHM_SPAN_SECONDS {
        days if days >= 2.0 => walk(&part),
        days if days >= 1.0 => walk(&part).max(walk(&raw)),
        _ => 1.0,
    };
    // In less than two days a rhythm takes the curve of a cache that fills for its own.
    // … and what a rhythm leaves of a day is straight even where the day was not.
    let short = series.span_seconds() < 2.0 * RHYTHM_SPAN_SECONDS;
    let as_it_is = if fit.model.rhythm { halves(&raw) } else { bends_to(&raw) }.filter(|_| short);
    let rhythm = fit.model.rhythm.then(|| all.iter().map(|b| fit.rhythm(b).abs()).fold(0.0, f64::max));
    Some(Trend {
        from_unix: from.at,
        until_unix: until.at,
        span_seconds: series.span_seconds(),
        blocks: part.len(),
        independent: independent * part.len() as f64 / all.len() as f64,
        slope: found.slope,
        slope_low: found.slope_low,
        slope_high: found.slope_high,
        p_rise: found.p_rise.max(plain.p_rise),
        p_slope: student_tail(slope / error.max(f64::MIN_POSITIVE), independent - 3.0).min(drift),
        level_from: centre + found.slope * from.age,
        level: centre + found.slope * until.age,
        part_ratio: part.len() as f64 / all.len() as f64,
        growth: rate * grown_seconds,
        growth_a_life: rate * lived(&part) / groups(&part, |b| b.value).len().max(1) as f64,
        grown_seconds,
        noise: spread(&fit.residuals).max(resolution),
        floor_slope: ranks(&groups(&part, |b| b.floor), INTERVAL).map_or(0.0, |r| r.slope),
        floor_rise: rises(
            &raw,
            |b| b.floor,
            FLOOR_QUANTILE,
            |thirds| thirds.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min),
        ),
        top_rise: rises(&raw, |b| b.value, TOP_QUANTILE, |thirds| thirds[thirds.len() - 1] - thirds[0]),
        bends_to: bends_to(&part).into_iter().chain(as_it_is).reduce(f64::min),
        shape: shape(all, &level, ready, &fit, independent, resolution),
        ceiling: ceiling(&level, until, knot),
        rhythm,
        tooth_seconds: ready.tooth_seconds,
        lives: ready.lives,
        is_parallel: ready.is_parallel,
        inferred_restarts: ready.inferred,
    })
}

/// The middle line of this life, at age 0.
fn centre(part: &[Block], slope: f64, life: usize) -> f64 {
    median(part.iter().filter(|b| b.life == life).map(|b| b.value - slope * b.age).collect())
}

fn groups(blocks: &[Block], value: impl Fn(&Block) -> f64) -> Vec<Vec<Pair>> {
    blocks.chunk_by(|a, b| a.life == b.life).map(|life| life.iter().map(|b| (b.age, value(b))).collect()).collect()
}

/// Seconds that the lives lasted, together.
fn lived(blocks: &[Block]) -> f64 {
    blocks.chunk_by(|a, b| a.life == b.life).map(|life| life[life.len() - 1].age - life[0].age).sum()
}

/// Seconds over which the blocks could grow: the lives' spans together, what overlaps once.
fn grown(blocks: &[Block]) -> f64 {
    let lives = blocks.chunk_by(|a, b| a.life == b.life);
    let mut spans: Vec<(f64, f64)> = lives.map(|life| (life[0].at, life[life.len() - 1].at)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut until) = (0.0, f64::NEG_INFINITY);
    for (from, to) in spans {
        sum += (to - from.max(until)).max(0.0);
        until = until.max(to);
    }
    sum
}

/// Seconds of the longest life.
fn longest(blocks: &[Block]) -> f64 {
    let lives = blocks.chunk_by(|a, b| a.life == b.life);
    lives.map(|life| life[life.len() - 1].age - life[0].age).fold(0.0, f64::max)
}

/// Probability of such a rise of a walk that goes nowhere: Student's test of the steps between so many spans of the time. Noise that
/// hardly forgets leaves least squares too few independent blocks to see even what only ever rises; a walk is the noise that never does.
fn walk(part: &[Block]) -> f64 {
    let width = lived(part) / WALK_SPANS;
    let span = |b: &Block| (b.age / width.max(f64::MIN_POSITIVE)) as i64;
    let mut steps = Vec::new();
    for life in part.chunk_by(|a, b| a.life == b.life) {
        let spans: Vec<Pair> = life
            .chunk_by(|a, b| span(a) == span(b))
            .map(|own| (median(own.iter().map(|b| b.age).collect()), median(own.iter().map(|b| b.value).collect())))
            .collect();
        steps.extend(
            spans.windows(2).filter(|p| p[1].0 > p[0].0).map(|p| (p[1].1 - p[0].1, ((p[1].0 - p[0].0) / width).sqrt())),
        );
    }
    // A step over a longer time varies more; weighted by that.
    let n = steps.len() as f64;
    if n < WALK_SPANS / 2.0 {
        return 1.0;
    }
    let time: f64 = steps.iter().map(|s| s.1 * s.1).sum();
    let drift = steps.iter().map(|s| s.0).sum::<f64>() / time;
    let squares: f64 = steps.iter().map(|(step, root)| (step / root - drift * root).powi(2)).sum();
    let error = (squares / (n - 1.0) / time).sqrt();
    student_tail(drift / error.max(f64::MIN_POSITIVE), n - 1.0)
}

/// The model that explains most for what it costs, and how many blocks are independent.
fn best_fit(blocks: &[Block], span_seconds: f64, resolution: f64) -> Option<(Fit, f64)> {
    let rhythms: &[bool] = if span_seconds >= RHYTHM_SPAN_SECONDS { &[false, true] } else { &[false] };
    let oldest = blocks.iter().map(|b| b.age).fold(0.0, f64::max);
    let youngest = blocks.iter().map(|b| b.age).fold(oldest, f64::min);
    let mut fits = Vec::new();
    for rhythm in rhythms {
        let line = Model { slope: true, rhythm: *rhythm, ..Model::default() };
        fits.extend(line.fit(blocks));
        // In less than two days a rhythm and a bend make each other up, both larger than what there is.
        if *rhythm && span_seconds < 2.0 * RHYTHM_SPAN_SECONDS {
            continue;
        }
        let knots = (1..KNOTS).map(|i| youngest + (oldest - youngest) * 0.8 * i as f64 / KNOTS as f64);
        let long = |knot: &f64| blocks.iter().filter(|b| b.age >= *knot).count() >= BLOCKS_MIN.max(blocks.len() / 6);
        let bent = knots.filter(long).filter_map(|knot| Model { knot: Some(knot), ..line }.fit(blocks));
        fits.extend(bent.min_by(|a, b| a.squares.total_cmp(&b.squares)));
    }
    let independent = fits.iter().min_by(|a, b| a.squares.total_cmp(&b.squares))?.independent();
    // A bend between slopes that are alike is no bend: the part is then the whole.
    let alike = |fit: &Fit| {
        let (before, (after, _)) = (fit.first_slope(), fit.final_slope(independent));
        fit.model.knot.is_some() && before > 0.0 && (ALIKE.0 * before..=ALIKE.1 * before).contains(&after)
    };
    fits.retain(|fit| !alike(fit));
    let best = fits
        .into_iter()
        .min_by(|a, b| a.criterion(independent, resolution).total_cmp(&b.criterion(independent, resolution)))?;
    Some((best, independent))
}

/// Steps explain a single life better than the slope does, with the rhythm taken out or as it is; or the fit's own shape.
fn shape(raw: &[Block], level: &[Block], ready: &Prepared, fit: &Fit, independent: f64, resolution: f64) -> Shape {
    let course = || raw.iter().map(|b| (b.age, b.value)).collect::<Vec<_>>();
    if let Some(found) = (ready.lives == 1).then(|| steps::doubling(&course())).flatten() {
        return Shape::Doubling { count: found.count, rise: found.rise };
    }
    let own = fit.criterion(independent, resolution);
    let found = |blocks: &[Block], more: usize| {
        let values: Vec<f64> = blocks.iter().map(|b| b.value).collect();
        let rate = move |s: &steps::Steps| {
            fit::criterion(s.squares, raw.len(), 2 * s.count + 1 + more, independent, resolution)
        };
        steps::steps(&values).into_iter().map(move |s| (rate(&s), s))
    };
    let rhythm = if fit.model.rhythm { 4 } else { 0 };
    let better = found(raw, 0)
        .chain(found(level, rhythm))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(criterion, _)| ready.lives == 1 && *criterion < own - STEPS_BETTER);
    match (better, fit.model.knot) {
        (Some((_, steps)), _) => Shape::Steps { count: steps.count, rise: steps.after - steps.before },
        (None, Some(_)) => Shape::Bend { before: fit.first_slope(), after: fit.final_slope(independent).0 },
        (None, None) => Shape::Line,
    }
}

/// The slope at the end over that at the beginning, where a square term is significant.
fn bends_to(part: &[Block]) -> Option<f64> {
    let youngest = part.iter().map(|b| b.age).fold(f64::INFINITY, f64::min);
    let oldest = part.iter().map(|b| b.age).fold(0.0, f64::max);
    let part: Vec<Block> = part.iter().map(|b| Block { age: b.age - youngest, ..*b }).collect();
    let fit = Model { slope: true, curve: true, ..Model::default() }.fit(&part)?;
    let independent = fit.independent();
    let (curve, error) = fit.curve(independent)?;
    let p = student_tail(curve.abs() / error.max(f64::MIN_POSITIVE), independent - 3.0);
    let first = fit.first_slope();
    let last = first + 2.0 * curve * (oldest - youngest);
    (p < 0.02).then_some(if first.abs() > 0.0 { last / first } else { f64::INFINITY })
}

/// The slope of the second half over that of the first.
fn halves(part: &[Block]) -> Option<f64> {
    let middle = at_quantile(part.iter().map(|b| b.at).collect(), 0.5);
    let (first, second): (Vec<Block>, Vec<Block>) = part.iter().partition(|b| b.at < middle);
    let slope = |half: &[Block]| Some(ranks(&groups(half, |b| b.value), INTERVAL)?.slope);
    let (first, second) = (slope(&first)?, slope(&second)?);
    (first > 0.0).then_some(second / first)
}

/// See [`Trend::floor_rise`] and [`Trend::top_rise`].
fn rises(part: &[Block], value: impl Fn(&Block) -> f64 + Copy, quantile: f64, of: impl Fn(&[f64]) -> f64) -> f64 {
    let lives = part.chunk_by(|a, b| a.life == b.life).filter(|life| life.len() >= BLOCKS_MIN);
    let rises = lives.map(|life| {
        let thirds = life.chunks(life.len().div_ceil(3));
        let levels: Vec<f64> = thirds.map(|third| at_quantile(third.iter().map(value).collect(), quantile)).collect();
        of(&levels)
    });
    median(rises.collect())
}

/// The highest level that the life had before the part and came back from.
fn ceiling(level: &[Block], until: &Block, knot: Option<f64>) -> Option<f64> {
    let before = level.iter().filter(|b| b.life == until.life && knot.is_some_and(|knot| b.age < knot));
    before.map(|b| b.value).reduce(f64::max)
}

/// Probability that Student's t of so many degrees of freedom is above `t` (Wallace 1959: as a normal).
fn student_tail(t: f64, freedom: f64) -> f64 {
    let v = freedom.max(1.0);
    let z = (v * (t * t / v).ln_1p()).sqrt() * (8.0 * v + 1.0) / (8.0 * v + 3.0);
    normal_tail(if t < 0.0 { -z } else { z })
}

#[cfg(test)]
mod tests;
