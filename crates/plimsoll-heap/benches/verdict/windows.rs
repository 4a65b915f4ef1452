//! 24-hour windows: of a labelled series, and of series in a file that nobody labelled, there with and without a leak added.

use std::collections::BTreeMap;
use std::process::ExitCode;

use plimsoll_heap::series::{Point, Series, Unit};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{State, judge};

use super::corpus::{DAY, HOUR};
use super::rivals::RULES;

/// Windows begin so far apart.
const STEP: f64 = 12.0 * HOUR;
/// Leaks added to the windows of a file, as a part of the median.
const LEAKS: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 0.4];

/// The whole days of a series, each half a day after the last.
pub(crate) fn days(series: &Series) -> Vec<Series> {
    let (Some(first), Some(last)) = (series.points().first(), series.points().last()) else { return Vec::new() };
    let mut from = first.unix_seconds;
    let mut windows = Vec::new();
    while from + DAY <= last.unix_seconds + HOUR {
        windows.push(series.between(from, from + DAY));
        from += STEP;
    }
    windows
}

/// Every second series of a file, by the order of their names: what was looked at when the law was changed, and what was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    All,
    Even,
    Odd,
}

/// Judges the windows of a file.
pub(crate) fn of_file(path: &str, half: Half, explain: bool) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(70);
        }
    };
    let mut all = BTreeMap::<&str, Vec<Point>>::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        let (Some(key), Some(at), Some(value)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(unix_seconds), Ok(value)) = (at.trim().parse(), value.trim().parse()) else { continue };
        let life = fields.next().and_then(|life| life.trim().parse().ok()).unwrap_or(0);
        all.entry(key).or_default().push(Point { unix_seconds, value, variance: 0.0, life });
    }
    let windows: Vec<Series> = all
        .into_iter()
        .enumerate()
        .filter(|(at, _)| half == Half::All || (half == Half::Even) == (at % 2 == 0))
        .flat_map(|(_, (key, points))| days(&Series::new(key, Unit::Bytes, points)))
        .collect();
    println!("{} windows of 24 h", windows.len());
    print!("{:<26}", "says it leaks, with");
    LEAKS.iter().for_each(|leak| print!(" {:>7}", format!("+{:.0} %", leak * 100.0)));
    println!();
    row("plimsoll", &windows, &|series| judge(series, &Setup::default()).state == State::Leaking);
    for (name, rule) in RULES {
        row(name, &windows, &rule);
    }
    for leak in [0.0, 0.2] {
        println!("\nwhy, with +{:.0} %:", leak * 100.0);
        let mut why = BTreeMap::<String, usize>::new();
        for window in &windows {
            let verdict = judge(&with_leak(window, leak), &Setup::default());
            if explain && (leak > 0.0) != (verdict.state == State::Leaking) {
                let from = window.points().first().map_or(0.0, |p| p.unix_seconds);
                println!("{} from {from:.0} +{leak}: {} {:?}", window.key, verdict.state, verdict.reasons);
                println!("    {}\n    {:?}", course(&with_leak(window, leak)), verdict.trend);
            }
            let reason: String = verdict.reasons[0].chars().filter(|c| !c.is_ascii_digit()).collect();
            let reason: Vec<&str> =
                reason.split_whitespace().filter(|word| !["%", "h", ".", "days", "B"].contains(word)).collect();
            *why.entry(format!("{:<10} {}", verdict.state, reason.join(" "))).or_default() += 1;
        }
        let mut why: Vec<_> = why.into_iter().map(|(reason, n)| (n, reason)).collect();
        why.sort_unstable_by(|a, b| b.cmp(a));
        why.iter().take(12).for_each(|(n, reason)| println!("{n:>6} {reason}"));
    }
    ExitCode::SUCCESS
}

fn row(name: &str, windows: &[Series], rule: &dyn Fn(&Series) -> bool) {
    print!("{name:<26}");
    for leak in LEAKS {
        let said = windows.iter().filter(|window| rule(&with_leak(window, leak))).count();
        print!(" {:>5.1} %", said as f64 / windows.len().max(1) as f64 * 100.0);
    }
    println!();
}

fn with_leak(series: &Series, ratio: f64) -> Series {
    let points = series.points();
    let mut values: Vec<f64> = points.iter().map(|p| p.value).collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
    let from = points.first().map_or(0.0, |p| p.unix_seconds);
    let leak = |p: &Point| Point { value: p.value + ratio * median * (p.unix_seconds - from) / DAY, ..*p };
    Series::new(series.key.clone(), series.unit, points.iter().map(leak))
}

/// A series in 24 medians, for people.
pub(crate) fn course(series: &Series) -> String {
    let points = series.points();
    let first = points.first().map_or(0.0, |p| p.unix_seconds);
    let width = (series.span_seconds() / 24.0).max(f64::MIN_POSITIVE);
    let span = |p: &Point| ((p.unix_seconds - first) / width) as i64;
    let medians = points.chunk_by(|a, b| span(a) == span(b)).map(|own| {
        let mut values: Vec<f64> = own.iter().map(|p| p.value).collect();
        values.sort_by(f64::total_cmp);
        format!("{:.4}", values[values.len() / 2]).chars().take(5).collect::<String>()
    });
    medians.collect::<Vec<_>>().join(" ")
}
