//! Reading the log: sealed chunks, then what is not sealed yet, from any process, while a supervisor runs or after it died. A reader
//! takes no lock that a supervisor could wait for, and writes nothing.
//!
//! Every entry has a *position*: one number, unique in its directory, rising in the order in which entries were complete. It decides the
//! order across streams, and a [`Cursor`] is one: reading on from where the last call ended gives every entry once, also while its
//! frame moves from the ring to the spool and into a chunk.
//!
//! What it costs: [`Reader::tail`] and [`Reader::read_back`] open chunks from the newest back until it has enough, so it does not depend on how much there is;
//! [`Reader::read`] with the cursor of the call before goes on in ring and spool without looking at the database, unless so much was
//! written that it is sealed. Memory: one chunk per stream (1 to 2 MiB each) while chunks are read, in a long scan up to eight more that threads of its own have
//! opened ahead, 1 MiB for a copy of the ring, and each stream's unfinished line; of a [`HotWindow`] that readers share, what it says.

mod ahead;
mod archive;
mod entry;
mod live;
mod newest;
mod pattern;
mod rows;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::entry::{Counted, Entry, EntryKind, Query};
use self::entry::{item, offer};
use self::newest::Newest;
pub use self::pattern::{DEFAULT_PATTERN_BYTES, Find, Pattern};
use crate::chunk::Item;
use crate::frame::{Frame, GAP_BYTES, Kind};
use crate::query::archive::Archive;
pub use crate::query::archive::Coverage;
use crate::query::live::Live;
use crate::query::rows::Row;
use crate::recover::unknown;
use crate::retain::DATABASE_FILE;
use crate::ring::{at, pending_gap};
use crate::schema::Position;
use crate::split::{Found, Resume, Splitter};
use crate::{DEFAULT_MAX_LINE_BYTES, GapReason, HotWindow, StoreError, Stream, clock};

/// A place between two entries: everything before it was handed out. Stays valid in later processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(u64);

impl Cursor {
    /// The cursor before the first entry whose [`Entry::position`] is `position` or more.
    pub fn at(position: u64) -> Cursor {
        Cursor(position)
    }

    /// The number that [`Cursor::at`] makes this cursor of.
    pub fn position(self) -> u64 {
        self.0
    }
}

/// Reads one directory's log. Keeps at most one file of the database and the ring's header open.
pub struct Reader {
    database: PathBuf,
    live: Live,
    archive: Option<Archive>,
    hot: Option<Arc<HotWindow>>,
    /// Where the last call ended, to go on without looking at the database.
    follow: Option<Follow>,
}

/// Splits what is not sealed; stands behind the last frame that was read.
struct Follow {
    splitter: Splitter,
    position: u64,
    /// When each stream's last bytes came.
    last_unix_ns: [u64; 3],
}

/// How often [`Reader::pending`] reads on before it takes what a writer that never rests has not finished as it is.
const PENDING_TRIES: usize = 64;

/// Where a scan of spool and ring ended.
enum Scanned {
    /// There is no more.
    End,
    /// The frames that should follow were sealed and freed meanwhile: they are in the database now.
    Sealed,
    Enough,
}

/// How far sealing has come in the database at `path`, as a reader sees it; nowhere if there is none yet.
pub(crate) fn sealed_position(path: &Path) -> Result<Position, StoreError> {
    Archive::open(path)?.map_or(Ok(Position::default()), |archive| archive.position())
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the log of one source for reading. That there is no database yet, or no ring any more, is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory is not there or not readable; [`StoreError::Version`] if another version wrote the database;
    /// [`StoreError::Database`] if SQLite cannot read it.
    pub fn open(dir: &Path) -> Result<Reader, StoreError> {
        Reader::open_with(dir, None)
    }

    /// The same, with a window of decompressed chunks that readers of one process share.
    ///
    /// # Errors
    /// As [`Reader::open`].
    ///
    /// # Examples
    /// ```
    /// use std::{ops::ControlFlow, sync::Arc};
    /// use plimsoll_store::{HotWindow, Query, Reader};
    ///
    /// let place = tempfile::tempdir()?;
    /// let hot = Arc::new(HotWindow::default());
    /// let mut reader = Reader::open_with(place.path(), Some(hot.clone()))?;
    /// // At the start: load the newest 4 MiB, answer, load more. What is not in memory is read from disk, so no answer lacks anything.
    /// let coverage = reader.warm(4 << 20)?;
    /// reader.tail(&Query::default(), 10, &mut |_| ControlFlow::Continue(()))?;
    /// assert!(coverage.complete, "there is no log yet");
    /// // Somebody is short of memory.
    /// assert_eq!(hot.give_back(hot.held_bytes()), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_with(dir: &Path, hot: Option<Arc<HotWindow>>) -> Result<Reader, StoreError> {
        std::fs::read_dir(dir).map_err(StoreError::io("open", dir))?;
        let mut reader =
            Reader { database: dir.join(DATABASE_FILE), live: Live::new(dir), archive: None, hot, follow: None };
        reader.sealed()?;
        reader.live.refresh()?;
        Ok(reader)
    }

    /// Hands out the entries that `query` wants, oldest first: from the beginning, or from a cursor on. Ends at what was the newest
    /// entry when it began, or when `sink` breaks; the cursor that it returns is where to go on. To follow a log, call again with it.
    ///
    /// A line without its line end is not complete, so not handed out; see [`Reader::pending`].
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Database`] if files cannot be read (a database that stays locked for 2 s among them). A
    /// damaged chunk or spool segment is not an error but a gap. The entries that were handed out before stay right: go on from the
    /// position of the last one.
    pub fn read(
        &mut self,
        query: &Query,
        from: Option<Cursor>,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Cursor, StoreError> {
        self.read_but(query, from, &mut |_| false, sink)
    }

    /// How many entries [`Reader::read`] would hand out from the beginning. Chunks whose rows say so are not opened: those that lie whole
    /// in the time that is asked for, as long as no pattern is, and have lines of the levels that are asked for only, or none.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn count(&mut self, query: &Query) -> Result<Counted, StoreError> {
        let (mut by_row, mut read) = (Counted::default(), Counted::default());
        let mut take_row = |row: &Row| row.counted(query).inspect(|counted| by_row.add(*counted)).is_some();
        self.read_but(query, None, &mut take_row, &mut |entry| {
            read.count(&entry);
            ControlFlow::Continue(())
        })?;
        read.add(by_row);
        Ok(read)
    }

    /// Reads; what lies in chunks whose rows `by_row` takes is not handed out.
    fn read_but(
        &mut self,
        query: &Query,
        from: Option<Cursor>,
        by_row: &mut dyn FnMut(&Row) -> bool,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Cursor, StoreError> {
        self.live.refresh()?;
        let horizon = self.live.horizon();
        let mut next = from.map_or(0, |cursor| cursor.0);
        let mut follow = self.follow.take().filter(|follow| follow.position == next && from.is_some());
        loop {
            let mut scan = match follow.take() {
                Some(follow) => follow,
                None => match self.archived(query, &mut next, horizon, by_row, sink)? {
                    Some(follow) => follow,
                    None => return Ok(Cursor(next)),
                },
            };
            let mut last = next;
            let scanned = self.scan(&mut scan, horizon, &mut |stream, item| {
                if item.position < next {
                    return ControlFlow::Continue(());
                }
                last = item.position;
                offer(query, stream, item, sink)
            })?;
            match scanned {
                Scanned::End => {
                    let end = Cursor(scan.position);
                    self.follow = Some(scan);
                    return Ok(end);
                }
                Scanned::Enough => return Ok(Cursor(last + 1)),
                Scanned::Sealed => next = next.max(scan.position),
            }
        }
    }

    /// Hands out the newest `n` entries that `query` wants, oldest first. Costs what it takes to find them, however much there is; keeps
    /// a copy of these `n` entries meanwhile. The cursor is behind the newest entry of all.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn tail(
        &mut self,
        query: &Query,
        n: usize,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Cursor, StoreError> {
        let (newest, end) = self.newest(query, n, u64::MAX)?;
        for entry in newest.entries() {
            if sink(entry).is_break() {
                return Ok(Cursor(entry.position + 1));
            }
        }
        Ok(Cursor(end))
    }

    /// Hands out the newest `n` entries that `query` wants and that lie before a cursor (`None`: before the end), newest first. The cursor
    /// that it returns lies before the last one handed out: go on there for the next page. `None`: there are no more. Costs what
    /// [`Reader::tail`] costs.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_back(
        &mut self,
        query: &Query,
        before: Option<Cursor>,
        n: usize,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Cursor>, StoreError> {
        let (newest, _) = self.newest(query, n, before.map_or(u64::MAX, |cursor| cursor.0))?;
        let mut next = None;
        for entry in newest.entries().rev() {
            next = Some(Cursor(entry.position));
            if sink(entry).is_break() {
                break;
            }
        }
        Ok(next)
    }

    /// Loads the newest chunks into the hot window, newest first: at most about `bytes` at a call, and only what there is room for. Says
    /// what is there afterwards. Answers do not depend on it: what is not in memory is read.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the database cannot be read.
    pub fn warm(&mut self, bytes: u64) -> Result<Coverage, StoreError> {
        self.sealed()?;
        match self.archive.as_mut() {
            Some(archive) => archive.warm(bytes),
            None => Ok(Coverage { complete: true, ..Coverage::default() }),
        }
    }

    /// The newest `n` entries before `below`, and where the end was.
    fn newest(&mut self, query: &Query, n: usize, below: u64) -> Result<(Newest, u64), StoreError> {
        self.live.refresh()?;
        let horizon = self.live.horizon().min(below);
        let mut newest = Newest::new(n, below);
        let mut end = below;
        while lowest(&self.sealed()?.resume) < below {
            let mut scan = self.unsealed()?;
            let scanned = self.scan(&mut scan, horizon, &mut |stream, item| {
                newest.offer(query, stream, item);
                ControlFlow::Continue(())
            })?;
            if !matches!(scanned, Scanned::Sealed) {
                end = scan.position;
                if below == u64::MAX {
                    self.follow = Some(scan);
                }
                break;
            }
        }
        if let Some(archive) = self.archive.as_mut().filter(|_| n > 0) {
            let newest = std::cell::RefCell::new(&mut newest);
            let rest = query.without_pattern();
            archive.walk_back(
                query,
                below,
                &mut |stream, item| newest.borrow_mut().offer(&rest, stream, item),
                &mut |position| newest.borrow().has_all_from(position),
            )?;
        }
        Ok((newest, end))
    }

    /// Hands out what is known but not final, after a `read` or `tail` that reached the end: each stream's gap that is still growing,
    /// then its unfinished line (as `unterminated`). They have no place of their own in the order: their position is where reading
    /// ended, and a later call hands them out again once they are complete. What became complete since that `read` is handed out
    /// first, so that nothing is told twice or missing while a writer goes on. For output that ends, not for following.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn pending(
        &mut self,
        query: &Query,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut notes = [None; Stream::ALL.len()];
        for _ in 0..PENDING_TRIES {
            self.live.refresh()?;
            let Some(position) = self.follow.as_ref().map(|follow| follow.position) else { return Ok(()) };
            notes =
                Stream::ALL.map(|stream| self.live.ring().and_then(|ring| pending_gap(&|word| ring.get(word), stream)));
            // The writer commits a gap's frame before it says that the gap is written: with the end where it was, none was.
            if self.live.ring().is_none() || self.live.horizon() <= position {
                break;
            }
            let mut enough = false;
            let mut on = |entry: Entry<'_>| {
                let flow = sink(entry);
                enough = flow.is_break();
                flow
            };
            self.read(query, Some(Cursor(position)), &mut on)?;
            if enough {
                return Ok(());
            }
        }
        let Some(follow) = self.follow.as_ref() else { return Ok(()) };
        for (stream, gap) in Stream::ALL.into_iter().zip(notes) {
            let (found, at_unix_ns) = match (gap, follow.splitter.unfinished(stream)) {
                (Some(note), _) => (follow.splitter.gap_found(stream, note), note.to_unix_ns),
                (None, Some(text)) => {
                    let found = Found::Line { text, continued: false, unterminated: true };
                    (found, follow.last_unix_ns[stream.index()])
                }
                (None, None) => continue,
            };
            if offer(query, stream, item(follow.position, at_unix_ns, found), sink).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How long ago the supervisor said that it lives; `None` if it never did, or its ring is gone (it closed the log, or the machine
    /// restarted).
    ///
    /// # Errors
    /// [`StoreError::Io`] if `ring.path` or the ring cannot be read.
    pub fn heartbeat_age(&mut self) -> Result<Option<Duration>, StoreError> {
        self.live.refresh()?;
        let beat = self.live.ring().map_or(0, |ring| ring.get(at::HEARTBEAT));
        Ok((beat > 0).then(|| clock::monotonic().saturating_sub(Duration::from_nanos(beat))))
    }

    /// Hands out what is sealed from `next` on, then says how to go on; `None`: not at all, `next` is the cursor.
    fn archived(
        &mut self,
        query: &Query,
        next: &mut u64,
        horizon: u64,
        by_row: &mut dyn FnMut(&Row) -> bool,
        sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Follow>, StoreError> {
        let rest = query.without_pattern();
        loop {
            let mut sealed = self.sealed()?;
            if let Some(archive) = self.archive.as_mut() {
                let mut each = |stream, item: Item<'_>| offer(&rest, stream, item, sink);
                match archive.walk(query, (*next, horizon), by_row, &mut each)? {
                    archive::Walked::All(position) => sealed = position,
                    archive::Walked::Horizon => {
                        *next = horizon;
                        return Ok(None);
                    }
                    archive::Walked::Enough(position) => {
                        *next = position + 1;
                        return Ok(None);
                    }
                }
            }
            // Otherwise more was sealed meanwhile; what was handed out lies before where sealing had come to.
            if let Some(follow) = self.start(sealed)? {
                return Ok(Some(follow));
            }
        }
    }

    /// Stands where the unsealed part begins.
    fn unsealed(&mut self) -> Result<Follow, StoreError> {
        loop {
            let sealed = self.sealed()?;
            if let Some(follow) = self.start(sealed)? {
                return Ok(follow);
            }
        }
    }

    /// How far sealing has come; nowhere if there is no database.
    fn sealed(&mut self) -> Result<Position, StoreError> {
        if !self.archive.as_ref().is_some_and(Archive::is_still) {
            self.archive = Archive::open(&self.database)?.map(|archive| archive.with_hot(self.hot.clone()));
        }
        self.archive.as_ref().map_or(Ok(Position::default()), Archive::position)
    }

    /// Stands where `sealed` says. Where it says nothing (no seal yet, or a lost database), that is the oldest frame there is, by the
    /// sealer's own rule; `None` if a seal came in between, so that the oldest frame may not be the one after the last sealed.
    fn start(&mut self, sealed: Position) -> Result<Option<Follow>, StoreError> {
        let mut resume = sealed.resume;
        if resume.contains(&Resume::default()) {
            let (oldest, tail) = self.live.oldest()?;
            if self.sealed()? != sealed {
                return Ok(None);
            }
            if oldest > 0 {
                let skipping = tail.is_none_or(|tail| oldest < tail);
                for from in resume.iter_mut().filter(|from| **from == Resume::default()) {
                    *from = Resume { frame: oldest, byte: 0, skipping };
                }
            }
        }
        let max_line_bytes = if sealed.max_line_bytes == 0 { DEFAULT_MAX_LINE_BYTES } else { sealed.max_line_bytes };
        let splitter = Splitter::new(max_line_bytes, resume);
        Ok(Some(Follow { splitter, position: lowest(&resume), last_unix_ns: [0; 3] }))
    }

    /// Hands out what is complete from `follow` on, up to `horizon`.
    fn scan(
        &mut self,
        follow: &mut Follow,
        horizon: u64,
        each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        loop {
            let walked =
                self.live.walk(follow.position, horizon, &mut |frame, payload| follow.take(frame, payload, each))?;
            match walked {
                live::Walked::End => return Ok(Scanned::End),
                live::Walked::Enough => return Ok(Scanned::Enough),
                live::Walked::Hole => {}
            }
            // A segment is freed only after what it holds was sealed.
            if lowest(&self.sealed()?.resume) > follow.position {
                return Ok(Scanned::Sealed);
            }
            let Some(behind) = self.live.behind(follow.position)? else { return Ok(Scanned::End) };
            if follow.lost(behind, each).is_break() {
                return Ok(Scanned::Enough);
            }
        }
    }
}

impl Follow {
    fn take(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        self.splitter.feed(frame, payload, &mut |position, found| {
            if flow.is_continue() {
                flow = each(frame.stream, item(position, frame.at_unix_ns, found));
            }
        });
        self.position = frame.end();
        self.last_unix_ns[frame.stream.index()] = frame.at_unix_ns;
        flow
    }

    /// Frames from here to `behind` are missing: gaps of unknown count, the same that the sealer puts there.
    fn lost(&mut self, behind: u64, each: &mut dyn FnMut(Stream, Item<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let at_unix_ns = self.last_unix_ns.iter().copied().max().filter(|at| *at > 0).unwrap_or_else(clock::unix_ns);
        let mut note = unknown(GapReason::SpoolDamaged, at_unix_ns);
        note.open = true;
        let here = self.position;
        for (i, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let position = here + 8 * i as u64;
            let frame = Frame { kind: Kind::Gap, stream, flags: 0, len: GAP_BYTES, position, at_unix_ns };
            self.take(&frame, &note.encode(), each)?;
        }
        self.position = behind;
        ControlFlow::Continue(())
    }
}

fn lowest(resume: &[Resume; 3]) -> u64 {
    resume.iter().map(|from| from.frame).min().unwrap_or(0)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod live_tests;

#[cfg(test)]
mod pages_tests;

#[cfg(test)]
mod golden_tests;
