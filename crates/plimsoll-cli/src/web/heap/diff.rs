//! What grew between two captures, from their digests: by class, owner path, stack or mapping, with the noise of what was sampled.

use axum::http::StatusCode;
use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::format::Format;
use plimsoll_heap::profile;
use plimsoll_heap::profile::diff::Fate;
use serde::{Deserialize, Serialize};

use super::super::guard::Asker;
use super::{Answer, Listed, ROWS_MAX, Wrong, digests, listed};
use crate::capture::shelf::{Item, Shelf};
use crate::view::heap::ChangeRow;

/// Which two; by default the newest one and the oldest that has rows of the same kinds.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Which {
    from: Option<String>,
    to: Option<String>,
}

/// The difference of two captures. The names with capitals are incident 3's.
#[derive(Serialize)]
pub(super) struct Analysis {
    baseline: Listed,
    current: Listed,
    elapsed_seconds: f64,
    /// Whether both are of one life of the process; null where nobody can tell.
    same_life: Option<bool>,
    total_delta_bytes: i64,
    #[serde(rename = "durationMinutes")]
    duration_minutes: f64,
    #[serde(rename = "sizeGrowthMb")]
    size_growth_mb: f64,
    /// 0 where no time passed.
    #[serde(rename = "growthRateMbPerHour")]
    growth_rate_mb_per_hour: f64,
    /// 0 where there was nothing.
    #[serde(rename = "percentChange")]
    percent_change: f64,
    /// The word on all captures: two alone say too little.
    assessment: &'static str,
    /// The largest growth first, then what shrank.
    rows: Vec<ChangeRow>,
}

/// What rows a digest may have of what the program holds; each but the owners' is the whole once.
const KINDS: [Kind; 4] = [Kind::Owner, Kind::Class, Kind::Stack, Kind::Mapping];
const MIB: f64 = 1_048_576.0;

pub(super) fn analyse(shelf: &Shelf, which: &Which, assessment: &'static str, asker: Asker) -> Answer<Analysis> {
    let ((before, first), (after, second)) = choose(shelf, which)?;
    let both: Vec<Kind> = kinds(&first).into_iter().filter(|kind| kinds(&second).contains(kind)).collect();
    if both.is_empty() {
        let named = |digest: &Digest| match kinds(digest).as_slice() {
            [] => "nothing".to_owned(),
            kinds => kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(" and "),
        };
        let (a, b) = (named(&first), named(&second));
        let what = format!("{} tells bytes by {a}, {} by {b}: they do not compare", before.id, after.id);
        let hint = "name two of the same format (from, to); see /api/memory/snapshots";
        return Err(Wrong(StatusCode::CONFLICT, format!("{what}; {hint}")));
    }
    let mut rows = compare(&first, &second, &both, asker);
    rows.truncate(ROWS_MAX);
    let (held, holds) = (whole(&first, &both), whole(&second, &both));
    let elapsed_seconds = (after.unix_ms as f64 - before.unix_ms as f64) / 1000.0;
    let (growth, hours) = ((holds as f64 - held as f64) / MIB, elapsed_seconds / 3_600.0);
    Ok(Analysis {
        elapsed_seconds,
        same_life: first.same_life(&second),
        total_delta_bytes: delta(held, holds),
        duration_minutes: elapsed_seconds / 60.0,
        size_growth_mb: growth,
        growth_rate_mb_per_hour: if hours == 0.0 { 0.0 } else { growth / hours },
        percent_change: if held == 0 { 0.0 } else { growth * MIB / held as f64 * 100.0 },
        assessment,
        rows,
        baseline: listed(&before),
        current: listed(&after),
    })
}

/// The kinds of rows in it, of those that compare.
fn kinds(digest: &Digest) -> Vec<Kind> {
    KINDS.into_iter().filter(|kind| digest.rows.iter().any(|row| row.kind == *kind)).collect()
}

fn format(item: &Item) -> Option<Format> {
    item.file.as_ref().map(|(format, ..)| *format)
}

type Read = (Item, Digest);

/// The two that were named; where one or both were not, the newest and the oldest that go with it.
fn choose(shelf: &Shelf, which: &Which) -> Answer<(Read, Read)> {
    let usable: Vec<Item> = digests::items(shelf)?.into_iter().filter(|item| item.digest.is_some()).collect();
    let with = |item: Item| digests::read(&item).map(|digest| (item, digest));
    let named = |id: &Option<String>| id.as_ref().map(|id| digests::find(shelf, id).and_then(with)).transpose();
    // A digest knows no format: once the files are gone, two go together by what they have rows of.
    let alike = |(item, digest): &Read, other: &Item| {
        let known = format(item).zip(format(other));
        let found =
            (item.id != other.id && known.is_none_or(|(a, b)| a == b)).then(|| with(other.clone()).ok()).flatten();
        found.filter(|(_, found)| kinds(found) == kinds(digest))
    };
    let pair = match (named(&which.from)?, named(&which.to)?) {
        (Some(before), Some(after)) => Some((before, after)),
        (Some(before), None) => usable.iter().rev().find_map(|item| alike(&before, item)).map(|after| (before, after)),
        (None, after) => {
            let after = after.map_or_else(|| usable.last().cloned().map(with).transpose(), |after| Ok(Some(after)))?;
            after.and_then(|after| usable.iter().find_map(|item| alike(&after, item)).map(|before| (before, after)))
        }
    };
    let count = usable.len();
    pair.ok_or_else(|| {
        let what = format!("two captures of one format with a digest are needed, of {count} there are no such two");
        Wrong(StatusCode::NOT_FOUND, format!("{what}; see /api/memory/snapshots"))
    })
}

/// Bytes of the classes, stacks, mappings or owners together, of the first that both have: each heap once, whatever else is told of it.
fn whole(digest: &Digest, both: &[Kind]) -> u64 {
    let kind = [Kind::Class, Kind::Stack, Kind::Mapping, Kind::Owner].into_iter().find(|kind| both.contains(kind));
    let rows = digest.rows.iter().filter(|row| Some(row.kind) == kind);
    rows.map(|row| row.bytes).fold(0, u64::saturating_add)
}

fn delta(before: u64, after: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(if after > before { i64::MAX } else { i64::MIN })
}

/// What means something first, in it the largest growth; then what shrank, then noise.
fn compare(before: &Digest, after: &Digest, both: &[Kind], asker: Asker) -> Vec<ChangeRow> {
    let mut rows = Vec::new();
    for kind in both.iter().copied() {
        let changes = profile::diff::of_rows(kind, &before.rows, &after.rows, Vec::new()).changes;
        let moved = changes.iter().filter(|one| one.fate != Fate::Same);
        rows.extend(moved.map(|one| ChangeRow::of(kind, one, digests::key(&one.key, asker))));
    }
    // Stable: within a kind the order of the engine stays.
    rows.sort_by_key(|one| (one.within_noise, std::cmp::Reverse(one.delta_bytes)));
    rows
}

#[cfg(test)]
mod tests {
    use plimsoll_heap::digest::Row;

    use super::*;
    use crate::capture::due::Trigger;
    use crate::capture::shelf::Keep;

    fn row(kind: Kind, key: &str, bytes: u64, variance: f64) -> Row {
        Row { kind, key: key.into(), bytes, count: bytes / 10, variance }
    }

    #[test]
    fn what_grew_beyond_its_noise_comes_first_and_keys_are_for_the_authorised() {
        let before = Digest {
            rows: vec![
                row(Kind::Owner, "global.cache", 1000, 0.0),
                row(Kind::Class, "Session", 1000, 0.0),
                row(Kind::Stack, "noisy", 1_000_000, 1e12),
                row(Kind::Class, "same", 5, 0.0),
                row(Kind::Class, "gone", 70, 0.0),
            ],
            ..Digest::default()
        };
        let after = Digest {
            rows: vec![
                row(Kind::Owner, "global.cache", 9000, 0.0),
                row(Kind::Class, "Session", 3000, 0.0),
                row(Kind::Stack, "noisy", 2_000_000, 1e12),
                row(Kind::Class, "same", 5, 0.0),
                row(Kind::Class, "new", 500, 0.0),
            ],
            ..Digest::default()
        };
        let rows = compare(&before, &after, &KINDS, Asker::Authorised);
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_deref().unwrap()).collect();
        assert_eq!(keys, ["global.cache", "Session", "new", "gone", "noisy"]);
        assert_eq!((rows[0].delta_bytes, rows[3].delta_bytes), (8000, -70));
        assert!(rows[4].within_noise && rows[4].delta_bytes == 1_000_000);
        assert!(compare(&before, &after, &KINDS, Asker::Anybody).iter().all(|row| row.key.is_none()));
        assert_eq!((whole(&before, &[Kind::Stack]), delta(u64::MAX, 0)), (1_000_000, i64::MIN));
        let huge = Digest { rows: vec![row(Kind::Class, "a", u64::MAX, 0.0), row(Kind::Class, "b", 9, 0.0)], ..before };
        assert_eq!(whole(&huge, &KINDS), u64::MAX);
    }

    /// Captures each half hour, of these kinds; the files of those named are gone, as retention leaves them.
    fn shelf(dir: &std::path::Path, all: &[(Format, Kind, u64)], gone: usize) -> (Shelf, Vec<String>) {
        let shelf = Shelf::new(dir.join("heap"), Keep::default());
        shelf.make().unwrap();
        let mut ids = Vec::new();
        for (n, (format, kind, bytes)) in all.iter().enumerate() {
            let unix_ms = 1_700_000_000_000 + n as u64 * 1_800_000;
            let part = shelf.tmp().join("part");
            std::fs::write(&part, "{}").unwrap();
            let item = shelf.put(&part, *format, unix_ms, Trigger::Periodic, 7).unwrap();
            let digest =
                Digest { unix_ns: unix_ms * 1_000_000, rows: vec![row(*kind, "x", *bytes, 0.0)], ..Digest::default() };
            digest.write(&mut std::fs::File::create(shelf.digest_path(&item)).unwrap()).unwrap();
            if n < gone {
                std::fs::remove_file(&item.file.as_ref().unwrap().1).unwrap();
            }
            ids.push(item.id);
        }
        (shelf, ids)
    }

    #[test]
    fn only_what_is_of_one_kind_is_compared_also_where_the_files_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (maps, heap) = ((Format::Smaps, Kind::Mapping), (Format::V8Snapshot, Kind::Class));
        let of = |(format, kind): (Format, Kind), bytes| (format, kind, bytes);
        let (shelf, ids) =
            shelf(dir.path(), &[of(maps, 50 << 20), of(heap, 10 << 20), of(maps, 60 << 20), of(heap, 12 << 20)], 3);
        let ask = |from: Option<usize>, to: Option<usize>| {
            let id = |at: usize| ids[at].clone();
            analyse(&shelf, &Which { from: from.map(id), to: to.map(id) }, "growing", Asker::Authorised)
        };
        for (from, to, pair, grown) in [
            (None, None, (1, 3), 2),
            (None, Some(2), (0, 2), 10),
            (Some(0), None, (0, 2), 10),
            (Some(1), Some(3), (1, 3), 2),
        ] {
            let found = ask(from, to).unwrap_or_else(|wrong| panic!("{from:?} {to:?}: {}", wrong.1));
            assert_eq!((&found.baseline.id, &found.current.id), (&ids[pair.0], &ids[pair.1]), "{from:?} {to:?}");
            assert_eq!((found.total_delta_bytes, found.size_growth_mb), (grown << 20, grown as f64));
        }
        let found = ask(None, None).unwrap_or_else(|wrong| panic!("{}", wrong.1));
        assert_eq!((found.duration_minutes, found.growth_rate_mb_per_hour, found.percent_change), (60.0, 2.0, 20.0));
        assert_eq!(found.assessment, "growing");
        let Err(Wrong(status, why)) = ask(Some(0), Some(3)) else { panic!("mappings and classes compared") };
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why.contains("tells bytes by mapping") && why.contains("by class: they do not compare"), "{why}");
        let lonely = tempfile::tempdir().unwrap();
        let (shelf, _) = super::tests::shelf(lonely.path(), &[of(maps, 1), of(heap, 1)], 1);
        let Err(Wrong(status, why)) = analyse(&shelf, &Which::default(), "stable", Asker::Authorised) else { panic!() };
        assert_eq!(status, StatusCode::NOT_FOUND, "{why}");
    }
}
