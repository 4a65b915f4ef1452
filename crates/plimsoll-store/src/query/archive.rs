//! Sealed chunks, read from any process. Every look at the database is one short transaction, over before anything is handed out: a
//! reader that stands still (a pager) keeps no old state of the database alive.
//!
//! Memory: one decompressed chunk per stream, each at most 16 MiB, usually 1 to 2, and those that are opened ahead ([`super::ahead`]),
//! besides the hot window; nothing between two calls.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::ahead::{self, Opened, Opener, Queue};
use super::rows::{self, Blobs, Filters, Row};
use crate::chunk::{Item, Unpacker};
use crate::hot::HotWindow;
use crate::query::Query;
use crate::schema::{self, BUSY, Position, failed, signed};
use crate::{StoreError, Stream};

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
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// A stream on its way forwards.
#[derive(Default)]
struct Lane {
    /// The chunk that is being read.
    head: Option<Opened>,
    queue: Queue,
    /// What is not on its way yet ends here or behind.
    next: u64,
}

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
        Ok(Some(Archive { connection, path: path.to_path_buf(), identity, frozen: None, bare, hot: None }))
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

    /// Hands out what is sealed at `from` or behind it, in the order of positions, up to `horizon`. Lines without `query`'s pattern are
    /// left out; time, level and stream are for the caller to judge. A chunk before the horizon that `by_row` takes is not opened.
    pub(crate) fn walk(
        &mut self,
        query: &Query,
        (from, horizon): (u64, u64),
        by_row: &mut dyn FnMut(&Row) -> bool,
        each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
    ) -> Result<Walked, StoreError> {
        let mut by_row = |row: &Row| row.last_position < horizon && by_row(row);
        let mut lanes = Stream::ALL.map(|_| Lane { next: from, ..Lane::default() });
        let mut wanted = [from; 3];
        std::thread::scope(|scope| {
            let hot = (self.hot.as_deref(), self.identity);
            let mut opener = Opener::new(scope, query.pattern.as_ref(), hot, false);
            loop {
                let sealed = self.look(query, &mut lanes, &mut opener, &mut by_row).map_err(failed(&self.path))?;
                for lane in lanes.iter_mut().filter(|lane| lane.head.is_none()) {
                    lane.head = opener.take(&mut lane.queue);
                }
                if lanes.iter().all(|lane| lane.head.is_none()) {
                    return Ok(Walked::All(sealed));
                }
                match merge(&lanes, &mut wanted, horizon, each) {
                    Merged::End(end) => return Ok(end),
                    Merged::Through(stream) => {
                        if let Some(read) = lanes[stream.index()].head.take() {
                            opener.give_back(read);
                        }
                    }
                }
            }
        })
    }

    /// Sends for each stream's next chunks, in one transaction: those that have nothing for `query`, or are taken by `by_row`, are passed
    /// over. Chunks that appear later lie behind all that are there now: a seal writes all streams up to one position. So whenever
    /// one stream is looked at, all are that have nothing on its way.
    fn look(
        &self,
        query: &Query,
        lanes: &mut [Lane; 3],
        opener: &mut Opener<'_, '_>,
        by_row: &mut dyn FnMut(&Row) -> bool,
    ) -> rusqlite::Result<Position> {
        let read = self.connection.unchecked_transaction()?;
        let (mut filters, mut blobs) = (Filters::new(&read, query, self.bare), Blobs::chunks(&read));
        let find = format!("{} AND last_position >= ?5 ORDER BY last_position", rows::select_matching(self.bare));
        for stream in Stream::ALL.into_iter().filter(|stream| query.takes_stream(*stream)) {
            let on_their_way: usize = lanes.iter().map(|lane| lane.queue.len()).sum();
            let lane = &mut lanes[stream.index()];
            let has_none = lane.head.is_none() && lane.queue.len() == 0;
            let mut most = opener.ahead().saturating_sub(on_their_way).max(usize::from(has_none));
            if most == 0 {
                continue;
            }
            let mut find = read.prepare_cached(&find)?;
            let (since, until, level) = rows::bounds(query);
            let mut rows = find.query((stream.number(), since, until, level, signed(lane.next)))?;
            while let Some(row) = rows.next()?.map(Row::read).transpose()? {
                let from = std::mem::replace(&mut lane.next, row.last_position + 1);
                let is_new = row.first_position >= from;
                if (is_new && by_row(&row)) || !filters.may_match(&row) {
                    continue;
                }
                opener.open(row, from, &mut lane.queue, &mut blobs)?;
                most -= 1;
                if most == 0 {
                    break;
                }
            }
        }
        schema::position(&read)
    }

    /// Loads the newest chunks into the hot window, newest first, until one finds no room there or `bytes` of them were loaded.
    pub(crate) fn warm(&mut self, bytes: u64) -> Result<Coverage, StoreError> {
        let Some(hot) = self.hot.as_deref() else { return Ok(Coverage::default()) };
        self.load_newest(hot, bytes).map_err(failed(&self.path))
    }

    fn load_newest(&self, hot: &HotWindow, bytes: u64) -> rusqlite::Result<Coverage> {
        let mut covered = Coverage { complete: true, ..Coverage::default() };
        let read = self.connection.unchecked_transaction()?;
        let (mut blobs, mut unpacker) = (Blobs::chunks(&read), Unpacker::default());
        let mut find = read.prepare_cached(&rows::select_all("DESC"))?;
        let mut rows = find.query([])?;
        let mut loaded = 0;
        while let Some(row) = rows.next()?.map(Row::read).transpose()? {
            covered.of_chunks += 1;
            if !covered.complete {
                continue;
            }
            let key = ahead::key(self.identity, &row);
            if !hot.has(&key) {
                let before = hot.held_bytes();
                let chunk = ahead::load(&row, &mut blobs, &mut unpacker)?;
                let kept = chunk.is_some_and(|chunk| hot.put(key, &chunk, false));
                loaded += hot.held_bytes().saturating_sub(before);
                covered.complete = kept && loaded <= bytes;
                if !kept {
                    continue;
                }
            }
            covered.chunks += 1;
            covered.from_unix_ns = Some(covered.from_unix_ns.unwrap_or(u64::MAX).min(row.first_unix_ns));
        }
        covered.complete &= covered.chunks == covered.of_chunks;
        Ok(covered)
    }

    /// Hands out entries before `below`, from the newest chunk backwards: chunk by chunk, forwards inside each, until `enough` says that
    /// nothing at or before a position is wanted any more. What is left out is what [`Archive::walk`] leaves out.
    pub(crate) fn walk_back(
        &mut self,
        query: &Query,
        below: u64,
        each: &mut dyn FnMut(Stream, Item<'_>),
        enough: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StoreError> {
        // Of each stream: chunks on their way, and before which position to look for the one after them.
        let mut lanes = Stream::ALL.map(|_| (Queue::default(), below));
        std::thread::scope(|scope| {
            let hot = (self.hot.as_deref(), self.identity);
            let mut opener = Opener::new(scope, query.pattern.as_ref(), hot, true);
            loop {
                self.look_back(query, &mut lanes, &mut opener).map_err(failed(&self.path))?;
                let next = |stream: &Stream| lanes[stream.index()].0.next().map(|row| row.last_position);
                let newest = Stream::ALL.into_iter().filter_map(|stream| Some((next(&stream)?, stream)));
                let Some((position, stream)) = newest.max_by_key(|(position, _)| *position) else { return Ok(()) };
                if enough(position) {
                    return Ok(());
                }
                let Some(opened) = opener.take(&mut lanes[stream.index()].0) else { return Ok(()) };
                for item in opened.entries().filter(|item| item.position < below) {
                    each(stream, item);
                }
                opener.give_back(opened);
            }
        })
    }

    /// Sends for each stream's newest chunks with entries before where it is that may be wanted.
    fn look_back(
        &self,
        query: &Query,
        lanes: &mut [(Queue, u64); 3],
        opener: &mut Opener<'_, '_>,
    ) -> rusqlite::Result<()> {
        let read = self.connection.unchecked_transaction()?;
        let (mut filters, mut blobs) = (Filters::new(&read, query, self.bare), Blobs::chunks(&read));
        let find = format!("{} AND last_position < ?5 ORDER BY last_position DESC", rows::select_matching(self.bare));
        for stream in Stream::ALL.into_iter().filter(|stream| query.takes_stream(*stream)) {
            let on_their_way: usize = lanes.iter().map(|(queue, _)| queue.len()).sum();
            let (queue, low) = &mut lanes[stream.index()];
            let mut most = opener.ahead().saturating_sub(on_their_way).max(usize::from(queue.len() == 0));
            if *low == 0 || most == 0 {
                continue;
            }
            // A chunk with entries on both sides: it was merged from several meanwhile, or the call began inside it.
            let mut across = read.prepare_cached(&rows::select_first())?;
            let across = across.query_row((stream.number(), signed(*low)), Row::read).optional()?;
            if let Some(row) = across.filter(|row| row.first_position < *low) {
                *low = row.first_position;
                opener.open(row, 0, queue, &mut blobs)?;
                most -= 1;
            }
            let mut find = read.prepare_cached(&find)?;
            let (since, until, level) = rows::bounds(query);
            let mut rows = find.query((stream.number(), since, until, level, signed(*low)))?;
            while most > 0 {
                let Some(row) = rows.next()?.map(Row::read).transpose()? else {
                    *low = 0;
                    break;
                };
                *low = row.first_position;
                if filters.may_match(&row) {
                    opener.open(row, 0, queue, &mut blobs)?;
                    most -= 1;
                }
            }
        }
        Ok(())
    }
}

/// How far the chunks at hand went.
enum Merged {
    End(Walked),
    /// This stream's is read to its end.
    Through(Stream),
}

/// Hands out the opened chunks' entries from the wanted positions on, until one of the chunks is read to its end.
fn merge(
    lanes: &[Lane; 3],
    wanted: &mut [u64; 3],
    horizon: u64,
    each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
) -> Merged {
    let mut entries = Stream::ALL.map(|stream| {
        let head = &lanes[stream.index()].head;
        let from = head.as_ref().map_or(0, |opened| opened.from).max(wanted[stream.index()]);
        let entries = head.iter().flat_map(Opened::entries);
        entries.skip_while(move |item| item.position < from).peekable()
    });
    loop {
        let mut first: Option<(Stream, u64)> = None;
        for stream in Stream::ALL {
            let at = stream.index();
            let Some(opened) = &lanes[at].head else { continue };
            let Some(item) = entries[at].peek() else {
                wanted[at] = opened.row.last_position + 1;
                return Merged::Through(stream);
            };
            if first.is_none_or(|(_, position)| item.position < position) {
                first = Some((stream, item.position));
            }
        }
        let Some((stream, position)) = first.filter(|(_, position)| *position < horizon) else {
            return Merged::End(Walked::Horizon);
        };
        if let Some(item) = entries[stream.index()].next()
            && each(stream, item).is_break()
        {
            return Merged::End(Walked::Enough(position));
        }
        wanted[stream.index()] = position + 1;
    }
}

fn may_not_make_files(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE};
    // On a full disk the shared memory of the log cannot be made as large as it must be.
    let shared_memory = [SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_SHMMAP];
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
        || error.sqlite_error().is_some_and(|e| shared_memory.contains(&e.extended_code))
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
