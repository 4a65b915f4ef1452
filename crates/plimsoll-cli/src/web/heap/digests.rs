//! The digests on the shelf, read; and their rows as they are told.

use axum::http::StatusCode;
use plimsoll_heap::digest::{Digest, Row};
use serde::Serialize;

use super::super::guard::Asker;
use super::{Answer, DIGESTS_BYTES_MAX, DIGESTS_MAX, Wrong};
use crate::capture::shelf::{Item, Shelf};

/// A row as told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RowView {
    pub(super) kind: &'static str,
    /// Absent for who is not authorised.
    pub(super) key: Option<String>,
    pub(super) bytes: u64,
    pub(super) count: u64,
    /// One standard deviation of `bytes` where they were sampled; 0 where they were counted.
    pub(super) sigma_bytes: f64,
}

/// Whether `asker` may know keys.
pub(super) fn key(row: &str, asker: Asker) -> Option<String> {
    (asker == Asker::Authorised).then(|| row.to_owned())
}

/// Everything on the shelf, oldest first.
pub(super) fn items(shelf: &Shelf) -> Answer<Vec<Item>> {
    shelf.items().map_err(|why| Wrong(StatusCode::INTERNAL_SERVER_ERROR, why))
}

/// The capture of this id.
pub(super) fn find(shelf: &Shelf, id: &str) -> Answer<Item> {
    let unknown = || Wrong(StatusCode::NOT_FOUND, format!("no capture {id:?}; see /api/memory/snapshots"));
    items(shelf)?.into_iter().find(|item| item.id == id).ok_or_else(unknown)
}

/// Its digest.
pub(super) fn read(item: &Item) -> Answer<Digest> {
    let path = item.digest.as_ref().ok_or_else(|| {
        Wrong(StatusCode::NOT_FOUND, format!("{} has no digest: it could not be made, see plimsoll status", item.id))
    })?;
    let failed = |why: String| Wrong(StatusCode::INTERNAL_SERVER_ERROR, format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    Digest::read(file).map_err(|error| failed(error.to_string()))
}

/// The newest captures that have a digest, oldest first, at most [`DIGESTS_MAX`] and [`DIGESTS_BYTES_MAX`], and how many could not be read.
pub(super) fn newest(shelf: &Shelf) -> Answer<(Vec<(Item, Digest)>, usize)> {
    let mut with: Vec<Item> = items(shelf)?.into_iter().filter(|item| item.digest.is_some()).collect();
    let mut bytes = 0;
    let has_room = |item: &&Item| {
        let length = item.digest.as_ref().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.len());
        bytes += length;
        bytes <= DIGESTS_BYTES_MAX
    };
    let newest = with.iter().rev().take(DIGESTS_MAX).take_while(has_room).count();
    let beyond = with.len() - newest;
    with.drain(..beyond);
    let all = with.len();
    let read: Vec<(Item, Digest)> =
        with.into_iter().filter_map(|item| read(&item).ok().map(|one| (item, one))).collect();
    let unread = all - read.len();
    Ok((read, unread))
}

/// The rows of a digest, the largest first.
pub(super) fn rows(digest: &Digest, asker: Asker) -> Vec<RowView> {
    let mut rows: Vec<&Row> = digest.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows.into_iter()
        .map(|row| RowView {
            kind: row.kind.word(),
            key: key(&row.key, asker),
            bytes: row.bytes,
            count: row.count,
            sigma_bytes: row.variance.max(0.0).sqrt(),
        })
        .collect()
}
