//! Sealed chunks, read from any process. Every look at the database is one short transaction, over before anything is handed out: a
//! reader that stands still (a pager) keeps no old state of the database alive.
//!
//! Memory: one decompressed chunk per stream, each at most 16 MiB, usually 1 to 2, besides the hot window.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::blob::Blob;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Row as SqlRow};

use crate::chunk::{Chunk, Item, Items};
use crate::filter::Needed;
use crate::hot::{HotWindow, Key};
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
    /// It is of version 1: no token filters, no covering index.
    bare: bool,
    hot: Option<Arc<HotWindow>>,
    slots: [Slot; 3],
}

/// Device and inode.
type Identity = (u64, u64);

/// The chunk of a stream that is being read.
#[derive(Default)]
struct Slot {
    row: Option<Row>,
    chunk: Arc<Chunk>,
    /// The chunk cannot be read: its row says what is missing.
    damaged: bool,
}

/// What is needed of a chunk's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    id: i64,
    first_position: u64,
    last_position: u64,
    first_unix_ns: u64,
    last_unix_ns: u64,
    /// Lines in it and in its gaps.
    lines: u64,
    gaps: u64,
    raw_bytes: u64,
}

const COLUMNS: &str =
    "id, first_position, last_position, first_unix_ns, last_unix_ns, lines + gap_lines, gaps, raw_bytes";
/// The chunks of a stream that can have entries for a query.
const MATCHING: &str = "stream = ?1 AND last_unix_ns >= ?2 AND first_unix_ns < ?3 AND (gaps > 0 OR levels >= ?4)";

/// What of a log is in the hot window: everything from `from_unix_ns` on, and nothing is claimed for what is before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Chunks that are there, the newest ones.
    pub chunks: u64,
    /// Chunks that the log has.
    pub of_chunks: u64,
    /// The earliest time in them; `None`: there are none.
    pub from_unix_ns: Option<u64>,
    /// All of the log is there.
    pub complete: bool,
}

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
        let bare = schema::check_version(&connection, path)? == 1;
        let slots = Stream::ALL.map(|_| Slot::default());
        Ok(Some(Archive { connection, path: path.to_path_buf(), identity, frozen: None, bare, hot: None, slots }))
    }

    /// Chunks are looked for in `hot` first, and kept there.
    pub(crate) fn with_hot(mut self, hot: Option<Arc<HotWindow>>) -> Archive {
        self.hot = hot;
        self
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
            let sealed = self.look(query, &mut wanted).map_err(failed(&self.path))?;
            if self.slots.iter().all(|slot| slot.row.is_none()) {
                return Ok(Walked::All(sealed));
            }
            if let Some(end) = merge(&self.slots, &mut wanted, horizon, each) {
                return Ok(end);
            }
        }
    }

    /// Loads, in one transaction, each stream's first chunk that has something at or behind the wanted position, which moves over those
    /// that lack what is looked for. Chunks that appear later lie behind all that are there now: a seal writes all streams up to one
    /// position.
    fn look(&mut self, query: &Query, wanted: &mut [u64; 3]) -> rusqlite::Result<Position> {
        let read = self.connection.unchecked_transaction()?;
        let mut filters = Filters { connection: &read, needed: query.needed().filter(|_| !self.bare), blob: None };
        let find = format!("{} AND last_position >= ?5 ORDER BY last_position", select(self.bare));
        for stream in Stream::ALL {
            let slot = &mut self.slots[stream.index()];
            let wanted = &mut wanted[stream.index()];
            let mut next = None;
            if query.takes_stream(stream) {
                let mut find = read.prepare_cached(&find)?;
                let (since, until, level) = bounds(query);
                let mut rows = find.query((stream.number(), since, until, level, signed(*wanted)))?;
                while let Some(row) = rows.next()?.map(Row::read).transpose()? {
                    if filters.may_match(&row) {
                        next = Some(row);
                        break;
                    }
                    *wanted = row.last_position + 1;
                }
            }
            match next {
                Some(row) if slot.row == Some(row) => {}
                Some(row) => {
                    slot.load(&read, self.hot.as_deref(), self.identity, row, false)?;
                }
                None => slot.row = None,
            }
        }
        drop(filters);
        schema::position(&read)
    }

    /// Loads the newest chunks into the hot window, newest first, until one finds no room there or `bytes` of them were loaded.
    pub(crate) fn warm(&mut self, bytes: u64) -> Result<Coverage, StoreError> {
        let Some(hot) = self.hot.clone() else { return Ok(Coverage::default()) };
        let mut covered = Coverage { complete: true, ..Coverage::default() };
        let failed = failed(&self.path);
        let read = self.connection.unchecked_transaction().map_err(&failed)?;
        let rows = || {
            let all = format!("SELECT {COLUMNS} FROM chunk ORDER BY last_position DESC");
            let mut find = read.prepare_cached(&all)?;
            let mut rows = find.query([])?;
            let (mut loaded, mut slot) = (0, Slot::default());
            while let Some(row) = rows.next()?.map(Row::read).transpose()? {
                covered.of_chunks += 1;
                if !covered.complete {
                    continue;
                }
                let key = Key {
                    file: self.identity,
                    chunk: row.id,
                    first_position: row.first_position,
                    last_position: row.last_position,
                };
                if !hot.has(&key) {
                    let before = hot.held_bytes();
                    slot.chunk = Arc::default();
                    slot.load(&read, None, self.identity, row, false)?;
                    let kept = !slot.damaged && hot.put(key, &slot.chunk, false);
                    loaded += hot.held_bytes().saturating_sub(before);
                    covered.complete = kept && loaded <= bytes;
                    if !kept {
                        continue;
                    }
                }
                covered.chunks += 1;
                covered.from_unix_ns = Some(covered.from_unix_ns.unwrap_or(u64::MAX).min(row.first_unix_ns));
            }
            Ok(())
        };
        let done: rusqlite::Result<()> = { rows }();
        done.map_err(&failed)?;
        covered.complete &= covered.chunks == covered.of_chunks;
        Ok(covered)
    }

    /// Hands out entries before `below`, from the newest chunk backwards: chunk by chunk, forwards inside each, until `enough` says that
    /// nothing at or before a position is wanted any more.
    pub(crate) fn walk_back(
        &mut self,
        query: &Query,
        below: u64,
        each: &mut dyn FnMut(Stream, Item<'_>),
        enough: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StoreError> {
        // The newest chunk of each stream that was not handed out, and before which position to look for the one after it.
        let mut next = [None::<Row>; 3];
        let mut low = [below; 3];
        loop {
            let mut newest: Option<(Stream, Row)> = None;
            for stream in Stream::ALL.into_iter().filter(|s| query.takes_stream(*s)) {
                let at = stream.index();
                if next[at].is_none() && low[at] > 0 {
                    next[at] = self.before(query, stream, low[at]).map_err(failed(&self.path))?;
                    low[at] = next[at].map_or(0, |row| row.first_position.min(low[at]));
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
            let loaded = slot.load(&self.connection, self.hot.as_deref(), self.identity, row, true);
            if !loaded.map_err(failed(&self.path))? {
                // Deleted, or merged with others, meanwhile: looked for again from where it ended.
                low[stream.index()] = row.last_position.saturating_add(1).min(below);
                continue;
            }
            for item in slot.entries().filter(|item| item.position < below) {
                each(stream, item);
            }
        }
    }

    /// The newest chunk of a stream with entries before `low` that may be wanted.
    fn before(&self, query: &Query, stream: Stream, low: u64) -> rusqlite::Result<Option<Row>> {
        let read = self.connection.unchecked_transaction()?;
        // A chunk with entries on both sides: it was merged from several meanwhile, or `low` lies inside it.
        let across = format!(
            "SELECT {COLUMNS} FROM chunk WHERE stream = ?1 AND last_position >= ?2 ORDER BY last_position LIMIT 1"
        );
        let across = read.prepare_cached(&across)?.query_row((stream.number(), signed(low)), Row::read).optional()?;
        if let Some(row) = across.filter(|row| row.first_position < low) {
            return Ok(Some(row));
        }
        let mut filters = Filters { connection: &read, needed: query.needed().filter(|_| !self.bare), blob: None };
        let find = format!("{} AND last_position < ?5 ORDER BY last_position DESC", select(self.bare));
        let (since, until, level) = bounds(query);
        let mut find = read.prepare_cached(&find)?;
        let mut rows = find.query((stream.number(), since, until, level, signed(low)))?;
        while let Some(row) = rows.next()?.map(Row::read).transpose()? {
            if filters.may_match(&row) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

/// The beginning of a look for chunks that match: by the index that has all of it, where there is one.
fn select(bare: bool) -> String {
    let index = if bare { "" } else { "INDEXED BY chunk_facts" };
    format!("SELECT {COLUMNS} FROM chunk {index} WHERE {MATCHING}")
}

/// Asks chunks' token filters, by one handle.
struct Filters<'c> {
    connection: &'c Connection,
    /// `None`: every chunk may match.
    needed: Option<&'c Needed>,
    blob: Option<Blob<'c>>,
}

impl Filters<'_> {
    /// Whether the chunk may have what is needed. A chunk with gaps does: they are handed out whatever is looked for. So does one
    /// without a filter.
    fn may_match(&mut self, row: &Row) -> bool {
        let Some(needed) = self.needed.filter(|_| row.gaps == 0) else { return true };
        if self.blob.as_mut().is_some_and(|blob| blob.reopen(row.id).is_err()) {
            self.blob = None;
        }
        if self.blob.is_none() {
            self.blob = self.connection.blob_open(MAIN_DB, c"filter", c"bits", row.id, true).ok();
        }
        let Some(blob) = self.blob.as_ref() else { return true };
        needed.may_be_in(&mut |into, at| blob.read_at_exact(into, at).is_ok())
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
    /// Loads a row's chunk, from memory or from the database; false if it is not there any more. `newest`: it is worth keeping.
    fn load(
        &mut self,
        connection: &Connection,
        hot: Option<&HotWindow>,
        file: Identity,
        row: Row,
        newest: bool,
    ) -> rusqlite::Result<bool> {
        (self.row, self.damaged) = (Some(row), false);
        let key = Key { file, chunk: row.id, first_position: row.first_position, last_position: row.last_position };
        if let Some(chunk) = hot.and_then(|hot| hot.get(&key)) {
            self.chunk = chunk;
            return Ok(true);
        }
        // The buffer is used again, unless somebody keeps it.
        if Arc::get_mut(&mut self.chunk).is_none() {
            self.chunk = Arc::default();
        }
        let Some(chunk) = Arc::get_mut(&mut self.chunk) else { return Ok(false) };
        let mut find = connection.prepare_cached("SELECT blob FROM chunk WHERE id = ?1 AND first_position = ?2")?;
        let load = |r: &SqlRow<'_>| Ok(chunk.load(r.get_ref(0)?.as_blob().unwrap_or_default()));
        let Some(loaded) = find.query_row((row.id, signed(row.first_position)), load).optional()? else {
            self.row = None;
            return Ok(false);
        };
        self.damaged = loaded.is_err();
        if let (Some(hot), false) = (hot, self.damaged) {
            hot.put(key, &self.chunk, newest);
        }
        Ok(true)
    }

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
            first_position: column(1)?,
            last_position: column(2)?,
            first_unix_ns: column(3)?,
            last_unix_ns: column(4)?,
            lines: column(5)?,
            gaps: column(6)?,
            raw_bytes: column(7)?,
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
