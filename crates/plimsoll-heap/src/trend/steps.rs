//! A series as one or two steps between level stretches: what a deploy or a configuration looks like, and what a slope through it
//! is not. At most [`super::BLOCKS_MAX`] values; every pair of places is tried, by sums.

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
    fn too_few_values_have_no_steps() {
        for n in 0..4 {
            assert_eq!(steps(&vec![1.0; n]), []);
        }
    }
}
