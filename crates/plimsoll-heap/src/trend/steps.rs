//! A series as one or two steps between level stretches: what a deploy or a configuration looks like, and what a slope through it
//! is not; and steps that double, which is how a table grows that is never emptied. At most [`super::BLOCKS_MAX`] values; every pair of places is tried, by sums.

/// The best steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    /// 1 or 2.
    pub(crate) count: usize,
    /// Squares of what is left beside the levels.
    pub(crate) squares: f64,
    /// Index of the first value after the last step.
    pub(crate) last: usize,
    /// Levels before the first and after the last step.
    pub(crate) before: f64,
    pub(crate) after: f64,
}

/// Stretches are at least this many values long.
const SHORTEST: usize = 2;

/// The best single step and the best two; nothing where there are too few values.
pub(crate) fn steps(values: &[f64]) -> Vec<Steps> {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n.max(1) as f64;
    let (mut sums, mut squares) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    for (i, value) in values.iter().enumerate() {
        let value = value - mean;
        sums[i + 1] = sums[i] + value;
        squares[i + 1] = squares[i] + value * value;
    }
    let level = |from: usize, until: usize| mean + (sums[until] - sums[from]) / (until - from) as f64;
    let left = |from: usize, until: usize| {
        let sum = sums[until] - sums[from];
        (squares[until] - squares[from] - sum * sum / (until - from) as f64).max(0.0)
    };
    let mut best: [Option<Steps>; 2] = [None, None];
    let mut offer = |found: Steps| {
        let place = &mut best[found.count - 1];
        if place.is_none_or(|best| found.squares < best.squares) {
            *place = Some(found);
        }
    };
    for first in SHORTEST..=n.saturating_sub(SHORTEST) {
        let (before, after) = (level(0, first), level(first, n));
        offer(Steps { count: 1, squares: left(0, first) + left(first, n), last: first, before, after });
        for last in first + SHORTEST..=n.saturating_sub(SHORTEST) {
            let squares = left(0, first) + left(first, last) + left(last, n);
            offer(Steps { count: 2, squares, last, before, after: level(last, n) });
        }
    }
    best.into_iter().flatten().collect()
}

/// Rises of a table that doubles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Doubling {
    pub(crate) count: usize,
    /// From the level before the first to that after the last.
    pub(crate) rise: f64,
}

/// A change counts as a step when it is so many times the usual one, and at least this part of the value.
const STEP_USUAL: f64 = 6.0;
const STEP_RATIO: f64 = 0.02;
/// So many steps at least …
const DOUBLINGS_MIN: usize = 3;
/// … each so many times the one before.
const DOUBLES: std::ops::RangeInclusive<f64> = 1.5..=3.0;
/// What fills evenly doubles again after twice the time; later than this many times it is full.
const DUE: f64 = 2.5;

/// The last steps of a course that is level between them, never falls, and rises by about twice as much each time: a Map or an array
/// that is pushed to, whose table is moved to one of twice the size. `points` are time and value of one life.
pub(crate) fn doubling(points: &[(f64, f64)]) -> Option<Doubling> {
    let changes: Vec<f64> = points.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    let usual = crate::series::median(changes.iter().map(|change| change.abs()).collect());
    let bound = |at: usize| (STEP_USUAL * usual).max(STEP_RATIO * points[at].1.abs());
    // Time and height; what rises over two changes is one step.
    let mut steps: Vec<(f64, f64, usize)> = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        if *change < -bound(at) {
            return None;
        }
        if *change > bound(at) {
            match steps.last_mut() {
                Some(last) if last.2 + 1 == at => (last.1, last.2) = (last.1 + change, at),
                _ => steps.push((points[at + 1].0, *change, at)),
            }
        }
    }
    let doubles = |pair: &[(f64, f64, usize)]| DOUBLES.contains(&(pair[1].1 / pair[0].1));
    let count = 1 + steps.windows(2).rev().take_while(|pair| doubles(pair)).count();
    let (now, [.., before, last]) = (points.last()?.0, steps.as_slice()) else { return None };
    let due = now - last.0 <= DUE * (last.0 - before.0);
    let rise = steps[steps.len() - count..].iter().map(|step| step.1).sum();
    (count >= DOUBLINGS_MIN && due).then_some(Doubling { count, rise })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_where_they_are() {
        let one: Vec<f64> = (0..30).map(|i| if i < 12 { 5.0 } else { 9.0 }).collect();
        let found = steps(&one);
        assert_eq!((found[0].last, found[0].before, found[0].after), (12, 5.0, 9.0));
        assert!(found[0].squares < 1e-9);
        let two: Vec<f64> = (0..30)
            .map(|i| {
                if i < 12 {
                    5.0
                } else if i < 20 {
                    9.0
                } else {
                    7.0
                }
            })
            .collect();
        let found = steps(&two);
        assert_eq!((found[1].last, found[1].after), (20, 7.0));
        assert!(found[0].squares > 1.0 && found[1].squares < 1e-9);
    }

    #[test]
    fn a_table_that_doubles_is_told_from_one_that_is_full() {
        // A thousand entries an hour, 16 bytes each, in a table of a power of two.
        let table = |hours: usize, until: f64| -> Vec<(f64, f64)> {
            let entries = |h: f64| (1_000.0 * h.min(until)).max(500.0);
            (0..hours).map(|h| (h as f64, 16.0 * (entries(h as f64).log2().ceil()).exp2())).collect()
        };
        let found = doubling(&table(40, 100.0)).unwrap();
        assert!(found.count >= 4 && found.rise > 500_000.0, "{found:?}");
        // Full after nine hours, and watched for thirty more.
        assert_eq!(doubling(&table(40, 9.0)), None);
        // Even steps, one that falls, and noise.
        let with = |value: fn(usize) -> f64| (0..40).map(|i| (i as f64, value(i))).collect::<Vec<_>>();
        assert_eq!(doubling(&with(|i| 100.0 + 10.0 * (i / 8) as f64)), None);
        assert_eq!(doubling(&with(|i| [10.0, 20.0, 40.0, 20.0, 80.0][i / 8])), None);
        assert_eq!(doubling(&with(|i| 100.0 + (i * 7_919 % 13) as f64)), None);
        assert_eq!(doubling(&[]), None);
    }

    #[test]
    fn too_few_values_have_no_steps() {
        for n in 0..4 {
            assert_eq!(steps(&vec![1.0; n]), []);
        }
    }
}
