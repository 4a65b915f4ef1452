//! Rows of chunks, as a reader asks for them: what stands in a row and in its token filter decides whether the chunk is opened.

use rusqlite::blob::Blob;
use rusqlite::{Connection, MAIN_DB, Row as SqlRow};

use crate::filter::Needed;
use crate::query::{Counted, Query};
use crate::schema::{signed, unsigned};

const COLUMNS: &str =
    "id, first_position, last_position, first_unix_ns, last_unix_ns, lines, gaps, gap_lines, levels, raw_bytes";
/// The chunks of a stream that can have entries for a query; [`bounds`] are the parameters 2 to 4.
const MATCHING: &str = "stream = ?1 AND last_unix_ns >= ?2 AND first_unix_ns < ?3 AND (gaps > 0 OR levels >= ?4)";

/// What is needed of a chunk's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) first_position: u64,
    pub(super) last_position: u64,
    pub(super) first_unix_ns: u64,
    pub(super) last_unix_ns: u64,
    pub(super) lines: u64,
    pub(super) gaps: u64,
    pub(super) gap_lines: u64,
    /// Bit n: a line of level n is in it; bit 0: one without a level.
    levels: u8,
    pub(super) raw_bytes: u64,
}

impl Row {
    pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
        let column = |at| row.get(at).map(unsigned);
        Ok(Row {
            id: row.get(0)?,
            first_position: column(1)?,
            last_position: column(2)?,
            first_unix_ns: column(3)?,
            last_unix_ns: column(4)?,
            lines: column(5)?,
            gaps: column(6)?,
            gap_lines: column(7)?,
            levels: row.get(8)?,
            raw_bytes: column(9)?,
        })
    }

    /// How many of its entries `query` wants, if the row says so: all of the time that is asked for, and all or none of the level.
    pub(super) fn counted(&self, query: &Query) -> Option<Counted> {
        let within = query.since_unix_ns.is_none_or(|since| self.first_unix_ns >= since)
            && query.until_unix_ns.is_none_or(|until| self.last_unix_ns < until);
        if !within || query.pattern.is_some() {
            return None;
        }
        let below = query.min_level.map_or(0, |level| (1u8 << level as u8) - 1);
        let lines = match (self.levels & below, self.levels & !below) {
            (0, _) => self.lines,
            (_, 0) => 0,
            _ => return None,
        };
        Some(Counted { lines, gaps: self.gaps, gap_lines: self.gap_lines })
    }
}

/// All chunks, in this order of their positions.
pub(super) fn select_all(order: &str) -> String {
    format!("SELECT {COLUMNS} FROM chunk ORDER BY last_position {order}")
}

/// The first chunk of a stream that ends at a position or behind it, whatever is in it.
pub(super) fn select_first() -> String {
    format!("SELECT {COLUMNS} FROM chunk WHERE stream = ?1 AND last_position >= ?2 ORDER BY last_position LIMIT 1")
}

/// The beginning of a look for chunks that match: by the index that has all of it, where there is one.
pub(super) fn select_matching(bare: bool) -> String {
    let index = if bare { "" } else { "INDEXED BY chunk_facts" };
    format!("SELECT {COLUMNS} FROM chunk {index} WHERE {MATCHING}")
}

/// What a chunk's row must have: latest time at least, earliest time less than, level mask at least.
pub(super) fn bounds(query: &Query) -> (i64, i64, i64) {
    let level = query.min_level.map_or(0, |level| 1 << level as i64);
    (query.since_unix_ns.map_or(0, signed), query.until_unix_ns.map_or(i64::MAX, signed), level)
}

/// A column of blobs, read by one handle that goes from row to row.
pub(super) struct Blobs<'c> {
    connection: &'c Connection,
    table: &'static str,
    column: &'static str,
    handle: Option<Blob<'c>>,
}

impl<'c> Blobs<'c> {
    pub(super) fn chunks(connection: &'c Connection) -> Blobs<'c> {
        Blobs { connection, table: "chunk", column: "blob", handle: None }
    }

    fn filters(connection: &'c Connection) -> Blobs<'c> {
        Blobs { connection, table: "filter", column: "bits", handle: None }
    }

    /// Stands at the blob of this row.
    fn at(&mut self, id: i64) -> rusqlite::Result<&Blob<'c>> {
        let handle = match self.handle.take() {
            Some(mut handle) => handle.reopen(id).map(|()| handle),
            None => self.connection.blob_open(MAIN_DB, self.table, self.column, id, true),
        };
        Ok(self.handle.insert(handle?))
    }

    /// The blob of this row, in place of what `into` had.
    pub(super) fn read(&mut self, id: i64, into: &mut Vec<u8>) -> rusqlite::Result<()> {
        let blob = self.at(id)?;
        into.resize(blob.len(), 0);
        blob.read_at_exact(into, 0)
    }
}

/// Asks chunks' token filters.
pub(super) struct Filters<'c> {
    blobs: Blobs<'c>,
    /// `None`: every chunk may match.
    needed: Option<&'c Needed>,
}

impl<'c> Filters<'c> {
    /// `bare`: there are none.
    pub(super) fn new(connection: &'c Connection, query: &'c Query, bare: bool) -> Filters<'c> {
        Filters { blobs: Blobs::filters(connection), needed: query.needed().filter(|_| !bare) }
    }

    /// Whether the chunk may have what is needed. A chunk with gaps does: they are handed out whatever is looked for. So does one
    /// without a filter.
    pub(super) fn may_match(&mut self, row: &Row) -> bool {
        let Some(needed) = self.needed.filter(|_| row.gaps == 0) else { return true };
        let Ok(blob) = self.blobs.at(row.id) else { return true };
        needed.may_be_in(&mut |into, at| blob.read_at_exact(into, at).is_ok())
    }
}
