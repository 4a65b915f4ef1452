//! Sealed chunks, read from any process. Every look at the database is one short transaction, over before anything is handed out: a
//! reader that stands still (a pager) keeps no old state of the database alive.
//!
//! Memory: one decompressed chunk per stream, each at most 16 MiB, usually 1 to 2.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row as SqlRow};

use crate::chunk::{Chunk, Item, Items};
use crate::query::Query;
use crate::schema::{self, BUSY, Position, failed, signed, unsigned};
use crate::split::Found;
use crate::{GapReason, StoreError, Stream};

/// The reading end of the database.
pub(crate) struct Archive {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    /// Opened as a file that does not change: what it was like then.
    frozen: Option<(u64, i64, i64)>,
    slots: [Slot; 3],
}

/// Device and inode.
type Identity = (u64, u64);

/// The chunk of a stream that is being read.
#[derive(Default)]
struct Slot {
    row: Option<Row>,
    chunk: Chunk,
    /// The chunk cannot be read: its row says what is missing.
    damaged: bool,
}

/// What is needed of a chunk's row.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: i64,
    last_position: u64,
    first_unix_ns: u64,
    last_unix_ns: u64,
    /// Lines in it and in its gaps.
    lines: u64,
    raw_bytes: u64,
}

const COLUMNS: &str = "id, last_position, first_unix_ns, last_unix_ns, lines + gap_lines, raw_bytes";
/// The chunks of a stream that can have entries for a query.
const MATCHING: &str = "stream = ?1 AND last_unix_ns >= ?2 AND first_unix_ns < ?3 AND (gaps > 0 OR levels >= ?4)";

/// Where a walk ended.
pub(crate) enum Walked {
    /// Everything that is sealed was handed out; sealing has come to here.
    All(Position),
    /// The next entry lies at or behind the horizon.
    Horizon,
    /// The sink had enough with the entry at this position.
    Enough(u64),
}

impl Archive {
    /// Opens the database at `path`; `None` if there is none yet. Nothing is written, and no file is made in a directory that the
    /// caller may not write.
    pub(crate) fn open(path: &Path) -> Result<Option<Archive>, StoreError> {
        let Some((identity, content)) = look_at(path) else { return Ok(None) };
        let plain =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        match Archive::check(plain, path, identity) {
            // In WAL mode even a reader needs the log's files, and may not be allowed to make them. Without a log nobody writes, and
            // the database file alone is the whole truth.
            Err(StoreError::Database { source, .. }) if may_not_make_files(&source) && !has_log(path) => {
                let archive = Archive::check(Archive::connect_immutable(path), path, identity)?;
                Ok(archive.map(|archive| Archive { frozen: Some(content), ..archive }))
            }
            other => other,
        }
    }

    fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
        use std::os::unix::ffi::OsStrExt;
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
                other => uri.push_str(&format!("%{other:02x}")),
            }
        }
        uri.push_str("?immutable=1");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(uri, flags)
    }

    fn check(
        connection: rusqlite::Result<Connection>,
        path: &Path,
        identity: Identity,
    ) -> Result<Option<Archive>, StoreError> {
        let failed = failed(path);
        let connection = connection.map_err(&failed)?;
        connection.busy_timeout(BUSY).map_err(&failed)?;
        connection.execute_batch("PRAGMA cache_size = -1024; PRAGMA trusted_schema = OFF;").map_err(&failed)?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], schema::first).map_err(&failed)?;
        if tables == 0 {
            // Its maker has not come further than the empty file.
            return Ok(None);
        }
        schema::check_version(&connection, path)?;
        let slots = Stream::ALL.map(|_| Slot::default());
        Ok(Some(Archive { connection, path: path.to_path_buf(), identity, frozen: None, slots }))
    }

    /// Whether the file under its name is still the one that is open, and may be read as it was opened.
    pub(crate) fn is_still(&self) -> bool {
        let Some((identity, content)) = look_at(&self.path) else { return false };
        let unchanged = self.frozen.is_none_or(|frozen| frozen == content && !has_log(&self.path));
        identity == self.identity && unchanged
    }

    /// How far sealing has come.
    pub(crate) fn position(&self) -> Result<Position, StoreError> {
        schema::position(&self.connection).map_err(failed(&self.path))
    }

    /// Gives the chunks' memory back.
    pub(crate) fn rest(&mut self) {
        self.slots = Stream::ALL.map(|_| Slot::default());
    }

    /// Hands out what is sealed at `from` or behind it, in the order of positions, up to `horizon`. Entries of chunks that cannot
    /// match `query` are left out; others are for the caller to judge.
    pub(crate) fn walk(
        &mut self,
        query: &Query,
        from: u64,
        horizon: u64,
        each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
    ) -> Result<Walked, StoreError> {
        let mut wanted = [from; 3];
        loop {
            let sealed = self.look(query, &wanted).map_err(failed(&self.path))?;
            if self.slots.iter().all(|slot| slot.row.is_none()) {
                return Ok(Walked::All(sealed));
            }
            if let Some(end) = merge(&self.slots, &mut wanted, horizon, each) {
                return Ok(end);
            }
        }
    }

    /// Loads, in one transaction, each stream's first chunk that has something at or behind the wanted position. Chunks that appear
    /// later lie behind all that are there now: a seal writes all streams up to one position.
    fn look(&mut self, query: &Query, wanted: &[u64; 3]) -> rusqlite::Result<Position> {
        let read = self.connection.unchecked_transaction()?;
        for stream in Stream::ALL {
            let slot = &mut self.slots[stream.index()];
            if !query.takes_stream(stream) {
                slot.row = None;
                continue;
            }
            let find = format!(
                "SELECT {COLUMNS}, blob FROM chunk WHERE {MATCHING} AND last_position >= ?5 ORDER BY last_position LIMIT 1"
            );
            let mut find = read.prepare_cached(&find)?;
            let (since, until, level) = bounds(query);
            let mut rows = find.query((stream.number(), since, until, level, signed(wanted[stream.index()])))?;
            let Some(found) = rows.next()? else {
                slot.row = None;
                continue;
            };
            let row = Row::read(found)?;
            if slot.row.map(|r| r.id) != Some(row.id) {
                slot.damaged = slot.chunk.load(found.get_ref(6)?.as_blob().unwrap_or_default()).is_err();
                slot.row = Some(row);
            }
        }
        let sealed = schema::position(&read)?;
        Ok(sealed)
    }

    /// Hands out entries from the newest chunk backwards: chunk by chunk, forwards inside each, until `enough` says that nothing at or
    /// before a position is wanted any more.
    pub(crate) fn walk_back(
        &mut self,
        query: &Query,
        each: &mut dyn FnMut(Stream, Item<'_>),
        enough: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StoreError> {
        // (the newest chunk of the stream that was not handed out, where to look for the next)
        let mut next = [None::<Row>; 3];
        let mut before = [i64::MAX; 3];
        loop {
            let mut newest: Option<(Stream, Row)> = None;
            for stream in Stream::ALL.into_iter().filter(|s| query.takes_stream(*s)) {
                let at = stream.index();
                if next[at].is_none() && before[at] > 0 {
                    next[at] = self.before(query, stream, before[at]).map_err(failed(&self.path))?;
                    before[at] = next[at].map_or(0, |row| signed(row.last_position));
                }
                if let Some(row) = next[at]
                    && newest.is_none_or(|(_, other)| row.last_position > other.last_position)
                {
                    newest = Some((stream, row));
                }
            }
            let Some((stream, row)) = newest else { return Ok(()) };
            if enough(row.last_position) {
                return Ok(());
            }
            next[stream.index()] = None;
            let slot = &mut self.slots[0];
            let blob = "SELECT blob FROM chunk WHERE id = ?1";
            let load = |r: &SqlRow<'_>| Ok(slot.chunk.load(r.get_ref(0)?.as_blob().unwrap_or_default()));
            let loaded =
                self.connection.prepare_cached(blob).and_then(|mut find| find.query_row([row.id], load).optional());
            let Some(loaded) = loaded.map_err(failed(&self.path))? else { continue };
            slot.row = Some(row);
            slot.damaged = loaded.is_err();
            for item in slot.entries() {
                each(stream, item);
            }
        }
    }

    fn before(&self, query: &Query, stream: Stream, position: i64) -> rusqlite::Result<Option<Row>> {
        let find = format!(
            "SELECT {COLUMNS} FROM chunk WHERE {MATCHING} AND last_position < ?5 ORDER BY last_position DESC LIMIT 1"
        );
        let (since, until, level) = bounds(query);
        let mut find = self.connection.prepare_cached(&find)?;
        find.query_row((stream.number(), since, until, level, position), Row::read).optional()
    }
}

/// Hands out the loaded chunks' entries from the wanted positions on. `None`: one of them is used up.
fn merge(
    slots: &[Slot; 3],
    wanted: &mut [u64; 3],
    horizon: u64,
    each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
) -> Option<Walked> {
    let mut entries = Stream::ALL.map(|stream| {
        let from = wanted[stream.index()];
        slots[stream.index()].entries().skip_while(move |item| item.position < from).peekable()
    });
    loop {
        let mut first: Option<(Stream, u64)> = None;
        for stream in Stream::ALL {
            let at = stream.index();
            let Some(row) = slots[at].row else { continue };
            let Some(item) = entries[at].peek() else {
                wanted[at] = row.last_position + 1;
                return None;
            };
            if first.is_none_or(|(_, position)| item.position < position) {
                first = Some((stream, item.position));
            }
        }
        let (stream, position) = first?;
        if position >= horizon {
            return Some(Walked::Horizon);
        }
        let item = entries[stream.index()].next()?;
        if each(stream, item).is_break() {
            return Some(Walked::Enough(position));
        }
        wanted[stream.index()] = position + 1;
    }
}

impl Slot {
    fn entries(&self) -> Entries<'_> {
        let items = (self.row.is_some() && !self.damaged).then(|| self.chunk.items());
        Entries { items, row: self.row, lost: self.row.is_some() && self.damaged }
    }
}

/// A chunk's entries; in place of what cannot be read, a gap.
struct Entries<'a> {
    items: Option<Items<'a>>,
    row: Option<Row>,
    lost: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if let Some(items) = self.items.as_mut() {
            match items.next()? {
                Ok(item) => return Some(item),
                Err(_) => (self.items, self.lost) = (None, true),
            }
        }
        let row = self.row.filter(|_| std::mem::take(&mut self.lost))?;
        let found = Found::Gap {
            lines: row.lines,
            bytes: row.raw_bytes,
            from_unix_ns: row.first_unix_ns,
            to_unix_ns: row.last_unix_ns,
            reason: GapReason::DatabaseLost,
        };
        Some(Item { position: row.last_position, at_unix_ns: row.last_unix_ns, level: None, found })
    }
}

impl Row {
    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
        let column = |at| row.get(at).map(unsigned);
        Ok(Row {
            id: row.get(0)?,
            last_position: column(1)?,
            first_unix_ns: column(2)?,
            last_unix_ns: column(3)?,
            lines: column(4)?,
            raw_bytes: column(5)?,
        })
    }
}

/// What a chunk's row must have: latest time at least, earliest time less than, level mask at least.
fn bounds(query: &Query) -> (i64, i64, i64) {
    let level = query.min_level.map_or(0, |level| 1 << level as i64);
    (query.since_unix_ns.map_or(0, signed), query.until_unix_ns.map_or(i64::MAX, signed), level)
}

fn may_not_make_files(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

fn has_log(path: &Path) -> bool {
    std::fs::metadata(schema::beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Which file it is; and its length and time of change.
fn look_at(path: &Path) -> Option<(Identity, (u64, i64, i64))> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|m| ((m.dev(), m.ino()), (m.len(), m.mtime(), m.mtime_nsec())))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
