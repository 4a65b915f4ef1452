//! Verdicts in words: one line of what grows, and for each that does why, how fast, and when the budget is reached.

use super::text::{Line, Tone};
use super::words;
use crate::snapshot::VerdictView;

/// Figures named in the one line; more are counted.
const NAMED: usize = 3;

/// The tone of a verdict.
pub(crate) fn tone(state: &str) -> Tone {
    match state {
        "leaking" => Tone::Alarm,
        "growing" => Tone::Warn,
        "stable" => Tone::Good,
        "plateau" => Tone::Note,
        _ => Tone::Dim,
    }
}

/// A value of its unit: `1.5 MiB`, `42`.
pub(crate) fn value(value: f64, unit: &str) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    match unit {
        "bytes" => format!("{sign}{}", words::size(value.abs() as u64)),
        _ if value.abs() >= 10.0 || value == value.round() => format!("{sign}{}", words::count(value.abs() as u64)),
        _ => format!("{value:.1}"),
    }
}

/// `+12.3 MiB/h`
pub(crate) fn rate(per_hour: f64, unit: &str) -> String {
    format!("{}{}/h", if per_hour < 0.0 { "" } else { "+" }, value(per_hour, unit))
}

/// `19 h (17 h to 22 h)`
pub(crate) fn time_to_limit(verdict: &VerdictView) -> Option<String> {
    let seconds = verdict.time_to_limit_seconds?;
    let within = verdict.soonest_seconds.map(|soonest| {
        let latest = verdict.latest_seconds.map_or_else(|| "never".to_owned(), words::seconds);
        format!(" ({} to {latest})", words::seconds(soonest))
    });
    Some(words::seconds(seconds) + &within.unwrap_or_default())
}

/// What grows, leaks first; `None` where there is no history.
pub(crate) fn facts(verdicts: &[VerdictView]) -> Option<Line> {
    let first = verdicts.first()?;
    let grows = |verdict: &&VerdictView| verdict.per_hour.is_some();
    let growing: Vec<&VerdictView> = verdicts.iter().filter(grows).collect();
    if growing.is_empty() {
        let since = format!("  over {}", words::seconds(first.span_seconds));
        return Some(match first.state.as_str() {
            "insufficient-data" => Line::new().add(Tone::Dim, "too few readings to say"),
            _ => Line::new().add(Tone::Good, "nothing grows").add(Tone::Dim, since),
        });
    }
    let mut line = Line::new();
    for (at, verdict) in growing.iter().take(NAMED).enumerate() {
        line = line.add(Tone::Dim, if at > 0 { " · " } else { "" }).plain(format!("{} ", verdict.key));
        line = line.add(tone(&verdict.state), &verdict.state);
        if let Some(per_hour) = verdict.per_hour {
            line = line.plain(format!(" {}", rate(per_hour, &verdict.unit)));
        }
        if let Some(left) = verdict.time_to_limit_seconds {
            line = line.add(Tone::Dim, format!(", budget in {}", words::seconds(left)));
        }
        if verdict.retention {
            line = line.add(Tone::Note, ", retention");
        }
    }
    let more = growing.len().saturating_sub(NAMED);
    Some(if more > 0 { line.add(Tone::Dim, format!(" · {more} more")) } else { line })
}

/// Why, a line for each figure that grows.
pub(crate) fn reasons(verdicts: &[VerdictView]) -> Vec<Line> {
    let grows = verdicts.iter().filter(|verdict| verdict.per_hour.is_some());
    let line = |verdict: &VerdictView| {
        let mut line = Line::new().plain(format!("{}: ", verdict.key)).plain(verdict.reasons.join("; "));
        if let Some(left) = time_to_limit(verdict) {
            line = line.plain(format!("; budget in {left}"));
        }
        line.add(
            Tone::Dim,
            format!("  ({} readings, {})", words::count(verdict.readings), words::seconds(verdict.span_seconds)),
        )
    };
    grows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    fn shown(verdicts: &[VerdictView]) -> String {
        facts(verdicts).map(|line| write_lines(&[line], false)).unwrap_or_default()
    }

    #[test]
    fn what_grows_is_named_with_its_rate_and_its_end() {
        let verdicts = sample::verdicts();
        assert_eq!(shown(&verdicts), "memory leaking +12.0 MiB/h, budget in 3 h 30 min · fds socket growing +4.5/h\n");
        let why = write_lines(&reasons(&verdicts), false);
        assert!(
            why.contains("memory: grew steadily by 45 %") && why.contains("budget in 3 h 30 min (3 h to 4 h)"),
            "{why}"
        );
    }

    #[test]
    fn quiet_and_young_programs() {
        assert_eq!(shown(&[]), "");
        let mut verdicts = sample::verdicts();
        verdicts.iter_mut().for_each(|verdict| {
            verdict.state = "stable".into();
            verdict.per_hour = None;
        });
        assert_eq!(shown(&verdicts), "nothing grows  over 1 d 12 h\n");
        verdicts.iter_mut().for_each(|verdict| verdict.state = "insufficient-data".into());
        assert_eq!(shown(&verdicts), "too few readings to say\n");
    }

    #[test]
    fn values_have_their_units() {
        for (number, unit, text) in
            [(1_572_864.0, "bytes", "+1.5 MiB/h"), (-2048.0, "bytes", "-2.0 KiB/h"), (0.25, "count", "+0.2/h")]
        {
            assert_eq!(rate(number, unit), text);
        }
    }
}
