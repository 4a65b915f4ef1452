//! Statistics of ranks, which outliers cannot move: Theil–Sen slope with interval, Mann–Kendall test corrected for ties and for
//! values that remember their predecessors. At most [`super::BLOCKS_MAX`] values: all pairs are looked at.
//!
//! Values come in groups (lives of a process); pairs are only made inside a group, as in the seasonal Kendall test (Hirsch, Slack
//! and Smith 1982). Theil (1950), Sen (1968), Mann (1945), Kendall (1975), Hamed and Rao (1998).

use crate::series::median;

/// A time (any unit) and a value.
pub(crate) type Pair = (f64, f64);

/// What the ranks say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranks {
    /// Median slope, in values per unit of time, and its interval.
    pub(crate) slope: f64,
    pub(crate) slope_low: f64,
    pub(crate) slope_high: f64,
    /// Probability of such a rise, or a steeper one, where there is none.
    pub(crate) p_rise: f64,
    /// By how much memory of the noise widens the variance; 1: not at all.
    pub(crate) correction: f64,
}

/// Slope and test of the groups together; `None` with fewer than four values or no two times in a group. `z` is the width of the
/// interval in standard deviations.
pub(crate) fn ranks(groups: &[Vec<Pair>], z: f64) -> Option<Ranks> {
    let mut slopes = Vec::new();
    let (mut s, mut variance, mut n) = (0.0, 0.0, 0);
    for group in groups {
        n += group.len();
        for (i, a) in group.iter().enumerate() {
            for b in &group[i + 1..] {
                if b.0 > a.0 {
                    slopes.push((b.1 - a.1) / (b.0 - a.0));
                    s += f64::from(b.1.partial_cmp(&a.1).map_or(0, |order| order as i8));
                }
            }
        }
        variance += kendall_variance(group);
    }
    if n < 4 || slopes.is_empty() {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let slope = middle(&slopes);
    let correction = groups
        .iter()
        .map(|g| (g.len() as f64, hamed_rao(g, slope)))
        .fold((0.0, 0.0), |sum, (n, c)| (sum.0 + n, sum.1 + n * c));
    let correction = correction.1 / correction.0.max(1.0);
    let sd = (variance * correction).sqrt();
    // With continuity correction.
    let score = if sd > 0.0 { (s - f64::signum(s)) / sd } else { 0.0 };
    let half = z * sd / 2.0;
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    let centre = slopes.len() as f64 / 2.0;
    Some(Ranks {
        slope,
        slope_low: at(centre - half),
        slope_high: at(centre + half),
        p_rise: if s == 0.0 { 0.5 } else { normal_tail(score) },
        correction,
    })
}

fn middle(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]) }
}

/// Variance of Kendall's S without autocorrelation, with ties.
fn kendall_variance(group: &[Pair]) -> f64 {
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<f64> = group.iter().map(|p| p.1).collect();
    values.sort_unstable_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(group.len() as f64) - ties) / 18.0
}

/// Factor by which autocorrelation of the ranks, after the slope is taken out, widens the variance; never below 1. Lags up to a
/// quarter of the length: longer ones rest on too few pairs.
fn hamed_rao(group: &[Pair], slope: f64) -> f64 {
    let n = group.len();
    if n < 8 {
        return 1.0;
    }
    let ranks = rank(&group.iter().map(|p| p.1 - slope * p.0).collect::<Vec<_>>());
    let bound = 1.96 / (n as f64).sqrt();
    let size = n as f64;
    let sum: f64 = (1..=n / 4)
        .map(|lag| (lag as f64, autocorrelation(&ranks, lag)))
        .filter(|(_, r)| r.abs() > bound)
        .map(|(lag, r)| (size - lag) * (size - lag - 1.0) * (size - lag - 2.0) * r)
        .sum();
    (1.0 + 2.0 * sum / (size * (size - 1.0) * (size - 2.0))).max(1.0)
}

/// Correlation of values with those `lag` places before; 0 where nothing varies.
pub(crate) fn autocorrelation(values: &[f64], lag: usize) -> f64 {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n.max(1) as f64;
    let variance: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let shared: f64 = values.iter().zip(values.iter().skip(lag)).map(|(a, b)| (a - mean) * (b - mean)).sum();
    if variance > 0.0 { shared / variance } else { 0.0 }
}

/// Ranks, with the mean rank for ties.
fn rank(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|at| ranks[*at] = mean);
        before += tied.len();
    }
    ranks
}

/// Probability that a standard normal value is above `z` (Abramowitz and Stegun 26.2.17; error below 1e-7).
pub(crate) fn normal_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    ((-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum).clamp(0.0, 1.0)
}

/// Spread of values in standard deviations of a normal distribution, by their median distance from the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let centre = median(values.to_vec());
    1.4826 * median(values.iter().map(|v| (v - centre).abs()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, slope: f64, noise: impl Fn(usize) -> f64) -> Vec<Pair> {
        (0..n).map(|i| (i as f64, 100.0 + slope * i as f64 + noise(i))).collect()
    }

    /// White noise, the same each time.
    fn white(i: usize) -> f64 {
        let x = (i as f64 * 12.9898 + 1.0).sin() * 43_758.545_3;
        x - x.floor() - 0.5
    }

    #[test]
    fn the_slope_withstands_outliers() {
        let with_outliers = line(40, 2.0, |i| if i % 9 == 4 { 500.0 } else { white(i) });
        let found = ranks(&[with_outliers], 1.96).unwrap();
        assert!((found.slope - 2.0).abs() < 0.05, "{found:?}");
        assert!(found.slope_low < 2.0 && 2.0 < found.slope_high && found.p_rise < 1e-6, "{found:?}");
    }

    #[test]
    fn kendall_of_a_known_table() {
        // Ten rising values: S = 45, variance 125, z = 44 / 11.18.
        let found = ranks(&[line(10, 1.0, |_| 0.0)], 1.96).unwrap();
        assert!((found.p_rise - normal_tail(44.0 / 125.0_f64.sqrt())).abs() < 1e-9, "{found:?}");
        // Three pairs of ties: variance (10·9·25 − 3·2·1·9) / 18.
        let tied = line(10, 0.0, |i| [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0][i]);
        assert!((kendall_variance(&tied) - (2250.0 - 54.0) / 18.0).abs() < 1e-9);
    }

    #[test]
    fn noise_that_remembers_widens_and_white_noise_hardly_does() {
        let mut walk = 0.0;
        let remembers: Vec<Pair> = (0..100)
            .map(|i| {
                walk = 0.9 * walk + white(i);
                (i as f64, walk)
            })
            .collect();
        assert!(hamed_rao(&remembers, 0.0) > 3.0);
        assert!(hamed_rao(&line(100, 0.0, white), 0.0) < 2.0);
    }

    #[test]
    fn groups_are_not_compared_with_each_other() {
        // Each life rises, and the second begins where the first began.
        let lives = [line(12, 1.0, |_| 0.0), line(12, 1.0, |_| 0.0)];
        let found = ranks(&lives, 1.96).unwrap();
        assert!((found.slope - 1.0).abs() < 1e-9 && found.p_rise < 1e-6, "{found:?}");
    }

    #[test]
    fn the_normal_tail_is_that_of_the_tables() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.158_655), (1.96, 0.024_998), (3.0, 0.001_350), (-1.0, 0.841_345)] {
            assert!((normal_tail(z) - p).abs() < 1e-5, "{z}");
        }
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(ranks(&[line(3, 1.0, |_| 0.0)], 1.96), None);
        assert_eq!(ranks(&[vec![(1.0, 1.0); 9]], 1.96), None);
        assert_eq!(ranks(&[], 1.96), None);
    }
}
