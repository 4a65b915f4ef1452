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

/// Which two; by default the oldest and the newest of the newest one's format.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Which {
    from: Option<String>,
    to: Option<String>,
}

/// The difference of two captures.
#[derive(Serialize)]
pub(super) struct Analysis {
    baseline: Listed,
    current: Listed,
    elapsed_seconds: f64,
    /// Whether both are of one life of the process; null where nobody can tell.
    same_life: Option<bool>,
    total_delta_bytes: i64,
    /// The largest growth first, then what shrank.
    rows: Vec<ChangeRow>,
}

pub(super) fn analyse(shelf: &Shelf, which: &Which, asker: Asker) -> Answer<Analysis> {
    let (before, after) = choose(shelf, which)?;
    let (first, second) = (digests::read(&before)?, digests::read(&after)?);
    let mut rows = compare(&first, &second, asker);
    rows.truncate(ROWS_MAX);
    Ok(Analysis {
        elapsed_seconds: (after.unix_ms as f64 - before.unix_ms as f64) / 1000.0,
        same_life: first.same_life(&second),
        total_delta_bytes: delta(whole(&first), whole(&second)),
        rows,
        baseline: listed(&before),
        current: listed(&after),
    })
}

fn format(item: &Item) -> Option<Format> {
    item.file.as_ref().map(|(format, ..)| *format)
}

fn choose(shelf: &Shelf, which: &Which) -> Answer<(Item, Item)> {
    let usable: Vec<Item> = digests::items(shelf)?.into_iter().filter(|item| item.digest.is_some()).collect();
    let named = |id: &Option<String>| id.as_ref().map(|id| digests::find(shelf, id)).transpose();
    let after = match named(&which.to)? {
        Some(item) => Some(item),
        None => usable.last().cloned(),
    };
    let before = match (named(&which.from)?, &after) {
        (Some(item), _) => Some(item),
        (None, Some(after)) => {
            let fits = |item: &&Item| item.id != after.id && (format(item) == format(after) || format(item).is_none());
            usable.iter().find(fits).cloned()
        }
        (None, None) => None,
    };
    match (before, after) {
        (Some(before), Some(after)) => Ok((before, after)),
        _ => Err(Wrong(
            StatusCode::NOT_FOUND,
            format!("two captures with a digest are needed, {} are there; see /api/memory/snapshots", usable.len()),
        )),
    }
}

/// Bytes of the classes, stacks or mappings together: each heap once, whatever else is told of it.
fn whole(digest: &Digest) -> u64 {
    let of = |kind| digest.rows.iter().filter(|row| row.kind == kind).map(|row| row.bytes).sum::<u64>();
    [Kind::Class, Kind::Stack, Kind::Mapping].into_iter().map(of).max().unwrap_or(0)
}

fn delta(before: u64, after: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(if after > before { i64::MAX } else { i64::MIN })
}

/// What means something first, in it the largest growth; then what shrank, then noise.
fn compare(before: &Digest, after: &Digest, asker: Asker) -> Vec<ChangeRow> {
    let mut rows = Vec::new();
    for kind in [Kind::Owner, Kind::Class, Kind::Stack, Kind::Mapping] {
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
        let rows = compare(&before, &after, Asker::Authorised);
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_deref().unwrap()).collect();
        assert_eq!(keys, ["global.cache", "Session", "new", "gone", "noisy"]);
        assert_eq!((rows[0].delta_bytes, rows[3].delta_bytes), (8000, -70));
        assert!(rows[4].within_noise && rows[4].delta_bytes == 1_000_000);
        assert!(compare(&before, &after, Asker::Anybody).iter().all(|row| row.key.is_none()));
        assert_eq!((whole(&before), delta(u64::MAX, 0)), (1_000_000, i64::MIN));
    }
}
