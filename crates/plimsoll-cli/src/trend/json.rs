//! An analysis as JSON, in the words of incident 3's API (`/api/memory/trend`, `/api/memory/diff-analysis`), with what they lack
//! beside: the verdict on each key. `docs/trend.md` has the shape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Analysis, Sample, Seen};

const MIB: f64 = 1_048_576.0;

fn milliseconds(sample: &Seen) -> u64 {
    sample.unix_ns / 1_000_000
}

/// What the program held, and which figure says so: the whole-process figure of the digest, else the sum of its largest kind, else the
/// file's size. Only figures of one name compare: a V8 snapshot counts the heap, a sampled profile what it saw allocated.
pub(super) fn held(sample: &Sample) -> (&'static str, u64) {
    use plimsoll_heap::digest::Kind;
    let rows = &sample.digest.rows;
    let whole = ["heap", "live", "rss"]
        .into_iter()
        .find_map(|key| rows.iter().find(|r| r.kind == Kind::Total && r.key == key).map(|row| (key, row.bytes)));
    let sum = |kind: Kind| rows.iter().filter(|r| r.kind == kind).map(|r| r.bytes).fold(0, u64::saturating_add);
    let most = [("class", Kind::Class), ("stack", Kind::Stack), ("mapping", Kind::Mapping)]
        .map(|(name, kind)| (name, sum(kind)))
        .into_iter()
        .max_by_key(|(_, bytes)| *bytes)
        .filter(|(_, bytes)| *bytes > 0);
    whole.or(most).unwrap_or(("file", sample.size_bytes))
}

/// The samples that tell each figure, in order of time.
fn by_figure(samples: &[Seen]) -> BTreeMap<&'static str, Vec<&Seen>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    samples.iter().for_each(|sample| all.entry(sample.figure).or_default().push(sample));
    all
}

fn snapshot(sample: &Seen) -> Value {
    let held = sample.held_bytes;
    json!({
        "filename": sample.path.file_name().map(|name| name.to_string_lossy().into_owned()),
        "timestamp": milliseconds(sample),
        "sizeBytes": held,
        "sizeMb": held as f64 / MIB,
    })
}

/// The growth from one sample to another, an hour.
fn pair(before: &Seen, after: &Seen, assessment: &str) -> Value {
    let growth = after.held_bytes as f64 - before.held_bytes as f64;
    let duration_ms = milliseconds(after).saturating_sub(milliseconds(before)) as f64;
    let hours = duration_ms / 3_600_000.0;
    json!({
        "baseline": snapshot(before),
        "current": snapshot(after),
        "durationMs": duration_ms,
        "durationMinutes": duration_ms / 60_000.0,
        "sizeGrowthBytes": growth,
        "sizeGrowthMb": growth / MIB,
        "growthRateMbPerHour": if hours > 0.0 { growth / MIB / hours } else { 0.0 },
        "percentChange": if before.held_bytes > 0 { growth / before.held_bytes as f64 * 100.0 } else { 0.0 },
        "assessment": assessment,
    })
}

/// The whole of it.
pub(crate) fn of(analysis: &Analysis) -> Value {
    let samples = &analysis.samples;
    let figures = by_figure(samples);
    let mut pairs: Vec<_> = figures.values().flat_map(|same| same.windows(2).map(|two| (two[0], two[1]))).collect();
    pairs.sort_by_key(|(_, after)| after.unix_ns);
    let most = figures.values().max_by_key(|same| same.len()).filter(|same| same.len() > 1);
    let overall = analysis.overall.as_str();
    let totals = analysis.judged.iter().flat_map(|judged| &judged.verdicts).filter(|v| v.unit == "bytes");
    // The figure that grows fastest stands for the whole where the whole has none of its own.
    let rate = totals.filter_map(|verdict| verdict.per_hour).fold(0.0, f64::max) / MIB;
    let judged = analysis
        .judged
        .iter()
        .map(|judged| json!({ "kind": judged.kind.word(), "keys": judged.keys, "verdicts": judged.verdicts }));
    json!({
        "snapshots": samples.iter().map(snapshot).collect::<Vec<_>>(),
        // Pairs are shown, not judged: most of what two samples differ by is noise.
        "diffs": pairs.into_iter().map(|(before, after)| pair(before, after, "unknown")).collect::<Vec<_>>(),
        // Of the figure that most of them tell.
        "diff": most.and_then(|same| Some(pair(same.first()?, same.last()?, overall))),
        "overallAssessment": overall,
        "avgGrowthRateMbPerHour": rate,
        "projectedGrowth24hMb": rate * 24.0,
        "lives": analysis.lives,
        "leftOut": analysis.left_out,
        "judged": judged.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trend::tests::leaking;

    #[test]
    fn the_words_of_the_incident_are_there() {
        let value = of(&leaking());
        assert_eq!(value["overallAssessment"], "leaking");
        assert_eq!((value["snapshots"].as_array().unwrap().len(), value["diffs"].as_array().unwrap().len()), (40, 39));
        assert!((value["avgGrowthRateMbPerHour"].as_f64().unwrap() - 0.95).abs() < 0.1, "{value}");
        assert!((value["projectedGrowth24hMb"].as_f64().unwrap() - 22.9).abs() < 2.0);
        assert_eq!(value["diff"]["durationMinutes"], 39.0 * 60.0);
        assert_eq!(value["judged"][1]["verdicts"][0]["key"], "app.cache → Map");
    }

    #[test]
    fn only_captures_that_tell_the_same_figure_are_paired() {
        use plimsoll_heap::digest::{Digest, Kind, Row};
        let row = |key: &str, bytes| Row { kind: Kind::Total, key: key.to_owned(), bytes, count: 1, variance: 0.0 };
        let sample = |hour: u64, key: &str, bytes| {
            let unix_ns = hour * 3_600_000_000_000;
            let digest = Digest { unix_ns, life: 0, marks: Vec::new(), rows: vec![row(key, bytes)] };
            super::super::seen(Sample { path: format!("{hour}").into(), unix_ns, size_bytes: 1, digest })
        };
        // A snapshot, two sampled profiles, a snapshot, a profile.
        let told = [("heap", 1_000), ("live", 70), ("live", 77), ("heap", 1_100), ("live", 84)];
        let samples = told.iter().zip(1..).map(|((key, bytes), hour)| sample(hour, key, *bytes)).collect();
        let value = of(&Analysis { samples, ..Analysis::default() });
        let of_pair = |pair: &Value| (pair["baseline"]["sizeBytes"].as_u64(), pair["current"]["sizeBytes"].as_u64());
        let shown: Vec<_> = value["diffs"].as_array().unwrap().iter().map(of_pair).collect();
        assert_eq!(shown, [(70, 77), (1_000, 1_100), (77, 84)].map(|(a, b)| (Some(a), Some(b))));
        assert_eq!(of_pair(&value["diff"]), (Some(70), Some(84)), "three profiles are more than two snapshots");
        let one = of(&Analysis { samples: vec![sample(1, "heap", 5)], ..Analysis::default() });
        assert_eq!(one["diff"], Value::Null);
    }

    #[test]
    fn what_is_larger_than_can_be_counted_is_the_most() {
        use plimsoll_heap::digest::{Digest, Kind, Row};
        let row = |key: &str| Row { kind: Kind::Class, key: key.to_owned(), bytes: u64::MAX, count: 1, variance: 0.0 };
        let digest = Digest { rows: vec![row("a"), row("b")], ..Digest::default() };
        let sample = Sample { path: "x".into(), unix_ns: 1, size_bytes: 1, digest };
        assert_eq!(held(&sample), ("class", u64::MAX));
    }

    #[test]
    fn nothing_at_all_is_said_to_be_that() {
        let empty = of(&Analysis::default());
        assert_eq!((&empty["overallAssessment"], &empty["diff"]), (&json!("insufficient-data"), &Value::Null));
    }
}
