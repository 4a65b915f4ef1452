//! An analysis as JSON, in the words of incident 3's API (`/api/memory/trend`, `/api/memory/diff-analysis`), with what they lack
//! beside: the verdict on each key. `docs/trend.md` has the shape.

use serde_json::{Value, json};

use super::{Analysis, Sample};

const MIB: f64 = 1_048_576.0;

fn milliseconds(sample: &Sample) -> u64 {
    sample.unix_ns / 1_000_000
}

/// What the program held: the whole-process figure of the digest, else the sum of its largest kind, else the file's size.
pub(crate) fn held_bytes(sample: &Sample) -> u64 {
    use plimsoll_heap::digest::Kind;
    let rows = &sample.digest.rows;
    let whole =
        ["heap", "live", "rss"].iter().find_map(|key| rows.iter().find(|r| r.kind == Kind::Total && r.key == *key));
    let sum = |kind: Kind| rows.iter().filter(|r| r.kind == kind).map(|r| r.bytes).sum::<u64>();
    let most = [Kind::Class, Kind::Stack, Kind::Mapping].into_iter().map(sum).max().filter(|bytes| *bytes > 0);
    whole.map(|row| row.bytes).or(most).unwrap_or(sample.size_bytes)
}

fn snapshot(sample: &Sample) -> Value {
    let held = held_bytes(sample);
    json!({
        "filename": sample.path.file_name().map(|name| name.to_string_lossy().into_owned()),
        "timestamp": milliseconds(sample),
        "sizeBytes": held,
        "sizeMb": held as f64 / MIB,
    })
}

/// The growth from one sample to another, an hour.
fn pair(before: &Sample, after: &Sample, assessment: &str) -> Value {
    let growth = held_bytes(after) as f64 - held_bytes(before) as f64;
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
        "percentChange": if held_bytes(before) > 0 { growth / held_bytes(before) as f64 * 100.0 } else { 0.0 },
        "assessment": assessment,
    })
}

/// The whole of it.
pub(crate) fn of(analysis: &Analysis) -> Value {
    let samples = &analysis.samples;
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
        "diffs": samples.windows(2).map(|two| pair(&two[0], &two[1], "unknown")).collect::<Vec<_>>(),
        "diff": samples.first().zip(samples.last()).filter(|_| samples.len() > 1).map(|(a, b)| pair(a, b, overall)),
        "overallAssessment": overall,
        "avgGrowthRateMbPerHour": rate,
        "projectedGrowth24hMb": rate * 24.0,
        "lives": analysis.lives,
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
        let empty = of(&Analysis::default());
        assert_eq!((&empty["overallAssessment"], &empty["diff"]), (&json!("insufficient-data"), &Value::Null));
    }
}
