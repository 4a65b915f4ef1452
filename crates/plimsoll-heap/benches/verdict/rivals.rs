//! The rules that are in use elsewhere, as baselines: each says from the same series whether it leaks.

use plimsoll_heap::series::Series;

/// A rule: its name and what it says.
pub(crate) type Rule = (&'static str, fn(&Series) -> bool);

pub(crate) const RULES: [Rule; 5] = [
    ("last > first", last_above_first),
    ("strictly monotone", monotone),
    ("regression, R² ≥ 0.8", regression),
    ("Mann–Kendall, p < .05", mann_kendall),
    ("the seed's rule, 10 MB/h", seed_rule),
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
