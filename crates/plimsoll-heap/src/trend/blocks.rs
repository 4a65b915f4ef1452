//! What the statistics work on: at most [`super::BLOCKS_MAX`] (144) medians of equal spans of time, life by life (lives of
//! processes side by side overlap). Seconds throughout.
//!
//! A collector's sawtooth is taken down to its floors, the values right after it freed. Falls that no collector waits for, and that give
//! back what was grown, can be taken for restarts (`prepare_restarted`). Of several lives the warm-up of each is left out.

use crate::series::{Point, by_life, equal_spans, median, middle};

use super::{BLOCKS_MAX, BLOCKS_MIN, Setup};

/// A fall counts when it is so many times the usual change from one sample to the next …
const FALL: f64 = 2.5;
/// … and so many for a restart that nobody marked, which takes at least this part of the value, …
const RESTART_FALL: f64 = 6.0;
const RESTART_RATIO: f64 = 0.05;
/// … and comes after at least this long: a collector does not wait so long.
const RESTART_EVERY_SECONDS: f64 = 8.0 * 3_600.0;
/// Samples on both sides of a restart that it is told by.
const RESTART_AROUND: usize = 5;
/// A restart takes back at least this part of what stands above the lowest level that a life began at.
const RESTART_GIVES_BACK: f64 = 0.7;
/// Falls that make a sawtooth; fewer leave too little to judge.
const TEETH_MIN: usize = BLOCKS_MIN;
/// With several lives, the warm-up of each is at most this long and at most this part of it.
const WARM_UP_SECONDS: f64 = 2.0 * 3_600.0;
const WARM_UP_RATIO: f64 = 0.2;
/// The floor of a block is this quantile of its values, and that of a third of the time this quantile of its blocks.
pub(crate) const FLOOR_QUANTILE: f64 = 0.1;

/// One span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Block {
    /// Seconds since 1970.
    pub(crate) at: f64,
    /// Since the life began.
    pub(crate) age: f64,
    /// Median.
    pub(crate) value: f64,
    /// A low quantile.
    pub(crate) floor: f64,
    /// Sampling variance of the value.
    pub(crate) variance: f64,
    /// Index of the life.
    pub(crate) life: usize,
}

/// A series made ready.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) blocks: Vec<Block>,
    pub(crate) lives: usize,
    /// Lives overlap in time: they are of processes side by side.
    pub(crate) is_parallel: bool,
    /// How many of the restarts nobody marked.
    pub(crate) inferred: usize,
    /// Levels that the lives begin at, one each, before a warm-up is left out.
    pub(crate) starts: Vec<f64>,
    /// Mean length of a collector's tooth, where the blocks are floors of teeth.
    pub(crate) tooth_seconds: Option<f64>,
}

/// Makes a series ready, with the restarts that are marked. Lives may overlap: several processes, each judged for itself.
pub(crate) fn prepare(points: &[Point], setup: &Setup) -> Prepared {
    let points = by_life(points);
    let lives: Vec<&[Point]> = points.chunk_by(|a, b| a.life == b.life).collect();
    let is_parallel = lives.windows(2).any(|pair| match (pair[0].last(), pair[1].first()) {
        (Some(before), Some(after)) => after.unix_seconds < before.unix_seconds,
        _ => false,
    });
    Prepared { is_parallel, ..ready(lives, setup) }
}

/// Makes a series ready with falls taken for restarts, where no reading knows its life; `None` where none is like one.
pub(crate) fn prepare_restarted(points: &[Point], setup: &Setup) -> Option<Prepared> {
    let falls = if points.iter().all(|p| p.life == 0) { restarts(points) } else { Vec::new() };
    let ready = ready(split(points, &falls), setup);
    (!falls.is_empty()).then_some(Prepared { inferred: falls.len(), ..ready })
}

fn ready(lives: Vec<&[Point]>, setup: &Setup) -> Prepared {
    let several = lives.len() > 1;
    let begins = |life: &&[Point]| median(life.iter().take(RESTART_AROUND).map(|p| p.value).collect());
    let levels = lives.iter().map(begins).collect();
    let mut kept: Vec<Point> = Vec::new();
    let mut starts = Vec::new();
    let mut teeth = Vec::new();
    for life in lives {
        let Some(start) = life.first().map(|p| p.unix_seconds) else { continue };
        let span = life.last().map_or(0.0, |p| p.unix_seconds - start);
        let warm_up = setup.warm_up_seconds.max(if several { WARM_UP_SECONDS.min(WARM_UP_RATIO * span) } else { 0.0 });
        let from = life.partition_point(|p| p.unix_seconds - start < warm_up);
        let life = &life[from..];
        let falls = teeth_of(life);
        // From here on a life is known by its place.
        let number = |p: &Point| Point { life: starts.len() as u64, ..*p };
        match falls.as_slice() {
            [first, .., last] => {
                teeth.push((life[*last].unix_seconds - life[*first].unix_seconds) / (falls.len() - 1) as f64);
                kept.extend(falls.iter().map(|at| number(&life[*at])));
            }
            _ => kept.extend(life.iter().map(number)),
        }
        starts.push(start);
    }
    let blocks = blocks(&kept, &starts);
    let lives = blocks.chunk_by(|a, b| a.life == b.life).count();
    let tooth_seconds = (!teeth.is_empty()).then(|| teeth.iter().sum::<f64>() / teeth.len() as f64);
    Prepared { blocks, lives, is_parallel: false, inferred: 0, starts: levels, tooth_seconds }
}

fn blocks(points: &[Point], starts: &[f64]) -> Vec<Block> {
    let of = |middle: &Point, floor: f64| {
        let life = middle.life as usize;
        let start = starts.get(life).copied().unwrap_or(middle.unix_seconds);
        let (at, value, variance) = (middle.unix_seconds, middle.value, middle.variance);
        Block { at, age: at - start, value, floor, variance, life }
    };
    let clean = without_spikes(points);
    if clean.len() <= BLOCKS_MAX {
        return clean.iter().map(|p| of(p, p.value)).collect();
    }
    equal_spans(&clean, BLOCKS_MAX).into_iter().map(|own| of(&middle(own), floor(own))).collect()
}

/// The median of each value and its neighbours of the same life.
fn without_spikes(points: &[Point]) -> Vec<Point> {
    let mut clean = points.to_vec();
    for (at, three) in points.windows(3).enumerate() {
        if three[0].life == three[2].life {
            clean[at + 1].value = median(three.iter().map(|p| p.value).collect());
        }
    }
    clean
}

/// A low quantile; of few values the least.
fn floor(points: &[Point]) -> f64 {
    at_quantile(points.iter().map(|p| p.value).collect(), FLOOR_QUANTILE)
}

/// The value at this part of the order; 0 of nothing.
pub(crate) fn at_quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((quantile * values.len() as f64) as usize).min(values.len() - 1);
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// Changes from sample to sample, and the usual size of one.
fn changes(points: &[Point]) -> (Vec<f64>, f64) {
    let clean = without_spikes(points);
    let changes: Vec<f64> = clean.windows(2).map(|pair| pair[1].value - pair[0].value).collect();
    let usual = median(changes.iter().map(|d| d.abs()).collect());
    (changes, usual)
}

/// Where a sawtooth has fallen: indices of the first sample after each fall; empty where it is none.
fn teeth_of(points: &[Point]) -> Vec<usize> {
    let (changes, usual) = changes(points);
    let bound = FALL * usual;
    let falls: Vec<usize> = (0..changes.len()).filter(|at| changes[*at] < -bound).map(|at| at + 1).collect();
    let leaps = changes.iter().filter(|d| **d > bound).count();
    let fallen: f64 = -changes.iter().filter(|d| **d < -bound).sum::<f64>();
    let risen: f64 = changes.iter().filter(|d| **d > 0.0).sum();
    let teeth = usual > 0.0 && falls.len() >= TEETH_MIN && leaps * 4 <= falls.len() && fallen >= 0.6 * risen;
    if teeth { falls } else { Vec::new() }
}

/// Where the process was restarted without a mark: indices of the first sample of each later life.
fn restarts(points: &[Point]) -> Vec<usize> {
    let (changes, usual) = changes(points);
    let around = |from: usize, until: usize| median(points[from..until].iter().map(|p| p.value).collect());
    let is_restart = |at: &usize| {
        let sudden = -changes[*at] > (RESTART_FALL * usual).max(RESTART_RATIO * points[*at].value);
        // It stays down, and was up before.
        let before = || around((at + 1).saturating_sub(RESTART_AROUND), at + 1);
        let after = || around(at + 1, (at + 1 + RESTART_AROUND).min(points.len()));
        sudden && before() - after() > RESTART_RATIO * before()
    };
    let falls: Vec<usize> = (0..changes.len()).filter(is_restart).map(|at| at + 1).collect();
    // The end of a job is a fall, too, but to where the course was before it.
    let level = |at: usize| around(at, (at + RESTART_AROUND).min(points.len()));
    let lowest = falls.iter().map(|at| level(*at)).fold(if points.is_empty() { 0.0 } else { level(0) }, f64::min);
    let gives_back = |at: &usize| {
        let before = around(at.saturating_sub(RESTART_AROUND), *at);
        before - level(*at) >= RESTART_GIVES_BACK * (before - lowest)
    };
    let falls: Vec<usize> = falls.into_iter().filter(gives_back).collect();
    let span = match (points.first(), points.last()) {
        (Some(first), Some(last)) => last.unix_seconds - first.unix_seconds,
        _ => 0.0,
    };
    let rare = span >= RESTART_EVERY_SECONDS * (falls.len() as f64);
    if rare { falls } else { Vec::new() }
}

fn split<'a>(points: &'a [Point], at: &[usize]) -> Vec<&'a [Point]> {
    let mut parts = Vec::with_capacity(at.len() + 1);
    let mut from = 0;
    for until in at.iter().copied().chain([points.len()]) {
        parts.push(&points[from..until]);
        from = until;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3_600.0;

    fn series(n: usize, every: f64, value: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..n).map(|i| Point::counted(i as f64 * every, value(i as f64 * every))).collect()
    }

    #[test]
    fn a_sawtooth_is_taken_down_to_its_floors() {
        let saw = series(480, 180.0, |t| 100.0 + 60.0 * (t / HOUR).fract());
        let ready = prepare(&saw, &Setup::default());
        assert!(ready.blocks.len() >= 20, "{}", ready.blocks.len());
        assert!(ready.blocks.iter().all(|b| b.value < 107.0), "floors");
        assert!((ready.tooth_seconds.unwrap() - HOUR).abs() < 60.0);
        assert_eq!((ready.lives, ready.inferred), (1, 0));
    }

    #[test]
    fn a_restart_that_nobody_marked_is_a_break() {
        let leak = series(600, 600.0, |t| 100.0 + 2.0 * (t / HOUR % 30.0));
        let ready = prepare_restarted(&leak, &Setup::default()).unwrap();
        assert_eq!((ready.lives, ready.inferred), (4, 3));
        assert_eq!(ready.tooth_seconds, None);
        assert_eq!(prepare(&leak, &Setup::default()).lives, 1);
    }

    #[test]
    fn the_end_of_a_job_is_no_restart() {
        let job = |t: f64| if (20.0..21.0).contains(&(t / HOUR % 24.0)) { 60.0 } else { 0.0 };
        let leak = series(600, 600.0, |t| 100.0 + 2.0 * (t / HOUR % 50.0) + job(t));
        let ready = prepare_restarted(&leak, &Setup::default()).unwrap();
        assert_eq!((ready.lives, ready.inferred), (2, 1));
        assert!(ready.starts.iter().all(|start| (100.0..102.0).contains(start)), "{:?}", ready.starts);
        let grows = series(600, 600.0, |t| 100.0 + 2.0 * t / HOUR + job(t));
        assert_eq!(prepare_restarted(&grows, &Setup::default()).map_or(0, |ready| ready.inferred), 0);
    }

    #[test]
    fn marked_lives_are_kept_apart_and_their_warm_up_left_out() {
        let mut points = series(200, 600.0, |t| 100.0 + t / HOUR);
        points[100..].iter_mut().for_each(|p| p.life = 9);
        let ready = prepare(&points, &Setup::default());
        assert_eq!((ready.lives, ready.inferred), (2, 0));
        assert!(ready.blocks.iter().all(|b| b.age >= 2.0 * HOUR - 600.0), "{:?}", ready.blocks[0]);
    }

    #[test]
    fn lives_that_take_turns_stay_together_and_are_no_more_blocks() {
        for run in [1, 5] {
            let mut points = series(2_000, 60.0, |t| 100.0 + t / HOUR);
            points.iter_mut().enumerate().for_each(|(at, p)| p.life = 11 + (at / run % 2) as u64);
            let ready = prepare(&points, &Setup::default());
            assert_eq!((ready.lives, ready.is_parallel), (2, true));
            assert!((BLOCKS_MAX / 2..=BLOCKS_MAX + 4).contains(&ready.blocks.len()), "{}", ready.blocks.len());
            assert!(ready.blocks.is_sorted_by_key(|b| b.life));
            for life in ready.blocks.chunk_by(|a, b| a.life == b.life) {
                assert!(life.is_sorted_by(|a, b| a.at < b.at) && life.len() > 20, "{}", life.len());
            }
        }
    }

    #[test]
    fn blocks_are_bounded_and_floors_are_below_medians() {
        let noisy = series(50_000, 60.0, |t| 100.0 + (t / 60.0 * 0.618_034).fract());
        let ready = prepare(&noisy, &Setup::default());
        assert!((BLOCKS_MAX / 2..=BLOCKS_MAX + 2).contains(&ready.blocks.len()), "{}", ready.blocks.len());
        // The last block has a single value.
        assert!(ready.blocks.iter().rev().skip(1).all(|b| b.floor < b.value));
        assert_eq!(prepare(&[], &Setup::default()).blocks, []);
    }

    #[test]
    fn a_spike_is_no_fall() {
        let spiky = series(300, 600.0, |t| if (t / 600.0) % 40.0 == 20.0 { 190.0 } else { 100.0 + (t * 0.7).sin() });
        let ready = prepare(&spiky, &Setup::default());
        assert_eq!((ready.lives, ready.tooth_seconds), (1, None));
        assert!(ready.blocks.iter().all(|b| b.value < 110.0));
    }
}
