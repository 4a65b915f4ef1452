//! The rules that are in use elsewhere, as baselines: each says from the same series whether it leaks.

use plimsoll_heap::series::{Point, Series};

/// A rule: its name and what it says.
pub(crate) type Rule = (&'static str, fn(&Series) -> bool);

pub(crate) const RULES: [Rule; 6] = [
    ("last > first", last_above_first),
    ("strictly monotone", monotone),
    ("regression, R² ≥ 0.8", regression),
    ("Mann–Kendall, p < .05", mann_kendall),
    ("the incident's rule, 10 MB/h", seed_rule),
    ("composite, 30-min medians", composite),
];

fn last_above_first(series: &Series) -> bool {
    let points = series.points();
    points.len() > 1 && points[points.len() - 1].value > points[0].value
}

/// memlab: "grew at every step".
fn monotone(series: &Series) -> bool {
    let points = series.points();
    points.len() > 2 && points.windows(2).all(|pair| pair[1].value > pair[0].value)
}

/// Least squares through all points (Precog's first step): rising, and the line explains 80 % of the variance.
fn regression(series: &Series) -> bool {
    let points = series.points();
    let n = points.len() as f64;
    if points.len() < 3 {
        return false;
    }
    let mean_t = points.iter().map(|p| p.unix_seconds).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.value).sum::<f64>() / n;
    let (mut tt, mut ty, mut yy) = (0.0, 0.0, 0.0);
    for p in points {
        let (t, y) = (p.unix_seconds - mean_t, p.value - mean_y);
        tt += t * t;
        ty += t * y;
        yy += y * y;
    }
    ty > 0.0 && tt > 0.0 && yy > 0.0 && ty * ty / (tt * yy) >= 0.8
}

/// Mann (1945), Kendall (1975), as it is usually programmed: no ties, no autocorrelation. Thinned to 300 points.
fn mann_kendall(series: &Series) -> bool {
    let all = series.points();
    let every = all.len().div_ceil(300).max(1);
    let values: Vec<f64> = all.iter().step_by(every).map(|p| p.value).collect();
    let n = values.len() as f64;
    if n < 4.0 {
        return false;
    }
    let mut s = 0.0;
    for (i, a) in values.iter().enumerate() {
        s += values[i + 1..]
            .iter()
            .map(|b| {
                if b > a {
                    1.0
                } else if b < a {
                    -1.0
                } else {
                    0.0
                }
            })
            .sum::<f64>();
    }
    let variance = n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
    (s - 1.0) / variance.sqrt() > 1.96
}

/// Incident 3's rule on its oldest and newest figure: ten minutes apart or more, 5 % or more of change, more than 10 MB/h.
fn seed_rule(series: &Series) -> bool {
    let points = series.points();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return false };
    let minutes = (last.unix_seconds - first.unix_seconds) / 60.0;
    let growth_mb = (last.value - first.value) / 1_048_576.0;
    let percent = if first.value > 0.0 { (last.value - first.value) / first.value * 100.0 } else { 0.0 };
    minutes >= 10.0 && percent >= 5.0 && growth_mb / minutes * 60.0 > 10.0
}

/// The best of the rules that were measured on real machines before: medians of 30 minutes; Mann–Kendall with the correction of
/// Hamed and Rao (1998), p < .01; growth of 10 % of the median; the lowest level of each third above that of the third before; the
/// slope of the second half at least half of that of the first.
fn composite(series: &Series) -> bool {
    let span = |p: &Point| (p.unix_seconds / 1_800.0) as i64;
    let medians = series.points().chunk_by(|a, b| span(a) == span(b)).map(|own| {
        let mut values: Vec<f64> = own.iter().map(|p| p.value).collect();
        values.sort_by(f64::total_cmp);
        (own[0].unix_seconds, values[values.len() / 2])
    });
    let points: Vec<(f64, f64)> = medians.collect();
    if points.len() < 8 {
        return false;
    }
    let mut level: Vec<f64> = points.iter().map(|p| p.1).collect();
    level.sort_by(f64::total_cmp);
    let slope = theil_sen(&points);
    let grown = slope * (points[points.len() - 1].0 - points[0].0);
    let (first, second) = points.split_at(points.len() / 2);
    let floors: Vec<f64> = points
        .chunks(points.len().div_ceil(3))
        .map(|third| third.iter().map(|p| p.1).fold(f64::INFINITY, f64::min))
        .collect();
    hamed_rao_score(&points, slope) > 2.326
        && grown >= 0.1 * level[level.len() / 2]
        && floors.windows(2).all(|pair| pair[1] > pair[0])
        && theil_sen(second) >= 0.5 * theil_sen(first)
}

fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(i, a)| points[i + 1..].iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)))
        .collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

/// Kendall's S over its standard deviation, with ties, widened by the autocorrelation of the ranks about the slope.
fn hamed_rao_score(points: &[(f64, f64)], slope: f64) -> f64 {
    let n = points.len() as f64;
    let sign = |a: f64, b: f64| f64::from(i8::from(b > a) - i8::from(b < a));
    let s: f64 =
        points.iter().enumerate().map(|(i, a)| points[i + 1..].iter().map(|b| sign(a.1, b.1)).sum::<f64>()).sum();
    let mut values: Vec<f64> = points.iter().map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    let detrended: Vec<f64> = points.iter().map(|p| p.1 - slope * p.0).collect();
    let ranks: Vec<f64> = detrended.iter().map(|a| detrended.iter().map(|b| sign(*b, *a)).sum::<f64>()).collect();
    let all: f64 = ranks.iter().map(|r| r * r).sum();
    let sum: f64 = (1..points.len())
        .map(|lag| (lag as f64, ranks.iter().zip(&ranks[lag..]).map(|(a, b)| a * b).sum::<f64>() / all.max(1.0)))
        .filter(|(_, r)| r.abs() > 1.96 / n.sqrt())
        .map(|(lag, r)| (n - lag) * (n - lag - 1.0) * (n - lag - 2.0) * r)
        .sum();
    let widened = (1.0 + 2.0 * sum / (n * (n - 1.0) * (n - 2.0))).max(0.1);
    let variance = (term(n) - ties) / 18.0 * widened;
    if variance > 0.0 { (s - s.signum()) / variance.sqrt() } else { 0.0 }
}
