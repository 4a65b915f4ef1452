//! Where the heap leads: a verdict on each class, owner path, stack or mapping over all digests, in the words of `docs/trend.md`.

use plimsoll::units;
use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::series::{self, Series};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{self, State, Verdict};
use serde::Serialize;

use super::super::guard::Asker;
use super::{Answer, ROWS_MAX, digests};
use crate::capture::shelf::Shelf;

/// The trend of everything that was captured.
#[derive(Debug, Serialize)]
pub(super) struct Analysis {
    /// The gravest verdict of any series; `insufficient-data` with fewer than two captures.
    assessment: &'static str,
    /// How many digests it is made from, and over which time.
    snapshots: usize,
    /// Digests that could not be read.
    unread: usize,
    from_unix: Option<f64>,
    until_unix: Option<f64>,
    /// The gravest first, in it the fastest growth.
    series: Vec<Judged>,
}

/// One series.
#[derive(Debug, Serialize)]
struct Judged {
    kind: &'static str,
    /// Absent for who is not authorised.
    key: Option<String>,
    verdict: &'static str,
    confidence_ratio: f64,
    bytes: f64,
    rate_bytes_per_hour: Option<f64>,
    /// The 95 % interval of the rate.
    rate_low_bytes_per_hour: Option<f64>,
    rate_high_bytes_per_hour: Option<f64>,
    time_to_limit_seconds: Option<f64>,
    reasons: Vec<String>,
}

pub(super) fn analyse(shelf: &Shelf, limit_bytes: Option<u64>, asker: Asker) -> Answer<Analysis> {
    let (found, unread) = digests::newest(shelf)?;
    let times: Vec<f64> = found.iter().map(|(item, _)| item.unix_ms as f64 / 1000.0).collect();
    let digests: Vec<Digest> = found.into_iter().map(|(_, digest)| digest).collect();
    let mut all: Vec<(State, f64, Judged)> = Vec::new();
    for kind in [Kind::Owner, Kind::Class, Kind::Stack, Kind::Mapping] {
        let series = series::of_digests(&digests, kind);
        // A limit is the process's; a part of its heap reaches it no sooner than the process does.
        let setup = Setup::default().limit(limit_bytes.map(|bytes| bytes as f64));
        let verdicts = verdict::judge_all(&series, &setup);
        all.extend(series.iter().zip(verdicts).map(|(one, verdict)| judged(kind, one, verdict, asker)));
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    Ok(Analysis {
        assessment: all.first().map_or(State::InsufficientData, |(state, ..)| *state).as_str(),
        snapshots: times.len(),
        unread,
        from_unix: times.first().copied(),
        until_unix: times.last().copied(),
        series: all.into_iter().take(ROWS_MAX).map(|(.., one)| one).collect(),
    })
}

fn judged(kind: Kind, series: &Series, verdict: Verdict, asker: Asker) -> (State, f64, Judged) {
    let rate = verdict.rate_per_hour();
    let one = Judged {
        kind: kind.word(),
        key: digests::key(&series.key, asker),
        verdict: verdict.state.as_str(),
        confidence_ratio: verdict.confidence,
        bytes: series.points().last().map_or(0.0, |point| point.value),
        rate_bytes_per_hour: rate.map(|(rate, ..)| rate),
        rate_low_bytes_per_hour: rate.map(|(_, low, _)| low),
        rate_high_bytes_per_hour: rate.map(|(.., high)| high),
        time_to_limit_seconds: verdict.time_to_limit.map(|time| time.seconds),
        reasons: verdict.reasons,
    };
    (verdict.state, rate.map_or(0.0, |(rate, ..)| rate), one)
}

/// The same for people to read and to keep.
pub(super) fn markdown(name: &str, found: &Analysis) -> String {
    let mut text =
        format!("# Heap trend of {name}\n\nAssessment: **{}**, from {} captures", found.assessment, found.snapshots);
    if let (Some(from), Some(until)) = (found.from_unix, found.until_unix) {
        let span = std::time::Duration::from_secs_f64((until - from).max(0.0));
        text.push_str(&format!(" over {}", units::duration(span)));
    }
    text.push_str(".\n");
    if found.unread > 0 {
        text.push_str(&format!("\n{} digests could not be read and are left out.\n", found.unread));
    }
    text.push_str("\n| verdict | what | now | growth an hour | why |\n|---|---|---|---|---|\n");
    for one in &found.series {
        let rate = one.rate_bytes_per_hour.map_or_else(|| "–".to_owned(), per_hour);
        text.push_str(&format!(
            "| {} | {} {} | {} | {rate} | {} |\n",
            one.verdict,
            one.kind,
            one.key.as_deref().map_or_else(|| "(needs the token)".to_owned(), cell),
            units::size(one.bytes.max(0.0) as u64),
            cell(&one.reasons.join("; "))
        ));
    }
    text
}

fn per_hour(rate: f64) -> String {
    format!("{}{}", if rate < 0.0 { "−" } else { "+" }, units::size(rate.abs() as u64))
}

/// Text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::due::Trigger;
    use crate::capture::shelf::{Format, Keep};
    use plimsoll_heap::digest::Row;

    /// A day of captures, each half hour: one owner that grows by 1 MB each, one that stays.
    fn day(shelf: &Shelf) {
        shelf.make().unwrap();
        for n in 0..49_u64 {
            let unix_ms = 1_700_000_000_000 + n * 1_800_000;
            let part = shelf.tmp().join("part");
            std::fs::write(&part, "{}").unwrap();
            let item = shelf.put(&part, Format::V8Snapshot, unix_ms, Trigger::Periodic, 7).unwrap();
            let row = |key: &str, bytes| Row { kind: Kind::Owner, key: key.into(), bytes, count: 1, variance: 0.0 };
            let rows = vec![row("global.cache → Map", 10_000_000 + n * 1_000_000), row("global.catalog", 5_000_000)];
            let digest = Digest { unix_ns: unix_ms * 1_000_000, life: 1, rows, ..Digest::default() };
            digest.write(&mut std::fs::File::create(shelf.digest_path(&item)).unwrap()).unwrap();
        }
    }

    #[test]
    fn the_owner_that_grows_is_first_and_called_leaking_with_its_rate() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        let empty = analyse(&shelf, None, Asker::Authorised).unwrap_or_else(|wrong| panic!("{}", wrong.1));
        assert_eq!((empty.assessment, empty.snapshots), ("insufficient-data", 0));
        day(&shelf);
        let found = analyse(&shelf, Some(300 << 20), Asker::Authorised).unwrap_or_else(|wrong| panic!("{}", wrong.1));
        assert_eq!((found.assessment, found.snapshots), ("leaking", 49));
        let first = &found.series[0];
        assert_eq!((first.key.as_deref(), first.verdict), (Some("global.cache → Map"), "leaking"));
        let rate = first.rate_bytes_per_hour.unwrap();
        assert!((rate / 2_000_000.0 - 1.0).abs() < 0.05, "2 MB an hour: {rate}");
        assert!(first.time_to_limit_seconds.is_some() && !first.reasons.is_empty());
        assert_eq!(found.series[1].verdict, "stable");
        let text = markdown("shop", &found);
        assert!(text.contains("| leaking | owner global.cache → Map |"), "{text}");
        let open = analyse(&shelf, None, Asker::Anybody).unwrap_or_else(|wrong| panic!("{}", wrong.1));
        assert!(open.series.iter().all(|one| one.key.is_none()));
        assert!(!markdown("shop", &open).contains("global"), "names are for the authorised");
    }
}
