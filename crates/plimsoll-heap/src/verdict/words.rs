//! The reasons of a verdict, in plain words with their figures.

use super::{Finding, State};
use crate::series::{Series, Unit};
use crate::trend::{BLOCKS_MIN, Shape, Trend};

/// 1024-based, three digits: `1.50 MiB`.
pub(crate) fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes.abs();
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let sign = if bytes < 0.0 { "-" } else { "" };
    let digits = if unit == 0 || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{sign}{value:.digits$} {}", units[unit])
}

/// A count, with as many places as it needs.
pub(crate) fn count(value: f64) -> String {
    if value.abs() >= 10.0 || value == value.round() { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A span of time in its largest sensible unit.
pub(crate) fn span(seconds: f64) -> String {
    match seconds.abs() {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 2.0 * 3_600.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3_600.0 => format!("{:.0} h", s / 3_600.0),
        s if s.is_finite() => format!("{:.1} days", s / 86_400.0),
        _ => "never".to_owned(),
    }
}

fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent.abs() < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

pub(super) fn too_little(series: &Series) -> String {
    let points = series.points().len();
    if points == 0 {
        return "no readings".to_owned();
    }
    format!(
        "{points} reading{} over {}: at least {BLOCKS_MIN} at different times are needed",
        if points == 1 { "" } else { "s" },
        span(series.span_seconds())
    )
}

/// The deciding reason.
pub(super) fn reason(finding: Finding, trend: &Trend, unit: Unit) -> String {
    let shown = |value: f64| super::shown(value, unit);
    let level = trend.level_from.abs().max(f64::MIN_POSITIVE);
    let grown = percent(trend.growth / level);
    let during = span(trend.grown_seconds);
    let rate = format!("{} an hour", shown(trend.slope * 3_600.0));
    match finding {
        Finding::Leak => format!("grew steadily by {grown} in {during}, {rate}, and gave nothing back"),
        Finding::Small => format!("rises by {grown} in {during}: too little to matter"),
        Finding::Level => match trend.shape {
            Shape::Steps { rise, .. } => format!("moved by {} in a step, level since", shown(rise)),
            _ => format!("no rise beyond the noise of {} in {during}", shown(trend.noise)),
        },
        Finding::Falls => format!("falls by {} an hour", shown(-trend.slope * 3_600.0)),
        Finding::Stopped => format!("grew before, and has been level for {during}"),
        Finding::Slowing => format!("grew by {grown} in {during}, ever more slowly: as a cache does that fills"),
        Finding::Stepped => match trend.shape {
            Shape::Steps { count: 1, rise } => format!("rose by {} in one step, level before and since", shown(rise)),
            Shape::Steps { count, rise } => format!("rose by {} in {count} steps, level between", shown(rise)),
            _ => "rose in steps".to_owned(),
        },
        Finding::Doubles => match trend.shape {
            Shape::Doubling { count, rise } => format!(
                "rose by {} in {count} steps, each about twice the one before: a table that doubles as it fills",
                shown(rise)
            ),
            _ => "rose in steps that double".to_owned(),
        },
        Finding::FloorsStay => format!("grew by {grown} in {during}, but its lowest levels do not rise as fast"),
        Finding::TopsStay => format!("grew by {grown} in {during}, but its highest levels do not rise as fast"),
        Finding::BelowCeiling => format!(
            "grew by {grown} in {during}, and is still below the {} that it came back from",
            shown(trend.ceiling.unwrap_or(trend.level))
        ),
        Finding::TooSoon => {
            format!("grew by {grown} in {during}: a leak, or a part of the day; a day tells them apart")
        }
    }
}

/// What else a reader should know.
pub(super) fn remarks(trend: &Trend, state: State, unit: Unit) -> Vec<String> {
    let shown = |value: f64| super::shown(value, unit);
    let mut remarks = Vec::new();
    if state >= State::Growing {
        remarks.push(format!(
            "95 % sure of {} to {} an hour; by chance alone in {} of cases",
            shown(trend.slope_low * 3_600.0),
            shown(trend.slope_high * 3_600.0),
            chance(super::chance(trend))
        ));
    }
    if let (Shape::Bend { before, after }, true) = (trend.shape, state == State::Leaking) {
        remarks.push(if after > before {
            "grows faster since a point in time: what changed then?".to_owned()
        } else {
            "the warm-up before is left out".to_owned()
        });
    }
    if let Some(half) = trend.rhythm {
        remarks.push(format!("a daily rhythm of ± {} is taken out", shown(half)));
    }
    if let Some(tooth) = trend.tooth_seconds {
        remarks.push(format!("a collector frees every {}; its floors are judged", span(tooth)));
    }
    match (trend.lives, trend.inferred_restarts) {
        (0 | 1, _) => {}
        (lives, _) if trend.is_parallel => {
            remarks.push(format!("{lives} processes, some of them side by side: each is judged by its own course"));
        }
        (lives, 0) => remarks.push(format!("{} restarts are breaks, not falls", lives - 1)),
        (lives, inferred) => {
            remarks.push(format!("{} restarts are breaks, {inferred} of them seen only by their fall", lives - 1));
        }
    }
    remarks
}

fn chance(p: f64) -> String {
    if p < 1e-6 { "less than one in a million".to_owned() } else { format!("{:.2} %", p * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (1_023.0, "1.00 KiB"),
            (1_536.0, "1.50 KiB"),
            (200.0 * 1_048_576.0, "200 MiB"),
            (-1_572_864.0, "-1.50 MiB"),
            (12.34 * 1_073_741_824.0, "12.3 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(30.0, "30 s"), (600.0, "10 min"), (86_400.0, "24 h"), (864_000.0, "10.0 days")] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!((count(0.25), count(3.0), count(1234.5)), ("0.25".into(), "3".into(), "1234".into()));
    }
}
