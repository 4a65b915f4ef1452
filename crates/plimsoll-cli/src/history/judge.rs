//! The verdicts on one program's figures, and on what it says of itself by name, from its history. Read and computed in about 20 ms for a week of
//! minutes; a caller that is asked often keeps them for [`KEEP`] (60 s).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use plimsoll_heap::series::{Point, Series, Unit, of_one_time};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{self, State, Verdict};

use super::{Loaded, NAMES, Record, load};
use crate::snapshot::VerdictView;

/// How long verdicts are good for.
pub(crate) const KEEP: Duration = Duration::from_secs(60);
/// Left out at the start of each life: what a program loads first is no trend.
const WARM_UP_SECONDS: f64 = 600.0;
/// A series of counts below this is not judged: three threads that become four are not a leak of 33 %.
const COUNT_MIN: f64 = 32.0;
/// Names of days that are judged, those that were largest.
const NAMES_JUDGED_MAX: usize = 64;
/// Where memory stands in a record, and what is live of it.
const MEMORY: usize = 0;
const LIVE: usize = 11;

/// The series of the records, those with figures, in the order of [`NAMES`].
pub(crate) fn series(records: &[Record]) -> Vec<Series> {
    (0..NAMES.len()).map(|at| one(records, at)).filter(|series| !series.points().is_empty()).collect()
}

/// The series of what the program names: accounts, queues, stores.
pub(crate) fn named(records: &[Record]) -> Vec<Series> {
    let mut all = BTreeMap::<&str, (u64, Vec<Point>)>::new();
    for record in records {
        for (name, bytes) in &record.named {
            let (most, points) = all.entry(name).or_default();
            *most = (*most).max(*bytes);
            let unix_seconds = record.unix_seconds as f64;
            points.push(Point { unix_seconds, value: *bytes as f64, variance: 0.0, life: record.life });
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, (most, _))| std::cmp::Reverse(*most));
    all.truncate(NAMES_JUDGED_MAX);
    all.into_iter().map(|(name, (_, points))| Series::new(name, Unit::Bytes, points)).collect()
}

fn one(records: &[Record], at: usize) -> Series {
    let unit = if at < 2 || at == LIVE { Unit::Bytes } else { Unit::Count };
    let point = |record: &Record| {
        let value = record.figures[at]? as f64;
        Some(Point { unix_seconds: record.unix_seconds as f64, value, variance: 0.0, life: record.life })
    };
    Series::new(NAMES[at], unit, records.iter().filter_map(point))
}

/// Judges the history at `path`; memory against `budget_bytes`, `now` since 1970. What is left out is said with the verdict on memory.
pub(crate) fn of_file(path: &Path, budget_bytes: Option<u64>, now: Duration) -> Vec<VerdictView> {
    let Loaded { mut records, unread } = load(path);
    records.sort_by_key(|record| record.unix_seconds);
    let times: Vec<f64> = records.iter().map(|record| record.unix_seconds as f64).collect();
    let of_one_time = of_one_time(&times, now.as_secs_f64());
    let left_out = times.len() - of_one_time.len();
    let mut views = of_records(&records[of_one_time], budget_bytes);
    if let Some(memory) = views.iter_mut().find(|view| view.key == NAMES[MEMORY]) {
        memory.reasons.extend(crate::trend::said_of_left_out(left_out));
        let lines = crate::view::words::plural(unread, "line", "lines");
        memory.reasons.extend((unread > 0).then(|| format!("{lines} of the history cannot be read")));
    }
    views
}

/// Judges records: one verdict a figure and a name, leaks first. What is named is a part of the whole: it matters by what the process
/// holds ([`Verdict::of_part`]).
pub(crate) fn of_records(records: &[Record], budget_bytes: Option<u64>) -> Vec<VerdictView> {
    let setup = Setup::default().warm_up_seconds(WARM_UP_SECONDS);
    let all: Vec<Series> = series(records).into_iter().filter(is_judged).collect();
    let live = one(records, LIVE);
    let mut views: Vec<VerdictView> = verdict::judge_all(&all, &setup)
        .into_iter()
        .zip(&all)
        .map(|(verdict, series)| {
            let is_memory = series.key == NAMES[MEMORY];
            let limit = budget_bytes.filter(|_| is_memory).map(|bytes| bytes as f64);
            let (verdict, retention) = if is_memory && !live.points().is_empty() {
                let split = verdict::split(verdict, series, &live, &setup);
                (split.rss, split.is_retention)
            } else {
                (verdict, false)
            };
            VerdictView { retention, ..view(series, &verdict.with_limit(limit)) }
        })
        .collect();
    let held = one(records, MEMORY).points().last().map_or(0.0, |p| p.value);
    let parts = named(records);
    let judged = verdict::judge_all(&parts, &setup).into_iter().zip(&parts);
    views.extend(judged.map(|(verdict, series)| view(series, &verdict.of_part(held, Unit::Bytes))));
    views.sort_by_key(|view| std::cmp::Reverse(rank(&view.state)));
    views
}

fn is_judged(series: &Series) -> bool {
    series.unit == Unit::Bytes || series.points().iter().any(|p| p.value >= COUNT_MIN)
}

/// Leaking first, what cannot be said last.
pub(crate) fn rank(state: &str) -> u8 {
    match state {
        "leaking" => 4,
        "growing" => 3,
        "plateau" => 2,
        "stable" => 1,
        _ => 0,
    }
}

/// A verdict as it is shown and served.
pub(crate) fn view(series: &Series, verdict: &Verdict) -> VerdictView {
    let rate = verdict.rate_per_hour().filter(|_| verdict.state >= State::Growing);
    VerdictView {
        key: series.key.clone(),
        unit: if series.unit == Unit::Bytes { "bytes" } else { "count" }.to_owned(),
        state: verdict.state.as_str().to_owned(),
        confidence_ratio: verdict.confidence,
        reasons: verdict.reasons.clone(),
        now: series.points().last().map_or(0.0, |p| p.value),
        per_hour: rate.map(|rate| rate.0),
        per_hour_low: rate.map(|rate| rate.1),
        per_hour_high: rate.map(|rate| rate.2),
        time_to_limit_seconds: verdict.time_to_limit.map(|t| t.seconds),
        soonest_seconds: verdict.time_to_limit.map(|t| t.soonest_seconds),
        latest_seconds: verdict.time_to_limit.and_then(|t| t.latest_seconds),
        span_seconds: series.span_seconds(),
        readings: series.points().len() as u64,
        retention: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::FIGURES;

    fn records(hours: u64, memory: impl Fn(f64) -> f64, sockets: impl Fn(f64) -> f64) -> Vec<Record> {
        (0..hours * 60)
            .map(|minute| {
                let hour = minute as f64 / 60.0;
                let noise = ((minute as f64 * 12.9898).sin() * 43_758.5).fract().abs();
                let mut figures = [None; FIGURES];
                figures[MEMORY] = Some((memory(hour) * (1.0 + 0.002 * noise) * 1e6) as u64);
                figures[4] = Some(sockets(hour) as u64);
                figures[10] = Some(8);
                Record { unix_seconds: 1_790_000_000 + minute * 60, life: 1, figures, named: Vec::new() }
            })
            .collect()
    }

    #[test]
    fn a_leak_of_memory_and_one_of_sockets_are_told_with_their_rates() {
        let leaking = of_records(&records(36, |h| 100.0 + 2.0 * h, |h| 50.0 + 3.0 * h), Some(400_000_000));
        let words: Vec<_> = leaking.iter().map(|v| (v.key.as_str(), v.state.as_str())).collect();
        assert_eq!(words, [("memory", "leaking"), ("fds socket", "leaking")], "threads are too few to judge");
        let memory = &leaking[0];
        assert!((memory.per_hour.unwrap() / 1e6 - 2.0).abs() < 0.1, "{memory:?}");
        assert!((memory.time_to_limit_seconds.unwrap() / 3_600.0 - 114.0).abs() < 4.0, "{memory:?}");
        assert!(leaking[1].time_to_limit_seconds.is_none());
    }

    #[test]
    fn a_line_of_another_year_and_bytes_that_are_no_text_hide_no_leak() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let mut history = crate::history::History::new(path.clone());
        let days = records(48, |h| 100.0 + 2.0 * h, |_| 40.0);
        let (first, rest) = days.split_at(days.len() / 2);
        first.iter().for_each(|record| history.add(record));
        let text = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut &text, b"\xff\n").unwrap();
        let ahead = 315_360_000;
        let other = Record { unix_seconds: days[0].unix_seconds + ahead, ..days[0].clone() };
        [&other].into_iter().chain(rest).for_each(|record| history.add(record));
        let now = Duration::from_secs(days[0].unix_seconds + 49 * 3_600);
        let judged = of_file(&path, None, now);
        let memory = judged.iter().find(|view| view.key == "memory").unwrap();
        assert_eq!(memory.state, "leaking", "{memory:?}");
        let said = memory.reasons.join("; ");
        assert!(
            said.contains("1 reading of another time") && said.ends_with("1 line of the history cannot be read"),
            "{said}"
        );
    }

    #[test]
    fn a_quiet_program_is_stable_and_a_young_one_not_judged() {
        let quiet = of_records(&records(30, |_| 100.0, |_| 40.0), Some(400_000_000));
        assert!(quiet.iter().all(|v| v.state == "stable" && v.per_hour.is_none()), "{quiet:?}");
        let mut young = records(1, |h| 100.0 + 50.0 * h, |_| 40.0);
        young.truncate(12);
        assert!(of_records(&young, None).iter().all(|v| v.state == "insufficient-data"));
        assert_eq!(of_records(&[], None), []);
    }

    #[test]
    fn a_queue_that_nobody_empties_is_named_and_one_that_creeps_is_not() {
        let mut all = records(36, |h| 100.0 + 2.0 * h, |_| 40.0);
        for record in &mut all {
            let minute = (record.unix_seconds - 1_790_000_000) / 60;
            record.named = vec![
                ("queue orders".into(), 1_000_000 + minute * 30_000),
                ("queue mails".into(), minute * 7 % 50),
                ("account small".into(), 1_000 + minute * 10),
            ];
        }
        // One that came and went is judged by what there is of it.
        all[7].named.push(("store gone".into(), 5));
        let judged = of_records(&all, None);
        let word = |key: &str| judged.iter().find(|v| v.key == key).map(|v| v.state.as_str());
        assert_eq!(word("queue orders"), Some("leaking"), "{judged:?}");
        assert_eq!((word("queue mails"), word("account small")), (Some("stable"), Some("stable")));
        assert_eq!(word("store gone"), Some("insufficient-data"));
        let orders = judged.iter().find(|v| v.key == "queue orders").unwrap();
        assert!((orders.per_hour.unwrap() / 1.8e6 - 1.0).abs() < 0.01, "{orders:?}");
    }

    #[test]
    fn memory_that_grows_while_live_does_not_is_retention() {
        let mut all = records(36, |h| 100.0 + 2.0 * h, |_| 40.0);
        all.iter_mut().for_each(|record| record.figures[LIVE] = Some(60_000_000));
        let judged = of_records(&all, None);
        let memory = judged.iter().find(|v| v.key == "memory").unwrap();
        assert!(memory.retention && memory.state == "growing", "{memory:?}");
    }
}
